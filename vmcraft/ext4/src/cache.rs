//! A bounded cache for several threads.

use std::collections::HashMap;
use std::mem;
use std::sync::{Mutex, MutexGuard};

use crate::in_memory;

/// Locks are per shard, so that readers of different keys rarely meet.
const SHARDS: usize = 8;

/// Keeps recently used values by number.
///
/// Each shard has two generations. What is used goes into the young one; when that is full it
/// becomes the old one, and the old one is dropped. So at most twice `capacity` values are held, and
/// one that was used among the last `capacity` is never lost.
pub(crate) struct Cache<V> {
    shards: [Mutex<Shard<V>>; SHARDS],
    /// Values in one generation of one shard.
    capacity: usize,
}

struct Shard<V> {
    young: HashMap<u64, V>,
    old: HashMap<u64, V>,
}

impl<V: Clone> Cache<V> {
    /// A cache of up to `2 * capacity` values.
    pub(crate) fn new(capacity: usize) -> Self {
        let shard = |_| Mutex::new(Shard { young: HashMap::new(), old: HashMap::new() });
        Self { shards: std::array::from_fn(shard), capacity: (capacity / SHARDS).max(1) }
    }

    /// The value of `key`, if it is still here.
    pub(crate) fn get(&self, key: u64) -> Option<V> {
        let mut shard = self.shard(key);
        if let Some(value) = shard.young.get(&key) {
            return Some(value.clone());
        }
        let value = shard.old.remove(&key)?;
        shard.insert(key, value.clone(), self.capacity);
        Some(value)
    }

    /// Keeps `value`, and returns what is kept: the value that another thread put there meanwhile,
    /// or this one.
    pub(crate) fn insert(&self, key: u64, value: V) -> V {
        let mut shard = self.shard(key);
        if let Some(present) = shard.young.get(&key) {
            return present.clone();
        }
        shard.insert(key, value.clone(), self.capacity);
        value
    }

    /// Keeps `value` in the place of what was there.
    pub(crate) fn replace(&self, key: u64, value: V) {
        let mut shard = self.shard(key);
        shard.old.remove(&key);
        shard.insert(key, value, self.capacity);
    }

    /// Forgets the value of `key`.
    pub(crate) fn remove(&self, key: u64) {
        let mut shard = self.shard(key);
        shard.young.remove(&key);
        shard.old.remove(&key);
    }

    /// Forgets all values whose keys are not to be kept.
    pub(crate) fn retain(&self, keep: impl Fn(u64) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(|e| e.into_inner());
            shard.young.retain(|&key, _| keep(key));
            shard.old.retain(|&key, _| keep(key));
        }
    }

    fn shard(&self, key: u64) -> MutexGuard<'_, Shard<V>> {
        let shard = &self.shards[in_memory(key % SHARDS as u64)];
        // A shard is consistent between any two statements, so a panic elsewhere spoils nothing.
        shard.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl<V> Shard<V> {
    fn insert(&mut self, key: u64, value: V, capacity: usize) {
        if self.young.len() >= capacity {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_recent_values_stay() {
        let cache = Cache::new(16);
        for key in 0..1000 {
            cache.insert(key, key);
            if key > 0 {
                assert_eq!(cache.get(0), if key < 8 { Some(0) } else { cache.get(0) });
            }
        }
        let held = (0..1000).filter(|&k| cache.get(k).is_some()).count();
        assert!(held <= 32, "{held}");
        assert_eq!(cache.get(999), Some(999));
        assert_eq!(cache.insert(999, 7), 999, "the first of two threads wins");
    }
}
