//! Images that another program opens for us.

use std::io;
use std::sync::Arc;

use super::chain::{Layer, Opener};
use super::{Format, OpenOptions};
use crate::nbd::{Address, ConnectOptions, NbdDevice};
use crate::uri::{self, Location, UriError};
use crate::{BlockDevice, Error, Result};

/// Opens a disk that is named by a URI.
pub(super) fn open_uri(uri: &str, options: &OpenOptions, warnings: &mut Vec<String>) -> Result<Layer> {
    let name = uri::without_password(uri);
    match uri::parse(uri) {
        Ok(Location::File(path)) => Opener::new(options, warnings).open_top(&path.to_string_lossy()),
        Ok(Location::Nbd { address, export }) => open_nbd(&name, &address, export, options),
        Ok(Location::Qemu(disk)) => {
            Err(Error::Unsupported { image: name, feature: format!("{} disks", disk.driver) })
        }
        Err(UriError::Unsupported(feature)) => Err(Error::Unsupported { image: name, feature }),
        Err(UriError::Invalid(what)) => {
            let source = io::Error::new(io::ErrorKind::InvalidInput, what);
            Err(Error::Io { image: name, doing: "cannot understand the URI", source })
        }
    }
}

fn open_nbd(name: &str, address: &Address, export: String, options: &OpenOptions) -> Result<Layer> {
    // Another format than raw within an export would be QEMU's to open, or ours over the export.
    if let Some(format) = options.format.as_ref().filter(|format| **format != Format::Raw) {
        let feature = format!("format {format} within an NBD export; let the server open the image");
        return Err(Error::Unsupported { image: name.to_owned(), feature });
    }
    let connect = ConnectOptions { export, read_only: options.read_only, ..ConnectOptions::default() };
    let device = NbdDevice::connect(address, &connect).map_err(|source| nbd_error(name, source))?;
    Ok(Layer { device: Arc::new(device), format: Format::Raw })
}

/// Why an export could not be opened.
fn nbd_error(name: &str, source: io::Error) -> Error {
    let image = name.to_owned();
    if source.kind() == io::ErrorKind::Unsupported {
        return Error::Unsupported { image, feature: source.to_string() };
    }
    Error::Io { image, doing: "cannot open the NBD export", source }
}

/// Opens a file in a format that is not ours. `format` is QEMU's name for it; `read_only` is that of
/// the options for the disk itself, and true for a backing file.
pub(super) fn open_via_qemu(
    name: &str,
    format: &str,
    _read_only: bool,
    _options: &OpenOptions,
    _warnings: &mut Vec<String>,
) -> Result<Arc<dyn BlockDevice>> {
    Err(Error::Unsupported {
        image: name.to_owned(),
        feature: format!("format {format}; convert it first with qemu-img convert -O qcow2"),
    })
}
