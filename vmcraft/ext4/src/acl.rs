//! POSIX ACLs: from how ext4 stores them to how the kernel shows them.
//!
//! Both are a header with a version and a list of entries, little-endian. ext4 (version 1) leaves out
//! the number of entries that have none; the kernel (version 2, `linux/posix_acl_xattr.h`) fills in
//! the number -1.

/// The version that ext4 stores.
const STORED: u32 = 1;
/// The version that `getxattr` shows.
const SHOWN: u32 = 2;
/// `e_id` of an entry that concerns no particular user or group.
const UNDEFINED: u32 = u32::MAX;

/// Tags of entries that ext4 stores without a number: owner, owning group, mask, others.
const WITHOUT_ID: [u16; 4] = [0x01, 0x04, 0x10, 0x20];
/// Tags of entries with a number: a user, a group.
const WITH_ID: [u16; 2] = [0x02, 0x08];

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

    #[test]
    fn damage_is_refused() {
        assert_eq!(to_kernel(&[1, 0, 0]), None, "no header");
        assert_eq!(to_kernel(&[2, 0, 0, 0]), None, "another version");
        assert_eq!(to_kernel(&[1, 0, 0, 0, 2, 0, 7, 0, 1]), None, "cut");
        assert_eq!(to_kernel(&[1, 0, 0, 0, 3, 0, 7, 0]), None, "unknown tag");
    }
}
