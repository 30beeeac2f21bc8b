//! Changing a GUID partition table: both copies are written, each with its checksums.

use std::ops::RangeInclusive;

use uuid::Uuid;
use vmcraft_block::BlockDevice;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::super::PartitionRole;
use super::super::gpt::{self, RawEntry, RawHeader, SIGNATURE};
use super::super::mbr::{GPT_PROTECTIVE, RawSector, SECTOR};
use super::{NewPartition, chs, no_partition, number_taken, overlap, refuse, wipe_ends};
use crate::{Error, Result};

/// What the spec has as the least, and everybody makes.
const ENTRY_COUNT: u32 = 128;
const ENTRY_SIZE: u32 = 128;

/// Revision 1.0.
const REVISION: u32 = 0x0001_0000;

const MBR_SIGNATURE: [u8; 2] = [0x55, 0xaa];

/// A GPT in memory.
#[derive(Clone)]
pub(super) struct GptEditor {
    sector_size: u32,
    disk_sectors: u64,
    /// Sector 0.
    mbr: RawSector,
    /// The sector of the first header. Its fields are in `header`.
    header_sector: Vec<u8>,
    header: RawHeader,
    entries: Vec<u8>,
    /// Whether what was at the ends of the disk goes.
    is_new: bool,
    /// Where the backup was before it was moved to the end of the disk.
    old_backup: Option<u64>,
}

impl GptEditor {
    /// Reads the GPT of a disk, from its backup if the first copy is damaged.
    pub(super) fn open(device: &dyn BlockDevice, mbr: &[u8; SECTOR]) -> Result<Self> {
        let corrupt = |what: &str| Error::Corrupt { what: format!("GPT header: {what}"), offset: 0 };
        let (found, entries) = gpt::read_either(device, &mut Vec::new())?;
        let sector_size = u64::from(found.sector_size);
        let Ok((mut header, _)) = RawHeader::read_from_prefix(&found.sector) else {
            return Err(corrupt("size"));
        };
        if found.is_backup() {
            (header.my_lba, header.alternate_lba) = (header.alternate_lba, header.my_lba);
            header.entries_lba = 2.into();
        }
        let editor = Self {
            sector_size: found.sector_size,
            disk_sectors: device.size() / sector_size,
            mbr: RawSector::read_from_bytes(mbr).map_err(|_| corrupt("protective MBR"))?,
            header_sector: found.sector,
            header,
            entries,
            is_new: false,
            old_backup: None,
        };
        // The copies, and the partitions between them, must not lie over each other.
        let (first_usable, last_usable) = editor.usable_sectors();
        let entries_lba = editor.header.entries_lba.get();
        let fits = editor.header.my_lba.get() == 1
            && entries_lba >= 2
            && entries_lba.checked_add(editor.entries_sectors()).is_some_and(|end| end <= first_usable)
            && last_usable < editor.header.alternate_lba.get().saturating_sub(editor.entries_sectors());
        if fits { Ok(editor) } else { Err(corrupt("the usable sectors reach into the table itself")) }
    }

    /// An empty table.
    pub(super) fn create(device: &dyn BlockDevice, disk_guid: Uuid) -> Result<Self> {
        let sector_size = device.logical_sector_size();
        let disk_sectors = device.size() / u64::from(sector_size);
        let len = ENTRY_COUNT * ENTRY_SIZE;
        let entries_sectors = u64::from(len.div_ceil(sector_size));
        // The MBR, both copies, and a sector for a partition.
        if disk_sectors < 2 * entries_sectors + 4 {
            return refuse(format!(
                "a disk of {} bytes is too small for a GPT, which needs {} bytes at least",
                device.size(),
                (2 * entries_sectors + 4) * u64::from(sector_size)
            ));
        }
        let mut header = RawHeader::new_zeroed();
        header.signature = *SIGNATURE;
        header.revision = REVISION.into();
        header.header_size = 92.into();
        header.my_lba = 1.into();
        header.alternate_lba = (disk_sectors - 1).into();
        header.first_usable_lba = (2 + entries_sectors).into();
        header.last_usable_lba = (disk_sectors - entries_sectors - 2).into();
        header.disk_guid = disk_guid.to_bytes_le();
        header.entries_lba = 2.into();
        header.entry_count = ENTRY_COUNT.into();
        header.entry_size = ENTRY_SIZE.into();
        let mut mbr = RawSector::new_zeroed();
        mbr.signature = MBR_SIGNATURE;
        let mut editor = Self {
            sector_size,
            disk_sectors,
            mbr,
            header_sector: vec![0; sector_size as usize],
            header,
            entries: vec![0; len as usize],
            is_new: true,
            old_backup: None,
        };
        editor.protect(0);
        Ok(editor)
    }

    pub(super) fn sector_size(&self) -> u32 {
        self.sector_size
    }

    pub(super) fn disk_sectors(&self) -> u64 {
        self.disk_sectors
    }

    pub(super) fn usable_sectors(&self) -> (u64, u64) {
        (self.header.first_usable_lba.get(), self.header.last_usable_lba.get())
    }

    pub(super) fn add(&mut self, new: &NewPartition) -> Result<u32> {
        let range = new.first_sector..=new.last_sector;
        self.check_free(&range, None)?;
        if new.role != PartitionRole::Primary {
            return refuse("a GPT has neither extended nor logical partitions");
        }
        let name = encode_name(&new.name)?;
        let mut numbers = 1..=self.entry_count();
        if let Some(number) = new.number {
            if !numbers.contains(&number) || self.entry(number).is_some() {
                return number_taken(number);
            }
            numbers = number..=number;
        }
        let Some(number) = numbers.into_iter().find(|number| self.entry(*number).is_none()) else {
            return refuse(format!("all {} entries of the GPT are in use", self.entry_count()));
        };
        let mut entry = RawEntry::new_zeroed();
        entry.type_guid = new.type_guid.to_bytes_le();
        entry.guid = new.guid.to_bytes_le();
        entry.first_lba = new.first_sector.into();
        entry.last_lba = new.last_sector.into();
        entry.name = name.map(Into::into);
        // What stood in the slot before is not of this partition.
        self.slot(number)?.fill(0);
        self.put(number, &entry)?;
        Ok(number)
    }

    pub(super) fn delete(&mut self, number: u32) -> Result<()> {
        let entry = self.used(number)?;
        self.refuse_hybrid(number, &entry)?;
        self.slot(number)?.fill(0);
        Ok(())
    }

    pub(super) fn resize(&mut self, number: u32, last_sector: u64) -> Result<()> {
        let mut entry = self.used(number)?;
        let first = entry.first_lba.get();
        if last_sector < first {
            return refuse(format!(
                "partition {number} begins at sector {first}, so it cannot end at {last_sector}"
            ));
        }
        self.check_free(&(first..=last_sector), Some(number))?;
        self.refuse_hybrid(number, &entry)?;
        entry.last_lba = last_sector.into();
        self.put(number, &entry)
    }

    pub(super) fn type_guid(&self, number: u32) -> Result<Uuid> {
        Ok(Uuid::from_bytes_le(self.used(number)?.type_guid))
    }

    pub(super) fn set_type(&mut self, number: u32, kind: Uuid) -> Result<()> {
        let mut entry = self.used(number)?;
        entry.type_guid = kind.to_bytes_le();
        self.put(number, &entry)
    }

    pub(super) fn set_guid(&mut self, number: u32, guid: Uuid) -> Result<()> {
        let mut entry = self.used(number)?;
        let is_taken = (1..=self.entry_count())
            .any(|other| other != number && self.entry(other).is_some_and(|e| e.guid == guid.to_bytes_le()));
        if is_taken {
            return refuse(format!("another partition of the disk has the GUID {guid:X}"));
        }
        entry.guid = guid.to_bytes_le();
        self.put(number, &entry)
    }

    pub(super) fn set_attributes(&mut self, number: u32, attributes: u64) -> Result<()> {
        let mut entry = self.used(number)?;
        entry.attributes = attributes.into();
        self.put(number, &entry)
    }

    pub(super) fn set_name(&mut self, number: u32, name: &str) -> Result<()> {
        let mut entry = self.used(number)?;
        entry.name = encode_name(name)?.map(Into::into);
        self.put(number, &entry)
    }

    pub(super) fn set_disk_guid(&mut self, guid: Uuid) {
        self.header.disk_guid = guid.to_bytes_le();
    }

    pub(super) fn expand(&mut self) -> Result<()> {
        let backup = self.disk_sectors.saturating_sub(1);
        let last_usable = backup.saturating_sub(self.entries_sectors() + 1);
        let beyond = (1..=self.entry_count())
            .filter_map(|number| Some((number, self.entry(number)?)))
            .find(|(_, entry)| entry.last_lba.get() > last_usable);
        if let Some((number, entry)) = beyond {
            return refuse(format!(
                "partition {number} ends at sector {}, and with the backup of the GPT behind it the disk would have to be larger",
                entry.last_lba
            ));
        }
        if last_usable < self.header.first_usable_lba.get() {
            return refuse("the disk is too small for its GPT");
        }
        let old = self.header.alternate_lba.get();
        if old != backup {
            self.old_backup.get_or_insert(old);
        }
        self.header.alternate_lba = backup.into();
        self.header.last_usable_lba = last_usable.into();
        if let Some(slot) =
            self.mbr.entries.iter().position(|entry| entry.kind == GPT_PROTECTIVE && entry.start.get() == 1)
            && self.mbr.entries.iter().all(|entry| matches!(entry.kind, 0 | GPT_PROTECTIVE))
        {
            self.protect(slot);
        }
        Ok(())
    }

    pub(super) fn write(&self, device: &dyn BlockDevice) -> Result<()> {
        let backup = self.header.alternate_lba.get();
        if backup >= self.disk_sectors {
            return refuse(format!(
                "the backup of the GPT should be in sector {backup}, and the disk ends after sector {}: \
                 it was cut off; part-expand-gpt moves the backup",
                self.disk_sectors.saturating_sub(1)
            ));
        }
        // `open` and `expand` keep the copies within the disk, so no product overflows.
        let byte = |sector: u64| sector * u64::from(self.sector_size);
        if self.is_new {
            wipe_ends(device, self.sector_size)?;
        }
        if let Some(old) = self.old_backup
            && old < self.disk_sectors
        {
            device.write_at(byte(old), &vec![0; self.sector_size as usize])?;
        }
        // The sector's rest behind the entries belongs to the table, too.
        let mut entries = self.entries.clone();
        entries.resize(usize::try_from(byte(self.entries_sectors())).unwrap_or_default(), 0);
        let backup_entries = backup - self.entries_sectors();
        device.write_at(byte(backup_entries), &entries)?;
        device.write_at(byte(backup), &self.encode_header(backup, 1, backup_entries))?;
        let first_entries = self.header.entries_lba.get();
        device.write_at(byte(first_entries), &entries)?;
        device.write_at(byte(1), &self.encode_header(1, backup, first_entries))?;
        device.write_at(0, self.mbr.as_bytes())?;
        Ok(())
    }

    /// The sector of one of the two headers.
    fn encode_header(&self, own: u64, other: u64, entries: u64) -> Vec<u8> {
        let mut header = self.header.clone();
        header.my_lba = own.into();
        header.alternate_lba = other.into();
        header.entries_lba = entries.into();
        header.entries_crc32 = crc32fast::hash(&self.entries).into();
        let mut sector = self.header_sector.clone();
        // A sector is longer than the structure: the reader took it from there.
        sector[..size_of::<RawHeader>()].copy_from_slice(header.as_bytes());
        let len = header.header_size.get() as usize;
        let crc = gpt::header_checksum(&sector[..len.min(self.header_sector.len())]);
        sector[0x10..0x14].copy_from_slice(&crc.to_le_bytes());
        sector
    }

    fn entries_sectors(&self) -> u64 {
        (self.entries.len() as u64).div_ceil(self.sector_size.into())
    }

    fn entry_count(&self) -> u32 {
        self.header.entry_count.get()
    }

    /// The bytes of an entry.
    fn slot(&mut self, number: u32) -> Result<&mut [u8]> {
        let size = self.header.entry_size.get() as usize;
        let index = number.checked_sub(1).map_or(usize::MAX, |index| index as usize);
        match self.entries.chunks_exact_mut(size).nth(index) {
            Some(slot) => Ok(slot),
            None => no_partition(number),
        }
    }

    fn put(&mut self, number: u32, entry: &RawEntry) -> Result<()> {
        // Entries have 128 bytes or more: the reader checked it.
        self.slot(number)?[..size_of::<RawEntry>()].copy_from_slice(entry.as_bytes());
        Ok(())
    }

    /// The entry with this number if it is in use.
    fn entry(&self, number: u32) -> Option<RawEntry> {
        let size = self.header.entry_size.get() as usize;
        let index = number.checked_sub(1)? as usize;
        let bytes = self.entries.chunks_exact(size).nth(index)?;
        let (entry, _) = RawEntry::read_from_prefix(bytes).ok()?;
        (entry.type_guid != [0; 16]).then_some(entry)
    }

    fn used(&self, number: u32) -> Result<RawEntry> {
        match self.entry(number) {
            Some(entry) => Ok(entry),
            None => no_partition(number),
        }
    }

    /// Refuses a range that is not usable or lies over a partition other than `own`.
    fn check_free(&self, range: &RangeInclusive<u64>, own: Option<u32>) -> Result<()> {
        let (first, last) = (*range.start(), *range.end());
        let (first_usable, last_usable) = self.usable_sectors();
        if first < first_usable || last > last_usable {
            return refuse(format!(
                "sectors {first} to {last} are not within those that the GPT leaves to partitions, {first_usable} to {last_usable}{}",
                if self.header.alternate_lba.get() + 1 < self.disk_sectors {
                    "; the disk is larger than the GPT knows: part-expand-gpt tells it"
                } else {
                    ""
                }
            ));
        }
        for number in (1..=self.entry_count()).filter(|number| Some(*number) != own) {
            let Some(entry) = self.entry(number) else { continue };
            let (other_first, other_last) = (entry.first_lba.get(), entry.last_lba.get());
            if other_first <= last && first <= other_last {
                return overlap(first, last, number, other_first, other_last);
            }
        }
        Ok(())
    }

    /// A partition that a hybrid MBR has, too, keeps its place: the MBR would go on showing the old
    /// one.
    fn refuse_hybrid(&self, number: u32, entry: &RawEntry) -> Result<()> {
        let is_in_mbr = self.mbr.entries.iter().any(|other| {
            !matches!(other.kind, 0 | GPT_PROTECTIVE) && u64::from(other.start.get()) == entry.first_lba.get()
        });
        if is_in_mbr {
            return Err(Error::Unsupported(format!(
                "moving the end of partition {number} or deleting it: it is in the disk's hybrid MBR, too"
            )));
        }
        Ok(())
    }

    /// Lets an entry of the MBR protect all of the disk.
    fn protect(&mut self, slot: usize) {
        let len = self.disk_sectors.saturating_sub(1);
        if let Some(entry) = self.mbr.entries.get_mut(slot) {
            entry.kind = GPT_PROTECTIVE;
            entry.chs_start = chs(1);
            entry.chs_end = match chs(len) {
                // The spec has another last value than MBRs.
                [0xfe, 0xff, 0xff] => [0xff; 3],
                end => end,
            };
            entry.start = 1.into();
            entry.len = u32::try_from(len).unwrap_or(u32::MAX).into();
        }
    }
}

/// A name in UTF-16, filled up with NUL.
fn encode_name(name: &str) -> Result<[u16; 36]> {
    let mut units = [0; 36];
    let mut count = 0;
    for unit in name.encode_utf16() {
        let Some(slot) = units.get_mut(count) else {
            return refuse(format!(
                "the name {name:?} has more than the 36 UTF-16 units that a GPT has room for"
            ));
        };
        *slot = unit;
        count += 1;
    }
    if units[..count].contains(&0) {
        return refuse("a NUL in the name of a partition");
    }
    Ok(units)
}
