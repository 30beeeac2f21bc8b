//! What an image that is open for writing has beside its tables, and the order in which changes reach
//! the file.
//!
//! A crash at any moment may leave clusters that nothing refers to, but never a reference to a cluster
//! that is free, or that holds anything but what it should. Hence the order of [`Writer::commit`]: what
//! is referred to is durable before the reference is written, and what is no longer referred to is free
//! only after that is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::entry::{Geometry, L1Entry};
use super::metadata::{Kind, Metadata};
use super::read::{L2Cache, Slice};
use super::refcount::{Free, Refcounts};
use super::{Autoclear, Header, Incompatible, Problem, Snapshot, bitmap};
use crate::raw::is_unsupported;
use crate::storage::Storage;

/// How many changed slices of tables are kept before they are written.
const MAX_DIRTY: usize = 1024;
/// How many ranges wait to be freed before that is done.
const MAX_PENDING: usize = 16384;

/// The state of an image that is open for writing.
pub(super) struct Writer {
    storage: Arc<dyn Storage>,
    data: Arc<dyn Storage>,
    cluster_bits: u32,
    external_data: bool,
    refcounts: Refcounts,
    pub(super) metadata: Metadata,
    /// Slices of L2 tables that are not written yet, by their place in the image.
    pub(super) dirty_l2: BTreeMap<u64, Slice>,
    /// Entries of the L1 table that are not written yet.
    pub(super) dirty_l1: BTreeSet<usize>,
    /// Where the L1 table is.
    l1_offset: u64,
    /// Ranges that lose a reference once the tables that no longer have it are durable.
    pending: Vec<(u64, u64)>,
    /// Where nothing of the image is any more, in bytes: references beyond are forged.
    end: u64,
    /// What the first write has to do; `None` once it is done.
    first_write: Option<FirstWrite>,
    /// A commit has failed: nobody knows what is in the file.
    has_failed: bool,
}

/// What is written before anything else is.
struct FirstWrite {
    /// The autoclear features that are left, if there were others.
    autoclear: Option<Autoclear>,
    /// Flags of bitmaps to be set, by their place, as their bitmaps miss our writes.
    bitmap_flags: Vec<(u64, u32)>,
}

impl Writer {
    /// Looks at all that the image refers to, and refuses to write what contradicts itself.
    pub(super) fn open(
        storage: Arc<dyn Storage>,
        data: Arc<dyn Storage>,
        header: &Header,
        l1: &[u64],
        snapshots: &[Snapshot],
        snapshot_table_len: u64,
    ) -> Result<Self, Problem> {
        refuse_unwritable(header)?;
        let geometry = Geometry::new(header);
        let size = storage.size().map_err(Problem::Io)?;
        let cluster_size = header.cluster_size();
        let refcounts = Refcounts::read(&*storage, header)?;
        let mut metadata = Metadata::new(header.cluster_bits);
        let mut add = |offset: u64, len: u64, what: &'static str, kind| {
            if !offset.is_multiple_of(cluster_size) {
                return Err(Problem::corrupt(what, offset));
            }
            // The last structure need not fill its cluster.
            if offset >= size {
                return Err(Problem::Truncated { what, offset });
            }
            metadata.add(offset, len, kind)
        };
        add(0, 1, "header", Kind::Header)?;
        let l1_offset = header.raw.l1_table_offset.get();
        add(l1_offset, l1.len() as u64 * 8, "L1 table", Kind::L1Table)?;
        let (table_offset, table_len) = refcounts.table_range();
        add(table_offset, table_len, "refcount table", Kind::RefcountTable)?;
        for block in refcounts.blocks() {
            add(block, cluster_size, "refcount block", Kind::RefcountBlock)?;
        }
        for word in l1 {
            let entry = L1Entry::decode(*word, &geometry).map_err(|at| Problem::corrupt("L1 entry", at))?;
            if let Some(entry) = entry {
                add(entry.table, cluster_size, "L2 table", Kind::L2Table)?;
            }
        }
        if !snapshots.is_empty() {
            let offset = header.raw.snapshots_offset.get();
            add(offset, snapshot_table_len, "snapshot table", Kind::SnapshotTable)?;
        }
        for snapshot in snapshots {
            let len = u64::from(snapshot.l1_size) * 8;
            if len > 0 {
                add(snapshot.l1_table_offset, len, "snapshot's L1 table", Kind::SnapshotL1Table)?;
            }
        }
        let first_write = FirstWrite::plan(&*storage, header);
        if let Some(bitmaps) = &header.bitmaps
            && first_write.autoclear.is_none_or(|left| left.contains(Autoclear::BITMAPS))
        {
            let what = "bitmap directory";
            add(bitmaps.directory_offset, bitmaps.directory_size, what, Kind::BitmapDirectory)?;
        }
        Ok(Self {
            external_data: header.has_data_file(),
            storage,
            data,
            cluster_bits: header.cluster_bits,
            refcounts,
            metadata,
            dirty_l2: BTreeMap::new(),
            dirty_l1: BTreeSet::new(),
            l1_offset,
            pending: Vec::new(),
            end: size.next_multiple_of(cluster_size),
            first_write: Some(first_write),
            has_failed: false,
        })
    }

    /// Prepares for a change: refuses it after a failure, and does what goes before the first one.
    pub(super) fn begin(&mut self) -> Result<(), Problem> {
        if self.has_failed {
            let text = "an earlier write of the image's tables failed; open the image again";
            return Err(Problem::Io(io::Error::other(text)));
        }
        if let Some(first) = &self.first_write {
            first.write(&*self.storage).map_err(Problem::Io)?;
            self.first_write = None;
        }
        Ok(())
    }

    /// Whether [`begin`](Self::begin) has nothing to do.
    pub(super) fn has_begun(&self) -> bool {
        self.first_write.is_none() && !self.has_failed
    }

    /// Refuses a write of the guest's data to where none can be.
    pub(super) fn check_data(&self, host: u64, len: u64) -> Result<(), Problem> {
        if self.external_data {
            return Ok(());
        }
        if host.saturating_add(len) > self.end {
            return Err(Problem::corrupt("reference: it leads beyond the end of the image", host));
        }
        self.metadata.check(host, len)
    }

    /// Allocates clusters that follow each other, at least one and up to `want`. Gives where they are
    /// and how many.
    pub(super) fn allocate(&mut self, want: u64) -> Result<(u64, u64), Problem> {
        loop {
            let (first, count) = match self.refcounts.find_free(&*self.storage, want)? {
                Free::Run { first, count } => (first, count),
                Free::NoBlock { cluster } => {
                    self.check_free(cluster)?;
                    self.refcounts.add_block(&*self.storage, cluster)?;
                    self.take(cluster, 1, Kind::RefcountBlock)?;
                    continue;
                }
                Free::TableFull => {
                    self.grow_table()?;
                    continue;
                }
            };
            self.check_free(first)?;
            let count = (1..count).find(|n| self.metadata.contains(first + n)).unwrap_or(count);
            for cluster in first..first + count {
                self.refcounts.set(&*self.storage, cluster, 1)?;
            }
            self.end = self.end.max((first + count) << self.cluster_bits);
            return Ok((first << self.cluster_bits, count));
        }
    }

    /// A cluster whose refcount says that it is free must not be one that is in use.
    fn check_free(&self, cluster: u64) -> Result<(), Problem> {
        match self.metadata.contains(cluster) {
            true => Err(Problem::corrupt(
                "refcount: it is 0 for a cluster with metadata; qemu-img check -r all repairs it",
                cluster << self.cluster_bits,
            )),
            false => Ok(()),
        }
    }

    fn take(&mut self, first: u64, count: u64, kind: Kind) -> Result<(), Problem> {
        self.end = self.end.max((first + count) << self.cluster_bits);
        self.metadata.add(first << self.cluster_bits, count << self.cluster_bits, kind)
    }

    /// Replaces the refcount table by a larger one.
    fn grow_table(&mut self) -> Result<(), Problem> {
        let (old_offset, old_len) = self.refcounts.table_range();
        let growth = self.refcounts.plan_growth()?;
        let blocks = growth.first + growth.table_clusters;
        for cluster in growth.first..blocks + growth.blocks {
            self.check_free(cluster)?;
        }
        // The new table is complete when the header leads to it, so what is open goes first.
        self.guarded(|writer| {
            writer.write_refcounts()?;
            writer.refcounts.grow(&*writer.storage, &growth)
        })?;
        self.take(growth.first, growth.table_clusters, Kind::RefcountTable)?;
        self.take(blocks, growth.blocks, Kind::RefcountBlock)?;
        for cluster in old_offset >> self.cluster_bits..(old_offset + old_len) >> self.cluster_bits {
            self.drop_reference(cluster)?;
        }
        Ok(())
    }

    /// Takes back an allocation that has come to nothing.
    pub(super) fn give_back(&mut self, offset: u64, clusters: u64) {
        for cluster in (offset >> self.cluster_bits..).take(usize::try_from(clusters).unwrap_or(usize::MAX)) {
            // The block is in memory, as it was just changed; at worst the cluster is lost.
            let _ = self.drop_reference(cluster);
        }
    }

    /// Lets a range lose a reference, once the tables without it are durable.
    pub(super) fn release(&mut self, offset: u64, len: u64) {
        match self.pending.last_mut() {
            Some((start, pending))
                if *start + *pending == offset && offset.is_multiple_of(1 << self.cluster_bits) =>
            {
                *pending += len;
            }
            _ => self.pending.push((offset, len)),
        }
    }

    /// Whether so much is waiting that it should be written.
    pub(super) fn is_full(&self) -> bool {
        self.dirty_l2.len() + self.refcounts.dirty_slices() > MAX_DIRTY || self.pending.len() > MAX_PENDING
    }

    /// Writes all changes, in an order that a crash cannot turn into damage, and makes them durable.
    pub(super) fn commit(&mut self, l1: &[u64], l2_cache: &L2Cache) -> Result<(), Problem> {
        if self.first_write.is_some() {
            // Nothing has been changed.
            return Ok(());
        }
        self.guarded(|writer| writer.commit_in_order(l1, l2_cache))
    }

    /// After a failure nobody knows what is in the file, so nothing more is written.
    fn guarded(&mut self, work: impl FnOnce(&mut Self) -> Result<(), Problem>) -> Result<(), Problem> {
        if self.has_failed {
            return self.begin();
        }
        let done = work(self);
        self.has_failed = done.is_err();
        done
    }

    fn commit_in_order(&mut self, l1: &[u64], l2_cache: &L2Cache) -> Result<(), Problem> {
        let io = Problem::Io;
        self.write_refcounts()?;
        if self.external_data {
            self.data.flush().map_err(io)?;
        }
        // The guest's data and the refcounts of new clusters are durable before they are referred to.
        self.storage.flush().map_err(io)?;
        if self.dirty_l2.is_empty() && self.dirty_l1.is_empty() && self.pending.is_empty() {
            return Ok(());
        }
        let bytes: Vec<(u64, Vec<u8>)> = self
            .dirty_l2
            .iter()
            .map(|(place, slice)| (*place, slice.iter().flat_map(|word| word.to_be_bytes()).collect()))
            .collect();
        write_runs(&*self.storage, bytes.iter().map(|(place, bytes)| (*place, &bytes[..]))).map_err(io)?;
        for (place, slice) in std::mem::take(&mut self.dirty_l2) {
            l2_cache.insert(place, slice);
        }
        if !self.dirty_l1.is_empty() {
            // New L2 tables before the L1 entries that lead to them.
            self.storage.flush().map_err(io)?;
            for index in std::mem::take(&mut self.dirty_l1) {
                let word = l1.get(index).copied().unwrap_or(0);
                let place = self.l1_offset + index as u64 * 8;
                self.storage.write_at(place, &word.to_be_bytes()).map_err(io)?;
            }
        }
        // What is no longer referred to, durably, may be used again.
        self.storage.flush().map_err(io)?;
        self.free_pending()?;
        // Not durable, and need not be: until they are, the clusters are lost, not damaged.
        self.write_refcounts()
    }

    /// Writes refcount blocks, and the entries of the table that lead to new ones after them.
    fn write_refcounts(&mut self) -> Result<(), Problem> {
        self.refcounts.write_blocks(&*self.storage).map_err(Problem::Io)?;
        if self.refcounts.has_new_blocks() {
            self.storage.flush().map_err(Problem::Io)?;
            self.refcounts.write_table(&*self.storage).map_err(Problem::Io)?;
        }
        Ok(())
    }

    fn free_pending(&mut self) -> Result<(), Problem> {
        for (offset, len) in std::mem::take(&mut self.pending) {
            let clusters = offset >> self.cluster_bits..(offset + len).div_ceil(1 << self.cluster_bits);
            // The free clusters at the end of what has been looked at.
            let mut hole = clusters.start..clusters.start;
            for cluster in clusters {
                if self.drop_reference(cluster)? {
                    hole.end = cluster + 1;
                } else {
                    self.punch(hole);
                    hole = cluster + 1..cluster + 1;
                }
            }
            self.punch(hole);
        }
        Ok(())
    }

    /// Lowers a cluster's refcount. Answers whether it is free now.
    fn drop_reference(&mut self, cluster: u64) -> Result<bool, Problem> {
        let count = self.refcounts.get(&*self.storage, cluster)?;
        if count == 0 {
            // It was wrong before us, and cannot become worse.
            tracing::warn!(cluster, "a cluster in use has refcount 0");
            return Ok(false);
        }
        self.refcounts.set(&*self.storage, cluster, count - 1)?;
        if count == 1 {
            self.metadata.remove(cluster);
        }
        Ok(count == 1)
    }

    /// Gives the space of free clusters back to the host. Where it has no means, they stay as they are.
    fn punch(&self, clusters: std::ops::Range<u64>) {
        let (start, end) = (clusters.start << self.cluster_bits, clusters.end << self.cluster_bits);
        let Ok(size) = self.storage.size() else { return };
        let len = end.min(size).saturating_sub(start);
        if len > 0
            && let Err(e) = self.storage.punch_hole(start, len)
            && !is_unsupported(&e)
        {
            tracing::warn!(start, len, "cannot give space back: {e}");
        }
    }
}

/// What keeps an image from being written at all.
fn refuse_unwritable(header: &Header) -> Result<(), Problem> {
    if header.incompatible.contains(Incompatible::CORRUPT) {
        return Err(Problem::Unsupported(
            "writing to an image that is marked corrupt; qemu-img check -r all repairs it".into(),
        ));
    }
    if header.incompatible.contains(Incompatible::DIRTY) {
        return Err(Problem::Unsupported(
            "writing to an image that is marked dirty (lazy refcounts); qemu-img check -r all repairs it"
                .into(),
        ));
    }
    Ok(())
}

impl FirstWrite {
    fn plan(storage: &dyn Storage, header: &Header) -> Self {
        let mut left = header.autoclear & Autoclear::all();
        let bitmap_flags = bitmap::flags_for_writing(storage, header).unwrap_or_else(|| {
            // Bitmaps that cannot be marked are given up.
            left.remove(Autoclear::BITMAPS);
            Vec::new()
        });
        Self { autoclear: (left != header.autoclear).then_some(left), bitmap_flags }
    }

    fn write(&self, storage: &dyn Storage) -> io::Result<()> {
        if let Some(left) = self.autoclear {
            storage.write_at(0x58, &left.bits().to_be_bytes())?;
        }
        for (place, flags) in &self.bitmap_flags {
            storage.write_at(*place, &flags.to_be_bytes())?;
        }
        // Before any write that the features' owners do not know of.
        if self.autoclear.is_some() || !self.bitmap_flags.is_empty() { storage.flush() } else { Ok(()) }
    }
}

/// The longest write that is put together, in bytes.
const MAX_RUN: usize = 1 << 20;

/// Writes pieces in order of their places, those that follow each other at once.
pub(super) fn write_runs<'a>(
    storage: &dyn Storage,
    pieces: impl Iterator<Item = (u64, &'a [u8])>,
) -> io::Result<()> {
    let mut run: Vec<u8> = Vec::new();
    let mut start = 0;
    for (place, bytes) in pieces {
        if place != start + run.len() as u64 || run.len() >= MAX_RUN {
            if !run.is_empty() {
                storage.write_at(start, &run)?;
            }
            run.clear();
            start = place;
        }
        run.extend_from_slice(bytes);
    }
    if run.is_empty() { Ok(()) } else { storage.write_at(start, &run) }
}
