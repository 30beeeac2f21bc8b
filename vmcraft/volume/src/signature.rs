//! What a device's bytes say it holds: the types, labels and UUIDs that `blkid` would print.

use bstr::BString;
use vmcraft_block::BlockDevice;

use crate::Result;

/// What was recognised on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The type as `blkid` names it: `ext4`, `xfs`, `swap`, `LVM2_member`, `crypto_LUKS` …
    pub kind: &'static str,
    /// What such a thing is.
    pub usage: Usage,
    /// The label, empty if it has none.
    pub label: BString,
    /// The UUID as `blkid` prints it, empty if it has none.
    pub uuid: String,
}

/// What a recognised thing is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// A file system.
    FileSystem,
    /// Encrypted content.
    Crypto,
    /// A member of a RAID or volume group.
    Raid,
    /// Swap space and the like.
    Other,
}

/// Recognises what is on a device; `None` if nothing we know of is.
pub fn probe(_device: &dyn BlockDevice) -> Result<Option<Signature>> {
    Ok(None)
}
