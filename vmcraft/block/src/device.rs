//! The device trait, and the two simplest devices: a slice of another and bytes in memory.

use std::io;
use std::sync::{Arc, RwLock};

/// Bytes by offset. All offsets and sizes are in bytes.
///
/// Implementations are positional and exact: there is no cursor, and a read or write either moves
/// all of the buffer or fails.
pub trait BlockDevice: Send + Sync {
    /// The size in bytes. It does not change while the device is open.
    fn size(&self) -> u64;

    /// Fills all of `buf` from `offset`. Reading past the end is an error, never a short read.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes all of `buf` at `offset`. A read-only device answers `ReadOnlyFilesystem`.
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()>;

    /// Returns once all earlier writes would survive a power cut.
    fn flush(&self) -> io::Result<()>;

    /// Whether `write_at` is refused.
    fn is_read_only(&self) -> bool;

    /// The smallest unit that the guest addresses, in bytes: 512 on all but 4Kn disks.
    fn logical_sector_size(&self) -> u32;

    /// The device's map of allocated extents, if it can tell them apart from holes.
    fn extents(&self) -> Option<&dyn MapExtents>;

    /// The device's means of giving space back, if it has any.
    fn discard(&self) -> Option<&dyn Discard>;
}

/// A run of bytes of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How long it is, in bytes; never 0.
    pub len: u64,
    /// Whether it reads as zeros and takes no space. `false` promises nothing about the content.
    pub is_hole: bool,
}

/// Devices that know which of their bytes are allocated.
pub trait MapExtents {
    /// The extent that begins at `offset`: `offset` itself up to where its kind changes, or a
    /// shorter piece of it. `offset` at or past the end is `InvalidInput`.
    fn extent_at(&self, offset: u64) -> io::Result<Extent>;
}

/// Devices that can give space back to what holds them.
pub trait Discard {
    /// Marks the range as not needed. What it reads as afterwards is zeros or the old content, and where it is
    /// encrypted, noise.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes the range read as zeros, giving the space back where that is possible.
    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()>;
}

impl<D: BlockDevice + ?Sized> BlockDevice for Arc<D> {
    fn size(&self) -> u64 {
        (**self).size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        (**self).write_at(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        (**self).flush()
    }
    fn is_read_only(&self) -> bool {
        (**self).is_read_only()
    }
    fn logical_sector_size(&self) -> u32 {
        (**self).logical_sector_size()
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        (**self).extents()
    }
    fn discard(&self) -> Option<&dyn Discard> {
        (**self).discard()
    }
}

/// Refuses a range that does not lie within `size` bytes. Every device calls it first.
pub fn check_range(offset: u64, len: u64, size: u64, what: &str) -> io::Result<()> {
    match offset.checked_add(len) {
        Some(end) if end <= size => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!(
                "{what} of {len} bytes at byte {offset:#x} is beyond the end of the device ({size} bytes)"
            ),
        )),
    }
}

/// Refuses to say what is at a place past the end. Every [`MapExtents`] calls it first.
pub fn check_extent_query(offset: u64, size: u64) -> io::Result<()> {
    if offset < size {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("an extent query at byte {offset:#x} is beyond the end of the device ({size} bytes)"),
    ))
}

/// The answer of a device that may not be written.
pub(crate) fn read_only() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the device is open read-only")
}

/// A part of another device, such as a partition.
pub struct Slice<D> {
    inner: D,
    start: u64,
    len: u64,
}

impl<D: BlockDevice> Slice<D> {
    /// The `len` bytes of `inner` from `start`. A range that is not wholly inside `inner` is
    /// refused with `UnexpectedEof`.
    pub fn new(inner: D, start: u64, len: u64) -> io::Result<Self> {
        check_range(start, len, inner.size(), "a slice")?;
        Ok(Self { inner, start, len })
    }
}

impl<D: BlockDevice> BlockDevice for Slice<D> {
    fn size(&self) -> u64 {
        self.len
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.len, "a read")?;
        self.inner.read_at(self.start + offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.len, "a write")?;
        self.inner.write_at(self.start + offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        self.inner.flush()
    }
    fn is_read_only(&self) -> bool {
        self.inner.is_read_only()
    }
    fn logical_sector_size(&self) -> u32 {
        self.inner.logical_sector_size()
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        self.inner.extents().map(|_| self as &dyn MapExtents)
    }
    fn discard(&self) -> Option<&dyn Discard> {
        self.inner.discard().map(|_| self as &dyn Discard)
    }
}

impl<D: BlockDevice> MapExtents for Slice<D> {
    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_extent_query(offset, self.len)?;
        let inner = self.inner.extents().ok_or(io::ErrorKind::Unsupported)?;
        let extent = inner.extent_at(self.start + offset)?;
        Ok(Extent { offset, len: extent.len.min(self.len - offset), is_hole: extent.is_hole })
    }
}

impl<D: BlockDevice> Discard for Slice<D> {
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.len, "a discard")?;
        self.inner.discard().ok_or(io::ErrorKind::Unsupported)?.discard(self.start + offset, len)
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.len, "a write of zeros")?;
        self.inner.discard().ok_or(io::ErrorKind::Unsupported)?.write_zeroes(self.start + offset, len)
    }
}

/// A device whose bytes are in memory: for small images, and for tests of what stands above.
pub struct MemoryDevice {
    bytes: RwLock<Vec<u8>>,
    size: u64,
    read_only: bool,
}

impl MemoryDevice {
    /// A writable device with these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { size: bytes.len() as u64, bytes: RwLock::new(bytes), read_only: false }
    }

    /// A read-only device with these bytes.
    pub fn read_only(bytes: Vec<u8>) -> Self {
        Self { read_only: true, ..Self::new(bytes) }
    }

    /// The bytes as they are now.
    pub fn into_bytes(self) -> Vec<u8> {
        // A poisoned lock means that a copy panicked, which the range check rules out.
        self.bytes.into_inner().unwrap_or_else(|e| e.into_inner())
    }

    fn range(&self, offset: u64, len: usize, what: &str) -> io::Result<std::ops::Range<usize>> {
        check_range(offset, len as u64, self.size, what)?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        Ok(start..start + len)
    }
}

impl BlockDevice for MemoryDevice {
    fn size(&self) -> u64 {
        self.size
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let range = self.range(offset, buf.len(), "a read")?;
        let bytes = self.bytes.read().unwrap_or_else(|e| e.into_inner());
        buf.copy_from_slice(&bytes[range]);
        Ok(())
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        if self.read_only {
            return Err(read_only());
        }
        let range = self.range(offset, buf.len(), "a write")?;
        let mut bytes = self.bytes.write().unwrap_or_else(|e| e.into_inner());
        bytes[range].copy_from_slice(buf);
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // A partition must not show a byte of its neighbours.
    fn slice_keeps_to_its_range() {
        let disk = MemoryDevice::new((0..=255).collect());
        let slice = Slice::new(disk, 16, 32).unwrap();
        let mut buf = [0; 4];
        slice.read_at(28, &mut buf).unwrap();
        assert_eq!(buf, [44, 45, 46, 47]);
        assert_eq!(slice.read_at(29, &mut buf).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(slice.write_at(u64::MAX, &buf).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let past = slice.extent_at(32).unwrap_err();
        assert_eq!(past.kind(), io::ErrorKind::InvalidInput, "{past}");
        assert!(Slice::new(slice, 16, 17).is_err());
    }
}
