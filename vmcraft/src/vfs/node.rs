//! A place in the tree, and reading what is there.

use std::ops::ControlFlow;
use std::sync::Arc;

use bstr::BString;
use vmcraft_fs::{DirEntry, FileSystem, FileType, InodeNumber, Metadata, WriteFiles};

use super::{Mount, MountId};
use crate::{Error, Result};

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
    /// Whether its mount refuses changes.
    pub(crate) read_only: bool,
    /// Why its disk cannot be changed, if it cannot.
    pub(crate) refusal: Option<Arc<str>>,
}

impl Node {
    /// This inode of a mount.
    pub(crate) fn new(mount: &Mount, inode: InodeNumber, path: BString) -> Self {
        Self {
            mount: mount.id,
            filesystem: mount.filesystem.clone(),
            inode,
            path,
            read_only: mount.read_only,
            refusal: mount.refusal.clone(),
        }
    }

    /// The writing side of its file system, unless it is mounted read-only.
    pub fn writer(&self) -> Result<&dyn WriteFiles> {
        if self.read_only {
            return Err(self.error(vmcraft_fs::Error::ReadOnly("it is mounted read-only")));
        }
        if let Some(reason) = &self.refusal {
            return Err(Error::ReadOnlyDisk { what: self.path.to_string(), reason: reason.to_string() });
        }
        self.filesystem.writer().map_err(|source| self.error(source))
    }

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
        self.visit_entries(|entry| {
            entries.push((entry.name.to_owned(), entry.inode, entry.file_type));
            Ok(())
        })?;
        Ok(entries)
    }

    /// Shows each entry of a directory in the order of the disk, without `.` and `..`.
    pub fn visit_entries(&self, mut show: impl FnMut(DirEntry<'_>) -> Result<()>) -> Result<()> {
        let mut shown = Ok(());
        self.filesystem
            .read_dir(self.inode, 0, &mut |entry| {
                shown = show(entry);
                if shown.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .map_err(|source| self.error(source))?;
        shown
    }
}
