//! One set of inode numbers for the inodes of several file systems.
//!
//! A number has the mount's index in its upper bits and the inode's number in the lower ones. So
//! those of the root's file system are the guest's own, and no table is needed to go back. The root
//! must be 1 for FUSE. Inodes that do not fit get numbers from a table.

use std::collections::HashMap;
use std::sync::RwLock;

use vmcraft_fs::InodeNumber;

/// How many bits the inode's own number has.
const INODE_BITS: u32 = 48;

/// Set in numbers from the table.
const FROM_TABLE: u64 = 1 << 63;

/// The number that FUSE has for the root.
pub(crate) const ROOT: u64 = 1;

/// An inode of one of the mounted file systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// The index of the mount.
    pub(crate) mount: usize,
    /// The inode there.
    pub(crate) inode: InodeNumber,
}

/// The numbers by which the kernel knows the inodes.
pub(crate) struct Numbers {
    root: Place,
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    places: Vec<Place>,
    indices: HashMap<Place, u64>,
}

impl Numbers {
    pub(crate) fn new(root: Place) -> Self {
        Self { root, table: RwLock::default() }
    }

    /// The kernel's number of an inode.
    pub(crate) fn of(&self, place: Place) -> u64 {
        if place == self.root {
            return ROOT;
        }
        let mount = u64::try_from(place.mount).unwrap_or(u64::MAX);
        let number = place.inode.0;
        if mount < 1 << (63 - INODE_BITS) && number >> INODE_BITS == 0 {
            let number = mount << INODE_BITS | number;
            if number > ROOT {
                return number;
            }
        }
        if let Some(index) = self.table.read().unwrap_or_else(|e| e.into_inner()).indices.get(&place) {
            return FROM_TABLE | index;
        }
        let table = &mut *self.table.write().unwrap_or_else(|e| e.into_inner());
        let index = *table.indices.entry(place).or_insert_with(|| {
            table.places.push(place);
            table.places.len() as u64 - 1
        });
        FROM_TABLE | index
    }

    /// The inode with this number. `None` if the kernel was never told of it.
    pub(crate) fn place(&self, number: u64) -> Option<Place> {
        if number == ROOT {
            return Some(self.root);
        }
        if number & FROM_TABLE != 0 {
            let index = usize::try_from(number & !FROM_TABLE).ok()?;
            return self.table.read().unwrap_or_else(|e| e.into_inner()).places.get(index).copied();
        }
        let mount = usize::try_from(number >> INODE_BITS).ok()?;
        Some(Place { mount, inode: InodeNumber(number & ((1 << INODE_BITS) - 1)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // Two inodes with one number would be one file to the kernel's caches.
    fn numbers_are_unique_and_lead_back() {
        let root = Place { mount: 0, inode: InodeNumber(2) };
        let numbers = Numbers::new(root);
        let mut met = HashMap::new();
        for mount in [0, 1, 2, (1 << 15) - 1, 1 << 15, usize::MAX] {
            for inode in [0, 1, 2, 3, (1 << 48) - 1, 1 << 48, (1 << 48) + 1, u64::MAX] {
                let place = Place { mount, inode: InodeNumber(inode) };
                let number = numbers.of(place);
                assert_eq!(numbers.of(place), number);
                assert_eq!(numbers.place(number), Some(place), "{number:#x}");
                assert_eq!(met.insert(number, place), None, "{number:#x} stands for two inodes");
            }
        }
        assert_eq!(numbers.of(root), ROOT);
        assert_eq!(numbers.of(Place { mount: 0, inode: InodeNumber(12) }), 12, "the guest's own number");
        assert!(!met.contains_key(&0), "0 means that there is no such file");
        assert_eq!(numbers.place(FROM_TABLE | 1_000_000), None);
    }
}
