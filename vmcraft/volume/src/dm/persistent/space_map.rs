//! Space maps: how often each block is referred to.
//!
//! Counts up to 2 are in bitmaps, two bits each; 3 there means that the count is in a B-tree.

use std::io;

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::block::{BLOCK, Kind, corrupt, le32, le64, put};
use super::btree::{Values, leaf_at};
use super::{Space, Store};
use crate::{Error, Result};

/// The header of a bitmap: checksum (4 bytes), nothing (4), block number (8).
const BITMAP_HEADER: usize = 16;
/// How many counts a bitmap has.
pub(in crate::dm) const PER_BITMAP: u64 = ((BLOCK - BITMAP_HEADER) * 4) as u64;
/// A bitmap's place and free space: block number (8 bytes), free counts (4), the first that may be
/// free (4).
const ENTRY: usize = 16;
/// The metadata's index is one block of this many entries.
const METADATA_BITMAPS: u64 = 255;
/// The count in a bitmap that stands for all larger ones.
const MANY: u8 = 3;

/// Where a space map is, as superblocks have it: 32 bytes, little-endian.
///
/// Spec: `drivers/md/persistent-data/dm-space-map-common.h`, `struct disk_sm_root`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(in crate::dm) struct RawRoot {
    /// 0: how many blocks the space has.
    pub(in crate::dm) nr_blocks: U64,
    /// 8: how many of them are in use.
    pub(in crate::dm) nr_allocated: U64,
    /// 16: the block of the index (metadata), or the root of a B-tree of entries (data).
    pub(in crate::dm) bitmap_root: U64,
    /// 24: the root of the B-tree of counts above 2.
    pub(in crate::dm) ref_count_root: U64,
}
const _: () = assert!(size_of::<RawRoot>() == 32);

/// A space map.
#[derive(Clone)]
pub(in crate::dm) struct SpaceMap {
    pub(in crate::dm) blocks: u64,
    pub(in crate::dm) allocated: u64,
    index: u64,
    overflow: u64,
    /// Bitmaps below this one have nothing free.
    full_below: u64,
}

impl SpaceMap {
    /// What the superblock says of it. `at` is where, in bytes.
    pub(in crate::dm) fn decode(raw: &RawRoot, space: Space, at: u64) -> Result<Self> {
        let map = Self {
            blocks: raw.nr_blocks.get(),
            allocated: raw.nr_allocated.get(),
            index: raw.bitmap_root.get(),
            overflow: raw.ref_count_root.get(),
            full_below: 0,
        };
        let bitmaps = map.blocks.div_ceil(PER_BITMAP);
        if map.allocated > map.blocks || (space == Space::Metadata && bitmaps > METADATA_BITMAPS) {
            return Err(Error::Corrupt { what: format!("{} space map (size)", space.name()), offset: at });
        }
        Ok(map)
    }

    pub(in crate::dm) fn encode(&self) -> RawRoot {
        RawRoot {
            nr_blocks: U64::new(self.blocks),
            nr_allocated: U64::new(self.allocated),
            bitmap_root: U64::new(self.index),
            ref_count_root: U64::new(self.overflow),
        }
    }

    /// Notes that blocks which were passed over can be taken from now on, of which this is the first.
    pub(super) fn can_take_from(&mut self, first: Option<u64>) {
        self.full_below = first.map_or(self.full_below, |first| self.full_below.min(first / PER_BITMAP));
    }
}

/// What the index says of a bitmap.
#[derive(Clone, Copy)]
struct Entry {
    bitmap: u64,
    free: u32,
    /// No count before this one is 0.
    none_free_before: u32,
}

impl Entry {
    fn decode(bytes: &[u8]) -> Self {
        Self { bitmap: le64(bytes, 0), free: le32(bytes, 8), none_free_before: le32(bytes, 12) }
    }

    fn encode(self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        put(&mut bytes, 0, &self.bitmap.to_le_bytes());
        put(&mut bytes, 8, &self.free.to_le_bytes());
        put(&mut bytes, 12, &self.none_free_before.to_le_bytes());
        bytes
    }
}

/// Where the two bits of a count are: the byte and the shift.
fn place(within: u64) -> (usize, u32) {
    // Below 16320.
    (BITMAP_HEADER + usize::try_from(within / 4).unwrap_or(BLOCK), u32::try_from(within % 4 * 2).unwrap_or(0))
}

/// The lower of the two bits on disk is the higher of the count.
fn bits(bitmap: &[u8; BLOCK], within: u64) -> u8 {
    let (byte, shift) = place(within);
    let bits = bitmap.get(byte).map_or(0, |byte| byte >> shift);
    (bits & 1) << 1 | (bits >> 1 & 1)
}

fn set_bits(bitmap: &mut [u8; BLOCK], within: u64, count: u8) {
    let (byte, shift) = place(within);
    if let Some(byte) = bitmap.get_mut(byte) {
        *byte = *byte & !(3 << shift) | ((count & 1) << 1 | (count >> 1 & 1)) << shift;
    }
}

impl Store {
    pub(super) fn map(&self, space: Space) -> &SpaceMap {
        match space {
            Space::Metadata => &self.metadata,
            Space::Data => &self.data,
        }
    }

    fn map_mut(&mut self, space: Space) -> &mut SpaceMap {
        match space {
            Space::Metadata => &mut self.metadata,
            Space::Data => &mut self.data,
        }
    }

    fn entry(&self, space: Space, index: u64) -> Result<Entry> {
        let root = self.map(space).index;
        match space {
            Space::Metadata => {
                let block = self.blocks.read(root, Kind::Index)?;
                // The map's size was checked against the number of entries.
                let at = usize::try_from(index).map_err(io::Error::other)? * ENTRY + BITMAP_HEADER;
                Ok(Entry::decode(block.get(at..).unwrap_or_default()))
            }
            Space::Data => {
                let leaf = leaf_at(&self.blocks, root, Values::Bitmaps, index)?;
                let entry = leaf.get(index).map(Entry::decode);
                entry.ok_or_else(|| corrupt(format!("data space map (no entry for bitmap {index})"), root))
            }
        }
    }

    fn set_entry(&mut self, space: Space, index: u64, entry: Entry) -> Result<()> {
        let root = self.map(space).index;
        let root = match space {
            Space::Metadata => {
                let root = self.own(root, Kind::Index)?;
                let at = usize::try_from(index).map_err(io::Error::other)? * ENTRY + BITMAP_HEADER;
                put(self.blocks.edit(root, Kind::Index)?, at, &entry.encode());
                root
            }
            Space::Data => self.insert(Values::Bitmaps, root, index, &entry.encode())?,
        };
        self.map_mut(space).index = root;
        Ok(())
    }

    /// How often a block is referred to.
    pub(in crate::dm) fn references(&self, space: Space, block: u64) -> Result<u32> {
        let map = self.map(space);
        if block >= map.blocks {
            return Err(corrupt(
                format!("reference to {} block {block} of {}", space.name(), map.blocks),
                map.index,
            ));
        }
        if space == Space::Metadata
            && let Some(count) = self.changes.counts.get(&block)
        {
            return Ok(*count);
        }
        let entry = self.entry(space, block / PER_BITMAP)?;
        let bitmap = self.blocks.read(entry.bitmap, Kind::Bitmap)?;
        match bits(&bitmap, block % PER_BITMAP) {
            MANY => {
                let leaf = leaf_at(&self.blocks, map.overflow, Values::Counts, block)?;
                let count = leaf.get(block).map(|value| le32(value, 0));
                count.filter(|count| *count >= u32::from(MANY)).ok_or_else(|| {
                    corrupt(format!("reference count of {} block {block}", space.name()), map.overflow)
                })
            }
            count => Ok(count.into()),
        }
    }

    fn set_references(&mut self, space: Space, block: u64, old: u32, new: u32) -> Result<()> {
        let map = self.map_mut(space);
        let allocated = match (old, new) {
            (0, 1..) => map.allocated.checked_add(1).filter(|n| *n <= map.blocks),
            (1.., 0) => map.allocated.checked_sub(1),
            _ => Some(map.allocated),
        };
        map.allocated = allocated.ok_or_else(|| {
            corrupt(format!("{} space map (number of blocks in use)", space.name()), map.index)
        })?;
        if new == 0 {
            self.changes.free(space, block);
        }
        match space {
            Space::Metadata => {
                self.changes.counts.insert(block, new);
                Ok(())
            }
            Space::Data => self.record(space, block, new),
        }
    }

    /// Puts a count into its bitmap, or the tree of those above 2.
    pub(super) fn record(&mut self, space: Space, block: u64, new: u32) -> Result<()> {
        let (index, within) = (block / PER_BITMAP, block % PER_BITMAP);
        let mut entry = self.entry(space, index)?;
        let number = self.own(entry.bitmap, Kind::Bitmap)?;
        let is_moved = number != entry.bitmap;
        entry.bitmap = number;
        let bitmap = self.blocks.edit(number, Kind::Bitmap)?;
        let old = bits(bitmap, within);
        set_bits(bitmap, within, u8::try_from(new).unwrap_or(MANY).min(MANY));
        // Below 16320.
        let within = u32::try_from(within).map_err(io::Error::other)?;
        let wrong = || corrupt(format!("{} space map (number of free blocks)", space.name()), number);
        let free = match (old, new) {
            (0, 1..) => entry.free.checked_sub(1).ok_or_else(wrong)?,
            (1.., 0) => entry.free.checked_add(1).ok_or_else(wrong)?,
            _ => entry.free,
        };
        if free < entry.free && entry.none_free_before == within {
            entry.none_free_before = within + 1;
        } else if free > entry.free {
            entry.none_free_before = entry.none_free_before.min(within);
        }
        if is_moved || free != entry.free {
            self.set_entry(space, index, Entry { free, ..entry })?;
        }
        // All of the map above is staged by now: the tree may need metadata blocks itself.
        let root = self.map(space).overflow;
        if new >= u32::from(MANY) {
            self.map_mut(space).overflow = self.insert(Values::Counts, root, block, &new.to_le_bytes())?;
        } else if old == MANY {
            self.map_mut(space).overflow = self.remove(Values::Counts, root, block)?;
        }
        Ok(())
    }

    /// Counts one more reference to a block that has some.
    pub(in crate::dm) fn add_reference(&mut self, space: Space, block: u64) -> Result<()> {
        let old = self.references(space, block)?;
        let new = old.checked_add(1).filter(|_| old > 0).ok_or_else(|| {
            corrupt(format!("reference count of {} block {block}", space.name()), self.map(space).index)
        })?;
        self.set_references(space, block, old, new)
    }

    /// Counts one reference less, and gives what is left.
    pub(in crate::dm) fn drop_reference(&mut self, space: Space, block: u64) -> Result<u32> {
        let old = self.references(space, block)?;
        let new = old.checked_sub(1).ok_or_else(|| {
            corrupt(format!("reference count of {} block {block}", space.name()), self.map(space).index)
        })?;
        self.set_references(space, block, old, new)?;
        if new == 0 && space == Space::Metadata {
            self.blocks.forget(block);
        }
        Ok(new)
    }

    /// Takes the first free block, which then has one reference.
    ///
    /// # Errors
    /// [`Error::Io`] with `StorageFull` if there is none.
    pub(in crate::dm) fn allocate(&mut self, space: Space) -> Result<u64> {
        let map = self.map(space).clone();
        for index in map.full_below..map.blocks.div_ceil(PER_BITMAP) {
            let entry = self.entry(space, index)?;
            if entry.free == 0 {
                continue;
            }
            // Linux counts what lies beyond the end of the last bitmap as free.
            let counts = (map.blocks - index * PER_BITMAP).min(PER_BITMAP);
            let bitmap = self.blocks.read(entry.bitmap, Kind::Bitmap)?;
            let mut places = entry.none_free_before.into()..counts;
            let first = index * PER_BITMAP;
            let is_free =
                |within: &u64| bits(&bitmap, *within) == 0 && self.changes.can_take(space, first + within);
            if let Some(within) = places.find(is_free) {
                let block = first + within;
                self.map_mut(space).full_below = index;
                self.set_references(space, block, 0, 1)?;
                return Ok(block);
            }
        }
        Err(Error::Io(io::Error::new(
            io::ErrorKind::StorageFull,
            format!("no free {} block (all {} are in use); lvextend can make more", space.name(), map.blocks),
        )))
    }
}
