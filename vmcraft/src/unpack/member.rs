//! A member of an archive, or a file of a tree that is copied in.

use bstr::BString;
use vmcraft_fs::{DeviceNumber, FileType, Timestamp};

/// What a member becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file; its content follows.
    File,
    /// A further name of an earlier member, by that one's name.
    HardLink(BString),
    Symlink(BString),
    Directory,
    /// A device, pipe or socket.
    Special(FileType, DeviceNumber),
}

/// A member, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// As the archive has it: it may be absolute, or lead out.
    pub(crate) name: BString,
    pub(crate) kind: Kind,
    /// Permission, set-id and sticky bits.
    pub(crate) permissions: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) modified: Timestamp,
    /// `None` is the time of unpacking.
    pub(crate) accessed: Option<Timestamp>,
    /// Full names and values as `setxattr` takes them.
    pub(crate) xattrs: Vec<(BString, Vec<u8>)>,
    /// Access control lists as text: the one for the file, and the default one.
    pub(crate) acl: Option<BString>,
    pub(crate) default_acl: Option<BString>,
}
