//! The GUID partition table.
//!
//! Spec: UEFI Specification 2.10, chapter 5.3. All numbers are little-endian; an LBA counts sectors
//! of the disk's logical sector size. The header stands in sector 1 and again in the last sector,
//! each with its own copy of the entries.

use uuid::Uuid;
use vmcraft_block::BlockDevice;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Partition, PartitionRole, PartitionTable, TableKind};
use crate::{Error, Result};

/// What a header begins with.
pub(crate) const SIGNATURE: &[u8; 8] = b"EFI PART";

/// The largest array of entries that is read: 64 times what the spec has as the least.
const MAX_ENTRIES_BYTES: u64 = 1 << 20;

/// The attribute "legacy BIOS bootable".
pub(super) const LEGACY_BOOTABLE: u64 = 1 << 2;

/// The header on disk: the first 92 bytes of its sector.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone)]
#[repr(C)]
pub(super) struct RawHeader {
    /// 0x00: always [`SIGNATURE`].
    pub(super) signature: [u8; 8],
    /// 0x08: 1.0.
    pub(super) revision: U32,
    /// 0x0c: the header's size in bytes, which the checksum is over.
    pub(super) header_size: U32,
    /// 0x10: CRC-32 of the header with this field zero.
    pub(super) header_crc32: U32,
    kept_14: [u8; 4],
    /// 0x18: the sector that holds this header.
    pub(super) my_lba: U64,
    /// 0x20: the sector that holds the other header.
    pub(super) alternate_lba: U64,
    /// 0x28: the first sector that a partition may use.
    pub(super) first_usable_lba: U64,
    /// 0x30: the last such sector.
    pub(super) last_usable_lba: U64,
    /// 0x38: the disk's GUID.
    pub(super) disk_guid: [u8; 16],
    /// 0x48: where the entries begin.
    pub(super) entries_lba: U64,
    /// 0x50: how many entries there are, used or not.
    pub(super) entry_count: U32,
    /// 0x54: the size of an entry in bytes: 128 times a power of two.
    pub(super) entry_size: U32,
    /// 0x58: CRC-32 of all entries.
    pub(super) entries_crc32: U32,
}
const _: () = assert!(size_of::<RawHeader>() == 92);

/// The part of an entry that the spec defines.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawEntry {
    /// 0x00: the type's GUID; zeros if the entry is not used.
    pub(super) type_guid: [u8; 16],
    /// 0x10: the partition's own GUID.
    pub(super) guid: [u8; 16],
    /// 0x20: its first sector.
    pub(super) first_lba: U64,
    /// 0x28: its last sector, which is part of it.
    pub(super) last_lba: U64,
    /// 0x30: attribute bits.
    pub(super) attributes: U64,
    /// 0x38: its name in UTF-16, filled up with NUL.
    pub(super) name: [U16; 36],
}
const _: () = assert!(size_of::<RawEntry>() == 128);

/// A header, checked as far as it can be without the entries.
pub(super) struct Header {
    pub(super) sector_size: u32,
    /// The sector that holds it, with what follows it there.
    pub(super) sector: Vec<u8>,
    offset: u64, // of this header on the disk, in bytes
    pub(super) alternate_offset: u64,
    disk_guid: String,
    pub(super) entries_offset: u64,
    pub(super) entry_count: u32,
    pub(super) entry_size: u32,
    entries_crc32: u32,
}

impl Header {
    /// Whether it is the second copy, at the end of the disk.
    pub(super) fn is_backup(&self) -> bool {
        self.offset != u64::from(self.sector_size)
    }

    /// Checks the header that was read from byte `offset` of a disk.
    fn decode(sector: &[u8], offset: u64) -> Result<Self> {
        let corrupt = |what: &str, at: u64| {
            Err(Error::Corrupt { what: format!("GPT header: {what}"), offset: offset + at })
        };
        let Ok(sector_size) = u32::try_from(sector.len()) else { return corrupt("sector size", 0) };
        let Ok((raw, _)) = RawHeader::ref_from_prefix(sector) else { return corrupt("size", 0) };
        if raw.signature != *SIGNATURE {
            return corrupt("signature", 0);
        }
        let header_size = raw.header_size.get() as usize;
        let Some(header) = sector.get(..header_size).filter(|header| header.len() >= size_of::<RawHeader>())
        else {
            return corrupt("size", 0x0c);
        };
        if header_checksum(header) != raw.header_crc32.get() {
            return corrupt("checksum", 0x10);
        }
        let bytes = |lba: u64| lba.checked_mul(u64::from(sector_size));
        if bytes(raw.my_lba.get()) != Some(offset) {
            return corrupt("own position", 0x18);
        }
        let Some(alternate_offset) = bytes(raw.alternate_lba.get()) else {
            return corrupt("position of the other header", 0x20);
        };
        if raw.first_usable_lba.get() > raw.last_usable_lba.get().saturating_add(1) {
            return corrupt("first usable sector", 0x28);
        }
        let Some(entries_offset) = bytes(raw.entries_lba.get()) else {
            return corrupt("position of the entries", 0x48);
        };
        let (entry_count, entry_size) = (raw.entry_count.get(), raw.entry_size.get());
        if entry_size < 128 || !entry_size.is_power_of_two() {
            return corrupt("entry size", 0x54);
        }
        if u64::from(entry_count) * u64::from(entry_size) > MAX_ENTRIES_BYTES {
            return corrupt("number of entries", 0x50);
        }
        Ok(Self {
            sector_size,
            sector: sector.to_vec(),
            offset,
            alternate_offset,
            disk_guid: guid(raw.disk_guid),
            entries_offset,
            entry_count,
            entry_size,
            entries_crc32: raw.entries_crc32.get(),
        })
    }

    /// Reads and checks the header at byte `offset`.
    fn read(device: &dyn BlockDevice, sector_size: u32, offset: u64) -> Result<Self> {
        let mut sector = vec![0; sector_size as usize];
        let end = offset.checked_add(u64::from(sector_size));
        if end.is_none_or(|end| end > device.size()) {
            return Err(Error::Corrupt {
                what: "GPT: the header would lie beyond the end of the disk".into(),
                offset,
            });
        }
        device.read_at(offset, &mut sector)?;
        Self::decode(&sector, offset)
    }

    /// Reads the entries and checks their sum.
    fn read_entries(&self, device: &dyn BlockDevice) -> Result<Vec<u8>> {
        let corrupt = |what: &str, offset| Error::Corrupt { what: format!("GPT entries: {what}"), offset };
        let len = u64::from(self.entry_count) * u64::from(self.entry_size);
        if self.entries_offset.checked_add(len).is_none_or(|end| end > device.size()) {
            return Err(corrupt("they would lie beyond the end of the disk", self.offset + 0x48));
        }
        // `decode` bounded it.
        let mut entries = vec![0; usize::try_from(len).unwrap_or_default()];
        device.read_at(self.entries_offset, &mut entries)?;
        if crc32fast::hash(&entries) != self.entries_crc32 {
            return Err(corrupt("checksum", self.entries_offset));
        }
        Ok(entries)
    }
}

/// A header and its entries, both good.
pub(super) type Copy = (Header, Vec<u8>);

/// CRC-32 of a header of at least 0x14 bytes, with the place of the sum taken for zero.
pub(super) fn header_checksum(header: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..0x10]);
    crc.update(&[0; 4]);
    crc.update(&header[0x14..]);
    crc.finalize()
}

fn read_copy(device: &dyn BlockDevice, sector_size: u32, offset: u64) -> Result<Copy> {
    let header = Header::read(device, sector_size, offset)?;
    let entries = header.read_entries(device)?;
    Ok((header, entries))
}

/// The sector sizes to try, the likely one first: an image file does not tell that it is of a disk
/// with 4096-byte sectors.
pub(super) fn sector_sizes(device: &dyn BlockDevice) -> impl Iterator<Item = u32> {
    let given = device.logical_sector_size();
    std::iter::once(given).chain([512, 4096].into_iter().filter(move |size| *size != given))
}

/// Reads the GPT of a disk that has a protective MBR. `others` are the slots of a hybrid MBR.
pub(super) fn read(device: &dyn BlockDevice, others: &[u32]) -> Result<PartitionTable> {
    let mut warnings = Vec::new();
    let (header, entries) = read_either(device, &mut warnings)?;
    if !others.is_empty() {
        let slots: Vec<_> = others.iter().map(u32::to_string).collect();
        warnings.push(format!(
            "the disk has a hybrid MBR: the GPT is used, and MBR partition{} {} ignored",
            if slots.len() == 1 { "" } else { "s" },
            slots.join(", ") + if slots.len() == 1 { " is" } else { " are" },
        ));
    }
    let mut partitions = Vec::new();
    for (number, entry) in (1..).zip(entries.chunks_exact(header.entry_size as usize)) {
        match decode_entry(number, entry, header.sector_size) {
            Ok(None) => {}
            Ok(Some(partition)) => partitions.push(partition),
            Err(what) => warnings.push(format!("GPT entry {number} is not used: {what}")),
        }
    }
    Ok(PartitionTable {
        kind: TableKind::Gpt,
        sector_size: header.sector_size,
        partitions,
        disk_guid: Some(header.disk_guid),
        mbr_id: None,
        warnings,
    })
}

/// The first copy of the table, or the backup if the first is damaged.
pub(super) fn read_either(device: &dyn BlockDevice, warnings: &mut Vec<String>) -> Result<Copy> {
    let mut fault: Option<Error> = None;
    for sector_size in sector_sizes(device) {
        match read_copy(device, sector_size, sector_size.into()) {
            Ok(copy) => {
                warnings.extend(backup_fault(device, &copy.0));
                return Ok(copy);
            }
            // What is wrong with a header that is there says more than that there is none.
            Err(e @ Error::Corrupt { .. }) if fault.is_none() || has_signature(device, sector_size)? => {
                fault = Some(e);
            }
            Err(Error::Corrupt { .. }) => {}
            Err(e) => return Err(e),
        }
    }
    let (what, offset) = match fault {
        Some(Error::Corrupt { what, offset }) => (what, offset),
        // Nothing else is put there, and the loop went round at least once.
        _ => Default::default(),
    };
    for sector_size in sector_sizes(device) {
        let last = (device.size() / u64::from(sector_size)).saturating_sub(1) * u64::from(sector_size);
        if let Ok(copy) = read_copy(device, sector_size, last) {
            warnings.push(format!(
                "corrupt {what} at byte {offset:#x} of the disk: the backup at byte {last:#x} is used; \
                 sgdisk can repair the first"
            ));
            return Ok(copy);
        }
    }
    Err(Error::Corrupt { what: format!("{what} (and the backup is no better)"), offset })
}

/// Whether something that calls itself a GPT header is in the second sector of this size.
fn has_signature(device: &dyn BlockDevice, sector_size: u32) -> Result<bool> {
    let mut signature = [0; SIGNATURE.len()];
    if device.size() < u64::from(sector_size) * 2 {
        return Ok(false);
    }
    device.read_at(sector_size.into(), &mut signature)?;
    Ok(signature == *SIGNATURE)
}

/// What is wrong with the backup of a good table.
fn backup_fault(device: &dyn BlockDevice, first: &Header) -> Option<String> {
    match read_copy(device, first.sector_size, first.alternate_offset) {
        Ok((backup, _))
            if backup.disk_guid == first.disk_guid && backup.entries_crc32 == first.entries_crc32 =>
        {
            None
        }
        Ok(_) => Some(format!(
            "the backup of the GPT at byte {:#x} is not the same as the first, which is used",
            first.alternate_offset
        )),
        Err(e) => Some(format!("the backup of the GPT is damaged: {e}")),
    }
}

/// The partition of an entry, `None` if it is not used, or why it cannot be.
fn decode_entry(number: u32, entry: &[u8], sector_size: u32) -> Result<Option<Partition>, &'static str> {
    let Ok((raw, _)) = RawEntry::ref_from_prefix(entry) else { return Ok(None) };
    if raw.type_guid == [0; 16] {
        return Ok(None);
    }
    let (first, last) = (raw.first_lba.get(), raw.last_lba.get());
    if first > last {
        return Err("it ends before it begins");
    }
    let bytes = |lba: u64| lba.checked_mul(u64::from(sector_size));
    let end = last.checked_add(1).and_then(bytes).ok_or("it ends beyond what can be counted")?;
    let start = bytes(first).ok_or("it begins beyond what can be counted")?;
    let own = guid(raw.guid);
    Ok(Some(Partition {
        number,
        start_bytes: start,
        len_bytes: end - start,
        role: PartitionRole::Primary,
        mbr_type: None,
        type_guid: Some(guid(raw.type_guid)),
        part_uuid: own.to_ascii_lowercase(),
        guid: Some(own),
        name: Some(name(&raw.name)),
        attributes: raw.attributes.get(),
        bootable: raw.attributes.get() & LEGACY_BOOTABLE != 0,
    }))
}

/// A GUID's first three fields are little-endian.
fn guid(bytes: [u8; 16]) -> String {
    Uuid::from_bytes_le(bytes).hyphenated().to_string().to_ascii_uppercase()
}

/// UTF-16 up to the first NUL, or the first FFFF: what was never written on flash reads as that.
fn name(units: &[U16]) -> String {
    let units = units.iter().map(|unit| unit.get()).take_while(|unit| !matches!(unit, 0 | 0xffff));
    char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}
