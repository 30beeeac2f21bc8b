//! Arrays of Linux software RAID in the stack.

use std::collections::BTreeSet;

use vmcraft_volume::md::{self, Array, MemberState};

use super::scan::Found;
use super::{Kind, Stack};

/// The type of members as `blkid` names it.
pub(super) const MEMBER: &str = "linux_raid_member";

/// Those of arrays with metadata of firmware, which are refused by name.
const OTHER_MEMBERS: &[&str] = &["isw_raid_member", "ddf_raid_member"];

/// The number of the first array that has no claim to another. Linux counts down from it.
const FIRST_NUMBER: u32 = 127;

impl Stack {
    /// The arrays that were found, with the names of their devices.
    pub(crate) fn arrays(&self) -> &[(String, Array)] {
        &self.arrays
    }

    /// Shows an array, by its UUID, or does not, from the next scan on.
    pub(crate) fn set_running(&mut self, uuid: &str, running: bool) {
        if running {
            self.stopped_arrays.remove(uuid);
        } else {
            self.stopped_arrays.insert(uuid.to_owned());
        }
    }

    /// The arrays that the members met so far make up. Nothing if no member is new.
    pub(super) fn find_arrays(&mut self) -> Vec<Found> {
        let kinds = [MEMBER].iter().chain(OTHER_MEMBERS);
        let members: Vec<_> = kinds.flat_map(|kind| self.containers_of_kind(kind)).collect();
        if members.len() == self.known_array_members {
            return Vec::new();
        }
        self.known_array_members = members.len();
        let scanned = md::scan(&members);
        for damaged in &scanned.damaged {
            if let Some(container) = self.containers.get_mut(&damaged.name) {
                container.note = Some(damaged.error.to_string());
            }
        }
        self.arrays.clear();
        let mut found = Vec::new();
        for array in scanned.arrays {
            let name = self.array_name(&array.uuid);
            self.note_array_members(&name, &array);
            if !self.stopped_arrays.contains(&array.uuid) {
                found.push(volume(name.clone(), &array));
            }
            self.arrays.push((name, array));
        }
        found
    }

    /// The name of an array's device: the same as long as the disks stay.
    fn array_name(&mut self, uuid: &str) -> String {
        let taken: BTreeSet<u32> = self.array_numbers.values().copied().collect();
        let free = (0..=FIRST_NUMBER).rev().chain(FIRST_NUMBER + 1..).find(|number| !taken.contains(number));
        let number = self.array_numbers.entry(uuid.to_owned()).or_insert(free.unwrap_or(u32::MAX));
        format!("/dev/md{number}")
    }

    /// Says of each member which array it belongs to.
    fn note_array_members(&mut self, name: &str, array: &Array) {
        for member in &array.members {
            let Some(container) = self.containers.get_mut(&member.member.name) else { continue };
            container.member_of = Some(name.to_owned());
            container.note = match &member.state {
                MemberState::Active => None,
                MemberState::Rebuilding => Some("not rebuilt yet".into()),
                MemberState::Replacing => Some("becomes a copy of the member at its place".into()),
                MemberState::Spare => Some("spare".into()),
                MemberState::LeftOut(reason) => Some(format!("left out: {reason}")),
                MemberState::Journal => Some("journal".into()),
            };
        }
    }
}

fn volume(name: String, array: &Array) -> Found {
    let short = array.name.rsplit(':').next().filter(|name| !name.is_empty());
    let number = array.preferred_minor.or_else(|| short.and_then(|name| name.parse().ok()));
    let mut aliases: Vec<String> = short.map(|name| format!("/dev/md/{name}")).into_iter().collect();
    aliases.extend(number.map(|number| format!("/dev/md{number}")));
    let missing = array.missing.len();
    let mut notes = Vec::new();
    if missing > 0 {
        notes.push(format!("degraded: {missing} of {} members missing", array.raid_devices));
    } else if array.state.is_degraded {
        notes.push("degraded".into());
    }
    if !array.state.is_clean {
        notes.push("not stopped cleanly".into());
    }
    notes.extend(array.read_only.clone());
    Found {
        name,
        aliases,
        kind: Kind::Array,
        layout: array.level.map(|level| level.name().to_owned()),
        note: (!notes.is_empty()).then(|| notes.join("; ")),
        below: array.members.iter().map(|member| member.member.name.clone()).collect(),
        device: array.open().map_err(|e| e.to_string()),
    }
}
