//! Mapping and reading.

use std::sync::{Arc, Mutex, PoisonError};

use super::entry::{CompressedAt, Geometry, L1Entry, Mapping, Plain, Unit};
use super::{Problem, Qcow2, Tables, compressed};
use crate::Extent;
use crate::generations::Generations;
use crate::storage::{Storage, read_exact_at};

/// A slice of an L2 table.
pub(super) type Slice = Arc<[u64]>;

/// Slices of L2 tables by their place in the image.
pub(super) struct L2Cache {
    /// By a hash of the place, so that readers seldom meet at a lock.
    shards: [Mutex<Generations<u64, Slice>>; SHARDS],
    slice_bits: u32,
}

const SHARDS: usize = 8;

impl L2Cache {
    /// A cache of at most `capacity` bytes, but of one slice for each lock at least.
    pub(super) fn new(geometry: &Geometry, capacity: usize) -> Self {
        // A shard keeps two generations.
        let slices = capacity / 2 / usize::try_from(geometry.slice_bytes()).unwrap_or(usize::MAX);
        Self {
            shards: std::array::from_fn(|_| Mutex::new(Generations::new(slices / SHARDS))),
            slice_bits: geometry.slice_bytes().trailing_zeros(),
        }
    }

    fn shard(&self, place: u64) -> &Mutex<Generations<u64, Slice>> {
        // Below SHARDS, so it fits.
        #[allow(clippy::cast_possible_truncation)]
        let index = ((place >> self.slice_bits) % SHARDS as u64) as usize;
        &self.shards[index]
    }

    pub(super) fn get(&self, place: u64) -> Option<Slice> {
        self.shard(place).lock().unwrap_or_else(PoisonError::into_inner).get(&place)
    }

    pub(super) fn insert(&self, place: u64, slice: Slice) {
        self.shard(place).lock().unwrap_or_else(PoisonError::into_inner).insert(place, slice);
    }
}

/// Where a run of bytes of the disk comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// From byte `host` of the data file on. `in_place`: nothing else refers to it, so it may be
    /// written there.
    Data { host: u64, in_place: bool },
    /// Nowhere: it reads as zeros.
    Zero,
    /// The backing file, or zeros without one.
    Backing,
    /// A compressed cluster.
    Compressed(CompressedAt),
}

/// A run of bytes of the disk that come from the same place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub(super) len: u64,
    pub(super) source: Source,
}

impl Qcow2 {
    /// Reads a slice of an L2 table that begins at `place` of the image: as it has been changed, or
    /// through the cache.
    pub(super) fn l2_slice(&self, tables: &Tables, place: u64) -> Result<Slice, Problem> {
        if let Some(slice) = tables.writer.as_ref().and_then(|writer| writer.dirty_l2.get(&place)) {
            return Ok(slice.clone());
        }
        if let Some(slice) = self.l2_cache.get(place) {
            return Ok(slice);
        }
        // At most 4 KiB.
        let mut bytes = vec![0; usize::try_from(self.geometry.slice_bytes()).unwrap_or(0)];
        read_exact_at(&*self.storage, place, &mut bytes)
            .map_err(|e| Problem::reading(e, "L2 table", place))?;
        let slice: Slice = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_be_bytes(*word)).collect();
        self.l2_cache.insert(place, slice.clone());
        Ok(slice)
    }

    /// The L1 entry of a byte of the disk.
    pub(super) fn l1_entry(&self, tables: &Tables, guest: u64) -> Result<Option<L1Entry>, Problem> {
        let index = guest / self.geometry.l1_entry_bytes();
        let word = usize::try_from(index).ok().and_then(|index| tables.l1.get(index)).copied().unwrap_or(0);
        L1Entry::decode(word, &self.geometry).map_err(|table| {
            Problem::corrupt("L1 entry: its offset is not a multiple of the cluster size", table)
        })
    }

    /// The longest run from `guest` that one slice of an L2 table tells of, of at most `max` bytes.
    pub(super) fn map(&self, tables: &Tables, guest: u64, max: u64) -> Result<Run, Problem> {
        let geometry = &self.geometry;
        let Some(l1) = self.l1_entry(tables, guest)? else {
            let rest = geometry.l1_entry_bytes() - guest % geometry.l1_entry_bytes();
            return Ok(Run { len: rest.min(max), source: Source::Backing });
        };
        let place = l1.table + geometry.slice_offset(guest);
        let slice = self.l2_slice(tables, place)?;
        let max = max.min(geometry.slice_span() - guest % geometry.slice_span());
        let mut run = Run { len: 0, source: Source::Zero };
        while run.len < max {
            let at = guest + run.len;
            let index = geometry.word_index(at);
            let words = slice.get(index..).unwrap_or_default();
            let next = match Mapping::decode(words, geometry, place + index as u64 * 8)? {
                Mapping::Plain(plain) => run_in_cluster(&plain, geometry, geometry.in_cluster(at)),
                Mapping::Compressed(compressed) => Run {
                    len: geometry.cluster_size() - geometry.in_cluster(at),
                    source: Source::Compressed(compressed),
                },
            };
            if run.len == 0 {
                run = next;
            } else if continues(&run, &next) {
                run.len += next.len;
            } else {
                break;
            }
        }
        run.len = run.len.min(max);
        Ok(run)
    }

    /// What the cluster that begins at `cluster` of the disk is made of.
    pub(super) fn mapping(&self, tables: &Tables, cluster: u64) -> Result<Mapping, Problem> {
        let Some(l1) = self.l1_entry(tables, cluster)? else {
            return Ok(Mapping::Plain(Plain::UNALLOCATED));
        };
        let place = l1.table + self.geometry.slice_offset(cluster);
        let slice = self.l2_slice(tables, place)?;
        let index = self.geometry.word_index(cluster);
        Mapping::decode(slice.get(index..).unwrap_or_default(), &self.geometry, place + index as u64 * 8)
    }

    /// Fills `buf` from byte `guest` of the disk. The range has been checked.
    pub(super) fn read_guest(&self, guest: u64, buf: &mut [u8]) -> Result<(), Problem> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        self.read_mapped(&tables, guest, buf)
    }

    /// Fills `buf` from byte `guest` of the disk, as `tables` map it.
    pub(super) fn read_mapped(
        &self,
        tables: &Tables,
        mut guest: u64,
        mut buf: &mut [u8],
    ) -> Result<(), Problem> {
        while !buf.is_empty() {
            let run = self.map(tables, guest, buf.len() as u64)?;
            // No longer than the buffer.
            let len = usize::try_from(run.len).unwrap_or(buf.len());
            let (now, rest) = std::mem::take(&mut buf).split_at_mut(len);
            self.read_run(guest, run.source, now)?;
            buf = rest;
            guest += run.len;
        }
        Ok(())
    }

    /// Fills `buf`, which is all of a run that begins at `guest`, or its beginning.
    pub(super) fn read_run(&self, guest: u64, source: Source, buf: &mut [u8]) -> Result<(), Problem> {
        match source {
            Source::Data { host, .. } => self.read_data(host, buf),
            Source::Zero => {
                buf.fill(0);
                Ok(())
            }
            Source::Backing => self.read_backing(guest, buf),
            Source::Compressed(at) => self.read_compressed(at, self.geometry.in_cluster(guest), buf),
        }
    }

    /// Reads from the data file. The last cluster need not be complete, as the file ends where the
    /// last byte was written.
    fn read_data(&self, host: u64, buf: &mut [u8]) -> Result<(), Problem> {
        let read = self.data.read_at(host, buf).map_err(Problem::Io)?;
        if read < buf.len() {
            let last = host + buf.len() as u64 - 1;
            let last_cluster = last - self.geometry.in_cluster(last);
            if host + read as u64 <= last_cluster && self.data.size().map_err(Problem::Io)? <= last_cluster {
                return Err(Problem::Truncated { what: "data cluster", offset: last_cluster });
            }
            buf[read..].fill(0);
        }
        Ok(())
    }

    /// Reads what this image does not have. A backing file may be smaller than the disk.
    fn read_backing(&self, guest: u64, buf: &mut [u8]) -> Result<(), Problem> {
        let Some(backing) = &self.backing else {
            buf.fill(0);
            return Ok(());
        };
        let there = backing.size().saturating_sub(guest);
        let len = usize::try_from(there).unwrap_or(usize::MAX).min(buf.len());
        let (from_backing, beyond) = buf.split_at_mut(len);
        beyond.fill(0);
        if from_backing.is_empty() {
            return Ok(());
        }
        backing.read_at(guest, from_backing).map_err(Problem::Io)
    }

    fn read_compressed(&self, at: CompressedAt, offset: u64, buf: &mut [u8]) -> Result<(), Problem> {
        let mut cache = self.decompressed.lock().unwrap_or_else(PoisonError::into_inner);
        let known = cache.get(&at);
        drop(cache);
        // Within a cluster, at most 2 MiB.
        let start = usize::try_from(offset).unwrap_or(0);
        let copy = |cluster: &[u8], buf: &mut [u8]| match cluster.get(start..start + buf.len()) {
            Some(part) => {
                buf.copy_from_slice(part);
                Ok(())
            }
            None => Err(Problem::corrupt("compressed cluster", at.offset)),
        };
        if let Some(cluster) = known {
            return copy(&cluster, buf);
        }
        // All of it goes straight where it belongs.
        if buf.len() as u64 == self.geometry.cluster_size() {
            return self.decompress(at, buf);
        }
        let mut cluster = vec![0; 1 << self.geometry.cluster_bits];
        self.decompress(at, &mut cluster)?;
        let cluster: Arc<[u8]> = cluster.into();
        self.decompressed.lock().unwrap_or_else(PoisonError::into_inner).insert(at, cluster.clone());
        copy(&cluster, buf)
    }

    /// Decompresses a cluster.
    pub(super) fn decompress(&self, at: CompressedAt, cluster: &mut [u8]) -> Result<(), Problem> {
        let corrupt = || Problem::corrupt("compressed cluster", at.offset);
        // At most twice a cluster and a sector, as the length has one bit more than a cluster's sectors.
        let mut bytes = vec![0; usize::try_from(at.len).map_err(|_| corrupt())?];
        // The last sector need not be complete.
        let read = self.storage.read_at(at.offset, &mut bytes).map_err(Problem::Io)?;
        if read == 0 {
            return Err(Problem::Truncated { what: "compressed cluster", offset: at.offset });
        }
        compressed::decompress(self.header.compression, &bytes[..read], cluster).ok_or_else(corrupt)
    }

    /// The extent at a byte of the disk, looked up through the backing chain.
    pub(super) fn guest_extent(&self, guest: u64) -> Result<Extent, Problem> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let run = self.map(&tables, guest, self.size - guest)?;
        drop(tables);
        let extent = |len: u64, is_hole: bool| Extent { offset: guest, len, is_hole };
        match (run.source, &self.backing) {
            (Source::Data { .. } | Source::Compressed(_), _) => Ok(extent(run.len, false)),
            (Source::Zero, _) | (Source::Backing, None) => Ok(extent(run.len, true)),
            (Source::Backing, Some(backing)) if guest >= backing.size() => Ok(extent(run.len, true)),
            (Source::Backing, Some(backing)) => {
                let len = run.len.min(backing.size() - guest);
                match backing.extents() {
                    Some(map) => {
                        let below = map.extent_at(guest).map_err(Problem::Io)?;
                        Ok(extent(below.len.min(len), below.is_hole))
                    }
                    None => Ok(extent(len, false)),
                }
            }
        }
    }
}

/// The run of units of one kind that begins at byte `offset` of a cluster.
fn run_in_cluster(plain: &Plain, geometry: &Geometry, offset: u64) -> Run {
    let unit_size = geometry.unit_size();
    // Below 32.
    let first = u32::try_from(offset / unit_size).unwrap_or(0);
    let kind = plain.unit(first);
    let end = (first + 1..geometry.units).find(|index| plain.unit(*index) != kind).unwrap_or(geometry.units);
    let source = match (kind, plain.host) {
        (Unit::Allocated, Some(host)) => Source::Data { host: host + offset, in_place: plain.copied },
        (Unit::Zero, _) => Source::Zero,
        _ => Source::Backing,
    };
    Run { len: u64::from(end) * unit_size - offset, source }
}

/// Whether `next` is more of what `run` is.
fn continues(run: &Run, next: &Run) -> bool {
    match (run.source, next.source) {
        (Source::Data { host: a, in_place }, Source::Data { host: b, in_place: next }) => {
            a.checked_add(run.len) == Some(b) && in_place == next
        }
        (Source::Zero, Source::Zero) | (Source::Backing, Source::Backing) => true,
        _ => false,
    }
}
