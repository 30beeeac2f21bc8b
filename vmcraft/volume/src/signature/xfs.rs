//! XFS, and an XFS log on a device of its own.
//!
//! Spec: XFS Algorithms & Data Structures, chapter "Superblocks". Big-endian.

use super::reader::{Block, Reader};
use super::{Format, Found, Usage};
use crate::Result;

pub(super) const XFS: Format = Format::new("xfs", Usage::FileSystem, xfs);
/// Its first record can stand anywhere in the first 256 KiB.
pub(super) const XFS_LOG: Format = Format::new("xfs_external_log", Usage::Other, log).at_least(10 << 20);

fn xfs(reader: &Reader<'_>) -> Result<Option<Found>> {
    let superblock = reader.block_with(0, 512, 0, b"XFSB")?;
    Ok(superblock.filter(is_sound).map(|superblock| Found {
        label: superblock.text(108, 12),
        uuid: superblock.uuid(32),
        ..Found::default()
    }))
}

/// The four letters alone could be the start of a text file.
fn is_sound(superblock: &Block<'_>) -> bool {
    let block_bytes = u64::from(superblock.be32(4));
    let blocks = superblock.be64(8);
    let realtime_extent_bytes = u64::from(superblock.be32(80)) * block_bytes;
    let (group_blocks, groups) = (u64::from(superblock.be32(84)), u64::from(superblock.be32(88)));
    let sector_bytes = superblock.be16(102);
    let inode_bytes = superblock.be16(104);
    let (block_log, sector_log, inode_log, inodes_per_block_log) =
        (superblock.u8(120), superblock.u8(121), superblock.u8(122), superblock.u8(123));
    (9..=16).contains(&block_log)
        && block_bytes == 1 << block_log
        && (9..=15).contains(&sector_log)
        && sector_bytes == 1 << sector_log
        && (8..=11).contains(&inode_log)
        && inode_bytes == 1 << inode_log
        && block_log.checked_sub(inode_log) == Some(inodes_per_block_log)
        && (4 << 10..=1 << 30).contains(&realtime_extent_bytes)
        && superblock.u8(127) <= 100 // the share that inodes may take
        && blocks != 0
        && groups != 0
        && blocks <= groups * group_blocks
        && blocks >= (groups - 1) * group_blocks + 64
}

fn log(reader: &Reader<'_>) -> Result<Option<Found>> {
    let Some(start) = reader.block(0, 256 << 10)? else { return Ok(None) };
    let is_record = |at: &usize| {
        start.be32(*at) == 0xfeed_babe
            && (1..=3).contains(&start.be32(at + 8)) // versions are bits
            && (1..=i32::MAX as u32).contains(&start.be32(at + 12))
            && (1..=3).contains(&start.be32(at + 300)) // the machine's byte order
    };
    Ok((0..start.all().len()).step_by(512).find(is_record).map(|_| Found::default()))
}
