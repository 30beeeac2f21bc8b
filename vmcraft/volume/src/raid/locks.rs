//! Locks on stripes, so that what belongs together is written together.

use std::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Stripes share this many locks.
const LOCKS: usize = 64;

/// A lock for each stripe, or rather for each of a number of groups of stripes.
pub(super) struct StripeLocks(Vec<RwLock<()>>);

impl StripeLocks {
    pub(super) fn new() -> Self {
        Self((0..LOCKS).map(|_| RwLock::new(())).collect())
    }

    fn of(&self, stripe: u64) -> &RwLock<()> {
        #[allow(clippy::cast_possible_truncation)] // less than LOCKS
        &self.0[(stripe % LOCKS as u64) as usize]
    }

    /// For what needs several blocks of a stripe to fit each other.
    pub(super) fn read(&self, stripe: u64) -> RwLockReadGuard<'_, ()> {
        // The locks guard the devices' content, which a panic elsewhere does not make worse.
        self.of(stripe).read().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn write(&self, stripe: u64) -> RwLockWriteGuard<'_, ()> {
        self.of(stripe).write().unwrap_or_else(|e| e.into_inner())
    }

    /// All of them, for what goes over many stripes. Nobody else holds one while waiting for another.
    pub(super) fn write_all(&self) -> Vec<RwLockWriteGuard<'_, ()>> {
        self.0.iter().map(|lock| lock.write().unwrap_or_else(|e| e.into_inner())).collect()
    }
}
