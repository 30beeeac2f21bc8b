//! A file system in memory, so that what stands above the drivers is tested without a disk.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bstr::{BStr, BString, ByteSlice};
use vmcraft_fs::{
    DeviceNumber, DirEntry, Error, FileSystem, FileType, InodeNumber, Metadata, Result, StatFs, Timestamp,
    Visit, WriteFiles,
};

use crate::GuestPath;

/// What an inode of a [`MemoryFs`] holds.
#[derive(Debug, Clone)]
enum Content {
    File(Vec<u8>),
    Dir(BTreeMap<BString, usize>),
    Symlink(BString),
    Device(FileType, DeviceNumber),
}

#[derive(Debug, Clone)]
struct Inode {
    content: Content,
    parent: usize,
    permissions: u32,
    uid: u32,
    gid: u32,
    xattrs: Vec<(BString, Vec<u8>)>,
}

impl Inode {
    /// How many names a directory has for `inode`.
    fn names_of(&self, inode: InodeNumber) -> usize {
        match &self.content {
            Content::Dir(children) => children.values().filter(|child| number(**child) == inode).count(),
            _ => 0,
        }
    }
}

/// A file system in memory, built by one call for each file. Missing parents are made.
///
/// Inode numbers are given in the order of creation, from 1 for the root.
#[derive(Debug, Clone)]
pub(crate) struct MemoryFs {
    kind: &'static str,
    label: BString,
    uuid: String,
    inodes: Vec<Inode>,
}

impl Default for MemoryFs {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryFs {
    /// An empty ext4 without label and UUID.
    pub(crate) fn new() -> Self {
        let root = Inode {
            content: Content::Dir(BTreeMap::new()),
            parent: 0,
            permissions: 0o755,
            uid: 0,
            gid: 0,
            xattrs: Vec::new(),
        };
        Self { kind: "ext4", label: BString::default(), uuid: String::new(), inodes: vec![root] }
    }

    pub(crate) fn with_label(mut self, label: &str) -> Self {
        self.label = label.into();
        self
    }

    pub(crate) fn with_uuid(mut self, uuid: &str) -> Self {
        self.uuid = uuid.to_owned();
        self
    }

    /// A directory with mode 0755.
    pub(crate) fn dir(mut self, path: &str) -> Self {
        self.dir_at(GuestPath::new(path).components());
        self
    }

    /// A regular file with mode 0644.
    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.add(path, Content::File(content.as_ref().to_vec()), 0o644)
    }

    /// A symbolic link.
    pub(crate) fn symlink(self, path: &str, target: impl AsRef<[u8]>) -> Self {
        self.add(path, Content::Symlink(target.as_ref().into()), 0o777)
    }

    /// A device node, pipe or socket.
    pub(crate) fn special(self, path: &str, file_type: FileType, major: u32, minor: u32) -> Self {
        self.add(path, Content::Device(file_type, DeviceNumber { major, minor }), 0o600)
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
        self.inodes[index].permissions = permissions;
        self
    }

    /// Sets the owner of what is there.
    pub(crate) fn owner(mut self, path: &str, uid: u32, gid: u32) -> Self {
        let index = self.find(path);
        (self.inodes[index].uid, self.inodes[index].gid) = (uid, gid);
        self
    }

    /// Adds an extended attribute to what is there.
    pub(crate) fn xattr(mut self, path: &str, name: &str, value: &[u8]) -> Self {
        let index = self.find(path);
        self.inodes[index].xattrs.push((name.into(), value.to_vec()));
        self
    }

    fn add(mut self, path: &str, content: Content, permissions: u32) -> Self {
        let index = self.push(content, 0, permissions);
        self.link(path, index);
        self
    }

    fn push(&mut self, content: Content, parent: usize, permissions: u32) -> usize {
        self.inodes.push(Inode { content, parent, permissions, uid: 0, gid: 0, xattrs: Vec::new() });
        self.inodes.len() - 1
    }

    fn link(&mut self, path: &str, index: usize) {
        let mut names: Vec<_> = GuestPath::new(path).components().collect();
        let name = names.pop().expect("a path with a name");
        let dir = self.dir_at(names.into_iter());
        self.children(dir).insert(name.to_owned(), index);
    }

    fn dir_at<'a>(&mut self, names: impl Iterator<Item = &'a BStr>) -> usize {
        let mut dir = 0;
        for name in names {
            dir = match self.children(dir).get(name) {
                Some(child) => *child,
                None => {
                    let child = self.push(Content::Dir(BTreeMap::new()), dir, 0o755);
                    self.children(dir).insert(name.to_owned(), child);
                    child
                }
            };
        }
        dir
    }

    fn children(&mut self, dir: usize) -> &mut BTreeMap<BString, usize> {
        match &mut self.inodes[dir].content {
            Content::Dir(children) => children,
            other => panic!("not a directory: {other:?}"),
        }
    }

    fn find(&self, path: &str) -> usize {
        GuestPath::new(path).components().fold(0, |dir, name| match &self.inodes[dir].content {
            Content::Dir(children) => *children.get(name).unwrap_or_else(|| panic!("{path}: not there")),
            other => panic!("{path}: not a directory: {other:?}"),
        })
    }

    fn is_dir(&self, index: usize) -> bool {
        matches!(self.inodes[index].content, Content::Dir(_))
    }

    fn get(&self, inode: InodeNumber) -> Result<&Inode> {
        let index = usize::try_from(inode.0).ok().and_then(|number| number.checked_sub(1));
        index.and_then(|index| self.inodes.get(index)).ok_or(Error::NotFound)
    }
}

fn number(index: usize) -> InodeNumber {
    InodeNumber(index as u64 + 1)
}

impl FileSystem for MemoryFs {
    fn kind(&self) -> &'static str {
        self.kind
    }
    fn label(&self) -> BString {
        self.label.clone()
    }
    fn uuid(&self) -> String {
        self.uuid.clone()
    }
    fn root(&self) -> InodeNumber {
        number(0)
    }
    fn lookup(&self, dir: InodeNumber, name: &BStr) -> Result<InodeNumber> {
        match &self.get(dir)?.content {
            Content::Dir(children) => children.get(name).copied().map(number).ok_or(Error::NotFound),
            _ => Err(Error::NotADirectory),
        }
    }
    fn metadata(&self, inode: InodeNumber) -> Result<Metadata> {
        let found = self.get(inode)?;
        let (file_type, size_bytes, device) = match &found.content {
            Content::File(data) => (FileType::Regular, data.len() as u64, None),
            Content::Dir(_) => (FileType::Directory, 4096, None),
            Content::Symlink(target) => (FileType::Symlink, target.len() as u64, None),
            Content::Device(file_type, device) => (*file_type, 0, Some(*device)),
        };
        let links = match &found.content {
            Content::Dir(children) => 2 + children.values().filter(|child| self.is_dir(**child)).count(),
            _ => self.inodes.iter().map(|other| other.names_of(inode)).sum(),
        };
        let never = Timestamp::default();
        Ok(Metadata {
            inode,
            file_type,
            permissions: found.permissions,
            links: links as u64,
            uid: found.uid,
            gid: found.gid,
            device,
            size_bytes,
            blocks_512: size_bytes.div_ceil(4096) * 8,
            block_size: 4096,
            accessed: never,
            modified: never,
            changed: never,
            created: None,
        })
    }
    fn read(&self, inode: InodeNumber, offset: u64, buf: &mut [u8]) -> Result<usize> {
        match &self.get(inode)?.content {
            Content::File(data) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
                let n = buf.len().min(data.len() - start);
                buf[..n].copy_from_slice(&data[start..start + n]);
                Ok(n)
            }
            Content::Dir(_) => Err(Error::IsADirectory),
            _ => Err(Error::InvalidInput("not a regular file")),
        }
    }
    fn next_data(&self, inode: InodeNumber, offset: u64) -> Result<Option<(u64, u64)>> {
        match &self.get(inode)?.content {
            Content::File(data) if offset < data.len() as u64 => Ok(Some((offset, data.len() as u64))),
            Content::File(_) => Ok(None),
            Content::Dir(_) => Err(Error::IsADirectory),
            _ => Err(Error::InvalidInput("not a regular file")),
        }
    }
    fn read_dir(&self, dir: InodeNumber, cursor: u64, visit: &mut Visit<'_>) -> Result<()> {
        let Content::Dir(children) = &self.get(dir)?.content else { return Err(Error::NotADirectory) };
        let start = usize::try_from(cursor).unwrap_or(usize::MAX);
        for (position, (name, child)) in children.iter().enumerate().skip(start) {
            let inode = number(*child);
            let file_type = self.metadata(inode)?.file_type;
            let entry = DirEntry { inode, name: name.as_bstr(), file_type, next: position as u64 + 1 };
            if visit(entry) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }
    fn parent(&self, dir: InodeNumber) -> Result<InodeNumber> {
        Ok(number(self.get(dir)?.parent))
    }
    fn read_link(&self, inode: InodeNumber) -> Result<BString> {
        match &self.get(inode)?.content {
            Content::Symlink(target) => Ok(target.clone()),
            _ => Err(Error::InvalidInput("not a symbolic link")),
        }
    }
    fn xattrs(&self, inode: InodeNumber) -> Result<Vec<(BString, Vec<u8>)>> {
        Ok(self.get(inode)?.xattrs.clone())
    }
    fn flags(&self, _: InodeNumber) -> Result<u32> {
        Ok(0)
    }
    fn generation(&self, _: InodeNumber) -> Result<u32> {
        Ok(0)
    }
    fn writer(&self) -> Result<&dyn WriteFiles> {
        Err(Error::ReadOnly("a test double"))
    }
    fn statfs(&self) -> Result<StatFs> {
        let used = self.inodes.len() as u64;
        Ok(StatFs {
            block_size: 4096,
            blocks: 1 << 20,
            blocks_free: 1 << 19,
            blocks_available: 1 << 19,
            inodes: 1 << 16,
            inodes_free: (1_u64 << 16).saturating_sub(used),
            id: 0,
            name_max: 255,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{LastLink, Vfs};
    use std::sync::Arc;

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
