//! Putting right what is computed from the rest.
//!
//! Counts, bitmaps and their checksums say nothing that the inodes and directories do not say. They are
//! written anew only if everything else was found to be right, so that nothing is lost.

use std::sync::Arc;

use vmcraft_block::BlockDevice;
use vmcraft_fs::Result;

use super::Fixes;
use crate::descriptors::{DescriptorTable, write_superblocks};
use crate::filesystem::Mounted;
use crate::group::flags;
use crate::superblock::state;

pub(super) fn repair(device: &Arc<dyn BlockDevice>, mounted: &Mounted, fixes: Fixes) -> Result<()> {
    let volume = &mounted.volume;
    let sb = &volume.sb;
    for number in fixes.links.keys().chain(fixes.spaces.keys()) {
        let mut inode = volume.any_inode(*number)?;
        inode.links = fixes.links.get(number).copied().unwrap_or(inode.links);
        inode.blocks_512 = fixes.spaces.get(number).copied().unwrap_or(inode.blocks_512);
        let (block, range, offset) = volume.inode_bytes(*number)?;
        let mut bytes = block.bytes.get(range).unwrap_or_default().to_vec();
        inode.encode(&mut bytes, sb)?;
        crate::inode_edit::seal(&mut bytes, sb, *number);
        device.write_at(offset, &bytes)?;
    }
    let mut table = DescriptorTable::read(volume)?;
    for (group, bitmap) in &fixes.block_bitmaps {
        let mut counts = table.counts(*group);
        counts.flags &= !flags::BLOCK_UNINIT;
        table.set_counts(*group, counts);
        table.write_block_bitmap(*group, bitmap, &**device)?;
    }
    for (group, bitmap) in &fixes.inode_bitmaps {
        table.write_inode_bitmap(*group, bitmap, &**device)?;
    }
    for (group, (blocks, inodes, directories)) in &fixes.counts {
        let counts = table.counts(*group);
        table.set_counts(
            *group,
            crate::descriptors::Counts {
                free_blocks: *blocks,
                free_inodes: *inodes,
                directories: *directories,
                ..counts
            },
        );
    }
    let mut raw = volume.raw_superblock()?;
    let (blocks, inodes) = table.free_counts();
    raw.set_free(blocks, inodes);
    raw.state = (raw.state.get() & !state::ERROR | state::VALID).into();
    table.write(&**device)?;
    write_superblocks(&**device, sb, &raw)
}
