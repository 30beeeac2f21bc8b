//! `virt-customize` and `virt-sysprep`, which are sub-commands too.

use std::process::ExitCode;

use crate::commands::customize;
use crate::commands::sysprep;
use crate::error::Result;
use crate::tools::Tool;

/// Customize a virtual machine without running any of its programs
#[derive(Debug, clap::Parser)]
#[command(
    version,
    after_help = "Example:\n  virt-customize -a disk.qcow2 --hostname web1 --root-password random"
)]
pub(super) struct VirtCustomize {
    #[command(flatten)]
    customize: customize::Customize,
}

impl Tool for VirtCustomize {
    fn run(self) -> Result<ExitCode> {
        self.customize.run()
    }
}

/// Reset a virtual machine so that copies of it can be made
#[derive(Debug, clap::Parser)]
#[command(version, after_help = "Example:\n  virt-sysprep -a disk.qcow2 --operations defaults,-ssh-userdir")]
pub(super) struct VirtSysprep {
    #[command(flatten)]
    sysprep: sysprep::Sysprep,
}

impl Tool for VirtSysprep {
    fn run(self) -> Result<ExitCode> {
        self.sysprep.run()
    }
}
