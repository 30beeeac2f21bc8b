//! Making a volume larger.

use std::sync::Arc;

use vmcraft_block::BlockDevice;
use vmcraft_fs::{CheckOptions, Error, OpenOptions, ResizeTo, Result, Sources};

use crate::bitmap;
use crate::check;
use crate::descriptors::{DescriptorTable, write_superblocks};
use crate::features::{Compat, Incompat};
use crate::filesystem::{Mounted, read_superblock};
use crate::group::flags;
use crate::in_memory;
use crate::mkfs::{self, layout};
use crate::space::Space;
use crate::superblock::{RawSuperblock, Superblock};

/// Blocks that a last, shorter group must have beyond its metadata to be worth it.
const WORTH_A_GROUP: u64 = 50;

/// Makes the volume on a device larger; says how many bytes it has then.
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
        ResizeTo::Minimum => return Err(Error::Unsupported("making ext2, ext3 and ext4 smaller".into())),
    };
    if wanted < old.blocks {
        return Err(Error::Unsupported(format!(
            "making ext2, ext3 and ext4 smaller: {wanted} blocks, of {}",
            old.blocks
        )));
    }
    if let Some(finding) = check::check(device, CheckOptions::default())?.first() {
        return Err(Error::Unsupported(format!("resizing what a check finds damaged: {}", finding.what)));
    }
    let mounted = Mounted::open(device, &OpenOptions { sources: sources.clone(), ..OpenOptions::default() })?;
    let volume = &mounted.volume;
    let mut raw = volume.raw_superblock()?;
    let new = enlarged(&old, &mut raw, wanted, device.size())?;
    if new.blocks == old.blocks {
        return Ok(old.blocks * block_size);
    }

    // All that the old volume has is taken; what is free there is for files.
    let mut space = Space::default();
    space.take(0, old.blocks);
    for group in old.groups..new.groups {
        layout::take_group_start(&new, &mut space, group);
    }
    let mut table = DescriptorTable::read(volume)?.enlarged(&new);
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
        mkfs::keep_room(&**device, volume, &new, table.placement(0), sources.now())?;
    }
    let (blocks, inodes) = table.free_counts();
    raw.set_free(blocks, inodes);
    table.write(&**device)?;
    write_superblocks(&**device, &new, &raw)?;
    Ok(new.blocks * block_size)
}

/// Sets in `raw` what is different with `wanted` blocks. What is too small for a group at the end is not
/// used.
fn enlarged(old: &Superblock, raw: &mut RawSuperblock, wanted: u64, device_size: u64) -> Result<Superblock> {
    let too_many = || Error::Unsupported(format!("a file system of {wanted} blocks with its features"));
    if old.compat.contains(Compat::SPARSE_SUPER2) {
        return Err(Error::Unsupported("resizing with sparse_super2".into()));
    }
    let keeps_room = old.compat.contains(Compat::RESIZE_INODE);
    if wanted > u32::MAX.into() && (keeps_room || !old.incompat.contains(Incompat::SIXTY_FOUR_BIT)) {
        return Err(too_many());
    }
    let mut blocks = wanted;
    loop {
        let data = blocks - u64::from(old.first_data_block);
        let groups = u32::try_from(data.div_ceil(old.blocks_per_group.into())).map_err(|_| too_many())?;
        let per_block = old.descriptors_per_block();
        let added = groups.div_ceil(per_block) - old.groups.div_ceil(per_block);
        if !old.incompat.contains(Incompat::META_BG) {
            let room = u32::from(old.reserved_descriptor_blocks);
            let left = room.checked_sub(added).filter(|_| keeps_room || added == 0).ok_or_else(|| {
                Error::Unsupported(format!(
                    "growing to {wanted} blocks: that takes {added} more blocks of descriptors, and resize_inode keeps \
                     {room}"
                ))
            })?;
            raw.reserved_gdt_blocks = u16::try_from(left).unwrap_or(u16::MAX).into();
        }
        raw.set_blocks(blocks);
        raw.inodes_count = groups.checked_mul(old.inodes_per_group).ok_or_else(too_many)?.into();
        let reserved = u128::from(old.reserved_blocks) * u128::from(blocks) / u128::from(old.blocks);
        raw.set_reserved(u64::try_from(reserved).unwrap_or(u64::MAX));
        raw.seal();
        let new = Superblock::decode(raw, device_size)?;
        let rest = data % u64::from(old.blocks_per_group);
        let least = new.blocks_at_start(groups - 1) + 2 + u64::from(new.inode_table_blocks()) + WORTH_A_GROUP;
        if groups > old.groups && rest != 0 && rest < least {
            blocks -= rest;
            continue;
        }
        let overhead = u64::from(old.overhead_clusters) + mkfs::overhead(&new, 0) - mkfs::overhead(old, 0);
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
