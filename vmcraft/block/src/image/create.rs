//! Making a new image.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::{FallocateFlags, fallocate};

use super::chain::{in_use, refuse_other_kinds};
use crate::lock::{self, Access, Failure};
use crate::qcow2;
use crate::storage::{HostFile, Storage};
use crate::{Error, Result};

/// How many zeros are written at once to an image that takes all its space from the start.
const ZEROS: usize = 1 << 20;

/// What a new image is like.
#[derive(Debug, Clone)]
pub struct NewImage {
    /// Its format.
    pub format: NewFormat,
    /// How much of the host's space it takes from the start.
    pub space: Space,
}

/// The formats in which images are made.
#[derive(Debug, Clone)]
pub enum NewFormat {
    /// A raw disk of this many bytes.
    Raw(u64),
    /// A qcow2 image.
    Qcow2(qcow2::CreateOptions),
}

/// How much of the host's space a new image takes from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Space {
    /// As little as it can.
    #[default]
    Sparse,
    /// All, without writing it.
    Allocated,
    /// All, written with zeros.
    Written,
}

/// Makes an image in the file `name`, which loses all that it has; what another process uses is
/// refused. A block device of the host can hold an image, too; a raw one stays as it is.
///
/// A qcow2 image takes all of its space only if it is preallocated as well.
pub fn create(name: &str, image: &NewImage) -> Result<()> {
    let error = |doing| move |source| Error::Io { image: name.to_owned(), doing, source };
    let path = Path::new(name);
    let existed = match fs::metadata(path) {
        Ok(metadata) => {
            refuse_other_kinds(name, &metadata)?;
            true
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) => return Err(error("cannot create")(e)),
    };
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC)
        .open(path)
        .map_err(error("cannot create"))?;
    match lock::lock(&file, Access::Write { resize: true }) {
        Ok(()) | Err(Failure::Unsupported) => {}
        Err(Failure::InUse(detail)) => return Err(in_use(name, detail)),
        Err(Failure::Io(source)) => return Err(error("cannot lock")(source)),
    }
    let file = HostFile::new(file, false).map_err(error("cannot create"))?;
    let made = fill(name, &file, image);
    if made.is_err() && !existed {
        // A part of an image is of no use; what is wrong is said anyhow.
        let _ = fs::remove_file(path);
    }
    made
}

fn fill(name: &str, file: &HostFile, image: &NewImage) -> Result<()> {
    let error = |source| Error::Io { image: name.to_owned(), doing: "cannot create", source };
    match &image.format {
        NewFormat::Raw(size) => {
            if !file.is_block_device() {
                file.resize(0).map_err(error)?;
            }
            file.resize(*size).map_err(error)?;
        }
        NewFormat::Qcow2(options) => qcow2::create(name, file, options)?,
    }
    if file.is_block_device() {
        return Ok(());
    }
    match image.space {
        Space::Sparse => Ok(()),
        Space::Allocated => allocate(file).map_err(error),
        Space::Written => write_holes(file).map_err(error),
    }
}

/// Takes the space of a whole file.
fn allocate(file: &HostFile) -> io::Result<()> {
    let size = i64::try_from(file.size()?).map_err(io::Error::other)?;
    if size == 0 {
        return Ok(());
    }
    Ok(fallocate(file.file(), FallocateFlags::empty(), 0, size)?)
}

/// Writes zeros where a file has holes.
fn write_holes(file: &HostFile) -> io::Result<()> {
    let zeros = vec![0; ZEROS];
    let size = file.size()?;
    let mut at = 0;
    while at < size {
        let extent = file.extent_at(at)?;
        let end = extent.offset.saturating_add(extent.len).min(size);
        while extent.is_hole && at < end {
            let step = usize::try_from(end - at).map_or(ZEROS, |left| left.min(ZEROS));
            file.write_at(at, &zeros[..step])?;
            at += step as u64;
        }
        at = end;
    }
    file.flush()
}
