//! ext2, ext3 and ext4: Linux's native file systems.
//!
//! Specifications: Linux `Documentation/filesystems/ext4/` for the layout, and its
//! `journal.rst` for JBD2.
#![forbid(unsafe_code)]

mod acl;
mod blockmap;
mod cache;
mod checksum;
mod dir;
mod dirhash;
mod extent;
mod features;
mod filesystem;
#[doc(hidden)]
pub mod fuzz;
mod group;
mod htree;
mod inline;
mod inode;
mod journal;
mod map;
mod replay;
mod statfs;
mod superblock;
mod symlink;
mod volume;
mod xattr;

use vmcraft_fs::{Driver, Error};

/// Opens ext2, ext3 and ext4, and refuses an external journal by name.
pub const DRIVER: Driver =
    Driver { names: &["ext2", "ext3", "ext4"], probe: filesystem::probe, open: filesystem::open };

/// A number of bytes or entries in memory. What does not fit there is as many as there can be; a slice
/// is asked for them next, which has fewer.
fn in_memory(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Something contradicts the format; `offset` is the byte of the volume.
fn corrupt(what: impl Into<String>, offset: u64) -> Error {
    Error::Corrupt { what: what.into(), offset }
}
