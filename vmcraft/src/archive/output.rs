//! The buffer that an archive is put together in.

use std::io::Write;
use std::path::PathBuf;

use vmcraft_fs::{FileSystem, InodeNumber};

use crate::archive::compress::{Compression, Encoder};
use crate::content::read_exact;
use crate::host::{Host, Sink};
use crate::{Error, Progress, Result};

/// How many bytes are collected before they are compressed or written.
const BUFFER_BYTES: usize = 256 * 1024;

/// A smaller piece of content than this is not read into what is left of the buffer: the buffer is
/// written first.
const SMALLEST_PIECE: usize = 32 * 1024;

/// Where an archive goes. Content is read right into its buffer.
pub(crate) struct Output<'a, 's> {
    host: &'a mut Host,
    encoder: Encoder<&'a mut Sink<'s>>,
    /// What the user knows the archive as.
    path: PathBuf,
    buffer: Vec<u8>,
    filled: usize,
    /// How many bytes were put before what is in the buffer.
    flushed: u64,
}

impl<'a, 's> Output<'a, 's> {
    pub(crate) fn new(
        host: &'a mut Host,
        sink: &'a mut Sink<'s>,
        compression: Option<Compression>,
    ) -> Result<Self> {
        let path = sink.path().to_owned();
        let encoder = Compression::encoder(compression, sink, &path)?;
        Ok(Self { host, encoder, path, buffer: vec![0; BUFFER_BYTES], filled: 0, flushed: 0 })
    }

    /// How many bytes were put so far.
    pub(crate) fn position(&self) -> u64 {
        self.flushed + self.filled as u64
    }

    pub(crate) fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let spare = self.spare(1)?;
            let (now, later) = bytes.split_at(spare.len().min(bytes.len()));
            spare[..now.len()].copy_from_slice(now);
            self.filled += now.len();
            bytes = later;
        }
        Ok(())
    }

    pub(crate) fn put_zeros(&mut self, mut len: u64) -> Result<()> {
        while len > 0 {
            let spare = self.spare(1)?;
            let now = usize::try_from(len).map_or(spare.len(), |len| len.min(spare.len()));
            spare[..now].fill(0);
            self.filled += now;
            len -= now as u64;
        }
        Ok(())
    }

    /// Puts zeros up to a multiple of `unit` bytes.
    pub(crate) fn pad(&mut self, unit: u64) -> Result<()> {
        self.put_zeros(self.position().next_multiple_of(unit) - self.position())
    }

    /// Puts the bytes of a file from `start` to `end`, which are within its size. `fail` adds the
    /// path to the driver's error.
    pub(crate) fn put_content(
        &mut self,
        filesystem: &dyn FileSystem,
        inode: InodeNumber,
        start: u64,
        end: u64,
        fail: impl Fn(vmcraft_fs::Error) -> Error,
    ) -> Result<()> {
        let mut at = start;
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            let spare = self.spare(left.min(SMALLEST_PIECE))?;
            let now = left.min(spare.len());
            read_exact(filesystem, inode, at, &mut spare[..now]).map_err(&fail)?;
            self.filled += now;
            at += now as u64;
        }
        Ok(())
    }

    /// Completes the compressed stream.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.flush()?;
        let path = self.path;
        self.encoder.finish().map_err(|source| Error::Host { path, doing: "cannot write", source })
    }

    /// What is free of the buffer: at least `len` bytes, which are not more than the whole.
    fn spare(&mut self, len: usize) -> Result<&mut [u8]> {
        if self.buffer.len() - self.filled < len {
            self.flush()?;
        }
        Ok(&mut self.buffer[self.filled..])
    }

    fn flush(&mut self) -> Result<()> {
        self.encoder.write_all(&self.buffer[..self.filled]).map_err(|source| Error::Host {
            path: self.path.clone(),
            doing: "cannot write",
            source,
        })?;
        self.flushed += self.filled as u64;
        self.filled = 0;
        self.host.step(Progress { position: self.flushed, total: 0 })
    }
}
