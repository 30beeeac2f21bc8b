//! What comes before a write to an array that lacks members: it is recorded that they will be out of date.

use std::io;
use std::ops::Range;
use std::sync::Mutex;

use vmcraft_block::{BlockDevice, Discard, MapExtents, check_range};

use super::RaidDevice;
use super::bitmap::{Bitmap, Unit};
use super::geometry::Geometry;

/// The superblocks of the members that are there.
pub(crate) trait Superblocks: Send + Sync {
    /// Says in all of them that the others are missing, and are out of date from now on. Gives the event count
    /// that they have then.
    fn record(&self) -> io::Result<u64>;
}

/// What is done before each write.
pub(crate) struct Record {
    superblocks: Box<dyn Superblocks>,
    bitmap: Option<Bitmap>,
    unit: Unit,
    /// Whether the superblocks are written already. The lock also keeps writers of the bitmap apart.
    is_written: Mutex<bool>,
}

impl Record {
    /// The record of an array, in its superblocks before the first write, and in its bitmap, if it has one that is
    /// used, before each.
    pub(crate) fn new(
        superblocks: Box<dyn Superblocks>,
        bitmap: Option<Bitmap>,
        geometry: &Geometry,
    ) -> Self {
        let unit = Unit::of(geometry.layout, geometry.chunk_bytes, geometry.member_bytes.len());
        Self { superblocks, bitmap, unit, is_written: Mutex::new(false) }
    }

    /// Prepares the members for a write of this range of the array.
    fn before_write(&self, range: Range<u64>) -> io::Result<()> {
        let mut is_written = self.is_written.lock().unwrap_or_else(|e| e.into_inner());
        if !*is_written {
            let events = self.superblocks.record()?;
            self.bitmap.as_ref().map_or(Ok(()), |bitmap| bitmap.set_events(events))?;
            *is_written = true;
        }
        self.bitmap.as_ref().map_or(Ok(()), |bitmap| bitmap.mark(self.unit.range(range)))
    }
}

/// An array as it is given out: with what comes before a write, or why there is none.
pub(crate) struct Recorded {
    pub(crate) inner: RaidDevice,
    pub(crate) record: Option<Record>,
    pub(crate) refusal: Option<String>,
}

impl Recorded {
    /// What comes before a change of this range, which is none if it is empty.
    fn before_write(&self, offset: u64, len: u64, what: &str) -> io::Result<()> {
        if let Some(refusal) = &self.refusal {
            return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, refusal.clone()));
        }
        check_range(offset, len, self.size(), what)?;
        match &self.record {
            Some(record) if len > 0 && !self.inner.is_read_only() => {
                record.before_write(offset..offset + len)
            }
            _ => Ok(()),
        }
    }
}

impl BlockDevice for Recorded {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.before_write(offset, buf.len() as u64, "a write")?;
        self.inner.write_at(offset, buf)
    }

    fn flush(&self) -> io::Result<()> {
        self.inner.flush()
    }

    fn is_read_only(&self) -> bool {
        self.refusal.is_some() || self.inner.is_read_only()
    }

    fn logical_sector_size(&self) -> u32 {
        self.inner.logical_sector_size()
    }

    fn extents(&self) -> Option<&dyn MapExtents> {
        self.inner.extents()
    }

    fn discard(&self) -> Option<&dyn Discard> {
        BlockDevice::discard(&self.inner).filter(|_| self.refusal.is_none()).map(|_| self as &dyn Discard)
    }
}

impl Discard for Recorded {
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.before_write(offset, len, "a discard")?;
        BlockDevice::discard(&self.inner).ok_or(io::ErrorKind::Unsupported)?.discard(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        self.before_write(offset, len, "a write of zeros")?;
        BlockDevice::discard(&self.inner).ok_or(io::ErrorKind::Unsupported)?.write_zeroes(offset, len)
    }
}
