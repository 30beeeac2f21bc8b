//! `virt-copy-in`, `virt-copy-out`, `virt-tar-in` and `virt-tar-out`: commands of the shell with a guest mounted for them.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::error::{Result, message};
use crate::options::ShellOptions;
use crate::shell;
use crate::tools::Tool;

/// Copy files and directories into a virtual machine
///
/// It is the shell's copy-in with --rw -i, and takes the shell's options.
#[derive(Debug, clap::Parser)]
#[command(
    version,
    override_usage = "virt-copy-in [OPTIONS] -a IMAGE FILE|DIR... GUESTDIR",
    after_help = "Example:\n  virt-copy-in -a disk.qcow2 site.conf html /srv/www"
)]
pub(super) struct CopyIn {
    #[command(flatten)]
    shell: ShellOptions,
}

impl Tool for CopyIn {
    fn run(self) -> Result<ExitCode> {
        run_command("copy-in", self.shell, Access::Write)
    }
}

/// Copy files and directories out of a virtual machine
///
/// It is the shell's copy-out with --ro -i, and takes the shell's options.
#[derive(Debug, clap::Parser)]
#[command(
    version,
    override_usage = "virt-copy-out [OPTIONS] -a IMAGE PATH... DIR",
    after_help = "Example:\n  virt-copy-out -a disk.qcow2 /home /etc/fstab saved"
)]
pub(super) struct CopyOut {
    #[command(flatten)]
    shell: ShellOptions,
}

impl Tool for CopyOut {
    fn run(self) -> Result<ExitCode> {
        run_command("copy-out", self.shell, Access::Read)
    }
}

/// Unpack a tar archive into a directory of a virtual machine
///
/// It is the shell's tar-in with --rw -i, and takes the shell's options. The archive - is standard
/// input.
#[derive(Debug, clap::Parser)]
#[command(
    version,
    override_usage = "virt-tar-in [OPTIONS] -a IMAGE FILE|- DIR",
    after_help = "Example:\n  tar -c site | virt-tar-in -a disk.qcow2 - /srv"
)]
pub(super) struct TarIn {
    #[command(flatten)]
    shell: ShellOptions,
}

impl Tool for TarIn {
    fn run(self) -> Result<ExitCode> {
        run_command("tar-in", self.shell, Access::Write)
    }
}

/// Pack a directory of a virtual machine into a tar archive
///
/// It is the shell's tar-out with --ro -i, and takes the shell's options. The archive - is standard
/// output.
#[derive(Debug, clap::Parser)]
#[command(
    version,
    override_usage = "virt-tar-out [OPTIONS] -a IMAGE DIR FILE|-",
    after_help = "Example:\n  virt-tar-out -a disk.qcow2 /home - | zstd > home.tar.zst"
)]
pub(super) struct TarOut {
    #[command(flatten)]
    shell: ShellOptions,
}

impl Tool for TarOut {
    fn run(self) -> Result<ExitCode> {
        run_command("tar-out", self.shell, Access::Read)
    }
}

/// What a command does with the guest.
#[derive(PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// Runs a command of the shell on the words, with the guest mounted.
fn run_command(name: &'static str, mut options: ShellOptions, access: Access) -> Result<ExitCode> {
    if options.guest.drives.0.is_empty() && options.remote.is_none() {
        return Err(message("no disk was given: add -a IMAGE"));
    }
    options.guest.ro = access == Access::Read;
    options.guest.rw = access == Access::Write;
    if access == Access::Write {
        options.guest.refuse_snapshots()?;
    }
    options.guest.inspector = options.guest.mounts.is_empty();
    options.commands.insert(0, OsString::from(name));
    shell::run(&options)
}
