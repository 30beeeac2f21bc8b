//! `-N`: disks that are made before anything else happens, as guestfish makes them.

use vmcraft::{DeviceName, DriveOptions, Guest};
use vmcraft_block::image::{self, Format, NewFormat, NewImage, Space};

use crate::error::{Error, Result, message};
use crate::new_volume::VolumeName;
use crate::size;

/// What a file system or a boot file system is, unless it is said.
const FILE_SYSTEM: &str = "ext2";

/// The kinds that can be asked for, in the order of the help.
const KINDS: &[Kind] = &[
    Kind { name: "disk", summary: "a blank disk", description: "Nothing is on it.", parameters: &[SIZE] },
    Kind {
        name: "part",
        summary: "a partitioned disk",
        description: "One partition covers it.",
        parameters: &[SIZE, PARTITION],
    },
    Kind {
        name: "fs",
        summary: "a file system",
        description: "One partition covers the disk, with an empty file system on it.",
        parameters: &[("filesystem", "the type of the file system", FILE_SYSTEM), SIZE, PARTITION],
    },
    Kind {
        name: "bootroot",
        summary: "a boot and a root file system",
        description: "Two partitions have an empty file system each.",
        parameters: &[
            ("bootfs", "the type of the boot file system", FILE_SYSTEM),
            ("rootfs", "the type of the root file system", FILE_SYSTEM),
            SIZE,
            ("bootsize", "the size of the boot partition", "128M"),
            PARTITION,
        ],
    },
    Kind {
        name: "lv",
        summary: "a logical volume",
        description: "One partition covers the disk; it is a physical volume, and a logical volume has all of it.",
        parameters: &[NAME, SIZE, PARTITION],
    },
    Kind {
        name: "lvfs",
        summary: "a file system on a logical volume",
        description: "As lv, with an empty file system on the logical volume.",
        parameters: &[NAME, ("filesystem", "the type of the file system", FILE_SYSTEM), SIZE, PARTITION],
    },
    Kind {
        name: "bootrootlv",
        summary: "a boot file system, and a root file system on a logical volume",
        description: "As bootroot, with the root file system on a logical volume that has all of the second partition.",
        parameters: &[
            NAME,
            ("bootfs", "the type of the boot file system", FILE_SYSTEM),
            ("rootfs", "the type of the root file system", FILE_SYSTEM),
            SIZE,
            ("bootsize", "the size of the boot partition", "128M"),
            PARTITION,
        ],
    },
];

/// A parameter: its name, what it is, and its value if it is left out.
type Parameter = (&'static str, &'static str, &'static str);

const NAME: Parameter = ("name", "the name of the logical volume", "/dev/VG/LV");
const SIZE: Parameter = ("size", "the size of the disk", "1G");
const PARTITION: Parameter = ("partition", "the kind of partition table", "mbr");

struct Kind {
    name: &'static str,
    summary: &'static str,
    description: &'static str,
    parameters: &'static [Parameter],
}

/// A disk that `-N` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prepared {
    file: String,
    kind: &'static str,
    /// The parameters of its kind, in order.
    values: Vec<String>,
}

impl Prepared {
    /// Reads `[FILE=]KIND[:PARAMETER…]`. `number` counts the disks that `-N` makes, from 1.
    pub(crate) fn parse(text: &str, number: usize) -> Result<Self> {
        let (file, what) = match text.split_once('=') {
            Some((file, what)) if !file.is_empty() => (file.to_owned(), what),
            _ => (format!("test{number}.img"), text.trim_start_matches('=')),
        };
        let mut words = what.split(':');
        let name = words.next().unwrap_or_default();
        let Some(kind) = KINDS.iter().find(|kind| kind.name == name) else {
            return Err(message(format!(
                "-N {text}: there is no kind {name:?} of prepared disks: see -N help"
            )));
        };
        let values: Vec<String> =
            kind.parameters.iter().map(|(.., default)| words.next().unwrap_or(default).to_owned()).collect();
        if let Some(extra) = words.next() {
            return Err(message(format!(
                "-N {text}: {extra:?} is one parameter too many: {name} has {}",
                kind.parameters.len()
            )));
        }
        let prepared = Self { file, kind: kind.name, values };
        if kind.parameters.contains(&NAME) {
            VolumeName::parse(prepared.value("name")).map_err(|e| message(format!("-N {text}: {e}")))?;
        }
        Ok(prepared)
    }

    /// Makes the file and adds it.
    pub(crate) fn add(&self, guest: &mut Guest) -> Result<()> {
        add_blank(guest, &self.file, self.bytes("size")?, Space::Sparse)
    }

    /// Puts onto the launched disk what belongs there.
    pub(crate) fn fill(&self, guest: &mut Guest) -> Result<()> {
        let Some(disk) = guest.disk_of_drive(&self.file) else { return Ok(()) };
        let device = DeviceName::new(&disk);
        let mkfs_on = |guest: &mut Guest, parameter: &str, device: &str| {
            guest
                .mkfs(self.value(parameter), DeviceName::new(device), None, None, None, None, None)
                .map_err(|e| Error::call("mkfs", e))
        };
        let mkfs = |guest: &mut Guest, parameter: &str, number: u32| {
            mkfs_on(guest, parameter, &format!("{disk}{number}"))
        };
        let make_volume = |guest: &mut Guest, number: u32| {
            let name = self.value("name");
            VolumeName::parse(name).map_err(message)?.make(guest, &format!("{disk}{number}"))
        };
        let table = self.value("partition");
        match self.kind {
            "part" => guest.part_disk(device, table).map_err(|e| Error::call("part-disk", e)),
            "fs" => {
                guest.part_disk(device, table).map_err(|e| Error::call("part-disk", e))?;
                mkfs(guest, "filesystem", 1)
            }
            "lv" | "lvfs" => {
                guest.part_disk(device, table).map_err(|e| Error::call("part-disk", e))?;
                make_volume(guest, 1)?;
                if self.kind == "lvfs" { mkfs_on(guest, "filesystem", self.value("name")) } else { Ok(()) }
            }
            "bootroot" | "bootrootlv" => {
                let sector_size = guest.blockdev_getss(device)?;
                let sectors =
                    i64::try_from(self.bytes("bootsize")?).unwrap_or(i64::MAX) / i64::from(sector_size);
                let boot_end = BOOTROOT_MARGIN.saturating_add(sectors) - 1;
                let call = |e| Error::call("part-add", e);
                guest.part_init(device, table).map_err(|e| Error::call("part-init", e))?;
                guest.part_add(device, "p", BOOTROOT_MARGIN, boot_end).map_err(call)?;
                guest.part_add(device, "p", boot_end + 1, -BOOTROOT_MARGIN).map_err(call)?;
                mkfs(guest, "bootfs", 1)?;
                if self.kind == "bootroot" {
                    return mkfs(guest, "rootfs", 2);
                }
                make_volume(guest, 2)?;
                mkfs_on(guest, "rootfs", self.value("name"))
            }
            _ => Ok(()),
        }
    }

    fn value(&self, parameter: &str) -> &str {
        let kind = KINDS.iter().find(|kind| kind.name == self.kind);
        let index = kind.and_then(|kind| kind.parameters.iter().position(|(name, ..)| *name == parameter));
        index.and_then(|index| self.values.get(index)).map_or("", String::as_str)
    }

    fn bytes(&self, parameter: &str) -> Result<u64> {
        size::parse(self.value(parameter)).map_err(|e| message(format!("-N {}: {parameter}: {e}", self.kind)))
    }
}

/// Makes a raw image that reads as zeros, and adds it.
pub(crate) fn add_blank(guest: &mut Guest, file: &str, size: u64, space: Space) -> Result<()> {
    let new = NewImage { format: NewFormat::Raw(size), space };
    image::create(file, &new).map_err(|e| message(e.to_string()))?;
    Ok(guest.add_drive_with(file, DriveOptions { format: Some(Format::Raw), ..DriveOptions::default() })?)
}

/// What `bootroot` leaves free at both ends of the disk, in sectors.
const BOOTROOT_MARGIN: i64 = 64;

/// What `-N help` prints.
pub(crate) fn help() -> String {
    let mut text = String::from("List of available prepared disk images:\n");
    for kind in KINDS {
        text.push_str(&format!("\n-N {:<9} {}\n\n  {}\n\n", kind.name, kind.summary, kind.description));
        let names: Vec<_> = kind.parameters.iter().map(|(name, ..)| format!(":<{name}>")).collect();
        text.push_str(&format!("  Optional parameters:\n    -N {}{}\n", kind.name, names.concat()));
        for (name, what, default) in kind.parameters {
            text.push_str(&format!("      <{name}> {what} (default: {default})\n"));
        }
    }
    text.push_str(
        "\nThe disks are files \"test1.img\", \"test2.img\" and so on in the current directory, in the order of the -N.\n\
         Another name goes before the kind, as in -N blank.img=fs:ext4:1G.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // The forms of guestfish's manual.
    fn parameters_have_defaults() {
        let parse = |text| Prepared::parse(text, 3).unwrap();
        let fs = parse("fs:ext4:1M");
        assert_eq!(
            (fs.file.as_str(), fs.value("filesystem"), fs.value("partition")),
            ("test3.img", "ext4", "mbr")
        );
        assert_eq!(fs.bytes("size").unwrap(), 1 << 20);
        let named = parse("a/b.img=bootroot:ext2:ext4:2G:100M:gpt");
        assert_eq!(
            (named.file.as_str(), named.value("bootsize"), named.value("partition")),
            ("a/b.img", "100M", "gpt")
        );
        for (bad, why) in
            [("floppy", "no kind \"floppy\""), ("lvfs:VG/LV", "/dev/VG/LV"), ("disk:1G:mbr", "too many")]
        {
            let error = Prepared::parse(bad, 1).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
