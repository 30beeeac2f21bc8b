//! Reading the file system in memory.

use bstr::{BStr, BString, ByteSlice};
use vmcraft_fs::{
    DirEntry, Error, FileSystem, FileType, InodeNumber, Metadata, Result, StatFs, Visit, WriteFiles,
};

use super::MemoryFs;
use super::state::{BLOCK_BYTES, Content, number};

impl FileSystem for MemoryFs {
    fn kind(&self) -> &'static str {
        "ext4"
    }
    fn label(&self) -> BString {
        self.state().label.clone()
    }
    fn uuid(&self) -> String {
        self.state().uuid.clone()
    }
    fn root(&self) -> InodeNumber {
        number(0)
    }
    fn lookup(&self, dir: InodeNumber, name: &BStr) -> Result<InodeNumber> {
        self.state().children(dir)?.get(name).copied().map(number).ok_or(Error::NotFound)
    }
    fn metadata(&self, inode: InodeNumber) -> Result<Metadata> {
        let state = self.state();
        let found = state.get(inode)?;
        let (size_bytes, blocks, device) = match &found.content {
            Content::File(data) => (data.size, data.blocks.len() as u64, None),
            Content::Dir(_) => (4096, 1, None),
            Content::Symlink(target) => (target.len() as u64, (target.len() as u64).div_ceil(4096), None),
            Content::Special(_, device) => (0, 0, Some(*device)),
        };
        Ok(Metadata {
            inode,
            file_type: found.file_type(),
            permissions: found.permissions,
            links: found.links.into(),
            uid: found.uid,
            gid: found.gid,
            device,
            size_bytes,
            blocks_512: blocks * (BLOCK_BYTES / 512),
            block_size: BLOCK_BYTES as u32,
            accessed: found.accessed,
            modified: found.modified,
            changed: found.changed,
            created: None,
        })
    }
    fn read(&self, inode: InodeNumber, offset: u64, buf: &mut [u8]) -> Result<usize> {
        match &self.state().get(inode)?.content {
            Content::File(data) => Ok(data.read(offset, buf)),
            Content::Dir(_) => Err(Error::IsADirectory),
            _ => Err(Error::InvalidInput("not a regular file")),
        }
    }
    fn next_data(&self, inode: InodeNumber, offset: u64) -> Result<Option<(u64, u64)>> {
        match &self.state().get(inode)?.content {
            Content::File(data) => Ok(data.next_data(offset)),
            Content::Dir(_) => Err(Error::IsADirectory),
            _ => Err(Error::InvalidInput("not a regular file")),
        }
    }
    fn read_dir(&self, dir: InodeNumber, cursor: u64, visit: &mut Visit<'_>) -> Result<()> {
        // A copy: who is shown an entry may ask on.
        let start = usize::try_from(cursor).unwrap_or(usize::MAX);
        let state = self.state();
        let mut entries = Vec::new();
        for (position, (name, child)) in state.children(dir)?.iter().enumerate().skip(start) {
            let inode = number(*child);
            entries.push((position, name.clone(), inode, state.get(inode)?.file_type()));
        }
        drop(state);
        for (position, name, inode, file_type) in entries {
            let entry = DirEntry { inode, name: name.as_bstr(), file_type, next: position as u64 + 1 };
            if visit(entry).is_break() {
                break;
            }
        }
        Ok(())
    }
    fn parent(&self, dir: InodeNumber) -> Result<InodeNumber> {
        let state = self.state();
        let found = state.get(dir)?;
        if found.file_type() == FileType::Directory {
            Ok(number(found.parent))
        } else {
            Err(Error::NotADirectory)
        }
    }
    fn read_link(&self, inode: InodeNumber) -> Result<BString> {
        match &self.state().get(inode)?.content {
            Content::Symlink(target) => Ok(target.clone()),
            _ => Err(Error::InvalidInput("not a symbolic link")),
        }
    }
    fn xattrs(&self, inode: InodeNumber) -> Result<Vec<(BString, Vec<u8>)>> {
        Ok(self.state().get(inode)?.xattrs.clone())
    }
    fn flags(&self, inode: InodeNumber) -> Result<u32> {
        Ok(self.state().get(inode)?.flags)
    }
    fn generation(&self, inode: InodeNumber) -> Result<u32> {
        Ok(self.state().get(inode)?.generation)
    }
    fn writer(&self) -> Result<&dyn WriteFiles> {
        match self.read_only {
            Some(reason) => Err(Error::ReadOnly(reason)),
            None => Ok(self),
        }
    }
    fn statfs(&self) -> Result<StatFs> {
        let state = self.state();
        let blocks_free = self.limits.blocks.saturating_sub(state.blocks_used());
        Ok(StatFs {
            block_size: BLOCK_BYTES as u32,
            blocks: self.limits.blocks,
            blocks_free,
            blocks_available: blocks_free,
            inodes: self.limits.inodes as u64,
            inodes_free: self.limits.inodes.saturating_sub(state.inodes_used()) as u64,
            id: 0,
            name_max: 255,
        })
    }
}
