//! The file that takes chunks when memory is full.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::chunk::{CHUNK, CHUNK_LEN, GRANULE, runs};

/// Where the first chunk is in the file: what is before it is for a header.
pub(super) const START: u64 = 4096;

/// A file without a name, in which chunks have places.
pub(super) struct Spill {
    file: File,
    /// The directory that it is in, for messages.
    directory: PathBuf,
    /// How many places there are.
    slots: u64,
    /// Those that nobody has.
    free: Arc<Mutex<Vec<u64>>>,
}

/// A chunk's place in the spill file, given back when it is dropped.
pub(super) struct Slot {
    number: u64,
    free: Arc<Mutex<Vec<u64>>>,
}

impl Slot {
    /// Where it begins in the file, in bytes.
    pub(super) fn offset(&self) -> u64 {
        START + self.number * CHUNK
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
    }
}

impl Spill {
    /// A file in the first of these directories that takes one.
    pub(super) fn new(directories: &[PathBuf]) -> io::Result<Self> {
        let mut refused = None;
        for directory in directories {
            match unnamed(directory) {
                Ok(file) => {
                    return Ok(Self { file, directory: directory.clone(), slots: 0, free: Arc::default() });
                }
                Err(e) => refused = Some(at(directory, &e)),
            }
        }
        Err(refused.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
    }

    /// Writes the granules of a chunk that are `present` to a place of its own.
    pub(super) fn store(&mut self, bytes: &[u8], present: u128) -> io::Result<Arc<Slot>> {
        let reused = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let number = reused.unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        let slot = Slot { number, free: self.free.clone() };
        for (first, end) in runs(present) {
            let (from, to) = (u64::from(first) * GRANULE, u64::from(end) * GRANULE);
            let range = usize::try_from(from).unwrap_or(CHUNK_LEN)..usize::try_from(to).unwrap_or(CHUNK_LEN);
            let piece = bytes.get(range).unwrap_or_default();
            self.file.write_all_at(piece, slot.offset() + from).map_err(|e| at(&self.directory, &e))?;
        }
        Ok(Arc::new(slot))
    }

    /// Reads from byte `in_chunk` of a chunk.
    pub(super) fn read(&self, slot: &Slot, in_chunk: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, slot.offset() + in_chunk).map_err(|e| at(&self.directory, &e))
    }

    /// Reads a whole chunk; what of it was never stored is anything.
    pub(super) fn load(&self, slot: &Slot, present: u128) -> io::Result<Box<[u8]>> {
        let mut bytes = vec![0; CHUNK_LEN].into_boxed_slice();
        for (first, end) in runs(present) {
            let (from, to) = (u64::from(first) * GRANULE, u64::from(end) * GRANULE);
            let range = usize::try_from(from).unwrap_or(CHUNK_LEN)..usize::try_from(to).unwrap_or(CHUNK_LEN);
            self.read(slot, from, bytes.get_mut(range).unwrap_or_default())?;
        }
        Ok(bytes)
    }
}

/// A file without a name in a directory.
fn unnamed(directory: &Path) -> io::Result<File> {
    let unnamed = File::options()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_TMPFILE | nix::libc::O_CLOEXEC)
        .open(directory);
    match unnamed {
        // Some file systems have only files with names: one that goes at once.
        Err(e)
            if matches!(
                e.raw_os_error(),
                Some(nix::libc::EOPNOTSUPP | nix::libc::EISDIR | nix::libc::EINVAL)
            ) =>
        {
            tempfile::tempfile_in(directory)
        }
        made => made,
    }
}

/// The error with what it is about.
fn at(directory: &Path, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("{}: cannot keep what was changed in a temporary file there: {error}", directory.display()),
    )
}
