//! The guest's users and their passwords: `passwd(5)`, `shadow(5)` and `group(5)`.

use bstr::{BStr, BString, ByteSlice, ByteVec};

/// A user, as a line of `/etc/passwd` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name to log in with.
    pub name: BString,
    /// The user's number.
    pub uid: u32,
    /// The number of the user's first group.
    pub gid: u32,
    /// The home directory.
    pub home: BString,
}

/// The users in a file of the form of `/etc/passwd`. Lines that are not of its form are left out.
pub fn users(passwd: &[u8]) -> Vec<User> {
    let user = |line: &[u8]| {
        let fields: Vec<&[u8]> = line.split(|b| *b == b':').collect();
        let [name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
        let number = |text: &[u8]| text.to_str().ok()?.parse().ok();
        Some(User { name: (*name).into(), uid: number(uid)?, gid: number(gid)?, home: (*home).into() })
    };
    passwd.lines().filter_map(user).filter(|user| !user.name.is_empty()).collect()
}

/// A file of the form of `/etc/shadow` or `/etc/passwd` with another password for a user: `change` makes it
/// from the one that is there. Everything else stays, byte for byte. `None` if there is no such user.
pub fn with_password(content: &[u8], user: &BStr, change: impl Fn(&BStr) -> BString) -> Option<Vec<u8>> {
    let mut changed = Vec::with_capacity(content.len() + 128);
    let mut is_found = false;
    for line in content.lines_with_terminator() {
        let fields = line.strip_prefix(user.as_bytes()).and_then(|rest| rest.strip_prefix(b":"));
        let Some((fields, false)) = fields.map(|fields| (fields, is_found)) else {
            changed.push_str(line);
            continue;
        };
        is_found = true;
        let end = fields.iter().position(|b| matches!(b, b':' | b'\n')).unwrap_or(fields.len());
        changed.push_str(user);
        changed.push_byte(b':');
        changed.push_str(change(fields[..end].as_bstr()));
        changed.push_str(&fields[end..]);
    }
    is_found.then_some(changed)
}

/// A file of the form of `/etc/passwd` without the lines of a name.
pub fn without(content: &[u8], name: &BStr) -> Vec<u8> {
    let is_of = |line: &[u8]| line.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b":"));
    content.lines_with_terminator().filter(|line| !is_of(line)).collect::<Vec<_>>().concat()
}

/// A file of the form of `/etc/group` or `/etc/gshadow` without a user in the lists of members, which are
/// the last field (in `/etc/gshadow` the last two).
pub fn without_member(content: &[u8], name: &BStr) -> Vec<u8> {
    let mut changed = Vec::with_capacity(content.len());
    for line in content.lines_with_terminator() {
        let end = line.len() - usize::from(line.ends_with(b"\n"));
        for (index, field) in line[..end].split(|b| *b == b':').enumerate() {
            if index > 0 {
                changed.push_byte(b':');
            }
            if index < 2 || !field.split(|b| *b == b',').any(|member| member == name.as_bytes()) {
                changed.push_str(field);
                continue;
            }
            let rest: Vec<&[u8]> =
                field.split(|b| *b == b',').filter(|member| *member != name.as_bytes()).collect();
            changed.push_str(rest.join(&b","[..]));
        }
        changed.push_str(&line[end..]);
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_and_odd_lines_are_not() {
        let passwd = b"root:x:0:0:root:/root:/bin/bash\n+nis\nbad:x:many:0::/:\n\nu:x:1000:100:U,,,:/home/u:/bin/sh\n:x:1:1::/:";
        let found = users(passwd);
        assert_eq!(found.len(), 2);
        assert_eq!(found[1], User { name: "u".into(), uid: 1000, gid: 100, home: "/home/u".into() });
    }

    #[test] // Other lines, ageing and odd endings stay as they are.
    fn one_password_changes_and_nothing_else() {
        let shadow = b"rooted:*:1::::::\nroot:old:19675:0:99999:7:::\nu:!:1::\nroot:twice:2::";
        let new = with_password(shadow, "root".into(), |_| "$6$new".into()).unwrap();
        assert_eq!(
            new.as_bstr(),
            "rooted:*:1::::::\nroot:$6$new:19675:0:99999:7:::\nu:!:1::\nroot:twice:2::"
        );
        let locked = with_password(shadow, "u".into(), |old| format!("!!{old}").into()).unwrap();
        assert!(locked.contains_str("\nu:!!!:1::\n"));
        assert_eq!(with_password(shadow, "none".into(), |_| "x".into()), None);
        assert_eq!(with_password(b"a:b\n", "a".into(), |_| "c".into()).unwrap(), b"a:c\n");
    }

    #[test]
    fn users_go_with_their_memberships() {
        let group = b"adm:x:4:u,root\nu:x:1000:\nsudo:x:27:u\nx:x:1:uu,u";
        assert_eq!(
            without_member(group, "u".into()).as_bstr(),
            "adm:x:4:root\nu:x:1000:\nsudo:x:27:\nx:x:1:uu"
        );
        assert_eq!(without_member(b"adm:*:u:root,u\n", "u".into()).as_bstr(), "adm:*::root\n");
        assert_eq!(without(group, "u".into()).as_bstr(), "adm:x:4:u,root\nsudo:x:27:u\nx:x:1:uu,u");
    }
}
