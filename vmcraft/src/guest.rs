//! The handle: disks, devices, mounts, and what the calls share.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use vmcraft_block::image::{self, Gate, Image, OpenOptions};
use vmcraft_block::{
    Access, BlockDevice, Counters, ImageIdentity, ReadOnly, Slice, Transaction, TransactionDisk,
    TransactionOptions,
};
use vmcraft_fs::{FileSystem, OpenOptions as OpenFs};
use vmcraft_volume::Key;
use vmcraft_volume::lvm::LostSnapshot;
use vmcraft_volume::partition::{PartitionRole, PartitionTable};

use crate::device::{self, Disk, Found};
use crate::drive::{Content, Drive, DriveOptions, WithSectorSize, ZeroDevice, directory_gate};
use crate::driver;
use crate::host::{Host, Progress};
use crate::inspect::Inspection;
use crate::keys::{KeyPrompt, Keys};
use crate::settings::Settings;
use crate::stack::{Stack, Volume};
use crate::vfs::{LastLink, Node, Vfs};
use crate::{DeviceName, Error, GuestPath, Metrics, Result};

/// How many bytes of each disk are kept in memory unless the caller says otherwise.
const CACHE_BYTES: usize = 8 << 20;

/// A virtual machine's disks, and the guest inside.
///
/// Add drives, [`launch`](Guest::launch), mount, look and change. Changes of all disks collect in a
/// transaction, and reach the images together at a [`commit`](Guest::commit); a handle that is
/// dropped before that has changed nothing.
pub struct Guest {
    pub(crate) drives: Vec<Drive>,
    /// `None` before launch.
    pub(crate) disks: Option<Vec<Disk>>,
    /// The volumes on the disks: none before launch.
    pub(crate) stack: Stack,
    /// What was changed on the disks since the last commit; `None` before launch.
    pub(crate) transaction: Option<Transaction>,
    /// The writable disks that were taken for raw without being told, until that was said.
    pub(crate) guessed_formats: BTreeSet<usize>,
    /// The devices that were marked as read-only, by their canonical names.
    pub(crate) write_protected: BTreeSet<String>,
    /// What is to be said of the volumes as they are now.
    stack_warnings: Vec<String>,
    /// The snapshots that writes to their origins made invalid, and of which nothing was said yet.
    pub(crate) lost_snapshots: Vec<LostSnapshot>,
    /// What was said of them already.
    said: BTreeSet<String>,
    /// What opens encrypted devices.
    pub(crate) keys: Keys,
    /// How many changes that are all or nothing are going on inside each other.
    pub(crate) changes: u32,
    /// Opened file systems, by the canonical name of their device and whether the journal was ignored.
    filesystems: Mutex<BTreeMap<(String, bool), Arc<dyn FileSystem>>>,
    pub(crate) vfs: Vfs,
    pub(crate) host: Host,
    pub(crate) metrics: Metrics,
    /// What the images count of their reads.
    counters: Vec<Arc<Counters>>,
    pub(crate) settings: Settings,
    pub(crate) warnings: Vec<String>,
    /// What inspection found, once it has looked.
    pub(crate) inspection: Option<Inspection>,
    gate: Arc<Gate>,
    /// Where the journals are of images beside which there can be none.
    state_directory: Option<PathBuf>,
    /// What keeps the old content of what is changed.
    undo_file: Option<PathBuf>,
}

impl Default for Guest {
    fn default() -> Self {
        Self::new()
    }
}

impl Guest {
    /// A handle without drives.
    pub fn new() -> Self {
        Self {
            drives: Vec::new(),
            disks: None,
            stack: Stack::default(),
            transaction: None,
            guessed_formats: BTreeSet::new(),
            write_protected: BTreeSet::new(),
            stack_warnings: Vec::new(),
            lost_snapshots: Vec::new(),
            said: BTreeSet::new(),
            keys: Keys::default(),
            changes: 0,
            filesystems: Mutex::default(),
            vfs: Vfs::default(),
            host: Host::default(),
            metrics: Metrics::default(),
            counters: Vec::new(),
            settings: Settings::default(),
            warnings: Vec::new(),
            inspection: None,
            gate: directory_gate(Vec::new()),
            state_directory: None,
            undo_file: None,
        }
    }

    /// Decides which files an image may name as its backing or data file. Without this, those in
    /// the image's own directory and below it.
    pub fn set_gate(&mut self, gate: Arc<Gate>) {
        self.gate = gate;
    }

    /// Lets images name backing and data files in these directories and below them, besides their
    /// own.
    pub fn allow_backing(&mut self, directories: Vec<PathBuf>) {
        self.gate = directory_gate(directories);
    }

    /// Where calls read what they are told to read from `-`.
    pub fn set_input(&mut self, input: Box<dyn Read + Send>) {
        self.host.input = Some(input);
    }

    /// Where the journal of a commit is kept if the first image is no file of this host, or in a
    /// directory that cannot be written: a directory that outlives a restart. It must be there. Without
    /// this such images cannot be changed.
    pub fn set_state_directory(&mut self, directory: Option<PathBuf>) {
        self.state_directory = directory;
    }

    /// A file that is to keep what the images held before each commit, so that [`undo`](crate::undo)
    /// can put it back. It is made at the first commit; there must be none with its name. For the next
    /// launch.
    pub fn set_undo_file(&mut self, file: Option<PathBuf>) {
        self.undo_file = file;
    }

    /// Where calls write what they are told to write to `-`.
    pub fn set_output(&mut self, output: Box<dyn Write + Send>) {
        self.host.output = Some(output);
    }

    /// Called as a long call goes on.
    pub fn set_progress(&mut self, on_progress: Option<Box<dyn FnMut(Progress) + Send>>) {
        self.host.progress = on_progress;
    }

    /// The flag that interrupts a long call when set; whoever sets it also clears it.
    pub fn cancel_flag(&self) -> Arc<AtomicBool> {
        self.host.cancel.clone()
    }

    /// Stops the clock at a moment, so that what depends on the time is the same each time; `None` is
    /// the host's clock.
    pub fn set_clock(&mut self, now: Option<vmcraft_fs::Timestamp>) {
        self.host.clock.set(now);
    }

    /// Gives a key for encrypted devices, to be used by [`open_encrypted`](Guest::open_encrypted).
    ///
    /// `selector` is a device's name (`/dev/sda2`, `/dev/vg/lv`), the UUID of what encrypts it, or `all`.
    /// Several keys may be given for a device: the first that fits opens it. They outlive a shutdown.
    pub fn add_key(&mut self, selector: &str, key: Key) {
        self.keys.add(selector, key);
    }

    /// Who is asked for the keys of encrypted devices for which none was given. Each device is asked for once,
    /// until the disks are launched anew or a key is given.
    pub fn set_key_prompt(&mut self, prompt: Option<KeyPrompt>) {
        self.keys.set_prompt(prompt);
    }

    /// Whether encrypted devices are opened with the key files that a guest's own crypttab names for them. They are,
    /// unless this says otherwise: who answers the prompt then is asked for each device.
    pub fn use_key_files(&mut self, are_used: bool) {
        self.keys.leaves_files = !are_used;
    }

    /// Takes what the user should know and no error said, such as a partition table's bad header.
    pub fn take_warnings(&mut self) -> Vec<String> {
        self.note_lost_snapshots();
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.extend(self.lost_snapshots.drain(..).map(|lost| lost.to_string()));
        // Each is said once, however often the stack is built. What an earlier stack lacked is not said.
        let of_stack = self.stack_warnings.iter().filter(|warning| self.said.insert((*warning).clone()));
        warnings.extend(of_stack.cloned());
        warnings
    }

    /// The mounted tree.
    pub fn vfs(&self) -> &Vfs {
        &self.vfs
    }

    /// Opens the drives and finds their partitions.
    pub(crate) fn launch_drives(&mut self) -> Result<()> {
        if self.disks.is_some() {
            return Err(Error::Usage("the handle is launched already".into()));
        }
        if self.drives.is_empty() {
            return Err(Error::Usage(
                "no drives: add one first, with -a on the command line or add-drive".into(),
            ));
        }
        let started = Instant::now();
        let mut below = Vec::new();
        let mut counters = Vec::new();
        for drive in &self.drives {
            let (device, access, identity): (Arc<dyn BlockDevice>, _, _) = match drive.content {
                Content::Zeros(size) => (Arc::new(ZeroDevice(size)), Access::Forget, None),
                Content::Image => {
                    let opened = self.open_image(drive);
                    let (image, access) = opened.map_err(|error| self.same_image(below.len(), error))?;
                    if let Access::Refuse(reason) = &access {
                        let reason = format!("{}: opened read-only: {reason}", drive.shown());
                        self.vfs.refuse_changes(device::disk_name(below.len()), &reason);
                        self.warnings.push(reason);
                    }
                    self.warnings.extend(image.warnings);
                    if image.format_is_guessed && access == Access::Commit {
                        self.guessed_formats.insert(below.len());
                    }
                    counters.push(image.counters);
                    let identity = ImageIdentity::of(&drive.name, &image.format.to_string());
                    let identity = identity.map_err(|source| Error::Host {
                        path: drive.shown().into(),
                        doing: "cannot find the image's path",
                        source,
                    })?;
                    (image.device, access, Some(identity))
                }
            };
            below.push(TransactionDisk { device, name: drive.shown(), access, image: identity });
        }
        self.metrics.open = started.elapsed();
        self.counters = counters;
        let started = Instant::now();
        let options = TransactionOptions {
            state_directory: self.state_directory.clone(),
            undo: self.undo_file.clone(),
            ..Default::default()
        };
        let mut open = |name: &str, format: &str| {
            let drive = DriveOptions { format: format.parse().ok(), ..DriveOptions::default() };
            Ok(image::open(name, &self.open_options(&drive, false))?.device)
        };
        let (transaction, notes) = Transaction::open(below, options, &mut open)?;
        self.warnings.extend(notes);
        let mut disks = Vec::new();
        for (index, drive) in self.drives.iter().enumerate() {
            // There is one for each drive.
            let Some(mut device) = transaction.device(index) else { continue };
            if let Some(sector_size) = drive.options.sector_size {
                device = Arc::new(WithSectorSize { inner: device, sector_size });
            }
            let table = PartitionTable::read(&device);
            match &table {
                Ok(Some(table)) => {
                    self.warnings
                        .extend(table.warnings.iter().map(|warning| format!("{}: {warning}", drive.shown())));
                }
                Ok(None) => {}
                Err(e) => self.warnings.push(format!("{}: {e}", drive.shown())),
            }
            disks.push(Disk { device, table, label: drive.options.label.clone() });
        }
        self.disks = Some(disks);
        self.transaction = Some(transaction);
        self.keys.ask_again();
        self.rescan();
        self.metrics.scan = started.elapsed();
        Ok(())
    }

    /// Keeps what is to be said of snapshots that writes to their origins have made invalid.
    pub(crate) fn note_lost_snapshots(&mut self) {
        self.lost_snapshots.extend(self.stack.take_lost_snapshots());
    }

    /// Looks for volumes on the disks anew.
    pub(crate) fn rescan(&mut self) {
        self.note_lost_snapshots();
        let Some(disks) = &self.disks else { return };
        self.stack_warnings = self.stack.rescan(disks);
        let names: Vec<_> = self.stack.volumes().iter().flat_map(Volume::names).collect();
        for name in names {
            self.vfs.refuse_changes_above(&self.stack.all_below(&name), name);
        }
    }

    /// Says what an error about a lock means if the drive's image is that of an earlier drive, too.
    fn same_image(&self, index: usize, error: Error) -> Error {
        let file = |drive: &Drive| {
            let metadata = std::fs::metadata(&drive.name).ok()?;
            Some((metadata.dev(), metadata.ino()))
        };
        let Error::Image(vmcraft_block::Error::InUse { .. }) = &error else { return error };
        let Some((earlier, [drive, ..])) = self.drives.split_at_checked(index) else { return error };
        match earlier.iter().find(|other| file(other).is_some() && file(other) == file(drive)) {
            Some(other) => Error::Usage(format!(
                "{}: the image is that of {} as well, and cannot be changed by two drives",
                drive.shown(),
                other.shown()
            )),
            None => error,
        }
    }

    /// Opens a drive's image, for writing if that was asked for and can be.
    fn open_image(&self, drive: &Drive) -> Result<(Image, Access)> {
        let open = |read_only| image::open(&drive.name, &self.open_options(&drive.options, read_only));
        if drive.options.read_only || drive.options.snapshot.is_some() {
            return Ok((open(true)?, Access::Forget));
        }
        let error = match open(false) {
            Ok(image) => return Ok((image, Access::Commit)),
            Err(error) => error,
        };
        let reason = match &error {
            vmcraft_block::Error::Io { source, .. } if is_refusal(source) => source.to_string(),
            vmcraft_block::Error::Unsupported { feature, .. } => format!("not supported: {feature}"),
            _ => return Err(error.into()),
        };
        // What cannot be opened at all is told as it was met first.
        match open(true) {
            Ok(image) => Ok((image, Access::Refuse(reason))),
            Err(_) => Err(error.into()),
        }
    }

    /// How a drive's image is opened.
    pub(crate) fn open_options(&self, drive: &DriveOptions, read_only: bool) -> OpenOptions {
        OpenOptions {
            format: drive.format.clone(),
            read_only,
            allow_in_use: drive.allow_in_use && read_only,
            gate: self.gate.clone(),
            cache_bytes: CACHE_BYTES,
            snapshot: drive.snapshot.clone(),
        }
    }

    /// Goes back to how the handle was before drives were added. Settings stay.
    pub(crate) fn shut_down(&mut self) {
        self.vfs = Vfs::default();
        self.inspection = None;
        self.filesystems.lock().unwrap_or_else(|e| e.into_inner()).clear();
        self.disks = None;
        self.stack = Stack::default();
        self.transaction = None;
        self.guessed_formats.clear();
        self.write_protected.clear();
        self.stack_warnings.clear();
        self.lost_snapshots.clear();
        self.said.clear();
        self.drives.clear();
    }

    /// Where the time went so far, and how much was read.
    pub fn metrics(&self) -> Metrics {
        let mut metrics = self.metrics.clone();
        for counts in self.counters.iter().map(|counters| counters.get()) {
            metrics.read_requests += counts.device_requests;
            metrics.bytes_read += counts.device_bytes;
            metrics.requests += counts.requests;
            metrics.bytes_requested += counts.bytes;
        }
        metrics
    }

    /// The disks, or an error that says to launch first.
    pub(crate) fn launched(&self) -> Result<&[Disk]> {
        self.disks
            .as_deref()
            .ok_or_else(|| Error::Usage("call launch before this: add run to the script".into()))
    }

    /// The canonical name of the disk that a drive with this name became; of the last one if there are
    /// several.
    pub fn disk_of_drive(&self, name: &str) -> Option<String> {
        self.drives.iter().rposition(|drive| drive.name == name).map(device::disk_name)
    }

    /// The device with this name.
    pub(crate) fn find_device(&self, name: &DeviceName) -> Result<Found<'_>> {
        device::find(self.launched()?, &self.stack, name)
    }

    /// The device with this name, open. Its canonical name comes with it.
    pub(crate) fn open_device(&self, name: &DeviceName) -> Result<(String, Arc<dyn BlockDevice>)> {
        let found = self.find_device(name)?;
        let device = self.open_found(&found)?;
        Ok((found.name, device))
    }

    /// The device that a name led to, open.
    pub(crate) fn open_found(&self, found: &Found<'_>) -> Result<Arc<dyn BlockDevice>> {
        let mut disk = found.disk.device.clone();
        // What is on a disk that is read-only is, too.
        let is_protected = |name: &String| self.write_protected.contains(name);
        if !self.write_protected.is_empty()
            && (is_protected(&found.name) || self.stack.all_below(&found.name).iter().any(is_protected))
        {
            disk = Arc::new(ReadOnly::new(disk));
        }
        let Some(partition) = found.partition else { return Ok(disk) };
        let image = match found.index.and_then(|index| self.drives.get(index)) {
            Some(drive) => drive.shown(),
            None => found.whole.clone(),
        };
        if partition.end_bytes() > disk.size() {
            return Err(Error::Device {
                device: found.name.clone(),
                source: io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!(
                        "partition {} of {image} has bytes {:#x} to {:#x}, and the disk ends at byte {:#x}: \
                         the image was cut off, or the partition table is wrong",
                        partition.number,
                        partition.start_bytes,
                        partition.end_bytes(),
                        disk.size()
                    ),
                ),
            });
        }
        // As in the kernel, an extended partition is its first record and no more: what is behind
        // that belongs to the logical ones.
        let len = match partition.role {
            PartitionRole::Extended => partition.len_bytes.min(1024),
            PartitionRole::Primary | PartitionRole::Logical => partition.len_bytes,
        };
        let slice = Slice::new(disk, partition.start_bytes, len)
            .map_err(|source| Error::Device { device: found.name.clone(), source })?;
        Ok(Arc::new(slice))
    }

    /// All disks, partitions and volumes with their names, such as `/dev/sda`, `/dev/sda1` and
    /// `/dev/vg/lv`: each disk, then its partitions, then the volumes with theirs. What cannot be opened is
    /// left out.
    pub fn block_devices(&self) -> Result<Vec<(String, Arc<dyn BlockDevice>)>> {
        let mut names = Vec::new();
        for (index, disk) in self.launched()?.iter().enumerate() {
            let name = device::disk_name(index);
            let partitions = disk.partitions().iter().map(|partition| format!("{name}{}", partition.number));
            names.push(name.clone());
            names.extend(partitions);
        }
        for volume in self.stack.volumes() {
            names.push(volume.name.clone());
            let partitions = volume.disk.iter().flat_map(Disk::partitions);
            names.extend(partitions.map(|partition| volume.partition_name(partition.number)));
        }
        Ok(names.into_iter().filter_map(|name| self.open_device(DeviceName::new(&name)).ok()).collect())
    }

    /// The file system on a device, opened once. Its canonical name comes with it.
    pub(crate) fn open_filesystem(&self, name: &DeviceName) -> Result<(String, Arc<dyn FileSystem>)> {
        self.open_filesystem_with(name, OpenFs::default())
    }

    /// The file system on a device, opened once in each way. Its canonical name comes with it.
    pub(crate) fn open_filesystem_with(
        &self,
        name: &DeviceName,
        options: OpenFs,
    ) -> Result<(String, Arc<dyn FileSystem>)> {
        let (name, device) = self.open_device(name)?;
        let mut open = self.filesystems.lock().unwrap_or_else(|e| e.into_inner());
        let key = (name, options.ignore_journal);
        if let Some(filesystem) = open.get(&key) {
            return Ok((key.0, filesystem.clone()));
        }
        let options = OpenFs { sources: self.sources(), ..options };
        let filesystem = driver::open(&key.0, device, options)?;
        open.insert(key.clone(), filesystem.clone());
        Ok((key.0, filesystem))
    }

    /// All file systems that are open.
    pub(crate) fn opened_filesystems(&self) -> Vec<(String, Arc<dyn FileSystem>)> {
        let open = self.filesystems.lock().unwrap_or_else(|e| e.into_inner());
        open.iter().map(|((name, _), filesystem)| (name.clone(), filesystem.clone())).collect()
    }

    /// Closes the file systems on the devices that `matches`.
    pub(crate) fn forget_filesystems(&self, matches: impl Fn(&str) -> bool) {
        let mut open = self.filesystems.lock().unwrap_or_else(|e| e.into_inner());
        open.retain(|(name, _), _| !matches(name));
    }

    /// Follows a path inside the guest.
    pub(crate) fn resolve(&self, path: &GuestPath) -> Result<Node> {
        self.vfs.resolve(path, LastLink::Follow)
    }

    /// Follows a path inside the guest, but not the link that it ends in.
    pub(crate) fn resolve_link(&self, path: &GuestPath) -> Result<Node> {
        self.vfs.resolve(path, LastLink::Keep)
    }
}

/// Whether the host refuses to let the user write, as opposed to having failed.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}
