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
pub(crate) struct RawRootInfo {
    pub(crate) reserved_zero: U32,
    pub(crate) hash_version: u8,
    /// Always 8.
    pub(crate) info_length: u8,
    pub(crate) indirect_levels: u8,
    pub(crate) unused_flags: u8,
}
const _: () = assert!(size_of::<RawRootInfo>() == 8);

/// An entry: the first hash of a block of the directory. The first entry of a node has the counts of
/// the node instead of a hash, which is 0.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(crate) struct RawIndex {
    pub(crate) hash: U32,
    pub(crate) block: U32,
}

/// What the first entry of a node has instead of a hash.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawCounts {
    /// How many entries there is room for, the first included.
    pub(crate) limit: U16,
    pub(crate) count: U16,
}

pub(crate) const ENTRY: usize = size_of::<RawIndex>();
/// Where the root's info is: behind `.` and `..`, whose names take four bytes each.
pub(crate) const ROOT_INFO: usize = 24;
/// Where entries start in the root, and in other nodes, which begin with an unused directory entry.
pub(crate) const ROOT_ENTRIES: usize = ROOT_INFO + size_of::<RawRootInfo>();
pub(crate) const NODE_ENTRIES: usize = 8;

/// Bytes of the checksum behind the entries: four that are covered as they are, then the CRC-32C.
pub(crate) const TAIL: usize = 8;
/// The bits of a block number; the others are reserved.
pub(crate) const BLOCK_MASK: u32 = 0x0fff_ffff;

/// Which node it is, for an error.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    inode: u32,
    /// The block of the directory; 0 is the root.
    pub(crate) logical: u64,
    /// Where it is, in bytes of the volume.
    pub(crate) offset: u64,
}

impl Place {
    /// `at` counts bytes of the block.
    pub(crate) fn corrupt(&self, what: impl fmt::Display, at: usize) -> Error {
        let what = format!("htree block {} of directory inode {}: {what}", self.logical, self.inode);
        corrupt(what, self.offset + at as u64)
    }
}

/// Where the entries of a node start: block `logical` of the directory.
pub(crate) fn entries_start(logical: u64) -> usize {
    if logical == 0 { ROOT_ENTRIES } else { NODE_ENTRIES }
}

/// The CRC-32C that the content of a node gives, and where it is stored. `Err` holds what is wrong
/// with its counts.
pub(crate) fn checksum(bytes: &[u8], seed: u32, start: usize) -> Result<(u32, usize), String> {
    let Some((counts, _)) = bytes.get(start..).and_then(|b| RawCounts::ref_from_prefix(b).ok()) else {
        return Err("too small".to_owned());
    };
    let (limit, count) = (usize::from(counts.limit.get()), usize::from(counts.count.get()));
    let tail = start + limit * ENTRY;
    let (Some(covered), Some(reserved)) = (
        bytes.get(..start + count * ENTRY).filter(|_| count <= limit),
        bytes.get(tail..).filter(|b| b.len() >= TAIL).and_then(|b| b.get(..TAIL / 2)),
    ) else {
        return Err(format!("{count} entries in room for {limit}"));
    };
    Ok((crc32c(crc32c(crc32c(seed, covered), reserved), &[0; 4]), tail + TAIL / 2))
}

/// Verifies the checksum of a node, the root if it is block 0 of the directory.
pub(crate) fn verify(bytes: &[u8], inode: &Inode, logical: u64, offset: u64) -> Result<()> {
    let place = Place { inode: inode.number, logical, offset };
    let start = entries_start(logical);
    let (found, at) =
        checksum(bytes, inode.checksum_seed, start).map_err(|what| place.corrupt(what, start))?;
    let stored = bytes.get(at..).and_then(|b| b.first_chunk()).map(|b| u32::from_le_bytes(*b));
    match stored {
        Some(stored) if stored == found => Ok(()),
        _ => {
            let stored = stored.unwrap_or(0);
            let what = format_args!("checksum is {stored:#010x}, its content gives {found:#010x}");
            Err(place.corrupt(what, at))
        }
    }
}

/// A node on the way to a leaf, and which of its entries leads on.
#[derive(Clone)]
pub(crate) struct Frame {
    block: Arc<Block>,
    entries: Range<usize>,
    /// How many entries there is room for.
    limit: usize,
    pub(crate) at: usize,
    pub(crate) place: Place,
}

impl Frame {
    /// Checks a node, and finds the entry that covers `hash`.
    fn search(block: Arc<Block>, place: Place, sb: &Superblock, hash: u32) -> Result<Self> {
        let start = entries_start(place.logical);
        let room = block.bytes.get(start..).unwrap_or_default();
        let Ok((counts, _)) = RawCounts::ref_from_prefix(room) else {
            return Err(place.corrupt("too small", 0));
        };
        let (limit, count) = (usize::from(counts.limit.get()), usize::from(counts.count.get()));
        if limit != room_for(start, sb) {
            return Err(place.corrupt(format_args!("a limit of {limit} entries"), start));
        }
        if count == 0 || count > limit {
            return Err(place.corrupt(format_args!("{count} entries in room for {limit}"), start));
        }
        let mut frame = Self { entries: start..start + count * ENTRY, limit, at: 0, place, block };
        // The first entry's hash is 0, whatever its bytes say.
        frame.at = frame.entries().get(1..).unwrap_or_default().partition_point(|e| e.hash.get() <= hash);
        Ok(frame)
    }

    pub(crate) fn entries(&self) -> &[RawIndex] {
        let bytes = self.block.bytes.get(self.entries.clone()).unwrap_or_default();
        <[RawIndex]>::ref_from_bytes(bytes).unwrap_or_default()
    }

    /// Whether no entry can be added.
    pub(crate) fn is_full(&self) -> bool {
        self.entries().len() >= self.limit
    }

    /// The block of the directory that the entry leads to.
    fn child(&self) -> u64 {
        self.entries().get(self.at).map_or(0, |e| u64::from(e.block.get() & BLOCK_MASK))
    }
}

/// How many entries a node has room for that start at byte `start`.
pub(crate) fn room_for(start: usize, sb: &Superblock) -> usize {
    let tail = if sb.metadata_csum() { TAIL } else { 0 };
    (sb.block_size as usize).saturating_sub(start + tail) / ENTRY
}

/// How many levels of nodes a tree can have below its root.
pub(crate) fn most_levels(sb: &Superblock) -> u8 {
    if sb.incompat.contains(Incompat::LARGEDIR) { 2 } else { 1 }
}

/// The way through an htree to the first leaf where a name can be.
#[derive(Clone)]
pub(crate) struct Path {
    pub(crate) hasher: Hasher,
    pub(crate) hash: u32,
    /// Levels of nodes below the root.
    pub(crate) levels: usize,
    /// From the root to the node above the leaf.
    pub(crate) frames: Vec<Frame>,
}

/// A leaf: a block of entries.
pub(crate) struct Leaf {
    pub(crate) block: Arc<Block>,
    pub(crate) place: Place,
}

impl Leaf {
    pub(crate) fn list(&self) -> List<'_> {
        List { bytes: &self.block.bytes, inode: self.place.inode, offset: self.place.offset }
    }
}

impl Path {
    /// The way to where `name` is or would be.
    pub(crate) fn to(volume: &Volume, inode: &OpenInode, name: &BStr) -> Result<Self> {
        let Leaf { block, place } = load(volume, inode, 0)?;
        let (hasher, levels) = decode_root(&block.bytes, place, &volume.sb)?;
        let hash = hasher.hash(name);
        let frames = vec![Frame::search(block, place, &volume.sb, hash)?];
        let mut path = Self { hasher, hash, levels, frames };
        path.descend(volume, inode)?;
        Ok(path)
    }

    /// Loads the nodes below the last frame, to the one above the leaf.
    fn descend(&mut self, volume: &Volume, inode: &OpenInode) -> Result<()> {
        while self.frames.len() <= self.levels {
            let Leaf { block, place } = load(volume, inode, self.frames.last().map_or(0, Frame::child))?;
            if place.logical == 0 {
                return Err(place.corrupt("the root as a node below it", 0));
            }
            self.frames.push(Frame::search(block, place, &volume.sb, self.hash)?);
        }
        Ok(())
    }

    /// The leaf that it leads to.
    pub(crate) fn leaf(&self, volume: &Volume, inode: &OpenInode) -> Result<Leaf> {
        load(volume, inode, self.frames.last().map_or(0, Frame::child))
    }

    /// Moves on to the next leaf if names of the hash go on there, which the lowest bit of its hash
    /// says.
    pub(crate) fn advance(&mut self, volume: &Volume, inode: &OpenInode) -> Result<bool> {
        while let Some(frame) = self.frames.last_mut() {
            frame.at += 1;
            if let Some(next) = frame.entries().get(frame.at) {
                let goes_on = next.hash.get() == self.hash | 1;
                if goes_on {
                    self.descend(volume, inode)?;
                }
                return Ok(goes_on);
            }
            self.frames.pop();
        }
        Ok(false)
    }
}

/// A block of an indexed directory.
fn load(volume: &Volume, inode: &OpenInode, logical: u64) -> Result<Leaf> {
    let (block, offset) = dir::block_at(volume, inode, logical)?;
    Ok(Leaf { block, place: Place { inode: inode.number, logical, offset } })
}

/// The inode that `name` leads to in an indexed directory.
pub(crate) fn find(volume: &Volume, inode: &OpenInode, name: &BStr) -> Result<Option<u32>> {
    let mut path = Path::to(volume, inode, name)?;
    // No directory has more leaves than blocks.
    for _ in 0..inode.size.div_ceil(u64::from(volume.sb.block_size)) {
        if let Some(found) = path.leaf(volume, inode)?.list().find(name, &volume.sb)? {
            return Ok(Some(found.inode));
        }
        if !path.advance(volume, inode)? {
            return Ok(None);
        }
    }
    Err(too_many_leaves(inode))
}

/// The leaves of one hash do not end.
pub(crate) fn too_many_leaves(inode: &Inode) -> Error {
    inode.corrupt("its htree has more leaves than the directory has blocks")
}

/// The function that a hash version stands for, and whether its characters are unsigned.
pub(crate) fn hash_function(version: u8, sb: &Superblock) -> Option<(Algorithm, bool)> {
    // Versions 3 to 5 are 0 to 2 with unsigned characters.
    Some(match version {
        0 => (Algorithm::Legacy, sb.hash_unsigned),
        1 => (Algorithm::HalfMd4, sb.hash_unsigned),
        2 => (Algorithm::Tea, sb.hash_unsigned),
        3 => (Algorithm::Legacy, true),
        4 => (Algorithm::HalfMd4, true),
        5 => (Algorithm::Tea, true),
        _ => return None,
    })
}

/// Checks the root: how names are hashed, and how many levels of nodes are below it.
fn decode_root(bytes: &[u8], place: Place, sb: &Superblock) -> Result<(Hasher, usize)> {
    let Some((info, _)) = bytes.get(ROOT_INFO..).and_then(|b| RawRootInfo::ref_from_prefix(b).ok()) else {
        return Err(place.corrupt("too small", 0));
    };
    let Some((algorithm, unsigned)) = hash_function(info.hash_version, sb) else {
        return Err(place.corrupt(format_args!("hash version {}", info.hash_version), ROOT_INFO + 4));
    };
    if usize::from(info.info_length) != size_of::<RawRootInfo>() {
        return Err(place.corrupt(format_args!("info length {}", info.info_length), ROOT_INFO + 5));
    }
    if info.indirect_levels > most_levels(sb) {
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
        let _ = Frame::search(block, place, sb, hasher.hash(b"name")).map(|f| f.child());
    }
}
