//! Writing content from front to back into a file or a device.

use std::io;
use std::sync::Arc;

use vmcraft_block::BlockDevice;

use crate::content::Run;
use crate::vfs::Node;
use crate::{Error, Result};

/// How many zeros are written at once where a device cannot make a range zero.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Where content goes, and how far it is.
pub(crate) struct Target {
    place: Place,
    at: u64,
    /// Whether zeros that stand in data are left out where nothing is yet.
    skips_zeros: bool,
}

enum Place {
    /// A regular file, and its size.
    File(Node, u64),
    Device(String, Arc<dyn BlockDevice>),
}

impl Target {
    /// A regular file, from byte `at`.
    pub(crate) fn of_file(node: Node, at: u64) -> Result<Self> {
        let size = node.metadata()?.size_bytes;
        Ok(Self { place: Place::File(node, size), at, skips_zeros: false })
    }

    /// A device with this name, from byte `at`.
    pub(crate) fn of_device(name: String, device: Arc<dyn BlockDevice>, at: u64) -> Self {
        Self { place: Place::Device(name, device), at, skips_zeros: false }
    }

    /// Whether a piece of data that is all zeros becomes a hole.
    pub(crate) fn set_skipping_zeros(&mut self, skips_zeros: bool) {
        self.skips_zeros = skips_zeros;
    }

    /// Refuses content that cannot fit.
    pub(crate) fn check_room(&self, len: u64) -> Result<()> {
        let Place::Device(name, device) = &self.place else { return Ok(()) };
        if self.at.checked_add(len).is_some_and(|end| end <= device.size()) {
            return Ok(());
        }
        Err(Error::Device {
            device: name.clone(),
            source: io::Error::new(
                io::ErrorKind::StorageFull,
                format!("{len} bytes from byte {} do not fit into its {} bytes", self.at, device.size()),
            ),
        })
    }

    /// Writes the next piece.
    pub(crate) fn put(&mut self, run: Run<'_>) -> Result<()> {
        let len = match run {
            Run::Data(data) => data.len() as u64,
            Run::Hole(len) => len,
        };
        self.check_room(len)?;
        match (&mut self.place, run) {
            (Place::File(node, size), Run::Data(data)) if !(self.skips_zeros && is_zero(data)) => {
                node.writer()?.write(node.inode, self.at, data).map_err(|source| node.error(source))?;
                *size = (*size).max(self.at.saturating_add(len));
            }
            (Place::File(node, size), _) => {
                // What is there already is to read as zeros; beyond it nothing is needed yet.
                let end = self.at.saturating_add(len).min(*size);
                if end > self.at {
                    node.writer()?
                        .punch_hole(node.inode, self.at, end - self.at)
                        .map_err(|source| node.error(source))?;
                }
            }
            (Place::Device(name, device), Run::Data(data)) if !(self.skips_zeros && is_zero(data)) => {
                device.write_at(self.at, data).map_err(|source| device_error(name, source))?;
            }
            (Place::Device(name, device), _) => {
                write_zeros(&**device, self.at, len).map_err(|source| device_error(name, source))?;
            }
        }
        self.at = self.at.saturating_add(len);
        Ok(())
    }

    /// Completes what was written: a file that ends in a hole gets its size.
    pub(crate) fn finish(self) -> Result<()> {
        match self.place {
            Place::File(node, size) if size < self.at => {
                node.writer()?.truncate(node.inode, self.at).map_err(|source| node.error(source))
            }
            _ => Ok(()),
        }
    }
}

fn device_error(name: &str, source: io::Error) -> Error {
    Error::Device { device: name.to_owned(), source }
}

fn is_zero(data: &[u8]) -> bool {
    let (words, rest) = data.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

pub(crate) fn write_zeros(device: &dyn BlockDevice, offset: u64, len: u64) -> io::Result<()> {
    if let Some(discard) = device.discard() {
        return discard.write_zeroes(offset, len);
    }
    let mut done = 0;
    while done < len {
        let step = usize::try_from(len - done).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        device.write_at(offset + done, &ZEROS[..step])?;
        done += step as u64;
    }
    Ok(())
}
