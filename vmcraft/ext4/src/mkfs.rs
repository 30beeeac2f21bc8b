//! Making a file system.

mod build;
mod features;
mod geometry;
mod inodes;
pub(crate) mod layout;

use std::io;
use std::ops::Range;

use vmcraft_block::BlockDevice;
use vmcraft_fs::{Error, FormatOptions, Result, Timestamp};
use zerocopy::little_endian::U32;

use crate::descriptors::{DescriptorTable, write_superblocks};
use crate::features::{Compat, Incompat};
use crate::in_memory;
use crate::inode::ROOT;
use crate::space::Space;
use crate::superblock::{RawSuperblock, Superblock};
use crate::volume::Volume;
use build::Build;
use features::Features;
use geometry::Geometry;
pub(crate) use inodes::RESIZE as RESIZE_INODE;
use layout::Placement;

/// What is wiped at both ends of the device, so that nothing finds what was there before: the deepest
/// signature, ZFS's, is within half of it.
const WIPED: u64 = 1 << 20;
/// The piece in which zeros are written where the device has no better way.
const ZEROS: usize = 1 << 20;

/// Makes a file system of type `kind` (ext2, ext3 or ext4) on a device.
pub(crate) fn format(device: &dyn BlockDevice, kind: &str, options: &FormatOptions) -> Result<()> {
    let features = Features::choose(kind, &options.features)?;
    let Geometry { superblock: mut raw, journal_blocks } = Geometry::choose(device, features, options)?;
    raw.seal();
    let sb = Superblock::decode(&raw, device.size())?;

    let mut space = Space::default();
    space.take(0, sb.first_data_block.into());
    for group in 0..sb.groups {
        layout::take_group_start(&sb, &mut space, group);
    }
    let placed = layout::place(&sb, &mut space, 0..sb.groups, None)?;
    check_room(&sb, &space, journal_blocks)?;

    wipe(device)?;
    for placement in runs_of_tables(&placed, sb.inode_table_blocks().into()) {
        zero(device, sb.byte_of(placement.start), sb.byte_of(placement.end - placement.start))?;
    }

    let mut build = Build { device, sb: &sb, space, placed, now: options.sources.now() };
    for number in 1..sb.first_inode {
        build.write_empty_inode(number)?;
    }
    build.directories()?;
    if sb.compat.contains(Compat::RESIZE_INODE) {
        let double = build.allocate(0, 1)?.first().map_or(0, |piece| piece.start);
        build.resize_inode(double)?;
    }
    if journal_blocks > 0 {
        let (block, size) = build.journal(journal_blocks)?;
        raw.journal_inum = inodes::JOURNAL.into();
        raw.jnl_backup_type = 1;
        for (field, bytes) in raw.jnl_blocks.iter_mut().zip(block.chunks_exact(4)) {
            *field = U32::from_bytes(std::array::from_fn(|i| bytes[i]));
        }
        let (low, high) = (size & 0xffff_ffff, size >> 32);
        raw.jnl_blocks[15] = u32::try_from(high).unwrap_or(0).into();
        raw.jnl_blocks[16] = u32::try_from(low).unwrap_or(0).into();
    }
    let mut used_inodes = inodes::LOST_AND_FOUND;
    if sb.compat.contains(Compat::ORPHAN_FILE) {
        build.orphan_file()?;
        raw.orphan_file_inum = inodes::ORPHANS.into();
        used_inodes = inodes::ORPHANS;
    }
    let overhead = overhead(&sb, journal_blocks);
    raw.overhead_clusters = u32::try_from(overhead).unwrap_or(0).into();
    finish(build, raw, used_inodes)
}

/// The double-indirect block of the inode that keeps room for descriptors.
pub(crate) fn room_map(volume: &Volume) -> Result<u64> {
    const DOUBLE: usize = 13 * 4;
    let inode = volume.any_inode(inodes::RESIZE)?;
    let double =
        inode.block.get(DOUBLE..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b));
    if !volume.sb.holds(double.into(), 1) {
        return Err(inode.corrupt("the resize inode has no map"));
    }
    Ok(double.into())
}

/// Writes anew the inode that keeps room for descriptors, as the superblock `new` of a resized volume has
/// it, with its double-indirect block at `map`. `first` is the first group's metadata.
pub(crate) fn keep_room(
    device: &dyn BlockDevice,
    map: u64,
    new: &Superblock,
    first: Placement,
    now: Timestamp,
) -> Result<()> {
    let mut build = Build { device, sb: new, space: Space::default(), placed: vec![first], now };
    build.resize_inode(map)
}

/// Refuses a volume that has no room for its own files, before anything is written.
fn check_room(sb: &Superblock, space: &Space, journal_blocks: u32) -> Result<()> {
    let block_size = u64::from(sb.block_size);
    let map =
        if sb.incompat.contains(Incompat::EXTENTS) { 0 } else { journal_blocks / (sb.block_size / 4) + 4 };
    let mut needed =
        2 + inodes::lost_and_found_blocks(block_size) + u64::from(journal_blocks) + u64::from(map);
    if sb.compat.contains(Compat::ORPHAN_FILE) {
        needed += inodes::orphan_blocks(sb);
    }
    let free = sb.blocks.saturating_sub(space.used_in(0..sb.blocks));
    if free < needed || sb.inodes < inodes::ORPHANS {
        return Err(Error::NoSpace("it is too small for its own structures"));
    }
    Ok(())
}

/// Blocks that no file can have: those in front of the first group, the metadata of all groups, and the
/// journal.
pub(crate) fn overhead(sb: &Superblock, journal_blocks: u32) -> u64 {
    let each = 2 + u64::from(sb.inode_table_blocks());
    let starts: u64 = (0..sb.groups).map(|group| sb.blocks_at_start(group)).sum();
    u64::from(sb.first_data_block) + starts + each * u64::from(sb.groups) + u64::from(journal_blocks)
}

/// Writes bitmaps, descriptors and superblocks.
fn finish(build: Build<'_>, mut raw: RawSuperblock, used_inodes: u32) -> Result<()> {
    let (sb, device) = (build.sb, build.device);
    let mut table = DescriptorTable::empty(sb);
    for (group, placement) in (0..).zip(&build.placed) {
        let dirs = [ROOT, inodes::LOST_AND_FOUND].iter().filter(|i| (**i - 1) / sb.inodes_per_group == group);
        let dirs = dirs.count() as u64;
        let first_inode = u64::from(group) * u64::from(sb.inodes_per_group);
        let inodes = u64::from(used_inodes).saturating_sub(first_inode).min(sb.inodes_per_group.into());
        table.set_new(group, *placement, &build.space, inodes, dirs, device)?;
    }
    let (free_blocks, free_inodes) = table.free_counts();
    raw.set_free(free_blocks, free_inodes);
    table.write(device)?;
    write_superblocks(device, sb, &raw)
}

/// Clears what other formats have at the ends of a device.
fn wipe(device: &dyn BlockDevice) -> Result<()> {
    if let Some(discard) = device.discard() {
        match discard.discard(0, device.size()) {
            Err(error) if error.kind() != io::ErrorKind::Unsupported => return Err(error.into()),
            _ => (),
        }
    }
    let start = device.size().min(WIPED);
    zero(device, 0, start)?;
    zero(device, device.size() - start, start)
}

/// Makes a range of bytes read as zeros.
pub(crate) fn zero(device: &dyn BlockDevice, offset: u64, len: u64) -> Result<()> {
    if let Some(discard) = device.discard() {
        match discard.write_zeroes(offset, len) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => (),
            other => return Ok(other?),
        }
    }
    let zeros = vec![0; ZEROS.min(in_memory(len))];
    let mut done = 0;
    while done < len {
        let piece = &zeros[..zeros.len().min(in_memory(len - done))];
        device.write_at(offset + done, piece)?;
        done += piece.len() as u64;
    }
    Ok(())
}

/// The inode tables, those that follow each other as one.
fn runs_of_tables(placed: &[Placement], table_blocks: u64) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for table in placed.iter().map(|p| p.inode_table) {
        match runs.last_mut().filter(|run| run.end == table) {
            Some(run) => run.end += table_blocks,
            None => runs.push(table..table + table_blocks),
        }
    }
    runs
}
