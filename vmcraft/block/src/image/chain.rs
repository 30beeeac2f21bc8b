//! Opening an image and the files that it names, down to the last backing file.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use super::reference::{self, Named};
use super::{Format, OpenOptions, Reference, probe, via_qemu};
use crate::lock::{self, Access, Failure};
use crate::qcow2::{self, Header, Parts, Qcow2};
use crate::storage::{HostFile, Storage};
use crate::transaction::JOURNAL_SUFFIX;
use crate::{BlockDevice, Error, RawFile, Result};

/// How long a backing chain may be. Reading goes down the chain by recursion.
const MAX_DEPTH: usize = 256;

/// How many bytes the L1 tables of a chain may have together: they are all in memory. With clusters of
/// 64 KiB that is enough for 8 EiB.
const MAX_L1_BYTES: u64 = 128 << 20;

/// How many bytes of tables and decompressed clusters the images of a chain keep in memory together.
const CACHE_BYTES: usize = 16 << 20;

/// What makes a file the same file: device and inode, or the block device's number.
type FileId = (u64, u64, u64);

/// Opens the images of one chain.
pub(super) struct Opener<'a> {
    pub(super) options: &'a OpenOptions,
    pub(super) warnings: &'a mut Vec<String>,
    /// The files from the top image down to the one that is being opened.
    open: Vec<FileId>,
}

/// An open disk.
pub(super) struct Layer {
    pub(super) device: Arc<dyn BlockDevice>,
    pub(super) format: Format,
}

/// A file of the chain, opened but not locked.
pub(super) struct File {
    pub(super) name: String,
    pub(super) storage: Arc<HostFile>,
    pub(super) format: Format,
}

/// A qcow2 image that waits for what is below it.
struct Pending {
    name: String,
    storage: Arc<HostFile>,
    header: Header,
    data_file: Option<Arc<dyn Storage>>,
}

/// How far a layer can be opened by itself.
enum Step {
    /// All of it: formats without backing files.
    Bottom(Arc<dyn BlockDevice>),
    /// Up to its header.
    Qcow2(Box<Pending>),
}

/// Opens a qcow2 image over what is below it. The snapshot is one of the top image.
fn assemble(
    layer: Box<Pending>,
    backing: Option<Arc<dyn BlockDevice>>,
    above: &[Box<Pending>],
    snapshot: Option<&str>,
    cache_bytes: usize,
) -> Result<Arc<dyn BlockDevice>> {
    let snapshot = snapshot.filter(|_| above.is_empty()).map(str::to_owned);
    let parts = Parts { backing, data_file: layer.data_file, snapshot, cache_bytes };
    let image = Qcow2::open(&layer.name, layer.storage, layer.header, parts).map_err(|e| below(above, e))?;
    Ok(Arc::new(image))
}

/// The error with the image that led to the one it is about.
fn below(above: &[Box<Pending>], error: Error) -> Error {
    match above.last() {
        Some(layer) => Error::Within { image: layer.name.clone(), source: Box::new(error) },
        None => error,
    }
}

impl<'a> Opener<'a> {
    pub(super) fn new(options: &'a OpenOptions, warnings: &'a mut Vec<String>) -> Self {
        Self { options, warnings, open: Vec::new() }
    }

    /// Opens the disk that the user named.
    pub(super) fn open_top(&mut self, name: &str) -> Result<Layer> {
        let file = self.find_top(name)?;
        let format = file.format.clone();
        let snapshot = self.options.snapshot.clone();
        if snapshot.is_some() && format != Format::Qcow2 {
            return Err(Error::Unsupported {
                image: name.to_owned(),
                feature: format!("internal snapshots in format {format}"),
            });
        }
        let device = self.open_chain(file, snapshot)?;
        Ok(Layer { device, format })
    }

    /// Opens the file of the disk that the user named, and settles its format.
    pub(super) fn find_top(&mut self, name: &str) -> Result<File> {
        let storage = self.open_file(name, Path::new(name), self.options.read_only)?;
        let format = self.settle_format(name, &storage)?;
        Ok(File { name: name.to_owned(), storage, format })
    }

    /// The format of the disk that the user named: the one given, if the content does not contradict
    /// it, else what the content says.
    pub(super) fn settle_format(&mut self, name: &str, storage: &dyn Storage) -> Result<Format> {
        let found = probed(name, storage)?;
        Ok(match (&self.options.format, found) {
            (Some(Format::Raw), _) => Format::Raw,
            (Some(given), Some(found)) if *given != found => {
                return Err(wrong_format(name, given, format!("its content is {found}")));
            }
            (Some(Format::Qcow2), None) => {
                return Err(wrong_format(name, &Format::Qcow2, "it does not begin with qcow2's mark".into()));
            }
            (Some(given), _) => given.clone(),
            (None, Some(found)) => found,
            (None, None) => Format::Raw,
        })
    }

    /// Opens an image and all below it: headers from the top down, which leads to the files, then the
    /// images from the bottom up.
    fn open_chain(&mut self, top: File, snapshot: Option<String>) -> Result<Arc<dyn BlockDevice>> {
        let mut above = Vec::new();
        let mut next = top;
        let mut l1_bytes = 0;
        let bottom = loop {
            let layer = match self.open_layer(next).map_err(|e| below(&above, e))? {
                Step::Qcow2(layer) => layer,
                bottom @ Step::Bottom(_) => break bottom,
            };
            l1_bytes += layer.header.l1_bytes();
            if l1_bytes > MAX_L1_BYTES {
                let feature = format!("L1 tables of more than {MAX_L1_BYTES} bytes in a backing chain");
                return Err(Error::Unsupported { image: layer.name.clone(), feature });
            }
            let Some(named) = &layer.header.backing_file else { break Step::Qcow2(layer) };
            next = self.open_backing(&layer.name, named, layer.header.backing_format.as_deref())?;
            above.push(layer);
        };
        let cache_bytes = CACHE_BYTES / (above.len() + 1);
        let snapshot = snapshot.as_deref();
        let mut device = match bottom {
            Step::Bottom(device) => device,
            Step::Qcow2(layer) => assemble(layer, None, &above, snapshot, cache_bytes)?,
        };
        while let Some(layer) = above.pop() {
            device = assemble(layer, Some(device), &above, snapshot, cache_bytes)?;
        }
        Ok(device)
    }

    /// Locks an image, and opens it as far as that needs nothing below it.
    fn open_layer(&mut self, file: File) -> Result<Step> {
        let File { name, storage, format } = file;
        let io = |source| Error::Io { image: name.clone(), doing: "cannot read", source };
        match format {
            Format::Raw => {
                self.lock(&name, &storage, false)?;
                if storage.size().map_err(io)? == 0 {
                    return Err(Error::Empty { image: name });
                }
                Ok(Step::Bottom(Arc::new(RawFile::over(storage).map_err(io)?)))
            }
            Format::Qcow2 => {
                self.lock(&name, &storage, true)?;
                let header = Header::read(&name, &storage)?;
                if !storage.is_read_only() {
                    self.warn_of_bitmaps(&name, &storage, &header);
                }
                let data_file = match (&header.data_file, header.has_data_file()) {
                    (Some(named), true) => Some(self.open_data_file(&name, named, storage.is_read_only())?),
                    (None, true) => {
                        let what = "header: an external data file without a name".to_owned();
                        return Err(Error::Corrupt { image: name, what, offset: 0x48 });
                    }
                    (_, false) => None,
                };
                Ok(Step::Qcow2(Box::new(Pending { name, storage, header, data_file })))
            }
            Format::ViaQemu(format) => Ok(Step::Bottom(via_qemu::open(self, &name, storage, &format)?)),
        }
    }

    /// Says which dirty bitmaps a write makes useless, as they should follow it.
    fn warn_of_bitmaps(&mut self, name: &str, storage: &HostFile, header: &Header) {
        let bitmaps = qcow2::read_bitmaps(storage, header).unwrap_or_default();
        for bitmap in bitmaps.iter().filter(|bitmap| bitmap.auto && !bitmap.in_use) {
            self.warnings.push(format!(
                "{name}: the dirty bitmap {:?} does not see what is written here, and is marked inconsistent \
                 at the first write; the next backup has to be a full one",
                bitmap.name
            ));
        }
    }

    fn open_data_file(&mut self, image: &str, named: &str, read_only: bool) -> Result<Arc<dyn Storage>> {
        let path = self.admit(image, named, "data file")?.path;
        let name = path.to_string_lossy();
        let file = self.open_file(&name, &path, read_only)?;
        self.lock(&name, &file, true)?;
        Ok(file)
    }

    /// Opens the file of a backing image, and settles its format.
    pub(super) fn open_backing(&mut self, image: &str, named: &str, format: Option<&str>) -> Result<File> {
        let target = self.admit(image, named, "backing file")?;
        if self.open.len() >= MAX_DEPTH {
            return Err(refused(image, named, format!("the backing chain has more than {MAX_DEPTH} images")));
        }
        let name = target.path.to_string_lossy().into_owned();
        let within = |source| Error::Within { image: image.to_owned(), source: Box::new(source) };
        let storage = self.open_file(&name, &target.path, true).map_err(within)?;
        refuse_journal(&target.path).map_err(within)?;
        let format = match target.format.as_deref().or(format) {
            Some(format) => format.parse().map_err(|e| refused(image, named, e))?,
            None => {
                let format = probed(&name, &*storage).map_err(within)?.unwrap_or(Format::Raw);
                self.warnings.push(format!(
                    "{image}: it does not say the format of its backing file {named:?}, which was taken for \
                     {format}; qemu-img rebase -u -F {format} -b {named:?} records it"
                ));
                format
            }
        };
        Ok(File { name, storage, format })
    }

    /// Finds the file that an image names, and asks the gate.
    pub(super) fn admit(&self, image: &str, named: &str, role: &'static str) -> Result<Named> {
        let target = reference::resolve(Path::new(image), named).map_err(|e| refused(image, named, e))?;
        (self.options.gate)(&Reference { image, named, resolved: &target.path, role })
            .map_err(|reason| refused(image, named, reason))?;
        Ok(target)
    }

    /// Keeps others from changing the file while it is open, and from reading it while it is written.
    pub(super) fn lock(&mut self, name: &str, file: &HostFile, grows: bool) -> Result<()> {
        let writes = !file.is_read_only();
        let access = if writes { Access::Write { resize: grows } } else { Access::Read };
        match lock::lock(file.file(), access) {
            Ok(()) => {}
            Err(Failure::InUse(detail)) if !writes && self.options.allow_in_use => {
                self.warn_in_use(name, &detail);
            }
            Err(Failure::InUse(detail)) => return Err(in_use(name, detail)),
            Err(Failure::Unsupported) => self.warnings.push(format!(
                "{name}: the host's file system has no locks, so nothing shows whether another process uses \
                 the image"
            )),
            Err(Failure::Io(source)) => {
                return Err(Error::Io { image: name.to_owned(), doing: "cannot lock", source });
            }
        }
        Ok(())
    }

    /// Says that what is read may change meanwhile.
    pub(super) fn warn_in_use(&mut self, name: &str, detail: &str) {
        self.warnings.push(format!(
            "{name}: another process has the image open for writing ({detail}): what is read may be out of \
             date or inconsistent"
        ));
    }

    /// Opens a file, and remembers it as one of the chain.
    pub(super) fn open_file(&mut self, name: &str, path: &Path, read_only: bool) -> Result<Arc<HostFile>> {
        let io = |doing| move |source| Error::Io { image: name.to_owned(), doing, source };
        // Looked at before it is opened: opening a FIFO waits, opening a tape rewinds it.
        refuse_other_kinds(name, &fs::metadata(path).map_err(io("cannot open"))?)?;
        let file = fs::File::options()
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

/// The refusal of an image that another process uses.
pub(super) fn in_use(name: &str, detail: String) -> Error {
    let advice = "shut the guest down first, or give --ro to look at it while it changes";
    Error::InUse { image: name.to_owned(), detail, advice }
}

/// Refuses an image that an earlier session left half changed: only who opens it by itself finishes
/// that.
fn refuse_journal(path: &Path) -> Result<()> {
    let Ok(mut journal) = path.canonicalize().map(std::path::PathBuf::into_os_string) else { return Ok(()) };
    journal.push(JOURNAL_SUFFIX);
    if !Path::new(&journal).exists() {
        return Ok(());
    }
    Err(Error::Journal {
        journal: Path::new(&journal).display().to_string(),
        problem:
            "an earlier session was cut off while it changed this backing file: open it by itself first, as \
                  with vmcraft -a FILE run, which finishes that"
                .into(),
    })
}

pub(super) fn refuse_other_kinds(name: &str, metadata: &fs::Metadata) -> Result<()> {
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

fn probed(name: &str, storage: &dyn Storage) -> Result<Option<Format>> {
    probe::probe(storage).map_err(|source| Error::Io { image: name.to_owned(), doing: "cannot read", source })
}

fn wrong_format(image: &str, given: &Format, found: String) -> Error {
    Error::WrongFormat { image: image.to_owned(), given: given.to_string(), found }
}

fn refused(image: &str, named: &str, reason: String) -> Error {
    Error::Refused { image: image.to_owned(), named: named.to_owned(), reason }
}
