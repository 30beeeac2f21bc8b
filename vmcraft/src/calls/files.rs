//! Reading files.

use vmcraft_macros::api;

use crate::Guest;

#[api(area = "files")]
impl Guest {}
