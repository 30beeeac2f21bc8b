//! Searching and showing text.

use vmcraft_macros::api;

use crate::Guest;

#[api(area = "text")]
impl Guest {}
