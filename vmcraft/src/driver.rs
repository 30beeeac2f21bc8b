//! The file systems that can be opened.

use vmcraft_fs::Driver;

/// Tried in order.
pub(crate) const DRIVERS: &[&Driver] = &[&vmcraft_ext4::DRIVER];
