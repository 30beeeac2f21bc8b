//! What a handle needs of its host: where `-` leads, progress, interruption.

mod input;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use vmcraft_fs::Timestamp;

pub(crate) use self::input::Source;
use crate::value::FileOut;
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

/// What the time is, if it is not the host's. Clones show the same time.
#[derive(Clone, Default)]
pub(crate) struct Clock(Arc<Mutex<Option<Timestamp>>>);

impl Clock {
    pub(crate) fn get(&self) -> Option<Timestamp> {
        *self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(crate) fn set(&self, now: Option<Timestamp>) {
        *self.0.lock().unwrap_or_else(|e| e.into_inner()) = now;
    }
}

/// The host's side of a handle.
#[derive(Default)]
pub(crate) struct Host {
    pub(crate) input: Option<Box<dyn Read + Send>>,
    pub(crate) output: Option<Box<dyn Write + Send>>,
    pub(crate) progress: Option<OnProgress>,
    pub(crate) cancel: Arc<AtomicBool>,
    pub(crate) clock: Clock,
}

impl Host {
    /// Fails if the user interrupted the call.
    pub(crate) fn check_cancelled(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// The time now.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.get().unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
            Timestamp { seconds, nanoseconds: since.subsec_nanos() }
        })
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
        write: impl FnOnce(&mut Self, &mut Sink<'_>) -> Result<()>,
    ) -> Result<()> {
        match file {
            FileOut::Output => {
                let mut output = self.output.take().ok_or_else(|| {
                    Error::Usage("-: this handle has no standard output (set_output)".into())
                })?;
                let mut sink = Sink::new(Target::Stream(&mut output), "standard output".into());
                let result = write(self, &mut sink).and_then(|()| sink.finish());
                self.output = Some(output);
                result
            }
            FileOut::Path(path) => self.write_to_path(path, write),
        }
    }

    fn write_to_path(
        &mut self,
        path: &Path,
        write: impl FnOnce(&mut Self, &mut Sink<'_>) -> Result<()>,
    ) -> Result<()> {
        let error = |doing, source| Error::Host { path: path.to_owned(), doing, source };
        match path.metadata() {
            Ok(found) if found.is_dir() => {
                return Err(error("cannot write", io::Error::from(io::ErrorKind::IsADirectory)));
            }
            // Pipes, terminals and devices are written as they are; so is what a link leads to.
            Ok(found) if !found.is_file() || path.is_symlink() => {
                let mut opened = File::options()
                    .write(true)
                    .truncate(found.is_file())
                    .open(path)
                    .map_err(|e| error("cannot open", e))?;
                let target =
                    if found.is_file() { Target::File(&mut opened) } else { Target::Stream(&mut opened) };
                let mut sink = Sink::new(target, path.to_owned());
                write(self, &mut sink)?;
                return sink.finish();
            }
            _ => {}
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut temporary = tempfile::Builder::new()
            .prefix(".vmcraft-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .tempfile_in(dir)
            .map_err(|e| error("cannot create", e))?;
        let mut sink = Sink::of_file(temporary.as_file_mut(), path.to_owned());
        write(self, &mut sink)?;
        sink.finish()?;
        temporary.persist(path).map_err(|e| error("cannot create", e.error))?;
        Ok(())
    }
}

/// What a call writes to: a file of the host or a stream.
pub(crate) struct Sink<'a> {
    target: Target<'a>,
    /// What the user knows it as, for messages.
    path: PathBuf,
    /// How many bytes were written, holes too.
    position: u64,
    /// Whether the last thing was a hole, which the file's length does not show yet.
    ends_in_hole: bool,
}

enum Target<'a> {
    Stream(&'a mut dyn Write),
    /// An empty regular file, in which skipped bytes are holes.
    File(&'a mut File),
}

impl<'a> Sink<'a> {
    fn new(target: Target<'a>, path: PathBuf) -> Self {
        Self { target, path, position: 0, ends_in_hole: false }
    }

    /// Writes an empty regular file, which the user knows as `path`.
    pub(crate) fn of_file(file: &'a mut File, path: PathBuf) -> Self {
        Self::new(Target::File(file), path)
    }

    /// What the user knows it as.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes all of `bytes`.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes).map_err(|source| self.error(source))
    }

    /// Writes `len` zeros: where that is possible, as a hole.
    pub(crate) fn put_hole(&mut self, len: u64) -> Result<()> {
        let result = match &mut self.target {
            Target::File(file) => match i64::try_from(len) {
                Ok(step) => file.seek(SeekFrom::Current(step)).map(drop),
                Err(_) => Err(io::ErrorKind::FileTooLarge.into()),
            },
            Target::Stream(stream) => put_zeros(stream, len),
        };
        result.map_err(|source| self.error(source))?;
        self.position += len;
        self.ends_in_hole = len > 0 || self.ends_in_hole;
        Ok(())
    }

    /// A failed write, with the name of what is written.
    pub(crate) fn error(&self, source: io::Error) -> Error {
        Error::Host { path: self.path.clone(), doing: "cannot write", source }
    }

    /// Completes what was written.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let result = match &mut self.target {
            Target::File(file) if self.ends_in_hole => file.set_len(self.position),
            Target::File(_) => Ok(()),
            Target::Stream(stream) => stream.flush(),
        };
        result.map_err(|source| self.error(source))
    }
}

fn put_zeros(stream: &mut dyn Write, len: u64) -> io::Result<()> {
    let zeros = [0; 64 * 1024];
    let mut left = len;
    while left > 0 {
        let step = usize::try_from(left).map_or(zeros.len(), |left| left.min(zeros.len()));
        stream.write_all(&zeros[..step])?;
        left -= step as u64;
    }
    Ok(())
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = match &mut self.target {
            Target::Stream(stream) => stream.write(bytes)?,
            Target::File(file) => file.write(bytes)?,
        };
        self.position += n as u64;
        self.ends_in_hole &= n == 0;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.target {
            Target::Stream(stream) => stream.flush(),
            Target::File(file) => file.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(dir: &Path) -> Vec<std::ffi::OsString> {
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test] // No part of a file stands under its final name, and the old content stays until the new is whole.
    fn a_failed_write_leaves_what_was_there() {
        let dir = testkit::tempdir();
        let path = dir.path().join("file");
        let file = FileOut::Path(path.clone());
        let mut host = Host::default();
        let fail = |_: &mut Host, sink: &mut Sink<'_>| {
            sink.put(b"part")?;
            Err(Error::Cancelled)
        };
        assert!(host.write_to(&file, fail).is_err());
        assert!(names(dir.path()).is_empty());
        host.write_to(&file, |_, sink| sink.put(b"old")).unwrap();
        assert!(host.write_to(&file, fail).is_err());
        assert_eq!((fs::read(&path).unwrap(), names(dir.path()).len()), (b"old".to_vec(), 1));
        host.write_to(&file, |_, sink| sink.put(b"new")).unwrap();
        assert_eq!((fs::read(&path).unwrap(), names(dir.path()).len()), (b"new".to_vec(), 1));
        // A new file has the permissions that the user's umask leaves, not those of a secret.
        fs::write(dir.path().join("other"), "").unwrap();
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode("file"), mode("other"));
    }

    #[test]
    fn a_full_disk_names_the_file() {
        let full = Host::default()
            .write_to(&FileOut::Path("/dev/full".into()), |_, sink| sink.put(&[0; 1 << 16]))
            .unwrap_err();
        assert_eq!(full.to_string(), "/dev/full: cannot write: No space left on device (os error 28)");
        assert_eq!(full.errno(), 28);
    }

    #[test]
    fn a_full_disk_leaves_no_part() {
        if !testkit::have_root() {
            return testkit::skip("mounting a tmpfs needs root");
        }
        let dir = testkit::tempdir();
        let at = dir.path();
        testkit::run_ok("mount", ["-t", "tmpfs", "-o", "size=64k", "none", at.to_str().unwrap()]);
        let result =
            Host::default().write_to(&FileOut::Path(at.join("file")), |_, sink| sink.put(&vec![1; 1 << 20]));
        let left = names(at);
        testkit::run_ok("umount", [at]);
        assert_eq!(result.unwrap_err().errno(), 28);
        assert!(left.is_empty(), "{left:?}");
    }

    #[test] // `vmcraft … download FILE - | head`
    fn a_broken_pipe_is_an_error_that_names_it() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut host = Host { output: Some(Box::new(writer)), ..Host::default() };
        let broken = host.write_to(&FileOut::Output, |_, sink| sink.put(b"x")).unwrap_err();
        assert_eq!(broken.to_string(), "standard output: cannot write: Broken pipe (os error 32)");
        assert!(host.output.is_some(), "the output is still there for the next call");
    }

    #[test] // What is written is what was asked for even where no hole can be.
    fn holes_and_data_alternate() {
        let dir = testkit::tempdir();
        let path = dir.path().join("file");
        let write = |_: &mut Host, sink: &mut Sink<'_>| {
            sink.put_hole(5)?;
            sink.put(b"ab")?;
            sink.put_hole(3)?;
            sink.put_hole(0)
        };
        let expected = b"\0\0\0\0\0ab\0\0\0";
        let mut host = Host::default();
        host.write_to(&FileOut::Path(path.clone()), write).unwrap();
        assert_eq!(fs::read(&path).unwrap(), expected);
        let (mut reader, writer) = io::pipe().unwrap();
        host.output = Some(Box::new(writer));
        host.write_to(&FileOut::Output, write).unwrap();
        drop(host);
        let mut streamed = Vec::new();
        reader.read_to_end(&mut streamed).unwrap();
        assert_eq!(streamed, expected);
    }
}
