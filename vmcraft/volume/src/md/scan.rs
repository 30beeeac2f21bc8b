//! Finding arrays: which superblocks belong together, and which of them are to be believed.

use std::collections::BTreeMap;

use super::array::{Array, ArrayMember, ArrayState, MemberState};
use super::level::Level;
use super::superblock::{self, Metadata, Role, Superblock};
use crate::raid::Geometry;
use crate::signature;
use crate::{Error, Member, Result};

/// What was found on some devices.
#[derive(Debug, Default)]
pub struct Found {
    /// The arrays, in the order of their first members.
    pub arrays: Vec<Array>,
    /// Members of arrays whose metadata cannot be read or is of a kind that is not supported.
    pub damaged: Vec<Damaged>,
}

/// A device with RAID metadata that cannot be used.
#[derive(Debug)]
pub struct Damaged {
    /// The device's name.
    pub name: String,
    /// What is wrong with it.
    pub error: Error,
}

/// Looks for arrays on devices. Those that are no members of an array are passed over; those whose metadata is damaged do
/// not keep the others from being found.
pub fn scan(members: &[Member]) -> Found {
    let mut found = Found::default();
    let mut groups: Vec<Vec<(Member, Superblock)>> = Vec::new();
    let mut group_of: BTreeMap<([u8; 16], bool), usize> = BTreeMap::new();
    for member in members {
        match read(member) {
            Ok(Some(superblock)) => {
                let key = (superblock.uuid, superblock.metadata == Metadata::V0_90);
                let group = *group_of.entry(key).or_insert_with(|| {
                    groups.push(Vec::new());
                    groups.len() - 1
                });
                groups[group].push((member.clone(), superblock));
            }
            Ok(None) => {}
            Err(error) => found.damaged.push(Damaged { name: member.name.clone(), error }),
        }
    }
    found.arrays = groups.into_iter().filter_map(assemble).collect();
    found
}

/// The superblock of a device, or what other kind of RAID it is in.
fn read(member: &Member) -> Result<Option<Superblock>> {
    if let Some(superblock) = superblock::read(&*member.device)? {
        return Ok(Some(superblock));
    }
    match signature::probe_container(&*member.device)?.map(|found| found.kind) {
        Some("isw_raid_member") => Err(Error::Unsupported(
            "Intel Matrix RAID (IMSM), whose members are of a container with arrays in it".into(),
        )),
        Some("ddf_raid_member") => {
            Err(Error::Unsupported("DDF RAID, whose members are of a container with arrays in it".into()))
        }
        _ => Ok(None),
    }
}

/// What several superblocks with the same UUID make.
fn assemble(group: Vec<(Member, Superblock)>) -> Option<Array> {
    // Those that were there last know best; of equals, those that have a place.
    let newest = group
        .iter()
        .map(|(_, superblock)| superblock)
        .max_by_key(|superblock| (superblock.events, matches!(superblock.role(), Role::Active(_))))?
        .clone();
    let mut array = Array {
        uuid: newest.uuid_text(),
        name: newest.name.clone(),
        metadata: newest.metadata,
        level: None,
        layout: None,
        chunk_bytes: newest.chunk_bytes,
        raid_devices: newest.raid_disks,
        size: 0,
        preferred_minor: newest.preferred_minor,
        events: newest.events,
        members: Vec::new(),
        missing: Vec::new(),
        state: ArrayState { is_clean: true, is_degraded: false },
        problem: None,
        read_only: None,
        warnings: Vec::new(),
        geometry: None,
    };
    let mut diverged = Vec::new();
    for (member, superblock) in group {
        let (role, state) = judge(&superblock, &newest, &member.name, &mut diverged);
        if let MemberState::LeftOut(reason) = &state {
            array.warnings.push(format!("{} is left out: {reason}", member.name));
        }
        array.members.push(ArrayMember {
            number: superblock.number,
            is_write_mostly: superblock.is_write_mostly,
            member,
            role,
            state,
            superblock,
        });
    }
    array.members.sort_by(|a, b| {
        let place = |member: &ArrayMember| (member.role.unwrap_or(u32::MAX), rank(&member.state));
        place(a).cmp(&place(b)).then_with(|| a.member.name.cmp(&b.member.name))
    });
    promote_replacements(&mut array);
    let problem = diverged_problem(&array, &diverged).or_else(|| duplicate_problem(&array));
    let described = describe(&mut array, &newest);
    array.problem = problem.or(described.err().map(|error| error.to_string()));
    Some(array)
}

/// The order of members at one place.
fn rank(state: &MemberState) -> u8 {
    match state {
        MemberState::Active => 0,
        MemberState::Rebuilding => 1,
        MemberState::Replacing => 2,
        MemberState::Spare | MemberState::Journal => 3,
        MemberState::LeftOut(_) => 4,
    }
}

/// What a member is, by its own superblock and the newest one.
fn judge(
    own: &Superblock,
    newest: &Superblock,
    name: &str,
    diverged: &mut Vec<String>,
) -> (Option<u32>, MemberState) {
    let place = match own.role() {
        Role::Active(place) => Some(place),
        _ => None,
    };
    let left_out = |reason: String| (place, MemberState::LeftOut(reason));
    let same = own.level == newest.level
        && own.layout == newest.layout
        && own.chunk_bytes == newest.chunk_bytes
        && own.raid_disks == newest.raid_disks
        && (newest.level <= 0 || own.used_bytes == newest.used_bytes);
    let place = match own.role() {
        Role::Spare => return (None, MemberState::Spare),
        Role::Faulty => return left_out("it is marked as failed".into()),
        Role::Journal => return (None, MemberState::Journal),
        Role::Active(place) => place,
    };
    // Linux takes in members that have missed one event: the last one may not have reached all.
    let is_stale = own.events.checked_add(1).is_some_and(|events| events < newest.events);
    let is_disowned = newest.role_of(own.number) != Role::Active(place);
    let disowns = own.role_of(newest.number) != newest.role();
    if is_stale {
        let history = if disowns && is_disowned {
            "each was used without the other"
        } else {
            "the array was used without it"
        };
        return left_out(format!(
            "it is out of date, with {} events where the others have {}: {history} \
             (Linux rebuilds it after `mdadm --add`)",
            own.events, newest.events
        ));
    }
    if is_disowned {
        if disowns {
            diverged.push(name.to_owned());
        }
        return left_out("the other members have marked it as failed".into());
    }
    if !same {
        return left_out("it contradicts the other members about the array's level, size or layout".into());
    }
    if place >= newest.raid_disks {
        return left_out(format!("it has place {place} of {}", newest.raid_disks));
    }
    let state = if own.is_replacement {
        MemberState::Replacing
    } else if own.recovered_to.is_some() {
        MemberState::Rebuilding
    } else {
        MemberState::Active
    };
    (Some(place), state)
}

/// A replacement that is complete stands in for a member that is gone.
fn promote_replacements(array: &mut Array) {
    for index in 0..array.members.len() {
        let (role, is_complete) = {
            let member = &array.members[index];
            (member.role, member.state == MemberState::Replacing && member.superblock.recovered_to.is_none())
        };
        let has_active =
            array.members.iter().any(|member| member.role == role && member.state == MemberState::Active);
        if is_complete && !has_active {
            array.members[index].state = MemberState::Active;
        }
    }
}

/// Two groups of members that were each used without the other have no common content.
fn diverged_problem(array: &Array, diverged: &[String]) -> Option<String> {
    if diverged.is_empty() {
        return None;
    }
    let used: Vec<_> = array
        .members
        .iter()
        .filter(|member| member.state == MemberState::Active)
        .map(|member| member.member.name.as_str())
        .collect();
    Some(format!(
        "its members have diverged: {} and {} were each used without the other, and hold different content; \
         leave out the ones that are not wanted",
        used.join(", "),
        diverged.join(", ")
    ))
}

/// Two devices for one place: copies of a disk.
fn duplicate_problem(array: &Array) -> Option<String> {
    let active: Vec<_> = array.members.iter().filter(|member| member.state == MemberState::Active).collect();
    let pair = active.windows(2).find(|pair| pair[0].role == pair[1].role)?;
    let kind = if pair[0].superblock.device_uuid == pair[1].superblock.device_uuid {
        "are copies of one member"
    } else {
        "claim the same place"
    };
    Some(format!(
        "{} and {} {kind} (place {}); leave out one of them",
        pair[0].member.name,
        pair[1].member.name,
        pair[0].role.unwrap_or(0)
    ))
}

/// Fills in what the array is, and why it may not be written. An error is why it cannot be opened.
fn describe(array: &mut Array, newest: &Superblock) -> Result<()> {
    let level = Level::from_number(newest.level)?;
    array.level = Some(level);
    array.layout = level.layout_name(newest.layout);
    let places = usize::try_from(newest.raid_disks).unwrap_or(usize::MAX);
    let active = |place: usize| {
        array.members.iter().find(|member| {
            member.state == MemberState::Active
                && member.role.and_then(|role| usize::try_from(role).ok()) == Some(place)
        })
    };
    array.missing = (0..newest.raid_disks).filter(|place| active(*place as usize).is_none()).collect();
    let features = newest.features;
    if features.unknown != 0 {
        return Err(Error::Unsupported(format!(
            "features of the metadata that are not known: {:#x}",
            features.unknown
        )));
    }
    if features.is_reshaping {
        return Err(Error::Unsupported(
            "a reshape was begun and is not finished: start the array in Linux and let it finish".into(),
        ));
    }
    if features.is_clustered {
        return Err(Error::Unsupported("a clustered array (md-cluster)".into()));
    }
    array.state = ArrayState {
        is_clean: !level.is_redundant() || newest.resync_from.is_none(),
        is_degraded: !array.missing.is_empty(),
    };
    let missing = missing_text(&array.missing);
    let present: Vec<bool> = (0..places).map(|place| active(place).is_some()).collect();
    let member_bytes = (0..places)
        .map(|place| match active(place) {
            _ if level.is_redundant() => newest.used_bytes,
            Some(member) => member.superblock.data_bytes,
            None => 0,
        })
        .collect();
    let geometry = Geometry {
        layout: level.arrangement(newest.layout, places)?,
        chunk_bytes: newest.chunk_bytes,
        member_bytes,
    };
    if !geometry.is_complete_with(&present) {
        return Err(Error::Incomplete(format!(
            "too many members are missing: only {} of {} are there, without {missing}",
            present.iter().filter(|present| **present).count(),
            places
        )));
    }
    array.size = geometry.array_bytes().map_err(|error| Error::Unsupported(error.to_string()))?;
    array.geometry = Some(geometry);
    if features.has_journal && !array.state.is_clean {
        return Err(Error::Unsupported(
            "the array was not stopped cleanly and has a journal: start it in Linux and stop it".into(),
        ));
    }
    if features.has_journal {
        array.read_only = Some("it has a journal device, which would not know of what is written".into());
    } else if !array.state.is_clean && features.has_ppl {
        array.read_only = Some(
            "it was not stopped cleanly and has a partial parity log: start it in Linux and stop it".into(),
        );
    } else if !array.state.is_clean && array.state.is_degraded && level.has_parity() {
        array.read_only = Some(format!(
            "it was not stopped cleanly and lacks {missing}: what is computed from parity may be wrong"
        ));
        array
            .warnings
            .push("what is computed from parity may be wrong: not stopped cleanly, and degraded".into());
    }
    if !array.missing.is_empty() {
        array.warnings.push(format!("degraded, without {missing}"));
    }
    if !array.state.is_clean {
        array.warnings.push("not stopped cleanly, or never synchronised: Linux will resynchronise it".into());
    }
    Ok(())
}

fn missing_text(missing: &[u32]) -> String {
    let places: Vec<_> = missing.iter().take(16).map(u32::to_string).collect();
    let more = missing.len().saturating_sub(places.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("the member{} of place {}{more}", if missing.len() == 1 { "" } else { "s" }, places.join(", "))
}
