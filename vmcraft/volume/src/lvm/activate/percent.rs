//! How full volumes are, and how much of their copies is alike: what `lvs` asks the kernel for, as far as it is on disk.

use super::{Opener, Shared, mirror, raid, snapshot, thin};
use crate::Result;
use crate::dm::snapshot::State;
use crate::lvm::segment::SegmentKind;
use crate::lvm::{LogicalVolume, VolumeGroup};

/// How much of a snapshot's store, a thin volume or a thin pool is in use, and of how much. `None` for other volumes.
pub(in crate::lvm) fn used(
    group: &VolumeGroup,
    shared: &mut Shared,
    lv: &LogicalVolume,
) -> Result<Option<(u64, u64)>> {
    let mut opener = Opener::new(group, shared);
    match snapshot::state(&mut opener, &lv.name)? {
        // As long as nothing was kept, Linux does not count what the store itself needs.
        Some(State::Valid { used_bytes, metadata_bytes, total_bytes }) if used_bytes == metadata_bytes => {
            return Ok(Some((0, total_bytes)));
        }
        Some(State::Valid { used_bytes, total_bytes, .. }) => return Ok(Some((used_bytes, total_bytes))),
        Some(State::Invalid) => return Ok(Some((1, 1))),
        Some(State::Broken(_)) => return Ok(None),
        None => {}
    }
    match lv.segments.first().map(|segment| &segment.kind) {
        Some(SegmentKind::Thin { pool, device_id, .. }) => {
            let pool = thin::open_pool(&mut opener, pool)?;
            let Ok(id) = u32::try_from(*device_id) else { return Ok(None) };
            let mapped = pool.volume_details(id)?.mapped_blocks;
            Ok(Some((mapped, lv.size.div_ceil(pool.block_bytes()))))
        }
        Some(SegmentKind::ThinPool { .. }) => Ok(Some(thin::open_pool(&mut opener, &lv.name)?.data_usage())),
        _ => Ok(None),
    }
}

/// How much of a mirror or a RAID volume is alike on all images, and of how much. `None` for other volumes, and where
/// only the kernel knew.
pub(in crate::lvm) fn copied(
    group: &VolumeGroup,
    shared: &mut Shared,
    lv: &LogicalVolume,
) -> Result<Option<(u64, u64)>> {
    let mut opener = Opener::new(group, shared);
    let (mut alike, mut all) = (0_u64, 0_u64);
    for segment in &lv.segments {
        let (here, of) = match &segment.kind {
            SegmentKind::Mirror { log: Some(log), region_size, .. } => {
                opener.volume(&lv.name)?;
                let regions = mirror::regions(&mut opener, segment, log, *region_size)?;
                (regions.clean, regions.all)
            }
            SegmentKind::Raid { region_size: 1.., images, .. } => {
                opener.volume(&lv.name)?;
                if !raid::is_synced(&mut opener, images)? {
                    return Ok(None);
                }
                (1, 1)
            }
            _ => return Ok(None),
        };
        (alike, all) = (alike.saturating_add(here), all.saturating_add(of));
    }
    Ok(Some((alike, all)))
}
