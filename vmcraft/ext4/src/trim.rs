//! Giving free space back to what holds the device, or filling it with zeros.

use vmcraft_fs::{Error, FreeSpace, Result};

use crate::volume::Volume;
use crate::{bitmap, in_memory};

/// Zeros are written in pieces of so many bytes where the device has no better way.
const PIECE: usize = 1 << 20;

/// Discards or zeroes each run of free blocks of at least `minimum` bytes within the `len` bytes from
/// `offset`; says how many bytes that was.
pub(crate) fn free_space(
    volume: &Volume,
    what: FreeSpace,
    offset: u64,
    len: u64,
    minimum: u64,
) -> Result<u64> {
    let sb = &volume.sb;
    let block_size = u64::from(sb.block_size);
    if what == FreeSpace::Discard && volume.device.discard().is_none() {
        return Err(Error::Unsupported("the device cannot take space back (discard)".into()));
    }
    let first = offset.div_ceil(block_size);
    let end = (offset.saturating_add(len) / block_size).min(sb.blocks);
    let mut total = 0;
    for number in 0..sb.groups {
        let start = sb.group_start(number);
        let group_end = start + u64::from(sb.blocks_in_group(number));
        if group_end <= first || start >= end {
            continue;
        }
        // Within a group, whose blocks are counted in 32 bits.
        let within = |block: u64| u32::try_from(block.clamp(start, group_end) - start).unwrap_or(u32::MAX);
        let bits = volume.free_in_group(number)?;
        for run in bitmap::clear_runs(&bits, within(first)..within(end)) {
            let bytes = u64::from(run.end - run.start) * block_size;
            if bytes < minimum {
                continue;
            }
            let at = sb.byte_of(start + u64::from(run.start));
            match (what, volume.device.discard()) {
                (FreeSpace::Discard, Some(device)) => device.discard(at, bytes)?,
                (FreeSpace::Zero, Some(device)) => device.write_zeroes(at, bytes)?,
                (_, None) => write_zeros(volume, at, bytes)?,
            }
            total += bytes;
        }
    }
    Ok(total)
}

fn write_zeros(volume: &Volume, mut at: u64, len: u64) -> Result<()> {
    let zeros = vec![0; in_memory(len).min(PIECE)];
    let end = at + len;
    while at < end {
        let piece = &zeros[..zeros.len().min(in_memory(end - at))];
        volume.device.write_at(at, piece)?;
        at += piece.len() as u64;
    }
    Ok(())
}
