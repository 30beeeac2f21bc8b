//! How much work it may be to try keys. The header says how much each key slot takes, and may be forged.

use super::kdf::{MAX_COST, MAX_MEMORY_KIB};

/// What the slots that are tried with a key that was given may cost altogether. cryptsetup tries all, however long
/// that takes; of 32 slots that each take it ten seconds, the total is less.
const GIVEN_COST: u64 = 4 * MAX_COST;

/// What all keys may cost together that nobody gave: about a minute. It is enough for seven slots as cryptsetup makes
/// them, with 1 GiB and four passes.
const FOUND_COST: u64 = MAX_COST / 16;

/// The most memory for a slot that is tried with a key that nobody gave, in KiB: cryptsetup's default.
const FOUND_MEMORY_KIB: u32 = 1 << 20;

/// What is left of the work that trying keys may be.
#[derive(Debug)]
pub struct Effort {
    /// In parts of [`MAX_COST`].
    left: u64,
    max_memory_kib: u32,
    left_out: u32,
}

impl Effort {
    /// For one key that was given for a volume: it may take minutes.
    pub(super) fn for_given_key() -> Self {
        Self { left: GIVEN_COST, max_memory_kib: MAX_MEMORY_KIB, left_out: 0 }
    }

    /// For all keys that were found in guests, one after the other: about a minute, and up to 1 GiB of memory. Who
    /// only opens an image is not to be held by what its headers say.
    pub fn for_found_keys() -> Self {
        Self { left: FOUND_COST, max_memory_kib: FOUND_MEMORY_KIB, left_out: 0 }
    }

    /// Takes this work of what is left; `false` if it is too much, and the slot is to be left out.
    pub(super) fn spend(&mut self, cost: u64, memory_kib: u32) -> bool {
        // More than there may ever be is refused with its own error, and costs nothing.
        let is_memory_fine = memory_kib <= self.max_memory_kib || memory_kib > MAX_MEMORY_KIB;
        match self.left.checked_sub(cost) {
            Some(left) if is_memory_fine => {
                self.left = left;
                true
            }
            _ => {
                self.left_out = self.left_out.saturating_add(1);
                false
            }
        }
    }

    /// How many slots were left out so far.
    pub(super) fn left_out(&self) -> u32 {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_gone() {
        let mut effort = Effort::for_found_keys();
        assert!(!effort.spend(FOUND_COST + 1, 0));
        assert!(effort.spend(FOUND_COST - 1, 1 << 20));
        assert!(!effort.spend(2, 0));
        assert!(effort.spend(1, 0));
        assert!(!effort.spend(1, 0));
        assert_eq!(effort.left_out(), 3);
    }

    #[test]
    fn memory_is_bounded_for_keys_that_nobody_gave() {
        let mut effort = Effort::for_found_keys();
        assert!(effort.spend(1, 1 << 20));
        assert!(!effort.spend(1, (1 << 20) + 1));
        assert!(effort.spend(1, MAX_MEMORY_KIB + 1), "it is refused for what it is");
        assert_eq!(effort.left_out(), 1);
        assert!(Effort::for_given_key().spend(1, MAX_MEMORY_KIB));
    }
}
