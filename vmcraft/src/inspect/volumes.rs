//! What the disks hold, and how the names in a guest's fstab lead there.

use std::sync::Arc;

use bstr::{BStr, BString, ByteSlice};
use vmcraft_fs::FileSystem;

use super::fstab::Entry;
use super::{crypttab, escape};
use crate::device::{disk_letters, parse_disk_name};
use crate::stack::MAPPER;

/// A device that can hold a file system: a partition, or a disk or volume without partitions.
#[derive(Clone)]
pub(crate) struct Volume {
    /// The canonical name, `/dev/sda1`.
    pub(crate) device: String,
    /// What else it is called, such as `/dev/mapper/vg-lv`.
    pub(crate) aliases: Vec<String>,
    /// The index of the disk that it is on; of the first if there are several.
    pub(crate) disk: usize,
    /// What is on it as `blkid` names it, `unknown` if that is not known.
    pub(crate) kind: String,
    /// The label of the file system, empty if it has none.
    pub(crate) label: BString,
    /// The UUID of the file system as `blkid` prints it, empty if it has none.
    pub(crate) uuid: String,
    /// The PARTUUID, empty if it is no partition.
    pub(crate) part_uuid: String,
    /// The name of a GPT partition.
    pub(crate) part_label: Option<String>,
    pub(crate) len_bytes: u64,
    /// Whether it is an EFI system partition.
    pub(crate) is_esp: bool,
    /// Whether volumes stand on it: its content is theirs.
    pub(crate) is_used: bool,
    /// The open file system, if we have a driver for it.
    pub(crate) filesystem: Option<Arc<dyn FileSystem>>,
}

/// An encrypted device that is open.
#[derive(Clone)]
pub(crate) struct Decrypted {
    /// Its canonical name.
    pub(crate) device: String,
    pub(crate) uuid: String,
    /// The canonical name of its content.
    pub(crate) content: String,
}

/// All disks and what is on them, in the order of the disks.
#[derive(Clone, Default)]
pub(crate) struct Volumes {
    /// In the order that `list-filesystems` has.
    pub(crate) volumes: Vec<Volume>,
    /// How many disks there are.
    pub(crate) disks: usize,
    /// The encrypted devices that are open: their names, their UUIDs, and the names of their contents.
    pub(crate) decrypted: Vec<Decrypted>,
    /// The disks with a BIOS boot partition, or with a boot loader in their first sector.
    pub(crate) bios_disks: Vec<usize>,
}

impl Volumes {
    /// The volume with this canonical device name.
    pub(crate) fn get(&self, device: &str) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.device == device)
    }

    /// The volumes that hold something which is not opened here. Swap space has nothing to read.
    pub(crate) fn unread(&self) -> impl Iterator<Item = &Volume> {
        let is_known = |volume: &&Volume| !matches!(volume.kind.as_str(), "unknown" | "swap");
        let is_closed = |volume: &&Volume| volume.filesystem.is_none() && !volume.is_used;
        self.volumes.iter().filter(is_closed).filter(is_known)
    }

    /// The device that an fstab entry mounts in the guest whose root is on `root`.
    ///
    /// `None` if it is no disk, or a tag that nothing here has. The name of a device that is not here is
    /// returned as it is. `crypttab` says what the guest calls its encrypted devices.
    pub(crate) fn resolve(&self, entry: &Entry, crypttab: &[crypttab::Entry], root: &str) -> Option<String> {
        let opened =
            entry.spec.strip_prefix(MAPPER.as_bytes()).and_then(|name| self.by_crypttab(name, crypttab));
        let device = match opened {
            Some(device) => device,
            None => self.resolve_spec(entry.spec.as_bstr(), root)?,
        };
        let subvolume = entry.options.iter().find_map(|option| option.strip_prefix(b"subvol="));
        match subvolume {
            Some(subvolume) if entry.vfs_type == "btrfs" => {
                Some(format!("btrfsvol:{device}/{}", subvolume.trim_start_with(|c| c == '/').to_str_lossy()))
            }
            _ => Some(device),
        }
    }

    fn resolve_spec(&self, spec: &BStr, root: &str) -> Option<String> {
        if let Some((tag, value)) = spec.split_once_str("=")
            && matches!(tag, b"UUID" | b"LABEL" | b"PARTUUID" | b"PARTLABEL")
        {
            return self.by_tag(tag, value);
        }
        let spec = spec.to_str().ok()?;
        let name = spec.strip_prefix("/dev/")?;
        if is_removable(name) {
            return None;
        }
        if name == "root" {
            return Some(root.to_owned());
        }
        let is_called =
            |volume: &&Volume| volume.device == spec || volume.aliases.iter().any(|alias| alias == spec);
        // A disk of this name is the guest's, not ours, and is translated below.
        if let Some(volume) = self.volumes.iter().find(is_called)
            && parse_disk_name(spec).is_none()
        {
            return Some(volume.device.clone());
        }
        let found = match name.strip_prefix("disk/") {
            Some(link) => self.by_disk_link(link),
            None => disk_and_partition(spec).and_then(|(disk, number)| self.by_number(disk, number)),
        };
        Some(found.unwrap_or_else(|| spec.to_owned()))
    }

    /// The content of an encrypted device, by the name that the guest gives it.
    fn by_crypttab(&self, name: &[u8], crypttab: &[crypttab::Entry]) -> Option<String> {
        let entry = crypttab.iter().find(|entry| entry.name == name)?;
        let opened = self
            .decrypted
            .iter()
            .find(|opened| self.is_encrypted_device(entry, &opened.device, &opened.uuid))?;
        Some(opened.content.clone())
    }

    /// Whether an entry of crypttab is of this encrypted device.
    pub(crate) fn is_encrypted_device(&self, entry: &crypttab::Entry, device: &str, uuid: &str) -> bool {
        let by_uuid =
            entry.device.strip_prefix(b"UUID=").or_else(|| entry.device.strip_prefix(b"/dev/disk/by-uuid/"));
        match by_uuid {
            Some(by_uuid) => uuid.as_bytes().eq_ignore_ascii_case(by_uuid),
            None => self.resolve_spec(entry.device.as_bstr(), "").is_some_and(|found| found == device),
        }
    }

    fn by_tag(&self, tag: &[u8], value: &[u8]) -> Option<String> {
        let matches = |volume: &&Volume| match tag {
            b"UUID" => volume.uuid.as_bytes().eq_ignore_ascii_case(value),
            b"LABEL" => volume.label == value,
            b"PARTUUID" => volume.part_uuid.as_bytes().eq_ignore_ascii_case(value),
            _ => volume.part_label.as_deref().is_some_and(|label| label.as_bytes() == value),
        };
        let found = self.volumes.iter().find(matches)?;
        (!value.is_empty()).then(|| found.device.clone())
    }

    /// `by-uuid/…` and the other directories of `/dev/disk`.
    fn by_disk_link(&self, link: &str) -> Option<String> {
        let (directory, name) = link.split_once('/')?;
        let name = escape::from_hexadecimal(name.as_bytes());
        match directory {
            "by-uuid" => self.by_tag(b"UUID", &name),
            "by-label" => self.by_tag(b"LABEL", &name),
            "by-partuuid" => self.by_tag(b"PARTUUID", &name),
            "by-partlabel" => self.by_tag(b"PARTLABEL", &name),
            // The controller that the name is of is not here: only with one disk is it plain which.
            "by-id" | "by-path" if self.disks == 1 => {
                let (_, number) = link.rsplit_once("-part")?;
                self.by_number(0, Some(number.parse().ok()?))
            }
            _ => None,
        }
    }

    /// The name of a disk or partition; only the disk needs to be there, as in libguestfs.
    fn by_number(&self, disk: usize, number: Option<u32>) -> Option<String> {
        let letters = (disk < self.disks).then(|| disk_letters(disk))?;
        Some(match number {
            Some(number) => format!("/dev/sd{letters}{number}"),
            None => format!("/dev/sd{letters}"),
        })
    }
}

/// Whether this name in `/dev` is of a drive for floppy disks, CDs or DVDs.
fn is_removable(name: &str) -> bool {
    let numbered = |prefix: &str| {
        name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    numbered("fd") || numbered("cd") || matches!(name, "floppy" | "cdrom") || name.starts_with("iso9660/")
}

/// The index of a disk and the number of a partition in a name that some hypervisor or controller
/// would have given: the disks are taken to be in the guest's order.
fn disk_and_partition(name: &str) -> Option<(usize, Option<u32>)> {
    parse_disk_name(name).or_else(|| {
        let rest = name.strip_prefix("/dev/")?;
        let (disk, rest) = match rest.strip_prefix("nvme") {
            // Each controller has one namespace with a disk.
            Some(rest) => {
                let (controller, rest) = split_number(rest)?;
                (controller, rest.strip_prefix("n1")?)
            }
            None => split_number(rest.strip_prefix("mmcblk")?)?,
        };
        let number = match rest {
            "" => None,
            _ => Some(rest.strip_prefix('p')?.parse().ok()?),
        };
        Some((usize::try_from(disk).ok()?, number))
    })
}

/// The number at the start of a text, and what follows.
fn split_number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A volume on partition `number` of disk `disk`.
    pub(crate) fn volume(disk: usize, number: u32) -> Volume {
        Volume {
            device: format!("/dev/sd{}{number}", disk_letters(disk)),
            aliases: Vec::new(),
            disk,
            kind: "unknown".into(),
            label: BString::default(),
            uuid: String::new(),
            part_uuid: format!("{disk:08x}-{number:02x}"),
            part_label: None,
            len_bytes: 1 << 30,
            is_esp: false,
            is_used: false,
            filesystem: None,
        }
    }

    fn resolve(volumes: &Volumes, spec: &str, vfs_type: &str, options: &str) -> Option<String> {
        let entry = Entry {
            spec: spec.into(),
            mountpoint: "/x".into(),
            vfs_type: vfs_type.into(),
            options: options.split(',').map(BString::from).collect(),
        };
        volumes.resolve(&entry, &[], "/dev/sda9")
    }

    #[test] // Every way to name a device in fstab, and what is left alone.
    fn names_in_fstab_lead_to_devices() {
        let mut root = volume(0, 2);
        (root.uuid, root.label) = ("42e9f33b-7620-41f7-907d-a589fc9cb289".into(), "my root".into());
        root.part_label = Some("ROOT".into());
        let mut efi = volume(0, 1);
        (efi.uuid, efi.kind) = ("89AB-CDEF".into(), "vfat".into());
        let mut volumes = Volumes { volumes: vec![efi, root, volume(1, 1)], disks: 2, ..Volumes::default() };
        for (spec, expected) in [
            ("UUID=42e9f33b-7620-41f7-907d-a589fc9cb289", Some("/dev/sda2")),
            ("UUID=42E9F33B-7620-41F7-907D-A589FC9CB289", Some("/dev/sda2")),
            ("UUID=89AB-CDEF", Some("/dev/sda1")),
            ("UUID=0000", None),
            ("UUID=", None),
            ("LABEL=my root", Some("/dev/sda2")),
            ("LABEL=MY ROOT", None),
            ("LABEL=", None),
            ("PARTUUID=00000001-01", Some("/dev/sdb1")),
            ("PARTLABEL=ROOT", Some("/dev/sda2")),
            ("/dev/disk/by-uuid/89AB-CDEF", Some("/dev/sda1")),
            ("/dev/disk/by-label/my\\x20root", Some("/dev/sda2")),
            ("/dev/disk/by-partuuid/00000000-02", Some("/dev/sda2")),
            ("/dev/disk/by-uuid/none", Some("/dev/disk/by-uuid/none")),
            ("/dev/disk/by-id/ata-X-part1", Some("/dev/disk/by-id/ata-X-part1")),
            ("/dev/sda2", Some("/dev/sda2")),
            ("/dev/vdb1", Some("/dev/sdb1")),
            ("/dev/hda1", Some("/dev/sda1")),
            ("/dev/xvda7", Some("/dev/sda7")),
            ("/dev/xvdb", Some("/dev/sdb")),
            ("/dev/vdc1", Some("/dev/vdc1")),
            ("/dev/nvme0n1p2", Some("/dev/sda2")),
            ("/dev/nvme1n1", Some("/dev/sdb")),
            ("/dev/nvme0n2p1", Some("/dev/nvme0n2p1")),
            ("/dev/mmcblk0p1", Some("/dev/sda1")),
            ("/dev/root", Some("/dev/sda9")),
            ("/dev/mapper/vg-root", Some("/dev/mapper/vg-root")),
            ("/dev/vg/root", Some("/dev/vg/root")),
            ("/dev/md0", Some("/dev/md0")),
            ("/dev/fd0", None),
            ("/dev/cdrom", None),
            ("/dev/iso9660/X", None),
            ("tmpfs", None),
            ("server:/export", None),
            ("//server/share", None),
            ("/var/swapfile", None),
            ("ID=x", None),
        ] {
            assert_eq!(resolve(&volumes, spec, "ext4", "defaults").as_deref(), expected, "{spec}");
        }
        assert_eq!(
            resolve(&volumes, "LABEL=my root", "btrfs", "rw,subvol=/@home").as_deref(),
            Some("btrfsvol:/dev/sda2/@home")
        );
        volumes.disks = 1;
        assert_eq!(
            resolve(&volumes, "/dev/disk/by-id/ata-X-part1", "ext4", "").as_deref(),
            Some("/dev/sda1")
        );
    }
}
