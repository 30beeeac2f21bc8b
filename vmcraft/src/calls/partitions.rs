//! Partition tables.

use vmcraft_macros::api;
use vmcraft_volume::partition::{Partition, PartitionRole, PartitionTable, TableKind};

use crate::partition_types::{self, ESP};
use crate::value::record;
use crate::{DeviceName, Error, Guest, Result};

record! {
    /// A partition, as `part-list` gives it.
    pub struct PartitionRange as "partition" {
        /// Its number, from 1.
        pub part_num: i32,
        /// Its first byte.
        pub part_start: u64,
        /// Its last byte.
        pub part_end: u64,
        /// How many bytes it has.
        pub part_size: u64,
    }
}

#[api(area = "partitions")]
impl Guest {
    /// List the partitions of a disk with their places
    ///
    /// The result has a record for each partition, in the order of the disk: `part_num` (from 1),
    /// `part_start`, `part_end` (the last byte) and `part_size`, in bytes. Extended partitions of an
    /// MBR are among them.
    ///
    /// ```guestfish
    /// part-list /dev/sda
    /// ```
    pub fn part_list(&self, device: &DeviceName) -> Result<Vec<PartitionRange>> {
        let (_, table) = self.partition_table(device)?;
        let mut partitions: Vec<&Partition> = table.partitions.iter().collect();
        partitions.sort_by_key(|partition| (partition.start_bytes, partition.role == PartitionRole::Logical));
        Ok(partitions
            .into_iter()
            .map(|partition| PartitionRange {
                part_num: i32::try_from(partition.number).unwrap_or(i32::MAX),
                part_start: partition.start_bytes,
                part_end: partition.end_bytes() - 1,
                part_size: partition.len_bytes,
            })
            .collect())
    }

    /// Return what kind of partition table a disk has
    ///
    /// The result is `gpt`, or `msdos` for an MBR.
    ///
    /// ```guestfish
    /// part-get-parttype /dev/sda
    /// ```
    pub fn part_get_parttype(&self, device: &DeviceName) -> Result<String> {
        let (_, table) = self.partition_table(device)?;
        Ok(kind_name(table).into())
    }

    /// Say whether a partition is marked as bootable
    ///
    /// In an MBR that is the active flag. In a GPT it is the attribute for BIOS, or the type of an
    /// EFI system partition.
    ///
    /// ```guestfish
    /// part-get-bootable /dev/sda 1
    /// ```
    pub fn part_get_bootable(&self, device: &DeviceName, partnum: i32) -> Result<bool> {
        let (_, _, partition) = self.numbered_partition(device, partnum)?;
        Ok(partition.bootable || partition.type_guid.as_deref() == Some(ESP))
    }

    /// Return the type byte of an MBR partition
    ///
    /// Partitions of a GPT have none; `part-get-gpt-type` is for them.
    ///
    /// ```guestfish
    /// part-get-mbr-id /dev/sda 1
    /// ```
    #[call(print = "hex")]
    pub fn part_get_mbr_id(&self, device: &DeviceName, partnum: i32) -> Result<i32> {
        let (name, _, partition) = self.numbered_partition(device, partnum)?;
        let kind = partition.mbr_type.ok_or_else(|| {
            Error::Usage(format!("{name}: only MBR partitions have a type byte: use part-get-gpt-type"))
        })?;
        Ok(kind.into())
    }

    /// Say whether an MBR partition is primary, extended or logical
    ///
    /// Partitions of a GPT are `primary`.
    ///
    /// ```guestfish
    /// part-get-mbr-part-type /dev/sda 1
    /// ```
    pub fn part_get_mbr_part_type(&self, device: &DeviceName, partnum: i32) -> Result<String> {
        let (_, _, partition) = self.numbered_partition(device, partnum)?;
        Ok(match partition.role {
            PartitionRole::Primary => "primary",
            PartitionRole::Extended => "extended",
            PartitionRole::Logical => "logical",
        }
        .into())
    }

    /// Return the type GUID of a partition
    ///
    /// For an MBR partition it is the GUID that a GPT would have for its type.
    ///
    /// ```guestfish
    /// part-get-gpt-type /dev/sda 1
    /// ```
    pub fn part_get_gpt_type(&self, device: &DeviceName, partnum: i32) -> Result<String> {
        let (name, _, partition) = self.numbered_partition(device, partnum)?;
        partition_types::type_guid(partition).map(str::to_owned).ok_or_else(|| {
            let kind = partition.mbr_type.unwrap_or_default();
            Error::Usage(format!("{name}: no type GUID corresponds to the MBR type {kind:#04x}"))
        })
    }

    /// Return the GUID of a GPT partition
    ///
    /// ```guestfish
    /// -part-get-gpt-guid /dev/sda 1
    /// ```
    pub fn part_get_gpt_guid(&self, device: &DeviceName, partnum: i32) -> Result<String> {
        let (name, _, partition) = self.numbered_partition(device, partnum)?;
        partition.guid.clone().ok_or_else(|| not_gpt(&name, "partitions have no GUID"))
    }

    /// Return the attribute bits of a GPT partition
    ///
    /// Bit 0 is "required by the platform", bit 2 "legacy BIOS bootable"; bits 48 to 63 are the
    /// type's own. Bit 63 is the number's sign.
    ///
    /// ```guestfish
    /// -part-get-gpt-attributes /dev/sda 1
    /// ```
    pub fn part_get_gpt_attributes(&self, device: &DeviceName, partnum: i32) -> Result<i64> {
        let (name, table, partition) = self.numbered_partition(device, partnum)?;
        match table.kind {
            TableKind::Gpt => Ok(partition.attributes.cast_signed()),
            TableKind::Mbr => Err(not_gpt(&name, "partitions have no attributes")),
        }
    }

    /// Return the name of a GPT partition
    ///
    /// ```guestfish
    /// -part-get-name /dev/sda 1
    /// ```
    pub fn part_get_name(&self, device: &DeviceName, partnum: i32) -> Result<String> {
        let (name, _, partition) = self.numbered_partition(device, partnum)?;
        partition.name.clone().ok_or_else(|| not_gpt(&name, "partitions have no names"))
    }

    /// Return the GUID of a disk with a GPT
    ///
    /// ```guestfish
    /// -part-get-disk-guid /dev/sda
    /// ```
    pub fn part_get_disk_guid(&self, device: &DeviceName) -> Result<String> {
        let (name, table) = self.partition_table(device)?;
        table.disk_guid.clone().ok_or_else(|| not_gpt(&name, "disks have no GUID"))
    }
}

impl Guest {
    /// The partition table of a whole disk, and the disk's canonical name.
    pub(crate) fn partition_table(&self, device: &DeviceName) -> Result<(String, &PartitionTable)> {
        let found = self.find_device(device)?;
        if found.partition.is_some() {
            return Err(Error::Usage(format!(
                "{}: a partition has no partition table: name the disk",
                found.name
            )));
        }
        match &found.disk.table {
            Ok(Some(table)) => Ok((found.name, table)),
            Ok(None) => Err(Error::Usage(format!("{}: the disk has no partition table", found.name))),
            Err(e) => Err(Error::Usage(format!("{}: {e}", found.name))),
        }
    }

    /// A partition by its number. The disk's canonical name comes with it.
    fn numbered_partition(
        &self,
        device: &DeviceName,
        partnum: i32,
    ) -> Result<(String, &PartitionTable, &Partition)> {
        let (name, table) = self.partition_table(device)?;
        let Some(number) = u32::try_from(partnum).ok().filter(|number| *number > 0) else {
            return Err(Error::Usage(format!("{name}: partition numbers begin at 1, not {partnum}")));
        };
        match table.partition(number) {
            Some(partition) => Ok((name, table, partition)),
            None => Err(Error::Usage(format!("{name}: the disk has no partition {number}"))),
        }
    }
}

/// libguestfs's name for a kind of table.
fn kind_name(table: &PartitionTable) -> &'static str {
    match table.kind {
        TableKind::Gpt => "gpt",
        TableKind::Mbr => "msdos",
    }
}

fn not_gpt(name: &str, what: &str) -> Error {
    Error::Usage(format!("{name}: {what} in an MBR, which the disk has; they do in a GPT"))
}
