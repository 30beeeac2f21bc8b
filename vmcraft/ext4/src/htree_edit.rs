//! Changes to htrees: a directory gets one, leaves and nodes split, the root gets a level below it.

use std::mem::size_of;

use bstr::{BStr, BString};
use vmcraft_fs::{Error, FileType, Result};
use zerocopy::IntoBytes;

use crate::dir::{self, List};
use crate::dir_edit::{self, NewEntry, entry_len};
use crate::dirhash::Hasher;
use crate::htree::{
    self, ENTRY, Frame, NODE_ENTRIES, Path, ROOT_ENTRIES, ROOT_INFO, RawCounts, RawIndex, RawRootInfo,
};
use crate::inode::InodeFlags;
use crate::map::OpenInode;
use crate::superblock::Superblock;
use crate::volume::Volume;

/// An entry on its way from one leaf to another.
struct Moved {
    hash: u32,
    name: BString,
    inode: u32,
    file_type: FileType,
}

impl Moved {
    fn entry(&self) -> NewEntry<'_> {
        NewEntry { name: self.name.as_ref(), inode: self.inode, file_type: self.file_type }
    }

    fn len(&self) -> usize {
        entry_len(self.name.len())
    }
}

/// Gives an index to a directory of one block that is full, and adds an entry.
pub(crate) fn make_indexed(volume: &Volume, dir: &mut OpenInode, entry: NewEntry<'_>) -> Result<()> {
    let sb = &volume.sb;
    let (block, offset) = dir::block_at(volume, dir, 0)?;
    let list = List { bytes: &block.bytes, inode: dir.number, offset };
    let mut entries = Vec::new();
    let mut parent = None;
    for (index, found) in list.entries(sb).enumerate() {
        let found = found?;
        match index {
            0 if found.name == "." => (),
            1 if found.name == ".." => parent = Some(found.inode),
            0 | 1 => return Err(dir.corrupt("a directory that does not start with \".\" and \"..\"")),
            _ if found.is_dot() => return Err(dir.corrupt("a directory with a second \".\" or \"..\"")),
            _ => entries.push(NewEntry { name: found.name, inode: found.inode, file_type: found.file_type }),
        }
    }
    let parent = parent.ok_or_else(|| dir.corrupt("a directory without the entry \"..\""))?;
    let leaf = dir_edit::block_of(entries, dir.checksum_seed, sb)?;
    let leaf = dir_edit::append(volume, dir, leaf)?;
    let root = root(dir, parent, index_of(dir, leaf)?, sb)
        .ok_or_else(|| dir.corrupt("a directory block that has no room for an htree"))?;
    overwrite(volume, dir, offset / u64::from(sb.block_size), &root)?;
    dir.flags.insert(InodeFlags::INDEX);
    let path = Path::to(volume, dir, entry.name)?;
    split_and_insert(volume, dir, path, entry)
}

/// A root that leads to one leaf. `None` if it does not fit into a block.
fn root(dir: &OpenInode, parent: u32, leaf: u32, sb: &Superblock) -> Option<Box<[u8]>> {
    let mut block = vec![0; sb.block_size as usize].into_boxed_slice();
    dir_edit::fill(&mut block, dir_edit::dots(dir.number, parent), sb)?;
    let info = RawRootInfo {
        reserved_zero: 0.into(),
        hash_version: sb.hash_version,
        info_length: u8::try_from(size_of::<RawRootInfo>()).ok()?,
        indirect_levels: 0,
        unused_flags: 0,
    };
    block.get_mut(ROOT_INFO..ROOT_ENTRIES)?.copy_from_slice(info.as_bytes());
    set_entries(&mut block, ROOT_ENTRIES, &[RawIndex { hash: 0.into(), block: leaf.into() }], sb)?;
    seal(&mut block, ROOT_ENTRIES, dir.checksum_seed, sb);
    Some(block)
}

/// Splits the full leaf that `path` leads to, and adds an entry to the half where it belongs.
pub(crate) fn split_and_insert(
    volume: &Volume,
    dir: &mut OpenInode,
    mut path: Path,
    entry: NewEntry<'_>,
) -> Result<()> {
    let sb = &volume.sb;
    // A split takes an entry in the node above, whose own split takes one in the node above it.
    for _ in 0..=path.frames.len() {
        if !path.frames.last().is_some_and(Frame::is_full) {
            break;
        }
        grow_index(volume, dir, &path)?;
        path = Path::to(volume, dir, entry.name)?;
    }

    let leaf = path.leaf(volume, dir)?;
    let mut low = sorted(leaf.list(), path.hasher, sb)?;
    let at = split_point(&low, sb);
    let mut high = low.split_off(at);
    let (Some(last), Some(first)) = (low.last(), high.first()) else {
        return Err(leaf.place.corrupt("a full leaf that has fewer than two entries", 0));
    };
    // The lowest bit says that names of this hash are in the leaf before, too.
    let bound = first.hash | u32::from(first.hash == last.hash);
    let half = if path.hash >= first.hash { &mut high } else { &mut low };
    let (name, inode, file_type) = (entry.name.to_owned(), entry.inode, entry.file_type);
    half.push(Moved { hash: path.hash, name, inode, file_type });

    let low = dir_edit::block_of(low.iter().map(Moved::entry), dir.checksum_seed, sb)?;
    let high = dir_edit::block_of(high.iter().map(Moved::entry), dir.checksum_seed, sb)?;
    let number = dir_edit::append(volume, dir, high)?;
    overwrite(volume, dir, leaf.place.offset / u64::from(sb.block_size), &low)?;
    let frame = path.frames.last().ok_or_else(|| leaf.place.corrupt("a leaf without a root", 0))?;
    let index = RawIndex { hash: bound.into(), block: index_of(dir, number)?.into() };
    insert_index(volume, dir, frame, index)
}

/// The entries of a leaf in the order of their hashes.
fn sorted(list: List<'_>, hasher: Hasher, sb: &Superblock) -> Result<Vec<Moved>> {
    let mut all = Vec::new();
    for entry in list.entries(sb) {
        let entry = entry?;
        let hash = hasher.hash(entry.name);
        let (name, inode, file_type) = (<BStr>::to_owned(entry.name), entry.inode, entry.file_type);
        all.push(Moved { hash, name, inode, file_type });
    }
    all.sort_by_key(|moved| moved.hash);
    Ok(all)
}

/// How many entries stay: those behind them fill about half a block.
fn split_point(entries: &[Moved], sb: &Superblock) -> usize {
    let half = sb.block_size as usize / 2;
    let mut size = 0;
    let mut at = entries.len();
    for moved in entries.iter().rev() {
        if size + moved.len() / 2 > half {
            break;
        }
        size += moved.len();
        at -= 1;
    }
    if at == 0 { entries.len() / 2 } else { at }
}

/// Makes room in the lowest node of `path`, or in one above it that needs it first.
fn grow_index(volume: &Volume, dir: &mut OpenInode, path: &Path) -> Result<()> {
    // The lowest node whose parent has room.
    let full = path.frames.iter().rev().take_while(|frame| frame.is_full()).count();
    let Some(index) = path.frames.len().checked_sub(full) else { return Ok(()) };
    let Some(frame) = path.frames.get(index) else { return Ok(()) };
    match index.checked_sub(1).and_then(|above| path.frames.get(above)) {
        Some(parent) => split_node(volume, dir, frame, parent),
        None => add_level(volume, dir, frame, path.levels),
    }
}

/// Moves the upper half of a node's entries into a new node beside it.
fn split_node(volume: &Volume, dir: &mut OpenInode, frame: &Frame, parent: &Frame) -> Result<()> {
    let entries = frame.entries();
    let (low, high) = entries.split_at(entries.len() / 2);
    let Some(bound) = high.first().map(|e| e.hash) else {
        return Err(frame.place.corrupt("a full node without entries", 0));
    };
    let number = append_node(volume, dir, frame, high)?;
    edit_entries(volume, dir, frame, low, |_| Some(()))?;
    let block = index_of(dir, number)?.into();
    insert_index(volume, dir, parent, RawIndex { hash: bound, block })
}

/// Moves all entries of the root into a new node below it.
fn add_level(volume: &Volume, dir: &mut OpenInode, root: &Frame, levels: usize) -> Result<()> {
    let sb = &volume.sb;
    if levels >= usize::from(htree::most_levels(sb)) {
        return Err(Error::NoSpace("the index of the directory is full"));
    }
    let number = append_node(volume, dir, root, root.entries())?;
    let only = [RawIndex { hash: 0.into(), block: index_of(dir, number)?.into() }];
    edit_entries(volume, dir, root, &only, |bytes| {
        let field = bytes.get_mut(ROOT_INFO + 6)?; // indirect_levels
        *field = u8::try_from(levels + 1).ok()?;
        Some(())
    })
}

/// Adds a node to the directory, with some of the entries of `frame`.
fn append_node(volume: &Volume, dir: &mut OpenInode, frame: &Frame, entries: &[RawIndex]) -> Result<u64> {
    let sb = &volume.sb;
    let mut block = vec![0; sb.block_size as usize].into_boxed_slice();
    // To who reads entries, it is an unused one.
    dir_edit::fill(&mut block, [], sb)
        .and_then(|()| set_entries(&mut block, NODE_ENTRIES, entries, sb))
        .ok_or_else(|| frame.place.corrupt("more entries than a node has room for", 0))?;
    seal(&mut block, NODE_ENTRIES, dir.checksum_seed, sb);
    dir_edit::append(volume, dir, block)
}

/// Adds an entry behind the one that the path went through.
fn insert_index(volume: &Volume, dir: &OpenInode, frame: &Frame, new: RawIndex) -> Result<()> {
    let (sb, start) = (&volume.sb, htree::entries_start(frame.place.logical));
    let count = frame.entries().len();
    let at = start + (frame.at + 1) * ENTRY;
    let end = start + count * ENTRY;
    edit_node(volume, dir, frame, |bytes| {
        bytes.get(at..end + ENTRY)?;
        bytes.copy_within(at..end, at + ENTRY);
        bytes.get_mut(at..at + ENTRY)?.copy_from_slice(new.as_bytes());
        set_count(bytes, start, count + 1, sb)
    })
}

/// Replaces the entries of a node.
fn edit_entries(
    volume: &Volume,
    dir: &OpenInode,
    frame: &Frame,
    entries: &[RawIndex],
    more: impl FnOnce(&mut [u8]) -> Option<()>,
) -> Result<()> {
    let (sb, start) = (&volume.sb, htree::entries_start(frame.place.logical));
    edit_node(volume, dir, frame, |bytes| {
        set_entries(bytes, start, entries, sb)?;
        more(bytes)
    })
}

fn edit_node(
    volume: &Volume,
    dir: &OpenInode,
    frame: &Frame,
    how: impl FnOnce(&mut [u8]) -> Option<()>,
) -> Result<()> {
    let (sb, seed, number) = (&volume.sb, dir.checksum_seed, dir.number);
    let start = htree::entries_start(frame.place.logical);
    let block = frame.place.offset / u64::from(sb.block_size);
    let done = volume.edit(
        block,
        || format!("htree of directory inode {number}"),
        |bytes| {
            let done = how(bytes);
            seal(bytes, start, seed, sb);
            Ok(done)
        },
    )?;
    done.ok_or_else(|| frame.place.corrupt("no room for its entries", start))
}

/// Writes a node's entries and counts.
fn set_entries(bytes: &mut [u8], start: usize, entries: &[RawIndex], sb: &Superblock) -> Option<()> {
    let stored = entries.as_bytes();
    let room = bytes.get_mut(start..start + htree::room_for(start, sb) * ENTRY)?;
    let (used, unused) = room.split_at_mut_checked(stored.len())?;
    used.copy_from_slice(stored);
    unused.fill(0);
    set_count(bytes, start, entries.len(), sb)
}

/// Writes a node's counts, in the place of the first entry's hash.
fn set_count(bytes: &mut [u8], start: usize, count: usize, sb: &Superblock) -> Option<()> {
    let limit = u16::try_from(htree::room_for(start, sb)).ok()?;
    let counts = RawCounts { limit: limit.into(), count: u16::try_from(count).ok()?.into() };
    bytes.get_mut(start..start + size_of::<RawCounts>())?.copy_from_slice(counts.as_bytes());
    Some(())
}

/// Replaces a whole block of the directory.
fn overwrite(volume: &Volume, dir: &OpenInode, block: u64, content: &[u8]) -> Result<()> {
    let number = dir.number;
    volume.edit(
        block,
        || format!("directory inode {number}"),
        |bytes| {
            bytes.copy_from_slice(content);
            Ok(())
        },
    )
}

/// The number of a block of the directory as an index holds it.
fn index_of(dir: &OpenInode, logical: u64) -> Result<u32> {
    u32::try_from(logical)
        .ok()
        .filter(|number| number & !htree::BLOCK_MASK == 0)
        .ok_or_else(|| dir.corrupt("a directory of more blocks than an htree can lead to"))
}

/// Stores the checksum of a node whose entries start at byte `start`.
pub(crate) fn seal(bytes: &mut [u8], start: usize, seed: u32, sb: &Superblock) {
    if !sb.metadata_csum() {
        return;
    }
    if let Ok((crc, at)) = htree::checksum(bytes, seed, start)
        && let Some(field) = bytes.get_mut(at..at + 4)
    {
        field.copy_from_slice(&crc.to_le_bytes());
    }
}
