//! LUKS, and what else dm-crypt's tools write.

use bstr::ByteSlice;

use super::reader::{Block, Reader};
use super::{Format, Found, Usage};
use crate::Result;

pub(super) const LUKS: Format = Format::new("crypto_LUKS", Usage::Crypto, |reader| {
    if let Some(found) = reader.block(0, 512)?.and_then(|header| luks(&header, b"LUKS\xba\xbe", 0)) {
        return Ok(Some(found));
    }
    luks2_backup(reader, 14..=16)
});
/// A LUKS2 volume whose first header is gone, and whose second is far from the start.
pub(super) const LUKS2_BACKUP: Format =
    Format::new("crypto_LUKS", Usage::Crypto, |reader| luks2_backup(reader, 17..=22));
/// The hashes of a dm-verity device.
pub(super) const VERITY: Format = Format::new("DM_verity_hash", Usage::Crypto, verity);
/// The tags of a dm-integrity device.
pub(super) const INTEGRITY: Format = Format::new("DM_integrity", Usage::Crypto, |reader| {
    let superblock = reader.block_with(0, 64, 0, b"integrt\0")?;
    Ok(superblock.map(|superblock| Found { version: superblock.u8(8).to_string(), ..Found::default() }))
});

/// Spec: LUKS On-Disk Format 1.2.3; LUKS2 On-Disk Format 1.1.1. Big-endian.
fn luks(header: &Block<'_>, magic: &[u8], offset: u64) -> Option<Found> {
    let version = header.be16(6);
    if !header.has(0, magic) || (version == 2 && header.be64(256) != offset) {
        return None;
    }
    let text = |at, len| header.text(at, len);
    Some(Found {
        uuid: if matches!(version, 1 | 2) {
            text(168, 40).to_str_lossy().into_owned()
        } else {
            String::new()
        },
        label: if version == 2 { text(24, 48) } else { Default::default() },
        version: version.to_string(),
        ..Found::default()
    })
}

/// Looks for the second header where it can be: at powers of two, by the size of the first.
fn luks2_backup(reader: &Reader<'_>, logs: std::ops::RangeInclusive<u32>) -> Result<Option<Found>> {
    for log in logs {
        let offset = 1_u64 << log;
        let Some(header) = reader.block(offset, 512)? else { break };
        if let Some(found) = luks(&header, b"SKUL\xba\xbe", offset) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn verity(reader: &Reader<'_>) -> Result<Option<Found>> {
    let superblock = reader.block_with(0, 512, 0, b"verity\0\0")?;
    Ok(superblock.filter(|superblock| superblock.le32(8) == 1).map(|superblock| Found {
        uuid: superblock.uuid(16),
        version: "1".into(),
        ..Found::default()
    }))
}
