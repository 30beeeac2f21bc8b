//! Windows dynamic disks: the Logical Disk Manager (LDM).
//!
//! Each disk of a *disk group* has, in its last megabyte or in a partition of its own, a copy of the group's database:
//! which disks there are, and which *volumes*. A volume has one *plex* (LDM's records say component), or two if
//! it is mirrored, and a plex has partitions on disks.
//!
//! Spec: "Windows NT Logical Disk Manager" of the Linux-NTFS project; Linux `block/partitions/ldm.c`; `libldm`. All
//! numbers are big-endian and count sectors of 512 bytes. What is not read is in `docs/formats/ldm.md`.

mod database;
mod group;
mod open;
mod privhead;
mod record;

use std::fmt;
use std::sync::Arc;

use vmcraft_block::BlockDevice;

use crate::{Member, Result};

/// Finds the dynamic disks among whole disks, and puts their groups together.
///
/// Disks that are not dynamic are passed over; those that are, but cannot be used, are in the warnings.
pub fn scan(disks: &[Member]) -> Ldm {
    group::scan(disks)
}

/// What was found of dynamic disks.
#[derive(Debug, Clone, Default)]
pub struct Ldm {
    /// The groups, in the order of their first disks.
    pub groups: Vec<DiskGroup>,
    /// What is wrong with disks that could not be used.
    pub warnings: Vec<String>,
}

impl Ldm {
    /// The group with this GUID.
    pub fn group(&self, guid: &str) -> Option<&DiskGroup> {
        self.groups.iter().find(|group| group.guid.eq_ignore_ascii_case(guid))
    }
}

/// A disk group.
#[derive(Debug, Clone)]
pub struct DiskGroup {
    /// Its GUID, in lower case.
    pub guid: String,
    /// Its name, such as `WIN-ERRDJSBDAVF-Dg0`.
    pub name: String,
    /// Its disks in the order of the database, missing ones too.
    pub disks: Vec<Disk>,
    /// Its volumes in the order of the database.
    pub volumes: Vec<Volume>,
    /// What the user should know, such as that a disk is out of date.
    pub warnings: Vec<String>,
}

/// A disk of a group.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Its name in the group, such as `Disk1`.
    pub name: String,
    /// Its GUID, in lower case.
    pub guid: String,
    /// The disk itself; `None` if it is missing.
    pub member: Option<Member>,
    /// Whether it was not there for the last changes of the group. It is then not used in mirrored and RAID-5 volumes.
    pub is_stale: bool,
    /// Where the data is that partitions lie in, in bytes from the start of the disk; 0 if it is missing.
    pub data_start: u64,
    /// How much there is of it, in bytes; 0 if it is missing.
    pub data_bytes: u64,
}

/// How a volume is arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One partition.
    Simple,
    /// Partitions one after the other.
    Spanned,
    /// Chunks dealt to partitions in turn.
    Striped,
    /// Copies.
    Mirrored,
    /// Chunks with rotating parity.
    Raid5,
}

/// As `ldmtool` names them, and libguestfs with it.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Simple => "simple",
            Self::Spanned => "spanned",
            Self::Striped => "striped",
            Self::Mirrored => "mirrored",
            Self::Raid5 => "RAID5",
        })
    }
}

/// A volume of a group.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Its name in the group, such as `Volume1`.
    pub name: String,
    /// Its GUID, in lower case.
    pub guid: String,
    /// How it is arranged.
    pub layout: Layout,
    /// Its size in bytes.
    pub size: u64,
    /// Striped and RAID-5: what is in a row on one disk, in bytes.
    pub chunk_bytes: u64,
    /// What Windows would call it, such as `E:`.
    pub hint: Option<String>,
    /// What it holds, as the type byte of MBR partitions: 7 for NTFS.
    pub partition_type: u8,
    /// What the group says of it: `ACTIVE` if all is well.
    pub state: String,
    /// Its copies: one, or more if it is mirrored.
    plexes: Vec<Plex>,
}

/// A copy of a volume.
#[derive(Debug, Clone)]
struct Plex {
    name: String,
    state: String,
    partitions: Vec<Partition>,
}

/// A part of a volume on one disk.
#[derive(Debug, Clone)]
pub struct Partition {
    /// Its name in the group, such as `Disk1-01`.
    pub name: String,
    /// Its disk, as an index into the group's.
    pub disk: usize,
    /// Where it begins, in bytes from the start of the disk's data.
    pub start: u64,
    /// How long it is, in bytes.
    pub len: u64,
}

impl Volume {
    /// Its partitions, those of one copy after those of the other.
    pub fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.plexes.iter().flat_map(|plex| &plex.partitions)
    }

    /// Whether it can do without one of its partitions.
    pub fn is_redundant(&self) -> bool {
        matches!(self.layout, Layout::Mirrored | Layout::Raid5)
    }
}

impl DiskGroup {
    /// The volume with this name.
    pub fn volume(&self, name: &str) -> Option<&Volume> {
        self.volumes.iter().find(|volume| volume.name == name)
    }

    /// What the device mapper of Linux calls a volume, as `ldmtool` makes it.
    pub fn volume_device(&self, volume: &Volume) -> String {
        format!("ldm_vol_{}_{}", self.name, volume.name)
    }

    /// What the device mapper of Linux calls a partition, as `ldmtool` makes it for mirrored and RAID-5 volumes.
    pub fn partition_device(&self, partition: &Partition) -> String {
        format!("ldm_part_{}_{}", self.name, partition.name)
    }

    /// The disks that a volume lies on and that are missing, by name; stale ones too if the volume is redundant.
    pub fn missing(&self, volume: &Volume) -> Vec<&str> {
        let mut missing: Vec<&str> = Vec::new();
        for disk in volume.partitions().filter_map(|partition| self.disks.get(partition.disk)) {
            let is_used = disk.member.is_some() && !(disk.is_stale && volume.is_redundant());
            if !is_used && !missing.contains(&disk.name.as_str()) {
                missing.push(&disk.name);
            }
        }
        missing
    }

    /// Opens a volume.
    ///
    /// A mirrored or RAID-5 volume opens without one of its disks, and is then read-only: its disks do not say which
    /// of them has the newer content, so that Windows would take both for the same. What is written to a
    /// mirrored volume goes to all its copies, what is written to a RAID-5 volume keeps its parity right.
    ///
    /// # Errors
    /// `Incomplete` if a disk is missing that the volume cannot do without, and says which; `Corrupt` if it does not
    /// fit its partitions, or these their disks.
    pub fn open(&self, volume: &Volume) -> Result<Arc<dyn BlockDevice>> {
        open::volume(self, volume)
    }

    /// Opens a part of a volume on one disk.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_partition(&self, partition: &Partition) -> Result<Arc<dyn BlockDevice>> {
        open::partition(self, partition)
    }
}
