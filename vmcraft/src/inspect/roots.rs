//! Which file systems are the root of an operating system.

use super::tree::Tree;

/// What a file system is in a guest, as far as its top directory tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The root of a Linux system.
    LinuxRoot,
    /// The root of a CoreOS Container Linux or Flatcar system, whose programs are on another one.
    ContainerLinuxRoot,
    /// The `/usr` of such a system.
    ContainerLinuxUsr,
    /// Anything else: `/boot`, `/usr`, `/home`, data.
    Other,
}

/// Looks at the top of a file system.
///
/// Only the top: the snapshots that snapper keeps in `/.snapshots` and the trees of containers are
/// roots of nothing that boots.
pub(crate) fn role(tree: &Tree) -> Role {
    if tree.first_file(&["/grub/menu.lst", "/grub/grub.conf", "/grub2/grub.cfg"]).is_some() {
        return Role::Other;
    }
    let has_etc = tree.is_dir("/etc");
    let has_programs = || tree.is_dir("/bin") || tree.link_target("/bin").is_some();
    // A root whose fstab leads nowhere on its own, as on NixOS, is one nevertheless.
    let is_set_up = || {
        tree.first_file(&["/etc/fstab", "/etc/hosts", "/etc/os-release"]).is_some()
            || ["/etc/fstab", "/etc/hosts", "/etc/os-release"]
                .iter()
                .any(|path| tree.link_target(path).is_some())
    };
    if has_etc && has_programs() && is_set_up() {
        // A /usr or /usr/local with a directory etc has none of these files.
        return Role::LinuxRoot;
    }
    if has_etc
        && ["/root", "/home", "/usr"].iter().all(|path| tree.is_dir(path))
        && tree.first_file(&["/etc/coreos/update.conf", "/etc/flatcar/update.conf"]).is_some()
    {
        return Role::ContainerLinuxRoot;
    }
    if ["/share/coreos", "/share/flatcar"].iter().any(|path| tree.is_dir(path)) && tree.is_dir("/bin") {
        return Role::ContainerLinuxUsr;
    }
    Role::Other
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryFs;
    use crate::vfs::Vfs;
    use std::sync::Arc;

    fn role_of(fs: MemoryFs) -> Role {
        role(&Tree::new(Vfs::with_root("/dev/sda1", Arc::new(fs))))
    }

    #[test] // The file systems that a partitioned guest has.
    fn roles_of_file_systems() {
        let new = MemoryFs::new;
        let root = || new().dir("/bin").file("/etc/fstab", "");
        assert_eq!(role_of(root()), Role::LinuxRoot);
        assert_eq!(role_of(new().symlink("/bin", "usr/bin").file("/etc/hosts", "")), Role::LinuxRoot);
        assert_eq!(role_of(new().dir("/bin").symlink("/etc/fstab", "/etc/static/fstab")), Role::LinuxRoot);
        // Its /boot, with the kernels at the top.
        assert_eq!(role_of(new().file("/vmlinuz-1", "").file("/grub2/grub.cfg", "")), Role::Other);
        // /usr, /usr/local, /var, /home.
        assert_eq!(role_of(new().dir("/etc").dir("/bin").dir("/share").dir("/local")), Role::Other);
        assert_eq!(role_of(new().dir("/log").dir("/run").dir("/spool")), Role::Other);
        assert_eq!(role_of(new().dir("/alice")), Role::Other);
        assert_eq!(role_of(new()), Role::Other);
        // Snapshots and containers are below the top.
        assert_eq!(
            role_of(new().dir("/.snapshots/1/snapshot/bin").file("/.snapshots/1/snapshot/etc/fstab", "")),
            Role::Other
        );
        let coreos = new().dir("/root").dir("/home").dir("/usr").file("/etc/coreos/update.conf", "");
        assert_eq!(role_of(coreos), Role::ContainerLinuxRoot);
        assert_eq!(role_of(new().dir("/bin").dir("/share/coreos")), Role::ContainerLinuxUsr);
    }
}
