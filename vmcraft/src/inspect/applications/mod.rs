//! The packages that are installed in a guest, from its package manager's own database.

mod apk;
mod dpkg;
mod pacman;

use std::io::{BufRead, BufReader, ErrorKind};

use bstr::{BString, ByteSlice};

use super::tree::{FileReader, Tree};
use crate::value::record;
use crate::{Error, Result};

/// How many packages are listed; a distribution has fewer.
const MAX_APPLICATIONS: usize = 200_000;

/// The longest line of a database that is kept whole.
const MAX_LINE: u64 = 1 << 20;

/// The longest database that is read.
const MAX_DATABASE: u64 = 512 << 20;

record! {
    /// An installed application: libguestfs's `application2`.
    #[derive(Default)]
    pub struct Application2 as "application2" {
        /// The name of the package.
        pub app2_name: BString,
        /// Its name for people; empty here.
        pub app2_display_name: BString,
        /// The epoch of its version, 0 if it has none.
        pub app2_epoch: i32,
        /// The version.
        pub app2_version: BString,
        /// The distribution's release of the version, empty if it has none.
        pub app2_release: BString,
        /// The architecture.
        pub app2_arch: BString,
        /// Where it is installed; of Windows programs only.
        pub app2_install_path: BString,
        /// The same as a path of the guest.
        pub app2_trans_path: BString,
        /// Who published it; of Windows programs only.
        pub app2_publisher: BString,
        /// Its home page.
        pub app2_url: BString,
        /// The package that it was built from.
        pub app2_source_package: BString,
        /// What it is, in a line.
        pub app2_summary: BString,
        /// What it is, at length.
        pub app2_description: BString,
        /// Without use.
        pub app2_spare1: BString,
        /// Without use.
        pub app2_spare2: BString,
        /// Without use.
        pub app2_spare3: BString,
        /// Without use.
        pub app2_spare4: BString,
    }
}

record! {
    /// An installed application: libguestfs's older `application`.
    pub struct Application as "application" {
        /// The name of the package.
        pub app_name: BString,
        /// Its name for people; empty here.
        pub app_display_name: BString,
        /// The epoch of its version, 0 if it has none.
        pub app_epoch: i32,
        /// The version.
        pub app_version: BString,
        /// The distribution's release of the version, empty if it has none.
        pub app_release: BString,
        /// Where it is installed; of Windows programs only.
        pub app_install_path: BString,
        /// The same as a path of the guest.
        pub app_trans_path: BString,
        /// Who published it; of Windows programs only.
        pub app_publisher: BString,
        /// Its home page.
        pub app_url: BString,
        /// The package that it was built from.
        pub app_source_package: BString,
        /// What it is, in a line.
        pub app_summary: BString,
        /// What it is, at length.
        pub app_description: BString,
    }
}

impl From<Application2> for Application {
    fn from(new: Application2) -> Self {
        Self {
            app_name: new.app2_name,
            app_display_name: new.app2_display_name,
            app_epoch: new.app2_epoch,
            app_version: new.app2_version,
            app_release: new.app2_release,
            app_install_path: new.app2_install_path,
            app_trans_path: new.app2_trans_path,
            app_publisher: new.app2_publisher,
            app_url: new.app2_url,
            app_source_package: new.app2_source_package,
            app_summary: new.app2_summary,
            app_description: new.app2_description,
        }
    }
}

/// The applications of a guest whose packages have this format, sorted by name.
///
/// A format without a database that says anything, or none, gives an empty list.
pub(crate) fn list(tree: &Tree, package_format: Option<&str>) -> Result<Vec<Application2>> {
    let mut applications = match package_format {
        Some("deb") => dpkg::list(tree)?,
        Some("apk") => apk::list(tree)?,
        Some("pacman") => pacman::list(tree)?,
        Some("rpm") => return Err(rpm_refused()),
        _ => Vec::new(),
    };
    applications.sort_by(|a, b| a.app2_name.cmp(&b.app2_name));
    Ok(applications)
}

/// How many applications [`list`] would give, which is found without keeping them; `None` if the
/// format has no database that says it.
pub(crate) fn count(tree: &Tree, package_format: Option<&str>) -> Result<Option<usize>> {
    match package_format {
        Some("deb") => dpkg::count(tree).map(Some),
        Some("apk") => apk::count(tree).map(Some),
        Some("pacman") => pacman::count(tree).map(Some),
        Some("rpm") => Err(rpm_refused()),
        _ => Ok(None),
    }
}

fn rpm_refused() -> Error {
    Error::Unsupported("the rpm database of the guest".into())
}

/// Takes a version apart: `EPOCH:VERSION-RELEASE`, split at the first colon and the first hyphen.
/// `None` if the epoch is no number.
fn split_version(text: &[u8]) -> Option<(i32, &[u8], &[u8])> {
    let (epoch, rest) = match text.split_once_str(":") {
        Some((epoch, rest)) => (epoch.to_str().ok()?.parse::<u16>().ok()?.into(), rest),
        None => (0, text),
    };
    let (version, release) = rest.split_once_str("-").unwrap_or((rest, b""));
    Some((epoch, version, release))
}

/// Calls `each` with the lines of a database, without their newlines. Absent, it has none.
///
/// The end of a line that is too long is dropped.
fn for_each_line(tree: &Tree, path: &[u8], mut each: impl FnMut(&[u8])) -> Result<()> {
    let Some(node) = tree.node(path) else { return Ok(()) };
    let metadata = node.metadata()?;
    if metadata.file_type != vmcraft_fs::FileType::Regular {
        return Ok(());
    }
    if metadata.size_bytes > MAX_DATABASE {
        return Err(Error::Unsupported(format!(
            "{}: a package database of {} bytes",
            node.path, metadata.size_bytes
        )));
    }
    let error = |source: std::io::Error| match source.downcast::<Error>() {
        Ok(error) => error,
        Err(source) => Error::Path { path: path.into(), component: None, source: source.into() },
    };
    let mut reader = BufReader::with_capacity(64 << 10, FileReader::new(node));
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut n = 0;
        let mut is_end = false;
        while !is_end {
            let chunk = match reader.fill_buf() {
                Ok(chunk) => chunk,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(error(e)),
            };
            let newline = memchr::memchr(b'\n', chunk);
            let taken = newline.map_or(chunk.len(), |at| at + 1);
            is_end = newline.is_some() || chunk.is_empty();
            if n < MAX_LINE {
                line.extend_from_slice(&chunk[..newline.unwrap_or(chunk.len())]);
            }
            n += taken as u64;
            reader.consume(taken);
        }
        if n == 0 {
            return Ok(());
        }
        each(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryFs;
    use crate::vfs::Vfs;
    use std::sync::Arc;

    pub(super) fn tree(fs: MemoryFs) -> Tree {
        Tree::new(Vfs::with_root("/dev/sda1", Arc::new(fs)))
    }

    #[test] // libguestfs splits at the first hyphen, where Debian's policy has the last.
    fn versions_split_as_in_libguestfs() {
        assert_eq!(split_version(b"1:2.3-4ubuntu5"), Some((1, &b"2.3"[..], &b"4ubuntu5"[..])));
        assert_eq!(split_version(b"2.3-4-5"), Some((0, &b"2.3"[..], &b"4-5"[..])));
        assert_eq!(split_version(b"20230311"), Some((0, &b"20230311"[..], &b""[..])));
        assert_eq!(split_version(b"x:1-2"), None);
        assert_eq!(split_version(b"-1:1-2"), None);
    }

    #[test] // A line without end must not take memory without end.
    fn long_lines_are_cut() {
        let mut content = vec![b'x'; 3 << 20];
        content.extend(b"\n\nshort");
        let mut lens = Vec::new();
        for_each_line(&tree(MemoryFs::new().file("/f", content)), b"/f", |line| lens.push(line.len()))
            .unwrap();
        assert_eq!(lens.len(), 3);
        assert!(lens[0] as u64 <= MAX_LINE + (64 << 10));
        assert_eq!(lens[1..], [0, 5]);
    }

    #[test] // The list of a guest that we cannot read yet must not look like an empty one.
    fn rpm_is_refused_by_name() {
        let error = list(&tree(MemoryFs::new()), Some("rpm")).unwrap_err();
        assert_eq!(error.to_string(), "not supported: the rpm database of the guest");
        assert_eq!(list(&tree(MemoryFs::new()), Some("ebuild")).unwrap(), []);
        assert_eq!(list(&tree(MemoryFs::new()), None).unwrap(), []);
    }
}
