//! LVM2: physical volumes, volume groups, logical volumes.
//!
//! [`scan`] reads the labels and metadata of the devices that it is given, and says what it found: nothing that is
//! wrong with one of them hides the others. [`VolumeGroup::open`] makes a device of a logical volume. The methods of
//! [`Lvm`] that change something check all of it before they write, and then read again what they wrote.
//!
//! The format is described in `docs/formats/lvm2.md`.

mod activate;
mod area;
mod edit;
mod group;
mod label;
mod relations;
mod report;
mod scan;
mod segment;
mod text;
mod uuid;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use vmcraft_block::BlockDevice;

pub use edit::{Author, NewVolume, Size};
pub use group::{LogicalVolume, Metadata, PhysicalVolumeEntry};
pub use label::{Label, Range};
pub use report::{LvReport, PvReport, VgReport};
pub use scan::scan;
pub use segment::{Area, AreaOn, CacheVolume, RaidImage, Segment, SegmentKind};
pub use uuid::LvmUuid;

use crate::dm::thin::Pool;
use crate::{Error, Member, Result};

/// What [`scan`] found.
#[derive(Debug, Default)]
pub struct Lvm {
    /// The physical volumes, in the order of the devices.
    pub physical_volumes: Vec<Arc<PhysicalVolume>>,
    /// The volume groups, in the order of their first physical volume.
    pub volume_groups: Vec<VolumeGroup>,
    /// What the user should know, such as a damaged copy of metadata. Each names the device or the group.
    pub warnings: Vec<String>,
    /// All devices that were looked at.
    members: Vec<Member>,
}

/// A device with the label of a physical volume.
#[derive(Debug)]
pub struct PhysicalVolume {
    /// The device.
    pub member: Member,
    /// Its label.
    pub label: Label,
    /// Its metadata areas whose header is whole.
    areas: Vec<area::AreaHeader>,
    /// The group that it belongs to, if its metadata is here.
    pub group: Option<LvmUuid>,
}

impl PhysicalVolume {
    /// How many metadata areas it has, and how many of them are used.
    pub fn metadata_areas(&self) -> (usize, usize) {
        let used = self.areas.iter().filter(|area| !area.is_ignored).count();
        (self.label.metadata.len(), used)
    }
}

/// A volume group.
pub struct VolumeGroup {
    /// What its newest metadata says.
    pub metadata: Metadata,
    /// What stands behind each of `metadata.physical_volumes`, in the same order.
    pub backing: Vec<Backing>,
    /// The metadata as it was read.
    tree: text::Section,
    text: Vec<u8>,
    open: Mutex<activate::Shared>,
}

/// What stands behind a physical volume of a group.
#[derive(Debug, Clone)]
pub enum Backing {
    /// A device.
    Present(Arc<PhysicalVolume>),
    /// No device, or one that the group has marked as missing.
    Missing,
    /// Several devices with the same identifier, by their names: none of them is used.
    Duplicate(Vec<String>),
}

/// A snapshot that has become invalid, as its store had no room left for what changed in its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostSnapshot {
    group: LvmUuid,
    group_name: String,
    name: String,
    origin: String,
}

impl std::fmt::Display for LostSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { group_name: group, name, origin, .. } = self;
        write!(
            f,
            "/dev/{group}/{name}: this snapshot is invalid now, and its content is lost: it had no room left for what \
             changed in its origin, /dev/{group}/{origin}"
        )
    }
}

impl std::fmt::Debug for VolumeGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("VolumeGroup");
        out.field("metadata", &self.metadata).field("backing", &self.backing).finish_non_exhaustive()
    }
}

impl Lvm {
    /// The group with this name or identifier.
    ///
    /// # Errors
    /// `Refused` if there is none, or there are several of this name: then the message has their identifiers.
    pub fn group(&self, name_or_uuid: &str) -> Result<&VolumeGroup> {
        let by_uuid =
            |vg: &&VolumeGroup| name_or_uuid.parse::<LvmUuid>().is_ok_and(|uuid| uuid == vg.metadata.uuid);
        if let Some(vg) = self.volume_groups.iter().find(by_uuid) {
            return Ok(vg);
        }
        let named: Vec<&VolumeGroup> =
            self.volume_groups.iter().filter(|vg| vg.metadata.name == name_or_uuid).collect();
        match named.as_slice() {
            [vg] => Ok(vg),
            [] => Err(Error::Refused(format!("there is no volume group {name_or_uuid}"))),
            several => {
                let uuids: Vec<String> = several.iter().map(|vg| vg.metadata.uuid.to_string()).collect();
                Err(Error::Refused(format!(
                    "there are {} volume groups {name_or_uuid}: name one by its identifier, {}",
                    uuids.len(),
                    uuids.join(" or ")
                )))
            }
        }
    }
}

impl Lvm {
    /// Whether a snapshot is still lost, and not there again since its disks went back to an earlier state.
    pub fn is_lost(&self, snapshot: &LostSnapshot) -> bool {
        let group = self.volume_groups.iter().find(|group| group.metadata.uuid == snapshot.group);
        group.is_some_and(|group| {
            let mut shared = group.open.lock().unwrap_or_else(PoisonError::into_inner);
            activate::is_lost(group, &mut shared, &snapshot.name)
        })
    }
}

impl VolumeGroup {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// The text of the metadata, as `vgmeta` returns it.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The logical volumes that users see.
    pub fn visible_volumes(&self) -> impl Iterator<Item = &LogicalVolume> {
        self.metadata.logical_volumes.iter().filter(|lv| lv.is_visible())
    }

    /// The visible volumes that hold what users put there: no pools. These are what `lvs` of libguestfs lists.
    pub fn public_volumes(&self) -> impl Iterator<Item = &LogicalVolume> {
        let is_pool = |segment: &Segment| {
            let kind = &segment.kind;
            matches!(
                kind,
                SegmentKind::ThinPool { .. } | SegmentKind::CachePool { .. } | SegmentKind::VdoPool { .. }
            )
        };
        self.visible_volumes().filter(move |lv| !lv.segments.iter().any(is_pool))
    }

    /// The physical volumes that are not there, by their identifiers.
    pub fn missing(&self) -> Vec<LvmUuid> {
        let entries = self.metadata.physical_volumes.iter().zip(&self.backing);
        entries
            .filter(|(_, backing)| !matches!(backing, Backing::Present(_)))
            .map(|(pv, _)| pv.uuid)
            .collect()
    }

    /// Why no logical volume of the group can be opened, if that is so.
    pub fn refusal(&self) -> Option<String> {
        self.metadata
            .has_status("EXPORTED")
            .then(|| format!("volume group {} is exported: vgimport it first", self.name()))
    }

    /// Why nothing of the group may be written here, if that is so: other hosts may be using it.
    pub fn shared_with_others(&self) -> Option<String> {
        let name = self.name();
        if let Some(kind) = &self.metadata.lock_type {
            return Some(format!(
                "volume group {name} is shared by hosts (lock type {kind}): it is not written here"
            ));
        }
        let is_clustered = self.metadata.has_status("CLUSTERED");
        is_clustered.then(|| format!("volume group {name} is clustered: it is not written here"))
    }

    /// The logical volume with this name as a device. Whatever opens it again, or another one that shares a thin
    /// pool or an origin with it, shares the instance, so that all see each other's writes.
    ///
    /// # Errors
    /// `Incomplete` if it needs a physical volume that is missing, `Unsupported` for what it is made of, `Corrupt`
    /// where its metadata contradicts itself. All name the volume.
    pub fn open(&self, name: &str) -> Result<Arc<dyn BlockDevice>> {
        let mut shared = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        activate::open(self, &mut shared, name)
    }

    /// What the volumes that are open do without, by their names: RAID volumes and mirrors of which something is missing,
    /// has failed or is out of date. Among them are hidden ones, which others are made of.
    pub fn degraded(&self) -> BTreeMap<String, String> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).degraded().clone()
    }

    /// Takes the snapshots that writes to their origins have made invalid since the last time.
    pub fn take_lost_snapshots(&self) -> Vec<LostSnapshot> {
        let lost = activate::take_lost_snapshots(&self.open.lock().unwrap_or_else(PoisonError::into_inner));
        let group = &self.metadata;
        let named =
            |(name, origin)| LostSnapshot { group: group.uuid, group_name: group.name.clone(), name, origin };
        lost.into_iter().map(named).collect()
    }

    /// The thin pool with this name, which is shared with the volumes of it that are open.
    fn thin_pool(&self, name: &str) -> Result<Arc<Pool>> {
        let mut shared = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        activate::open_pool(self, &mut shared, name)
    }
}

/// The name of a logical volume below `/dev/mapper`.
pub fn mapper_name(group: &str, volume: &str) -> String {
    format!("{}-{}", group.replace('-', "--"), volume.replace('-', "--"))
}
