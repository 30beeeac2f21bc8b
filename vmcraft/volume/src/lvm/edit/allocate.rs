//! Which extents are free, and choosing among them.

use crate::lvm::{Metadata, Segment, SegmentKind};
use crate::{Error, Result};

/// A run of extents on a physical volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// The physical volume, by its name inside the metadata.
    pub(super) pv: String,
    pub(super) start: u64,
    pub(super) count: u64,
}

impl Metadata {
    /// The runs of extents on a physical volume that logical volumes have, in their order.
    fn used_runs(&self, pv: &str) -> Vec<(u64, u64)> {
        let segments = self.logical_volumes.iter().flat_map(|lv| &lv.segments);
        let areas = segments.flat_map(Segment::physical_areas);
        let mut runs: Vec<(u64, u64)> =
            areas.filter(|(id, ..)| *id == pv).map(|(_, start, count)| (start, count)).collect();
        runs.sort_unstable();
        runs
    }

    /// How many extents of a physical volume logical volumes have.
    pub fn allocated_extents(&self, pv: &str) -> u64 {
        self.used_runs(pv).iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Refuses where it is not known which extents are in use: segments of unknown types may have some.
    pub(super) fn check_allocations(&self) -> Result<()> {
        let mut segments = self.logical_volumes.iter().flat_map(|lv| &lv.segments);
        match segments.find(|segment| segment.kind == SegmentKind::Unknown) {
            None => Ok(()),
            Some(segment) => Err(Error::Unsupported(format!(
                "giving away extents of volume group {}, which has segments of type {}",
                self.name, segment.type_name
            ))),
        }
    }

    /// How many extents a physical volume must have to hold what it holds.
    pub(super) fn last_used_extent(&self, pv: &str) -> u64 {
        self.used_runs(pv).iter().map(|(start, count)| start.saturating_add(*count)).max().unwrap_or(0)
    }

    /// How many extents are free, on physical volumes that may be used.
    pub(super) fn free_extents(&self) -> u64 {
        self.free_runs().iter().map(|run| run.count).sum()
    }

    /// The free runs, in the order of the physical volumes. Those that are not allocatable have none.
    pub(super) fn free_runs(&self) -> Vec<Run> {
        let mut free = Vec::new();
        for pv in &self.physical_volumes {
            if !pv.status.iter().any(|word| word == "ALLOCATABLE") {
                continue;
            }
            let mut at = 0;
            let end = [(pv.pe_count, 0)];
            for (start, count) in self.used_runs(&pv.id).into_iter().chain(end) {
                if start > at {
                    free.push(Run { pv: pv.id.clone(), start: at, count: start - at });
                }
                at = at.max(start + count);
            }
        }
        free
    }

    /// Chooses `count` extents: those that begin at `(pv, extent)` first, then one run that is large enough, else the
    /// largest.
    pub(super) fn choose_linear(&self, count: u64, behind: Option<(&str, u64)>) -> Result<Vec<Run>> {
        let mut free = self.free_runs();
        let total: u64 = free.iter().map(|run| run.count).sum();
        if total < count {
            return Err(self.too_few(count, total));
        }
        let mut left = count;
        let mut chosen = Vec::new();
        let next = |(pv, at): (&str, u64)| free.iter().position(|run| run.pv == pv && run.start == at);
        if let Some(index) = behind.and_then(next) {
            take(free.remove(index), &mut left, &mut chosen);
        }
        if let Some(index) = free.iter().position(|run| run.count >= left) {
            take(free.remove(index), &mut left, &mut chosen);
        }
        free.sort_by_key(|run| std::cmp::Reverse(run.count));
        for run in free {
            take(run, &mut left, &mut chosen);
        }
        Ok(chosen)
    }

    /// Chooses `each` extents on each of `stripes` physical volumes: rows of runs of the same length. Those that begin
    /// at `behind` come first.
    pub(super) fn choose_striped(
        &self,
        stripes: usize,
        each: u64,
        behind: Option<&[(String, u64)]>,
    ) -> Result<Vec<Vec<Run>>> {
        let mut free = self.free_runs();
        let mut left = each;
        let mut rows = Vec::new();
        if let Some(ends) = behind {
            let next: Vec<usize> = ends
                .iter()
                .filter_map(|(pv, at)| free.iter().position(|run| run.pv == *pv && run.start == *at))
                .collect();
            if next.len() == stripes {
                rows.push(take_row(&mut free, &next, &mut left));
            }
        }
        while left > 0 {
            // The largest run of each physical volume, of the ones that have most.
            let mut best: Vec<usize> = Vec::new();
            for (index, run) in free.iter().enumerate() {
                match best.iter_mut().find(|b| free[**b].pv == run.pv) {
                    Some(other) if free[*other].count < run.count => *other = index,
                    Some(_) => {}
                    None => best.push(index),
                }
            }
            best.sort_by_key(|index| std::cmp::Reverse(free[*index].count));
            best.truncate(stripes);
            if best.len() < stripes {
                let found = best.len();
                return Err(Error::Refused(format!(
                    "volume group {}: {stripes} stripes of {each} extents need as many physical volumes with free \
                     extents; after {} extents of each, there are {found}",
                    self.name,
                    each - left
                )));
            }
            best.sort_unstable();
            rows.push(take_row(&mut free, &best, &mut left));
        }
        Ok(rows)
    }

    fn too_few(&self, wanted: u64, free: u64) -> Error {
        Error::Refused(format!(
            "volume group {} has {free} free extents of {} bytes, fewer than the {wanted} needed",
            self.name, self.extent_size
        ))
    }
}

/// Takes what is needed of a run.
fn take(run: Run, left: &mut u64, chosen: &mut Vec<Run>) {
    let count = run.count.min(*left);
    if count > 0 {
        *left -= count;
        chosen.push(Run { count, ..run });
    }
}

/// Takes the same number of extents of some of the free runs. What is left of them stays free.
fn take_row(free: &mut Vec<Run>, indices: &[usize], left: &mut u64) -> Vec<Run> {
    let count = indices.iter().map(|index| free[*index].count).min().unwrap_or(0).min(*left);
    *left -= count;
    let mut row = Vec::with_capacity(indices.len());
    for index in indices {
        let run = &mut free[*index];
        row.push(Run { count, ..run.clone() });
        run.start += count;
        run.count -= count;
    }
    free.retain(|run| run.count > 0);
    row
}
