//! What an earlier session left: a journal that is finished before the images are used.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;

use super::apply::{Writer, clear};
use super::before;
use super::chunk::{CHUNK, GRANULE, runs};
use super::identity::ImageIdentity;
use super::journal::{self, Pointer};
use super::section::{Index, Kind, Piece, granules};
use super::spill::unfinished_name;
use super::{Access, Transaction, TransactionDisk, TransactionOptions};
use crate::{BlockDevice, Error, Result};

/// Opens an image for writing: its path or URI, and its format.
pub type OpenImage<'a> = dyn FnMut(&str, &str) -> Result<Arc<dyn BlockDevice>> + 'a;

/// How often a journal is looked at again that another process changes meanwhile.
const TRIES: usize = 8;

/// A journal that was found, and verified.
struct Found {
    path: PathBuf,
    file: File,
    index: Index,
}

/// Finishes the journals of all disks; of disks that are not written, they are replayed into memory,
/// which `disks` shows then. Gives what the user should know.
pub(super) fn recover(
    disks: &mut [TransactionDisk],
    options: &TransactionOptions,
    open: &mut OpenImage<'_>,
) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    for _ in 0..TRIES {
        let journals = find_all(disks, options)?;
        let mut is_done = true;
        for path in journals {
            let Some(found) = Found::open(&path)? else {
                is_done = false;
                continue;
            };
            found.check_belongs(disks, options)?;
            if !found.is_about(disks) {
                // A later journal, which has the name of the one that a pointer led to.
                found.remove_stale_pointers(disks, options)?;
                continue;
            }
            match found.finish(disks, options, open)? {
                Some(note) => notes.push(note),
                None => is_done = false,
            }
        }
        if is_done {
            return Ok(notes);
        }
    }
    Err(refuse(Path::new("journal"), "another process changes the images all the time"))
}

/// The journals that the disks have or point to.
fn find_all(disks: &[TransactionDisk], options: &TransactionOptions) -> Result<BTreeSet<PathBuf>> {
    let mut journals = BTreeSet::new();
    for disk in disks {
        let Some(image) = &disk.image else { continue };
        for path in image.journal_paths(options.state_directory.as_deref()) {
            if disk.access == Access::Commit {
                // What a session left that ended before its commit began.
                remove_if_there(&unfinished_name(&path))?;
            }
            let file = match open_regular(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(cannot(&path, "cannot open", e)),
            };
            match Pointer::read(&file).map_err(|e| cannot(&path, "cannot read", e))? {
                None => {
                    journals.insert(path);
                }
                Some(pointer) => {
                    let pointer = pointer.map_err(|what| refuse(&path, what))?;
                    journals.extend(follow(disk, image, &path, pointer)?);
                }
            }
        }
    }
    Ok(journals)
}

/// Where a pointer leads. `None` if its journal is done or never was.
fn follow(
    disk: &TransactionDisk,
    image: &ImageIdentity,
    path: &Path,
    pointer: Pointer,
) -> Result<Option<PathBuf>> {
    if !pointer.image.is_same(image) {
        return Err(refuse(path, &format!("it was written for another image, {}", pointer.image.shown())));
    }
    let exists = |path: &Path| path.try_exists().map_err(|e| cannot(path, "cannot look for it", e));
    if exists(&pointer.journal)? {
        return Ok(Some(pointer.journal));
    }
    // A journal goes after its pointers, so there is nothing to do, unless it cannot be seen from here.
    let is_here = pointer.image.name == image.name
        && match pointer.journal.to_str().and_then(|name| name.strip_suffix(super::identity::SUFFIX)) {
            Some(other) if pointer.image.file_path().is_some() => {
                exists(Path::new(other))? || pointer.journal.parent().is_some_and(Path::is_dir)
            }
            _ => pointer.journal.parent().is_some_and(Path::is_dir),
        };
    if !is_here {
        return Err(refuse(
            path,
            &format!(
                "the journal {} of the images that were changed together is not there: put the images back \
                 where they were, or delete this file if you know that the commit was not under way",
                pointer.journal.display()
            ),
        ));
    }
    if disk.access == Access::Commit {
        remove_if_there(path)?;
    }
    Ok(None)
}

impl Found {
    /// Reads and verifies a journal. `None` if it has gone meanwhile.
    fn open(path: &Path) -> Result<Option<Self>> {
        let file = match open_regular(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(cannot(path, "cannot open", e)),
        };
        let unreadable = |e| cannot(path, "cannot read", e);
        let len = file.metadata().map_err(unreadable)?.len();
        let damaged = |what: &str| {
            refuse(
                path,
                &format!(
                    "the journal is damaged: {what}. The images may hold a part of a commit: restore them from \
                     a backup, or delete the journal to take them as they are"
                ),
            )
        };
        let (index, _) = Index::read(&file, Kind::Journal, 0, len).map_err(unreadable)?.map_err(damaged)?;
        for piece in &index.pieces {
            if piece.read(&file, 0).map_err(unreadable)?.is_none() {
                return Err(damaged("the checksum of its content is wrong"));
            }
        }
        Ok(Some(Self { path: path.to_owned(), file, index }))
    }

    /// Refuses a journal that stands beside an image that it says nothing of.
    fn check_belongs(&self, disks: &[TransactionDisk], options: &TransactionOptions) -> Result<()> {
        for disk in disks {
            let Some(image) = &disk.image else { continue };
            let stands_beside = image.journal_paths(options.state_directory.as_deref()).contains(&self.path);
            let Some(known) = self.index.disks.iter().find(|known| known.image.is_same(image)) else {
                if stands_beside {
                    let names: Vec<_> = self.index.disks.iter().map(|disk| disk.image.shown()).collect();
                    return Err(refuse(
                        &self.path,
                        &format!(
                            "the journal is of another image ({}): put it back beside that one, or delete it",
                            names.join(", ")
                        ),
                    ));
                }
                continue;
            };
            self.check_size(known.size, &*disk.device, &disk.name)?;
        }
        Ok(())
    }

    /// Whether it says something of one of the disks.
    fn is_about(&self, disks: &[TransactionDisk]) -> bool {
        let images = || disks.iter().filter_map(|disk| disk.image.as_ref());
        self.index.disks.iter().any(|known| images().any(|image| known.image.is_same(image)))
    }

    /// Removes what leads from the disks to this journal, which says nothing of them.
    fn remove_stale_pointers(&self, disks: &[TransactionDisk], options: &TransactionOptions) -> Result<()> {
        for disk in disks.iter().filter(|disk| disk.access == Access::Commit) {
            let Some(image) = &disk.image else { continue };
            for path in image.journal_paths(options.state_directory.as_deref()) {
                if self.is_pointed_to_by(&path) {
                    remove_if_there(&path)?;
                }
            }
        }
        Ok(())
    }

    fn check_size(&self, size: u64, device: &dyn BlockDevice, name: &str) -> Result<()> {
        if size == device.size() {
            return Ok(());
        }
        Err(refuse(
            &self.path,
            &format!(
                "the journal is for a disk of {size} bytes, and {name} has {}: the image was replaced or \
                 resized since; delete the journal if the image is to stay as it is",
                device.size()
            ),
        ))
    }

    /// Whether a part of the journal is about this disk.
    fn changes(&self, number: usize) -> bool {
        self.index.ranges.iter().any(|range| range.disk == number)
            || self.index.pieces.iter().any(|piece| piece.disk == number)
    }

    /// Writes the journal's content to the images and removes it, if they are open for writing; else
    /// shows it in memory. `None` if the journal has gone meanwhile.
    fn finish(
        &self,
        disks: &mut [TransactionDisk],
        options: &TransactionOptions,
        open: &mut OpenImage<'_>,
    ) -> Result<Option<String>> {
        let ours = |disk: &TransactionDisk, number: usize| {
            let known = self.index.disks.get(number).map(|known| &known.image);
            known.zip(disk.image.as_ref()).is_some_and(|(known, image)| known.is_same(image))
        };
        let numbers: Vec<usize> =
            (0..self.index.disks.len()).filter(|number| self.changes(*number)).collect();
        let is_written = disks.iter().any(|disk| {
            disk.access == Access::Commit && (0..self.index.disks.len()).any(|number| ours(disk, number))
        });
        if !is_written {
            for disk in disks.iter_mut() {
                let Some(number) = numbers.iter().copied().find(|number| ours(disk, *number)) else {
                    continue;
                };
                self.check_unchanged(number, &*disk.device)?;
                disk.device = self.replay(disk, number, options)?;
            }
            return Ok(Some(format!(
                "{}: an earlier session was cut off while it wrote its changes; they are shown here, and are \
                 written when the image is opened for writing",
                self.path.display()
            )));
        }
        let mut targets = Vec::new();
        for number in numbers {
            let Some(known) = self.index.disks.get(number) else { continue };
            let device = match disks.iter().find(|disk| ours(disk, number)) {
                Some(disk) if disk.access == Access::Commit => disk.device.clone(),
                Some(disk) => {
                    return Err(refuse(
                        &self.path,
                        &format!(
                            "an earlier session was cut off while it wrote its changes to several images: open {} \
                             for writing too, or all of them read-only",
                            disk.name
                        ),
                    ));
                }
                None => {
                    let device = self.open_other(&known.image, options, open)?;
                    self.check_size(known.size, &*device, &known.image.shown())?;
                    device
                }
            };
            targets.push((number, device));
        }
        // All images are locked now; if the journal is still there, nobody else is finishing it.
        if !self.is_there()? {
            return Ok(None);
        }
        for (number, device) in &targets {
            self.check_unchanged(*number, &**device)?;
        }
        for (number, device) in &targets {
            self.apply(*number, &**device)?;
        }
        for (number, device) in &targets {
            device.flush().map_err(|e| self.not_finished(*number, e))?;
        }
        let pointers: Vec<PathBuf> = self
            .index
            .disks
            .iter()
            .flat_map(|disk| disk.image.journal_paths(options.state_directory.as_deref()))
            .filter(|path| *path != self.path && self.is_pointed_to_by(path))
            .collect();
        let path = std::slice::from_ref(&self.path);
        // A pointer that is left leads nowhere; a journal that is left would be applied again, over
        // what was written since to an image that no longer leads to it.
        journal::remove(path)
            .and_then(|()| journal::remove(&pointers))
            .map_err(|e| cannot(&self.path, "cannot remove the finished journal", e))?;
        Ok(Some(format!(
            "{}: an earlier session was cut off while it wrote its changes; they are complete now",
            self.path.display()
        )))
    }

    fn is_pointed_to_by(&self, path: &Path) -> bool {
        let pointer = open_regular(path).and_then(|file| Pointer::read(&file));
        matches!(pointer, Ok(Some(Ok(pointer))) if pointer.journal == self.path)
    }

    /// Whether the file is still the one that has the journal's name.
    fn is_there(&self) -> Result<bool> {
        let ours = self.file.metadata().map_err(|e| cannot(&self.path, "cannot read", e))?;
        match fs::metadata(&self.path) {
            Ok(now) => Ok((now.dev(), now.ino()) == (ours.dev(), ours.ino())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(cannot(&self.path, "cannot read", e)),
        }
    }

    /// Opens an image of the journal that the user did not name. It must lead to the journal itself:
    /// otherwise a journal that came with an image could have any file of the host written to.
    fn open_other(
        &self,
        image: &ImageIdentity,
        options: &TransactionOptions,
        open: &mut OpenImage<'_>,
    ) -> Result<Arc<dyn BlockDevice>> {
        let missing = |why: String| {
            refuse(
                &self.path,
                &format!(
                    "an earlier session was cut off while it wrote its changes to several images, and {} of \
                     them cannot be opened ({why}): open all images of the guest together",
                    image.shown()
                ),
            )
        };
        let name = std::str::from_utf8(&image.name).map_err(|_| missing("its name is not UTF-8".into()))?;
        if image.file_path().is_some() {
            let now = ImageIdentity::of(name, &image.format).map_err(|e| missing(e.to_string()))?;
            if !now.is_same(image) {
                return Err(missing("another file has its name".into()));
            }
        }
        let leads_here = |path: &PathBuf| *path == self.path || self.is_pointed_to_by(path);
        if !image.journal_paths(options.state_directory.as_deref()).iter().any(leads_here) {
            return Err(missing("nothing beside it leads to this journal".into()));
        }
        open(name, &image.format).map_err(|e| missing(e.to_string()))
    }

    /// Refuses to write over what somebody else wrote since: each place holds what it held before the
    /// commit, or what the commit gives it.
    fn check_unchanged(&self, number: usize, device: &dyn BlockDevice) -> Result<()> {
        let image = || self.index.disks.get(number).map_or_else(String::new, |disk| disk.image.shown());
        let changed = before::find_change(&self.index, number, &self.file, device);
        match changed.map_err(|source| Error::Io { image: image(), doing: "cannot read", source })? {
            None => Ok(()),
            Some(at) => Err(refuse(
                &self.path,
                &format!(
                    "{} was changed by another program after an earlier session was cut off while it wrote its \
                     changes: byte {at:#x} of the disk is neither what it was before nor what the session wrote. \
                     Finishing the journal would mix the two: restore the images from a backup, or delete the \
                     journal to take them as they are",
                    image()
                ),
            )),
        }
    }

    fn not_finished(&self, number: usize, error: io::Error) -> Error {
        let image = self.index.disks.get(number).map_or_else(String::new, |disk| disk.image.shown());
        refuse(
            &self.path,
            &format!(
                "the journal could not be finished: {image}: {error}; it stays, and is finished when the image is \
                 opened again"
            ),
        )
    }

    fn pieces(&self, number: usize) -> impl Iterator<Item = &Piece> {
        self.index.pieces.iter().filter(move |piece| piece.disk == number)
    }

    /// Writes what the journal has for a disk.
    fn apply(&self, number: usize, device: &dyn BlockDevice) -> Result<()> {
        for range in self.index.ranges.iter().filter(|range| range.disk == number) {
            clear(device, range.start, range.end - range.start, range.kind)
                .map_err(|e| self.not_finished(number, e))?;
        }
        let mut writer = Writer::new(device);
        let mut write = |piece: &Piece| write_piece(piece, &self.file, 0, &mut writer);
        self.pieces(number).try_for_each(&mut write).map_err(|e| self.not_finished(number, e))?;
        writer.finish().map_err(|e| self.not_finished(number, e))
    }

    /// The disk as it will be when the journal is finished, in memory.
    fn replay(
        &self,
        disk: &TransactionDisk,
        number: usize,
        options: &TransactionOptions,
    ) -> Result<Arc<dyn BlockDevice>> {
        let below = TransactionDisk { access: Access::Forget, image: None, ..disk.clone() };
        let replayed = Transaction::new(vec![below], options.clone());
        let device = replayed.device(0).unwrap_or_else(|| disk.device.clone());
        self.apply(number, &*device)?;
        Ok(device)
    }
}

/// Writes a piece of a section to a disk.
pub(super) fn write_piece(piece: &Piece, file: &File, base: u64, writer: &mut Writer<'_>) -> io::Result<()> {
    if piece.offset.is_none() {
        return writer.zero(piece);
    }
    let Some(bytes) = piece.read(file, base)? else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the journal changed while it was read"));
    };
    let start = piece.index * CHUNK;
    for (first, end) in runs(piece.present) {
        let range = granules(first, end);
        let at = start + u64::from(first) * GRANULE;
        writer.write_within(at, bytes.get(range).unwrap_or_default())?;
    }
    Ok(())
}

/// Opens a journal or pointer. Of a pipe that came with the image, opening would wait for who writes to it.
fn open_regular(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
    }
}

fn remove_if_there(path: &Path) -> Result<()> {
    journal::remove(&[path.to_owned()]).map_err(|e| cannot(path, "cannot remove", e))
}

fn refuse(journal: &Path, problem: &str) -> Error {
    Error::Journal { journal: journal.display().to_string(), problem: problem.to_owned() }
}

fn cannot(path: &Path, doing: &'static str, source: io::Error) -> Error {
    Error::Io { image: path.display().to_string(), doing, source }
}
