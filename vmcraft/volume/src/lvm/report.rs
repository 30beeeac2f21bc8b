//! What `pvs`, `vgs` and `lvs` report. Fields have the names that `lvm fullreport` gives them; sizes are in bytes.

use std::sync::PoisonError;

use super::label::SECTOR;
use super::{
    Backing, LogicalVolume, Lvm, LvmUuid, Metadata, PhysicalVolume, SegmentKind, VolumeGroup, activate,
};

/// What LVM calls a device that is not there.
const UNKNOWN_DEVICE: &str = "[unknown]";

/// A row of `pvs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PvReport {
    /// The device; `[unknown]` for one that is missing.
    pub pv_name: String,
    /// Its identifier.
    pub pv_uuid: LvmUuid,
    /// Always `lvm2`.
    pub pv_fmt: &'static str,
    /// The space for extents; that of the device, where it is in no group.
    pub pv_size: u64,
    /// The size of the device.
    pub dev_size: u64,
    /// The space that no volume has.
    pub pv_free: u64,
    /// The space that volumes have.
    pub pv_used: u64,
    /// Three characters: allocatable, exported, missing.
    pub pv_attr: String,
    /// How many extents there are.
    pub pv_pe_count: u64,
    /// How many of them volumes have.
    pub pv_pe_alloc_count: u64,
    /// Its tags.
    pub pv_tags: Vec<String>,
    /// Where the first extent begins.
    pub pe_start: u64,
    /// How many metadata areas it has.
    pub pv_mda_count: u64,
    /// The space left in the smallest of them.
    pub pv_mda_free: u64,
    /// The name of its group.
    pub vg_name: Option<String>,
}

/// A row of `vgs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VgReport {
    /// Its name.
    pub vg_name: String,
    /// Its identifier.
    pub vg_uuid: LvmUuid,
    /// Always `lvm2`.
    pub vg_fmt: &'static str,
    /// Six characters: permission, resizeable, exported, partial, allocation, clustered or shared.
    pub vg_attr: String,
    /// The space for extents.
    pub vg_size: u64,
    /// The space that no volume has.
    pub vg_free: u64,
    /// The host that it belongs to.
    pub vg_sysid: String,
    /// The size of an extent.
    pub vg_extent_size: u64,
    /// How many extents there are.
    pub vg_extent_count: u64,
    /// How many of them no volume has.
    pub vg_free_count: u64,
    /// The most logical volumes; 0 for no limit.
    pub max_lv: u64,
    /// The most physical volumes; 0 for no limit.
    pub max_pv: u64,
    /// How many physical volumes there are, also missing ones.
    pub pv_count: u64,
    /// How many logical volumes users see.
    pub lv_count: u64,
    /// How many of them are snapshots of the old kind.
    pub snap_count: u64,
    /// How often the metadata was written.
    pub vg_seqno: u64,
    /// Its tags.
    pub vg_tags: Vec<String>,
    /// How many metadata areas there are.
    pub vg_mda_count: u64,
    /// The space left in the smallest of them.
    pub vg_mda_free: u64,
}

/// A row of `lvs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LvReport {
    /// The name of its group.
    pub vg_name: String,
    /// Its name.
    pub lv_name: String,
    /// Its identifier.
    pub lv_uuid: LvmUuid,
    /// Ten characters, as `lvs` shows them of a volume that is active and not open.
    pub lv_attr: String,
    /// Its size.
    pub lv_size: u64,
    /// How many segments it has.
    pub seg_count: u64,
    /// What it is a snapshot of.
    pub origin: String,
    /// The thin pool or cache pool that it is in.
    pub pool_lv: String,
    /// The volume with its mirror log.
    pub mirror_log: String,
    /// Its tags.
    pub lv_tags: Vec<String>,
    /// The kernel's modules that it needs.
    pub modules: Vec<&'static str>,
}

impl Lvm {
    /// The rows of `pvs`: those that are there in the order of their devices, then those that are missing.
    pub fn report_physical_volumes(&self) -> Vec<PvReport> {
        let present = self.physical_volumes.iter().map(|pv| self.report_pv(pv));
        let missing = self.volume_groups.iter().flat_map(|vg| {
            let entries = vg.metadata.physical_volumes.iter().zip(&vg.backing);
            let missing = entries.filter(|(entry, backing)| {
                matches!(backing, Backing::Missing)
                    && self.physical_volumes.iter().all(|pv| pv.label.uuid != entry.uuid)
            });
            missing.map(|(entry, _)| vg.report_entry(&entry.id, None))
        });
        present.chain(missing.flatten()).collect()
    }

    fn report_pv(&self, pv: &PhysicalVolume) -> PvReport {
        let vg = self.volume_groups.iter().find(|vg| Some(vg.metadata.uuid) == pv.group);
        let entry = vg.and_then(|vg| {
            let entry = vg.metadata.physical_volumes.iter().find(|entry| entry.uuid == pv.label.uuid)?;
            vg.report_entry(&entry.id, Some(pv))
        });
        let size = pv.member.device.size();
        entry.unwrap_or_else(|| PvReport {
            pv_name: pv.member.name.clone(),
            pv_uuid: pv.label.uuid,
            pv_fmt: "lvm2",
            pv_size: pv.label.device_size,
            dev_size: size,
            pv_free: pv.label.device_size,
            pv_used: 0,
            pv_attr: if pv.label.is_used { "u--" } else { "---" }.into(),
            pv_pe_count: 0,
            pv_pe_alloc_count: 0,
            pv_tags: Vec::new(),
            pe_start: pv.label.data.first().map_or(0, |data| data.offset),
            pv_mda_count: pv.label.metadata.len() as u64,
            pv_mda_free: free_metadata_bytes(pv),
            vg_name: None,
        })
    }

    /// The rows of `vgs`.
    pub fn report_volume_groups(&self) -> Vec<VgReport> {
        self.volume_groups.iter().map(VolumeGroup::report).collect()
    }

    /// The rows of `lvs`: the volumes that users see.
    pub fn report_logical_volumes(&self) -> Vec<LvReport> {
        let rows = |vg: &VolumeGroup| -> Vec<LvReport> {
            vg.visible_volumes().map(|lv| vg.report_volume(lv)).collect()
        };
        self.volume_groups.iter().flat_map(rows).collect()
    }
}

/// The space left for metadata on a physical volume.
fn free_metadata_bytes(pv: &PhysicalVolume) -> u64 {
    let used = pv.areas.iter().filter(|area| !area.is_ignored);
    used.map(super::area::AreaHeader::free_bytes).min().unwrap_or(0)
}

/// Tags in the order in which LVM reports them.
fn sorted(tags: &[String]) -> Vec<String> {
    let mut tags = tags.to_vec();
    tags.sort_unstable();
    tags
}

/// A part in percent, to two digits. As in LVM only nothing is 0, and only all is 100.
fn percent((part, whole): (u64, u64)) -> f32 {
    let (part, whole) = (u128::from(part.min(whole)), u128::from(whole.max(1)));
    let hundredths = (part * 10_000 + whole / 2) / whole;
    let hundredths = match hundredths {
        0 if part > 0 => 1,
        10_000 if part < whole => 9_999,
        other => other,
    };
    // At most 10000.
    u16::try_from(hundredths).map_or(100.0, |hundredths| f32::from(hundredths) / 100.0)
}

fn flag(is_set: bool, letter: char) -> char {
    if is_set { letter } else { '-' }
}

fn has(words: &[String], word: &str) -> bool {
    words.iter().any(|w| w == word)
}

impl VolumeGroup {
    /// The row of `vgs`.
    pub fn report(&self) -> VgReport {
        let metadata = &self.metadata;
        let extents: u64 =
            metadata.physical_volumes.iter().map(|pv| pv.pe_count).fold(0, u64::saturating_add);
        let allocated = metadata.physical_volumes.iter().map(|pv| metadata.allocated_extents(&pv.id));
        let free = extents.saturating_sub(allocated.fold(0, u64::saturating_add));
        let bytes = |extents: u64| extents.saturating_mul(metadata.extent_size);
        let attr = [
            if metadata.has_status("WRITE") { 'w' } else { 'r' },
            flag(metadata.has_status("RESIZEABLE"), 'z'),
            flag(metadata.has_status("EXPORTED"), 'x'),
            flag(!self.missing().is_empty(), 'p'),
            match metadata.allocation_policy.as_deref() {
                Some("contiguous") => 'c',
                Some("cling") => 'l',
                Some("anywhere") => 'a',
                _ => 'n',
            },
            match &metadata.lock_type {
                Some(_) => 's',
                None => flag(metadata.has_status("CLUSTERED"), 'c'),
            },
        ];
        VgReport {
            vg_name: metadata.name.clone(),
            vg_uuid: metadata.uuid,
            vg_fmt: "lvm2",
            vg_attr: attr.iter().collect(),
            vg_size: bytes(extents),
            vg_free: bytes(free),
            vg_sysid: metadata.system_id.clone().unwrap_or_default(),
            vg_extent_size: metadata.extent_size,
            vg_extent_count: extents,
            vg_free_count: free,
            max_lv: metadata.max_lv,
            max_pv: metadata.max_pv,
            pv_count: metadata.physical_volumes.len() as u64,
            lv_count: self.visible_volumes().count() as u64,
            snap_count: metadata.snapshots().count() as u64,
            vg_seqno: metadata.seqno,
            vg_tags: sorted(&metadata.tags),
            vg_mda_count: self.present().map(|pv| pv.label.metadata.len() as u64).sum(),
            vg_mda_free: self
                .present()
                .filter(|pv| !pv.areas.is_empty())
                .map(|pv| free_metadata_bytes(pv))
                .min()
                .unwrap_or(0),
        }
    }

    fn report_entry(&self, id: &str, pv: Option<&PhysicalVolume>) -> Option<PvReport> {
        let metadata = &self.metadata;
        let entry = metadata.physical_volume(id)?;
        let allocated = metadata.allocated_extents(id);
        let bytes = |extents: u64| extents.saturating_mul(metadata.extent_size);
        let attr = [
            if has(&entry.status, "ALLOCATABLE") { 'a' } else { 'u' },
            flag(metadata.has_status("EXPORTED"), 'x'),
            flag(pv.is_none(), 'm'),
        ];
        Some(PvReport {
            pv_name: pv.map_or(UNKNOWN_DEVICE, |pv| &pv.member.name).to_string(),
            pv_uuid: entry.uuid,
            pv_fmt: "lvm2",
            pv_size: bytes(entry.pe_count),
            dev_size: pv.map_or(0, |pv| pv.member.device.size() / SECTOR * SECTOR),
            pv_free: bytes(entry.pe_count.saturating_sub(allocated)),
            pv_used: bytes(allocated),
            pv_attr: attr.iter().collect(),
            pv_pe_count: entry.pe_count,
            pv_pe_alloc_count: allocated,
            pv_tags: sorted(&entry.tags),
            pe_start: entry.pe_start,
            pv_mda_count: pv.map_or(0, |pv| pv.label.metadata.len() as u64),
            pv_mda_free: pv.map_or(0, free_metadata_bytes),
            vg_name: Some(metadata.name.clone()),
        })
    }

    /// The row of `lvs` for one of its volumes.
    pub fn report_volume(&self, lv: &LogicalVolume) -> LvReport {
        let metadata = &self.metadata;
        let kind = lv.segments.first().map(|segment| &segment.kind);
        let snapshot = metadata.snapshots().find(|(_, _, cow)| *cow == lv.name).map(|(_, origin, _)| origin);
        let (origin, pool) = match kind {
            Some(SegmentKind::Thin { origin, external_origin, pool, .. }) => {
                (origin.as_deref().or(external_origin.as_deref()), Some(pool))
            }
            Some(SegmentKind::Cache { origin, pool, .. }) => (Some(origin.as_str()), Some(pool)),
            Some(SegmentKind::WriteCache { origin, cache }) => (Some(origin.as_str()), Some(cache)),
            Some(SegmentKind::Vdo { pool }) => (None, Some(pool)),
            _ => (snapshot, None),
        };
        let log = match kind {
            Some(SegmentKind::Mirror { log, .. }) => log.clone(),
            _ => None,
        };
        LvReport {
            vg_name: metadata.name.clone(),
            lv_name: lv.name.clone(),
            lv_uuid: lv.uuid,
            lv_attr: self.attributes(lv),
            lv_size: lv.size,
            seg_count: lv.segments.len() as u64,
            origin: origin.map(|name| self.shown(name)).unwrap_or_default(),
            pool_lv: pool.map(|name| self.shown(name)).unwrap_or_default(),
            mirror_log: log.map(|name| self.shown(&name)).unwrap_or_default(),
            lv_tags: sorted(&lv.tags),
            modules: modules(metadata, lv),
        }
    }

    /// How full a snapshot, a thin volume or a thin pool is: `snap_percent` of `lvs`. `None` for other volumes, and if
    /// what knows it cannot be read.
    pub fn snap_percent(&self, lv: &LogicalVolume) -> Option<f32> {
        let mut shared = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        activate::used(self, &mut shared, lv).ok().flatten().map(percent)
    }

    /// How much of a mirror or a RAID volume is alike on all images: `copy_percent` of `lvs`. `None` for other volumes,
    /// and where nothing on the disks says it, as of a mirror whose log is in memory, and of a RAID volume that was not
    /// in sync.
    pub fn copy_percent(&self, lv: &LogicalVolume) -> Option<f32> {
        let mut shared = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        activate::copied(self, &mut shared, lv).ok().flatten().map(percent)
    }

    /// The name of a volume, in brackets if users do not see it.
    fn shown(&self, name: &str) -> String {
        let is_hidden = self.metadata.logical_volume(name).is_some_and(|lv| !lv.is_visible());
        if is_hidden { format!("[{name}]") } else { name.to_string() }
    }

    /// The ten characters that `lvs` shows of a volume that is active and not open. See lvs(8), "NOTES".
    fn attributes(&self, lv: &LogicalVolume) -> String {
        let metadata = &self.metadata;
        let kind = lv.segments.first().map(|segment| &segment.kind);
        let is_cow = metadata.snapshots().any(|(_, _, cow)| cow == lv.name);
        let is_origin = metadata.snapshots().any(|(_, origin, _)| origin == lv.name);
        let is_external_origin = metadata.logical_volumes.iter().flat_map(|lv| &lv.segments).any(|segment| {
            matches!(&segment.kind, SegmentKind::Thin { external_origin: Some(origin), .. } if *origin == lv.name)
        });
        let is_unsynced = has(&lv.status, "NOTSYNCED");
        let volume_type = match kind {
            Some(
                SegmentKind::Cache { .. } | SegmentKind::CachePool { .. } | SegmentKind::WriteCache { .. },
            ) => 'C',
            _ if is_cow => 's',
            _ if is_origin || is_external_origin => 'o',
            Some(SegmentKind::Mirror { .. }) => {
                if is_unsynced {
                    'M'
                } else {
                    'm'
                }
            }
            Some(SegmentKind::Raid { .. }) => {
                if is_unsynced {
                    'R'
                } else {
                    'r'
                }
            }
            Some(SegmentKind::ThinPool { .. }) => 't',
            Some(SegmentKind::Thin { .. }) => 'V',
            Some(SegmentKind::VdoPool { .. }) => 'd',
            Some(SegmentKind::Vdo { .. } | SegmentKind::Zero | SegmentKind::Error) => 'v',
            _ => '-',
        };
        let allocation = match lv.allocation_policy.as_deref() {
            Some("contiguous") => 'c',
            Some("cling") => 'l',
            Some("normal") => 'n',
            Some("anywhere") => 'a',
            _ => 'i',
        };
        let target = match kind {
            Some(
                SegmentKind::Cache { .. } | SegmentKind::CachePool { .. } | SegmentKind::WriteCache { .. },
            ) => 'C',
            _ if is_cow || is_origin => 's',
            Some(SegmentKind::Mirror { .. }) => 'm',
            Some(SegmentKind::Raid { .. }) => 'r',
            Some(SegmentKind::ThinPool { .. } | SegmentKind::Thin { .. }) => 't',
            Some(SegmentKind::Vdo { .. } | SegmentKind::VdoPool { .. }) => 'd',
            Some(SegmentKind::Zero | SegmentKind::Error) => 'v',
            Some(SegmentKind::Unknown) => 'u',
            _ => '-',
        };
        let pool = match kind {
            Some(SegmentKind::Thin { pool, .. }) => metadata
                .logical_volume(pool)
                .and_then(|pool| pool.segments.first())
                .map(|segment| &segment.kind),
            other => other,
        };
        let zeroes = matches!(pool, Some(SegmentKind::ThinPool { zero_new_blocks: true, .. }));
        let is_locked = has(&lv.status, "LOCKED");
        [
            volume_type,
            if lv.is_writable() { 'w' } else { 'r' },
            if is_locked { allocation.to_ascii_uppercase() } else { allocation },
            flag(has(&lv.status, "FIXED_MINOR"), 'm'),
            flag(self.refusal().is_none(), 'a'),
            '-',
            target,
            flag(zeroes, 'z'),
            flag(self.is_partial(&lv.name), 'p'),
            flag(lv.skips_activation(), 'k'),
        ]
        .iter()
        .collect()
    }

    /// Whether a volume, or what it is made of, needs a physical volume that is not there.
    pub fn is_partial(&self, name: &str) -> bool {
        let gone = |id: &str| {
            let mut entries = self.metadata.physical_volumes.iter().zip(&self.backing);
            entries.any(|(pv, backing)| pv.id == id && !matches!(backing, Backing::Present(_)))
        };
        let needs = |name: &str| {
            let lv = self.metadata.logical_volume(name);
            lv.is_some_and(|lv| {
                lv.segments.iter().any(|segment| segment.physical_areas().iter().any(|(id, ..)| gone(id)))
            })
        };
        !self.missing().is_empty()
            && (needs(name) || self.metadata.made_of(name).iter().any(|part| needs(part)))
    }
}

impl LogicalVolume {
    /// Whether `vgchange -ay` leaves it inactive, as it does snapshots of thin volumes.
    pub fn skips_activation(&self) -> bool {
        has(&self.flags, "ACTIVATION_SKIP") || has(&self.status, "ACTIVATION_SKIP")
    }
}

/// The modules that the kernel needs for a volume and what it is made of.
fn modules(metadata: &Metadata, lv: &LogicalVolume) -> Vec<&'static str> {
    let mut modules = Vec::new();
    let mut add = |list: &[&'static str]| {
        for module in list {
            if !modules.contains(module) {
                modules.push(*module);
            }
        }
    };
    if metadata.snapshots().any(|(_, origin, cow)| origin == lv.name || cow == lv.name) {
        add(&["snapshot"]);
    }
    let parts = metadata.made_of(&lv.name);
    let volumes = parts.iter().filter_map(|name| metadata.logical_volume(name));
    for segment in [lv].into_iter().chain(volumes).flat_map(|lv| &lv.segments) {
        add(match &segment.kind {
            SegmentKind::Mirror { .. } => &["mirror"],
            SegmentKind::Raid { .. } => &["raid"],
            SegmentKind::ThinPool { .. } => &["thin-pool"],
            SegmentKind::Thin { .. } => &["thin"],
            SegmentKind::Cache { .. } | SegmentKind::CachePool { .. } => &["cache"],
            SegmentKind::WriteCache { .. } => &["writecache"],
            SegmentKind::Vdo { .. } | SegmentKind::VdoPool { .. } => &["vdo"],
            SegmentKind::Integrity { .. } => &["integrity"],
            SegmentKind::Error => &["error"],
            SegmentKind::Zero => &["zero"],
            SegmentKind::Striped { .. } | SegmentKind::Snapshot { .. } | SegmentKind::Unknown => &[],
        });
    }
    modules
}
