//! Partition tables and what a device's first bytes say it holds.
//!
//! Volume managers (LVM, LUKS, md RAID) will open as block devices here, as partitions do.
#![forbid(unsafe_code)]

mod error;
pub mod partition;
pub mod signature;

pub use error::{Error, Result};
