//! The files of one guest as inspection reads them: small, bounded, and never an error for what is
//! not there.

use std::cell::RefCell;
use std::io::{self, Read};
use std::ops::ControlFlow;

use bstr::{BStr, BString, ByteSlice};
use vmcraft_fs::{FileType, Metadata};

use crate::vfs::{LastLink, Node, Vfs};
use crate::{Error, GuestPath};

/// The longest configuration file that is read. Real ones have some kilobytes.
const MAX_TEXT: u64 = 1 << 20;

/// How many entries of a directory are looked at.
const MAX_ENTRIES: usize = 10_000;

/// How many remarks are kept of one guest.
const MAX_NOTES: usize = 50;

/// A guest's tree, and what was remarkable when it was read.
pub(crate) struct Tree {
    vfs: Vfs,
    notes: RefCell<Vec<String>>,
}

impl Tree {
    pub(crate) fn new(vfs: Vfs) -> Self {
        Self { vfs, notes: RefCell::default() }
    }

    /// Mounts a further file system of the guest; what goes wrong becomes a note.
    pub(crate) fn mount(
        &mut self,
        device: &str,
        filesystem: std::sync::Arc<dyn vmcraft_fs::FileSystem>,
        mountpoint: &BStr,
    ) {
        if let Err(e) = self.vfs.mount(device, filesystem, GuestPath::new(mountpoint), true) {
            self.note(format!("{device} could not be mounted on {mountpoint}: {e}"));
        }
    }

    /// Mounts a file system on a directory that need not be there.
    pub(crate) fn mount_below(
        &mut self,
        device: &str,
        filesystem: std::sync::Arc<dyn vmcraft_fs::FileSystem>,
        mountpoint: &str,
    ) {
        if let Err(e) = self.vfs.make_mountpoint(mountpoint.into()) {
            self.note(e.to_string());
        }
        self.mount(device, filesystem, mountpoint.into());
    }

    /// Keeps a remark for the report.
    pub(crate) fn note(&self, note: String) {
        let mut notes = self.notes.borrow_mut();
        if notes.len() < MAX_NOTES && !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// The remarks so far.
    pub(crate) fn into_notes(self) -> Vec<String> {
        self.notes.into_inner()
    }

    /// What a path leads to, links followed. Absence is no remark, damage is.
    pub(crate) fn node(&self, path: impl AsRef<[u8]>) -> Option<Node> {
        self.keep(self.vfs.resolve(GuestPath::new(path.as_ref()), LastLink::Follow))
    }

    fn keep<T>(&self, result: Result<T, Error>) -> Option<T> {
        result
            .map_err(|e| {
                if !e.is_not_found() {
                    self.note(e.to_string())
                }
            })
            .ok()
    }

    fn metadata(&self, path: impl AsRef<[u8]>) -> Option<Metadata> {
        let node = self.node(path)?;
        self.keep(node.metadata())
    }

    /// Whether a path leads to a regular file.
    pub(crate) fn is_file(&self, path: impl AsRef<[u8]>) -> bool {
        self.metadata(path).is_some_and(|metadata| metadata.file_type == FileType::Regular)
    }

    /// Whether a path leads to a directory.
    pub(crate) fn is_dir(&self, path: impl AsRef<[u8]>) -> bool {
        self.metadata(path).is_some_and(|metadata| metadata.is_dir())
    }

    /// The first of these paths that leads to a regular file.
    pub(crate) fn first_file<'a>(&self, paths: &[&'a str]) -> Option<&'a str> {
        paths.iter().find(|path| self.is_file(path)).copied()
    }

    /// The target of a symbolic link.
    pub(crate) fn link_target(&self, path: &str) -> Option<BString> {
        let node = self.keep(self.vfs.resolve(GuestPath::new(path), LastLink::Keep))?;
        node.filesystem.read_link(node.inode).ok()
    }

    /// The content of a small text file. One that is too long is as good as absent, with a note.
    pub(crate) fn read(&self, path: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        let path = path.as_ref();
        let node = self.node(path)?;
        let metadata = self.keep(node.metadata())?;
        if metadata.file_type != FileType::Regular {
            return None;
        }
        if metadata.size_bytes > MAX_TEXT {
            self.note(format!(
                "{} has {} bytes, more than such a file may have, and was ignored",
                path.as_bstr(),
                metadata.size_bytes
            ));
            return None;
        }
        self.keep(node.read_to_vec(MAX_TEXT))
    }

    /// The first line of a small text file that is neither blank nor a comment, as text.
    pub(crate) fn first_line(&self, path: &str) -> Option<String> {
        let content = self.read(path)?;
        let line = content.lines().map(ByteSlice::trim).find(|line| !line.is_empty() && line[0] != b'#')?;
        Some(line.to_str_lossy().into_owned())
    }

    /// The size of a regular file, in bytes.
    pub(crate) fn file_size(&self, path: impl AsRef<[u8]>) -> Option<u64> {
        let metadata = self.metadata(path)?;
        (metadata.file_type == FileType::Regular).then_some(metadata.size_bytes)
    }

    /// Up to `len` bytes of a regular file from byte `offset`.
    pub(crate) fn read_at(&self, path: impl AsRef<[u8]>, offset: u64, len: usize) -> Option<Vec<u8>> {
        let node = self.node(path)?;
        if self.keep(node.metadata())?.file_type != FileType::Regular {
            return None;
        }
        let mut content = vec![0; len];
        let n = node.filesystem.read(node.inode, offset, &mut content);
        let n = self.keep(n.map_err(|source| node.error(source)))?;
        content.truncate(n);
        Some(content)
    }

    /// The names in a directory, sorted; empty if there is no such directory.
    pub(crate) fn names(&self, path: impl AsRef<[u8]>) -> Vec<BString> {
        let Some(node) = self.node(path) else { return Vec::new() };
        let mut names = Vec::new();
        let listed = node.filesystem.read_dir(node.inode, 0, &mut |entry| {
            names.push(entry.name.to_owned());
            if names.len() < MAX_ENTRIES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        match listed {
            Ok(()) | Err(vmcraft_fs::Error::NotADirectory) => {}
            Err(source) => self.note(node.error(source).to_string()),
        }
        if names.len() == MAX_ENTRIES {
            self.note(format!("{}: only {MAX_ENTRIES} of its entries were looked at", node.path));
        }
        names.sort();
        names
    }
}

/// A regular file as a stream.
pub(crate) struct FileReader {
    node: Node,
    offset: u64,
}

impl FileReader {
    pub(crate) fn new(node: Node) -> Self {
        Self { node, offset: 0 }
    }
}

impl Read for FileReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self
            .node
            .filesystem
            .read(self.node.inode, self.offset, buf)
            .map_err(|source| io::Error::other(self.node.error(source)))?;
        self.offset += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryFs;
    use std::sync::Arc;

    #[test] // A guest must not make inspection read without end, nor stop it.
    fn odd_files_become_notes() {
        let fs = MemoryFs::new()
            .file("/huge", "x".repeat(1_048_577))
            .symlink("/loop", "loop")
            .special("/pipe", FileType::Fifo, 0, 0)
            .file("/name", b"\n# comment\n  box \xff\n");
        let tree = Tree::new(Vfs::with_root("/dev/sda", Arc::new(fs)));
        assert_eq!(tree.read("/huge"), None);
        assert_eq!(tree.read("/loop"), None);
        assert_eq!(tree.read("/pipe"), None);
        assert_eq!(tree.read("/none"), None);
        assert_eq!(tree.read("/name/below"), None);
        assert_eq!(tree.first_line("/name").unwrap(), "box \u{fffd}");
        let notes = tree.into_notes();
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].contains("/huge has 1048577 bytes"), "{notes:?}");
        assert!(notes[1].contains("symbolic links"), "{notes:?}");
    }
}
