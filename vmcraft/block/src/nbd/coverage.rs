//! Which bytes of a read have arrived, when they come in pieces and in any order.

/// How many separate pieces a reply may leave open: a server that sends every second byte first
/// would have us remember each.
const MAX_FRAGMENTS: usize = 1024;

/// The parts of a range that are there, in bytes: sorted, apart from each other.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    fragments: Vec<(u64, u64)>,
}

impl Coverage {
    /// Adds the bytes from `start` to before `end`. The error says why a server may not send them.
    pub(crate) fn add(&mut self, start: u64, end: u64) -> Result<(), &'static str> {
        let at = self.fragments.partition_point(|fragment| fragment.0 < start);
        let before = at.checked_sub(1).and_then(|i| self.fragments.get(i)).copied();
        let after = self.fragments.get(at).copied();
        if before.is_some_and(|(_, e)| e > start) || after.is_some_and(|(s, _)| s < end) {
            return Err("the same bytes twice");
        }
        let joins_before = before.is_some_and(|(_, e)| e == start);
        let joins_after = after.is_some_and(|(s, _)| s == end);
        match (joins_before, joins_after) {
            (true, true) => {
                let (_, end) = self.fragments.remove(at);
                self.fragments[at - 1].1 = end;
            }
            (true, false) => self.fragments[at - 1].1 = end,
            (false, true) => self.fragments[at].0 = start,
            (false, false) if self.fragments.len() == MAX_FRAGMENTS => return Err("too many pieces"),
            (false, false) => self.fragments.insert(at, (start, end)),
        }
        Ok(())
    }

    /// Whether all bytes from 0 to before `len` are there.
    pub(crate) fn is_whole(&self, len: u64) -> bool {
        self.fragments == [(0, len)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test] // Against a plain array of flags.
        fn coverage_agrees_with_an_array(pieces in proptest::collection::vec((0u64..32, 1u64..8), 0..40)) {
            let mut coverage = Coverage::default();
            let mut model = [false; 40];
            for (start, len) in pieces {
                let range = usize::try_from(start).unwrap()..usize::try_from(start + len).unwrap();
                let taken = model[range.clone()].contains(&true);
                prop_assert_eq!(coverage.add(start, start + len).is_err(), taken);
                if !taken {
                    model[range].fill(true);
                }
                prop_assert_eq!(coverage.is_whole(32), model[..32] == [true; 32] && !model[32]);
            }
        }
    }

    #[test]
    fn every_second_byte_is_too_many_pieces() {
        let mut coverage = Coverage::default();
        assert!((0..).map(|i| coverage.add(2 * i, 2 * i + 1)).take(2000).any(|result| result.is_err()));
    }
}
