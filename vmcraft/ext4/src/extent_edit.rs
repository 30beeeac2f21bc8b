//! Changing extent trees.
//!
//! Every change is one of a leaf: its entries are taken apart into a list, changed, joined and cut to
//! the lengths that the format allows, and written back. What does not fit is split, and a leaf
//! without entries is freed; either changes the parent in the same way, up to the root, above which
//! the tree grows. A root whose only child would fit in it takes the child's place.

use vmcraft_fs::{Error, Result};
use zerocopy::IntoBytes;

use crate::extent::{
    ENTRY, Entry, MAGIC, MAX_DEPTH, MAX_WRITTEN, Place, RawExtent, RawHeader, RawIndex, WHOLE_FILE,
};
use crate::inode::{I_BLOCK_SIZE, Inode};
use crate::superblock::Superblock;
use crate::volume::Volume;
use crate::{content, extent};

/// Entries that the root has room for.
const ROOT_ROOM: usize = I_BLOCK_SIZE / ENTRY - 1;

/// The `i_block` of a file without blocks.
pub(crate) fn empty_root() -> [u8; I_BLOCK_SIZE] {
    let mut root = [0; I_BLOCK_SIZE];
    encode(&mut root, 0, &[], ROOT_ROOM);
    root
}

/// Maps blocks of a file that were a hole. They must be part of one run that [`extent::map`] gives.
pub(crate) fn insert(volume: &Volume, inode: &mut Inode, new: Entry) -> Result<()> {
    let path = Path::find(volume, inode, new.block)?;
    path.change(volume, inode, |leaf| {
        let at = leaf.entries.partition_point(|e| e.block < new.block);
        let before = at.checked_sub(1).and_then(|i| leaf.entries.get(i)).map_or(leaf.range.0, Entry::end);
        let after = leaf.entries.get(at).map_or(leaf.range.1, |e| e.block);
        if new.block < before || new.end() > after {
            return Err(leaf.place.corrupt(format_args!("block {} of the file is mapped", new.block), ENTRY));
        }
        leaf.entries.insert(at, new);
        Ok(())
    })
}

/// Makes what is unwritten in `start..end` written. What is there must be part of one run that
/// [`extent::map`] gives.
pub(crate) fn convert(volume: &Volume, inode: &mut Inode, start: u64, end: u64) -> Result<()> {
    let path = Path::find(volume, inode, start)?;
    path.change(volume, inode, |leaf| {
        leaf.cut(start);
        leaf.cut(end);
        for extent in leaf.entries.iter_mut().filter(|e| (start..end).contains(&e.block)) {
            extent.unwritten = false;
        }
        Ok(())
    })
}

/// Unmaps `start..end` and frees its blocks.
pub(crate) fn remove(volume: &Volume, inode: &mut Inode, mut start: u64, end: u64) -> Result<()> {
    let end = end.min(WHOLE_FILE.1);
    while start < end {
        let path = Path::find(volume, inode, start)?;
        let Some(leaf) = path.levels.last() else { return Ok(()) };
        let next = leaf.range.1;
        if leaf.entries.iter().any(|e| e.block < end && e.end() > start) {
            let mut freed = Vec::new();
            let path = path.with_leaf(|leaf| {
                leaf.cut(start);
                leaf.cut(end);
                freed = leaf.entries.extract_if(.., |e| (start..end).contains(&e.block)).collect();
            });
            // First, as what they leave may have to take a node.
            for extent in freed {
                content::release(volume, inode, extent.physical, extent.len)?;
            }
            path.change(volume, inode, |_| Ok(()))?;
        }
        start = next.max(start + 1);
    }
    Ok(())
}

/// A node and which of its entries the path goes on with.
struct Level {
    place: Place,
    /// `None` for the root.
    block: Option<u64>,
    depth: u16,
    entries: Vec<Entry>,
    slot: usize,
    /// Blocks of the file that it may map.
    range: (u64, u64),
    /// Where its last entry started when it was read.
    last: Option<u64>,
}

impl Level {
    /// Divides the extent that has blocks on both sides of `at`.
    fn cut(&mut self, at: u64) {
        let Some(index) = self.entries.iter().position(|e| e.block < at && at < e.end()) else { return };
        let whole = self.entries[index];
        let head = at - whole.block;
        self.entries[index].len = head;
        let tail = Entry { block: at, len: whole.len - head, physical: whole.physical + head, ..whole };
        self.entries.insert(index + 1, tail);
    }

    /// Joins extents that follow each other on the volume too, then cuts them to what an entry holds.
    fn join(&mut self) {
        let most = |extent: &Entry| u64::from(if extent.unwritten { MAX_WRITTEN - 1 } else { MAX_WRITTEN });
        let joins = |a: &Entry, b: &Entry| {
            a.end() == b.block && a.physical + a.len == b.physical && a.unwritten == b.unwritten
        };
        let fits = self.entries.iter().all(|e| e.len <= most(e));
        if fits && self.entries.is_sorted_by(|a, b| !joins(a, b)) {
            return;
        }
        let mut joined: Vec<Entry> = Vec::with_capacity(self.entries.len());
        for extent in self.entries.drain(..) {
            match joined.last_mut() {
                Some(last) if joins(last, &extent) => last.len += extent.len,
                _ => joined.push(extent),
            }
        }
        for mut extent in joined {
            let most = most(&extent);
            while extent.len > most {
                self.entries.push(Entry { len: most, ..extent });
                extent.block += most;
                extent.physical += most;
                extent.len -= most;
            }
            self.entries.push(extent);
        }
    }

    /// The entries in parts of `room` at most: full ones if the file grew at its end, so that files
    /// written in order have full nodes, else equal ones.
    fn parts(&self, room: usize) -> impl Iterator<Item = &[Entry]> {
        let count = self.entries.len();
        let appended = self.entries.last().map(|e| e.block) > self.last;
        let size = if appended { room } else { count.div_ceil(count.div_ceil(room).max(1)) };
        self.entries.chunks(size.max(1))
    }
}

/// The nodes from the root to the leaf that maps a block, or would.
struct Path {
    levels: Vec<Level>,
}

impl Path {
    fn find(volume: &Volume, inode: &Inode, block: u64) -> Result<Self> {
        let (mut depth, mut entries) = extent::root_entries(volume, inode)?;
        let (mut place, mut number, mut range) = (Place::root(inode), None, WHOLE_FILE);
        let mut levels = Vec::new();
        loop {
            let slot = entries.partition_point(|e| e.block <= block).saturating_sub(1);
            let last = entries.last().map(|e| e.block);
            let child = entries.get(slot).filter(|_| depth > 0).copied();
            let high = entries.get(slot + 1).map_or(range.1, |e| e.block);
            levels.push(Level { place, block: number, depth, entries, slot, range, last });
            let Some(child) = child else { break };
            depth -= 1;
            // A node starts with its entry's block, but what comes before it can be put into it.
            let low = if slot == 0 { range.0 } else { child.block };
            entries = extent::node_entries(volume, inode, child.physical, depth, (child.block, high))?;
            place = Place::of_block(inode, child.physical, &volume.sb);
            (number, range) = (Some(child.physical), (low, high));
        }
        Ok(Self { levels })
    }

    fn with_leaf(mut self, change: impl FnOnce(&mut Level)) -> Self {
        if let Some(leaf) = self.levels.last_mut() {
            change(leaf);
        }
        self
    }

    /// Changes the leaf, then whatever follows from that above it.
    fn change(
        mut self,
        volume: &Volume,
        inode: &mut Inode,
        change: impl FnOnce(&mut Level) -> Result<()>,
    ) -> Result<()> {
        if let Some(leaf) = self.levels.last_mut() {
            change(leaf)?;
            leaf.join();
        }
        while let Some(level) = self.levels.pop() {
            let (Some(block), Some(parent)) = (level.block, self.levels.last_mut()) else {
                return store_root(volume, inode, level);
            };
            let children = store_parts(volume, inode, &level, Some(block))?;
            let old = parent.entries.get(parent.slot);
            if children.len() == 1 && old == children.first() {
                return Ok(());
            }
            parent.entries.splice(parent.slot..=parent.slot, children);
        }
        Ok(())
    }
}

/// Entries that a node of its own block has room for. Behind them is room for a checksum: 12 does not
/// divide any block size.
fn room(sb: &Superblock) -> usize {
    sb.block_size as usize / ENTRY - 1
}

/// How many blocks [`build`] needs for a tree of so many extents.
pub(crate) fn nodes_for(mut entries: usize, sb: &Superblock) -> usize {
    let mut nodes = 0;
    while entries > ROOT_ROOM {
        entries = entries.div_ceil(room(sb));
        nodes += entries;
    }
    nodes
}

/// Nodes in blocks of their own, each with its block.
pub(crate) type Nodes = Vec<(u64, Vec<u8>)>;

/// Makes a tree of extents that are in order: the root for `i_block`, and the other nodes, each with the one
/// of `blocks` where it is to be. `None` if these are too few.
pub(crate) fn build(
    extents: &[Entry],
    blocks: &[u64],
    seed: u32,
    sb: &Superblock,
) -> Option<([u8; I_BLOCK_SIZE], Nodes)> {
    let mut free = blocks.iter();
    let mut nodes = Vec::new();
    let mut entries = extents.to_vec();
    let mut depth = 0;
    while entries.len() > ROOT_ROOM {
        let mut above = Vec::new();
        for part in entries.chunks(room(sb)) {
            let mut bytes = vec![0; sb.block_size as usize];
            encode(&mut bytes, depth, part, room(sb));
            extent::seal(&mut bytes, seed, sb);
            let physical = *free.next()?;
            nodes.push((physical, bytes));
            let block = part.first().map_or(0, |e| e.block);
            above.push(Entry { block, len: 0, physical, unwritten: false });
        }
        entries = above;
        depth += 1;
    }
    let mut root = [0; I_BLOCK_SIZE];
    encode(&mut root, depth, &entries, ROOT_ROOM);
    Some((root, nodes))
}

/// Writes a node, split as needed, the first part at `block`; frees `block` if there are no entries.
/// Returns the entries of the parent that lead there.
fn store_parts(volume: &Volume, inode: &mut Inode, level: &Level, block: Option<u64>) -> Result<Vec<Entry>> {
    let mut children = Vec::new();
    let mut free = block;
    for part in level.parts(room(&volume.sb)) {
        let number = match free.take() {
            Some(block) => block,
            None => {
                let goal = part.first().map_or(0, |e| e.physical);
                content::claim(volume, inode, goal, 1)?.start
            }
        };
        let mut bytes = vec![0; volume.sb.block_size as usize].into_boxed_slice();
        encode(&mut bytes, level.depth, part, room(&volume.sb));
        extent::seal(&mut bytes, inode.checksum_seed, &volume.sb);
        volume.put(number, bytes)?;
        let first = part.first().map_or(0, |e| e.block);
        children.push(Entry { block: first, len: 0, physical: number, unwritten: false });
    }
    if let Some(block) = free {
        content::release(volume, inode, block, 1)?;
    }
    Ok(children)
}

/// Writes the root, with a level more below it if it is too full, or a level less if what is below has
/// room in it.
fn store_root(volume: &Volume, inode: &mut Inode, mut root: Level) -> Result<()> {
    while root.entries.len() > ROOT_ROOM {
        if root.depth >= MAX_DEPTH {
            return Err(Error::NoSpace("the extent tree has all levels that the format allows"));
        }
        root.entries = store_parts(volume, inode, &root, None)?;
        root.depth += 1;
        root.last = None;
    }
    while root.depth > 0
        && let [child] = root.entries[..]
    {
        let range = (child.block, WHOLE_FILE.1);
        let entries = extent::node_entries(volume, inode, child.physical, root.depth - 1, range)?;
        if entries.len() > ROOT_ROOM {
            break;
        }
        content::release(volume, inode, child.physical, 1)?;
        root.entries = entries;
        root.depth -= 1;
    }
    if root.entries.is_empty() {
        root.depth = 0;
    }
    encode(&mut inode.block, root.depth, &root.entries, ROOT_ROOM);
    Ok(())
}

/// Fills `bytes` with a node that has room for `room` entries; what it does not need becomes zeros.
fn encode(bytes: &mut [u8], depth: u16, entries: &[Entry], room: usize) {
    bytes.fill(0);
    // Both are below a block's size divided by 12: they fit 16 bits.
    let count = |number: usize| u16::try_from(number).unwrap_or(u16::MAX).into();
    let header = RawHeader {
        magic: MAGIC.into(),
        entries: count(entries.len()),
        max: count(room),
        depth: depth.into(),
        generation: 0.into(),
    };
    let mut slots = bytes.chunks_exact_mut(ENTRY);
    let mut add = |raw: &[u8]| {
        if let Some(slot) = slots.next() {
            slot.copy_from_slice(raw);
        }
    };
    add(header.as_bytes());
    for entry in entries {
        let block = low_32(entry.block).into();
        let (low, high) = (low_32(entry.physical).into(), low_16(entry.physical >> 32).into());
        if depth > 0 {
            add(RawIndex { block, leaf_lo: low, leaf_hi: high, unused: 0.into() }.as_bytes());
        } else {
            // Cut to the longest by `Level::join`.
            let len = low_16(entry.len) + if entry.unwritten { MAX_WRITTEN } else { 0 };
            add(RawExtent { block, len: len.into(), start_hi: high, start_lo: low }.as_bytes());
        }
    }
}

fn low_32(number: u64) -> u32 {
    (number & 0xffff_ffff) as u32
}

fn low_16(number: u64) -> u16 {
    (number & 0xffff) as u16
}
