//! The picture that stands for an operating system: a PNG from the guest.

use super::OperatingSystem;
use super::tree::Tree;

/// The largest picture that is taken.
const MAX_ICON: u64 = 4 << 20;

/// Where distributions keep a picture of a modest size.
const ICONS: &[(&str, &[&str])] = &[
    ("fedora", &["/usr/share/icons/hicolor/96x96/apps/fedora-logo-icon.png"]),
    (
        RED_HAT,
        &["/usr/share/pixmaps/fedora-logo-sprite.png", "/usr/share/pixmaps/redhat/shadowman-transparent.png"],
    ),
    ("debian", &["/usr/share/pixmaps/debian-logo.png"]),
    (
        "ubuntu",
        &[
            "/usr/share/icons/gnome/24x24/places/ubuntu-logo.png",
            "/usr/share/help/C/ubuntu-help/figures/ubuntu-logo.png",
        ],
    ),
    ("mageia", &["/usr/share/icons/mageia.png"]),
    (SUSE, &["/usr/share/icons/hicolor/24x24/apps/distributor.png"]),
    ("voidlinux", &["/usr/share/void-artwork/void-logo.png"]),
    ("altlinux", &["/usr/share/icons/hicolor/48x48/apps/altlinux.png"]),
];

/// Stands for the distributions that share Red Hat's places.
const RED_HAT: &str = "rhel";
/// Stands for the distributions that share SUSE's places.
const SUSE: &str = "opensuse";

/// The picture of a system. A favicon is looked for first, unless only others will do.
pub(super) fn find(
    tree: &Tree,
    system: &OperatingSystem,
    favicon: bool,
    high_quality: bool,
) -> Option<Vec<u8>> {
    if favicon
        && !high_quality
        && let Some(icon) = png(tree, "/etc/favicon.png")
    {
        return Some(icon);
    }
    let group = match system.distro.as_deref()? {
        "redhat-based" | "centos" | "scientificlinux" | "oraclelinux" | "rocky" | "circle" | "almalinux" => {
            RED_HAT
        }
        "suse-based" | "sles" => SUSE,
        // Its pictures are small.
        "ubuntu" if high_quality => return None,
        other => other,
    };
    let (_, paths) = ICONS.iter().find(|(distro, _)| *distro == group)?;
    paths.iter().find_map(|path| png(tree, path))
}

/// A file, if it is a PNG of a sensible size.
///
/// Spec: PNG (ISO/IEC 15948): the signature, then the chunk IHDR with width and height, big-endian.
fn png(tree: &Tree, path: &str) -> Option<Vec<u8>> {
    let header = tree.read_at(path, 0, 24)?;
    if !header.starts_with(b"\x89PNG\r\n\x1a\n") || header.get(12..16)? != b"IHDR" {
        return None;
    }
    let side = |at: usize| Some(u32::from_be_bytes(*header.get(at..at + 4)?.first_chunk()?));
    let sides = [side(16)?, side(20)?];
    if !sides.iter().all(|side| (16..=1024).contains(side)) {
        return None;
    }
    tree.node(path)?.read_to_vec(MAX_ICON).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryFs;
    use crate::vfs::Vfs;
    use std::sync::Arc;

    #[test] // Only pictures that a program can be given.
    fn pngs_of_a_sensible_size_are_taken() {
        let png_of = |side: u32| {
            let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
            png.extend(side.to_be_bytes());
            png.extend(side.to_be_bytes());
            png.extend(b"rest");
            png
        };
        let tree = Tree::new(Vfs::with_root(
            "/dev/sda1",
            Arc::new(
                MemoryFs::new()
                    .file("/good", png_of(48))
                    .file("/huge", png_of(1 << 20))
                    .file("/text", "no picture at all, but long enough"),
            ),
        ));
        assert_eq!(png(&tree, "/good").unwrap(), png_of(48));
        assert_eq!(png(&tree, "/huge"), None);
        assert_eq!(png(&tree, "/text"), None);
        assert_eq!(png(&tree, "/none"), None);
    }
}
