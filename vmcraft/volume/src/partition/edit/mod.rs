//! Changing partition tables, and making them.

mod gpt;
mod mbr;

use uuid::Uuid;
use vmcraft_block::BlockDevice;

use self::gpt::GptEditor;
use self::mbr::MbrEditor;
use super::mbr::{FirstSector, SECTOR, decode};
use super::{PartitionRole, PartitionTable, TableKind};
use crate::{Error, Result};

/// The type that a new GPT partition has: Linux file system.
pub const LINUX_FILE_SYSTEM: Uuid = Uuid::from_u128(0x0FC6_3DAF_8483_4772_8E79_3D69_D847_7DE4);

/// The EFI system partition, which `parted` takes for a GPT's bootable one.
const EFI_SYSTEM: Uuid = Uuid::from_u128(0xC12A_7328_F81F_11D2_BA4B_00A0_C93E_C93B);

/// How much is wiped at each end of a disk that gets a new table: what other tables and most file
/// systems are known by is in there. In bytes; rounded up to more than a multiple of the sector.
const WIPED_BYTES: u64 = 9 << 10;

/// A partition to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPartition {
    /// Its number; without it, the lowest that is free. A logical partition's cannot be chosen.
    pub number: Option<u32>,
    /// MBR: primary, extended or logical. A GPT has primary partitions only.
    pub role: PartitionRole,
    /// Its first sector.
    pub first_sector: u64,
    /// Its last sector, which is part of it.
    pub last_sector: u64,
    /// GPT: its type. In an MBR the type becomes Linux's, 83, or 0f for an extended partition.
    pub type_guid: Uuid,
    /// GPT: its own GUID.
    pub guid: Uuid,
    /// GPT: its name.
    pub name: String,
}

/// A partition table that is being changed. Nothing is on the device before [`TableEditor::write`].
///
/// Sectors are of [`TableEditor::sector_size`] bytes. What the table does not define (boot code, unused
/// bytes of headers and entries) stays as it is.
///
/// Methods answer [`Error::Refused`] if the table cannot hold what is asked for; the editor is then as
/// it was before.
pub struct TableEditor(Kind);

enum Kind {
    Gpt(GptEditor),
    Mbr(MbrEditor),
}

impl TableEditor {
    /// Reads the table of a disk.
    ///
    /// # Errors
    /// As [`PartitionTable::read`], and [`Error::Refused`] if the disk has no table.
    pub fn open(device: &dyn BlockDevice) -> Result<Self> {
        let mut sector = [0; SECTOR];
        if device.size() >= sector.len() as u64 {
            device.read_at(0, &mut sector)?;
        }
        match decode(&sector) {
            FirstSector::Protective { .. } => Ok(Self(Kind::Gpt(GptEditor::open(device, &sector)?))),
            FirstSector::Table(mbr) => Ok(Self(Kind::Mbr(MbrEditor::open(device, &mbr, &sector)?))),
            FirstSector::FileSystem | FirstSector::Nothing => {
                // A table of another kind is named by the reader.
                PartitionTable::read(device)?;
                refuse("the disk has no partition table; part-init makes one")
            }
        }
    }

    /// An empty table for a disk, in place of any other. `id` becomes a GPT's disk GUID; the signature
    /// of an MBR is made of it.
    ///
    /// # Errors
    /// [`Error::Refused`] if the disk is too small.
    pub fn create(device: &dyn BlockDevice, kind: TableKind, id: Uuid) -> Result<Self> {
        Ok(Self(match kind {
            TableKind::Gpt => Kind::Gpt(GptEditor::create(device, id)?),
            TableKind::Mbr => {
                let (id, ..) = id.as_fields();
                // Systems take 0 for "none yet".
                Kind::Mbr(MbrEditor::create(device, id.max(1))?)
            }
        }))
    }

    /// The kind of table.
    pub fn kind(&self) -> TableKind {
        match &self.0 {
            Kind::Gpt(_) => TableKind::Gpt,
            Kind::Mbr(_) => TableKind::Mbr,
        }
    }

    /// The unit of sector numbers, in bytes.
    pub fn sector_size(&self) -> u32 {
        match &self.0 {
            Kind::Gpt(gpt) => gpt.sector_size(),
            Kind::Mbr(mbr) => mbr.sector_size(),
        }
    }

    /// How many sectors the disk has.
    pub fn disk_sectors(&self) -> u64 {
        match &self.0 {
            Kind::Gpt(gpt) => gpt.disk_sectors(),
            Kind::Mbr(mbr) => mbr.disk_sectors(),
        }
    }

    /// The first and the last sector that a partition may have.
    pub fn usable_sectors(&self) -> (u64, u64) {
        match &self.0 {
            Kind::Gpt(gpt) => gpt.usable_sectors(),
            Kind::Mbr(mbr) => mbr.usable_sectors(),
        }
    }

    /// Adds a partition, and says which number it has.
    pub fn add(&mut self, new: &NewPartition) -> Result<u32> {
        if new.last_sector < new.first_sector {
            return refuse(format!(
                "the partition would end (at sector {}) before it begins (at sector {})",
                new.last_sector, new.first_sector
            ));
        }
        if new.last_sector >= self.disk_sectors() {
            return refuse(format!(
                "sector {} is beyond the end of the disk, whose last one is {}",
                new.last_sector,
                self.disk_sectors().saturating_sub(1)
            ));
        }
        match &mut self.0 {
            Kind::Gpt(gpt) => gpt.add(new),
            Kind::Mbr(mbr) => mbr.add(new),
        }
    }

    /// Takes a partition away; with an extended one the logical ones in it. Later logical partitions
    /// move up in number.
    pub fn delete(&mut self, number: u32) -> Result<()> {
        match &mut self.0 {
            Kind::Gpt(gpt) => gpt.delete(number),
            Kind::Mbr(mbr) => mbr.delete(number),
        }
    }

    /// Moves a partition's end. What it holds is not touched.
    pub fn resize(&mut self, number: u32, last_sector: u64) -> Result<()> {
        match &mut self.0 {
            Kind::Gpt(gpt) => gpt.resize(number, last_sector),
            Kind::Mbr(mbr) => mbr.resize(number, last_sector),
        }
    }

    /// Marks a partition as the one to boot from, or not. In an MBR that is the active flag, which
    /// only one partition has; in a GPT it makes the partition the EFI system partition, as `parted`
    /// does, or a Linux one.
    pub fn set_bootable(&mut self, number: u32, bootable: bool) -> Result<()> {
        match &mut self.0 {
            Kind::Gpt(gpt) if bootable => gpt.set_type(number, EFI_SYSTEM),
            Kind::Gpt(gpt) if gpt.type_guid(number)? == EFI_SYSTEM => gpt.set_type(number, LINUX_FILE_SYSTEM),
            Kind::Gpt(_) => Ok(()),
            Kind::Mbr(mbr) => mbr.set_active(number, bootable),
        }
    }

    /// Sets an MBR partition's type byte.
    pub fn set_mbr_type(&mut self, number: u32, kind: u8) -> Result<()> {
        match &mut self.0 {
            Kind::Gpt(_) => {
                refuse("partitions of a GPT have no type byte, but a type GUID: use part-set-gpt-type")
            }
            Kind::Mbr(mbr) => mbr.set_type(number, kind),
        }
    }

    /// Sets a GPT partition's type.
    pub fn set_type_guid(&mut self, number: u32, kind: Uuid) -> Result<()> {
        if kind.is_nil() {
            return refuse("the type of zeros is that of an unused entry; part-del takes a partition away");
        }
        self.gpt("partitions have no type GUID; part-set-mbr-id sets their type")?.set_type(number, kind)
    }

    /// Sets a GPT partition's own GUID.
    pub fn set_guid(&mut self, number: u32, guid: Uuid) -> Result<()> {
        self.gpt("partitions have no GUID")?.set_guid(number, guid)
    }

    /// Sets a GPT partition's attribute bits.
    pub fn set_attributes(&mut self, number: u32, attributes: u64) -> Result<()> {
        self.gpt("partitions have no attributes")?.set_attributes(number, attributes)
    }

    /// Sets a GPT partition's name, which has 36 UTF-16 units at most.
    pub fn set_name(&mut self, number: u32, name: &str) -> Result<()> {
        self.gpt("partitions have no names")?.set_name(number, name)
    }

    /// Sets the GUID of a disk with a GPT.
    pub fn set_disk_guid(&mut self, guid: Uuid) -> Result<()> {
        self.gpt("disks have no GUID")?.set_disk_guid(guid);
        Ok(())
    }

    /// Sets the signature of a disk with an MBR.
    pub fn set_disk_id(&mut self, id: u32) -> Result<()> {
        match &mut self.0 {
            Kind::Gpt(_) => refuse("a disk with a GPT has a GUID, and no signature"),
            Kind::Mbr(mbr) => {
                mbr.set_disk_id(id);
                Ok(())
            }
        }
    }

    /// Moves the backup of a GPT to the end of the disk, which has grown, so that the new space can be
    /// used.
    pub fn expand_gpt(&mut self) -> Result<()> {
        self.gpt("there is no backup to move to the end of the disk")?.expand()
    }

    /// Writes the table to the device that it was read from or created for. It is not flushed.
    pub fn write(&self, device: &dyn BlockDevice) -> Result<()> {
        match &self.0 {
            Kind::Gpt(gpt) => gpt.write(device),
            Kind::Mbr(mbr) => mbr.write(device),
        }
    }

    fn gpt(&mut self, lacks: &str) -> Result<&mut GptEditor> {
        match &mut self.0 {
            Kind::Gpt(gpt) => Ok(gpt),
            Kind::Mbr(_) => refuse(format!("the disk has an MBR, in which {lacks}")),
        }
    }
}

fn refuse<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::Refused(what.into()))
}

/// An error that says which partition is in the way.
fn overlap<T>(first: u64, last: u64, number: u32, other_first: u64, other_last: u64) -> Result<T> {
    refuse(format!(
        "sectors {first} to {last} overlap partition {number}, which has sectors {other_first} to {other_last}"
    ))
}

fn number_taken<T>(number: u32) -> Result<T> {
    refuse(format!("the number {number} is not free"))
}

fn no_partition<T>(number: u32) -> Result<T> {
    refuse(format!("the disk has no partition {number}"))
}

/// A cylinder, head and sector as an MBR has it, for the geometry that all systems assume: 255 heads
/// of 63 sectors. What lies beyond is given as the last.
fn chs(sector: u64) -> [u8; 3] {
    let cylinder = u16::try_from(sector / (255 * 63)).ok().filter(|cylinder| *cylinder < 1024);
    let byte = |value: u64| u8::try_from(value).unwrap_or(u8::MAX);
    match cylinder {
        Some(cylinder) => {
            let [high, low] = cylinder.to_be_bytes();
            [byte(sector / 63 % 255), byte(sector % 63 + 1) | high << 6, low]
        }
        None => [0xfe, 0xff, 0xff],
    }
}

/// Makes both ends of a disk read as zeros.
fn wipe_ends(device: &dyn BlockDevice, sector_size: u32) -> Result<()> {
    let len = ((WIPED_BYTES / u64::from(sector_size) + 1) * u64::from(sector_size)).min(device.size());
    let zeros = vec![0; usize::try_from(len).unwrap_or_default()];
    device.write_at(0, &zeros)?;
    device.write_at(device.size() - len, &zeros)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // Values that `sfdisk` writes.
    fn chs_is_of_255_heads_and_63_sectors() {
        assert_eq!(chs(2048), [0x20, 0x21, 0x00]);
        assert_eq!(chs(1), [0x00, 0x02, 0x00]);
        assert_eq!(chs(1024 * 255 * 63 - 1), [0xfe, 0xff, 0xff]);
        assert_eq!(chs(u64::MAX), [0xfe, 0xff, 0xff]);
        assert_eq!(chs(300 * 255 * 63), [0x00, 0x41, 0x2c]);
    }
}
