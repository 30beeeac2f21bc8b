//! Making, changing and removing volume groups.

use std::sync::Arc;

use super::physical::{extents_of, plan_removal};
use super::{Author, Plan, check_new_name, number, write_metadata};
use crate::lvm::area::AreaHeader;
use crate::lvm::label::{Label, SECTOR};
use crate::lvm::text::{Section, Value};
use crate::lvm::{Lvm, LvmUuid, PhysicalVolume, VolumeGroup};
use crate::{Error, Member, Result};

/// The size of the extents of new groups, in bytes: what `vgcreate` takes.
const EXTENT_SIZE: u64 = 4 << 20;

impl Lvm {
    /// Makes a volume group of devices, as `vgcreate` does. Those that are no physical volumes become some.
    ///
    /// # Errors
    /// `Refused` for a name that is taken or not allowed, and for a device that is in another group or too small.
    pub fn create_group(
        &mut self,
        name: &str,
        members: &[Member],
        author: &mut Author<'_>,
    ) -> Result<LvmUuid> {
        check_new_name(name)?;
        if self.volume_groups.iter().any(|vg| vg.name() == name) {
            return Err(Error::Refused(format!("there is a volume group {name} already")));
        }
        if members.is_empty() {
            return Err(Error::Refused(format!("volume group {name} needs a physical volume")));
        }
        let uuid = LvmUuid::generate(author.random);
        let mut group = Section::default();
        group.set("id", Value::from(uuid.to_string().as_str()));
        group.set("seqno", Value::Integer(0));
        group.set("format", "lvm2".into());
        group.set_texts("status", &["RESIZEABLE", "READ", "WRITE"]);
        group.set_texts("flags", &[]);
        group.set("extent_size", number(EXTENT_SIZE / SECTOR)?);
        for key in ["max_lv", "max_pv", "metadata_copies"] {
            group.set(key, Value::Integer(0));
        }
        group.push("physical_volumes", Section::default());
        let mut tree = Section::default();
        tree.push(name, group);
        self.add_members(tree, name, 0, EXTENT_SIZE, &[], members, author, "vgcreate")?;
        Ok(uuid)
    }

    /// Adds devices to a group, as `vgextend` does. Those that are no physical volumes become some.
    pub fn extend_group(&mut self, group: &str, members: &[Member], author: &mut Author<'_>) -> Result<()> {
        let vg = self.changeable(group)?;
        if vg.metadata.max_pv > 0 && (vg.backing.len() + members.len()) as u64 > vg.metadata.max_pv {
            let max = vg.metadata.max_pv;
            return Err(Error::Refused(format!("volume group {group} may have {max} physical volumes")));
        }
        let (draft, seqno, extent_size) = (vg.draft(), vg.metadata.seqno, vg.metadata.extent_size);
        let old: Vec<Arc<PhysicalVolume>> = vg.present().cloned().collect();
        self.add_members(draft.tree, &draft.name, seqno, extent_size, &old, members, author, "vgextend")
    }

    /// Adds devices to a tree, and writes it to them and to those that the group has.
    #[allow(clippy::too_many_arguments)] // the parts of one change, for its two callers
    fn add_members(
        &mut self,
        mut tree: Section,
        group: &str,
        seqno: u64,
        extent_size: u64,
        old: &[Arc<PhysicalVolume>],
        members: &[Member],
        author: &mut Author<'_>,
        what: &str,
    ) -> Result<()> {
        let mut all = old.to_vec();
        let mut erased = Vec::new();
        let mut labels = Plan::default();
        for (index, member) in members.iter().enumerate() {
            if members[..index].iter().any(|other| other.name == member.name) {
                return Err(Error::Refused(format!("{} is given twice", member.name)));
            }
            let pv = self.unused_member(member, author, &mut erased)?;
            let pe_start = pv.label.data.first().map_or(0, |data| data.offset);
            let pe_count = extents_of(&pv.label, pv.label.device_size, pe_start, extent_size);
            if pe_count == 0 {
                return Err(Error::Refused(format!(
                    "{} is too small for volume group {group}: not one extent of {extent_size} bytes",
                    member.name
                )));
            }
            let entries = tree.section_mut(group).section_mut("physical_volumes");
            // A name that no other physical volume has.
            let id =
                (0..).map(|n| format!("pv{n}")).find(|id| entries.section(id).is_none()).unwrap_or_default();
            let mut entry = Section::default();
            entry.set("id", Value::from(pv.label.uuid.to_string().as_str()));
            entry.set("device", Value::from(member.name.as_str()));
            entry.set_texts("status", &["ALLOCATABLE"]);
            entry.set_texts("flags", &[]);
            entry.set("dev_size", number(pv.label.device_size / SECTOR)?);
            entry.set("pe_start", number(pe_start / SECTOR)?);
            entry.set("pe_count", number(pe_count)?);
            entries.push(&id, entry);
            let label = Label { is_used: true, ..pv.label.clone() };
            labels.label(&member.device, &label)?;
            all.push(Arc::new(PhysicalVolume {
                member: member.clone(),
                label,
                areas: pv.areas,
                group: None,
            }));
        }
        let plan = write_metadata(tree, seqno, &all, author, what)?;
        if let Some(member) = members.iter().find(|member| member.device.is_read_only()) {
            return Err(Error::Refused(format!("{} is read-only", member.name)));
        }
        for member in &erased {
            self.erase(member)?;
        }
        for member in members {
            if self.members.iter().all(|known| known.name != member.name) {
                self.members.push(member.clone());
            }
        }
        labels.writes.extend(plan.writes);
        self.carry_out(&labels)
    }

    /// The physical volume on a device, or the one that it becomes: then it is among `erased`.
    fn unused_member(
        &self,
        member: &Member,
        author: &mut Author<'_>,
        erased: &mut Vec<Member>,
    ) -> Result<PhysicalVolume> {
        if self.physical_volumes.iter().all(|pv| pv.member.name != member.name) {
            erased.push(member.clone());
            return Ok(self.plan_physical_volume(member, author)?.0);
        }
        let pv = self.physical_volume(&member.name)?;
        if let Some(uuid) = pv.group {
            let name =
                self.volume_groups.iter().find(|vg| vg.metadata.uuid == uuid).map_or("", VolumeGroup::name);
            return Err(Error::Refused(format!(
                "{} is a physical volume of volume group {name}",
                member.name
            )));
        }
        if pv.label.is_used {
            return Err(Error::Refused(format!(
                "{} is a physical volume of a volume group whose metadata is not here",
                member.name
            )));
        }
        let (label, areas) = (pv.label.clone(), pv.areas.clone());
        Ok(PhysicalVolume { member: member.clone(), label, areas, group: None })
    }

    /// Takes devices out of a group, as `vgreduce` does. They stay physical volumes.
    ///
    /// # Errors
    /// `Refused` if a logical volume has extents there, or no physical volume would be left.
    pub fn reduce_group(&mut self, group: &str, devices: &[&str], author: &mut Author<'_>) -> Result<()> {
        let vg = self.changeable(group)?;
        vg.metadata.check_allocations()?;
        let mut draft = vg.draft();
        let mut removed = Vec::new();
        for device in devices {
            let pv = self.physical_volume(device)?;
            let entry = vg.metadata.physical_volumes.iter().find(|entry| entry.uuid == pv.label.uuid);
            let entry = entry
                .ok_or_else(|| Error::Refused(format!("{device} is not in volume group {}", vg.name())))?;
            if vg.metadata.last_used_extent(&entry.id) > 0 {
                return Err(Error::Refused(format!("{device} is used by logical volumes of {}", vg.name())));
            }
            draft.physical_volumes().remove(&entry.id);
            removed.push(Arc::clone(pv));
        }
        let left: Vec<Arc<PhysicalVolume>> = vg
            .present()
            .filter(|pv| !removed.iter().any(|r| r.label.uuid == pv.label.uuid))
            .cloned()
            .collect();
        if left.is_empty() {
            return Err(Error::Refused(format!("volume group {} needs a physical volume", vg.name())));
        }
        let mut plan = vg.rewrite(draft.tree, &left, author, "vgreduce")?;
        removed.iter().try_for_each(|pv| plan_release(pv, &mut plan))?;
        self.carry_out(&plan)
    }

    /// Removes a group with all its logical volumes, as `vgremove -f` does. Its devices stay physical volumes.
    pub fn remove_group(&mut self, group: &str) -> Result<()> {
        let vg = self.changeable(group)?;
        let mut plan = Plan::default();
        vg.present().try_for_each(|pv| plan_release(pv, &mut plan))?;
        self.carry_out(&plan)
    }

    /// Gives a group another name, as `vgrename` does. `group` is its name, or its identifier where there are two of
    /// the name.
    pub fn rename_group(&mut self, group: &str, name: &str, author: &mut Author<'_>) -> Result<()> {
        check_new_name(name)?;
        let vg = self.changeable(group)?;
        if self.volume_groups.iter().any(|other| other.name() == name) {
            return Err(Error::Refused(format!("there is a volume group {name} already")));
        }
        let mut tree = vg.tree.clone();
        tree.rename(vg.name(), name);
        let all: Vec<Arc<PhysicalVolume>> = vg.present().cloned().collect();
        let plan = vg.rewrite(tree, &all, author, "vgrename")?;
        self.carry_out(&plan)
    }

    /// Gives a group a new identifier, as `vgchange --uuid` does.
    pub fn renew_group_uuid(&mut self, group: &str, author: &mut Author<'_>) -> Result<()> {
        let uuid = LvmUuid::generate(author.random);
        let vg = self.changeable(group)?;
        let mut draft = vg.draft();
        draft.group().set("id", Value::from(uuid.to_string().as_str()));
        let all: Vec<Arc<PhysicalVolume>> = vg.present().cloned().collect();
        let plan = vg.rewrite(draft.tree, &all, author, "vgchange --uuid")?;
        self.carry_out(&plan)
    }

    /// Gives every group a new identifier.
    pub fn renew_all_group_uuids(&mut self, author: &mut Author<'_>) -> Result<()> {
        let groups: Vec<String> = self.volume_groups.iter().map(|vg| vg.metadata.uuid.to_string()).collect();
        groups.iter().try_for_each(|group| self.renew_group_uuid(group, author))
    }

    /// Removes all logical volumes, volume groups and physical volumes.
    pub fn remove_all(&mut self) -> Result<()> {
        for vg in &self.volume_groups {
            self.changeable(&vg.metadata.uuid.to_string())?;
        }
        let mut plan = Plan::default();
        for pv in &self.physical_volumes {
            plan_removal(pv, &mut plan);
        }
        self.carry_out(&plan)
    }
}

/// Makes a physical volume belong to no group.
fn plan_release(pv: &PhysicalVolume, plan: &mut Plan) -> Result<()> {
    let device = &pv.member.device;
    for range in &pv.label.metadata {
        let known = pv.areas.iter().find(|area| area.range == *range);
        // The headers that are damaged are made anew, if that is on the device.
        if known.is_some() || range.offset.checked_add(range.len).is_some_and(|end| end <= device.size()) {
            let is_ignored = known.is_some_and(|area| area.is_ignored);
            plan.clear(device, &AreaHeader { range: *range, text: None, is_ignored });
        }
    }
    plan.label(&pv.member.device, &Label { is_used: false, ..pv.label.clone() })
}
