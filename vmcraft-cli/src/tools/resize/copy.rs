//! Copying from the old disk to the new one.

use std::io;
use std::sync::Arc;

use vmcraft_block::BlockDevice;
use vmcraft_volume::partition::{PartitionTable, TableKind};

use super::plan::Plan;

/// How much is copied at once.
const STEP: usize = 1 << 20;

/// How much is copied from one word on progress to the next.
const PROGRESS: u64 = 64 << 20;

/// The boot code of an MBR, which ends where the disk's signature and the partitions stand.
const BOOT_CODE: u64 = 440;

/// Copies what boots: the boot code, and what stands between the table and the first partition.
pub(super) fn boot_loader(
    source: &Arc<dyn BlockDevice>,
    target: &Arc<dyn BlockDevice>,
    plan: &Plan,
    table: &PartitionTable,
) -> io::Result<()> {
    range(source, 0, target, 0, BOOT_CODE, false, &mut |_| ())?;
    let first = match table.kind {
        TableKind::Mbr => 1,
        // The header, and 16 KiB of entries.
        TableKind::Gpt => 2 + (16_u64 << 10).div_ceil(plan.sector_size),
    };
    let old_end = plan.parts.iter().map(|part| part.start).min().unwrap_or(first);
    let new_end = plan.parts.iter().filter(|part| part.target.1 > 0).map(|part| part.target.0).min();
    let end = old_end.min(new_end.unwrap_or(first)).min(source.size() / plan.sector_size);
    match end.checked_sub(first) {
        Some(sectors) => {
            let at = first * plan.sector_size;
            range(source, at, target, at, sectors * plan.sector_size, true, &mut |_| ())
        }
        None => Ok(()),
    }
}

/// Copies `len` bytes. With `sparse`, what reads as zeros takes no space on the target. `progress` is told how many
/// were copied, now and then and at the end.
pub(super) fn range(
    source: &Arc<dyn BlockDevice>,
    from: u64,
    target: &Arc<dyn BlockDevice>,
    to: u64,
    len: u64,
    sparse: bool,
    progress: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let mut buf = vec![0; STEP];
    let (mut done, mut told) = (0, 0);
    while done < len {
        if done - told >= PROGRESS {
            progress(done);
            told = done;
        }
        let hole = match source.extents() {
            Some(extents) if sparse => Some(extents.extent_at(from + done)?).filter(|extent| extent.is_hole),
            _ => None,
        };
        if let Some(hole) = hole {
            let step = hole.len.clamp(1, len - done);
            clear(target, to + done, step)?;
            done += step;
            continue;
        }
        let step = usize::try_from(len - done).map_or(STEP, |left| left.min(STEP));
        let piece = &mut buf[..step];
        source.read_at(from + done, piece)?;
        if sparse && piece.iter().all(|byte| *byte == 0) {
            clear(target, to + done, step as u64)?;
        } else {
            target.write_at(to + done, piece)?;
        }
        done += step as u64;
    }
    progress(len);
    Ok(())
}

/// Makes a range read as zeros, if it does not already.
fn clear(target: &Arc<dyn BlockDevice>, offset: u64, len: u64) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        let extent = target.extents().map(|extents| extents.extent_at(offset + done)).transpose()?;
        let step = extent.map_or(len - done, |extent| extent.len.clamp(1, len - done));
        if !extent.is_some_and(|extent| extent.is_hole) {
            match target.discard() {
                Some(discard) => discard.write_zeroes(offset + done, step)?,
                None => write_zeros(target, offset + done, step)?,
            }
        }
        done += step;
    }
    Ok(())
}

fn write_zeros(target: &Arc<dyn BlockDevice>, offset: u64, len: u64) -> io::Result<()> {
    let zeros = vec![0; STEP];
    let mut done = 0;
    while done < len {
        let step = usize::try_from(len - done).map_or(STEP, |left| left.min(STEP));
        target.write_at(offset + done, &zeros[..step])?;
        done += step as u64;
    }
    Ok(())
}
