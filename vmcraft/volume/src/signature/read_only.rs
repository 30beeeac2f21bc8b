//! File systems that are made once and never written: squashfs, EROFS, cramfs, romfs.

use super::reader::Reader;
use super::{Format, Found, Usage};
use crate::Result;

pub(super) const SQUASHFS: Format =
    Format::new("squashfs", Usage::FileSystem, |reader| squashfs(reader, 4..=u16::MAX));
/// Versions up to 3, in either byte order.
pub(super) const SQUASHFS3: Format =
    Format::new("squashfs3", Usage::FileSystem, |reader| squashfs(reader, 0..=3));
pub(super) const EROFS: Format = Format::new("erofs", Usage::FileSystem, erofs);
pub(super) const CRAMFS: Format = Format::new("cramfs", Usage::FileSystem, cramfs);
pub(super) const ROMFS: Format = Format::new("romfs", Usage::FileSystem, romfs);

fn squashfs(reader: &Reader<'_>, versions: std::ops::RangeInclusive<u16>) -> Result<Option<Found>> {
    let Some(superblock) = reader.block(0, 96)? else { return Ok(None) };
    let (major, minor) = if superblock.has(0, b"hsqs") {
        (superblock.le16(28), superblock.le16(30))
    } else if superblock.has(0, b"sqsh") && *versions.end() == 3 {
        (superblock.be16(28), superblock.be16(30))
    } else {
        return Ok(None);
    };
    Ok(versions.contains(&major).then(|| Found { version: format!("{major}.{minor}"), ..Found::default() }))
}

/// Spec: Linux `fs/erofs/erofs_fs.h`; at byte 1024, little-endian.
fn erofs(reader: &Reader<'_>) -> Result<Option<Found>> {
    let Some(superblock) = reader.block_with(1024, 128, 0, &[0xe2, 0xe1, 0xf5, 0xe0])? else {
        return Ok(None);
    };
    let block_log = superblock.u8(12);
    // The checksum is over the rest of the block, with its own field zero.
    let has_checksum = superblock.le32(8) & 1 != 0;
    if !(9..=16).contains(&block_log) || (has_checksum && block_log < 11) {
        return Ok(None);
    }
    if has_checksum {
        let Some(block) = reader.block(1024, (1 << block_log) - 1024)? else { return Ok(None) };
        let (before, after) = (block.bytes(0, 4), block.bytes(8, block.all().len() - 8));
        // It starts as CRC-32C does, and is not inverted at the end.
        let sum = !crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]), after);
        if sum != superblock.le32(4) {
            return Ok(None);
        }
    }
    Ok(Some(Found { label: superblock.text(64, 16), uuid: superblock.uuid(48), ..Found::default() }))
}

fn cramfs(reader: &Reader<'_>) -> Result<Option<Found>> {
    let superblock = reader.block(0, 64)?.filter(|superblock| {
        superblock.has(0, &[0x45, 0x3d, 0xcd, 0x28]) || superblock.has(0, &[0x28, 0xcd, 0x3d, 0x45])
    });
    Ok(superblock.map(|superblock| Found { label: superblock.text(48, 16), ..Found::default() }))
}

fn romfs(reader: &Reader<'_>) -> Result<Option<Found>> {
    let superblock = reader.block_with(0, 32, 0, b"-rom1fs-")?;
    Ok(superblock.map(|superblock| Found { label: superblock.text(16, 16), ..Found::default() }))
}
