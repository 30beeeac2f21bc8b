//! `virt-diff`: how the files of two guests differ.

use std::cmp::Ordering;
use std::process::ExitCode;
use std::time::Duration;

use bstr::{BString, ByteSlice};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use similar::{Algorithm, TextDiff};
use vmcraft::vfs::{LastLink, Vfs};
use vmcraft::walk::Walk;
use vmcraft::{Guest, GuestPath};
use vmcraft_fs::Metadata;

use crate::error::{Result, message};
use crate::options::{Drive, Drives, drives_of};
use crate::report;
use crate::tools::Tool;
use crate::tools::common::{ToolOptions, trace};
use crate::tools::fields::{FieldOptions, File, Lines, checksum};

/// Files up to this size are compared line by line.
const MOST_BYTES: u64 = 16 << 20;

/// After this time the lines of a file are no longer compared as thoroughly.
const PATIENCE: Duration = Duration::from_secs(10);

/// List how the files of two virtual machines differ
#[derive(Debug, clap::Parser)]
#[command(
    version,
    after_help = "A line begins with - for a file that only the first guest has, + for one that only the \
        second has, and = for a file with other content.\n\nExample:\n  virt-diff -a before.qcow2 -A after.qcow2"
)]
pub(super) struct Diff {
    #[command(flatten)]
    options: ToolOptions,

    #[command(flatten)]
    second: SecondDrives,

    /// The same as --extra-stats --times --uids --xattrs
    #[arg(long)]
    all: bool,

    /// Compare the times of last access
    #[arg(long)]
    atime: bool,

    /// Compare how many links directories have
    #[arg(long, aliases = ["dir-link", "dir-nlink", "dir-nlinks"])]
    dir_links: bool,

    /// Compare the times of directories
    #[arg(long)]
    dir_times: bool,

    /// Print extended attributes
    #[arg(long)]
    xattrs: bool,

    #[command(flatten)]
    fields: FieldOptions,
}

/// The disks of the second guest.
#[derive(Debug)]
struct SecondDrives(Vec<Drive>);

impl Args for SecondDrives {
    fn augment_args(command: Command) -> Command {
        let add =
            Arg::new("second").short('A').value_name("IMAGE|URI").help("Add a disk of the second guest");
        let domain = Arg::new("second-domain")
            .short('D')
            .value_name("DOMAIN")
            .help("Add the disks of a libvirt domain as the second guest");
        command
            .arg(
                add.value_parser(clap::builder::ValueParser::os_string())
                    .value_hint(clap::ValueHint::FilePath)
                    .action(ArgAction::Append)
                    .help_heading("Disks"),
            )
            .arg(domain.action(ArgAction::Append).help_heading("Disks"))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SecondDrives {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(drives_of(matches, "second", "second-domain")))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A file of one of the guests.
struct Item {
    file: File,
    xattrs: Vec<(BString, Vec<u8>)>,
}

impl Tool for Diff {
    fn run(mut self) -> Result<ExitCode> {
        if self.options.drives.0.is_empty() || self.second.0.is_empty() {
            return Err(message("two guests are needed: -a IMAGE or -d DOMAIN, and -A IMAGE or -D DOMAIN"));
        }
        if self.all {
            self.fields.extra_stats = true;
            self.fields.times = true;
            self.fields.uids = true;
            self.xattrs = true;
        }
        let second = ToolOptions { drives: Drives(self.second.0.clone()), ..self.options.clone() };
        trace(&self.options, format_args!("inspect_os"));
        let first = self.options.open_mounted(&[])?;
        let second = second.open_mounted(&[])?;
        let mut lines = Lines::new(self.fields.csv);
        self.compare([first, second], &mut lines)?;
        lines.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Diff {
    /// Goes through both trees at once, in the same order.
    fn compare(&self, mut guests: [Guest; 2], lines: &mut Lines) -> Result<()> {
        let trees = [guests[0].vfs().clone(), guests[1].vfs().clone()];
        let root = |tree: &Vfs| tree.resolve(GuestPath::new("/"), LastLink::Follow);
        let mut walks = [
            Walk::new(&trees[0], root(&trees[0])?).by_name(),
            Walk::new(&trees[1], root(&trees[1])?).by_name(),
        ];
        let mut next = |of: usize| self.next(&mut guests[of], &mut walks[of]);
        let (mut first, mut second) = (next(0)?, next(1)?);
        loop {
            let order = match (&first, &second) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => in_walk_order(&a.file.path, &b.file.path),
            };
            if order == Ordering::Equal
                && let (Some(a), Some(b)) = (&first, &second)
            {
                self.print_change(&trees, a, b, lines)?;
            } else if let (Ordering::Less, Some(item)) = (order, &first) {
                self.print_item("-", item, lines)?;
            } else if let (Ordering::Greater, Some(item)) = (order, &second) {
                self.print_item("+", item, lines)?;
            }
            if order.is_le() {
                first = next(0)?;
            }
            if order.is_ge() {
                second = next(1)?;
            }
        }
    }

    fn next(&self, guest: &mut Guest, walk: &mut Walk<'_>) -> Result<Option<Item>> {
        let Some(entry) = walk.next()? else { return Ok(None) };
        let mut xattrs = entry.mount.filesystem.xattrs(entry.inode).map_err(|source| entry.error(source))?;
        xattrs.sort_unstable();
        let mut file = File::new(&entry)?;
        if let Some(kind) = self.fields.checksum.as_deref().filter(|_| file.is_regular()) {
            file.checksum = checksum(guest, kind, &file.path)?;
        }
        Ok(Some(Item { file, xattrs }))
    }

    /// Prints how a file that both guests have differs, if it does.
    fn print_change(&self, trees: &[Vfs; 2], a: &Item, b: &Item, lines: &mut Lines) -> Result<()> {
        let (old, new) = (self.compared(a.file.metadata), self.compared(b.file.metadata));
        let is_touched = old.modified.seconds != new.modified.seconds
            || old.changed.seconds != new.changed.seconds
            || old.size_bytes != new.size_bytes;
        let both_regular = a.file.is_regular() && b.file.is_regular();
        if (both_regular && is_touched) || a.file.checksum != b.file.checksum {
            self.print_item("=", a, lines)?;
            return if self.fields.csv { Ok(()) } else { print_content(trees, &a.file.path, lines) };
        }
        let mut changes = changed_fields(&old, &new);
        if a.file.device != b.file.device {
            changes.insert(0, "st_dev");
        }
        if a.xattrs != b.xattrs {
            changes.push("xattrs");
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.print_item("-", a, lines)?;
        self.print_item("+", b, lines)?;
        lines.text(b"#");
        lines.text(b"changed:");
        changes.iter().for_each(|change| lines.text(change.as_bytes()));
        lines.end()
    }

    /// What is compared of a file: without what the options ignore.
    fn compared(&self, mut metadata: Metadata) -> Metadata {
        let is_dir = metadata.is_dir();
        if !self.atime || (is_dir && !self.dir_times) {
            metadata.accessed = Default::default();
        }
        if is_dir && !self.dir_times {
            metadata.modified = Default::default();
            metadata.changed = Default::default();
        }
        if is_dir && !self.dir_links {
            metadata.links = 0;
        }
        metadata
    }

    fn print_item(&self, sign: &str, item: &Item, lines: &mut Lines) -> Result<()> {
        lines.text(sign.as_bytes());
        lines.file(&self.fields, self.atime, &item.file);
        if self.xattrs {
            for (name, value) in &item.xattrs {
                lines.text(name);
                lines.text(escaped(value).as_bytes());
            }
        }
        lines.end()
    }
}

/// The order in which walks by name show paths: what is in a directory follows it.
fn in_walk_order(a: &[u8], b: &[u8]) -> Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    a.iter().map(key).cmp(b.iter().map(key))
}

/// The names of the fields of `stat` that differ.
fn changed_fields(old: &Metadata, new: &Metadata) -> Vec<&'static str> {
    [
        ("st_ino", old.inode != new.inode),
        ("st_mode", old.mode() != new.mode()),
        ("st_nlink", old.links != new.links),
        ("st_uid", old.uid != new.uid),
        ("st_gid", old.gid != new.gid),
        ("st_rdev", old.device != new.device),
        ("st_size", old.size_bytes != new.size_bytes),
        ("st_blksize", old.block_size != new.block_size),
        ("st_blocks", old.blocks_512 != new.blocks_512),
        ("st_atime_sec", old.accessed.seconds != new.accessed.seconds),
        ("st_atime_nsec", old.accessed.nanoseconds != new.accessed.nanoseconds),
        ("st_mtime_sec", old.modified.seconds != new.modified.seconds),
        ("st_mtime_nsec", old.modified.nanoseconds != new.modified.nanoseconds),
        ("st_ctime_sec", old.changed.seconds != new.changed.seconds),
        ("st_ctime_nsec", old.changed.nanoseconds != new.changed.nanoseconds),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(name, _)| name)
    .collect()
}

/// Prints what changed in a file, if it is text and not too large.
fn print_content(trees: &[Vfs; 2], path: &[u8], lines: &mut Lines) -> Result<()> {
    let read = |tree: &Vfs| {
        tree.resolve(GuestPath::new(path), LastLink::Keep).and_then(|node| node.read_to_vec(MOST_BYTES))
    };
    match (read(&trees[0]), read(&trees[1])) {
        (Ok(old), Ok(new)) if old.contains(&0) || new.contains(&0) => {}
        (Ok(old), Ok(new)) => {
            let diff = TextDiff::configure()
                .algorithm(Algorithm::Myers)
                .timeout(PATIENCE)
                .diff_lines(old.as_slice(), new.as_slice());
            let mut text = Vec::new();
            diff.unified_diff()
                .to_writer(&mut text)
                .map_err(|e| message(format!("{}: its changes cannot be shown: {e}", path.as_bstr())))?;
            lines.raw(&text)?;
        }
        (Err(error), _) | (_, Err(error)) => {
            report::warning(&format!("{}: its changes are not shown: {error}", path.as_bstr()));
        }
    }
    lines.raw(b"@@ End of diff @@\n")
}

/// A value in which bytes that are not printable ASCII are `\xNN`.
fn escaped(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value {
        match byte {
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // virt-diff shows /t/dir/sub before /t/dir.x, as the directories are walked.
    fn contents_follow_their_directory() {
        assert_eq!(in_walk_order(b"/t/dir/sub", b"/t/dir.x"), Ordering::Less);
        assert_eq!(in_walk_order(b"/", b"/a"), Ordering::Less);
        assert_eq!(in_walk_order(b"/a", b"/a"), Ordering::Equal);
    }
}
