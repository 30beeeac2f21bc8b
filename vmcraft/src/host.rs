//! What a handle needs of its host: where `-` leads, progress, interruption.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::value::{FileIn, FileOut};
use crate::{Error, Result};

/// How far a long call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// How much is done.
    pub position: u64,
    /// How much there is, in the same unit; 0 if that is not known.
    pub total: u64,
}

/// What is called as a long call goes on.
pub(crate) type OnProgress = Box<dyn FnMut(Progress) + Send>;

/// The host's side of a handle.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) input: Option<Box<dyn Read + Send>>,
    pub(crate) output: Option<Box<dyn Write + Send>>,
    pub(crate) progress: Option<OnProgress>,
    pub(crate) cancel: Arc<AtomicBool>,
}

impl Host {
    /// Fails if the user interrupted the call.
    pub(crate) fn check_cancelled(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Says how far the call is, and fails if the user interrupted it.
    pub(crate) fn step(&mut self, progress: Progress) -> Result<()> {
        if let Some(on_progress) = &mut self.progress {
            on_progress(progress);
        }
        self.check_cancelled()
    }

    /// Runs `write` with the file that a call writes.
    ///
    /// A regular file appears under its name only when `write` has succeeded; what was there before
    /// stays until then.
    pub(crate) fn write_to(
        &mut self,
        file: &FileOut,
        write: impl FnOnce(&mut Self, &mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        match file {
            FileOut::Output => {
                let mut output = self.output.take().ok_or_else(|| {
                    Error::Usage("-: this handle has no standard output (set_output)".into())
                })?;
                let result = write(self, &mut output)
                    .and_then(|()| output.flush().map_err(|source| Self::output_error(file, source)));
                self.output = Some(output);
                result
            }
            FileOut::Path(path) => self.write_to_path(path, write),
        }
    }

    fn write_to_path(
        &mut self,
        path: &Path,
        write: impl FnOnce(&mut Self, &mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let error = |doing, source| Error::Host { path: path.to_owned(), doing, source };
        match path.metadata() {
            Ok(found) if found.is_dir() => {
                return Err(error("cannot write", io::Error::from(io::ErrorKind::IsADirectory)));
            }
            // Pipes, terminals and devices are written as they are; so is what a link leads to.
            Ok(found) if !found.is_file() || path.is_symlink() => {
                let mut file = File::options()
                    .write(true)
                    .truncate(found.is_file())
                    .open(path)
                    .map_err(|e| error("cannot open", e))?;
                return write(self, &mut file);
            }
            _ => {}
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut temporary = tempfile::Builder::new()
            .prefix(".vmcraft-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .tempfile_in(dir)
            .map_err(|e| error("cannot create", e))?;
        write(self, temporary.as_file_mut())?;
        temporary.persist(path).map_err(|e| error("cannot create", e.error))?;
        Ok(())
    }

    /// Runs `read` with the file that a call reads.
    pub(crate) fn read_from(
        &mut self,
        file: &FileIn,
        read: impl FnOnce(&mut Self, &mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        match file {
            FileIn::Input => {
                let mut input = self
                    .input
                    .take()
                    .ok_or_else(|| Error::Usage("-: this handle has no standard input (set_input)".into()))?;
                let result = read(self, &mut input);
                self.input = Some(input);
                result
            }
            FileIn::Path(path) => {
                let mut opened = File::open(path).map_err(|source| Error::Host {
                    path: path.clone(),
                    doing: "cannot open",
                    source,
                })?;
                read(self, &mut opened)
            }
        }
    }

    /// A failed write to what a call writes.
    pub(crate) fn output_error(file: &FileOut, source: io::Error) -> Error {
        let path = match file {
            FileOut::Path(path) => path.clone(),
            FileOut::Output => "standard output".into(),
        };
        Error::Host { path, doing: "cannot write", source }
    }
}
