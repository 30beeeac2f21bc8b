//! exFAT. Spec: Microsoft, "exFAT file system specification". Little-endian.

use bstr::BString;

use super::fat::serial_number;
use super::reader::{Block, Reader, le16_units, utf16_text};
use super::{Format, Found, Usage};
use crate::Result;

pub(super) const EXFAT: Format = Format::new("exfat", Usage::FileSystem, exfat);

/// How many directory entries are searched for the label, which stands first in all but odd volumes.
const MAX_ENTRIES: u32 = 10_000;

fn exfat(reader: &Reader<'_>) -> Result<Option<Found>> {
    let Some(boot) = reader.block_with(0, 512, 3, b"EXFAT   ")? else { return Ok(None) };
    let (sector_log, cluster_log) = (boot.u8(108), boot.u8(109));
    if !boot.has(0, &[0xeb, 0x76, 0x90])
        || boot.bytes(11, 53).iter().any(|byte| *byte != 0)
        || !boot.has(510, &[0x55, 0xaa])
        || !(9..=12).contains(&sector_log)
        || cluster_log > 25 - sector_log
        || !has_sound_checksum(reader, 1 << sector_log)?
    {
        return Ok(None);
    }
    Ok(Some(Found {
        label: label(reader, &boot)?.unwrap_or_default(),
        uuid: serial_number(boot.le32(100)),
        version: format!("{}.{}", boot.u8(105), boot.u8(104)),
        ..Found::default()
    }))
}

/// The twelfth sector is filled with the sum of the eleven before it.
fn has_sound_checksum(reader: &Reader<'_>, sector_bytes: usize) -> Result<bool> {
    let Some(region) = reader.block(0, 12 * sector_bytes)? else { return Ok(false) };
    let (summed, sums) = region.all().split_at(11 * sector_bytes);
    // The flags and the percentage in use change without the sum.
    let summed = summed.iter().enumerate().filter(|(at, _)| !matches!(at, 106 | 107 | 112));
    let sum = summed.fold(0_u32, |sum, (_, byte)| sum.rotate_right(1).wrapping_add(u32::from(*byte)));
    Ok(sums.chunks_exact(4).all(|stored| stored == sum.to_le_bytes()))
}

/// Looks for the label in the root directory.
fn label(reader: &Reader<'_>, boot: &Block<'_>) -> Result<Option<BString>> {
    let (sector_log, cluster_log) = (u32::from(boot.u8(108)), u32::from(boot.u8(109)));
    let fat_start = u64::from(boot.le32(80)) << sector_log;
    let heap_start = u64::from(boot.le32(88)) << sector_log;
    let cluster_bytes = 1_u64 << (sector_log + cluster_log);
    let mut cluster = boot.le32(96);
    let mut at = 0;
    for _ in 0..MAX_ENTRIES {
        if !(2..0xffff_fff7).contains(&cluster) {
            break;
        }
        let start = heap_start + u64::from(cluster - 2) * cluster_bytes;
        let Some(entry) = reader.block(start + at, 32)? else { break };
        match entry.u8(0) {
            0 => break,
            0x83 => {
                let len = usize::from(entry.u8(1)).min(11) * 2;
                return Ok(Some(utf16_text(le16_units(entry.bytes(2, len)))));
            }
            _ => at += 32,
        }
        if at == cluster_bytes {
            at = 0;
            let Some(next) = reader.block(fat_start + u64::from(cluster) * 4, 4)? else { break };
            cluster = next.le32(0);
        }
    }
    Ok(None)
}
