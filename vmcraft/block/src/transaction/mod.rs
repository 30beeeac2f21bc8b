//! A transaction over the disks of a guest: what is written collects in a copy-on-write layer, and
//! reaches the images together or not at all.
//!
//! Reads see what was written. New content is kept in memory, and past a limit in a file without a
//! name; discarded ranges and ranges of zeros are kept as ranges. A savepoint inside the transaction
//! takes back the steps of one change that fails. A commit is made durable in a redo journal before it
//! touches the images, and is finished by whoever opens them next if it is cut off.
//! `docs/transaction.md` tells it all.

mod apply;
mod before;
mod chunk;
mod cleared;
mod identity;
mod journal;
mod layer;
mod recovery;
mod section;
mod spill;
mod store;
mod undo;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use self::chunk::{CHUNK, CHUNK_LEN, Chunk, GRANULE, Gauge};
use self::cleared::Clearing;
pub use self::identity::ImageIdentity;
pub(crate) use self::identity::SUFFIX as JOURNAL_SUFFIX;
use self::journal::{Changed, Journal};
use self::layer::Layer;
pub use self::recovery::OpenImage;
use self::store::Store;
use self::undo::UndoFile;
pub use self::undo::undo;
use crate::device::{check_extent_query, check_range};
use crate::{BlockDevice, Discard, Error, Extent, MapExtents, Result};

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
    /// The image that the disk is in. Without one, a commit that is cut off leaves a part of the
    /// changes on the disk.
    pub image: Option<ImageIdentity>,
}

/// How a transaction keeps what is written.
#[derive(Clone)]
pub struct TransactionOptions {
    /// How many bytes of new content are kept in memory at most.
    pub memory: usize,
    /// Where the rest is kept if it cannot be beside the first image: the first directory that takes a
    /// file.
    pub spill_directories: Vec<PathBuf>,
    /// Where the journals of disks are that are no files of this host, or in directories that cannot be
    /// written. It should outlive a restart of the host.
    pub state_directory: Option<PathBuf>,
    /// A file that gets what the images held before each commit, so that [`undo`] can put it back. There
    /// must be none with its name.
    pub undo: Option<PathBuf>,
    /// Asked before each step of a commit; if it answers with an error, the step fails so. For tests of
    /// what is left when a commit is cut off.
    pub observer: Observer,
}

/// 64 MiB in memory, the rest in the directory for temporary files.
impl Default for TransactionOptions {
    fn default() -> Self {
        Self {
            memory: 64 << 20,
            spill_directories: vec![std::env::temp_dir()],
            state_directory: None,
            undo: None,
            observer: Observer::default(),
        }
    }
}

/// A step of a commit, in the order in which they are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Writing the changes to the journal's file, which has no name yet.
    WriteJournal,
    /// Making that durable.
    SyncJournal,
    /// Writing a file that points to the journal, for each other image.
    WritePointer,
    /// Giving the journal its name: from then on the commit has happened.
    PublishJournal,
    /// Writing the changes to an image.
    Apply,
    /// Flushing an image.
    Flush,
    /// Removing the journal.
    RemoveJournal,
    /// Removing the pointers.
    RemovePointers,
}

type Observe = dyn Fn(Step) -> io::Result<()> + Send + Sync;

/// Is asked before each step of a commit; by default nobody.
#[derive(Clone, Default)]
pub struct Observer(Option<Arc<Observe>>);

impl Observer {
    /// One that asks `observe`.
    pub fn new(observe: impl Fn(Step) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(observe)))
    }

    fn before(&self, step: Step) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |observe| observe(step))
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
    /// What was committed to the disks that are never written; without such a disk there is none.
    base: Option<Transaction>,
    state_directory: Option<PathBuf>,
    undo: Option<PathBuf>,
    observer: Observer,
    state: RwLock<State>,
}

struct State {
    /// In the order of the disks.
    layers: Vec<Layer>,
    store: Store,
    /// The chunks that are in memory, and some that no longer are: disk and chunk, the oldest first.
    queue: VecDeque<(usize, u64)>,
    /// The journal of a commit that could not be finished: until it is, nothing can be changed.
    unfinished: Option<Journal>,
    /// The undo file, after the first commit.
    undo: Option<UndoFile>,
}

impl Transaction {
    /// A transaction over disks of which no earlier session left a journal. Nothing is written to them
    /// before a commit.
    pub fn new(mut disks: Vec<TransactionDisk>, options: TransactionOptions) -> Self {
        let gauge = Arc::<Gauge>::default();
        let mut base = None;
        if disks.iter().any(|disk| disk.access == Access::Forget) {
            // What is only seen here is committed to a layer of its own, so that a rollback keeps it.
            // It gets the smaller part of the memory, as it is not changed any more.
            let below = disks.iter().map(|disk| TransactionDisk { image: None, ..disk.clone() }).collect();
            let options = TransactionOptions { memory: options.memory / 2, ..options.clone() };
            let under = Self::over(below, options, gauge.clone(), None);
            for (index, disk) in disks.iter_mut().enumerate() {
                if let Some(device) = under.device(index).filter(|_| disk.access == Access::Forget) {
                    disk.device = device;
                }
            }
            base = Some(under);
        }
        Self::over(disks, options, gauge, base)
    }

    fn over(
        disks: Vec<TransactionDisk>,
        options: TransactionOptions,
        gauge: Arc<Gauge>,
        base: Option<Transaction>,
    ) -> Self {
        let home = home(&disks).and_then(|index| disks.get(index)?.image.as_ref());
        let journals = home.map(|image| image.journal_paths(options.state_directory.as_deref()));
        let store =
            Store::new(gauge, options.memory, journals.unwrap_or_default(), options.spill_directories);
        let state = State {
            layers: disks.iter().map(|_| Layer::default()).collect(),
            store,
            queue: VecDeque::new(),
            unfinished: None,
            undo: None,
        };
        let TransactionOptions { state_directory, undo, observer, .. } = options;
        Self {
            shared: Arc::new(Shared {
                disks,
                base,
                state_directory,
                undo,
                observer,
                state: RwLock::new(state),
            }),
        }
    }

    /// A transaction over these disks, after what an earlier session left is finished: a commit that
    /// was cut off is completed on the images that are open for writing, and on others is shown as if
    /// it was. The disks that are to be written must be open for that already, and locked. What the
    /// user should know comes with it.
    ///
    /// `open` is asked for images of such a commit that are none of these disks.
    pub fn open(
        mut disks: Vec<TransactionDisk>,
        options: TransactionOptions,
        open: &mut OpenImage<'_>,
    ) -> Result<(Self, Vec<String>)> {
        if let Some(path) = &options.undo {
            undo::check_place(path).map_err(|source| Error::Io {
                image: path.display().to_string(),
                doing: "cannot make the undo file",
                source,
            })?;
        }
        let notes = recovery::recover(&mut disks, &options, open)?;
        Ok((Self::new(disks, options), notes))
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

    /// Whether a commit failed while the images were written: they may hold a part of the changes until
    /// it is finished, by another commit or when they are opened again.
    pub fn is_cut_off(&self) -> bool {
        self.shared.read().unfinished.is_some()
    }

    /// Whether something was written to a disk since the last commit; to one that is never written, since
    /// the beginning.
    pub fn is_disk_changed(&self, index: usize) -> bool {
        if self.shared.base.as_ref().is_some_and(|base| base.is_disk_changed(index)) {
            return true;
        }
        self.shared.read().layers.get(index).is_some_and(|layer| !layer.is_empty())
    }

    /// Remembers the disks as they are now. There is one savepoint: an earlier one is forgotten.
    pub fn savepoint(&self) {
        self.shared.write().layers.iter_mut().for_each(Layer::save);
    }

    /// Takes back what was written since the savepoint, which is gone then. Without a savepoint
    /// nothing happens, nor while a commit is half done: what it writes cannot be taken back.
    pub fn rollback_to_savepoint(&self) {
        let mut state = self.shared.write();
        let State { layers, queue, unfinished, .. } = &mut *state;
        if unfinished.is_some() {
            layers.iter_mut().for_each(Layer::release);
            return;
        }
        for (disk, layer) in layers.iter_mut().enumerate() {
            queue.extend(layer.restore().into_iter().map(|chunk| (disk, chunk)));
        }
    }

    /// Forgets the savepoint and keeps what was written since.
    pub fn release_savepoint(&self) {
        self.shared.write().layers.iter_mut().for_each(Layer::release);
    }

    /// Takes back everything since the last commit. Refused while a commit is half done.
    pub fn rollback(&self) -> io::Result<()> {
        let mut state = self.shared.write();
        state.check_finished()?;
        state.clear();
        Ok(())
    }

    /// Writes the changes to the disks that take them, all or none, and flushes those; nothing is
    /// changed any more then on them. There is nothing to go back to from there: a savepoint is
    /// forgotten, also if nothing was to be written.
    ///
    /// If it fails before the images are touched, they and the changes are as they were. If it fails
    /// while they are written, the journal stays: nothing can be changed then until a commit succeeds,
    /// or else the images are opened again, which finishes it.
    pub fn commit(&self) -> io::Result<()> {
        let Shared { disks, base, state_directory, undo, observer, .. } = &*self.shared;
        let mut guard = self.shared.write();
        let state = &mut *guard;
        let has_base = base.is_some();
        let is_changed = |(_, (disk, layer)): &(usize, (&TransactionDisk, &Layer))| {
            (disk.access == Access::Commit || disk.access == Access::Forget && has_base) && !layer.is_empty()
        };
        let changed: Vec<_> = disks.iter().zip(&state.layers).enumerate().filter(is_changed).collect();
        if changed.is_empty() {
            state.layers.iter_mut().for_each(Layer::release);
            return Ok(());
        }
        if state.unfinished.is_none() {
            let home = home(disks);
            let mut set = Vec::new();
            if let Some((index, disk)) = home.and_then(|index| Some((index, disks.get(index)?)))
                && let Some(image) = &disk.image
            {
                let layer =
                    changed.iter().find(|(changed, _)| *changed == index).map(|(_, (_, layer))| *layer);
                set.push(Changed { image, device: &*disk.device, layer });
            }
            for (index, (disk, layer)) in &changed {
                if let Some(image) =
                    disk.image.as_ref().filter(|_| disk.access == Access::Commit && Some(*index) != home)
                {
                    set.push(Changed { image, device: &*disk.device, layer: Some(*layer) });
                }
            }
            if set.iter().any(|disk| disk.layer.is_some()) {
                let end = match (&mut state.undo, undo) {
                    (Some(file), _) => Some(file.append(&set)?),
                    (none, Some(path)) => Some(none.insert(UndoFile::create(path)?).append(&set)?),
                    (None, None) => None,
                };
                let written = state
                    .store
                    .spill()
                    .and_then(|spill| Journal::write(spill, &set, state_directory.as_deref(), observer));
                match (&mut state.undo, end) {
                    (Some(file), Some(end)) if written.is_ok() => file.keep(end),
                    (Some(file), _) => file.take_back(),
                    (None, _) => {}
                }
                state.unfinished = Some(written?);
            }
        }
        let finish = || -> io::Result<()> {
            for (_, (disk, layer)) in &changed {
                observer.before(Step::Apply)?;
                apply::apply(layer, &*disk.device).map_err(|e| of_disk(disk, &e))?;
            }
            for (_, (disk, _)) in &changed {
                observer.before(Step::Flush)?;
                disk.device.flush().map_err(|e| of_disk(disk, &e))?;
            }
            state.unfinished.as_ref().map_or(Ok(()), |journal| journal.remove(observer))
        };
        if let Some(base) = base {
            base.savepoint();
        }
        let finished = finish();
        match base {
            Some(base) if finished.is_err() => base.rollback_to_savepoint(),
            Some(base) => base.release_savepoint(),
            None => {}
        }
        match (finished, &state.unfinished) {
            (Ok(()), _) => {
                state.committed(disks, has_base);
                Ok(())
            }
            (Err(e), None) => Err(e),
            (Err(e), Some(journal)) => Err(io::Error::new(
                e.kind(),
                format!(
                    "the commit was cut off: {e}; its journal {} finishes it at the next commit, or when the \
                     image is opened again",
                    journal.path.display()
                ),
            )),
        }
    }
}

/// The disk beside whose image the journal is: the first one in a file of the host, or else the first.
fn home(disks: &[TransactionDisk]) -> Option<usize> {
    let image = |disk: &TransactionDisk| disk.image.clone().filter(|_| disk.access == Access::Commit);
    let in_file = |disk: &TransactionDisk| image(disk).is_some_and(|image| image.file_path().is_some());
    disks.iter().position(in_file).or_else(|| disks.iter().position(|disk| image(disk).is_some()))
}

/// The error with the disk that it is about.
fn of_disk(disk: &TransactionDisk, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", disk.name))
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
    }

    /// Refuses changes while a commit is half done.
    fn check_finished(&self) -> io::Result<()> {
        match &self.unfinished {
            None => Ok(()),
            Some(journal) => Err(io::Error::other(format!(
                "a commit was cut off, and has to be finished before anything else changes; its journal is {}",
                journal.path.display()
            ))),
        }
    }

    /// Forgets what is on the disks now.
    fn committed(&mut self, disks: &[TransactionDisk], has_base: bool) {
        self.unfinished = None;
        for (disk, layer) in disks.iter().zip(&mut self.layers) {
            if disk.access == Access::Commit || disk.access == Access::Forget && has_base {
                layer.clear();
            } else {
                layer.release();
            }
        }
        // The file was the journal.
        self.store.reset();
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

    /// Takes new content: all of it, or on failure nothing.
    fn write(&mut self, index: usize, disk: &TransactionDisk, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_finished()?;
        let mut before = Vec::new();
        let written = self.write_chunks(index, disk, offset, data, &mut before);
        if written.is_err() {
            self.put_back(index, before);
        }
        written
    }

    /// Makes chunks what they were. The first copy of a chunk is the oldest.
    fn put_back(&mut self, index: usize, before: Vec<(u64, Option<Chunk>)>) {
        let Some(layer) = self.layers.get_mut(index) else { return };
        for (chunk, old) in before.into_iter().rev() {
            layer.put_back(chunk, old);
            self.queue.push_back((index, chunk));
        }
    }

    /// Takes new content chunk by chunk. `before` gets what the chunks were that changed, unless the
    /// content lies in one only.
    fn write_chunks(
        &mut self,
        index: usize,
        disk: &TransactionDisk,
        offset: u64,
        data: &[u8],
        before: &mut Vec<(u64, Option<Chunk>)>,
    ) -> io::Result<()> {
        let is_one = offset % CHUNK + data.len() as u64 <= CHUNK;
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let room = CHUNK_LEN - usize::try_from(at % CHUNK).unwrap_or(0);
            let (now, later) = rest.split_at(room.min(rest.len()));
            self.make_room()?;
            let Some(layer) = self.layers.get_mut(index) else { return Err(io::ErrorKind::NotFound.into()) };
            if !is_one {
                before.push((at / CHUNK, layer.copy_of(at / CHUNK)));
            }
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
        self.check_finished()?;
        let (size, end) = (disk.device.size(), offset + len);
        // At most the end of the disk, whose last granule may be a short one.
        let first = offset.checked_next_multiple_of(GRANULE).unwrap_or(size).min(size);
        let last = if end == size { end } else { end - end % GRANULE };
        if kind == Clearing::Zeroes {
            const ZEROS: [u8; 512] = [0; 512];
            // In one granule at each end, or in two neighbours.
            let parts = if first >= last {
                [(offset, first.min(end)), (first.min(end), end)]
            } else {
                [(offset, first), (last, end)]
            };
            let old = self.layers.get(index).and_then(|layer| layer.copy_of(offset / CHUNK));
            for (from, to) in parts.into_iter().filter(|(from, to)| from < to) {
                let zeros = ZEROS.get(..usize::try_from(to - from).unwrap_or(512)).unwrap_or(&ZEROS);
                if let Err(e) = self.write(index, disk, from, zeros) {
                    if from != offset {
                        self.put_back(index, vec![(offset / CHUNK, old)]);
                    }
                    return Err(e);
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
        state.layers[self.index].read(&*disk.device, offset, buf)
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
        check_extent_query(offset, disk.device.size())?;
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
