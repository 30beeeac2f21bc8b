//! Logical volumes.

use vmcraft_macros::api;
use vmcraft_volume::lvm::{LogicalVolume, SegmentKind, VolumeGroup};

use super::attributes;
use super::physical_volumes::count;
use crate::value::record;
use crate::{DeviceName, Guest, Result};

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
        /// How full a snapshot is, in percent.
        pub snap_percent: Option<f32>,
        /// How much of a mirror is alike, in percent.
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
                let public = group.visible_volumes().filter(|volume| attributes::is_public(volume));
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
                let name = format!("/dev/{}/{}", group.name(), volume.name);
                let is_active = self.stack.find(&name).is_some_and(|volume| volume.disk.is_ok());
                let is_open = is_active
                    && (self.vfs.mounts().iter().any(|mount| mount.device == name)
                        || self.stack.above(&name).next().is_some());
                let mut row = row(group, volume, attributes::State { is_active, is_open });
                if is_active {
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
}

impl Guest {
    /// The volume groups whose logical volumes are named: of several with the same name, the first.
    fn shown_groups(&self) -> impl Iterator<Item = &VolumeGroup> {
        let groups = &self.stack.lvm().volume_groups;
        groups.iter().enumerate().filter_map(|(at, group)| {
            (!groups[..at].iter().any(|before| before.name() == group.name())).then_some(group)
        })
    }
}

fn row(group: &VolumeGroup, volume: &LogicalVolume, state: attributes::State) -> LvmLv {
    let kinds = || volume.segments.iter().map(|segment| &segment.kind);
    let origin = attributes::snapshot_of(&group.metadata, &volume.name).map(str::to_owned);
    let thin_origin = kinds().find_map(|kind| match kind {
        SegmentKind::Thin { origin, external_origin, .. } => {
            origin.clone().or_else(|| external_origin.clone())
        }
        SegmentKind::Cache { origin, .. } => Some(format!("[{origin}]")),
        _ => None,
    });
    let log = kinds().find_map(|kind| match kind {
        SegmentKind::Mirror { log, .. } => log.clone(),
        _ => None,
    });
    let is_copied = kinds().any(|kind| match kind {
        SegmentKind::Mirror { .. } => true,
        SegmentKind::Raid { region_size, .. } => *region_size > 0,
        _ => false,
    });
    LvmLv {
        lv_name: volume.name.clone(),
        lv_uuid: volume.uuid.undashed(),
        lv_attr: attributes::of_logical_volume(group, volume, state),
        lv_major: -1,
        lv_minor: -1,
        lv_kernel_major: -1,
        lv_kernel_minor: -1,
        lv_size: volume.size,
        seg_count: count(volume.segments.len() as u64),
        origin: origin.or(thin_origin).unwrap_or_default(),
        snap_percent: None,
        copy_percent: (is_copied && state.is_active).then_some(100.0),
        move_pv: String::new(),
        lv_tags: volume.tags.join(","),
        mirror_log: log.map(|log| format!("[{log}]")).unwrap_or_default(),
        modules: attributes::modules(&group.metadata, volume).join(","),
    }
}
