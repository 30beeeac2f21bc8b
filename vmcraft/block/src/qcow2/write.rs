//! Writing: in place where a cluster is ours alone, else to a new one.

use std::sync::{Arc, PoisonError};

use super::entry::{L1Entry, Mapping, Plain};
use super::metadata::Kind;
use super::read::Source;
use super::writer::Writer;
use super::{Problem, Qcow2, Tables};
use crate::device::read_only;

impl Tables {
    /// The state for writing; a device that has none is read-only.
    pub(super) fn writer(&mut self) -> Result<&mut Writer, Problem> {
        self.writer.as_deref_mut().ok_or_else(|| Problem::Io(read_only()))
    }
}

impl Qcow2 {
    /// Writes `buf` at byte `guest` of the disk. The range has been checked.
    pub(super) fn write_guest(&self, guest: u64, buf: &[u8]) -> Result<(), Problem> {
        // What lies in clusters of our own is written beside other readers and writers.
        let done = self.write_in_place(guest, buf)?;
        let Some(buf) = buf.get(done..).filter(|rest| !rest.is_empty()) else { return Ok(()) };
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.writer()?.begin()?;
        self.write_mapped(&mut tables, guest + done as u64, buf)
    }

    /// Writes the beginning of `buf` as far as no table changes by that. Gives how much.
    fn write_in_place(&self, guest: u64, buf: &[u8]) -> Result<usize, Problem> {
        let tables = self.tables.read().unwrap_or_else(PoisonError::into_inner);
        let Some(writer) = &tables.writer else { return Err(Problem::Io(read_only())) };
        let mut done = 0;
        while writer.has_begun() && done < buf.len() {
            let at = guest + done as u64;
            let run = self.map(&tables, at, (buf.len() - done) as u64)?;
            let Source::Data { host, in_place: true } = run.source else { break };
            done += self.write_run(writer, host, &buf[done..], run.len)?;
        }
        Ok(done)
    }

    /// Writes the first `len` bytes of `buf` to a place that the tables name. Gives how much.
    fn write_run(&self, writer: &Writer, host: u64, buf: &[u8], len: u64) -> Result<usize, Problem> {
        // No longer than the buffer.
        let len = usize::try_from(len).unwrap_or(buf.len()).min(buf.len());
        writer.check_data(host, len as u64)?;
        self.data.write_at(host, &buf[..len]).map_err(Problem::Io)?;
        Ok(len)
    }

    /// Writes `buf`, changing tables where needed.
    pub(super) fn write_mapped(
        &self,
        tables: &mut Tables,
        mut guest: u64,
        mut buf: &[u8],
    ) -> Result<(), Problem> {
        while !buf.is_empty() {
            self.commit_if_full(tables)?;
            let done = self.write_step(tables, guest, buf)?;
            guest += done as u64;
            buf = &buf[done..];
        }
        Ok(())
    }

    /// Commits when much has collected. What has been done so far is complete in itself.
    pub(super) fn commit_if_full(&self, tables: &mut Tables) -> Result<(), Problem> {
        if tables.writer()?.is_full() { self.commit(tables) } else { Ok(()) }
    }

    /// Makes all changes durable.
    pub(super) fn commit(&self, tables: &mut Tables) -> Result<(), Problem> {
        let Tables { l1, writer: Some(writer) } = tables else { return Ok(()) };
        writer.commit(l1, &self.l2_cache)
    }

    /// Writes as much of the beginning of `buf` as can be done at once. Gives how much.
    fn write_step(&self, tables: &mut Tables, guest: u64, buf: &[u8]) -> Result<usize, Problem> {
        let run = self.map(tables, guest, buf.len() as u64)?;
        if let Source::Data { host, in_place: true } = run.source {
            return self.write_run(tables.writer()?, host, buf, run.len);
        }
        let cluster_size = 1 << self.geometry.cluster_bits;
        let in_cluster = self.geometry.in_cluster(guest);
        let whole = if in_cluster == 0 { self.whole_clusters(tables, guest, buf.len())? } else { 0 };
        if whole > 0 {
            return self.write_whole_clusters(tables, guest, buf, whole);
        }
        // Less than a cluster, at most 2 MiB.
        let rest = cluster_size - usize::try_from(in_cluster).unwrap_or(0);
        let len = rest.min(buf.len());
        self.write_part(tables, guest, &buf[..len])?;
        Ok(len)
    }

    /// How many clusters from `guest`, which begins one, are wholly within `len` bytes and need a new
    /// place.
    fn whole_clusters(&self, tables: &Tables, guest: u64, len: usize) -> Result<u64, Problem> {
        let most = len as u64 >> self.geometry.cluster_bits;
        let mut count = 0;
        while count < most && count < self.geometry.slice_entries {
            match self.mapping(tables, guest + (count << self.geometry.cluster_bits))? {
                Mapping::Plain(Plain { host: Some(_), copied: true, .. }) => break,
                _ => count += 1,
            }
        }
        Ok(count)
    }

    /// Finds up to `want` clusters for the guest's data. With an external data file they are where the
    /// guest has them.
    fn allocate_data(&self, tables: &mut Tables, guest: u64, want: u64) -> Result<(u64, u64), Problem> {
        match self.geometry.external_data {
            true => Ok((guest, want)),
            false => tables.writer()?.allocate(want),
        }
    }

    /// Writes whole clusters to a new place: up to `count`, as many as are free side by side.
    fn write_whole_clusters(
        &self,
        tables: &mut Tables,
        guest: u64,
        buf: &[u8],
        count: u64,
    ) -> Result<usize, Problem> {
        let cluster_bits = self.geometry.cluster_bits;
        let (host, count) = self.allocate_data(tables, guest, count)?;
        // No longer than the buffer.
        let len = usize::try_from(count << cluster_bits).unwrap_or(buf.len());
        let mut placed = 0;
        let mut place = || -> Result<(), Problem> {
            self.data.write_at(host, &buf[..len]).map_err(Problem::Io)?;
            while placed < count {
                let (at, host) = (guest + (placed << cluster_bits), host + (placed << cluster_bits));
                let old = self.mapping(tables, at)?;
                self.set_mapping(tables, at, &self.allocated(host))?;
                placed += 1;
                self.release(tables, old)?;
            }
            Ok(())
        };
        let done = place();
        if done.is_err() && !self.geometry.external_data {
            tables.writer()?.give_back(host + (placed << cluster_bits), count - placed);
        }
        done.map(|()| len)
    }

    /// A cluster that is all at `host`.
    fn allocated(&self, host: u64) -> Plain {
        let all = self.geometry.unit_mask(0, self.geometry.units);
        Plain { host: Some(host), copied: true, allocated: all, zero: 0 }
    }

    /// Writes within one cluster, of which some is not ours to write in place: the units that are
    /// touched become allocated, filled up with what they read as.
    pub(super) fn write_part(&self, tables: &mut Tables, guest: u64, buf: &[u8]) -> Result<(), Problem> {
        let geometry = &self.geometry;
        let in_cluster = geometry.in_cluster(guest);
        let cluster = guest - in_cluster;
        let end = in_cluster + buf.len() as u64;
        let old = self.mapping(tables, cluster)?;
        // Units are at most 32.
        let mut first = u32::try_from(in_cluster / geometry.unit_size()).unwrap_or(0);
        let mut last = u32::try_from(end.div_ceil(geometry.unit_size())).unwrap_or(0);
        let (kept, new) = match old {
            Mapping::Compressed(_) => {
                (first, last) = (0, geometry.units);
                (None, Plain::UNALLOCATED)
            }
            Mapping::Plain(plain @ Plain { host: Some(host), copied: true, .. }) => (Some(host), plain),
            Mapping::Plain(plain) => {
                // What is shared moves with it.
                if plain.allocated != 0 {
                    first = first.min(plain.allocated.trailing_zeros());
                    last = last.max(u32::BITS - plain.allocated.leading_zeros());
                }
                (None, Plain { allocated: 0, ..plain })
            }
        };
        let (from, to) = (u64::from(first) * geometry.unit_size(), u64::from(last) * geometry.unit_size());
        let host = match kept {
            Some(host) => host,
            None => self.allocate_data(tables, cluster, 1)?.0,
        };
        let mut place = || -> Result<(), Problem> {
            if kept.is_some() {
                tables.writer()?.check_data(host + from, to - from)?;
            }
            self.write_filled(tables, cluster, host, from..to, in_cluster, buf)?;
            let mask = geometry.unit_mask(first, last);
            let new = Plain {
                host: Some(host),
                copied: true,
                allocated: new.allocated | mask,
                zero: new.zero & !mask,
            };
            self.set_mapping(tables, cluster, &new)
        };
        let done = place();
        match (done, kept) {
            (Ok(()), Some(_)) => Ok(()),
            (Ok(()), None) => self.release(tables, old),
            (Err(e), None) if !geometry.external_data => {
                tables.writer()?.give_back(host, 1);
                Err(e)
            }
            (Err(e), _) => Err(e),
        }
    }

    /// Writes `range` of a cluster to its place at `host`: `buf` at `start`, and around it what the
    /// cluster reads as now.
    fn write_filled(
        &self,
        tables: &Tables,
        cluster: u64,
        host: u64,
        range: std::ops::Range<u64>,
        start: u64,
        buf: &[u8],
    ) -> Result<(), Problem> {
        let end = start + buf.len() as u64;
        if range == (start..end) {
            return self.data.write_at(host + start, buf).map_err(Problem::Io);
        }
        // Past the end of the file there are zeros already.
        if host >= self.data.size().map_err(Problem::Io)?
            && self.reads_zero(tables, cluster + range.start, start - range.start)?
            && self.reads_zero(tables, cluster + end, range.end - end)?
        {
            return self.data.write_at(host + start, buf).map_err(Problem::Io);
        }
        // At most a cluster, 2 MiB.
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(0);
        let mut filled = vec![0; size(range.end - range.start)];
        let (head, rest) = filled.split_at_mut(size(start - range.start));
        let (middle, tail) = rest.split_at_mut(buf.len());
        self.read_inside(tables, cluster + range.start, head)?;
        middle.copy_from_slice(buf);
        self.read_inside(tables, cluster + end, tail)?;
        self.data.write_at(host + range.start, &filled).map_err(Problem::Io)
    }

    /// Reads from the disk; what is past its end is zeros, as the last cluster may reach beyond it.
    fn read_inside(&self, tables: &Tables, guest: u64, buf: &mut [u8]) -> Result<(), Problem> {
        let there = usize::try_from(self.size.saturating_sub(guest)).unwrap_or(usize::MAX).min(buf.len());
        let (inside, beyond) = buf.split_at_mut(there);
        beyond.fill(0);
        self.read_mapped(tables, guest, inside)
    }

    /// Whether a range is known to read as zeros without being looked at.
    pub(super) fn reads_zero(&self, tables: &Tables, guest: u64, len: u64) -> Result<bool, Problem> {
        let end = (guest + len).min(self.size);
        let mut at = guest;
        while at < end {
            let run = self.map(tables, at, end - at)?;
            let is_zero = match run.source {
                Source::Zero => true,
                Source::Backing => !self.has_backing(at),
                Source::Data { .. } | Source::Compressed(_) => false,
            };
            if !is_zero {
                return Ok(false);
            }
            at += run.len;
        }
        Ok(true)
    }

    /// Whether the backing file has anything at a byte of the disk.
    pub(super) fn has_backing(&self, guest: u64) -> bool {
        self.backing.as_ref().is_some_and(|backing| guest < backing.size())
    }

    /// Enters what a cluster is made of, in memory.
    pub(super) fn set_mapping(&self, tables: &mut Tables, cluster: u64, new: &Plain) -> Result<(), Problem> {
        let table = self.writable_l2_table(tables, cluster)?;
        let place = table + self.geometry.slice_offset(cluster);
        // Taken out, so that it is ours alone and need not be copied.
        let mut slice = match tables.writer()?.dirty_l2.remove(&place) {
            Some(slice) => slice,
            None => self.l2_slice(tables, place)?,
        };
        let index = self.geometry.word_index(cluster);
        let words = new.encode(&self.geometry);
        let count = self.geometry.words();
        let entry = Arc::make_mut(&mut slice).get_mut(index..index + count);
        let set = entry.map(|entry| entry.copy_from_slice(&words[..count]));
        tables.writer()?.dirty_l2.insert(place, slice);
        set.ok_or_else(|| Problem::corrupt("L2 table", place))
    }

    /// The L2 table for a byte of the disk, as one that nothing else refers to: allocated if there was
    /// none, copied if it was shared.
    fn writable_l2_table(&self, tables: &mut Tables, guest: u64) -> Result<u64, Problem> {
        let old = match self.l1_entry(tables, guest)? {
            Some(L1Entry { table, copied: true }) => return Ok(table),
            other => other,
        };
        let cluster_size = self.geometry.cluster_size();
        let slice_bytes = self.geometry.slice_bytes();
        let (table, _) = tables.writer()?.allocate(1)?;
        tables.writer()?.metadata.add(table, cluster_size, Kind::L2Table)?;
        let empty: Arc<[u64]> = vec![0; usize::try_from(slice_bytes / 8).unwrap_or(0)].into();
        let mut slices = Vec::new();
        for offset in (0..cluster_size).step_by(usize::try_from(slice_bytes).unwrap_or(usize::MAX)) {
            let slice = match old {
                Some(old) => self.l2_slice(tables, old.table + offset)?,
                None => empty.clone(),
            };
            slices.push((table + offset, slice));
        }
        let corrupt = || Problem::corrupt("L1 table", table);
        let index = usize::try_from(guest / self.geometry.l1_entry_bytes()).map_err(|_| corrupt())?;
        *tables.l1.get_mut(index).ok_or_else(corrupt)? = L1Entry::encode(table);
        let writer = tables.writer()?;
        writer.dirty_l2.extend(slices);
        writer.dirty_l1.insert(index);
        if let Some(old) = old {
            writer.release(old.table, cluster_size);
        }
        Ok(table)
    }

    /// Lets go of what a cluster was made of. Clusters of an external data file are always the guest's.
    pub(super) fn release(&self, tables: &mut Tables, old: Mapping) -> Result<(), Problem> {
        let writer = tables.writer()?;
        match old {
            Mapping::Compressed(at) => {
                let start = at.offset - at.offset % 512;
                writer.release(start, at.offset + at.len - start);
            }
            Mapping::Plain(Plain { host: Some(host), .. }) if !self.geometry.external_data => {
                writer.release(host, self.geometry.cluster_size());
            }
            Mapping::Plain(_) => {}
        }
        Ok(())
    }
}
