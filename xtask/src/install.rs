//! Installing the programs that a task needs, or saying how.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use testkit::{ORACLES, Oracle};
use xshell::{Shell, cmd};

/// Packages with no program of their own to look for: the program that needs one, the file that
/// tells, and the Debian package.
const FILES: &[(&str, &str, &str)] = &[
    ("mmdebstrap", "/usr/share/keyrings/debian-archive-keyring.gpg", "debian-archive-keyring"),
    ("setfiles", "/etc/selinux/default/contexts/files/file_contexts", "selinux-policy-default"),
];

/// Makes sure that the programs which `wanted` picks are there.
///
/// Root gets them installed; anybody else gets the exact command.
pub(crate) fn ensure(shell: &Shell, may_install: bool, wanted: impl Fn(&Oracle) -> bool) -> Result<()> {
    let missing: Vec<&Oracle> =
        ORACLES.iter().filter(|oracle| wanted(oracle) && testkit::find(oracle.program).is_none()).collect();
    let has = |program| testkit::find(program).is_some();
    let is_wanted = |program: &str| ORACLES.iter().any(|oracle| oracle.program == program && wanted(oracle));
    let missing_files: Vec<&str> = FILES
        .iter()
        .filter(|(program, file, _)| has("apt-get") && is_wanted(program) && !shell.path_exists(file))
        .map(|(_, _, package)| *package)
        .collect();
    if missing.is_empty() && missing_files.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> =
        missing.iter().map(|oracle| oracle.program).chain(missing_files.iter().copied()).collect();
    let (update, install) = if has("apt-get") {
        let mut packages: BTreeSet<&str> = missing.iter().map(|oracle| oracle.deb).collect();
        packages.extend(missing_files);
        let packages: Vec<&str> = packages.into_iter().collect();
        let install = ["apt-get", "install", "-y", "--no-install-recommends"].into_iter().chain(packages);
        (Some("apt-get update"), install.collect::<Vec<_>>())
    } else if has("dnf") {
        let packages: BTreeSet<&str> = missing.iter().map(|oracle| oracle.rpm).collect();
        (None, ["dnf", "install", "-y"].into_iter().chain(packages).collect())
    } else {
        bail!("missing: {}; install them with this system's package manager", names.join(", "));
    };
    let command = update.map(|update| format!("{update} && ")).unwrap_or_default() + &install.join(" ");
    if !may_install || !testkit::have_root() {
        bail!("missing: {}\nrun this first:\n\n    sudo sh -c '{command}'\n", names.join(", "));
    }
    eprintln!("installing: {}", names.join(", "));
    let _environment = shell.push_env("DEBIAN_FRONTEND", "noninteractive");
    if update.is_some() {
        cmd!(shell, "apt-get update -q").quiet().ignore_stdout().run()?;
    }
    let (program, arguments) = (install[0], &install[1..]);
    cmd!(shell, "{program} {arguments...}").quiet().ignore_stdout().run()?;
    match missing.iter().find(|oracle| testkit::find(oracle.program).is_none()) {
        Some(oracle) => bail!("{} is still missing after {command}", oracle.program),
        None => Ok(()),
    }
}
