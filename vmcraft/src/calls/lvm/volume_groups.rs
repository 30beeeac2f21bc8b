//! Volume groups as a whole.

use std::collections::BTreeSet;
use std::sync::Arc;

use bstr::BString;
use vmcraft_macros::api;
use vmcraft_volume::lvm::{Backing, PhysicalVolume, SegmentKind, VolumeGroup};

use super::attributes;
use super::physical_volumes::count;
use crate::value::record;
use crate::{Guest, Result};

record! {
    /// A volume group, as `vgs-full` gives it. Sizes are in bytes.
    pub struct LvmVg as "lvm_vg" {
        /// Its name.
        pub vg_name: String,
        /// Its UUID without dashes.
        pub vg_uuid: String,
        /// `lvm2`.
        pub vg_fmt: String,
        /// Letters as `vgs` prints them.
        pub vg_attr: String,
        /// What its physical volumes have.
        pub vg_size: u64,
        /// What no logical volume has.
        pub vg_free: u64,
        /// The system that it belongs to.
        pub vg_sysid: String,
        /// The size of an extent.
        pub vg_extent_size: u64,
        /// How many extents it has.
        pub vg_extent_count: i64,
        /// How many of them are free.
        pub vg_free_count: i64,
        /// The most logical volumes that it may have; 0 is no limit.
        pub max_lv: i64,
        /// The most physical volumes that it may have; 0 is no limit.
        pub max_pv: i64,
        /// How many physical volumes it has, missing ones too.
        pub pv_count: i64,
        /// How many logical volumes it has that users see.
        pub lv_count: i64,
        /// How many of them are snapshots.
        pub snap_count: i64,
        /// How often its metadata was changed.
        pub vg_seqno: i64,
        /// Its tags, with commas between them.
        pub vg_tags: String,
        /// How many metadata areas it has.
        pub vg_mda_count: i64,
        /// What is left in the fullest of them.
        pub vg_mda_free: u64,
    }
}

#[api(area = "lvm")]
impl Guest {
    /// List the volume groups of LVM
    ///
    /// ```guestfish
    /// vgs
    /// ```
    pub fn vgs(&self) -> Result<Vec<String>> {
        self.group_names()
    }

    /// List the volume groups of LVM with all that is known of them
    ///
    /// ```guestfish
    /// vgs-full
    /// ```
    pub fn vgs_full(&self) -> Result<Vec<LvmVg>> {
        self.launched()?;
        let mut groups: Vec<_> = self.stack.lvm().volume_groups.iter().collect();
        groups.sort_by(|a, b| a.name().cmp(b.name()));
        Ok(groups.into_iter().map(row).collect())
    }

    /// Return the UUID of a volume group
    ///
    /// ```guestfish
    /// vguuid vg
    /// ```
    pub fn vguuid(&self, vgname: &str) -> Result<String> {
        Ok(self.volume_group(vgname)?.metadata.uuid.to_string())
    }

    /// List the UUIDs of the physical volumes of a volume group
    ///
    /// Those that are missing are among them.
    ///
    /// ```guestfish
    /// vgpvuuids vg
    /// ```
    pub fn vgpvuuids(&self, vgname: &str) -> Result<Vec<String>> {
        let volumes = self.volume_group(vgname)?.metadata.physical_volumes.iter();
        Ok(volumes.map(|volume| volume.uuid.to_string()).collect())
    }

    /// List the UUIDs of the logical volumes of a volume group
    ///
    /// ```guestfish
    /// vglvuuids vg
    /// ```
    pub fn vglvuuids(&self, vgname: &str) -> Result<Vec<String>> {
        Ok(self.volume_group(vgname)?.visible_volumes().map(|volume| volume.uuid.to_string()).collect())
    }

    /// Return the metadata of a volume group as text
    ///
    /// It is what stands on the physical volumes, for people to read: `vgcfgbackup` writes the same.
    ///
    /// ```guestfish
    /// vgmeta vg
    /// ```
    pub fn vgmeta(&self, vgname: &str) -> Result<BString> {
        Ok(self.volume_group(vgname)?.text().into())
    }
}

fn row(group: &VolumeGroup) -> LvmVg {
    let metadata = &group.metadata;
    let extents: u64 = metadata.physical_volumes.iter().map(|volume| volume.pe_count).sum();
    let used = metadata.physical_volumes.iter().map(|volume| attributes::allocated(metadata, &volume.id));
    let free = extents.saturating_sub(used.sum());
    let present: Vec<&Arc<PhysicalVolume>> = group
        .backing
        .iter()
        .filter_map(|backing| match backing {
            Backing::Present(volume) => Some(volume),
            Backing::Missing | Backing::Duplicate(_) => None,
        })
        .collect();
    let snapshots: BTreeSet<_> = metadata
        .logical_volumes
        .iter()
        .flat_map(|volume| &volume.segments)
        .filter_map(|segment| match &segment.kind {
            SegmentKind::Snapshot { cow, .. } => Some(cow),
            _ => None,
        })
        .collect();
    LvmVg {
        vg_name: group.name().to_owned(),
        vg_uuid: metadata.uuid.undashed(),
        vg_fmt: "lvm2".into(),
        vg_attr: attributes::of_group(group),
        vg_size: extents.saturating_mul(metadata.extent_size),
        vg_free: free.saturating_mul(metadata.extent_size),
        vg_sysid: metadata.system_id.clone().unwrap_or_default(),
        vg_extent_size: metadata.extent_size,
        vg_extent_count: count(extents),
        vg_free_count: count(free),
        max_lv: count(metadata.max_lv),
        max_pv: count(metadata.max_pv),
        pv_count: count(metadata.physical_volumes.len() as u64),
        lv_count: count(group.visible_volumes().count() as u64),
        snap_count: count(snapshots.len() as u64),
        vg_seqno: count(metadata.seqno),
        vg_tags: metadata.tags.join(","),
        vg_mda_count: present.iter().map(|volume| count(volume.metadata_areas().0 as u64)).sum(),
        vg_mda_free: present.iter().map(|volume| volume.metadata_free_bytes()).min().unwrap_or_default(),
    }
}
