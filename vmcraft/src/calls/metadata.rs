//! What stat and its kin say of a file.

use vmcraft_macros::api;

use crate::Guest;

#[api(area = "metadata")]
impl Guest {}
