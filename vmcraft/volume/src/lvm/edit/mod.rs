//! Changing volume groups, with metadata that LVM's own tools accept.
//!
//! A change edits the text that was read, so that what is not understood here stays as it is. The new text is decoded
//! as if it came from a disk, and has to fit into all metadata areas, before the first byte is written.

mod allocate;
mod group;
mod physical;
mod volume;

use std::sync::Arc;

use vmcraft_block::BlockDevice;

use super::area::AreaHeader;
use super::group::check_name;
use super::label::Label;
use super::text::{Section, Value};
use super::{Backing, Lvm, Metadata, PhysicalVolume, VolumeGroup, scan};
use crate::{Error, Result};

pub use volume::{NewVolume, Size};

/// What new metadata says about its making, and the source of new identifiers.
pub struct Author<'a> {
    /// Fills a buffer with random bytes.
    pub random: &'a mut dyn FnMut(&mut [u8]),
    /// The time, in seconds since 1970.
    pub now: u64,
    /// The name of the host that new groups and volumes are said to be made on.
    pub host: &'a str,
}

/// All that a change writes, worked out before the first byte is written.
#[derive(Default)]
struct Plan {
    writes: Vec<(Arc<dyn BlockDevice>, u64, Vec<u8>)>,
}

impl Plan {
    fn write(&mut self, device: &Arc<dyn BlockDevice>, offset: u64, bytes: Vec<u8>) {
        self.writes.push((Arc::clone(device), offset, bytes));
    }

    fn label(&mut self, device: &Arc<dyn BlockDevice>, label: &Label) -> Result<()> {
        self.write(device, label.sector * super::label::SECTOR, label.encode()?.to_vec());
        Ok(())
    }

    /// Empties a metadata area.
    fn clear(&mut self, device: &Arc<dyn BlockDevice>, area: &AreaHeader) {
        let empty = AreaHeader { text: None, ..area.clone() };
        self.write(device, area.range.offset, empty.encode());
    }
}

impl Lvm {
    /// Writes a plan, and reads what is there now.
    fn carry_out(&mut self, plan: &Plan) -> Result<()> {
        self.check_writable(plan)?;
        for (device, offset, bytes) in &plan.writes {
            device.write_at(*offset, bytes)?;
        }
        self.rescan();
        Ok(())
    }

    /// Refuses a plan for devices that cannot be written.
    fn check_writable(&self, plan: &Plan) -> Result<()> {
        if plan.writes.iter().any(|(device, ..)| device.is_read_only()) {
            let names: Vec<&str> =
                self.members.iter().filter(|m| m.device.is_read_only()).map(|m| m.name.as_str()).collect();
            return Err(Error::Refused(format!("read-only: {}", names.join(", "))));
        }
        Ok(())
    }

    fn rescan(&mut self) {
        *self = scan(&self.members);
    }

    /// The group with this name or identifier, if it can be changed.
    fn changeable(&self, group: &str) -> Result<&VolumeGroup> {
        let vg = self.group(group)?;
        let name = vg.name();
        if let Some(why) = vg.refusal().or_else(|| vg.shared_with_others()) {
            return Err(Error::Refused(why));
        }
        if let Some(missing) = vg.missing().first() {
            return Err(Error::Incomplete(format!(
                "volume group {name} cannot be changed while physical volume {missing} is missing or there twice"
            )));
        }
        if !vg.metadata.has_status("WRITE") || !vg.metadata.has_status("RESIZEABLE") {
            return Err(Error::Refused(format!(
                "volume group {name} does not allow changes (its status is {})",
                vg.metadata.status.join(" ")
            )));
        }
        if let Some((lv, problem)) =
            vg.metadata.logical_volumes.iter().find_map(|lv| lv.problem.as_ref().map(|p| (lv, p)))
        {
            return Err(Error::Refused(format!(
                "volume group {name} is not changed: logical volume {} contradicts itself ({problem})",
                lv.name
            )));
        }
        Ok(vg)
    }

    /// The physical volume on a device.
    fn physical_volume(&self, device: &str) -> Result<&Arc<PhysicalVolume>> {
        let mut found = self.physical_volumes.iter().filter(|pv| pv.member.name == device);
        let pv = found.next().ok_or_else(|| Error::Refused(format!("{device} is not a physical volume")))?;
        let twice = self.physical_volumes.iter().filter(|other| other.label.uuid == pv.label.uuid);
        let names: Vec<&str> = twice.map(|pv| pv.member.name.as_str()).collect();
        if names.len() > 1 {
            return Err(Error::Refused(format!(
                "physical volume {} is there more than once: {}",
                pv.label.uuid,
                names.join(" and ")
            )));
        }
        Ok(pv)
    }
}

impl VolumeGroup {
    /// The physical volumes that are there.
    pub(super) fn present(&self) -> impl Iterator<Item = &Arc<PhysicalVolume>> {
        self.backing.iter().filter_map(|backing| match backing {
            Backing::Present(pv) => Some(pv),
            Backing::Missing | Backing::Duplicate(_) => None,
        })
    }

    /// Plans the writing of new metadata to the physical volumes of a group.
    fn rewrite(
        &self,
        tree: Section,
        physical_volumes: &[Arc<PhysicalVolume>],
        author: &Author<'_>,
        what: &str,
    ) -> Result<Plan> {
        write_metadata(tree, self.metadata.seqno, physical_volumes, author, what)
    }

    /// A copy of the tree with the section of the group, for changing.
    fn draft(&self) -> Draft {
        Draft { tree: self.tree.clone(), name: self.metadata.name.clone() }
    }
}

/// Metadata that is being changed.
struct Draft {
    tree: Section,
    /// The name of the group.
    name: String,
}

impl Draft {
    fn group(&mut self) -> &mut Section {
        self.tree.section_mut(&self.name)
    }

    fn physical_volumes(&mut self) -> &mut Section {
        self.group().section_mut("physical_volumes")
    }

    fn logical_volumes(&mut self) -> &mut Section {
        self.group().section_mut("logical_volumes")
    }
}

/// Plans the writing of metadata: with the next seqno, into all areas of the physical volumes.
fn write_metadata(
    mut tree: Section,
    old_seqno: u64,
    physical_volumes: &[Arc<PhysicalVolume>],
    author: &Author<'_>,
    what: &str,
) -> Result<Plan> {
    let name = tree.sections().next().map(|(name, _)| name.to_string()).unwrap_or_default();
    let seqno = number(old_seqno.saturating_add(1))?;
    let group = tree.section_mut(&name);
    group.set("seqno", seqno);
    if group.section("logical_volumes").is_some_and(|lvs| lvs.entries().next().is_none()) {
        group.remove("logical_volumes"); // as LVM leaves it out
    }
    tree.set("contents", "Text Format Volume Group".into());
    tree.set("version", Value::Integer(1));
    tree.set("description", format!("Write from vmcraft {what}.").as_str().into());
    tree.set("creation_host", author.host.into());
    tree.set("creation_time", number(author.now)?);
    let metadata = Metadata::decode(&tree).map_err(Error::Refused)?;
    if let Some((lv, problem)) =
        metadata.logical_volumes.iter().find_map(|lv| Some((lv, lv.problem.as_ref()?)))
    {
        return Err(Error::Refused(format!("logical volume {}/{}: {problem}", metadata.name, lv.name)));
    }
    let mut text = Vec::new();
    tree.write(&mut text);
    text.push(0);
    let mut plan = Plan::default();
    let mut areas = 0;
    for pv in physical_volumes {
        let device = &pv.member.device;
        let entry = metadata.physical_volumes.iter().find(|entry| entry.uuid == pv.label.uuid);
        let data = entry.map_or((0, 0), |e| (e.pe_start, e.pe_start + e.pe_count * metadata.extent_size));
        for range in &pv.label.metadata {
            let known = pv.areas.iter().find(|area| area.range == *range).cloned();
            // A damaged header is made anew.
            let mut area = known.unwrap_or(AreaHeader { range: *range, text: None, is_ignored: false });
            let is_inside = range
                .offset
                .checked_add(range.len)
                .is_some_and(|end| end <= device.size() && (end <= data.0 || range.offset >= data.1));
            if range.len <= super::area::HEADER_BYTES || !is_inside {
                return Err(Error::Refused(format!(
                    "{}: the metadata area at byte {:#x} is beyond the device's end or where data is",
                    pv.member.name, range.offset
                )));
            }
            if area.is_ignored {
                continue;
            }
            for (offset, bytes) in area.replace_text(&text)? {
                plan.write(device, offset, bytes);
            }
            areas += 1;
        }
        if !pv.label.is_used {
            plan.label(device, &Label { is_used: true, ..pv.label.clone() })?;
        }
    }
    if areas == 0 {
        return Err(Error::Refused(format!("volume group {name} has no metadata area to write to")));
    }
    Ok(plan)
}

/// A number as the text has it.
fn number(number: u64) -> Result<Value> {
    i64::try_from(number)
        .map(Value::Integer)
        .map_err(|_| Error::Refused(format!("{number} is too large for LVM's metadata")))
}

/// Refuses a name that LVM would not give to a new group or volume.
fn check_new_name(name: &str) -> Result<()> {
    check_name(name).map_err(Error::Refused)
}
