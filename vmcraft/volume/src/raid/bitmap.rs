//! The write-intent bitmap: which parts of the array may differ between members.
//!
//! Each member has a copy. A bit that is set makes Linux bring that part up to date on a member that comes back.
//! LVM's RAID volumes have the same in the volumes with their metadata.
//!
//! Spec: Linux `drivers/md/md-bitmap.h`, `bitmap_super_t`: 256 bytes, little-endian, and the bits behind them.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use vmcraft_block::BlockDevice;
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Layout;

const SECTOR: u64 = 512;
const MAGIC: u32 = 0x6d74_6962; // "bitm"
/// 3 has the bits in the byte order of the host, which is ours but for machines that are rare; 5 is for clusters.
const VERSIONS: Range<u32> = 3..5;
const HEADER: u64 = 256;
/// How many bits are read: dm-raid has 2²¹ at most, and md no more than fit between superblock and data.
const MOST_BITS: u64 = 1 << 30;
const STATE_STALE: u32 = 2;

#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawBitmap {
    magic: U32,
    version: U32,
    uuid: [u8; 16],
    /// 0x18: not less than the array's, or the bitmap is out of date.
    events: U64,
    /// 0x20: the array's when bits were cleared last: members that have seen it need only what is set.
    events_cleared: U64,
    /// 0x28: in sectors: how much the bits are for.
    sync_size: U64,
    state: U32,
    /// 0x34: bytes for each bit.
    chunksize: U32,
    daemon_sleep: U32,
    write_behind: U32,
    sectors_reserved: U32,
    nodes: U32,
    cluster_name: [u8; 64],
    pad: [u8; 120],
}
const _: () = assert!(size_of::<RawBitmap>() == 256);

/// A bitmap with a copy on each of several members.
pub(crate) struct Bitmap {
    /// The members with the place of the bitmap on each.
    copies: Vec<(Arc<dyn BlockDevice>, u64)>,
    chunk: u64,
    bits: u64,
}

/// What a bitmap counts.
pub(crate) enum Unit {
    /// Bytes of the array.
    Array,
    /// Bytes of each member: this many for so many of the array.
    Stripes { member: u64, array: u64 },
}

impl Unit {
    /// What the bitmap of an array of `places` members counts.
    pub(crate) fn of(layout: Layout, chunk: u64, places: usize) -> Self {
        let parities = match layout {
            Layout::SingleParity(_) => 1,
            Layout::DoubleParity(_) => 2,
            _ => 0,
        };
        match places.saturating_sub(parities) as u64 {
            width if parities > 0 && width > 0 => {
                Self::Stripes { member: chunk, array: chunk.saturating_mul(width) }
            }
            _ => Self::Array,
        }
    }

    /// What a range of bytes of the array is in what the bitmap counts.
    pub(crate) fn range(&self, range: Range<u64>) -> Range<u64> {
        match *self {
            Self::Array => range,
            Self::Stripes { member, array } => {
                range.start / array * member..range.end.div_ceil(array).saturating_mul(member)
            }
        }
    }
}

impl Bitmap {
    /// The bitmap of the members, each with its place; `None` if it is not one that Linux would use: then it brings all
    /// of a member up to date anyway.
    pub(crate) fn read(copies: Vec<(Arc<dyn BlockDevice>, u64)>, events: u64) -> io::Result<Option<Self>> {
        let Some((device, offset)) = copies.first() else { return Ok(None) };
        let mut raw = RawBitmap::new_zeroed();
        device.read_at(*offset, raw.as_mut_bytes())?;
        let chunk = u64::from(raw.chunksize.get());
        let is_used = raw.magic.get() == MAGIC
            && VERSIONS.contains(&raw.version.get())
            && chunk >= SECTOR
            && chunk.is_power_of_two()
            && raw.state.get() & STATE_STALE == 0
            && raw.events.get() >= events;
        let Some(bytes) = raw.sync_size.get().checked_mul(SECTOR).filter(|_| is_used) else {
            return Ok(None);
        };
        let bits = bytes.div_ceil(chunk);
        if bits > MOST_BITS {
            return Ok(None);
        }
        let fits = copies.iter().all(|(device, offset)| {
            offset.checked_add(HEADER + bits.div_ceil(8)).is_some_and(|end| end <= device.size())
        });
        Ok(fits.then_some(Self { copies, chunk, bits }))
    }

    /// Says in all copies that they fit an array with so many events.
    pub(crate) fn set_events(&self, events: u64) -> io::Result<()> {
        self.copies.iter().try_for_each(|(device, offset)| {
            let mut raw = RawBitmap::new_zeroed();
            device.read_at(*offset, raw.as_mut_bytes())?;
            raw.events.set(events);
            device.write_at(*offset, raw.as_bytes())
        })
    }

    /// Whether a bit is set in any of the copies.
    pub(crate) fn has_marks(&self) -> io::Result<bool> {
        let bytes = self.bits.div_ceil(8);
        let mut buffer = [0; 4096];
        for (device, offset) in &self.copies {
            let mut at = 0;
            while at < bytes {
                let len = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(buffer.len());
                let piece = &mut buffer[..len];
                device.read_at(offset + HEADER + at, piece)?;
                at += len as u64;
                // The bits behind the last one may be set.
                if at == bytes
                    && let (Some(last), behind @ 1..) = (piece.last_mut(), bytes * 8 - self.bits)
                {
                    *last &= u8::MAX >> behind;
                }
                if piece.iter().any(|byte| *byte != 0) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Sets the bits for a range of bytes in all copies. One caller at a time.
    pub(crate) fn mark(&self, range: Range<u64>) -> io::Result<()> {
        let last = (range.end.saturating_sub(1) / self.chunk).min(self.bits.saturating_sub(1));
        let first = (range.start / self.chunk).min(last);
        if range.is_empty() || self.bits == 0 {
            return Ok(());
        }
        // A piece at a time, as there may be a bit for each sector written.
        const PIECE_BITS: u64 = 4096 * 8;
        let mut from = first;
        while from <= last {
            let to = last.min(from - from % PIECE_BITS + PIECE_BITS - 1);
            self.mark_piece(from, to)?;
            from = to + 1;
        }
        Ok(())
    }

    fn mark_piece(&self, first: u64, last: u64) -> io::Result<()> {
        #[allow(clippy::cast_possible_truncation)] // no more than 4096 bytes
        let mut bytes = vec![0; (last / 8 - first / 8 + 1) as usize];
        for (device, offset) in &self.copies {
            let place = offset + HEADER + first / 8;
            device.read_at(place, &mut bytes)?;
            let before = bytes.clone();
            for bit in first..=last {
                #[allow(clippy::cast_possible_truncation)]
                let index = (bit / 8 - first / 8) as usize;
                bytes[index] |= 1 << (bit % 8);
            }
            if bytes != before {
                device.write_at(place, &bytes)?;
            }
        }
        Ok(())
    }
}

/// How a new bitmap is laid out in `space` bytes, for `covered` bytes of the array or its members: the bytes for each
/// bit. As `mdadm` does: 64 MiB, or more if the bits would not fit.
fn chunk_for(space: u64, covered: u64) -> u64 {
    let max_bits = space.saturating_sub(HEADER) * 8;
    let mut chunk = 64 << 20;
    while covered.div_ceil(chunk) > max_bits && chunk < 1 << 31 {
        chunk *= 2;
    }
    chunk
}

/// The bytes of a new bitmap that fills `space` bytes: with all bits set, or none.
pub(crate) fn new_bytes(uuid: [u8; 16], space: usize, covered: u64, is_clean: bool) -> Vec<u8> {
    let mut raw = RawBitmap::new_zeroed();
    raw.magic.set(MAGIC);
    raw.version.set(4);
    raw.uuid = uuid;
    raw.sync_size.set(covered / SECTOR);
    raw.chunksize.set(u32::try_from(chunk_for(space as u64, covered)).unwrap_or(1 << 31));
    raw.daemon_sleep.set(5); // seconds, mdadm's default
    let mut bytes = vec![if is_clean { 0 } else { 0xff }; space];
    bytes[..256].copy_from_slice(raw.as_bytes());
    bytes
}
