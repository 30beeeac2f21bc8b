//! POSIX ACLs: how ext4 stores them, how the kernel shows them, and how permissions go with them.
//!
//! Both are a header with a version and a list of entries, little-endian. ext4 (version 1) leaves out
//! the number of entries that have none; the kernel (version 2, `linux/posix_acl_xattr.h`) fills in
//! the number -1.

use vmcraft_fs::{Error, Result};

/// The version that ext4 stores.
const STORED: u32 = 1;
/// The version that `getxattr` shows.
const SHOWN: u32 = 2;
/// `e_id` of an entry that concerns no particular user or group.
const UNDEFINED: u32 = u32::MAX;

/// Tags of entries that ext4 stores without a number: owner, owning group, mask, others.
const WITHOUT_ID: [u16; 4] = [OWNER, OWNING_GROUP, MASK, OTHERS];
/// Tags of entries with a number: a user, a group.
const WITH_ID: [u16; 2] = [USER, GROUP];

/// The value that `getxattr` would show for what ext4 stores; `None` if that is no ACL.
pub(crate) fn to_kernel(stored: &[u8]) -> Option<Vec<u8>> {
    let (version, mut rest) = stored.split_first_chunk()?;
    if u32::from_le_bytes(*version) != STORED {
        return None;
    }
    let mut shown = SHOWN.to_le_bytes().to_vec();
    while !rest.is_empty() {
        let (entry, after) = rest.split_first_chunk::<4>()?;
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        shown.extend_from_slice(entry);
        if WITHOUT_ID.contains(&tag) {
            shown.extend_from_slice(&UNDEFINED.to_le_bytes());
            rest = after;
        } else if WITH_ID.contains(&tag) {
            let (id, after) = after.split_first_chunk::<4>()?;
            shown.extend_from_slice(id);
            rest = after;
        } else {
            return None;
        }
    }
    Some(shown)
}

/// An entry of an ACL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    tag: u16,
    /// Reading 4, writing 2, executing 1.
    permissions: u16,
    /// The user or group; [`UNDEFINED`] if the tag needs none.
    id: u32,
}

/// Tags, as in `linux/posix_acl.h`.
const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;

/// Checks what `setxattr` is given. An ACL without entries is none at all.
pub(crate) fn from_kernel(shown: &[u8]) -> Result<Vec<Entry>> {
    const NONE: Error = Error::InvalidInput("not a POSIX ACL");
    let (version, entries) = shown.split_first_chunk().ok_or(NONE)?;
    if u32::from_le_bytes(*version) != SHOWN || entries.len() % 8 != 0 {
        return Err(NONE);
    }
    let mut acl = Vec::with_capacity(entries.len() / 8);
    for bytes in entries.chunks_exact(8) {
        let tag = u16::from_le_bytes([bytes[0], bytes[1]]);
        let permissions = u16::from_le_bytes([bytes[2], bytes[3]]);
        let id = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let id = if WITH_ID.contains(&tag) { id } else { UNDEFINED };
        acl.push(Entry { tag, permissions, id });
    }
    if acl.is_empty() || is_valid(&acl) { Ok(acl) } else { Err(NONE) }
}

/// One entry for the owner, the owning group and others each, in that order, with users and groups
/// behind the first two; these ask for a mask.
fn is_valid(acl: &[Entry]) -> bool {
    let count = |tag| acl.iter().filter(|e| e.tag == tag).count();
    let named = acl.iter().filter(|e| WITH_ID.contains(&e.tag));
    let known = |e: &Entry| WITHOUT_ID.contains(&e.tag) || WITH_ID.contains(&e.tag);
    acl.iter().all(|e| known(e) && e.permissions <= 7)
        && acl.is_sorted_by_key(|e| e.tag)
        && [OWNER, OWNING_GROUP, OTHERS].iter().all(|&tag| count(tag) == 1)
        && count(MASK) <= 1
        && named.clone().all(|e| e.id != UNDEFINED)
        && (named.count() == 0 || count(MASK) == 1)
}

/// What ext4 stores for an ACL.
pub(crate) fn to_stored(acl: &[Entry]) -> Vec<u8> {
    let mut stored = STORED.to_le_bytes().to_vec();
    for entry in acl {
        stored.extend_from_slice(&entry.tag.to_le_bytes());
        stored.extend_from_slice(&entry.permissions.to_le_bytes());
        if WITH_ID.contains(&entry.tag) {
            stored.extend_from_slice(&entry.id.to_le_bytes());
        }
    }
    stored
}

/// Whether it says no more than permissions can.
pub(crate) fn is_minimal(acl: &[Entry]) -> bool {
    acl.iter().all(|e| [OWNER, OWNING_GROUP, OTHERS].contains(&e.tag))
}

/// The entry that the group's permissions stand for: the mask, or without one the owning group's.
fn group_tag(acl: &[Entry]) -> u16 {
    if acl.iter().any(|e| e.tag == MASK) { MASK } else { OWNING_GROUP }
}

/// How far an entry's permissions are shifted in a mode, if the mode has them.
fn shift(entry: &Entry, group: u16) -> Option<u32> {
    match entry.tag {
        OWNER => Some(6),
        OTHERS => Some(0),
        tag if tag == group => Some(3),
        _ => None,
    }
}

/// The mode, with the permissions that the ACL gives it.
pub(crate) fn permissions(acl: &[Entry], mode: u16) -> u16 {
    let group = group_tag(acl);
    acl.iter().fold(mode & !0o777, |mode, e| shift(e, group).map_or(mode, |s| mode | e.permissions << s))
}

/// Changes the ACL to the mode's permissions.
pub(crate) fn fit(acl: &mut [Entry], mode: u16) {
    let group = group_tag(acl);
    for entry in acl {
        if let Some(shift) = shift(entry, group) {
            entry.permissions = mode >> shift & 7;
        }
    }
}

/// Changes a directory's default ACL to that of something made there with `mode`: each has no more
/// than the other allows. Returns the new mode.
pub(crate) fn inherit(acl: &mut [Entry], mode: u16) -> u16 {
    let group = group_tag(acl);
    for entry in acl.iter_mut() {
        if let Some(shift) = shift(entry, group) {
            entry.permissions &= mode >> shift;
        }
    }
    permissions(acl, mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_entries_get_an_id() {
        let stored = [1, 0, 0, 0, 1, 0, 6, 0, 2, 0, 7, 0, 0xe8, 3, 0, 0, 0x20, 0, 4, 0];
        let shown = [
            2, 0, 0, 0, //
            1, 0, 6, 0, 255, 255, 255, 255, //
            2, 0, 7, 0, 0xe8, 3, 0, 0, //
            0x20, 0, 4, 0, 255, 255, 255, 255,
        ];
        assert_eq!(to_kernel(&stored).unwrap(), shown);
    }

    fn entry(tag: u16, permissions: u16) -> Entry {
        Entry { tag, permissions, id: if WITH_ID.contains(&tag) { 1000 } else { UNDEFINED } }
    }

    #[test] // With a mask it, not the owning group's entry, is what the mode shows for the group.
    fn permissions_of_the_group_are_the_mask() {
        let mut acl = vec![entry(OWNER, 7), entry(OWNING_GROUP, 5), entry(OTHERS, 1)];
        assert!(is_minimal(&acl));
        assert_eq!(permissions(&acl, 0o104_000), 0o104_751);
        acl.splice(1..1, [entry(USER, 3)]);
        acl.splice(3..3, [entry(MASK, 2)]);
        assert!(is_valid(&acl) && !is_minimal(&acl));
        assert_eq!(permissions(&acl, 0o100_777), 0o100_721);
        fit(&mut acl, 0o654);
        assert_eq!(acl.iter().map(|e| e.permissions).collect::<Vec<_>>(), [6, 3, 5, 5, 4]);
        assert_eq!(inherit(&mut acl, 0o100_640), 0o100_640);
        assert_eq!(acl.iter().map(|e| e.permissions).collect::<Vec<_>>(), [6, 3, 5, 4, 0]);
    }

    #[test]
    fn stored_and_shown_are_the_same_acl() {
        let acl = [entry(OWNER, 7), entry(USER, 3), entry(OWNING_GROUP, 5), entry(MASK, 2), entry(OTHERS, 1)];
        let stored = to_stored(&acl);
        assert_eq!(stored.len(), 4 + 4 * 4 + 8);
        assert_eq!(from_kernel(&to_kernel(&stored).unwrap()).unwrap(), acl);
    }

    #[test]
    fn damage_is_refused() {
        assert_eq!(to_kernel(&[1, 0, 0]), None, "no header");
        assert_eq!(to_kernel(&[2, 0, 0, 0]), None, "another version");
        assert_eq!(to_kernel(&[1, 0, 0, 0, 2, 0, 7, 0, 1]), None, "cut");
        assert_eq!(to_kernel(&[1, 0, 0, 0, 3, 0, 7, 0]), None, "unknown tag");
    }
}
