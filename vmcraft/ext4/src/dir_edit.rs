//! Changes to directories: names put in, taken out, and led elsewhere.
//!
//! Entries of a block are added where one has room behind it, and removed by giving their space to the
//! entry before them; nothing moves. Blocks are never given back, as in Linux.

use std::ops::ControlFlow;

use bstr::BStr;
use vmcraft_fs::{Error, FileType, Result};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use crate::checksum::crc32c;
use crate::dir::{self, CHECKSUM_TYPE, HEADER, List, RawEntry, SHORTEST};
use crate::features::{Compat, Incompat};
use crate::htree::{self, Path};
use crate::inode::{Inode, InodeFlags};
use crate::map::OpenInode;
use crate::superblock::Superblock;
use crate::volume::Volume;
use crate::{content, corrupt, htree_edit, inline_dir};

/// The longest name in bytes.
const LONGEST_NAME: usize = 255;

/// A name that a directory is to have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewEntry<'a> {
    pub(crate) name: &'a BStr,
    pub(crate) inode: u32,
    pub(crate) file_type: FileType,
}

/// Which list of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The block with this number on the volume.
    Block(u64),
    /// In `i_block`, of an inline directory.
    InInode,
    /// In the attribute `system.data`, of an inline directory.
    InAttribute,
}

/// An entry, and where it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) inode: u32,
    place: Place,
    start: usize,
    end: usize,
    /// Where the slot before it in its list starts.
    before: Option<usize>,
}

/// Space in a list that a new entry fits into.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    place: Place,
    start: usize,
    end: usize,
    /// Bytes of the entry that is there and stays.
    used: usize,
}

/// Where a name that a directory lacks can go.
pub(crate) enum Spot {
    Room(Room),
    /// No block of a directory without an index has room.
    NewBlock,
    /// The leaf where it should be is full.
    FullLeaf(Path),
    /// The inode is full.
    FullInode,
}

/// What [`search`] finds.
pub(crate) enum Search {
    Found(Found),
    Absent(Spot),
}

/// What one list has for a name.
#[derive(Default)]
pub(crate) struct Scan {
    pub(crate) found: Option<Found>,
    pub(crate) room: Option<Room>,
}

impl Scan {
    /// Takes up what the next list of the directory has; `Break` once the name is found.
    pub(crate) fn add(&mut self, next: Self) -> ControlFlow<()> {
        self.found = next.found;
        self.room = self.room.take().or(next.room);
        if self.found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// What all lists together have; an entry that no list has room for goes to `full`.
    pub(crate) fn into_search(self, full: Spot) -> Search {
        match (self.found, self.room) {
            (Some(found), _) => Search::Found(found),
            (None, Some(room)) => Search::Absent(Spot::Room(room)),
            (None, None) => Search::Absent(full),
        }
    }
}

/// Bytes of an entry with a name of `name_len` bytes.
pub(crate) fn entry_len(name_len: usize) -> usize {
    (HEADER + name_len).next_multiple_of(4)
}

/// Bytes of a directory block that hold entries; the rest is its checksum.
pub(crate) fn list_len(sb: &Superblock) -> usize {
    sb.block_size as usize - if sb.metadata_csum() { SHORTEST } else { 0 }
}

/// What `rec_len` says for a length; see [`dir::record_len`].
fn stored_len(len: usize) -> U16 {
    // Only a whole block of 64 KiB does not fit.
    u16::try_from(len).unwrap_or(u16::MAX).into()
}

/// The type as an entry stores it.
fn stored_type(file_type: FileType, sb: &Superblock) -> u8 {
    if !sb.incompat.contains(Incompat::FILETYPE) {
        return 0;
    }
    match file_type {
        FileType::Regular => 1,
        FileType::Directory => 2,
        FileType::CharDevice => 3,
        FileType::BlockDevice => 4,
        FileType::Fifo => 5,
        FileType::Socket => 6,
        FileType::Symlink => 7,
        FileType::Unknown => 0,
    }
}

/// Refuses names that no directory can have.
pub(crate) fn check_name(name: &BStr) -> Result<()> {
    if name.is_empty() || name == "." || name == ".." || name.iter().any(|&b| b == 0 || b == b'/') {
        return Err(Error::InvalidInput("not a file name"));
    }
    if name.len() > LONGEST_NAME {
        return Err(Error::NameTooLong { len: name.len(), most: LONGEST_NAME });
    }
    Ok(())
}

/// Refuses directories whose names we cannot write.
pub(crate) fn check_writable(dir: &Inode) -> Result<()> {
    dir::check_readable(dir)?;
    if dir.flags.contains(InodeFlags::CASEFOLD) {
        return Err(Error::Unsupported(format!("casefold: changing directory inode {}", dir.number)));
    }
    Ok(())
}

/// Looks at a list until `name` is found, or to its end for the first room for it.
pub(crate) fn scan(list: List<'_>, place: Place, name: &BStr, sb: &Superblock) -> Result<Scan> {
    let needed = entry_len(name.len());
    let mut scan = Scan::default();
    let mut before = None;
    for slot in list.slots(sb) {
        let slot = slot?;
        let (start, end, inode) = (slot.start, slot.end, slot.inode);
        if inode != 0 && slot.name == name {
            if inode > sb.inodes {
                let what = format!("directory entry of inode {}: leads to inode {inode}", list.inode);
                return Err(corrupt(what, list.offset + start as u64));
            }
            scan.found = Some(Found { inode, place, start, end, before });
            break;
        }
        let used = if inode == 0 { 0 } else { entry_len(slot.name.len()) };
        if scan.room.is_none() && end - start >= used + needed {
            scan.room = Some(Room { place, start, end, used });
        }
        before = Some(start);
    }
    Ok(scan)
}

/// Looks for a name, and where it can go if it is not there.
pub(crate) fn search(volume: &Volume, dir: &OpenInode, name: &BStr) -> Result<Search> {
    let sb = &volume.sb;
    if dir.flags.contains(InodeFlags::INLINE_DATA) {
        return inline_dir::search(volume, dir, name);
    }
    if dir::is_indexed(dir, sb) {
        return search_htree(volume, dir, name);
    }
    let mut all = Scan::default();
    dir::each_list(volume, dir, 0, &mut |list, _| {
        let place = Place::Block(list.offset / u64::from(sb.block_size));
        Ok(all.add(scan(entries_of(list, sb), place, name, sb)?))
    })?;
    Ok(all.into_search(Spot::NewBlock))
}

fn search_htree(volume: &Volume, dir: &OpenInode, name: &BStr) -> Result<Search> {
    let sb = &volume.sb;
    let first = Path::to(volume, dir, name)?;
    let (mut path, mut room) = (None, None);
    for leaves in 0..dir.size.div_ceil(u64::from(sb.block_size)) {
        let leaf = path.as_ref().unwrap_or(&first).leaf(volume, dir)?;
        if leaf.place.logical == 0 {
            return Err(leaf.place.corrupt("the root as a leaf", 0));
        }
        let place = Place::Block(leaf.place.offset / u64::from(sb.block_size));
        let here = scan(entries_of(leaf.list(), sb), place, name, sb)?;
        if let Some(found) = here.found {
            return Ok(Search::Found(found));
        }
        // New names go into the first of the leaves that have their hash.
        if leaves == 0 {
            room = here.room;
        }
        if !path.get_or_insert_with(|| first.clone()).advance(volume, dir)? {
            return Ok(Search::Absent(room.map_or(Spot::FullLeaf(first), Spot::Room)));
        }
    }
    Err(htree::too_many_leaves(dir))
}

/// The list without the checksum behind it.
fn entries_of<'a>(list: List<'a>, sb: &Superblock) -> List<'a> {
    List { bytes: list.bytes.get(..list_len(sb)).unwrap_or(list.bytes), ..list }
}

/// The entry of `name`. `NotFound` if there is none.
pub(crate) fn find(volume: &Volume, dir: &OpenInode, name: &BStr) -> Result<Found> {
    match search(volume, dir, name)? {
        Search::Found(found) => Ok(found),
        Search::Absent(_) => Err(Error::NotFound),
    }
}

/// Adds an entry where [`search`] said.
pub(crate) fn insert(volume: &Volume, dir: &mut OpenInode, spot: Spot, entry: NewEntry<'_>) -> Result<()> {
    let sb = &volume.sb;
    match spot {
        Spot::Room(room) => change(volume, dir, room.place, |bytes| put(bytes, room, entry, sb))?,
        Spot::NewBlock if can_be_indexed(dir, sb) => htree_edit::make_indexed(volume, dir, entry)?,
        Spot::NewBlock => {
            let block = block_of([entry], dir.checksum_seed, sb)?;
            append(volume, dir, block)?;
        }
        Spot::FullLeaf(path) => htree_edit::split_and_insert(volume, dir, path, entry)?,
        Spot::FullInode => inline_dir::grow_and_insert(volume, dir, entry)?,
    }
    // Where there are no indexes, a flag left over from when there were would come to lie.
    if !sb.compat.contains(Compat::DIR_INDEX) {
        dir.flags.remove(InodeFlags::INDEX);
    }
    Ok(())
}

/// Whether a directory without an index, which is full, gets one now.
fn can_be_indexed(dir: &Inode, sb: &Superblock) -> bool {
    sb.compat.contains(Compat::DIR_INDEX)
        && dir.size == u64::from(sb.block_size)
        && htree::hash_function(sb.hash_version, sb).is_some()
}

/// Adds a block to the end of a directory; returns its number within the directory.
pub(crate) fn append(volume: &Volume, dir: &mut OpenInode, block: Box<[u8]>) -> Result<u64> {
    let block_size = u64::from(volume.sb.block_size);
    // Only with large_dir a directory's size has a high half.
    let large = volume.sb.incompat.contains(Incompat::LARGEDIR);
    if !large && dir.size + block_size > u64::from(u32::MAX) {
        return Err(Error::NoSpace("the directory is as large as it can be without large_dir"));
    }
    content::append_block(volume, dir, block)
}

/// Takes an entry out.
pub(crate) fn remove(volume: &Volume, dir: &mut OpenInode, found: Found) -> Result<()> {
    change(volume, dir, found.place, |bytes| take(bytes, found))
}

/// Takes an entry out of its list, and wipes it.
fn take(bytes: &mut [u8], found: Found) -> Option<()> {
    let Found { start, end, before, .. } = found;
    bytes.get_mut(start..end)?.fill(0);
    // The entry before it gets its space; the first of a list stays, unused.
    let heir = before.unwrap_or(start);
    set_len(bytes, heir, end - heir)
}

/// Makes a name lead to another inode.
pub(crate) fn redirect(
    volume: &Volume,
    dir: &mut OpenInode,
    found: Found,
    inode: u32,
    file_type: FileType,
) -> Result<()> {
    let stored = stored_type(file_type, &volume.sb);
    change(volume, dir, found.place, |bytes| {
        bytes.get_mut(found.start..found.start + 4)?.copy_from_slice(&inode.to_le_bytes());
        *bytes.get_mut(found.start + 7)? = stored;
        Some(())
    })
}

/// Makes `..` lead to another directory.
pub(crate) fn set_parent(volume: &Volume, dir: &mut OpenInode, parent: u32) -> Result<()> {
    if dir.flags.contains(InodeFlags::INLINE_DATA) {
        inline_dir::set_parent(dir, parent);
        return Ok(());
    }
    // It is the second entry of the first block, in an htree too.
    let (block, offset) = dir::block_at(volume, dir, 0)?;
    let sb = &volume.sb;
    let list = List { bytes: &block.bytes, inode: dir.number, offset };
    let second = list.slots(sb).nth(1).transpose()?;
    let Some(slot) = second.filter(|s| s.inode != 0 && s.name == "..") else {
        return Err(dir.corrupt("a directory whose second entry is not \"..\""));
    };
    let number = offset / u64::from(sb.block_size);
    let (indexed, seed, directory) = (dir::is_indexed(dir, sb), dir.checksum_seed, dir.number);
    volume.edit(
        number,
        || format!("directory inode {directory}"),
        |bytes| {
            if let Some(field) = bytes.get_mut(slot.start..slot.start + 4) {
                field.copy_from_slice(&parent.to_le_bytes());
            }
            if indexed {
                htree_edit::seal(bytes, htree::ROOT_ENTRIES, seed, sb);
            } else {
                seal(bytes, seed, sb);
            }
            Ok(())
        },
    )
}

/// Whether a directory has no entries but `.` and `..`.
pub(crate) fn is_empty(volume: &Volume, dir: &OpenInode) -> Result<bool> {
    let mut empty = true;
    dir::each_list(volume, dir, 0, &mut |list, _| {
        for entry in list.entries(&volume.sb) {
            if !entry?.is_dot() {
                empty = false;
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(empty)
}

/// The first block of a new directory.
pub(crate) fn first_block(number: u32, parent: u32, seed: u32, sb: &Superblock) -> Result<Box<[u8]>> {
    block_of(dots(number, parent), seed, sb)
}

/// The two entries that every directory starts with.
pub(crate) fn dots(number: u32, parent: u32) -> [NewEntry<'static>; 2] {
    let entry =
        |name: &'static str, inode| NewEntry { name: name.into(), inode, file_type: FileType::Directory };
    [entry(".", number), entry("..", parent)]
}

/// A directory block of these entries, the last of which spans what is left.
pub(crate) fn block_of<'a>(
    entries: impl IntoIterator<Item = NewEntry<'a>>,
    seed: u32,
    sb: &Superblock,
) -> Result<Box<[u8]>> {
    let mut block = vec![0; sb.block_size as usize].into_boxed_slice();
    let len = list_len(sb);
    fill(block.get_mut(..len).unwrap_or_default(), entries, sb)
        .ok_or(Error::NoSpace("a directory block is too small for its entries"))?;
    seal(&mut block, seed, sb);
    Ok(block)
}

/// Lays entries out from the start of a list, the last of which spans what is left. `None` if they
/// do not fit.
pub(crate) fn fill<'a>(
    list: &mut [u8],
    entries: impl IntoIterator<Item = NewEntry<'a>>,
    sb: &Superblock,
) -> Option<()> {
    list.fill(0);
    let end = list.len();
    let (mut last, mut at) = (0, 0);
    set_len(list, 0, end)?;
    for entry in entries {
        let len = entry_len(entry.name.len());
        write(list, at, end.checked_sub(at)?, entry, sb)?;
        if at > 0 {
            set_len(list, last, at - last)?;
        }
        (last, at) = (at, at + len);
    }
    Some(())
}

/// Changes a list in its place, and stores the checksum of its block.
fn change(
    volume: &Volume,
    dir: &mut OpenInode,
    place: Place,
    how: impl FnOnce(&mut [u8]) -> Option<()>,
) -> Result<()> {
    let (sb, seed, number) = (&volume.sb, dir.checksum_seed, dir.number);
    let done = match place {
        Place::Block(block) => volume.edit(
            block,
            || format!("directory inode {number}"),
            |bytes| {
                let done = how(bytes);
                seal(bytes, seed, sb);
                Ok(done)
            },
        )?,
        Place::InInode => inline_dir::change_in_inode(dir, how),
        Place::InAttribute => inline_dir::change_in_attribute(volume, dir, how)?,
    };
    done.ok_or_else(|| dir.corrupt("a directory entry is beyond its list"))
}

/// Writes an entry into room.
pub(crate) fn put(bytes: &mut [u8], room: Room, entry: NewEntry<'_>, sb: &Superblock) -> Option<()> {
    let at = room.start + room.used;
    write(bytes, at, room.end.checked_sub(at)?, entry, sb)?;
    if room.used > 0 {
        set_len(bytes, room.start, room.used)?;
    }
    Some(())
}

/// Writes an entry of `len` bytes at byte `at`. `None` if it does not fit.
fn write(bytes: &mut [u8], at: usize, len: usize, entry: NewEntry<'_>, sb: &Superblock) -> Option<()> {
    let name = entry.name;
    if len < entry_len(name.len()) {
        return None;
    }
    let raw = RawEntry {
        inode: U32::new(entry.inode),
        rec_len: stored_len(len),
        name_len: u8::try_from(name.len()).ok()?,
        file_type: stored_type(entry.file_type, sb),
    };
    let (header, rest) = bytes.get_mut(at..)?.split_at_mut_checked(HEADER)?;
    header.copy_from_slice(raw.as_bytes());
    rest.get_mut(..name.len())?.copy_from_slice(name);
    rest.get_mut(name.len()..entry_len(name.len()) - HEADER)?.fill(0);
    Some(())
}

/// Sets the length of the entry at byte `at`.
pub(crate) fn set_len(bytes: &mut [u8], at: usize, len: usize) -> Option<()> {
    bytes.get_mut(at + 4..at + 6)?.copy_from_slice(stored_len(len).as_bytes());
    Some(())
}

/// Stores the checksum of a directory block, in an entry of its own at its end.
pub(crate) fn seal(bytes: &mut [u8], seed: u32, sb: &Superblock) {
    if !sb.metadata_csum() {
        return;
    }
    if let Some((covered, tail)) = bytes.split_at_mut_checked(list_len(sb)) {
        let crc = crc32c(seed, covered).to_le_bytes();
        let head = [0, 0, 0, 0, 12, 0, 0, CHECKSUM_TYPE];
        for (byte, value) in tail.iter_mut().zip(head.into_iter().chain(crc)) {
            *byte = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;
    use crate::features::RoCompat;
    use crate::superblock::{MAGIC, RawSuperblock};

    /// A superblock with blocks of `1024 << log` bytes, checksums and types.
    fn superblock(log: u32) -> Superblock {
        let mut raw = RawSuperblock::new_zeroed();
        raw.magic = MAGIC.into();
        raw.log_block_size = log.into();
        raw.blocks_count_lo = 64.into();
        raw.first_data_block = 1.into();
        raw.blocks_per_group = 8192.into();
        raw.inodes_count = 512.into();
        raw.inodes_per_group = 512.into();
        let mut sb = Superblock::decode(&raw, 1 << 30).unwrap();
        sb.ro_compat |= RoCompat::METADATA_CSUM;
        sb.incompat |= Incompat::FILETYPE;
        sb
    }

    fn names(bytes: &[u8], sb: &Superblock) -> Vec<String> {
        let list = List { bytes, inode: 12, offset: 0 };
        list.entries(sb).map(|e| e.unwrap().name.to_string()).collect()
    }

    fn new(name: &str, inode: u32) -> NewEntry<'_> {
        NewEntry { name: name.into(), inode, file_type: FileType::Regular }
    }

    #[test] // Lengths up to 64 KiB, which is more than 16 bits hold.
    fn lengths_round_trip() {
        for (len, block_size) in [(12, 1024), (4096, 4096), (65_524, 65_536), (65_536, 65_536)] {
            assert_eq!(dir::record_len(stored_len(len).get(), block_size), len);
        }
    }

    #[test]
    fn room_is_used_and_given_back() {
        for log in [0, 2, 6] {
            let sb = superblock(log);
            let mut block = first_block(12, 2, 7, &sb).unwrap();
            let list = |bytes: &[u8], name: &str| {
                let list = List { bytes: &bytes[..list_len(&sb)], inode: 12, offset: 0 };
                scan(list, Place::Block(1), name.into(), &sb).unwrap()
            };
            for (inode, name) in (20..).zip(["one", "two", "three-is-longer"]) {
                let room = list(&block, name).room.unwrap();
                put(&mut block, room, new(name, inode), &sb).unwrap();
            }
            assert_eq!(names(&block, &sb), [".", "..", "one", "two", "three-is-longer"]);
            let two = list(&block, "two").found.unwrap();
            assert_eq!((two.inode, two.end - two.start), (21, 12));
            take(&mut block, two).unwrap();
            assert_eq!(names(&block, &sb), [".", "..", "one", "three-is-longer"]);
            assert_eq!(&block[two.start..two.end], [0; 12], "nothing of it is left");
            // The room is where it was.
            let room = list(&block, "2").room.unwrap();
            put(&mut block, room, new("2", 30), &sb).unwrap();
            assert_eq!(names(&block, &sb), [".", "..", "one", "2", "three-is-longer"]);
            // The first of a list stays where it is, unused.
            let dot = list(&block, ".").found.unwrap();
            take(&mut block, dot).unwrap();
            assert_eq!(names(&block, &sb), ["..", "one", "2", "three-is-longer"]);
            assert_eq!(list(&block, "x").room.unwrap().start, 0);
        }
    }

    #[test]
    fn a_full_block_has_no_room_and_takes_no_more() {
        let sb = superblock(0);
        let long: Vec<String> = (0..5).map(|n| format!("{n}").repeat(250)).collect();
        let entries = |count| long.iter().take(count).zip(20..).map(|(name, inode)| new(name, inode));
        let block = block_of(entries(3), 7, &sb).unwrap();
        assert_eq!(names(&block, &sb), long[..3]);
        let list = List { bytes: &block[..list_len(&sb)], inode: 12, offset: 0 };
        assert!(scan(list, Place::Block(1), long[3].as_str().into(), &sb).unwrap().room.is_none());
        assert!(scan(list, Place::Block(1), "short".into(), &sb).unwrap().room.is_some());
        assert!(matches!(block_of(entries(4), 7, &sb), Err(Error::NoSpace(_))));
    }
}
