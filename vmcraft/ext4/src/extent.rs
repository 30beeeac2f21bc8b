//! Extent trees.

use std::fmt;
use std::mem::size_of;
use std::sync::Arc;

use vmcraft_fs::{Error, Result};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::crc32c;
use crate::corrupt;
use crate::inode::{I_BLOCK_START, Inode, InodeFlags};
use crate::map::{Run, RunKind};
use crate::superblock::Superblock;
use crate::volume::{Block, Role, Volume};

/// `eh_magic`.
pub(crate) const MAGIC: u16 = 0xf30a;
/// The deepest tree that the format allows.
pub(crate) const MAX_DEPTH: u16 = 5;
/// Longer than this is an unwritten extent, of so much less.
pub(crate) const MAX_WRITTEN: u16 = 0x8000;

/// The header of each node, in `i_block` and at the start of a block.
///
/// Spec: Linux `Documentation/filesystems/ext4/ifork.rst`; fields have its names without `eh_`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawHeader {
    pub(crate) magic: U16,
    pub(crate) entries: U16,
    pub(crate) max: U16,
    /// 0 in a leaf.
    pub(crate) depth: U16,
    pub(crate) generation: U32,
}

/// An entry of an inner node: a subtree and the first block of the file that it maps.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawIndex {
    pub(crate) block: U32,
    pub(crate) leaf_lo: U32,
    pub(crate) leaf_hi: U16,
    pub(crate) unused: U16,
}

/// An entry of a leaf.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawExtent {
    pub(crate) block: U32,
    pub(crate) len: U16,
    pub(crate) start_hi: U16,
    pub(crate) start_lo: U32,
}

impl RawExtent {
    /// How many blocks it maps.
    fn blocks(&self) -> u64 {
        let len = self.len.get();
        u64::from(if len > MAX_WRITTEN { len - MAX_WRITTEN } else { len })
    }
}

/// Bytes of a header and of either kind of entry.
pub(crate) const ENTRY: usize = 12;
/// What the root may map.
pub(crate) const WHOLE_FILE: (u64, u64) = (0, u32::MAX as u64);
const _: () = assert!(size_of::<RawHeader>() == ENTRY);
const _: () = assert!(size_of::<RawIndex>() == ENTRY);
const _: () = assert!(size_of::<RawExtent>() == ENTRY);

/// Which node it is, for an error.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    inode: u32,
    /// `None` for the root, which is in the inode.
    block: Option<u64>,
    /// In bytes of the volume.
    offset: u64,
}

impl Place {
    /// The root of a file's tree.
    pub(crate) fn root(inode: &Inode) -> Self {
        Self { inode: inode.number, block: None, offset: inode.offset + I_BLOCK_START as u64 }
    }

    /// The node that fills `block`.
    pub(crate) fn of_block(inode: &Inode, block: u64, sb: &Superblock) -> Self {
        Self { inode: inode.number, block: Some(block), offset: sb.byte_of(block) }
    }

    /// `at` counts bytes of the node.
    pub(crate) fn corrupt(&self, what: impl fmt::Display, at: usize) -> Error {
        let what = match self.block {
            None => format!("extent root of inode {}: {what}", self.inode),
            Some(block) => format!("extent block {block} of inode {}: {what}", self.inode),
        };
        corrupt(what, self.offset + at as u64)
    }
}

/// A node, its header checked.
struct Node<'a> {
    place: Place,
    depth: u16,
    /// Whole entries of [`ENTRY`] bytes.
    entries: &'a [u8],
    /// What the node may map: blocks of the file from `low` up to, not including, `high`, where its
    /// parent's next entry starts.
    low: u64,
    high: u64,
}

/// What an inner node has for a block.
enum Child {
    /// A node at this block of the volume, for these blocks of the file.
    Node { number: u64, range: (u64, u64) },
    /// Nothing: the block is before the first child.
    Hole(Run),
}

impl<'a> Node<'a> {
    /// Checks a node's header.
    fn decode(bytes: &'a [u8], place: Place, depth: Option<u16>, (low, high): (u64, u64)) -> Result<Self> {
        let Ok((header, rest)) = RawHeader::ref_from_prefix(bytes) else {
            return Err(place.corrupt("too small", 0));
        };
        let (entries, max) = (usize::from(header.entries.get()), usize::from(header.max.get()));
        if header.magic.get() != MAGIC {
            return Err(place.corrupt(format_args!("magic {:#06x}, not {MAGIC:#06x}", header.magic.get()), 0));
        }
        if max == 0 || max > rest.len() / ENTRY {
            return Err(place.corrupt(format_args!("room for {max} entries, of {}", rest.len() / ENTRY), 4));
        }
        if entries > max {
            return Err(place.corrupt(format_args!("{entries} entries in room for {max}"), 2));
        }
        let found = header.depth.get();
        if found > MAX_DEPTH || depth.is_some_and(|d| d != found) {
            return Err(place.corrupt(format_args!("depth {found}"), 6));
        }
        if found > 0 && entries == 0 {
            return Err(place.corrupt("an inner node without entries", 2));
        }
        let node = Self { place, depth: found, entries: &rest[..entries * ENTRY], low, high };
        // Entries of either kind begin with the first block that they map.
        let first = node.entries.first_chunk().map_or(low, |b| u64::from(u32::from_le_bytes(*b)));
        if depth.is_some() && first != low {
            return Err(place.corrupt(format_args!("starts at block {first} of the file, not {low}"), ENTRY));
        }
        Ok(node)
    }

    /// Checks that entries are in order and do not overlap, without which searches go astray.
    fn check_order(&self) -> Result<()> {
        let in_order = if self.depth > 0 {
            let indexes = <[RawIndex]>::ref_from_bytes(self.entries).unwrap_or_default();
            indexes.is_sorted_by(|a, b| a.block.get() < b.block.get())
        } else {
            let extents = <[RawExtent]>::ref_from_bytes(self.entries).unwrap_or_default();
            extents.is_sorted_by(|a, b| u64::from(a.block.get()) + a.blocks() <= b.block.get().into())
        };
        if in_order { Ok(()) } else { Err(self.out_of_order()) }
    }

    /// The child that maps `block`.
    fn child(&self, block: u64) -> Result<Child> {
        let indexes = <[RawIndex]>::ref_from_bytes(self.entries).unwrap_or_default();
        let after = indexes.partition_point(|i| u64::from(i.block.get()) <= block);
        let high = indexes.get(after).map_or(self.high, |next| self.high.min(u64::from(next.block.get())));
        let Some(index) = after.checked_sub(1).and_then(|i| indexes.get(i)) else {
            return Ok(Child::Hole(self.hole(self.low, high, block)?));
        };
        let first = u64::from(index.block.get());
        if first < self.low || block >= high {
            return Err(self.out_of_order());
        }
        let number = u64::from(index.leaf_hi.get()) << 32 | u64::from(index.leaf_lo.get());
        Ok(Child::Node { number, range: (first, high) })
    }

    /// In a leaf, the run that holds `block`.
    fn run(&self, block: u64, sb: &Superblock) -> Result<Run> {
        let extents = <[RawExtent]>::ref_from_bytes(self.entries).unwrap_or_default();
        let after = extents.partition_point(|e| u64::from(e.block.get()) <= block);
        let next = extents.get(after).map_or(self.high, |e| self.high.min(u64::from(e.block.get())));
        let Some(mut index) = after.checked_sub(1) else {
            return self.hole(self.low, next, block);
        };
        let mut run = self.extent(&extents[index], index, sb)?;
        if run.start < self.low {
            return Err(self.out_of_order());
        }
        if block >= run.end() {
            return self.hole(run.end(), next, block);
        }
        // Whoever reads on wants as much at once as lies together.
        while let Some(raw) = extents.get(index + 1)
            && u64::from(raw.block.get()) == run.end()
        {
            index += 1;
            let following = self.extent(raw, index, sb)?;
            let joins = match (run.kind, following.kind) {
                (RunKind::Data(a), RunKind::Data(b)) => a + run.len == b,
                (RunKind::Unwritten, RunKind::Unwritten) => true,
                _ => false,
            };
            if !joins {
                break;
            }
            run.len += following.len;
        }
        // What reaches past the next leaf's start is never found there.
        run.len = run.len.min(self.high - run.start);
        Ok(run)
    }

    fn extent(&self, raw: &RawExtent, index: usize, sb: &Superblock) -> Result<Run> {
        let len = raw.blocks();
        let start = u64::from(raw.block.get());
        let physical = u64::from(raw.start_hi.get()) << 32 | u64::from(raw.start_lo.get());
        if len == 0 || start + len > 1 << 32 || !sb.holds(physical, len) {
            let what = format_args!(
                "an extent of {len} blocks from block {physical}, for block {start} of the file"
            );
            return Err(self.place.corrupt(what, ENTRY * (1 + index)));
        }
        let written = raw.len.get() <= MAX_WRITTEN;
        let kind = if written { RunKind::Data(physical) } else { RunKind::Unwritten };
        Ok(Run { start, len, kind })
    }

    /// All entries. Whoever changes the tree wants them within the node's range and the volume, which
    /// reading leaves to the entry in question.
    fn all(&self, sb: &Superblock) -> Result<Vec<Entry>> {
        let mut all = Vec::with_capacity(self.entries.len() / ENTRY);
        if self.depth > 0 {
            for index in <[RawIndex]>::ref_from_bytes(self.entries).unwrap_or_default() {
                let physical = u64::from(index.leaf_hi.get()) << 32 | u64::from(index.leaf_lo.get());
                if !sb.holds(physical, 1) {
                    return Err(self.place.corrupt(format_args!("a child at block {physical}"), ENTRY));
                }
                all.push(Entry { block: index.block.get().into(), len: 0, physical, unwritten: false });
            }
        } else {
            let extents = <[RawExtent]>::ref_from_bytes(self.entries).unwrap_or_default();
            for (index, raw) in extents.iter().enumerate() {
                let run = self.extent(raw, index, sb)?;
                let physical = u64::from(raw.start_hi.get()) << 32 | u64::from(raw.start_lo.get());
                let unwritten = run.kind == RunKind::Unwritten;
                all.push(Entry { block: run.start, len: run.len, physical, unwritten });
            }
        }
        let end = all.last().map_or(self.low, |e| e.block + e.len.max(1));
        if all.first().is_some_and(|e| e.block < self.low) || end > self.high {
            return Err(self.out_of_order());
        }
        Ok(all)
    }

    /// The hole from `start` to `end`, in which `block` must be.
    fn hole(&self, start: u64, end: u64, block: u64) -> Result<Run> {
        if !(start..end).contains(&block) {
            return Err(self.out_of_order());
        }
        Ok(Run { start, len: end - start, kind: RunKind::Hole })
    }

    fn out_of_order(&self) -> Error {
        self.place.corrupt("its entries overlap or are out of order", ENTRY)
    }
}

/// Decodes a node and asks for blocks all over it, for [`crate::fuzz`].
pub(crate) fn probe_node(bytes: &[u8], sb: &Superblock) {
    let place = Place { inode: 12, block: Some(1), offset: 0 };
    let Ok(node) = Node::decode(bytes, place, None, WHOLE_FILE) else { return };
    let _ = node.check_order();
    for block in [0, 1, 2, 1000, 0x7fff_ffff, 0xffff_fffe] {
        let _ = if node.depth > 0 { node.child(block).map(|_| ()) } else { node.run(block, sb).map(|_| ()) };
    }
}

/// Whether a file's tree has nodes in blocks of their own.
pub(crate) fn has_nodes(inode: &Inode) -> bool {
    let header = RawHeader::ref_from_prefix(&inode.block);
    inode.flags.contains(InodeFlags::EXTENTS) && header.is_ok_and(|(header, _)| header.depth.get() > 0)
}

/// Stores the checksum behind the entries that a node of its own block has room for.
pub(crate) fn seal(bytes: &mut [u8], seed: u32, sb: &Superblock) {
    let max = RawHeader::ref_from_prefix(bytes).map_or(0, |(h, _)| usize::from(h.max.get()));
    if let Some((covered, tail)) = bytes.split_at_mut_checked(ENTRY * (1 + max))
        && let Some(field) = tail.get_mut(..4)
        && sb.metadata_csum()
    {
        field.copy_from_slice(&crc32c(seed, covered).to_le_bytes());
    }
}

/// Verifies the checksum at the end of a node that fills a block.
fn verify(bytes: &[u8], inode: &Inode, sb: &Superblock, place: Place) -> Result<()> {
    if !sb.metadata_csum() {
        return Ok(());
    }
    let max = RawHeader::ref_from_prefix(bytes).map_or(0, |(h, _)| usize::from(h.max.get()));
    let tail = ENTRY * (1 + max);
    let Some((covered, rest)) = bytes.split_at_checked(tail) else {
        return Err(place.corrupt(format_args!("room for {max} entries"), 4));
    };
    let stored = rest.first_chunk().map(|b| u32::from_le_bytes(*b));
    let found = crc32c(inode.checksum_seed, covered);
    match stored {
        Some(stored) if stored == found => Ok(()),
        Some(stored) => {
            let what = format_args!("checksum is {stored:#010x}, its content gives {found:#010x}");
            Err(place.corrupt(what, tail))
        }
        None => Err(place.corrupt("no room for its checksum", tail)),
    }
}

/// The block of a node that is not the root, verified as one of this depth and range.
fn read_node(
    volume: &Volume,
    inode: &Inode,
    number: u64,
    depth: u16,
    range: (u64, u64),
) -> Result<Arc<Block>> {
    let place = Place::of_block(inode, number, &volume.sb);
    let held = volume.block(number, || format!("extent tree of inode {}", inode.number))?;
    held.verify_once(Role::ExtentNode(inode.number), |bytes| {
        verify(bytes, inode, &volume.sb, place)?;
        Node::decode(bytes, place, Some(depth), range)?.check_order()
    })?;
    Ok(held)
}

/// An entry of a node, checked: an extent or, in an inner node, a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The first block of the file that it maps.
    pub(crate) block: u64,
    /// How many blocks an extent has; 0 for a child.
    pub(crate) len: u64,
    /// The first block of an extent, or the block of a child.
    pub(crate) physical: u64,
    /// An extent that reads as zeros.
    pub(crate) unwritten: bool,
}

impl Entry {
    /// The block of the file behind an extent.
    pub(crate) fn end(&self) -> u64 {
        self.block + self.len
    }
}

/// The depth and the entries of the root, all of them checked.
pub(crate) fn root_entries(volume: &Volume, inode: &Inode) -> Result<(u16, Vec<Entry>)> {
    let node = Node::decode(&inode.block, Place::root(inode), None, WHOLE_FILE)?;
    node.check_order()?;
    Ok((node.depth, node.all(&volume.sb)?))
}

/// The entries of the node in block `number`, which its parent's entry leads to; all of them checked.
pub(crate) fn node_entries(
    volume: &Volume,
    inode: &Inode,
    number: u64,
    depth: u16,
    range: (u64, u64),
) -> Result<Vec<Entry>> {
    let held = read_node(volume, inode, number, depth, range)?;
    let place = Place::of_block(inode, number, &volume.sb);
    Node::decode(&held.bytes, place, Some(depth), range)?.all(&volume.sb)
}

/// The run that holds block `block` of a file that is mapped by extents.
pub(crate) fn map(volume: &Volume, inode: &Inode, block: u32) -> Result<Run> {
    let sb = &volume.sb;
    let block = u64::from(block);
    let mut node = Node::decode(&inode.block, Place::root(inode), None, WHOLE_FILE)?;
    node.check_order()?;
    let mut held; // keeps the bytes that `node` looks at
    while node.depth > 0 {
        let (number, range) = match node.child(block)? {
            Child::Node { number, range } => (number, range),
            Child::Hole(hole) => return Ok(hole),
        };
        if !sb.holds(number, 1) {
            return Err(node.place.corrupt(format_args!("a child at block {number}"), ENTRY));
        }
        let depth = node.depth - 1;
        held = read_node(volume, inode, number, depth, range)?;
        node = Node::decode(&held.bytes, Place::of_block(inode, number, sb), Some(depth), range)?;
    }
    node.run(block, sb)
}
