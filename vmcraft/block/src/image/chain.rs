//! Opening an image and the files that it names, down to the last backing file.

use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use super::reference::{self, Named};
use super::{Format, OpenOptions, Reference, probe, remote};
use crate::qcow2::{Header, Parts, Qcow2};
use crate::storage::{HostFile, Storage};
use crate::{BlockDevice, Error, RawFile, Result};

/// How long a backing chain may be. Reading goes down the chain by recursion.
const MAX_DEPTH: usize = 256;

/// What makes a file the same file: device and inode, or the block device's number.
type FileId = (u64, u64, u64);

/// Opens the images of one chain.
pub(super) struct Opener<'a> {
    pub(super) options: &'a OpenOptions,
    pub(super) warnings: Vec<String>,
    /// The files from the top image down to the one that is being opened.
    open: Vec<FileId>,
}

/// An open image of the chain.
pub(super) struct Layer {
    pub(super) device: Arc<dyn BlockDevice>,
    pub(super) format: Format,
}

impl<'a> Opener<'a> {
    pub(super) fn new(options: &'a OpenOptions) -> Self {
        Self { options, warnings: Vec::new(), open: Vec::new() }
    }

    /// Opens the disk that the user named.
    pub(super) fn open_top(&mut self, name: &str) -> Result<Layer> {
        let storage = self.open_file(name, Path::new(name), self.options.read_only)?;
        let found = probed(name, &storage)?;
        let format = match (&self.options.format, found) {
            (Some(Format::Raw), _) => Format::Raw,
            (Some(given), Some(found)) if *given != found => {
                return Err(wrong_format(name, given, format!("its content is {found}")));
            }
            (Some(Format::Qcow2), None) => {
                return Err(wrong_format(name, &Format::Qcow2, "it does not begin with qcow2's mark".into()));
            }
            (Some(given), _) => given.clone(),
            (None, Some(found)) => found,
            (None, None) => {
                if !self.options.read_only {
                    self.warnings.push(format!(
                        "{name}: the format was guessed from the content, as raw; give --format=raw, as a \
                         guest can write what looks like another format"
                    ));
                }
                Format::Raw
            }
        };
        let snapshot = self.options.snapshot.clone();
        if snapshot.is_some() && format != Format::Qcow2 {
            return Err(Error::Unsupported {
                image: name.to_owned(),
                feature: format!("internal snapshots in format {format}"),
            });
        }
        self.open_as(name, storage, format, self.options.read_only, snapshot)
    }

    /// Opens a file in a format that has been settled.
    fn open_as(
        &mut self,
        name: &str,
        storage: Arc<HostFile>,
        format: Format,
        read_only: bool,
        snapshot: Option<String>,
    ) -> Result<Layer> {
        let io = |source| Error::Io { image: name.to_owned(), doing: "cannot read", source };
        let device: Arc<dyn BlockDevice> = match &format {
            Format::Raw => {
                if storage.size().map_err(io)? == 0 {
                    return Err(Error::Empty { image: name.to_owned() });
                }
                Arc::new(RawFile::over(storage).map_err(io)?)
            }
            Format::Qcow2 => self.open_qcow2(name, storage, snapshot)?,
            Format::ViaQemu(format) => {
                drop(storage);
                remote::open_via_qemu(name, format, read_only)?
            }
        };
        Ok(Layer { device, format })
    }

    fn open_qcow2(
        &mut self,
        name: &str,
        storage: Arc<HostFile>,
        snapshot: Option<String>,
    ) -> Result<Arc<dyn BlockDevice>> {
        let header = Header::read(name, &*storage)?;
        let read_only = storage.is_read_only();
        let data_file = match (&header.data_file, header.has_data_file()) {
            (Some(named), true) => Some(self.open_data_file(name, named, read_only)?),
            (None, true) => {
                let what = "header: an external data file without a name".to_owned();
                return Err(Error::Corrupt { image: name.to_owned(), what, offset: 0x48 });
            }
            (_, false) => None,
        };
        let backing = match &header.backing_file {
            Some(named) => Some(self.open_backing(name, named, header.backing_format.as_deref())?),
            None => None,
        };
        Ok(Arc::new(Qcow2::open(name, storage, header, Parts { backing, data_file, snapshot })?))
    }

    fn open_data_file(&mut self, image: &str, named: &str, read_only: bool) -> Result<Arc<dyn Storage>> {
        let path = self.admit(image, named, "data file")?.path;
        let file = self.open_file(&path.to_string_lossy(), &path, read_only)?;
        self.open.pop();
        Ok(file)
    }

    fn open_backing(
        &mut self,
        image: &str,
        named: &str,
        format: Option<&str>,
    ) -> Result<Arc<dyn BlockDevice>> {
        let target = self.admit(image, named, "backing file")?;
        if self.open.len() >= MAX_DEPTH {
            return Err(refused(image, named, format!("the backing chain has more than {MAX_DEPTH} images")));
        }
        let name = target.path.to_string_lossy().into_owned();
        let storage = self.open_file(&name, &target.path, true)?;
        let format = match target.format.as_deref().or(format) {
            Some(format) => format.parse().map_err(|e| refused(image, named, e))?,
            None => {
                let format = probed(&name, &storage)?.unwrap_or(Format::Raw);
                self.warnings.push(format!(
                    "{image}: it does not say the format of its backing file {named:?}, which was taken for \
                     {format}; qemu-img rebase -u -F {format} -b {named:?} records it"
                ));
                format
            }
        };
        let layer = self.open_as(&name, storage, format, true, None)?;
        self.open.pop();
        Ok(layer.device)
    }

    /// Finds the file that an image names, and asks the gate.
    fn admit(&self, image: &str, named: &str, role: &'static str) -> Result<Named> {
        let target = reference::resolve(Path::new(image), named).map_err(|e| refused(image, named, e))?;
        (self.options.gate)(&Reference { image, named, resolved: &target.path, role })
            .map_err(|reason| refused(image, named, reason))?;
        Ok(target)
    }

    /// Opens a file, and remembers it as one of the chain.
    fn open_file(&mut self, name: &str, path: &Path, read_only: bool) -> Result<Arc<HostFile>> {
        let io = |doing| move |source| Error::Io { image: name.to_owned(), doing, source };
        // Looked at before it is opened: opening a FIFO waits, opening a tape rewinds it.
        refuse_other_kinds(name, &fs::metadata(path).map_err(io("cannot open"))?)?;
        let file = File::options()
            .read(true)
            .write(!read_only)
            .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC)
            .open(path)
            .map_err(io(if read_only { "cannot open" } else { "cannot open for writing" }))?;
        let metadata = file.metadata().map_err(io("cannot open"))?;
        refuse_other_kinds(name, &metadata)?;
        let id = if metadata.file_type().is_block_device() {
            (0, 0, metadata.rdev())
        } else {
            (metadata.dev(), metadata.ino(), 0)
        };
        if self.open.contains(&id) {
            return Err(refused(name, name, "the backing chain loops: the file is in it already".into()));
        }
        self.open.push(id);
        Ok(Arc::new(HostFile::new(file, read_only).map_err(io("cannot open"))?))
    }
}

fn refuse_other_kinds(name: &str, metadata: &fs::Metadata) -> Result<()> {
    let kind = metadata.file_type();
    if kind.is_file() || kind.is_block_device() {
        return Ok(());
    }
    let kind = match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_char_device() => "a character device",
        () if kind.is_fifo() => "a FIFO",
        () => "a socket",
    };
    Err(Error::NotAFile { image: name.to_owned(), kind })
}

fn probed(name: &str, storage: &HostFile) -> Result<Option<Format>> {
    probe::probe(storage).map_err(|source| Error::Io { image: name.to_owned(), doing: "cannot read", source })
}

fn wrong_format(image: &str, given: &Format, found: String) -> Error {
    Error::WrongFormat { image: image.to_owned(), given: given.to_string(), found }
}

fn refused(image: &str, named: &str, reason: String) -> Error {
    Error::Refused { image: image.to_owned(), named: named.to_owned(), reason }
}
