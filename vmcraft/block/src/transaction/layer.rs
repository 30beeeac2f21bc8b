//! What was changed on one disk: chunks of new content over cleared ranges over the disk below.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use super::chunk::{Body, Buffer, CHUNK, CHUNK_LEN, Chunk, GRANULE, mask, next_present, run_of_present};
use super::cleared::{Cleared, Clearing};
use super::store::Store;
use crate::{BlockDevice, Extent};

/// What a byte of the disk comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A chunk.
    New,
    /// A cleared range: zeros.
    Zeros,
    /// The disk below.
    Below,
}

/// The changes of one disk.
#[derive(Default)]
pub(super) struct Layer {
    chunks: BTreeMap<u64, Chunk>,
    cleared: Arc<Cleared>,
    saved: Option<Saved>,
}

/// What a layer was at a savepoint, as far as it has changed since.
struct Saved {
    chunks: HashMap<u64, Option<Chunk>>,
    cleared: Arc<Cleared>,
}

impl Layer {
    /// Whether nothing was changed.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.cleared.is_empty()
    }

    /// The chunks in order.
    pub(super) fn chunks(&self) -> impl Iterator<Item = (u64, &Chunk)> {
        self.chunks.iter().map(|(index, chunk)| (*index, chunk))
    }

    /// Whether the content of a chunk is in memory.
    pub(super) fn is_in_memory(&self, index: u64) -> bool {
        self.chunks.get(&index).is_some_and(|chunk| matches!(chunk.body, Body::Memory(_)))
    }

    /// How many chunks there are.
    pub(super) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// The parts of cleared ranges that nothing was written to since: start, end (exclusive), kind.
    pub(super) fn cleared(&self, size: u64) -> Vec<(u64, u64, Clearing)> {
        let mut visible = Vec::new();
        for (start, end, kind) in self.cleared.iter() {
            let mut at = start;
            while at < end {
                let (source, to) = self.piece(at, end, size);
                if source == Source::Zeros {
                    visible.push((at, to, kind));
                }
                at = to;
            }
        }
        visible
    }

    /// How much of the new content lies where the disk below has holes: what it grows by, about.
    pub(super) fn bytes_over_holes(&self, below: &dyn BlockDevice) -> io::Result<u64> {
        let (mut bytes, mut hole) = (0, 0..0);
        for (index, chunk) in &self.chunks {
            let start = index * CHUNK;
            let new = u64::from(chunk.present.count_ones()) * GRANULE;
            if let Some(extents) = below.extents().filter(|_| !hole.contains(&start)) {
                let extent = extents.extent_at(start)?;
                hole = if extent.is_hole { start..start + extent.len } else { 0..0 };
            }
            if below.extents().is_some() && hole.contains(&start) {
                bytes += new;
            }
        }
        Ok(bytes)
    }

    /// Remembers the layer as it is now.
    pub(super) fn save(&mut self) {
        self.saved = Some(Saved { chunks: HashMap::new(), cleared: self.cleared.clone() });
    }

    /// Goes back to what was remembered. Gives the chunks that have come back.
    pub(super) fn restore(&mut self) -> Vec<u64> {
        let Some(saved) = self.saved.take() else { return Vec::new() };
        self.cleared = saved.cleared;
        let mut back = Vec::new();
        for (index, chunk) in saved.chunks {
            match chunk {
                Some(chunk) => {
                    self.chunks.insert(index, chunk);
                    back.push(index);
                }
                None => {
                    self.chunks.remove(&index);
                }
            }
        }
        back
    }

    /// Forgets what was remembered.
    pub(super) fn release(&mut self) {
        self.saved = None;
    }

    /// Forgets all changes.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What byte `at` comes from, and up to where (exclusive, `end` at most) the next bytes do too.
    pub(super) fn piece(&self, at: u64, end: u64, size: u64) -> (Source, u64) {
        let index = at / CHUNK;
        let granule = granule(at);
        // A chunk may end after the disk.
        let end = end.min(size);
        let in_chunk = |granules: u32| (index * CHUNK + u64::from(granules) * GRANULE).min(end);
        let chunk = self.chunks.get(&index);
        let run = chunk.map_or(0, |chunk| run_of_present(chunk.present, granule));
        if run > 0 {
            return (Source::New, in_chunk(granule + run));
        }
        let here = chunk.and_then(|chunk| next_present(chunk.present, granule)).map(in_chunk);
        let new = here.or_else(|| {
            let (index, chunk) = self.chunks.range(index + 1..).next()?;
            Some(index * CHUNK + u64::from(chunk.present.trailing_zeros()) * GRANULE)
        });
        let end = new.map_or(end, |new| new.min(end));
        match self.cleared.end_at(at) {
            Some(to) => (Source::Zeros, to.min(end)),
            None => (Source::Below, self.cleared.next_start(at).map_or(end, |start| start.min(end))),
        }
    }

    /// The run of bytes of one kind from `at` on.
    pub(super) fn extent(&self, at: u64, below: &dyn BlockDevice) -> io::Result<Extent> {
        let size = below.size();
        let (source, mut to) = self.piece(at, size, size);
        if source == Source::Below {
            let extents = below.extents().ok_or(io::ErrorKind::Unsupported)?;
            let extent = extents.extent_at(at)?;
            return Ok(Extent { offset: at, len: extent.len.min(to - at), is_hole: extent.is_hole });
        }
        while to < size {
            let (next, end) = self.piece(to, size, size);
            if next != source {
                break;
            }
            to = end;
        }
        Ok(Extent { offset: at, len: to - at, is_hole: source == Source::Zeros })
    }

    /// Fills `buf` from byte `offset`. The range has been checked.
    pub(super) fn read(&self, below: &dyn BlockDevice, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.is_empty() {
            return below.read_at(offset, buf);
        }
        let end = offset + buf.len() as u64;
        let (mut at, mut rest) = (offset, buf);
        while at < end {
            let (source, to) = self.piece(at, end, below.size());
            // Within the buffer.
            let (now, later) = rest.split_at_mut(length(to - at));
            match source {
                Source::Below => below.read_at(at, now)?,
                Source::Zeros => now.fill(0),
                Source::New => self.read_chunk(at, now)?,
            }
            (at, rest) = (to, later);
        }
        Ok(())
    }

    /// Reads what is all in one chunk.
    fn read_chunk(&self, at: u64, buf: &mut [u8]) -> io::Result<()> {
        let from = length(at % CHUNK);
        match self.chunks.get(&(at / CHUNK)).map(|chunk| &chunk.body) {
            Some(Body::Memory(buffer)) => {
                let bytes = buffer.bytes().get(from..from + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
                buf.copy_from_slice(bytes);
                Ok(())
            }
            Some(Body::Spilled(slot)) => slot.read(at % CHUNK, buf),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Takes new content that lies within one chunk. `true` if the chunk was not in memory before.
    pub(super) fn write(
        &mut self,
        store: &Store,
        below: &dyn BlockDevice,
        offset: u64,
        data: &[u8],
    ) -> io::Result<bool> {
        let size = below.size();
        let (index, end) = (offset / CHUNK, offset + data.len() as u64);
        let start_of_chunk = index * CHUNK;
        // The granules at both ends are kept whole: what the data leaves out of them comes from below.
        let first = granule(offset);
        let last = granule(end - 1);
        let head = self.rest_of_granule(below, offset, end, offset)?;
        let tail = if last == first && head.is_some() {
            None
        } else {
            self.rest_of_granule(below, offset, end, end - 1)?
        };
        let present = mask(first, last + 1);
        let old = self.chunks.get(&index);
        let is_new = !matches!(old, Some(Chunk { body: Body::Memory(_), .. }));
        let loaded = match old {
            _ if data.len() == CHUNK_LEN => Some(Box::from(data)),
            None => Some(vec![0; CHUNK_LEN].into_boxed_slice()),
            Some(Chunk { body: Body::Spilled(slot), present }) => Some(slot.load(*present)?),
            Some(Chunk { body: Body::Memory(_), .. }) => None,
        };
        // From here on nothing fails.
        self.remember(index);
        if let Some(bytes) = loaded {
            let body = Body::Memory(Arc::new(Buffer::new(bytes, store.gauge())));
            let chunk = self.chunks.entry(index).or_insert_with(|| Chunk { present: 0, body: body.clone() });
            chunk.body = body;
        }
        let Some(Chunk { present: known, body: Body::Memory(buffer) }) = self.chunks.get_mut(&index) else {
            return Ok(is_new);
        };
        if data.len() < CHUNK_LEN {
            let bytes = Arc::make_mut(buffer).bytes_mut();
            for (at, piece) in [head, tail].into_iter().flatten() {
                let from = length(at - start_of_chunk);
                let len = length((size - at).min(GRANULE));
                if let (Some(to), Some(piece)) = (bytes.get_mut(from..from + len), piece.get(..len)) {
                    to.copy_from_slice(piece);
                }
            }
            let from = length(offset - start_of_chunk);
            if let Some(to) = bytes.get_mut(from..from + data.len()) {
                to.copy_from_slice(data);
            }
        }
        *known |= present;
        Ok(is_new)
    }

    /// The granule that holds byte `at`, with where it begins, if `offset..end` leaves out a part of
    /// it and it is not in a chunk already.
    fn rest_of_granule(
        &self,
        below: &dyn BlockDevice,
        offset: u64,
        end: u64,
        at: u64,
    ) -> io::Result<Option<(u64, [u8; 512])>> {
        let start = at - at % GRANULE;
        let to = (start + GRANULE).min(below.size());
        let is_whole = offset <= start && to <= end;
        if is_whole || self.piece(at, at + 1, below.size()).0 == Source::New {
            return Ok(None);
        }
        let mut piece = [0; 512];
        let known = piece.get_mut(..length(to - start)).unwrap_or_default();
        self.read(below, start, known)?;
        Ok(Some((start, piece)))
    }

    /// Clears whole granules: `start` begins one, `end` (exclusive) ends one or the disk.
    pub(super) fn clear_granules(&mut self, start: u64, end: u64, kind: Clearing) {
        if start >= end {
            return;
        }
        let indices: Vec<u64> =
            self.chunks.range(start / CHUNK..end.div_ceil(CHUNK)).map(|(i, _)| *i).collect();
        for index in indices {
            self.remember(index);
            let chunk_start = index * CHUNK;
            let first = granule(start.max(chunk_start));
            let to = end.min(chunk_start + CHUNK) - chunk_start;
            // At most 128.
            let last = u32::try_from(to.div_ceil(GRANULE)).unwrap_or(128);
            let Some(chunk) = self.chunks.get_mut(&index) else { continue };
            chunk.present &= !mask(first, last);
            if chunk.present == 0 {
                self.chunks.remove(&index);
            }
        }
        Arc::make_mut(&mut self.cleared).insert(start, end, kind);
    }

    /// A chunk as it is now, for [`put_back`](Self::put_back).
    pub(super) fn copy_of(&self, index: u64) -> Option<Chunk> {
        self.chunks.get(&index).cloned()
    }

    /// Makes a chunk what it was, with nothing but writes since.
    pub(super) fn put_back(&mut self, index: u64, chunk: Option<Chunk>) {
        match chunk {
            Some(chunk) => self.chunks.insert(index, chunk),
            None => self.chunks.remove(&index),
        };
    }

    /// Remembers a chunk that is about to change.
    fn remember(&mut self, index: u64) {
        if let Some(saved) = &mut self.saved {
            saved.chunks.entry(index).or_insert_with(|| self.chunks.get(&index).cloned());
        }
    }

    /// Moves what a savepoint remembers of chunks to the spill file, as long as `more` says so.
    pub(super) fn spill_saved(&mut self, store: &mut Store, more: impl Fn(&Store) -> bool) -> io::Result<()> {
        let Some(saved) = &mut self.saved else { return Ok(()) };
        for (index, chunk) in &mut saved.chunks {
            if !more(store) {
                break;
            }
            let Some(chunk) = chunk else { continue };
            let Body::Memory(buffer) = &chunk.body else { continue };
            let shared = buffer.clone();
            let body = Body::Spilled(store.store(shared.peek(), chunk.present)?);
            // A chunk whose content is still the same shares the place.
            if let Some(current) = self.chunks.get_mut(index)
                && matches!(&current.body, Body::Memory(now) if Arc::ptr_eq(now, &shared))
            {
                current.body = body.clone();
            }
            chunk.body = body;
        }
        Ok(())
    }

    /// Moves a chunk to the spill file unless it was used lately. `true` if it is to be considered
    /// again.
    pub(super) fn spill(&mut self, store: &mut Store, index: u64) -> io::Result<bool> {
        let Some(chunk) = self.chunks.get_mut(&index) else { return Ok(false) };
        let Body::Memory(buffer) = &chunk.body else { return Ok(false) };
        if buffer.take_used() {
            return Ok(true);
        }
        chunk.body = Body::Spilled(store.store(buffer.peek(), chunk.present)?);
        Ok(false)
    }
}

/// Which granule of its chunk a byte is in.
fn granule(at: u64) -> u32 {
    // Below 128.
    u32::try_from(at % CHUNK / GRANULE).unwrap_or(0)
}

/// A length that lies within a buffer.
fn length(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
