//! An archive as a stream of bytes: exact reads, and errors that say where.

use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use crate::content::STEP_BYTES;
use crate::decompress::{self, Kind as Decompression};
use crate::host::Source;
use crate::{Error, Result};

/// How much is read behind an archive's end.
pub(super) const DRAIN_BYTES: usize = 1 << 20;

/// The archive's bytes, decompressed, from front to back.
pub(crate) struct Stream<'r> {
    inner: Box<dyn Read + 'r>,
    /// What the user knows the archive as.
    path: PathBuf,
    position: u64,
}

impl<'r> Stream<'r> {
    /// The archive in `source`, and how many bytes it has: of a compressed one, nobody knows.
    ///
    /// `compression` is the one that the user named; without, it is recognised.
    pub(crate) fn open(
        source: &'r mut Source,
        compression: Option<Decompression>,
    ) -> Result<(Self, Option<u64>)> {
        let (path, total) = (source.path().to_owned(), source.size_bytes());
        let failed = |e: io::Error| match e.downcast::<Error>() {
            Ok(error) => error,
            Err(source) => Error::Host { path: path.clone(), doing: "cannot read", source },
        };
        let mut buffered = BufReader::with_capacity(STEP_BYTES, source);
        let found = Decompression::detect(buffered.fill_buf().map_err(failed)?);
        let inner: Box<dyn Read + 'r> = match compression {
            Some(kind) => kind.decoder(buffered).map_err(failed)?,
            None => decompress::plain(buffered).map_err(failed)?,
        };
        let total = total.filter(|_| compression.or(found).is_none());
        Ok((Self { inner, path, position: 0 }, total))
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
