//! ext2, ext3, ext4 and their external journals, told apart by their features.
//!
//! Spec: Linux `Documentation/filesystems/ext4/super.rst`. The superblock stands at byte 1024,
//! little-endian.

use super::reader::{Block, Reader};
use super::{Format, Found, Usage};
use crate::Result;

/// Marked for a kernel in development.
pub(super) const EXT4DEV: Format = Format::new("ext4dev", Usage::FileSystem, |r| find(r, "ext4dev"));
pub(super) const EXT4: Format = Format::new("ext4", Usage::FileSystem, |r| find(r, "ext4"));
pub(super) const EXT3: Format = Format::new("ext3", Usage::FileSystem, |r| find(r, "ext3"));
pub(super) const EXT2: Format = Format::new("ext2", Usage::FileSystem, |r| find(r, "ext2"));
/// A journal on a device of its own.
pub(super) const JBD: Format = Format::new("jbd", Usage::Other, |r| find(r, "jbd"));

const COMPAT_HAS_JOURNAL: u32 = 0x4;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_JOURNAL_DEV: u32 = 0x8;
/// FILETYPE and META_BG.
const INCOMPAT_EXT2: u32 = 0x2 | 0x10;
/// SPARSE_SUPER, LARGE_FILE and BTREE_DIR, of ext2 and ext3.
const RO_COMPAT_EXT2: u32 = 0x1 | 0x2 | 0x4;
/// The flag of a file system that a kernel in development may use.
const FLAG_TEST_FILESYSTEM: u32 = 0x4;

fn find(reader: &Reader<'_>, kind: &str) -> Result<Option<Found>> {
    let Some(superblock) = reader.block_with(1024, 1024, 0x38, &[0x53, 0xef])? else { return Ok(None) };
    Ok((name(&superblock) == Some(kind)).then(|| Found {
        label: superblock.text(0x78, 16),
        uuid: superblock.uuid(0x68),
        version: format!("{}.{}", superblock.le32(0x4c), superblock.le16(0x3e)),
        ..Found::default()
    }))
}

/// The oldest name that has all the features; `None` if no name has just these.
fn name(superblock: &Block<'_>) -> Option<&'static str> {
    let (compat, incompat, ro_compat) = (superblock.le32(0x5c), superblock.le32(0x60), superblock.le32(0x64));
    let has_journal = compat & COMPAT_HAS_JOURNAL != 0;
    let is_ext2 = (ro_compat & !RO_COMPAT_EXT2) | (incompat & !INCOMPAT_EXT2) == 0;
    let is_ext3 = (ro_compat & !RO_COMPAT_EXT2) | (incompat & !(INCOMPAT_EXT2 | INCOMPAT_RECOVER)) == 0;
    if incompat & INCOMPAT_JOURNAL_DEV != 0 {
        Some("jbd")
    } else if !is_ext3 {
        let is_test = superblock.le32(0x160) & FLAG_TEST_FILESYSTEM != 0;
        Some(if is_test { "ext4dev" } else { "ext4" })
    } else if has_journal {
        Some("ext3")
    } else {
        is_ext2.then_some("ext2")
    }
}
