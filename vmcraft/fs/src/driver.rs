//! How a driver presents itself.

use std::io;
use std::sync::Arc;

use vmcraft_block::BlockDevice;

use crate::{FileSystem, Result};

/// How a file system is to be opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct OpenOptions {
    /// Ignore a dirty journal instead of replaying it (`noload`, `norecovery`): the tree may then be
    /// inconsistent.
    pub ignore_journal: bool,
}

/// How a driver opens a device.
pub type Open = fn(Arc<dyn BlockDevice>, OpenOptions) -> Result<Box<dyn FileSystem>>;

/// One kind of file system. `probe` reads little and changes nothing.
pub struct Driver {
    /// The names as `blkid` gives them that this driver opens.
    pub names: &'static [&'static str],
    /// Whether the device holds one of these.
    pub probe: fn(&dyn BlockDevice) -> io::Result<bool>,
    /// Opens it. A dirty journal is replayed into memory; the device is not written.
    pub open: Open,
}
