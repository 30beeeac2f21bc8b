//! The file that takes chunks when memory is full, and becomes the journal of the next commit.
//!
//! It has no name until it is complete, so a crash leaves none behind. Where the host's file system
//! knows no files without names it has a name of its own, which the next session removes.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc;

use super::chunk::{CHUNK, CHUNK_LEN, runs};
use super::section::{HEADER, crc_of, granules};

/// What the name of a file ends in that is no journal yet.
const UNFINISHED: &str = ".new";

/// A file in which chunks have places.
pub(super) struct Spill {
    pub(super) file: Arc<SpillFile>,
    /// The name that it gets as a journal; `None` where it cannot become one.
    pub(super) journal: Option<PathBuf>,
    /// How many places there are.
    slots: u64,
    /// Whether it became a journal: it cannot become one again.
    pub(super) is_published: bool,
}

/// The open file.
pub(super) struct SpillFile {
    pub(super) file: File,
    /// The directory that it is in, for messages.
    directory: PathBuf,
    /// The name that it has until it is a journal, if it needs one.
    name: Mutex<Option<PathBuf>>,
    /// The places that nobody has.
    free: Mutex<Vec<u64>>,
}

/// A chunk's place in the file, given back when it is dropped.
pub(super) struct Slot {
    file: Arc<SpillFile>,
    number: u64,
    /// The granules that were written to it.
    present: u128,
    crc: u32,
}

impl Slot {
    /// Where it begins in the file, in bytes.
    pub(super) fn offset(&self) -> u64 {
        HEADER + self.number * CHUNK
    }

    /// The CRC-32C of its granules, if it holds exactly these.
    pub(super) fn crc(&self, present: u128) -> Option<u32> {
        (self.present == present).then_some(self.crc)
    }

    /// Whether it is in this file.
    pub(super) fn is_in(&self, file: &Arc<SpillFile>) -> bool {
        Arc::ptr_eq(&self.file, file)
    }

    /// Reads from byte `in_chunk` of the chunk.
    pub(super) fn read(&self, in_chunk: u64, buf: &mut [u8]) -> io::Result<()> {
        let read = self.file.file.read_exact_at(buf, self.offset() + in_chunk);
        read.map_err(|e| self.file.error(&e))
    }

    /// Reads a whole chunk; what of it is not `present` is zeros.
    pub(super) fn load(&self, present: u128) -> io::Result<Box<[u8]>> {
        let mut bytes = vec![0; CHUNK_LEN].into_boxed_slice();
        for (first, end) in runs(present) {
            let range = granules(first, end);
            self.read(range.start as u64, bytes.get_mut(range).unwrap_or_default())?;
        }
        Ok(bytes)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.file.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
    }
}

impl SpillFile {
    /// The error with what it is about.
    pub(super) fn error(&self, error: &io::Error) -> io::Error {
        at(&self.directory, error)
    }
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        if let Some(name) = self.name.get_mut().unwrap_or_else(PoisonError::into_inner) {
            // The next session removes it otherwise.
            let _ = fs::remove_file(name);
        }
    }
}

impl Spill {
    /// A file that can become one of these journals, the first that can be, else one in the first of
    /// the directories that takes one.
    pub(super) fn new(journals: &[PathBuf], directories: &[PathBuf]) -> io::Result<Self> {
        let mut refused = None;
        let journals = journals.iter().filter_map(|path| Some((path.parent()?, Some(path))));
        let directories = directories.iter().map(|directory| (directory.as_path(), None));
        for (directory, journal) in journals.chain(directories) {
            match create(directory, journal.map(PathBuf::as_path)) {
                Ok((file, name)) => {
                    let directory = directory.to_owned();
                    let file = Arc::new(SpillFile {
                        file,
                        directory,
                        name: Mutex::new(name),
                        free: Mutex::default(),
                    });
                    return Ok(Self { file, journal: journal.cloned(), slots: 0, is_published: false });
                }
                Err(e) => refused = refused.or(Some(at(directory, &e))),
            }
        }
        Err(refused.unwrap_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "there is no directory for what was changed: for disks that are no files of this host one has \
                 to be given",
            )
        }))
    }

    /// Writes the granules of a chunk that are `present` to a place of its own.
    pub(super) fn store(&mut self, bytes: &[u8], present: u128) -> io::Result<Arc<Slot>> {
        let reused = self.file.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let number = reused.unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        let slot = Slot { file: self.file.clone(), number, present, crc: crc_of(bytes, present) };
        for (first, end) in runs(present) {
            let range = granules(first, end);
            let to = slot.offset() + range.start as u64;
            let piece = bytes.get(range).unwrap_or_default();
            self.file.file.write_all_at(piece, to).map_err(|e| self.file.error(&e))?;
        }
        Ok(Arc::new(slot))
    }

    /// Where the last place ends.
    pub(super) fn end(&self) -> u64 {
        HEADER + self.slots * CHUNK
    }

    /// Gives back the space of the places behind the last one that somebody has.
    pub(super) fn shrink(&mut self) {
        let mut free = self.file.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.sort_unstable();
        while self.slots > 0 && free.last() == Some(&(self.slots - 1)) {
            free.pop();
            self.slots -= 1;
        }
        // The space is only not given back then.
        let _ = self.file.file.set_len(self.end());
    }

    /// Gives the file the journal's name, which nothing has. From then on it is a journal.
    pub(super) fn publish(&mut self, journal: &Path) -> io::Result<()> {
        let mut name = self.file.name.lock().unwrap_or_else(PoisonError::into_inner);
        match &*name {
            Some(now) => fs::rename(now, journal)?,
            None => {
                let source = format!("/proc/self/fd/{}", self.file.file.as_raw_fd());
                nix::unistd::linkat(
                    AT_FDCWD,
                    source.as_str(),
                    AT_FDCWD,
                    journal,
                    AtFlags::AT_SYMLINK_FOLLOW,
                )?;
            }
        }
        *name = None;
        self.is_published = true;
        Ok(())
    }
}

/// The name of a file until it is this journal, where it needs one.
pub(super) fn unfinished_name(journal: &Path) -> PathBuf {
    let mut name = OsString::from(journal);
    name.push(UNFINISHED);
    name.into()
}

/// A file without a name in a directory, or else one with a name until it is a journal.
fn create(directory: &Path, journal: Option<&Path>) -> io::Result<(File, Option<PathBuf>)> {
    let options = |flags| {
        let mut options = File::options();
        options.read(true).write(true).mode(0o600).custom_flags(flags | libc::O_CLOEXEC);
        options
    };
    match options(libc::O_TMPFILE).open(directory) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) => {}
        made => return Ok((made?, None)),
    }
    let Some(journal) = journal else { return Ok((tempfile::tempfile_in(directory)?, None)) };
    let name = unfinished_name(journal);
    // One that is there is of a session that ended: this one has the image's lock.
    match fs::remove_file(&name) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let file = options(0).create_new(true).open(&name)?;
    Ok((file, Some(name)))
}

/// The error with what it is about.
fn at(directory: &Path, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("{}: what was changed cannot be kept in a file there: {error}", directory.display()),
    )
}
