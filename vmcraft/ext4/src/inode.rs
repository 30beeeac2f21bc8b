//! Inodes.

use std::fmt;
use std::mem::{offset_of, size_of};
use std::ops::Range;
use std::sync::Arc;

use bitflags::bitflags;
use vmcraft_fs::{DeviceNumber, Error, FileType, InodeNumber, Metadata, Result, Timestamp};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::crc32c;
use crate::features::{Incompat, RoCompat};
use crate::superblock::{self, Superblock};
use crate::volume::{Block, Volume};
use crate::{corrupt, in_memory};

/// The root directory's inode.
pub(crate) const ROOT: u32 = 2;
/// Bytes of an inode that every revision has.
pub(crate) const BASE_SIZE: usize = 128;
/// Bytes of `i_block`, where the map of a file, a short target or inline data is.
pub(crate) const I_BLOCK_SIZE: usize = 60;
/// Where the low half of the version is in an inode.
pub(crate) const VERSION_START: usize = offset_of!(RawInode, version_lo);
/// Where `i_block` is in an inode.
pub(crate) const I_BLOCK_START: usize = offset_of!(RawInode, block);

/// An inode on disk: the 128 bytes that all have and the 32 that larger ones go on with,
/// little-endian. What is behind those is room for extended attributes.
///
/// Spec: Linux `Documentation/filesystems/ext4/inodes.rst`; fields have its names without `i_`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawInode {
    pub(crate) mode: U16,
    pub(crate) uid: U16,
    pub(crate) size_lo: U32,
    pub(crate) atime: U32,
    pub(crate) ctime: U32,
    pub(crate) mtime: U32,
    pub(crate) dtime: U32,
    pub(crate) gid: U16,
    pub(crate) links_count: U16,
    pub(crate) blocks_lo: U32,
    pub(crate) flags: U32,
    pub(crate) version_lo: U32,
    pub(crate) block: [u8; I_BLOCK_SIZE],
    pub(crate) generation: U32,
    pub(crate) file_acl_lo: U32,
    pub(crate) size_high: U32,
    pub(crate) obso_faddr: U32,
    pub(crate) blocks_high: U16,
    pub(crate) file_acl_high: U16,
    pub(crate) uid_high: U16,
    pub(crate) gid_high: U16,
    pub(crate) checksum_lo: U16,
    kept_7e: [u8; 2],
    /// How many of the bytes behind the first 128 hold fields.
    pub(crate) extra_isize: U16,
    pub(crate) checksum_hi: U16,
    pub(crate) ctime_extra: U32,
    pub(crate) mtime_extra: U32,
    pub(crate) atime_extra: U32,
    pub(crate) crtime: U32,
    pub(crate) crtime_extra: U32,
    pub(crate) version_hi: U32,
    pub(crate) projid: U32,
}
/// What of an inode's fields is behind its first 128 bytes.
pub(crate) const EXTRA_FIELDS: u16 = 32;
const _: () = assert!(BASE_SIZE + EXTRA_FIELDS as usize == RAW_SIZE);
/// Bytes of [`RawInode`].
pub(crate) const RAW_SIZE: usize = size_of::<RawInode>();
const _: () = assert!(RAW_SIZE == 160);
const _: () = assert!(offset_of!(RawInode, block) == 0x28);
const _: () = assert!(offset_of!(RawInode, size_high) == 0x6c);
const _: () = assert!(offset_of!(RawInode, checksum_lo) == 0x7c);
const _: () = assert!(offset_of!(RawInode, extra_isize) == BASE_SIZE);
const _: () = assert!(offset_of!(RawInode, crtime) == 0x90);

bitflags! {
    /// `i_flags`, as far as they are heeded here.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct InodeFlags: u32 {
        /// Nothing of it may change.
        const IMMUTABLE = 0x10;
        /// Content may only be added.
        const APPEND = 0x20;
        /// The content or the names are encrypted.
        const ENCRYPT = 0x800;
        /// A directory with an htree.
        const INDEX = 0x1000;
        /// Directories in it are spread as those in the root are.
        const TOPDIR = 0x2_0000;
        /// `i_blocks` counts file system blocks, not sectors.
        const HUGE_FILE = 0x4_0000;
        /// Mapped by extents.
        const EXTENTS = 0x8_0000;
        /// The content is protected by fs-verity.
        const VERITY = 0x10_0000;
        /// Holds the value of an extended attribute.
        const EA_INODE = 0x20_0000;
        /// The content is in the inode.
        const INLINE_DATA = 0x1000_0000;
        /// A directory that ignores letter case.
        const CASEFOLD = 0x4000_0000;
        const _ = !0;
    }
}

/// An inode, checked.
#[derive(Debug, Clone)]
pub(crate) struct Inode {
    pub(crate) number: u32,
    /// Where it is, in bytes of the volume.
    pub(crate) offset: u64,
    pub(crate) generation: u32,
    pub(crate) mode: u16,
    pub(crate) file_type: FileType,
    pub(crate) flags: InodeFlags,
    /// Bytes of content; below 2^63.
    pub(crate) size: u64,
    pub(crate) links: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Space taken, in units of 512 bytes.
    pub(crate) blocks_512: u64,
    pub(crate) accessed: Timestamp,
    pub(crate) changed: Timestamp,
    pub(crate) modified: Timestamp,
    pub(crate) created: Option<Timestamp>,
    /// The block of extended attributes; 0 for none.
    pub(crate) xattr_block: u64,
    pub(crate) block: [u8; I_BLOCK_SIZE],
    /// Bytes of fields behind the first 128, or 0: where extended attributes start.
    pub(crate) extra_size: u16,
    /// Where the checksums of what belongs to this inode start.
    pub(crate) checksum_seed: u32,
}

impl Inode {
    /// Checks inode `number`; `bytes` are all of it, `offset` where they are.
    pub(crate) fn decode(bytes: &[u8], sb: &Superblock, number: u32, offset: u64) -> Result<Self> {
        let inode = Self::decode_orphan(bytes, sb, number, offset)?;
        if inode.links == 0 {
            return Err(corrupt(format!("inode {number}: it is not in use"), offset));
        }
        Ok(inode)
    }

    /// [`Inode::decode`] for an inode that may have no name any more.
    pub(crate) fn decode_orphan(bytes: &[u8], sb: &Superblock, number: u32, offset: u64) -> Result<Self> {
        let raw: RawInode = zerocopy::transmute!(with_fields(bytes));
        let wrong =
            |what: &str, field: usize| corrupt(format!("inode {number}: {what}"), offset + field as u64);

        let extra_size = if bytes.len() > BASE_SIZE { raw.extra_isize.get() } else { 0 };
        if BASE_SIZE + usize::from(extra_size) > bytes.len() || !extra_size.is_multiple_of(4) {
            let what = format!("extra size of {extra_size} bytes in an inode of {}", bytes.len());
            return Err(wrong(&what, offset_of!(RawInode, extra_isize)));
        }
        let generation = raw.generation.get();
        let checksum_seed = checksum_seed(sb, number, generation);
        if sb.metadata_csum() {
            let (found, stored) = checksums(bytes, &raw, checksum_seed, extra_size);
            if found != stored {
                let what = format!("checksum is {stored:#x}, its content gives {found:#x}");
                return Err(wrong(&what, offset_of!(RawInode, checksum_lo)));
            }
        }

        let mode = raw.mode.get();
        if mode == 0 {
            return Err(wrong("it is not in use", 0));
        }
        let file_type = FileType::from_mode(u32::from(mode));
        if file_type == FileType::Unknown {
            return Err(wrong(&format!("mode {mode:#o} has no file type"), 0));
        }
        let flags = InodeFlags::from_bits_retain(raw.flags.get());
        let size_high = if file_type == FileType::Regular || sb.incompat.contains(Incompat::LARGEDIR) {
            raw.size_high.get()
        } else {
            0 // older file systems keep a directory's ACL there
        };
        let size = u64::from(size_high) << 32 | u64::from(raw.size_lo.get());
        if i64::try_from(size).is_err() {
            return Err(wrong(&format!("size of {size} bytes"), offset_of!(RawInode, size_high)));
        }

        // An inode that says it uses none of the room behind its 128 bytes has zeros there; the
        // kernel takes them for fields.
        let fields =
            if bytes.len() > BASE_SIZE && extra_size == 0 { RAW_SIZE - BASE_SIZE } else { extra_size.into() };
        let has = |field: usize| field + 4 <= BASE_SIZE + fields;
        let time =
            |seconds: U32, extra: U32, field: usize| timestamp(seconds, has(field).then_some(extra.get()));
        let xattr_block = if sb.incompat.contains(Incompat::SIXTY_FOUR_BIT) {
            u64::from(raw.file_acl_high.get()) << 32
        } else {
            0
        } | u64::from(raw.file_acl_lo.get());

        Ok(Self {
            number,
            offset,
            generation,
            mode,
            file_type,
            flags,
            size,
            links: raw.links_count.get(),
            uid: u32::from(raw.uid_high.get()) << 16 | u32::from(raw.uid.get()),
            gid: u32::from(raw.gid_high.get()) << 16 | u32::from(raw.gid.get()),
            blocks_512: space(&raw, flags, sb),
            accessed: time(raw.atime, raw.atime_extra, offset_of!(RawInode, atime_extra)),
            changed: time(raw.ctime, raw.ctime_extra, offset_of!(RawInode, ctime_extra)),
            modified: time(raw.mtime, raw.mtime_extra, offset_of!(RawInode, mtime_extra)),
            created: has(offset_of!(RawInode, crtime))
                .then(|| time(raw.crtime, raw.crtime_extra, offset_of!(RawInode, crtime_extra))),
            xattr_block,
            block: raw.block,
            extra_size,
            checksum_seed,
        })
    }

    /// It contradicts the format.
    pub(crate) fn corrupt(&self, what: impl fmt::Display) -> Error {
        corrupt(format!("inode {}: {what}", self.number), self.offset)
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.file_type == FileType::Directory
    }

    /// What `stat` would say.
    pub(crate) fn metadata(&self, sb: &Superblock) -> Metadata {
        // The kernel reports space for a file's inline data, lest `tar` take it for a hole.
        let inline = self.flags.contains(InodeFlags::INLINE_DATA) && self.file_type == FileType::Regular;
        Metadata {
            inode: InodeNumber(self.number.into()),
            file_type: self.file_type,
            permissions: u32::from(self.mode) & 0o7777,
            links: self.links.into(),
            uid: self.uid,
            gid: self.gid,
            device: self.device(),
            size_bytes: self.size,
            blocks_512: self.blocks_512 + if inline { self.size.div_ceil(512) } else { 0 },
            block_size: sb.block_size,
            accessed: self.accessed,
            modified: self.modified,
            changed: self.changed,
            created: self.created,
        }
    }

    fn device(&self) -> Option<DeviceNumber> {
        if !matches!(self.file_type, FileType::CharDevice | FileType::BlockDevice) {
            return None;
        }
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| self.block[at + i]));
        Some(match (word(0), word(4)) {
            // 12 bits of major and 20 of minor, the latter's low 8 first
            (0, new) => DeviceNumber { major: new >> 8 & 0xfff, minor: new & 0xff | new >> 12 & 0xf_ff00 },
            // 8 bits each
            (old, _) => DeviceNumber { major: old >> 8 & 0xff, minor: old & 0xff },
        })
    }
}

/// Where the checksums of what belongs to an inode start.
pub(crate) fn checksum_seed(sb: &Superblock, number: u32, generation: u32) -> u32 {
    crc32c(crc32c(sb.checksum_seed, &number.to_le_bytes()), &generation.to_le_bytes())
}

/// The checksum that the content gives, and the one that is stored.
pub(crate) fn checksums(bytes: &[u8], raw: &RawInode, seed: u32, extra_size: u16) -> (u32, u32) {
    const LOW: usize = offset_of!(RawInode, checksum_lo);
    const HIGH: usize = offset_of!(RawInode, checksum_hi);
    let mut crc = crc32c(seed, &bytes[..LOW]);
    crc = crc32c(crc, &[0, 0]);
    crc = crc32c(crc, &bytes[LOW + 2..bytes.len().min(HIGH)]);
    let low = u32::from(raw.checksum_lo.get());
    if bytes.len() <= BASE_SIZE {
        return (crc & 0xffff, low);
    }
    if BASE_SIZE + usize::from(extra_size) < HIGH + 2 {
        return (crc32c(crc, &bytes[HIGH..]) & 0xffff, low);
    }
    crc = crc32c(crc32c(crc, &[0, 0]), &bytes[HIGH + 2..]);
    (crc, u32::from(raw.checksum_hi.get()) << 16 | low)
}

/// Whether an inode, of which `bytes` are all, is that of a file with a name.
pub(crate) fn is_in_use(bytes: &[u8]) -> bool {
    let raw: RawInode = zerocopy::transmute!(with_fields(bytes));
    raw.mode.get() != 0 && raw.links_count.get() != 0
}

/// What a [`RawInode`] is read from: the bytes of an inode, with zeros behind a short one.
pub(crate) fn with_fields(bytes: &[u8]) -> [u8; RAW_SIZE] {
    let mut whole = [0; RAW_SIZE];
    let len = bytes.len().min(RAW_SIZE);
    whole[..len].copy_from_slice(&bytes[..len]);
    whole
}

/// The space taken, in units of 512 bytes.
fn space(raw: &RawInode, flags: InodeFlags, sb: &Superblock) -> u64 {
    let low = u64::from(raw.blocks_lo.get());
    if !sb.ro_compat.contains(RoCompat::HUGE_FILE) {
        return low;
    }
    let count = u64::from(raw.blocks_high.get()) << 32 | low;
    if flags.contains(InodeFlags::HUGE_FILE) { count * u64::from(sb.block_size / 512) } else { count }
}

/// `extra` has two more bits of seconds, so that they reach 2446, and 30 of nanoseconds.
fn timestamp(seconds: U32, extra: Option<u32>) -> Timestamp {
    let extra = extra.unwrap_or(0);
    Timestamp {
        seconds: i64::from(seconds.get().cast_signed()) + (i64::from(extra & 3) << 32),
        nanoseconds: (extra >> 2).min(999_999_999),
    }
}

impl Volume {
    /// An inode that a file or directory can have.
    pub(crate) fn inode(&self, number: InodeNumber) -> Result<Inode> {
        let number = u32::try_from(number.0).unwrap_or(u32::MAX);
        if number != ROOT && number < self.sb.first_inode {
            let (_, _, offset) = self.inode_bytes(number)?;
            return Err(corrupt(format!("inode {number}: it is reserved, but in use as a file"), offset));
        }
        self.any_inode(number)
    }

    /// An inode, those that the file system keeps for itself included.
    pub(crate) fn any_inode(&self, number: u32) -> Result<Inode> {
        let (block, range, offset) = self.inode_bytes(number)?;
        Inode::decode(&block.bytes[range], &self.sb, number, offset)
    }

    /// The bytes of an inode: the block that holds them, where in it, and where in the volume.
    pub(crate) fn inode_bytes(&self, number: u32) -> Result<(Arc<Block>, Range<usize>, u64)> {
        let (block, left, range) = self.inode_place(number)?;
        let offset = self.sb.byte_of(block) + range.start as u64;
        Ok((self.block_in_order(block, left, &self.inode_tables)?, range, offset))
    }

    /// Where an inode is: its block of the volume, how many blocks of the inode table are left from
    /// there on, and the bytes of the block.
    pub(crate) fn inode_place(&self, number: u32) -> Result<(u64, u64, Range<usize>)> {
        let sb = &self.sb;
        if number == 0 || number > sb.inodes {
            return Err(corrupt(format!("inode number {number} of {}", sb.inodes), superblock::START));
        }
        let (group, index) = ((number - 1) / sb.inodes_per_group, (number - 1) % sb.inodes_per_group);
        let table = self.group(group)?.inode_table;
        let byte = u64::from(index) * u64::from(sb.inode_size);
        let in_table = byte / u64::from(sb.block_size);
        let left = u64::from(sb.inode_table_blocks()) - in_table;
        let start = in_memory(byte % u64::from(sb.block_size));
        Ok((table + in_table, left, start..start + usize::from(sb.inode_size)))
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;
    use crate::superblock::RawSuperblock;

    #[test] // With the flag, space is in file system blocks: a count of sectors would not fit.
    fn space_of_huge_files() {
        let mut raw = RawSuperblock::new_zeroed();
        raw.magic = superblock::MAGIC.into();
        raw.log_block_size = 2.into();
        raw.blocks_count_lo = 100.into();
        raw.blocks_per_group = 32768.into();
        raw.inodes_per_group = 32.into();
        raw.inodes_count = 32.into();
        let mut sb = Superblock::decode(&raw, 1 << 20).unwrap();
        let mut inode = RawInode::new_zeroed();
        inode.blocks_lo = 7.into();
        inode.blocks_high = 1.into();
        assert_eq!(space(&inode, InodeFlags::HUGE_FILE, &sb), 7, "older file systems have other uses for it");
        sb.ro_compat |= RoCompat::HUGE_FILE;
        assert_eq!(space(&inode, InodeFlags::empty(), &sb), (1 << 32) + 7);
        assert_eq!(space(&inode, InodeFlags::HUGE_FILE, &sb), ((1 << 32) + 7) * 8);
    }

    #[test] // The four epochs of the specification's table.
    fn seconds_past_2038() {
        let seconds = |low: i32, epoch| timestamp(low.cast_unsigned().into(), Some(epoch)).seconds;
        assert_eq!(seconds(i32::MIN, 0), -0x8000_0000);
        assert_eq!(seconds(i32::MAX, 0), 0x7fff_ffff);
        assert_eq!(seconds(i32::MIN, 1), 0x8000_0000);
        assert_eq!(seconds(-1, 3), 0x2_ffff_ffff);
        let time = timestamp(5.into(), Some(123_456_789 << 2 | 1));
        assert_eq!(time, Timestamp { seconds: 5 + (1 << 32), nanoseconds: 123_456_789 });
    }
}
