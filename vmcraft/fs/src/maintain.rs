//! What is done to a file system that is not mounted: making, checking and resizing it.

use std::sync::Arc;

use bstr::BString;
use vmcraft_block::BlockDevice;

use crate::{Result, Sources};

/// How a file system is made. `None` is the format's own choice for the device's size.
#[derive(Debug, Clone, Default)]
pub struct FormatOptions {
    /// In bytes.
    pub block_size: Option<u32>,
    /// In bytes.
    pub inode_size: Option<u32>,
    /// How many inodes.
    pub inodes: Option<u32>,
    /// One inode for so many bytes.
    pub bytes_per_inode: Option<u64>,
    /// Features to add, or with `^` in front to leave out, by the names of the format's own mkfs.
    pub features: Vec<String>,
    /// Blocks for the superuser only, in percent of all.
    pub reserved_percent: Option<f64>,
    /// Bytes of the journal.
    pub journal_bytes: Option<u64>,
    /// The label.
    pub label: Option<BString>,
    /// The UUID.
    pub uuid: Option<[u8; 16]>,
    /// Blocks of the device to use; all of it without.
    pub blocks: Option<u64>,
    /// Where the time and random numbers come from.
    pub sources: Sources,
}

/// How large a file system is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResizeTo {
    /// As its device.
    Device,
    /// So many bytes, rounded down to whole blocks.
    Bytes(u64),
    /// As small as its content allows.
    Minimum,
}

/// Something that a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong and where, for people.
    pub what: String,
    /// Whether it was put right.
    pub repaired: bool,
}

/// What a check may do about what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CheckOptions {
    /// Put right what can be put right without losing anything that a user stored.
    pub repair: bool,
}

/// A driver's tools for a device on which its file system is, or shall be. The device is written
/// through, not flushed.
pub trait Maintain: Sync {
    /// Makes a file system of this kind, one of the driver's names.
    fn format(&self, device: &Arc<dyn BlockDevice>, kind: &str, options: &FormatOptions) -> Result<()>;

    /// Verifies everything that the driver knows how to verify. `Err` if it cannot be checked at all.
    fn check(&self, device: &Arc<dyn BlockDevice>, options: CheckOptions) -> Result<Vec<Finding>>;

    /// Makes the file system larger or smaller; says how many bytes it has then.
    fn resize(&self, device: &Arc<dyn BlockDevice>, to: ResizeTo, sources: &Sources) -> Result<u64>;

    /// What the superblock says, as names and values for people, named and ordered as by the format's
    /// own tool.
    fn describe(&self, device: &Arc<dyn BlockDevice>) -> Result<Vec<(&'static str, BString)>>;

    /// The smallest size in bytes to which `resize` can bring it.
    fn minimum_size(&self, device: &Arc<dyn BlockDevice>) -> Result<u64>;
}
