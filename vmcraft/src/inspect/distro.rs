//! The distributions that have a name here, and what follows from the name.
//!
//! Names, package formats and package managers are those that libguestfs gives, as long as it knows
//! the distribution.

/// A distribution.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Distro {
    /// Its name as `inspect-get-distro` gives it.
    pub(crate) name: &'static str,
    /// The `ID`s of os-release that say it at once.
    ids: &'static [&'static str],
    /// The `ID`s of os-release that say it if no other release file says more: libguestfs does not
    /// know them, and takes the name and version of such guests from those other files.
    further_ids: &'static [&'static str],
    /// `DISTRIB_ID` of lsb-release.
    lsb_id: Option<&'static str>,
    /// The format of its packages.
    pub(crate) package_format: Option<&'static str>,
    package_management: Management,
}

/// What installs packages.
#[derive(Debug, PartialEq, Eq)]
enum Management {
    /// Nothing that has a name.
    None,
    /// Always the same.
    Always(&'static str),
    /// The Red Hat family: by the major version.
    RedHat,
    /// Fedora: by the major version, and by what is installed.
    Fedora,
    /// Amazon Linux, whose version is 2 or a year.
    Amazon,
}

/// A row without os-release `ID`s.
const BASE: Distro = Distro {
    name: "",
    ids: &[],
    further_ids: &[],
    lsb_id: None,
    package_format: None,
    package_management: Management::None,
};
const RPM: Distro = Distro { package_format: Some("rpm"), package_management: Management::RedHat, ..BASE };
const ZYPPER: Distro =
    Distro { package_format: Some("rpm"), package_management: Management::Always("zypper"), ..BASE };
const URPMI: Distro =
    Distro { package_format: Some("rpm"), package_management: Management::Always("urpmi"), ..BASE };
const DNF: Distro =
    Distro { package_format: Some("rpm"), package_management: Management::Always("dnf"), ..BASE };
const DEB: Distro =
    Distro { package_format: Some("deb"), package_management: Management::Always("apt"), ..BASE };
const PACMAN: Distro =
    Distro { package_format: Some("pacman"), package_management: Management::Always("pacman"), ..BASE };
const APK: Distro =
    Distro { package_format: Some("apk"), package_management: Management::Always("apk"), ..BASE };
const PISI: Distro =
    Distro { package_format: Some("pisi"), package_management: Management::Always("pisi"), ..BASE };
const XBPS: Distro =
    Distro { package_format: Some("xbps"), package_management: Management::Always("xbps"), ..BASE };
const PORTAGE: Distro =
    Distro { package_format: Some("ebuild"), package_management: Management::Always("portage"), ..BASE };

pub(crate) const ALPINE: &Distro = &Distro { name: "alpinelinux", ids: &["alpine"], ..APK };
pub(crate) const ALT: &Distro = &Distro {
    name: "altlinux",
    ids: &["altlinux"],
    package_format: Some("rpm"),
    package_management: Management::Always("apt"),
    ..BASE
};
pub(crate) const ARCH: &Distro = &Distro { name: "archlinux", ids: &["arch"], ..PACMAN };
pub(crate) const BUILDROOT: &Distro = &Distro { name: "buildroot", further_ids: &["buildroot"], ..BASE };
pub(crate) const CENTOS: &Distro = &Distro { name: "centos", ids: &["centos"], ..RPM };
pub(crate) const CIRCLE: &Distro = &Distro { name: "circle", ids: &["circle"], ..RPM };
pub(crate) const CIRROS: &Distro = &Distro { name: "cirros", further_ids: &["cirros"], ..BASE };
pub(crate) const COREOS: &Distro =
    &Distro { name: "coreos", ids: &["coreos"], further_ids: &["flatcar"], lsb_id: Some("CoreOS"), ..BASE };
pub(crate) const DEBIAN: &Distro = &Distro { name: "debian", ids: &["debian"], ..DEB };
pub(crate) const FEDORA: &Distro = &Distro {
    name: "fedora",
    ids: &["fedora"],
    package_format: Some("rpm"),
    package_management: Management::Fedora,
    ..BASE
};
pub(crate) const FRUGALWARE: &Distro = &Distro { name: "frugalware", ids: &["frugalware"], ..BASE };
pub(crate) const GENTOO: &Distro = &Distro { name: "gentoo", ids: &["gentoo"], ..PORTAGE };
pub(crate) const MANDRIVA: &Distro = &Distro { name: "mandriva", lsb_id: Some("MandrivaLinux"), ..URPMI };
pub(crate) const MEEGO: &Distro = &Distro {
    name: "meego",
    package_format: Some("rpm"),
    package_management: Management::Always("yum"),
    ..BASE
};
pub(crate) const OPENMANDRIVA: &Distro = &Distro { name: "openmandriva", ids: &["openmandriva"], ..DNF };
pub(crate) const OPENSUSE: &Distro = &Distro { name: "opensuse", ids: &["opensuse"], ..ZYPPER };
pub(crate) const ORACLE: &Distro = &Distro { name: "oraclelinux", further_ids: &["ol"], ..RPM };
pub(crate) const PARDUS: &Distro = &Distro { name: "pardus", ids: &["pardus"], ..PISI };
pub(crate) const PLD: &Distro = &Distro { name: "pldlinux", ids: &["pld"], ..BASE };
pub(crate) const REDHAT_BASED: &Distro = &Distro { name: "redhat-based", ..RPM };
pub(crate) const RHEL: &Distro = &Distro { name: "rhel", ids: &["rhel"], ..RPM };
pub(crate) const ROCKY: &Distro = &Distro { name: "rocky", ids: &["rocky"], ..RPM };
pub(crate) const SCIENTIFIC: &Distro =
    &Distro { name: "scientificlinux", further_ids: &["scientific"], ..RPM };
pub(crate) const SLACKWARE: &Distro = &Distro { name: "slackware", further_ids: &["slackware"], ..BASE };
pub(crate) const SLES: &Distro = &Distro {
    name: "sles",
    ids: &["sles", "sled"],
    further_ids: &["sle-micro", "sle_hpc", "sles_sap"],
    ..ZYPPER
};
pub(crate) const SUSE_BASED: &Distro = &Distro { name: "suse-based", ..ZYPPER };
pub(crate) const TTYLINUX: &Distro = &Distro { name: "ttylinux", ..BASE };
pub(crate) const UBUNTU: &Distro =
    &Distro { name: "ubuntu", ids: &["ubuntu"], lsb_id: Some("Ubuntu"), ..DEB };
pub(crate) const VOID: &Distro = &Distro { name: "voidlinux", ids: &["void"], ..XBPS };

/// All of them. Those that only stand here are known by their os-release alone.
const DISTROS: &[&Distro] = &[
    ALPINE,
    ALT,
    ARCH,
    BUILDROOT,
    CENTOS,
    CIRCLE,
    CIRROS,
    COREOS,
    DEBIAN,
    FEDORA,
    FRUGALWARE,
    GENTOO,
    MANDRIVA,
    MEEGO,
    OPENMANDRIVA,
    OPENSUSE,
    ORACLE,
    PARDUS,
    PLD,
    REDHAT_BASED,
    RHEL,
    ROCKY,
    SCIENTIFIC,
    SLACKWARE,
    SLES,
    SUSE_BASED,
    TTYLINUX,
    UBUNTU,
    VOID,
    &Distro { name: "kalilinux", ids: &["kali"], ..DEB },
    &Distro { name: "kylin", ids: &["kylin"], ..DEB },
    &Distro { name: "linuxmint", further_ids: &["linuxmint"], lsb_id: Some("LinuxMint"), ..DEB },
    &Distro { name: "mageia", ids: &["mageia"], lsb_id: Some("Mageia"), ..URPMI },
    &Distro { name: "neokylin", ids: &["neokylin"], ..DNF },
    &Distro { name: "openeuler", ids: &["openEuler"], ..DNF },
    &Distro { name: "almalinux", further_ids: &["almalinux"], ..RPM },
    &Distro {
        name: "amazonlinux",
        further_ids: &["amzn"],
        package_format: Some("rpm"),
        package_management: Management::Amazon,
        ..BASE
    },
    &Distro { name: "anolis", further_ids: &["anolis"], ..RPM },
    &Distro { name: "artixlinux", further_ids: &["artix"], ..PACMAN },
    &Distro { name: "azurelinux", further_ids: &["azurelinux", "mariner"], ..DNF },
    &Distro { name: "cloudlinux", further_ids: &["cloudlinux"], ..RPM },
    &Distro { name: "elementary", further_ids: &["elementary"], ..DEB },
    &Distro { name: "endeavouros", further_ids: &["endeavouros"], ..PACMAN },
    &Distro { name: "manjaro", further_ids: &["manjaro", "manjaro-arm"], ..PACMAN },
    &Distro { name: "nixos", further_ids: &["nixos"], ..BASE },
    &Distro { name: "openwrt", further_ids: &["openwrt"], ..BASE },
    &Distro { name: "photon", further_ids: &["photon"], ..DNF },
    &Distro { name: "popos", further_ids: &["pop"], ..DEB },
    &Distro { name: "postmarketos", further_ids: &["postmarketos"], ..APK },
    &Distro { name: "virtuozzo", further_ids: &["virtuozzo"], ..RPM },
    &Distro { name: "wolfi", further_ids: &["wolfi", "chainguard"], ..APK },
    &Distro { name: "zorin", further_ids: &["zorin"], ..DEB },
];

/// The distribution that an os-release `ID` says at once.
pub(crate) fn by_id(id: &str) -> Option<&'static Distro> {
    let listed = DISTROS.iter().find(|distro| distro.ids.contains(&id)).copied();
    listed.or_else(|| id.starts_with("opensuse-").then_some(OPENSUSE))
}

/// The distribution that an os-release `ID` says if nothing else does.
pub(crate) fn by_further_id(id: &str) -> Option<&'static Distro> {
    DISTROS.iter().find(|distro| distro.further_ids.contains(&id)).copied()
}

/// The distribution that a `DISTRIB_ID` of lsb-release says.
pub(crate) fn by_lsb_id(id: &str) -> Option<&'static Distro> {
    DISTROS.iter().find(|distro| distro.lsb_id == Some(id)).copied()
}

impl Distro {
    /// Whether it is released as it goes, without versions.
    pub(crate) fn is_rolling(&self) -> bool {
        [ARCH.name, GENTOO.name, VOID.name].contains(&self.name)
    }

    /// Whether it only says which family it is of.
    pub(crate) fn is_family(&self) -> bool {
        [REDHAT_BASED.name, SUSE_BASED.name].contains(&self.name)
    }

    /// What installs packages. `has_dnf` says whether dnf is there.
    pub(crate) fn package_management(&self, major: i32, has_dnf: impl Fn() -> bool) -> Option<&'static str> {
        match self.package_management {
            Management::None => None,
            Management::Always(name) => Some(name),
            Management::Fedora if major >= 22 && has_dnf() => Some("dnf"),
            Management::Fedora if major >= 1 => Some("yum"),
            Management::RedHat if major >= 8 => Some("dnf"),
            Management::RedHat if major >= 5 => Some("yum"),
            Management::RedHat if major >= 2 => Some("up2date"),
            Management::Amazon if (2022..).contains(&major) && major < 2100 => Some("dnf"),
            Management::Amazon => Some("yum"),
            // The release file gave no version.
            Management::Fedora | Management::RedHat => None,
        }
    }
}

/// The short identifier of osinfo-db, as libguestfs guesses it. `None` if there is nothing to go by.
pub(crate) fn osinfo(
    distro: Option<&Distro>,
    id: Option<&str>,
    (major, minor): (i32, i32),
) -> Option<String> {
    let name = distro?.name;
    match name {
        "centos" if major >= 8 => Some(format!("{name}{major}")),
        "centos" if major == 7 => Some(format!("{name}{major}.0")),
        "rocky" | "circle" | "almalinux" if major >= 8 => Some(format!("{name}{major}")),
        "debian" if major >= 4 => Some(format!("{name}{major}")),
        "fedora" | "mageia" => Some(format!("{name}{major}")),
        "sles" if minor == 0 => Some(format!("{name}{major}")),
        "sles" => Some(format!("{name}{major}sp{minor}")),
        "ubuntu" => Some(format!("{name}{major}.{minor:02}")),
        "archlinux" | "gentoo" | "voidlinux" => Some(name.to_owned()),
        "altlinux" if major >= 8 => Some(format!("alt{major}.{minor}")),
        // Its version is the day that it was installed, and osinfo-db has the one entry.
        "opensuse" if id == Some("opensuse-tumbleweed") => Some("opensusetumbleweed".to_owned()),
        _ if major > 0 || minor > 0 => Some(format!("{name}{major}.{minor}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // An ID in two rows would give whichever comes first.
    fn ids_are_unique() {
        let mut seen = std::collections::HashSet::new();
        for distro in DISTROS {
            assert!(seen.insert(distro.name), "{}", distro.name);
            for id in distro.ids.iter().chain(distro.further_ids).filter(|id| **id != distro.name) {
                assert!(seen.insert(id), "{id}");
            }
        }
    }

    #[test] // What libguestfs says of these versions.
    fn package_management_follows_the_version() {
        for (distro, major, has_dnf, expected) in [
            (FEDORA, 39, true, Some("dnf")),
            (FEDORA, 39, false, Some("yum")),
            (FEDORA, 18, true, Some("yum")),
            (FEDORA, 0, true, None),
            (RHEL, 9, true, Some("dnf")),
            (RHEL, 6, false, Some("yum")),
            (RHEL, 4, false, Some("up2date")),
            (DEBIAN, 0, false, Some("apt")),
            (ALT, 10, false, Some("apt")),
            (SLACKWARE, 15, false, None),
        ] {
            assert_eq!(distro.package_management(major, || has_dnf), expected, "{}{major}", distro.name);
        }
    }

    #[test] // The identifiers that virt-manager and virt-install take.
    fn osinfo_identifiers() {
        for (name, version, expected) in [
            ("debian", (12, 5), Some("debian12")),
            ("ubuntu", (22, 4), Some("ubuntu22.04")),
            ("fedora", (39, 0), Some("fedora39")),
            ("alpine", (3, 19), Some("alpinelinux3.19")),
            ("rhel", (9, 2), Some("rhel9.2")),
            ("centos", (7, 9), Some("centos7.0")),
            ("centos", (6, 5), Some("centos6.5")),
            ("rocky", (9, 4), Some("rocky9")),
            ("sles", (15, 5), Some("sles15sp5")),
            ("sles", (15, 0), Some("sles15")),
            ("opensuse-leap", (15, 6), Some("opensuse15.6")),
            ("opensuse-tumbleweed", (20240101, 0), Some("opensusetumbleweed")),
            ("arch", (0, 0), Some("archlinux")),
            ("altlinux", (10, 1), Some("alt10.1")),
            ("kali", (0, 0), None),
        ] {
            assert_eq!(osinfo(by_id(name), Some(name), version).as_deref(), expected, "{name}");
        }
    }
}
