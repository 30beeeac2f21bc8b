//! Physical volumes: the devices that volume groups are made of.

use std::sync::Arc;

use vmcraft_macros::api;
use vmcraft_volume::lvm::{Backing, LvmUuid, Metadata, PhysicalVolume, PhysicalVolumeEntry};

use super::attributes;
use crate::value::record;
use crate::{DeviceName, Guest, Result};

record! {
    /// A physical volume, as `pvs-full` gives it. Sizes are in bytes.
    pub struct LvmPv as "lvm_pv" {
        /// The device, or `[unknown]` if it is missing.
        pub pv_name: String,
        /// Its UUID without dashes.
        pub pv_uuid: String,
        /// `lvm2`.
        pub pv_fmt: String,
        /// What is usable.
        pub pv_size: u64,
        /// The device.
        pub dev_size: u64,
        /// What no logical volume has.
        pub pv_free: u64,
        /// What logical volumes have.
        pub pv_used: u64,
        /// Letters as `pvs` prints them.
        pub pv_attr: String,
        /// How many extents it has.
        pub pv_pe_count: i64,
        /// How many of them are used.
        pub pv_pe_alloc_count: i64,
        /// Its tags, with commas between them.
        pub pv_tags: String,
        /// Where the first extent is.
        pub pe_start: u64,
        /// How many metadata areas it has.
        pub pv_mda_count: i64,
        /// What is left in the fullest of them.
        pub pv_mda_free: u64,
    }
}

#[api(area = "lvm")]
impl Guest {
    /// List the devices that are physical volumes of LVM
    ///
    /// ```guestfish
    /// pvs
    /// ```
    pub fn pvs(&self) -> Result<Vec<String>> {
        self.launched()?;
        let volumes = self.stack.lvm().physical_volumes.iter();
        let mut names: Vec<_> = volumes.map(|volume| volume.member.name.clone()).collect();
        names.sort();
        Ok(names)
    }

    /// List the physical volumes of LVM with all that is known of them
    ///
    /// Those that a volume group lacks are among them, as `[unknown]`.
    ///
    /// ```guestfish
    /// pvs-full
    /// ```
    pub fn pvs_full(&self) -> Result<Vec<LvmPv>> {
        self.launched()?;
        let lvm = self.stack.lvm();
        let mut rows = Vec::new();
        for group in &lvm.volume_groups {
            let entries = group.metadata.physical_volumes.iter().zip(&group.backing);
            rows.extend(entries.map(|(entry, backing)| of_group(&group.metadata, entry, backing)));
        }
        let free = lvm.physical_volumes.iter().filter(|volume| self.group_of(volume.group).is_none());
        rows.extend(free.map(|volume| of_none(volume)));
        Ok(rows)
    }

    /// Return the UUID of a physical volume
    ///
    /// ```guestfish
    /// pvuuid /dev/sda1
    /// ```
    pub fn pvuuid(&self, device: &DeviceName) -> Result<String> {
        Ok(self.physical_volume(device)?.label.uuid.to_string())
    }
}

/// A physical volume of a group.
fn of_group(metadata: &Metadata, entry: &PhysicalVolumeEntry, backing: &Backing) -> LvmPv {
    let present: Option<&Arc<PhysicalVolume>> = match backing {
        Backing::Present(volume) => Some(volume),
        Backing::Missing | Backing::Duplicate(_) => None,
    };
    let extents = |count: u64| count.saturating_mul(metadata.extent_size);
    let used = attributes::allocated(metadata, &entry.id).min(entry.pe_count);
    let mut row = LvmPv {
        pv_name: "[unknown]".into(),
        pv_uuid: LvmUuid::undashed(&entry.uuid),
        pv_fmt: "lvm2".into(),
        pv_size: extents(entry.pe_count),
        dev_size: 0,
        pv_free: extents(entry.pe_count - used),
        pv_used: extents(used),
        pv_attr: attributes::of_physical_volume(metadata, entry, present.is_some()),
        pv_pe_count: count(entry.pe_count),
        pv_pe_alloc_count: count(used),
        pv_tags: entry.tags.join(","),
        pe_start: entry.pe_start,
        pv_mda_count: 0,
        pv_mda_free: 0,
    };
    if let Some(volume) = present {
        row.pv_name.clone_from(&volume.member.name);
        row.dev_size = volume.member.device.size();
        row.pv_mda_count = count(volume.metadata_areas().0 as u64);
        row.pv_mda_free = volume.metadata_free_bytes();
    }
    row
}

/// A physical volume that no group has.
fn of_none(volume: &PhysicalVolume) -> LvmPv {
    let size = volume.member.device.size();
    LvmPv {
        pv_name: volume.member.name.clone(),
        pv_uuid: volume.label.uuid.undashed(),
        pv_fmt: "lvm2".into(),
        pv_size: volume.label.device_size,
        dev_size: size,
        pv_free: volume.label.device_size,
        pv_used: 0,
        pv_attr: "---".into(),
        pv_pe_count: 0,
        pv_pe_alloc_count: 0,
        pv_tags: String::new(),
        pe_start: volume.label.data.first().map_or(0, |range| range.offset),
        pv_mda_count: count(volume.metadata_areas().0 as u64),
        pv_mda_free: volume.metadata_free_bytes(),
    }
}

/// As libguestfs's numbers are.
pub(super) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
