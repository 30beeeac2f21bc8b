//! `vmcraft inspect DISK`: what the disks hold, for people and for programs.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use vmcraft::inspect::{Report, ReportOptions};

use crate::error::{Error, Result, message};
use crate::open::report_warnings;
use crate::options::{Drive, Drives, GuestOptions};
use crate::report;

/// Which disks are inspected, and how the result is printed.
#[derive(Debug, clap::Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    drives: Drives,

    /// Let images name backing and data files below this directory (repeatable)
    #[arg(long, value_name = "DIR", help_heading = "Disks")]
    allow_backing: Vec<PathBuf>,

    /// Disks of the guest in their order, after those of -a
    #[arg(value_name = "DISK")]
    disks: Vec<OsString>,

    /// List the installed applications, which are otherwise counted
    #[arg(long, overrides_with = "no_applications")]
    applications: bool,

    /// With --xml, leave the applications out
    #[arg(long, overrides_with = "applications")]
    no_applications: bool,

    /// With --xml, leave the icon out
    #[arg(long)]
    no_icon: bool,

    /// Print JSON
    #[arg(long, group = "form")]
    json: bool,

    /// Print YAML
    #[arg(long, group = "form")]
    yaml: bool,

    /// Print XML in the form of virt-inspector, with the applications
    #[arg(long, group = "form")]
    xml: bool,
}

impl Inspect {
    /// Inspects the disks and prints what is there.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let mut drives = self.drives.clone();
        drives.0.extend(self.disks.iter().cloned().map(Drive::image));
        if drives.0.is_empty() {
            return Err(message("no disk was given: vmcraft inspect DISK, or -a DISK"));
        }
        let options = GuestOptions {
            drives,
            allow_backing: self.allow_backing.clone(),
            ro: true,
            ..Default::default()
        };
        let mut guest = options.guest()?;
        options.launch(&mut guest)?;
        let report = guest.inspection_report(ReportOptions {
            applications: self.applications || (self.xml && !self.no_applications),
            icon: self.xml && !self.no_icon,
        })?;
        report_warnings(&mut guest);
        if self.xml {
            // The form has no place for it.
            for system in &report.operating_systems {
                if let Some(error) = &system.applications_error {
                    report::warning(&format!(
                        "{}: the applications are left out: {error}",
                        system.system.root
                    ));
                }
            }
        }
        let mut out = io::stdout();
        out.write_all(self.print(&report)?.as_bytes())
            .and_then(|()| out.flush())
            .map_err(|e| Error::output(&e))?;
        if report.operating_systems.is_empty() {
            return Err(message("no operating system was found on the disks"));
        }
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, report: &Report) -> Result<String> {
        let failed = |e: &dyn std::fmt::Display| message(format!("cannot print the report: {e}"));
        Ok(if self.json {
            serde_json::to_string_pretty(report).map_err(|e| failed(&e))? + "\n"
        } else if self.yaml {
            serde_saphyr::to_string(report).map_err(|e| failed(&e))?
        } else if self.xml {
            report.to_xml()
        } else {
            report.to_string()
        })
    }
}
