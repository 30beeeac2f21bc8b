//! pacman's list of packages: a directory for each below `/var/lib/pacman/local`, with a `desc`.
//!
//! Spec: pacman's `desc` files: `%FIELD%`, then its values a line each, then an empty line.

use bstr::{BString, ByteSlice};

use super::{Application2, split_version};
use crate::Result;
use crate::inspect::tree::Tree;

const LOCAL: &[u8] = b"/var/lib/pacman/local";

/// The installed packages in the order of their directories.
pub(super) fn list(tree: &Tree) -> Result<Vec<Application2>> {
    let names = tree.names(LOCAL);
    Ok(names.iter().filter_map(|name| parse(&tree.read(desc(name))?)).collect())
}

/// How many packages are installed.
pub(super) fn count(tree: &Tree) -> Result<usize> {
    Ok(tree.names(LOCAL).iter().filter(|name| tree.is_file(desc(name))).count())
}

fn desc(name: &BString) -> Vec<u8> {
    [LOCAL, b"/", name, b"/desc"].concat()
}

/// The package in a `desc`. `None` if a field that each one has is missing.
fn parse(content: &[u8]) -> Option<Application2> {
    let mut package = Application2::default();
    let mut full_version = Vec::new();
    let mut lines = content.lines();
    while let Some(line) = lines.next() {
        let field: &mut Vec<u8> = match line {
            b"%NAME%" => &mut package.app2_name,
            b"%VERSION%" => &mut full_version,
            b"%DESC%" => &mut package.app2_description,
            b"%URL%" => &mut package.app2_url,
            b"%ARCH%" => &mut package.app2_arch,
            _ => continue,
        };
        *field = lines.next()?.to_vec();
    }
    let (epoch, version, release) = split_version(&full_version)?;
    package.app2_epoch = epoch;
    package.app2_version = version.into();
    package.app2_release = release.into();
    let needed = [&package.app2_name, &package.app2_version, &package.app2_release, &package.app2_arch];
    needed.iter().all(|field| !field.is_empty()).then_some(package)
}

#[cfg(test)]
mod tests {
    use super::super::tests::tree;
    use super::*;
    use crate::testing::MemoryFs;

    #[test] // A package, the file that is beside them, and one that is damaged.
    fn installed_packages_are_listed() {
        let tree = tree(
            MemoryFs::new()
                .file("/var/lib/pacman/local/ALPM_DB_VERSION", "9\n")
                .file(
                    "/var/lib/pacman/local/bash-1:5.2.026-2/desc",
                    "%NAME%\nbash\n\n%VERSION%\n1:5.2.026-2\n\n%BASE%\nbash\n\n%DESC%\nThe shell\n\n%URL%\nhttps://x/\n\n\
                     %ARCH%\nx86_64\n\n%DEPENDS%\nglibc\n%NAME\n",
                )
                .file("/var/lib/pacman/local/x-1-1/desc", "%NAME%\nx\n\n%VERSION%\n1\n\n%ARCH%\nany\n")
                .file("/var/lib/pacman/local/y-1-1/desc", "%NAME%"),
        );
        let packages = list(&tree).unwrap();
        assert_eq!(packages.len(), 1, "{packages:?}");
        assert_eq!(packages[0].app2_epoch, 1);
        assert_eq!(packages[0].app2_version, "5.2.026");
        assert_eq!(packages[0].app2_release, "2");
        assert_eq!(packages[0].app2_description, "The shell");
        assert_eq!(count(&tree).unwrap(), 3);
    }
}
