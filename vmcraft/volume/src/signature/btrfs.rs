//! Btrfs, and the family of bcache.

use super::reader::Reader;
use super::{Format, Found, Usage};
use crate::Result;

/// Little-endian; spec: <https://btrfs.readthedocs.io/en/latest/dev/On-disk-format.html>.
pub(super) const BTRFS: Format = Format::new("btrfs", Usage::FileSystem, btrfs).at_least(1 << 20);
pub(super) const BCACHE: Format = Format::new("bcache", Usage::Other, bcache).at_least(8 << 10);
pub(super) const BCACHEFS: Format = Format::new("bcachefs", Usage::FileSystem, bcachefs).at_least(128 << 10);

fn btrfs(reader: &Reader<'_>) -> Result<Option<Found>> {
    let superblock = reader.block_with(64 << 10, 4096, 0x40, b"_BHRfS_M")?;
    Ok(superblock.map(|superblock| Found {
        label: superblock.text(0x12b, 256),
        uuid: superblock.uuid(0x20),
        sub_uuid: superblock.uuid(0x10b),
        ..Found::default()
    }))
}

/// Where the superblock of bcache and bcachefs stands, and what it says of that in sectors.
const BCACHE_START: u64 = 4096;
/// Both began with the same magic.
const BCACHE_MAGIC: [u8; 16] =
    [0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81];
const BCACHEFS_MAGIC: [u8; 16] =
    [0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9, 0xd9, 0x6a, 0x60, 0xcf, 0x80, 0x3d, 0xf7, 0xef];

fn bcache(reader: &Reader<'_>) -> Result<Option<Found>> {
    let superblock = reader.block_with(BCACHE_START, 512, 24, &BCACHE_MAGIC)?;
    // bcachefs has its version where bcache has the position.
    Ok(superblock
        .filter(|superblock| superblock.le64(8) == BCACHE_START / 512)
        .map(|superblock| Found { uuid: superblock.uuid(40), ..Found::default() }))
}

fn bcachefs(reader: &Reader<'_>) -> Result<Option<Found>> {
    let Some(superblock) = reader.block(BCACHE_START, 512)? else { return Ok(None) };
    let is_bcachefs = (superblock.has(24, &BCACHE_MAGIC) || superblock.has(24, &BCACHEFS_MAGIC))
        && superblock.le64(104) == BCACHE_START / 512
        && superblock.u8(122) < superblock.u8(123); // this device of so many
    Ok(is_bcachefs.then(|| Found {
        label: superblock.text(72, 32),
        uuid: superblock.uuid(56),
        version: superblock.le16(16).to_string(),
        ..Found::default()
    }))
}
