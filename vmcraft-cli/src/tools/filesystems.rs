//! `virt-filesystems`: the file systems, partitions and disks.

use std::process::ExitCode;

use bstr::BStr;
use vmcraft::{DeviceName, Guest, GuestPath, Mountable};

use crate::error::{Error, Result};
use crate::report;
use crate::tools::common::{ToolOptions, print, trace};
use crate::tools::size::human;
use crate::tools::table::lined_up;
use crate::tools::{Tool, csv};

/// List file systems, partitions and disks of a virtual machine
#[derive(Debug, clap::Parser)]
#[command(version, after_help = "Example:\n  virt-filesystems -a disk.qcow2 --all --long -h")]
pub(super) struct Filesystems {
    #[command(flatten)]
    options: ToolOptions,

    /// List everything
    #[arg(long, help_heading = "What is listed")]
    all: bool,

    /// List the disks
    #[arg(long, alias = "blkdevs", help_heading = "What is listed")]
    block_devices: bool,

    /// List swap space and unknown data too
    #[arg(long, help_heading = "What is listed")]
    extra: bool,

    /// List the file systems that can be mounted; this is what is listed if nothing else is said
    #[arg(long, help_heading = "What is listed")]
    filesystems: bool,

    /// List the logical volumes of LVM
    #[arg(long, aliases = ["lvs", "logvols"], help_heading = "What is listed")]
    logical_volumes: bool,

    /// List the partitions
    #[arg(long, alias = "parts", help_heading = "What is listed")]
    partitions: bool,

    /// List the physical volumes of LVM
    #[arg(long, aliases = ["pvs", "physvols"], help_heading = "What is listed")]
    physical_volumes: bool,

    /// List the volume groups of LVM
    #[arg(long, aliases = ["vgs", "volgroups"], help_heading = "What is listed")]
    volume_groups: bool,

    /// Print comma-separated values
    #[arg(long)]
    csv: bool,

    /// With --long, print sizes for people: 1.5G
    #[arg(short, long)]
    human_readable: bool,

    /// Print more columns than the names
    #[arg(short, long)]
    long: bool,

    /// Print no title above the columns
    #[arg(long)]
    no_title: bool,

    /// With --long, print UUIDs
    #[arg(long, alias = "uuids")]
    uuid: bool,
}

/// What is known of something that is listed. Empty is what does not apply.
#[derive(Default)]
struct Row {
    name: String,
    kind: &'static str,
    vfs: String,
    label: String,
    mbr: String,
    size: u128,
    parent: String,
    uuid: String,
}

impl Tool for Filesystems {
    fn run(mut self) -> Result<ExitCode> {
        self.imply();
        self.options.adopt_old_form(&mut Vec::new(), 0)?;
        let mut guest = self.options.open()?;
        let mut rows = Vec::new();
        if self.filesystems {
            self.add_filesystems(&mut guest, &mut rows)?;
        }
        self.add_lvm(&guest, &mut rows)?;
        if self.partitions {
            self.add_partitions(&guest, &mut rows)?;
        }
        if self.block_devices {
            self.add_devices(&guest, &mut rows)?;
        }
        print(&self.text(&rows))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Filesystems {
    /// Sets what the options imply.
    fn imply(&mut self) {
        let named = self.block_devices || self.logical_volumes || self.partitions;
        let named = named || self.physical_volumes || self.volume_groups;
        self.filesystems |= self.all || self.extra || !named;
        self.extra |= self.all;
        self.block_devices |= self.all;
        self.partitions |= self.all;
        self.logical_volumes |= self.all;
        self.volume_groups |= self.all;
        self.physical_volumes |= self.all;
    }

    fn add_filesystems(&self, guest: &mut Guest, rows: &mut Vec<Row>) -> Result<()> {
        trace(&self.options, format_args!("list_filesystems"));
        for (device, kind) in guest.list_filesystems().map_err(|e| Error::call("list-filesystems", e))? {
            let mounts = kind != "swap" && kind != "unknown";
            if !mounts && !self.extra {
                continue;
            }
            let mut row = Row { name: device.to_string(), kind: "filesystem", ..Row::default() };
            if self.long {
                let mountable = Mountable::new(&device);
                row.vfs = kind.to_string();
                let label = guest.vfs_label(mountable).map_err(|e| Error::call("vfs-label", e))?;
                row.label = label.to_string();
                row.uuid = guest.vfs_uuid(mountable).map_err(|e| Error::call("vfs-uuid", e))?;
                row.size = match mounts.then(|| self.capacity(guest, device.as_ref())) {
                    Some(Ok(bytes)) => bytes,
                    Some(Err(error)) => {
                        report::warning(&format!("{device}: the size is that of the device: {error}"));
                        device_size(guest, &row.name)?
                    }
                    None => device_size(guest, &row.name)?,
                };
            }
            rows.push(row);
        }
        Ok(())
    }

    /// What a file system has room for, in bytes.
    fn capacity(&self, guest: &mut Guest, device: &BStr) -> vmcraft::Result<u128> {
        trace(&self.options, format_args!("mount_ro {device:?} \"/\" : statvfs \"/\""));
        guest.umount_all()?;
        guest.mount_ro(Mountable::new(device), GuestPath::new("/"))?;
        let stat = guest.statvfs(GuestPath::new("/"))?;
        guest.umount_all()?;
        Ok(u128::from(stat.blocks.cast_unsigned()) * u128::from(stat.bsize.cast_unsigned()))
    }

    /// Logical volumes, volume groups and physical volumes, as far as they are asked for.
    fn add_lvm(&self, guest: &Guest, rows: &mut Vec<Row>) -> Result<()> {
        if self.logical_volumes {
            trace(&self.options, format_args!("lvs"));
            for name in guest.lvs().map_err(|e| Error::call("lvs", e))? {
                let device = DeviceName::new(&name);
                let uuid = guest.lvuuid(device).map_err(|e| Error::call("lvuuid", e))?;
                // A volume that lacks a physical volume has no size here.
                let size = device_size(guest, &name).unwrap_or_else(|error| {
                    report::warning(&error.to_string());
                    0
                });
                let parent = name.rsplit_once('/').map_or("", |(group, _)| group).to_owned();
                rows.push(Row { name, kind: "lv", size, parent, uuid, ..Row::default() });
            }
        }
        if !(self.volume_groups || self.physical_volumes) {
            return Ok(());
        }
        trace(&self.options, format_args!("vgs_full"));
        let volumes = guest.pvs_full().map_err(|e| Error::call("pvs-full", e))?;
        if self.volume_groups {
            for group in guest.vgs_full().map_err(|e| Error::call("vgs-full", e))? {
                let call = |e| Error::call("vgpvuuids", e);
                let members = guest.vgpvuuids(&group.vg_name).map_err(call)?;
                let members: Vec<_> = members.iter().map(|uuid| uuid.replace('-', "")).collect();
                let parents = volumes.iter().filter(|volume| members.contains(&volume.pv_uuid));
                let parents: Vec<_> = parents.map(|volume| volume.pv_name.as_str()).collect();
                rows.push(Row {
                    name: format!("/dev/{}", group.vg_name),
                    kind: "vg",
                    size: group.vg_size.into(),
                    parent: parents.join(","),
                    uuid: group.vg_uuid,
                    ..Row::default()
                });
            }
        }
        if self.physical_volumes {
            rows.extend(volumes.into_iter().map(|volume| Row {
                name: volume.pv_name,
                kind: "pv",
                size: volume.pv_size.into(),
                uuid: volume.pv_uuid,
                ..Row::default()
            }));
        }
        Ok(())
    }

    fn add_partitions(&self, guest: &Guest, rows: &mut Vec<Row>) -> Result<()> {
        trace(&self.options, format_args!("list_partitions"));
        for name in guest.list_partitions().map_err(|e| Error::call("list-partitions", e))? {
            let device = DeviceName::new(&name);
            let parent = guest.part_to_dev(device).map_err(|e| Error::call("part-to-dev", e))?;
            let number = guest.part_to_partnum(device).map_err(|e| Error::call("part-to-partnum", e))?;
            // Only partitions of an MBR have a type byte.
            let mbr = guest.part_get_mbr_id(DeviceName::new(&parent), number);
            let mbr = mbr.map_or(String::new(), |id| format!("{id:02x}"));
            let size = device_size(guest, &name)?;
            rows.push(Row { name, kind: "partition", mbr, size, parent, ..Row::default() });
        }
        Ok(())
    }

    fn add_devices(&self, guest: &Guest, rows: &mut Vec<Row>) -> Result<()> {
        trace(&self.options, format_args!("list_devices"));
        for name in guest.list_devices().map_err(|e| Error::call("list-devices", e))? {
            let size = device_size(guest, &name)?;
            rows.push(Row { name, kind: "device", size, ..Row::default() });
        }
        Ok(())
    }

    fn text(&self, rows: &[Row]) -> Vec<u8> {
        let mut table = Vec::new();
        if self.long && !self.no_title {
            table.push(self.columns(["Name", "Type", "VFS", "Label", "MBR", "Size", "Parent", "UUID"]));
        }
        table.extend(rows.iter().map(|row| {
            let size = if self.human_readable { human(row.size) } else { row.size.to_string() };
            self.columns([&row.name, row.kind, &row.vfs, &row.label, &row.mbr, &size, &row.parent, &row.uuid])
        }));
        if self.csv { table.iter().flat_map(csv::line).collect() } else { lined_up(&table).into_bytes() }
    }

    /// The cells of the columns that are asked for.
    fn columns(&self, cells: [&str; 8]) -> Vec<String> {
        let fs = self.long && self.filesystems;
        let wanted = [
            true,
            self.long,
            fs,
            fs,
            self.long && self.partitions,
            self.long,
            self.long,
            self.long && self.uuid,
        ];
        let columns = cells.iter().zip(wanted).filter(|(_, wanted)| *wanted);
        columns.map(|(cell, _)| (*cell).to_owned()).collect()
    }
}

fn device_size(guest: &Guest, device: &str) -> Result<u128> {
    let size = guest.blockdev_getsize64(DeviceName::new(device));
    Ok(size.map_err(|e| Error::call("blockdev-getsize64", e))?.cast_unsigned().into())
}
