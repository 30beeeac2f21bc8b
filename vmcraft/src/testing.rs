//! A file system in memory, so that what stands above the drivers is tested without a disk.

#![allow(clippy::cast_possible_truncation, reason = "files in memory are small")]

mod read;
pub(crate) mod script;
mod state;
mod write;

use std::sync::{Arc, Mutex, MutexGuard};

use bstr::BStr;
use vmcraft_fs::{DeviceNumber, FileType, Sources};

use self::state::{Blocks, Content, Limits, State};
use crate::{Guest, GuestPath};

/// A file system in memory, built by one call for each file. Missing parents are made.
///
/// Inode numbers are given in the order of creation, from 1 for the root. It can be changed as a
/// driver's file system can, and stands for one in tests: what it does is what the kernel would.
#[derive(Debug)]
pub(crate) struct MemoryFs {
    state: Mutex<State>,
    /// What `reload` goes back to.
    synced: Mutex<Option<State>>,
    limits: Limits,
    sources: Sources,
    read_only: Option<&'static str>,
}

impl Default for MemoryFs {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryFs {
    /// An empty ext4 without label and UUID.
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State::new()),
            synced: Mutex::default(),
            limits: Limits::default(),
            sources: Sources::default(),
            read_only: None,
        }
    }

    pub(crate) fn with_label(mut self, label: &str) -> Self {
        self.state_mut().label = label.into();
        self
    }

    pub(crate) fn with_uuid(mut self, uuid: &str) -> Self {
        self.state_mut().uuid = uuid.to_owned();
        self
    }

    /// Takes the time from here.
    pub(crate) fn with_sources(mut self, sources: Sources) -> Self {
        self.sources = sources;
        self
    }

    /// Has so many blocks of 4096 bytes for the content of files.
    pub(crate) fn with_blocks(mut self, blocks: u64) -> Self {
        self.limits.blocks = blocks;
        self
    }

    /// Has at most so many inodes.
    pub(crate) fn with_inodes(mut self, inodes: usize) -> Self {
        self.limits.inodes = inodes;
        self
    }

    /// Gives no inode more names than this.
    pub(crate) fn with_links(mut self, links: u32) -> Self {
        self.limits.links = links;
        self
    }

    /// Refuses changes for this reason.
    pub(crate) fn read_only(mut self, reason: &'static str) -> Self {
        self.read_only = Some(reason);
        self
    }

    /// A handle with it mounted on the root, to be changed.
    pub(crate) fn guest(self) -> Guest {
        let mut guest = Guest::new();
        guest.vfs.mount("/dev/sda1", Arc::new(self), "/".into(), false).expect("it mounts");
        guest
    }

    /// A directory with mode 0755.
    pub(crate) fn dir(mut self, path: &str) -> Self {
        self.dir_at(GuestPath::new(path).components());
        self
    }

    /// A regular file with mode 0644.
    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.add(path, Content::File(Blocks::of(content.as_ref())), 0o644)
    }

    /// A symbolic link.
    pub(crate) fn symlink(self, path: &str, target: impl AsRef<[u8]>) -> Self {
        self.add(path, Content::Symlink(target.as_ref().into()), 0o777)
    }

    /// A device node, pipe or socket.
    pub(crate) fn special(self, path: &str, file_type: FileType, major: u32, minor: u32) -> Self {
        self.add(path, Content::Special(file_type, DeviceNumber { major, minor }), 0o600)
    }

    /// A further name for a file that is there.
    pub(crate) fn hard_link(mut self, path: &str, existing: &str) -> Self {
        let index = self.find(existing);
        self.link(path, index);
        self
    }

    /// Sets the permissions of what is there.
    pub(crate) fn mode(mut self, path: &str, permissions: u32) -> Self {
        let index = self.find(path);
        self.state_mut().at(index).permissions = permissions;
        self
    }

    /// Sets the owner of what is there.
    pub(crate) fn owner(mut self, path: &str, uid: u32, gid: u32) -> Self {
        let index = self.find(path);
        let inode = self.state_mut().at(index);
        (inode.uid, inode.gid) = (uid, gid);
        self
    }

    /// Adds an extended attribute to what is there.
    pub(crate) fn xattr(mut self, path: &str, name: &str, value: &[u8]) -> Self {
        let index = self.find(path);
        self.state_mut().at(index).xattrs.push((name.into(), value.to_vec()));
        self
    }

    fn add(mut self, path: &str, content: Content, permissions: u32) -> Self {
        let index = self.state_mut().push(content, 0, permissions);
        self.link(path, index);
        self
    }

    fn link(&mut self, path: &str, index: usize) {
        let mut names: Vec<_> = GuestPath::new(path).components().collect();
        let name = names.pop().expect("a path with a name");
        let dir = self.dir_at(names.into_iter());
        self.state_mut().add_name(dir, name, index);
    }

    fn dir_at<'a>(&mut self, names: impl Iterator<Item = &'a BStr>) -> usize {
        let state = self.state_mut();
        let mut dir = 0;
        for name in names {
            dir = match state.children_mut(dir).get(name) {
                Some(child) => *child,
                None => {
                    let child = state.push(Content::Dir(Default::default()), dir, 0o755);
                    state.add_name(dir, name, child);
                    child
                }
            };
        }
        dir
    }

    fn find(&mut self, path: &str) -> usize {
        let state = self.state_mut();
        GuestPath::new(path).components().fold(0, |dir, name| {
            *state.children_mut(dir).get(name).unwrap_or_else(|| panic!("{path}: not there"))
        })
    }

    fn state_mut(&mut self) -> &mut State {
        self.state.get_mut().expect("no test panicked here")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panicked here")
    }
}

#[cfg(test)]
mod tests {
    use vmcraft_fs::FileSystem;

    use super::*;
    use crate::vfs::{LastLink, Vfs};

    #[test] // The double must behave as a driver does, or what is tested with it is tested against nothing.
    fn memory_fs_answers_as_a_driver() {
        let fs = MemoryFs::new()
            .with_label("root")
            .with_uuid("0000-0001")
            .dir("/empty")
            .file("/a/b", "hello")
            .hard_link("/a/c", "/a/b")
            .symlink("/link", "a/../a/b")
            .special("/dev/sda", FileType::BlockDevice, 8, 0)
            .mode("/a/b", 0o600)
            .owner("/a/b", 1000, 100)
            .xattr("/a/b", "user.x", b"1");
        assert_eq!((fs.label(), fs.uuid()), ("root".into(), "0000-0001".into()));
        let vfs = Vfs::with_root("/dev/sda1", Arc::new(fs));
        let node = vfs.resolve("/link".into(), LastLink::Follow).unwrap();
        assert_eq!(node.read_to_vec(16).unwrap(), b"hello");
        let metadata = node.metadata().unwrap();
        assert_eq!((metadata.links, metadata.mode(), metadata.uid), (2, 0o100_600, 1000));
        let root = vfs.resolve("/".into(), LastLink::Follow).unwrap();
        assert_eq!(root.metadata().unwrap().links, 5);
        let names: Vec<_> = root.entries().unwrap().into_iter().map(|(name, _, _)| name).collect();
        assert_eq!(names, ["a", "dev", "empty", "link"]);
        assert_eq!(root.filesystem.read_link(node.inode).unwrap_err().errno(), 22);
        assert_eq!(vfs.resolve("/a/b/x".into(), LastLink::Follow).err().unwrap().errno(), 20);
    }
}
