//! A device that a volume is made of.

use std::fmt;
use std::sync::Arc;

use vmcraft_block::BlockDevice;

/// A device that may be a part of a volume, and what messages call it.
#[derive(Clone)]
pub struct Member {
    /// The device's name, such as `/dev/sda1`.
    pub name: String,
    /// The device.
    pub device: Arc<dyn BlockDevice>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.name, self.device.size())
    }
}
