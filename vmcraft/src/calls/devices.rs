//! Disks and other block devices: names, sizes, what they hold.

use vmcraft_macros::api;

use crate::Guest;

#[api(area = "devices")]
impl Guest {}
