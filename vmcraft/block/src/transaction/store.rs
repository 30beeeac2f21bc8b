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
    /// What the file may become: the journal of the first image, beside it or elsewhere.
    journals: Vec<PathBuf>,
    /// Where it is otherwise.
    directories: Vec<PathBuf>,
    spill: Option<Spill>,
}

impl Store {
    /// At most `limit` bytes in memory together with all others that share the gauge; the rest in a
    /// file that can become one of these journals, or in the first directory that takes one.
    pub(super) fn new(
        gauge: Arc<Gauge>,
        limit: usize,
        journals: Vec<PathBuf>,
        directories: Vec<PathBuf>,
    ) -> Self {
        Self { gauge, limit, journals, directories, spill: None }
    }

    pub(super) fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }

    /// The file, made now if there is none.
    pub(super) fn spill(&mut self) -> io::Result<&mut Spill> {
        if self.spill.as_ref().is_some_and(|spill| spill.is_published) {
            self.spill = None;
        }
        match &mut self.spill {
            Some(spill) => Ok(spill),
            none => Ok(none.insert(Spill::new(&self.journals, &self.directories)?)),
        }
    }

    /// Writes the granules of a chunk that are `present` to the file.
    pub(super) fn store(&mut self, bytes: &[u8], present: u128) -> io::Result<Arc<Slot>> {
        self.spill()?.store(bytes, present)
    }

    /// Begins another file when one is needed. The old one goes with the last chunk in it.
    pub(super) fn reset(&mut self) {
        self.spill = None;
    }
}
