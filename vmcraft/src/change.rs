//! Changing a guest: what all calls that write have in common.

use std::sync::Arc;

use vmcraft_block::BlockDevice;
use vmcraft_fs::Sources;
use vmcraft_volume::partition::PartitionTable;

use crate::device;
use crate::{DeviceName, Error, Guest, Result};

impl Guest {
    /// Makes a change of several steps all or nothing: if it fails, the disks are as they were before
    /// it. Inside another such change it is a part of that.
    pub(crate) fn atomically<T>(&mut self, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        change(self)
    }

    /// The device with this name, to be written as a whole. Refused while it, a partition of it, or the
    /// disk that it is a partition of is mounted. Its canonical name comes with it.
    ///
    /// What was written is announced with [`Guest::device_changed`].
    pub(crate) fn open_device_for_writing(
        &self,
        name: &DeviceName,
    ) -> Result<(String, Arc<dyn BlockDevice>)> {
        let (name, device) = self.open_device(name)?;
        if let Some(mount) = self.vfs.mounts().iter().find(|mount| device::overlap(&mount.device, &name)) {
            return Err(Error::Usage(format!(
                "{name}: busy: {} is mounted on {}; unmount it first",
                mount.device, mount.mountpoint
            )));
        }
        if device.is_read_only() {
            return Err(Error::Device {
                device: name,
                source: std::io::ErrorKind::ReadOnlyFilesystem.into(),
            });
        }
        Ok((name, device))
    }

    /// Forgets what was known of a device that was written as a whole: the file systems that were open
    /// on it, and if it is a disk its partitions.
    pub(crate) fn device_changed(&mut self, name: &str) {
        self.forget_filesystems(|open| device::overlap(open, name));
        for (index, disk) in self.disks.iter_mut().flatten().enumerate() {
            if device::disk_name(index) == name {
                disk.table = PartitionTable::read(&disk.device);
            }
        }
        self.inspection = None;
    }

    /// Where file systems take the time and random numbers from.
    pub(crate) fn sources(&self) -> Sources {
        let clock = self.host.clock.clone();
        let host = Sources::default();
        host.clone().with_clock(move || clock.get().unwrap_or_else(|| host.now()))
    }
}
