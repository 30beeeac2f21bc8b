//! Raw images: a file whose bytes are the disk's.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::device::{check_range, read_only};
use crate::{BlockDevice, Discard, MapExtents};

/// A raw image, or a block device of the host.
pub struct RawFile {
    file: File,
    size: u64,
    read_only: bool,
}

impl RawFile {
    /// The bytes of an open file.
    pub fn new(file: File, read_only: bool) -> io::Result<Self> {
        let size = file.metadata()?.len();
        Ok(Self { file, size, read_only })
    }
}

impl BlockDevice for RawFile {
    fn size(&self) -> u64 {
        self.size
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size, "a read")?;
        self.file.read_exact_at(buf, offset)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        if self.read_only {
            return Err(read_only());
        }
        check_range(offset, buf.len() as u64, self.size, "a write")?;
        self.file.write_all_at(buf, offset)
    }
    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn is_read_only(&self) -> bool {
        self.read_only
    }
    fn logical_sector_size(&self) -> u32 {
        512
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        None
    }
    fn discard(&self) -> Option<&dyn Discard> {
        None
    }
}
