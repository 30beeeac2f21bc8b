//! `vmcraft undo FILE`.

use std::path::PathBuf;
use std::process::ExitCode;

use vmcraft::directory_gate;

use crate::error::Result;
use crate::{open, report};

/// Which undo file is put back.
#[derive(Debug, clap::Args)]
pub(crate) struct Undo {
    /// The file that a session kept with --undo
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,

    /// Let images name backing and data files below this directory (repeatable)
    #[arg(long, value_name = "DIR")]
    allow_backing: Vec<PathBuf>,
}

impl Undo {
    /// Puts the old content back, in all images or in none. The undo file stays.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let gate = directory_gate(self.allow_backing.clone());
        for image in vmcraft::undo(&self.file, gate, open::state_directory(true))? {
            report::note(&format_args!("{image}: as it was before the session"));
        }
        Ok(ExitCode::SUCCESS)
    }
}
