//! Finding operating systems and what is in them.

use vmcraft_macros::api;

use crate::Guest;

#[api(area = "inspection")]
impl Guest {}
