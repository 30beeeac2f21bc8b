//! `virt-resize`: copies a disk onto another, with partitions of other sizes.

mod copy;
mod machine;
mod plan;

use std::cell::RefCell;
use std::io::Write;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use uuid::Uuid;
use vmcraft::{DeviceName, DriveOptions, Guest};
use vmcraft_block::image::{self, Format, OpenOptions};
use vmcraft_block::{
    Access, BlockDevice, ImageIdentity, Slice, Transaction, TransactionDisk, TransactionOptions,
};
use vmcraft_volume::partition::{
    LINUX_FILE_SYSTEM, NewPartition, PartitionRole, PartitionTable, TableEditor, TableKind,
};
use vmcraft_volume::signature;

use self::machine::{FEATURES, Machine};
use self::plan::{Fate, Part, Plan};
use crate::error::{Error, Result, message};
use crate::open::state_directory;
use crate::tools::Tool;
use crate::{interrupt, logging, report};

/// File systems that are made larger with their partition.
const EXPANDABLE: &[&str] = &["ext2", "ext3", "ext4"];

/// Physical volumes of LVM, which are made larger with their partition.
const PHYSICAL_VOLUME: &str = "LVM2_member";

/// Copy a disk onto a larger or smaller one, and resize its partitions on the way
///
/// OUTDISK must be there and have its new size: `vmcraft disk create` or `truncate` makes one. Nothing is
/// changed on INDISK. Boot loader, partition numbers, GUIDs and signatures stay.
#[derive(Debug, clap::Parser)]
#[command(
    version,
    after_help = "Example:\n  truncate -s 20G new.img\n  virt-resize --expand /dev/sda1 old.img new.img"
)]
pub(super) struct Resize {
    /// Let the first partition begin at the first multiple of the alignment: never, always or auto,
    /// which leaves it where it is
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = ["never", "always", "auto"])]
    align_first: String,

    /// Let partitions begin at multiples of so many sectors
    #[arg(long, value_name = "SECTORS", default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    alignment: u64,

    /// Leave a partition out (repeatable)
    #[arg(long, value_name = "PART")]
    delete: Vec<String>,

    /// Only say what would be done
    #[arg(short = 'n', long, visible_alias = "dryrun")]
    dry_run: bool,

    /// Let a partition, with its file system, have all space that is left
    #[arg(long, value_name = "PART", conflicts_with = "shrink")]
    expand: Option<String>,

    /// The format of INDISK; without it, it is detected
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,

    /// Make a partition without copying its content (repeatable)
    #[arg(long, value_name = "PART")]
    ignore: Vec<String>,

    /// Let a logical volume, with its file system, have all space that its group has left (repeatable)
    #[arg(long = "lv-expand", visible_aliases = ["LV-expand", "lvexpand", "LVexpand"], value_name = "LV")]
    lv_expand: Vec<String>,

    /// Copy no boot loader
    #[arg(long)]
    no_copy_boot_loader: bool,

    /// Leave file systems as large as they are
    #[arg(long)]
    no_expand_content: bool,

    /// Make no partition of the space that is left
    #[arg(long)]
    no_extra_partition: bool,

    /// Write zeros also where the old disk has holes
    #[arg(long)]
    no_sparse: bool,

    /// Taken for virt-resize's sake: there is no NTFS in this version
    #[arg(long, hide = true)]
    ntfsresize_force: bool,

    /// Taken for virt-resize's sake: messages have no colours
    #[arg(long, aliases = ["colours", "color", "colour"], hide = true)]
    colors: bool,

    /// Taken for virt-resize's sake: messages are not wrapped
    #[arg(long, hide = true)]
    wrap: bool,

    /// The format of OUTDISK; without it, it is detected
    #[arg(long, value_name = "FORMAT")]
    output_format: Option<String>,

    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,

    /// Resize a partition: PART=SIZE, PART=+SIZE, PART=-SIZE, also in percent (repeatable)
    #[arg(long, value_name = "PART=SIZE")]
    resize: Vec<String>,

    /// The same, even if the file system on it is cut off
    #[arg(long, value_name = "PART=SIZE")]
    resize_force: Vec<String>,

    /// Take from a partition what the new disk is smaller; its file system must have been made smaller
    /// before
    #[arg(long, value_name = "PART")]
    shrink: Option<String>,

    /// What to do about a file system that cannot be expanded: ignore, warn or error
    #[arg(long, value_name = "HOW", default_value = "warn", value_parser = ["ignore", "warn", "error"])]
    unknown_filesystems: String,

    /// Say in detail what is done
    #[arg(short, long, visible_alias = "debug", short_alias = 'd')]
    verbose: bool,

    /// Print each call to standard error
    #[arg(short = 'x')]
    trace: bool,

    /// Also print messages and progress for programs; without disks, print what this version can do
    #[arg(
        long,
        value_name = "fd:N|file:NAME|stream:stdout|stream:stderr",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        value_parser = Machine::parse,
    )]
    machine_readable: Option<Machine>,

    /// Taken for virt-resize's sake
    #[arg(long, hide = true)]
    debug_gc: bool,

    /// The disk that is copied, and the disk that is written
    #[arg(value_names = ["INDISK", "OUTDISK"], num_args = 2, required_unless_present = "machine_readable")]
    disks: Vec<String>,
}

impl Tool for Resize {
    fn run(self) -> Result<ExitCode> {
        let machine = match &self.machine_readable {
            None => None,
            Some(machine) => Some(machine.open().map_err(|e| message(format!("--machine-readable: {e}")))?),
        };
        let [indisk, outdisk] = match <[String; 2]>::try_from(self.disks.clone()) {
            Ok(disks) => disks,
            Err(_) => return features(machine),
        };
        let resizing = Resizing { options: self, indisk, outdisk, machine: RefCell::new(machine) };
        let result = resizing.run();
        if let Err(error) = &result {
            resizing.tell("error", &error.to_string());
        }
        result
    }
}

/// Says what this version can do.
fn features(machine: Option<Box<dyn Write>>) -> Result<ExitCode> {
    let text: String = FEATURES.iter().map(|name| format!("{name}\n")).collect();
    let mut out = machine.unwrap_or_else(|| Box::new(std::io::stdout()));
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Error::output(&e))?;
    Ok(ExitCode::SUCCESS)
}

/// A disk that is resized onto another.
struct Resizing {
    options: Resize,
    /// The disk that is copied.
    indisk: String,
    /// The disk that is written.
    outdisk: String,
    /// Where programs are told what happens.
    machine: RefCell<Option<Box<dyn Write>>>,
}

impl Deref for Resizing {
    type Target = Resize;

    fn deref(&self) -> &Resize {
        &self.options
    }
}

impl Resizing {
    fn run(&self) -> Result<ExitCode> {
        logging::install();
        interrupt::take_over().map_err(|e| message(format!("cannot take over signals: {e}")))?;
        logging::set_verbose(self.verbose);
        let started = Instant::now();
        self.step(started, &format!("Examining {}", self.indisk))?;
        if is_same_file(&self.indisk, &self.outdisk) {
            return Err(message(format!(
                "{}: the new disk is the old one: OUTDISK must be another",
                self.outdisk
            )));
        }
        self.check_volumes()?;
        let source = open(&self.indisk, self.format.as_deref(), true)?;
        let target = open(&self.outdisk, self.output_format.as_deref(), self.dry_run)?;
        let found = PartitionTable::read(&source).map_err(|e| message(format!("{}: {e}", self.indisk)))?;
        let table =
            found.ok_or_else(|| message(format!("{}: the disk has no partition table", self.indisk)))?;
        let mut plan = Plan::new(&table, self.alignment, self.first_start(&table));
        let disk = target.size() / plan.sector_size;
        self.decide(&mut plan, &source, disk)?;
        self.place(&mut plan, &table, disk)?;
        let expanded = self.expanded(&plan, &source)?;
        self.summarise(&plan, &expanded)?;
        if self.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        self.step(started, &format!("Setting up initial partition table on {}", self.outdisk))?;
        write_table(&plan, &table, &target).map_err(|e| message(format!("{}: {e}", self.outdisk)))?;
        let failed = |e: std::io::Error| {
            let (old, new) = (&self.indisk, &self.outdisk);
            message(format!("copying {old} to {new}: {e}; {new} is incomplete, and {old} is as it was"))
        };
        if !self.no_copy_boot_loader {
            copy::boot_loader(&source, &target, &plan, &table).map_err(failed)?;
        }
        for part in &plan.parts {
            let Fate::Copy(len) = part.fate else { continue };
            self.step(started, &format!("Copying {}", part.name))?;
            let bytes = part.len.min(len) * plan.sector_size;
            let from = part.start * plan.sector_size;
            let to = part.target.0 * plan.sector_size;
            copy::range(&source, from, &target, to, bytes, !self.no_sparse, &mut |done| {
                self.progress(done, bytes);
            })
            .map_err(failed)?;
        }
        target.flush().map_err(failed)?;
        drop(target);
        for (part, kind) in expanded {
            self.step(started, &format!("Expanding {} using the ‘{}’ method", part.name, method(kind)))?;
            self.expand_content(&part.name, kind)?;
        }
        for name in &self.lv_expand {
            self.step(started, &format!("Expanding {name} using the ‘resize2fs’ method"))?;
            self.expand_volume(name)?;
        }
        self.info(
            "\nResize operation completed with no errors.  Before deleting the old disk, carefully check that \
             the resized disk boots and works correctly.",
        )?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Resizing {
    /// What the options say of each partition.
    fn decide(&self, plan: &mut Plan, source: &Arc<dyn BlockDevice>, disk: u64) -> Result<()> {
        for name in &self.ignore {
            plan.decide(name, "--ignore", Fate::Ignore)?;
        }
        for name in &self.delete {
            plan.decide(name, "--delete", Fate::Delete)?;
        }
        let forced = self.resize_force.iter().map(|text| (text, "--resize-force"));
        for (text, option) in self.resize.iter().map(|text| (text, "--resize")).chain(forced) {
            let Some((name, size)) = text.split_once('=') else {
                return Err(message(format!("{option}: {text:?} is not of the form PART=SIZE")));
            };
            let len = plan.find(name, option)?.len;
            let new_len = plan.parse_size(size, len)?;
            plan.decide(name, option, Fate::Copy(new_len))?;
            if option == "--resize" {
                refuse_cutting(plan.find(name, option)?, source, new_len)?;
            }
        }
        plan.weigh(disk);
        match (&self.expand, &self.shrink) {
            (Some(name), _) if plan.surplus > 0 => {
                let len = plan.find(name, "--expand")?.len;
                let more = u64::try_from(plan.surplus).unwrap_or(0);
                plan.decide(name, "--expand", Fate::Copy(len.saturating_add(more)))?;
            }
            (None, Some(name)) if plan.surplus < 0 => {
                let len = plan.find(name, "--shrink")?.len;
                let less = u64::try_from(-plan.surplus).unwrap_or(u64::MAX);
                let Some(new_len) = len.checked_sub(less).filter(|len| *len > 0) else {
                    return Err(message(format!(
                        "--shrink {name}: the new disk is smaller by more than the partition has"
                    )));
                };
                plan.decide(name, "--shrink", Fate::Copy(new_len))?;
                refuse_cutting(plan.find(name, "--shrink")?, source, new_len)?;
            }
            (Some(_), _) if plan.surplus == 0 => {}
            (None, Some(_)) if plan.surplus >= 0 => {
                return Err(message(
                    "--shrink: there is no deficit: the new disk has room for all partitions",
                ));
            }
            _ => {}
        }
        plan.weigh(disk);
        if plan.surplus < 0 {
            let bytes = plan.deficit_bytes();
            return Err(message(format!(
                "There is a deficit of {bytes} bytes ({}).  You need to make the target disk larger by at least \
                 this amount or adjust your resizing requests.",
                human(bytes)
            )));
        }
        Ok(())
    }

    /// Where the first partition begins, unless that is where it began on the old disk.
    fn first_start(&self, table: &PartitionTable) -> Option<u64> {
        match self.align_first.as_str() {
            "always" if table.kind == TableKind::Gpt => Some(self.alignment.max(GPT_FIRST)),
            "always" => Some(self.alignment),
            _ => None,
        }
    }

    fn place(&self, plan: &mut Plan, table: &PartitionTable, disk: u64) -> Result<()> {
        let count = plan.parts.iter().filter(|part| part.fate != Fate::Delete).count();
        let can_add = !self.no_extra_partition && (table.kind == TableKind::Gpt || count < 4);
        plan.place(disk, can_add)
    }

    /// The partitions whose file systems are made larger.
    fn expanded<'p>(
        &self,
        plan: &'p Plan,
        source: &Arc<dyn BlockDevice>,
    ) -> Result<Vec<(&'p Part, &'static str)>> {
        let mut expanded = Vec::new();
        for part in &plan.parts {
            let is_larger = matches!(part.fate, Fate::Copy(len) if len > part.len);
            if !is_larger || self.no_expand_content || part.old.role == PartitionRole::Extended {
                continue;
            }
            match held(part, source)? {
                Some(kind) if EXPANDABLE.contains(&kind) || kind == PHYSICAL_VOLUME => {
                    expanded.push((part, kind));
                }
                Some(kind) if kind != "swap" => {
                    let what = format!("{}: this version cannot expand a {kind} file system", part.name);
                    match self.unknown_filesystems.as_str() {
                        "error" => return Err(message(what)),
                        "warn" => self.warn(&what),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        Ok(expanded)
    }

    fn summarise(&self, plan: &Plan, expanded: &[(&Part, &'static str)]) -> Result<()> {
        self.print("**********\n\nSummary of changes:\n")?;
        for part in &plan.parts {
            let what = match part.fate {
                Fate::Delete => "This partition will be deleted.".to_owned(),
                Fate::Ignore => {
                    "This partition will be created, but the contents will be ignored (ie. not copied \
                                 to the target)."
                        .to_owned()
                }
                Fate::Copy(len) if len == part.len => "This partition will be left alone.".to_owned(),
                Fate::Copy(len) => {
                    let bytes = |sectors: u64| human(sectors.saturating_mul(plan.sector_size));
                    let mut text =
                        format!("This partition will be resized from {} to {}.", bytes(part.len), bytes(len));
                    if let Some((_, kind)) = expanded.iter().find(|(other, _)| other.name == part.name) {
                        let what = match *kind {
                            PHYSICAL_VOLUME => "LVM PV".to_owned(),
                            kind => format!("filesystem {kind}"),
                        };
                        text.push_str(&format!(
                            "  The {what} on {} will be expanded using the ‘{}’ method.",
                            part.name,
                            method(kind)
                        ));
                    }
                    text
                }
            };
            self.info(&format!("\n{}: {what}", part.name))?;
        }
        for name in &self.lv_expand {
            self.info(&format!("\n{name}: This logical volume will be expanded to maximum size."))?;
        }
        let surplus = plan.surplus_bytes();
        if surplus > 0 {
            let rest = if plan.extra.is_some() {
                "An extra partition will be created for the surplus."
            } else {
                "The surplus space will be ignored.  Run a partitioning program in the guest to partition this \
                 extra space if you want."
            };
            self.info(&format!("\nThere is a surplus of {}.  {rest}", human(surplus)))?;
        }
        self.print("\n**********\n")
    }

    /// Refuses logical volumes that the old disk does not have.
    fn check_volumes(&self) -> Result<()> {
        if self.lv_expand.is_empty() {
            return Ok(());
        }
        let format = format(self.format.as_deref())?;
        let guest =
            launched(&self.indisk, DriveOptions { format, read_only: true, ..DriveOptions::default() })?;
        let volumes = guest.lvs().map_err(|e| Error::call("lvs", e))?;
        match self.lv_expand.iter().find(|name| !volumes.contains(*name)) {
            None => Ok(()),
            Some(name) => Err(message(format!(
                "--lv-expand {name}: the disk has no such logical volume: virt-filesystems --logical-volumes -a {} \
                 lists those that it has",
                self.indisk
            ))),
        }
    }

    /// The new disk, to be changed as a guest's.
    fn open_new(&self) -> Result<Guest> {
        let format = format(self.output_format.as_deref())?;
        launched(&self.outdisk, DriveOptions { format, ..DriveOptions::default() })
    }

    /// Makes what a partition of the new disk holds as large as that.
    fn expand_content(&self, name: &str, kind: &str) -> Result<()> {
        let mut guest = self.open_new()?;
        let (call, device) = (method(kind), DeviceName::new(name));
        if self.trace {
            report::trace(&format_args!("{call} \"{name}\""));
        }
        let expanded = match kind {
            PHYSICAL_VOLUME => guest.pvresize(device),
            _ => guest.resize2fs(device),
        };
        expanded.and_then(|()| guest.commit()).map_err(|e| {
            message(format!(
                "everything was copied, and the partition {name} has its new size, but its content could not be \
                 expanded: {e}; {call} in the guest can do it"
            ))
        })
    }

    /// Gives a logical volume of the new disk all that its group has left, and its file system all of that.
    fn expand_volume(&self, name: &str) -> Result<()> {
        let mut guest = self.open_new()?;
        let device = DeviceName::new(name);
        if self.trace {
            report::trace(&format_args!("lvresize-free \"{name}\" 100"));
        }
        let failed = |e: vmcraft::Error| {
            message(format!(
                "everything was copied, and the partitions have their new sizes, but {name} could not be expanded: {e}"
            ))
        };
        guest.lvresize_free(device, 100).map_err(failed)?;
        let kind = guest.vfs_type(name.into()).map_err(failed)?;
        if !self.no_expand_content && EXPANDABLE.contains(&kind.as_str()) {
            guest.resize2fs(device).map_err(failed)?;
        } else if !kind.is_empty() && kind != "swap" {
            self.warn(&format!("{name}: it was expanded, and the {kind} on it was not"));
        }
        guest.commit().map_err(failed)
    }

    fn step(&self, started: Instant, what: &str) -> Result<()> {
        self.tell("message", what);
        self.print(&format!("[{:6.1}] {what}\n", started.elapsed().as_secs_f64()))
    }

    /// A line that the program's name begins, behind empty lines.
    fn info(&self, text: &str) -> Result<()> {
        let line = text.trim_start_matches('\n');
        self.tell("info", line);
        self.print(&format!("{}virt-resize: {line}\n", &text[..text.len() - line.len()]))
    }

    fn warn(&self, text: &str) {
        self.tell("warning", text);
        report::warning(&text);
    }

    /// Tells programs.
    fn tell(&self, kind: &str, text: &str) {
        if let Some(out) = self.machine.borrow_mut().as_mut() {
            // What is done does not depend on somebody reading along.
            let _ = out
                .write_all(machine::line(kind, text, Timestamp::now()).as_bytes())
                .and_then(|()| out.flush());
        }
    }

    /// Tells programs how much is copied: on standard output, whatever the option says.
    fn progress(&self, done: u64, all: u64) {
        if self.machine_readable.is_some() {
            let _ = writeln!(std::io::stdout(), "{done}/{all}");
        }
    }

    fn print(&self, text: &str) -> Result<()> {
        if self.quiet {
            return Ok(());
        }
        let mut out = std::io::stdout();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Error::output(&e))
    }
}

/// Whether two names are of one file. URIs are not.
fn is_same_file(one: &str, other: &str) -> bool {
    let identity = |name: &str| std::fs::metadata(name).map(|found| (found.dev(), found.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

/// The call that makes content of this kind larger.
fn method(kind: &str) -> &'static str {
    if kind == PHYSICAL_VOLUME { "pvresize" } else { "resize2fs" }
}

/// A handle on one image, launched.
fn launched(image: &str, options: DriveOptions) -> Result<Guest> {
    let mut guest = Guest::new();
    guest.set_state_directory(state_directory(!options.read_only));
    guest.add_drive_with(image, options)?;
    guest.launch().map_err(|e| Error::call("launch", e))?;
    Ok(guest)
}

/// The first sector that a GPT leaves to partitions.
const GPT_FIRST: u64 = 34;

/// A disk without a guest around it. What a session that was cut off left to be written is done first, or seen by
/// who only reads.
fn open(name: &str, given: Option<&str>, read_only: bool) -> Result<Arc<dyn BlockDevice>> {
    let failed = |e: vmcraft_block::Error| message(e.to_string());
    let options = |format, read_only| OpenOptions {
        format,
        read_only,
        gate: vmcraft::directory_gate(Vec::new()),
        ..OpenOptions::default()
    };
    let image = image::open(name, &options(format(given)?, read_only)).map_err(failed)?;
    image.warnings.iter().for_each(|warning| report::warning(warning));
    let identity = ImageIdentity::of(name, &image.format.to_string());
    let disk = TransactionDisk {
        device: image.device.clone(),
        name: name.to_owned(),
        access: if read_only { Access::Forget } else { Access::Commit },
        image: Some(identity.map_err(|e| message(format!("{name}: {e}")))?),
    };
    let state_directory = state_directory(!read_only);
    let journals = TransactionOptions { state_directory, ..TransactionOptions::default() };
    let mut other =
        |name: &str, format: &str| Ok(image::open(name, &options(format.parse().ok(), false))?.device);
    let (transaction, notes) = Transaction::open(vec![disk], journals, &mut other).map_err(failed)?;
    notes.iter().for_each(|note| report::warning(note));
    // What is written here need not be all or nothing.
    Ok(transaction.device(0).filter(|_| read_only).unwrap_or(image.device))
}

fn format(given: Option<&str>) -> Result<Option<Format>> {
    given.map(str::parse).transpose().map_err(|e| message(format!("--format: {e}")))
}

/// What a partition holds, as `blkid` names it.
fn held(part: &Part, source: &Arc<dyn BlockDevice>) -> Result<Option<&'static str>> {
    let failed = |e: String| message(format!("{}: {e}", part.name));
    let slice = Slice::new(source.clone(), part.old.start_bytes, part.old.len_bytes)
        .map_err(|e| failed(e.to_string()))?;
    Ok(signature::probe(&slice).map_err(|e| failed(e.to_string()))?.map(|found| found.kind))
}

/// Refuses to make a partition smaller than what it holds, as far as that can be told.
fn refuse_cutting(part: &Part, source: &Arc<dyn BlockDevice>, new_len: u64) -> Result<()> {
    if new_len >= part.len {
        return Ok(());
    }
    let sector = part.old.len_bytes / part.len.max(1);
    let new_bytes = new_len.saturating_mul(sector);
    let what = match held(part, source)? {
        None | Some("swap") => return Ok(()),
        Some(kind) if EXPANDABLE.contains(&kind) => {
            let failed = |e: String| message(format!("{}: {e}", part.name));
            let slice = Slice::new(source.clone(), part.old.start_bytes, part.old.len_bytes);
            let size = slice.and_then(|slice| ext_bytes(&slice)).map_err(|e| failed(e.to_string()))?;
            if size <= new_bytes {
                return Ok(());
            }
            format!("has an {kind} file system of {size} bytes")
        }
        Some(kind) => format!("has {kind}, whose size this version cannot tell"),
    };
    Err(message(format!(
        "{}: the partition {what}, which would be cut off at {new_bytes} bytes: make it smaller first with \
         resize2fs-size, or use --resize-force if its content does not matter",
        part.name
    )))
}

/// How many bytes an ext2, ext3 or ext4 file system has, by its superblock.
fn ext_bytes(device: &dyn BlockDevice) -> std::io::Result<u64> {
    let mut superblock = [0; 1024];
    device.read_at(1024, &mut superblock)?;
    let word = |at: usize| {
        u32::from_le_bytes([superblock[at], superblock[at + 1], superblock[at + 2], superblock[at + 3]])
    };
    // s_blocks_count_lo, and with the feature 64bit s_blocks_count_hi; s_log_block_size.
    let high = if word(0x60) & 0x80 != 0 { u64::from(word(0x150)) } else { 0 };
    let blocks = high << 32 | u64::from(word(4));
    Ok(1024_u64.checked_shl(word(0x18)).and_then(|size| blocks.checked_mul(size)).unwrap_or(u64::MAX))
}

/// Writes the new disk's table.
fn write_table(
    plan: &Plan,
    table: &PartitionTable,
    target: &Arc<dyn BlockDevice>,
) -> vmcraft_volume::Result<()> {
    let guid = |text: Option<&String>| text.and_then(|text| text.parse().ok()).unwrap_or_else(Uuid::new_v4);
    let mut editor = TableEditor::create(target, table.kind, guid(table.disk_guid.as_ref()))?;
    if let Some(id) = table.mbr_id {
        editor.set_disk_id(id)?;
    }
    for part in plan.parts.iter().filter(|part| part.fate != Fate::Delete) {
        let number = editor.add(&NewPartition {
            number: Some(part.old.number),
            role: part.old.role,
            first_sector: part.target.0,
            last_sector: part.target.1,
            type_guid: guid(part.old.type_guid.as_ref()),
            guid: guid(part.old.guid.as_ref()),
            name: part.old.name.clone().unwrap_or_default(),
        })?;
        match part.old.mbr_type {
            Some(kind) => {
                editor.set_mbr_type(number, kind)?;
                if part.old.bootable {
                    editor.set_bootable(number, true)?;
                }
            }
            None => editor.set_attributes(number, part.old.attributes)?,
        }
    }
    if let Some((first_sector, last_sector)) = plan.extra {
        editor.add(&NewPartition {
            number: None,
            role: PartitionRole::Primary,
            first_sector,
            last_sector,
            type_guid: LINUX_FILE_SYSTEM,
            guid: Uuid::new_v4(),
            name: String::new(),
        })?;
    }
    editor.write(target)
}

/// A size with one decimal, such as `37.0M`.
#[allow(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn human(bytes: u64) -> String {
    let (divisor, unit) = match bytes {
        0..0x400 => return format!("{bytes}"),
        0x400..0x10_0000 => (10, "K"),
        0x10_0000..0x4000_0000 => (20, "M"),
        _ => (30, "G"),
    };
    format!("{:.1}{unit}", bytes as f64 / f64::from(1_u32 << divisor))
}
