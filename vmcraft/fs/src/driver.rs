//! How a driver presents itself.

use std::io;
use std::sync::Arc;

use vmcraft_block::BlockDevice;

use crate::{FileSystem, Maintain, Result, Sources};

/// How a file system is to be opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Refuse all writing: [`FileSystem::writer`] then says so. A device that refuses writes has the
    /// same effect.
    pub read_only: bool,
    /// Ignore a dirty journal instead of replaying it (`noload`, `norecovery`): the tree may then be
    /// inconsistent.
    pub ignore_journal: bool,
    /// Where the time and random numbers come from.
    pub sources: Sources,
}

/// How a driver opens a device.
pub type Open = fn(Arc<dyn BlockDevice>, OpenOptions) -> Result<Box<dyn FileSystem>>;

/// One kind of file system. `probe` reads little and changes nothing.
pub struct Driver {
    /// The names as `blkid` gives them that this driver opens.
    pub names: &'static [&'static str],
    /// Whether the device holds one of these.
    pub probe: fn(&dyn BlockDevice) -> io::Result<bool>,
    /// Opens it. A dirty journal is replayed into memory; the device is not written until the file
    /// system is changed.
    pub open: Open,
    /// Makes, checks and resizes it, where the driver can.
    pub maintain: Option<&'static dyn Maintain>,
}
