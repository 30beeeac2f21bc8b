//! Internal snapshots.

use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{Header, Problem};
use crate::storage::{Storage, read_exact_at};

/// The fixed part of an entry of the snapshot table, big-endian; extra data, ID and name follow, and
/// zeros up to a multiple of 8.
///
/// Spec: QEMU `docs/interop/qcow2.rst`, "Snapshots".
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSnapshot {
    /// 0x00: where its L1 table is, in bytes.
    l1_table_offset: U64,
    /// 0x08: number of entries of its L1 table.
    l1_size: U32,
    /// 0x0c: length of the ID, in bytes.
    id_len: U16,
    /// 0x0e: length of the name, in bytes.
    name_len: U16,
    /// 0x10: when it was taken, in seconds since 1970.
    date_sec: U32,
    /// 0x14: and nanoseconds.
    date_nsec: U32,
    /// 0x18: how long the guest had run, in nanoseconds.
    vm_clock_nsec: U64,
    /// 0x20: length of the saved VM state in bytes, if it is below 4 GiB.
    vm_state_size: U32,
    /// 0x24: length of the extra data, in bytes.
    extra_len: U32,
}
const _: () = assert!(size_of::<RawSnapshot>() == 40);

/// QEMU's limit on the extra data of one snapshot.
const MAX_EXTRA: u32 = 1024;
/// The longest table that we read, in bytes: hundreds of snapshots have some ten thousand.
const MAX_TABLE: u64 = 16 << 20;

/// An internal snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its ID, unique in the image.
    pub id: String,
    /// Its name, perhaps not unique.
    pub name: String,
    /// When it was taken, in seconds since 1970.
    pub date_sec: u32,
    /// And nanoseconds.
    pub date_nsec: u32,
    /// How long the guest had run, in nanoseconds.
    pub vm_clock_nsec: u64,
    /// Length of the saved VM state, in bytes; 0 without one.
    pub vm_state_size: u64,
    /// The disk's size at that time in bytes, if the image says.
    pub disk_size: Option<u64>,
    /// The guest's instruction count, if it was recorded.
    pub icount: Option<u64>,
    pub(super) l1_table_offset: u64,
    pub(super) l1_size: u32,
}

/// Reads the snapshot table. The second value is its length in bytes.
pub(super) fn read_table(storage: &dyn Storage, header: &Header) -> Result<(Vec<Snapshot>, u64), Problem> {
    let start = header.raw.snapshots_offset.get();
    let mut at = start;
    let mut snapshots = Vec::new();
    for _ in 0..header.raw.nb_snapshots.get() {
        let mut fixed = [0; size_of::<RawSnapshot>()];
        let read = |at: u64, buf: &mut [u8]| {
            read_exact_at(storage, at, buf).map_err(|e| Problem::reading(e, "snapshot table", at))
        };
        read(at, &mut fixed)?;
        let raw = RawSnapshot::read_from_bytes(&fixed).map_err(|_| Problem::corrupt("snapshot table", at))?;
        let (id_len, name_len) = (usize::from(raw.id_len.get()), usize::from(raw.name_len.get()));
        let extra_len = raw.extra_len.get();
        if extra_len > MAX_EXTRA {
            return Err(Problem::corrupt("snapshot's extra data: it is too long", at + 0x24));
        }
        let extra_len = extra_len as usize;
        let mut rest = vec![0; extra_len + id_len + name_len];
        read(at + fixed.len() as u64, &mut rest)?;
        let (extra, names) = rest.split_at(extra_len);
        let (id, name) = names.split_at(id_len);
        let word = |index: usize| {
            let bytes = extra.get(index * 8..index * 8 + 8)?;
            Some(u64::from_be_bytes(bytes.try_into().ok()?))
        };
        snapshots.push(Snapshot {
            id: String::from_utf8_lossy(id).into_owned(),
            name: String::from_utf8_lossy(name).into_owned(),
            date_sec: raw.date_sec.get(),
            date_nsec: raw.date_nsec.get(),
            vm_clock_nsec: raw.vm_clock_nsec.get(),
            vm_state_size: word(0).unwrap_or(u64::from(raw.vm_state_size.get())),
            disk_size: word(1),
            icount: word(2).filter(|count| *count != u64::MAX),
            l1_table_offset: raw.l1_table_offset.get(),
            l1_size: raw.l1_size.get(),
        });
        at += (fixed.len() + rest.len()).next_multiple_of(8) as u64;
        if at - start > MAX_TABLE {
            return Err(Problem::corrupt("snapshot table: it is too long", start));
        }
    }
    Ok((snapshots, at - start))
}
