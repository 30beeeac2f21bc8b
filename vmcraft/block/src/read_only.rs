//! A device that is not to be written.

use std::io;
use std::sync::Arc;

use crate::device::{BlockDevice, Discard, MapExtents, read_only};

/// Shows a device, and refuses to write to it.
pub struct ReadOnly {
    inner: Arc<dyn BlockDevice>,
    why: Option<String>,
}

impl ReadOnly {
    /// The device, read-only because it was asked for so.
    pub fn new(inner: Arc<dyn BlockDevice>) -> Self {
        Self { inner, why: None }
    }

    /// The device, read-only for a reason: `why` is what a write is answered with.
    pub fn because(inner: Arc<dyn BlockDevice>, why: impl Into<String>) -> Self {
        Self { inner, why: Some(why.into()) }
    }
}

impl BlockDevice for ReadOnly {
    fn size(&self) -> u64 {
        self.inner.size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buf)
    }
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        match &self.why {
            Some(why) => Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, why.clone())),
            None => Err(read_only()),
        }
    }
    fn flush(&self) -> io::Result<()> {
        self.inner.flush()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryDevice;

    #[test]
    fn writes_are_refused_with_the_reason() {
        let memory = || Arc::new(MemoryDevice::new(vec![5; 4]));
        for (device, why) in [
            (ReadOnly::new(memory()), "read-only"),
            (ReadOnly::because(memory(), "a leg is missing"), "a leg"),
        ] {
            assert!(device.is_read_only() && device.discard().is_none());
            let error = device.write_at(0, &[1]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
            assert!(error.to_string().contains(why), "{error}");
            let mut bytes = [0; 4];
            device.read_at(0, &mut bytes).unwrap();
            assert_eq!(bytes, [5; 4]);
        }
    }
}
