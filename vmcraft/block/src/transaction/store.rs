//! Where new content is kept: in memory up to a limit, then in a file.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::chunk::Gauge;
use super::spill::{Slot, Spill};

/// The memory and the spill file of a transaction.
pub(super) struct Store {
    gauge: Arc<Gauge>,
    /// How many bytes of chunks may be in memory.
    pub(super) limit: usize,
    directories: Vec<PathBuf>,
    spill: Option<Spill>,
}

impl Store {
    /// At most `limit` bytes in memory; the rest in a file in the first directory that takes one.
    pub(super) fn new(limit: usize, directories: Vec<PathBuf>) -> Self {
        Self { gauge: Arc::default(), limit, directories, spill: None }
    }

    pub(super) fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }

    /// Writes the granules of a chunk that are `present` to the file.
    pub(super) fn store(&mut self, bytes: &[u8], present: u128) -> io::Result<Arc<Slot>> {
        let spill = match &mut self.spill {
            Some(spill) => spill,
            none => none.insert(Spill::new(&self.directories)?),
        };
        spill.store(bytes, present)
    }

    /// Reads from byte `in_chunk` of a chunk in the file.
    pub(super) fn read(&self, slot: &Slot, in_chunk: u64, buf: &mut [u8]) -> io::Result<()> {
        self.spill.as_ref().ok_or(io::ErrorKind::NotFound)?.read(slot, in_chunk, buf)
    }

    /// Reads a chunk in the file.
    pub(super) fn load(&self, slot: &Slot, present: u128) -> io::Result<Box<[u8]>> {
        self.spill.as_ref().ok_or(io::ErrorKind::NotFound)?.load(slot, present)
    }

    /// Gives the file's space back. No chunk may be in it any more.
    pub(super) fn reset(&mut self) {
        self.spill = None;
    }
}
