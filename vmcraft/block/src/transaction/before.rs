//! What the images hold where a commit changes them, so that recovery sees whether somebody else wrote
//! to them before it could finish.
//!
//! A granule that holds neither what it held before the commit nor what the commit gives it was written
//! by somebody else: granules are sectors, which are written whole.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;

use super::chunk::{CHUNK, CHUNK_LEN, GRANULE, GRANULE_LEN, mask};
use super::cleared::Clearing;
use super::layer::Layer;
use super::section::{Index, Piece, granules};
use crate::BlockDevice;

/// How much is checked of a range that is made zeros: reading all of it could take as long as reading
/// the disk.
const START_OF_RANGE: u64 = 4096;

/// What granules of a chunk held before a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Before {
    /// Its number among the section's disks.
    pub(super) disk: usize,
    /// Which chunk of the disk.
    pub(super) index: u64,
    /// Which granules.
    pub(super) present: u128,
    /// The CRC-32C of each of them, in order; `None` if they are all zeros.
    pub(super) crcs: Option<Vec<u32>>,
}

/// What a disk holds where a layer changes it: wherever there is new content, and at the start of ranges
/// that become zeros. What a discarded range holds afterwards is not certain, so it is not checked.
pub(super) fn read(disk: usize, layer: &Layer, device: &dyn BlockDevice) -> io::Result<Vec<Before>> {
    let mut places: BTreeMap<u64, u128> =
        layer.chunks().map(|(index, chunk)| (index, chunk.present)).collect();
    for (start, end, kind) in layer.cleared(device.size()) {
        if kind == Clearing::Zeroes {
            let index = start / CHUNK;
            let granule = |at: u64| u32::try_from((at - index * CHUNK).div_ceil(GRANULE)).unwrap_or(128);
            let end = end.min(start + START_OF_RANGE).min((index + 1) * CHUNK);
            *places.entry(index).or_default() |= mask(granule(start), granule(end));
        }
    }
    let mut hole = 0..0;
    let mut bytes = vec![0; CHUNK_LEN];
    let mut all = Vec::with_capacity(places.len());
    for (index, present) in places {
        let range = range(device, index, present);
        if let Some(extents) = device.extents().filter(|_| !hole.contains(&range.start)) {
            let extent = extents.extent_at(range.start)?;
            hole = if extent.is_hole { range.start..range.start + extent.len } else { 0..0 };
        }
        let crcs = if hole.contains(&range.start) && range.end <= hole.end {
            None
        } else {
            read_chunk(device, index, present, &mut bytes)?;
            let is_zero = |granule| granule_of(&bytes, granule).iter().all(|byte| *byte == 0);
            let crcs = || each(present).map(|granule| crc32c::crc32c(granule_of(&bytes, granule))).collect();
            (!each(present).all(is_zero)).then(crcs)
        };
        all.push(Before { disk, index, present, crcs });
    }
    Ok(all)
}

/// Where a disk holds neither what it held before a commit nor what the commit gives it: the first byte
/// of the first such granule. `file` is the journal.
pub(super) fn find_change(
    index: &Index,
    disk: usize,
    file: &File,
    device: &dyn BlockDevice,
) -> io::Result<Option<u64>> {
    let pieces: BTreeMap<u64, &Piece> =
        index.pieces.iter().filter(|piece| piece.disk == disk).map(|piece| (piece.index, piece)).collect();
    let zeros = crc32c::crc32c(&[0; GRANULE_LEN]);
    let mut now = vec![0; CHUNK_LEN];
    for before in index.before.iter().filter(|before| before.disk == disk) {
        read_chunk(device, before.index, before.present, &mut now)?;
        let mut crcs = before.crcs.iter().flatten().copied();
        let mut is_changed =
            |granule: &u32| crc32c::crc32c(granule_of(&now, *granule)) != crcs.next().unwrap_or(zeros);
        let changed: Vec<u32> = each(before.present).filter(&mut is_changed).collect();
        if changed.is_empty() {
            continue;
        }
        // What is no new content becomes zeros.
        let new = match pieces.get(&before.index) {
            Some(piece) => piece.read(file, 0)?.ok_or(io::ErrorKind::InvalidData)?,
            None => vec![0; CHUNK_LEN],
        };
        let foreign = changed.into_iter().find(|at| granule_of(&now, *at) != granule_of(&new, *at));
        if let Some(granule) = foreign {
            return Ok(Some(before.index * CHUNK + u64::from(granule) * GRANULE));
        }
    }
    Ok(None)
}

/// The granules in `present`.
fn each(present: u128) -> impl Iterator<Item = u32> {
    (0..128).filter(move |granule| present & mask(*granule, granule + 1) != 0)
}

/// The bytes of a disk from the first to the last of these granules of a chunk.
fn range(device: &dyn BlockDevice, index: u64, present: u128) -> Range<u64> {
    let at = |granule: u32| index * CHUNK + u64::from(granule) * GRANULE;
    at(present.trailing_zeros())..at(128 - present.leading_zeros()).min(device.size())
}

/// Reads these granules of a chunk, and what is between them. What is after the end of the disk is zeros.
fn read_chunk(device: &dyn BlockDevice, index: u64, present: u128, bytes: &mut [u8]) -> io::Result<()> {
    let range = range(device, index, present);
    let at = |byte: u64| usize::try_from(byte - index * CHUNK).unwrap_or(CHUNK_LEN);
    let (start, end) = (at(range.start), at(range.end));
    bytes.get_mut(end..).unwrap_or_default().fill(0);
    device.read_at(range.start, bytes.get_mut(start..end).unwrap_or_default())
}

/// The bytes of a granule of a chunk.
fn granule_of(bytes: &[u8], granule: u32) -> &[u8] {
    bytes.get(granules(granule, granule + 1)).unwrap_or_default()
}
