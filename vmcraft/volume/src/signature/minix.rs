//! The file system of Minix, versions 1 to 3, in either byte order.

use super::reader::Reader;
use super::{Format, Found, Usage};
use crate::Result;

pub(super) const MINIX: Format = Format::new("minix", Usage::FileSystem, minix);

fn minix(reader: &Reader<'_>) -> Result<Option<Found>> {
    let Some(superblock) = reader.block(1024, 64)? else { return Ok(None) };
    let version_of = |magic: u16, magic3: u16| match magic {
        0x137f | 0x138f => Some(1_u8),
        0x2468 | 0x2478 => Some(2),
        _ => (magic3 == 0x4d5a).then_some(3),
    };
    let little = version_of(superblock.le16(16), superblock.le16(24));
    let Some(version) = little.or_else(|| version_of(superblock.be16(16), superblock.be16(24))) else {
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
