//! Checksums and comparison.

use vmcraft_macros::api;

use crate::Guest;

#[api(area = "checksums")]
impl Guest {}
