//! `virt-format`: erases disks and makes empty ones of them.

use std::process::ExitCode;

use bstr::BStr;
use vmcraft::{DeviceName, Guest};

use crate::error::{Error, Result, message};
use crate::new_volume::VolumeName;
use crate::tools::Tool;
use crate::tools::common::WriteOptions;

/// Disks of this size and more get a GPT: an MBR cannot count their sectors.
const GPT_FROM: i64 = 2 << 40;

/// Erase disks and make blank ones of them
///
/// All data on the disks is lost. Each gets one partition, and on it a file system if --filesystem asks
/// for one.
#[derive(Debug, clap::Parser)]
#[command(version, after_help = "Example:\n  virt-format -a disk.qcow2 --partition=gpt --filesystem=ext4")]
pub(super) struct Format {
    #[command(flatten)]
    options: WriteOptions,

    /// Make a file system of this type, such as ext4; none makes none
    #[arg(long, value_name = "TYPE", default_value = "none")]
    filesystem: String,

    /// The file system's label
    #[arg(long, value_name = "LABEL")]
    label: Option<String>,

    /// Make a logical volume that has all of the disk; the file system is made on it
    #[arg(long, value_name = "/dev/VG/LV", num_args = 0..=1, require_equals = true, default_missing_value = "/dev/VG/LV")]
    lvm: Option<String>,

    /// Make this kind of partition table: gpt, mbr or none; without KIND, mbr below 2 TiB and gpt from there
    #[arg(long, value_name = "KIND", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    partition: Option<String>,

    /// Make all of the disks read as zeros first
    #[arg(long)]
    wipe: bool,
}

impl Tool for Format {
    fn run(self) -> Result<ExitCode> {
        if self.options.drives.0.is_empty() {
            return Err(message("no disk was given: add -a IMAGE"));
        }
        if let Some(name) = self.volume() {
            VolumeName::parse(name).map_err(|e| message(format!("--lvm: {e}")))?;
        }
        if self.label.is_some() && self.filesystem == "none" {
            return Err(message("--label: there is no file system to label: add --filesystem"));
        }
        let mut guest = self.options.open()?;
        for disk in guest.list_devices()? {
            self.format(&mut guest, &disk)?;
        }
        guest.commit()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Format {
    /// The logical volume that is to be made.
    fn volume(&self) -> Option<&str> {
        self.lvm.as_deref().filter(|name| *name != "none")
    }

    fn format(&self, guest: &mut Guest, disk: &str) -> Result<()> {
        let device = DeviceName::new(disk);
        if self.wipe {
            self.options.trace(format_args!("zero-device \"{disk}\""));
            guest.zero_device(device).map_err(|e| Error::call("zero-device", e))?;
        } else {
            // What is at the start of a partition would show through the new table.
            let partitions = guest.list_partitions()?;
            for partition in partitions.iter().filter(|partition| partition.starts_with(disk)) {
                guest.zero(DeviceName::new(partition)).map_err(|e| Error::call("zero", e))?;
            }
            self.options.trace(format_args!("zero \"{disk}\""));
            guest.zero(device).map_err(|e| Error::call("zero", e))?;
        }
        let table = match self.partition.as_deref() {
            Some("none") => None,
            None | Some("") if guest.blockdev_getsize64(device)? < GPT_FROM => Some("mbr"),
            None | Some("") => Some("gpt"),
            other => other,
        };
        let mut target = disk.to_owned();
        if let Some(table) = table {
            self.options.trace(format_args!("part-disk \"{disk}\" \"{table}\""));
            guest.part_disk(device, table).map_err(|e| Error::call("part-disk", e))?;
            target.push('1');
            if !self.wipe {
                guest.zero(DeviceName::new(&target)).map_err(|e| Error::call("zero", e))?;
            }
        }
        if let Some(name) = self.volume() {
            self.options.trace(format_args!("pvcreate \"{target}\""));
            VolumeName::parse(name).map_err(message)?.make(guest, &target)?;
            name.clone_into(&mut target);
        }
        if self.filesystem != "none" {
            self.options.trace(format_args!("mkfs \"{}\" \"{target}\"", self.filesystem));
            let label = self.label.as_deref().map(BStr::new);
            guest
                .mkfs(&self.filesystem, DeviceName::new(&target), None, None, None, None, label)
                .map_err(|e| Error::call("mkfs", e))?;
        }
        Ok(())
    }
}
