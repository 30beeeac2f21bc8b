//! Htrees: the hashed index of a directory.

use std::fmt;
use std::mem::size_of;
use std::ops::Range;
use std::sync::Arc;

use bstr::BStr;
use vmcraft_fs::{Error, Result};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::crc32c;
use crate::corrupt;
use crate::dir::{self, List};
use crate::dirhash::{Algorithm, Hasher};
use crate::features::Incompat;
use crate::inode::Inode;
use crate::map::OpenInode;
use crate::superblock::Superblock;
use crate::volume::{Block, Volume};

/// What a tree's root has behind the entries `.` and `..`.
///
/// Spec: Linux `Documentation/filesystems/ext4/directory.rst`, "Hash Tree Directories".
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRootInfo {
    reserved_zero: U32,
    hash_version: u8,
    /// Always 8.
    info_length: u8,
    indirect_levels: u8,
    unused_flags: u8,
}
const _: () = assert!(size_of::<RawRootInfo>() == 8);

/// An entry: the first hash of a block of the directory. The first entry of a node has the counts of
/// the node instead of a hash, which is 0.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawIndex {
    hash: U32,
    block: U32,
}

/// What the first entry of a node has instead of a hash.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawCounts {
    /// How many entries there is room for, the first included.
    limit: U16,
    count: U16,
}

const ENTRY: usize = size_of::<RawIndex>();
/// Where the root's info is: behind `.` and `..`, whose names take four bytes each.
const ROOT_INFO: usize = 24;
/// Where entries start in the root, and in other nodes, which begin with an unused directory entry.
const ROOT_ENTRIES: usize = ROOT_INFO + size_of::<RawRootInfo>();
const NODE_ENTRIES: usize = 8;

/// Bytes of the checksum behind the entries: four that are covered as they are, then the CRC-32C.
const TAIL: usize = 8;
/// The bits of a block number; the others are reserved.
const BLOCK_MASK: u32 = 0x0fff_ffff;

/// Which node it is, for an error.
#[derive(Clone, Copy)]
struct Place {
    inode: u32,
    /// The block of the directory; 0 is the root.
    logical: u64,
    /// Where it is, in bytes of the volume.
    offset: u64,
}

impl Place {
    /// `at` counts bytes of the block.
    fn corrupt(&self, what: impl fmt::Display, at: usize) -> Error {
        let what = format!("htree block {} of directory inode {}: {what}", self.logical, self.inode);
        corrupt(what, self.offset + at as u64)
    }
}

/// Verifies the checksum of a node, the root if it is block 0 of the directory.
pub(crate) fn verify(bytes: &[u8], inode: &Inode, logical: u64, offset: u64) -> Result<()> {
    let place = Place { inode: inode.number, logical, offset };
    let start = if logical == 0 { ROOT_ENTRIES } else { NODE_ENTRIES };
    let Some((counts, _)) = bytes.get(start..).and_then(|b| RawCounts::ref_from_prefix(b).ok()) else {
        return Err(place.corrupt("too small", 0));
    };
    let (limit, count) = (usize::from(counts.limit.get()), usize::from(counts.count.get()));
    let tail = start + limit * ENTRY;
    let (Some(covered), Some(tail_bytes)) = (
        bytes.get(..start + count * ENTRY).filter(|_| count <= limit),
        bytes.get(tail..).and_then(|b| b.first_chunk::<TAIL>()),
    ) else {
        return Err(place.corrupt(format_args!("{count} entries in room for {limit}"), start));
    };
    let (reserved, stored) = tail_bytes.split_at(TAIL / 2);
    let found = crc32c(crc32c(crc32c(inode.checksum_seed, covered), reserved), &[0; 4]);
    if found.to_le_bytes() != stored {
        let stored = u32::from_le_bytes(std::array::from_fn(|i| stored[i]));
        let what = format_args!("checksum is {stored:#010x}, its content gives {found:#010x}");
        return Err(place.corrupt(what, tail + TAIL / 2));
    }
    Ok(())
}

/// A node on the way to a leaf, and which of its entries leads on.
struct Frame {
    block: Arc<Block>,
    entries: Range<usize>,
    at: usize,
}

impl Frame {
    /// Checks a node, and finds the entry that covers `hash`. `start` is where its entries begin.
    fn search(block: Arc<Block>, place: Place, start: usize, sb: &Superblock, hash: u32) -> Result<Self> {
        let room = block.bytes.get(start..).unwrap_or_default();
        let Ok((counts, _)) = RawCounts::ref_from_prefix(room) else {
            return Err(place.corrupt("too small", 0));
        };
        let (limit, count) = (usize::from(counts.limit.get()), usize::from(counts.count.get()));
        let tail = if sb.metadata_csum() { TAIL } else { 0 };
        if limit != room.len().saturating_sub(tail) / ENTRY {
            return Err(place.corrupt(format_args!("a limit of {limit} entries"), start));
        }
        if count == 0 || count > limit {
            return Err(place.corrupt(format_args!("{count} entries in room for {limit}"), start));
        }
        let mut frame = Self { entries: start..start + count * ENTRY, at: 0, block };
        // The first entry's hash is 0, whatever its bytes say.
        frame.at = frame.entries().get(1..).unwrap_or_default().partition_point(|e| e.hash.get() <= hash);
        Ok(frame)
    }

    fn entries(&self) -> &[RawIndex] {
        let bytes = self.block.bytes.get(self.entries.clone()).unwrap_or_default();
        <[RawIndex]>::ref_from_bytes(bytes).unwrap_or_default()
    }

    /// The block of the directory that the entry leads to.
    fn child(&self) -> u64 {
        self.entries().get(self.at).map_or(0, |e| u64::from(e.block.get() & BLOCK_MASK))
    }
}

/// The inode that `name` leads to in an indexed directory.
pub(crate) fn find(volume: &Volume, inode: &OpenInode, name: &BStr) -> Result<Option<u32>> {
    let sb = &volume.sb;
    let load = |logical: u64| -> Result<(Arc<Block>, Place)> {
        let (block, offset) = dir::block_at(volume, inode, logical)?;
        Ok((block, Place { inode: inode.number, logical, offset }))
    };
    let (root, place) = load(0)?;
    let (hasher, levels) = decode_root(&root.bytes, place, sb)?;
    let hash = hasher.hash(name);
    let mut frames = vec![Frame::search(root, place, ROOT_ENTRIES, sb, hash)?];
    descend(&mut frames, levels, hash, sb, load)?;

    // Names of one hash may go on in the next leaves. No directory has more leaves than blocks.
    for _ in 0..inode.size.div_ceil(u64::from(sb.block_size)) {
        let leaf = frames.last().map_or(0, Frame::child);
        let (block, place) = load(leaf)?;
        let list = List { bytes: &block.bytes, inode: inode.number, offset: place.offset };
        if let Some(found) = dir::find_in(list, name, sb)? {
            return Ok(Some(found));
        }
        if !advance(&mut frames, hash) {
            return Ok(None);
        }
        descend(&mut frames, levels, hash, sb, load)?;
    }
    Err(place.corrupt("its leaves are more than the directory's blocks", 0))
}

/// Checks the root: how names are hashed, and how many levels of nodes are below it.
fn decode_root(bytes: &[u8], place: Place, sb: &Superblock) -> Result<(Hasher, usize)> {
    let Some((info, _)) = bytes.get(ROOT_INFO..).and_then(|b| RawRootInfo::ref_from_prefix(b).ok()) else {
        return Err(place.corrupt("too small", 0));
    };
    // Versions 3 to 5 are 0 to 2 with unsigned characters.
    let (algorithm, unsigned) = match info.hash_version {
        0 => (Algorithm::Legacy, sb.hash_unsigned),
        1 => (Algorithm::HalfMd4, sb.hash_unsigned),
        2 => (Algorithm::Tea, sb.hash_unsigned),
        3 => (Algorithm::Legacy, true),
        4 => (Algorithm::HalfMd4, true),
        5 => (Algorithm::Tea, true),
        other => return Err(place.corrupt(format_args!("hash version {other}"), ROOT_INFO + 4)),
    };
    if usize::from(info.info_length) != size_of::<RawRootInfo>() {
        return Err(place.corrupt(format_args!("info length {}", info.info_length), ROOT_INFO + 5));
    }
    let most = if sb.incompat.contains(Incompat::LARGEDIR) { 2 } else { 1 };
    if info.indirect_levels > most {
        return Err(place.corrupt(format_args!("{} indirect levels", info.indirect_levels), ROOT_INFO + 6));
    }
    if info.unused_flags & 1 != 0 {
        return Err(place.corrupt(format_args!("flags {:#x}", info.unused_flags), ROOT_INFO + 7));
    }
    Ok((Hasher { algorithm, unsigned, seed: sb.hash_seed }, info.indirect_levels.into()))
}

/// Decodes a root and searches it, for [`crate::fuzz`].
pub(crate) fn probe_root(bytes: &[u8], sb: &Superblock) {
    let place = Place { inode: 12, logical: 0, offset: 0 };
    if let Ok((hasher, _)) = decode_root(bytes, place, sb) {
        let block = Block::new(bytes.into());
        let _ = Frame::search(block, place, ROOT_ENTRIES, sb, hasher.hash(b"name")).map(|f| f.child());
    }
}

/// Loads the nodes below the last of `frames` until there are `levels` below the root.
fn descend(
    frames: &mut Vec<Frame>,
    levels: usize,
    hash: u32,
    sb: &Superblock,
    load: impl Fn(u64) -> Result<(Arc<Block>, Place)>,
) -> Result<()> {
    while frames.len() <= levels {
        let (block, place) = load(frames.last().map_or(0, Frame::child))?;
        if place.logical == 0 {
            return Err(place.corrupt("the root as a node below it", 0));
        }
        frames.push(Frame::search(block, place, NODE_ENTRIES, sb, hash)?);
    }
    Ok(())
}

/// Moves to the next leaf if names of `hash` go on there, which its lowest bit says. Nodes that must
/// be loaded for it are taken off.
fn advance(frames: &mut Vec<Frame>, hash: u32) -> bool {
    while let Some(frame) = frames.last_mut() {
        frame.at += 1;
        if let Some(next) = frame.entries().get(frame.at) {
            return next.hash.get() == hash | 1;
        }
        frames.pop();
    }
    false
}
