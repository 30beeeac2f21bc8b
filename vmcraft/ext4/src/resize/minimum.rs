//! How small a volume can become.

use vmcraft_fs::{Error, Result};

use super::plan::Plan;
use super::resized;
use crate::mkfs;
use crate::superblock::Superblock;
use crate::volume::Volume;

/// Blocks by which a size is raised first that turns out to be too small.
const FIRST_STEP: u64 = 16;

/// The plan of the smallest size that our way of moving things reaches; `None` if the volume is as small
/// already.
pub(super) fn plan(volume: &Volume, device_size: u64) -> Result<Option<Plan>> {
    let old = &volume.sb;
    let raw = volume.raw_superblock()?;
    // What cannot be resized at all is refused here.
    resized(old, &mut raw.clone(), old.blocks, device_size)?;
    let used_blocks = used_by_files(volume)?;
    let free = u64::from(raw.free_inodes_count.get());
    let used_inodes = u64::from(old.inodes).saturating_sub(free);
    let at = |blocks: u64| -> Option<Superblock> { resized(old, &mut raw.clone(), blocks, device_size).ok() };
    let fits = |blocks: u64| {
        at(blocks).is_some_and(|new| {
            mkfs::overhead(&new, 0) + used_blocks <= new.blocks && used_inodes <= u64::from(new.inodes)
        })
    };
    // What is too small, and what is not.
    let (mut low, mut blocks) = (u64::from(old.first_data_block), old.blocks);
    while blocks - low > 1 {
        let middle = low + (blocks - low) / 2;
        if fits(middle) { blocks = middle } else { low = middle }
    }
    let mut step = FIRST_STEP;
    while blocks < old.blocks {
        let mut new_raw = raw.clone();
        let new = resized(old, &mut new_raw, blocks, device_size)?;
        if new.blocks >= old.blocks {
            break;
        }
        match Plan::new(volume, &new_raw, &new) {
            Ok(plan) => return Ok(Some(plan)),
            Err(Error::NoSpace(_)) => (),
            Err(error) => return Err(error),
        }
        blocks = blocks.saturating_add(step);
        step *= 2;
    }
    Ok(None)
}

/// Blocks of files, their maps and attributes.
fn used_by_files(volume: &Volume) -> Result<u64> {
    let old = &volume.sb;
    let mut free = 0;
    for group in 0..old.groups {
        free += u64::from(volume.read_group(group)?.free_clusters);
    }
    Ok(old.blocks.saturating_sub(free).saturating_sub(mkfs::overhead(old, 0)))
}
