//! Making, resizing and removing physical volumes.

use std::sync::Arc;

use super::{Author, Plan, number};
use crate::lvm::area::AreaHeader;
use crate::lvm::label::{Label, Range, SECTOR};
use crate::lvm::text::Value;
use crate::lvm::{Lvm, LvmUuid, PhysicalVolume};
use crate::partition::PartitionTable;
use crate::{Error, Member, Result, signature};

/// Where `pvcreate` puts the metadata area, in bytes.
const AREA_START: u64 = 4096;
/// Where `pvcreate` lets data begin: aligned for all disks.
const DATA_START: u64 = 1 << 20;
/// The smallest device that `pvcreate` takes.
const MIN_BYTES: u64 = 2 << 20;
/// What a label or the header of a metadata area is overwritten with: both are a sector.
const ZEROES: [u8; 512] = [0; 512];

impl Lvm {
    /// Makes a device a physical volume, as `pvcreate` does: what was recognised on it is erased.
    ///
    /// # Errors
    /// `Refused` if it belongs to a group, or is too small.
    pub fn create_physical_volume(&mut self, member: &Member, author: &mut Author<'_>) -> Result<LvmUuid> {
        let (pv, plan) = self.plan_physical_volume(member, author)?;
        self.erase(member)?;
        if self.members.iter().all(|known| known.name != member.name) {
            self.members.push(member.clone());
        }
        self.carry_out(&plan)?;
        Ok(pv.label.uuid)
    }

    /// Erases what is recognised on a device, with its first sectors.
    pub(super) fn erase(&self, member: &Member) -> Result<()> {
        signature::erase(&*member.device)?;
        member.device.write_at(0, &[0; 4 * 512])?;
        Ok(())
    }

    /// What `pvcreate` writes to a device.
    pub(super) fn plan_physical_volume(
        &self,
        member: &Member,
        author: &mut Author<'_>,
    ) -> Result<(PhysicalVolume, Plan)> {
        let name = &member.name;
        self.check_unused(name)?;
        let size = member.device.size() / SECTOR * SECTOR;
        if size < MIN_BYTES {
            return Err(Error::Refused(format!(
                "{name} is too small for a physical volume: {size} bytes, not {MIN_BYTES}"
            )));
        }
        if member.device.is_read_only() {
            return Err(Error::Refused(format!("{name} is read-only")));
        }
        let table = PartitionTable::read(&*member.device)?;
        if table.is_some_and(|table| !table.partitions.is_empty()) {
            return Err(Error::Refused(format!(
                "{name} is partitioned: it does not become a physical volume"
            )));
        }
        let area = Range { offset: AREA_START, len: DATA_START - AREA_START };
        let label = Label {
            sector: 1,
            uuid: LvmUuid::generate(author.random),
            device_size: size,
            data: vec![Range { offset: DATA_START, len: 0 }],
            metadata: vec![area],
            bootloader: Vec::new(),
            extension_version: 2,
            is_used: false,
        };
        let header = AreaHeader { range: area, text: None, is_ignored: false };
        let mut plan = Plan::default();
        plan.label(&member.device, &label)?;
        plan.clear(&member.device, &header);
        Ok((PhysicalVolume { member: member.clone(), label, areas: vec![header], group: None }, plan))
    }

    /// Refuses a device that belongs to a group, or says so.
    fn check_unused(&self, device: &str) -> Result<()> {
        let Some(pv) = self.physical_volumes.iter().find(|pv| pv.member.name == device) else {
            return Ok(());
        };
        let group = pv.group.and_then(|uuid| self.volume_groups.iter().find(|vg| vg.metadata.uuid == uuid));
        match group {
            Some(vg) => {
                Err(Error::Refused(format!("{device} is a physical volume of volume group {}", vg.name())))
            }
            None if pv.label.is_used => Err(Error::Refused(format!(
                "{device} is a physical volume of a volume group whose metadata is not here"
            ))),
            None => Ok(()),
        }
    }

    /// Makes a device no physical volume any more, as `pvremove` does.
    ///
    /// # Errors
    /// `Refused` if it belongs to a group.
    pub fn remove_physical_volume(&mut self, device: &str) -> Result<()> {
        self.check_unused(device)?;
        let pv = Arc::clone(self.physical_volume(device)?);
        let mut plan = Plan::default();
        plan_removal(&pv, &mut plan);
        self.carry_out(&plan)
    }

    /// Makes a physical volume as large as its device is now, or `size` bytes, as `pvresize` does.
    ///
    /// # Errors
    /// `Refused` if volumes have extents beyond the new end, or the device is not that large.
    pub fn resize_physical_volume(
        &mut self,
        device: &str,
        size: Option<u64>,
        author: &mut Author<'_>,
    ) -> Result<()> {
        let pv = Arc::clone(self.physical_volume(device)?);
        let real = pv.member.device.size();
        let size = size.unwrap_or(real) / SECTOR * SECTOR;
        if size > real {
            return Err(Error::Refused(format!(
                "{device} has {real} bytes: fewer than the {size} asked for"
            )));
        }
        let label = Label { device_size: size, ..pv.label.clone() };
        let Some(group) = pv.group else {
            self.check_unused(device)?;
            if size < MIN_BYTES {
                return Err(Error::Refused(format!("{size} bytes are too few for a physical volume")));
            }
            let mut plan = Plan::default();
            plan.label(&pv.member.device, &label)?;
            return self.carry_out(&plan);
        };
        let vg = self.changeable(&group.to_string())?;
        let entry = vg.metadata.physical_volumes.iter().find(|entry| entry.uuid == pv.label.uuid);
        let entry = entry.ok_or_else(|| Error::Refused(format!("{device} is not in its volume group")))?;
        let pe_count = extents_of(&label, size, entry.pe_start, vg.metadata.extent_size);
        if pe_count < entry.pe_count {
            vg.metadata.check_allocations()?;
        }
        let used = vg.metadata.last_used_extent(&entry.id);
        if pe_count < used {
            return Err(Error::Refused(format!(
                "{device} cannot be made that small: of its {pe_count} extents then, {used} are needed for what logical \
                 volumes have"
            )));
        }
        let mut draft = vg.draft();
        let section = draft.physical_volumes().section_mut(&entry.id);
        section.set("dev_size", number(size / SECTOR)?);
        section.set("pe_count", number(pe_count)?);
        let all: Vec<Arc<PhysicalVolume>> = vg.present().cloned().collect();
        let mut plan = vg.rewrite(draft.tree, &all, author, "pvresize")?;
        plan.label(&pv.member.device, &Label { is_used: true, ..label })?;
        self.carry_out(&plan)
    }

    /// Gives a physical volume a new identifier, as `pvchange --uuid` does.
    pub fn renew_physical_volume_uuid(&mut self, device: &str, author: &mut Author<'_>) -> Result<()> {
        let pv = Arc::clone(self.physical_volume(device)?);
        let uuid = LvmUuid::generate(author.random);
        let mut label = Label { uuid, ..pv.label.clone() };
        let mut plan = Plan::default();
        if let Some(group) = pv.group {
            let vg = self.changeable(&group.to_string())?;
            let entry = vg.metadata.physical_volumes.iter().find(|entry| entry.uuid == pv.label.uuid);
            let entry =
                entry.ok_or_else(|| Error::Refused(format!("{device} is not in its volume group")))?;
            let mut draft = vg.draft();
            draft.physical_volumes().section_mut(&entry.id).set("id", Value::from(uuid.to_string().as_str()));
            let all: Vec<Arc<PhysicalVolume>> = vg.present().map(|other| renamed(other, &pv, uuid)).collect();
            plan = vg.rewrite(draft.tree, &all, author, "pvchange --uuid")?;
            label.is_used = true;
        } else {
            self.check_unused(device)?;
        }
        plan.label(&pv.member.device, &label)?;
        self.carry_out(&plan)
    }

    /// Gives every physical volume a new identifier, as `pvchange --all --uuid` does.
    pub fn renew_all_physical_volume_uuids(&mut self, author: &mut Author<'_>) -> Result<()> {
        let devices: Vec<String> = self.physical_volumes.iter().map(|pv| pv.member.name.clone()).collect();
        devices.iter().try_for_each(|device| self.renew_physical_volume_uuid(device, author))
    }
}

/// A physical volume, with the identifier that it is about to have.
fn renamed(pv: &Arc<PhysicalVolume>, target: &Arc<PhysicalVolume>, uuid: LvmUuid) -> Arc<PhysicalVolume> {
    if !Arc::ptr_eq(pv, target) {
        return Arc::clone(pv);
    }
    let label = Label { uuid, ..pv.label.clone() };
    Arc::new(PhysicalVolume { member: pv.member.clone(), label, areas: pv.areas.clone(), group: pv.group })
}

/// Takes away the label and the headers of the metadata areas.
pub(super) fn plan_removal(pv: &PhysicalVolume, plan: &mut Plan) {
    let device = &pv.member.device;
    for area in &pv.areas {
        plan.write(device, area.range.offset, ZEROES.to_vec());
    }
    plan.write(device, pv.label.sector * SECTOR, ZEROES.to_vec());
}

/// How many extents fit between the start of the data and the device's end, or a metadata area there.
pub(super) fn extents_of(label: &Label, device_size: u64, pe_start: u64, extent_size: u64) -> u64 {
    let areas = label.metadata.iter().map(|area| area.offset).filter(|offset| *offset > pe_start);
    let end = areas.fold(device_size, u64::min);
    end.saturating_sub(pe_start) / extent_size
}
