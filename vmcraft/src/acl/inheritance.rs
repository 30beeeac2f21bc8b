//! What drivers do with access control lists as the kernel does it, for the file system in memory.

use super::tests::Root;
use super::{Acl, Tag, three_bits};

impl Acl {
    /// The list for a file that is created with these permissions where this is the default one, and
    /// the permissions that it then has. No list if it would say no more than the permissions.
    pub(crate) fn inherited(&self, permissions: u32) -> (Option<Self>, u32) {
        let mut list = self.clone();
        for entry in &mut list.0 {
            if let Some(shift) = self.shift_of(entry.tag) {
                entry.permissions &= three_bits(permissions, shift);
            }
        }
        let permissions = permissions & !0o777 | list.permissions();
        ((!list.is_plain()).then_some(list), permissions)
    }

    /// The list after `chmod` to these permissions.
    pub(crate) fn with_permissions(&self, permissions: u32) -> Self {
        let mut list = self.clone();
        for entry in &mut list.0 {
            if let Some(shift) = self.shift_of(entry.tag) {
                entry.permissions = three_bits(permissions, shift);
            }
        }
        list
    }

    /// Where a mode has the bits of an entry, if it has: those of the mask stand for the group's.
    fn shift_of(&self, tag: Tag) -> Option<u32> {
        let has_mask = self.0.iter().any(|entry| entry.tag == Tag::Mask);
        match tag {
            Tag::Owner => Some(6),
            Tag::OwningGroup if !has_mask => Some(3),
            Tag::Mask => Some(3),
            Tag::Other => Some(0),
            Tag::User | Tag::OwningGroup | Tag::Group => None,
        }
    }

    fn permissions(&self) -> u32 {
        let bits = self
            .0
            .iter()
            .filter_map(|entry| self.shift_of(entry.tag).map(|shift| u32::from(entry.permissions) << shift));
        bits.fold(0, |all, bits| all | bits)
    }

    /// Whether permissions can say the same.
    fn is_plain(&self) -> bool {
        self.0.iter().all(|entry| matches!(entry.tag, Tag::Owner | Tag::OwningGroup | Tag::Other))
    }
}

#[test] // As the kernel's answers in directories with a default list.
fn new_files_get_the_default_list() {
    let default = Acl::parse("u::rwx,u:9:rwx,g::r-x,m::rwx,o::---", &Root).unwrap();
    let (list, permissions) = default.inherited(0o666);
    assert_eq!(permissions, 0o660);
    assert_eq!(list.unwrap().text(), "user::rw-,user:9:rwx,group::r-x,mask::rw-,other::---");
    let (list, permissions) = default.inherited(0o1700);
    assert_eq!(permissions, 0o1700);
    assert_eq!(list.unwrap().text(), "user::rwx,user:9:rwx,group::r-x,mask::---,other::---");
    let plain = Acl::parse("u::rwx,g::r-x,o::---", &Root).unwrap();
    assert_eq!(plain.inherited(0o666), (None, 0o640));
    let changed = default.with_permissions(0o604);
    assert_eq!(changed.text(), "user::rw-,user:9:rwx,group::r-x,mask::---,other::r--");
    assert_eq!(plain.with_permissions(0o777).text(), "user::rwx,group::rwx,other::rwx");
}
