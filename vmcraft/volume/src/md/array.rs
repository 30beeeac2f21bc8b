//! An array, as its members' superblocks describe it, and opening it.

use std::sync::Arc;

use vmcraft_block::{BlockDevice, Slice};

use super::record::{Kept, Members};
use super::superblock::{Metadata, Superblock};
use super::{Level, bad_blocks};
use crate::raid::{Geometry, RaidDevice, RaidMember, Record, Recorded};
use crate::{Error, Member, Result};

/// An array that was found.
#[derive(Debug, Clone)]
pub struct Array {
    /// The UUID as `mdadm` prints it: four groups of eight hexadecimal digits with colons between.
    pub uuid: String,
    /// The name, which may begin with a host's and a colon; empty with metadata 0.90, which has none.
    pub name: String,
    /// The version of the metadata.
    pub metadata: Metadata,
    /// The RAID level; `None` for one that cannot be opened, which `problem` names.
    pub level: Option<Level>,
    /// What `mdadm` calls the layout, for levels that have several.
    pub layout: Option<String>,
    /// Bytes in a row on one member; 0 for a mirror.
    pub chunk_bytes: u64,
    /// How many members the array has when it is complete, without spares.
    pub raid_devices: u32,
    /// The size of its content in bytes; 0 if that cannot be told.
    pub size: u64,
    /// The number in `/dev/mdN` that metadata 0.90 asks for.
    pub preferred_minor: Option<u32>,
    /// The events counted by the newest members.
    pub events: u64,
    /// What is there of it, in the order of the members' places, and then of their names.
    pub members: Vec<ArrayMember>,
    /// The places without a member that can be used.
    pub missing: Vec<u32>,
    /// How it was left.
    pub state: ArrayState,
    /// Why it cannot be opened at all.
    pub problem: Option<String>,
    /// Why it can be read but not written.
    pub read_only: Option<String>,
    /// What else its owner should know, such as members that are left out.
    pub warnings: Vec<String>,
    pub(super) geometry: Option<Geometry>,
}

/// How an array was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArrayState {
    /// Stopped with copies and parity written everywhere. If not, Linux will make them fit ("resync").
    pub is_clean: bool,
    /// Members are missing, or not rebuilt yet.
    pub is_degraded: bool,
}

/// What a member is to its array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberState {
    /// Has its part of the content.
    Active,
    /// Is being rebuilt, and not used before that is done.
    Rebuilding,
    /// Is being made a copy of the active one at its place.
    Replacing,
    /// Waits for another one to fail.
    Spare,
    /// Was marked as failed, or is older than the others, or contradicts them: left out, with the reason.
    LeftOut(String),
    /// Holds the array's journal.
    Journal,
}

/// A member of an array.
#[derive(Debug, Clone)]
pub struct ArrayMember {
    /// The device.
    pub member: Member,
    /// Its number in the array's list, which `/proc/mdstat` has in brackets.
    pub number: u32,
    /// Its place in the array, for those that have one.
    pub role: Option<u32>,
    /// What it is to the array.
    pub state: MemberState,
    /// Linux reads from others if it can.
    pub is_write_mostly: bool,
    pub(super) superblock: Superblock,
}

impl ArrayMember {
    /// What `/proc/mdstat` writes behind the member's number: `F`, `S`, `R`, `J`, `W`, or nothing.
    pub fn flags(&self) -> String {
        let state = match self.state {
            MemberState::Active | MemberState::Rebuilding => "",
            MemberState::Replacing => "R",
            MemberState::Spare => "S",
            MemberState::LeftOut(_) => "F",
            MemberState::Journal => "J",
        };
        format!("{}{state}", if self.is_write_mostly { "W" } else { "" })
    }

    /// The member's data.
    fn data(&self, len: u64) -> Result<Arc<dyn BlockDevice>> {
        Ok(Arc::new(Slice::new(self.member.device.clone(), self.superblock.data_start, len)?))
    }
}

impl Array {
    /// What `mdadm --detail --export` says, by key without `MD_`, in lower case.
    pub fn detail(&self) -> Vec<(&'static str, String)> {
        let mut detail = vec![
            ("level", self.level.map_or("unknown", Level::name).to_owned()),
            ("devices", self.raid_devices.to_string()),
            ("metadata", self.metadata.name().to_owned()),
            ("uuid", self.uuid.clone()),
        ];
        if !self.name.is_empty() {
            detail.push(("name", self.name.clone()));
        }
        detail
    }

    /// The array as a device. Reading needs nothing of the missing members; for writing see the module.
    pub fn open(&self) -> Result<Arc<dyn BlockDevice>> {
        if let Some(problem) = &self.problem {
            return Err(Error::Incomplete(format!("{}: {problem}", self.title())));
        }
        let geometry = self.geometry.as_ref().ok_or_else(|| Error::Incomplete(self.title()))?;
        let places = geometry.member_bytes.len();
        let mut members: Vec<Option<RaidMember>> = (0..places).map(|_| None).collect();
        for member in &self.members {
            let place = member.role.and_then(|role| usize::try_from(role).ok());
            let (Some(place), MemberState::Active) = (place, &member.state) else { continue };
            let Some(slot) = members.get_mut(place) else { continue };
            let bad = match member.superblock.bad_blocks {
                Some(area) => bad_blocks::read(&*member.member.device, area, member.superblock.data_start)?,
                None => Vec::new(),
            };
            *slot = Some(RaidMember { device: member.data(geometry.member_bytes[place])?, bad });
        }
        let mut raid = RaidDevice::new(geometry, members)?;
        if !self.state.is_clean {
            raid = raid.with_untrusted_parity();
        }
        // Where a replacement stands in, the member that it replaces may come back: it counts as missing.
        let is_incomplete = |member: &ArrayMember| match member.state {
            MemberState::Rebuilding | MemberState::Replacing => true,
            MemberState::Active => member.superblock.is_replacement,
            _ => false,
        };
        let is_complete = self.missing.is_empty() && !self.members.iter().any(is_incomplete);
        let record = if is_complete {
            None
        } else {
            let kept = self.kept();
            let bitmap = kept.bitmap()?;
            Some(Record::new(Box::new(kept), bitmap, geometry))
        };
        let refusal =
            self.read_only.as_ref().map(|reason| format!("{} cannot be written: {reason}", self.title()));
        Ok(Arc::new(Recorded { inner: raid, record, refusal }))
    }

    /// The members that are of the array as it is now.
    fn kept(&self) -> Members {
        let kept = self.members.iter().filter(|member| !matches!(member.state, MemberState::LeftOut(_)));
        let kept = kept.map(|member| Kept {
            device: member.member.device.clone(),
            superblock: member.superblock.clone(),
            is_incomplete: matches!(member.state, MemberState::Rebuilding | MemberState::Replacing),
        });
        Members(kept.collect())
    }

    /// What messages call it.
    pub(super) fn title(&self) -> String {
        if self.name.is_empty() {
            format!("md array {}", self.uuid)
        } else {
            format!("md array {} ({})", self.name, self.uuid)
        }
    }
}
