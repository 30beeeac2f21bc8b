//! What LVM's tools print of volumes in single letters.
//!
//! Spec: `lvs(8)`, `vgs(8)`, `pvs(8)`, sections "Notes".

use vmcraft_volume::lvm::{LogicalVolume, Metadata, PhysicalVolumeEntry, Segment, SegmentKind, VolumeGroup};

/// Whether a logical volume is in use.
#[derive(Debug, Clone, Copy)]
pub(super) struct State {
    pub(super) is_active: bool,
    pub(super) is_open: bool,
}

/// How many extents of a physical volume logical volumes have.
pub(super) fn allocated(metadata: &Metadata, id: &str) -> u64 {
    let segments = metadata.logical_volumes.iter().flat_map(|volume| &volume.segments);
    let areas = segments.flat_map(Segment::physical_areas).filter(|(on, ..)| *on == id);
    areas.map(|(.., count)| count).fold(0, u64::saturating_add)
}

/// Whether a logical volume is one for users, and activated with its group.
pub(super) fn is_public(volume: &LogicalVolume) -> bool {
    let is_pool = volume.segments.iter().any(|segment| {
        matches!(
            segment.kind,
            SegmentKind::ThinPool { .. } | SegmentKind::CachePool { .. } | SegmentKind::VdoPool { .. }
        )
    });
    !is_pool && !is_skipped(volume)
}

fn is_skipped(volume: &LogicalVolume) -> bool {
    volume.flags.iter().any(|flag| flag == "ACTIVATION_SKIP")
}

/// The volume that one is an old-style snapshot of.
pub(super) fn snapshot_of<'a>(metadata: &'a Metadata, name: &str) -> Option<&'a str> {
    ties(metadata).find_map(|(origin, cow, _)| (cow == name).then_some(origin))
}

/// Origins, their snapshots, and whether those are being merged.
fn ties(metadata: &Metadata) -> impl Iterator<Item = (&str, &str, bool)> {
    let segments = metadata.logical_volumes.iter().flat_map(|volume| &volume.segments);
    segments.filter_map(|segment| match &segment.kind {
        SegmentKind::Snapshot { origin, cow, is_merging, .. } => {
            Some((origin.as_str(), cow.as_str(), *is_merging))
        }
        _ => None,
    })
}

/// The letters of `pv_attr`.
pub(super) fn of_physical_volume(metadata: &Metadata, entry: &PhysicalVolumeEntry, present: bool) -> String {
    let has = |word: &str| entry.status.iter().any(|status| status == word);
    let letters = [
        if has("ALLOCATABLE") { 'a' } else { 'u' },
        if has("EXPORTED") || metadata.has_status("EXPORTED") { 'x' } else { '-' },
        if !present || has("MISSING") { 'm' } else { '-' },
    ];
    letters.into_iter().collect()
}

/// The letters of `vg_attr`.
pub(super) fn of_group(group: &VolumeGroup) -> String {
    let metadata = &group.metadata;
    let letters = [
        if metadata.has_status("WRITE") { 'w' } else { 'r' },
        if metadata.has_status("RESIZEABLE") { 'z' } else { '-' },
        if metadata.has_status("EXPORTED") { 'x' } else { '-' },
        if group.missing().is_empty() { '-' } else { 'p' },
        policy(metadata.allocation_policy.as_deref(), 'n'),
        match (&metadata.lock_type, metadata.has_status("CLUSTERED")) {
            (Some(_), _) => 's',
            (None, true) => 'c',
            (None, false) => '-',
        },
    ];
    letters.into_iter().collect()
}

/// The letter of a policy by which extents are chosen.
fn policy(name: Option<&str>, otherwise: char) -> char {
    match name {
        Some("anywhere") => 'a',
        Some("contiguous") => 'c',
        Some("cling") => 'l',
        Some("normal") => 'n',
        _ => otherwise,
    }
}

/// The letters of `lv_attr`.
pub(super) fn of_logical_volume(group: &VolumeGroup, volume: &LogicalVolume, state: State) -> String {
    let metadata = &group.metadata;
    let mut snapshots = ties(metadata).filter(|(origin, ..)| *origin == volume.name).peekable();
    let is_origin = snapshots.peek().is_some();
    let is_merged = snapshots.any(|(.., merging)| merging);
    let cow = ties(metadata).find(|(_, cow, _)| *cow == volume.name);
    let first = volume.segments.first().map(|segment| &segment.kind);
    let has = |word: &str| volume.status.iter().any(|status| status == word);
    let kind = match first {
        _ if cow.is_some() => {
            if is_merged {
                'S'
            } else {
                's'
            }
        }
        _ if is_origin => {
            if is_merged {
                'O'
            } else {
                'o'
            }
        }
        Some(SegmentKind::ThinPool { .. }) => 't',
        Some(SegmentKind::Thin { .. }) => 'V',
        Some(SegmentKind::Cache { .. } | SegmentKind::CachePool { .. } | SegmentKind::WriteCache { .. }) => {
            'C'
        }
        Some(SegmentKind::Mirror { .. }) if has("NOTSYNCED") => 'M',
        Some(SegmentKind::Mirror { .. }) => 'm',
        Some(SegmentKind::Raid { .. }) if has("NOTSYNCED") => 'R',
        Some(SegmentKind::Raid { .. }) => 'r',
        Some(SegmentKind::Vdo { .. }) => 'v',
        Some(SegmentKind::VdoPool { .. }) => 'd',
        _ => '-',
    };
    let target = match first {
        _ if cow.is_some() || is_origin => 's',
        Some(SegmentKind::ThinPool { .. } | SegmentKind::Thin { .. }) => 't',
        Some(SegmentKind::Cache { .. } | SegmentKind::CachePool { .. } | SegmentKind::WriteCache { .. }) => {
            'C'
        }
        Some(SegmentKind::Mirror { .. }) => 'm',
        Some(SegmentKind::Raid { .. }) => 'r',
        Some(SegmentKind::Vdo { .. } | SegmentKind::VdoPool { .. }) => 'd',
        Some(SegmentKind::Error | SegmentKind::Zero) => 'v',
        Some(SegmentKind::Unknown) => 'u',
        _ => '-',
    };
    let is_zeroing = |kind: &SegmentKind| match kind {
        SegmentKind::ThinPool { zero_new_blocks, .. } => *zero_new_blocks,
        SegmentKind::Thin { pool, .. } => metadata.logical_volume(pool).is_some_and(|pool| {
            let kinds = pool.segments.iter().map(|segment| &segment.kind);
            kinds.into_iter().any(|kind| matches!(kind, SegmentKind::ThinPool { zero_new_blocks: true, .. }))
        }),
        _ => false,
    };
    let letters = [
        kind,
        if volume.is_writable() { 'w' } else { 'r' },
        policy(volume.allocation_policy.as_deref(), 'i'),
        if has("FIXED_MINOR") { 'm' } else { '-' },
        if state.is_active { 'a' } else { '-' },
        if state.is_open { 'o' } else { '-' },
        target,
        if first.is_some_and(is_zeroing) { 'z' } else { '-' },
        if is_partial(group, volume) { 'p' } else { '-' },
        if is_skipped(volume) { 'k' } else { '-' },
    ];
    letters.into_iter().collect()
}

/// Whether a physical volume is missing that a logical volume or one of its parts is on.
fn is_partial(group: &VolumeGroup, volume: &LogicalVolume) -> bool {
    let metadata = &group.metadata;
    let missing = group.missing();
    if missing.is_empty() {
        return false;
    }
    let is_missing =
        |id: &str| metadata.physical_volume(id).is_some_and(|entry| missing.contains(&entry.uuid));
    let mut seen = vec![volume.name.as_str()];
    let mut next = vec![volume];
    while let Some(volume) = next.pop() {
        for segment in &volume.segments {
            if segment.physical_areas().iter().any(|(id, ..)| is_missing(id)) {
                return true;
            }
            for part in segment.volumes() {
                if !seen.contains(&part) {
                    seen.push(part);
                    next.extend(metadata.logical_volume(part));
                }
            }
        }
    }
    false
}

/// The parts of the kernel that a logical volume needs, besides what it always has.
pub(super) fn modules(metadata: &Metadata, volume: &LogicalVolume) -> Vec<&'static str> {
    let mut modules = Vec::new();
    let mut add = |names: &[&'static str]| {
        for name in names {
            if !modules.contains(name) {
                modules.push(*name);
            }
        }
    };
    if ties(metadata).any(|(origin, cow, _)| origin == volume.name || cow == volume.name) {
        add(&["snapshot"]);
    }
    for segment in &volume.segments {
        match &segment.kind {
            SegmentKind::Mirror { .. } => add(&["mirror"]),
            SegmentKind::Raid { .. } => add(&["raid"]),
            SegmentKind::ThinPool { .. } => add(&["thin-pool"]),
            SegmentKind::Thin { .. } => add(&["thin", "thin-pool"]),
            SegmentKind::Cache { .. } | SegmentKind::CachePool { .. } => add(&["cache"]),
            SegmentKind::WriteCache { .. } => add(&["writecache"]),
            SegmentKind::Vdo { .. } | SegmentKind::VdoPool { .. } => add(&["vdo"]),
            _ => {}
        }
    }
    modules
}
