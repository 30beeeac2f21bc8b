//! Zeros without content, and giving space back.

use std::sync::PoisonError;

use super::entry::{Mapping, Plain};
use super::{Autoclear, Problem, Qcow2, Tables};
use crate::raw::is_unsupported;

/// What a range is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Intent {
    /// Zeros, for certain.
    Zeroes,
    /// Anything: only whole clusters are given back.
    Discard,
}

/// How many zeros are written at a time where they must be written.
const ZEROS: u64 = 64 << 10;

impl Qcow2 {
    /// Makes a range zeros, or discards it. The range has been checked.
    pub(super) fn clear(&self, guest: u64, len: u64, intent: Intent) -> Result<(), Problem> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.writer()?.begin()?;
        let (mut at, end) = (guest, guest + len);
        while at < end {
            self.commit_if_full(&mut tables)?;
            at += self.clear_step(&mut tables, at, end, intent)?;
        }
        Ok(())
    }

    /// Clears the beginning of `at..end`, up to a cluster. Gives how much.
    fn clear_step(&self, tables: &mut Tables, at: u64, end: u64, intent: Intent) -> Result<u64, Problem> {
        let geometry = &self.geometry;
        if self.l1_entry(tables, at)?.is_none() && !self.has_backing(at) && !self.is_raw_data_file() {
            // Nothing is there, however large.
            return Ok((geometry.l1_entry_bytes() - at % geometry.l1_entry_bytes()).min(end - at));
        }
        let in_cluster = geometry.in_cluster(at);
        let len = (geometry.cluster_size() - in_cluster).min(end - at);
        // The disk may end within its last cluster.
        let is_whole = in_cluster == 0 && (len == geometry.cluster_size() || at + len == self.size);
        match (is_whole, intent) {
            (true, _) => self.clear_cluster(tables, at, len, intent)?,
            (false, Intent::Zeroes) => self.zero_part(tables, at, len)?,
            (false, Intent::Discard) => {}
        }
        Ok(len)
    }

    /// Clears the cluster that begins at `cluster`, of which the disk has `len` bytes.
    fn clear_cluster(
        &self,
        tables: &mut Tables,
        cluster: u64,
        len: u64,
        intent: Intent,
    ) -> Result<(), Problem> {
        let old = self.mapping(tables, cluster)?;
        let new = if !self.has_backing(cluster) {
            Plain::UNALLOCATED
        } else if self.geometry.has_zero_flag {
            Plain { zero: self.geometry.unit_mask(0, self.geometry.units), ..Plain::UNALLOCATED }
        } else if intent == Intent::Discard {
            // Version 2 has no zeros over a backing file; the old content may stay.
            return Ok(());
        } else {
            return self.write_zeros(tables, cluster, len);
        };
        self.zero_raw_data_file(cluster, len)?;
        if old == Mapping::Plain(new) {
            return Ok(());
        }
        self.set_mapping(tables, cluster, &new)?;
        self.release(tables, old)
    }

    /// Makes a part of a cluster zeros.
    fn zero_part(&self, tables: &mut Tables, at: u64, len: u64) -> Result<(), Problem> {
        if self.reads_zero(tables, at, len)? {
            return self.zero_raw_data_file(at, len);
        }
        let geometry = &self.geometry;
        let unit = geometry.unit_size();
        let (first, end) = (at.next_multiple_of(unit), at + len - (at + len) % unit);
        let cluster = at - geometry.in_cluster(at);
        let is_compressed = matches!(self.mapping(tables, cluster)?, Mapping::Compressed(_));
        if is_compressed || geometry.units == 1 || first >= end {
            return self.write_zeros(tables, at, len);
        }
        // Whole subclusters need no content; what is left on both sides is written.
        self.write_zeros(tables, at, first - at)?;
        self.write_zeros(tables, end, at + len - end)?;
        self.zero_raw_data_file(first, end - first)?;
        let Mapping::Plain(old) = self.mapping(tables, cluster)? else { return Ok(()) };
        let index = |byte: u64| u32::try_from((byte - cluster) / unit).unwrap_or(0);
        let mask = geometry.unit_mask(index(first), index(end));
        let mut new = Plain { allocated: old.allocated & !mask, zero: old.zero | mask, ..old };
        if new.allocated == 0 {
            (new.host, new.copied) = (None, false);
        }
        self.set_mapping(tables, cluster, &new)?;
        if new.host.is_none() { self.release(tables, Mapping::Plain(old)) } else { Ok(()) }
    }

    /// Writes zeros as content.
    fn write_zeros(&self, tables: &mut Tables, at: u64, len: u64) -> Result<(), Problem> {
        let zeros = vec![0; usize::try_from(len.min(ZEROS)).unwrap_or(0)];
        let mut done = 0;
        while done < len {
            let now = usize::try_from(len - done).unwrap_or(usize::MAX).min(zeros.len());
            self.write_mapped(tables, at + done, &zeros[..now])?;
            done += now as u64;
        }
        Ok(())
    }

    /// Whether the data file must read the same by itself.
    fn is_raw_data_file(&self) -> bool {
        self.geometry.external_data && self.header.autoclear.contains(Autoclear::DATA_FILE_RAW)
    }

    /// Makes a range of a raw data file zeros, as the tables are not all that says what is there.
    fn zero_raw_data_file(&self, at: u64, len: u64) -> Result<(), Problem> {
        if !self.is_raw_data_file() || len == 0 {
            return Ok(());
        }
        let size = self.data.size().map_err(Problem::Io)?;
        let end = (at + len).min(size);
        let Some(len) = end.checked_sub(at).filter(|len| *len > 0) else { return Ok(()) };
        match self.data.punch_hole(at, len) {
            Err(e) if is_unsupported(&e) => {}
            done => return done.map_err(Problem::Io),
        }
        let zeros = vec![0; usize::try_from(len.min(ZEROS)).unwrap_or(0)];
        let mut done = 0;
        while done < len {
            let now = usize::try_from(len - done).unwrap_or(usize::MAX).min(zeros.len());
            self.data.write_at(at + done, &zeros[..now]).map_err(Problem::Io)?;
            done += now as u64;
        }
        Ok(())
    }
}
