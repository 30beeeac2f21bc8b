//! What a device's bytes say it holds: the types, labels and UUIDs that `blkid` would print.
//!
//! Each format is a row in `FORMATS` or `DEAR_FORMATS`. A row only recognises: whether the thing
//! can be opened is for its driver to say.

mod apple;
mod btrfs;
mod cluster;
mod encrypted;
mod erase;
mod exfat;
mod ext;
mod f2fs;
mod fat;
mod iso9660;
mod journaled;
mod lvm;
mod microsoft;
mod minix;
mod raid;
mod read_only;
mod reader;
mod swap;
mod udf;
mod ufs;
mod xfs;
mod zfs;

use bstr::BString;
use vmcraft_block::BlockDevice;

pub use erase::erase;

use crate::Result;
use reader::Reader;
pub(crate) use reader::crc32_from;

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
    /// What tells this device from others with the same UUID, such as the members of a Btrfs or an
    /// array; `blkid`'s `UUID_SUB`. Empty if there is no such thing.
    pub sub_uuid: String,
    /// The format's version as `blkid` prints it, empty if it has none.
    pub version: String,
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

impl Usage {
    /// As `blkid` names it: `filesystem`, `crypto`, `raid` or `other`.
    pub fn name(self) -> &'static str {
        match self {
            Self::FileSystem => "filesystem",
            Self::Crypto => "crypto",
            Self::Raid => "raid",
            Self::Other => "other",
        }
    }
}

/// What a row found out.
#[derive(Default)]
struct Found {
    label: BString,
    uuid: String,
    sub_uuid: String,
    version: String,
}

impl Found {
    fn signature(self, format: &Format) -> Signature {
        Signature {
            kind: format.kind,
            usage: format.usage,
            label: self.label,
            uuid: self.uuid,
            sub_uuid: self.sub_uuid,
            version: self.version,
        }
    }
}

/// One kind of signature.
struct Format {
    /// The type as `blkid` names it.
    kind: &'static str,
    usage: Usage,
    /// Whether it may stand beside another file system: an image that is ISO 9660 and UDF at once
    /// is no contradiction.
    tolerant: bool,
    /// The smallest device that can hold it, in bytes.
    min_bytes: u64,
    find: fn(&Reader<'_>) -> Result<Option<Found>>,
}

impl Format {
    const fn new(kind: &'static str, usage: Usage, find: fn(&Reader<'_>) -> Result<Option<Found>>) -> Self {
        Self { kind, usage, tolerant: false, min_bytes: 0, find }
    }

    const fn tolerant(self) -> Self {
        Self { tolerant: true, ..self }
    }

    const fn at_least(self, min_bytes: u64) -> Self {
        Self { min_bytes, ..self }
    }
}

/// What is looked for, in this order: a container before what shines through from inside it.
const FORMATS: &[Format] = &[
    raid::LINUX_RAID,
    raid::DDF,
    raid::INTEL,
    btrfs::BCACHE,
    btrfs::BCACHEFS,
    cluster::BLUESTORE,
    lvm::LVM2,
    lvm::SNAPSHOT,
    encrypted::VERITY,
    encrypted::INTEGRITY,
    encrypted::LUKS,
    cluster::VMFS_VOLUME,
    lvm::VDO,
    lvm::STRATIS,
    microsoft::BITLOCKER,
    apple::FILEVAULT,
    fat::FAT,
    swap::SUSPENDED,
    swap::SWAP,
    xfs::XFS,
    ext::EXT4DEV,
    ext::EXT4,
    ext::EXT3,
    ext::EXT2,
    ext::JBD,
    journaled::REISERFS,
    journaled::REISER4,
    journaled::JFS,
    udf::UDF,
    iso9660::ISO9660,
    apple::HFSPLUS,
    apple::HFS,
    ufs::UFS,
    microsoft::NTFS,
    microsoft::REFS,
    read_only::CRAMFS,
    read_only::ROMFS,
    minix::MINIX,
    cluster::GFS,
    cluster::GFS2,
    cluster::OCFS2,
    journaled::VXFS,
    read_only::SQUASHFS,
    read_only::SQUASHFS3,
    btrfs::BTRFS,
    cluster::VMFS,
    journaled::BEFS,
    journaled::NILFS2,
    exfat::EXFAT,
    f2fs::F2FS,
    apple::APFS,
    read_only::EROFS,
];

/// What is looked for only where nothing of [`FORMATS`] is: these take reads far into the device, or
/// large ones.
const DEAR_FORMATS: &[Format] = &[encrypted::LUKS2_BACKUP, xfs::XFS_LOG, zfs::ZFS];

/// Up to this size, a device is taken for a floppy disk: its first signature is believed, and it is
/// not a member of a RAID.
const TINY_BYTES: u64 = 1440 * 1024;

/// Recognises what is on a device; `None` if nothing we know of is, or if two file systems are.
///
/// An encrypted or RAID signature wins over file systems, which are then its content.
///
/// # Errors
/// The device could not be read.
pub fn probe(device: &dyn BlockDevice) -> Result<Option<Signature>> {
    // An extended partition has 1024 bytes, as in the kernel.
    if device.size() <= 1024 {
        return Ok(None);
    }
    let reader = Reader::new(device)?;
    match probe_table(FORMATS, &reader)? {
        Verdict::Nothing => match probe_table(DEAR_FORMATS, &reader)? {
            Verdict::One(signature) => Ok(Some(signature)),
            Verdict::Nothing | Verdict::Several => Ok(None),
        },
        Verdict::One(signature) => Ok(Some(signature)),
        Verdict::Several => Ok(None),
    }
}

/// Recognises what makes a device a member of a volume, or encrypted; `None` if it is nothing of that
/// kind. It gives what [`probe`] gives for such a device, and takes fewer reads; but a member of a Linux RAID
/// may be of any size.
///
/// # Errors
/// The device could not be read.
pub fn probe_container(device: &dyn BlockDevice) -> Result<Option<Signature>> {
    if device.size() <= 1024 {
        return Ok(None);
    }
    let reader = Reader::new(device)?;
    let is_tiny = reader.size() <= TINY_BYTES;
    for format in FORMATS {
        let is_wanted = match format.usage {
            // mdadm takes small members, too, and to write to one alone would part it from the others.
            Usage::Raid => !is_tiny || format.kind == raid::LINUX_RAID.kind,
            Usage::Crypto => true,
            Usage::FileSystem | Usage::Other => false,
        };
        if is_wanted
            && reader.size() >= format.min_bytes
            && let Some(found) = (format.find)(&reader)?
        {
            return Ok(Some(found.signature(format)));
        }
    }
    Ok(None)
}

enum Verdict {
    Nothing,
    One(Signature),
    Several,
}

fn probe_table(formats: &[Format], reader: &Reader<'_>) -> Result<Verdict> {
    let is_tiny = reader.size() <= TINY_BYTES;
    let mut first = None;
    let (mut count, mut intolerant) = (0, 0);
    for format in formats {
        if reader.size() < format.min_bytes || (is_tiny && format.usage == Usage::Raid) {
            continue;
        }
        let Some(found) = (format.find)(reader)? else { continue };
        let signature = found.signature(format);
        let is_container = matches!(format.usage, Usage::Raid | Usage::Crypto);
        if is_tiny || (is_container && count == 0) {
            return Ok(Verdict::One(signature));
        }
        count += 1;
        intolerant += u32::from(!format.tolerant);
        first.get_or_insert(signature);
        if is_container {
            break;
        }
    }
    Ok(match first {
        None => Verdict::Nothing,
        Some(_) if count > 1 && intolerant > 0 => Verdict::Several,
        Some(signature) => Verdict::One(signature),
    })
}
