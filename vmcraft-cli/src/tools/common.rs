//! The options that all the tools have, and how they open the guest.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::{Path, PathBuf};

use vmcraft::Guest;

use crate::error::{Error, Result, message};
use crate::options::{Drive, Drives, GuestOptions, MountOption};
use crate::output::Output;
use crate::report;

/// Which disks are opened, and how: what every tool is told in the same way.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ToolOptions {
    #[command(flatten)]
    pub(crate) drives: Drives,

    /// The libvirt connection that -d asks
    #[arg(short, long, value_name = "URI", help_heading = "Disks")]
    pub(crate) connect: Option<String>,

    /// Let images name backing and data files below this directory (repeatable)
    #[arg(long, value_name = "DIR", help_heading = "Disks")]
    pub(crate) allow_backing: Vec<PathBuf>,

    /// A key for an encrypted volume: ID:key:TEXT, ID:file:NAME or ID:env:VARIABLE, where ID is a device, a UUID
    /// or all
    #[arg(long = "key", value_name = "SELECTOR", help_heading = "Disks")]
    pub(crate) keys: Vec<String>,

    /// Read keys and passphrases from standard input
    #[arg(long, help_heading = "Disks")]
    pub(crate) keys_from_stdin: bool,

    /// Show passphrases as they are typed
    #[arg(long, help_heading = "Disks")]
    pub(crate) echo_keys: bool,

    /// Say in detail what is done
    #[arg(short, long, help_heading = "Messages")]
    pub(crate) verbose: bool,

    /// Print each call to standard error
    #[arg(short = 'x', help_heading = "Messages")]
    pub(crate) trace: bool,
}

impl ToolOptions {
    /// As the shell's options: for reading, with nothing mounted.
    pub(crate) fn guest_options(&self) -> GuestOptions {
        GuestOptions {
            drives: self.drives.clone(),
            ro: true,
            connect: self.connect.clone(),
            allow_backing: self.allow_backing.clone(),
            keys: self.keys.clone(),
            keys_from_stdin: self.keys_from_stdin,
            echo_keys: self.echo_keys,
            verbose: self.verbose,
            trace: self.trace,
            ..GuestOptions::default()
        }
    }

    /// Opens the disks, with nothing mounted.
    pub(crate) fn open(&self) -> Result<Guest> {
        open(&self.guest_options())
    }

    /// Opens the disks and mounts what `mounts` says, or else the guest as it would be mounted.
    pub(crate) fn open_mounted(&self, mounts: &[MountOption]) -> Result<Guest> {
        open(&GuestOptions { inspector: mounts.is_empty(), mounts: mounts.to_vec(), ..self.guest_options() })
    }

    /// Takes the disks from the front of the words where no option names any: the tools' old form,
    /// which ends with `keep` words that are no disks.
    pub(crate) fn adopt_old_form(&mut self, words: &mut Vec<OsString>, keep: usize) -> Result<()> {
        if self.drives.0.is_empty() {
            let disks = words.drain(..words.len().saturating_sub(keep));
            self.drives.0.extend(disks.map(|word| old_drive(&word)));
        }
        if self.drives.0.is_empty() {
            return Err(message("no disk was given: add -a IMAGE or -d DOMAIN"));
        }
        Ok(())
    }
}

/// What the tools that write disks are told in the same way.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WriteOptions {
    #[command(flatten)]
    pub(crate) drives: Drives,

    /// Say in detail what is done
    #[arg(short, long, help_heading = "Messages")]
    verbose: bool,

    /// Print each call to standard error
    #[arg(short = 'x', help_heading = "Messages")]
    trace: bool,
}

impl WriteOptions {
    /// Opens the disks to write them, with nothing mounted.
    pub(crate) fn open(&self) -> Result<Guest> {
        let options = GuestOptions {
            drives: self.drives.clone(),
            verbose: self.verbose,
            trace: self.trace,
            ..GuestOptions::default()
        };
        options.refuse_snapshots()?;
        open(&options)
    }

    /// Says which call is made, if `-x` asks for it.
    pub(crate) fn trace(&self, call: std::fmt::Arguments<'_>) {
        if self.trace {
            report::trace(&call);
        }
    }
}

/// The `-m` of the tools that have it.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct MountOptions {
    /// Mount a device, on / unless a directory is given, in place of what inspection finds
    #[arg(
        short,
        long = "mount",
        value_name = "DEV[:DIR[:OPTIONS[:TYPE]]]",
        value_parser = crate::options::parse_mount,
        help_heading = "Disks"
    )]
    pub(crate) mounts: Vec<MountOption>,
}

fn open(options: &GuestOptions) -> Result<Guest> {
    let mut guest = options.guest()?;
    options.launch(&mut guest)?;
    // Also where nothing is mounted, what is encrypted is looked into.
    guest.open_encrypted()?;
    crate::open::report_warnings(&mut guest);
    Ok(guest)
}

/// What the tools' old form means by a word: a file, or else a libvirt domain.
fn old_drive(word: &OsStr) -> Drive {
    match word.to_str() {
        Some(domain) if !domain.contains('/') && !Path::new(domain).exists() => {
            Drive::Domain(domain.to_owned())
        }
        _ => Drive::image(word.to_owned()),
    }
}

/// Says which call is made, if `-x` asks for it.
pub(crate) fn trace(options: &ToolOptions, call: std::fmt::Arguments<'_>) {
    if options.trace {
        report::trace(&call);
    }
}

/// Prints the whole output of a tool, with control characters of the guest made visible on a
/// terminal.
pub(crate) fn print(text: &[u8]) -> Result<()> {
    let mut out = Output::stdout();
    out.write_text(text).and_then(|()| out.flush()).map_err(|e| Error::output(&e))
}
