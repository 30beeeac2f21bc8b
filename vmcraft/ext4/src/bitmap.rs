//! Bitmaps of blocks and inodes: bit 0 is the lowest of the first byte, and a bit that is set is in use.

use std::ops::Range;

/// The 64 bits from `index`, a multiple of 64; those behind the end are 0.
fn word(bits: &[u8], index: u32) -> u64 {
    let at = index as usize / 8;
    match bits.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            for (to, from) in bytes.iter_mut().zip(bits.get(at..).unwrap_or_default()) {
                *to = *from;
            }
            u64::from_le_bytes(bytes)
        }
    }
}

/// The first bit in `range` that is set, if `set`, or clear; `range.end` if there is none.
fn next(bits: &[u8], range: Range<u32>, set: bool) -> u32 {
    let mut index = range.start;
    while index < range.end {
        let base = index & !63;
        let found = if set { word(bits, base) } else { !word(bits, base) } & (!0 << (index - base));
        if found != 0 {
            return (base + found.trailing_zeros()).min(range.end);
        }
        index = base.saturating_add(64);
    }
    range.end
}

/// The first bit in `range` that is clear; `range.end` if there is none.
pub(crate) fn next_clear(bits: &[u8], range: Range<u32>) -> u32 {
    next(bits, range, false)
}

/// The first bit in `range` that is set; `range.end` if there is none.
pub(crate) fn next_set(bits: &[u8], range: Range<u32>) -> u32 {
    next(bits, range, true)
}

/// The runs of clear bits in `range`.
pub(crate) fn clear_runs(bits: &[u8], range: Range<u32>) -> impl Iterator<Item = Range<u32>> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let start = next_clear(bits, at..range.end);
        at = next_set(bits, start..range.end);
        (start < at).then_some(start..at)
    })
}

/// How many of the first `len` bits are clear.
pub(crate) fn count_clear(bits: &[u8], len: u32) -> u32 {
    let whole = len & !63;
    let mut clear: u32 = (0..whole).step_by(64).map(|index| word(bits, index).count_zeros()).sum();
    if whole < len {
        clear += (!word(bits, whole) & !(!0 << (len - whole))).count_ones();
    }
    clear
}

/// Sets, or clears, the bits in `range`, which are all in `bits`.
pub(crate) fn fill(bits: &mut [u8], range: Range<u32>, set: bool) {
    let mut index = range.start;
    while index < range.end {
        let within = index % 8;
        let count = (8 - within).min(range.end - index);
        let at = index as usize / 8;
        if count == 8 {
            let end = range.end as usize / 8;
            bits[at..end].fill(if set { 0xff } else { 0 });
            index = range.end & !7;
        } else {
            let mask = ((1u32 << count) - 1) << within;
            // `within + count` is at most 8.
            let mask = (mask & 0xff) as u8;
            if set {
                bits[at] |= mask
            } else {
                bits[at] &= !mask
            }
            index += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test] // Each function against the bits one by one.
        fn as_bit_by_bit(
            mut bits in prop::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 1..40),
            a in 0..320u32,
            b in 0..320u32,
            set: bool,
        ) {
            let len = u32::try_from(bits.len() * 8).unwrap();
            let range = a.min(b).min(len)..a.max(b).min(len);
            let is_set = |bits: &[u8], i: u32| bits[i as usize / 8] >> (i % 8) & 1 == 1;
            let find = |set: bool| range.clone().find(|&i| is_set(&bits, i) == set).unwrap_or(range.end);
            prop_assert_eq!(next_set(&bits, range.clone()), find(true));
            prop_assert_eq!(next_clear(&bits, range.clone()), find(false));
            let clear = (0..range.end).filter(|&i| !is_set(&bits, i)).count();
            prop_assert_eq!(count_clear(&bits, range.end) as usize, clear);
            let in_runs: Vec<u32> = clear_runs(&bits, range.clone()).flatten().collect();
            prop_assert_eq!(in_runs, range.clone().filter(|&i| !is_set(&bits, i)).collect::<Vec<_>>());
            let before = bits.clone();
            fill(&mut bits, range.clone(), set);
            for i in 0..len {
                let expected = if range.contains(&i) { set } else { is_set(&before, i) };
                prop_assert_eq!(is_set(&bits, i), expected);
            }
        }
    }
}
