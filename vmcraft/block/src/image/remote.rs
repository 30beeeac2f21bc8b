//! Images that another program opens for us.

use std::sync::Arc;

use super::OpenOptions;
use super::chain::Layer;
use crate::{BlockDevice, Error, Result};

/// Whether a disk's name is a URI rather than a path: a scheme, `://` and more.
pub(super) fn is_uri(name: &str) -> bool {
    name.split_once("://").is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    })
}

/// Opens a disk that is named by a URI.
pub(super) fn open_uri(name: &str, _options: &OpenOptions, _warnings: &mut Vec<String>) -> Result<Layer> {
    let scheme = name.split("://").next().unwrap_or_default();
    Err(Error::Unsupported { image: name.to_owned(), feature: format!("{scheme} disks") })
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
