//! What devices hold: types, labels and UUIDs, as `blkid` has them.

use bstr::{BStr, BString, ByteSlice};
use vmcraft_block::BlockDevice;
use vmcraft_macros::api;
use vmcraft_volume::partition::{Partition, PartitionRole, TableKind};
use vmcraft_volume::signature::{self, Signature};

use crate::device::disk_name;
use crate::partition_types;
use crate::stack::Kind;
use crate::{DeviceName, Error, Guest, Mountable, Result};

/// What libguestfs takes for containers rather than file systems, besides members of arrays.
const ENCRYPTED: &[&str] = &["crypto_LUKS", "BitLocker", "cs_fvault2"];

/// The kinds of volumes that are listed after partitions, in order.
const AFTER_PARTITIONS: &[Kind] =
    &[Kind::Array, Kind::LogicalVolume, Kind::DynamicVolume, Kind::DynamicPartition];

#[api(area = "signatures")]
impl Guest {
    /// List the file systems on all disks
    ///
    /// The result is a table from devices to the types of their file systems, as `vfs-type` names
    /// them. `unknown` is a device where nothing was recognised, and `swap` is swap space. Members
    /// of arrays and volume groups, encrypted devices, extended partitions and those that Windows
    /// reserves are left out. First come disks, then the contents of encrypted devices that were opened,
    /// partitions, arrays, logical volumes, and the volumes of dynamic disks.
    ///
    /// ```guestfish
    /// list-filesystems
    /// ```
    pub fn list_filesystems(&self) -> Result<Vec<(BString, BString)>> {
        let mut devices = Vec::new();
        for (index, disk) in self.launched()?.iter().enumerate() {
            if disk.partitions().is_empty() || !self.stack.shows_partitions(index) {
                devices.push(disk_name(index));
            }
        }
        let has_no_partitions = |name: &String| {
            // What cannot be opened is there all the same.
            let disk = self.stack.find(name).and_then(|volume| volume.disk.as_ref().ok());
            disk.is_none_or(|disk| disk.partitions().is_empty())
        };
        devices.extend(self.volumes_of(Kind::Decrypted)?.into_iter().filter(has_no_partitions));
        for (name, partition) in self.partitions()? {
            if partition.role != PartitionRole::Extended && partition_types::can_hold_file_system(partition) {
                devices.push(name);
            }
        }
        for kind in AFTER_PARTITIONS {
            let names = match kind {
                Kind::LogicalVolume => self.lvs()?,
                _ => self.volumes_of(*kind)?,
            };
            devices.extend(names.into_iter().filter(has_no_partitions));
        }
        let mut rows = Vec::new();
        for name in devices {
            // One device that cannot be read does not hide the others.
            let kind = match self.signature(DeviceName::new(&name)) {
                Ok(Some(signature)) => signature.kind,
                Ok(None) | Err(_) => "unknown",
            };
            let is_container = self.stack.container(&name).is_some();
            if !is_container && !kind.ends_with("_member") && !ENCRYPTED.contains(&kind) {
                rows.push((name.into(), kind.into()));
            }
        }
        Ok(rows)
    }

    /// Return the type of the file system on a device
    ///
    /// The type is named as `blkid` names it; it can also be something else than a file system, such
    /// as `swap`, `LVM2_member` or `crypto_LUKS`. It is empty if nothing was recognised.
    ///
    /// ```guestfish
    /// vfs-type /dev/sda1
    /// ```
    pub fn vfs_type(&self, mountable: &Mountable) -> Result<String> {
        let (device, _) = self.split_mountable(mountable)?;
        Ok(self.signature(DeviceName::new(&device))?.map_or(String::new(), |s| s.kind.into()))
    }

    /// Return the label of the file system on a device
    ///
    /// It is empty if there is none.
    ///
    /// ```guestfish
    /// vfs-label /dev/sda1
    /// ```
    #[call(alias = "get-label")]
    pub fn vfs_label(&self, mountable: &Mountable) -> Result<BString> {
        let (device, _) = self.split_mountable(mountable)?;
        Ok(self.signature(DeviceName::new(&device))?.map_or(BString::default(), |s| s.label))
    }

    /// Return the UUID of the file system on a device
    ///
    /// It is empty if there is none.
    ///
    /// ```guestfish
    /// vfs-uuid /dev/sda1
    /// ```
    #[call(alias = "get-uuid")]
    pub fn vfs_uuid(&self, mountable: &Mountable) -> Result<String> {
        let (device, _) = self.split_mountable(mountable)?;
        Ok(self.signature(DeviceName::new(&device))?.map_or(String::new(), |s| s.uuid))
    }

    /// Return the label of an ext2, ext3 or ext4 file system
    ///
    /// ```guestfish
    /// get-e2label /dev/sda1
    /// ```
    #[call(deprecated = "vfs-label")]
    pub fn get_e2label(&self, device: &DeviceName) -> Result<BString> {
        self.vfs_label(Mountable::new(device))
    }

    /// Return the UUID of an ext2, ext3 or ext4 file system
    ///
    /// ```guestfish
    /// get-e2uuid /dev/sda1
    /// ```
    #[call(deprecated = "vfs-uuid")]
    pub fn get_e2uuid(&self, device: &DeviceName) -> Result<String> {
        self.vfs_uuid(Mountable::new(device))
    }

    /// Return all that is known of what is on a device
    ///
    /// The result is a table with the names that `blkid -p -o export` has: `TYPE`, `USAGE`, `LABEL`,
    /// `UUID`, `UUID_SUB`, `VERSION`; for a disk with a partition table `PTTYPE` and `PTUUID`, for a
    /// partition `PART_ENTRY_…`. In values, blanks and characters that a shell takes for its own have
    /// a backslash before them.
    ///
    /// ```guestfish
    /// blkid /dev/sda1
    /// ```
    pub fn blkid(&self, device: &DeviceName) -> Result<Vec<(BString, BString)>> {
        let signature = self.signature(device)?;
        let found = self.find_device(device)?;
        let sector_size = found.disk.device.logical_sector_size().to_string();
        let mut rows: Vec<(&str, BString)> = vec![("DEVNAME", found.name.as_str().into())];
        if let Some(signature) = signature {
            rows.push(("LABEL", signature.label));
            rows.push(("UUID", signature.uuid.into()));
            rows.push(("UUID_SUB", signature.sub_uuid.into()));
            rows.push(("VERSION", signature.version.into()));
            rows.push(("TYPE", signature.kind.into()));
            rows.push(("USAGE", signature.usage.name().into()));
        }
        for key in ["MINIMUM_IO_SIZE", "PHYSICAL_SECTOR_SIZE", "LOGICAL_SECTOR_SIZE"] {
            rows.push((key, sector_size.as_str().into()));
        }
        let table = found.disk.table.as_ref().ok().and_then(Option::as_ref);
        let scheme = |kind| match kind {
            TableKind::Gpt => "gpt",
            TableKind::Mbr => "dos",
        };
        match (found.partition, table) {
            (Some(partition), Some(table)) => {
                rows.push(("PART_ENTRY_SCHEME", scheme(table.kind).into()));
                rows.extend(partition_rows(partition));
            }
            (None, Some(table)) => {
                let id = match &table.disk_guid {
                    Some(guid) => guid.to_ascii_lowercase(),
                    // blkid prints no ID where none was set.
                    None => {
                        table.mbr_id.filter(|id| *id != 0).map_or(String::new(), |id| format!("{id:08x}"))
                    }
                };
                rows.push(("PTUUID", id.into()));
                rows.push(("PTTYPE", scheme(table.kind).into()));
            }
            (_, None) => {}
        }
        let filled = rows.into_iter().filter(|(_, value)| !value.is_empty());
        Ok(filled.map(|(key, value)| (key.into(), escape(value.as_bstr()))).collect())
    }

    /// Erase what a device's content is recognised by
    ///
    /// The magic bytes of file systems, containers and partition tables on `device` are overwritten
    /// with zeros, so that nothing is recognised there; all else stays. The device and what is on it
    /// must not be mounted.
    ///
    /// ```guestfish
    /// wipefs /dev/sda1
    /// ```
    pub fn wipefs(&mut self, device: &DeviceName) -> Result<()> {
        self.atomically(|guest| {
            let (name, device) = guest.open_device_for_writing(device)?;
            let erased =
                signature::erase(&device).map_err(|source| Error::Volume { device: name.clone(), source });
            guest.device_changed(&name);
            erased.map(drop)
        })
    }

    /// Find the device with this label on its file system
    ///
    /// ```guestfish
    /// -findfs-label root
    /// ```
    pub fn findfs_label(&self, label: &BStr) -> Result<String> {
        self.find_signature("label", label, |signature| signature.label == label)
    }

    /// Find the device with this UUID on its file system
    ///
    /// ```guestfish
    /// -findfs-uuid 01234567-89ab-cdef-0123-456789abcdef
    /// ```
    pub fn findfs_uuid(&self, uuid: &str) -> Result<String> {
        self.find_signature("UUID", uuid.into(), |signature| signature.uuid.eq_ignore_ascii_case(uuid))
    }

    /// Find the partition with this UUID in its partition table
    ///
    /// For an MBR that is the disk's signature and the partition's number, `xxxxxxxx-nn`.
    ///
    /// ```guestfish
    /// -findfs-partuuid 1badcafe-01
    /// ```
    pub fn findfs_partuuid(&self, uuid: &str) -> Result<String> {
        let found = self.partitions()?.into_iter().find(|(_, p)| p.part_uuid.eq_ignore_ascii_case(uuid));
        found.map(|(name, _)| name).ok_or_else(|| not_found("partition UUID", uuid.into()))
    }

    /// Find the partition with this name in its GPT
    ///
    /// ```guestfish
    /// -findfs-partlabel "EFI system"
    /// ```
    pub fn findfs_partlabel(&self, label: &str) -> Result<String> {
        let found = self.partitions()?.into_iter().find(|(_, p)| p.name.as_deref() == Some(label));
        found.map(|(name, _)| name).ok_or_else(|| not_found("partition name", label.into()))
    }
}

impl Guest {
    /// What is recognised on a device.
    pub(super) fn signature(&self, device: &DeviceName) -> Result<Option<Signature>> {
        let (name, device) = self.open_device(device)?;
        signature::probe(&device).map_err(|source| Error::Volume { device: name, source })
    }

    /// The devices that something can be on: partitions before disks, whose first bytes can be those
    /// of a partition, and then the volumes.
    pub(super) fn devices(&self) -> Result<Vec<String>> {
        let mut devices = self.list_partitions()?;
        devices.extend(self.list_devices()?);
        for kind in AFTER_PARTITIONS.iter().chain([&Kind::Decrypted]) {
            devices.extend(self.volumes_of(*kind)?);
        }
        Ok(devices)
    }

    /// The first device whose content `matches`. Devices that cannot be read are passed over.
    fn find_signature(
        &self,
        what: &str,
        wanted: &BStr,
        matches: impl Fn(&Signature) -> bool,
    ) -> Result<String> {
        if !wanted.is_empty() {
            for name in self.devices()? {
                if let Ok(Some(signature)) = self.signature(DeviceName::new(&name))
                    && matches(&signature)
                {
                    return Ok(name);
                }
            }
        }
        Err(not_found(what, wanted))
    }
}

fn not_found(what: &str, wanted: &BStr) -> Error {
    Error::Usage(format!("no device has the {what} {wanted}"))
}

/// What `blkid` says of a partition's entry. It counts in units of 512 bytes.
fn partition_rows(partition: &Partition) -> Vec<(&'static str, BString)> {
    let name = partition.name.clone().unwrap_or_default();
    let kind = match (&partition.type_guid, partition.mbr_type) {
        (Some(guid), _) => guid.to_ascii_lowercase(),
        (None, Some(kind)) => format!("{kind:#x}"),
        (None, None) => String::new(),
    };
    let flags = match partition.mbr_type {
        Some(_) if partition.bootable => 0x80,
        Some(_) => 0,
        None => partition.attributes,
    };
    vec![
        ("PART_ENTRY_NAME", name.into()),
        ("PART_ENTRY_UUID", partition.part_uuid.as_str().into()),
        ("PART_ENTRY_TYPE", kind.into()),
        ("PART_ENTRY_FLAGS", if flags == 0 { BString::default() } else { format!("{flags:#x}").into() }),
        ("PART_ENTRY_NUMBER", partition.number.to_string().into()),
        ("PART_ENTRY_OFFSET", (partition.start_bytes / 512).to_string().into()),
        ("PART_ENTRY_SIZE", (partition.len_bytes / 512).to_string().into()),
    ]
}

/// With a backslash before what a shell would take for its own.
fn escape(value: &BStr) -> BString {
    let mut escaped = Vec::with_capacity(value.len());
    for byte in value.bytes() {
        if b" \\\"'$`<>".contains(&byte) {
            escaped.push(b'\\');
        }
        escaped.push(byte);
    }
    escaped.into()
}
