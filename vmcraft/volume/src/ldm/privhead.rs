//! The private header: which disk this is, of which group, and where its database is.

use bstr::ByteSlice;
use uuid::Uuid;
use vmcraft_block::BlockDevice;
use zerocopy::byteorder::big_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::partition::{PartitionTable, TableKind};
use crate::{Error, Result};

/// The unit of all numbers in the database, in bytes.
pub(super) const SECTOR: u64 = 512;
/// The type of MBR partitions that a dynamic disk covers itself with.
const MBR_TYPE: u8 = 0x42;
/// The type of the GPT partition that holds the database.
const GPT_METADATA: &str = "5808C8AA-7E8F-42E0-85D2-E1E90434CFB3";
/// Where the header is on a disk with an MBR, in sectors.
const ON_MBR: u64 = 6;
/// Where its copies are in the database, in sectors, and how many sectors a database has.
const COPIES: [u64; 2] = [2047, 1856];
const DATABASE_SECTORS: u64 = 2048;
/// The largest database that is read, in bytes: Windows makes them of 1 MiB.
const MAX_DATABASE: u64 = 16 << 20;

/// The header on disk, big-endian.
///
/// Spec: "Windows NT Logical Disk Manager", the documentation of the Linux-NTFS project; `libldm`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPrivhead {
    /// 0x000: `PRIVHEAD`.
    signature: [u8; 8],
    kept_008: [u8; 4],
    /// 0x00c: 2.11 up to Windows 2003, 2.12 later.
    major: U16,
    minor: U16,
    kept_010: [u8; 32],
    /// 0x030: GUIDs and a name as text, filled up with NULs.
    disk_guid: [u8; 64],
    host_guid: [u8; 64],
    group_guid: [u8; 64],
    group_name: [u8; 32],
    kept_110: [u8; 11],
    /// 0x11b: the part of the disk that partitions lie in, in sectors.
    data_start: U64,
    data_sectors: U64,
    /// 0x12b: the database, likewise.
    database_start: U64,
    database_sectors: U64,
}
const _: () = assert!(size_of::<RawPrivhead>() == 0x13b);

/// The header, checked.
#[derive(Debug, Clone)]
pub(super) struct Privhead {
    pub(super) disk_guid: Uuid,
    pub(super) group_guid: Uuid,
    /// Where the data is, in bytes from the start of the disk.
    pub(super) data_start: u64,
    pub(super) data_bytes: u64,
    /// Where the database is, likewise: all of it is on the disk.
    pub(super) database_start: u64,
    pub(super) database_bytes: usize,
    /// What is wrong with a copy that was passed over.
    pub(super) warning: Option<String>,
}

/// Finds the header of a disk; `None` if the disk is not a dynamic one.
pub(super) fn find(device: &dyn BlockDevice) -> Result<Option<Privhead>> {
    // A table that cannot be read is not our matter.
    let Ok(Some(table)) = PartitionTable::read(device) else { return Ok(None) };
    let sectors = device.size() / SECTOR;
    let places: Vec<u64> = match table.kind {
        TableKind::Mbr => {
            if !table.partitions.iter().any(|partition| partition.mbr_type == Some(MBR_TYPE)) {
                return Ok(None);
            }
            // The database fills the last megabyte of the disk.
            let database = sectors.saturating_sub(DATABASE_SECTORS);
            std::iter::once(ON_MBR).chain(COPIES.iter().map(|copy| database + copy)).collect()
        }
        TableKind::Gpt => {
            let metadata = |guid: &Option<String>| guid.as_deref() == Some(GPT_METADATA);
            let Some(own) = table.partitions.iter().find(|partition| metadata(&partition.type_guid)) else {
                return Ok(None);
            };
            let last = (own.end_bytes() / SECTOR).saturating_sub(1);
            vec![last, own.start_bytes / SECTOR + COPIES[1]]
        }
    };
    if table.sector_size != 512 || device.logical_sector_size() != 512 {
        return Err(Error::Unsupported("dynamic disks (LDM) with sectors of 4096 bytes".into()));
    }
    let mut faults = Vec::new();
    for place in places {
        match read(device, place) {
            Ok(mut found) => {
                let what = faults.join("; ");
                found.warning = (!what.is_empty()).then_some(what);
                return Ok(Some(found));
            }
            Err(error @ (Error::Corrupt { .. } | Error::Unsupported(_))) => faults.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    Err(Error::Corrupt {
        what: format!("LDM private header, of which no copy is whole ({})", faults.join("; ")),
        offset: ON_MBR * SECTOR,
    })
}

fn read(device: &dyn BlockDevice, sector: u64) -> Result<Privhead> {
    let offset = sector.saturating_mul(SECTOR);
    let corrupt = |what: &str| Error::Corrupt { what: format!("LDM private header: {what}"), offset };
    let mut bytes = [0; size_of::<RawPrivhead>()];
    if device.size().saturating_sub(offset) < SECTOR {
        return Err(corrupt("beyond the end of the disk"));
    }
    device.read_at(offset, &mut bytes)?;
    // The array has as many bytes as the structure.
    let raw = RawPrivhead::ref_from_bytes(&bytes).map_err(|_| corrupt("size"))?;
    if raw.signature != *b"PRIVHEAD" {
        return Err(corrupt("signature"));
    }
    let (major, minor) = (raw.major.get(), raw.minor.get());
    if major != 2 || !(11..=12).contains(&minor) {
        return Err(Error::Unsupported(format!("an LDM private header of version {major}.{minor}")));
    }
    let in_bytes = |sectors: &U64, what: &str| sectors.get().checked_mul(SECTOR).ok_or_else(|| corrupt(what));
    let database_start = in_bytes(&raw.database_start, "place of the database")?;
    let database_bytes = in_bytes(&raw.database_sectors, "size of the database")?;
    if database_start.checked_add(database_bytes).is_none_or(|end| end > device.size()) {
        return Err(corrupt("the database is beyond the end of the disk"));
    }
    if database_bytes > MAX_DATABASE {
        return Err(Error::Unsupported(format!(
            "an LDM database of {database_bytes} bytes, more than {MAX_DATABASE}"
        )));
    }
    Ok(Privhead {
        disk_guid: guid(&raw.disk_guid).ok_or_else(|| corrupt("the disk's GUID"))?,
        group_guid: guid(&raw.group_guid).ok_or_else(|| corrupt("the group's GUID"))?,
        data_start: in_bytes(&raw.data_start, "place of the data")?,
        data_bytes: in_bytes(&raw.data_sectors, "size of the data")?,
        database_start,
        database_bytes: usize::try_from(database_bytes).map_err(|_| corrupt("size of the database"))?,
        warning: None,
    })
}

/// A GUID as text, up to its NUL.
pub(super) fn guid(text: &[u8]) -> Option<Uuid> {
    Uuid::try_parse(text.split(|byte| *byte == 0).next()?.to_str().ok()?).ok()
}
