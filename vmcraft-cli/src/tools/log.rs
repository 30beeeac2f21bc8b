//! `virt-log`: the guest's logs on standard output.

use std::ffi::OsString;
use std::process::ExitCode;

use vmcraft::value::FileOut;
use vmcraft::{DeviceOrPath, GuestPath};

use crate::error::{Error, Result, message};
use crate::output::{Guarded, Output};
use crate::report;
use crate::tools::Tool;
use crate::tools::common::{ToolOptions, trace};

/// Where systemd keeps its journal.
const JOURNAL: &str = "/var/log/journal";

/// The system's own log, as the distributions name it.
const TEXT_LOGS: &[&str] = &["/var/log/syslog", "/var/log/messages"];

/// Display the log files of a virtual machine
///
/// It prints the system's log in text, /var/log/syslog or /var/log/messages. This version does not
/// read systemd's journal, and says how to.
#[derive(Debug, clap::Parser)]
#[command(version, after_help = "Example:\n  virt-log -a disk.qcow2 | grep sshd")]
pub(super) struct Log {
    #[command(flatten)]
    options: ToolOptions,

    /// Disks of the guest, where no option names any
    #[arg(value_name = "DISK", hide = true)]
    disks: Vec<OsString>,
}

impl Tool for Log {
    fn run(mut self) -> Result<ExitCode> {
        self.options.adopt_old_form(&mut self.disks, 0)?;
        let mut guest = self.options.open_mounted(&[])?;
        let has_journal =
            guest.is_dir(GuestPath::new(JOURNAL), Some(true)).map_err(|e| Error::call("is-dir", e))?;
        let mut logs = Vec::new();
        for log in TEXT_LOGS {
            if guest.is_file(GuestPath::new(log), Some(true)).map_err(|e| Error::call("is-file", e))? {
                logs.push(*log);
            }
        }
        let journal = format!(
            "{JOURNAL}: this version does not read systemd's journal: take it out with virt-copy-out -a IMAGE \
             {JOURNAL} . and read it with journalctl -D journal"
        );
        match (logs.is_empty(), has_journal) {
            (true, true) => return Err(message(journal)),
            (true, false) => {
                return Err(message(format!(
                    "the guest has no log that is known: there is no {} and no {JOURNAL}",
                    TEXT_LOGS.join(", no ")
                )));
            }
            (false, true) => report::warning(&journal),
            (false, false) => {}
        }
        guest.set_output(Box::new(Guarded(Output::stdout())));
        for log in logs {
            trace(&self.options, format_args!("download {log:?} \"-\""));
            guest
                .download(DeviceOrPath::new(log), &FileOut::Output)
                .map_err(|e| Error::call("download", e))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
