//! A file of the guest as a stream of bytes.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use vmcraft_fs::FileType;

use super::Node;
use crate::{Error, Result};

/// Reads a regular file from front to back. Nothing is kept in memory.
///
/// What goes wrong below comes out as an [`io::Error`] that holds an [`Error`];
/// [`Node::stream_error`] takes it out again.
pub struct FileReader {
    node: Node,
    position: u64,
    /// Ends the reading when set.
    cancel: Option<Arc<AtomicBool>>,
}

impl FileReader {
    /// A stream over a regular file; anything else is refused by its type.
    pub fn open(node: Node) -> Result<Self> {
        match node.metadata()?.file_type {
            FileType::Regular => Ok(Self { node, position: 0, cancel: None }),
            FileType::Directory => Err(node.error(vmcraft_fs::Error::IsADirectory)),
            _ => Err(node.error(vmcraft_fs::Error::InvalidInput("not a regular file"))),
        }
    }

    /// The same stream, which fails with [`Error::Cancelled`] once the flag is set.
    pub(crate) fn cancelled_by(mut self, flag: Arc<AtomicBool>) -> Self {
        self.cancel = Some(flag);
        self
    }

    /// The place that is read.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Goes on reading at this byte.
    pub fn seek_to(&mut self, position: u64) {
        self.position = position;
    }
}

impl Read for FileReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.cancel.as_ref().is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return Err(io::Error::other(Error::Cancelled));
        }
        let n = self
            .node
            .filesystem
            .read(self.node.inode, self.position, buf)
            .map_err(|source| io::Error::other(self.node.error(source)))?;
        self.position = self.position.saturating_add(n as u64);
        Ok(n)
    }
}

impl Node {
    /// What a stream over this file, or a decoder above it, failed with.
    pub fn stream_error(&self, error: io::Error) -> Error {
        match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => self.error(vmcraft_fs::Error::Io(error)),
        }
    }
}
