//! Thin pools: the targets `thin-pool` and `thin`.
//!
//! A pool shares one data device among its volumes, block by block, as they are written. Snapshots
//! are volumes that begin with the same blocks; a shared block is copied before it is changed.
//! Everything is in the pool's metadata: B-trees of which block is where, and space maps of which
//! are in use. All volumes of a pool share one [`Pool`].
//!
//! Spec: Linux `Documentation/admin-guide/device-mapper/thin-provisioning.rst`,
//! `drivers/md/dm-thin-metadata.c` and `drivers/md/persistent-data/`.

mod pool;
mod superblock;
mod volume;

pub use pool::{Discards, Options, Pool, VolumeDetails};
