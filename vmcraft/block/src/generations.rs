//! A bounded map that forgets what was not asked for lately.

use std::collections::HashMap;
use std::hash::Hash;

/// Keeps at most twice `capacity` entries: those of the current generation, and those of the one
/// before it. An entry that is asked for moves to the current one; when that is full, the older one
/// goes. Every operation takes constant time, which an exact LRU does not without more bookkeeping.
pub(crate) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    capacity: usize,
}

impl<K: Eq + Hash + Copy, V: Clone> Generations<K, V> {
    /// At least one entry is kept whatever the capacity.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), capacity: capacity.max(1) }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        self.insert(*key, value.clone());
        Some(value)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.capacity {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.young.contains_key(key) || self.old.contains_key(key)
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// Keeps only the entries whose key is wanted.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&K) -> bool) {
        self.young.retain(|key, _| wanted(key));
        self.old.retain(|key, _| wanted(key));
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // What is asked for again and again stays, however much passes by.
    fn keeps_what_is_in_use_and_stays_bounded() {
        let mut cache = Generations::new(4);
        cache.insert(0, 'a');
        for key in 1..100 {
            cache.insert(key, 'b');
            assert_eq!(cache.get(&0), Some('a'));
            assert!(cache.len() <= 8);
        }
        assert_eq!(cache.get(&1), None);
        cache.remove(&0);
        assert!(!cache.contains(&0));
        cache.retain(|key| *key == 99);
        assert_eq!((cache.len(), cache.get(&99)), (1, Some('b')));
    }
}
