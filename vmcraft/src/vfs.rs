//! Mounts and path resolution: the one place that knows paths, symbolic links and mount points.
//!
//! The tree starts with a directory in memory, in which `mkmountpoint` makes directories; file
//! systems are mounted over it. Everything stays inside: an absolute link starts again at the
//! guest's root, and `..` of the root is the root.

mod mountpoints;
mod node;
mod reader;
mod resolve;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bstr::{BStr, BString, ByteSlice, ByteVec};
use vmcraft_fs::{FileSystem, InodeNumber};

use self::mountpoints::MountpointTree;
pub use self::node::Node;
pub use self::reader::FileReader;
use crate::{Error, GuestPath, Result, device};

/// What to do with a symbolic link that a path ends in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastLink {
    /// Go where it leads.
    Follow,
    /// Stay on the link.
    Keep,
}

/// Identifies a mount while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MountId(u32);

impl MountId {
    /// A number that no other mount of the tree has.
    pub(crate) fn number(self) -> u32 {
        self.0
    }
}

/// A mounted file system.
#[derive(Clone)]
pub struct Mount {
    /// Which mount it is; never used again after it ended.
    pub id: MountId,
    /// The name of the device, as `mounts` shows it.
    pub device: String,
    /// The directory it is mounted on, resolved.
    pub mountpoint: BString,
    /// The open file system.
    pub filesystem: Arc<dyn FileSystem>,
    /// Whether it was mounted `ro`.
    pub read_only: bool,
    /// Why its disk cannot be changed, if it cannot.
    pub(crate) refusal: Option<Arc<str>>,
    covers: Option<(MountId, InodeNumber)>,
}

/// The tree of mounted file systems. A clone has the same file systems, mounted as they were when it
/// was made.
#[derive(Clone)]
pub struct Vfs {
    mounts: Vec<Mount>,
    /// From a covered directory to the mount on top of it.
    over: HashMap<(MountId, InodeNumber), MountId>,
    next_id: u32,
    bottom: Arc<MountpointTree>,
    /// The disks that cannot be changed, and why.
    refusals: Vec<(String, Arc<str>)>,
}

impl Default for Vfs {
    fn default() -> Self {
        let bottom: Arc<MountpointTree> = Arc::default();
        let mount = Mount {
            id: MountId(0),
            device: String::new(),
            mountpoint: "/".into(),
            filesystem: bottom.clone(),
            read_only: true,
            refusal: None,
            covers: None,
        };
        Self { mounts: vec![mount], over: HashMap::new(), next_id: 1, bottom, refusals: Vec::new() }
    }
}

impl Vfs {
    /// A tree that is this file system alone: what inspection looks at.
    pub fn with_root(device: &str, filesystem: Arc<dyn FileSystem>) -> Self {
        let mut vfs = Self::default();
        let bottom = vfs.bottom.clone();
        let root = Node {
            mount: MountId(0),
            inode: bottom.root(),
            filesystem: bottom,
            path: "/".into(),
            read_only: true,
            refusal: None,
        };
        vfs.mount_on(&root, device, filesystem, true);
        vfs
    }

    /// The mounts in the order that they were made.
    pub fn mounts(&self) -> &[Mount] {
        &self.mounts[1..]
    }

    /// Mounts an open file system on a directory.
    pub fn mount(
        &mut self,
        device: &str,
        filesystem: Arc<dyn FileSystem>,
        mountpoint: &GuestPath,
        read_only: bool,
    ) -> Result<()> {
        let node = self.resolve_any(mountpoint, LastLink::Follow)?;
        if !node.metadata()?.is_dir() {
            return Err(node.error(vmcraft_fs::Error::NotADirectory));
        }
        self.mount_on(&node, device, filesystem, read_only);
        Ok(())
    }

    fn mount_on(&mut self, node: &Node, device: &str, filesystem: Arc<dyn FileSystem>, read_only: bool) {
        let id = MountId(self.next_id);
        self.next_id += 1;
        let covers = (node.mount, node.inode);
        self.over.insert(covers, id);
        self.mounts.push(Mount {
            id,
            device: device.to_owned(),
            mountpoint: node.path.clone(),
            filesystem,
            read_only,
            refusal: self.refusal(device),
            covers: Some(covers),
        });
    }

    /// Takes away the last mount that `matches`. Refused while another is mounted inside it, unless
    /// those are to go `with_inner` ones.
    pub fn unmount(
        &mut self,
        what: impl std::fmt::Display,
        with_inner: bool,
        matches: impl Fn(&Mount) -> bool,
    ) -> Result<()> {
        let Some(mount) = self.mounts().iter().rfind(|mount| matches(mount)) else {
            return Err(Error::Usage(format!("{what}: not mounted")));
        };
        let mut going = vec![mount.id];
        // Mounts stand after those that they are mounted on.
        for inner in self.mounts() {
            if inner.covers.is_some_and(|(on, _)| going.contains(&on)) {
                if !with_inner {
                    return Err(Error::Usage(format!(
                        "{what}: busy: {} is mounted on {}; unmount that first",
                        inner.device, inner.mountpoint
                    )));
                }
                going.push(inner.id);
            }
        }
        self.mounts.retain(|mount| !going.contains(&mount.id));
        self.over.retain(|_, upper| !going.contains(upper));
        Ok(())
    }

    /// Takes away all mounts.
    pub fn unmount_all(&mut self) {
        self.mounts.truncate(1);
        self.over.clear();
    }

    /// Makes a directory that file systems can be mounted on, in memory.
    ///
    /// Its parent must be such a directory too, or the root before anything is mounted there: nothing
    /// is made inside a guest's file system.
    pub fn make_mountpoint(&mut self, path: &GuestPath) -> Result<()> {
        let (parent, name) = self.mountpoint_parent(path)?;
        match self.bottom.make(parent, name) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Usage(format!("{path}: the mountpoint exists already"))),
            Err(source) => Err(Error::Path { path: path.as_bstr().into(), component: None, source }),
        }
    }

    /// Takes such a directory away again.
    pub fn remove_mountpoint(&mut self, path: &GuestPath) -> Result<()> {
        let (parent, name) = self.mountpoint_parent(path)?;
        let at_path = |source| Error::Path { path: path.as_bstr().into(), component: None, source };
        let inode = self.bottom.lookup(parent, name).map_err(at_path)?;
        if let Some(mount) = self.mounts().iter().find(|mount| mount.covers == Some((MountId(0), inode))) {
            return Err(Error::Usage(format!("{path}: busy: {} is mounted there", mount.device)));
        }
        if !self.bottom.remove(parent, name).map_err(at_path)? {
            return Err(Error::Usage(format!("{path}: the mountpoint has others inside")));
        }
        Ok(())
    }

    /// The directory of the lowest tree that holds the last name of `path`, and that name.
    fn mountpoint_parent<'p>(&self, path: &'p GuestPath) -> Result<(InodeNumber, &'p BStr)> {
        if !path.is_absolute() {
            return Err(Error::Usage(format!("{path:?}: a mountpoint must start with /")));
        }
        let mut names: Vec<_> = path.components().collect();
        let last = names.pop().filter(|name| *name != "..");
        let last = last.ok_or_else(|| Error::Usage(format!("{path}: the directory is there already")))?;
        let parent = names.iter().fold(BString::from("/"), |parent, name| join(&parent, name));
        let parent = self.resolve_any(GuestPath::new(&parent), LastLink::Follow)?;
        if parent.mount != MountId(0) {
            return Err(Error::Unsupported(format!(
                "{path}: a mountpoint inside the file system on {}; make mountpoints before it is mounted, \
                 or directories in it with mkdir",
                self.mount_of(&parent).mountpoint
            )));
        }
        Ok((parent.inode, last))
    }

    /// Follows a path.
    pub fn resolve(&self, path: &GuestPath, last: LastLink) -> Result<Node> {
        if self.mounts.len() == 1 {
            return Err(Error::Usage(
                "no file system is mounted: use mount, or -i or -m on the command line".into(),
            ));
        }
        self.resolve_any(path, last)
    }

    /// The child `name` of a directory: a mount on it is entered, a link is not followed.
    pub fn child(&self, dir: &Node, name: &BStr) -> Result<Node> {
        let inode = dir.filesystem.lookup(dir.inode, name).map_err(|source| Error::Path {
            path: join(&dir.path, name),
            component: None,
            source,
        })?;
        Ok(self.enter(dir.mount, inode, join(&dir.path, name)))
    }

    /// The directory in which the last name of `path` stands or shall stand, and that name. A link
    /// there is not followed, and nothing need be there.
    pub fn resolve_parent(&self, path: &GuestPath) -> Result<(Node, BString)> {
        let mut names: Vec<_> = path.components().collect();
        let Some(last) = names.pop().filter(|name| *name != ".." && *name != ".") else {
            // Also for `/`, and for a path that is not absolute, which is refused as such.
            self.resolve(path, LastLink::Keep)?;
            return Err(Error::Path {
                path: path.as_bstr().into(),
                component: None,
                source: vmcraft_fs::Error::InvalidInput("the path ends in no name"),
            });
        };
        let whole = path.as_bstr();
        let end = whole.rfind(last).unwrap_or_default();
        // What the path failed at is told of the path that was asked for.
        let parent =
            self.resolve(GuestPath::new(&whole[..end]), LastLink::Follow).map_err(|error| match error {
                Error::Path { component: Some(component), source, .. } => {
                    Error::Path { path: whole.into(), component: Some(component), source }
                }
                Error::TooManySymlinks(_) => Error::TooManySymlinks(whole.into()),
                error => error,
            })?;
        if !parent.metadata()?.is_dir() {
            return Err(parent.error(vmcraft_fs::Error::NotADirectory));
        }
        Ok((parent, last.to_owned()))
    }

    /// Has what is mounted from a disk refuse changes for this reason, whatever its mount says.
    pub(crate) fn refuse_changes(&mut self, disk: String, reason: &str) {
        self.refusals.push((disk, reason.into()));
    }

    /// Has what is mounted from a device refuse changes if what it lies on does.
    pub(crate) fn refuse_changes_above(&mut self, below: &BTreeSet<String>, device: String) {
        let refused = self.refusals.iter().find(|(refused, _)| below.contains(refused));
        let reason = refused.map(|(_, reason)| reason.clone());
        self.refusals.retain(|(refused, _)| *refused != device);
        self.refusals.extend(reason.map(|reason| (device, reason)));
    }

    /// Why what is on a device cannot be changed, if that is so.
    pub(crate) fn refusal(&self, device: &str) -> Option<Arc<str>> {
        let disk = device::parse_disk_name(device).map(|(index, _)| device::disk_name(index));
        let is_refused = |refused: &String| refused == device || Some(refused) == disk.as_ref();
        self.refusals.iter().find(|(refused, _)| is_refused(refused)).map(|(_, reason)| reason.clone())
    }

    /// Changes whether a mount takes changes.
    pub fn set_read_only(&mut self, id: MountId, read_only: bool) {
        if let Some(mount) = self.mounts.iter_mut().find(|mount| mount.id == id) {
            mount.read_only = read_only;
        }
    }

    /// The mount that a node is in.
    pub fn mount_of(&self, node: &Node) -> &Mount {
        self.by_id(node.mount)
    }

    /// Where an inode leads: to itself, or to the root of what is mounted on it.
    pub fn place<'a>(&'a self, mount: &'a Mount, inode: InodeNumber) -> (&'a Mount, InodeNumber) {
        let (mut mount, mut inode) = (mount, inode);
        while let Some(upper) = self.over.get(&(mount.id, inode)) {
            mount = self.by_id(*upper);
            inode = mount.filesystem.root();
        }
        (mount, inode)
    }

    /// The directory that holds a directory: across the mount point if that is the root of a mount.
    /// Above the root of all is the root.
    pub fn parent<'a>(
        &'a self,
        mount: &'a Mount,
        dir: InodeNumber,
    ) -> vmcraft_fs::Result<(&'a Mount, InodeNumber)> {
        let (mut mount, mut dir) = (mount, dir);
        while dir == mount.filesystem.root() {
            let Some((below, covered)) = mount.covers else { return Ok((mount, dir)) };
            (mount, dir) = (self.by_id(below), covered);
        }
        let parent = mount.filesystem.parent(dir)?;
        Ok(self.place(mount, parent))
    }

    fn by_id(&self, id: MountId) -> &Mount {
        // Nodes do not outlive the borrow of the tree that made them, but a caller can keep a
        // clone over an unmount; the bottom tree then stands in.
        self.mounts.iter().find(|mount| mount.id == id).unwrap_or(&self.mounts[0])
    }

    /// The node, or the root of what is mounted on it.
    fn enter(&self, mount: MountId, inode: InodeNumber, path: BString) -> Node {
        let (mount, inode) = self.place(self.by_id(mount), inode);
        Node::new(mount, inode, path)
    }
}

/// `dir/name`.
pub fn join(dir: &[u8], name: &BStr) -> BString {
    let mut path = BString::from(dir);
    if !path.ends_with(b"/") {
        path.push_byte(b'/');
    }
    path.push_str(name);
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryFs;

    fn two_file_systems() -> Vfs {
        let root = MemoryFs::new().file("/srv/covered", "").symlink("/link", "srv").file("/here", "");
        let mut vfs = Vfs::with_root("/dev/sda1", Arc::new(root));
        let inner = MemoryFs::new().file("/inner", "").symlink("/back", "../here").dir("/deep");
        vfs.mount("/dev/sda2", Arc::new(inner), "/link".into(), true).unwrap();
        vfs
    }

    fn resolves(vfs: &Vfs, path: &str) -> bool {
        vfs.resolve(path.into(), LastLink::Follow).is_ok()
    }

    #[test] // Mounting on a link mounts on what it leads to, and covers what was there.
    fn paths_cross_mounts_both_ways() {
        let vfs = two_file_systems();
        assert_eq!(vfs.mounts()[1].mountpoint, "/srv");
        assert!(resolves(&vfs, "/srv/inner") && resolves(&vfs, "/link/inner"));
        assert!(!resolves(&vfs, "/srv/covered"));
        // `..` of the inner root, in a path and in a link.
        assert!(resolves(&vfs, "/srv/../here") && resolves(&vfs, "/srv/back"));
        let srv = vfs.resolve("/srv".into(), LastLink::Follow).unwrap();
        assert_eq!(vfs.mount_of(&srv).device, "/dev/sda2");
        assert_eq!(vfs.child(&srv, "inner".into()).unwrap().path, "/srv/inner");
    }

    #[test] // The last mount on a directory is on top, and comes off first.
    fn mounts_stack() {
        let mut vfs = two_file_systems();
        let third = MemoryFs::new().file("/third", "");
        vfs.mount("/dev/sda3", Arc::new(third), "/srv".into(), true).unwrap();
        assert!(resolves(&vfs, "/srv/third") && !resolves(&vfs, "/srv/inner"));
        // It stands on the second, not on the first.
        let busy = vfs.unmount("/dev/sda2", false, |mount| mount.device == "/dev/sda2").unwrap_err();
        assert!(busy.to_string().contains("busy: /dev/sda3 is mounted on /srv"), "{busy}");
        vfs.unmount("/srv", false, |mount| mount.mountpoint == "/srv").unwrap();
        assert!(resolves(&vfs, "/srv/inner"));
        vfs.unmount("/srv", false, |mount| mount.mountpoint == "/srv").unwrap();
        assert!(resolves(&vfs, "/srv/covered"));
        assert!(vfs.unmount("/srv", false, |mount| mount.mountpoint == "/srv").is_err());
    }

    #[test] // `lazyunmount` takes what is mounted inside along.
    fn inner_mounts_go_along() {
        let mut vfs = two_file_systems();
        vfs.mount("/dev/sda3", Arc::new(MemoryFs::new()), "/srv/deep".into(), true).unwrap();
        vfs.unmount("/", true, |mount| mount.mountpoint == "/").unwrap();
        assert!(vfs.mounts().is_empty());
        assert!(vfs.over.is_empty());
    }

    #[test] // What a file system is mounted on must be a directory.
    fn mountpoints_are_directories() {
        let mut vfs = two_file_systems();
        let mut refused = |path: &str| {
            vfs.mount("/dev/sda3", Arc::new(MemoryFs::new()), path.into(), true).unwrap_err().to_string()
        };
        assert_eq!(refused("/here"), "/here: not a directory");
        assert_eq!(refused("/none"), "/none: no such file or directory");
    }

    #[test]
    fn mountpoints_in_memory_come_and_go() {
        let mut vfs = Vfs::default();
        vfs.make_mountpoint("/a".into()).unwrap();
        vfs.make_mountpoint("/a/b".into()).unwrap();
        assert!(vfs.make_mountpoint("/a".into()).unwrap_err().to_string().contains("exists already"));
        assert_eq!(vfs.make_mountpoint("/x/y".into()).unwrap_err().errno(), 2);
        assert!(vfs.make_mountpoint("/a/..".into()).is_err());
        assert!(vfs.remove_mountpoint("/a".into()).unwrap_err().to_string().contains("others inside"));
        vfs.mount("/dev/sda1", Arc::new(MemoryFs::new().dir("/d")), "/a/b".into(), true).unwrap();
        assert!(resolves(&vfs, "/a/b/d"));
        assert!(vfs.remove_mountpoint("/a/b".into()).unwrap_err().to_string().contains("busy"));
        // Nothing is made inside the guest.
        assert_eq!(vfs.make_mountpoint("/a/b/c".into()).unwrap_err().errno(), 95);
        vfs.unmount_all();
        vfs.remove_mountpoint("/a/b".into()).unwrap();
        vfs.remove_mountpoint("/a".into()).unwrap();
        assert_eq!(vfs.remove_mountpoint("/a".into()).unwrap_err().errno(), 2);
    }

    #[test]
    fn nothing_resolves_before_the_first_mount() {
        let vfs = Vfs::default();
        let refused = vfs.resolve("/".into(), LastLink::Follow).err().unwrap();
        assert!(refused.to_string().contains("no file system is mounted"), "{refused}");
    }
}
