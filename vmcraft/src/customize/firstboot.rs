//! Scripts that run once, when the guest boots next.
//!
//! They are put where virt-customize puts them, `/usr/lib/virt-sysprep/scripts`, and are started by a service of
//! the same name, so that both tools can add scripts to one guest.

use bstr::{BStr, ByteSlice};

use super::system::System;
use crate::{Error, Guest, GuestPath, Result};

const DIR: &str = "/usr/lib/virt-sysprep";
const SCRIPTS: &str = "/usr/lib/virt-sysprep/scripts";
const RUNNER: &str = "/usr/lib/virt-sysprep/firstboot.sh";
const SERVICE: &str = "guestfs-firstboot";

/// The longest script, in bytes.
pub(crate) const MAX_SCRIPT: u64 = 64 << 20;

/// What the service starts. Each script is moved away before it runs, so that none runs twice, even if the
/// guest goes down meanwhile.
const RUNNER_TEXT: &str = r#"#!/bin/sh
### BEGIN INIT INFO
# Provides:          guestfs-firstboot
# Required-Start:    $remote_fs
# Should-Start:      $all
# Required-Stop:
# Default-Start:     2 3 4 5
# Default-Stop:
# Short-Description: Scripts that run once, at the first boot
### END INIT INFO

scripts=/usr/lib/virt-sysprep/scripts
running=/usr/lib/virt-sysprep/scripts-done
log=/root/virt-sysprep-firstboot.log

[ "$1" = start ] || exit 0
# What scripts print may be secret.
(umask 077 && : >>"$log")
{
    mkdir -p "$running"
    for script in "$scripts"/*; do
        [ -x "$script" ] || continue
        name=${script##*/}
        mv "$script" "$running/$name" || continue
        echo "=== Running $name ==="
        "$running/$name"
        echo "=== $name ended with status $? ==="
        rm -f "$running/$name"
    done
} </dev/null 2>&1 | tee -a "$log"
exit 0
"#;

const UNIT: &str = "[Unit]
Description=Scripts that run once, at the first boot
After=network.target network-online.target local-fs.target
ConditionDirectoryNotEmpty=/usr/lib/virt-sysprep/scripts

[Service]
Type=oneshot
ExecStart=/bin/sh /usr/lib/virt-sysprep/firstboot.sh start
RemainAfterExit=yes
TimeoutStartSec=infinity
StandardOutput=journal+console
StandardError=inherit

[Install]
WantedBy=multi-user.target
";

const OPENRC: &str = r#"#!/sbin/openrc-run
description="Scripts that run once, at the first boot"

depend() {
    after *
}

start() {
    /bin/sh /usr/lib/virt-sysprep/firstboot.sh start
}
"#;

/// Installs a script under the next number. `name` is what it is for.
pub(crate) fn add(guest: &mut Guest, system: &System, name: &str, script: &[u8]) -> Result<()> {
    install_service(guest, system)?;
    let entries = guest.resolve(SCRIPTS.into())?.entries()?;
    let numbers = entries.iter().filter_map(|(name, _, _)| number_of(name.as_bstr()));
    let next = numbers.max().unwrap_or(0) + 1;
    let path = format!("{SCRIPTS}/5000-{next:04}-{}", file_name(name));
    // Without a first line that says so, the kernel does not take it for a script.
    let mut content = Vec::new();
    if !script.starts_with(b"#!") && !script.starts_with(b"\x7fELF") {
        content.extend_from_slice(b"#!/bin/sh\n");
    }
    content.extend_from_slice(script);
    if !script.starts_with(b"\x7fELF") && !content.ends_with(b"\n") {
        content.push(b'\n');
    }
    super::write(guest, &path, &content)?;
    guest.chmod(0o755, GuestPath::new(&path))
}

/// The number of a script that was installed before.
fn number_of(name: &BStr) -> Option<u32> {
    let number = name.strip_prefix(b"5000-")?.get(..4)?;
    number.to_str().ok()?.parse().ok()
}

/// What a script is for, as a part of a file's name.
fn file_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    name.chars().map(plain).take(60).collect::<String>().trim_matches('-').to_owned()
}

fn install_service(guest: &mut Guest, system: &System) -> Result<()> {
    let systemd_dir = ["/usr/lib/systemd/system", "/lib/systemd/system"]
        .into_iter()
        .find(|dir| guest.is_dir((*dir).into(), Some(true)).unwrap_or(false));
    let init = system.found.init;
    let sysv = ["/etc/init.d", "/etc/rc.d/init.d"]
        .into_iter()
        .find(|dir| guest.is_dir((*dir).into(), Some(true)).unwrap_or(false));
    // Refused before anything is written.
    match (init, systemd_dir, sysv) {
        (Some("systemd"), Some(_), _) | (Some("openrc" | "sysvinit" | "upstart"), _, Some(_)) => {}
        (init, ..) => {
            return Err(Error::Unsupported(format!(
                "running scripts when the guest boots next: the guest's init system, {}, is not known",
                init.unwrap_or("which could not be told")
            )));
        }
    }
    guest.mkdir_p(SCRIPTS.into())?;
    guest.chmod(0o755, DIR.into())?;
    super::write(guest, RUNNER, RUNNER_TEXT.as_bytes())?;
    guest.chmod(0o755, RUNNER.into())?;
    match (init, systemd_dir, sysv) {
        (Some("systemd"), Some(dir), _) => {
            let unit = format!("{dir}/{SERVICE}.service");
            super::write(guest, &unit, UNIT.as_bytes())?;
            let wants = "/etc/systemd/system/multi-user.target.wants";
            guest.mkdir_p(wants.into())?;
            link(guest, &unit, &format!("{wants}/{SERVICE}.service"))
        }
        (Some("openrc"), _, Some(dir)) => {
            let service = format!("{dir}/{SERVICE}");
            super::write(guest, &service, OPENRC.as_bytes())?;
            guest.chmod(0o755, GuestPath::new(&service))?;
            guest.mkdir_p("/etc/runlevels/default".into())?;
            link(guest, &service, &format!("/etc/runlevels/default/{SERVICE}"))
        }
        (_, _, Some(dir)) => {
            link(guest, RUNNER, &format!("{dir}/{SERVICE}"))?;
            let above = if dir == "/etc/init.d" { "/etc" } else { "/etc/rc.d" };
            for level in [2, 3, 5] {
                let levels = format!("{above}/rc{level}.d");
                if super::exists(guest, &levels)? {
                    link(guest, &format!("../init.d/{SERVICE}"), &format!("{levels}/S99{SERVICE}"))?;
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn link(guest: &mut Guest, target: &str, name: &str) -> Result<()> {
    guest.ln_sf(target.into(), GuestPath::new(name))
}

/// A script that installs packages with the guest's own package manager, once there is a network.
pub(crate) fn install_script(system: &System, packages: &[String]) -> Result<String> {
    let manager = system.found.package_management;
    for package in packages {
        if package.starts_with('-') || package.contains(['\n', '\0']) {
            return Err(Error::Usage(format!("{package:?}: not the name of a package")));
        }
    }
    let quoted: Vec<String> =
        packages.iter().map(|package| format!("'{}'", package.replace('\'', "'\\''"))).collect();
    let packages = quoted.join(" ");
    let commands = match manager {
        Some("apt") => format!(
            "export DEBIAN_FRONTEND=noninteractive\n\
             apt-get -q update\n\
             apt-get -q -y -o Dpkg::Options::=--force-confnew install {packages}"
        ),
        Some("dnf") => format!("dnf -y install {packages}"),
        Some("yum") => format!("yum -y install {packages}"),
        Some("zypper") => format!("zypper --non-interactive install -l {packages}"),
        Some("pacman") => format!("pacman -Sy --noconfirm {packages}"),
        Some("apk") => format!("apk update\napk add {packages}"),
        Some("xbps") => format!("xbps-install -Sy {packages}"),
        Some("urpmi") => format!("urpmi --auto {packages}"),
        Some("portage") => format!("emerge {packages}"),
        _ => return Err(system.unsupported("installing packages")),
    };
    Ok(format!(
        "#!/bin/sh\n\
         # Waits for the network, where something can say that it is there.\n\
         if command -v systemctl >/dev/null 2>&1 && command -v timeout >/dev/null 2>&1; then\n\
         \x20   timeout 60 systemctl start network-online.target\n\
         fi\n\
         {commands}\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_scripts_are_plain() {
        assert_eq!(file_name("echo 'hi there' > /dev/ttyS0"), "echo--hi-there-----dev-ttyS0");
        assert_eq!(file_name("../../etc/passwd"), "etc-passwd");
        assert_eq!(number_of("5000-0012-x".into()), Some(12));
        assert_eq!(number_of("5000-x".into()), None);
    }

    #[test] // The shell that runs it must take it.
    fn the_runner_is_a_script() {
        let dir = testkit::tempdir();
        let file = dir.path().join("runner");
        std::fs::write(&file, RUNNER_TEXT).unwrap();
        testkit::run_ok("sh", ["-n", file.to_str().unwrap()]);
    }
}
