//! The report as virt-inspector writes it.
//!
//! Spec: virt-inspector(1) and its `virt-inspector.rng`; indentation and escapes are libxml2's.

use std::fmt::Write;

use base64::Engine;

use super::report::ApplicationReport;
use super::{Report, SystemReport, in_mount_order};

impl Report {
    /// The report in the form of virt-inspector's output.
    pub fn to_xml(&self) -> String {
        let mut xml = Xml(String::from("<?xml version=\"1.0\"?>\n"));
        let systems: Vec<_> = self.operating_systems.iter().collect();
        xml.parent(0, "operatingsystems", "", &systems, |xml, system| xml.system(system));
        xml.0
    }
}

struct Xml(String);

impl Xml {
    fn system(&mut self, report: &SystemReport) {
        let system = &report.system;
        let (major, minor) = (system.major_version.to_string(), system.minor_version.to_string());
        let fields = [
            ("root", Some(&system.root)),
            ("name", Some(&system.os_type)),
            ("arch", system.arch.as_ref()),
            ("distro", system.distro.as_ref()),
            ("product_name", system.product_name.as_ref()),
            ("major_version", Some(&major)),
            ("minor_version", Some(&minor)),
            ("package_format", system.package_format.as_ref()),
            ("package_management", system.package_management.as_ref()),
            ("hostname", system.hostname.as_ref()),
            ("osinfo", system.osinfo.as_ref()),
        ];
        self.line(1, "<operatingsystem>");
        for (name, value) in fields {
            if let Some(value) = value {
                self.field(2, name, value);
            }
        }
        let mut mountpoints = in_mount_order(&system.mountpoints);
        mountpoints.sort_by_key(|mount| (mount.mountpoint.len(), mount.mountpoint.clone()));
        self.parent(2, "mountpoints", "", &mountpoints, |xml, mount| {
            let device = escape(&mount.device);
            let place = escape(&super::text(&mount.mountpoint));
            xml.line(3, &format!("<mountpoint dev=\"{device}\">{place}</mountpoint>"));
        });
        let mut filesystems: Vec<_> = report.filesystems.iter().collect();
        filesystems.sort_by(|a, b| a.device.cmp(&b.device));
        self.parent(2, "filesystems", "", &filesystems, |xml, filesystem| {
            let device = format!(" dev=\"{}\"", escape(&filesystem.device));
            let fields =
                [("type", &filesystem.kind), ("label", &filesystem.label), ("uuid", &filesystem.uuid)];
            let given: Vec<_> =
                fields.iter().filter_map(|(name, value)| Some((*name, value.as_ref()?))).collect();
            xml.parent(3, "filesystem", &device, &given, |xml, (name, value)| xml.field(4, name, value));
        });
        if let Some(applications) = &report.applications {
            let applications: Vec<_> = applications.iter().collect();
            self.parent(2, "applications", "", &applications, |xml, application| {
                xml.application(application)
            });
        }
        if !report.icon.is_empty() {
            self.icon(&report.icon);
        }
        self.line(1, "</operatingsystem>");
    }

    fn application(&mut self, application: &ApplicationReport) {
        let epoch = (application.epoch != 0).then(|| application.epoch.to_string());
        let fields = [
            ("name", Some(&application.name)),
            ("epoch", epoch.as_ref()),
            ("version", Some(&application.version)),
            ("release", application.release.as_ref()),
            ("arch", application.arch.as_ref()),
            ("url", application.url.as_ref()),
            ("source_package", application.source_package.as_ref()),
            ("summary", application.summary.as_ref()),
            ("description", application.description.as_ref()),
        ];
        let given: Vec<_> = fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        self.parent(3, "application", "", &given, |xml, (name, value)| xml.field(4, name, value));
    }

    /// The picture in base64, in lines of 72 characters with libxml2's line ends.
    fn icon(&mut self, picture: &[u8]) {
        let encoded = base64::engine::general_purpose::STANDARD.encode(picture);
        self.0.push_str("    <icon>");
        let mut rest = encoded.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(72));
            self.0.push_str(line);
            self.0.push_str(if after.is_empty() { "" } else { "\r\n" });
            rest = after;
        }
        self.0.push_str("</icon>\n");
    }

    /// An element with others inside; without any it is closed at once.
    fn parent<T: Copy>(
        &mut self,
        depth: usize,
        name: &str,
        attributes: &str,
        children: &[T],
        mut write: impl FnMut(&mut Self, T),
    ) {
        if children.is_empty() {
            return self.line(depth, &format!("<{name}{attributes}/>"));
        }
        self.line(depth, &format!("<{name}{attributes}>"));
        for child in children {
            write(self, *child);
        }
        self.line(depth, &format!("</{name}>"));
    }

    /// An element with text inside.
    fn field(&mut self, depth: usize, name: &str, value: &str) {
        self.line(depth, &format!("<{name}>{}</{name}>", escape(value)));
    }

    fn line(&mut self, depth: usize, line: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{:1$}{line}", "", depth * 2);
    }
}

/// Text with its markup escaped; characters that XML cannot have are replaced.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\r' => escaped.push_str("&#13;"),
            '\n' | '\t' => escaped.push(c),
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
