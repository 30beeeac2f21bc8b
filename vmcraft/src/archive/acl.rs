//! POSIX access control lists: from what the kernel's `getxattr` returns to the text in archives.
//!
//! The value is a little-endian version, 2, and then entries of 8 bytes: tag, permissions, and the
//! number of the user or group (Linux `include/uapi/linux/posix_acl_xattr.h`).

/// The list as text with numbers for names, such as `user::rw-,user:1000:r--,group::r--,mask::r--,other::---`.
/// `None` if the value is not such a list.
pub(crate) fn acl_text(value: &[u8]) -> Option<String> {
    let entries = value.strip_prefix(&2_u32.to_le_bytes())?;
    let (entries, rest) = entries.as_chunks::<8>();
    if !rest.is_empty() {
        return None;
    }
    let mut texts = Vec::new();
    for [tag_low, tag_high, perm_low, perm_high, id @ ..] in entries {
        let id = u32::from_le_bytes(*id);
        let who = match u16::from_le_bytes([*tag_low, *tag_high]) {
            0x01 => "user:".to_owned(),
            0x02 => format!("user:{id}"),
            0x04 => "group:".to_owned(),
            0x08 => format!("group:{id}"),
            0x10 => "mask:".to_owned(),
            0x20 => "other:".to_owned(),
            _ => return None,
        };
        let permissions = u16::from_le_bytes([*perm_low, *perm_high]);
        if permissions > 7 {
            return None;
        }
        let letter = |bit: u16, letter: char| if permissions & bit != 0 { letter } else { '-' };
        texts.push(format!("{who}:{}{}{}", letter(4, 'r'), letter(2, 'w'), letter(1, 'x')));
    }
    Some(texts.join(","))
}

/// The list that a file without one has by its permissions, as the kernel's `getxattr` would return
/// it.
pub(crate) fn from_permissions(permissions: u32) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, shift) in [(0x01_u16, 6), (0x04, 3), (0x20, 0)] {
        value.extend(tag.to_le_bytes());
        #[allow(clippy::cast_possible_truncation, reason = "three bits")]
        value.extend([(permissions >> shift & 7) as u8, 0]);
        value.extend(u32::MAX.to_le_bytes());
    }
    value
}
