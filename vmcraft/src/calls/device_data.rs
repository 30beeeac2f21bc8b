//! Writing what devices hold.

use std::io;

use vmcraft_fs::FreeSpace;
use vmcraft_macros::api;

use crate::change::write_zeros;
use crate::content::{Content, Run};
use crate::{DeviceName, Error, Guest, GuestPath, Progress, Result};

use super::writing::not_negative;

/// How much `zero` clears at the start of a device.
const ZERO_BYTES: u64 = 128 << 10;

#[api(area = "devices")]
impl Guest {
    /// Clear the start of a device
    ///
    /// The first 128 KiB become zeros: enough for a partition table and for what most file systems and
    /// volume managers are known by. `zero-device` clears all of a device.
    ///
    /// ```guestfish
    /// zero /dev/sda1
    /// ```
    pub fn zero(&mut self, device: &DeviceName) -> Result<()> {
        self.zero_start(device, ZERO_BYTES)
    }

    /// Clear a whole device
    ///
    /// All of it reads as zeros afterwards. That takes no space in the image, and hardly any time
    /// whatever the device's size.
    ///
    /// ```guestfish
    /// zero-device /dev/sda1
    /// ```
    pub fn zero_device(&mut self, device: &DeviceName) -> Result<()> {
        self.zero_start(device, u64::MAX)
    }

    /// Give the space of a whole device back to the image
    ///
    /// What the device holds is lost.
    ///
    /// ```guestfish
    /// blkdiscard /dev/sda1
    /// ```
    pub fn blkdiscard(&mut self, device: &DeviceName) -> Result<()> {
        let (name, device) = self.open_device_for_writing(device)?;
        self.atomically(|guest| {
            let discarded = match device.discard() {
                Some(discard) => discard.discard(0, device.size()),
                None => Err(io::ErrorKind::Unsupported.into()),
            };
            guest.device_changed(&name);
            discarded.map_err(|source| Error::Device { device: name.clone(), source })
        })
    }

    /// Say whether a discarded device surely reads as zeros
    ///
    /// It does not: what holds the image may keep the old content.
    ///
    /// ```guestfish
    /// blkdiscardzeroes /dev/sda1
    /// ```
    pub fn blkdiscardzeroes(&self, device: &DeviceName) -> Result<bool> {
        self.find_device(device).map(|_| false)
    }

    /// Say whether a device holds nothing but zeros
    ///
    /// ```guestfish
    /// is-zero-device /dev/sda
    /// ```
    pub fn is_zero_device(&mut self, device: &DeviceName) -> Result<bool> {
        let (name, device) = self.open_device(device)?;
        let content = Content::of_device(name, device);
        let total = content.size_bytes();
        let mut is_zero = true;
        let host = &mut self.host;
        // The error ends the reading, and says nothing.
        let read =
            content.read_runs(0..total, &mut |position| host.step(Progress { position, total }), |run| {
                match run {
                    Run::Data(data) if data.iter().any(|byte| *byte != 0) => {
                        is_zero = false;
                        Err(Error::Cancelled)
                    }
                    _ => Ok(()),
                }
            });
        if is_zero { read.map(|()| true) } else { Ok(false) }
    }

    /// Give free space of a file system back to the image
    ///
    /// `mountpoint` is where it is mounted. Of the free extents, those are given back that have
    /// `minimumfreeextent` bytes at least and lie in the `length` bytes from byte `offset` of the file
    /// system; without these arguments, all. The image shrinks at the next commit, if it is of a format
    /// or on a host's file system that can.
    ///
    /// ```guestfish
    /// fstrim /
    /// ```
    pub fn fstrim(
        &mut self,
        mountpoint: &GuestPath,
        offset: Option<i64>,
        length: Option<i64>,
        minimumfreeextent: Option<i64>,
    ) -> Result<()> {
        let offset = not_negative("offset", offset.unwrap_or(0))?;
        let length = match length {
            Some(length) => not_negative("length", length)?,
            None => u64::MAX - offset,
        };
        let minimum = not_negative("minimumfreeextent", minimumfreeextent.unwrap_or(0))?;
        let node = self.resolve(mountpoint)?;
        let trimmed = node.writer()?.free_space(FreeSpace::Discard, offset, length, minimum);
        trimmed.map(drop).map_err(|source| node.error(source))
    }

    /// Make the free space of a file system read as zeros
    ///
    /// `directory` is anywhere in it. Nothing of deleted files can be read from the image then, and it
    /// compresses better.
    ///
    /// ```guestfish
    /// zero-free-space /
    /// ```
    pub fn zero_free_space(&mut self, directory: &GuestPath) -> Result<()> {
        let node = self.resolve(directory)?;
        if !node.metadata()?.is_dir() {
            return Err(node.error(vmcraft_fs::Error::NotADirectory));
        }
        let zeroed = node.writer()?.free_space(FreeSpace::Zero, 0, u64::MAX, 0);
        zeroed.map(drop).map_err(|source| node.error(source))
    }

    /// Make the free space of a file system read as zeros, by the name of its device
    ///
    /// As `zero-free-space`; the file system need not be mounted.
    ///
    /// ```guestfish
    /// zerofree /dev/sda1
    /// ```
    pub fn zerofree(&mut self, device: &DeviceName) -> Result<()> {
        self.with_writer(device, |writer| writer.free_space(FreeSpace::Zero, 0, u64::MAX, 0).map(drop))
    }
}

impl Guest {
    /// Clears the first `len` bytes of a device, or all it has.
    fn zero_start(&mut self, device: &DeviceName, len: u64) -> Result<()> {
        let (name, device) = self.open_device_for_writing(device)?;
        let len = len.min(device.size());
        self.atomically(|guest| {
            let failed = |source| Error::Device { device: name.clone(), source };
            let zeroed = write_zeros(&*device, 0, len).map_err(failed);
            guest.device_changed(&name);
            zeroed
        })
    }
}
