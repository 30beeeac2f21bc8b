//! Persistent dirty bitmaps: listed, and left alone.

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{Header, Problem};
use crate::storage::{Storage, read_exact_at};

/// The fixed part of an entry of the bitmap directory, big-endian; extra data and the name follow, and
/// zeros up to a multiple of 8.
///
/// Spec: QEMU `docs/interop/qcow2.rst`, "Bitmap directory".
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawBitmap {
    /// 0x00: where its bitmap table is, in bytes.
    table_offset: U64,
    /// 0x08: number of entries of its bitmap table.
    table_size: U32,
    /// 0x0c: bit 0 in use, bit 1 auto.
    flags: U32,
    /// 0x10: 1, a dirty tracking bitmap.
    kind: u8,
    /// 0x11: one bit stands for `1 << granularity_bits` bytes.
    granularity_bits: u8,
    /// 0x12: length of the name, in bytes.
    name_len: U16,
    /// 0x14: length of the extra data, in bytes.
    extra_len: U32,
}
const _: () = assert!(size_of::<RawBitmap>() == 24);

/// QEMU's limits on the number of bitmaps and on the extra data of one.
const MAX_BITMAPS: u32 = 65535;
const MAX_EXTRA: u32 = 1 << 20;
/// The longest directory that we read, in bytes: names are short.
const MAX_DIRECTORY: u64 = 8 << 20;

/// A dirty bitmap that is kept in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    /// Its name.
    pub name: String,
    /// One bit stands for this many bytes of the disk.
    pub granularity: u64,
    /// It was not closed properly, so its content counts for nothing.
    pub in_use: bool,
    /// It follows every write to the disk.
    pub auto: bool,
}

/// Bits of `flags`.
const IN_USE: u32 = 1;
const AUTO: u32 = 2;

/// Reads the bitmap directory, if the image has one.
pub(crate) fn read_directory(storage: &dyn Storage, header: &Header) -> Result<Vec<Bitmap>, Problem> {
    let mut bitmaps = Vec::new();
    for_each(storage, header, |raw, name, _| {
        bitmaps.push(Bitmap {
            name: String::from_utf8_lossy(name).into_owned(),
            granularity: 1 << raw.granularity_bits,
            in_use: raw.flags.get() & IN_USE != 0,
            auto: raw.flags.get() & AUTO != 0,
        });
    })?;
    Ok(bitmaps)
}

/// The flags, by their place in the image, that say of the bitmaps which should follow every write
/// that they miss some: a bitmap in use is one that counts for nothing. `None` if the directory cannot
/// be read.
pub(super) fn flags_for_writing(storage: &dyn Storage, header: &Header) -> Option<Vec<(u64, u32)>> {
    let mut flags = Vec::new();
    for_each(storage, header, |raw, _, place| {
        let now = raw.flags.get();
        if now & AUTO != 0 && now & IN_USE == 0 {
            flags.push((place + std::mem::offset_of!(RawBitmap, flags) as u64, now | IN_USE));
        }
    })
    .ok()?;
    Some(flags)
}

/// Calls `visit` with each bitmap's entry, its name, and the entry's place in the image.
fn for_each(
    storage: &dyn Storage,
    header: &Header,
    mut visit: impl FnMut(&RawBitmap, &[u8], u64),
) -> Result<(), Problem> {
    let Some(extension) = header.bitmaps else { return Ok(()) };
    let (start, len) = (extension.directory_offset, extension.directory_size);
    let corrupt = || Problem::corrupt("bitmap directory", start);
    if extension.count > MAX_BITMAPS || len > MAX_DIRECTORY {
        return Err(corrupt());
    }
    let mut directory = vec![0; usize::try_from(len).map_err(|_| corrupt())?];
    read_exact_at(storage, start, &mut directory)
        .map_err(|e| Problem::reading(e, "bitmap directory", start))?;
    let mut at = 0;
    for _ in 0..extension.count {
        let rest = directory.get(at..).unwrap_or_default();
        let (raw, after) = RawBitmap::read_from_prefix(rest).map_err(|_| corrupt())?;
        let extra_len = raw.extra_len.get();
        if extra_len > MAX_EXTRA || raw.granularity_bits > 63 {
            return Err(corrupt());
        }
        let (extra_len, name_len) = (extra_len as usize, usize::from(raw.name_len.get()));
        let name = after.get(extra_len..extra_len + name_len).ok_or_else(corrupt)?;
        visit(&raw, name, start + at as u64);
        at += (size_of::<RawBitmap>() + extra_len + name_len).next_multiple_of(8);
    }
    Ok(())
}
