//! Changing partition tables.

use bstr::{BStr, ByteSlice};
use uuid::Uuid;
use vmcraft_block::BlockDevice;
use vmcraft_macros::api;
use vmcraft_volume::partition::{LINUX_FILE_SYSTEM, NewPartition, PartitionRole, TableEditor, TableKind};

use crate::{DeviceName, Error, Guest, Result};

/// What `part-disk` leaves free at both ends of a disk, in sectors.
const PART_DISK_MARGIN: u64 = 128;

/// Tables that libguestfs makes and we do not.
const OTHER_TABLES: &[&str] = &["aix", "amiga", "rdb", "bsd", "dasd", "dvh", "mac", "pc98", "sun"];

#[api(area = "partitions")]
impl Guest {
    /// Make an empty partition table
    ///
    /// `parttype` is `gpt` (also `efi`), or `mbr` (also `msdos`). The disk loses the table that it
    /// has, and what else stands in its first and last 9 KiB: boot code, and what most file systems on
    /// the whole disk are known by. What is between stays.
    ///
    /// ```guestfish
    /// part-init /dev/sda gpt
    /// ```
    pub fn part_init(&mut self, device: &DeviceName, parttype: &str) -> Result<()> {
        let kind = table_kind(parttype)?;
        self.new_table(device, kind, |_, _| Ok(()))
    }

    /// Add a partition
    ///
    /// `prlogex` is `p` or `primary`, `l` or `logical`, `e` or `extended`; the last two are for an MBR.
    /// The partition has all sectors from `startsect` to `endsect`, which is from the end of the disk if
    /// it is negative: -1 is the last sector. A GPT needs the last 33 sectors for itself, so there -34
    /// is the last that a partition can have. Nothing is aligned: sectors that are multiples of 2048
    /// suit all disks.
    ///
    /// It gets the lowest number that is free, and the type of Linux file systems.
    ///
    /// ```guestfish
    /// part-add /dev/sda p 2048 -34
    /// ```
    pub fn part_add(
        &mut self,
        device: &DeviceName,
        prlogex: &str,
        startsect: i64,
        endsect: i64,
    ) -> Result<()> {
        let role = match prlogex {
            "p" | "primary" => PartitionRole::Primary,
            "l" | "logical" => PartitionRole::Logical,
            "e" | "extended" => PartitionRole::Extended,
            _ => {
                return Err(Error::Usage(format!(
                    "prlogex is p, l or e (primary, logical or extended), not {prlogex:?}"
                )));
            }
        };
        let guid = self.random_uuid();
        self.edit_table(device, |table| {
            let Ok(first_sector) = u64::try_from(startsect) else {
                return Err(vmcraft_volume::Error::Refused(format!(
                    "startsect cannot be negative: {startsect}"
                )));
            };
            let last_sector = last_sector(table, endsect)?;
            // parted takes for the name of a GPT partition what would be its role in an MBR; to the
            // table itself all are primary.
            let (role, name) = match (table.kind(), role) {
                (TableKind::Gpt, PartitionRole::Primary) => (PartitionRole::Primary, "primary"),
                (TableKind::Gpt, PartitionRole::Logical) => (PartitionRole::Primary, "logical"),
                (TableKind::Gpt, PartitionRole::Extended) => (PartitionRole::Primary, "extended"),
                (TableKind::Mbr, role) => (role, ""),
            };
            let name = name.to_owned();
            table
                .add(&NewPartition {
                    number: None,
                    role,
                    first_sector,
                    last_sector,
                    type_guid: LINUX_FILE_SYSTEM,
                    guid,
                    name,
                })
                .map(drop)
        })
    }

    /// Take a partition away
    ///
    /// What it holds stays on the disk. With an extended partition the logical ones in it go; when a
    /// logical partition goes, the numbers of those behind it become less by one.
    ///
    /// ```guestfish
    /// part-del /dev/sda 1
    /// ```
    pub fn part_del(&mut self, device: &DeviceName, partnum: i32) -> Result<()> {
        self.edit_partition(device, partnum, |table, number| table.delete(number))
    }

    /// Make a partition table with one partition
    ///
    /// `parttype` is as for `part-init`. The partition has all of the disk but 128 sectors at each end.
    ///
    /// ```guestfish
    /// part-disk /dev/sda mbr
    /// ```
    pub fn part_disk(&mut self, device: &DeviceName, parttype: &str) -> Result<()> {
        let kind = table_kind(parttype)?;
        self.new_table(device, kind, |table, guid| {
            table
                .add(&NewPartition {
                    number: None,
                    role: PartitionRole::Primary,
                    first_sector: PART_DISK_MARGIN,
                    last_sector: table.disk_sectors().saturating_sub(PART_DISK_MARGIN),
                    type_guid: LINUX_FILE_SYSTEM,
                    guid,
                    name: "p1".to_owned(),
                })
                .map(drop)
        })
    }

    /// Move the end of a partition
    ///
    /// `endsect` is as for `part-add`. What the partition holds is not touched: make a file system
    /// smaller before this, or larger after it, with `resize2fs` or `resize2fs-size`.
    ///
    /// ```guestfish
    /// part-resize /dev/sda 1 -34
    /// ```
    pub fn part_resize(&mut self, device: &DeviceName, partnum: i32, endsect: i64) -> Result<()> {
        self.edit_partition(device, partnum, |table, number| {
            let last_sector = last_sector(table, endsect)?;
            table.resize(number, last_sector)
        })
    }

    /// Move the backup of a GPT to the end of the disk
    ///
    /// A disk that has grown needs this before partitions can use the new space.
    ///
    /// ```guestfish
    /// part-expand-gpt /dev/sda
    /// ```
    pub fn part_expand_gpt(&mut self, device: &DeviceName) -> Result<()> {
        self.edit_table(device, TableEditor::expand_gpt)
    }

    /// Mark a partition as bootable, or not
    ///
    /// In an MBR that is the active flag, which no other partition has then. In a GPT the partition gets
    /// the type of an EFI system partition, or if it has that and is not to be bootable, of a Linux file
    /// system.
    ///
    /// ```guestfish
    /// part-set-bootable /dev/sda 1 true
    /// ```
    pub fn part_set_bootable(&mut self, device: &DeviceName, partnum: i32, bootable: bool) -> Result<()> {
        self.edit_partition(device, partnum, |table, number| table.set_bootable(number, bootable))
    }

    /// Set the type byte of an MBR partition
    ///
    /// ```guestfish
    /// part-set-mbr-id /dev/sda 1 0x83
    /// ```
    pub fn part_set_mbr_id(&mut self, device: &DeviceName, partnum: i32, idbyte: i32) -> Result<()> {
        let Ok(kind) = u8::try_from(idbyte) else {
            return Err(Error::Usage(format!("idbyte is from 0x00 to 0xff, not {idbyte:#x}")));
        };
        self.edit_partition(device, partnum, |table, number| table.set_mbr_type(number, kind))
    }

    /// Set the type GUID of a GPT partition
    ///
    /// ```guestfish
    /// part-set-gpt-type /dev/sda 1 C12A7328-F81F-11D2-BA4B-00A0C93EC93B
    /// ```
    pub fn part_set_gpt_type(&mut self, device: &DeviceName, partnum: i32, guid: &str) -> Result<()> {
        let guid = parse_guid(guid)?;
        self.edit_partition(device, partnum, |table, number| table.set_type_guid(number, guid))
    }

    /// Set the GUID of a GPT partition
    ///
    /// ```guestfish
    /// part-set-gpt-guid /dev/sda 1 01234567-89AB-CDEF-0123-456789ABCDEF
    /// ```
    pub fn part_set_gpt_guid(&mut self, device: &DeviceName, partnum: i32, guid: &str) -> Result<()> {
        let guid = parse_guid(guid)?;
        self.edit_partition(device, partnum, |table, number| table.set_guid(number, guid))
    }

    /// Set the attribute bits of a GPT partition
    ///
    /// They are as `part-get-gpt-attributes` gives them. The bits that are not in `attributes` are
    /// cleared.
    ///
    /// ```guestfish
    /// part-set-gpt-attributes /dev/sda 1 4
    /// ```
    pub fn part_set_gpt_attributes(
        &mut self,
        device: &DeviceName,
        partnum: i32,
        attributes: i64,
    ) -> Result<()> {
        let attributes = attributes.cast_unsigned();
        self.edit_partition(device, partnum, |table, number| table.set_attributes(number, attributes))
    }

    /// Set the name of a GPT partition
    ///
    /// It has 36 characters at most; some, such as emoji, count twice.
    ///
    /// ```guestfish
    /// part-set-name /dev/sda 1 root
    /// ```
    pub fn part_set_name(&mut self, device: &DeviceName, partnum: i32, name: &BStr) -> Result<()> {
        let Ok(name) = name.to_str() else {
            return Err(Error::Usage(format!("the name {name:?} is not UTF-8")));
        };
        self.edit_partition(device, partnum, |table, number| table.set_name(number, name))
    }

    /// Set the GUID of a disk with a GPT
    ///
    /// ```guestfish
    /// part-set-disk-guid /dev/sda 01234567-89AB-CDEF-0123-456789ABCDEF
    /// ```
    pub fn part_set_disk_guid(&mut self, device: &DeviceName, guid: &str) -> Result<()> {
        let guid = parse_guid(guid)?;
        self.edit_table(device, |table| table.set_disk_guid(guid))
    }

    /// Give a disk with a GPT a new random GUID
    ///
    /// ```guestfish
    /// part-set-disk-guid-random /dev/sda
    /// ```
    pub fn part_set_disk_guid_random(&mut self, device: &DeviceName) -> Result<()> {
        let guid = self.random_uuid();
        self.edit_table(device, |table| table.set_disk_guid(guid))
    }
}

impl Guest {
    /// Changes the partition table of a whole disk.
    pub(crate) fn edit_table(
        &mut self,
        device: &DeviceName,
        change: impl FnOnce(&mut TableEditor) -> vmcraft_volume::Result<()>,
    ) -> Result<()> {
        self.write_table(device, |device| {
            let mut table = TableEditor::open(device)?;
            change(&mut table)?;
            Ok(table)
        })
    }

    /// Gives a whole disk a new partition table. `fill` puts partitions into it, with a GUID for one.
    fn new_table(
        &mut self,
        device: &DeviceName,
        kind: TableKind,
        fill: impl FnOnce(&mut TableEditor, Uuid) -> vmcraft_volume::Result<()>,
    ) -> Result<()> {
        let (disk_guid, guid) = (self.random_uuid(), self.random_uuid());
        self.write_table(device, |device| {
            let mut table = TableEditor::create(device, kind, disk_guid)?;
            fill(&mut table, guid)?;
            Ok(table)
        })
    }

    fn write_table(
        &mut self,
        device: &DeviceName,
        change: impl FnOnce(&dyn BlockDevice) -> vmcraft_volume::Result<TableEditor>,
    ) -> Result<()> {
        let found = self.find_device(device)?;
        if found.partition.is_some() {
            return Err(Error::Usage(format!(
                "{}: a partition has no partition table: name the disk",
                found.name
            )));
        }
        let (name, device) = self.open_device_for_writing(device)?;
        let failed = |source| Error::Volume { device: name.clone(), source };
        let table = change(&device).map_err(failed)?;
        self.atomically(|guest| {
            let written = table.write(&device).map_err(failed);
            guest.device_changed(&name);
            written
        })
    }

    fn edit_partition(
        &mut self,
        device: &DeviceName,
        partnum: i32,
        change: impl FnOnce(&mut TableEditor, u32) -> vmcraft_volume::Result<()>,
    ) -> Result<()> {
        let Some(number) = u32::try_from(partnum).ok().filter(|number| *number > 0) else {
            return Err(Error::Usage(format!("{device}: partition numbers begin at 1, not {partnum}")));
        };
        self.edit_table(device, |table| change(table, number))
    }

    /// A random UUID of the handle's source.
    pub(crate) fn random_uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.sources().random()).into_uuid()
    }
}

/// The sector that `endsect` means.
fn last_sector(table: &TableEditor, endsect: i64) -> vmcraft_volume::Result<u64> {
    match u64::try_from(endsect) {
        Ok(sector) => Ok(sector),
        Err(_) => table.disk_sectors().checked_sub(endsect.unsigned_abs()).ok_or_else(|| {
            vmcraft_volume::Error::Refused(format!(
                "endsect {endsect} would be before the start of the disk, which has {} sectors",
                table.disk_sectors()
            ))
        }),
    }
}

/// The kind of table that a script names.
pub(crate) fn table_kind(parttype: &str) -> Result<TableKind> {
    match parttype {
        "gpt" | "efi" => Ok(TableKind::Gpt),
        "mbr" | "msdos" => Ok(TableKind::Mbr),
        other if OTHER_TABLES.contains(&other) => {
            Err(Error::Unsupported(format!("making a partition table of the kind {other}: take gpt or mbr")))
        }
        other => Err(Error::Usage(format!("parttype is gpt or mbr, not {other:?}"))),
    }
}

fn parse_guid(text: &str) -> Result<Uuid> {
    // The hyphens are for people: sgdisk does without them, too.
    text.parse().map_err(|_| {
        Error::Usage(format!("{text:?} is not a GUID such as 01234567-89AB-CDEF-0123-456789ABCDEF"))
    })
}
