//! The tree below all mounts: directories in memory, made by `mkmountpoint`.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bstr::{BStr, BString, ByteSlice};
use vmcraft_fs::{DirEntry, FileSystem, FileType, InodeNumber, Metadata, StatFs, Visit, WriteFiles};

/// The file system that is there before any is mounted.
pub(super) struct MountpointTree {
    /// Each directory's parent and children; the index is its number, and the root is the first. A
    /// directory that was removed stays behind as an empty one that nothing leads to.
    dirs: Mutex<Vec<MountpointDir>>,
}

#[derive(Default)]
struct MountpointDir {
    parent: u64,
    children: BTreeMap<BString, u64>,
}

impl Default for MountpointTree {
    fn default() -> Self {
        Self { dirs: Mutex::new(vec![MountpointDir::default()]) }
    }
}

impl MountpointTree {
    fn with<T>(&self, dir: InodeNumber, f: impl FnOnce(&mut MountpointDir) -> T) -> vmcraft_fs::Result<T> {
        // A panic while the lock was held cannot have left a directory half changed.
        let mut dirs = self.dirs.lock().unwrap_or_else(|e| e.into_inner());
        let index = usize::try_from(dir.0).map_err(|_| vmcraft_fs::Error::NotFound)?;
        dirs.get_mut(index).map(f).ok_or(vmcraft_fs::Error::NotFound)
    }

    /// Makes a directory; `false` if the name is taken.
    pub(super) fn make(&self, parent: InodeNumber, name: &BStr) -> vmcraft_fs::Result<bool> {
        let mut dirs = self.dirs.lock().unwrap_or_else(|e| e.into_inner());
        let number = dirs.len() as u64;
        let children = usize::try_from(parent.0).ok().and_then(|index| dirs.get_mut(index));
        let children = &mut children.ok_or(vmcraft_fs::Error::NotFound)?.children;
        if children.contains_key(name) {
            return Ok(false);
        }
        children.insert(name.to_owned(), number);
        dirs.push(MountpointDir { parent: parent.0, children: BTreeMap::new() });
        Ok(true)
    }

    /// Takes a directory away; `false` if there are others in it.
    pub(super) fn remove(&self, parent: InodeNumber, name: &BStr) -> vmcraft_fs::Result<bool> {
        let number = self.lookup(parent, name)?;
        if self.with(number, |dir| !dir.children.is_empty())? {
            return Ok(false);
        }
        self.with(parent, |dir| dir.children.remove(name))?;
        Ok(true)
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
    fn flags(&self, _: InodeNumber) -> vmcraft_fs::Result<u32> {
        Ok(0)
    }
    fn generation(&self, _: InodeNumber) -> vmcraft_fs::Result<u32> {
        Ok(0)
    }
    fn writer(&self) -> vmcraft_fs::Result<&dyn WriteFiles> {
        Err(vmcraft_fs::Error::ReadOnly("mount points in memory are made with mkmountpoint"))
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
