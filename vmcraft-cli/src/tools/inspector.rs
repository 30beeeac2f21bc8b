//! `virt-inspector`: what the disks hold, as XML.

use std::ffi::OsString;
use std::process::ExitCode;

use vmcraft::inspect::ReportOptions;

use crate::error::{Result, message};
use crate::report;
use crate::tools::Tool;
use crate::tools::common::{ToolOptions, print, trace};

/// Display information about a virtual machine as XML
#[derive(Debug, clap::Parser)]
#[command(version, after_help = "Example:\n  virt-inspector -a disk.qcow2 --no-icon")]
pub(super) struct Inspector {
    #[command(flatten)]
    options: ToolOptions,

    /// Disks of the guest, where no option names any
    #[arg(value_name = "DISK", hide = true)]
    disks: Vec<OsString>,

    /// Leave the installed applications out
    #[arg(long)]
    no_applications: bool,

    /// Leave the icon out
    #[arg(long)]
    no_icon: bool,

    /// Refused: use xmllint --xpath QUERY on the XML instead
    #[arg(long, value_name = "QUERY")]
    xpath: Option<String>,
}

impl Tool for Inspector {
    fn run(mut self) -> Result<ExitCode> {
        if let Some(query) = &self.xpath {
            return Err(message(format!(
                "--xpath: no XPath queries are built in; run: xmllint --xpath {} - (package libxml2-utils)",
                shlex::try_quote(query).unwrap_or_else(|_| "QUERY".into()),
            )));
        }
        self.options.adopt_old_form(&mut self.disks, 0)?;
        let mut guest = self.options.open()?;
        trace(&self.options, format_args!("inspect_os"));
        let inspected = guest
            .inspection_report(ReportOptions { applications: !self.no_applications, icon: !self.no_icon })?;
        crate::open::report_warnings(&mut guest);
        for system in &inspected.operating_systems {
            if let Some(error) = &system.applications_error {
                report::warning(&format!("{}: the applications are left out: {error}", system.system.root));
            }
        }
        if inspected.operating_systems.is_empty() {
            return Err(message(
                "no operating system was found on the disks: virt-filesystems -a IMAGE --all --long shows what is there",
            ));
        }
        print(inspected.to_xml().as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }
}
