//! Raw images: a file whose bytes are the disk's.

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::device::{check_extent_query, check_range, read_only};
use crate::storage::{HostFile, Storage};
use crate::{BlockDevice, Discard, Extent, MapExtents};

/// The disk's size is a multiple of this many bytes, as QEMU has it: a file that ends within a
/// sector is read as if zeros followed.
const SECTOR: u64 = 512;

/// How many bytes of zeros are written at a time where the host cannot punch holes.
const ZEROS: usize = 64 << 10;

/// A raw image, or a block device of the host.
pub struct RawFile {
    storage: Arc<dyn Storage>,
    size: u64,
    /// How long the file was when it was opened: up to one sector less than `size`.
    file_len: u64,
}

impl RawFile {
    /// The disk in an open file or block device.
    pub fn new(file: File, read_only: bool) -> io::Result<Self> {
        Self::over(Arc::new(HostFile::new(file, read_only)?))
    }

    /// The disk whose bytes are those of `storage`.
    pub fn over(storage: Arc<dyn Storage>) -> io::Result<Self> {
        let file_len = storage.size()?;
        let size = file_len
            .checked_next_multiple_of(SECTOR)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the file is too long for a disk"))?;
        Ok(Self { storage, size, file_len })
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.storage.is_read_only() { Err(read_only()) } else { Ok(()) }
    }
}

impl BlockDevice for RawFile {
    fn size(&self) -> u64 {
        self.size
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size, "a read")?;
        let end = offset + buf.len() as u64;
        let read = self.storage.read_at(offset, buf)?;
        if read < buf.len() {
            let reached = offset + read as u64;
            if reached < self.file_len.min(end) {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("the image became shorter while it was open: it ends at byte {reached:#x}"),
                ));
            }
            buf[read..].fill(0);
        }
        Ok(())
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        check_range(offset, buf.len() as u64, self.size, "a write")?;
        self.storage.write_at(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        self.storage.flush()
    }
    fn is_read_only(&self) -> bool {
        self.storage.is_read_only()
    }
    fn logical_sector_size(&self) -> u32 {
        512
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        Some(self)
    }
    fn discard(&self) -> Option<&dyn Discard> {
        Some(self)
    }
}

impl MapExtents for RawFile {
    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_extent_query(offset, self.size)?;
        // A write to the padded sector at the end has made the file longer.
        if offset >= self.storage.size()? {
            return Ok(Extent { offset, len: self.size - offset, is_hole: true });
        }
        let extent = self.storage.extent_at(offset)?;
        // A file that grew meanwhile has extents past the size that the disk was opened with.
        Ok(Extent { len: extent.len.min(self.size - offset), ..extent })
    }
}

impl Discard for RawFile {
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_writable()?;
        check_range(offset, len, self.size, "a discard")?;
        let len = (offset + len).min(self.storage.size()?).saturating_sub(offset);
        if len == 0 {
            return Ok(());
        }
        match self.storage.punch_hole(offset, len) {
            // The old content may stay.
            Err(e) if is_unsupported(&e) => Ok(()),
            done => done,
        }
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_writable()?;
        check_range(offset, len, self.size, "a write of zeros")?;
        let end = (offset + len).min(self.storage.size()?);
        let Some(len) = end.checked_sub(offset).filter(|len| *len > 0) else { return Ok(()) };
        match self.storage.punch_hole(offset, len) {
            Err(e) if is_unsupported(&e) => {}
            done => return done,
        }
        let zeros = vec![0; ZEROS];
        let mut at = offset;
        while at < end {
            let n = usize::try_from(end - at).unwrap_or(usize::MAX).min(ZEROS);
            self.storage.write_at(at, &zeros[..n])?;
            at += n as u64;
        }
        Ok(())
    }
}

/// Whether the host lacks an operation, as opposed to having failed at it.
pub(crate) fn is_unsupported(e: &io::Error) -> bool {
    // ENODEV and ENOTTY come from files that are neither regular nor block devices.
    matches!(e.kind(), io::ErrorKind::Unsupported) || matches!(e.raw_os_error(), Some(19 | 25 | 95))
}
