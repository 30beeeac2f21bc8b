//! The file system of Minix, versions 1 to 3, in either byte order.

use super::reader::Reader;
use super::{Format, Found, Usage};
use crate::Result;

pub(super) const MINIX: Format = Format::new("minix", Usage::FileSystem, minix);

/// Where a magic stands in the superblock, and of which version it is.
const MAGICS: [(usize, u16, u8); 5] =
    [(16, 0x137f, 1), (16, 0x138f, 1), (16, 0x2468, 2), (16, 0x2478, 2), (24, 0x4d5a, 3)];

fn minix(reader: &Reader<'_>) -> Result<Option<Found>> {
    let Some(superblock) = reader.block(1024, 64)? else { return Ok(None) };
    let version_in = |bytes: fn(u16) -> [u8; 2]| {
        let found = MAGICS.iter().find(|(at, magic, _)| superblock.has(*at, &bytes(*magic)));
        found.map(|(_, _, version)| *version)
    };
    let little = version_in(u16::to_le_bytes);
    let Some(version) = little.or_else(|| version_in(u16::to_be_bytes)) else {
        return Ok(None);
    };
    let (u16_at, u32_at) = (
        |at| if little.is_some() { superblock.le16(at) } else { superblock.be16(at) },
        |at| if little.is_some() { superblock.le32(at) } else { superblock.be32(at) },
    );
    let (inode_map, zone_map) = if version == 3 { (u16_at(6), u16_at(8)) } else { (u16_at(4), u16_at(6)) };
    // Two bytes of magic are little: the maps must be there, and large enough.
    let bits = |blocks: u16| u64::from(blocks) * 8192;
    let has_room = version == 3 || {
        let inodes = u64::from(u16_at(0));
        let zones = if version == 2 { u64::from(u32_at(20)) } else { u64::from(u16_at(2)) };
        let data_zones = (zones + 1).saturating_sub(u64::from(u16_at(8)));
        bits(inode_map) > inodes && bits(zone_map) >= data_zones
    };
    // Some of ext can be taken for it.
    let is_ext = superblock.has(0x38, &[0x53, 0xef]);
    Ok((inode_map != 0 && zone_map != 0 && has_room && !is_ext)
        .then(|| Found { version: version.to_string(), ..Found::default() }))
}
