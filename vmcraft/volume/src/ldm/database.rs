//! The database: a table of contents, a header, and blocks that hold the records.

use std::collections::BTreeMap;

use uuid::Uuid;
use vmcraft_block::BlockDevice;
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::privhead::{self, Privhead, SECTOR};
use super::record::Record;
use crate::{Error, Result};

/// Where the copies of the table of contents are in the database, in sectors.
const TABLES: [usize; 4] = [1, 2, 2045, 2046];
const SECTOR_BYTES: usize = 512;
const _: () = assert!(SECTOR_BYTES as u64 == SECTOR);
/// What `update_status` says of a database that is not being changed.
const CONSISTENT: u16 = 1;

/// The table of contents on disk, big-endian. Its numbers count sectors from the start of the database.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawTable {
    /// 0x00: `TOCBLOCK`.
    signature: [u8; 8],
    /// 0x08: the largest is of the newest copy.
    sequence: U32,
    kept_0c: [u8; 24],
    /// 0x24: `config`, the records, and `log`, the journal of their changes.
    areas: [RawArea; 2],
}
const _: () = assert!(size_of::<RawTable>() == 0x68);

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawArea {
    name: [u8; 8],
    flags: U16,
    start: U64,
    sectors: U64,
    kept: [u8; 8],
}

/// The header of the records on disk, big-endian.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    /// 0x00: `VMDB`.
    signature: [u8; 4],
    kept_04: [u8; 4],
    /// 0x08: of each block, in bytes.
    block_bytes: U32,
    /// 0x0c: where the first is, in bytes from this header.
    first_block: U32,
    /// 0x10: see [`CONSISTENT`].
    update_status: U16,
    /// 0x12: 4.10.
    major: U16,
    minor: U16,
    /// 0x16: as text.
    group_name: [u8; 31],
    group_guid: [u8; 64],
    /// 0x75: counts the changes; on disks of a group that were not there for the last ones, it is smaller.
    committed: U64,
    pending: U64,
    /// 0x85: how many records there are of volumes, components, partitions and disks.
    counts: [U32; 4],
}
const _: () = assert!(size_of::<RawHeader>() == 0x95);

/// The header of a block on disk, big-endian.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawBlock {
    /// 0x00: `VBLK`.
    signature: [u8; 4],
    kept_04: [u8; 4],
    /// 0x08: which record it is a part of.
    record: U32,
    /// 0x0c: which part, and of how many; a block of none is free.
    part: U16,
    parts: U16,
}
const BLOCK_HEADER: usize = size_of::<RawBlock>();

/// A disk's copy of its group's database.
#[derive(Debug, Clone)]
pub(super) struct Database {
    /// The change that it has last.
    pub(super) sequence: u64,
    pub(super) group_name: String,
    /// In the order of the disk.
    pub(super) records: Vec<Record>,
}

/// Reads the database of a disk.
pub(super) fn read(device: &dyn BlockDevice, head: &Privhead) -> Result<Database> {
    let start = head.database_start;
    let mut bytes = vec![0; head.database_bytes];
    device.read_at(start, &mut bytes)?;
    let config = config_area(&bytes, start)?;
    let offset = start + config.start as u64;
    let corrupt = |what: &str| Error::Corrupt { what: format!("LDM database: {what}"), offset };
    let area = bytes.get(config).ok_or_else(|| corrupt("place of the records"))?;
    let raw = RawHeader::ref_from_prefix(area).map_err(|_| corrupt("size"))?.0;
    if raw.signature != *b"VMDB" {
        return Err(corrupt("signature"));
    }
    let (major, minor) = (raw.major.get(), raw.minor.get());
    if (major, minor) != (4, 10) {
        return Err(Error::Unsupported(format!("an LDM database of version {major}.{minor}")));
    }
    if raw.update_status.get() != CONSISTENT || raw.committed != raw.pending {
        return Err(Error::Unsupported(
            "an LDM database in the middle of a change (let Windows finish it first)".into(),
        ));
    }
    if privhead::guid(&raw.group_guid) != Some(head.group_guid) {
        let name = privhead::guid(&raw.group_guid).unwrap_or(Uuid::nil());
        return Err(corrupt(&format!(
            "it is of the group {name}, the private header of {}",
            head.group_guid
        )));
    }
    let size = |field: U32| usize::try_from(field.get()).unwrap_or(usize::MAX);
    let (block_bytes, first) = (size(raw.block_bytes), size(raw.first_block));
    if !(64..=4096).contains(&block_bytes) {
        return Err(corrupt(&format!("blocks of {block_bytes} bytes")));
    }
    let blocks = area.get(first..).ok_or_else(|| corrupt("place of the first block"))?;
    let mut records = Vec::new();
    for (bytes, offset) in whole_records(blocks, block_bytes, offset + first as u64)? {
        records.extend(Record::decode(&bytes, offset)?);
    }
    let found = [Record::is_volume, Record::is_component, Record::is_partition, Record::is_disk]
        .map(|is_of_kind| records.iter().filter(|record| is_of_kind(record)).count());
    if found != raw.counts.map(size) {
        return Err(corrupt(&format!(
            "there are {found:?} records of volumes, components, partitions and disks, where it says {:?}",
            raw.counts.map(size)
        )));
    }
    let name = raw.group_name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(Database {
        sequence: raw.committed.get(),
        group_name: String::from_utf8_lossy(name).into_owned(),
        records,
    })
}

/// Where the records are in the database, by the newest table of contents.
fn config_area(bytes: &[u8], start: u64) -> Result<std::ops::Range<usize>> {
    let corrupt = |what: &str| Error::Corrupt {
        what: format!("LDM table of contents: {what}"),
        offset: start + TABLES[0] as u64 * SECTOR,
    };
    let tables = TABLES.iter().filter_map(|sector| {
        let raw = RawTable::ref_from_prefix(bytes.get(sector * SECTOR_BYTES..)?).ok()?.0;
        (raw.signature == *b"TOCBLOCK").then_some(raw)
    });
    let newest = tables.max_by_key(|table| table.sequence.get());
    let newest = newest.ok_or_else(|| corrupt("no copy is there"))?;
    let area = newest.areas.iter().find(|area| area.name == *b"config\0\0");
    let area = area.ok_or_else(|| corrupt("it has no records"))?;
    let at = |sectors: U64| {
        let sectors = usize::try_from(sectors.get()).ok()?;
        sectors.checked_mul(SECTOR_BYTES)
    };
    let range = at(area.start).and_then(|start| Some(start..start.checked_add(at(area.sectors)?)?));
    range.filter(|range| range.end <= bytes.len()).ok_or_else(|| corrupt("place of the records"))
}

/// Puts the records together from their blocks, each with where it begins, in the order of their first blocks.
fn whole_records(blocks: &[u8], block_bytes: usize, offset: u64) -> Result<Vec<(Vec<u8>, u64)>> {
    struct Parts<'a> {
        expected: usize,
        found: BTreeMap<u16, &'a [u8]>,
        offset: u64,
    }
    let mut parts: BTreeMap<u32, Parts<'_>> = BTreeMap::new();
    for (index, block) in blocks.chunks_exact(block_bytes).enumerate() {
        let offset = offset + (index * block_bytes) as u64;
        let corrupt = |what: &str| Error::Corrupt { what: format!("LDM block: {what}"), offset };
        let Ok((raw, data)) = RawBlock::ref_from_prefix(block) else { break };
        if raw.signature != *b"VBLK" {
            break; // the end of the database
        }
        let (part, expected) = (raw.part.get(), raw.parts.get());
        if expected == 0 {
            continue;
        }
        if part >= expected {
            return Err(corrupt(&format!("part {part} of {expected}")));
        }
        let record = parts.entry(raw.record.get()).or_insert(Parts {
            expected: expected.into(),
            found: BTreeMap::new(),
            offset: offset + BLOCK_HEADER as u64,
        });
        if record.expected != usize::from(expected) || record.found.insert(part, data).is_some() {
            return Err(corrupt(&format!("part {part} of record {} is there twice", raw.record.get())));
        }
    }
    let mut whole = Vec::with_capacity(parts.len());
    for (id, record) in parts {
        if record.found.len() != record.expected {
            return Err(Error::Corrupt {
                what: format!("LDM record {id}: {} of its {} parts", record.found.len(), record.expected),
                offset: record.offset,
            });
        }
        whole.push((record.found.into_values().collect::<Vec<_>>().concat(), record.offset));
    }
    whole.sort_by_key(|(_, offset)| *offset);
    Ok(whole)
}
