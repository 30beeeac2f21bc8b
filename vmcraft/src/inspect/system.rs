//! What a guest's configuration says of it: names, init, SELinux, time, agents.

use bstr::ByteSlice;
use serde::Serialize;

use super::distro::Distro;
use super::shellvars::ShellVars;
use super::tree::Tree;

/// The name of the guest.
///
/// The files in libguestfs's order, then OpenRC's.
pub(crate) fn hostname(tree: &Tree) -> Option<String> {
    let from_vars = |path, name| {
        let vars = ShellVars::parse(&tree.read(path)?);
        vars.get(name).map(str::to_owned)
    };
    tree.first_line("/etc/HOSTNAME")
        .or_else(|| tree.first_line("/etc/hostname"))
        .or_else(|| from_vars("/etc/sysconfig/network", "HOSTNAME"))
        .or_else(|| from_vars("/etc/conf.d/hostname", "hostname"))
}

/// The format of a guest's packages and what installs them.
pub(crate) fn packages(
    tree: &Tree,
    distro: Option<&Distro>,
    major: i32,
) -> (Option<&'static str>, Option<&'static str>) {
    match distro {
        Some(distro) => {
            let has_dnf = || tree.is_file("/usr/bin/dnf");
            (distro.package_format, distro.package_management(major, has_dnf))
        }
        // A distribution without a name here: what its package database says.
        None => {
            let formats = [
                ("/var/lib/dpkg", "deb", "apt"),
                ("/usr/lib/sysimage/rpm", "rpm", "dnf"),
                ("/var/lib/rpm", "rpm", "yum"),
                ("/lib/apk/db", "apk", "apk"),
                ("/var/lib/pacman/local", "pacman", "pacman"),
                ("/var/db/pkg", "ebuild", "portage"),
                ("/var/db/xbps", "xbps", "xbps"),
            ];
            let found = formats.into_iter().find(|(path, _, _)| tree.is_dir(path));
            found.map_or((None, None), |(_, format, management)| (Some(format), Some(management)))
        }
    }
}

/// What the kernel starts first.
pub(crate) fn init(tree: &Tree) -> Option<&'static str> {
    let init = tree.node("/sbin/init");
    let program = init.as_ref().map(|node| node.path.as_slice()).unwrap_or_default();
    let name = program.rsplit_once_str("/").map_or(program, |(_, name)| name);
    match name {
        b"systemd" => return Some("systemd"),
        b"runit-init" | b"runit" => return Some("runit"),
        b"openrc-init" => return Some("openrc"),
        b"dinit" => return Some("dinit"),
        b"finit" => return Some("finit"),
        _ if name.starts_with(b"s6") => return Some("s6"),
        _ => {}
    }
    // Programs that start as init under its own name, told by what they bring along.
    let others = [
        ("/sbin/openrc", "openrc"),
        ("/usr/sbin/openrc", "openrc"),
        ("/sbin/initctl", "upstart"),
        ("/lib/systemd/systemd", "systemd"),
        ("/usr/lib/systemd/systemd", "systemd"),
        ("/etc/runit/2", "runit"),
        ("/etc/s6-linux-init/current/scripts/rc.init", "s6"),
    ];
    if let Some((_, name)) = others.iter().find(|(path, _)| tree.is_file(path)) {
        return Some(name);
    }
    match name {
        b"busybox" => Some("busybox"),
        b"init" if tree.is_file("/etc/inittab") => Some("sysvinit"),
        _ => None,
    }
}

/// How SELinux is set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Selinux {
    /// `enforcing`, `permissive` or `disabled`.
    pub mode: String,
    /// The policy, such as `targeted`.
    pub policy: Option<String>,
}

/// What `/etc/selinux/config` says; `None` if there is none.
pub(crate) fn selinux(tree: &Tree) -> Option<Selinux> {
    let vars = ShellVars::parse(&tree.read("/etc/selinux/config")?);
    Some(Selinux {
        mode: vars.get("SELINUX")?.to_lowercase(),
        policy: vars.get("SELINUXTYPE").map(str::to_owned),
    })
}

/// The guest's machine ID: 32 hexadecimal digits. None if it gets one at its first boot.
pub(crate) fn machine_id(tree: &Tree) -> Option<String> {
    let found =
        ["/etc/machine-id", "/var/lib/dbus/machine-id"].iter().find_map(|path| tree.first_line(path))?;
    (found.len() == 32 && found.bytes().all(|b| b.is_ascii_hexdigit())).then_some(found)
}

/// The time zone, such as `Europe/Berlin`.
pub(crate) fn timezone(tree: &Tree) -> Option<String> {
    let link = tree.link_target("/etc/localtime");
    let zone = link.and_then(|target| Some(target.to_str().ok()?.split_once("/zoneinfo/")?.1.to_owned()));
    let clock = || {
        let vars = ShellVars::parse(&tree.read("/etc/sysconfig/clock")?);
        vars.get("ZONE").or_else(|| vars.get("TIMEZONE")).map(str::to_owned)
    };
    zone.or_else(|| tree.first_line("/etc/timezone")).or_else(clock)
}

/// The locale, such as `en_US.UTF-8`.
pub(crate) fn locale(tree: &Tree) -> Option<String> {
    let files = [
        ("/etc/locale.conf", "LANG"),
        ("/etc/default/locale", "LANG"),
        ("/etc/sysconfig/i18n", "LANG"),
        ("/etc/sysconfig/language", "RC_LANG"),
        ("/etc/env.d/02locale", "LANG"),
    ];
    files.iter().find_map(|(path, name)| {
        let vars = ShellVars::parse(&tree.read(path)?);
        vars.get(name).map(str::to_owned)
    })
}

/// Whether cloud-init is installed.
pub(crate) fn has_cloud_init(tree: &Tree) -> bool {
    tree.first_file(&["/usr/bin/cloud-init", "/etc/cloud/cloud.cfg"]).is_some()
}

/// Hypervisors' and clouds' agents, and programs that one of them has.
const AGENTS: &[(&str, &[&str])] = &[
    ("qemu-guest-agent", &["/usr/bin/qemu-ga", "/usr/sbin/qemu-ga"]),
    ("spice-vdagent", &["/usr/bin/spice-vdagent"]),
    ("open-vm-tools", &["/usr/bin/vmtoolsd"]),
    ("vmware-tools", &["/usr/lib/vmware-tools/sbin64/vmtoolsd", "/usr/bin/vmware-toolbox-cmd"]),
    (
        "hyperv-daemons",
        &["/usr/sbin/hv_kvp_daemon", "/usr/sbin/hypervkvpd", "/usr/lib/hyper-v/bin/hv_kvp_daemon"],
    ),
    ("virtualbox-guest", &["/usr/sbin/VBoxService", "/usr/bin/VBoxService"]),
    ("xen-guest-agent", &["/usr/sbin/xe-daemon", "/usr/sbin/xenstored-guest", "/usr/sbin/xen-guest-agent"]),
    ("azure-agent", &["/usr/sbin/waagent", "/usr/bin/waagent"]),
    ("google-guest-agent", &["/usr/bin/google_guest_agent"]),
    ("amazon-ssm-agent", &["/usr/bin/amazon-ssm-agent", "/snap/bin/amazon-ssm-agent"]),
    ("ovirt-guest-agent", &["/usr/share/ovirt-guest-agent/ovirt-guest-agent.py"]),
];

/// The agents that are installed.
pub(crate) fn agents(tree: &Tree) -> Vec<String> {
    let installed = AGENTS.iter().filter(|(name, programs)| {
        // VMware's own tools bring this command, and so do the open ones.
        let shared = *name == "vmware-tools" && tree.is_file("/usr/bin/vmtoolsd");
        !shared && tree.first_file(programs).is_some()
    });
    installed.map(|(name, _)| (*name).to_owned()).collect()
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

    #[test] // The place of the name has changed over the years.
    fn hostname_is_found_in_each_place() {
        for (path, content) in [
            ("/etc/hostname", "# set by hand\nbox\n"),
            ("/etc/HOSTNAME", "box\n"),
            ("/etc/sysconfig/network", "NETWORKING=yes\nHOSTNAME=\"box\"\n"),
            ("/etc/conf.d/hostname", "hostname=\"box\"\n"),
        ] {
            assert_eq!(
                hostname(&tree(MemoryFs::new().file(path, content))).as_deref(),
                Some("box"),
                "{path}"
            );
        }
        assert_eq!(hostname(&tree(MemoryFs::new().file("/etc/hostname", "\n\n"))), None);
    }

    #[test] // The same path leads to different programs.
    fn init_systems_are_told_apart() {
        let new = MemoryFs::new;
        for (fs, expected) in [
            (
                new().symlink("/sbin/init", "/lib/systemd/systemd").file("/lib/systemd/systemd", ""),
                Some("systemd"),
            ),
            (
                new().symlink("/sbin/init", "/bin/busybox").file("/bin/busybox", "").file("/sbin/openrc", ""),
                Some("openrc"),
            ),
            (new().symlink("/sbin/init", "../bin/busybox").file("/bin/busybox", ""), Some("busybox")),
            (new().symlink("/sbin/init", "runit-init").file("/sbin/runit-init", ""), Some("runit")),
            (new().file("/sbin/init", "").file("/sbin/initctl", ""), Some("upstart")),
            (new().file("/sbin/init", "").file("/etc/inittab", ""), Some("sysvinit")),
            (new().symlink("/sbin/init", "init"), None),
        ] {
            assert_eq!(init(&tree(fs)), expected);
        }
    }

    #[test] // One guest with each of the facts, as Fedora and Debian keep them.
    fn configuration_facts() {
        let tree = tree(
            MemoryFs::new()
                .file("/etc/selinux/config", "# x\nSELINUX=Enforcing\nSELINUXTYPE=targeted\n")
                .file("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
                .symlink("/etc/localtime", "../usr/share/zoneinfo/Europe/Berlin")
                .file("/etc/locale.conf", "LANG=\"de_DE.UTF-8\"\n")
                .file("/usr/bin/qemu-ga", "")
                .file("/usr/bin/vmtoolsd", "")
                .file("/usr/bin/vmware-toolbox-cmd", "")
                .file("/etc/cloud/cloud.cfg", ""),
        );
        let selinux = selinux(&tree).unwrap();
        assert_eq!((selinux.mode.as_str(), selinux.policy.as_deref()), ("enforcing", Some("targeted")));
        assert_eq!(machine_id(&tree).unwrap(), "0123456789abcdef0123456789abcdef");
        assert_eq!(timezone(&tree).unwrap(), "Europe/Berlin");
        assert_eq!(locale(&tree).unwrap(), "de_DE.UTF-8");
        assert_eq!(agents(&tree), ["qemu-guest-agent", "open-vm-tools"]);
        assert!(has_cloud_init(&tree));
        assert_eq!(packages(&tree, None, 0), (None, None));
    }
}
