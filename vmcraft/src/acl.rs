//! POSIX access control lists, as the attributes `system.posix_acl_access` and
//! `system.posix_acl_default` hold them and as text.
//!
//! The attribute is a little-endian version, 2, and then entries of 8 bytes: tag, permissions, and the
//! number of the user or group (Linux `include/uapi/linux/posix_acl_xattr.h`). The text is that of
//! acl(5).

#[cfg(test)]
mod inheritance;

use bstr::{BStr, ByteSlice};

/// The attribute with the list that applies to a file.
pub(crate) const ACCESS: &str = "system.posix_acl_access";

/// The attribute with the list that new files in a directory get.
pub(crate) const DEFAULT: &str = "system.posix_acl_default";

const VERSION: [u8; 4] = 2_u32.to_le_bytes();

/// The number of an entry that is about no user or group of its own.
const NO_ID: u32 = u32::MAX;

/// How many entries a list has at most: as many as fit into the largest attribute.
const MAX_ENTRIES: usize = (64 * 1024 - 4) / 8;

/// Whom an entry is about. The numbers are those of the attribute, and the order that of its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tag {
    Owner = 0x01,
    User = 0x02,
    OwningGroup = 0x04,
    Group = 0x08,
    Mask = 0x10,
    Other = 0x20,
}

impl Tag {
    fn decode(number: u16) -> Option<Self> {
        [Self::Owner, Self::User, Self::OwningGroup, Self::Group, Self::Mask, Self::Other]
            .into_iter()
            .find(|tag| *tag as u16 == number)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    tag: Tag,
    id: u32,
    /// Three bits, as in a mode.
    permissions: u16,
}

/// An access control list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acl(Vec<Entry>);

/// What names of users and groups stand for.
pub(crate) trait Names {
    /// The number of the user with this name.
    fn uid(&self, name: &BStr) -> Option<u32>;
    /// The number of the group with this name.
    fn gid(&self, name: &BStr) -> Option<u32>;
}

impl Acl {
    /// The list in an attribute. `None` if it is none.
    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let (entries, rest) = value.strip_prefix(&VERSION)?.as_chunks::<8>();
        if !rest.is_empty() || entries.len() > MAX_ENTRIES {
            return None;
        }
        let decode = |entry: &[u8; 8]| {
            let [tag_low, tag_high, low, high, id @ ..] = *entry;
            let tag = Tag::decode(u16::from_le_bytes([tag_low, tag_high]))?;
            let permissions = u16::from_le_bytes([low, high]);
            (permissions <= 7).then_some(Entry { tag, id: u32::from_le_bytes(id), permissions })
        };
        entries.iter().map(decode).collect::<Option<_>>().map(Self)
    }

    /// The attribute's value.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut value = VERSION.to_vec();
        for entry in &self.0 {
            value.extend((entry.tag as u16).to_le_bytes());
            value.extend(entry.permissions.to_le_bytes());
            value.extend(entry.id.to_le_bytes());
        }
        value
    }

    /// The list that a file without one has by its permissions.
    pub(crate) fn from_permissions(permissions: u32) -> Self {
        let entry = |tag, shift: u32| Entry { tag, id: NO_ID, permissions: three_bits(permissions, shift) };
        Self(vec![entry(Tag::Owner, 6), entry(Tag::OwningGroup, 3), entry(Tag::Other, 0)])
    }

    /// The list that a text stands for, or what is wrong with the text.
    pub(crate) fn parse(text: &str, names: &dyn Names) -> Result<Self, String> {
        let mut entries = Vec::new();
        for item in text.lines().flat_map(|line| line.split('#').next().unwrap_or_default().split(',')) {
            let item = item.trim();
            if item.is_empty() {
                continue;
            }
            entries.push(parse_entry(item, names)?);
            if entries.len() > MAX_ENTRIES {
                return Err(format!("more than {MAX_ENTRIES} entries"));
            }
        }
        entries.sort_unstable();
        let list = Self(entries);
        list.check()?;
        Ok(list)
    }

    /// Whether it is complete, as the kernel asks of one.
    fn check(&self) -> Result<(), String> {
        let count = |tag| self.0.iter().filter(|entry| entry.tag == tag).count();
        for (tag, name) in [(Tag::Owner, "user::"), (Tag::OwningGroup, "group::"), (Tag::Other, "other::")] {
            if count(tag) != 1 {
                return Err(format!("it needs one entry {name}, and has {}", count(tag)));
            }
        }
        let named = count(Tag::User) + count(Tag::Group);
        if count(Tag::Mask) > 1 || (named > 0 && count(Tag::Mask) == 0) {
            return Err(format!("it needs one entry mask::, and has {}", count(Tag::Mask)));
        }
        let twice = self.0.windows(2).find(|pair| (pair[0].tag, pair[0].id) == (pair[1].tag, pair[1].id));
        match twice {
            Some([entry, _]) => Err(format!("{} has two entries", entry.id)),
            _ => Ok(()),
        }
    }

    /// The list as text with numbers for names, one entry an item, such as
    /// `user::rw-,user:1000:r--,group::r--,mask::r--,other::---`.
    pub(crate) fn text(&self) -> String {
        self.entries().collect::<Vec<_>>().join(",")
    }

    /// The list as text, an entry a line. What the mask takes away from an entry stands behind it, as in
    /// `group::r-x` with a tab and `#effective:r--`.
    pub(crate) fn long_text(&self) -> String {
        let mask = self.0.iter().find(|entry| entry.tag == Tag::Mask).map_or(7, |mask| mask.permissions);
        let mut text = String::new();
        for (entry, shown) in self.0.iter().zip(self.entries()) {
            text.push_str(&shown);
            let is_masked = matches!(entry.tag, Tag::User | Tag::OwningGroup | Tag::Group);
            if is_masked && entry.permissions & !mask != 0 {
                text.push_str(&format!("\t#effective:{}", letters(entry.permissions & mask)));
            }
            text.push('\n');
        }
        text
    }

    fn entries(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|entry| {
            let who = match entry.tag {
                Tag::Owner => "user:".to_owned(),
                Tag::User => format!("user:{}", entry.id),
                Tag::OwningGroup => "group:".to_owned(),
                Tag::Group => format!("group:{}", entry.id),
                Tag::Mask => "mask:".to_owned(),
                Tag::Other => "other:".to_owned(),
            };
            format!("{who}:{}", letters(entry.permissions))
        })
    }
}

fn three_bits(permissions: u32, shift: u32) -> u16 {
    #[allow(clippy::cast_possible_truncation, reason = "three bits")]
    let bits = (permissions >> shift & 7) as u16;
    bits
}

fn letters(permissions: u16) -> String {
    let letter = |(bit, letter)| if permissions & bit != 0 { letter } else { '-' };
    [(4, 'r'), (2, 'w'), (1, 'x')].map(letter).iter().collect()
}

/// An entry such as `user:1000:rw-`, `g::r`, `mask::rwx` or `o:r`.
fn parse_entry(item: &str, names: &dyn Names) -> Result<Entry, String> {
    let wrong = || format!("{item:?} is not an entry such as user::rw- or group:100:r-x");
    let mut fields = item.split(':').map(str::trim);
    let (tag, rest): (_, Vec<_>) = (fields.next().unwrap_or_default(), fields.collect());
    let (qualifier, permissions) = match (tag, rest.as_slice()) {
        (_, [qualifier, permissions]) => (*qualifier, *permissions),
        // As star and bsdtar write it, with the number behind the name.
        ("u" | "user" | "g" | "group", [_, permissions, number]) if number.parse::<u32>().is_ok() => {
            (*number, *permissions)
        }
        ("o" | "other" | "m" | "mask", [permissions]) => ("", *permissions),
        _ => return Err(wrong()),
    };
    let tag = match (tag, qualifier.is_empty()) {
        ("u" | "user", true) => Tag::Owner,
        ("u" | "user", false) => Tag::User,
        ("g" | "group", true) => Tag::OwningGroup,
        ("g" | "group", false) => Tag::Group,
        ("m" | "mask", true) => Tag::Mask,
        ("o" | "other", true) => Tag::Other,
        _ => return Err(wrong()),
    };
    let id = match tag {
        Tag::User | Tag::Group => match qualifier.parse() {
            Ok(NO_ID) => return Err(wrong()),
            Ok(number) => number,
            Err(_) => {
                let name = qualifier.as_bytes().as_bstr();
                let found = if tag == Tag::User { names.uid(name) } else { names.gid(name) };
                found.ok_or_else(|| format!("{item:?}: the guest has no such user or group"))?
            }
        },
        _ => NO_ID,
    };
    let mut bits = 0;
    for letter in permissions.chars() {
        bits |= match letter {
            'r' => 4,
            'w' => 2,
            'x' => 1,
            '-' => 0,
            _ => return Err(wrong()),
        };
    }
    Ok(Entry { tag, id, permissions: bits })
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) struct Root;

    impl Names for Root {
        fn uid(&self, name: &BStr) -> Option<u32> {
            (name == "root").then_some(0)
        }
        fn gid(&self, name: &BStr) -> Option<u32> {
            (name == "wheel").then_some(10)
        }
    }

    #[test] // What acl_from_text takes, and the order in which the kernel wants the entries.
    fn texts_are_read_and_written() {
        let list =
            Acl::parse("o:r\nm::rwx # all\ng:staff:x:10,u:1000:rw-,u:root:r,u::rwx, group::r-x", &Root);
        let list = list.unwrap();
        let text = "user::rwx,user:0:r--,user:1000:rw-,group::r-x,group:10:--x,mask::rwx,other::r--";
        assert_eq!(list.text(), text);
        assert_eq!(Acl::parse(text, &Root).unwrap(), list);
        assert_eq!(Acl::decode(&list.encode()).unwrap(), list);
        assert_eq!(Acl::from_permissions(0o4751).text(), "user::rwx,group::r-x,other::--x");
    }

    #[test] // What the kernel would refuse is refused with the reason.
    fn incomplete_lists_are_refused() {
        for (text, message) in [
            ("u::rwx", "it needs one entry group::, and has 0"),
            ("u::rwx,u::r,g::r,o::r", "it needs one entry user::, and has 2"),
            ("u::rwx,g::r,o::r,u:1:r", "it needs one entry mask::, and has 0"),
            ("u::rwx,g::r,o::r,m::r,u:1:r,u:1:w", "1 has two entries"),
            ("nonsense", "\"nonsense\" is not an entry such as user::rw- or group:100:r-x"),
            ("u::rwX,g::r,o::r", "\"u::rwX\" is not an entry such as user::rw- or group:100:r-x"),
            ("o:1:r", "\"o:1:r\" is not an entry such as user::rw- or group:100:r-x"),
            ("u:4294967295:r", "\"u:4294967295:r\" is not an entry such as user::rw- or group:100:r-x"),
            ("u:nobody:r", "\"u:nobody:r\": the guest has no such user or group"),
        ] {
            assert_eq!(Acl::parse(text, &Root).unwrap_err(), message, "{text}");
        }
    }

    #[test] // The attribute comes from a disk.
    fn damaged_attributes_are_no_lists() {
        let value = Acl::from_permissions(0o644).encode();
        assert!(Acl::decode(&value[..value.len() - 1]).is_none());
        assert!(Acl::decode(&[1, 0, 0, 0]).is_none());
        let mut wrong = value.clone();
        wrong[4] = 3;
        assert!(Acl::decode(&wrong).is_none());
        let mut wrong = value;
        wrong[6] = 8;
        assert!(Acl::decode(&wrong).is_none());
    }
}
