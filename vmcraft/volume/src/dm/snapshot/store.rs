//! A persistent exception store: the COW device of one snapshot.

use std::collections::BTreeMap;
use std::io;

use vmcraft_block::BlockDevice;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{Error, Member, Result};

const SECTOR: u64 = 512;
/// "SnAp", little-endian.
const MAGIC: u32 = 0x7041_6e53;
const VERSION: u32 = 1;
/// The first chunk is the header's.
const HEADER_CHUNKS: u64 = 1;
/// LVM makes chunks of 4 to 512 KiB.
const MAX_CHUNK_BYTES: u64 = 16 << 20;
/// How many runs of chunks are kept in memory; each takes about 40 bytes.
const MAX_RUNS: usize = 8 << 20;
/// The largest snapshot, 4 EiB: rounding up to chunks must not overflow.
const MAX_SNAPSHOT_BYTES: u64 = 1 << 62;
/// How much is copied at a time.
const COPY_BYTES: u64 = 1 << 20;

/// The header: the first 16 bytes of the device, little-endian.
///
/// Spec: Linux `drivers/md/dm-snap-persistent.c`, `struct disk_header`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    /// 0: [`MAGIC`], or 0 in a store that no kernel has used yet.
    magic: U32,
    /// 4: 0 once the snapshot has become invalid.
    valid: U32,
    /// 8: [`VERSION`].
    version: U32,
    /// 12: in sectors of 512 bytes; a power of two.
    chunk_size: U32,
}
const _: () = assert!(size_of::<RawHeader>() == 16);

/// An exception: a chunk of the origin that has a copy here. 16 bytes, little-endian.
///
/// Spec: `struct disk_exception`. All zeros end the list, as chunk 0 is the header's.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawException {
    /// 0: the chunk's number in the origin.
    old_chunk: U64,
    /// 8: the number of the chunk here that has its content.
    new_chunk: U64,
}
const EXCEPTION: u64 = size_of::<RawException>() as u64;
const _: () = assert!(EXCEPTION == 16);

/// What a COW device turned out to be.
pub(super) enum Opened {
    /// A store that can be read.
    Store(Box<Store>),
    /// One that its header says is lost.
    Invalid,
}

/// A store whose exceptions are in memory.
pub(super) struct Store {
    member: Member,
    chunk_bytes: u64,
    /// How many exceptions a metadata area (one chunk) holds.
    per_area: u64,
    /// By the first chunk of the origin: the first chunk here, and how many follow on both sides.
    runs: BTreeMap<u64, (u64, u64)>,
    /// The next chunk to give out; never one of metadata.
    next_free: u64,
    /// The area that new exceptions go to.
    area: u64,
    /// How many exceptions that area has.
    in_area: u64,
    /// Whether the header and the first area have yet to be written.
    is_new: bool,
}

/// Where a chunk's content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// At this byte of the COW device.
    Cow(u64),
    /// In the origin, at the same place.
    Origin,
}

/// Why nothing could be copied to the store.
#[derive(Debug)]
pub(super) enum CopyError {
    /// There is no chunk left.
    Full,
    /// A device failed.
    Io(io::Error),
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Store {
    /// Reads the header and all exceptions. `new_chunk_bytes` is the size of chunks in a store that
    /// has no header yet.
    pub(super) fn open(member: Member, new_chunk_bytes: u64, snapshot_bytes: u64) -> Result<Opened> {
        let device = &member.device;
        let mut header = [0; size_of::<RawHeader>()];
        if device.size() < SECTOR {
            return Err(Error::Incomplete(format!(
                "the COW device {} of a snapshot has only {} bytes",
                member.name,
                device.size()
            )));
        }
        device.read_at(0, &mut header)?;
        let raw = RawHeader::read_from_bytes(&header).map_err(|_| corrupt("snapshot header", 0))?;
        let is_new = raw.magic.get() == 0;
        let chunk_bytes = if is_new { new_chunk_bytes } else { u64::from(raw.chunk_size.get()) * SECTOR };
        if !is_new {
            if raw.magic.get() != MAGIC {
                return Err(corrupt("snapshot header (magic number)", 0));
            }
            if raw.version.get() != VERSION {
                return Err(Error::Unsupported(format!(
                    "version {} of the snapshot's exception store on {} (only version {VERSION} is known)",
                    raw.version.get(),
                    member.name
                )));
            }
            if raw.valid.get() == 0 {
                return Ok(Opened::Invalid);
            }
        }
        if !chunk_bytes.is_power_of_two() || chunk_bytes < SECTOR {
            return Err(corrupt("snapshot header (chunk size)", 12));
        }
        if snapshot_bytes > MAX_SNAPSHOT_BYTES {
            return Err(Error::Unsupported(format!(
                "the snapshot on {} has {snapshot_bytes} bytes (the limit is {MAX_SNAPSHOT_BYTES})",
                member.name
            )));
        }
        if chunk_bytes > MAX_CHUNK_BYTES {
            return Err(Error::Unsupported(format!(
                "the snapshot on {} has chunks of {chunk_bytes} bytes (the limit is {MAX_CHUNK_BYTES})",
                member.name
            )));
        }
        let mut store = Self {
            chunk_bytes,
            per_area: chunk_bytes / EXCEPTION,
            runs: BTreeMap::new(),
            next_free: HEADER_CHUNKS + 1,
            area: 0,
            in_area: 0,
            is_new,
            member,
        };
        if !is_new {
            store.read_exceptions(snapshot_bytes.div_ceil(chunk_bytes))?;
        }
        Ok(Opened::Store(Box::new(store)))
    }

    /// The name of the COW device.
    pub(super) fn name(&self) -> &str {
        &self.member.name
    }

    /// The COW device.
    pub(super) fn device(&self) -> &dyn BlockDevice {
        &*self.member.device
    }

    /// The size of a chunk in bytes.
    pub(super) fn chunk_bytes(&self) -> u64 {
        self.chunk_bytes
    }

    /// How many chunks are in use, those of metadata included, and how many there are.
    pub(super) fn usage(&self) -> (u64, u64) {
        (self.next_free.min(self.chunks()), self.chunks())
    }

    /// How many chunks are the header's or metadata.
    pub(super) fn metadata_chunks(&self) -> u64 {
        self.area.saturating_add(1 + HEADER_CHUNKS)
    }

    fn chunks(&self) -> u64 {
        self.device().size() / self.chunk_bytes
    }

    /// The chunk of a metadata area.
    fn area_chunk(&self, area: u64) -> Option<u64> {
        (self.per_area + 1).checked_mul(area)?.checked_add(HEADER_CHUNKS)
    }

    fn read_exceptions(&mut self, origin_chunks: u64) -> Result<()> {
        let mut area = vec![0; usize::try_from(self.chunk_bytes).map_err(io::Error::other)?];
        loop {
            // Past the last chunk there is no area: the store is full to the last entry.
            let Some(chunk) = self.area_chunk(self.area).filter(|chunk| *chunk < self.chunks()) else {
                return Ok(());
            };
            let start = chunk * self.chunk_bytes;
            self.device().read_at(start, &mut area)?;
            for (index, bytes) in area.chunks_exact(size_of::<RawException>()).enumerate() {
                let offset = start + index as u64 * EXCEPTION;
                let raw = RawException::read_from_bytes(bytes)
                    .map_err(|_| corrupt("snapshot exception", offset))?;
                let (old, new) = (raw.old_chunk.get(), raw.new_chunk.get());
                if new == 0 {
                    self.in_area = index as u64;
                    self.skip_metadata();
                    return Ok(());
                }
                if old >= origin_chunks {
                    return Err(corrupt("snapshot exception (chunk of the origin)", offset));
                }
                if new >= self.chunks() || self.is_metadata(new) {
                    return Err(corrupt("snapshot exception (chunk of the COW device)", offset + 8));
                }
                if !self.insert(old, new) {
                    return Err(corrupt("snapshot exception (a chunk has two copies)", offset));
                }
                if self.runs.len() > MAX_RUNS {
                    return Err(Error::Unsupported(format!(
                        "the snapshot on {} is in more than {MAX_RUNS} pieces",
                        self.name()
                    )));
                }
                self.next_free = self.next_free.max(new + 1);
            }
            self.area += 1;
        }
    }

    fn is_metadata(&self, chunk: u64) -> bool {
        chunk < HEADER_CHUNKS || chunk % (self.per_area + 1) == HEADER_CHUNKS
    }

    fn skip_metadata(&mut self) {
        if self.is_metadata(self.next_free) {
            self.next_free += 1;
        }
    }

    /// Notes an exception; `false` if the chunk has one already.
    fn insert(&mut self, old: u64, new: u64) -> bool {
        if let Some((start, (new_start, len))) = self.runs.range_mut(..=old).next_back() {
            if old - start < *len {
                return false;
            }
            if old - start == *len && new == *new_start + *len {
                *len += 1;
                return true;
            }
        }
        self.runs.insert(old, (new, 1)).is_none()
    }

    /// Where a byte of the snapshot is, and how many bytes from it on are in one piece.
    pub(super) fn find(&self, offset: u64) -> (Place, u64) {
        let (chunk, within) = (offset / self.chunk_bytes, offset % self.chunk_bytes);
        if let Some((start, (new, len))) = self.runs.range(..=chunk).next_back()
            && chunk - start < *len
        {
            let at = (new + (chunk - start)) * self.chunk_bytes + within;
            return (Place::Cow(at), (len - (chunk - start)) * self.chunk_bytes - within);
        }
        let len = match self.runs.range(chunk..).next() {
            Some((next, _)) => next.saturating_mul(self.chunk_bytes) - offset,
            None => u64::MAX - offset,
        };
        (Place::Origin, len)
    }

    /// Makes sure that all chunks of a range have a copy here, taking their content from `origin`,
    /// whose first `limit` bytes the snapshot has.
    pub(super) fn copy_out(
        &mut self,
        origin: &dyn BlockDevice,
        offset: u64,
        len: u64,
        limit: u64,
    ) -> Result<(), CopyError> {
        let end = offset.saturating_add(len).min(limit);
        let mut at = offset - offset % self.chunk_bytes;
        while at < end {
            match self.find(at) {
                (Place::Cow(_), len) => at = at.saturating_add(len),
                (Place::Origin, len) => {
                    let missing = len.min((end - at).div_ceil(self.chunk_bytes) * self.chunk_bytes);
                    at += self.copy_some(origin, at / self.chunk_bytes, missing / self.chunk_bytes, limit)?;
                }
            }
        }
        Ok(())
    }

    /// Copies some of `count` chunks that have no exception, and gives the number of bytes.
    fn copy_some(
        &mut self,
        origin: &dyn BlockDevice,
        chunk: u64,
        count: u64,
        limit: u64,
    ) -> Result<u64, CopyError> {
        let first = self.next_free;
        let until_metadata = self.per_area - (first - HEADER_CHUNKS - 1) % (self.per_area + 1);
        let count = count
            .min(self.per_area - self.in_area)
            .min(until_metadata)
            .min(self.chunks().saturating_sub(first))
            .min((COPY_BYTES / self.chunk_bytes).max(1));
        let fills_area = self.in_area + count == self.per_area;
        let next_area = self.area_chunk(self.area + 1).filter(|chunk| *chunk < self.chunks());
        let area = self.area_chunk(self.area).filter(|chunk| *chunk < self.chunks());
        let area = area.filter(|_| count > 0 && (!fills_area || next_area.is_some()));
        let Some(area) = area else { return Err(CopyError::Full) };
        let mut content = vec![0; usize::try_from(count * self.chunk_bytes).map_err(io::Error::other)?];
        let start = chunk * self.chunk_bytes;
        // The last chunk may reach beyond the end.
        let there = limit.min(origin.size()).saturating_sub(start).min(content.len() as u64);
        let there = usize::try_from(there).map_err(io::Error::other)?;
        origin.read_at(start, content.get_mut(..there).unwrap_or_default())?;
        self.device().write_at(first * self.chunk_bytes, &content)?;

        if self.is_new {
            self.write_header(true)?;
            self.zero_area(HEADER_CHUNKS)?;
            self.is_new = false;
        }
        if fills_area && let Some(next) = next_area {
            self.zero_area(next)?;
        }
        let entries: Vec<RawException> = (0..count)
            .map(|n| RawException { old_chunk: U64::new(chunk + n), new_chunk: U64::new(first + n) })
            .collect();
        self.device().write_at(area * self.chunk_bytes + self.in_area * EXCEPTION, entries.as_bytes())?;
        for n in 0..count {
            self.insert(chunk + n, first + n);
        }
        self.in_area += count;
        if fills_area {
            self.area += 1;
            self.in_area = 0;
        }
        self.next_free = first + count;
        self.skip_metadata();
        Ok(count * self.chunk_bytes)
    }

    /// Says in the header that the snapshot is lost, as Linux does when a store is full.
    pub(super) fn invalidate(&self) -> io::Result<()> {
        self.write_header(false)
    }

    fn write_header(&self, valid: bool) -> io::Result<()> {
        let mut header = vec![0; usize::try_from(self.chunk_bytes).map_err(io::Error::other)?];
        let raw = RawHeader {
            magic: U32::new(MAGIC),
            valid: U32::new(valid.into()),
            version: U32::new(VERSION),
            // At most 16 MiB in sectors.
            chunk_size: U32::new(u32::try_from(self.chunk_bytes / SECTOR).map_err(io::Error::other)?),
        };
        if let Some(start) = header.get_mut(..size_of::<RawHeader>()) {
            start.copy_from_slice(raw.as_bytes());
        }
        self.device().write_at(0, &header)
    }

    fn zero_area(&self, chunk: u64) -> io::Result<()> {
        let zeros = vec![0; usize::try_from(self.chunk_bytes).map_err(io::Error::other)?];
        self.device().write_at(chunk * self.chunk_bytes, &zeros)
    }
}

fn corrupt(what: &str, offset: u64) -> Error {
    Error::Corrupt { what: what.to_owned(), offset }
}
