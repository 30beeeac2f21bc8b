//! `vmcraft sysprep`: resets a guest, so that copies of it can be made, under virt-sysprep's options.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::ExitCode;

use vmcraft::customize::sysprep::{self, OPERATIONS};

use super::customize::{Changing, Operations};
use crate::error::{Error, Result, message};
use crate::report;

/// Which guest is reset, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Sysprep {
    #[command(flatten)]
    changing: Changing,

    /// Show all operations; a star marks those that are done by default
    #[arg(long, help_heading = "Operations")]
    list_operations: bool,

    /// Do only these operations
    #[arg(long, value_name = "OPERATIONS", conflicts_with = "operations", help_heading = "Operations")]
    enable: Option<String>,

    /// Do these operations: names, defaults or all, each with a - before it to be left out (repeatable)
    #[arg(
        long,
        alias = "operation",
        value_name = "OPERATIONS",
        allow_hyphen_values = true,
        help_heading = "Operations"
    )]
    operations: Vec<String>,

    /// Users that user-account keeps (repeatable)
    #[arg(long, value_name = "USERS", value_delimiter = ',', help_heading = "Operations")]
    keep_user_accounts: Vec<String>,

    /// Users that user-account removes, in place of all (repeatable)
    #[arg(long, value_name = "USERS", value_delimiter = ',', help_heading = "Operations")]
    remove_user_accounts: Vec<String>,

    /// Refused: the guest's tree is not shown to programs for writing
    #[arg(long, value_name = "SCRIPT", hide = true)]
    script: Vec<String>,

    /// Taken for virt-sysprep's sake: it is of use with --script alone
    #[arg(long, value_name = "DIR", hide = true)]
    scriptdir: Option<String>,

    /// Refused: it is for those who write libguestfs's manual
    #[arg(long, hide = true)]
    dump_pod: bool,

    /// Refused, too
    #[arg(long, hide = true)]
    dump_pod_options: bool,

    /// Taken for virt-sysprep's sake: nothing that is mounted needs them
    #[arg(long, value_name = "OPTIONS", hide = true)]
    mount_options: Option<String>,

    #[command(flatten)]
    customize: Operations,
}

impl Sysprep {
    /// Resets the guest.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        if self.list_operations {
            return list();
        }
        if !self.script.is_empty() {
            return Err(message(
                "--script: not supported: a guest's tree is shown to programs of the host for reading only, and what is \
                 changed here is all or nothing; use --edit, --copy-in, --delete and the others, or --firstboot for a \
                 script that the guest runs, or run the script between virt-copy-out and virt-copy-in",
            ));
        }
        if self.dump_pod || self.dump_pod_options {
            return Err(message(
                "--dump-pod: not supported: it prints a part of libguestfs's manual; --list-operations and --help say \
                 what there is",
            ));
        }
        let mut operations = BTreeSet::new();
        let lists = self.enable.iter().chain(&self.operations);
        for list in lists {
            sysprep::select(&mut operations, list)?;
        }
        let is_chosen = self.enable.is_some() || !self.operations.is_empty();
        let sysprep = sysprep::Sysprep {
            operations: is_chosen.then_some(operations),
            customize: self.customize.parse()?,
            remove_users: self.remove_user_accounts.clone(),
            keep_users: self.keep_user_accounts.clone(),
        };
        let is_done = |name| sysprep.operations.as_ref().is_none_or(|chosen| chosen.contains(name));
        if !self.customize.is_empty() && !is_done("customize") {
            report::warning(&"the options that change the guest do nothing without the operation customize");
        }
        self.changing.run(|guest, options, say| guest.sysprep(&sysprep, options, say))
    }
}

/// Prints the operations, one a line.
fn list() -> Result<ExitCode> {
    let mut lines: Vec<_> = OPERATIONS
        .iter()
        .map(|operation| {
            let star = if operation.is_default { '*' } else { ' ' };
            format!("{} {star} {}\n", operation.name, operation.description)
        })
        .collect();
    lines.sort();
    let mut out = std::io::stdout();
    out.write_all(lines.concat().as_bytes()).and_then(|()| out.flush()).map_err(|e| Error::output(&e))?;
    Ok(ExitCode::SUCCESS)
}
