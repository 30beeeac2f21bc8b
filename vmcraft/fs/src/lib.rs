//! The file system traits that every driver implements.
//!
//! A driver knows inodes, as FUSE does: it is asked for one name in one directory, for bytes of one
//! inode, for one link's target. Names are bytes. Paths, symbolic links, mount points and letter
//! case live above the traits, once.
#![forbid(unsafe_code)]

pub mod conformance;
mod driver;
mod error;
mod filesystem;
mod maintain;
mod metadata;
mod sources;
mod write;

pub use driver::{Driver, Open, OpenOptions};
pub use error::{Error, Result};
pub use filesystem::{DirEntry, FileSystem, Visit};
pub use maintain::{CheckOptions, Finding, FormatOptions, Maintain, ResizeTo};
pub use metadata::{DeviceNumber, FileType, InodeNumber, Metadata, StatFs, Timestamp};
pub use sources::Sources;
pub use write::{FreeSpace, NewInode, OnError, Reserved, SetMetadata, Tuning, WriteFiles, XattrMode};
