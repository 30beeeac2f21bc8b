//! A file system double that is built inode by inode: any name for any inode, so also trees that no
//! honest file system would hold, holes, and inodes that cannot be read. Where the tree is honest,
//! [`MemoryFs`](crate::testing::MemoryFs) is shorter.

#![allow(clippy::cast_possible_truncation, reason = "trees in memory are small")]

use std::ops::ControlFlow;

use bstr::{BStr, BString, ByteSlice};
use vmcraft_fs::{
    DeviceNumber, DirEntry, Error, FileSystem, FileType, InodeNumber, Metadata, Result, StatFs, Timestamp,
    Visit, WriteFiles,
};

/// The tree; inode 1 is the root.
pub(crate) struct RawTree(Vec<RawInode>);

/// What an inode of it is.
#[derive(Default)]
pub(crate) struct RawInode {
    pub(crate) metadata: Option<Metadata>,
    pub(crate) entries: Vec<(BString, InodeNumber)>,
    pub(crate) content: Vec<u8>,
    /// Runs of data; the rest is holes. Empty means that there are no holes.
    pub(crate) data: Vec<(u64, u64)>,
    pub(crate) xattrs: Vec<(BString, Vec<u8>)>,
}

pub(crate) const ROOT: InodeNumber = InodeNumber(1);

impl RawTree {
    pub(crate) fn new() -> Self {
        let mut tree = Self(Vec::new());
        tree.make(FileType::Directory, 0o755, b"");
        tree
    }

    /// An inode without a name.
    pub(crate) fn make(&mut self, file_type: FileType, permissions: u32, content: &[u8]) -> InodeNumber {
        let inode = InodeNumber(self.0.len() as u64 + 1);
        let time = Timestamp { seconds: 1_700_000_000, nanoseconds: 0 };
        let metadata = Metadata {
            inode,
            file_type,
            permissions,
            links: 1,
            uid: 0,
            gid: 0,
            device: matches!(file_type, FileType::BlockDevice | FileType::CharDevice)
                .then_some(DeviceNumber { major: 8, minor: 1 }),
            size_bytes: content.len() as u64,
            blocks_512: content.len().div_ceil(512) as u64,
            block_size: 4096,
            accessed: time,
            modified: time,
            changed: time,
            created: None,
        };
        self.0.push(RawInode { metadata: Some(metadata), content: content.into(), ..RawInode::default() });
        inode
    }

    /// A name for an inode, whatever either is.
    pub(crate) fn link(&mut self, dir: InodeNumber, name: &[u8], inode: InodeNumber) {
        self.inode(dir).entries.push((name.into(), inode));
    }

    pub(crate) fn add(
        &mut self,
        dir: InodeNumber,
        name: &str,
        file_type: FileType,
        permissions: u32,
        content: &[u8],
    ) -> InodeNumber {
        let inode = self.make(file_type, permissions, content);
        self.link(dir, name.as_bytes(), inode);
        inode
    }

    pub(crate) fn dir(&mut self, dir: InodeNumber, name: &str) -> InodeNumber {
        self.add(dir, name, FileType::Directory, 0o755, b"")
    }

    pub(crate) fn file(&mut self, dir: InodeNumber, name: &str, content: &[u8]) -> InodeNumber {
        self.add(dir, name, FileType::Regular, 0o644, content)
    }

    pub(crate) fn inode(&mut self, inode: InodeNumber) -> &mut RawInode {
        &mut self.0[inode.0 as usize - 1]
    }

    pub(crate) fn metadata_mut(&mut self, inode: InodeNumber) -> &mut Metadata {
        self.inode(inode).metadata.as_mut().unwrap()
    }

    fn get(&self, inode: InodeNumber) -> Result<(&RawInode, Metadata)> {
        let found = usize::try_from(inode.0).ok().and_then(|number| self.0.get(number.wrapping_sub(1)));
        let found = found.ok_or(Error::NotFound)?;
        let corrupt = || Error::Corrupt { what: format!("inode {inode}"), offset: 0 };
        Ok((found, found.metadata.ok_or_else(corrupt)?))
    }
}

impl FileSystem for RawTree {
    fn kind(&self) -> &'static str {
        "test"
    }
    fn label(&self) -> BString {
        BString::default()
    }
    fn uuid(&self) -> String {
        String::new()
    }
    fn root(&self) -> InodeNumber {
        ROOT
    }
    fn lookup(&self, dir: InodeNumber, name: &BStr) -> Result<InodeNumber> {
        let (dir, metadata) = self.get(dir)?;
        if !metadata.is_dir() {
            return Err(Error::NotADirectory);
        }
        dir.entries.iter().find(|(n, _)| n == name).map(|(_, inode)| *inode).ok_or(Error::NotFound)
    }
    fn metadata(&self, inode: InodeNumber) -> Result<Metadata> {
        Ok(self.get(inode)?.1)
    }
    fn read(&self, inode: InodeNumber, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let (file, metadata) = self.get(inode)?;
        let len = metadata.size_bytes.saturating_sub(offset).min(buf.len() as u64) as usize;
        for (index, byte) in buf[..len].iter_mut().enumerate() {
            *byte = file.content.get(offset as usize + index).copied().unwrap_or(0);
        }
        Ok(len)
    }
    fn next_data(&self, inode: InodeNumber, offset: u64) -> Result<Option<(u64, u64)>> {
        let (file, metadata) = self.get(inode)?;
        if file.data.is_empty() {
            return Ok((offset < metadata.size_bytes).then_some((offset, metadata.size_bytes)));
        }
        Ok(file.data.iter().find(|(_, end)| *end > offset).map(|(start, end)| ((*start).max(offset), *end)))
    }
    fn read_dir(&self, dir: InodeNumber, cursor: u64, visit: &mut Visit<'_>) -> Result<()> {
        let (dir, metadata) = self.get(dir)?;
        if !metadata.is_dir() {
            return Err(Error::NotADirectory);
        }
        for (index, (name, inode)) in dir.entries.iter().enumerate().skip(cursor as usize) {
            let entry = DirEntry {
                inode: *inode,
                name: name.as_bstr(),
                file_type: FileType::Unknown,
                next: index as u64 + 1,
            };
            if let ControlFlow::Break(()) = visit(entry) {
                break;
            }
        }
        Ok(())
    }
    fn parent(&self, dir: InodeNumber) -> Result<InodeNumber> {
        let number = self.0.iter().position(|i| i.entries.iter().any(|(_, child)| *child == dir));
        Ok(number.map_or(ROOT, |index| InodeNumber(index as u64 + 1)))
    }
    fn read_link(&self, inode: InodeNumber) -> Result<BString> {
        let (link, metadata) = self.get(inode)?;
        if metadata.file_type != FileType::Symlink {
            return Err(Error::InvalidInput("not a symbolic link"));
        }
        Ok(link.content.as_slice().into())
    }
    fn xattrs(&self, inode: InodeNumber) -> Result<Vec<(BString, Vec<u8>)>> {
        Ok(self.get(inode)?.0.xattrs.clone())
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
        Ok(StatFs {
            block_size: 4096,
            blocks: 0,
            blocks_free: 0,
            blocks_available: 0,
            inodes: self.0.len() as u64,
            inodes_free: 0,
            id: 0,
            name_max: 255,
        })
    }
}
