//! `vmcraft unmount DIR`, which is also `guestunmount`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use vmcraft_fuse::unmount::{self, unmount};

use crate::error::{Result, message};
use crate::report;

/// What is unmounted, and how hard it is tried.
#[derive(Debug, clap::Args)]
pub(crate) struct Unmount {
    /// The directory on which a guest's tree is shown
    #[arg(value_name = "DIR")]
    dir: PathBuf,

    /// Wait until this open pipe is closed, and then unmount
    #[arg(long, value_name = "FD")]
    fd: Option<u32>,

    /// Say nothing when it fails
    #[arg(short, long)]
    quiet: bool,

    /// If the tree is in use, try again N times, after 1, 2, 4 … seconds
    #[arg(long, value_name = "N", default_value_t = 5, conflicts_with = "no_retry")]
    retry: u32,

    /// Try once
    #[arg(long)]
    no_retry: bool,

    /// Taken for guestunmount's sake: there is no more to say
    #[arg(short, long, hide = true)]
    verbose: bool,
}

impl Unmount {
    /// Unmounts the tree. Ends with 0 if it is gone, and its process too; 2 if it cannot be unmounted,
    /// 3 if nothing is mounted there, 1 if something else is wrong.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        if let Some(fd) = self.fd {
            wait_closed(fd).map_err(|e| message(format!("--fd {fd}: {e}")))?;
        }
        let retries = if self.no_retry { 0 } else { self.retry };
        let Err(error) = unmount(&self.dir, retries) else { return Ok(ExitCode::SUCCESS) };
        if !self.quiet {
            report::error(None, &error);
        }
        Ok(ExitCode::from(match error {
            unmount::Error::Refused { .. } => 2,
            unmount::Error::NotMounted(_) => 3,
            _ => 1,
        }))
    }
}

/// Waits until nobody has the other end of the pipe open.
fn wait_closed(fd: u32) -> io::Result<()> {
    let mut pipe = File::open(Path::new("/proc/self/fd").join(fd.to_string()))?;
    let mut ignored = [0; 512];
    while pipe.read(&mut ignored)? > 0 {}
    Ok(())
}
