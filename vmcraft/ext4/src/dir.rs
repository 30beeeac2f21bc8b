//! Directories as lists of entries.

use std::mem::size_of;
use std::ops::ControlFlow;
use std::sync::Arc;

use bstr::{BStr, ByteSlice};
use vmcraft_fs::{DirEntry, Error, FileType, InodeNumber, Result, Visit};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::crc32c;
use crate::features::{Compat, Incompat};
use crate::inode::{Inode, InodeFlags};
use crate::map::{OpenInode, RunKind};
use crate::superblock::Superblock;
use crate::volume::{Block, Role, Volume};
use crate::{corrupt, htree, inline};

/// What each entry begins with; the name follows, padded to a multiple of four.
///
/// Spec: Linux `Documentation/filesystems/ext4/directory.rst`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawEntry {
    /// 0 if the entry is not in use.
    pub(crate) inode: U32,
    /// To the next entry, in bytes; see [`record_len`].
    pub(crate) rec_len: U16,
    pub(crate) name_len: u8,
    /// Valid with `filetype`.
    pub(crate) file_type: u8,
}

/// Bytes of [`RawEntry`].
pub(crate) const HEADER: usize = 8;
const _: () = assert!(size_of::<RawEntry>() == HEADER);
/// The shortest entry: a header and a name of one to four bytes.
pub(crate) const SHORTEST: usize = HEADER + 4;
/// The file type of the entry that holds a block's checksum.
pub(crate) const CHECKSUM_TYPE: u8 = 0xde;

/// What `rec_len` says in bytes. Blocks of 64 KiB need values that 16 bits do not have.
pub(crate) fn record_len(stored: u16, block_size: u32) -> usize {
    let stored = usize::from(stored);
    if block_size < 65536 {
        stored
    } else if stored == 0 || stored == 65535 {
        block_size as usize
    } else {
        stored & 0xfffc | (stored & 3) << 16
    }
}

/// An entry in use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) inode: u32,
    pub(crate) name: &'a BStr,
    pub(crate) file_type: FileType,
    /// Where the next entry is, in bytes from the start of this list.
    pub(crate) next: usize,
}

/// A place in a list: what one `rec_len` spans. What its entry says is not checked yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slot<'a> {
    /// Where it starts and ends, in bytes from the start of the list.
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// 0 if nothing but room is here.
    pub(crate) inode: u32,
    pub(crate) name: &'a BStr,
    stored_type: u8,
}

impl Entry<'_> {
    /// Whether it is one of the two that each directory starts with.
    pub(crate) fn is_dot(&self) -> bool {
        self.name == "." || self.name == ".."
    }
}

/// A list of entries: a directory block, or a part of an inline directory.
#[derive(Clone, Copy)]
pub(crate) struct List<'a> {
    pub(crate) bytes: &'a [u8],
    /// The directory.
    pub(crate) inode: u32,
    /// The byte of the volume where the list starts.
    pub(crate) offset: u64,
}

impl<'a> List<'a> {
    /// The entries in use, checked.
    pub(crate) fn entries(self, sb: &Superblock) -> impl Iterator<Item = Result<Entry<'a>>> + use<'a> {
        let typed = sb.incompat.contains(Incompat::FILETYPE);
        let inodes = sb.inodes;
        self.slots(sb).filter_map(move |slot| match slot {
            Ok(slot) => self.entry(slot, typed, inodes).transpose(),
            Err(error) => Some(Err(error)),
        })
    }

    /// All places from the start to the end of the list; nothing follows an error.
    pub(crate) fn slots(self, sb: &Superblock) -> impl Iterator<Item = Result<Slot<'a>>> + use<'a> {
        let block_size = sb.block_size;
        let mut at = 0;
        std::iter::from_fn(move || {
            if at >= self.bytes.len() {
                return None;
            }
            let slot = self.slot(at, block_size).ok_or_else(|| self.wrong_slot(at, block_size));
            at = slot.as_ref().map_or(self.bytes.len(), |s| s.end);
            Some(slot)
        })
    }

    /// The entry of this name, checked. The other entries' names are not.
    pub(crate) fn find(self, name: &BStr, sb: &Superblock) -> Result<Option<Entry<'a>>> {
        for slot in self.slots(sb) {
            let slot = slot?;
            if slot.inode != 0 && slot.name == name {
                return self.entry(slot, sb.incompat.contains(Incompat::FILETYPE), sb.inodes);
            }
        }
        Ok(None)
    }

    /// The place that starts at byte `at`. `None` if its length is wrong.
    fn slot(&self, at: usize, block_size: u32) -> Option<Slot<'a>> {
        let rest = self.bytes.get(at..)?;
        let (raw, names) = RawEntry::ref_from_prefix(rest).ok()?;
        let len = record_len(raw.rec_len.get(), block_size);
        let name_len = usize::from(raw.name_len);
        if len < SHORTEST || !len.is_multiple_of(4) || len < HEADER + name_len || len > rest.len() {
            return None;
        }
        let (inode, name) = (raw.inode.get(), names.get(..name_len)?.as_bstr());
        Some(Slot { start: at, end: at + len, inode, name, stored_type: raw.file_type })
    }

    fn wrong_slot(&self, at: usize, block_size: u32) -> Error {
        let rest = self.bytes.get(at..).unwrap_or_default();
        let what = match RawEntry::ref_from_prefix(rest) {
            Ok((raw, _)) => format!(
                "length {}, with a name of {} and {} bytes left",
                record_len(raw.rec_len.get(), block_size),
                raw.name_len,
                rest.len()
            ),
            Err(_) => format!("only {} bytes are left for it", rest.len()),
        };
        self.wrong(&what, at)
    }

    /// The entry in a place, checked; `None` if nothing but room is there.
    fn entry(&self, slot: Slot<'a>, typed: bool, inodes: u32) -> Result<Option<Entry<'a>>> {
        let Slot { start, end, inode, name, stored_type } = slot;
        if inode == 0 {
            return Ok(None);
        }
        if inode > inodes {
            return Err(self.wrong(&format!("leads to inode {inode} of {inodes}"), start));
        }
        if name.is_empty() || name.find_byteset(b"/\0").is_some() {
            return Err(self.wrong(&format!("{name:?} is not a name"), start));
        }
        let file_type = if typed { file_type(stored_type) } else { FileType::Unknown };
        Ok(Some(Entry { inode, name, file_type, next: end }))
    }

    /// `at` counts bytes of the list.
    fn wrong(&self, what: &str, at: usize) -> Error {
        corrupt(format!("directory entry of inode {}: {what}", self.inode), self.offset + at as u64)
    }
}

/// The type as an entry stores it.
fn file_type(stored: u8) -> FileType {
    match stored {
        1 => FileType::Regular,
        2 => FileType::Directory,
        3 => FileType::CharDevice,
        4 => FileType::BlockDevice,
        5 => FileType::Fifo,
        6 => FileType::Socket,
        7 => FileType::Symlink,
        _ => FileType::Unknown,
    }
}

/// Whether the directory has an htree.
pub(crate) fn is_indexed(inode: &Inode, sb: &Superblock) -> bool {
    inode.flags.contains(InodeFlags::INDEX) && sb.compat.contains(Compat::DIR_INDEX)
}

/// A block of a directory that is known to be at `physical`; `available` blocks follow each other
/// there. `logical` is its number within the directory.
pub(crate) fn block(
    volume: &Volume,
    inode: &Inode,
    logical: u64,
    physical: u64,
    available: u64,
) -> Result<Arc<Block>> {
    let sb = &volume.sb;
    let block = volume.block_in_order(physical, available, &volume.directories)?;
    if sb.metadata_csum() {
        block.verify_once(Role::Directory(inode.number), |bytes| {
            let offset = sb.byte_of(physical);
            if is_indexed(inode, sb) && (logical == 0 || fills(bytes, sb)) {
                htree::verify(bytes, inode, logical, offset)
            } else {
                verify(bytes, inode, logical, offset)
            }
        })?;
    }
    Ok(block)
}

/// Whether the first entry takes the whole block, as in an htree's nodes below the root.
pub(crate) fn fills(bytes: &[u8], sb: &Superblock) -> bool {
    RawEntry::ref_from_prefix(bytes)
        .is_ok_and(|(e, _)| record_len(e.rec_len.get(), sb.block_size) == bytes.len())
}

/// Verifies the checksum in the last entry of a block of entries.
fn verify(bytes: &[u8], inode: &Inode, logical: u64, offset: u64) -> Result<()> {
    let wrong = |what: String, at: usize| {
        let what = format!("directory block {logical} of inode {}: {what}", inode.number);
        corrupt(what, offset + at as u64)
    };
    let start = bytes.len().saturating_sub(SHORTEST);
    let (covered, tail) = bytes.split_at(start);
    let (Some(head), Some(stored)) = (tail.first_chunk::<HEADER>(), tail.last_chunk::<4>()) else {
        return Err(wrong("too small".into(), 0));
    };
    if *head != [0, 0, 0, 0, 12, 0, 0, CHECKSUM_TYPE] {
        return Err(wrong("its checksum is missing".into(), start));
    }
    let stored = u32::from_le_bytes(*stored);
    let found = crc32c(inode.checksum_seed, covered);
    if stored != found {
        return Err(wrong(
            format!("checksum is {stored:#010x}, its content gives {found:#010x}"),
            start + HEADER,
        ));
    }
    Ok(())
}

/// Refuses what is not a directory, and names that cannot be read.
pub(crate) fn check_readable(inode: &Inode) -> Result<()> {
    if !inode.is_dir() {
        return Err(Error::NotADirectory);
    }
    if inode.flags.contains(InodeFlags::ENCRYPT) {
        let what = format!("encrypted names (fscrypt, directory inode {})", inode.number);
        return Err(Error::Unsupported(what));
    }
    Ok(())
}

/// Calls `see` with each list of entries from byte `from` of the directory, and with the byte at
/// which the list starts. Holes have no entries.
///
/// No directory has more blocks than the volume: what claims to is a loop, and ends here.
pub(crate) fn each_list(
    volume: &Volume,
    inode: &OpenInode,
    from: u64,
    see: &mut dyn FnMut(List<'_>, u64) -> Result<ControlFlow<()>>,
) -> Result<()> {
    if inode.flags.contains(InodeFlags::INLINE_DATA) {
        return inline::each_list(volume, inode, from, see);
    }
    let sb = &volume.sb;
    let block_size = u64::from(sb.block_size);
    let end = inode.size.div_ceil(block_size);
    let mut logical = from / block_size;
    let mut seen = 0;
    while logical < end {
        let run = inode.run(volume, logical)?;
        let RunKind::Data(first) = run.kind else {
            logical = run.end();
            continue;
        };
        seen += 1;
        if seen > sb.blocks {
            return Err(inode.corrupt("a directory of more blocks than the volume has"));
        }
        let physical = first + (logical - run.start);
        let available = run.end().min(end) - logical;
        let block = block(volume, inode, logical, physical, available)?;
        let list = List { bytes: &block.bytes, inode: inode.number, offset: sb.byte_of(physical) };
        if see(list, logical * block_size)?.is_break() {
            break;
        }
        logical += 1;
    }
    Ok(())
}

/// Shows the entries from `cursor`: a byte of the directory.
pub(crate) fn read_dir(volume: &Volume, inode: &OpenInode, cursor: u64, visit: &mut Visit<'_>) -> Result<()> {
    check_readable(inode)?;
    each_list(volume, inode, cursor, &mut |list, start| {
        for entry in list.entries(&volume.sb) {
            let entry = entry?;
            let next = start + entry.next as u64;
            // A cursor leads behind an entry; those before it were shown.
            if next <= cursor || entry.is_dot() {
                continue;
            }
            let shown = DirEntry {
                inode: InodeNumber(entry.inode.into()),
                name: entry.name,
                file_type: entry.file_type,
                next,
            };
            if visit(shown).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })
}

/// The inode that `name` leads to, by looking at every entry.
pub(crate) fn find(volume: &Volume, inode: &OpenInode, name: &BStr) -> Result<Option<u32>> {
    let mut found = None;
    each_list(volume, inode, 0, &mut |list, _| {
        found = list.find(name, &volume.sb)?.map(|entry| entry.inode);
        Ok(if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(found)
}

/// The inode that a name leads to.
pub(crate) fn lookup(volume: &Volume, inode: &OpenInode, name: &BStr) -> Result<InodeNumber> {
    check_readable(inode)?;
    let found = if inode.flags.contains(InodeFlags::CASEFOLD) {
        find_folded(volume, inode, name)?
    } else if is_indexed(inode, &volume.sb) && !inode.flags.contains(InodeFlags::INLINE_DATA) {
        htree::find(volume, inode, name)?
    } else {
        find(volume, inode, name)?
    };
    found.map(|number| InodeNumber(number.into())).ok_or(Error::NotFound)
}

/// The inode that `name` leads to where letter case is ignored. Beyond ASCII that takes Unicode's
/// tables, which we do not have: a name that they could match is refused, never missed.
fn find_folded(volume: &Volume, inode: &OpenInode, name: &BStr) -> Result<Option<u32>> {
    let (mut exact, mut folded, mut undecided) = (None, None, false);
    each_list(volume, inode, 0, &mut |list, _| {
        for entry in list.entries(&volume.sb) {
            let entry = entry?;
            if entry.name == name {
                exact = Some(entry.inode);
                return Ok(ControlFlow::Break(()));
            } else if entry.name.eq_ignore_ascii_case(name) {
                folded = Some(entry.inode);
            } else if !(entry.name.is_ascii() && name.is_ascii()) {
                undecided = true;
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    match exact.or(folded) {
        None if undecided => Err(Error::Unsupported(format!(
            "casefold: a name that is not ASCII, in directory inode {} that ignores letter case",
            inode.number
        ))),
        found => Ok(found),
    }
}

/// Block `logical` of a directory, which must be there, and its byte of the volume.
pub(crate) fn block_at(volume: &Volume, inode: &OpenInode, logical: u64) -> Result<(Arc<Block>, u64)> {
    let wrong = || inode.corrupt(format_args!("its htree leads to block {logical}, which is not there"));
    if logical >= inode.size.div_ceil(volume.sb.block_size.into()) {
        return Err(wrong());
    }
    let run = inode.run(volume, logical)?;
    let RunKind::Data(first) = run.kind else {
        return Err(wrong());
    };
    let physical = first + (logical - run.start);
    Ok((block(volume, inode, logical, physical, 1)?, volume.sb.byte_of(physical)))
}

/// The parent, as `..` tells.
pub(crate) fn parent(volume: &Volume, inode: &OpenInode) -> Result<InodeNumber> {
    if !inode.is_dir() {
        return Err(Error::NotADirectory);
    }
    if inode.flags.contains(InodeFlags::INLINE_DATA) {
        return Ok(InodeNumber(inline::parent(inode).into()));
    }
    match find(volume, inode, "..".into())? {
        Some(number) => Ok(InodeNumber(number.into())),
        None => Err(inode.corrupt("a directory without the entry \"..\"")),
    }
}
