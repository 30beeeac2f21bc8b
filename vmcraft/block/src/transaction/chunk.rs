//! What was written, in pieces of 64 KiB: which bytes of a piece are new, and where they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::spill::Slot;

/// The disk is divided into chunks of this many bytes.
pub(super) const CHUNK: u64 = 64 << 10;

/// [`CHUNK`] as a length in memory.
pub(super) const CHUNK_LEN: usize = 64 << 10;

/// What is new is known by pieces of this many bytes: 128 in a chunk, one bit each.
pub(super) const GRANULE: u64 = 512;

/// [`GRANULE`] as a length in memory.
pub(super) const GRANULE_LEN: usize = 512;

/// How many bytes all buffers of a transaction have.
#[derive(Debug, Default)]
pub(super) struct Gauge(AtomicUsize);

impl Gauge {
    /// The bytes now.
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The bytes of a chunk in memory.
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    /// Whether it was used since it was last considered for spilling.
    used: AtomicBool,
    gauge: Arc<Gauge>,
}

impl Buffer {
    /// Takes the [`CHUNK`] bytes of a chunk.
    pub(super) fn new(bytes: Box<[u8]>, gauge: &Arc<Gauge>) -> Self {
        gauge.0.fetch_add(bytes.len(), Ordering::Relaxed);
        Self { bytes, used: AtomicBool::new(true), gauge: gauge.clone() }
    }

    /// The bytes, of which some may never have been written.
    pub(super) fn bytes(&self) -> &[u8] {
        self.used.store(true, Ordering::Relaxed);
        &self.bytes
    }

    /// The bytes to be changed.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        *self.used.get_mut() = true;
        &mut self.bytes
    }

    /// Whether it was used since this was asked last.
    pub(super) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// The bytes, without this counting as a use.
    pub(super) fn peek(&self) -> &[u8] {
        &self.bytes
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        Self::new(self.bytes.clone(), &self.gauge)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.gauge.0.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// Where the bytes of a chunk are.
#[derive(Clone)]
pub(super) enum Body {
    /// In memory. A savepoint may share it.
    Memory(Arc<Buffer>),
    /// In the spill file, where they do not change any more.
    Spilled(Arc<Slot>),
}

/// A chunk of which something is new.
#[derive(Clone)]
pub(super) struct Chunk {
    /// Bit n says that granule n is new; never 0 in a layer.
    pub(super) present: u128,
    pub(super) body: Body,
}

/// The granules from `first` up to `end` (exclusive), both 128 at most.
pub(super) fn mask(first: u32, end: u32) -> u128 {
    let below = |n: u32| if n >= 128 { u128::MAX } else { (1 << n) - 1 };
    below(end) & !below(first)
}

/// How many granules from `first` on are in `present`.
pub(super) fn run_of_present(present: u128, first: u32) -> u32 {
    present.checked_shr(first).map_or(0, u128::trailing_ones)
}

/// The runs of granules in `present`: where each begins and ends (exclusive).
pub(super) fn runs(present: u128) -> impl Iterator<Item = (u32, u32)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let first = next_present(present, from)?;
        from = first + run_of_present(present, first);
        Some((first, from))
    })
}

/// The first granule in `present` at or after `from`.
pub(super) fn next_present(present: u128, from: u32) -> Option<u32> {
    let rest = present.checked_shr(from).filter(|rest| *rest != 0)?;
    Some(from + rest.trailing_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_those_of_the_bits() {
        assert_eq!(runs(0).count(), 0);
        assert_eq!(runs(u128::MAX).collect::<Vec<_>>(), [(0, 128)]);
        let present = mask(0, 1) | mask(5, 9) | mask(127, 128);
        assert_eq!(runs(present).collect::<Vec<_>>(), [(0, 1), (5, 9), (127, 128)]);
        assert_eq!(next_present(present, 128), None);
        assert_eq!(mask(3, 3), 0);
    }
}
