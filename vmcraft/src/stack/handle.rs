//! A device whose inside can change while it is in use.

use std::io;
use std::sync::{Arc, RwLock, RwLockReadGuard};

use vmcraft_block::{BlockDevice, Discard, Extent, MapExtents};

/// Stands for a volume, or for a part of one, towards what is open on it: file systems and the volumes
/// above. What it leads to is put in anew whenever the stack is built again.
pub(crate) struct Handle {
    inner: RwLock<Inner>,
}

/// What a handle leads to, and the facts that are asked for often.
#[derive(Clone)]
struct Inner {
    device: Arc<dyn BlockDevice>,
    has_extents: bool,
    has_discard: bool,
}

impl Handle {
    pub(crate) fn new(device: Arc<dyn BlockDevice>) -> Self {
        Self { inner: RwLock::new(Inner::of(device)) }
    }

    /// Has it lead to another device.
    pub(crate) fn set(&self, device: Arc<dyn BlockDevice>) {
        *self.inner.write().unwrap_or_else(|e| e.into_inner()) = Inner::of(device);
    }

    fn get(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(|e| e.into_inner())
    }
}

impl Inner {
    fn of(device: Arc<dyn BlockDevice>) -> Self {
        let (has_extents, has_discard) = (device.extents().is_some(), device.discard().is_some());
        Self { device, has_extents, has_discard }
    }
}

impl BlockDevice for Handle {
    fn size(&self) -> u64 {
        self.get().device.size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.get().device.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.get().device.write_at(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        self.get().device.flush()
    }
    fn is_read_only(&self) -> bool {
        self.get().device.is_read_only()
    }
    fn logical_sector_size(&self) -> u32 {
        self.get().device.logical_sector_size()
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        self.get().has_extents.then_some(self)
    }
    fn discard(&self) -> Option<&dyn Discard> {
        self.get().has_discard.then_some(self)
    }
}

impl MapExtents for Handle {
    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        self.get().device.extents().ok_or(io::ErrorKind::Unsupported)?.extent_at(offset)
    }
}

impl Discard for Handle {
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.get().device.discard().ok_or(io::ErrorKind::Unsupported)?.discard(offset, len)
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        self.get().device.discard().ok_or(io::ErrorKind::Unsupported)?.write_zeroes(offset, len)
    }
}

/// What a handle leads to when its volume is not there any more.
pub(crate) struct Gone {
    pub(crate) name: String,
    pub(crate) size: u64,
}

impl Gone {
    fn error(&self) -> io::Error {
        io::Error::new(io::ErrorKind::NotFound, format!("{} is not there any more", self.name))
    }
}

impl BlockDevice for Gone {
    fn size(&self) -> u64 {
        self.size
    }
    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(self.error())
    }
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(self.error())
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
        None
    }
    fn discard(&self) -> Option<&dyn Discard> {
        None
    }
}
