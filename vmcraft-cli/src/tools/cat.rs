//! `virt-cat`: files of the guest on standard output, one after another.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use vmcraft::DeviceOrPath;
use vmcraft::value::FileOut;

use crate::error::{Error, Result};
use crate::output::{Guarded, Output};
use crate::tools::Tool;
use crate::tools::common::{MountOptions, ToolOptions, trace};

/// Display files of a virtual machine
#[derive(Debug, clap::Parser)]
#[command(version, after_help = "Example:\n  virt-cat -a disk.qcow2 /etc/fstab /etc/hostname")]
pub(super) struct Cat {
    #[command(flatten)]
    options: ToolOptions,

    #[command(flatten)]
    mounts: MountOptions,

    /// The files, by their absolute paths in the guest
    #[arg(value_name = "FILE", required = true)]
    files: Vec<OsString>,
}

impl Tool for Cat {
    fn run(mut self) -> Result<ExitCode> {
        self.options.adopt_old_form(&mut self.files, 1)?;
        let mut guest = self.options.open_mounted(&self.mounts.mounts)?;
        guest.set_output(Box::new(Guarded(Output::stdout())));
        let mut code = ExitCode::SUCCESS;
        for file in &self.files {
            trace(&self.options, format_args!("download {file:?} \"-\""));
            match guest.download(DeviceOrPath::new(file.as_bytes()), &FileOut::Output) {
                Ok(()) => {}
                Err(error) => match Error::call("download", error) {
                    error @ (Error::BrokenPipe | Error::Interrupted) => return Err(error),
                    // The real tool goes on with the next file, and fails at the end.
                    error => {
                        crate::report::error(None, &error);
                        code = ExitCode::FAILURE;
                    }
                },
            }
        }
        Ok(code)
    }
}
