//! The redo journal: the whole write set, durable beside the first image before any image changes.
//!
//! The other images that change get a file that points to it, so that each of them can be opened alone
//! and the journal is found. The order of things makes each crash harmless: pointers, journal, images,
//! and then the journal goes before the pointers do. So as long as there is a journal each of its images
//! leads to it, and none can be changed without it being finished first; and a pointer without a journal
//! means that nothing is to be done.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::before;
use super::chunk::Body;
use super::identity::{FileIdentity, ImageIdentity};
use super::layer::Layer;
use super::section::{Index, Kind, Piece, Range, SectionDisk, crc_of};
use super::spill::{Slot, Spill, unfinished_name};
use super::{Observer, Step};
use crate::BlockDevice;

const MAGIC: [u8; 8] = *b"VMCRAFT>";

/// The longest pointer file: two paths and a format.
const MAX_POINTER: u64 = 1 << 16;

/// A file that points to a journal elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pointer {
    /// The image that it stands beside.
    pub(super) image: ImageIdentity,
    /// The journal.
    pub(super) journal: PathBuf,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPointer {
    magic: [u8; 8],
    /// The CRC-32C of all that follows this field.
    crc: U32,
    /// The lengths of the three names that follow, in bytes.
    image_len: U32,
    format_len: U32,
    journal_len: U32,
    /// The image's device and inode, and when it was made, in nanoseconds.
    device: U64,
    inode: U64,
    born: U64,
}

impl Pointer {
    fn encode(&self) -> io::Result<Vec<u8>> {
        let journal = self.journal.as_os_str().as_bytes();
        let length = |len: usize| u32::try_from(len).map(U32::from).map_err(io::Error::other);
        let mut raw = RawPointer {
            magic: MAGIC,
            crc: 0.into(),
            image_len: length(self.image.name.len())?,
            format_len: length(self.image.format.len())?,
            journal_len: length(journal.len())?,
            device: self.image.file.device.into(),
            inode: self.image.file.inode.into(),
            born: self.image.file.born.into(),
        };
        let names = [&self.image.name, self.image.format.as_bytes(), journal].concat();
        let covered = raw.as_bytes().get(12..).unwrap_or_default();
        raw.crc = crc32c::crc32c_append(crc32c::crc32c(covered), &names).into();
        Ok([raw.as_bytes(), &names].concat())
    }

    /// The pointer in a file that begins with a pointer's mark; `Err` if it is damaged. `None` if it is
    /// no pointer.
    pub(super) fn decode(bytes: &[u8]) -> Option<Result<Self, &'static str>> {
        bytes.starts_with(&MAGIC).then(|| Self::decode_marked(bytes).ok_or("the pointer is damaged"))
    }

    fn decode_marked(bytes: &[u8]) -> Option<Self> {
        let (raw, names) = RawPointer::read_from_prefix(bytes).ok()?;
        if crc32c::crc32c(bytes.get(12..)?) != raw.crc.get() {
            return None;
        }
        let (name, rest) = names.split_at_checked(usize::try_from(raw.image_len.get()).ok()?)?;
        let (format, rest) = rest.split_at_checked(usize::try_from(raw.format_len.get()).ok()?)?;
        let (journal, rest) = rest.split_at_checked(usize::try_from(raw.journal_len.get()).ok()?)?;
        let image = ImageIdentity {
            name: name.to_vec(),
            format: std::str::from_utf8(format).ok()?.to_owned(),
            file: FileIdentity { device: raw.device.get(), inode: raw.inode.get(), born: raw.born.get() },
        };
        let journal = std::ffi::OsString::from_vec(journal.to_vec()).into();
        rest.is_empty().then_some(Self { image, journal })
    }

    /// Reads a file that may be a pointer, as far as a pointer can be long.
    pub(super) fn read(file: &File) -> io::Result<Option<Result<Self, &'static str>>> {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, MAX_POINTER), &mut bytes)?;
        Ok(Self::decode(&bytes))
    }

    /// Makes the pointer durable under a name that nothing has.
    fn write(&self, path: &Path) -> io::Result<()> {
        if path.try_exists()? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let unfinished = unfinished_name(path);
        let mut file = File::create(&unfinished)?;
        file.write_all(&self.encode()?)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        sync_parent(path)
    }
}

/// One disk that a commit changes.
pub(super) struct Changed<'a> {
    pub(super) image: &'a ImageIdentity,
    /// The disk below.
    pub(super) device: &'a dyn BlockDevice,
    /// What changed; `None` for the image that the journal stands beside if that does not change.
    pub(super) layer: Option<&'a Layer>,
}

/// A journal that is durable, until the images are.
#[derive(Debug)]
pub(super) struct Journal {
    /// Where it is.
    pub(super) path: PathBuf,
    pointers: Vec<PathBuf>,
}

impl Journal {
    /// Makes the changes durable. The journal is that of the first disk. On failure nothing is left.
    pub(super) fn write(
        spill: &mut Spill,
        disks: &[Changed<'_>],
        state_directory: Option<&Path>,
        observer: &Observer,
    ) -> io::Result<Self> {
        let Some(path) = spill.journal.clone() else {
            return Err(spill.file.error(&io::Error::other(
                "no journal can stand beside the image or in the directory for those that cannot be there: \
                 make the image's directory writable",
            )));
        };
        // What was taken back since gives room.
        spill.shrink();
        let mut slots = Vec::new();
        let mut journal = Self { path, pointers: Vec::new() };
        let written = journal.write_all(spill, disks, &mut slots, state_directory, observer);
        drop(slots);
        match written {
            Ok(()) => Ok(journal),
            Err(e) => {
                spill.shrink();
                for pointer in &journal.pointers {
                    // A pointer without a journal does no harm.
                    let _ = fs::remove_file(pointer);
                    let _ = fs::remove_file(unfinished_name(pointer));
                }
                Err(e)
            }
        }
    }

    fn write_all(
        &mut self,
        spill: &mut Spill,
        disks: &[Changed<'_>],
        slots: &mut Vec<Arc<Slot>>,
        state_directory: Option<&Path>,
        observer: &Observer,
    ) -> io::Result<()> {
        observer.before(Step::WriteJournal)?;
        let mut index = Index::new();
        for (number, disk) in disks.iter().enumerate() {
            index.disks.push(SectionDisk { image: disk.image.clone(), size: disk.device.size() });
            let Some(layer) = disk.layer else { continue };
            let before = before::read(number, layer, disk.device);
            index.before.extend(before.map_err(|e| named(Path::new(&disk.image.shown()), &e))?);
            let cleared = layer.cleared(disk.device.size()).into_iter();
            index.ranges.extend(cleared.map(|(start, end, kind)| Range { disk: number, kind, start, end }));
            for (chunk_index, chunk) in layer.chunks() {
                let (slot, crc) = match &chunk.body {
                    Body::Spilled(slot) if slot.is_in(&spill.file) => {
                        let crc = match slot.crc(chunk.present) {
                            Some(crc) => crc,
                            None => crc_of(&slot.load(chunk.present)?, chunk.present),
                        };
                        (slot.clone(), crc)
                    }
                    body => {
                        let slot = match body {
                            Body::Memory(buffer) => spill.store(buffer.peek(), chunk.present)?,
                            Body::Spilled(slot) => spill.store(&slot.load(chunk.present)?, chunk.present)?,
                        };
                        slots.push(slot.clone());
                        let crc = slot.crc(chunk.present).unwrap_or_default();
                        (slot, crc)
                    }
                };
                index.pieces.push(Piece {
                    disk: number,
                    index: chunk_index,
                    present: chunk.present,
                    offset: Some(slot.offset()),
                    crc,
                    expected: None,
                });
            }
        }
        let file = &spill.file.file;
        let written = index.write(file, Kind::Journal, 0, spill.end(), || Ok(())).and_then(|_| {
            observer.before(Step::SyncJournal)?;
            file.sync_all()
        });
        written.map_err(|e| spill.file.error(&e))?;
        for disk in disks.iter().filter(|disk| disk.layer.is_some()) {
            if disk.image.journal_paths(state_directory).contains(&self.path) {
                continue;
            }
            observer.before(Step::WritePointer)?;
            self.point(disk.image, state_directory)?;
        }
        check_room(disks)?;
        observer.before(Step::PublishJournal)?;
        spill.publish(&self.path).map_err(|e| named(&self.path, &e))?;
        // From here on the commit has happened, unless the name is lost in a power cut.
        match sync_parent(&self.path) {
            Ok(()) => Ok(()),
            Err(e) => match fs::remove_file(&self.path) {
                Err(kept) if kept.kind() != io::ErrorKind::NotFound => Ok(()),
                _ => Err(named(&self.path, &e)),
            },
        }
    }

    /// Makes a pointer beside an image, or where else its journal could be.
    fn point(&mut self, image: &ImageIdentity, state_directory: Option<&Path>) -> io::Result<()> {
        let pointer = Pointer { image: image.clone(), journal: self.path.clone() };
        let mut refused = None;
        for path in image.journal_paths(state_directory) {
            match pointer.write(&path) {
                Ok(()) => {
                    self.pointers.push(path);
                    return Ok(());
                }
                Err(e) => refused = refused.or(Some(named(&path, &e))),
            }
        }
        Err(refused.unwrap_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("{}: there is no directory for its journal", image.shown()),
            )
        }))
    }

    /// Takes the journal away: everything is on the images.
    pub(super) fn remove(&self, observer: &Observer) -> io::Result<()> {
        observer.before(Step::RemoveJournal)?;
        remove(std::slice::from_ref(&self.path))?;
        observer.before(Step::RemovePointers)?;
        remove(&self.pointers)
    }
}

/// Refuses a commit for which the file systems of the images have no room, as far as can be told: it
/// would be stuck half done.
fn check_room(disks: &[Changed<'_>]) -> io::Result<()> {
    // By the host's file systems: how much is needed, and an image.
    let mut needed: BTreeMap<u64, (u64, &Path)> = BTreeMap::new();
    for disk in disks {
        let (Some(layer), Some(path)) = (disk.layer, disk.image.file_path()) else { continue };
        let bytes = layer.bytes_over_holes(disk.device)?;
        needed.entry(disk.image.file.device).or_insert((0, path)).0 += bytes;
    }
    for (needed, path) in needed.into_values() {
        let Ok(host) = nix::sys::statvfs::statvfs(path) else { continue };
        let free = host.blocks_available().saturating_mul(host.fragment_size());
        if needed > free {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!(
                    "{}: the changes need {needed} bytes more on the host's disk, which has {free} left",
                    path.display()
                ),
            ));
        }
    }
    Ok(())
}

/// Removes files, durably. It is no error if one is not there.
pub(super) fn remove(paths: &[PathBuf]) -> io::Result<()> {
    for path in paths {
        match fs::remove_file(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(named(path, &e)),
            Ok(()) => sync_parent(path).map_err(|e| named(path, &e))?,
        }
    }
    Ok(())
}

/// Makes durable that a file has its name, or no longer has it.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// The error with the file that it is about.
pub(super) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
