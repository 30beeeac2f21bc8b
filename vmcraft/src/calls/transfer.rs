//! Taking files out to the host.

use vmcraft_macros::api;

use crate::Guest;

#[api(area = "transfer")]
impl Guest {}
