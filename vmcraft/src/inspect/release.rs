//! What a guest's release files say it is.
//!
//! The files are looked at in libguestfs's order and to the same end: os-release first, then, where
//! that is silent or too coarse, the files that each family has had since before.

use bstr::ByteSlice;

use super::distro::{self, Distro};
use super::shellvars::ShellVars;
use super::tree::Tree;

/// What is known of a guest's release.
#[derive(Debug, Clone, Default)]
pub(crate) struct Release {
    pub(crate) distro: Option<&'static Distro>,
    /// Major and minor version.
    pub(crate) version: Option<(i32, i32)>,
    /// The product's name as libguestfs gives it: often the line of a release file.
    pub(crate) product_name: Option<String>,
    /// The product's name as os-release has it for people.
    pub(crate) pretty_name: Option<String>,
    /// `ID` of os-release.
    pub(crate) id: Option<String>,
    /// `ID_LIKE` of os-release.
    pub(crate) id_like: Option<String>,
    pub(crate) variant: Option<String>,
    pub(crate) codename: Option<String>,
    pub(crate) build_id: Option<String>,
}

/// Reads the release files.
pub(crate) fn detect(tree: &Tree) -> Release {
    let os_release = ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|path| tree.read(path));
    let os_release = os_release.map(|content| ShellVars::parse(&content));
    let mut release = Release::default();
    let said_all = os_release.as_ref().is_some_and(|vars| release.take_os_release(vars));
    if !said_all {
        // The first file that says enough ends the search.
        let _ = FILES
            .iter()
            .any(|(path, read)| tree.read(path).is_some_and(|content| read(&mut release, tree, &content)));
    }
    if let Some(vars) = &os_release {
        release.take_further(vars);
    }
    release
}

impl Release {
    /// Takes what os-release says. True if nothing more is needed.
    fn take_os_release(&mut self, vars: &ShellVars) -> bool {
        let get = |name| vars.get(name).map(str::to_owned);
        self.id = get("ID");
        self.id_like = get("ID_LIKE");
        self.variant = get("VARIANT");
        self.codename = get("VERSION_CODENAME").or_else(|| codename_in(vars.get("VERSION")?));
        self.build_id = get("BUILD_ID");
        self.pretty_name = get("PRETTY_NAME").or_else(|| get("NAME"));
        self.product_name = get("PRETTY_NAME");
        self.distro = self.id.as_deref().and_then(distro::by_id);
        self.version =
            vars.get("VERSION_ID").and_then(|text| neokylin_version(text).or_else(|| find_version(text)));
        let (Some(found), Some(_)) = (self.distro, &self.product_name) else { return false };
        match self.version {
            // Their os-release has the major version alone, another file has both.
            Some((_, 0)) => ![distro::DEBIAN, distro::CENTOS, distro::ROCKY].contains(&found),
            Some(_) => true,
            None if found.is_rolling() => {
                self.version = Some((0, 0));
                true
            }
            None => false,
        }
    }

    /// Takes from os-release a distribution that libguestfs does not know, if no file said better.
    fn take_further(&mut self, vars: &ShellVars) {
        if !self.distro.is_none_or(Distro::is_family) {
            return;
        }
        let Some(found) = self.id.as_deref().and_then(distro::by_further_id) else { return };
        self.distro = Some(found);
        self.product_name = self.pretty_name.clone().or(self.product_name.take());
        self.version = vars.get("VERSION_ID").and_then(find_version).or(self.version);
    }

    /// Takes the first line as the product's name, and the distribution that the file is of.
    fn take_line(&mut self, content: &[u8], distro: &'static Distro) -> Option<String> {
        let line = first_line(content)?;
        self.product_name = Some(line.clone());
        self.distro = Some(distro);
        Some(line)
    }

    /// A file that is of one distribution, with a version somewhere in its first line.
    fn take_generic(&mut self, content: &[u8], distro: &'static Distro) -> bool {
        let Some(line) = self.take_line(content, distro) else { return false };
        self.version = find_version(&line).or(self.version);
        true
    }

    /// A file of the Red Hat family: `NAME … release MAJOR.MINOR` or `… release MAJOR (… Update MINOR)`.
    fn take_red_hat(&mut self, content: &[u8], names: &[(&str, &'static Distro)]) -> bool {
        let Some(line) = first_line(content) else { return false };
        let found = names.iter().find_map(|(name, distro)| Some((*distro, release_version(&line, name)?)));
        let Some((distro, version)) = found else { return false };
        (self.product_name, self.distro, self.version) = (Some(line), Some(distro), Some(version));
        true
    }

    fn take_lsb_release(&mut self, content: &[u8]) -> bool {
        let vars = ShellVars::parse(content);
        let found = vars.get("DISTRIB_ID").and_then(distro::by_lsb_id);
        self.distro = found.or(self.distro);
        self.version = vars.get("DISTRIB_RELEASE").and_then(find_version).or(self.version);
        self.codename = self.codename.take().or_else(|| vars.get("DISTRIB_CODENAME").map(str::to_owned));
        let description = vars.get("DISTRIB_DESCRIPTION");
        if let Some(description) = description {
            self.product_name = Some(description.to_owned());
        }
        // A bare LSB_VERSION, as of RHEL 3, says nothing.
        found.is_some() || description.is_some()
    }

    fn take_suse_release(&mut self, content: &[u8]) -> bool {
        let text = content.to_str_lossy();
        let mut lines = text.lines().map(str::trim);
        let Some(name) = lines.next().filter(|name| !name.is_empty()) else {
            self.distro = Some(distro::SUSE_BASED);
            return true;
        };
        self.product_name = Some(name.to_owned());
        let value = |line: Option<&str>, key: &str| {
            let (found, value) = line?.split_once('=')?;
            (found.trim() == key).then(|| leading_number(value.trim()))?
        };
        let enterprise = ["SUSE Linux Enterprise ", "SUSE LINUX Enterprise ", "Novell Linux Desktop "];
        if enterprise.iter().any(|prefix| name.starts_with(prefix)) {
            let major = value(lines.next(), "VERSION");
            let minor = value(lines.next(), "PATCHLEVEL").unwrap_or(0);
            self.distro = Some(distro::SLES);
            self.version = major.map(|major| (major, minor));
        } else if ["openSUSE ", "SuSE Linux ", "SUSE LINUX "].iter().any(|prefix| name.starts_with(prefix)) {
            self.distro = Some(distro::OPENSUSE);
            self.version = lines.next().and_then(find_version).or(self.version);
        }
        true
    }
}

/// Reads one release file. True if nothing more is needed.
type ReadFile = fn(&mut Release, &Tree, &[u8]) -> bool;

/// The release files after os-release, in order.
const FILES: &[(&str, ReadFile)] = &[
    ("/etc/lsb-release", |r, _, content| r.take_lsb_release(content)),
    ("/etc/openmandriva-release", |r, _, content| {
        r.take_red_hat(content, &[("OpenMandriva", distro::OPENMANDRIVA)])
    }),
    ("/etc/oracle-release", |r, _, content| r.take_red_hat(content, &[("Oracle Linux", distro::ORACLE)])),
    ("/etc/centos-release", |r, _, content| r.take_red_hat(content, &[("CentOS", distro::CENTOS)])),
    ("/etc/rocky-release", |r, _, content| r.take_red_hat(content, &[("Rocky Linux", distro::ROCKY)])),
    ("/etc/circle-release", |r, _, content| r.take_red_hat(content, &[("Circle Linux", distro::CIRCLE)])),
    ("/etc/altlinux-release", |r, _, content| r.take_generic(content, distro::ALT)),
    ("/etc/redhat-release", |r, _, content| {
        let names = &[
            ("Fedora", distro::FEDORA),
            ("Red Hat", distro::RHEL),
            ("CentOS", distro::CENTOS),
            ("Rocky Linux", distro::ROCKY),
            ("Circle Linux", distro::CIRCLE),
            ("Scientific Linux", distro::SCIENTIFIC),
        ];
        if !r.take_red_hat(content, names) && !r.take_generic(content, distro::REDHAT_BASED) {
            r.distro = Some(distro::REDHAT_BASED);
        }
        true
    }),
    ("/etc/debian_version", |r, _, content| r.take_generic(content, distro::DEBIAN)),
    ("/etc/pardus-release", |r, _, content| r.take_generic(content, distro::PARDUS)),
    ("/etc/arch-release", |r, _, _| {
        // The file is there and empty.
        r.distro = Some(distro::ARCH);
        true
    }),
    ("/etc/gentoo-release", |r, _, content| r.take_generic(content, distro::GENTOO)),
    ("/etc/meego-release", |r, _, content| r.take_generic(content, distro::MEEGO)),
    ("/etc/slackware-version", |r, _, content| r.take_generic(content, distro::SLACKWARE)),
    ("/etc/ttylinux-target", |r, _, content| r.take_generic(content, distro::TTYLINUX)),
    ("/etc/SuSE-release", |r, _, content| r.take_suse_release(content)),
    ("/etc/cirros/version", |r, _, content| r.take_generic(content, distro::CIRROS)),
    ("/etc/br-version", |r, tree, content| {
        let is_cirros = tree.is_file("/usr/share/cirros/logo");
        r.take_generic(content, if is_cirros { distro::CIRROS } else { distro::BUILDROOT })
    }),
    ("/etc/alpine-release", |r, _, content| r.take_generic(content, distro::ALPINE)),
    ("/etc/frugalware-release", |r, _, content| r.take_generic(content, distro::FRUGALWARE)),
    ("/etc/pld-release", |r, _, content| r.take_generic(content, distro::PLD)),
    ("/etc/mandriva-release", |r, _, content| r.take_generic(content, distro::MANDRIVA)),
    ("/etc/mandrake-release", |r, _, content| r.take_generic(content, distro::MANDRIVA)),
];

/// The first line of a file, if it is not blank.
fn first_line(content: &[u8]) -> Option<String> {
    let line = content.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_str_lossy().into_owned())
}

/// `bookworm` in `12 (bookworm)`.
fn codename_in(version: &str) -> Option<String> {
    let (_, rest) = version.split_once('(')?;
    let (name, _) = rest.split_once(')')?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// `V7Update6`.
fn neokylin_version(text: &str) -> Option<(i32, i32)> {
    let (major, minor) = text.strip_prefix('V')?.split_once("Update")?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The number at the start of a text.
fn leading_number(text: &str) -> Option<i32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// The first `MAJOR.MINOR` in a text, else the first number with 0 after it.
fn find_version(text: &str) -> Option<(i32, i32)> {
    let numbers = text.split(|c: char| !c.is_ascii_digit() && c != '.').filter(|word| !word.is_empty());
    let dotted = numbers.clone().find_map(|word| {
        let mut parts = word.split('.').skip_while(|part| part.is_empty());
        Some((parts.next()?.parse().ok()?, leading_number(parts.next()?)?))
    });
    let single = || numbers.flat_map(|word| word.split('.')).find_map(|part| Some((part.parse().ok()?, 0)));
    dotted.or_else(single)
}

/// The version in `NAME … release MAJOR.MINOR` or `NAME … release MAJOR … Update MINOR`.
fn release_version(line: &str, name: &str) -> Option<(i32, i32)> {
    let after = &line[line.find(name)? + name.len()..];
    // The last one that a number follows.
    let (_, rest) = after
        .rmatch_indices("release ")
        .map(|(at, word)| after.split_at(at + word.len()))
        .find(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_digit()))?;
    let major = leading_number(rest)?;
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    let update = || leading_number(rest.split_once("Update ")?.1);
    let minor = update().or_else(|| leading_number(rest.strip_prefix('.')?)).unwrap_or(0);
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryFs;
    use crate::vfs::Vfs;
    use std::sync::Arc;

    #[test] // The forms that release files have had over the years.
    fn versions_are_found_in_text() {
        for (text, expected) in [
            ("12.15", Some((12, 15))),
            ("Slackware 15.0", Some((15, 0))),
            ("3.19.1", Some((3, 19))),
            ("Gentoo Base System release 2.14", Some((2, 14))),
            ("trixie/sid", None),
            ("VERSION = 13.1", Some((13, 1))),
            ("ALT Linux 10 (Autolycus)", Some((10, 0))),
            ("20240101", Some((20240101, 0))),
            ("99999999999.1", Some((1, 0))),
            (".5", Some((5, 0))),
            ("", None),
        ] {
            assert_eq!(find_version(text), expected, "{text}");
        }
        for (line, name, expected) in [
            ("Red Hat Enterprise Linux release 9.2 (Plow)", "Red Hat", Some((9, 2))),
            ("Red Hat Enterprise Linux AS release 4 (Nahant Update 3)", "Red Hat", Some((4, 3))),
            ("CentOS Stream release 9", "CentOS", Some((9, 0))),
            ("CentOS Linux release 7.9.2009 (Core)", "CentOS", Some((7, 9))),
            ("Fedora release 39 (Thirty Nine)", "Fedora", Some((39, 0))),
            ("Fedora release Rawhide", "Fedora", None),
            ("AlmaLinux release 9.3 (Shamrock)", "Red Hat", None),
        ] {
            assert_eq!(release_version(line, name), expected, "{line}");
        }
    }

    /// What release files make of a guest: name, version and product.
    fn detected(files: &[(&str, &str)]) -> (&'static str, Option<(i32, i32)>, String) {
        let fs = files.iter().fold(MemoryFs::new(), |fs, (path, content)| fs.file(path, content));
        let release = detect(&Tree::new(Vfs::with_root("/dev/sda1", Arc::new(fs))));
        (
            release.distro.map_or("unknown", |distro| distro.name),
            release.version,
            release.product_name.unwrap_or_default(),
        )
    }

    #[test] // Each family's files, as its installations have them.
    fn release_files_name_the_distribution() {
        let os = "/etc/os-release";
        for (files, expected) in [
            (
                &[
                    (os, "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\""),
                    ("/etc/debian_version", "12.5\n"),
                ][..],
                ("debian", Some((12, 5)), "12.5"),
            ),
            (
                &[
                    (os, "ID=debian\nPRETTY_NAME=\"Debian GNU/Linux trixie/sid\""),
                    ("/etc/debian_version", "trixie/sid\n"),
                ],
                ("debian", None, "trixie/sid"),
            ),
            (
                &[
                    (
                        os,
                        "ID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"22.04\"\nPRETTY_NAME=\"Ubuntu 22.04.3 LTS\"",
                    ),
                    ("/etc/debian_version", "bookworm/sid"),
                ],
                ("ubuntu", Some((22, 4)), "Ubuntu 22.04.3 LTS"),
            ),
            (
                &[(
                    "/etc/lsb-release",
                    "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=10.04\nDISTRIB_DESCRIPTION=\"Ubuntu 10.04.1 LTS\"",
                )],
                ("ubuntu", Some((10, 4)), "Ubuntu 10.04.1 LTS"),
            ),
            (
                &[(os, "ID=fedora\nVERSION_ID=39\nPRETTY_NAME=\"Fedora Linux 39 (Server Edition)\"")],
                ("fedora", Some((39, 0)), "Fedora Linux 39 (Server Edition)"),
            ),
            (
                &[(
                    os,
                    "ID=\"rhel\"\nVERSION_ID=\"9.2\"\nPRETTY_NAME=\"Red Hat Enterprise Linux 9.2 (Plow)\"",
                )],
                ("rhel", Some((9, 2)), "Red Hat Enterprise Linux 9.2 (Plow)"),
            ),
            (
                &[("/etc/redhat-release", "Red Hat Enterprise Linux Server release 6.10 (Santiago)\n")],
                ("rhel", Some((6, 10)), "Red Hat Enterprise Linux Server release 6.10 (Santiago)"),
            ),
            (
                &[
                    ("/etc/lsb-release", "LSB_VERSION=1.3\n"),
                    ("/etc/redhat-release", "Red Hat Enterprise Linux AS release 3 (Taroon Update 9)\n"),
                ],
                ("rhel", Some((3, 9)), "Red Hat Enterprise Linux AS release 3 (Taroon Update 9)"),
            ),
            (
                &[
                    (os, "ID=\"centos\"\nVERSION_ID=\"7\"\nPRETTY_NAME=\"CentOS Linux 7 (Core)\""),
                    ("/etc/centos-release", "CentOS Linux release 7.9.2009 (Core)"),
                    ("/etc/redhat-release", "CentOS Linux release 7.9.2009 (Core)"),
                ],
                ("centos", Some((7, 9)), "CentOS Linux release 7.9.2009 (Core)"),
            ),
            (
                &[(os, "ID=\"rocky\"\nVERSION_ID=\"9.3\"\nPRETTY_NAME=\"Rocky Linux 9.3 (Blue Onyx)\"")],
                ("rocky", Some((9, 3)), "Rocky Linux 9.3 (Blue Onyx)"),
            ),
            (
                &[
                    (
                        os,
                        "ID=\"almalinux\"\nVERSION_ID=\"9.3\"\nPRETTY_NAME=\"AlmaLinux 9.3 (Shamrock Pampas Cat)\"",
                    ),
                    ("/etc/redhat-release", "AlmaLinux release 9.3 (Shamrock Pampas Cat)"),
                ],
                ("almalinux", Some((9, 3)), "AlmaLinux 9.3 (Shamrock Pampas Cat)"),
            ),
            (
                &[
                    (os, "ID=\"ol\"\nVERSION_ID=\"8.5\"\nPRETTY_NAME=\"Oracle Linux Server 8.5\""),
                    ("/etc/oracle-release", "Oracle Linux Server release 8.5"),
                ],
                ("oraclelinux", Some((8, 5)), "Oracle Linux Server release 8.5"),
            ),
            (
                &[(os, "ID=\"opensuse-leap\"\nVERSION_ID=\"15.5\"\nPRETTY_NAME=\"openSUSE Leap 15.5\"")],
                ("opensuse", Some((15, 5)), "openSUSE Leap 15.5"),
            ),
            (
                &[("/etc/SuSE-release", "openSUSE 13.1 (x86_64)\nVERSION = 13.1\nCODENAME = Bottle\n")],
                ("opensuse", Some((13, 1)), "openSUSE 13.1 (x86_64)"),
            ),
            (
                &[(
                    "/etc/SuSE-release",
                    "SUSE Linux Enterprise Server 11 (x86_64)\nVERSION = 11\nPATCHLEVEL = 4\n",
                )],
                ("sles", Some((11, 4)), "SUSE Linux Enterprise Server 11 (x86_64)"),
            ),
            (
                &[(
                    os,
                    "ID=\"sles\"\nVERSION_ID=\"15.5\"\nPRETTY_NAME=\"SUSE Linux Enterprise Server 15 SP5\"",
                )],
                ("sles", Some((15, 5)), "SUSE Linux Enterprise Server 15 SP5"),
            ),
            (
                &[(os, "ID=arch\nPRETTY_NAME=\"Arch Linux\"\nBUILD_ID=rolling"), ("/etc/arch-release", "")],
                ("archlinux", Some((0, 0)), "Arch Linux"),
            ),
            (&[("/etc/arch-release", "")], ("archlinux", None, "")),
            (
                &[(os, "ID=alpine\nVERSION_ID=3.19.1\nPRETTY_NAME=\"Alpine Linux v3.19\"")],
                ("alpinelinux", Some((3, 19)), "Alpine Linux v3.19"),
            ),
            (&[("/etc/alpine-release", "2.4.6\n")], ("alpinelinux", Some((2, 4)), "2.4.6")),
            (
                &[(os, "ID='gentoo'\nPRETTY_NAME='Gentoo Linux'\nVERSION_ID='2.14'")],
                ("gentoo", Some((2, 14)), "Gentoo Linux"),
            ),
            (
                &[
                    (os, "ID=slackware\nVERSION_ID=15.0\nPRETTY_NAME=\"Slackware 15.0 x86_64\""),
                    ("/etc/slackware-version", "Slackware 15.0"),
                ],
                ("slackware", Some((15, 0)), "Slackware 15.0"),
            ),
            (
                &[(os, "ID=mageia\nVERSION_ID=9\nPRETTY_NAME=\"Mageia 9\"")],
                ("mageia", Some((9, 0)), "Mageia 9"),
            ),
            (
                &[(os, "ID=altlinux\nVERSION_ID=10.1\nPRETTY_NAME=\"ALT Workstation 10.1 (Autolycus)\"")],
                ("altlinux", Some((10, 1)), "ALT Workstation 10.1 (Autolycus)"),
            ),
            (
                &[(os, "ID=kali\nVERSION_ID=\"2023.4\"\nPRETTY_NAME=\"Kali GNU/Linux Rolling\"")],
                ("kalilinux", Some((2023, 4)), "Kali GNU/Linux Rolling"),
            ),
            (
                &[
                    (
                        os,
                        "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_ID=\"21.2\"\nPRETTY_NAME=\"Linux Mint 21.2\"",
                    ),
                    (
                        "/etc/lsb-release",
                        "DISTRIB_ID=LinuxMint\nDISTRIB_RELEASE=21.2\nDISTRIB_DESCRIPTION=\"Linux Mint 21.2 Victoria\"",
                    ),
                ],
                ("linuxmint", Some((21, 2)), "Linux Mint 21.2 Victoria"),
            ),
            (&[(os, "ID=\"void\"\nPRETTY_NAME=\"Void Linux\"")], ("voidlinux", Some((0, 0)), "Void Linux")),
            (
                &[(os, "ID=\"openEuler\"\nVERSION_ID=\"22.03\"\nPRETTY_NAME=\"openEuler 22.03 LTS\"")],
                ("openeuler", Some((22, 3)), "openEuler 22.03 LTS"),
            ),
            (
                &[(
                    os,
                    "ID=\"amzn\"\nID_LIKE=\"centos rhel fedora\"\nVERSION_ID=\"2\"\nPRETTY_NAME=\"Amazon Linux 2\"",
                )],
                ("amazonlinux", Some((2, 0)), "Amazon Linux 2"),
            ),
            (
                &[
                    (os, "ID=\"cloudlinux\"\nVERSION_ID=\"8.8\"\nPRETTY_NAME=\"CloudLinux 8.8\""),
                    ("/etc/redhat-release", "CloudLinux release 8.8"),
                ],
                ("cloudlinux", Some((8, 8)), "CloudLinux 8.8"),
            ),
            (&[("/etc/br-version", "2018.11\n")], ("buildroot", Some((2018, 11)), "2018.11")),
            (
                &[("/etc/br-version", "2015.05\n"), ("/usr/share/cirros/logo", "C")],
                ("cirros", Some((2015, 5)), "2015.05"),
            ),
            (
                &[("/etc/pld-release", "3.0 PLD Linux (Th)\n")],
                ("pldlinux", Some((3, 0)), "3.0 PLD Linux (Th)"),
            ),
            (
                &[(os, "ID=homemade\nPRETTY_NAME=\"Mine 1.0\"\nVERSION_ID=1.0")],
                ("unknown", Some((1, 0)), "Mine 1.0"),
            ),
            (&[("/etc/fstab", "")], ("unknown", None, "")),
        ] {
            let (distro, version, product) = expected;
            assert_eq!(detected(files), (distro, version, product.to_owned()), "{files:?}");
        }
    }
}
