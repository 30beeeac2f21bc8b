//! Arrays of Linux software RAID in the stack.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;

use vmcraft_volume::md::{self, Array, MemberState};

use super::scan::Found;
use super::{Kind, Stack};

/// The type of members as `blkid` names it.
pub(super) const MEMBER: &str = "linux_raid_member";

/// Those of arrays with metadata of firmware, which are refused by name.
const OTHER_MEMBERS: &[&str] = &["isw_raid_member", "ddf_raid_member"];

/// The number of the first array that has no claim to another. `mdadm` counts down from it to 0, and then from
/// [`LAST_NUMBER`] down to it.
const FIRST_NUMBER: u32 = 127;
const LAST_NUMBER: u32 = 511;
/// The highest number that Linux gives an array's device.
const HIGHEST_CLAIM: u32 = (1 << 20) - 1;
/// The host in the names of arrays that are at home everywhere.
const ANY_HOST: &str = "any:";
/// The same in the UUIDs of metadata 0.90, which end with a hash of the host's name: the SHA-1 of `any`.
const ANY_HOST_UUID: &str = ":0002fec5:13a5c7d1";

impl Stack {
    /// The arrays that were found, with the names of their devices.
    pub(crate) fn arrays(&self) -> &[(String, Array)] {
        &self.arrays
    }

    /// Shows an array, by its UUID, no more from the next scan on. Its number is free.
    pub(crate) fn stop_array(&mut self, uuid: &str) {
        self.stopped_arrays.insert(uuid.to_owned());
        self.array_numbers.remove(uuid);
    }

    /// The arrays that the members met so far make up. Nothing if no member is new.
    pub(super) fn find_arrays(&mut self) -> Vec<Found> {
        let kinds = [MEMBER].iter().chain(OTHER_MEMBERS);
        let members: Vec<_> = kinds.flat_map(|kind| self.containers_of_kind(kind)).collect();
        if members.len() == self.known_array_members {
            return Vec::new();
        }
        self.known_array_members = members.len();
        let mut scanned = md::scan(&members);
        scanned.arrays.retain(|array| !self.stopped_arrays.contains(&array.uuid));
        for damaged in &scanned.damaged {
            if let Some(container) = self.containers.get_mut(&damaged.name) {
                container.note = Some(damaged.error.to_string());
            }
        }
        self.arrays.clear();
        self.number_arrays(&scanned.arrays);
        let mut found = Vec::new();
        for array in scanned.arrays {
            let number = self.array_numbers.get(&array.uuid).copied().unwrap_or_default();
            let name = device(number);
            self.note_array_members(&name, &array);
            found.push(volume(name.clone(), &array));
            self.arrays.push((name, array));
        }
        found
    }

    /// Gives new arrays their numbers: those that claim one first, then the others in the order of their first
    /// members. An array keeps its number as long as the disks stay.
    fn number_arrays(&mut self, arrays: &[Array]) {
        let mut taken: BTreeSet<u32> = self.array_numbers.values().copied().collect();
        let new: Vec<_> =
            arrays.iter().filter(|array| !self.array_numbers.contains_key(&array.uuid)).collect();
        for array in &new {
            if let Some(number) = claim(array).filter(|number| taken.insert(*number)) {
                self.array_numbers.insert(array.uuid.clone(), number);
            }
        }
        for array in new {
            let Entry::Vacant(entry) = self.array_numbers.entry(array.uuid.clone()) else { continue };
            // After the last one are more arrays than `mdadm` starts.
            let free = (0..=FIRST_NUMBER).rev().chain((FIRST_NUMBER + 1..=LAST_NUMBER).rev());
            let number = free.chain(LAST_NUMBER + 1..).find(|number| taken.insert(*number));
            entry.insert(number.unwrap_or(u32::MAX));
        }
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

fn device(number: u32) -> String {
    format!("/dev/md{number}")
}

/// Whether an array is at home on any host. The names of others say nothing here.
fn is_of_any_host(array: &Array) -> bool {
    match array.preferred_minor {
        Some(_) => array.uuid.ends_with(ANY_HOST_UUID),
        None => array.name.starts_with(ANY_HOST),
    }
}

/// What an array is called, after the host that it was made on: metadata 0.90 has a number for it.
fn short_name(array: &Array) -> String {
    let name = || array.name.split_once(':').map_or(array.name.as_str(), |(_, name)| name).to_owned();
    array.preferred_minor.map_or_else(name, |minor| minor.to_string())
}

/// The number that an array's device has if it is free.
fn claim(array: &Array) -> Option<u32> {
    let name = short_name(array);
    let digits = name.strip_prefix("md").unwrap_or(&name);
    let is_number = is_of_any_host(array) && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|number| is_number && *number <= HIGHEST_CLAIM)
}

/// What an array is called in `/dev/md`: as `mdadm` calls it where it is not at home, and last without its host.
fn names(array: &Array) -> Vec<String> {
    let short = short_name(array);
    if short.is_empty() {
        return Vec::new();
    }
    let plain = |name: &str| name.replace('/', "-").replace([' ', '\t'], "_");
    let abroad = match array.name.contains(':') {
        _ if is_of_any_host(array) => None,
        true => Some(plain(&array.name)),
        false => Some(format!("{}_0", plain(&short))),
    };
    abroad.into_iter().chain([plain(&short)]).collect()
}

fn volume(name: String, array: &Array) -> Found {
    let mut aliases: Vec<String> = names(array).iter().map(|name| format!("/dev/md/{name}")).collect();
    // At home, an array that was made with a number has it.
    aliases.extend(short_name(array).parse().ok().map(device));
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
