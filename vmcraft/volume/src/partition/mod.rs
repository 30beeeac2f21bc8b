//! Partition tables: GPT and MBR, read and written.

mod edit;
mod gpt;
mod mbr;

use vmcraft_block::BlockDevice;

pub(crate) use self::gpt::SIGNATURE as GPT_SIGNATURE;
use crate::{Error, Result};

pub use edit::{LINUX_FILE_SYSTEM, NewPartition, TableEditor};

/// How many warnings one table may give: a forged one could give thousands.
const MAX_WARNINGS: usize = 16;

/// A partition table, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionTable {
    /// Its kind.
    pub kind: TableKind,
    /// The unit of the table's own numbers, in bytes.
    pub sector_size: u32,
    /// The partitions in the order of their numbers.
    ///
    /// One that reaches beyond the end of the disk is among them, and in the warnings.
    pub partitions: Vec<Partition>,
    /// GPT: the disk's GUID, as `sgdisk` prints it (upper case).
    pub disk_guid: Option<String>,
    /// MBR: the disk's signature.
    pub mbr_id: Option<u32>,
    /// What the user should know, such as a bad first header.
    pub warnings: Vec<String>,
}

/// The kinds of partition tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// GUID partition table.
    Gpt,
    /// DOS master boot record, with extended partitions.
    Mbr,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1; logical MBR partitions from 5.
    pub number: u32,
    /// Where it begins, in bytes.
    pub start_bytes: u64,
    /// How long it is, in bytes; never 0.
    pub len_bytes: u64,
    /// MBR: primary, extended or logical. GPT partitions are primary.
    pub role: PartitionRole,
    /// MBR: the type byte.
    pub mbr_type: Option<u8>,
    /// GPT: the type's GUID (upper case).
    pub type_guid: Option<String>,
    /// GPT: the partition's own GUID (upper case).
    pub guid: Option<String>,
    /// GPT: its name.
    pub name: Option<String>,
    /// GPT: the attribute bits.
    pub attributes: u64,
    /// MBR: the active flag. GPT: the legacy BIOS bootable attribute.
    pub bootable: bool,
    /// The PARTUUID as `blkid` and the kernel have it (lower case; `xxxxxxxx-nn` for MBR).
    pub part_uuid: String,
}

/// What an MBR partition is to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionRole {
    /// One of the table's four, or of a GPT.
    Primary,
    /// The primary that holds the logical ones.
    Extended,
    /// One inside the extended partition.
    Logical,
}

impl PartitionTable {
    /// Reads the table of a disk; `None` if it has none.
    ///
    /// What counts is what Linux would make of the disk: a GPT needs its protective MBR, a hybrid
    /// MBR gives way to the GPT, and the boot sector of a file system is not a table. Unlike Linux,
    /// a GPT whose first header is damaged is read from its backup, with a warning.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if there is a table that cannot be used, [`Error::Unsupported`] if it is
    /// of a kind that is known by name only, [`Error::Io`] if the disk cannot be read.
    pub fn read(device: &dyn BlockDevice) -> Result<Option<Self>> {
        let mut sector = [0; mbr::SECTOR];
        if device.size() < sector.len() as u64 {
            return Ok(None);
        }
        device.read_at(0, &mut sector)?;
        let table = match mbr::decode(&sector) {
            mbr::FirstSector::Protective { others } => Some(gpt::read(device, &others)?),
            mbr::FirstSector::Table(mbr) => Some(mbr::read(device, &mbr)?),
            mbr::FirstSector::FileSystem => None,
            mbr::FirstSector::Nothing => match other_label(device, &sector)? {
                Some(label) => return Err(Error::Unsupported(label.into())),
                None => None,
            },
        };
        Ok(table.map(|table| table.checked(device.size())))
    }

    /// The partition with this number.
    pub fn partition(&self, number: u32) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.number == number)
    }

    /// Adds warnings of what is wrong with the partitions as a whole.
    fn checked(mut self, disk_bytes: u64) -> Self {
        for partition in &self.partitions {
            if partition.end_bytes() > disk_bytes {
                self.warnings.push(format!(
                    "partition {} ends at byte {:#x}, beyond the end of the disk at byte {disk_bytes:#x}",
                    partition.number,
                    partition.end_bytes(),
                ));
            }
        }
        let mut by_start: Vec<&Partition> =
            self.partitions.iter().filter(|partition| partition.role != PartitionRole::Extended).collect();
        by_start.sort_by_key(|partition| (partition.start_bytes, partition.number));
        let mut furthest: Option<&Partition> = None;
        for partition in by_start {
            if let Some(before) = furthest
                && before.end_bytes() > partition.start_bytes
            {
                self.warnings.push(format!(
                    "partitions {} and {} overlap at byte {:#x}",
                    before.number, partition.number, partition.start_bytes
                ));
            }
            if furthest.is_none_or(|before| before.end_bytes() < partition.end_bytes()) {
                furthest = Some(partition);
            }
        }
        if let Some(more @ 1..) = self.warnings.len().checked_sub(MAX_WARNINGS) {
            self.warnings.truncate(MAX_WARNINGS);
            self.warnings.push(format!("the partition table has {more} more faults"));
        }
        self
    }
}

impl Partition {
    /// The byte after its last. It can lie beyond the end of the disk.
    pub fn end_bytes(&self) -> u64 {
        // Readers drop entries whose end cannot be counted.
        self.start_bytes.saturating_add(self.len_bytes)
    }
}

/// The name of a table that is neither GPT nor MBR.
fn other_label(device: &dyn BlockDevice, sector: &[u8; mbr::SECTOR]) -> Result<Option<&'static str>> {
    let words = || sector.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    // The label's words, checksum included, cancel out.
    if sector[508..510] == [0xda, 0xbe] && words().fold(0, |sum, word| sum ^ word) == 0 {
        return Ok(Some("a Sun disk label"));
    }
    if sector[..4] == [0x0b, 0xe5, 0xa9, 0x41] {
        return Ok(Some("an SGI volume header"));
    }
    let mut second = [0; mbr::SECTOR];
    if device.size() < 2 * second.len() as u64 {
        return Ok(None);
    }
    device.read_at(second.len() as u64, &mut second)?;
    if sector[..2] == *b"ER" && second[..2] == *b"PM" {
        return Ok(Some("an Apple partition map"));
    }
    // d_magic and d_magic2.
    if second[..4] == second[132..136] && second[..4] == 0x8256_4557_u32.to_le_bytes() {
        return Ok(Some("a BSD disklabel"));
    }
    if second.starts_with(gpt::SIGNATURE) {
        return Ok(Some(
            "a GPT without its protective MBR, which kernels ignore; sgdisk can write a new one",
        ));
    }
    Ok(None)
}
