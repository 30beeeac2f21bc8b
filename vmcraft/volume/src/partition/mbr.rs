//! The DOS master boot record, and the chain of extended boot records behind it.
//!
//! There is no standard: what is done here is what Linux does (`block/partitions/msdos.c`). All
//! numbers are little-endian; starts and lengths count sectors of the disk's logical sector size,
//! which the table does not tell.

use std::collections::HashSet;

use vmcraft_block::BlockDevice;
use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Partition, PartitionRole, PartitionTable, TableKind};
use crate::Result;

/// The table's size on disk, whatever the disk's sector size.
pub(super) const SECTOR: usize = 512;

/// The type that a protective MBR gives to the space of the GPT.
pub(super) const GPT_PROTECTIVE: u8 = 0xee;

/// How many logical partitions are listed: Linux has 256 numbers for a disk.
pub(super) const MAX_LOGICAL: u32 = 252;

/// The first sector of the disk, and of every extended boot record.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone)]
#[repr(C)]
pub(super) struct RawSector {
    /// 0x000: boot code, or the jump and parameters of a file system's boot sector.
    pub(super) boot_code: [u8; 0x1b8],
    /// 0x1b8: the disk's signature.
    pub(super) disk_id: U32,
    pub(super) kept_1bc: [u8; 2],
    /// 0x1be: the four partitions.
    pub(super) entries: [RawEntry; 4],
    /// 0x1fe: always 55 aa.
    pub(super) signature: [u8; 2],
}
const _: () = assert!(size_of::<RawSector>() == SECTOR);

/// A partition's 16 bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct RawEntry {
    /// 0x0: 80 for active, else 00.
    pub(super) boot_indicator: u8,
    /// 0x1: the first sector as cylinder, head and sector; not read.
    pub(super) chs_start: [u8; 3],
    /// 0x4: the type.
    pub(super) kind: u8,
    /// 0x5: the last sector in the same form.
    pub(super) chs_end: [u8; 3],
    /// 0x8: the first sector; what it counts from depends on where the entry stands.
    pub(super) start: U32,
    /// 0xc: how many sectors; 0 means that the entry is not used.
    pub(super) len: U32,
}

impl RawEntry {
    pub(super) fn is_used(self) -> bool {
        self.len.get() != 0
    }

    /// DOS, Windows 95 with LBA, and Linux have a type each for it.
    pub(super) fn is_extended(self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }
}

/// What the first sector of a disk is.
pub(super) enum FirstSector {
    /// Not a partition table.
    Nothing,
    /// The boot sector of a file system that covers the disk.
    FileSystem,
    /// It protects a GPT. `others` are the slots of a hybrid MBR that say something else.
    Protective { others: Vec<u32> },
    /// A table.
    Table(Mbr),
}

/// The four entries and what stands with them.
pub(super) struct Mbr {
    disk_id: u32,
    entries: [RawEntry; 4],
}

/// Tells what a first sector is.
pub(super) fn decode(sector: &[u8; SECTOR]) -> FirstSector {
    let Ok(raw) = RawSector::ref_from_bytes(sector) else { return FirstSector::Nothing };
    // AIX marks its disks with EBCDIC "IBMA"; they have no DOS table.
    if raw.signature != [0x55, 0xaa] || raw.boot_code[..4] == [0xc9, 0xc2, 0xd4, 0xc1] {
        return FirstSector::Nothing;
    }
    let is_boot_sector = is_boot_sector(&raw.boot_code);
    if raw.entries.iter().any(|entry| !matches!(entry.boot_indicator, 0 | 0x80)) {
        return if is_boot_sector { FirstSector::FileSystem } else { FirstSector::Nothing };
    }
    let slots = || (1..).zip(&raw.entries);
    if raw.entries.iter().any(|entry| entry.kind == GPT_PROTECTIVE) {
        let others = slots().filter(|(_, entry)| !matches!(entry.kind, 0 | GPT_PROTECTIVE));
        return FirstSector::Protective { others: others.map(|(slot, _)| slot).collect() };
    }
    // Where boot code lies over the table it can look like one by chance, but hardly like one
    // whose entries all make sense. The parameters of a file system that was there before the
    // table can be left over, on the other hand: boot loaders keep them.
    let plausible = |entry: &RawEntry| entry.kind != 0 && entry.start.get() != 0;
    let mut used = raw.entries.iter().filter(|entry| entry.is_used()).peekable();
    if is_boot_sector && (used.peek().is_none() || !used.all(plausible)) {
        return FirstSector::FileSystem;
    }
    FirstSector::Table(Mbr { disk_id: raw.disk_id.get(), entries: raw.entries })
}

/// Whether this is how a FAT, exFAT or NTFS volume begins.
fn is_boot_sector(boot_code: &[u8; 0x1b8]) -> bool {
    if matches!(&boot_code[3..11], b"NTFS    " | b"EXFAT   ") {
        return true;
    }
    let u16_at = |at: usize| u16::from_le_bytes([boot_code[at], boot_code[at + 1]]);
    let bytes_per_sector = u16_at(11);
    let sectors_per_cluster = boot_code[13];
    let reserved_sectors = u16_at(14);
    let fats = boot_code[16];
    let media = boot_code[21];
    matches!(boot_code[0], 0xeb | 0xe9)
        && bytes_per_sector.is_power_of_two()
        && (512..=4096).contains(&bytes_per_sector)
        && sectors_per_cluster.is_power_of_two()
        && reserved_sectors != 0
        && (1..=2).contains(&fats)
        && (media == 0xf0 || media >= 0xf8)
}

/// Reads the table's partitions, logical ones too.
pub(super) fn read(device: &dyn BlockDevice, mbr: &Mbr) -> Result<PartitionTable> {
    let sector_size = sector_size(device, mbr)?;
    let mut table = PartitionTable {
        kind: TableKind::Mbr,
        sector_size,
        partitions: Vec::new(),
        disk_guid: None,
        mbr_id: Some(mbr.disk_id),
        warnings: Vec::new(),
    };
    for (number, entry) in (1..).zip(&mbr.entries) {
        if !entry.is_used() {
            continue;
        }
        let role = if entry.is_extended() { PartitionRole::Extended } else { PartitionRole::Primary };
        table.partitions.push(partition(mbr.disk_id, sector_size, number, role, entry, 0));
    }
    for entry in mbr.entries.iter().filter(|entry| entry.is_used() && entry.is_extended()) {
        read_chain(device, mbr.disk_id, entry, &mut table)?;
    }
    Ok(table)
}

/// `base` is the sector that the entry's start counts from.
fn partition(
    disk_id: u32,
    sector_size: u32,
    number: u32,
    role: PartitionRole,
    entry: &RawEntry,
    base: u64,
) -> Partition {
    // Sectors have 33 bits at most, and a sector's size 13: nothing overflows.
    let start = base + u64::from(entry.start.get());
    Partition {
        number,
        start_bytes: start * u64::from(sector_size),
        len_bytes: u64::from(entry.len.get()) * u64::from(sector_size),
        role,
        mbr_type: Some(entry.kind),
        type_guid: None,
        guid: None,
        name: None,
        attributes: 0,
        bootable: entry.boot_indicator == 0x80,
        part_uuid: format!("{disk_id:08x}-{number:02x}"),
    }
}

/// Follows the extended boot records inside one extended partition.
///
/// Each has the logical partition behind it, counted from itself, and the next record, counted from
/// the start of the extended partition. Some systems use the slots in another order, so all four are
/// looked at.
fn read_chain(
    device: &dyn BlockDevice,
    disk_id: u32,
    extended: &RawEntry,
    table: &mut PartitionTable,
) -> Result<()> {
    let sector_size = u64::from(table.sector_size);
    let first = u64::from(extended.start.get());
    let end = first + u64::from(extended.len.get());
    let (mut here, mut here_len) = (first, u64::from(extended.len.get()));
    let mut next_number = table.partitions.iter().map(|p| p.number + 1).max().unwrap_or(0).max(5);
    let mut seen = HashSet::new();
    loop {
        if !seen.insert(here) {
            table.warnings.push(format!(
                "the chain of logical partitions comes back to the record at byte {:#x}",
                here * sector_size
            ));
            return Ok(());
        }
        let Some(record) = read_record(device, here * sector_size)? else {
            // An extended partition with nothing in it may have no record at all.
            if here != first {
                table.warnings.push(format!(
                    "the chain of logical partitions breaks at byte {:#x}: no boot record there",
                    here * sector_size
                ));
            }
            return Ok(());
        };
        for (slot, entry) in record.entries.iter().enumerate() {
            if !entry.is_used() || entry.is_extended() {
                continue;
            }
            let (start, len) = (u64::from(entry.start.get()), u64::from(entry.len.get()));
            // The third and fourth slot have been seen to hold garbage.
            if slot >= 2 && (start + len > here_len || here + start + len > end) {
                continue;
            }
            if next_number - 5 >= MAX_LOGICAL {
                table.warnings.push(format!("only the first {MAX_LOGICAL} logical partitions are listed"));
                return Ok(());
            }
            let role = PartitionRole::Logical;
            table.partitions.push(partition(disk_id, table.sector_size, next_number, role, entry, here));
            if here + start + len > end {
                table.warnings.push(format!(
                    "logical partition {next_number} reaches beyond its extended partition, to byte {:#x}",
                    (here + start + len) * sector_size
                ));
            }
            next_number += 1;
        }
        let Some(next) = record.entries.iter().find(|entry| entry.is_used() && entry.is_extended()) else {
            return Ok(());
        };
        here = first + u64::from(next.start.get());
        here_len = u64::from(next.len.get());
    }
}

/// The boot record at a byte of the disk; `None` if there is none.
pub(super) fn read_record(device: &dyn BlockDevice, offset: u64) -> Result<Option<RawSector>> {
    let mut sector = [0; SECTOR];
    if offset.checked_add(SECTOR as u64).is_none_or(|end| end > device.size()) {
        return Ok(None);
    }
    device.read_at(offset, &mut sector)?;
    let raw = RawSector::read_from_bytes(&sector).ok();
    Ok(raw.filter(|raw| raw.signature == [0x55, 0xaa]))
}

/// The sector size that the table's numbers are in.
///
/// An image of a 4Kn disk looks like one with 512-byte sectors. Where there is an extended
/// partition, its first record tells.
pub(super) fn sector_size(device: &dyn BlockDevice, mbr: &Mbr) -> Result<u32> {
    let given = device.logical_sector_size();
    let Some(extended) = mbr.entries.iter().find(|entry| entry.is_used() && entry.is_extended()) else {
        return Ok(given);
    };
    for size in super::gpt::sector_sizes(device) {
        if read_record(device, u64::from(extended.start.get()) * u64::from(size))?.is_some() {
            return Ok(size);
        }
    }
    Ok(given)
}
