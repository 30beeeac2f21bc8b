//! What the members must say before an array is written that lacks members, or is not all rebuilt.
//!
//! Linux takes a member into an array again if it has missed no more than one event. So before the first write the event
//! count of all that are there goes up by two, and their lists call the others failed. A member that is being
//! rebuilt is not written, so that its rebuilding has to begin again.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use vmcraft_block::{BlockDevice, check_range};
use zerocopy::{FromBytes, IntoBytes};

use super::bitmap::Bitmap;
use super::superblock::{Metadata, Role, Superblock};
use super::{v0, v1};
use crate::raid::Layout;

/// More than Linux forgives.
const EVENTS_MORE: u64 = 2;

/// A member whose superblock is to be kept up to date.
pub(super) struct Kept {
    pub(super) device: Arc<dyn BlockDevice>,
    pub(super) superblock: Superblock,
    /// Whether its content is not used yet, and not written.
    pub(super) is_incomplete: bool,
}

/// What is done before each write.
pub(super) struct Record {
    kept: Vec<Kept>,
    bitmap: Option<Bitmap>,
    /// What a write of the array is in the bytes that the bitmap counts.
    unit: Unit,
    /// Whether the superblocks are written already. The lock also keeps writers of the bitmap apart.
    is_written: Mutex<bool>,
}

/// What a bitmap counts.
enum Unit {
    /// Bytes of the array.
    Array,
    /// Bytes of each member: this many for so many of the array.
    Stripes { member: u64, array: u64 },
}

impl Record {
    /// The record of an array with these members that are there, `places` of them when complete.
    pub(super) fn new(kept: Vec<Kept>, layout: Layout, chunk: u64, places: usize) -> io::Result<Self> {
        let copies = kept
            .iter()
            .filter(|kept| matches!(kept.superblock.role(), Role::Active(_)))
            .filter_map(|kept| Some((kept.device.clone(), kept.superblock.bitmap?)))
            .collect();
        let events = kept.iter().map(|kept| kept.superblock.events).max().unwrap_or(0);
        let parities = match layout {
            Layout::SingleParity(_) => 1,
            Layout::DoubleParity(_) => 2,
            _ => 0,
        };
        let unit = match places.saturating_sub(parities) as u64 {
            width if parities > 0 && width > 0 => {
                Unit::Stripes { member: chunk, array: chunk.saturating_mul(width) }
            }
            _ => Unit::Array,
        };
        Ok(Self { bitmap: Bitmap::read(copies, events)?, kept, unit, is_written: Mutex::new(false) })
    }

    /// Prepares the members for a write of this range of the array.
    pub(super) fn before_write(&self, range: Range<u64>) -> io::Result<()> {
        let mut is_written = self.is_written.lock().unwrap_or_else(|e| e.into_inner());
        if !*is_written {
            self.write_superblocks()?;
            *is_written = true;
        }
        let Some(bitmap) = &self.bitmap else { return Ok(()) };
        bitmap.mark(match self.unit {
            Unit::Array => range,
            Unit::Stripes { member, array } => {
                range.start / array * member..range.end.div_ceil(array).saturating_mul(member)
            }
        })
    }

    fn write_superblocks(&self) -> io::Result<()> {
        let newest = self.kept.iter().map(|kept| kept.superblock.events).max().unwrap_or(0);
        let events =
            newest.checked_add(EVENTS_MORE).ok_or_else(|| io::Error::other("the event count overflows"))?;
        let there: BTreeSet<u32> = self.kept.iter().map(|kept| kept.superblock.number).collect();
        for kept in &self.kept {
            let bytes = match kept.superblock.metadata {
                Metadata::V0_90 => self.encode_v0(kept, events, &there),
                _ => self.encode_v1(kept, events, &there),
            };
            let bytes = bytes
                .ok_or_else(|| io::Error::other("a superblock of the array has no room for its members"))?;
            kept.device.write_at(kept.superblock.offset, &bytes)?;
        }
        self.bitmap.as_ref().map_or(Ok(()), |bitmap| bitmap.set_events(events))
    }

    fn encode_v1(&self, kept: &Kept, events: u64, there: &BTreeSet<u32>) -> Option<Vec<u8>> {
        let len = 256 + kept.superblock.roles.len() * 2;
        let mut bytes = kept.superblock.raw.get(..len)?.to_vec();
        let (raw, roles) = v1::RawSuperblock::mut_from_prefix(&mut bytes).ok()?;
        raw.events.set(events);
        if kept.is_incomplete {
            raw.feature_map.set(raw.feature_map.get() | v1::FEATURE_RECOVERY_OFFSET);
            raw.recovery_offset.set(0);
        }
        for (number, role) in (0u32..).zip(roles.chunks_exact_mut(2)) {
            let is_active = matches!(kept.superblock.role_of(number), Role::Active(_));
            if is_active && !there.contains(&number) {
                role.copy_from_slice(&v1::ROLE_FAULTY.to_le_bytes());
            }
        }
        let checksum = v1::checksum(&bytes, kept.superblock.roles.len());
        v1::RawSuperblock::mut_from_prefix(&mut bytes).ok()?.0.sb_csum.set(checksum);
        Some(bytes)
    }

    fn encode_v0(&self, kept: &Kept, events: u64, there: &BTreeSet<u32>) -> Option<Vec<u8>> {
        let mut raw = v0::RawSuperblock::read_from_bytes(&kept.superblock.raw).ok()?;
        let [low, high] = halves(events);
        // Where the resync stands is believed only if both counts are the same.
        if raw.cp_events_lo == raw.events_lo && raw.cp_events_hi == raw.events_hi {
            raw.cp_events_lo.set(low);
            raw.cp_events_hi.set(high);
        }
        raw.events_lo.set(low);
        raw.events_hi.set(high);
        for (number, disk) in (0u32..).zip(&mut raw.disks) {
            let is_active = matches!(kept.superblock.role_of(number), Role::Active(_));
            if is_active && !there.contains(&number) {
                disk.state.set(v0::DISK_FAULTY | v0::DISK_REMOVED);
                raw.active_disks.set(raw.active_disks.get().saturating_sub(1));
                raw.working_disks.set(raw.working_disks.get().saturating_sub(1));
                raw.failed_disks.set(raw.failed_disks.get().saturating_add(1));
            }
        }
        raw.sb_csum.set(v0::checksum(raw.as_bytes()));
        Some(raw.as_bytes().to_vec())
    }
}

/// A number's low and high 32 bits.
fn halves(number: u64) -> [u32; 2] {
    let bytes = number.to_le_bytes();
    let (halves, _) = bytes.as_chunks::<4>();
    [u32::from_le_bytes(halves[0]), u32::from_le_bytes(halves[1])]
}

/// An array as it is given out: with what comes before a write, or why there is none.
pub(super) struct MdDevice<D> {
    pub(super) inner: D,
    pub(super) record: Option<Record>,
    pub(super) refusal: Option<String>,
}

impl<D: BlockDevice> BlockDevice for MdDevice<D> {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buf)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        if let Some(refusal) = &self.refusal {
            return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, refusal.clone()));
        }
        check_range(offset, buf.len() as u64, self.size(), "a write")?;
        if let Some(record) = self.record.as_ref().filter(|_| !buf.is_empty() && !self.inner.is_read_only()) {
            record.before_write(offset..offset + buf.len() as u64)?;
        }
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

    fn extents(&self) -> Option<&dyn vmcraft_block::MapExtents> {
        self.inner.extents()
    }

    fn discard(&self) -> Option<&dyn vmcraft_block::Discard> {
        None
    }
}
