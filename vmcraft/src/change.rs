//! Changing a guest: what all calls that write have in common.

mod attributes;
mod copy;
mod directory;
mod open;
mod remove;
mod rename;
mod target;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bstr::BString;
use vmcraft_block::image::{self, Gate, OpenOptions};
use vmcraft_block::{BlockDevice, Transaction, TransactionOptions};
use vmcraft_fs::Sources;
use vmcraft_volume::Member;
use vmcraft_volume::partition::PartitionTable;

pub(crate) use self::attributes::{change_owner, change_permissions, drop_capabilities, xattr};
pub(crate) use self::copy::{Attributes, CopyOptions, copy, copy_attributes};
pub(crate) use self::directory::{Directory, New, NewFile, child_error};
pub(crate) use self::open::{Opening, open};
pub(crate) use self::remove::{check_not_mounted, remove, remove_tree};
pub(crate) use self::rename::{move_to, rename};
pub(crate) use self::target::{Target, write_zeros};
use crate::device;
use crate::drive::Content;
use crate::vfs::Mount;
use crate::{DeviceName, Error, Guest, Result};

/// Puts back what images held before a session, from the undo file that it kept: everything, or if
/// that fails nothing. Gives the images.
///
/// Refused if an image has changed since, wherever the session changed it. `gate` decides which files
/// an image may name as its backing or data file, and `state_directory` is as for
/// [`Guest::set_state_directory`].
pub fn undo(file: &Path, gate: Arc<Gate>, state_directory: Option<PathBuf>) -> Result<Vec<String>> {
    let options = TransactionOptions { state_directory, ..TransactionOptions::default() };
    let mut open = |name: &str, format: &str| {
        let options = OpenOptions {
            format: format.parse().ok(),
            read_only: false,
            gate: gate.clone(),
            ..OpenOptions::default()
        };
        Ok(image::open(name, &options)?.device)
    };
    Ok(vmcraft_block::undo(file, options, &mut open)?)
}

/// An image whose disk was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedImage {
    /// Its path or URI.
    pub name: String,
    /// Whether a commit writes to it: not if the drive is read-only.
    pub is_committed: bool,
}

impl Guest {
    /// Makes a change of several steps all or nothing: if it fails, the disks are as they were before
    /// it. Inside another such change it is a part of that.
    pub(crate) fn atomically<T>(&mut self, change: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.changes > 0 || self.transaction.is_none() {
            return change(self);
        }
        self.sync_filesystems()?;
        if let Some(transaction) = &self.transaction {
            transaction.savepoint();
        }
        self.changes += 1;
        let done = change(self);
        self.changes -= 1;
        match (&self.transaction, done.is_ok()) {
            (Some(transaction), true) => transaction.release_savepoint(),
            (Some(transaction), false) => {
                transaction.rollback_to_savepoint();
                self.reload();
            }
            (None, _) => {}
        }
        done
    }

    /// Writes what was changed to the images: all of it, or on failure nothing.
    ///
    /// Read-only drives and scratch drives keep what was written to them until the handle is closed.
    pub fn commit(&mut self) -> Result<()> {
        self.launched()?;
        self.sync_filesystems()?;
        match &self.transaction {
            Some(transaction) => {
                transaction.commit().map_err(|source| Error::Device { device: "commit".to_owned(), source })
            }
            None => Ok(()),
        }
    }

    /// Throws away what was changed since the last commit. File systems stay mounted.
    pub(crate) fn roll_back(&mut self) -> Result<()> {
        self.launched()?;
        if let Some(transaction) = &self.transaction {
            transaction.rollback().map_err(Error::Commit)?;
        }
        self.reload();
        Ok(())
    }

    /// Whether there are changes that a commit would write to the images.
    pub fn is_changed(&self) -> Result<bool> {
        self.sync_filesystems()?;
        Ok(self.transaction.as_ref().is_some_and(Transaction::is_changed))
    }

    /// Whether a commit failed while it wrote to the images, which may hold a part of it until another
    /// commit, or opening them again, finishes it.
    pub fn is_commit_cut_off(&self) -> bool {
        self.transaction.as_ref().is_some_and(Transaction::is_cut_off)
    }

    /// The images whose disks were changed since the last commit.
    pub fn changed_images(&self) -> Result<Vec<ChangedImage>> {
        self.sync_filesystems()?;
        let Some(transaction) = &self.transaction else { return Ok(Vec::new()) };
        let images =
            self.drives.iter().enumerate().filter(|(index, drive)| {
                drive.content == Content::Image && transaction.is_disk_changed(*index)
            });
        let changed = images
            .map(|(_, drive)| ChangedImage { name: drive.shown(), is_committed: !drive.options.read_only });
        Ok(changed.collect())
    }

    /// Has all file systems write what they have in memory to their devices.
    pub(crate) fn sync_filesystems(&self) -> Result<()> {
        for (device, filesystem) in self.opened_filesystems() {
            if let Ok(writer) = filesystem.writer() {
                writer.sync().map_err(|source| Error::FileSystem { device, source })?;
            }
        }
        Ok(())
    }

    /// Reads again what is known of the disks, after they went back to an earlier state. A file system
    /// that is not there any more is unmounted.
    fn reload(&mut self) {
        for disk in self.disks.iter_mut().flatten() {
            disk.table = PartitionTable::read(&disk.device);
        }
        self.rescan();
        self.lost_snapshots.retain(|lost| self.stack.lvm().is_lost(lost));
        self.inspection = None;
        for (device, filesystem) in self.opened_filesystems() {
            let Ok(writer) = filesystem.writer() else {
                // Under a mounted one nothing has changed: its device is not written as a whole.
                if !self.vfs.mounts().iter().any(|mount| Arc::ptr_eq(&mount.filesystem, &filesystem)) {
                    self.forget_filesystems(|open| open == device);
                }
                continue;
            };
            if let Err(e) = writer.reload() {
                let gone = |mount: &Mount| Arc::ptr_eq(&mount.filesystem, &filesystem);
                while self.vfs.unmount(&device, true, gone).is_ok() {}
                self.forget_filesystems(|open| open == device);
                self.warnings.push(format!(
                    "{device}: what was mounted from it is not there any more, and was unmounted: {e}"
                ));
            }
        }
    }

    /// The device with this name, to be written as a whole. Refused while it, something on it, or what it
    /// lies on is mounted. Its canonical name comes with it.
    ///
    /// What was written is announced with [`Guest::device_changed`].
    pub(crate) fn open_device_for_writing(
        &self,
        name: &DeviceName,
    ) -> Result<(String, Arc<dyn BlockDevice>)> {
        let (name, device) = self.open_device(name)?;
        self.refuse_mounted(&name)?;
        self.refuse_write_protected(&name)?;
        Ok((name, device))
    }

    /// Refuses to change a device whose image cannot be written, or that was marked as read-only.
    pub(crate) fn refuse_write_protected(&self, name: &str) -> Result<()> {
        if let Some(reason) = self.vfs.refusal(name) {
            return Err(Error::ReadOnlyDisk { what: name.to_owned(), reason: reason.to_string() });
        }
        if self.open_device(DeviceName::new(name))?.1.is_read_only() {
            return Err(Error::Device {
                device: name.to_owned(),
                source: std::io::ErrorKind::ReadOnlyFilesystem.into(),
            });
        }
        Ok(())
    }

    /// A device that nothing stands on, to be made a member of a volume.
    pub(crate) fn unused_member(&self, device: &DeviceName) -> Result<Member> {
        let (name, device) = self.open_device_for_writing(device)?;
        self.refuse_in_use(&name)?;
        Ok(Member { name, device })
    }

    /// Several of them.
    pub(crate) fn unused_members(&self, devices: &[BString]) -> Result<Vec<Member>> {
        devices.iter().map(|device| self.unused_member(DeviceName::new(device))).collect()
    }

    /// Refuses what would take a device away from the volumes that stand on it.
    pub(crate) fn refuse_in_use(&self, name: &str) -> Result<()> {
        let volumes = self.stack.volumes().iter().filter(|volume| volume.disk.is_ok());
        for volume in volumes {
            if self.stack.all_below(&volume.name).contains(name) {
                return Err(Error::Usage(format!(
                    "{name}: busy: {} stands on it; close or remove that first",
                    volume.name
                )));
            }
        }
        Ok(())
    }

    /// Refuses what must not be done to a device while it, something on it, or what it lies on is mounted.
    pub(crate) fn refuse_mounted(&self, name: &str) -> Result<()> {
        match self.vfs.mounts().iter().find(|mount| self.stack.overlap(&mount.device, name)) {
            None => Ok(()),
            Some(mount) => Err(Error::Usage(format!(
                "{name}: busy: {} is mounted on {}; unmount it first",
                mount.device, mount.mountpoint
            ))),
        }
    }

    /// Forgets what was known of a device that was written as a whole: the file systems that were open
    /// on it, if it is a disk its partitions, and the volumes above it.
    pub(crate) fn device_changed(&mut self, name: &str) {
        let stack = std::mem::take(&mut self.stack);
        self.forget_filesystems(|open| stack.overlap(open, name));
        self.stack = stack;
        for (index, disk) in self.disks.iter_mut().flatten().enumerate() {
            if device::disk_name(index) == name {
                disk.table = PartitionTable::read(&disk.device);
            }
        }
        self.rescan();
        self.inspection = None;
    }

    /// Where file systems take the time and random numbers from.
    pub(crate) fn sources(&self) -> Sources {
        let clock = self.host.clock.clone();
        let host = Sources::default();
        host.clone().with_clock(move || clock.get().unwrap_or_else(|| host.now()))
    }
}
