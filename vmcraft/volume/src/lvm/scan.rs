//! From devices to volume groups: which copy of the metadata counts, and which device is which physical volume.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::area::AreaHeader;
use super::label::Label;
use super::text::Section;
use super::{Backing, Lvm, LvmUuid, Metadata, PhysicalVolume, VolumeGroup, activate};
use crate::Member;

/// How many warnings there may be: forged metadata could give thousands.
const MAX_WARNINGS: usize = 64;

/// A copy of the metadata of a group.
struct Copy {
    metadata: Metadata,
    tree: Section,
    text: Vec<u8>,
}

/// A device with a label, before it is known which group it belongs to.
struct Found {
    member: Member,
    label: Label,
    areas: Vec<AreaHeader>,
    /// The copies that it has, as indices.
    copies: Vec<usize>,
}

/// Finds the physical volumes among devices, and the volume groups that they make.
///
/// It never fails as a whole: what cannot be read or contradicts itself becomes a warning. Devices that are a part of
/// something else, such as the members of an array that is opened as a whole, are not to be among `members`.
pub fn scan(members: &[Member]) -> Lvm {
    let mut scan = Scan::default();
    for member in members {
        scan.device(member);
    }
    Lvm { members: members.to_vec(), ..scan.finish() }
}

#[derive(Default)]
struct Scan {
    found: Vec<Found>,
    copies: Vec<Copy>,
    warnings: Vec<String>,
}

impl Scan {
    fn warn(&mut self, warning: String) {
        if self.warnings.len() < MAX_WARNINGS && !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    fn device(&mut self, member: &Member) {
        let name = &member.name;
        let label = match Label::read(&*member.device) {
            Ok(Some(label)) => label,
            Ok(None) => return,
            Err(e) => return self.warn(format!("{name}: {e}")),
        };
        if label.device_size > member.device.size() {
            self.warn(format!(
                "{name}: the physical volume was made on {} bytes, but the device has {}",
                label.device_size,
                member.device.size()
            ));
        }
        let mut found = Found { member: member.clone(), label, areas: Vec::new(), copies: Vec::new() };
        for range in found.label.metadata.clone() {
            match AreaHeader::read(&*member.device, range) {
                Ok(area) => {
                    if !area.is_ignored {
                        match self.copy(member, &area) {
                            Ok(copy) => found.copies.extend(copy),
                            Err(e) => self.warn(format!("{name}: {e}")),
                        }
                    }
                    found.areas.push(area);
                }
                Err(e) => self.warn(format!("{name}: {e}")),
            }
        }
        self.found.push(found);
    }

    /// The copy of metadata in an area, read once if others are the same.
    fn copy(&mut self, member: &Member, area: &AreaHeader) -> Result<Option<usize>, String> {
        let Some(text) = area.read_text(&*member.device).map_err(|e| e.to_string())? else { return Ok(None) };
        if let Some(index) = self.copies.iter().position(|copy| copy.text == text) {
            return Ok(Some(index));
        }
        let at = area.range.offset;
        let damaged = |e| format!("the metadata in the area at byte {at:#x} cannot be read: {e}");
        let tree = Section::parse(&text).map_err(damaged)?;
        let metadata = Metadata::decode(&tree).map_err(damaged)?;
        self.copies.push(Copy { metadata, tree, text });
        Ok(Some(self.copies.len() - 1))
    }

    /// The newest copy of each group, in the order of the devices.
    fn newest(&mut self) -> Vec<usize> {
        let mut newest: Vec<usize> = Vec::new();
        let mut warnings = Vec::new();
        for found in &self.found {
            for &index in &found.copies {
                let metadata = &self.copies[index].metadata;
                let same = newest.iter_mut().find(|n| self.copies[**n].metadata.uuid == metadata.uuid);
                let Some(best) = same else {
                    newest.push(index);
                    continue;
                };
                if *best == index {
                    continue;
                }
                let known = self.copies[*best].metadata.seqno;
                if metadata.seqno > known {
                    *best = index;
                } else if metadata.seqno == known {
                    warnings.push(format!(
                        "{}: its metadata of volume group {} differs from another copy with the same seqno {known}, \
                         which is used",
                        found.member.name, metadata.name
                    ));
                }
            }
        }
        for found in &self.found {
            for &index in &found.copies {
                let old = &self.copies[index].metadata;
                let best = newest.iter().map(|n| &self.copies[*n].metadata).find(|m| m.uuid == old.uuid);
                if let Some(best) = best.filter(|best| best.seqno > old.seqno) {
                    warnings.push(format!(
                        "{}: its metadata of volume group {} is old (seqno {}, the newest is {})",
                        found.member.name, best.name, old.seqno, best.seqno
                    ));
                }
            }
        }
        warnings.into_iter().for_each(|warning| self.warn(warning));
        newest
    }

    fn finish(mut self) -> Lvm {
        let newest = self.newest();
        let mut owners: HashMap<LvmUuid, LvmUuid> = HashMap::new();
        for &index in &newest {
            let metadata = &self.copies[index].metadata;
            for pv in &metadata.physical_volumes {
                owners.entry(pv.uuid).or_insert(metadata.uuid);
            }
        }
        self.name_strays(&newest, &owners);
        let found = std::mem::take(&mut self.found);
        let physical_volumes: Vec<Arc<PhysicalVolume>> = found
            .into_iter()
            .map(|found| {
                let group = owners.get(&found.label.uuid).copied();
                let Found { member, label, areas, .. } = found;
                Arc::new(PhysicalVolume { member, label, areas, group })
            })
            .collect();
        let mut copies: Vec<Option<Copy>> = std::mem::take(&mut self.copies).into_iter().map(Some).collect();
        let mut volume_groups = Vec::new();
        for index in newest {
            if let Some(copy) = copies.get_mut(index).and_then(Option::take) {
                volume_groups.push(self.group(copy, &physical_volumes, &owners));
            }
        }
        for (index, vg) in volume_groups.iter().enumerate() {
            let first = volume_groups[..index].iter().find(|other: &&VolumeGroup| other.name() == vg.name());
            if let Some(first) = first {
                self.warn(format!(
                    "there are two volume groups {}: {} and {}; rename one by its identifier",
                    vg.name(),
                    first.metadata.uuid,
                    vg.metadata.uuid
                ));
            }
        }
        Lvm { physical_volumes, volume_groups, warnings: self.warnings, members: Vec::new() }
    }

    /// Warns of physical volumes whose metadata names a group that does not have them (any more).
    fn name_strays(&mut self, newest: &[usize], owners: &HashMap<LvmUuid, LvmUuid>) {
        let mut warnings = Vec::new();
        for found in &self.found {
            let name = &found.member.name;
            if owners.contains_key(&found.label.uuid) {
                continue;
            }
            let claimed = found.copies.iter().map(|index| &self.copies[*index].metadata).next();
            let group = claimed.and_then(|old| {
                newest.iter().map(|n| &self.copies[*n].metadata).find(|metadata| metadata.uuid == old.uuid)
            });
            match group {
                Some(group) => warnings.push(format!(
                    "{name}: physical volume {} is outdated: volume group {} no longer has it",
                    found.label.uuid, group.name
                )),
                None if found.label.is_used => warnings.push(format!(
                    "{name}: physical volume {} is part of a volume group whose metadata is not here",
                    found.label.uuid
                )),
                None => {}
            }
        }
        warnings.into_iter().for_each(|warning| self.warn(warning));
    }

    fn group(
        &mut self,
        copy: Copy,
        physical_volumes: &[Arc<PhysicalVolume>],
        owners: &HashMap<LvmUuid, LvmUuid>,
    ) -> VolumeGroup {
        let metadata = copy.metadata;
        let mut backing = Vec::with_capacity(metadata.physical_volumes.len());
        for pv in &metadata.physical_volumes {
            let group = &metadata.name;
            let hint = pv.device_hint.as_deref().map(|hint| format!(" (it was {hint})")).unwrap_or_default();
            let devices: Vec<&Arc<PhysicalVolume>> =
                physical_volumes.iter().filter(|found| found.label.uuid == pv.uuid).collect();
            let is_ours = owners.get(&pv.uuid) == Some(&metadata.uuid);
            let is_marked = pv.status.iter().any(|word| word == "MISSING");
            backing.push(match devices.as_slice() {
                [device] if is_ours && !is_marked => Backing::Present(Arc::clone(device)),
                [_, _, ..] => {
                    let names: Vec<String> = devices.iter().map(|d| d.member.name.clone()).collect();
                    self.warn(format!(
                        "volume group {group}: physical volume {} is there more than once, on {}: none is used",
                        pv.uuid,
                        names.join(" and ")
                    ));
                    Backing::Duplicate(names)
                }
                [device] => {
                    let why = if is_marked { "is marked as missing" } else { "belongs to another group as well" };
                    self.warn(format!(
                        "volume group {group}: physical volume {} on {} is not used: it {why}",
                        pv.uuid, device.member.name
                    ));
                    Backing::Missing
                }
                [] => {
                    self.warn(format!("volume group {group}: physical volume {} is missing{hint}", pv.uuid));
                    Backing::Missing
                }
            });
        }
        for lv in &metadata.logical_volumes {
            if let Some(problem) = &lv.problem {
                self.warn(format!("logical volume {}/{}: {problem}", metadata.name, lv.name));
            }
        }
        let open = Mutex::new(activate::Shared::default());
        VolumeGroup { metadata, backing, tree: copy.tree, text: copy.text, open }
    }
}
