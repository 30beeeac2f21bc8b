//! `guestmount` and `guestunmount`: the sub-commands `mount` and `unmount` under their old names.

use std::process::ExitCode;

use clap::Parser;

use super::Tool;
use crate::commands::mount::Mount;
use crate::commands::unmount::Unmount;
use crate::error::Result;

/// Show a guest's tree on a directory, through FUSE
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Guestmount {
    #[command(flatten)]
    mount: Mount,
}

impl Tool for Guestmount {
    fn run(self) -> Result<ExitCode> {
        self.mount.run()
    }
}

/// Unmount a guest's tree
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Guestunmount {
    #[command(flatten)]
    unmount: Unmount,
}

impl Tool for Guestunmount {
    fn run(self) -> Result<ExitCode> {
        self.unmount.run()
    }
}
