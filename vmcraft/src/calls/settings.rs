//! Settings of the handle, and what this version can do.

use vmcraft_macros::api;

use crate::Guest;

#[api(area = "settings")]
impl Guest {}
