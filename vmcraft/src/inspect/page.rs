//! The report as a page for people.

use std::fmt::{self, Write};

use super::{Report, SystemReport};
/// The width of the names at the left.
const NAMES: usize = 16;

impl fmt::Display for Report {
    /// The page, with a newline at its end. Control characters that a guest put into its files are
    /// shown as escapes, so that they do nothing to the terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for system in &self.operating_systems {
            write_system(f, system)?;
            writeln!(f)?;
        }
        if self.operating_systems.is_empty() {
            writeln!(f, "No operating system was found.\n")?;
        }
        writeln!(f, "Disks")?;
        let rows = self.disks.iter().map(|disk| {
            let table = disk.partition_table.as_deref().unwrap_or("no partitions");
            [disk.device.clone(), human_size(disk.size_bytes), table.to_owned(), disk.image.clone()]
        });
        write_table(f, rows.collect())?;
        if self.unread.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nNot read by this version")?;
        let rows = self.unread.iter().map(|volume| {
            [
                volume.device.clone(),
                volume.kind.clone().unwrap_or_default(),
                volume.size_bytes.map(human_size).unwrap_or_default(),
                volume.label.clone().unwrap_or_default(),
                volume.uuid.clone().unwrap_or_default(),
            ]
        });
        write_table(f, rows.collect())
    }
}

fn write_system(f: &mut fmt::Formatter<'_>, report: &SystemReport) -> fmt::Result {
    let system = &report.system;
    let name = system.pretty_name.as_deref().or(system.distro.as_deref()).unwrap_or("Unknown Linux");
    writeln!(f, "{} on {}", printable(name), system.root)?;
    let mut field = |name: &str, value: Option<String>| match value {
        Some(value) if !value.is_empty() => writeln!(f, "  {name:NAMES$}{}", printable(&value)),
        _ => Ok(()),
    };
    field("Host name", system.hostname.clone())?;
    field("Distribution", distribution(report))?;
    field("Variant", system.variant.clone())?;
    field("Architecture", system.arch.clone())?;
    field("osinfo", system.osinfo.clone())?;
    field("Packages", packages(report))?;
    field("Init system", system.init.clone())?;
    field(
        "SELinux",
        system.selinux.as_ref().map(|selinux| match &selinux.policy {
            Some(policy) => format!("{} ({policy})", selinux.mode),
            None => selinux.mode.clone(),
        }),
    )?;
    field("Time zone", system.timezone.clone())?;
    field("Locale", system.locale.clone())?;
    field("Machine ID", system.machine_id.clone())?;
    let cloud_init = system.cloud_init.then_some("cloud-init");
    let agents: Vec<_> = system.agents.iter().map(String::as_str).chain(cloud_init).collect();
    field("Agents", Some(agents.join(", ")))?;
    field("Firmware", system.firmware.clone())?;
    field(
        "Boot loader",
        system.boot_loader.as_ref().map(|loader| match &loader.config {
            Some(config) => format!("{} ({config})", loader.kind),
            None => loader.kind.clone(),
        }),
    )?;

    write_section(f, "Kernels", {
        let rows = system.kernels.iter().map(|kernel| {
            let initramfs = kernel.initramfs.as_deref().map(|path| path.rsplit('/').next().unwrap_or(path));
            [
                kernel.version.clone(),
                kernel.path.clone().unwrap_or_else(|| "modules only".into()),
                initramfs.unwrap_or("no initramfs").to_owned(),
                if kernel.default { "default".into() } else { String::new() },
            ]
        });
        rows.collect()
    })?;
    write_section(f, "File systems", {
        let rows = report.filesystems.iter().map(|filesystem| {
            let mounted = system.mountpoints.iter().filter(|mount| mount.device == filesystem.device);
            let places: Vec<_> = mounted.map(|mount| super::text(&mount.mountpoint)).collect();
            let size = |bytes: Option<u64>| bytes.map(human_size).unwrap_or_default();
            [
                if places.is_empty() { "-".into() } else { places.join(", ") },
                filesystem.device.clone(),
                filesystem.kind.clone().unwrap_or_else(|| "?".into()),
                size(filesystem.size_bytes),
                match filesystem.used_bytes {
                    Some(used) => format!("{} used", human_size(used)),
                    None => String::new(),
                },
                filesystem.label.clone().unwrap_or_default(),
                filesystem.uuid.clone().unwrap_or_default(),
            ]
        });
        rows.collect()
    })?;
    if let Some(applications) = &report.applications {
        write_section(f, "Applications", {
            let rows = applications.iter().map(|application| {
                let epoch =
                    if application.epoch == 0 { String::new() } else { format!("{}:", application.epoch) };
                let release =
                    application.release.as_ref().map(|release| format!("-{release}")).unwrap_or_default();
                [
                    application.name.clone(),
                    format!("{epoch}{}{release}", application.version),
                    application.arch.clone().unwrap_or_default(),
                    application.summary.clone().unwrap_or_default(),
                ]
            });
            rows.collect()
        })?;
    }
    write_section(f, "Notes", system.notes.iter().map(|note| [note.clone()]).collect())
}

/// `debian 12.5 (bookworm)`.
fn distribution(report: &SystemReport) -> Option<String> {
    let system = &report.system;
    let mut text = system.distro.clone().or_else(|| system.id.clone())?;
    match (system.major_version, system.minor_version) {
        (0, 0) => {}
        // Its versions are year and month.
        (major, minor) if text == "ubuntu" => text.push_str(&format!(" {major}.{minor:02}")),
        (major, 0) => text.push_str(&format!(" {major}")),
        (major, minor) => text.push_str(&format!(" {major}.{minor}")),
    }
    if let Some(codename) = &system.codename {
        text.push_str(&format!(" ({codename})"));
    }
    Some(text)
}

/// `deb, managed by apt, 147 installed`.
fn packages(report: &SystemReport) -> Option<String> {
    let mut text = report.system.package_format.clone()?;
    if let Some(management) = &report.system.package_management {
        text.push_str(&format!(", managed by {management}"));
    }
    match (report.application_count, &report.applications_error) {
        (Some(count), _) => text.push_str(&format!(", {count} installed")),
        (None, Some(error)) => text.push_str(&format!(" ({error})")),
        (None, None) => {}
    }
    Some(text)
}

fn write_section<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    rows: Vec<[String; N]>,
) -> fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(f, "\n  {name}")?;
    let indented = rows.into_iter().map(|row| row.map(|cell| cell.replace('\n', " ")));
    let mut table = String::new();
    write_table(&mut table, indented.collect())?;
    table.lines().try_for_each(|line| writeln!(f, "  {line}"))
}

/// Rows with their columns below each other.
fn write_table<const N: usize>(f: &mut impl Write, rows: Vec<[String; N]>) -> fmt::Result {
    let rows: Vec<[String; N]> = rows.into_iter().map(|row| row.map(|cell| printable(&cell))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..N).map(width).collect();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths).filter(|(_, width)| **width > 0) {
            line.push_str("  ");
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Text with control characters as escapes.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { printable.extend(c.escape_default()) } else { printable.push(c) }
    }
    printable
}

/// A size in the largest unit of which it has one: `1.5 GiB`.
fn human_size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let Some(unit) = (1..=units.len()).rev().find(|unit| bytes >> (10 * unit) > 0) else {
        return format!("{bytes} bytes");
    };
    let shift = 10 * unit;
    let whole = bytes >> shift;
    let tenth = (u128::from(bytes - (whole << shift)) * 10) >> shift;
    format!("{whole}.{tenth} {}", units[unit - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // Each unit begins where the one before it ends.
    fn sizes_have_a_unit_and_one_decimal() {
        for (bytes, expected) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (10 << 30, "10.0 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(human_size(bytes), expected);
        }
    }

    #[test] // A host name must not move the cursor of whoever looks at it.
    fn control_characters_are_shown_as_escapes() {
        assert_eq!(printable("a\u{1b}[2Jb\u{9b}ü"), "a\\u{1b}[2Jb\\u{9b}ü");
    }
}
