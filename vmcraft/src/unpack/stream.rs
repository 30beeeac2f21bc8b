//! An archive as a stream of bytes: exact reads, and errors that say where.

use std::io::{self, Read};
use std::path::PathBuf;

use crate::{Error, Result};

/// The archive's bytes, decompressed, from front to back.
pub(crate) struct Stream<'r> {
    inner: Box<dyn Read + 'r>,
    /// What the user knows the archive as.
    path: PathBuf,
    position: u64,
}

impl<'r> Stream<'r> {
    pub(crate) fn new(inner: Box<dyn Read + 'r>, path: PathBuf) -> Self {
        Self { inner, path, position: 0 }
    }

    /// How many bytes were read.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// What is wrong with the archive, as in "member x: its name leads out".
    pub(crate) fn corrupt(&self, what: impl std::fmt::Display) -> Error {
        let what = format!("{what}, before byte {}", self.position);
        Error::Host {
            path: self.path.clone(),
            doing: "cannot unpack",
            source: io::Error::new(io::ErrorKind::InvalidData, what),
        }
    }

    fn failed(&self, error: io::Error) -> Error {
        match error.downcast::<Error>() {
            Ok(error) => error,
            Err(source) => Error::Host { path: self.path.clone(), doing: "cannot read", source },
        }
    }

    /// Reads as much as there is.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.inner.read(&mut buf[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed(e)),
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }

    /// Fills all of `buf`.
    pub(crate) fn read_exact(&mut self, buf: &mut [u8]) -> Result<()> {
        if self.read(buf)? == buf.len() {
            Ok(())
        } else {
            Err(self.corrupt("the archive ends in the middle"))
        }
    }

    /// Reads `len` bytes into memory, of which there may be `most`.
    pub(crate) fn read_vec(&mut self, len: u64, most: usize, what: &str) -> Result<Vec<u8>> {
        let Some(len) = usize::try_from(len).ok().filter(|len| *len <= most) else {
            return Err(self.corrupt(format_args!("{what} of {len} bytes, and at most {most} are taken")));
        };
        let mut bytes = vec![0; len];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads on to a multiple of `unit`.
    pub(crate) fn align(&mut self, unit: u64) -> Result<()> {
        self.skip(self.position.next_multiple_of(unit) - self.position)
    }

    /// Reads over `len` bytes.
    pub(crate) fn skip(&mut self, len: u64) -> Result<()> {
        let mut buf = [0; 16 * 1024];
        let mut left = len;
        while left > 0 {
            let step = usize::try_from(left).map_or(buf.len(), |left| left.min(buf.len()));
            self.read_exact(&mut buf[..step])?;
            left -= step as u64;
        }
        Ok(())
    }

    /// Reads what a program still writes behind the archive's end, within reason: it would be told of
    /// a broken pipe otherwise.
    pub(crate) fn drain(&mut self, most: usize) -> Result<()> {
        let mut buf = [0; 16 * 1024];
        let mut left = most;
        while left > 0 {
            match self.read(&mut buf)? {
                0 => break,
                n => left = left.saturating_sub(n),
            }
        }
        Ok(())
    }
}
