//! Members of ZFS pools.
//!
//! Spec: ZFS On-Disk Specification. A device has four labels of 256 KiB, two at its start and two
//! at its end. Each has the pool's description at 16 KiB, and 128 uberblocks in its second half.

use super::reader::{Block, Reader};
use super::{Format, Found, Usage};
use crate::Result;

pub(super) const ZFS: Format = Format::new("zfs_member", Usage::FileSystem, zfs).at_least(64 << 20);

const LABEL_BYTES: u64 = 256 << 10;
const RING_START: u64 = 128 << 10;
const UBERBLOCK_BYTES: usize = 1024;
const UBERBLOCK_MAGIC: u64 = 0x00ba_b10c;

/// So many must be found: one alone can be left over, or part of a file.
const WANTED: usize = 4;

fn zfs(reader: &Reader<'_>) -> Result<Option<Found>> {
    let end = reader.size() / LABEL_BYTES * LABEL_BYTES;
    let mut count = 0;
    for label in [0, LABEL_BYTES, end - 2 * LABEL_BYTES, end - LABEL_BYTES] {
        // The last partition's labels can be where those of the disk would be.
        if reader.is_in_partition(label, label + LABEL_BYTES) {
            continue;
        }
        let Some(ring) = reader.block(label + RING_START, 128 << 10)? else { return Ok(None) };
        let mut version = None;
        for at in (0..ring.all().len()).step_by(UBERBLOCK_BYTES) {
            if ring.le64(at) == UBERBLOCK_MAGIC {
                version = Some(ring.le64(at + 8));
            } else if ring.be64(at) == UBERBLOCK_MAGIC {
                version = Some(ring.be64(at + 8));
            } else {
                continue;
            }
            count += 1;
        }
        if let Some(version) = version.filter(|_| count >= WANTED) {
            let mut found = Found { version: version.to_string(), ..Found::default() };
            if let Some(list) = reader.block(label + (16 << 10), 4096)? {
                describe(&list, &mut found);
            }
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Picks name and GUIDs out of an XDR-encoded list of named values.
fn describe(list: &Block<'_>, found: &mut Found) {
    const UINT64: u32 = 8;
    const STRING: u32 = 9;
    // Encoding, byte order, version and flags come first.
    let mut at = 12;
    loop {
        let size = list.be32(at) as usize;
        // The sizes, the name's length, the type and the count have 20 bytes.
        if size < 20 || list.bytes(at, size).is_empty() {
            return;
        }
        let name_len = list.be32(at + 8) as usize;
        let value = name_len.checked_next_multiple_of(4).and_then(|padded| (at + 12).checked_add(padded));
        let Some(value) = value.filter(|value| *value < at + size) else { return };
        match (list.bytes(at + 12, name_len), list.be32(value)) {
            (b"name", STRING) => {
                found.label = list.text(value + 12, list.be32(value + 8) as usize);
            }
            (b"guid", UINT64) => found.sub_uuid = list.be64(value + 8).to_string(),
            (b"pool_guid", UINT64) => found.uuid = list.be64(value + 8).to_string(),
            _ => {}
        }
        at += size;
    }
}
