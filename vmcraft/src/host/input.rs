//! Files of the host that calls read.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use crate::content::{Run, STEP_BYTES};
use crate::host::Host;
use crate::value::FileIn;
use crate::{Error, Guest, Result};

/// A file or stream of the host, read from front to back.
///
/// Reading fails once the user interrupts the call.
pub(crate) struct Source {
    stream: Stream,
    /// What the user knows it as, for messages.
    path: PathBuf,
    /// How many bytes there are, if that is known.
    size_bytes: Option<u64>,
    /// How many were read, holes too.
    position: u64,
    cancel: Arc<AtomicBool>,
}

enum Stream {
    /// The handle's input, which is given back.
    Input(Box<dyn Read + Send>),
    File(File),
    /// A regular file that takes less space than its size says.
    Sparse(File),
}

impl Host {
    /// Opens a file that a call reads. A stream is to be given back by
    /// [`Host::close_input`].
    pub(crate) fn open_input(&mut self, file: &FileIn) -> Result<Source> {
        let cancel = self.cancel.clone();
        let path = match file {
            FileIn::Input => {
                let input = self
                    .input
                    .take()
                    .ok_or_else(|| Error::Usage("-: this handle has no standard input (set_input)".into()))?;
                let path = "standard input".into();
                return Ok(Source {
                    stream: Stream::Input(input),
                    path,
                    size_bytes: None,
                    position: 0,
                    cancel,
                });
            }
            FileIn::Path(path) => path,
        };
        let error = |source| Error::Host { path: path.clone(), doing: "cannot open", source };
        let file = File::open(path).map_err(error)?;
        let metadata = file.metadata().map_err(error)?;
        if metadata.is_dir() {
            return Err(error(io::ErrorKind::IsADirectory.into()));
        }
        let size_bytes = metadata.is_file().then_some(metadata.len());
        let is_sparse = size_bytes.is_some_and(|size| metadata.blocks().saturating_mul(512) < size);
        let stream = if is_sparse { Stream::Sparse(file) } else { Stream::File(file) };
        Ok(Source { stream, path: path.clone(), size_bytes, position: 0, cancel })
    }

    fn close_input(&mut self, source: Source) {
        if let Stream::Input(input) = source.stream {
            self.input = Some(input);
        }
    }
}

impl Guest {
    /// Runs `read` with the file that a call reads.
    pub(crate) fn read_from<T>(
        &mut self,
        file: &FileIn,
        read: impl FnOnce(&mut Self, &mut Source) -> Result<T>,
    ) -> Result<T> {
        let mut source = self.host.open_input(file)?;
        let result = read(self, &mut source);
        self.host.close_input(source);
        result
    }
}

impl Source {
    /// What the user knows it as.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// How many bytes there are, if that is known.
    pub(crate) fn size_bytes(&self) -> Option<u64> {
        self.size_bytes
    }

    /// What reading it, or a decoder above it, failed with.
    pub(crate) fn error(&self, source: io::Error) -> Error {
        match source.downcast::<Error>() {
            Ok(error) => error,
            Err(source) => Error::Host { path: self.path.clone(), doing: "cannot read", source },
        }
    }

    /// Shows all bytes in order, and holes as such where the host tells them apart. `show` is told
    /// beside each piece how many bytes were read so far.
    pub(crate) fn read_runs(&mut self, mut show: impl FnMut(Run<'_>, u64) -> Result<()>) -> Result<()> {
        let mut buf = vec![0; STEP_BYTES];
        loop {
            self.check_cancelled().map_err(|e| self.error(e))?;
            let (hole, data) = self.next_run().map_err(|e| self.error(e))?;
            if hole > 0 {
                self.position += hole;
                show(Run::Hole(hole), self.position)?;
            }
            let mut left = data;
            while left > 0 {
                let step = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
                let n = fill(self, &mut buf[..step]).map_err(|e| self.error(e))?;
                if n > 0 {
                    show(Run::Data(&buf[..n]), self.position)?;
                }
                if n < step {
                    return Ok(());
                }
                left -= n as u64;
            }
            if hole == 0 && data == 0 {
                return Ok(());
            }
        }
    }

    /// How long the hole here is, and how much data follows it. Of a stream, all is data.
    fn next_run(&mut self) -> io::Result<(u64, u64)> {
        let (Stream::Sparse(file), Some(size)) = (&mut self.stream, self.size_bytes) else {
            return Ok((0, u64::MAX));
        };
        let at = self.position;
        if at >= size {
            return Ok((0, 0));
        }
        let seek = |whence| {
            let offset = i64::try_from(at).map_err(|_| Errno::EOVERFLOW)?;
            lseek(&*file, offset, whence).map(|found| u64::try_from(found).unwrap_or(size).min(size))
        };
        let (data, end) = match seek(Whence::SeekData) {
            Ok(data) if data > at => (data, data),
            Ok(data) => (data, seek(Whence::SeekHole)?),
            Err(Errno::ENXIO) => (size, size),
            // A file system of the host that cannot tell.
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => (at, size),
            Err(errno) => return Err(errno.into()),
        };
        file.seek(SeekFrom::Start(data))?;
        Ok((data - at, end - data))
    }

    fn check_cancelled(&self) -> io::Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(io::Error::other(Error::Cancelled)) } else { Ok(()) }
    }
}

/// Reads as much as there is.
fn fill(source: &mut Source, buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match source.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

impl Read for Source {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.check_cancelled()?;
        let n = match &mut self.stream {
            Stream::Input(input) => input.read(buf)?,
            Stream::File(file) | Stream::Sparse(file) => file.read(buf)?,
        };
        self.position += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;

    use super::*;

    /// What is read of a file, with the lengths of its holes.
    fn read(guest: &mut Guest, file: &FileIn) -> Result<(Vec<u8>, Vec<u64>)> {
        let (mut content, mut holes) = (Vec::new(), Vec::new());
        guest.read_from(file, |_, source| {
            source.read_runs(|run, position| {
                match run {
                    Run::Data(data) => content.extend_from_slice(data),
                    Run::Hole(len) => {
                        holes.push(len);
                        content.resize(content.len() + usize::try_from(len).unwrap(), 0);
                    }
                }
                assert_eq!(position, content.len() as u64);
                Ok(())
            })
        })?;
        Ok((content, holes))
    }

    #[test]
    fn holes_of_the_host_are_holes() {
        let dir = testkit::tempdir();
        let path = dir.path().join("file");
        let file = fs::File::create(&path).unwrap();
        file.write_all_at(&[1; 5000], 8 << 20).unwrap();
        file.set_len(20 << 20).unwrap();
        let (content, holes) = read(&mut Guest::new(), &FileIn::Path(path.clone())).unwrap();
        assert!(content == fs::read(&path).unwrap(), "the content differs");
        assert_eq!(holes.len(), 2, "{holes:?}");
        for content in [&b""[..], b"short", &[7; (1 << 20) + 1]] {
            fs::write(&path, content).unwrap();
            assert!(
                read(&mut Guest::new(), &FileIn::Path(path.clone())).unwrap() == (content.into(), vec![])
            );
        }
    }

    #[test] // A pipe gives short reads, and the input is there for the next call.
    fn standard_input_is_read_and_given_back() {
        let mut guest = Guest::new();
        let missing = read(&mut guest, &FileIn::Input).unwrap_err();
        assert_eq!(missing.to_string(), "-: this handle has no standard input (set_input)");
        guest.set_input(Box::new(io::Cursor::new(vec![5; 3 << 20])));
        assert_eq!(read(&mut guest, &FileIn::Input).unwrap().0.len(), 3 << 20);
        assert_eq!(read(&mut guest, &FileIn::Input).unwrap().0.len(), 0);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let mut guest = Guest::new();
        let missing = read(&mut guest, &FileIn::Path("/nonexistent/file".into())).unwrap_err();
        assert_eq!(
            (missing.errno(), missing.to_string().starts_with("/nonexistent/file: cannot open")),
            (2, true)
        );
        let directory = read(&mut guest, &FileIn::Path("/".into())).unwrap_err();
        assert!(directory.to_string().starts_with("/: cannot open: "), "{directory}");
        guest.cancel_flag().store(true, Ordering::Relaxed);
        let cancelled = read(&mut guest, &FileIn::Path("/dev/zero".into())).unwrap_err();
        assert!(matches!(cancelled, Error::Cancelled), "{cancelled}");
    }
}
