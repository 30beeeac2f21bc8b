//! Htrees: the hashed index of a directory.

use std::mem::size_of;

use vmcraft_fs::Result;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::crc32c;
use crate::corrupt;
use crate::inode::Inode;
use crate::superblock::Superblock;

/// What a tree's root has behind the entries `.` and `..`.
///
/// Spec: Linux `Documentation/filesystems/ext4/directory.rst`, "Hash Tree Directories".
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRootInfo {
    reserved_zero: U32,
    hash_version: u8,
    /// Always 8.
    info_length: u8,
    indirect_levels: u8,
    unused_flags: u8,
}
const _: () = assert!(size_of::<RawRootInfo>() == 8);

/// An entry: the first hash of a block of the directory. The first entry of a node has the counts of
/// the node instead of a hash, which is 0.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawIndex {
    hash: U32,
    block: U32,
}

/// What the first entry of a node has instead of a hash.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawCounts {
    /// How many entries there is room for, the first included.
    limit: U16,
    count: U16,
}

const ENTRY: usize = size_of::<RawIndex>();
/// Where the root's info is: behind `.` and `..`, whose names take four bytes each.
const ROOT_INFO: usize = 24;
/// Where entries start in the root, and in other nodes, which begin with an unused directory entry.
const ROOT_ENTRIES: usize = ROOT_INFO + size_of::<RawRootInfo>();
const NODE_ENTRIES: usize = 8;

/// Verifies the checksum of a node, the root if it is block 0 of the directory.
pub(crate) fn verify(bytes: &[u8], inode: &Inode, sb: &Superblock, logical: u64, offset: u64) -> Result<()> {
    let _ = sb;
    let wrong = |what: String, at: usize| {
        let what = format!("htree block {logical} of inode {}: {what}", inode.number);
        corrupt(what, offset + at as u64)
    };
    let start = if logical == 0 { ROOT_ENTRIES } else { NODE_ENTRIES };
    let counts = bytes.get(start..).and_then(|b| RawCounts::ref_from_prefix(b).ok());
    let Some((counts, _)) = counts else {
        return Err(wrong("too small".into(), 0));
    };
    let (limit, count) = (usize::from(counts.limit.get()), usize::from(counts.count.get()));
    let tail = start + limit * ENTRY;
    // The tail: four bytes that are covered as they are, then the checksum.
    let (Some(covered), Some(tail_bytes)) = (
        bytes.get(..start + count * ENTRY).filter(|_| count <= limit),
        bytes.get(tail..).and_then(|b| b.first_chunk::<8>()),
    ) else {
        return Err(wrong(format!("{count} entries in room for {limit}"), start));
    };
    let [r0, r1, r2, r3, c0, c1, c2, c3] = *tail_bytes;
    let found = crc32c(crc32c(crc32c(inode.checksum_seed, covered), &[r0, r1, r2, r3]), &[0; 4]);
    let stored = u32::from_le_bytes([c0, c1, c2, c3]);
    if found != stored {
        let what = format!("checksum is {stored:#010x}, its content gives {found:#010x}");
        return Err(wrong(what, tail + 4));
    }
    Ok(())
}
