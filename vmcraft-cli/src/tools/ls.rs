//! `virt-ls`: the names in directories, or all below them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use bstr::BString;
use vmcraft::vfs::LastLink;
use vmcraft::walk::Walk;
use vmcraft::{Guest, GuestPath};

use crate::error::{Error, Result, message};
use crate::tools::Tool;
use crate::tools::common::{MountOptions, ToolOptions, trace};
use crate::tools::fields::{FieldOptions, File, Lines, checksum};

/// How many bytes of paths are brought into order in memory.
const MOST_PATH_BYTES: usize = 512 << 20;

/// List files of a virtual machine
#[derive(Debug, clap::Parser)]
#[command(
    version,
    after_help = "With -lR, each line has the type, the permissions, the size, what other options \
        ask for, and the path.\n\nExample:\n  virt-ls -a disk.qcow2 -lR --csv /etc"
)]
pub(super) struct Ls {
    #[command(flatten)]
    options: ToolOptions,

    #[command(flatten)]
    mounts: MountOptions,

    /// Print details as ls -l does
    #[arg(short, long)]
    long: bool,

    /// List all that is below the directories
    #[arg(short = 'R', long)]
    recursive: bool,

    /// The directories, by their absolute paths in the guest
    #[arg(value_name = "DIR", required = true)]
    directories: Vec<OsString>,

    #[command(flatten, next_help_heading = "With -lR")]
    fields: FieldOptions,
}

impl Tool for Ls {
    fn run(mut self) -> Result<ExitCode> {
        let fields = &self.fields;
        if fields.csv && !(self.long && self.recursive) {
            return Err(message("--csv: works only together with -lR"));
        }
        self.options.adopt_old_form(&mut self.directories, 1)?;
        let mut guest = self.options.open_mounted(&self.mounts.mounts)?;
        let mut lines = Lines::new(self.fields.csv);
        for directory in &self.directories {
            let directory = GuestPath::new(directory.as_bytes());
            match (self.long, self.recursive) {
                (false, false) => {
                    trace(&self.options, format_args!("ls {directory:?}"));
                    for name in guest.ls(directory).map_err(|e| Error::call("ls", e))? {
                        lines.raw(&name)?;
                        lines.raw(b"\n")?;
                    }
                }
                (true, false) => {
                    trace(&self.options, format_args!("ll {directory:?}"));
                    lines.raw(&guest.ll(directory).map_err(|e| Error::call("ll", e))?)?;
                }
                (false, true) => {
                    trace(&self.options, format_args!("find0 {directory:?}"));
                    for path in paths_below(&guest, directory)? {
                        lines.raw(&path)?;
                        lines.raw(b"\n")?;
                    }
                }
                (true, true) => {
                    trace(&self.options, format_args!("walk {directory:?}"));
                    self.list_tree(&mut guest, directory, &mut lines)?;
                }
            }
        }
        lines.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Ls {
    fn list_tree(&self, guest: &mut Guest, directory: &GuestPath, lines: &mut Lines) -> Result<()> {
        let start = guest.vfs().resolve(directory, LastLink::Follow)?;
        // The walk borrows the tree of the handle; checksums are read through the handle itself.
        let vfs = guest.vfs().clone();
        let mut walk = Walk::new(&vfs, start).by_name();
        while let Some(entry) = walk.next()? {
            let mut file = File::new(&entry)?;
            if let Some(kind) = self.fields.checksum.as_deref().filter(|_| file.is_regular()) {
                file.checksum = checksum(guest, kind, &file.path)?;
            }
            lines.file(&self.fields, true, &file);
            lines.end()?;
        }
        Ok(())
    }
}

/// The paths below a directory, relative to it with a slash before them, in order.
fn paths_below(guest: &Guest, directory: &GuestPath) -> Result<Vec<BString>> {
    let start = guest.vfs().resolve(directory, LastLink::Follow)?;
    if !start.metadata()?.is_dir() {
        return Err(message(format!("{directory}: it is not a directory")));
    }
    let mut walk = Walk::new(guest.vfs(), start);
    let (mut paths, mut held) = (Vec::new(), 0);
    while let Some(entry) = walk.next()? {
        if entry.depth == 0 {
            continue;
        }
        held += entry.path.len() + size_of::<BString>();
        if held > MOST_PATH_BYTES {
            return Err(message(format!(
                "{directory}: there are too many files below it to bring their names into order: list the \
                 directories in it one by one"
            )));
        }
        paths.push(vmcraft::vfs::join(b"/", entry.path));
    }
    paths.sort_unstable();
    Ok(paths)
}
