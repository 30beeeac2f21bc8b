//! A file in memory that remembers how it became what it is.

use std::io;
use std::sync::Mutex;

use vmcraft_block::Extent;
use vmcraft_block::storage::Storage;

/// What happened to a file.
#[derive(Clone)]
pub(crate) enum Event {
    Write(u64, Vec<u8>),
    /// A hole, which is as good as zeros.
    Hole(u64, u64),
    Flush,
}

/// A file in memory that remembers how it became what it is.
#[derive(Default)]
pub(crate) struct Recorder {
    state: Mutex<(Vec<u8>, Vec<Event>)>,
    /// How many events there may be before the disk is full for good.
    room: Option<usize>,
}

pub(crate) fn apply(bytes: &mut Vec<u8>, offset: u64, piece: &[u8]) {
    let at = usize::try_from(offset).unwrap();
    if bytes.len() < at + piece.len() {
        bytes.resize(at + piece.len(), 0);
    }
    bytes[at..at + piece.len()].copy_from_slice(piece);
}

impl Recorder {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { state: Mutex::new((bytes, Vec::new())), room: None }
    }

    /// One that fails after so many writes and flushes.
    pub(crate) fn failing(bytes: Vec<u8>, room: usize) -> Self {
        Self { room: Some(room), ..Self::new(bytes) }
    }

    fn check_room(&self) -> io::Result<()> {
        match self.room {
            Some(room) if self.position() >= room => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    /// How many events there were so far.
    pub(crate) fn position(&self) -> usize {
        self.state.lock().unwrap().1.len()
    }

    /// What the file holds.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.state.lock().unwrap().0.clone()
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.state.lock().unwrap().1.clone()
    }
}

impl Storage for Recorder {
    fn size(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap().0.len() as u64)
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        let state = self.state.lock().unwrap();
        let rest = usize::try_from(offset).ok().and_then(|at| state.0.get(at..)).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check_room()?;
        let mut state = self.state.lock().unwrap();
        apply(&mut state.0, offset, buf);
        state.1.push(Event::Write(offset, buf.to_vec()));
        Ok(())
    }
    fn resize(&self, _new_size: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_room()?;
        let mut state = self.state.lock().unwrap();
        apply(&mut state.0, offset, &vec![0; usize::try_from(len).unwrap()]);
        state.1.push(Event::Hole(offset, len));
        Ok(())
    }
    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        Ok(Extent { offset, len: self.size()? - offset, is_hole: false })
    }
    fn flush(&self) -> io::Result<()> {
        self.check_room()?;
        self.state.lock().unwrap().1.push(Event::Flush);
        Ok(())
    }
    fn is_read_only(&self) -> bool {
        false
    }
}
