//! Mounting and unmounting.

use vmcraft_macros::api;

use crate::{DeviceName, Guest, GuestPath, Mountable, Result};

#[api(area = "mounting")]
impl Guest {
    /// Mount a file system
    ///
    /// Nothing is written: this version mounts everything read-only.
    pub fn mount(&mut self, mountable: &Mountable, mountpoint: &GuestPath) -> Result<()> {
        let (name, filesystem) = self.open_filesystem(DeviceName::new(mountable))?;
        self.vfs.mount(&name, filesystem, mountpoint)
    }
}
