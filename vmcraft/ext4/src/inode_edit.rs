//! Inodes that change.

use std::mem::offset_of;

use vmcraft_fs::{Error, FileType, NewInode, Result, Timestamp};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use crate::features::{Incompat, RoCompat};
use crate::inode::{
    BASE_SIZE, I_BLOCK_SIZE, Inode, InodeFlags, RAW_SIZE, RawInode, checksum_seed, checksums, with_fields,
};
use crate::superblock::Superblock;
use crate::volume::Volume;

/// Flags of a directory that what is made in it gets.
const INHERITED: u32 =
    SECRM | UNRM | COMPR | SYNC | NODUMP | NOATIME | NOCOMPR | JOURNAL_DATA | NOTAIL | DIRSYNC;
/// Of these, what only directories have.
const DIRECTORIES_ONLY: u32 = DIRSYNC | InodeFlags::TOPDIR.bits();
/// And what is neither a directory nor a regular file has.
const OTHERS: u32 = NODUMP | NOATIME;
/// What users may set and clear.
const SETTABLE: u32 = SECRM
    | UNRM
    | COMPR
    | SYNC
    | InodeFlags::IMMUTABLE.bits()
    | InodeFlags::APPEND.bits()
    | NODUMP
    | NOATIME
    | JOURNAL_DATA
    | NOTAIL
    | DIRSYNC
    | InodeFlags::TOPDIR.bits();
const SECRM: u32 = 0x1;
const UNRM: u32 = 0x2;
const COMPR: u32 = 0x4;
const SYNC: u32 = 0x8;
const NODUMP: u32 = 0x40;
const NOATIME: u32 = 0x80;
const NOCOMPR: u32 = 0x400;
const JOURNAL_DATA: u32 = 0x4000;
const NOTAIL: u32 = 0x8000;
const DIRSYNC: u32 = 0x1_0000;
/// Flags that only the file system itself changes, and that a user may not ask to have changed.
const CONVERSIONS: InodeFlags = InodeFlags::EXTENTS.union(InodeFlags::CASEFOLD);

/// The last second that fields with two more bits hold, and that those without do.
const LAST_SECOND: i64 = 0x3_7fff_ffff;
const LAST_SECOND_BASE: i64 = i32::MAX as i64;

impl Inode {
    /// Refuses to change what is immutable or append-only.
    pub(crate) fn check_mutable(&self) -> Result<()> {
        self.check_appendable()?;
        if self.flags.contains(InodeFlags::APPEND) {
            return Err(Error::NotPermitted("it is append-only (chattr -a takes that away)"));
        }
        Ok(())
    }

    /// Refuses to add to what is immutable.
    pub(crate) fn check_appendable(&self) -> Result<()> {
        if self.flags.contains(InodeFlags::IMMUTABLE) {
            return Err(Error::NotPermitted("it is immutable (chattr -i takes that away)"));
        }
        Ok(())
    }

    /// The flags, with those that users may change as they are in `flags`.
    pub(crate) fn with_flags(&self, flags: u32) -> Result<InodeFlags> {
        let conversions = InodeFlags::from_bits_retain(self.flags.bits() ^ flags) & CONVERSIONS;
        if !conversions.is_empty() {
            return Err(Error::Unsupported(format!(
                "changing the inode flag {:#x} (extents or casefold), which would convert the file",
                conversions.bits()
            )));
        }
        let settable = SETTABLE & if self.is_dir() { !0 } else { !DIRECTORIES_ONLY };
        Ok(InodeFlags::from_bits_retain(self.flags.bits() & !settable | flags & settable))
    }

    /// Puts the fields into the inode's bytes, which are all of it, and sets the checksum. What is no
    /// field of ours stays.
    pub(crate) fn encode(&self, bytes: &mut [u8], sb: &Superblock) -> Result<()> {
        if bytes.len() > BASE_SIZE && self.extra_size == 0 {
            // It says that it uses none of the room behind its first 128 bytes.
            bytes[BASE_SIZE..].fill(0);
        }
        let mut whole = [0; RAW_SIZE];
        let len = bytes.len().min(RAW_SIZE);
        whole[..len].copy_from_slice(&bytes[..len]);
        let mut raw: RawInode = zerocopy::transmute!(whole);
        let mut extra_size = self.extra_size;
        if bytes.len() > BASE_SIZE && extra_size == 0 {
            extra_size = sb.new_extra_size;
            raw.extra_isize = extra_size.into();
        }

        raw.mode = self.mode.into();
        raw.links_count = self.links.into();
        (raw.uid, raw.uid_high) = halves(self.uid);
        (raw.gid, raw.gid_high) = halves(self.gid);
        let low = |value: u64| U32::new((value & 0xffff_ffff) as u32);
        raw.size_lo = low(self.size);
        if self.file_type == FileType::Regular || sb.incompat.contains(Incompat::LARGEDIR) {
            raw.size_high = low(self.size >> 32);
        }
        raw.generation = self.generation.into();
        raw.block = self.block;
        raw.file_acl_lo = low(self.xattr_block);
        if sb.incompat.contains(Incompat::SIXTY_FOUR_BIT) {
            raw.file_acl_high = U16::new((self.xattr_block >> 32 & 0xffff) as u16);
        }
        let flags = self.encode_space(&mut raw, sb)?;
        raw.flags = flags.bits().into();

        let has = |field: usize| field + 4 <= BASE_SIZE + usize::from(extra_size);
        let put = |time: Timestamp, seconds: &mut U32, extra: &mut U32, field: usize| {
            let (low, high) = encode_time(time, has(field));
            *seconds = low.into();
            if let Some(high) = high {
                *extra = high.into();
            }
        };
        put(self.accessed, &mut raw.atime, &mut raw.atime_extra, offset_of!(RawInode, atime_extra));
        put(self.changed, &mut raw.ctime, &mut raw.ctime_extra, offset_of!(RawInode, ctime_extra));
        put(self.modified, &mut raw.mtime, &mut raw.mtime_extra, offset_of!(RawInode, mtime_extra));
        if let Some(created) = self.created.filter(|_| has(offset_of!(RawInode, crtime))) {
            put(created, &mut raw.crtime, &mut raw.crtime_extra, offset_of!(RawInode, crtime_extra));
        }
        bytes[..len].copy_from_slice(&raw.as_bytes()[..len]);
        seal(bytes, sb, self.number);
        Ok(())
    }

    /// Puts the space taken into its fields, in the unit that has room for it, and answers the flags
    /// that say which unit that is.
    pub(crate) fn encode_space(&self, raw: &mut RawInode, sb: &Superblock) -> Result<InodeFlags> {
        const LOW: u64 = u32::MAX as u64;
        const ALL: u64 = (1 << 48) - 1;
        let mut flags = self.flags;
        let mut count = self.blocks_512;
        if !sb.ro_compat.contains(RoCompat::HUGE_FILE) {
            if count > LOW {
                return Err(Error::FileTooLarge(LOW * 512));
            }
            raw.blocks_lo = U32::new((count & LOW) as u32);
            return Ok(flags);
        }
        flags.set(InodeFlags::HUGE_FILE, count > ALL);
        if count > ALL {
            count /= u64::from(sb.block_size / 512);
        }
        if count > ALL {
            return Err(Error::FileTooLarge(ALL * u64::from(sb.block_size)));
        }
        raw.blocks_lo = U32::new((count & LOW) as u32);
        raw.blocks_high = U16::new((count >> 32 & 0xffff) as u16);
        Ok(flags)
    }
}

fn halves(value: u32) -> (U16, U16) {
    (U16::new((value & 0xffff) as u16), U16::new((value >> 16) as u16))
}

/// A time as it is stored: `extra` says whether there is room for the second word. One that is out of
/// reach becomes the nearest that is not, as in the kernel.
pub(crate) fn encode_time(time: Timestamp, extra: bool) -> (u32, Option<u32>) {
    let last = if extra { LAST_SECOND } else { LAST_SECOND_BASE };
    let seconds = time.seconds.clamp(i32::MIN.into(), last);
    let low = (seconds & 0xffff_ffff) as u32;
    if !extra {
        return (low, None);
    }
    // What the low half, which has a sign, lacks.
    let epoch = ((seconds - i64::from(low.cast_signed())) >> 32) as u32;
    let nanoseconds = if seconds == time.seconds { time.nanoseconds.min(999_999_999) } else { 0 };
    (low, Some(nanoseconds << 2 | epoch & 3))
}

/// Sets the checksum of an inode.
pub(crate) fn seal(bytes: &mut [u8], sb: &Superblock, number: u32) {
    const LOW: usize = offset_of!(RawInode, checksum_lo);
    const HIGH: usize = offset_of!(RawInode, checksum_hi);
    if !sb.metadata_csum() {
        return;
    }
    let raw: RawInode = zerocopy::transmute!(with_fields(bytes));
    let extra_size = if bytes.len() > BASE_SIZE { raw.extra_isize.get() } else { 0 };
    let seed = checksum_seed(sb, number, raw.generation.get());
    let (found, _) = checksums(bytes, &raw, seed, extra_size);
    let [a, b, c, d] = found.to_le_bytes();
    bytes[LOW..LOW + 2].copy_from_slice(&[a, b]);
    if bytes.len() > BASE_SIZE && BASE_SIZE + usize::from(extra_size) >= HIGH + 2 {
        bytes[HIGH..HIGH + 2].copy_from_slice(&[c, d]);
    }
}

impl Volume {
    /// The time now.
    pub(crate) fn now(&self) -> Timestamp {
        self.sources.now()
    }

    /// Changes the bytes of an inode, all of them, and sets its checksum.
    pub(crate) fn edit_inode_bytes<T>(
        &self,
        number: u32,
        change: impl FnOnce(&mut [u8]) -> Result<T>,
    ) -> Result<T> {
        let (block, left, range) = self.inode_place(number)?;
        // Its neighbours are likely to be next.
        self.block_in_order(block, left, &self.inode_tables)?;
        self.inode_changed(number);
        self.edit(
            block,
            || format!("inode {number}"),
            |bytes| {
                let bytes = &mut bytes[range];
                let result = change(bytes)?;
                seal(bytes, &self.sb, number);
                Ok(result)
            },
        )
    }

    /// Stores an inode whose fields changed.
    pub(crate) fn store_inode(&self, inode: &Inode) -> Result<()> {
        self.edit_inode_bytes(inode.number, |bytes| inode.encode(bytes, &self.sb))
    }

    /// Makes the inode that was just allocated for a new file in `parent`: nothing is in `i_block`, and
    /// there are 1 or, for a directory, 2 links. It is stored; who changes it further stores it again.
    pub(crate) fn new_inode(
        &self,
        number: u32,
        file_type: FileType,
        new: NewInode,
        parent: &Inode,
    ) -> Result<Inode> {
        let sb = &self.sb;
        let now = self.now();
        let generation = u32::from_le_bytes(self.sources.random());
        let kept = match file_type {
            FileType::Directory => !0,
            FileType::Regular => !DIRECTORIES_ONLY,
            _ => OTHERS,
        };
        let (block, _, range) = self.inode_place(number)?;
        let inode = Inode {
            number,
            offset: sb.byte_of(block) + range.start as u64,
            generation,
            // The type and 12 bits of permissions.
            mode: ((file_type.mode_bits() | new.permissions & 0o7777) & 0xffff) as u16,
            file_type,
            flags: InodeFlags::from_bits_retain(parent.flags.bits() & INHERITED & kept),
            size: 0,
            links: if file_type == FileType::Directory { 2 } else { 1 },
            uid: new.uid,
            gid: new.gid,
            blocks_512: 0,
            accessed: now,
            changed: now,
            modified: now,
            created: (sb.new_extra_size >= 24).then_some(now),
            xattr_block: 0,
            block: [0; I_BLOCK_SIZE],
            extra_size: sb.new_extra_size,
            checksum_seed: checksum_seed(sb, number, generation),
        };
        self.edit_inode_bytes(number, |bytes| {
            bytes.fill(0);
            if let Some(field) = bytes.get_mut(BASE_SIZE..BASE_SIZE + 2) {
                field.copy_from_slice(&sb.new_extra_size.to_le_bytes());
            }
            inode.encode(bytes, sb)
        })?;
        Ok(inode)
    }

    /// Marks an inode as deleted: no names, no content, and the time when that was.
    pub(crate) fn mark_deleted(&self, number: u32) -> Result<()> {
        // 0 would say that it was not.
        let now = (self.now().seconds.max(1) & 0xffff_ffff) as u32;
        self.edit_inode_bytes(number, |bytes| {
            let mut put =
                |field: usize, value: &[u8]| bytes[field..field + value.len()].copy_from_slice(value);
            put(offset_of!(RawInode, links_count), &[0; 2]);
            put(offset_of!(RawInode, dtime), &now.max(1).to_le_bytes());
            put(offset_of!(RawInode, size_lo), &[0; 4]);
            put(offset_of!(RawInode, blocks_lo), &[0; 4]);
            // Without what they speak of, flags of extents or inline data make e2fsck take the whole
            // block of inodes for garbage.
            put(offset_of!(RawInode, flags), &[0; 4]);
            put(offset_of!(RawInode, block), &[0; I_BLOCK_SIZE]);
            put(offset_of!(RawInode, file_acl_lo), &[0; 4]);
            put(offset_of!(RawInode, size_high), &[0; 4]);
            put(offset_of!(RawInode, blocks_high), &[0; 4]);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // The four epochs of the specification's table, and what lies beyond.
    fn times_that_fields_hold() {
        let at = |seconds| Timestamp { seconds, nanoseconds: 7 };
        assert_eq!(encode_time(at(-1), true), (u32::MAX, Some(7 << 2)));
        assert_eq!(encode_time(at(0x7fff_ffff), true), (0x7fff_ffff, Some(7 << 2)));
        assert_eq!(encode_time(at(0x8000_0000), true), (0x8000_0000, Some(7 << 2 | 1)));
        assert_eq!(encode_time(at(0x3_7fff_ffff), true), (0x7fff_ffff, Some(7 << 2 | 3)));
        assert_eq!(encode_time(at(0x3_8000_0000), true), (0x7fff_ffff, Some(3)));
        assert_eq!(encode_time(at(i64::MIN), true), (0x8000_0000, Some(0)));
        assert_eq!(encode_time(at(0x8000_0000), false), (0x7fff_ffff, None));
        assert_eq!(encode_time(at(-0x8000_0001), false), (0x8000_0000, None));
    }
}
