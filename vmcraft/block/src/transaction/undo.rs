//! Undo files: what the images held before each commit of a session, so that it can be put back.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::apply::Writer;
use super::chunk::{CHUNK, CHUNK_LEN, GRANULE, mask};
use super::cleared::Clearing;
use super::identity::ImageIdentity;
use super::journal::{Changed, named};
use super::layer::Layer;
use super::recovery::write_piece;
use super::section::{self, HEADER, HEADER_LEN, Index, Kind, Piece, SectionDisk, crc_of, granules};
use super::{Access, OpenImage, Transaction, TransactionDisk, TransactionOptions};
use crate::{BlockDevice, Error, Result};

/// An undo file of a session that goes on.
pub(super) struct UndoFile {
    file: File,
    path: PathBuf,
    /// Where the last commit's section ends.
    end: u64,
}

/// Which granules of a chunk change: those that surely do, and those whose new content is not certain.
type Masks = (u128, u128);

/// Whether an undo file can be made there, said before anything is changed. It is made at the first commit.
pub(super) fn check_place(path: &Path) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is such a file already, which may be needed: give another name",
        ));
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    match directory {
        Some(directory) if !directory.is_dir() => Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no directory {}", directory.display()),
        )),
        _ => Ok(()),
    }
}

impl UndoFile {
    /// A new file. It is an error if there is one with this name.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(path);
        Ok(Self { file: file.map_err(|e| named(path, &e))?, path: path.to_owned(), end: 0 })
    }

    /// Makes durable what the disks hold before a commit. Gives where its section ends, for
    /// [`keep`](Self::keep) once the commit has happened.
    pub(super) fn append(&self, disks: &[Changed<'_>]) -> io::Result<u64> {
        self.append_section(disks).map_err(|e| {
            self.take_back();
            named(&self.path, &e)
        })
    }

    /// The commit has happened.
    pub(super) fn keep(&mut self, end: u64) {
        self.end = end;
    }

    /// The commit has not happened.
    pub(super) fn take_back(&self) {
        // Otherwise the section of a commit that never was is seen to be one.
        let _ = self.file.set_len(self.end);
    }

    fn append_section(&self, disks: &[Changed<'_>]) -> io::Result<u64> {
        let base = self.end.next_multiple_of(HEADER);
        let mut index = Index::new();
        let mut end = HEADER;
        for (number, disk) in disks.iter().enumerate() {
            let size = disk.device.size();
            index.disks.push(SectionDisk { image: disk.image.clone(), size });
            let Some(layer) = disk.layer else { continue };
            for (chunk, (certain, uncertain)) in changed_chunks(layer, disk.device)? {
                let (start, mut old, mut new) = (chunk * CHUNK, vec![0; CHUNK_LEN], vec![0; CHUNK_LEN]);
                let len = usize::try_from((size - start).min(CHUNK)).unwrap_or(CHUNK_LEN);
                disk.device.read_at(start, old.get_mut(..len).unwrap_or_default())?;
                layer.read(disk.device, start, new.get_mut(..len).unwrap_or_default())?;
                let has_content = old.iter().any(|byte| *byte != 0);
                for (present, expected) in [(certain, Some(crc_of(&new, certain))), (uncertain, None)] {
                    if present == 0 {
                        continue;
                    }
                    let crc = crc_of(&old, present);
                    index.pieces.push(Piece {
                        disk: number,
                        index: chunk,
                        present,
                        offset: has_content.then_some(end),
                        crc,
                        expected,
                    });
                }
                if has_content {
                    self.file.write_all_at(&old, base + end)?;
                    end += CHUNK;
                }
            }
        }
        // A section that has a header is complete: otherwise one that is damaged could pass for one that
        // was cut off.
        let len = index.write(&self.file, Kind::Undo, base, end, || self.file.sync_all())?;
        self.file.sync_all()?;
        if let Some(directory) = self.path.parent() {
            let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            File::open(directory)?.sync_all()?;
        }
        Ok(base + len)
    }
}

/// The chunks that a layer changes, but for ranges that are cleared and have no content.
fn changed_chunks(layer: &Layer, below: &dyn BlockDevice) -> io::Result<BTreeMap<u64, Masks>> {
    let mut chunks: BTreeMap<u64, Masks> = BTreeMap::new();
    for (index, chunk) in layer.chunks() {
        chunks.entry(index).or_default().0 |= chunk.present;
    }
    for (start, end, kind) in layer.cleared(below.size()) {
        let mut at = start;
        while at < end {
            let extent = below.extents().map(|extents| extents.extent_at(at)).transpose()?;
            // A granule that is only in part a hole has content.
            let hole_end = extent.filter(|extent| extent.is_hole).map_or(at, |hole| at + hole.len);
            let hole_end = (hole_end - hole_end % GRANULE).min(end);
            if hole_end > at {
                at = hole_end;
                continue;
            }
            let index = at / CHUNK;
            let to = end.min((index + 1) * CHUNK);
            let granule = |byte: u64| u32::try_from((byte - index * CHUNK).div_ceil(GRANULE)).unwrap_or(128);
            let (certain, uncertain) = chunks.entry(index).or_default();
            let present = mask(granule(at), granule(to));
            match kind {
                Clearing::Zeroes => *certain |= present,
                Clearing::Discard => *uncertain |= present,
            }
            at = to;
        }
    }
    Ok(chunks)
}

/// Puts back what the images held before a session, from its undo file: all of it, or on failure
/// nothing. Gives the images.
///
/// Refused unless the images are as the session left them, wherever it changed them. `open` opens an
/// image for writing.
pub fn undo(path: &Path, options: TransactionOptions, open: &mut OpenImage<'_>) -> Result<Vec<String>> {
    let cannot = |doing, source| Error::Io { image: path.display().to_string(), doing, source };
    let file = File::open(path).map_err(|e| cannot("cannot open", e))?;
    let len = file.metadata().map_err(|e| cannot("cannot read", e))?.len();
    let mut sections = Vec::new();
    let mut base = 0;
    while base < len {
        match Index::read(&file, Kind::Undo, base, len).map_err(|e| cannot("cannot read", e))? {
            Ok((index, len)) => {
                sections.push((base, index));
                base = (base + len).next_multiple_of(HEADER);
            }
            Err(what) if sections.is_empty() => {
                return Err(refuse(path, &format!("this is no undo file, or it is damaged: {what}")));
            }
            Err(what) if is_damaged(&file, base, len).map_err(|e| cannot("cannot read", e))? => {
                return Err(damaged(path, base, what));
            }
            // The last one was cut off, so its commit did not happen.
            Err(_) => break,
        }
    }
    if sections.is_empty() {
        return Err(refuse(path, "this is no undo file: it is empty"));
    }
    let mut images: Vec<(ImageIdentity, u64)> = Vec::new();
    for disk in sections.iter().flat_map(|(_, index)| &index.disks) {
        if !images.iter().any(|(known, _)| known.is_same(&disk.image)) {
            images.push((disk.image.clone(), disk.size));
        }
    }
    let disks =
        images.iter().map(|(image, size)| open_disk(path, image, *size, open)).collect::<Result<_>>()?;
    let (transaction, _) = Transaction::open(disks, options, open)?;
    // The last commit first: each one is checked against what the later ones leave of it.
    for (base, index) in sections.iter().rev() {
        for piece in &index.pieces {
            let image = index.disks.get(piece.disk).map(|disk| &disk.image);
            let number = images.iter().position(|(known, _)| image.is_some_and(|image| known.is_same(image)));
            let device = number.and_then(|number| transaction.device(number));
            let (Some(device), Some(image)) = (device, image) else { continue };
            let old = piece.read(&file, *base).map_err(|e| cannot("cannot read", e))?;
            let at = base + piece.offset.unwrap_or(0);
            let old = old.ok_or_else(|| damaged(path, at, "a checksum of its content is wrong"))?;
            check_piece(path, piece, &old, image, &*device)?;
            let mut writer = Writer::new(&*device);
            write_piece(piece, &file, *base, &mut writer)
                .and_then(|()| writer.finish())
                .map_err(|e| cannot("cannot put its content back", e))?;
        }
    }
    transaction.commit().map_err(|e| cannot("cannot put its content back", e))?;
    Ok(images.iter().map(|(image, _)| image.shown()).collect())
}

/// Whether the section at byte `base`, which cannot be read, was complete once: it has something where
/// its header is, which is written last, or others follow it.
fn is_damaged(file: &File, base: u64, len: u64) -> io::Result<bool> {
    let mut block = vec![0; HEADER_LEN];
    let mut at = base;
    while at + HEADER <= len {
        file.read_exact_at(&mut block, at)?;
        let is_header =
            if at == base { block.iter().any(|byte| *byte != 0) } else { section::is_header(&block) };
        if is_header {
            return Ok(true);
        }
        at += HEADER;
    }
    Ok(false)
}

fn damaged(path: &Path, at: u64, what: &str) -> Error {
    refuse(
        path,
        &format!("the undo file is damaged at byte {at:#x} or after it: {what}. Nothing was changed"),
    )
}

/// Refuses to put back what has changed since the session.
fn check_piece(
    path: &Path,
    piece: &Piece,
    old: &[u8],
    image: &ImageIdentity,
    device: &dyn BlockDevice,
) -> Result<()> {
    let start = piece.index * CHUNK;
    let mut now = vec![0; CHUNK_LEN];
    let len = usize::try_from(device.size().saturating_sub(start).min(CHUNK)).unwrap_or(CHUNK_LEN);
    device.read_at(start, now.get_mut(..len).unwrap_or_default()).map_err(|source| Error::Io {
        image: image.shown(),
        doing: "cannot read",
        source,
    })?;
    let crc = crc_of(&now, piece.present);
    // What is as before already need not change; what was discarded is that or zeros.
    let is_known = match piece.expected {
        Some(expected) => crc == expected || crc == piece.crc,
        None => (0..128).filter(|granule| piece.present & mask(*granule, granule + 1) != 0).all(|granule| {
            let granule = granules(granule, granule + 1);
            let now = now.get(granule.clone()).unwrap_or_default();
            now.iter().all(|byte| *byte == 0) || Some(now) == old.get(granule)
        }),
    };
    if is_known {
        return Ok(());
    }
    Err(refuse(
        path,
        &format!(
            "{} was changed since, at byte {start:#x} or in the {CHUNK} bytes from there: putting back what was \
             there before would mix two states. Nothing was changed",
            image.shown()
        ),
    ))
}

fn open_disk(
    path: &Path,
    image: &ImageIdentity,
    size: u64,
    open: &mut OpenImage<'_>,
) -> Result<TransactionDisk> {
    let name = image.shown();
    if image.file_path().is_some() {
        let now = ImageIdentity::of(&name, &image.format);
        let now = now.map_err(|e| refuse(path, &format!("{name}: cannot find the image: {e}")))?;
        if !now.is_same(image) {
            return Err(refuse(path, &format!("{name}: another file has the image's name")));
        }
    }
    let device = open(&name, &image.format)?;
    if device.size() != size {
        let now = device.size();
        return Err(refuse(path, &format!("{name}: the disk had {size} bytes, and has {now} now")));
    }
    Ok(TransactionDisk { device, name, access: Access::Commit, image: Some(image.clone()) })
}

fn refuse(path: &Path, problem: &str) -> Error {
    Error::Journal { journal: path.display().to_string(), problem: problem.to_owned() }
}
