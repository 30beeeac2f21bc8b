//! An image file in memory.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vmcraft_block::Extent;
use vmcraft_block::storage::Storage;

/// How large an image may grow: what writes beyond this has lost its bearings.
const LIMIT: u64 = 64 << 20;

/// Bytes as an image file.
pub struct Image(Mutex<Vec<u8>>);

impl Image {
    /// An image with this content.
    pub fn new(bytes: &[u8]) -> Self {
        Self(Mutex::new(bytes.to_vec()))
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grown(&self, end: Option<u64>) -> io::Result<MutexGuard<'_, Vec<u8>>> {
        let end = end.filter(|end| *end <= LIMIT).ok_or(io::ErrorKind::StorageFull)? as usize;
        let mut bytes = self.bytes();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        Ok(bytes)
    }
}

impl Storage for Image {
    fn size(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = self.bytes();
        let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let mut bytes = self.grown(offset.checked_add(buf.len() as u64))?;
        bytes[offset as usize..][..buf.len()].copy_from_slice(buf);
        Ok(())
    }
    fn resize(&self, size: u64) -> io::Result<()> {
        self.grown(Some(size))?.truncate(size as usize);
        Ok(())
    }
    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut bytes = self.bytes();
        let end = offset.checked_add(len).filter(|end| *end <= bytes.len() as u64);
        let end = end.ok_or(io::ErrorKind::InvalidInput)? as usize;
        bytes[offset as usize..end].fill(0);
        Ok(())
    }
    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        let len = (self.bytes().len() as u64).checked_sub(offset).filter(|len| *len > 0);
        Ok(Extent { offset, len: len.ok_or(io::ErrorKind::InvalidInput)?, is_hole: false })
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn is_read_only(&self) -> bool {
        false
    }
}
