//! Changing an MBR, and the chain of logical partitions in its extended one.

use vmcraft_block::BlockDevice;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::super::PartitionRole;
use super::super::mbr::{self, GPT_PROTECTIVE, MAX_LOGICAL, Mbr, RawEntry, RawSector, SECTOR};
use super::{NewPartition, chs, no_partition, number_taken, overlap, refuse, wipe_ends};
use crate::{Error, Result};

/// The type of a new partition: Linux.
const LINUX: u8 = 0x83;

/// The type of a new extended partition, and of the link from one record to the next.
const EXTENDED_LBA: u8 = 0x0f;
const EXTENDED: u8 = 0x05;

const SIGNATURE: [u8; 2] = [0x55, 0xaa];

/// An MBR in memory.
#[derive(Clone)]
pub(super) struct MbrEditor {
    sector_size: u32,
    disk_sectors: u64,
    /// Sector 0.
    first: RawSector,
    /// The logical partitions in the order of their numbers, or why they cannot be changed.
    logicals: Result<Vec<Logical>, String>,
    /// Whether the chain of logical partitions is written.
    chain_changed: bool,
    /// Whether what was at the ends of the disk goes.
    is_new: bool,
}

/// A logical partition and the boot record in front of it.
#[derive(Clone)]
struct Logical {
    /// The sector of its record; the first partition's is always the first of the extended one.
    record_sector: u64,
    /// The record as it was read. Its first entry is this partition, with a start that is not kept up.
    record: RawSector,
    /// Its first sector, from the start of the disk.
    first_sector: u64,
    /// How many sectors it has.
    len: u32,
}

impl Logical {
    fn last_sector(&self) -> u64 {
        self.first_sector + u64::from(self.len) - 1
    }
}

/// A primary partition's sectors, the last one included.
fn sectors(entry: &RawEntry) -> (u64, u64) {
    let first = u64::from(entry.start.get());
    (first, first + u64::from(entry.len.get()).saturating_sub(1))
}

impl MbrEditor {
    pub(super) fn open(device: &dyn BlockDevice, mbr: &Mbr, sector: &[u8; SECTOR]) -> Result<Self> {
        let sector_size = mbr::sector_size(device, mbr)?;
        let corrupt = |_| Error::Corrupt { what: "MBR".into(), offset: 0 };
        let first = RawSector::read_from_bytes(sector).map_err(corrupt)?;
        let extended: Vec<&RawEntry> =
            first.entries.iter().filter(|entry| entry.is_used() && entry.is_extended()).collect();
        let logicals = match extended[..] {
            [] => Ok(Vec::new()),
            [extended] => read_chain(device, sector_size, extended)?,
            _ => Err("there are several extended partitions".into()),
        };
        Ok(Self {
            sector_size,
            disk_sectors: device.size() / u64::from(sector_size),
            first,
            logicals,
            chain_changed: false,
            is_new: false,
        })
    }

    pub(super) fn create(device: &dyn BlockDevice, disk_id: u32) -> Result<Self> {
        let sector_size = device.logical_sector_size();
        let disk_sectors = device.size() / u64::from(sector_size);
        if disk_sectors < 2 {
            return refuse(format!("a disk of {} bytes is too small for partitions", device.size()));
        }
        let mut first = RawSector::new_zeroed();
        first.disk_id = disk_id.into();
        first.signature = SIGNATURE;
        Ok(Self {
            sector_size,
            disk_sectors,
            first,
            logicals: Ok(Vec::new()),
            chain_changed: false,
            is_new: true,
        })
    }

    pub(super) fn sector_size(&self) -> u32 {
        self.sector_size
    }

    pub(super) fn disk_sectors(&self) -> u64 {
        self.disk_sectors
    }

    pub(super) fn usable_sectors(&self) -> (u64, u64) {
        (1, self.disk_sectors.saturating_sub(1).min(u32::MAX.into()))
    }

    pub(super) fn add(&mut self, new: &NewPartition) -> Result<u32> {
        match new.role {
            PartitionRole::Primary => self.add_primary(new, LINUX),
            PartitionRole::Extended => {
                if self.extended().is_some() {
                    return refuse("the disk has an extended partition already, and can have only one");
                }
                let number = self.add_primary(new, EXTENDED_LBA)?;
                self.chain_changed = true;
                Ok(number)
            }
            PartitionRole::Logical => self.add_logical(new),
        }
    }

    fn add_primary(&mut self, new: &NewPartition, kind: u8) -> Result<u32> {
        self.check_primary(new.first_sector, new.last_sector, None)?;
        let (start, len) = short(new.first_sector, new.last_sector)?;
        let is_wanted = |number: u32| new.number.is_none_or(|wanted| wanted == number);
        let mut free = (1..).zip(&mut self.first.entries).filter(|(_, entry)| !entry.is_used());
        let Some((number, entry)) = free.find(|(number, _)| is_wanted(*number)) else {
            return match new.number {
                Some(number) => number_taken(number),
                None => refuse(
                    "all four entries of the MBR are in use: more partitions need an extended one in place of \
                     one of them",
                ),
            };
        };
        *entry = RawEntry::new_zeroed();
        entry.kind = kind;
        place(entry, start, len, new.first_sector);
        Ok(number)
    }

    fn add_logical(&mut self, new: &NewPartition) -> Result<u32> {
        let (extended_first, extended_last) = match self.extended() {
            Some((_, extended)) => sectors(extended),
            None => return refuse("a logical partition needs an extended partition around it"),
        };
        let count = self.logicals()?.len();
        if count >= MAX_LOGICAL as usize {
            return refuse(format!("the disk has {MAX_LOGICAL} logical partitions, which is the most"));
        }
        // Its record is in front of it, and of the first one at the start of the extended partition.
        let record_sector = if count == 0 { extended_first } else { new.first_sector.saturating_sub(1) };
        if new.first_sector <= extended_first
            || new.last_sector > extended_last
            || record_sector < extended_first
        {
            return refuse(format!(
                "sectors {} to {} are not within the extended partition behind its first sector, {} to {extended_last}",
                new.first_sector,
                new.last_sector,
                extended_first + 1,
            ));
        }
        self.check_logical(new.first_sector, new.last_sector, None)?;
        self.check_logical(record_sector, record_sector, None).map_err(|e| {
            Error::Refused(format!(
                "sector {record_sector} is needed for the boot record of the partition: {e}"
            ))
        })?;
        let (_, len) = short(new.first_sector, new.last_sector)?;
        let mut record = RawSector::new_zeroed();
        if let Some(entry) = record.entries.first_mut() {
            entry.kind = LINUX;
        }
        let logical = Logical { record_sector, record, first_sector: new.first_sector, len };
        self.logicals()?.push(logical);
        self.chain_changed = true;
        // 252 at most.
        Ok(u32::try_from(count).unwrap_or(u32::MAX).saturating_add(5))
    }

    pub(super) fn delete(&mut self, number: u32) -> Result<()> {
        if let Some(index) = number.checked_sub(5) {
            let logicals = self.logicals()?;
            if index as usize >= logicals.len() {
                return no_partition(number);
            }
            logicals.remove(index as usize);
            self.chain_changed = true;
            return Ok(());
        }
        let entry = self.primary(number)?;
        let was_extended = entry.is_extended();
        *entry = RawEntry::new_zeroed();
        if was_extended {
            self.logicals = Ok(Vec::new());
            self.chain_changed = false;
        }
        Ok(())
    }

    pub(super) fn resize(&mut self, number: u32, last_sector: u64) -> Result<()> {
        if last_sector >= self.disk_sectors {
            return refuse(format!("sector {last_sector} is beyond the end of the disk"));
        }
        let too_early = |first: u64| {
            refuse(format!("partition {number} begins at sector {first}, so it cannot end at {last_sector}"))
        };
        if let Some(index) = number.checked_sub(5) {
            let extended_last = self.extended().map_or(0, |(_, extended)| sectors(extended).1);
            let Some(first) = self.logicals()?.get(index as usize).map(|logical| logical.first_sector) else {
                return no_partition(number);
            };
            if last_sector < first {
                return too_early(first);
            }
            if last_sector > extended_last {
                return refuse(format!("the extended partition ends at sector {extended_last}"));
            }
            self.check_logical(first, last_sector, Some(number))?;
            let (_, len) = short(first, last_sector)?;
            if let Some(logical) = self.logicals()?.get_mut(index as usize) {
                logical.len = len;
            }
            self.chain_changed = true;
            return Ok(());
        }
        let entry = *self.primary(number)?;
        let (first, _) = sectors(&entry);
        if last_sector < first {
            return too_early(first);
        }
        self.check_primary(first, last_sector, Some(number))?;
        if entry.is_extended() {
            let inside = self.logicals()?.iter().map(Logical::last_sector).max();
            if let Some(end) = inside.filter(|end| *end > last_sector) {
                return refuse(format!("a logical partition in it ends at sector {end}"));
            }
        }
        let (start, len) = short(first, last_sector)?;
        place(self.primary(number)?, start, len, first);
        Ok(())
    }

    pub(super) fn set_active(&mut self, number: u32, active: bool) -> Result<()> {
        if active {
            // Boot code takes the first that is active, so there is one only.
            self.entry(number)?;
            self.first.entries.iter_mut().for_each(|entry| entry.boot_indicator = 0);
            if let Ok(logicals) = &mut self.logicals {
                for entry in logicals.iter_mut().filter_map(|logical| logical.record.entries.first_mut()) {
                    self.chain_changed |= entry.boot_indicator != 0;
                    entry.boot_indicator = 0;
                }
            }
        }
        self.chain_changed |= number >= 5;
        self.entry(number)?.boot_indicator = if active { 0x80 } else { 0 };
        Ok(())
    }

    pub(super) fn set_type(&mut self, number: u32, kind: u8) -> Result<()> {
        let has_logicals = !matches!(&self.logicals, Ok(logicals) if logicals.is_empty());
        let entry = self.entry(number)?;
        let is_extended = |kind| matches!(kind, 0x05 | 0x0f | 0x85);
        match kind {
            0 => return refuse("the type 0 is that of an unused entry; part-del takes a partition away"),
            GPT_PROTECTIVE => return refuse("the type 0xee would make the disk one with a GPT"),
            _ if is_extended(kind) && !is_extended(entry.kind) => {
                return refuse(format!(
                    "the type {kind:#04x} is that of an extended partition; part-add makes one"
                ));
            }
            _ if is_extended(entry.kind) && !is_extended(kind) && has_logicals => {
                return refuse(format!("partition {number} has logical partitions in it: delete them first"));
            }
            _ => entry.kind = kind,
        }
        self.chain_changed |= number >= 5;
        Ok(())
    }

    pub(super) fn set_disk_id(&mut self, id: u32) {
        self.first.disk_id = id.into();
    }

    pub(super) fn write(&self, device: &dyn BlockDevice) -> Result<()> {
        if self.is_new {
            wipe_ends(device, self.sector_size)?;
        }
        if self.chain_changed
            && let (Some((_, extended)), Ok(logicals)) = (self.extended(), &self.logicals)
        {
            self.write_chain(device, sectors(extended).0, logicals)?;
        }
        device.write_at(0, self.first.as_bytes())?;
        Ok(())
    }

    /// Writes the boot records. A partition's start counts from its record, the next record's from the
    /// start of the extended partition.
    fn write_chain(&self, device: &dyn BlockDevice, extended_first: u64, logicals: &[Logical]) -> Result<()> {
        let byte = |sector: u64| sector * u64::from(self.sector_size);
        let mut empty = RawSector::new_zeroed();
        empty.signature = SIGNATURE;
        if logicals.is_empty() {
            device.write_at(byte(extended_first), empty.as_bytes())?;
        }
        for (index, logical) in logicals.iter().enumerate() {
            let own = if index == 0 { extended_first } else { logical.record_sector };
            let mut record = logical.record.clone();
            record.signature = SIGNATURE;
            let link = match logicals.get(index + 1) {
                Some(next) => {
                    let mut link = RawEntry::new_zeroed();
                    link.kind = EXTENDED;
                    let (_, len) = short(next.record_sector, next.last_sector())?;
                    // Within the extended partition, so within 32 bits.
                    let start = u32::try_from(next.record_sector - extended_first).unwrap_or(u32::MAX);
                    place(&mut link, start, len, next.record_sector);
                    link
                }
                None => RawEntry::new_zeroed(),
            };
            let [entry, next, rest @ ..] = &mut record.entries;
            let start = u32::try_from(logical.first_sector - own).unwrap_or(u32::MAX);
            place(entry, start, logical.len, logical.first_sector);
            *next = link;
            rest.fill(RawEntry::new_zeroed());
            device.write_at(byte(own), record.as_bytes())?;
        }
        Ok(())
    }

    /// The extended partition and its number.
    fn extended(&self) -> Option<(u32, &RawEntry)> {
        (1..).zip(&self.first.entries).find(|(_, entry)| entry.is_used() && entry.is_extended())
    }

    fn logicals(&mut self) -> Result<&mut Vec<Logical>> {
        self.logicals
            .as_mut()
            .map_err(|why| Error::Unsupported(format!("changing logical partitions of a disk where {why}")))
    }

    fn primary(&mut self, number: u32) -> Result<&mut RawEntry> {
        let index = number.checked_sub(1).map_or(usize::MAX, |index| index as usize);
        match self.first.entries.get_mut(index).filter(|entry| entry.is_used()) {
            Some(entry) => Ok(entry),
            None => no_partition(number),
        }
    }

    /// The entry of a primary or logical partition.
    fn entry(&mut self, number: u32) -> Result<&mut RawEntry> {
        let Some(index) = number.checked_sub(5) else { return self.primary(number) };
        let logical = self.logicals()?.get_mut(index as usize);
        match logical.and_then(|logical| logical.record.entries.first_mut()) {
            Some(entry) => Ok(entry),
            None => no_partition(number),
        }
    }

    /// Refuses a range of a primary partition that lies over another than `own`.
    fn check_primary(&self, first: u64, last: u64, own: Option<u32>) -> Result<()> {
        if first == 0 {
            return refuse("sector 0 is the MBR");
        }
        for (number, entry) in (1..).zip(&self.first.entries).filter(|(number, _)| Some(*number) != own) {
            let (other_first, other_last) = sectors(entry);
            if entry.is_used() && other_first <= last && first <= other_last {
                return overlap(first, last, number, other_first, other_last);
            }
        }
        Ok(())
    }

    /// Refuses a range that lies over a logical partition other than `own`, or over a boot record.
    fn check_logical(&mut self, first: u64, last: u64, own: Option<u32>) -> Result<()> {
        let extended_first = self.extended().map_or(0, |(_, extended)| sectors(extended).0);
        for (number, logical) in (5..).zip(self.logicals()?.iter()) {
            let record = if number == 5 { extended_first } else { logical.record_sector };
            if Some(number) != own && logical.first_sector <= last && first <= logical.last_sector() {
                return overlap(first, last, number, logical.first_sector, logical.last_sector());
            }
            if (first..=last).contains(&record) {
                return refuse(format!("sector {record} has the boot record of logical partition {number}"));
            }
        }
        Ok(())
    }
}

/// Reads the chain of logical partitions, or says why it is none that can be written.
fn read_chain(
    device: &dyn BlockDevice,
    sector_size: u32,
    extended: &RawEntry,
) -> Result<Result<Vec<Logical>, String>> {
    let (extended_first, extended_last) = sectors(extended);
    let mut logicals: Vec<Logical> = Vec::new();
    let mut here = extended_first;
    // One more than can be listed, for an empty first record.
    for _ in 0..=MAX_LOGICAL {
        let Some(record) = mbr::read_record(device, here * u64::from(sector_size))? else {
            return Ok(if here == extended_first {
                Ok(logicals)
            } else {
                Err("the chain of logical partitions breaks".into())
            });
        };
        let used = || record.entries.iter().filter(|entry| entry.is_used());
        let links: Vec<&RawEntry> = used().filter(|entry| entry.is_extended()).collect();
        let partitions: Vec<&RawEntry> = used().filter(|entry| !entry.is_extended()).collect();
        match partitions[..] {
            [] => {}
            [entry] => {
                let first_sector = here + u64::from(entry.start.get());
                let mut record = record.clone();
                record.entries[0] = *entry;
                let logical = Logical { record_sector: here, record, first_sector, len: entry.len.get() };
                if entry.start.get() == 0 || logical.last_sector() > extended_last {
                    return Ok(Err("a logical partition reaches beyond its place".into()));
                }
                logicals.push(logical);
            }
            _ => return Ok(Err("a boot record has several logical partitions".into())),
        }
        match links[..] {
            [] => return Ok(Ok(logicals)),
            [link] => {
                here = extended_first + u64::from(link.start.get());
                if here > extended_last || here == extended_first {
                    return Ok(Err("the chain of logical partitions leads out of the extended one".into()));
                }
            }
            _ => return Ok(Err("a boot record has several successors".into())),
        }
    }
    Ok(Err("the chain of logical partitions is too long".into()))
}

/// A start and a length as an MBR can have them, in 32 bits.
fn short(first: u64, last: u64) -> Result<(u32, u32)> {
    match (u32::try_from(first), u32::try_from(last - first + 1)) {
        (Ok(start), Ok(len)) => Ok((start, len)),
        _ => refuse(format!(
            "sectors {first} to {last}: an MBR counts to 2^32 sectors only; a GPT has room for larger disks"
        )),
    }
}

/// Puts a range into an entry. `start` counts as the entry's place has it, `absolute` from the start of
/// the disk.
fn place(entry: &mut RawEntry, start: u32, len: u32, absolute: u64) {
    entry.start = start.into();
    entry.len = len.into();
    entry.chs_start = chs(absolute);
    entry.chs_end = chs(absolute + u64::from(len) - 1);
}
