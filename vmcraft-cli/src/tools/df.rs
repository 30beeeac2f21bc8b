//! `virt-df`: how full the file systems of the disks are.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use bstr::BString;
use vmcraft::{Guest, GuestPath, Mountable};

use crate::error::{Error, Result, message};
use crate::options::Drive;
use crate::report;
use crate::tools::common::{ToolOptions, print, trace};
use crate::tools::size::human;
use crate::tools::{Tool, csv};

/// How wide the column of the names is.
const NAME_WIDTH: usize = 35;

/// Display free space on virtual file systems
#[derive(Debug, clap::Parser)]
#[command(version, after_help = "Example:\n  virt-df -a disk.qcow2 -h")]
pub(super) struct Df {
    #[command(flatten)]
    options: ToolOptions,

    /// Disks of the guest, where no option names any
    #[arg(value_name = "DISK", hide = true)]
    disks: Vec<OsString>,

    /// Print comma-separated values
    #[arg(long, conflicts_with = "human_readable")]
    csv: bool,

    /// Print sizes for people: 1.5G
    #[arg(short, long)]
    human_readable: bool,

    /// Print inodes instead of blocks
    #[arg(short, long)]
    inodes: bool,

    /// Print the UUIDs of libvirt domains instead of their names; an image keeps its name
    #[arg(long)]
    uuid: bool,

    /// Taken for virt-df's sake: guests never share what could mix them up
    #[arg(long, hide = true)]
    one_per_guest: bool,

    /// Taken for virt-df's sake: one guest needs one thread
    #[arg(short = 'P', value_name = "THREADS", hide = true)]
    threads: Option<u32>,
}

/// What is printed of a file system.
struct Row {
    device: BString,
    total: u128,
    used: u128,
    available: u128,
}

impl Tool for Df {
    fn run(mut self) -> Result<ExitCode> {
        self.options.adopt_old_form(&mut self.disks, 0)?;
        if self.uuid && self.options.drives.0.iter().any(|drive| matches!(drive, Drive::Domain(_))) {
            return Err(message("--uuid: not supported with -d: without it, the domain's name is printed"));
        }
        let mut guest = self.options.open()?;
        let name = display_name(&self.options.drives.0);
        let rows = self.rows(&mut guest)?;
        let mut text = self.title();
        for row in &rows {
            text.extend(if self.csv { self.csv_line(&name, row) } else { self.line(&name, row) });
        }
        print(&text)?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Df {
    /// The file systems that can be opened. What cannot is a warning, since the others still count.
    fn rows(&self, guest: &mut Guest) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        trace(&self.options, format_args!("list_filesystems"));
        for (device, kind) in guest.list_filesystems().map_err(|e| Error::call("list-filesystems", e))? {
            if kind == "swap" || kind == "unknown" {
                continue;
            }
            trace(&self.options, format_args!("mount_ro {:?} \"/\" : statvfs \"/\"", device.to_string()));
            guest.umount_all().map_err(|e| Error::call("umount-all", e))?;
            let stat = guest
                .mount_ro(Mountable::new(&device), GuestPath::new("/"))
                .and_then(|()| guest.statvfs(GuestPath::new("/")));
            let stat = match stat {
                Ok(stat) => stat,
                Err(error) => {
                    report::warning(&format!("{device} is left out: {error}"));
                    continue;
                }
            };
            let number = |number: i64| u128::from(number.cast_unsigned());
            rows.push(if self.inodes {
                let (total, free) = (number(stat.files), number(stat.ffree));
                Row { device, total, used: total.saturating_sub(free), available: free }
            } else {
                let bytes = |blocks: i64| number(blocks) * number(stat.bsize);
                let total = bytes(stat.blocks);
                let used = total.saturating_sub(bytes(stat.bfree));
                Row { device, total, used, available: bytes(stat.bavail) }
            });
        }
        Ok(rows)
    }

    fn title(&self) -> Vec<u8> {
        let [total, used, available, percent] = match (self.inodes, self.human_readable) {
            (true, _) => ["Inodes", "IUsed", "IFree", "IUse%"],
            (false, true) => ["Size", "Used", "Available", "Use%"],
            (false, false) => ["1K-blocks", "Used", "Available", "Use%"],
        };
        if self.csv {
            return csv::line(["VirtualMachine", "Filesystem", total, used, available, percent]);
        }
        format!("{:<NAME_WIDTH$}{total:>11}{used:>11}{available:>11}{percent:>6}\n", "Filesystem")
            .into_bytes()
    }

    fn cell(&self, value: u128) -> String {
        match (self.inodes, self.human_readable) {
            (true, _) => value.to_string(),
            (false, true) => human(value),
            (false, false) => value.div_ceil(1024).to_string(),
        }
    }

    fn csv_line(&self, name: &str, row: &Row) -> Vec<u8> {
        // Tenths of a percent, rounded to nearest.
        let tenths = (row.used * 2000 + row.total).checked_div(row.total * 2).unwrap_or(0);
        csv::line([
            name.as_bytes(),
            &row.device,
            self.cell(row.total).as_bytes(),
            self.cell(row.used).as_bytes(),
            self.cell(row.available).as_bytes(),
            format!("{}.{}", tenths / 10, tenths % 10).as_bytes(),
        ])
    }

    fn line(&self, name: &str, row: &Row) -> Vec<u8> {
        let name = format!("{name}:{}", row.device);
        let gap = match name.chars().count() {
            width if width > NAME_WIDTH => format!("\n{:NAME_WIDTH$}", ""),
            width => " ".repeat(NAME_WIDTH - width),
        };
        let percent = if row.total == 0 { 0 } else { (row.used * 100).div_ceil(row.total) };
        format!(
            "{name}{gap}{:>11}{:>11}{:>11}{:>6}\n",
            self.cell(row.total),
            self.cell(row.used),
            self.cell(row.available),
            format!("{percent}%"),
        )
        .into_bytes()
    }
}

/// What stands for the guest before the names of its devices: the first disk, and a plus for each
/// further one.
fn display_name(drives: &[Drive]) -> String {
    let first = match drives.first() {
        Some(Drive::Image { name, .. }) => {
            Path::new(name).file_name().unwrap_or(name).to_string_lossy().into_owned()
        }
        Some(Drive::Domain(name) | Drive::Prepared(name)) => name.clone(),
        None => String::new(),
    };
    first + &"+".repeat(drives.len().saturating_sub(1))
}
