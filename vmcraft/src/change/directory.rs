//! A directory in which names are made: what new files get from it, as the kernel gives it to them.

use bstr::{BStr, BString};
use vmcraft_fs::{DeviceNumber, FileType, InodeNumber, NewInode, WriteFiles};

use crate::acl;
use crate::change::xattr;
use crate::vfs::{Node, Vfs, join};
use crate::{Error, GuestPath, Result};

/// The set-group-id bit: new files in such a directory belong to its group.
const SET_GROUP_ID: u32 = 0o2000;

/// What `mkdir` heeds of a mode.
const DIRECTORY_BITS: u32 = 0o1777;

/// A directory that names are added to.
pub(crate) struct Directory {
    pub(crate) node: Node,
    /// The group that new files belong to, if not that of who makes them.
    group: Option<u32>,
    /// Whether new files get an access control list, which limits their permissions in place of the umask.
    has_default_acl: bool,
}

/// What is made.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NewFile<'a> {
    Regular,
    Directory,
    Symlink(&'a BStr),
    Special(FileType, DeviceNumber),
}

/// What it starts with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct New {
    /// Permission, set-id and sticky bits.
    pub(crate) permissions: u32,
    /// Permissions that it does not get, unless the directory has a default list.
    pub(crate) umask: u32,
    /// Its user and group; without, those of a process of root.
    pub(crate) owner: Option<(u32, u32)>,
}

impl New {
    /// What a process of root makes.
    pub(crate) fn by_root(permissions: u32, umask: u32) -> Self {
        Self { permissions, umask, owner: None }
    }
}

impl Directory {
    /// What is known of a directory. `NotADirectory` if it is none.
    pub(crate) fn of(node: Node) -> Result<Self> {
        let metadata = node.metadata()?;
        if !metadata.is_dir() {
            return Err(node.error(vmcraft_fs::Error::NotADirectory));
        }
        let group = (metadata.permissions & SET_GROUP_ID != 0).then_some(metadata.gid);
        let has_default_acl = xattr(&node, acl::DEFAULT.into())?.is_some();
        Ok(Self { node, group, has_default_acl })
    }

    /// The directory that a path's last name is in, and that name.
    pub(crate) fn of_path(vfs: &Vfs, path: &GuestPath) -> Result<(Self, BString)> {
        let (node, name) = vfs.resolve_parent(path)?;
        Ok((Self::of(node)?, name))
    }

    pub(crate) fn writer(&self) -> Result<&dyn WriteFiles> {
        self.node.writer()
    }

    /// Adds the path of a name in it to a driver's error.
    pub(crate) fn error(&self, name: &BStr, source: vmcraft_fs::Error) -> Error {
        child_error(&self.node, name, source)
    }

    /// Makes a file. `Exists` if the name is taken.
    pub(crate) fn make(&self, name: &BStr, file: NewFile<'_>, new: New) -> Result<InodeNumber> {
        let writer = self.writer()?;
        let mut permissions = match file {
            NewFile::Symlink(_) => 0o777,
            NewFile::Directory => new.permissions & DIRECTORY_BITS,
            NewFile::Regular | NewFile::Special(..) => new.permissions & 0o7777,
        };
        if !self.has_default_acl && !matches!(file, NewFile::Symlink(_)) {
            permissions &= !new.umask;
        }
        let (uid, gid) = match (new.owner, self.group) {
            (Some(owner), _) => owner,
            (None, Some(group)) => {
                if let NewFile::Directory = file {
                    permissions |= SET_GROUP_ID;
                }
                (0, group)
            }
            (None, None) => (0, 0),
        };
        let new = NewInode { permissions, uid, gid };
        let dir = self.node.inode;
        let inode = match file {
            NewFile::Regular => writer.create(dir, name, new),
            NewFile::Directory => writer.mkdir(dir, name, new),
            NewFile::Symlink(target) => writer.symlink(dir, name, target, new),
            NewFile::Special(file_type, device) => writer.mknod(dir, name, file_type, device, new),
        };
        inode.map_err(|source| self.error(name, source))
    }

    /// The node of a name that was just made.
    pub(crate) fn node_of(&self, name: &BStr, inode: InodeNumber) -> Node {
        Node { inode, path: join(&self.node.path, name), ..self.node.clone() }
    }
}

/// Adds the path of a name in a directory to a driver's error.
pub(crate) fn child_error(dir: &Node, name: &BStr, source: vmcraft_fs::Error) -> Error {
    Error::Path { path: join(&dir.path, name), component: None, source }
}
