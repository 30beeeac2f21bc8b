//! FAT12, FAT16 and FAT32.
//!
//! Spec: Microsoft, "FAT: General Overview of On-Disk Format", 1.03. Little-endian.

use bstr::BString;

use super::reader::{Block, Reader, text};
use super::{Format, Found, Usage};
use crate::Result;

pub(super) const FAT: Format = Format::new("vfat", Usage::FileSystem, fat);

/// The most clusters that FAT12, FAT16 and FAT32 can have.
const FAT12_MAX: u64 = 0xff4;
const FAT16_MAX: u64 = 0xfff4;
const FAT32_MAX: u64 = 0x0fff_fff6;

/// How many clusters of a FAT32 root directory are searched for the label, which stands first in
/// all but odd volumes.
const MAX_ROOT_CLUSTERS: u32 = 100;

/// The boot sector's parameters, checked.
struct Parameters {
    sector_bytes: u64,
    cluster_bytes: u64,
    reserved_bytes: u64,
    fats_bytes: u64,
    root_entries: usize,
    clusters: u64,
    fat32: Option<Fat32>,
}

struct Fat32 {
    /// How many entries one FAT has.
    entries: u64,
    root_cluster: u32,
    info_sector: u16,
}

impl Parameters {
    fn decode(boot: &Block<'_>) -> Option<Self> {
        let names32 = [&b"MSWIN"[..], b"FAT32   "];
        let names16 = [&b"MSDOS"[..], b"FAT16   ", b"FAT12   ", b"FAT     "];
        let is_named = names32.into_iter().any(|name| boot.has(0x52, name))
            || names16.into_iter().any(|name| boot.has(0x36, name));
        // Without a name, a floppy's boot sector still has the signature. JFS and HPFS imitate it.
        let is_like_fat =
            boot.has(0x1fe, &[0x55, 0xaa]) && !boot.has(0x36, b"JFS     ") && !boot.has(0x36, b"HPFS    ");
        let sector_bytes = boot.le16(0x0b);
        let sectors_per_cluster = boot.u8(0x0d);
        let media = boot.u8(0x15);
        if !(is_named || is_like_fat)
            || boot.le16(0x0e) == 0
            || boot.u8(0x10) == 0
            || !(media >= 0xf8 || media == 0xf0)
            || !sectors_per_cluster.is_power_of_two()
            || !sector_bytes.is_power_of_two()
            || !(512..=4096).contains(&sector_bytes)
        {
            return None;
        }
        let sector_bytes = u64::from(sector_bytes);
        let short_fat = u64::from(boot.le16(0x16));
        let long_fat = u64::from(boot.le32(0x24));
        let is_fat32 = short_fat == 0 && long_fat != 0;
        let fat_sectors = if short_fat != 0 { short_fat } else { long_fat };
        let fats_sectors = fat_sectors * u64::from(boot.u8(0x10));
        let sectors = match boot.le16(0x13) {
            0 => u64::from(boot.le32(0x20)),
            short => u64::from(short),
        };
        let root_entries = usize::from(boot.le16(0x11));
        let root_sectors = (root_entries as u64 * 32).div_ceil(sector_bytes);
        let reserved = u64::from(boot.le16(0x0e));
        let data = sectors.checked_sub(reserved + fats_sectors + root_sectors)?;
        let clusters = data / u64::from(sectors_per_cluster);
        if clusters > if is_fat32 { FAT32_MAX } else { FAT16_MAX } {
            return None;
        }
        Some(Self {
            sector_bytes,
            cluster_bytes: sector_bytes * u64::from(sectors_per_cluster),
            reserved_bytes: reserved * sector_bytes,
            fats_bytes: fats_sectors * sector_bytes,
            root_entries,
            clusters,
            fat32: is_fat32.then(|| Fat32 {
                entries: long_fat * sector_bytes / 4,
                root_cluster: boot.le32(0x2c),
                info_sector: boot.le16(0x30),
            }),
        })
    }
}

fn fat(reader: &Reader<'_>) -> Result<Option<Found>> {
    let Some(boot) = reader.block(0, 512)? else { return Ok(None) };
    let Some(parameters) = Parameters::decode(&boot) else { return Ok(None) };
    let root_start = parameters.reserved_bytes + parameters.fats_bytes;
    let (label, serial, version) = match &parameters.fat32 {
        Some(fat32) => {
            if !has_sound_info(reader, &parameters, fat32)? {
                return Ok(None);
            }
            (fat32_label(reader, &parameters, fat32)?, 0x43, "FAT32")
        }
        None => {
            let version = match parameters.clusters {
                ..FAT12_MAX => "FAT12",
                _ => "FAT16",
            };
            (label_in(reader, root_start, parameters.root_entries)?, 0x27, version)
        }
    };
    Ok(Some(Found {
        label: label.unwrap_or_default(),
        uuid: serial_number(boot.le32(serial)),
        version: version.into(),
        ..Found::default()
    }))
}

/// A volume's serial number as `blkid` prints it; empty if it is 0.
pub(super) fn serial_number(serial: u32) -> String {
    if serial == 0 { String::new() } else { format!("{:04X}-{:04X}", serial >> 16, serial & 0xffff) }
}

/// Whether the sector with the free space count is one, or was never filled.
fn has_sound_info(reader: &Reader<'_>, parameters: &Parameters, fat32: &Fat32) -> Result<bool> {
    if fat32.info_sector == 0 {
        return Ok(true);
    }
    let start = u64::from(fat32.info_sector) * parameters.sector_bytes;
    let Some(info) = reader.block(start, 512)? else { return Ok(false) };
    Ok(matches!(info.bytes(0, 4), b"RRaA" | b"RRdA" | [0, 0, 0, 0])
        && matches!(info.bytes(0x1e4, 4), b"rrAa" | [0, 0, 0, 0]))
}

/// Looks for the label through the root directory's clusters.
fn fat32_label(reader: &Reader<'_>, parameters: &Parameters, fat32: &Fat32) -> Result<Option<BString>> {
    let mut cluster = fat32.root_cluster;
    for _ in 0..MAX_ROOT_CLUSTERS {
        if cluster < 2 || u64::from(cluster) >= fat32.entries {
            break;
        }
        let start = parameters.reserved_bytes
            + parameters.fats_bytes
            + u64::from(cluster - 2) * parameters.cluster_bytes;
        // A cluster has at most 512 KiB: 128 sectors of 4096 bytes.
        let entries = usize::try_from(parameters.cluster_bytes / 32).unwrap_or(0);
        let label = label_in(reader, start, entries)?;
        if label.is_some() {
            return Ok(label);
        }
        let Some(next) = reader.block(parameters.reserved_bytes + u64::from(cluster) * 4, 4)? else { break };
        cluster = next.le32(0) & 0x0fff_ffff;
    }
    Ok(None)
}

/// The label among the directory entries from `start`.
fn label_in(reader: &Reader<'_>, start: u64, entries: usize) -> Result<Option<BString>> {
    let Some(directory) = reader.block(start, entries * 32)? else { return Ok(None) };
    for at in (0..directory.all().len()).step_by(32) {
        let attributes = directory.u8(at + 11);
        let has_cluster = directory.le16(at + 20) != 0 || directory.le16(at + 26) != 0;
        match directory.u8(at) {
            0 => break,
            0xe5 => continue,
            _ if has_cluster || attributes & 0x3f == 0x0f => continue,
            // The volume's label, and not a directory.
            first if attributes & 0x18 == 0x08 => {
                let mut name = directory.bytes(at, 11).to_vec();
                // E5 marks a free entry, so a name that begins with it begins with 05.
                if let (0x05, Some(start)) = (first, name.first_mut()) {
                    *start = 0xe5;
                }
                return Ok(Some(text(&name)));
            }
            _ => {}
        }
    }
    Ok(None)
}
