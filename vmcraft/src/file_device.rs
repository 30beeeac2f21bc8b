//! A file of the guest as a block device, so that the file system inside can be mounted.

use std::io;

use vmcraft_block::{BlockDevice, Discard, Extent, MapExtents, check_extent_query, check_range};

use crate::Result;
use crate::content::next_data;
use crate::vfs::{FileReader, Node};

/// The bytes of a regular file, read-only.
pub(crate) struct FileDevice {
    node: Node,
    size: u64,
}

impl FileDevice {
    /// A device of the file's size.
    pub(crate) fn open(node: Node) -> Result<Self> {
        let node = FileReader::open(node)?.node().clone();
        let size = node.metadata()?.size_bytes;
        Ok(Self { node, size })
    }

    fn failed(&self, source: vmcraft_fs::Error) -> io::Error {
        io::Error::other(self.node.error(source))
    }
}

impl BlockDevice for FileDevice {
    fn size(&self) -> u64 {
        self.size
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size, "a read")?;
        let n =
            self.node.filesystem.read(self.node.inode, offset, buf).map_err(|source| self.failed(source))?;
        if n == buf.len() { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn is_read_only(&self) -> bool {
        true
    }
    fn logical_sector_size(&self) -> u32 {
        512
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        Some(self)
    }
    fn discard(&self) -> Option<&dyn Discard> {
        None
    }
}

impl MapExtents for FileDevice {
    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_extent_query(offset, self.size)?;
        let found = next_data(&*self.node.filesystem, self.node.inode, offset)
            .map_err(|source| self.failed(source))?;
        let (start, end) = found.unwrap_or((self.size, self.size));
        let (end, is_hole) = if start > offset { (start, true) } else { (end, false) };
        Ok(Extent { offset, len: end.min(self.size) - offset, is_hole })
    }
}
