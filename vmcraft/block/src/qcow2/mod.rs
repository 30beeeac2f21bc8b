//! qcow2: QEMU's copy-on-write disk image format, versions 2 and 3.
//!
//! The disk is cut into clusters. A two-level table says where each is: an L1 entry leads to an L2
//! table, an L2 entry to a cluster of the image, to a compressed one, to nothing but zeros, or to
//! nothing at all, and then the backing file is asked. Refcounts say how often each cluster of the
//! image is referred to.
//!
//! Spec: QEMU `docs/interop/qcow2.rst`. Refused by name: encryption, unknown incompatible features.

mod bitmap;
mod compressed;
mod create;
mod discard;
mod entry;
mod header;
mod metadata;
mod read;
mod refcount;
mod snapshot;
mod write;
mod writer;

use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

pub use bitmap::Bitmap;
pub(crate) use bitmap::read_directory as read_bitmaps;
pub use create::{CreateOptions, create};
pub use header::{Autoclear, Bitmaps, Compression, Encryption, Header, Incompatible, MAGIC};
pub use snapshot::Snapshot;

use crate::device::{check_extent_query, check_range, read_only};
use crate::generations::Generations;
use crate::storage::{Storage, read_exact_at};
use crate::{BlockDevice, Discard, Error, Extent, MapExtents, Result};
use discard::Intent;
use entry::{CompressedAt, Geometry};
use read::L2Cache;
use writer::Writer;

/// What is wrong with an image, before its name is known.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The host said no.
    Io(io::Error),
    /// The image contradicts its own format.
    Corrupt {
        /// The structure or field.
        what: &'static str,
        /// Where it is in the image, in bytes.
        offset: u64,
    },
    /// The image is shorter than it says.
    Truncated {
        /// The structure that is not all there.
        what: &'static str,
        /// Where it begins in the image, in bytes.
        offset: u64,
    },
    /// Something that we do not have.
    Unsupported(String),
}

impl Problem {
    fn corrupt(what: &'static str, offset: u64) -> Self {
        Self::Corrupt { what, offset }
    }

    /// What a failed read of a structure says.
    fn reading(error: io::Error, what: &'static str, offset: u64) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated { what, offset },
            _ => Self::Io(error),
        }
    }

    /// The error with the image's name.
    pub(crate) fn of(self, image: &str) -> Error {
        let image = image.to_owned();
        match self {
            Self::Io(source) => Error::Io { image, doing: "cannot read", source },
            Self::Corrupt { what, offset } => Error::Corrupt { image, what: what.to_owned(), offset },
            Self::Truncated { what, offset } => Error::Truncated { image, what: what.to_owned(), offset },
            Self::Unsupported(feature) => Error::Unsupported { image, feature },
        }
    }
}

/// An open qcow2 image.
pub struct Qcow2 {
    /// The image's name, for messages.
    image: String,
    header: Header,
    geometry: Geometry,
    size: u64,
    read_only: bool,
    storage: Arc<dyn Storage>,
    /// Where the guest's data is: the image itself, or its external data file.
    data: Arc<dyn Storage>,
    backing: Option<Arc<dyn BlockDevice>>,
    snapshots: Vec<Snapshot>,
    /// Readers share it while they read, so that no cluster moves under them.
    tables: RwLock<Tables>,
    l2_cache: L2Cache,
    /// Decompressed clusters by the place of their compressed bytes.
    decompressed: Mutex<Generations<CompressedAt, Arc<[u8]>>>,
}

/// What maps the disk to the image.
struct Tables {
    /// The L1 table.
    l1: Vec<u64>,
    /// What is needed to change it; `None` when the image is open read-only.
    writer: Option<Box<Writer>>,
}

/// What an image needs beside its own file.
pub struct Parts {
    /// The disk that unallocated clusters come from.
    pub backing: Option<Arc<dyn BlockDevice>>,
    /// The external data file.
    pub data_file: Option<Arc<dyn Storage>>,
    /// The ID or name of the internal snapshot to show instead of the disk as it is now.
    pub snapshot: Option<String>,
    /// How many bytes of L2 tables and decompressed clusters are kept in memory, about.
    pub cache_bytes: usize,
}

/// Neither other files nor a snapshot, and a cache that is enough for 16 GiB with clusters of 64 KiB.
impl Default for Parts {
    fn default() -> Self {
        Self { backing: None, data_file: None, snapshot: None, cache_bytes: 4 << 20 }
    }
}

impl Qcow2 {
    /// Opens an image whose header has been read. `image` is its name for messages.
    pub fn open(image: &str, storage: Arc<dyn Storage>, header: Header, parts: Parts) -> Result<Self> {
        Self::open_unnamed(image, storage, header, parts).map_err(|problem| problem.of(image))
    }

    fn open_unnamed(
        image: &str,
        storage: Arc<dyn Storage>,
        header: Header,
        parts: Parts,
    ) -> Result<Self, Problem> {
        header.refuse_unsupported()?;
        let geometry = Geometry::new(&header);
        let (snapshots, snapshots_len) = snapshot::read_table(&*storage, &header)?;
        let (mut l1_offset, mut l1_size) = (header.raw.l1_table_offset.get(), header.raw.l1_size.get());
        let mut size = header.size;
        if let Some(wanted) = &parts.snapshot {
            let found = snapshots
                .iter()
                .find(|snapshot| snapshot.id == *wanted)
                .or_else(|| snapshots.iter().find(|snapshot| snapshot.name == *wanted))
                .ok_or_else(|| Problem::Unsupported(no_such_snapshot(wanted, &snapshots)))?;
            (l1_offset, l1_size) = (found.l1_table_offset, found.l1_size);
            size = found.disk_size.map_or(size, |size| size & !511);
            header.check_l1(l1_offset, l1_size, size)?;
        }
        let l1 = read_words(&*storage, l1_offset, u64::from(l1_size), "L1 table")?;
        let data = match (&parts.data_file, header.has_data_file()) {
            (Some(file), true) => file.clone(),
            (None, true) => return Err(Problem::Unsupported("the external data file was not given".into())),
            (_, false) => storage.clone(),
        };
        let read_only = storage.is_read_only() || parts.snapshot.is_some();
        let writer = match read_only {
            true => None,
            false => Some(Box::new(Writer::open(
                storage.clone(),
                data.clone(),
                &header,
                &l1,
                &snapshots,
                snapshots_len,
            )?)),
        };
        // Half for tables, half for clusters, and of those two generations.
        let kept = (parts.cache_bytes / 4) >> header.cluster_bits;
        Ok(Self {
            image: image.to_owned(),
            l2_cache: L2Cache::new(&geometry, parts.cache_bytes / 2),
            geometry,
            size,
            header,
            storage,
            data,
            backing: parts.backing,
            snapshots,
            tables: RwLock::new(Tables { l1, writer }),
            decompressed: Mutex::new(Generations::new(kept)),
            read_only,
        })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The internal snapshots.
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.snapshots
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.read_only { Err(read_only()) } else { Ok(()) }
    }

    /// A problem that was met while reading, as the device trait tells it.
    fn io_error(&self, problem: Problem) -> io::Error {
        match problem {
            Problem::Io(e) => e,
            other => other.of(&self.image).into(),
        }
    }
}

/// Reads the list of internal snapshots.
pub(crate) fn read_snapshots(storage: &dyn Storage, header: &Header) -> Result<Vec<Snapshot>, Problem> {
    Ok(snapshot::read_table(storage, header)?.0)
}

fn no_such_snapshot(wanted: &str, snapshots: &[Snapshot]) -> String {
    let names: Vec<String> = snapshots.iter().map(|s| format!("{} ({})", s.id, s.name)).collect();
    match names.is_empty() {
        true => format!("snapshot {wanted:?}: the image has no internal snapshots"),
        false => format!("snapshot {wanted:?}: the image has only {}", names.join(", ")),
    }
}

/// Reads a table of big-endian words. The file must hold it all, which also bounds the memory.
fn read_words(
    storage: &dyn Storage,
    offset: u64,
    count: u64,
    what: &'static str,
) -> Result<Vec<u64>, Problem> {
    let len = storage.size().map_err(Problem::Io)?;
    let bytes = count * 8;
    if offset.checked_add(bytes).is_none_or(|end| end > len) {
        return Err(Problem::Truncated { what, offset });
    }
    let bytes = usize::try_from(bytes).map_err(|_| Problem::corrupt(what, offset))?;
    let mut buf = vec![0; bytes];
    read_exact_at(storage, offset, &mut buf).map_err(|e| Problem::reading(e, what, offset))?;
    Ok(buf.as_chunks::<8>().0.iter().map(|word| u64::from_be_bytes(*word)).collect())
}

impl BlockDevice for Qcow2 {
    fn size(&self) -> u64 {
        self.size
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size, "a read")?;
        self.read_guest(offset, buf).map_err(|problem| self.io_error(problem))
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        check_range(offset, buf.len() as u64, self.size, "a write")?;
        self.write_guest(offset, buf).map_err(|problem| self.io_error(problem))
    }
    fn flush(&self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        self.commit(&mut tables).map_err(|problem| self.io_error(problem))
    }
    fn is_read_only(&self) -> bool {
        self.read_only
    }
    fn logical_sector_size(&self) -> u32 {
        512
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        Some(self)
    }
    fn discard(&self) -> Option<&dyn Discard> {
        Some(self)
    }
}

impl Discard for Qcow2 {
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_writable()?;
        check_range(offset, len, self.size, "a discard")?;
        self.clear(offset, len, Intent::Discard).map_err(|problem| self.io_error(problem))
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_writable()?;
        check_range(offset, len, self.size, "a write of zeros")?;
        self.clear(offset, len, Intent::Zeroes).map_err(|problem| self.io_error(problem))
    }
}

/// Whoever wants to know whether it worked calls `flush` before.
impl Drop for Qcow2 {
    fn drop(&mut self) {
        if let Err(e) = self.flush() {
            tracing::error!("{}: the last changes may be lost: {e}", self.image);
        }
    }
}

impl MapExtents for Qcow2 {
    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_extent_query(offset, self.size)?;
        self.guest_extent(offset).map_err(|problem| self.io_error(problem))
    }
}
