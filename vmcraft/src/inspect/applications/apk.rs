//! apk's list of packages: `/lib/apk/db/installed`.
//!
//! Spec: Alpine's description of its package format: a line for each field, a letter and a colon
//! before the value; an empty line ends a package.

use super::{Application2, MAX_APPLICATIONS, for_each_line, split_version};
use crate::Result;
use crate::inspect::tree::Tree;

/// The database; the second place is that of systems with a merged `/usr`.
const DATABASES: [&str; 2] = ["/lib/apk/db/installed", "/usr/lib/apk/db/installed"];

fn database(tree: &Tree) -> &'static [u8] {
    tree.first_file(&DATABASES).unwrap_or(DATABASES[0]).as_bytes()
}

/// The installed packages in the order of the file.
pub(super) fn list(tree: &Tree) -> Result<Vec<Application2>> {
    let mut packages = Vec::new();
    let mut package = Application2::default();
    let mut version = Vec::new();
    let mut finish = |mut package: Application2, version: &[u8]| {
        if package.app2_name.is_empty() || version.is_empty() || packages.len() >= MAX_APPLICATIONS {
            return;
        }
        let Some((epoch, version, release)) = split_version(version) else { return };
        package.app2_epoch = epoch;
        package.app2_version = version.into();
        package.app2_release = release.strip_prefix(b"r").unwrap_or(release).into();
        packages.push(package);
    };
    for_each_line(tree, database(tree), |line| {
        if line.is_empty() {
            finish(std::mem::take(&mut package), &std::mem::take(&mut version));
        }
        let [field, b':', value @ ..] = line else { return };
        match field {
            b'P' => package.app2_name = value.into(),
            b'V' => version = value.to_vec(),
            b'A' => package.app2_arch = value.into(),
            b'U' => package.app2_url = value.into(),
            b'T' => package.app2_description = value.into(),
            _ => {}
        }
    })?;
    finish(package, &version);
    Ok(packages)
}

/// How many packages are installed.
pub(super) fn count(tree: &Tree) -> Result<usize> {
    let mut count = 0;
    for_each_line(tree, database(tree), |line| count += usize::from(line.starts_with(b"P:")))?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::super::tests::tree;
    use super::*;
    use crate::testing::MemoryFs;

    #[test] // Two packages as apk 2 writes them; files of a package have letters too.
    fn installed_packages_are_listed() {
        let tree = tree(MemoryFs::new().file(
            "/lib/apk/db/installed",
            "C:Q1abc=\nP:musl\nV:1.2.5-r21\nA:x86_64\nT:the musl c library\nU:https://musl.libc.org/\nF:lib\n\
             R:ld-musl-x86_64.so.1\na:0:0:755\n\nP:busybox\nV:1.37.0-r30\nA:x86_64\n",
        ));
        let packages = list(&tree).unwrap();
        assert_eq!(count(&tree).unwrap(), packages.len());
        let short: Vec<_> = packages
            .iter()
            .map(|p| format!("{} {} {} {}", p.app2_name, p.app2_version, p.app2_release, p.app2_arch))
            .collect();
        assert_eq!(short, ["musl 1.2.5 21 x86_64", "busybox 1.37.0 30 x86_64"]);
        assert_eq!(packages[0].app2_description, "the musl c library");
    }
}
