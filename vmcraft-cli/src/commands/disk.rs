//! `vmcraft disk`: images from outside, without looking at the guest.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use jiff::Timestamp;
use vmcraft_block::image::{self, FormatSpecific, ImageInfo, OpenOptions, Qcow2Info, SnapshotInfo};

use crate::error::{Error, Result, message};
use crate::output::visible;
use crate::report;
use crate::size::in_words;

/// Works on disk images.
#[derive(Debug, clap::Args)]
pub(crate) struct Disk {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show an image's format, sizes, snapshots and backing files
    Info(Info),
    /// Make an empty image, which loses what the file has
    Create(Create),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The image's format: raw or qcow2
    #[arg(short, long, value_name = "FORMAT", default_value = "raw")]
    format: String,

    /// The image that this one is a change of, for qcow2
    #[arg(short, long, value_name = "IMAGE")]
    backing: Option<String>,

    /// The backing image's format; without it, it is detected
    #[arg(short = 'F', long, value_name = "FORMAT", requires = "backing")]
    backing_format: Option<String>,

    /// What of the host's space it takes from the start: off, metadata or full
    #[arg(long, value_name = "HOW")]
    preallocation: Option<String>,

    /// The size of clusters, for qcow2
    #[arg(long, value_name = "SIZE")]
    cluster_size: Option<String>,

    /// 1.1, or 0.10 for QEMU before 1.1, for qcow2
    #[arg(long, value_name = "VERSION")]
    compat: Option<String>,

    /// The image's file
    image: String,

    /// The disk's size, such as 10G; without it, that of the backing image
    #[arg(required_unless_present = "backing")]
    size: Option<String>,
}

impl Create {
    fn run(&self) -> Result<ExitCode> {
        let bytes = |option: &str, text: &str| {
            let bytes = crate::size::parse_with(text, 1).ok().and_then(|bytes| i64::try_from(bytes).ok());
            bytes.ok_or_else(|| message(format!("{option}: {text:?} is not a size such as 10G")))
        };
        let size = self.size.as_deref().map_or(Ok(-1), |text| bytes("SIZE", text))?;
        let clusters = self.cluster_size.as_deref().map(|text| bytes("--cluster-size", text)).transpose()?;
        vmcraft::Guest::new().disk_create(
            &self.image,
            &self.format,
            size,
            self.backing.as_deref(),
            self.backing_format.as_deref(),
            self.preallocation.as_deref(),
            self.compat.as_deref(),
            clusters.map(|size| i32::try_from(size).unwrap_or(i32::MAX)),
        )?;
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Debug, clap::Args)]
struct Info {
    /// A file, or a URI such as nbd://host/export
    image: String,

    /// Its format; without it, it is detected
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,

    /// Print JSON: an array of the image and of its backing files, with qemu-img's names
    #[arg(long)]
    json: bool,

    /// Taken for qemu-img's sake: an image that is in use is always shown
    #[arg(short = 'U', long)]
    force_share: bool,

    /// Let images name backing and data files below this directory (repeatable)
    #[arg(long, value_name = "DIR")]
    allow_backing: Vec<PathBuf>,
}

impl Disk {
    /// Does it.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        match &self.action {
            Action::Info(info) => info.run(),
            Action::Create(create) => create.run(),
        }
    }
}

impl Info {
    fn run(&self) -> Result<ExitCode> {
        let format = self.format.as_deref().map(str::parse).transpose();
        let options = OpenOptions {
            format: format.map_err(|e| message(format!("--format: {e}")))?,
            read_only: true,
            allow_in_use: true,
            gate: vmcraft::directory_gate(self.allow_backing.clone()),
            cache_bytes: 0,
            snapshot: None,
        };
        let info = image::info(&self.image, &options).map_err(|e| message(e.to_string()))?;
        for warning in &info.warnings {
            report::warning(warning);
        }
        let text = if self.json {
            let json = serde_json::to_string_pretty(&info.chain);
            json.map_err(|e| message(format!("cannot print JSON: {e}")))? + "\n"
        } else {
            info.chain.iter().map(describe).collect::<Vec<_>>().join("\n")
        };
        let mut out = io::stdout();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Error::output(&e))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// What `qemu-img info` would print of one image.
fn describe(info: &ImageInfo) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Names in an image can be anything.
        text.push_str(&format!("{name}: {}\n", visible(value.as_bytes())));
    };
    line("image", &info.filename);
    line("file format", &info.format);
    match info.virtual_size {
        Some(bytes) => line("virtual size", &format!("{} ({bytes} bytes)", in_words(bytes))),
        None => line("virtual size", "unknown"),
    }
    if let Some(bytes) = info.actual_size {
        line("disk size", &in_words(bytes));
    }
    if info.encrypted {
        line("encrypted", "yes");
    }
    if let Some(bytes) = info.cluster_size {
        line("cluster_size", &bytes.to_string());
    }
    if info.dirty_flag {
        line("cleanly shut down", "no");
    }
    if let Some(named) = &info.backing_filename {
        match info.full_backing_filename.as_ref().filter(|full| *full != named) {
            Some(full) => line("backing file", &format!("{named} (actual path: {full})")),
            None => line("backing file", named),
        }
    }
    if let Some(format) = &info.backing_filename_format {
        line("backing file format", format);
    }
    if !info.snapshots.is_empty() {
        text.push_str("Snapshot list:\n");
        let _ = writeln!(text, "{:<10}{:<20}{:>10}{:>20}{:>15}", "ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK");
        info.snapshots.iter().for_each(|snapshot| push_snapshot(&mut text, snapshot));
    }
    if let Some(FormatSpecific::Qcow2(qcow2)) = &info.format_specific {
        text.push_str("Format specific information:\n");
        push_qcow2(&mut text, qcow2);
    }
    text
}

fn push_snapshot(text: &mut String, snapshot: &SnapshotInfo) {
    let date = Timestamp::from_second(snapshot.date_sec.into()).map_or_else(
        |_| snapshot.date_sec.to_string(),
        |date| date.strftime("%Y-%m-%d %H:%M:%S").to_string(),
    );
    let seconds = snapshot.vm_clock_sec;
    let clock = format!(
        "{:04}:{:02}:{:02}.{:03}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        snapshot.vm_clock_nsec / 1_000_000
    );
    let _ = writeln!(
        text,
        "{:<10}{:<20}{:>10}{date:>20}{clock:>15}",
        visible(snapshot.id.as_bytes()),
        visible(snapshot.name.as_bytes()),
        in_words(snapshot.vm_state_size),
    );
}

fn push_qcow2(text: &mut String, info: &Qcow2Info) {
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let _ = writeln!(text, "    {name}: {}", visible(value.to_string().as_bytes()));
    };
    line("compat", &info.compat);
    line("compression type", &info.compression_type);
    if let Some(lazy) = info.lazy_refcounts {
        line("lazy refcounts", &lazy);
    }
    line("refcount bits", &info.refcount_bits);
    if let Some(corrupt) = info.corrupt {
        line("corrupt", &corrupt);
    }
    if let Some(extended) = info.extended_l2 {
        line("extended l2", &extended);
    }
    if let Some(file) = &info.data_file {
        line("data file", file);
    }
    if let Some(raw) = info.data_file_raw {
        line("data file raw", &raw);
    }
    if let Some(encrypt) = &info.encrypt {
        line("encrypt format", &encrypt.format);
    }
    for bitmap in &info.bitmaps {
        let flags =
            if bitmap.flags.is_empty() { String::new() } else { format!(", {}", bitmap.flags.join(", ")) };
        line("bitmap", &format!("{} (granularity {}{flags})", bitmap.name, bitmap.granularity));
    }
    for feature in &info.unknown_features {
        line("unknown incompatible feature", feature);
    }
}
