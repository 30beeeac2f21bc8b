//! A transaction over the disks of a guest: what is written collects in a copy-on-write layer, and
//! reaches the images together or not at all.
//!
//! Reads see what was written. New content is kept in memory, and past a limit in a file without a
//! name; discarded ranges and ranges of zeros are kept as ranges. A savepoint inside the transaction
//! takes back the steps of one change that fails.

mod apply;
mod chunk;
mod cleared;
mod layer;
mod spill;
mod store;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use self::chunk::{CHUNK, CHUNK_LEN, GRANULE};
use self::cleared::Clearing;
use self::layer::Layer;
use self::store::Store;
use crate::device::check_range;
use crate::{BlockDevice, Discard, Extent, MapExtents};

/// What becomes of what is written to a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// It reaches the image at the next commit.
    Commit,
    /// It is seen by those who read the disk, and thrown away in the end.
    Forget,
    /// It is refused, for this reason.
    Refuse(String),
}

/// A disk of a transaction.
#[derive(Clone)]
pub struct TransactionDisk {
    /// The disk as it is before the transaction.
    pub device: Arc<dyn BlockDevice>,
    /// Its name for messages.
    pub name: String,
    /// What becomes of what is written.
    pub access: Access,
}

/// How a transaction keeps what is written.
#[derive(Debug, Clone)]
pub struct TransactionOptions {
    /// How many bytes of new content are kept in memory at most.
    pub memory: usize,
    /// Where the rest is kept: the first directory that takes a file.
    pub spill_directories: Vec<PathBuf>,
}

/// 64 MiB in memory, the rest in the directory for temporary files.
impl Default for TransactionOptions {
    fn default() -> Self {
        Self { memory: 64 << 20, spill_directories: vec![std::env::temp_dir()] }
    }
}

/// The changes of all disks of a guest since the last commit.
///
/// Dropping it drops the changes.
pub struct Transaction {
    shared: Arc<Shared>,
}

struct Shared {
    disks: Vec<TransactionDisk>,
    state: RwLock<State>,
}

struct State {
    /// In the order of the disks.
    layers: Vec<Layer>,
    store: Store,
    /// The chunks that are in memory, and some that no longer are: disk and chunk, the oldest first.
    queue: VecDeque<(usize, u64)>,
    has_savepoint: bool,
}

impl Transaction {
    /// A transaction over these disks. Nothing is written to them before a commit.
    pub fn new(disks: Vec<TransactionDisk>, options: TransactionOptions) -> Self {
        let state = State {
            layers: disks.iter().map(|_| Layer::default()).collect(),
            store: Store::new(options.memory, options.spill_directories),
            queue: VecDeque::new(),
            has_savepoint: false,
        };
        Self { shared: Arc::new(Shared { disks, state: RwLock::new(state) }) }
    }

    /// A disk as the transaction shows it. `None` if there are not so many.
    pub fn device(&self, index: usize) -> Option<Arc<dyn BlockDevice>> {
        self.shared.disks.get(index)?;
        Some(Arc::new(TransactionDevice { shared: self.shared.clone(), index }))
    }

    /// Whether a commit would write anything.
    pub fn is_changed(&self) -> bool {
        let state = self.shared.read();
        self.shared
            .disks
            .iter()
            .zip(&state.layers)
            .any(|(disk, layer)| disk.access == Access::Commit && !layer.is_empty())
    }

    /// Whether something was written to a disk since the last commit, be it that a commit writes it or
    /// not.
    pub fn is_disk_changed(&self, index: usize) -> bool {
        self.shared.read().layers.get(index).is_some_and(|layer| !layer.is_empty())
    }

    /// Remembers the disks as they are now. There is one savepoint: an earlier one is forgotten.
    pub fn savepoint(&self) {
        let mut state = self.shared.write();
        state.has_savepoint = true;
        state.layers.iter_mut().for_each(Layer::save);
    }

    /// Takes back what was written since the savepoint, which is gone then. Without a savepoint
    /// nothing happens.
    pub fn rollback_to_savepoint(&self) {
        let mut state = self.shared.write();
        state.has_savepoint = false;
        let State { layers, queue, .. } = &mut *state;
        for (disk, layer) in layers.iter_mut().enumerate() {
            queue.extend(layer.restore().into_iter().map(|chunk| (disk, chunk)));
        }
    }

    /// Forgets the savepoint and keeps what was written since.
    pub fn release_savepoint(&self) {
        let mut state = self.shared.write();
        state.has_savepoint = false;
        state.layers.iter_mut().for_each(Layer::release);
    }

    /// Takes back everything since the last commit.
    pub fn rollback(&self) {
        self.shared.write().clear();
    }

    /// Writes the changes to the disks that take them and flushes those; nothing is changed any more
    /// then on any disk. On failure the changes stay in the transaction.
    pub fn commit(&self) -> io::Result<()> {
        let mut state = self.shared.write();
        let mut written = Vec::new();
        for (disk, layer) in self.shared.disks.iter().zip(&state.layers) {
            if disk.access == Access::Commit && !layer.is_empty() {
                apply::apply(layer, &state.store, &*disk.device)
                    .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", disk.name)))?;
                written.push(disk);
            }
        }
        for disk in written {
            disk.device.flush().map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", disk.name)))?;
        }
        state.committed(&self.shared.disks);
        Ok(())
    }
}

impl Shared {
    // A panic under the lock can only come from a device below, which leaves no layer half changed.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn clear(&mut self) {
        self.layers.iter_mut().for_each(Layer::clear);
        self.queue.clear();
        self.store.reset();
        self.has_savepoint = false;
    }

    /// Forgets what is on the disks now. What is only seen here stays.
    fn committed(&mut self, disks: &[TransactionDisk]) {
        for (disk, layer) in disks.iter().zip(&mut self.layers) {
            if disk.access == Access::Commit {
                layer.clear();
            }
        }
        if self.layers.iter().all(Layer::is_empty) {
            self.clear();
        }
    }

    /// Makes room in memory for one chunk more, or two if a savepoint keeps the old content.
    fn make_room(&mut self) -> io::Result<()> {
        let over = |store: &Store| store.gauge().bytes() + 2 * CHUNK_LEN > store.limit;
        if !over(&self.store) {
            return Ok(());
        }
        // Some more at once, so that the next writes find room.
        let target = self.store.limit - self.store.limit / 8;
        let over = |store: &Store| store.gauge().bytes() + 2 * CHUNK_LEN > target;
        for layer in &mut self.layers {
            layer.spill_saved(&mut self.store, over)?;
        }
        // Twice over all at most: the first time those that were used lately are spared.
        for _ in 0..2 * self.queue.len() {
            if !over(&self.store) {
                break;
            }
            let Some((disk, chunk)) = self.queue.pop_front() else { break };
            let Some(layer) = self.layers.get_mut(disk) else { continue };
            match layer.spill(&mut self.store, chunk) {
                Ok(false) => {}
                Ok(true) => self.queue.push_back((disk, chunk)),
                Err(e) => {
                    self.queue.push_front((disk, chunk));
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// Remembers that a chunk has come into memory.
    fn enqueue(&mut self, disk: usize, chunk: u64) {
        self.queue.push_back((disk, chunk));
        let chunks: usize = self.layers.iter().map(Layer::chunk_count).sum();
        if self.queue.len() > 4 * chunks + 1024 {
            // Most are of chunks that are gone.
            let mut seen = std::collections::HashSet::new();
            self.queue.retain(|entry| seen.insert(*entry));
            let layers = &self.layers;
            self.queue
                .retain(|(disk, chunk)| layers.get(*disk).is_some_and(|layer| layer.is_in_memory(*chunk)));
        }
    }

    fn write(&mut self, index: usize, disk: &TransactionDisk, offset: u64, data: &[u8]) -> io::Result<()> {
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let room = CHUNK_LEN - usize::try_from(at % CHUNK).unwrap_or(0);
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.make_room()?;
            let Some(layer) = self.layers.get_mut(index) else { return Err(io::ErrorKind::NotFound.into()) };
            if layer.write(&self.store, &*disk.device, at, now)? {
                self.enqueue(index, at / CHUNK);
            }
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    /// Clears a range. Parts of granules at its ends become zeros as content, or stay.
    fn clear_range(
        &mut self,
        index: usize,
        disk: &TransactionDisk,
        offset: u64,
        len: u64,
        kind: Clearing,
    ) -> io::Result<()> {
        let (size, end) = (disk.device.size(), offset + len);
        // At most the end of the disk, whose last granule may be a short one.
        let first = offset.checked_next_multiple_of(GRANULE).unwrap_or(size).min(size);
        let last = if end == size { end } else { end - end % GRANULE };
        if kind == Clearing::Zeroes {
            const ZEROS: [u8; 512] = [0; 512];
            let parts =
                if first >= last { [(offset, end), (end, end)] } else { [(offset, first), (last, end)] };
            for (from, to) in parts {
                let mut at = from;
                while at < to {
                    let n = (to - at).min(GRANULE);
                    self.write(index, disk, at, &ZEROS[..usize::try_from(n).unwrap_or(512)])?;
                    at += n;
                }
            }
        }
        if let Some(layer) = self.layers.get_mut(index) {
            layer.clear_granules(first, last, kind);
        }
        Ok(())
    }
}

/// A disk as a transaction shows it.
struct TransactionDevice {
    shared: Arc<Shared>,
    index: usize,
}

impl TransactionDevice {
    fn disk(&self) -> &TransactionDisk {
        // The transaction gives out devices of its disks only.
        &self.shared.disks[self.index]
    }

    /// The disk, if it takes changes.
    fn writable(&self) -> io::Result<&TransactionDisk> {
        let disk = self.disk();
        match &disk.access {
            Access::Refuse(reason) => Err(io::Error::new(
                io::ErrorKind::ReadOnlyFilesystem,
                format!("{}: cannot be changed: {reason}", disk.name),
            )),
            Access::Commit | Access::Forget => Ok(disk),
        }
    }

    fn clear(&self, offset: u64, len: u64, kind: Clearing) -> io::Result<()> {
        let disk = self.writable()?;
        self.shared.write().clear_range(self.index, disk, offset, len, kind)
    }
}

impl BlockDevice for TransactionDevice {
    fn size(&self) -> u64 {
        self.disk().device.size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let disk = self.disk();
        check_range(offset, buf.len() as u64, disk.device.size(), "a read")?;
        let state = self.shared.read();
        // There is a layer for each disk.
        state.layers[self.index].read(&state.store, &*disk.device, offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let disk = self.writable()?;
        check_range(offset, buf.len() as u64, disk.device.size(), "a write")?;
        self.shared.write().write(self.index, disk, offset, buf)
    }
    /// Nothing is durable before a commit.
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn is_read_only(&self) -> bool {
        matches!(self.disk().access, Access::Refuse(_))
    }
    fn logical_sector_size(&self) -> u32 {
        self.disk().device.logical_sector_size()
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        self.disk().device.extents().map(|_| self as &dyn MapExtents)
    }
    fn discard(&self) -> Option<&dyn Discard> {
        Some(self)
    }
}

impl MapExtents for TransactionDevice {
    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        let disk = self.disk();
        check_range(offset, 1, disk.device.size(), "an extent query")?;
        let state = self.shared.read();
        state.layers[self.index].extent(offset, &*disk.device)
    }
}

impl Discard for TransactionDevice {
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.size(), "a discard")?;
        self.clear(offset, len, Clearing::Discard)
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.size(), "a write of zeros")?;
        self.clear(offset, len, Clearing::Zeroes)
    }
}
