//! Disks and other block devices: their names and sizes.

use bstr::{BString, ByteSlice};
use vmcraft_block::BlockDevice;
use vmcraft_macros::api;
use vmcraft_volume::partition::Partition;

use crate::device::{self, Disk, disk_name};
use crate::stack::{Kind, Volume};
use crate::{DeviceName, Error, Guest, Mountable, Result};

#[api(area = "devices")]
impl Guest {
    /// List the disks
    ///
    /// ```guestfish
    /// list-devices
    /// ```
    pub fn list_devices(&self) -> Result<Vec<String>> {
        Ok((0..self.launched()?.len()).map(disk_name).collect())
    }

    /// Say how many disks there are
    ///
    /// ```guestfish
    /// nr-devices
    /// ```
    pub fn nr_devices(&self) -> Result<i32> {
        Ok(i32::try_from(self.launched()?.len()).unwrap_or(i32::MAX))
    }

    /// List the partitions of all disks
    ///
    /// Extended partitions of an MBR are among them, and after those of the disks the partitions of
    /// arrays and other volumes, such as `/dev/md127p1`.
    ///
    /// ```guestfish
    /// list-partitions
    /// ```
    pub fn list_partitions(&self) -> Result<Vec<String>> {
        Ok(self.partitions()?.into_iter().map(|(name, _)| name).collect())
    }

    /// List the labels that drives were added with
    ///
    /// The result is a table from the labels to the disks, and from the labels with a number after
    /// them to the partitions.
    ///
    /// ```guestfish
    /// list-disk-labels
    /// ```
    pub fn list_disk_labels(&self) -> Result<Vec<(BString, BString)>> {
        let mut rows = Vec::new();
        for (index, disk) in self.launched()?.iter().enumerate() {
            let Some(label) = &disk.label else { continue };
            let name = disk_name(index);
            rows.push((label.as_str().into(), name.as_str().into()));
            for Partition { number, .. } in disk.partitions() {
                rows.push((format!("{label}{number}").into(), format!("{name}{number}").into()));
            }
        }
        Ok(rows)
    }

    /// Return which disk this is, from 0
    ///
    /// ```guestfish
    /// device-index /dev/sda
    /// ```
    pub fn device_index(&self, device: &DeviceName) -> Result<i32> {
        let found = self.find_device(device)?;
        match (found.index, found.partition) {
            (Some(index), None) => Ok(i32::try_from(index).unwrap_or(i32::MAX)),
            _ => Err(Error::Usage(format!("{}: not a whole disk", found.name))),
        }
    }

    /// Return the name of the disk with this index
    ///
    /// `index` counts from 0. It is the opposite of `device-index`.
    ///
    /// ```guestfish
    /// device-name 0
    /// ```
    pub fn device_name(&self, index: i32) -> Result<String> {
        let disks = self.launched()?.len();
        match usize::try_from(index) {
            Ok(index) if index < disks => Ok(disk_name(index)),
            _ => Err(Error::Usage(format!("there is no disk {index}: the handle has {disks}, from 0"))),
        }
    }

    /// Return the usual name of a device
    ///
    /// `/dev/vdX`, `/dev/hdX` and `/dev/xvdX`, also with a partition's number, become `/dev/sdX`, and
    /// `/dev/mapper/VG-LV` becomes `/dev/VG/LV`. Other names are returned as they are. The device need not
    /// exist.
    ///
    /// ```guestfish
    /// canonical-device-name /dev/vda1
    /// ```
    pub fn canonical_device_name(&self, device: &DeviceName) -> Result<BString> {
        let parsed = device.as_bstr().to_str().ok().and_then(device::parse_disk_name);
        Ok(match parsed {
            Some((index, None)) => disk_name(index).into(),
            Some((index, Some(number))) => format!("{}{number}", disk_name(index)).into(),
            None => match self.find_logical_volume(device) {
                Some(volume) => volume.name.as_str().into(),
                None => device.as_bstr().to_owned(),
            },
        })
    }

    /// Say whether a device is a whole disk
    ///
    /// Partitions are none, and neither are volumes.
    ///
    /// ```guestfish
    /// is-whole-device /dev/sda
    /// ```
    pub fn is_whole_device(&self, device: &DeviceName) -> Result<bool> {
        let found = self.find_device(device)?;
        Ok(found.index.is_some() && found.partition.is_none())
    }

    /// Say whether a device is a logical volume
    ///
    /// ```guestfish
    /// is-lv /dev/vg/lv
    /// ```
    pub fn is_lv(&self, mountable: &Mountable) -> Result<bool> {
        let (device, _) = self.split_mountable(mountable)?;
        Ok(self.find_logical_volume(DeviceName::new(&device)).is_some_and(|volume| volume.name == device))
    }

    /// Return the disk that a partition is on
    ///
    /// ```guestfish
    /// part-to-dev /dev/sda1
    /// ```
    pub fn part_to_dev(&self, partition: &DeviceName) -> Result<String> {
        Ok(self.split_partition(partition)?.0)
    }

    /// Return the number of a partition
    ///
    /// ```guestfish
    /// part-to-partnum /dev/sda1
    /// ```
    pub fn part_to_partnum(&self, partition: &DeviceName) -> Result<i32> {
        Ok(i32::try_from(self.split_partition(partition)?.1).unwrap_or(i32::MAX))
    }

    /// Return the device of what can be mounted
    ///
    /// That is the device itself, or the one that a Btrfs subvolume is on.
    ///
    /// ```guestfish
    /// mountable-device btrfsvol:/dev/sda1/home
    /// ```
    pub fn mountable_device(&self, mountable: &Mountable) -> Result<String> {
        Ok(self.split_mountable(mountable)?.0)
    }

    /// Return the subvolume of what can be mounted
    ///
    /// It is an error if `mountable` is not of the form `btrfsvol:DEVICE/SUBVOLUME`.
    ///
    /// ```guestfish
    /// mountable-subvolume btrfsvol:/dev/sda1/home
    /// ```
    pub fn mountable_subvolume(&self, mountable: &Mountable) -> Result<BString> {
        self.split_mountable(mountable)?
            .1
            .ok_or_else(|| Error::Usage(format!("{mountable}: not a Btrfs subvolume")))
    }

    /// Return a device's size in bytes
    ///
    /// ```guestfish
    /// blockdev-getsize64 /dev/sda
    /// ```
    pub fn blockdev_getsize64(&self, device: &DeviceName) -> Result<i64> {
        let (_, device) = self.open_device(device)?;
        Ok(i64::try_from(device.size()).unwrap_or(i64::MAX))
    }

    /// Return a device's size in units of 512 bytes
    ///
    /// ```guestfish
    /// blockdev-getsz /dev/sda
    /// ```
    pub fn blockdev_getsz(&self, device: &DeviceName) -> Result<i64> {
        Ok(self.blockdev_getsize64(device)? / 512)
    }

    /// Return the size of a device's sectors in bytes
    ///
    /// ```guestfish
    /// blockdev-getss /dev/sda
    /// ```
    pub fn blockdev_getss(&self, device: &DeviceName) -> Result<i32> {
        let (_, device) = self.open_device(device)?;
        Ok(i32::try_from(device.logical_sector_size()).unwrap_or(i32::MAX))
    }

    /// Return the block size that a kernel would give a device
    ///
    /// It is the largest power of 2 that the device's size is a multiple of, from a sector to 4096
    /// bytes. File systems have their own.
    ///
    /// ```guestfish
    /// blockdev-getbsz /dev/sda
    /// ```
    pub fn blockdev_getbsz(&self, device: &DeviceName) -> Result<i32> {
        let (_, device) = self.open_device(device)?;
        let mut block = u64::from(device.logical_sector_size().max(1));
        while block < 4096 && device.size() % (block * 2) == 0 {
            block *= 2;
        }
        Ok(i32::try_from(block).unwrap_or(i32::MAX))
    }

    /// Say whether a device cannot be written
    ///
    /// That is so if `blockdev-setro` was called, or if the image may not be written. To a disk of a
    /// drive that was added with `readonly` can be written: it is thrown away in the end.
    ///
    /// ```guestfish
    /// blockdev-getro /dev/sda
    /// ```
    pub fn blockdev_getro(&self, device: &DeviceName) -> Result<bool> {
        let (_, device) = self.open_device(device)?;
        Ok(device.is_read_only())
    }

    /// Refuse changes of a device
    ///
    /// It, and if it is a disk all of its partitions, cannot be written until `blockdev-setrw`. Nothing
    /// on it may be mounted.
    ///
    /// ```guestfish
    /// blockdev-setro /dev/sda
    /// ```
    pub fn blockdev_setro(&mut self, device: &DeviceName) -> Result<()> {
        let name = self.unused_device(device)?;
        self.write_protected.insert(name);
        Ok(())
    }

    /// Allow changes of a device
    ///
    /// It takes back `blockdev-setro`.
    ///
    /// ```guestfish
    /// blockdev-setrw /dev/sda
    /// ```
    pub fn blockdev_setrw(&mut self, device: &DeviceName) -> Result<()> {
        let name = self.unused_device(device)?;
        self.write_protected.remove(&name);
        Ok(())
    }

    /// Read the partition table again
    ///
    /// There is no need for this: calls that write to a disk do it.
    ///
    /// ```guestfish
    /// blockdev-rereadpt /dev/sda
    /// ```
    pub fn blockdev_rereadpt(&mut self, device: &DeviceName) -> Result<()> {
        let found = self.find_device(device)?;
        if found.partition.is_some() {
            return Err(Error::Usage(format!("{}: a partition has no partition table", found.name)));
        }
        let name = self.unused_device(device)?;
        self.device_changed(&name);
        Ok(())
    }

    /// Write what is in memory of a device
    ///
    /// There is no need for this: all calls see what others wrote. `sync` writes to the images.
    ///
    /// ```guestfish
    /// blockdev-flushbufs /dev/sda
    /// ```
    pub fn blockdev_flushbufs(&self, device: &DeviceName) -> Result<()> {
        self.find_device(device).map(drop)
    }

    /// Read a part of a device
    ///
    /// The result is `count` bytes from byte `offset`, or fewer where the device ends.
    ///
    /// ```guestfish
    /// pread-device /dev/sda 2 510
    /// ```
    pub fn pread_device(&self, device: &DeviceName, count: i32, offset: i64) -> Result<Vec<u8>> {
        let (name, device) = self.open_device(device)?;
        let (Ok(count), Ok(offset)) = (u64::try_from(count), u64::try_from(offset)) else {
            return Err(Error::Usage(format!("{name}: count and offset cannot be negative")));
        };
        let len = count.min(device.size().saturating_sub(offset));
        let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
        device.read_at(offset, &mut bytes).map_err(|source| Error::Device { device: name, source })?;
        Ok(bytes)
    }
}

impl Guest {
    /// All partitions with their canonical names: those of disks, of arrays, and of other volumes.
    pub(super) fn partitions(&self) -> Result<Vec<(String, &Partition)>> {
        let mut partitions = Vec::new();
        for (index, disk) in self.launched()?.iter().enumerate() {
            if self.stack.shows_partitions(index) {
                let name = disk_name(index);
                partitions.extend(disk.partitions().iter().map(|p| (format!("{name}{}", p.number), p)));
            }
        }
        for kind in [Kind::Array, Kind::LogicalVolume, Kind::Decrypted, Kind::DynamicVolume] {
            for volume in self.sorted_volumes(kind) {
                let of_volume = volume.disk.iter().flat_map(Disk::partitions);
                partitions.extend(of_volume.map(|p| (volume.partition_name(p.number), p)));
            }
        }
        Ok(partitions)
    }

    /// The logical volume with this name, whichever of its names that is and whether or not it can be
    /// opened.
    pub(super) fn find_logical_volume(&self, name: &DeviceName) -> Option<&Volume> {
        let volume = self.stack.find(name.as_bstr().to_str().ok()?)?;
        (volume.kind == Kind::LogicalVolume).then_some(volume)
    }

    /// The canonical name of a device of which nothing is mounted, and none of its file systems open any
    /// more.
    fn unused_device(&mut self, device: &DeviceName) -> Result<String> {
        let name = self.find_device(device)?.name;
        self.refuse_mounted(&name)?;
        self.forget_filesystems(|open| self.stack.overlap(open, &name));
        Ok(name)
    }

    /// The name of a partition's disk or volume, and its number.
    fn split_partition(&self, partition: &DeviceName) -> Result<(String, u32)> {
        let found = self.find_device(partition)?;
        match found.partition {
            Some(partition) => Ok((found.whole, partition.number)),
            None => Err(Error::Usage(format!("{}: not a partition", found.name))),
        }
    }

    /// The canonical name of a mountable's device, and its subvolume if it names one.
    pub(crate) fn split_mountable(&self, mountable: &Mountable) -> Result<(String, Option<BString>)> {
        let Some(rest) = mountable.as_bstr().strip_prefix(b"btrfsvol:") else {
            return Ok((self.find_device(DeviceName::new(mountable))?.name, None));
        };
        // The device's name has slashes too, so the first prefix that names one is it.
        for at in rest.find_iter(b"/").filter(|at| *at > 0) {
            if let Ok(found) = self.find_device(DeviceName::new(&rest[..at])) {
                return Ok((found.name, Some(rest[at + 1..].into())));
            }
        }
        self.launched()?;
        Err(Error::NoSuchDevice(mountable.to_string()))
    }
}
