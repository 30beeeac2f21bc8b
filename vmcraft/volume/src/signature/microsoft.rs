//! NTFS, ReFS and BitLocker. Little-endian.
//!
//! Spec: the NTFS documentation of the Linux-NTFS project; libbde's "BitLocker Drive Encryption
//! (BDE) format".

use bstr::BString;

use super::reader::{Block, Reader, le16_units, utf16_text};
use super::{Format, Found, Usage};
use crate::Result;

pub(super) const NTFS: Format = Format::new("ntfs", Usage::FileSystem, ntfs);
pub(super) const REFS: Format =
    Format::new("ReFS", Usage::FileSystem, |reader| Ok(reader.has(0, b"\0\0\0ReFS\0")?.then(Found::default)));
pub(super) const BITLOCKER: Format = Format::new("BitLocker", Usage::Crypto, bitlocker);

/// The record of `$Volume` in the master file table.
const VOLUME_RECORD: u64 = 3;

fn ntfs(reader: &Reader<'_>) -> Result<Option<Found>> {
    let Some(boot) = reader.block_with(0, 512, 3, b"NTFS    ")? else { return Ok(None) };
    let sector_bytes = u64::from(boot.le16(0x0b));
    // Above 128, the number is the negative of a logarithm.
    let sectors_per_cluster = match boot.u8(0x0d) {
        sectors if sectors.is_power_of_two() => u64::from(sectors),
        log @ 240..=249 => 1 << (256 - u32::from(log)),
        _ => return Ok(None),
    };
    // The fields of FAT are zero.
    let is_sound = (256..=4096).contains(&sector_bytes)
        && sector_bytes * sectors_per_cluster <= 2 << 20
        && boot.le16(0x0e) == 0
        && boot.bytes(0x10, 5) == [0; 5]
        && boot.le16(0x16) == 0
        && boot.le32(0x20) == 0;
    let cluster_bytes = sector_bytes * sectors_per_cluster;
    // Clusters, or as a negative number the logarithm of bytes.
    let record_bytes = match boot.u8(0x40) {
        clusters @ 1..=64 if clusters.is_power_of_two() => u64::from(clusters) * cluster_bytes,
        log @ 0xe1..=0xf7 => 1_u64 << (256 - u32::from(log)),
        _ => return Ok(None),
    };
    let clusters = boot.le64(0x28) / sectors_per_cluster;
    let table = boot.le64(0x30);
    // Records have 1 or 4 KiB.
    if !is_sound || record_bytes > 64 << 10 || table > clusters || boot.le64(0x38) > clusters {
        return Ok(None);
    }
    let Some(start) = table.checked_mul(cluster_bytes) else { return Ok(None) };
    let volume_start = start.saturating_add(VOLUME_RECORD * record_bytes);
    let len = usize::try_from(record_bytes).unwrap_or(0);
    if !reader.has(start, b"FILE")? {
        return Ok(None);
    }
    let Some(volume) = reader.block_with(volume_start, len, 0, b"FILE")? else { return Ok(None) };
    let serial = boot.le64(0x48);
    Ok(Some(Found {
        label: volume_name(&volume).unwrap_or_default(),
        uuid: if serial == 0 { String::new() } else { format!("{serial:016X}") },
        ..Found::default()
    }))
}

/// The value of the attribute `$VOLUME_NAME`, which is always in the record itself.
fn volume_name(record: &Block<'_>) -> Option<BString> {
    let mut at = usize::from(record.le16(0x14));
    // The shortest attribute has 16 bytes, so this ends.
    while !record.bytes(at, 24).is_empty() {
        let (kind, len) = (record.le32(at), record.le32(at + 4) as usize);
        if kind == 0x60 {
            let value_at = at + usize::from(record.le16(at + 20));
            let value = record.bytes(value_at, record.le32(at + 16) as usize);
            return Some(utf16_text(le16_units(value)));
        }
        if kind == u32::MAX || len < 16 {
            break;
        }
        at = at.checked_add(len)?;
    }
    None
}

fn bitlocker(reader: &Reader<'_>) -> Result<Option<Found>> {
    let Some(boot) = reader.block(0, 512)? else { return Ok(None) };
    // Vista has no pointer to the metadata; Windows 7 on and "To Go" differ in where it is.
    let (metadata, serial) = if boot.has(0, b"\xeb\x52\x90-FVE-FS-") {
        return Ok(Some(Found::default()));
    } else if boot.has(0, b"\xeb\x58\x90-FVE-FS-") {
        (boot.le64(176), boot.le32(67))
    } else if boot.has(0, b"\xeb\x58\x90MSWIN4.1") {
        (boot.le64(440), 0)
    } else {
        return Ok(None);
    };
    if metadata == 0 {
        return Ok(None);
    }
    let metadata = reader.block_with(metadata, 12, 0, b"-FVE-FS-")?;
    Ok(metadata.map(|metadata| Found {
        uuid: if serial == 0 { String::new() } else { format!("{serial:016}") },
        version: metadata.le16(10).to_string(),
        ..Found::default()
    }))
}
