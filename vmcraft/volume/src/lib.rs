//! Partition tables, volume managers, and what a device's first bytes say it holds.
//!
//! A volume manager opens as a [`BlockDevice`](vmcraft_block::BlockDevice) over devices, as a partition does, so that
//! they stack in any order. Each reads its metadata from [`Member`]s, and says what it found before it
//! opens anything.
#![forbid(unsafe_code)]

pub mod bitlocker;
mod crypt;
pub mod dm;
mod error;
mod key;
pub mod ldm;
pub mod luks;
pub mod lvm;
pub mod md;
mod member;
pub mod partition;
mod raid;
pub mod signature;

pub use error::{Error, Result};
pub use key::Key;
pub use member::Member;
