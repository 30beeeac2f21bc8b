//! Partition tables.

use vmcraft_macros::api;

use crate::Guest;

#[api(area = "partitions")]
impl Guest {}
