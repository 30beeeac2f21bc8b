//! Volumes that are encrypted where they are written ("encrypt on write"): bitmaps say which chunks are encrypted.
//!
//! There is no specification; the structures are as `dissect.fve` and images of Windows have them.

use std::io;
use std::sync::Arc;

use vmcraft_block::{BlockDevice, Discard, MapExtents, check_range};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::{Error, Result};

/// The most that the bitmaps of a volume may take together, in bytes: at 8 MiB a chunk, what 1 PiB needs.
const MAX_BITMAPS: usize = 16 << 20;
/// The most that one record may take, in bytes. Windows makes them of 512.
const MAX_RECORD: usize = 1 << 20;

/// The description on disk, little-endian. The places of the bitmaps follow, as many as fit into `size`.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawInformation {
    /// 0x00: `FVE-EOW` and a NUL.
    signature: [u8; 8],
    /// 0x08: of this header, in bytes.
    header_size: U16,
    /// 0x0a: with the places, in bytes.
    size: U16,
    kept_0c: [u8; 8],
    /// 0x14: what a bit stands for, in bytes.
    chunk_bytes: U32,
    /// 0x18: the size of each region's log of conversions, in bytes.
    log_bytes: U32,
    kept_1c: [u8; 8],
    /// 0x24: CRC-32 of `size` bytes, with this field zero.
    crc32: U32,
    kept_28: [u8; 16],
}
const _: () = assert!(size_of::<RawInformation>() == 56);

/// The description of a region on disk, little-endian.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawBitmap {
    /// 0x00: `FVE-EOWBM` and a NUL.
    signature: [u8; 10],
    header_size: U16,
    /// 0x0c: with the records, in bytes.
    size: U32,
    kept_10: U32,
    /// 0x14: what it describes, in bytes.
    region_start: U64,
    region_bytes: U64,
    /// 0x24: where its log of conversions is.
    log_start: U64,
    /// 0x2c: the records, in bytes from the start of this: the newest whole one counts.
    records: [U32; 2],
    /// 0x34: of each, in bytes.
    record_bytes: U32,
    crc32: U32,
}
const _: () = assert!(size_of::<RawBitmap>() == 60);

/// A record on disk, little-endian. The bitmap follows, from the lowest bit of its first byte on.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRecord {
    /// 0x00: `FVE-EOWBR` and a NUL.
    signature: [u8; 10],
    header_size: U16,
    /// 0x0c: with the bitmap, in bytes.
    size: U32,
    /// 0x10: in bits.
    bits: U32,
    /// 0x14: the larger is the newer.
    sequence: U64,
    kept_1c: U32,
    /// 0x20: CRC-32 of `size` bytes, with this field zero.
    crc32: U32,
}
const RECORD_HEADER: usize = size_of::<RawRecord>();
const _: () = assert!(RECORD_HEADER == 36);

/// What of a volume is encrypted.
pub(super) struct Eow {
    chunk_bytes: u64,
    /// In the order of the volume, apart from each other.
    regions: Vec<Region>,
    /// What the structures themselves take.
    reserved: Vec<(u64, u64)>,
}

struct Region {
    start: u64,
    end: u64,
    bitmap: Vec<u8>,
}

/// Reads what is encrypted, from the first of the two descriptions that is whole.
pub(super) fn read(device: &dyn BlockDevice, offsets: [u64; 2], sector: u32, size: u64) -> Result<Eow> {
    let mut faults = Vec::new();
    for offset in offsets {
        match read_copy(device, offset, offsets, u64::from(sector), size) {
            Err(error @ (Error::Corrupt { .. } | Error::Unsupported(_))) => faults.push(error.to_string()),
            other => return other,
        }
    }
    Err(Error::Corrupt {
        what: format!(
            "BitLocker's description of what is encrypted, of which no copy is whole ({})",
            faults.join("; ")
        ),
        offset: offsets[0],
    })
}

fn read_copy(
    device: &dyn BlockDevice,
    offset: u64,
    copies: [u64; 2],
    sector: u64,
    volume_bytes: u64,
) -> Result<Eow> {
    let corrupt = |what: &str, offset: u64| Error::Corrupt {
        what: format!("BitLocker's description of what is encrypted: {what}"),
        offset,
    };
    let bytes = read_at(device, offset, usize::from(u16::MAX))?;
    let raw = RawInformation::ref_from_prefix(&bytes).map_err(|_| corrupt("beyond the end", offset))?.0;
    let (header_size, size) = (usize::from(raw.header_size.get()), usize::from(raw.size.get()));
    if raw.signature != *b"FVE-EOW\0" || header_size != size_of::<RawInformation>() {
        return Err(corrupt("signature", offset));
    }
    let whole = bytes.get(..size).filter(|whole| whole.len() >= header_size);
    let whole = whole.ok_or_else(|| corrupt("size", offset))?;
    if checksum(whole, 0x24) != raw.crc32.get() {
        return Err(corrupt("checksum", offset));
    }
    let chunk_bytes = u64::from(raw.chunk_bytes.get());
    if chunk_bytes == 0 || !chunk_bytes.is_multiple_of(sector) {
        return Err(corrupt("size of a chunk", offset));
    }
    let log_bytes = u64::from(raw.log_bytes.get());
    let span =
        |start: u64, len: u64| Some((start, start.checked_add(len)?.checked_next_multiple_of(sector)?));
    let mut reserved = Vec::new();
    for copy in copies {
        reserved.push(span(copy, size as u64).ok_or_else(|| corrupt("its place", offset))?);
    }
    let mut regions: Vec<Region> = Vec::new();
    let mut total = 0;
    for place in whole[header_size..].chunks_exact(8) {
        let place = place.try_into().map_or(0, u64::from_le_bytes);
        let (raw, bitmap) = read_region(device, place, chunk_bytes)?;
        let start = raw.region_start.get();
        let end = start.checked_add(raw.region_bytes.get());
        let end = end.ok_or_else(|| corrupt("the end of a region", place))?;
        if start % sector != 0 || regions.last().is_some_and(|before| start < before.end) {
            return Err(corrupt("the order of the regions", place));
        }
        total += bitmap.len();
        if total > MAX_BITMAPS {
            return Err(Error::Unsupported(format!(
                "BitLocker's bitmaps of what is encrypted, with more than {MAX_BITMAPS} bytes"
            )));
        }
        let own = span(place, raw.size.get().into()).zip(span(raw.log_start.get(), log_bytes));
        let (bitmap_place, log_place) = own.ok_or_else(|| corrupt("the place of a bitmap or log", place))?;
        reserved.extend([bitmap_place, log_place]);
        regions.push(Region { start, end, bitmap });
    }
    reserved.retain(|(start, _)| *start < volume_bytes);
    Ok(Eow { chunk_bytes, regions, reserved })
}

/// Reads the description of a region and its newest bitmap.
fn read_region(device: &dyn BlockDevice, place: u64, chunk_bytes: u64) -> Result<(RawBitmap, Vec<u8>)> {
    let corrupt = |what: &str| Error::Corrupt {
        what: format!("BitLocker's bitmap of what is encrypted: {what}"),
        offset: place,
    };
    let bytes = read_at(device, place, size_of::<RawBitmap>())?;
    let raw = RawBitmap::read_from_bytes(&bytes).map_err(|_| corrupt("beyond the end"))?;
    if raw.signature != *b"FVE-EOWBM\0" || usize::from(raw.header_size.get()) != bytes.len() {
        return Err(corrupt("signature"));
    }
    // The checksum is over all in front of the records.
    let front = usize::try_from(raw.records[0].get()).ok().filter(|front| (60..=MAX_RECORD).contains(front));
    let front = read_at(device, place, front.ok_or_else(|| corrupt("place of the records"))?)?;
    if checksum(&front, 0x38) != raw.crc32.get() {
        return Err(corrupt("checksum"));
    }
    let record_bytes = usize::try_from(raw.record_bytes.get()).ok();
    let record_bytes = record_bytes.filter(|len| (RECORD_HEADER..=MAX_RECORD).contains(len));
    let record_bytes = record_bytes.ok_or_else(|| corrupt("size of the records"))?;
    let chunks = raw.region_bytes.get().div_ceil(chunk_bytes);
    let bitmap_len = usize::try_from(chunks.div_ceil(8)).map_err(|_| corrupt("size"))?;
    let mut newest: Option<(u64, Vec<u8>)> = None;
    for record in raw.records {
        let at = place.checked_add(record.get().into()).ok_or_else(|| corrupt("place of the records"))?;
        let bytes = read_at(device, at, record_bytes)?;
        let Ok((record, _)) = RawRecord::ref_from_prefix(&bytes) else { continue };
        let whole = usize::try_from(record.size.get()).ok().and_then(|size| bytes.get(..size));
        let Some(whole) = whole.filter(|_| record.signature == *b"FVE-EOWBR\0") else { continue };
        let Some(bitmap) = whole.get(RECORD_HEADER..).and_then(|bitmap| bitmap.get(..bitmap_len)) else {
            continue;
        };
        let is_whole = usize::from(record.header_size.get()) == RECORD_HEADER
            && checksum(whole, 0x20) == record.crc32.get()
            && u64::from(record.bits.get()) >= chunks;
        let sequence = record.sequence.get();
        if is_whole && newest.as_ref().is_none_or(|(newest, _)| *newest < sequence) {
            newest = Some((sequence, bitmap.to_vec()));
        }
    }
    let (_, bitmap) = newest.ok_or_else(|| corrupt("no record is whole"))?;
    Ok((raw, bitmap))
}

/// The `len` bytes at `offset`, or fewer where the device ends.
fn read_at(device: &dyn BlockDevice, offset: u64, len: usize) -> Result<Vec<u8>> {
    let left = device.size().saturating_sub(offset);
    let mut bytes = vec![0; usize::try_from(left).unwrap_or(len).min(len)];
    device.read_at(offset.min(device.size()), &mut bytes)?;
    Ok(bytes)
}

/// CRC-32 of bytes, with four zeros in the place of the checksum itself.
fn checksum(bytes: &[u8], at: usize) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes.get(..at).unwrap_or(bytes));
    hasher.update(&[0; 4]);
    hasher.update(bytes.get(at + 4..).unwrap_or_default());
    hasher.finalize()
}

impl Eow {
    /// What the structures themselves take, as ranges of bytes.
    pub(super) fn reserved(&self) -> &[(u64, u64)] {
        &self.reserved
    }

    /// Whether all of `volume_bytes` is encrypted but what is in front of the first region.
    pub(super) fn is_complete(&self, volume_bytes: u64) -> bool {
        let mut at = self.regions.first().map_or(0, |region| region.start);
        while at < volume_bytes {
            match self.run_at(at) {
                Some((true, end)) => at = end,
                _ => return false,
            }
        }
        true
    }

    /// Whether the byte at `offset` is encrypted, and where its chunk ends.
    fn run_at(&self, offset: u64) -> Option<(bool, u64)> {
        let region = self.regions.get(self.regions.partition_point(|region| region.end <= offset))?;
        let chunk = offset.checked_sub(region.start)? / self.chunk_bytes;
        let byte = region.bitmap.get(usize::try_from(chunk / 8).ok()?)?;
        let end = region.start.saturating_add((chunk + 1).saturating_mul(self.chunk_bytes)).min(region.end);
        Some((byte >> (chunk % 8) & 1 == 1, end))
    }
}

/// A volume of which a part is encrypted. It is not written: Windows may have begun to encrypt a chunk, and finishes
/// that from a log whose form is not known.
pub(super) struct Device {
    eow: Eow,
    decrypted: Arc<dyn BlockDevice>,
    plain: Arc<dyn BlockDevice>,
}

impl Device {
    pub(super) fn new(eow: Eow, decrypted: Arc<dyn BlockDevice>, plain: Arc<dyn BlockDevice>) -> Self {
        Self { eow, decrypted, plain }
    }
}

impl BlockDevice for Device {
    fn size(&self) -> u64 {
        self.decrypted.size()
    }
    fn read_at(&self, mut offset: u64, mut buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size(), "a read")?;
        while !buf.is_empty() {
            let Some((is_encrypted, end)) = self.eow.run_at(offset) else {
                let what = format!("BitLocker does not say whether byte {offset:#x} is encrypted");
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            };
            let len = usize::try_from(end - offset).unwrap_or(buf.len()).min(buf.len());
            let (part, rest) = buf.split_at_mut(len);
            if is_encrypted { &self.decrypted } else { &self.plain }.read_at(offset, part)?;
            offset += len as u64;
            buf = rest;
        }
        Ok(())
    }
    fn write_at(&self, _offset: u64, _buf: &[u8]) -> io::Result<()> {
        Err(io::Error::new(
            io::ErrorKind::ReadOnlyFilesystem,
            "the BitLocker volume is encrypted in part and read-only: let Windows finish its encryption first",
        ))
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn is_read_only(&self) -> bool {
        true
    }
    fn logical_sector_size(&self) -> u32 {
        self.decrypted.logical_sector_size()
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        None
    }
    fn discard(&self) -> Option<&dyn Discard> {
        None
    }
}
