//! All that inspection found, for people and programs.

use bstr::BString;
use serde::Serialize;

use super::{Application2, Inspection, OperatingSystem, text};
use crate::Result;

/// What a report is to hold beyond what inspection reads in any case.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReportOptions {
    /// List the applications, instead of counting them.
    pub applications: bool,
    /// Read the icon.
    pub icon: bool,
}

/// The disks and the operating systems on them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// In the order that the drives were added.
    pub disks: Vec<DiskReport>,
    /// In the order of their root devices.
    pub operating_systems: Vec<SystemReport>,
    /// What is on the disks, belongs to none of these systems, and cannot be read: an operating
    /// system may be in there.
    pub unread: Vec<FileSystemReport>,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiskReport {
    /// Its device, `/dev/sda`.
    pub device: String,
    /// The image, as it was added.
    pub image: String,
    /// Its size as the guest sees it.
    pub size_bytes: u64,
    /// `gpt`, `mbr`, or `None` for a disk without a partition table.
    pub partition_table: Option<String>,
}

/// An operating system with what is on its file systems.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SystemReport {
    /// The system itself.
    #[serde(flatten)]
    pub system: OperatingSystem,
    /// Its file systems and swap space, in the order of fstab.
    pub filesystems: Vec<FileSystemReport>,
    /// How many applications are installed; `None` if their database cannot be read.
    pub application_count: Option<usize>,
    /// The applications, if they were asked for and can be read.
    pub applications: Option<Vec<ApplicationReport>>,
    /// Why the database of applications cannot be read.
    pub applications_error: Option<String>,
    /// A PNG, if it was asked for and there is one.
    #[serde(skip)]
    pub icon: Vec<u8>,
}

/// A file system of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileSystemReport {
    /// Its device.
    pub device: String,
    /// Its type as `blkid` names it; `None` if it is not known.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Its label.
    pub label: Option<String>,
    /// Its UUID.
    pub uuid: Option<String>,
    /// The size of the device.
    pub size_bytes: Option<u64>,
    /// How much of it is in use, if its file system can be read.
    pub used_bytes: Option<u64>,
}

/// An application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApplicationReport {
    /// The name of the package.
    pub name: String,
    /// The epoch of its version, 0 if it has none.
    pub epoch: i32,
    /// The version.
    pub version: String,
    /// The distribution's release of the version.
    pub release: Option<String>,
    /// The architecture.
    pub arch: Option<String>,
    /// Its home page.
    pub url: Option<String>,
    /// The package that it was built from.
    pub source_package: Option<String>,
    /// What it is, in a line.
    pub summary: Option<String>,
    /// What it is, at length.
    pub description: Option<String>,
}

impl From<Application2> for ApplicationReport {
    fn from(application: Application2) -> Self {
        let filled = |bytes: BString| (!bytes.is_empty()).then(|| text(&bytes));
        Self {
            name: text(&application.app2_name),
            epoch: application.app2_epoch,
            version: text(&application.app2_version),
            release: filled(application.app2_release),
            arch: filled(application.app2_arch),
            url: filled(application.app2_url),
            source_package: filled(application.app2_source_package),
            summary: filled(application.app2_summary),
            description: filled(application.app2_description),
        }
    }
}

impl Inspection {
    /// The report of what was found on these disks.
    pub(crate) fn report(&self, disks: Vec<DiskReport>, options: ReportOptions) -> Result<Report> {
        let systems = self.systems.iter().map(|system| self.system_report(system, options));
        let is_used = |device: &str| {
            self.systems.iter().any(|system| system.filesystems.iter().any(|used| used == device))
        };
        let unread = self.volumes.unread().filter(|volume| !is_used(&volume.device));
        Ok(Report {
            disks,
            operating_systems: systems.collect::<Result<_>>()?,
            unread: unread.map(|volume| self.filesystem_report(&volume.device)).collect(),
        })
    }

    fn system_report(&self, system: &OperatingSystem, options: ReportOptions) -> Result<SystemReport> {
        let mut report = SystemReport {
            filesystems: system.filesystems.iter().map(|device| self.filesystem_report(device)).collect(),
            system: system.clone(),
            application_count: None,
            applications: None,
            applications_error: None,
            icon: Vec::new(),
        };
        let listed = if options.applications {
            self.applications(system).map(|applications| {
                report.application_count = Some(applications.len());
                report.applications = Some(applications.into_iter().map(ApplicationReport::from).collect());
            })
        } else {
            self.count_applications(system).map(|count| report.application_count = count)
        };
        // A database that cannot be read takes nothing away from the rest.
        if let Err(e) = listed {
            report.applications_error = Some(e.to_string());
        }
        if options.icon {
            report.icon = self.icon(system, false, false)?;
        }
        Ok(report)
    }

    fn filesystem_report(&self, device: &str) -> FileSystemReport {
        let on = device.strip_prefix("btrfsvol:").and_then(|rest| {
            let end = rest.match_indices('/').nth(2).map_or(rest.len(), |(at, _)| at);
            rest.get(..end)
        });
        let volume = self.volumes.get(on.unwrap_or(device));
        let statfs = volume.and_then(|volume| volume.filesystem.as_ref()?.statfs().ok());
        let filled = |text: String| (!text.is_empty()).then_some(text);
        FileSystemReport {
            device: device.to_owned(),
            kind: volume.map(|volume| volume.kind.clone()).filter(|kind| kind != "unknown"),
            label: volume.and_then(|volume| filled(text(&volume.label))),
            uuid: volume.and_then(|volume| filled(volume.uuid.clone())),
            size_bytes: volume.map(|volume| volume.len_bytes),
            used_bytes: statfs.map(|statfs| {
                statfs.blocks.saturating_sub(statfs.blocks_free).saturating_mul(statfs.block_size.into())
            }),
        }
    }
}
