//! What holds an image's bytes: a file of the host, or a host's block device.
//!
//! A [`BlockDevice`](crate::BlockDevice) is a disk of fixed size, as the guest sees it. The file
//! under an image format grows as the guest writes, which is why it has a trait of its own.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek64};

use crate::Extent;
use crate::device::{check_extent_query, read_only};

/// The bytes under an image format, by offset. All offsets and sizes are in bytes.
pub trait Storage: Send + Sync {
    /// How long it is now.
    fn size(&self) -> io::Result<u64>;

    /// Reads into `buf` from `offset`; fewer bytes than asked for only at the end.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `buf` at `offset`, growing the file when it ends before that. A gap that this
    /// leaves reads as zeros.
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()>;

    /// Cuts the file off, or adds zeros, so that it is `size` long.
    fn resize(&self, size: u64) -> io::Result<()>;

    /// Makes a range that lies within the file read as zeros, giving the space back where the host
    /// can. `Unsupported` where it cannot.
    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()>;

    /// The run of data or hole that begins at `offset`, which is before the end. A host that cannot
    /// tell answers that all is data.
    fn extent_at(&self, offset: u64) -> io::Result<Extent>;

    /// Returns once all earlier writes would survive a power cut.
    fn flush(&self) -> io::Result<()>;

    /// Whether the writing methods are refused.
    fn is_read_only(&self) -> bool;
}

impl<S: Storage + ?Sized> Storage for Arc<S> {
    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        (**self).read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        (**self).write_at(offset, buf)
    }
    fn resize(&self, size: u64) -> io::Result<()> {
        (**self).resize(size)
    }
    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        (**self).punch_hole(offset, len)
    }
    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        (**self).extent_at(offset)
    }
    fn flush(&self) -> io::Result<()> {
        (**self).flush()
    }
    fn is_read_only(&self) -> bool {
        (**self).is_read_only()
    }
}

/// Fills `buf` from `offset`; what lies past the end of the storage is `UnexpectedEof`.
pub(crate) fn read_exact_at(storage: &dyn Storage, offset: u64, buf: &mut [u8]) -> io::Result<()> {
    let read = storage.read_at(offset, buf)?;
    if read < buf.len() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("the file ends at byte {:#x}", offset.saturating_add(read as u64)),
        ));
    }
    Ok(())
}

/// A regular file or a block device of the host.
pub struct HostFile {
    file: File,
    read_only: bool,
    /// The size of a block device, which `stat` does not tell; `None` for a regular file.
    device_size: Option<u64>,
    /// Cleared when the host's file system says that it knows no holes.
    knows_holes: AtomicBool,
}

impl HostFile {
    /// Takes an open file. `read_only` refuses writes whatever the file was opened for.
    pub fn new(file: File, read_only: bool) -> io::Result<Self> {
        let device_size = if file.metadata()?.file_type().is_block_device() {
            let end = lseek64(&file, 0, Whence::SeekEnd)?;
            Some(u64::try_from(end).map_err(io::Error::other)?)
        } else {
            None
        };
        Ok(Self { file, read_only, device_size, knows_holes: AtomicBool::new(true) })
    }

    /// Whether it is a block device of the host.
    pub fn is_block_device(&self) -> bool {
        self.device_size.is_some()
    }

    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.read_only { Err(read_only()) } else { Ok(()) }
    }

    /// Where data or a hole begins at or after `offset`; `None` if there is none up to the end.
    fn seek(&self, offset: u64, whence: Whence) -> io::Result<Option<u64>> {
        let offset = i64::try_from(offset).map_err(io::Error::other)?;
        match lseek64(&self.file, offset, whence) {
            Ok(found) => Ok(Some(u64::try_from(found).map_err(io::Error::other)?)),
            Err(Errno::ENXIO) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

impl Storage for HostFile {
    fn size(&self) -> io::Result<u64> {
        match self.device_size {
            Some(size) => Ok(size),
            None => Ok(self.file.metadata()?.len()),
        }
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        // No file is that long, and the host would call it an invalid argument.
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > i64::MAX as u64) {
            return Ok(0);
        }
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        self.file.write_all_at(buf, offset)
    }

    fn resize(&self, new_size: u64) -> io::Result<()> {
        self.check_writable()?;
        match self.device_size {
            Some(size) if new_size <= size => Ok(()),
            Some(size) => Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!("the host's block device has only {size} bytes"),
            )),
            None => self.file.set_len(new_size),
        }
    }

    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let (offset, len) =
            (i64::try_from(offset).map_err(io::Error::other)?, i64::try_from(len).map_err(io::Error::other)?);
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        Ok(fallocate(&self.file, flags, offset, len)?)
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        let len = self.size()?;
        check_extent_query(offset, len)?;
        let rest = Extent { offset, len: len - offset, is_hole: false };
        // A block device's size is one that SEEK_DATA knows as well, but only as a single extent.
        if self.device_size.is_some() || !self.knows_holes.load(Ordering::Relaxed) {
            return Ok(rest);
        }
        let data = match self.seek(offset, Whence::SeekData) {
            Ok(found) => found.unwrap_or(len).min(len),
            Err(_) => {
                self.knows_holes.store(false, Ordering::Relaxed);
                return Ok(rest);
            }
        };
        if data > offset {
            return Ok(Extent { offset, len: data - offset, is_hole: true });
        }
        let end = self.seek(offset, Whence::SeekHole)?.unwrap_or(len).clamp(offset + 1, len);
        Ok(Extent { offset, len: end - offset, is_hole: false })
    }

    fn flush(&self) -> io::Result<()> {
        if self.read_only { Ok(()) } else { self.file.sync_data() }
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }
}
