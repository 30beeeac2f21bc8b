//! Extended attributes and access control lists.

use vmcraft_macros::api;

use crate::Guest;

#[api(area = "extended attributes")]
impl Guest {}
