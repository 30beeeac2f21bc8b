//! Which blocks are in use, as ranges: small for a volume whose metadata lies together, however large
//! the volume is.

use std::collections::BTreeMap;
use std::ops::Range;

/// Ranges of blocks, none of which touch each other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Space {
    /// By their start, where they end.
    used: BTreeMap<u64, u64>,
}

impl Space {
    /// Adds the `len` blocks from `start`. Blocks may be added twice.
    pub(crate) fn take(&mut self, start: u64, len: u64) {
        if len == 0 {
            return;
        }
        let (mut start, mut end) = (start, start.saturating_add(len));
        // All ranges that overlap or touch the new one become one with it.
        while let Some((&s, &e)) = self.used.range(..=end).next_back().filter(|(_, e)| **e >= start) {
            self.used.remove(&s);
            start = start.min(s);
            end = end.max(e);
        }
        self.used.insert(start, end);
    }

    /// Takes the `len` blocks from `start` out again; some of them may be free.
    pub(crate) fn give_back(&mut self, start: u64, len: u64) {
        let end = start.saturating_add(len);
        while let Some((&s, &e)) = self.used.range(..end).next_back().filter(|(_, e)| **e > start) {
            self.used.remove(&s);
            if e > end {
                self.used.insert(end, e);
            }
            if s < start {
                self.used.insert(s, start);
            }
        }
    }

    /// Whether none of the `len` blocks from `start` is in use.
    pub(crate) fn is_free(&self, start: u64, len: u64) -> bool {
        let end = start.saturating_add(len);
        self.used.range(..end).next_back().is_none_or(|(_, e)| *e <= start)
    }

    /// The ranges in use within `range`, cut to it.
    pub(crate) fn within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let before = self.used.range(..range.start).next_back().filter(|(_, e)| **e > range.start);
        let first = before.map_or(range.start, |(s, _)| *s);
        self.used
            .range(first..range.end.max(first))
            .map(move |(s, e)| (*s).max(range.start)..(*e).min(range.end))
    }

    /// How many blocks of `range` are in use.
    pub(crate) fn used_in(&self, range: Range<u64>) -> u64 {
        self.within(range).map(|r| r.end - r.start).sum()
    }

    /// The free ranges within `range`, in order.
    pub(crate) fn free_within(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut from = range.start;
        let last = std::iter::once(range.end..range.end);
        self.within(range).chain(last).filter_map(move |used| {
            let free = from..used.start;
            from = used.end;
            (free.start < free.end).then_some(free)
        })
    }

    /// The first of `len` free blocks that lie together in `range`.
    pub(crate) fn find(&self, range: Range<u64>, len: u64) -> Option<u64> {
        self.free_within(range).find(|r| r.end - r.start >= len).map(|r| r.start)
    }

    /// Takes `len` free blocks of `range`, in as few pieces as come first; `None` if there are fewer.
    pub(crate) fn allocate(&mut self, range: Range<u64>, len: u64) -> Option<Vec<Range<u64>>> {
        let mut pieces = Vec::new();
        let mut left = len;
        for free in self.free_within(range) {
            let piece = free.start..free.end.min(free.start.saturating_add(left));
            left -= piece.end - piece.start;
            pieces.push(piece);
            if left == 0 {
                break;
            }
        }
        if left > 0 {
            return None;
        }
        for piece in &pieces {
            self.take(piece.start, piece.end - piece.start);
        }
        Some(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_grow_together() {
        let mut space = Space::default();
        space.take(10, 5);
        space.take(20, 5);
        space.take(30, 5);
        space.take(13, 8); // bridges the first two
        assert_eq!(space.within(0..100).collect::<Vec<_>>(), [10..25, 30..35]);
        space.take(25, 5);
        assert!(space.within(12..33).eq(std::iter::once(12..33)));
        assert_eq!(space.used_in(0..12), 2);
        assert!(space.is_free(0, 10) && !space.is_free(9, 2) && space.is_free(35, 1));
    }

    #[test]
    fn what_is_given_back_is_free() {
        let mut space = Space::default();
        space.take(10, 10);
        space.take(30, 10);
        space.give_back(12, 2);
        space.give_back(18, 15); // the end of one, and the start of another
        space.give_back(0, 5);
        assert_eq!(space.within(0..100).collect::<Vec<_>>(), [10..12, 14..18, 33..40]);
    }

    #[test]
    fn allocation_takes_what_comes_first() {
        let mut space = Space::default();
        space.take(0, 1);
        space.take(3, 2);
        assert_eq!(space.find(0..10, 3), Some(5));
        assert_eq!(space.allocate(0..10, 8), None, "only 7 are free");
        assert_eq!(space.allocate(0..10, 4), Some(vec![1..3, 5..7]));
        assert!(space.free_within(0..10).eq(std::iter::once(7..10)));
    }
}
