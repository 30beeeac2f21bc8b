//! Logical volumes.

use vmcraft_macros::api;
use vmcraft_volume::lvm::{LogicalVolume, NewVolume, Size, VolumeGroup};

use super::physical_volumes::count;
use super::{plain_group, volume_error};
use crate::value::record;
use crate::{DeviceName, Error, Guest, Result};

/// The size of a stripe unless it is said otherwise, in bytes: LVM's.
const STRIPE_BYTES: u64 = 64 << 10;

record! {
    /// A logical volume, as `lvs-full` gives it. Sizes are in bytes.
    pub struct LvmLv as "lvm_lv" {
        /// Its name in its group.
        pub lv_name: String,
        /// Its UUID without dashes.
        pub lv_uuid: String,
        /// Letters as `lvs` prints them.
        pub lv_attr: String,
        /// The number that its device always has, or -1.
        pub lv_major: i64,
        /// The number that its device always has, or -1.
        pub lv_minor: i64,
        /// The number of its device, or -1 if it is not active.
        pub lv_kernel_major: i64,
        /// The number of its device, or -1 if it is not active.
        pub lv_kernel_minor: i64,
        /// Its size.
        pub lv_size: u64,
        /// How many segments it has.
        pub seg_count: i64,
        /// The volume that it is a snapshot of.
        pub origin: String,
        /// How full a snapshot, a thin volume or a thin pool is, in percent.
        pub snap_percent: Option<f32>,
        /// How much of a mirror or a RAID volume is alike on all disks, in percent, if they say so.
        pub copy_percent: Option<f32>,
        /// The physical volume that its extents are being moved from.
        pub move_pv: String,
        /// Its tags, with commas between them.
        pub lv_tags: String,
        /// The log of a mirror.
        pub mirror_log: String,
        /// The parts of the kernel that it needs.
        pub modules: String,
    }
}

/// The major number of the device mapper's devices, as Debian's kernel gives it.
const DEVICE_MAPPER: i64 = 253;

#[api(area = "lvm")]
impl Guest {
    /// List the logical volumes of LVM
    ///
    /// They are named `/dev/VG/LV`. Pools, and snapshots that are not to be activated, are not among them.
    ///
    /// ```guestfish
    /// lvs
    /// ```
    pub fn lvs(&self) -> Result<Vec<String>> {
        self.launched()?;
        let mut names: Vec<_> = self
            .shown_groups()
            .flat_map(|group| {
                let public = group.public_volumes().filter(|volume| !volume.skips_activation());
                public.map(|volume| format!("/dev/{}/{}", group.name(), volume.name))
            })
            .collect();
        names.sort();
        Ok(names)
    }

    /// List the logical volumes of LVM with all that is known of them
    ///
    /// ```guestfish
    /// lvs-full
    /// ```
    pub fn lvs_full(&self) -> Result<Vec<LvmLv>> {
        self.launched()?;
        let mut minor = 0;
        let mut rows = Vec::new();
        for group in self.shown_groups() {
            for volume in group.visible_volumes() {
                let mut row = LvmLv::of(group, volume);
                let name = format!("/dev/{}/{}", group.name(), volume.name);
                let is_active = group.refusal().is_none()
                    && !self.stack.is_inactive(group.name())
                    && !volume.skips_activation();
                let is_open = is_active
                    && (self.vfs.mounts().iter().any(|mount| mount.device == name)
                        || self.stack.above(&name).next().is_some());
                row.set_state(is_active, is_open);
                if is_active {
                    row.snap_percent = group.snap_percent(volume);
                    row.copy_percent = group.copy_percent(volume);
                    (row.lv_kernel_major, row.lv_kernel_minor) = (DEVICE_MAPPER, minor);
                    minor += 1;
                }
                rows.push(row);
            }
        }
        Ok(rows)
    }

    /// Return the UUID of a logical volume
    ///
    /// ```guestfish
    /// lvuuid /dev/vg/lv
    /// ```
    pub fn lvuuid(&self, device: &DeviceName) -> Result<String> {
        let (group, name) = self.group_and_volume(device)?;
        Ok(group.metadata.logical_volume(&name).map(|volume| volume.uuid.to_string()).unwrap_or_default())
    }

    /// Return the usual name of a logical volume
    ///
    /// `/dev/mapper/VG-LV` becomes `/dev/VG/LV`. It is an error if the device is no logical volume.
    ///
    /// ```guestfish
    /// lvm-canonical-lv-name /dev/mapper/vg-lv
    /// ```
    pub fn lvm_canonical_lv_name(&self, lvname: &DeviceName) -> Result<String> {
        let (group, name) = self.group_and_volume(lvname)?;
        Ok(format!("/dev/{}/{name}", group.name()))
    }

    /// Make a logical volume of a size
    ///
    /// The size is in MiB, and rounded up to whole extents. What was on them is not taken for the volume's
    /// content. `stripes` is over how many physical volumes the
    /// data is striped (1 without it), in pieces of `stripesize` bytes (65536 without it).
    ///
    /// ```guestfish
    /// lvcreate lv vg 512
    /// lvcreate lv vg 512 stripes:2
    /// ```
    pub fn lvcreate(
        &mut self,
        logvol: &str,
        volgroup: &str,
        mbytes: i32,
        stripes: Option<i32>,
        stripesize: Option<i64>,
    ) -> Result<()> {
        self.make_volume(logvol, volgroup, mebibytes(mbytes)?, stripes, stripesize)
    }

    /// Make a logical volume of a part of what is free
    ///
    /// `percent` is from 1 to 100. The options are as for `lvcreate`.
    ///
    /// ```guestfish
    /// lvcreate-free lv vg 100
    /// ```
    pub fn lvcreate_free(
        &mut self,
        logvol: &str,
        volgroup: &str,
        percent: i32,
        stripes: Option<i32>,
        stripesize: Option<i64>,
    ) -> Result<()> {
        self.make_volume(logvol, volgroup, percent_free(percent)?, stripes, stripesize)
    }

    /// Make a logical volume larger or smaller
    ///
    /// The size is in MiB, and rounded up to whole extents. What is on the volume stays as it is: a file
    /// system is made smaller before its volume, and larger after it. One of which something is in use is
    /// not made smaller.
    ///
    /// ```guestfish
    /// lvresize /dev/vg/lv 1024
    /// ```
    pub fn lvresize(&mut self, device: &DeviceName, mbytes: i32) -> Result<()> {
        self.resize_volume(device, mebibytes(mbytes)?)
    }

    /// Make a logical volume larger by a part of what is free
    ///
    /// `percent` is from 1 to 100.
    ///
    /// ```guestfish
    /// lvresize-free /dev/vg/lv 100
    /// ```
    pub fn lvresize_free(&mut self, lv: &DeviceName, percent: i32) -> Result<()> {
        self.resize_volume(lv, percent_free(percent)?)
    }

    /// Remove a logical volume, or all of a volume group
    ///
    /// What it held is lost, and so are its snapshots, the volumes of a pool, and those that read from it as
    /// their external origin. Snapshots of thin volumes stay. With `/dev/VG`, all logical volumes of that group
    /// are removed, and the group stays.
    ///
    /// ```guestfish
    /// lvremove /dev/vg/lv
    /// ```
    pub fn lvremove(&mut self, device: &DeviceName) -> Result<()> {
        let text = device.to_string();
        let group = text.strip_prefix("/dev/").unwrap_or(&text);
        let is_group = self.group_names()?.iter().any(|name| name == group);
        let (group, volumes, removed): (String, Vec<_>, Vec<_>) = if is_group {
            let found = self.volume_group(group)?;
            let mut volumes: Vec<_> = found.visible_volumes().map(|volume| volume.name.clone()).collect();
            // A pool takes its volumes along: they need not be taken out of it first.
            volumes.sort_by_key(|name| found.public_volumes().any(|volume| volume.name == *name));
            (group.to_owned(), volumes.clone(), volumes)
        } else {
            let (group, volume) = self.group_and_volume(device)?;
            // Its snapshots go as well.
            let removed = group.removed_with(&volume).map_err(volume_error)?;
            (group.name().to_owned(), vec![volume], removed)
        };
        for volume in &removed {
            self.refuse_group_in_use(&group, Some(volume))?;
        }
        let devices = self.devices_of_group(&group)?;
        self.change_lvm(&devices, |lvm, author| {
            for volume in &volumes {
                // A snapshot goes with its origin.
                let is_there = lvm.group(&group)?.metadata.logical_volume(volume).is_some();
                if is_there {
                    lvm.remove_volume(&group, volume, author)?;
                }
            }
            Ok(())
        })
    }

    /// Rename a logical volume
    ///
    /// ```guestfish
    /// lvrename /dev/vg/lv /dev/vg/newlv
    /// ```
    pub fn lvrename(&mut self, logvol: &DeviceName, newlogvol: &str) -> Result<()> {
        let (group, volume) = self.group_and_volume(logvol)?;
        let group = group.name().to_owned();
        self.refuse_group_in_use(&group, Some(&volume))?;
        let name = newlogvol.strip_prefix("/dev/").unwrap_or(newlogvol);
        let name = match name.split_once('/') {
            None => name,
            Some((of, name)) if of == group => name,
            Some(_) => {
                return Err(Error::Usage(format!(
                    "{newlogvol}: {logvol} is in volume group {group}, and stays there"
                )));
            }
        };
        let devices = self.devices_of_group(&group)?;
        self.change_lvm(&devices, |lvm, author| lvm.rename_volume(&group, &volume, name, author))
    }
}

impl Guest {
    /// The volume groups whose logical volumes are named: of several with the same name, the first.
    fn shown_groups(&self) -> impl Iterator<Item = &VolumeGroup> {
        let groups = &self.stack.lvm().volume_groups;
        groups.iter().enumerate().filter_map(|(at, group)| {
            (!groups[..at].iter().any(|before| before.name() == group.name())).then_some(group)
        })
    }

    fn make_volume(
        &mut self,
        name: &str,
        group: &str,
        size: Size,
        stripes: Option<i32>,
        stripe_size: Option<i64>,
    ) -> Result<()> {
        let stripes = usize::try_from(stripes.unwrap_or(1))
            .map_err(|_| Error::Usage("stripes: a number from 1".into()))?;
        let stripe_size = match stripe_size {
            Some(bytes) => {
                u64::try_from(bytes).map_err(|_| Error::Usage(format!("stripesize: {bytes} is negative")))?
            }
            None => STRIPE_BYTES,
        };
        let new = NewVolume { name, size, stripes, stripe_size };
        let devices = self.devices_of_group(group)?;
        self.change_lvm(&devices, |lvm, author| lvm.create_volume(plain_group(group), &new, author).map(drop))
    }

    fn resize_volume(&mut self, device: &DeviceName, size: Size) -> Result<()> {
        let (group, volume) = self.group_and_volume(device)?;
        let old = group.metadata.logical_volume(&volume).map_or(0, |volume| volume.size);
        let group = group.name().to_owned();
        if let Size::Bytes(bytes) = size
            && bytes < old
        {
            self.refuse_group_in_use(&group, Some(&volume))?;
        }
        let devices = self.devices_of_group(&group)?;
        let name = format!("/dev/{group}/{volume}");
        if self.refuse_group_in_use(&group, Some(&volume)).is_ok() {
            // It reads the size of its device once.
            self.forget_filesystems(|open| open == name);
        }
        self.change_lvm(&devices, |lvm, author| lvm.resize_volume(&group, &volume, size, author))
    }
}

fn mebibytes(number: i32) -> Result<Size> {
    let number = u64::try_from(number).ok().filter(|number| *number > 0);
    let number = number.ok_or_else(|| Error::Usage("mbytes: the size is at least 1".into()))?;
    Ok(Size::Bytes(number << 20))
}

fn percent_free(percent: i32) -> Result<Size> {
    let percent = u32::try_from(percent).ok().filter(|percent| (1..=100).contains(percent));
    percent.map(Size::PercentFree).ok_or_else(|| Error::Usage("percent: from 1 to 100".into()))
}

impl LvmLv {
    fn of(group: &VolumeGroup, volume: &LogicalVolume) -> Self {
        let report = group.report_volume(volume);
        Self {
            lv_name: report.lv_name,
            lv_uuid: report.lv_uuid.undashed(),
            lv_attr: report.lv_attr,
            lv_major: -1,
            lv_minor: -1,
            lv_kernel_major: -1,
            lv_kernel_minor: -1,
            lv_size: report.lv_size,
            seg_count: count(report.seg_count),
            origin: report.origin,
            snap_percent: None,
            copy_percent: None,
            move_pv: String::new(),
            lv_tags: report.lv_tags.join(","),
            mirror_log: report.mirror_log,
            modules: report.modules.join(","),
        }
    }

    /// Says in the letters whether it is active and in use.
    fn set_state(&mut self, is_active: bool, is_open: bool) {
        let letters = self.lv_attr.chars().enumerate().map(|(at, letter)| match at {
            4 if !is_active => '-',
            5 if is_open => 'o',
            _ => letter,
        });
        self.lv_attr = letters.collect();
    }
}
