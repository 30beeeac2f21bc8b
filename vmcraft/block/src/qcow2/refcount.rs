//! Refcounts: how often each cluster of the image is referred to.
//!
//! A table leads to blocks, a cluster each; a block has a refcount for each of the clusters that it
//! stands for. Where there is no block, all of them are free.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::writer::write_runs;
use super::{Header, Problem, read_words};
use crate::generations::Generations;
use crate::storage::{Storage, read_exact_at};

/// How much of a block is read and kept at a time, in bytes.
const SLICE: u64 = 4096;
/// How many clean slices are kept in a generation.
const KEPT: usize = 128;
/// The largest refcount table that QEMU opens, in bytes.
const MAX_TABLE: u64 = 8 << 20;

/// A piece of a refcount block, as it is in the image.
type Slice = Arc<[u8]>;

/// What a search for free clusters found.
pub(super) enum Free {
    /// This many free clusters, one after the other.
    Run { first: u64, count: u64 },
    /// A free cluster that has no refcount block yet.
    NoBlock { cluster: u64 },
    /// All that the table can stand for is taken.
    TableFull,
}

/// Where a grown table and the blocks that stand for it go.
pub(super) struct Growth {
    /// The first cluster; the table is here.
    pub(super) first: u64,
    pub(super) table_clusters: u64,
    /// The blocks follow.
    pub(super) blocks: u64,
}

/// The refcounts of an image that is open for writing. Changes collect until they are written.
pub(super) struct Refcounts {
    /// A refcount has `1 << order` bits.
    order: u32,
    cluster_bits: u32,
    table_offset: u64,
    /// The table as it is in the image: bytes where blocks are, or 0.
    table: Vec<u64>,
    /// Entries of the table that are not written yet.
    dirty_table: BTreeSet<usize>,
    clean: Generations<u64, Slice>,
    /// Slices that are not written yet, by their place in the image.
    dirty: BTreeMap<u64, Slice>,
    /// No cluster before this one is free.
    next_free: u64,
}

impl Refcounts {
    pub(super) fn read(storage: &dyn Storage, header: &Header) -> Result<Self, Problem> {
        let table_offset = header.raw.refcount_table_offset.get();
        let clusters = u64::from(header.raw.refcount_table_clusters.get());
        let entries = clusters * header.cluster_size() / 8;
        let table = read_words(storage, table_offset, entries, "refcount table")?;
        Ok(Self {
            order: header.refcount_order,
            cluster_bits: header.cluster_bits,
            table_offset,
            table,
            dirty_table: BTreeSet::new(),
            clean: Generations::new(KEPT),
            dirty: BTreeMap::new(),
            next_free: 0,
        })
    }

    fn cluster_size(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// How many clusters a block stands for.
    fn block_entries(&self) -> u64 {
        (self.cluster_size() * 8) >> self.order
    }

    fn slice_bytes(&self) -> u64 {
        self.cluster_size().min(SLICE)
    }

    /// How many clusters a slice stands for.
    fn slice_entries(&self) -> u64 {
        (self.slice_bytes() * 8) >> self.order
    }

    /// Where the table is, and how long, in bytes.
    pub(super) fn table_range(&self) -> (u64, u64) {
        (self.table_offset, self.table.len() as u64 * 8)
    }

    /// Where the blocks are, in bytes.
    pub(super) fn blocks(&self) -> impl Iterator<Item = u64> {
        self.table.iter().copied().filter(|offset| *offset != 0)
    }

    /// How many slices wait to be written.
    pub(super) fn dirty_slices(&self) -> usize {
        self.dirty.len()
    }

    /// Where the slice with a cluster's refcount is; `None` without a block.
    fn place(&self, cluster: u64) -> Option<u64> {
        let block = *self.table.get(usize::try_from(cluster / self.block_entries()).ok()?)?;
        let index = cluster % self.block_entries() / self.slice_entries();
        (block != 0).then(|| block + index * self.slice_bytes())
    }

    fn slice(&mut self, storage: &dyn Storage, place: u64) -> Result<Slice, Problem> {
        if let Some(slice) = self.dirty.get(&place) {
            return Ok(slice.clone());
        }
        if let Some(slice) = self.clean.get(&place) {
            return Ok(slice);
        }
        // At most 4 KiB.
        let mut bytes = vec![0; usize::try_from(self.slice_bytes()).unwrap_or(0)];
        read_exact_at(storage, place, &mut bytes)
            .map_err(|e| Problem::reading(e, "refcount block", place))?;
        let slice: Slice = bytes.into();
        self.clean.insert(place, slice.clone());
        Ok(slice)
    }

    /// A cluster's refcount.
    pub(super) fn get(&mut self, storage: &dyn Storage, cluster: u64) -> Result<u64, Problem> {
        let Some(place) = self.place(cluster) else { return Ok(0) };
        let index = cluster % self.slice_entries();
        Ok(decode(&self.slice(storage, place)?, self.order, index))
    }

    /// Sets the refcount of a cluster that has a block.
    pub(super) fn set(&mut self, storage: &dyn Storage, cluster: u64, count: u64) -> Result<(), Problem> {
        let Some(place) = self.place(cluster) else {
            return Err(Problem::corrupt("refcount table", self.table_offset));
        };
        // Taken out, so that it is ours alone and need not be copied.
        let mut slice = match self.dirty.remove(&place) {
            Some(slice) => slice,
            None => self.slice(storage, place)?,
        };
        self.clean.remove(&place);
        encode(Arc::make_mut(&mut slice), self.order, cluster % self.slice_entries(), count);
        self.dirty.insert(place, slice);
        if count == 0 {
            self.next_free = self.next_free.min(cluster);
        }
        Ok(())
    }

    /// Finds free clusters, the first there are, and up to `want` of them.
    pub(super) fn find_free(&mut self, storage: &dyn Storage, want: u64) -> Result<Free, Problem> {
        // Every round goes on by a slice, and the table ends.
        loop {
            let cluster = self.next_free;
            let Some(place) = self.place(cluster) else {
                let full = cluster / self.block_entries() >= self.table.len() as u64;
                return Ok(if full { Free::TableFull } else { Free::NoBlock { cluster } });
            };
            let slice = self.slice(storage, place)?;
            let entries = self.slice_entries();
            let base = cluster - cluster % entries;
            let is_free = |index: &u64| decode(&slice, self.order, *index) == 0;
            match (cluster % entries..entries).find(is_free) {
                Some(first) => {
                    let end = entries.min(first.saturating_add(want));
                    let count = (first..end).take_while(is_free).count() as u64;
                    self.next_free = base + first;
                    return Ok(Free::Run { first: base + first, count });
                }
                None => self.next_free = base + entries,
            }
        }
    }

    /// Makes a free cluster the refcount block for the clusters around it, itself included.
    pub(super) fn add_block(&mut self, storage: &dyn Storage, cluster: u64) -> Result<(), Problem> {
        let corrupt = || Problem::corrupt("refcount table", self.table_offset);
        let index = usize::try_from(cluster / self.block_entries()).map_err(|_| corrupt())?;
        let offset = cluster << self.cluster_bits;
        *self.table.get_mut(index).ok_or_else(corrupt)? = offset;
        self.dirty_table.insert(index);
        self.insert_empty_block(offset);
        self.set(storage, cluster, 1)
    }

    /// Enters a block without references to be written, as whatever was in the cluster must go.
    fn insert_empty_block(&mut self, offset: u64) {
        let empty: Slice = vec![0; usize::try_from(self.slice_bytes()).unwrap_or(0)].into();
        for slice in 0..self.cluster_size() / self.slice_bytes() {
            let place = offset + slice * self.slice_bytes();
            self.clean.remove(&place);
            self.dirty.insert(place, empty.clone());
        }
    }

    /// Where a larger table would go: after all that this one can stand for.
    pub(super) fn plan_growth(&self) -> Result<Growth, Problem> {
        let old = self.table.len() as u64;
        let first = old * self.block_entries();
        let in_cluster = self.cluster_size() / 8;
        let mut blocks = 1;
        // The blocks stand for the table and for themselves; a few rounds reach the number.
        loop {
            let entries = (old * 2).max(old + blocks + 1);
            let table_clusters = entries.div_ceil(in_cluster);
            let needed = (table_clusters + blocks).div_ceil(self.block_entries());
            if table_clusters << self.cluster_bits > MAX_TABLE {
                return Err(Problem::Unsupported("an image that needs a larger refcount table".into()));
            }
            if needed <= blocks {
                return Ok(Growth { first, table_clusters, blocks });
            }
            blocks = needed;
        }
    }

    /// Puts a larger table into place, where [`plan_growth`](Self::plan_growth) said. All other
    /// changes must have been written before.
    pub(super) fn grow(&mut self, storage: &dyn Storage, growth: &Growth) -> Result<(), Problem> {
        let old = self.table.len();
        let table_offset = growth.first << self.cluster_bits;
        let entries = (growth.table_clusters << self.cluster_bits) / 8;
        let mut table = self.table.clone();
        table.resize(usize::try_from(entries).unwrap_or(usize::MAX), 0);
        let first_block = growth.first + growth.table_clusters;
        for (entry, cluster) in table.iter_mut().skip(old).zip(first_block..first_block + growth.blocks) {
            *entry = cluster << self.cluster_bits;
        }
        // From here on it is all in the new table, but the image does not lead to it yet.
        let before = std::mem::replace(&mut self.table, table);
        let written = self.write_grown(storage, growth, table_offset);
        if written.is_err() {
            self.table = before;
        } else {
            self.table_offset = table_offset;
        }
        written
    }

    fn write_grown(&mut self, storage: &dyn Storage, growth: &Growth, offset: u64) -> Result<(), Problem> {
        let all = growth.first..growth.first + growth.table_clusters + growth.blocks;
        for block in growth.first + growth.table_clusters..all.end {
            self.insert_empty_block(block << self.cluster_bits);
        }
        for cluster in all {
            self.set(storage, cluster, 1)?;
        }
        self.write_blocks(storage).map_err(Problem::Io)?;
        let bytes: Vec<u8> = self.table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        storage.write_at(offset, &bytes).map_err(Problem::Io)?;
        storage.flush().map_err(Problem::Io)?;
        // The header's two fields stand side by side in one sector, which is written as one.
        let mut fields = [0; 12];
        fields[..8].copy_from_slice(&offset.to_be_bytes());
        let clusters = u32::try_from(growth.table_clusters).unwrap_or(u32::MAX);
        fields[8..].copy_from_slice(&clusters.to_be_bytes());
        storage.write_at(0x30, &fields).map_err(Problem::Io)?;
        storage.flush().map_err(Problem::Io)
    }

    /// Writes the blocks that have changed.
    pub(super) fn write_blocks(&mut self, storage: &dyn Storage) -> io::Result<()> {
        write_runs(storage, self.dirty.iter().map(|(place, slice)| (*place, &**slice)))?;
        for (place, slice) in std::mem::take(&mut self.dirty) {
            self.clean.insert(place, slice);
        }
        Ok(())
    }

    /// Whether there are blocks that the table in the image does not lead to.
    pub(super) fn has_new_blocks(&self) -> bool {
        !self.dirty_table.is_empty()
    }

    /// Writes the table's entries that have changed. The blocks must be durable by now.
    pub(super) fn write_table(&mut self, storage: &dyn Storage) -> io::Result<()> {
        while let Some(index) = self.dirty_table.first().copied() {
            let entry = self.table.get(index).copied().unwrap_or(0);
            storage.write_at(self.table_offset + index as u64 * 8, &entry.to_be_bytes())?;
            self.dirty_table.remove(&index);
        }
        Ok(())
    }
}

/// The refcount with this index. Those of less than a byte begin at its low bits; those of more are
/// big-endian.
fn decode(slice: &[u8], order: u32, index: u64) -> u64 {
    let bits = 1 << order;
    let Ok(bit) = usize::try_from(index << order) else { return 0 };
    let byte = bit / 8;
    if bits < 8 {
        let value = slice.get(byte).copied().unwrap_or(0) >> (bit % 8);
        return u64::from(value) & ((1 << bits) - 1);
    }
    let bytes = slice.get(byte..byte + bits / 8).unwrap_or_default();
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Sets the refcount with this index, which must be one that `order` has room for.
fn encode(slice: &mut [u8], order: u32, index: u64, count: u64) {
    let bits = 1 << order;
    let Ok(bit) = usize::try_from(index << order) else { return };
    let byte = bit / 8;
    if bits < 8 {
        if let Some(target) = slice.get_mut(byte) {
            let mask = ((1u8 << bits) - 1) << (bit % 8);
            *target = *target & !mask | (count.to_le_bytes()[0] << (bit % 8)) & mask;
        }
    } else if let Some(target) = slice.get_mut(byte..byte + bits / 8) {
        target.copy_from_slice(&count.to_be_bytes()[8 - bits / 8..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // Neighbours stay as they are, at every width.
    fn refcounts_of_every_width() {
        for order in 0..=6 {
            let most = u64::MAX >> (64 - (1 << order));
            let mut slice = [0xff; 64];
            encode(&mut slice, order, 3, 0);
            assert_eq!(decode(&slice, order, 3), 0);
            assert_eq!(decode(&slice, order, 2), most);
            assert_eq!(decode(&slice, order, 4), most);
            encode(&mut slice, order, 3, most);
            assert_eq!(slice, [0xff; 64]);
            // Beyond the slice there is nothing.
            assert_eq!(decode(&slice, order, 64 * 8), 0);
            encode(&mut slice, order, 64 * 8, 1);
        }
        // Two bits each, from the low end.
        assert_eq!([0, 1, 2, 3].map(|index| decode(&[0b11_10_01_00], 1, index)), [0, 1, 2, 3]);
        assert_eq!(decode(&[0x12, 0x34], 4, 0), 0x1234);
    }
}
