//! The names of owners, from the guest's own `/etc/passwd` and `/etc/group`.

use std::collections::HashMap;

use bstr::{BStr, BString, ByteSlice};

use crate::acl::Names;
use crate::vfs::{LastLink, Vfs};

/// The largest such file that is read.
const FILE_BYTES: u64 = 4 << 20;

/// The longest name: what a tar header has room for.
const NAME_BYTES: usize = 31;

/// Names of users and groups by number.
#[derive(Default)]
pub(crate) struct Owners {
    users: HashMap<u32, BString>,
    groups: HashMap<u32, BString>,
}

impl Owners {
    /// The guest's names; none where a file is missing or cannot be read.
    pub(crate) fn of_guest(vfs: &Vfs) -> Self {
        Self { users: names(vfs, "/etc/passwd"), groups: names(vfs, "/etc/group") }
    }

    /// The user's name, empty if there is none.
    pub(crate) fn user(&self, uid: u32) -> &[u8] {
        self.users.get(&uid).map_or(b"", |name| name.as_slice())
    }

    /// The group's name, empty if there is none.
    pub(crate) fn group(&self, gid: u32) -> &[u8] {
        self.groups.get(&gid).map_or(b"", |name| name.as_slice())
    }
}

impl Names for Owners {
    fn uid(&self, name: &BStr) -> Option<u32> {
        number_of(&self.users, name)
    }
    fn gid(&self, name: &BStr) -> Option<u32> {
        number_of(&self.groups, name)
    }
}

/// The lowest number with this name.
fn number_of(names: &HashMap<u32, BString>, name: &BStr) -> Option<u32> {
    names.iter().filter(|(_, found)| *found == name).map(|(number, _)| *number).min()
}

/// Lines of the form `name:password:number:…`. The first of a number counts.
fn names(vfs: &Vfs, path: &str) -> HashMap<u32, BString> {
    let mut names = HashMap::new();
    let Ok(content) =
        vfs.resolve(path.into(), LastLink::Follow).and_then(|file| file.read_to_vec(FILE_BYTES))
    else {
        return names;
    };
    for line in content.lines() {
        let mut fields = line.split_str(":");
        let (Some(name), Some(_), Some(number)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let is_sound = !name.is_empty()
            && name.len() <= NAME_BYTES
            && name.iter().all(|byte| *byte > b' ' && *byte != 0x7f);
        if is_sound && let Some(number) = number.to_str().ok().and_then(|number| number.parse().ok()) {
            names.entry(number).or_insert_with(|| name.into());
        }
    }
    names
}
