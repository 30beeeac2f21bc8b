//! Inspection of a handle's disks, and mounting what it found.

use std::sync::Arc;
use std::time::Instant;

use bstr::{BString, ByteSlice};
use vmcraft_block::BlockDevice;
use vmcraft_volume::partition::{Partition, PartitionRole, PartitionTable, TableKind};
use vmcraft_volume::{Key, signature};

use super::{
    Decrypted, DiskReport, Inspection, MountPoint, OperatingSystem, Report, ReportOptions, Volume, Volumes,
    in_mount_order, inspect,
};
use crate::device::{Disk, disk_letters, disk_name, parse_disk_name};
use crate::drive::Drive;
use crate::driver::DRIVERS;
use crate::{DeviceName, Error, Guest, GuestPath, Mountable, Result};

/// The type of an EFI system partition in a GPT and an MBR.
const ESP: (&str, u8) = ("C12A7328-F81F-11D2-BA4B-00A0C93EC93B", 0xef);
/// The type of the GPT partition in which GRUB keeps its core for BIOS.
const BIOS_BOOT: &str = "21686148-6449-6E6F-744E-656564454649";

/// What the boot loaders for BIOS have in the first sector of a disk.
const BOOT_CODES: &[&str] = &["GRUB", "LILO", "EXTLINUX", "SYSLINUX", "Operating system load error"];

impl Guest {
    /// The operating systems on the disks, in the order of their root devices. The disks are looked
    /// at once; `inspect-os` looks again.
    pub fn operating_systems(&mut self) -> Result<&[OperatingSystem]> {
        Ok(&self.inspection()?.systems)
    }

    /// All that inspection finds, to be printed or given to programs.
    pub fn inspection_report(&mut self, options: ReportOptions) -> Result<Report> {
        let images: Vec<_> = self.drives.iter().map(Drive::shown).collect();
        let disks =
            self.launched()?.iter().zip(images).enumerate().map(|(index, (disk, image))| DiskReport {
                device: format!("/dev/sd{}", disk_letters(index)),
                image,
                size_bytes: disk.device.size(),
                partition_table: disk.table.as_ref().ok().and_then(Option::as_ref).map(|table| {
                    match table.kind {
                        TableKind::Gpt => "gpt".to_owned(),
                        TableKind::Mbr => "mbr".to_owned(),
                    }
                }),
            });
        let disks = disks.collect();
        self.inspection()?.report(disks, options)
    }

    /// Mounts the file systems of the operating system on the disks where it mounts them: what `-i`
    /// does. Returns the device of its root.
    ///
    /// What is encrypted is opened first, as by [`open_encrypted`](Guest::open_encrypted). What was mounted
    /// before is unmounted. If there are several systems, `root` says which.
    /// A file system other than the root that cannot be mounted is left out with a warning
    /// ([`take_warnings`](Guest::take_warnings)).
    pub fn mount_inspected(&mut self, root: Option<&str>) -> Result<String> {
        self.open_encrypted()?;
        let wanted = root.map(|root| self.canonical_root(root.into()));
        let system = choose(self.inspection()?, wanted.as_deref())?.clone();
        self.vfs.unmount_all();
        let started = Instant::now();
        for MountPoint { mountpoint, device } in in_mount_order(&system.mountpoints) {
            let mounted = self.open_filesystem(DeviceName::new(device)).and_then(|(name, filesystem)| {
                self.vfs.mount(&name, filesystem, GuestPath::new(mountpoint), false)
            });
            match mounted {
                Ok(()) => {}
                Err(e) if mountpoint == "/" => return Err(e),
                Err(e) => self.warnings.push(format!("{mountpoint} was not mounted: {e}")),
            }
        }
        self.metrics.mount += started.elapsed();
        Ok(system.root)
    }

    /// Mounts the one operating system on the disks, as [`mount_inspected`](Guest::mount_inspected).
    pub fn mount_root(&mut self) -> Result<()> {
        self.mount_inspected(None).map(drop)
    }

    /// What inspection found, looking now if it did not yet.
    fn inspection(&mut self) -> Result<&Inspection> {
        if self.inspection.is_none() {
            self.open_encrypted()?;
            self.inspect_again()?;
        }
        self.inspected()
    }

    /// Looks at the disks.
    pub(crate) fn inspect_again(&mut self) -> Result<()> {
        let started = Instant::now();
        let volumes = self.volumes()?;
        self.inspection = Some(inspect(volumes));
        self.metrics.inspect = started.elapsed();
        Ok(())
    }

    /// What inspection found before.
    pub(crate) fn inspected(&self) -> Result<&Inspection> {
        self.inspection
            .as_ref()
            .ok_or_else(|| Error::Usage("no inspection data: call inspect-os first".into()))
    }

    /// The operating system with this root.
    pub(crate) fn inspected_system(&self, root: &Mountable) -> Result<&OperatingSystem> {
        let inspection = self.inspected()?;
        inspection.system(&self.canonical_root(root)).ok_or_else(|| {
            Error::Usage(format!(
                "{root}: root device not found: only call this function with a root device previously \
                 returned by inspect-os"
            ))
        })
    }

    /// The name that inspection has for a root.
    fn canonical_root(&self, root: &Mountable) -> String {
        match self.find_device(DeviceName::new(root)) {
            Ok(found) => found.name,
            Err(_) => super::text(root.as_bstr()),
        }
    }

    /// The keys that the guests on what is open have in files for encrypted devices, which are given by their names and
    /// UUIDs.
    pub(crate) fn key_files(&mut self, closed: &[(String, String)]) -> Result<Vec<(String, Key)>> {
        let known = self.warnings.len();
        let volumes = self.volumes()?;
        // Who looks for more than keys is told.
        self.warnings.truncate(known);
        Ok(super::key_files(&volumes, closed))
    }

    /// What the disks hold. A file system that its driver refuses is left closed, with a warning.
    fn volumes(&mut self) -> Result<Volumes> {
        let mut warnings = Vec::new();
        let disks = self.launched()?;
        let mut found = Volumes { disks: disks.len(), ..Volumes::default() };
        for (index, disk) in disks.iter().enumerate() {
            let partitions = partitions(disk);
            let whole = disk_name(index);
            if self.stack.shows_partitions(index) {
                for partition in &partitions {
                    let name = format!("{whole}{}", partition.number);
                    found.volumes.push(self.volume(index, name, Some(partition), &mut warnings));
                }
            }
            if partitions.is_empty() || !self.stack.shows_partitions(index) {
                found.volumes.push(self.volume(index, whole, None, &mut warnings));
            }
            let has_bios_boot =
                partitions.iter().any(|partition| partition.type_guid.as_deref() == Some(BIOS_BOOT));
            if has_bios_boot || has_boot_code(&disk.device) {
                found.bios_disks.push(index);
            }
        }
        for stacked in self.stack.volumes() {
            let Ok(disk) = &stacked.disk else { continue };
            let below = self.stack.all_below(&stacked.name);
            let index =
                below.iter().filter_map(|name| Some(parse_disk_name(name)?.0)).min().unwrap_or_default();
            let partitions = partitions(disk);
            for partition in &partitions {
                let name = stacked.partition_name(partition.number);
                found.volumes.push(self.volume(index, name, Some(partition), &mut warnings));
            }
            if partitions.is_empty() {
                let volume = self.volume(index, stacked.name.clone(), None, &mut warnings);
                found.volumes.push(Volume { aliases: stacked.aliases.clone(), ..volume });
            }
        }
        let opened = self.stack.containers().filter_map(|(device, container)| {
            Some(Decrypted {
                device: device.to_owned(),
                uuid: container.signature.uuid.clone(),
                content: self.stack.content_of(device)?,
            })
        });
        found.decrypted = opened.collect();
        self.warnings.extend(warnings);
        Ok(found)
    }

    fn volume(
        &self,
        disk: usize,
        name: String,
        partition: Option<&&Partition>,
        warnings: &mut Vec<String>,
    ) -> Volume {
        let mut volume = Volume {
            device: name.clone(),
            aliases: Vec::new(),
            disk,
            kind: "unknown".into(),
            label: BString::default(),
            uuid: String::new(),
            part_uuid: partition.map(|partition| partition.part_uuid.clone()).unwrap_or_default(),
            part_label: partition.and_then(|partition| partition.name.clone()),
            len_bytes: 0,
            is_esp: partition.is_some_and(|partition| {
                partition.type_guid.as_deref() == Some(ESP.0) || partition.mbr_type == Some(ESP.1)
            }),
            is_used: self.stack.above(&name).next().is_some(),
            filesystem: None,
        };
        let (_, device) = match self.open_device(name.as_str().into()) {
            Ok(opened) => opened,
            // A partition beyond the end of a disk that was cut.
            Err(e) => {
                warnings.push(format!("{e}: not inspected"));
                return volume;
            }
        };
        volume.len_bytes = device.size();
        match signature::probe(&device) {
            Ok(Some(signature)) => {
                volume.kind = signature.kind.to_owned();
                volume.label = signature.label;
                volume.uuid = signature.uuid;
            }
            Ok(None) => {}
            Err(e) => warnings.push(format!("{name}: {e}")),
        }
        // What is a part of a volume, or encrypted, holds no file system of its own.
        if self.stack.container(&name).is_some() {
            return volume;
        }
        match self.open_filesystem(name.as_str().into()) {
            Ok((_, filesystem)) => {
                volume.kind = filesystem.kind().to_owned();
                volume.label = filesystem.label();
                volume.uuid = filesystem.uuid();
                volume.filesystem = Some(filesystem);
            }
            Err(Error::FileSystem { source: vmcraft_fs::Error::Unsupported(_), .. })
                if !DRIVERS.iter().any(|driver| driver.names.contains(&volume.kind.as_str())) => {}
            Err(e) => warnings.push(format!("{e}: not inspected")),
        }
        volume
    }
}

/// The partitions of a disk that can hold something.
fn partitions(disk: &Disk) -> Vec<&Partition> {
    let table: Option<&PartitionTable> = disk.table.as_ref().ok().and_then(Option::as_ref);
    let all = table.map(|table| table.partitions.as_slice()).unwrap_or_default();
    all.iter().filter(|partition| partition.role != PartitionRole::Extended).collect()
}

/// Whether the first sector of a disk has a boot loader for BIOS in it.
fn has_boot_code(device: &Arc<dyn BlockDevice>) -> bool {
    let mut sector = [0; 512];
    device.size() >= 512
        && device.read_at(0, &mut sector).is_ok()
        && BOOT_CODES.iter().any(|code| sector.contains_str(code))
}

/// Whether this holds something else than a file system, which is looked into if it can be.
fn is_locked_or_member(kind: &str) -> bool {
    matches!(kind, "crypto_LUKS" | "BitLocker") || kind.ends_with("_member")
}

/// The system that is meant.
fn choose<'a>(inspection: &'a Inspection, wanted: Option<&str>) -> Result<&'a OperatingSystem> {
    let systems = inspection.systems.as_slice();
    let list = || {
        let lines = systems.iter().map(|system| {
            let name = system.pretty_name.as_deref().or(system.distro.as_deref()).unwrap_or("unknown");
            format!("\n  {} {}", system.root, name.escape_debug())
        });
        lines.collect::<String>()
    };
    match (systems, wanted) {
        ([], _) => {
            let of = |kinds: fn(&str) -> bool, why: &str| {
                let unread = inspection.volumes.unread().filter(|volume| kinds(&volume.kind));
                let unread: Vec<_> =
                    unread.map(|volume| format!("{} holds {}", volume.device, volume.kind)).collect();
                if unread.is_empty() { String::new() } else { format!(" ({}, {why})", unread.join(", ")) }
            };
            let is_locked = |kind: &str| matches!(kind, "crypto_LUKS" | "BitLocker");
            let locked = of(is_locked, "for which no key was given: --key gives one");
            let unread = of(|kind| !is_locked_or_member(kind), "which this version does not read");
            Err(Error::NoSystem { why: format!("{locked}{unread}") })
        }
        (_, Some(wanted)) => systems.iter().find(|system| system.root == wanted).ok_or_else(|| {
            Error::Usage(format!("{wanted}: no operating system has its root there; there are:{}", list()))
        }),
        ([only], None) => Ok(only),
        (_, None) => Err(Error::Usage(format!(
            "there are several operating systems on the disks; choose one with --root DEVICE:{}",
            list()
        ))),
    }
}
