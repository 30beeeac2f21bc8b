//! Making a volume larger or smaller.

mod minimum;
mod plan;
mod shrink;

use std::sync::Arc;

use vmcraft_block::BlockDevice;
use vmcraft_fs::{CheckOptions, Error, OpenOptions, ResizeTo, Result, Sources};

use crate::descriptors::{DescriptorTable, write_superblocks};
use crate::features::{Compat, Incompat};
use crate::filesystem::{Mounted, read_superblock};
use crate::group::flags;
use crate::mkfs::{self, layout};
use crate::space::Space;
use crate::superblock::{RawSuperblock, Superblock};
use crate::volume::Volume;
use crate::{bitmap, check, in_memory, writable};
use plan::Plan;

/// Blocks that a last, shorter group must have beyond its metadata to be worth it.
const WORTH_A_GROUP: u64 = 50;

/// Makes the volume on a device larger or smaller; says how many bytes it has then.
pub(crate) fn resize(device: &Arc<dyn BlockDevice>, to: ResizeTo, sources: &Sources) -> Result<u64> {
    let old = read_superblock(&**device)?;
    let block_size = u64::from(old.block_size);
    let wanted = match to {
        ResizeTo::Device => device.size() / block_size,
        ResizeTo::Bytes(bytes) if bytes > device.size() => {
            return Err(Error::Unsupported(format!(
                "a file system of {bytes} bytes on a device of {}",
                device.size()
            )));
        }
        ResizeTo::Bytes(bytes) => bytes / block_size,
        ResizeTo::Minimum => {
            let mounted = open_checked(device, sources)?;
            refuse_to_shrink(&mounted.volume, device)?;
            return match minimum::plan(&mounted.volume, device.size())? {
                Some(plan) => shrink(device, &mounted.volume, plan, sources),
                None => Ok(old.blocks * block_size),
            };
        }
    };
    let mounted = open_checked(device, sources)?;
    let mut raw = mounted.volume.raw_superblock()?;
    if wanted < old.blocks {
        refuse_to_shrink(&mounted.volume, device)?;
        let new = resized(&old, &mut raw, wanted, device.size())?;
        let plan = Plan::new(&mounted.volume, &raw, &new)?;
        return shrink(device, &mounted.volume, plan, sources);
    }
    grow(device, &mounted.volume, wanted, sources)
}

/// The smallest size in bytes that [`resize`] can reach.
pub(crate) fn minimum_size(device: &Arc<dyn BlockDevice>) -> Result<u64> {
    let mounted = open_checked(device, &Sources::default())?;
    let volume = &mounted.volume;
    refuse_to_shrink(volume, device)?;
    let plan = minimum::plan(volume, device.size())?;
    Ok(volume.sb.byte_of(plan.map_or(volume.sb.blocks, |plan| plan.new.blocks)))
}

/// Opens a volume on which a check finds nothing.
fn open_checked(device: &Arc<dyn BlockDevice>, sources: &Sources) -> Result<Mounted> {
    if let Some(finding) = check::check(device, CheckOptions::default())?.first() {
        return Err(Error::Unsupported(format!("resizing what a check finds damaged: {}", finding.what)));
    }
    Mounted::open(device, &OpenOptions { sources: sources.clone(), ..OpenOptions::default() })
}

/// Refuses what cannot be made smaller safely.
fn refuse_to_shrink(volume: &Volume, device: &Arc<dyn BlockDevice>) -> Result<()> {
    writable::check(volume, device, &OpenOptions::default())?;
    if volume.sb.incompat.contains(Incompat::MMP) {
        return Err(Error::Unsupported("making a volume with mmp smaller".into()));
    }
    Ok(())
}

/// Makes a volume smaller, and checks what it became.
fn shrink(device: &Arc<dyn BlockDevice>, volume: &Volume, plan: Plan, sources: &Sources) -> Result<u64> {
    let size = volume.sb.byte_of(plan.new.blocks);
    shrink::carry_out(&**device, volume, plan, sources)?;
    if let Some(finding) = check::check(device, CheckOptions::default())?.first() {
        return Err(Error::Unsupported(format!(
            "making this volume smaller: a check of the result finds: {}",
            finding.what
        )));
    }
    Ok(size)
}

/// Makes a volume larger.
fn grow(device: &Arc<dyn BlockDevice>, volume: &Volume, wanted: u64, sources: &Sources) -> Result<u64> {
    let old = &volume.sb;
    let block_size = u64::from(old.block_size);
    let mut raw = volume.raw_superblock()?;
    let new = resized(old, &mut raw, wanted, device.size())?;
    if new.blocks == old.blocks {
        return Ok(old.blocks * block_size);
    }

    // All that the old volume has is taken; what is free there is for files.
    let mut space = Space::default();
    space.take(0, old.blocks);
    for group in old.groups..new.groups {
        layout::take_group_start(&new, &mut space, group);
    }
    let mut table = DescriptorTable::read(volume)?.resized(&new);
    let last = old.groups - 1;
    let before = (!old.groups.is_multiple_of(new.flex_groups)).then(|| table.placement(last));
    let placed = layout::place(&new, &mut space, old.groups..new.groups, before)?;

    let mut bits = volume.free_in_group(last)?;
    let (start, len) = (new.group_start(last), old.blocks_in_group(last));
    bitmap::fill(&mut bits, len..new.blocks_in_group(last), false);
    for used in space.within(old.blocks..new.group_end(last)) {
        bitmap::fill(&mut bits, narrow(used.start - start)..narrow(used.end - start), true);
    }
    let mut counts = table.counts(last);
    counts.free_blocks = bitmap::count_clear(&bits, new.blocks_in_group(last));
    counts.flags &= !flags::BLOCK_UNINIT;
    table.set_counts(last, counts);
    table.write_block_bitmap(last, &bits, &**device)?;
    for (group, placement) in (old.groups..).zip(&placed) {
        let table_bytes = new.byte_of(u64::from(new.inode_table_blocks()));
        mkfs::zero(&**device, new.byte_of(placement.inode_table), table_bytes)?;
        table.set_new(group, *placement, &space, 0, 0, &**device)?;
    }
    if new.compat.contains(Compat::RESIZE_INODE) {
        mkfs::keep_room(&**device, mkfs::room_map(volume)?, &new, table.placement(0), sources.now())?;
    }
    let (blocks, inodes) = table.free_counts();
    raw.set_free(blocks, inodes);
    table.write(&**device)?;
    write_superblocks(&**device, &new, &raw)?;
    Ok(new.blocks * block_size)
}

/// Sets in `raw` what is different with `wanted` blocks. What is too small for a group at the end is not
/// used.
fn resized(old: &Superblock, raw: &mut RawSuperblock, wanted: u64, device_size: u64) -> Result<Superblock> {
    let too_many = || Error::Unsupported(format!("a file system of {wanted} blocks with its features"));
    if old.compat.contains(Compat::SPARSE_SUPER2) {
        return Err(Error::Unsupported("resizing with sparse_super2".into()));
    }
    let keeps_room = old.compat.contains(Compat::RESIZE_INODE);
    if wanted > u32::MAX.into() && (keeps_room || !old.incompat.contains(Incompat::SIXTY_FOUR_BIT)) {
        return Err(too_many());
    }
    let first = u64::from(old.first_data_block);
    let mut blocks = wanted;
    loop {
        if blocks <= first {
            return Err(Error::NoSpace("its own structures do not fit"));
        }
        let data = blocks - first;
        let groups = u32::try_from(data.div_ceil(old.blocks_per_group.into())).map_err(|_| too_many())?;
        let per_block = old.descriptors_per_block();
        let (had, needed) = (old.groups.div_ceil(per_block), groups.div_ceil(per_block));
        if !old.incompat.contains(Incompat::META_BG) {
            let room = u32::from(old.reserved_descriptor_blocks);
            let left = match needed.checked_sub(had) {
                Some(0) => room,
                // The map of the resize inode has room for so many.
                None if keeps_room => (room + (had - needed)).min(old.block_size / 4).max(room),
                None => room,
                Some(added) => room.checked_sub(added).filter(|_| keeps_room).ok_or_else(|| {
                    Error::Unsupported(format!(
                        "growing to {wanted} blocks: that takes {added} more blocks of descriptors, and resize_inode \
                         keeps {room}"
                    ))
                })?,
            };
            raw.reserved_gdt_blocks = u16::try_from(left).unwrap_or(u16::MAX).into();
        } else {
            raw.first_meta_bg = old.first_meta_bg.min(needed).into();
        }
        raw.set_blocks(blocks);
        raw.inodes_count = groups.checked_mul(old.inodes_per_group).ok_or_else(too_many)?.into();
        let reserved = u128::from(old.reserved_blocks) * u128::from(blocks) / u128::from(old.blocks);
        raw.set_reserved(u64::try_from(reserved).unwrap_or(u64::MAX));
        raw.seal();
        let new = Superblock::decode(raw, device_size)?;
        let rest = data % u64::from(old.blocks_per_group);
        let least = new.blocks_at_start(groups - 1) + 2 + u64::from(new.inode_table_blocks()) + WORTH_A_GROUP;
        let is_other = groups > old.groups || blocks < old.blocks;
        if is_other && rest != 0 && rest < least {
            blocks -= rest;
            continue;
        }
        let overhead = (u64::from(old.overhead_clusters) + mkfs::overhead(&new, 0))
            .saturating_sub(mkfs::overhead(old, 0));
        if old.overhead_clusters != 0 {
            raw.overhead_clusters = u32::try_from(overhead).unwrap_or(0).into();
        }
        raw.seal();
        return Superblock::decode(raw, device_size);
    }
}

/// Bits within a group.
fn narrow(bit: u64) -> u32 {
    u32::try_from(in_memory(bit)).unwrap_or(u32::MAX)
}
