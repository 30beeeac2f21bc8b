//! What stands on the disks and partitions: arrays, volume groups, encrypted volumes and dynamic disks, in
//! whatever order they are stacked.
//!
//! The stack is built by looking at each device, opening what has all its members, and looking at what
//! that shows in turn, until nothing new appears. It is built again when something below has changed;
//! a [`Handle`] stands for each volume meanwhile, so that what is open on it goes on.

mod arrays;
mod dynamic;
mod encrypted;
mod handle;
mod lvm;
mod scan;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vmcraft_block::BlockDevice;
use vmcraft_volume::Member;
use vmcraft_volume::ldm::Ldm;
use vmcraft_volume::lvm::Lvm;
use vmcraft_volume::md::Array;
use vmcraft_volume::signature::Signature;

pub(crate) use self::encrypted::MAPPER;
pub(crate) use self::handle::Handle;
pub use self::tree::DeviceNode;
use crate::device::Disk;

/// What kind of thing a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// An array of Linux software RAID.
    Array,
    /// A logical volume of LVM.
    LogicalVolume,
    /// The content of an encrypted device.
    Decrypted,
    /// A volume of a Windows dynamic disk.
    DynamicVolume,
    /// A part of a Windows dynamic disk that belongs to a volume.
    DynamicPartition,
}

/// A volume that was found, whether or not it can be opened.
pub(crate) struct Volume {
    /// Its canonical name, such as `/dev/vg/lv` or `/dev/md127`.
    pub(crate) name: String,
    /// What else it is called, such as `/dev/mapper/vg-lv`.
    pub(crate) aliases: Vec<String>,
    pub(crate) kind: Kind,
    /// How its data is laid out, such as `linear` or `raid5`.
    pub(crate) layout: Option<String>,
    /// What the user should know of it, such as that a member is missing.
    pub(crate) note: Option<String>,
    /// The canonical names of the devices that it lies on.
    pub(crate) below: Vec<String>,
    /// It as a disk, which may have partitions; or why it cannot be opened.
    pub(crate) disk: Result<Disk, String>,
}

/// A device that is a part of a volume, or encrypted.
pub(crate) struct Container {
    pub(crate) member: Member,
    pub(crate) signature: Signature,
    /// How many were met before it: of things that claim to be the same, the one met first counts.
    met: usize,
    /// The volume group or array that it is a part of.
    pub(crate) member_of: Option<String>,
    /// What the user should know of it, such as that it is out of date.
    pub(crate) note: Option<String>,
}

/// Everything that stands on the disks.
#[derive(Default)]
pub(crate) struct Stack {
    /// Each stands after what it lies on.
    volumes: Vec<Volume>,
    /// By canonical name.
    containers: BTreeMap<String, Container>,
    /// What stands for each device of the stack towards what is above it, by canonical name and what they are.
    handles: BTreeMap<(String, scan::Owner), Arc<Handle>>,
    /// The arrays that were found, with the names of their devices.
    arrays: Vec<(String, Array)>,
    /// How many members they were put together from.
    known_array_members: usize,
    /// The numbers of the arrays' devices, by UUID: kept when the stack is built again.
    array_numbers: BTreeMap<String, u32>,
    /// The arrays that were stopped, by UUID.
    stopped_arrays: BTreeSet<String>,
    /// What was found of dynamic disks.
    dynamic: Ldm,
    /// Whether their volumes are not shown.
    hides_dynamic: bool,
    /// What was found of LVM.
    lvm: Lvm,
    /// The volume groups that were deactivated, by name.
    inactive_groups: BTreeSet<String>,
    /// The only devices that may be physical volumes, if that was said.
    lvm_filter: Option<BTreeSet<String>>,
    /// The encrypted devices that were opened.
    opened: Vec<encrypted::Opened>,
    /// The devices that a volume's metadata makes parts of something bigger, although they look like
    /// disks with partitions: their partitions are the array's.
    hidden_tables: BTreeSet<usize>,
}

impl Stack {
    /// All volumes, each after what it lies on.
    pub(crate) fn volumes(&self) -> &[Volume] {
        &self.volumes
    }

    /// The volumes of this kind that can be opened.
    pub(crate) fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Volume> {
        self.volumes.iter().filter(move |volume| volume.kind == kind)
    }

    /// The volume with this name, whichever of its names that is.
    pub(crate) fn find(&self, name: &str) -> Option<&Volume> {
        let by_name = self.volumes.iter().find(|volume| volume.name == name);
        by_name
            .or_else(|| self.volumes.iter().find(|volume| volume.aliases.iter().any(|alias| alias == name)))
    }

    /// What a device was recognised as, if it is a member of a volume or encrypted.
    pub(crate) fn container(&self, name: &str) -> Option<&Container> {
        self.containers.get(name)
    }

    /// All members and encrypted devices, by canonical name.
    pub(crate) fn containers(&self) -> impl Iterator<Item = (&str, &Container)> {
        self.containers.iter().map(|(name, container)| (name.as_str(), container))
    }

    /// The members that were recognised as this, as `blkid` names it, in the order in which they were met.
    pub(crate) fn containers_of_kind(&self, kind: &str) -> impl Iterator<Item = Member> {
        let mut wanted: Vec<_> =
            self.containers.values().filter(|container| container.signature.kind == kind).collect();
        wanted.sort_by_key(|container| container.met);
        wanted.into_iter().map(|container| container.member.clone())
    }

    /// What was found of LVM, to be changed. A scan has to follow.
    pub(crate) fn lvm_mut(&mut self) -> &mut Lvm {
        &mut self.lvm
    }

    /// Whether the logical volumes of a group are not to be shown.
    pub(crate) fn is_inactive(&self, group: &str) -> bool {
        self.inactive_groups.contains(group)
    }

    /// Shows the logical volumes of a group, or does not, from the next scan on.
    pub(crate) fn set_active(&mut self, group: &str, active: bool) {
        if active {
            self.inactive_groups.remove(group);
        } else {
            self.inactive_groups.insert(group.to_owned());
        }
    }

    /// Takes only these devices, and what is on them, for physical volumes from the next scan on; all if `None`.
    pub(crate) fn set_lvm_filter(&mut self, devices: Option<BTreeSet<String>>) {
        self.lvm_filter = devices;
    }

    /// Whether the filter lets a device be a physical volume.
    fn is_let_through(&self, device: &str) -> bool {
        let Some(filter) = &self.lvm_filter else { return true };
        filter.contains(device) || self.all_below(device).iter().any(|below| filter.contains(below))
    }

    /// The volumes that lie directly on a device.
    pub(crate) fn above<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Volume> {
        self.volumes.iter().filter(move |volume| volume.below.iter().any(|below| below == name))
    }

    /// Whether the partitions of a disk are its own: those that a member of an array shows are the array's.
    pub(crate) fn shows_partitions(&self, disk: usize) -> bool {
        !self.hidden_tables.contains(&disk)
    }

    /// All that a device lies on, down to the disks. It is not in it itself.
    pub(crate) fn all_below(&self, name: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut next = vec![name.to_owned()];
        while let Some(name) = next.pop() {
            let below = match self.volumes.iter().find(|volume| volume.name == name) {
                Some(volume) => volume.below.clone(),
                None => self.whole_of(&name).into_iter().collect(),
            };
            next.extend(below.into_iter().filter(|below| found.insert(below.clone())));
        }
        found
    }

    /// Whether two devices share bytes: one lies on the other, or they are the same.
    pub(crate) fn overlap(&self, one: &str, other: &str) -> bool {
        one == other || self.all_below(one).contains(other) || self.all_below(other).contains(one)
    }

    /// What has the partition table that a partition is in; `None` if the name is of no partition.
    fn whole_of(&self, name: &str) -> Option<String> {
        if let Some((disk, number)) = crate::device::parse_disk_name(name) {
            return number.map(|_| crate::device::disk_name(disk));
        }
        self.volumes.iter().find(|volume| volume.partition_number(name).is_some()).map(|v| v.name.clone())
    }
}

impl Volume {
    /// The name of one of its partitions, as the kernel names those of an array.
    pub(crate) fn partition_name(&self, number: u32) -> String {
        format!("{}p{number}", self.name)
    }

    /// The number in the name of one of its partitions, whether or not that is there.
    pub(crate) fn partition_number(&self, name: &str) -> Option<u32> {
        let of = |whole: &String| {
            let digits = name.strip_prefix(whole.as_str())?.strip_prefix('p')?;
            let is_number = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
            if is_number { digits.parse().ok() } else { None }
        };
        std::iter::once(&self.name).chain(&self.aliases).find_map(of)
    }

    /// Its name and those of its partitions.
    pub(crate) fn names(&self) -> Vec<String> {
        let partitions = self.disk.iter().flat_map(Disk::partitions);
        let partitions = partitions.map(|partition| self.partition_name(partition.number));
        std::iter::once(self.name.clone()).chain(partitions).collect()
    }

    /// The device, if it can be opened.
    pub(crate) fn device(&self) -> Option<&Arc<dyn BlockDevice>> {
        self.disk.as_ref().ok().map(|disk| &disk.device)
    }
}
