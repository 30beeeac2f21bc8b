//! F2FS. Spec: Linux `include/linux/f2fs_fs.h`; the superblock stands at byte 1024, little-endian.

use super::reader::{Reader, crc32_from, le16_units, utf16_text};
use super::{Format, Found, Usage};
use crate::Result;

pub(super) const F2FS: Format = Format::new("f2fs", Usage::FileSystem, f2fs);

const MAGIC: u32 = 0xf2f5_2010;

fn f2fs(reader: &Reader<'_>) -> Result<Option<Found>> {
    let Some(superblock) = reader.block_with(1024, 3072, 0, &MAGIC.to_le_bytes())? else { return Ok(None) };
    let (major, minor) = (superblock.le16(4), superblock.le16(6));
    // The fields of 1.0 stood elsewhere.
    if (major, minor) == (1, 0) {
        return Ok(Some(Found::default()));
    }
    // The checksum is over what stands before it.
    let checksum_at = superblock.le32(0x20) as usize;
    let is_sound = checksum_at == 0
        || (!superblock.bytes(checksum_at, 4).is_empty()
            && crc32_from(MAGIC, superblock.bytes(0, checksum_at)) == superblock.le32(checksum_at));
    Ok(is_sound.then(|| Found {
        label: utf16_text(le16_units(superblock.bytes(0x7c, 1024))),
        uuid: superblock.uuid(0x6c),
        version: format!("{major}.{minor}"),
        ..Found::default()
    }))
}
