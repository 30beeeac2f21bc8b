//! The file systems that can be opened.

use std::sync::Arc;

use vmcraft_block::BlockDevice;
use vmcraft_fs::{Driver, FileSystem, OpenOptions};

use crate::{Error, Result};

/// Tried in order.
pub(crate) const DRIVERS: &[&Driver] = &[&vmcraft_ext4::DRIVER];

/// Opens the file system on a device. `name` is the device's, for messages.
pub(crate) fn open(
    name: &str,
    device: Arc<dyn BlockDevice>,
    options: OpenOptions,
) -> Result<Arc<dyn FileSystem>> {
    let unreadable = |source| Error::Device { device: name.to_owned(), source };
    let on_device = |source| Error::FileSystem { device: name.to_owned(), source };
    for driver in DRIVERS {
        if (driver.probe)(&device).map_err(unreadable)? {
            return Ok((driver.open)(device, options).map_err(on_device)?.into());
        }
    }
    let held = vmcraft_volume::signature::probe(&device)
        .map_err(|source| Error::Volume { device: name.to_owned(), source })?;
    Err(on_device(vmcraft_fs::Error::Unsupported(match held {
        Some(signature) => {
            format!("the device holds {}, which this version does not open", signature.kind)
        }
        None => "no file system was recognised on the device".into(),
    })))
}
