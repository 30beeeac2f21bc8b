//! Looking at directories and names.

use vmcraft_macros::api;

use crate::Guest;

#[api(area = "directories")]
impl Guest {}
