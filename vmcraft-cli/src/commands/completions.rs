//! `vmcraft completions SHELL`

use std::io::{self, Write};
use std::process::ExitCode;

use crate::error::{Error, Result};

/// Which shell's completion is printed.
#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

impl Completions {
    /// Prints it.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut crate::command(), "vmcraft", &mut script);
        let mut out = io::stdout();
        out.write_all(&script).and_then(|()| out.flush()).map_err(|e| Error::output(&e))?;
        Ok(ExitCode::SUCCESS)
    }
}
