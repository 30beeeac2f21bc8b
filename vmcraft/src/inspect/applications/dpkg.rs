//! dpkg's list of packages: `/var/lib/dpkg/status`, and `status.d` of images without dpkg.
//!
//! Spec: deb-control(5) and dpkg(1): paragraphs of `Field: value`, apart by empty lines; a line that
//! begins with a blank goes on with the field before it.

use bstr::ByteSlice;

use super::{Application2, MAX_APPLICATIONS, for_each_line, split_version};
use crate::Result;
use crate::inspect::tree::Tree;

const STATUS: &[u8] = b"/var/lib/dpkg/status";
const STATUS_DIR: &[u8] = b"/var/lib/dpkg/status.d";

/// The installed packages in the order of the file.
pub(super) fn list(tree: &Tree) -> Result<Vec<Application2>> {
    let mut packages = Vec::new();
    let mut paragraph = Paragraph::default();
    let mut keep = |paragraph: Paragraph| {
        if packages.len() < MAX_APPLICATIONS {
            packages.extend(paragraph.finish());
        }
    };
    for_each_line(tree, STATUS, |line| {
        if line.is_empty() {
            keep(std::mem::take(&mut paragraph));
        } else {
            paragraph.take_line(line);
        }
    })?;
    keep(std::mem::take(&mut paragraph));
    for path in status_files(tree) {
        let mut paragraph = Paragraph { is_installed: true, ..Paragraph::default() };
        for_each_line(tree, &path, |line| paragraph.take_line(line))?;
        keep(paragraph);
    }
    Ok(packages)
}

/// How many packages are installed.
pub(super) fn count(tree: &Tree) -> Result<usize> {
    let mut count = 0;
    for_each_line(tree, STATUS, |line| {
        count += usize::from(line.strip_prefix(b"Status:").is_some_and(is_installed));
    })?;
    Ok(count + status_files(tree).len())
}

/// The files in `status.d`, each of which is the paragraph of an installed package.
fn status_files(tree: &Tree) -> Vec<Vec<u8>> {
    let names = tree.names(STATUS_DIR).into_iter().filter(|name| !name.ends_with(b".md5sums"));
    names.map(|name| [STATUS_DIR, b"/", &name].concat()).collect()
}

/// Whether the value of `Status` says that the package's files are there and set up: its third
/// word. Triggers that are due do not change that.
fn is_installed(value: &[u8]) -> bool {
    let state = value.fields().nth(2);
    matches!(state, Some(b"installed" | b"triggers-pending" | b"triggers-awaited"))
}

/// A package as far as it was read.
#[derive(Default)]
struct Paragraph {
    package: Application2,
    version: Vec<u8>,
    is_installed: bool,
    in_description: bool,
}

impl Paragraph {
    fn take_line(&mut self, line: &[u8]) {
        if let Some(text) = line.strip_prefix(b" ") {
            if self.in_description {
                let description = &mut self.package.app2_description;
                if !description.is_empty() {
                    description.push(b'\n');
                }
                description.extend_from_slice(text);
            }
            return;
        }
        self.in_description = false;
        let Some((field, text)) = line.split_once_str(":") else { return };
        let value = text.trim();
        match field {
            b"Package" => self.package.app2_name = value.into(),
            b"Status" => self.is_installed = is_installed(value),
            b"Version" => self.version = value.into(),
            b"Architecture" => self.package.app2_arch = value.into(),
            b"Homepage" => self.package.app2_url = value.into(),
            // The name alone, without the version that may follow in parentheses.
            b"Source" => self.package.app2_source_package = value.fields().next().unwrap_or_default().into(),
            b"Description" => {
                // As it stands there: libguestfs keeps blanks at its end.
                self.package.app2_summary = text.trim_start().into();
                self.in_description = true;
            }
            _ => {}
        }
    }

    fn finish(mut self) -> Option<Application2> {
        if !self.is_installed || self.package.app2_name.is_empty() || self.version.is_empty() {
            return None;
        }
        let (epoch, version, release) = split_version(&self.version)?;
        self.package.app2_epoch = epoch;
        self.package.app2_version = version.into();
        self.package.app2_release = release.into();
        Some(self.package)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::tree;
    use super::*;
    use crate::testing::MemoryFs;

    const FILE: &str = "Package: adduser\nStatus: install ok installed\nArchitecture: all\nVersion: 3.134\n\
        Description: add and remove users\n First line.\n .\n  - item\n\n\
        Package: gone\nStatus: deinstall ok config-files\nVersion: 1-1\n\n\
        Package: broken\nStatus: install ok half-installed\nVersion: 1-1\n\n\
        Package: not-there\nStatus: unknown ok not-installed\n\n\
        Package: bash\nStatus: install ok triggers-pending\nArchitecture: amd64\nSource: bash (5.2-1)\n\
        Version: 1:5.2.15-2+b7\nConffiles:\n /etc/bash.bashrc 89269e1298235f1b12b4c16e4065ad0d\n\
        Homepage: http://tiswww.case.edu/php/chet/bash/bashtop.html\nDescription: GNU Bourne Again SHell\n";

    #[test] // Only what is there counts, and the last paragraph has no empty line after it.
    fn installed_packages_are_listed() {
        let tree = tree(MemoryFs::new().file("/var/lib/dpkg/status", FILE));
        let packages = list(&tree).unwrap();
        assert_eq!(packages.len(), 2);
        assert_eq!(count(&tree).unwrap(), 2);
        assert_eq!(packages[0].app2_description, "First line.\n.\n - item");
        assert_eq!(
            (packages[0].app2_version.as_slice(), packages[0].app2_release.as_slice()),
            (&b"3.134"[..], &b""[..])
        );
        let bash = &packages[1];
        assert_eq!(
            (bash.app2_epoch, bash.app2_version.as_slice(), bash.app2_release.as_slice()),
            (1, &b"5.2.15"[..], &b"2+b7"[..])
        );
        assert_eq!(bash.app2_source_package, "bash");
        assert_eq!(bash.app2_description, "");
    }

    #[test] // Images without dpkg have a file for each package, without a status.
    fn distroless_packages_are_listed() {
        let tree = tree(
            MemoryFs::new()
                .file(
                    "/var/lib/dpkg/status.d/base",
                    "Package: base-files\nVersion: 12.4\nArchitecture: amd64\n",
                )
                .file("/var/lib/dpkg/status.d/base.md5sums", "0 x\n"),
        );
        assert_eq!(list(&tree).unwrap()[0].app2_name, "base-files");
        assert_eq!(count(&tree).unwrap(), 1);
    }
}
