//! `virt-make-fs`: a disk image with a file system that holds a directory's or an archive's files.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use vmcraft::call::Call;
use vmcraft::value::FileIn;
use vmcraft::{DeviceName, DriveOptions, Guest, Mountable};
use vmcraft_block::image::Format;

use crate::error::{Error, Result, message};
use crate::tools::Tool;
use crate::{logging, report, size};

/// What a file takes at the least, besides its inode.
const BLOCK: u64 = 4096;

/// A journal, a resize area and other things that do not depend on the content.
const BASE: u64 = 2 << 20;
const JOURNAL: u64 = 8 << 20;

/// What partitioning takes at both ends.
const PARTITIONING: u64 = 1 << 20;

/// Make a disk image with a file system from files
///
/// INPUT is a directory, or a tar archive, which can be compressed. The image is just large enough,
/// unless --size says otherwise.
#[derive(Debug, clap::Parser)]
#[command(
    version,
    after_help = "Example:\n  virt-make-fs --type=ext4 --size=+200M --partition --format=qcow2 directory disk.qcow2"
)]
pub(super) struct MakeFs {
    /// The size of the output disk's sectors
    #[arg(long, value_name = "BYTES", value_parser = ["512", "4096"])]
    blocksize: Option<String>,

    /// Make a virtual floppy disk (not in this version)
    #[arg(long)]
    floppy: bool,

    /// The image's format: raw or qcow2
    #[arg(short = 'F', long, value_name = "FORMAT", default_value = "raw")]
    format: String,

    /// The file system's label
    #[arg(long, value_name = "LABEL")]
    label: Option<String>,

    /// Put the file system on a partition of this kind of table: mbr, which it is without KIND, or gpt
    #[arg(
        long,
        value_name = "KIND",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "mbr",
        // What the image was before is lost by then.
        value_parser = ["gpt", "efi", "mbr", "msdos"],
        hide_possible_values = true
    )]
    partition: Option<String>,

    /// The size of the disk, or with + how much is to be free beyond what the files need
    #[arg(short, long, value_name = "[+]SIZE")]
    size: Option<String>,

    /// The file system's type
    #[arg(short = 't', long = "type", value_name = "TYPE", default_value = "ext2")]
    fs_type: String,

    /// Say in detail what is done
    #[arg(short, long, alias = "debug")]
    verbose: bool,

    /// Print each call to standard error
    #[arg(short = 'x')]
    trace: bool,

    /// A directory or a tar archive
    input: PathBuf,

    /// The image that is made
    output: String,
}

impl Tool for MakeFs {
    fn run(self) -> Result<ExitCode> {
        if self.floppy {
            return Err(message("--floppy: not supported: this version makes no FAT file systems"));
        }
        if !matches!(self.fs_type.as_str(), "ext2" | "ext3" | "ext4") {
            return Err(message(format!(
                "--type={}: not supported: this version makes ext2, ext3 and ext4",
                self.fs_type
            )));
        }
        let input = Input::open(&self.input)?;
        let need = input.measure()?;
        let existed = Path::new(&self.output).exists();
        let made = self.make(&input, &need);
        if made.is_err() && !existed {
            // It is of no use without its files; the error is what matters.
            let _ = fs::remove_file(&self.output);
        }
        made.map(|()| ExitCode::SUCCESS)
    }
}

impl MakeFs {
    fn make(&self, input: &Input, need: &Need) -> Result<()> {
        logging::install();
        let mut guest = Guest::new();
        guest.set_verbose(self.verbose)?;
        logging::set_verbose(self.verbose);
        let bytes = self.disk_bytes(need)?;
        self.trace(format_args!("disk-create \"{}\" \"{}\" {bytes}", self.output, self.format));
        let signed = i64::try_from(bytes).map_err(|_| message("--size: too large"))?;
        guest
            .disk_create(&self.output, &self.format, signed, None, None, None, None, None)
            .map_err(|e| Error::call("disk-create", e))?;
        // `disk-create` took no other formats.
        let format = if self.format == "qcow2" { Format::Qcow2 } else { Format::Raw };
        let sector_size = self.blocksize.as_deref().and_then(|size| size.parse().ok());
        guest.add_drive_with(
            &self.output,
            DriveOptions { format: Some(format), sector_size, ..DriveOptions::default() },
        )?;
        guest.launch().map_err(|e| Error::call("launch", e))?;
        let device = match &self.partition {
            None => "/dev/sda",
            Some(table) => {
                self.trace(format_args!("part-disk \"/dev/sda\" \"{table}\""));
                guest.part_disk("/dev/sda".into(), table).map_err(|e| Error::call("part-disk", e))?;
                "/dev/sda1"
            }
        };
        self.make_filesystem(&mut guest, device, need)?;
        self.trace(format_args!("mount \"{device}\" \"/\""));
        guest.mount(Mountable::new(device), "/".into()).map_err(|e| Error::call("mount", e))?;
        input.feed(&mut guest)?;
        self.trace(format_args!("umount-all"));
        guest.umount_all().map_err(|e| Error::call("umount-all", e))
    }

    /// How large the disk is.
    fn disk_bytes(&self, need: &Need) -> Result<u64> {
        let parse = |text: &str| size::parse_with(text, 1).map_err(|e| message(format!("--size: {e}")));
        let extra = match self.size.as_deref() {
            Some(fixed) if !fixed.starts_with('+') => return parse(fixed),
            Some(extra) => parse(&extra[1..])?,
            None => 0,
        };
        let mut bytes = need.bytes.saturating_add(need.files.saturating_mul(256)).saturating_add(BASE);
        if self.fs_type != "ext2" {
            bytes = bytes.saturating_add(JOURNAL);
        }
        if self.partition.is_some() {
            bytes = bytes.saturating_add(PARTITIONING);
        }
        // Bitmaps, indirect blocks, and the 5 % that are kept for the superuser.
        let bytes = bytes.saturating_add(bytes / 10).saturating_add(extra);
        bytes.checked_next_multiple_of(1 << 20).ok_or_else(|| message("--size: too large"))
    }

    fn make_filesystem(&self, guest: &mut Guest, device: &str, need: &Need) -> Result<()> {
        let mut words = vec![device.to_owned(), format!("fstype:{}", self.fs_type)];
        if let Some(label) = &self.label {
            words.push(format!("label:{label}"));
        }
        // One inode for 16 KiB is what large file systems have without being told.
        let bytes = guest.blockdev_getsize64(DeviceName::new(device))?;
        let usual = u64::try_from(bytes).unwrap_or_default() / (16 << 10);
        let files = need.files.saturating_add(need.files / 10).saturating_add(64);
        if files > usual {
            words.push(format!("numberofinodes:{files}"));
        }
        self.trace(format_args!("mke2fs {}", words.join(" ")));
        // The call has some forty arguments, of which three are wanted.
        let call = Call::find("mke2fs").ok_or_else(|| message("mke2fs: no such call"))?;
        let words: Vec<_> = words.into_iter().map(Into::into).collect();
        call.bind_words(&words)
            .and_then(|bound| (call.invoke)(guest, &bound))
            .map(drop)
            .map_err(|e| Error::call("mke2fs", e))
    }

    fn trace(&self, call: std::fmt::Arguments<'_>) {
        if self.trace {
            report::trace(&call);
        }
    }
}

/// What the files need.
struct Need {
    bytes: u64,
    files: u64,
}

/// Where the files come from.
enum Input {
    Directory(PathBuf),
    Archive(PathBuf),
}

impl Input {
    fn open(path: &Path) -> Result<Self> {
        let failed = |e: io::Error| message(format!("{}: {e}", path.display()));
        let metadata = fs::metadata(path).map_err(failed)?;
        match () {
            () if metadata.is_dir() => Ok(Self::Directory(path.to_owned())),
            () if metadata.is_file() => Ok(Self::Archive(path.to_owned())),
            () => Err(message(format!("{}: neither a directory nor an archive", path.display()))),
        }
    }

    fn measure(&self) -> Result<Need> {
        match self {
            Self::Directory(path) => {
                let mut need = Need { bytes: 0, files: 0 };
                measure_directory(path, &mut need)?;
                Ok(need)
            }
            Self::Archive(path) => measure_archive(path),
        }
    }

    /// Unpacks the files into what is mounted on `/`.
    fn feed(&self, guest: &mut Guest) -> Result<()> {
        let root = "/".into();
        let tar_in = |guest: &mut Guest, file: PathBuf| {
            guest
                .tar_in(&FileIn::Path(file), root, None, Some(true), Some(true), Some(true))
                .map_err(|e| Error::call("tar-in", e))
        };
        match self {
            Self::Archive(path) => tar_in(guest, path.clone()),
            Self::Directory(path) => {
                let mut tar = tar_of(path)?;
                let pipe = tar.stdout.take().ok_or_else(|| message("tar: no output"))?;
                let unpacked = tar_in(guest, PathBuf::from(format!("/proc/self/fd/{}", pipe.as_raw_fd())));
                drop(pipe);
                let status = tar.wait().map_err(|e| message(format!("tar: {e}")))?;
                unpacked?;
                if status.success() {
                    Ok(())
                } else {
                    Err(message(format!("tar could not read all of {}: {status}", path.display())))
                }
            }
        }
    }
}

/// `tar` on a directory, with an archive of it at its standard output.
fn tar_of(directory: &Path) -> Result<Child> {
    Command::new("tar")
        .arg("-C")
        .arg(directory)
        .args(["--format=posix", "--xattrs", "--xattrs-include=*", "--acls", "--sparse", "-cf", "-", "."])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| message(format!("tar, which reads the directory, cannot be run: {e}")))
}

fn measure_directory(path: &Path, need: &mut Need) -> Result<()> {
    let failed = |e: io::Error| message(format!("{}: {e}", path.display()));
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let metadata = entry.metadata().map_err(failed)?;
        need.files += 1;
        // The blocks of a sparse file, and one for a directory or a long link.
        let bytes = if metadata.is_file() { metadata.len().min(metadata.blocks() * 512) } else { BLOCK };
        need.bytes = need.bytes.saturating_add(bytes.div_ceil(BLOCK) * BLOCK);
        if metadata.is_dir() {
            measure_directory(&entry.path(), need)?;
        }
    }
    Ok(())
}

/// What `tar` lists of an archive, compressed or not: a line a file, with the size in the third column.
fn measure_archive(path: &Path) -> Result<Need> {
    let listed = Command::new("tar")
        .args(["--numeric-owner", "-tvf"])
        .arg(path)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| message(format!("tar, which lists the archive, cannot be run: {e}")))?;
    if !listed.status.success() {
        return Err(message(format!("{}: not an archive that tar can list", path.display())));
    }
    let mut need = Need { bytes: 0, files: 0 };
    for line in listed.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let column = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).nth(2);
        let size = column.and_then(|word| std::str::from_utf8(word).ok()?.parse::<u64>().ok());
        let bytes = if line.starts_with(b"-") { size.unwrap_or(0) } else { BLOCK };
        need.files += 1;
        need.bytes = need.bytes.saturating_add(bytes.div_ceil(BLOCK).saturating_mul(BLOCK));
    }
    Ok(need)
}
