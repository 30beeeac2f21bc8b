//! How a guest boots: its kernels, its boot loader, its firmware.

use bstr::{BStr, BString, ByteSlice};
use serde::Serialize;

use super::text;
use super::tree::Tree;
use super::volumes::{Volume, Volumes};

/// A kernel that is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// Its version, as `uname -r` would say.
    pub version: String,
    /// The kernel itself; `None` if only its modules are there.
    pub path: Option<String>,
    /// The initial file system that belongs to it.
    pub initramfs: Option<String>,
    /// The directory of its modules.
    pub modules: Option<String>,
    /// Whether the boot loader starts it unless told otherwise; `false` also if that is not known.
    pub default: bool,
}

/// The program that starts the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootLoader {
    /// `grub2`, `grub-legacy`, `systemd-boot`, `extlinux`, `lilo`, `zipl` or `u-boot`.
    pub kind: String,
    /// Its configuration.
    pub config: Option<String>,
    /// Whether the entries of its menu are files by the Boot Loader Specification.
    pub bls: bool,
}

/// The names that kernels have in `/boot`, before their version.
const KERNEL_PREFIXES: &[&str] = &["vmlinuz-", "vmlinux-", "kernel-", "bzImage-", "Image-"];

/// Where distributions keep modules.
const MODULE_DIRS: &[&str] = &["/lib/modules", "/usr/lib/modules"];

/// How many kernels are listed.
const MAX_KERNELS: usize = 200;

/// The kernels, newest name last.
pub(crate) fn kernels(tree: &Tree) -> Vec<Kernel> {
    let mut kernels = Vec::new();
    let boot = tree.names("/boot");
    for name in &boot {
        let Some(suffix) = KERNEL_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix.as_bytes()))
        else {
            continue;
        };
        // Debian's sums and Gentoo's leftovers beside a kernel.
        if suffix.ends_with(b".old") || suffix.ends_with(b".hmac") || suffix.ends_with(b".sig") {
            continue;
        }
        let path = format!("/boot/{}", text(name));
        // Arch, Alpine and Void name the file after the package, not the version.
        let version = if suffix.first().is_some_and(u8::is_ascii_digit) {
            text(suffix)
        } else {
            kernel_version(tree, &path).unwrap_or_else(|| text(suffix))
        };
        add(&mut kernels, Kernel { initramfs: initramfs(&boot, suffix), ..of_file(version, path) });
    }
    for entry in bls_entries(tree) {
        let Some(path) = entry.linux.as_deref().map(|linux| in_boot(tree, linux)) else { continue };
        let initramfs = entry.initrd.as_deref().map(|initrd| in_boot(tree, initrd));
        let version = entry.version.unwrap_or_else(|| version_in_name(&path));
        add(&mut kernels, Kernel { initramfs, ..of_file(version, path) });
    }
    for dir in MODULE_DIRS {
        for name in tree.names(dir) {
            let path = format!("{dir}/{}", text(&name));
            if !name.first().is_some_and(u8::is_ascii_digit) || !tree.is_dir(&path) {
                continue;
            }
            let version = text(&name);
            let index = match kernels.iter().position(|kernel| kernel.version == version) {
                Some(index) => index,
                None if kernels.len() < MAX_KERNELS => {
                    let image = format!("{path}/vmlinuz");
                    let path = tree.is_file(&image).then_some(image);
                    kernels.push(Kernel { version, path, initramfs: None, modules: None, default: false });
                    kernels.len() - 1
                }
                None => continue,
            };
            kernels[index].modules.get_or_insert(path);
        }
    }
    let default = default_kernel(tree).or_else(|| match kernels.as_slice() {
        [only] => only.path.clone(),
        _ => None,
    });
    for kernel in &mut kernels {
        kernel.default = default.is_some() && kernel.path == default;
    }
    kernels
}

fn of_file(version: String, path: String) -> Kernel {
    Kernel { version, path: Some(path), initramfs: None, modules: None, default: false }
}

fn add(kernels: &mut Vec<Kernel>, kernel: Kernel) {
    if kernels.len() < MAX_KERNELS && !kernels.iter().any(|known| known.path == kernel.path) {
        kernels.push(kernel);
    }
}

/// The initial file system of the kernel with this suffix, among the names in `/boot`.
fn initramfs(boot: &[BString], suffix: &[u8]) -> Option<String> {
    let forms: [(&[u8], &[u8]); 6] = [
        (b"initrd.img-", b""),
        (b"initramfs-", b".img"),
        (b"initramfs-", b""),
        (b"initrd-", b""),
        (b"initrd-", b".img"),
        (b"initramfs-genkernel-x86_64-", b""),
    ];
    let found = forms.iter().find_map(|(before, after)| {
        let name = [before, suffix, after].concat();
        boot.iter().find(|known| known.as_slice() == name)
    });
    found.map(|name| format!("/boot/{}", text(name)))
}

/// The version in the name of a kernel's file.
fn version_in_name(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    KERNEL_PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name).to_owned()
}

/// The version that an x86 kernel carries in its header.
///
/// Spec: Linux `Documentation/arch/x86/boot.rst`: `HdrS` at byte 0x202, and at 0x20e the little-endian
/// offset, less 0x200, of a text that begins with the version.
fn kernel_version(tree: &Tree, path: &str) -> Option<String> {
    let header = tree.read_at(path, 0x202, 14)?;
    if !header.starts_with(b"HdrS") {
        return None;
    }
    let offset = u16::from_le_bytes(*header.get(12..14)?.first_chunk()?);
    let words = tree.read_at(path, u64::from(offset) + 0x200, 128)?;
    let word = words.split(|b| *b == b' ' || *b == 0).next()?;
    (word.first()?.is_ascii_digit()).then(|| text(word))
}

/// An entry of the Boot Loader Specification.
#[derive(Debug, Default)]
struct BlsEntry {
    /// The name of its file, without `.conf`.
    id: String,
    version: Option<String>,
    linux: Option<String>,
    initrd: Option<String>,
}

/// The entries in `/boot/loader/entries`.
fn bls_entries(tree: &Tree) -> Vec<BlsEntry> {
    let names = tree.names("/boot/loader/entries");
    let files = names.iter().filter_map(|name| Some((name, name.strip_suffix(b".conf")?))).take(MAX_KERNELS);
    files
        .filter_map(|(name, id)| {
            let content = tree.read([b"/boot/loader/entries/", name.as_slice()].concat())?;
            let mut entry = BlsEntry { id: text(id), ..BlsEntry::default() };
            for line in content.lines() {
                let Some((key, value)) = split_word(line) else { continue };
                match key {
                    b"version" => entry.version = Some(text(value)),
                    b"linux" => entry.linux = Some(text(value)),
                    b"initrd" => {
                        // Further words and lines are microcode and the like.
                        let first = value.fields().next().map(text);
                        entry.initrd = entry.initrd.take().or(first);
                    }
                    _ => {}
                }
            }
            Some(entry)
        })
        .collect()
}

/// The first word of a line and the rest.
fn split_word(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.trim();
    let end = line.find_byteset(b" \t")?;
    Some((&line[..end], line[end..].trim()))
}

/// Where a path of a boot loader is in the guest: it is one of the file system that the boot loader
/// sees, which may be that of `/boot`.
fn in_boot(tree: &Tree, path: &str) -> String {
    let path = format!("/{}", path.trim_start_matches('/'));
    let below = format!("/boot{path}");
    if !path.starts_with("/boot/") && tree.is_file(&below) { below } else { path }
}

/// The kernel that is started unless the user chooses another.
fn default_kernel(tree: &Tree) -> Option<String> {
    saved_entry(tree).or_else(|| linked_kernel(tree)).or_else(|| first_in_grub_cfg(tree))
}

/// GRUB's saved entry, where the entries are files.
fn saved_entry(tree: &Tree) -> Option<String> {
    let environment =
        ["/boot/grub2/grubenv", "/boot/grub/grubenv"].iter().find_map(|path| tree.read(path))?;
    let saved = environment.lines().find_map(|line| line.strip_prefix(b"saved_entry="))?;
    let saved = text(saved.trim());
    let entry = bls_entries(tree).into_iter().find(|entry| entry.id == saved)?;
    Some(in_boot(tree, &entry.linux?))
}

/// What `/vmlinuz` or `/boot/vmlinuz` leads to, which Debian and SUSE keep at the newest.
fn linked_kernel(tree: &Tree) -> Option<String> {
    ["/vmlinuz", "/boot/vmlinuz"].iter().find_map(|path| {
        tree.link_target(path)?;
        Some(text(&tree.node(path)?.path))
    })
}

/// The first kernel in the menu of GRUB or extlinux.
fn first_in_grub_cfg(tree: &Tree) -> Option<String> {
    let (_, config) = CONFIGS.iter().find(|(_, path)| tree.is_file(path))?;
    let content = tree.read(config)?;
    let path = content.lines().find_map(|line| {
        let (key, value) = split_word(line)?;
        let is_kernel = matches!(
            key.to_ascii_lowercase().as_slice(),
            b"linux" | b"linux16" | b"linuxefi" | b"kernel" | b"image"
        );
        let word = value.fields().next().filter(|_| is_kernel)?;
        // GRUB legacy may name the partition: (hd0,0)/vmlinuz.
        let word = word.rsplit_once_str(")").map_or(word, |(_, path)| path);
        word.starts_with(b"/").then(|| text(word))
    })?;
    Some(in_boot(tree, &path))
}

/// The configuration of each boot loader, the likeliest first.
const CONFIGS: &[(&str, &str)] = &[
    ("grub2", "/boot/grub2/grub.cfg"),
    ("grub2", "/boot/grub/grub.cfg"),
    ("systemd-boot", "/efi/loader/loader.conf"),
    ("systemd-boot", "/boot/efi/loader/loader.conf"),
    ("systemd-boot", "/boot/loader/loader.conf"),
    ("extlinux", "/boot/extlinux/extlinux.conf"),
    ("extlinux", "/boot/extlinux.conf"),
    ("extlinux", "/boot/syslinux/syslinux.cfg"),
    ("grub-legacy", "/boot/grub/menu.lst"),
    ("grub-legacy", "/boot/grub/grub.conf"),
    ("lilo", "/etc/lilo.conf"),
    ("zipl", "/etc/zipl.conf"),
    ("u-boot", "/boot/boot.scr"),
];

/// The boot loader that the guest is set up for.
pub(crate) fn boot_loader(tree: &Tree) -> Option<BootLoader> {
    let has_entries = tree.names("/boot/loader/entries").iter().any(|name| name.ends_with(b".conf"));
    if let Some((kind, config)) = CONFIGS.iter().find(|(_, path)| tree.is_file(path)) {
        let bls = has_entries && matches!(*kind, "grub2" | "systemd-boot" | "zipl");
        return Some(BootLoader { kind: (*kind).into(), config: Some((*config).into()), bls });
    }
    let without_config = |kind: &str| BootLoader { kind: kind.into(), config: None, bls: has_entries };
    if has_entries {
        return Some(without_config("systemd-boot"));
    }
    // The configuration is on the EFI system partition, or not written yet.
    let is_grub = ["/etc/default/grub", "/etc/grub.d/10_linux"].iter().any(|path| tree.is_file(path));
    is_grub.then(|| without_config("grub2"))
}

/// The firmware that the guest can boot with: `bios`, `uefi` or `bios+uefi`.
///
/// It is told from the disk that the root is on: an EFI system partition, a BIOS boot partition or a
/// boot loader in the first sector. A guest without any of these is started by its hypervisor, or
/// not at all.
pub(crate) fn firmware(volumes: &Volumes, root: &Volume, mountpoints: &[BString]) -> Option<&'static str> {
    let is_efi_dir =
        |path: &BString| matches!(path.as_bstr(), p if p == BStr::new("/boot/efi") || p == BStr::new("/efi"));
    let has_esp = volumes.volumes.iter().any(|volume| volume.is_esp && volume.disk == root.disk);
    let uefi = has_esp || mountpoints.iter().any(is_efi_dir);
    let bios = volumes.bios_disks.contains(&root.disk);
    match (bios, uefi) {
        (true, true) => Some("bios+uefi"),
        (true, false) => Some("bios"),
        (false, true) => Some("uefi"),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryFs;
    use crate::vfs::Vfs;
    use std::sync::Arc;

    fn tree(fs: MemoryFs) -> Tree {
        Tree::new(Vfs::with_root("/dev/sda1", Arc::new(fs)))
    }

    /// Version, path, initramfs, modules and whether it is the default.
    fn short(kernel: &Kernel) -> (&str, &str, &str, &str, bool) {
        let or_dash =
            |value: &'static str, text: &Option<String>| text.clone().unwrap_or(value.into()).leak() as &str;
        (
            &kernel.version,
            or_dash("-", &kernel.path),
            or_dash("-", &kernel.initramfs),
            or_dash("-", &kernel.modules),
            kernel.default,
        )
    }

    #[test] // Debian: versions in names, /vmlinuz leads to the newest.
    fn kernels_of_debian() {
        let tree = tree(
            MemoryFs::new()
                .file("/boot/vmlinuz-6.1.0-20-amd64", "x")
                .file("/boot/vmlinuz-6.1.0-21-amd64", "x")
                .file("/boot/initrd.img-6.1.0-21-amd64", "x")
                .dir("/usr/lib/modules/6.1.0-21-amd64")
                .dir("/usr/lib/modules/6.1.0-22-amd64")
                .symlink("/lib", "usr/lib")
                .symlink("/vmlinuz", "boot/vmlinuz-6.1.0-21-amd64")
                .file(
                    "/boot/grub/grub.cfg",
                    "menuentry {\n\tlinux /boot/vmlinuz-6.1.0-20-amd64 root=UUID=1 ro\n}\n",
                ),
        );
        let kernels = kernels(&tree);
        assert_eq!(
            kernels.iter().map(short).collect::<Vec<_>>(),
            [
                ("6.1.0-20-amd64", "/boot/vmlinuz-6.1.0-20-amd64", "-", "-", false),
                (
                    "6.1.0-21-amd64",
                    "/boot/vmlinuz-6.1.0-21-amd64",
                    "/boot/initrd.img-6.1.0-21-amd64",
                    "/lib/modules/6.1.0-21-amd64",
                    true
                ),
                ("6.1.0-22-amd64", "-", "-", "/lib/modules/6.1.0-22-amd64", false),
            ]
        );
        let loader = boot_loader(&tree).unwrap();
        assert_eq!((loader.kind.as_str(), loader.config.as_deref()), ("grub2", Some("/boot/grub/grub.cfg")));
    }

    #[test] // Fedora: entries are files, the default is in GRUB's environment block.
    fn kernels_of_fedora() {
        let entry = |version: &str| {
            format!(
                "title Fedora\nversion {version}\nlinux /vmlinuz-{version}\ninitrd /initramfs-{version}.img $tuned_initrd\n"
            )
        };
        let tree = tree(
            MemoryFs::new()
                .file("/boot/grub2/grub.cfg", "blscfg\n")
                .file(
                    "/boot/grub2/grubenv",
                    "# GRUB Environment Block\nsaved_entry=abc-6.5.6-300.fc39.x86_64\n####",
                )
                .file("/boot/loader/entries/abc-6.5.6-300.fc39.x86_64.conf", entry("6.5.6-300.fc39.x86_64"))
                .file("/boot/loader/entries/abc-0-rescue.conf", "title rescue\n")
                .file("/boot/vmlinuz-6.5.6-300.fc39.x86_64", "x")
                .file("/boot/initramfs-6.5.6-300.fc39.x86_64.img", "x")
                .file("/boot/vmlinuz-6.6.1-300.fc39.x86_64", "x"),
        );
        let kernels = kernels(&tree);
        assert_eq!(kernels.len(), 2, "{kernels:?}");
        assert_eq!(
            short(&kernels[0]),
            (
                "6.5.6-300.fc39.x86_64",
                "/boot/vmlinuz-6.5.6-300.fc39.x86_64",
                "/boot/initramfs-6.5.6-300.fc39.x86_64.img",
                "-",
                true
            )
        );
        assert!(!kernels[1].default);
        assert!(boot_loader(&tree).unwrap().bls);
    }

    #[test] // Alpine and Arch: the version is in the kernel's header.
    fn kernel_version_is_read_from_its_header() {
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x31c].copy_from_slice(b"6.18.2-0-virt (builder) #1 x");
        let tree = tree(
            MemoryFs::new()
                .file("/boot/vmlinuz-virt", &image)
                .file("/boot/initramfs-virt", "x")
                .file("/boot/extlinux.conf", "DEFAULT menu\nLABEL virt\n  LINUX vmlinuz-virt\n"),
        );
        let kernels = kernels(&tree);
        assert_eq!(
            kernels.iter().map(short).collect::<Vec<_>>(),
            [("6.18.2-0-virt", "/boot/vmlinuz-virt", "/boot/initramfs-virt", "-", true)]
        );
        assert_eq!(boot_loader(&tree).unwrap().kind, "extlinux");
    }

    #[test] // A header that points past the end, and one that is cut off.
    fn hostile_kernel_headers_are_harmless() {
        let mut image = vec![0; 0x210];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0xffff_u16.to_le_bytes());
        let tree =
            tree(MemoryFs::new().file("/boot/vmlinuz-a", &image).file("/boot/vmlinuz-b", &image[..0x204]));
        let versions: Vec<_> = kernels(&tree).into_iter().map(|kernel| kernel.version).collect();
        assert_eq!(versions, ["a", "b"]);
    }

    #[test] // What each loader leaves behind.
    fn boot_loaders_are_told_apart() {
        for (path, expected) in [
            ("/boot/grub/menu.lst", "grub-legacy"),
            ("/boot/loader/entries/x.conf", "systemd-boot"),
            ("/boot/extlinux/extlinux.conf", "extlinux"),
            ("/etc/lilo.conf", "lilo"),
            ("/etc/default/grub", "grub2"),
        ] {
            assert_eq!(boot_loader(&tree(MemoryFs::new().file(path, "x"))).unwrap().kind, expected);
        }
        assert_eq!(boot_loader(&tree(MemoryFs::new())), None);
    }
}
