//! The sub-commands: what is not a command of the shell.

mod completions;
pub(crate) mod customize;
mod disk;
mod filesystems;
mod inspect;
pub(crate) mod mount;
pub(crate) mod sysprep;
mod undo;
pub(crate) mod unmount;

use std::process::ExitCode;

use crate::error::Result;

/// A sub-command and its options.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Subcommand {
    /// Show help: the commands, or the help of one
    Help(crate::help::Help),
    /// Show which operating systems are on disks, and what they are
    Inspect(inspect::Inspect),
    /// Show disks, partitions and volumes as a tree, with what they hold
    Filesystems(Box<filesystems::Filesystems>),
    /// Show a guest's tree on a directory, through FUSE
    Mount(Box<mount::Mount>),
    /// Unmount a guest's tree
    Unmount(unmount::Unmount),
    /// Set up a guest without running any of its programs
    Customize(Box<customize::Customize>),
    /// Reset a guest so that copies of it can be made
    Sysprep(Box<sysprep::Sysprep>),
    /// Put back what disks held before a session, from what --undo kept
    Undo(undo::Undo),
    /// Look at disk images from outside
    Disk(disk::Disk),
    /// Print the completion of this command line for a shell
    Completions(completions::Completions),
}

impl Subcommand {
    /// Runs it.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        match self {
            Self::Help(help) => help.run(),
            Self::Inspect(inspect) => inspect.run(),
            Self::Filesystems(filesystems) => filesystems.run(),
            Self::Mount(mount) => mount.run(),
            Self::Unmount(unmount) => unmount.run(),
            Self::Customize(customize) => customize.run(),
            Self::Sysprep(sysprep) => sysprep.run(),
            Self::Undo(undo) => undo.run(),
            Self::Disk(disk) => disk.run(),
            Self::Completions(completions) => completions.run(),
        }
    }
}
