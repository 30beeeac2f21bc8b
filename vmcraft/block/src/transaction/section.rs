//! A write set in a file: what a journal holds, and one commit of an undo file.
//!
//! A section begins with a [`RawHeader`], which is written last; then come pieces of content, then an
//! index. Everything is little-endian and has a CRC-32C: the header its own and that of the index, the
//! index one for each piece. So a section is complete and undamaged, or it is refused. `docs/transaction.md`
//! describes the file.

use std::fs::File;
use std::io;
use std::mem::offset_of;
use std::os::unix::fs::FileExt;

use uuid::Uuid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::before::Before;
use super::chunk::{CHUNK_LEN, GRANULE, GRANULE_LEN, runs};
use super::cleared::Clearing;
use super::identity::{FileIdentity, ImageIdentity};

/// How many bytes the header takes up in the file; after the header's own they are zeros.
pub(super) const HEADER: u64 = HEADER_LEN as u64;

/// [`HEADER`] as a length in memory.
pub(super) const HEADER_LEN: usize = 4096;

/// The most bytes of an index that are read: enough for 1 TiB of content in full chunks.
const MAX_INDEX: u64 = 1 << 30;

/// The most disks of a guest.
const MAX_DISKS: u32 = 1024;

/// The longest name of an image or format.
const MAX_NAME: u32 = 1 << 16;

const MAGIC: [u8; 8] = *b"VMCRAFT\n";
const VERSION: u32 = 2;

/// What a section is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// New content, to be written to the images.
    Journal = 1,
    /// Old content, to be put back.
    Undo = 2,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    version: U32,
    /// 1 for a journal, 2 for an undo file.
    kind: U32,
    /// Random; the pointers to a journal repeat it.
    id: [u8; 16],
    /// How long the section is, in bytes.
    len: U64,
    /// Where the index begins, from the start of the section.
    index_offset: U64,
    /// In bytes.
    index_len: U64,
    /// How many [`RawRange`]s the index has.
    ranges: U64,
    /// How many [`RawChunk`]s.
    chunks: U64,
    /// How many [`RawBefore`]s.
    before: U64,
    /// How many [`RawDisk`]s.
    disks: U32,
    /// The CRC-32C of the index.
    index_crc: U32,
    /// The CRC-32C of all that is before this field.
    header_crc: U32,
}

/// In the index, with the name and the format behind it.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawDisk {
    /// The disk's size in bytes.
    size: U64,
    /// The image's device and inode on the host, and when it was made, in nanoseconds; or zeros.
    device: U64,
    inode: U64,
    born: U64,
    /// In bytes.
    name_len: U32,
    format_len: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRange {
    disk: U32,
    /// 1 for discarded, 2 for zeros.
    kind: U32,
    /// In bytes of the disk.
    start: U64,
    len: U64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawChunk {
    disk: U32,
    /// The CRC-32C of the granules that are present, one behind the other.
    crc: U32,
    /// Which chunk of the disk.
    index: U64,
    /// Where its content is, from the start of the section: granule n at n times 512 bytes. 0 if it is
    /// zeros.
    offset: U64,
    /// Bit n of the 128 says that granule n is present.
    present: [U64; 2],
    /// In an undo file, the CRC-32C of what the granules hold after the commit.
    expected: U32,
    /// 1 says that what they hold after the commit is not certain.
    flags: U32,
}

/// In the index, with a CRC-32C for each granule behind it, in order, unless they are all zeros.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawBefore {
    disk: U32,
    /// 1 says that the granules were zeros.
    flags: U32,
    /// Which chunk of the disk.
    index: U64,
    /// Bit n of the 128 says that granule n is one of them.
    present: [U64; 2],
}

const _: () = assert!(size_of::<RawHeader>() == 92);
const _: () = assert!(offset_of!(RawHeader, header_crc) == 88);
const _: () = assert!(size_of::<RawDisk>() == 40);
const _: () = assert!(size_of::<RawRange>() == 24);
const _: () = assert!(size_of::<RawChunk>() == 48);
const _: () = assert!(size_of::<RawBefore>() == 32);

const UNCERTAIN: u32 = 1;
const ZEROS: u32 = 1;

/// A disk that a section is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SectionDisk {
    pub(super) image: ImageIdentity,
    /// In bytes.
    pub(super) size: u64,
}

/// A range of a disk that is cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    /// Its number among the section's disks.
    pub(super) disk: usize,
    pub(super) kind: Clearing,
    pub(super) start: u64,
    /// Exclusive.
    pub(super) end: u64,
}

/// Content of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Its number among the section's disks.
    pub(super) disk: usize,
    /// Which chunk of the disk.
    pub(super) index: u64,
    /// Which granules.
    pub(super) present: u128,
    /// Where they are, from the start of the section; `None` for zeros.
    pub(super) offset: Option<u64>,
    pub(super) crc: u32,
    /// The CRC of what is there after the commit; `None` if that is not certain.
    pub(super) expected: Option<u32>,
}

/// The index of a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Index {
    pub(super) id: [u8; 16],
    pub(super) disks: Vec<SectionDisk>,
    pub(super) ranges: Vec<Range>,
    pub(super) pieces: Vec<Piece>,
    /// In a journal, what there was before; by disk and chunk.
    pub(super) before: Vec<Before>,
}

impl Index {
    /// An empty one.
    pub(super) fn new() -> Self {
        Self {
            id: *Uuid::new_v4().as_bytes(),
            disks: Vec::new(),
            ranges: Vec::new(),
            pieces: Vec::new(),
            before: Vec::new(),
        }
    }

    /// Writes the index at byte `end` of a section that begins at byte `base` of the file, then the
    /// header. Gives the section's length. `before_header` is called in between; nothing is flushed
    /// otherwise.
    pub(super) fn write(
        &self,
        file: &File,
        kind: Kind,
        base: u64,
        end: u64,
        before_header: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<u64> {
        let mut bytes = Vec::new();
        for disk in &self.disks {
            let raw = RawDisk {
                size: disk.size.into(),
                device: disk.image.file.device.into(),
                inode: disk.image.file.inode.into(),
                born: disk.image.file.born.into(),
                name_len: length(disk.image.name.len())?,
                format_len: length(disk.image.format.len())?,
            };
            bytes.extend_from_slice(raw.as_bytes());
            bytes.extend_from_slice(&disk.image.name);
            bytes.extend_from_slice(disk.image.format.as_bytes());
        }
        for range in &self.ranges {
            let raw = RawRange {
                disk: length(range.disk)?,
                kind: if range.kind == Clearing::Discard { 1.into() } else { 2.into() },
                start: range.start.into(),
                len: (range.end - range.start).into(),
            };
            bytes.extend_from_slice(raw.as_bytes());
        }
        for piece in &self.pieces {
            let raw = RawChunk {
                disk: length(piece.disk)?,
                crc: piece.crc.into(),
                index: piece.index.into(),
                offset: piece.offset.unwrap_or(0).into(),
                present: halves(piece.present),
                expected: piece.expected.unwrap_or(0).into(),
                flags: if piece.expected.is_none() { UNCERTAIN.into() } else { 0.into() },
            };
            bytes.extend_from_slice(raw.as_bytes());
        }
        for before in &self.before {
            let raw = RawBefore {
                disk: length(before.disk)?,
                flags: if before.crcs.is_none() { ZEROS.into() } else { 0.into() },
                index: before.index.into(),
                present: halves(before.present),
            };
            bytes.extend_from_slice(raw.as_bytes());
            let crcs = before.crcs.iter().flatten();
            bytes.extend(crcs.flat_map(|crc| crc.to_le_bytes()));
        }
        if bytes.len() as u64 > MAX_INDEX {
            // It could not be read again.
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "too many places of the disks are changed at once: commit more often",
            ));
        }
        let len = end + bytes.len() as u64;
        let mut header = RawHeader {
            magic: MAGIC,
            version: VERSION.into(),
            kind: (kind as u32).into(),
            id: self.id,
            len: len.into(),
            index_offset: end.into(),
            index_len: (bytes.len() as u64).into(),
            ranges: (self.ranges.len() as u64).into(),
            chunks: (self.pieces.len() as u64).into(),
            before: (self.before.len() as u64).into(),
            disks: length(self.disks.len())?,
            index_crc: crc32c::crc32c(&bytes).into(),
            header_crc: 0.into(),
        };
        header.header_crc = crc32c::crc32c(covered(&header)).into();
        file.write_all_at(&bytes, base + end)?;
        before_header()?;
        let mut block = [0; HEADER_LEN];
        if let Some(start) = block.get_mut(..size_of::<RawHeader>()) {
            start.copy_from_slice(header.as_bytes());
        }
        file.write_all_at(&block, base)?;
        Ok(len)
    }

    /// Reads the section that begins at byte `base` of a file of `file_len` bytes, and its length.
    /// `Err` says what is wrong with it.
    pub(super) fn read(
        file: &File,
        kind: Kind,
        base: u64,
        file_len: u64,
    ) -> io::Result<Result<(Self, u64), &'static str>> {
        let there = file_len.saturating_sub(base);
        if there < HEADER {
            return Ok(Err("it is cut off within its header"));
        }
        let mut block = [0; HEADER_LEN];
        file.read_exact_at(&mut block, base)?;
        let Ok((header, rest)) = RawHeader::read_from_prefix(&block) else {
            return Ok(Err("it is cut off within its header"));
        };
        if header.magic != MAGIC {
            return Ok(Err("it does not begin with a journal's mark"));
        }
        if crc32c::crc32c(covered(&header)) != header.header_crc.get() || rest.iter().any(|byte| *byte != 0) {
            return Ok(Err("the checksum of its header is wrong"));
        }
        if header.version.get() != VERSION {
            return Ok(Err("it was written by another version of vmcraft; use that one"));
        }
        if header.kind.get() != kind as u32 {
            return Ok(Err("it is of another kind: a journal is no undo file"));
        }
        let (offset, len) = (header.index_offset.get(), header.index_len.get());
        if offset < HEADER || len > MAX_INDEX || offset.checked_add(len) != Some(header.len.get()) {
            return Ok(Err("its header contradicts itself"));
        }
        if header.len.get() > there {
            return Ok(Err("it is cut off"));
        }
        let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, base + offset)?;
        if crc32c::crc32c(&bytes) != header.index_crc.get() {
            return Ok(Err("the checksum of its index is wrong"));
        }
        let index = Self::decode(&header, &bytes).ok_or("its index is no index");
        Ok(index.map(|index| (index, header.len.get())))
    }

    fn decode(header: &RawHeader, mut rest: &[u8]) -> Option<Self> {
        let end = header.index_offset.get();
        let mut disks = Vec::new();
        if header.disks.get() > MAX_DISKS {
            return None;
        }
        for _ in 0..header.disks.get() {
            let (raw, after) = RawDisk::read_from_prefix(rest).ok()?;
            if raw.name_len.get() > MAX_NAME || raw.format_len.get() > MAX_NAME {
                return None;
            }
            let (name, after) = after.split_at_checked(usize::try_from(raw.name_len.get()).ok()?)?;
            let (format, after) = after.split_at_checked(usize::try_from(raw.format_len.get()).ok()?)?;
            rest = after;
            disks.push(SectionDisk {
                image: ImageIdentity {
                    name: name.to_vec(),
                    format: std::str::from_utf8(format).ok()?.to_owned(),
                    file: FileIdentity {
                        device: raw.device.get(),
                        inode: raw.inode.get(),
                        born: raw.born.get(),
                    },
                },
                size: raw.size.get(),
            });
        }
        let of_disk = |disk: U32| {
            let number = usize::try_from(disk.get()).ok()?;
            Some((number, disks.get(number)?.size))
        };
        let mut ranges = Vec::new();
        for _ in 0..header.ranges.get() {
            let (raw, after) = RawRange::read_from_prefix(rest).ok()?;
            rest = after;
            let (disk, size) = of_disk(raw.disk)?;
            let kind = match raw.kind.get() {
                1 => Clearing::Discard,
                2 => Clearing::Zeroes,
                _ => return None,
            };
            let start = raw.start.get();
            let range_end = start.checked_add(raw.len.get()).filter(|to| *to <= size)?;
            ranges.push(Range { disk, kind, start, end: range_end });
        }
        let mut pieces = Vec::new();
        for _ in 0..header.chunks.get() {
            let (raw, after) = RawChunk::read_from_prefix(rest).ok()?;
            rest = after;
            let (disk, size) = of_disk(raw.disk)?;
            let present = present(raw.present, raw.index.get(), size)?;
            let last = u64::from(127 - present.leading_zeros());
            // Its content lies before the index.
            let offset = Some(raw.offset.get()).filter(|offset| *offset != 0);
            if offset.is_some_and(|at| {
                at < HEADER || at.checked_add((last + 1) * GRANULE).is_none_or(|to| to > end)
            }) {
                return None;
            }
            let is_certain = raw.flags.get() & UNCERTAIN == 0;
            pieces.push(Piece {
                disk,
                index: raw.index.get(),
                present,
                offset,
                crc: raw.crc.get(),
                expected: is_certain.then_some(raw.expected.get()),
            });
        }
        let mut before = Vec::new();
        for _ in 0..header.before.get() {
            let (raw, after) = RawBefore::read_from_prefix(rest).ok()?;
            rest = after;
            let (disk, size) = of_disk(raw.disk)?;
            let present = present(raw.present, raw.index.get(), size)?;
            let crcs = if raw.flags.get() & ZEROS == 0 {
                let count = usize::try_from(present.count_ones()).ok()?;
                let (crcs, after) = <[U32]>::ref_from_prefix_with_elems(rest, count).ok()?;
                rest = after;
                Some(crcs.iter().map(|crc| crc.get()).collect())
            } else {
                None
            };
            before.push(Before { disk, index: raw.index.get(), present, crcs });
        }
        rest.is_empty().then_some(Self { id: header.id, disks, ranges, pieces, before })
    }
}

/// The bits of granules as they are in the file.
fn halves(present: u128) -> [U64; 2] {
    let bytes = present.to_le_bytes();
    let (halves, _) = bytes.as_chunks::<8>();
    [0, 1].map(|half| U64::from_bytes(halves.get(half).copied().unwrap_or_default()))
}

/// The bits of granules of a chunk; `None` unless there is one and all begin within the disk.
fn present([low, high]: [U64; 2], chunk: u64, size: u64) -> Option<u128> {
    let present = u128::from(low.get()) | u128::from(high.get()) << 64;
    let last = u64::from(127 - present.leading_zeros().min(127));
    let end = chunk.checked_mul(CHUNK_LEN as u64)?.checked_add(last * GRANULE)?;
    (present != 0 && end < size).then_some(present)
}

impl Piece {
    /// Reads the piece's chunk from the section that begins at byte `base` of the file. `None` if the
    /// content is not what the checksum says. Granules that are not present are zeros.
    pub(super) fn read(&self, file: &File, base: u64) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = vec![0; CHUNK_LEN];
        if let Some(offset) = self.offset {
            for (first, end) in runs(self.present) {
                let piece = bytes.get_mut(granules(first, end)).unwrap_or_default();
                file.read_exact_at(piece, base + offset + u64::from(first) * GRANULE)?;
            }
        }
        Ok((crc_of(&bytes, self.present) == self.crc).then_some(bytes))
    }
}

/// The CRC-32C of the granules of a chunk that are `present`.
pub(super) fn crc_of(bytes: &[u8], present: u128) -> u32 {
    runs(present).fold(0, |crc, (first, end)| {
        crc32c::crc32c_append(crc, bytes.get(granules(first, end)).unwrap_or_default())
    })
}

/// Where granules are in their chunk.
pub(super) fn granules(first: u32, end: u32) -> std::ops::Range<usize> {
    let at = |granule: u32| usize::try_from(granule).unwrap_or(0) * GRANULE_LEN;
    at(first)..at(end)
}

/// Whether a block of [`HEADER`] bytes is the header of a section.
pub(super) fn is_header(block: &[u8]) -> bool {
    RawHeader::read_from_prefix(block).is_ok_and(|(header, _)| {
        header.magic == MAGIC && crc32c::crc32c(covered(&header)) == header.header_crc.get()
    })
}

/// What the header's checksum covers.
fn covered(header: &RawHeader) -> &[u8] {
    header.as_bytes().get(..offset_of!(RawHeader, header_crc)).unwrap_or_default()
}

/// A number that has 32 bits in the file.
fn length(number: usize) -> io::Result<U32> {
    u32::try_from(number).map(U32::from).map_err(io::Error::other)
}
