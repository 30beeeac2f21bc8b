//! Finding the further names of an inode while a tree is walked.

use std::collections::HashMap;

use bstr::{BStr, BString, ByteSlice};
use vmcraft_fs::InodeNumber;

use crate::vfs::MountId;
use crate::walk::Entry;

/// How many bytes of paths are kept. Further names are then taken for files of their own.
const KEPT_BYTES: usize = 64 << 20;

/// The longest path that is kept.
const PATH_BYTES: usize = 4096;

/// Where the first name of each inode with several was.
#[derive(Default)]
pub(crate) struct FirstNames {
    paths: HashMap<(MountId, InodeNumber), BString>,
    kept_bytes: usize,
}

impl FirstNames {
    /// The path that was noted for the same file.
    pub(crate) fn find(&self, entry: &Entry<'_>) -> Option<&BStr> {
        if entry.metadata.links < 2 || entry.metadata.is_dir() {
            return None;
        }
        self.paths.get(&(entry.mount.id, entry.inode)).map(|path| path.as_bstr())
    }

    /// Notes under which path the file was written.
    pub(crate) fn note(&mut self, entry: &Entry<'_>, path: &BStr) {
        if entry.metadata.links < 2
            || entry.metadata.is_dir()
            || path.len() > PATH_BYTES
            || self.kept_bytes + path.len() > KEPT_BYTES
        {
            return;
        }
        self.kept_bytes += path.len();
        self.paths.insert((entry.mount.id, entry.inode), path.to_owned());
    }
}
