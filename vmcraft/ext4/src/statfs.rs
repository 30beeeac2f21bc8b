//! How full the volume is, in the numbers of the kernel's `statfs`.

use vmcraft_fs::{Error, Result, StatFs};

use crate::features::Incompat;
use crate::superblock::{JournalPlace, Superblock};
use crate::volume::Volume;

/// What `statvfs` would say.
pub(crate) fn statfs(volume: &Volume) -> Result<StatFs> {
    let sb = &volume.sb;
    let (mut free_clusters, mut inodes_free) = (0, 0);
    for group in 0..sb.groups {
        let group = volume.group(group)?;
        free_clusters += u64::from(group.free_clusters);
        inodes_free += u64::from(group.free_inodes);
    }
    let in_blocks = |clusters: u64| clusters.saturating_mul(u64::from(sb.cluster_blocks));
    let blocks_free = in_blocks(free_clusters);
    let kept = sb.reserved_blocks.saturating_add(in_blocks(reserved_clusters(sb)));
    let half = |range: &[u8]| u64::from_le_bytes(std::array::from_fn(|i| range[i]));
    Ok(StatFs {
        block_size: sb.block_size,
        blocks: sb.blocks.saturating_sub(in_blocks(overhead_clusters(volume)?)),
        blocks_free,
        blocks_available: blocks_free.saturating_sub(kept),
        inodes: sb.inodes.into(),
        inodes_free,
        id: half(&sb.uuid[..8]) ^ half(&sb.uuid[8..]),
        name_max: 255,
    })
}

/// The clusters that the kernel sets aside for extent trees that grow: a fiftieth, at most 4096.
fn reserved_clusters(sb: &Superblock) -> u64 {
    if !sb.incompat.contains(Incompat::EXTENTS) {
        return 0;
    }
    (sb.blocks / u64::from(sb.cluster_blocks) / 50).min(4096)
}

/// The clusters that metadata of fixed place takes: superblocks, descriptors, bitmaps, inode tables
/// and the journal.
fn overhead_clusters(volume: &Volume) -> Result<u64> {
    let sb = &volume.sb;
    let mut overhead = if sb.cluster_blocks == 1 {
        u64::from(sb.first_data_block) + (0..sb.groups).map(|group| fixed_blocks(sb, group)).sum::<u64>()
    } else if sb.overhead_clusters != 0 && u64::from(sb.overhead_clusters) <= sb.blocks {
        // Where counting is slow, the kernel trusts the number that mkfs left.
        return Ok(sb.overhead_clusters.into());
    } else {
        shared_clusters(volume)?
    };
    if let JournalPlace::Inode(number) = sb.journal {
        match volume.any_inode(number) {
            Ok(journal) => {
                overhead += (journal.size / u64::from(sb.block_size)).div_ceil(sb.cluster_blocks.into());
            }
            // A journal that is not there takes no space.
            Err(Error::Corrupt { .. }) => (),
            Err(error) => return Err(error),
        }
    }
    Ok(overhead)
}

/// The superblock and the descriptors at a group's start.
pub(crate) fn blocks_at_start(sb: &Superblock, group: u32) -> u64 {
    u64::from(sb.has_superblock(group)) + u64::from(sb.descriptor_blocks_in(group))
}

/// Beside a superblock there is room for the descriptor table to grow.
pub(crate) fn reserved_at_start(sb: &Superblock, group: u32) -> u64 {
    if sb.has_superblock(group) { u64::from(sb.reserved_descriptor_blocks) } else { 0 }
}

/// The blocks of fixed place that a group has, wherever they are: two of them are bitmaps.
fn fixed_blocks(sb: &Superblock, group: u32) -> u64 {
    blocks_at_start(sb, group) + reserved_at_start(sb, group) + u64::from(sb.inode_table_blocks()) + 2
}

/// The clusters that hold such blocks, several of which may share one. The kernel leaves the room for
/// descriptors out here.
fn shared_clusters(volume: &Volume) -> Result<u64> {
    let sb = &volume.sb;
    let cluster =
        |block: u64| block.saturating_sub(sb.first_data_block.into()) / u64::from(sb.cluster_blocks);
    let mut ranges = Vec::new();
    for number in 0..sb.groups {
        let group = volume.group(number)?;
        for (first, count) in [
            (sb.group_start(number), blocks_at_start(sb, number)),
            (group.block_bitmap, 1),
            (group.inode_bitmap, 1),
            (group.inode_table, sb.inode_table_blocks().into()),
        ] {
            if count > 0 {
                ranges.push((cluster(first), cluster(first.saturating_add(count - 1)) + 1));
            }
        }
    }
    ranges.sort_unstable();
    let (mut total, mut end) = (0, 0);
    for (first, after) in ranges {
        total += after.saturating_sub(first.max(end));
        end = end.max(after);
    }
    Ok(total)
}
