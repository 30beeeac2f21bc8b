//! Logical volumes of LVM in the stack.

use std::collections::BTreeSet;

use vmcraft_volume::Member;
use vmcraft_volume::lvm::{self, Backing, Label, LogicalVolume, LostSnapshot, Lvm, SegmentKind, VolumeGroup};

use super::scan::Found;
use super::{Kind, Stack, Volume};

/// The type of physical volumes as `blkid` names it.
const MEMBER: &str = "LVM2_member";

impl Stack {
    /// What was found of LVM; empty before launch.
    pub(crate) fn lvm(&self) -> &Lvm {
        &self.lvm
    }

    /// Takes the snapshots that were lost since the last time.
    pub(crate) fn take_lost_snapshots(&self) -> Vec<LostSnapshot> {
        self.lvm.volume_groups.iter().flat_map(VolumeGroup::take_lost_snapshots).collect()
    }

    /// The logical volumes of all groups that the members met so far make up. Nothing if no physical volume
    /// is new.
    pub(super) fn find_logical_volumes(&mut self) -> Vec<Found> {
        let is_used =
            |member: &Member| self.is_let_through(&member.name) && self.group_copied_from(member).is_none();
        let members: Vec<_> = self.containers_of_kind(MEMBER).filter(is_used).collect();
        if members.len() == self.lvm.physical_volumes.len() {
            return Vec::new();
        }
        let mut lvm = lvm::scan(&members);
        let mut found = Vec::new();
        let mut names = BTreeSet::new();
        for group in &lvm.volume_groups {
            let is_double = !names.insert(group.name().to_owned());
            if is_double {
                lvm.warnings.push(format!(
                    "there are several volume groups {0}, and only the logical volumes of the first are shown: rename \
                     one by its UUID, as in vgrename {1} NEWNAME",
                    group.name(),
                    group.metadata.uuid
                ));
            }
            self.note_members(group, is_double);
            if !is_double && !self.is_inactive(group.name()) {
                found.extend(group.visible_volumes().map(|volume| logical_volume(group, volume)));
            }
        }
        self.lvm = lvm;
        found
    }

    /// Says of the logical volumes that are open which of them are degraded.
    pub(super) fn degraded_logical_volumes(&self) -> Vec<String> {
        let of_lvm = self.of_kind(Kind::LogicalVolume).filter(|volume| volume.disk.is_ok());
        of_lvm.filter_map(|volume| Some(format!("{}: {}", volume.name, volume.note.as_ref()?))).collect()
    }

    /// Says of the copies of physical volumes that are in their own group's volumes that they are not used.
    pub(super) fn note_copies(&mut self) -> Vec<String> {
        let copies = self.containers_of_kind(MEMBER).filter_map(|member| {
            let group = self.group_copied_from(&member)?;
            Some((member.name, format!("a copy of a physical volume of the volume group {group}")))
        });
        let mut warnings = Vec::new();
        for (device, what) in copies.collect::<Vec<_>>() {
            warnings.push(format!("{device}: {what}: it is not used"));
            if let Some(container) = self.containers.get_mut(&device) {
                container.note = Some(format!("{what}: not used"));
            }
        }
        warnings
    }

    /// The volume group of which a device within a logical volume is a copy of a physical volume: of the group that the
    /// device lies in, which would not be there without its own, or of one whose own lies in no logical volume. A
    /// machine's disks are as often kept in volumes as other machines are made from their copies.
    fn group_copied_from(&self, member: &Member) -> Option<String> {
        let groups_below = self.groups_below(&member.name);
        if groups_below.is_empty() {
            return None;
        }
        let uuid = Label::read(&*member.device).ok()??.uuid;
        let is_in_use = |backing: &Backing| match backing {
            Backing::Present(volume) => {
                volume.label.uuid == uuid && self.groups_below(&volume.member.name).is_empty()
            }
            Backing::Missing | Backing::Duplicate(_) => false,
        };
        let has = |group: &&VolumeGroup| {
            let is_own = groups_below.contains(group.name())
                && group.metadata.physical_volumes.iter().any(|pv| pv.uuid == uuid);
            is_own || group.backing.iter().any(is_in_use)
        };
        self.lvm.volume_groups.iter().find(has).map(|group| group.name().to_owned())
    }

    /// The names of the volume groups in whose volumes a device lies.
    fn groups_below(&self, device: &str) -> BTreeSet<String> {
        let below = self.all_below(device);
        let is_below = |volume: &&Volume| volume.name == device || below.contains(&volume.name);
        let group = |volume: &Volume| Some(volume.name.strip_prefix("/dev/")?.split_once('/')?.0.to_owned());
        self.of_kind(Kind::LogicalVolume).filter(is_below).filter_map(group).collect()
    }

    /// Says of each physical volume which group it belongs to, and what that lacks.
    fn note_members(&mut self, group: &VolumeGroup, is_double: bool) {
        let missing: Vec<_> = group.missing().iter().map(ToString::to_string).collect();
        let lacks = (!missing.is_empty()).then(|| format!("the group lacks {}", missing.join(", ")));
        let present = group.backing.iter().flat_map(|backing| match backing {
            Backing::Present(volume) => vec![(volume.member.name.clone(), lacks.clone())],
            Backing::Missing => Vec::new(),
            Backing::Duplicate(names) => {
                let note = format!("one of several with the same UUID ({}): not used", names.join(", "));
                names.iter().map(|name| (name.clone(), Some(note.clone()))).collect()
            }
        });
        let name = match is_double {
            true => format!("{} ({})", group.name(), group.metadata.uuid),
            false => group.name().to_owned(),
        };
        for (device, note) in present {
            if let Some(container) = self.containers.get_mut(&device) {
                container.member_of = Some(name.clone());
                container.note = note;
            }
        }
    }
}

fn logical_volume(group: &VolumeGroup, volume: &LogicalVolume) -> Found {
    let mut types = Vec::new();
    for segment in &volume.segments {
        let name = match &segment.kind {
            SegmentKind::Striped { areas, .. } if areas.len() == 1 => "linear",
            _ => segment.type_name.as_str(),
        };
        if !types.contains(&name) {
            types.push(name);
        }
    }
    let device = match group.refusal() {
        Some(reason) => Err(reason),
        None => group.open(&volume.name).map_err(|e| e.to_string()),
    };
    let made_of = made_of(group, volume);
    let degraded = group.degraded();
    let notes: Vec<_> =
        made_of.iter().filter_map(|part| degraded.get(&part.name)).map(String::as_str).collect();
    Found {
        name: format!("/dev/{}/{}", group.name(), volume.name),
        aliases: vec![format!("{}{}", super::MAPPER, lvm::mapper_name(group.name(), &volume.name))],
        kind: Kind::LogicalVolume,
        layout: Some(types.join("+")),
        note: (device.is_ok() && !notes.is_empty()).then(|| notes.join("; ")),
        below: below(group, &made_of),
        device,
    }
}

/// A logical volume, and all that it is made of.
fn made_of<'a>(group: &'a VolumeGroup, volume: &'a LogicalVolume) -> Vec<&'a LogicalVolume> {
    let mut seen = BTreeSet::from([volume.name.as_str()]);
    let mut next = vec![volume];
    let mut all = Vec::new();
    while let Some(volume) = next.pop() {
        all.push(volume);
        // Snapshots are tied to their origin by hidden volumes, which name both.
        let ties = group.metadata.logical_volumes.iter().flat_map(|lv| &lv.segments).filter(|segment| {
            matches!(&segment.kind, SegmentKind::Snapshot { origin, cow, .. }
                if *origin == volume.name || *cow == volume.name)
        });
        for name in volume.segments.iter().chain(ties).flat_map(|segment| segment.volumes()) {
            if seen.insert(name) {
                next.extend(group.metadata.logical_volume(name));
            }
        }
    }
    all
}

/// The devices that a logical volume lies on, through the volumes that it is made of.
fn below(group: &VolumeGroup, made_of: &[&LogicalVolume]) -> Vec<String> {
    let segments = made_of.iter().flat_map(|volume| &volume.segments);
    let entries: BTreeSet<_> =
        segments.flat_map(|segment| segment.physical_areas()).map(|(entry, ..)| entry).collect();
    let pairs = group.metadata.physical_volumes.iter().zip(&group.backing);
    let devices = pairs.filter(|(entry, _)| entries.contains(entry.id.as_str()));
    let names = devices.filter_map(|(_, backing)| match backing {
        Backing::Present(volume) => Some(volume.member.name.clone()),
        Backing::Missing | Backing::Duplicate(_) => None,
    });
    names.collect()
}
