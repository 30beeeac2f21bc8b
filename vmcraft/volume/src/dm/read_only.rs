//! A device that is not to be written.

use std::io;
use std::sync::Arc;

use vmcraft_block::{BlockDevice, Discard, MapExtents};

/// Shows a device, and refuses to write to it.
pub(crate) struct ReadOnly {
    inner: Arc<dyn BlockDevice>,
    why: String,
}

impl ReadOnly {
    /// `why` is what a write is answered with.
    pub(crate) fn new(inner: Arc<dyn BlockDevice>, why: impl Into<String>) -> Self {
        Self { inner, why: why.into() }
    }
}

impl BlockDevice for ReadOnly {
    fn size(&self) -> u64 {
        self.inner.size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buf)
    }
    fn write_at(&self, _offset: u64, _buf: &[u8]) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, self.why.clone()))
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn is_read_only(&self) -> bool {
        true
    }
    fn logical_sector_size(&self) -> u32 {
        self.inner.logical_sector_size()
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        self.inner.extents()
    }
    fn discard(&self) -> Option<&dyn Discard> {
        None
    }
}
