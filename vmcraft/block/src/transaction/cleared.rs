//! Ranges that were discarded or made zeros: kept as ranges, however long they are.

use std::collections::BTreeMap;

/// What was asked for a range that has no content any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clearing {
    /// Its content is not needed. In the transaction it reads as zeros.
    Discard,
    /// It reads as zeros, for certain.
    Zeroes,
}

/// Disjoint ranges by where they begin: their ends (exclusive) and kinds. Neighbours are of
/// different kinds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cleared(BTreeMap<u64, (u64, Clearing)>);

impl Cleared {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges in order: start, end (exclusive), kind.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, u64, Clearing)> + '_ {
        self.0.iter().map(|(start, (end, kind))| (*start, *end, *kind))
    }

    /// Where the range ends that holds byte `at`.
    pub(super) fn end_at(&self, at: u64) -> Option<u64> {
        let (_, (end, _)) = self.0.range(..=at).next_back()?;
        Some(*end).filter(|end| *end > at)
    }

    /// Where the first range after byte `at` begins.
    pub(super) fn next_start(&self, at: u64) -> Option<u64> {
        self.0.range(at.saturating_add(1)..).next().map(|(start, _)| *start)
    }

    /// Adds a range. What was made zeros stays so when it is discarded: nobody shall see again what
    /// was there before.
    pub(super) fn insert(&mut self, start: u64, end: u64, kind: Clearing) {
        if start >= end {
            return;
        }
        let mut zeroes = Vec::new();
        for (from, to, old) in self.take(start, end) {
            if old == Clearing::Zeroes && kind == Clearing::Discard {
                zeroes.push((from, to));
            }
        }
        let mut at = start;
        for (from, to) in zeroes {
            self.add(at, from, kind);
            self.add(from, to, Clearing::Zeroes);
            at = to;
        }
        self.add(at, end, kind);
    }

    /// Takes out what lies in a range; what sticks out stays.
    fn take(&mut self, start: u64, end: u64) -> Vec<(u64, u64, Clearing)> {
        let first = self.0.range(..=start).next_back().filter(|(_, (to, _))| *to > start);
        let first = first.map_or(start, |(from, _)| *from);
        let touched: Vec<_> =
            self.0.range(first..end).map(|(from, (to, kind))| (*from, *to, *kind)).collect();
        let mut taken = Vec::with_capacity(touched.len());
        for (from, to, kind) in touched {
            self.0.remove(&from);
            if from < start {
                self.0.insert(from, (start, kind));
            }
            if to > end {
                self.0.insert(end, (to, kind));
            }
            taken.push((from.max(start), to.min(end), kind));
        }
        taken
    }

    /// Adds a range that nothing lies in, and joins it with its neighbours.
    fn add(&mut self, mut start: u64, mut end: u64, kind: Clearing) {
        if start >= end {
            return;
        }
        if let Some((from, (to, before))) = self.0.range(..start).next_back()
            && *to == start
            && *before == kind
        {
            start = *from;
        }
        if let Some((to, after)) = self.0.get(&end).copied()
            && after == kind
        {
            self.0.remove(&end);
            end = to;
        }
        self.0.insert(start, (end, kind));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_and_split() {
        let mut cleared = Cleared::default();
        cleared.insert(10, 20, Clearing::Discard);
        cleared.insert(20, 30, Clearing::Discard);
        assert_eq!(cleared.iter().collect::<Vec<_>>(), [(10, 30, Clearing::Discard)]);
        cleared.insert(15, 18, Clearing::Zeroes);
        cleared.insert(5, 25, Clearing::Discard);
        let expected = [(5, 15, Clearing::Discard), (15, 18, Clearing::Zeroes), (18, 30, Clearing::Discard)];
        assert_eq!(cleared.iter().collect::<Vec<_>>(), expected);
        assert_eq!(
            (cleared.end_at(16), cleared.end_at(30), cleared.next_start(5)),
            (Some(18), None, Some(15))
        );
    }
}
