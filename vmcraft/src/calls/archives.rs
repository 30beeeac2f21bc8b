//! Taking trees out as archives.

use vmcraft_macros::api;

use crate::Guest;

#[api(area = "archives")]
impl Guest {}
