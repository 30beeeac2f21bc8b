//! Mounts and path resolution: the one place that knows paths, symbolic links and mount points.
//!
//! The tree starts with a directory in memory, in which `mkmountpoint` makes directories; file
//! systems are mounted over it. Everything stays inside: an absolute link starts again at the
//! guest's root, and `..` of the root is the root.

use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use bstr::{BStr, BString, ByteSlice, ByteVec};
use vmcraft_fs::{DirEntry, FileSystem, FileType, InodeNumber, Metadata, StatFs, Visit};

use crate::{Error, GuestPath, Result};

/// How many symbolic links a path may lead through: Linux's MAXSYMLINKS.
const MAX_SYMLINKS: usize = 40;

/// The longest path, with all links expanded, that is followed.
const MAX_COMPONENTS: usize = 16 * 1024;

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
    covers: Option<(MountId, InodeNumber)>,
}

/// A place in the tree: an inode of a mounted file system, and the path that led to it.
#[derive(Clone)]
pub struct Node {
    /// The mount that it is in.
    pub mount: MountId,
    /// The file system that it is in.
    pub filesystem: Arc<dyn FileSystem>,
    /// Its number there.
    pub inode: InodeNumber,
    /// Its path without links, `.` and `..`.
    pub path: BString,
}

impl Node {
    /// What `stat` would say.
    pub fn metadata(&self) -> Result<Metadata> {
        self.filesystem.metadata(self.inode).map_err(|source| self.error(source))
    }

    /// Adds the path to a driver's error.
    pub fn error(&self, source: vmcraft_fs::Error) -> Error {
        Error::Path { path: self.path.clone(), component: None, source }
    }

    /// Reads a whole regular file of at most `limit` bytes.
    pub fn read_to_vec(&self, limit: u64) -> Result<Vec<u8>> {
        let metadata = self.metadata()?;
        match metadata.file_type {
            FileType::Regular => {}
            FileType::Directory => return Err(self.error(vmcraft_fs::Error::IsADirectory)),
            _ => return Err(self.error(vmcraft_fs::Error::InvalidInput("not a regular file"))),
        }
        if metadata.size_bytes > limit {
            return Err(Error::Usage(format!(
                "{}: the file has {} bytes, and at most {limit} are read into memory; use download",
                self.path, metadata.size_bytes
            )));
        }
        // The size is the file's own claim: memory is taken as data comes, not before.
        let mut content = Vec::new();
        loop {
            let start = content.len();
            let step = (metadata.size_bytes - start as u64).clamp(1, 1 << 20) as usize;
            content.resize(start + step, 0);
            let n = self
                .filesystem
                .read(self.inode, start as u64, &mut content[start..])
                .map_err(|source| self.error(source))?;
            content.truncate(start + n);
            if n == 0 || content.len() as u64 >= metadata.size_bytes {
                return Ok(content);
            }
        }
    }

    /// The entries of a directory in the order of the disk, without `.` and `..`.
    pub fn entries(&self) -> Result<Vec<(BString, InodeNumber, FileType)>> {
        let mut entries = Vec::new();
        self.filesystem
            .read_dir(self.inode, 0, &mut |entry| {
                entries.push((entry.name.to_owned(), entry.inode, entry.file_type));
                ControlFlow::Continue(())
            })
            .map_err(|source| self.error(source))?;
        Ok(entries)
    }
}

/// The tree of mounted file systems.
pub struct Vfs {
    mounts: Vec<Mount>,
    /// From a covered directory to the mount on top of it.
    over: HashMap<(MountId, InodeNumber), MountId>,
    next_id: u32,
    bottom: Arc<MountpointTree>,
}

impl Default for Vfs {
    fn default() -> Self {
        let bottom = Arc::new(MountpointTree::default());
        let mount = Mount {
            id: MountId(0),
            device: String::new(),
            mountpoint: "/".into(),
            filesystem: bottom.clone(),
            covers: None,
        };
        Self { mounts: vec![mount], over: HashMap::new(), next_id: 1, bottom }
    }
}

impl Vfs {
    /// A tree that is this file system alone: what inspection looks at.
    pub fn with_root(device: &str, filesystem: Arc<dyn FileSystem>) -> Self {
        let mut vfs = Self::default();
        let root = vfs.node(MountId(0), vfs.bottom.root(), BString::from("/"));
        vfs.mount_on(&root, device, filesystem);
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
    ) -> Result<()> {
        let node = self.resolve_any(mountpoint, LastLink::Follow)?;
        if !node.metadata()?.is_dir() {
            return Err(node.error(vmcraft_fs::Error::NotADirectory));
        }
        self.mount_on(&node, device, filesystem);
        Ok(())
    }

    fn mount_on(&mut self, node: &Node, device: &str, filesystem: Arc<dyn FileSystem>) {
        let id = MountId(self.next_id);
        self.next_id += 1;
        let covers = (node.mount, node.inode);
        self.over.insert(covers, id);
        self.mounts.push(Mount {
            id,
            device: device.to_owned(),
            mountpoint: node.path.clone(),
            filesystem,
            covers: Some(covers),
        });
    }

    /// Takes away the last mount that `matches`. Refused while another is mounted inside it.
    pub fn unmount(&mut self, what: &str, matches: impl Fn(&Mount) -> bool) -> Result<()> {
        let Some(index) = self.mounts.iter().skip(1).rposition(matches).map(|index| index + 1) else {
            return Err(Error::Usage(format!("{what}: not mounted")));
        };
        let id = self.mounts[index].id;
        if let Some(inner) = self.mounts.iter().find(|mount| mount.covers.is_some_and(|(on, _)| on == id)) {
            return Err(Error::Usage(format!(
                "{what}: busy: {} is mounted on {}; unmount that first",
                inner.device, inner.mountpoint
            )));
        }
        let mount = self.mounts.remove(index);
        if let Some(covers) = mount.covers {
            self.over.remove(&covers);
        }
        Ok(())
    }

    /// Takes away all mounts.
    pub fn unmount_all(&mut self) {
        self.mounts.truncate(1);
        self.over.clear();
    }

    /// Makes a directory that file systems can be mounted on, in memory.
    pub fn make_mountpoint(&mut self, path: &GuestPath) -> Result<()> {
        self.bottom.make(path)
    }

    /// Takes such a directory away again.
    pub fn remove_mountpoint(&mut self, path: &GuestPath) -> Result<()> {
        if let Some(mount) = self.mounts().iter().find(|mount| mount.mountpoint == path.as_bstr()) {
            return Err(Error::Usage(format!("{path}: busy: {} is mounted there", mount.device)));
        }
        self.bottom.remove(path)
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

    fn by_id(&self, id: MountId) -> &Mount {
        // Nodes do not outlive the borrow of the tree that made them, but a caller can keep a
        // clone over an unmount; the bottom tree then stands in.
        self.mounts.iter().find(|mount| mount.id == id).unwrap_or(&self.mounts[0])
    }

    fn node(&self, mount: MountId, inode: InodeNumber, path: BString) -> Node {
        Node { mount, filesystem: self.by_id(mount).filesystem.clone(), inode, path }
    }

    /// The node, or the root of what is mounted on it.
    fn enter(&self, mount: MountId, inode: InodeNumber, path: BString) -> Node {
        let (mount, inode) = self.place(self.by_id(mount), inode);
        Node { mount: mount.id, filesystem: mount.filesystem.clone(), inode, path }
    }

    fn resolve_any(&self, path: &GuestPath, last: LastLink) -> Result<Node> {
        if !path.is_absolute() {
            return Err(Error::Usage(format!("{path:?}: a path inside the guest must start with /")));
        }
        let whole = || path.as_bstr().to_owned();
        let at = |component: &BStr, source| Error::Path {
            path: whole(),
            component: (component != path.as_bstr()).then(|| component.to_owned()),
            source,
        };
        // A slash at the end asks for a directory, and so follows a link before it.
        let wants_dir = path.as_bstr().len() > 1 && path.as_bstr().ends_with(b"/");
        let mut stack = vec![self.enter(MountId(0), self.bottom.root(), "/".into())];
        let mut pending: Vec<BString> = path.components().rev().map(BString::from).collect();
        let mut links = 0;
        while let Some(name) = pending.pop() {
            // The stack always holds the root at its bottom.
            let here = &stack[stack.len() - 1];
            if name == ".." {
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            }
            let child = match here.filesystem.lookup(here.inode, name.as_bstr()) {
                Ok(inode) => self.enter(here.mount, inode, join(&here.path, name.as_bstr())),
                Err(source @ vmcraft_fs::Error::NotADirectory) => {
                    return Err(at(here.path.as_bstr(), source));
                }
                Err(source) => return Err(at(join(&here.path, name.as_bstr()).as_bstr(), source)),
            };
            let metadata =
                child.filesystem.metadata(child.inode).map_err(|source| at(child.path.as_bstr(), source))?;
            let is_last = pending.is_empty();
            if metadata.file_type == FileType::Symlink && (!is_last || wants_dir || last == LastLink::Follow)
            {
                links += 1;
                if links > MAX_SYMLINKS {
                    return Err(Error::TooManySymlinks(whole()));
                }
                let target = child
                    .filesystem
                    .read_link(child.inode)
                    .map_err(|source| at(child.path.as_bstr(), source))?;
                if target.is_empty() {
                    return Err(at(child.path.as_bstr(), vmcraft_fs::Error::NotFound));
                }
                let target = GuestPath::new(&target);
                if target.is_absolute() {
                    stack.truncate(1);
                }
                pending.extend(target.components().rev().map(BString::from));
                if pending.len() > MAX_COMPONENTS {
                    return Err(Error::TooManySymlinks(whole()));
                }
                continue;
            }
            if !metadata.is_dir() && (!is_last || wants_dir) {
                return Err(at(child.path.as_bstr(), vmcraft_fs::Error::NotADirectory));
            }
            stack.push(child);
        }
        // Nothing takes the root off the stack.
        Ok(stack.swap_remove(stack.len() - 1))
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

/// The tree below all mounts: directories in memory.
#[derive(Default)]
struct MountpointTree {
    /// Each directory's children; the index is its number, and number 0 is the root. A directory
    /// that was removed stays behind as an empty one that nothing leads to.
    dirs: Mutex<Vec<MountpointDir>>,
}

#[derive(Default)]
struct MountpointDir {
    parent: u64,
    children: BTreeMap<BString, u64>,
}

impl MountpointTree {
    fn with<T>(&self, dir: InodeNumber, f: impl FnOnce(&MountpointDir) -> T) -> vmcraft_fs::Result<T> {
        let mut dirs = self.dirs.lock().unwrap_or_else(|e| e.into_inner());
        if dirs.is_empty() {
            dirs.push(MountpointDir::default());
        }
        let index = usize::try_from(dir.0).map_err(|_| vmcraft_fs::Error::NotFound)?;
        dirs.get(index).map(f).ok_or(vmcraft_fs::Error::NotFound)
    }

    /// The directory that holds the last name of `path`, and that name.
    fn parent_of<'a>(&self, path: &'a GuestPath) -> Result<(u64, &'a BStr)> {
        let error = |source| Error::Path { path: path.as_bstr().to_owned(), component: None, source };
        if !path.is_absolute() {
            return Err(Error::Usage(format!("{path:?}: a mountpoint must start with /")));
        }
        let mut names: Vec<_> = path.components().collect();
        let last = names.pop().ok_or_else(|| Error::Usage(format!("{path}: the root is there already")))?;
        let mut dir = 0;
        for name in names {
            dir = self
                .with(InodeNumber(dir), |d| d.children.get(name).copied())
                .map_err(error)?
                .ok_or_else(|| error(vmcraft_fs::Error::NotFound))?;
        }
        Ok((dir, last))
    }

    fn make(&self, path: &GuestPath) -> Result<()> {
        let (parent, name) = self.parent_of(path)?;
        self.with(self.root(), |_| ()).map_err(|source| Error::Path {
            path: path.as_bstr().into(),
            component: None,
            source,
        })?;
        let mut dirs = self.dirs.lock().unwrap_or_else(|e| e.into_inner());
        let number = dirs.len() as u64;
        // `parent_of` found it, and directories are never taken out of the list.
        let children = &mut dirs[parent as usize].children;
        if children.contains_key(name) {
            return Err(Error::Usage(format!("{path}: the mountpoint exists already")));
        }
        children.insert(name.to_owned(), number);
        dirs.push(MountpointDir { parent, children: BTreeMap::new() });
        Ok(())
    }

    fn remove(&self, path: &GuestPath) -> Result<()> {
        let (parent, name) = self.parent_of(path)?;
        let mut dirs = self.dirs.lock().unwrap_or_else(|e| e.into_inner());
        let Some(number) = dirs[parent as usize].children.get(name).copied() else {
            return Err(Error::Path {
                path: path.as_bstr().into(),
                component: None,
                source: vmcraft_fs::Error::NotFound,
            });
        };
        if !dirs[number as usize].children.is_empty() {
            return Err(Error::Usage(format!("{path}: the mountpoint has others inside")));
        }
        dirs[parent as usize].children.remove(name);
        Ok(())
    }
}

impl FileSystem for MountpointTree {
    fn kind(&self) -> &'static str {
        "rootfs"
    }
    fn label(&self) -> BString {
        BString::default()
    }
    fn uuid(&self) -> String {
        String::new()
    }
    fn root(&self) -> InodeNumber {
        InodeNumber(0)
    }
    fn lookup(&self, dir: InodeNumber, name: &BStr) -> vmcraft_fs::Result<InodeNumber> {
        self.with(dir, |d| d.children.get(name).copied())?.map(InodeNumber).ok_or(vmcraft_fs::Error::NotFound)
    }
    fn metadata(&self, inode: InodeNumber) -> vmcraft_fs::Result<Metadata> {
        let children = self.with(inode, |d| d.children.len() as u64)?;
        let never = vmcraft_fs::Timestamp::default();
        Ok(Metadata {
            inode,
            file_type: FileType::Directory,
            permissions: 0o755,
            links: children + 2,
            uid: 0,
            gid: 0,
            device: None,
            size_bytes: 0,
            blocks_512: 0,
            block_size: 4096,
            accessed: never,
            modified: never,
            changed: never,
            created: None,
        })
    }
    fn read(&self, _: InodeNumber, _: u64, _: &mut [u8]) -> vmcraft_fs::Result<usize> {
        Err(vmcraft_fs::Error::IsADirectory)
    }
    fn next_data(&self, _: InodeNumber, _: u64) -> vmcraft_fs::Result<Option<(u64, u64)>> {
        Err(vmcraft_fs::Error::IsADirectory)
    }
    fn read_dir(&self, dir: InodeNumber, cursor: u64, visit: &mut Visit<'_>) -> vmcraft_fs::Result<()> {
        let children: Vec<_> = self.with(dir, |d| d.children.clone())?.into_iter().collect();
        for (index, (name, number)) in
            children.iter().enumerate().skip(usize::try_from(cursor).unwrap_or(usize::MAX))
        {
            let entry = DirEntry {
                inode: InodeNumber(*number),
                name: name.as_bstr(),
                file_type: FileType::Directory,
                next: index as u64 + 1,
            };
            if visit(entry).is_break() {
                break;
            }
        }
        Ok(())
    }
    fn parent(&self, dir: InodeNumber) -> vmcraft_fs::Result<InodeNumber> {
        self.with(dir, |d| InodeNumber(d.parent))
    }
    fn read_link(&self, _: InodeNumber) -> vmcraft_fs::Result<BString> {
        Err(vmcraft_fs::Error::InvalidInput("not a symbolic link"))
    }
    fn xattrs(&self, _: InodeNumber) -> vmcraft_fs::Result<Vec<(BString, Vec<u8>)>> {
        Ok(Vec::new())
    }
    fn statfs(&self) -> vmcraft_fs::Result<StatFs> {
        Ok(StatFs {
            block_size: 4096,
            blocks: 0,
            blocks_free: 0,
            blocks_available: 0,
            inodes: 0,
            inodes_free: 0,
            id: 0,
            name_max: 255,
        })
    }
}
