//! ext2, ext3 and ext4: Linux's native file systems, one format that grew by feature flags.
//!
//! A volume is cut into groups of blocks. The superblock counts them, a table of descriptors says
//! where each group's inode table is, an inode says where its content is: by extents, by a map of
//! blocks, or in the inode itself. Directories are files of entries, large ones with a hashed index.
//! Linux's changes go through a journal, JBD2; one that was not emptied is replayed into memory on
//! opening, and to the device before the first change.
//!
//! Specifications: Linux `Documentation/filesystems/ext4/`, its `journal.rst` for JBD2. What they leave
//! open is decided as Linux does it, which the tests compare with.
//!
//! Refused by name: content and names encrypted with fscrypt, content protected by fs-verity, fast
//! commits in a dirty journal, an external journal that is dirty, look-ups beyond ASCII in directories
//! that ignore letter case, and incompatible features that are not listed in `docs/formats/ext4.md`.
//! Everything else on such a volume can be read. It can be changed unless it has clusters of several
//! blocks (`bigalloc`), quotas, an external journal, a feature that we do not know, or damage that is
//! noted on it.
//!
//! Changed metadata is in memory until it is written out, and an operation that fails is undone there.
//! The device below is expected to be all or nothing as a whole: nothing goes through the journal.
//!
//! The volume is taken for hostile. Every structure is checked when it is decoded, checksums included,
//! an error names it and its byte, and every loop and allocation is bounded.
#![forbid(unsafe_code)]

mod acl;
mod alloc;
#[cfg(test)]
mod alloc_tests;
mod bitmap;
mod blockmap;
mod blockmap_edit;
mod cache;
mod check;
mod checksum;
mod content;
mod describe;
mod descriptors;
mod dir;
mod dir_edit;
mod dirhash;
mod edit;
mod extent;
mod extent_edit;
mod features;
mod filesystem;
#[doc(hidden)]
pub mod fuzz;
mod group;
mod groups;
mod htree;
mod htree_edit;
mod inline;
mod inline_dir;
mod inline_edit;
mod inode;
mod inode_alloc;
mod inode_edit;
mod journal;
mod maintain;
mod map;
mod mkfs;
mod namespace;
mod orphan;
mod replay;
mod resize;
mod space;
mod statfs;
mod superblock;
mod symlink;
mod trim;
mod tune;
mod value_inode;
mod volume;
mod walk;
mod writable;
mod write;
mod xattr;
mod xattr_edit;

use vmcraft_fs::{Driver, Error};

/// Opens ext2, ext3 and ext4, and refuses an external journal by name.
pub const DRIVER: Driver = Driver {
    names: &["ext2", "ext3", "ext4"],
    probe: filesystem::probe,
    open: filesystem::open,
    maintain: Some(&maintain::Tools),
};

/// A number of bytes or entries in memory. What does not fit there is as many as there can be; a slice
/// is asked for them next, which has fewer.
fn in_memory(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Something contradicts the format; `offset` is the byte of the volume.
fn corrupt(what: impl Into<String>, offset: u64) -> Error {
    Error::Corrupt { what: what.into(), offset }
}
