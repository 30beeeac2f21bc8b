//! Partition tables: GPT and MBR.

use vmcraft_block::BlockDevice;

use crate::Result;

/// A partition table, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionTable {
    /// Its kind.
    pub kind: TableKind,
    /// The unit of the table's own numbers, in bytes.
    pub sector_size: u32,
    /// The partitions in the order of their numbers.
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
    /// How long it is, in bytes.
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
    pub fn read(_device: &dyn BlockDevice) -> Result<Option<Self>> {
        Ok(None)
    }
}
