//! What the guest is, as far as changing it needs to know.

use super::crypt::Crypt;
use crate::inspect::{self, MountedSystem};
use crate::{Error, Guest, Result};

/// Distributions that keep their configuration in the same places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Debian,
    RedHat,
    Suse,
    Arch,
    Alpine,
    Gentoo,
    /// Any other, of which only what all have in common is known.
    Other,
}

/// The Linux system that is mounted.
pub(crate) struct System {
    pub(crate) family: Family,
    pub(crate) found: MountedSystem,
}

impl System {
    /// Looks at the mounted tree. Refused if it is not that of a Linux system.
    pub(crate) fn of(guest: &Guest) -> Result<Self> {
        guest.resolve("/".into())?;
        let found = inspect::mounted_system(guest.vfs()).ok_or_else(|| {
            let windows = ["/Windows/System32", "/windows/system32", "/WINDOWS/system32"]
                .iter()
                .any(|path| guest.resolve((*path).into()).is_ok());
            Error::Unsupported(
                match windows {
                    true => "customising Windows guests",
                    false => "customising what is mounted, which is not the root of a Linux system",
                }
                .into(),
            )
        })?;
        let family = family(found.distro, found.id_like.as_deref());
        Ok(Self { family, found })
    }

    /// How this version of the distribution hashes passwords, which it can check in any case.
    pub(crate) fn crypt(&self) -> Crypt {
        let major = self.found.version.0;
        match self.found.distro {
            Some("debian") if major >= 11 => Crypt::Yescrypt,
            Some("ubuntu") if major >= 22 => Crypt::Yescrypt,
            Some("fedora") if major >= 35 => Crypt::Yescrypt,
            Some("kalilinux") if major >= 2021 => Crypt::Yescrypt,
            Some("fedora") if (1..9).contains(&major) => Crypt::Md5,
            Some("debian") if (1..5).contains(&major) => Crypt::Md5,
            Some("ubuntu") if (1..10).contains(&major) => Crypt::Md5,
            Some("rhel" | "centos" | "scientificlinux" | "oraclelinux") if (1..6).contains(&major) => {
                Crypt::Md5
            }
            _ => Crypt::Sha512,
        }
    }

    /// A change that this guest's kind is not known well enough for.
    pub(crate) fn unsupported(&self, what: &str) -> Error {
        Error::Unsupported(format!("{what} in {}", self.found.name.escape_debug()))
    }
}

fn family(distro: Option<&str>, id_like: Option<&str>) -> Family {
    let by_name = |name: &str| match name {
        "debian" | "ubuntu" | "kalilinux" | "linuxmint" => Some(Family::Debian),
        "fedora" | "rhel" | "centos" | "circle" | "rocky" | "almalinux" | "scientificlinux"
        | "oraclelinux" | "redhat-based" | "amazonlinux" | "amzn" => Some(Family::RedHat),
        "opensuse" | "sles" | "suse-based" | "suse" => Some(Family::Suse),
        "archlinux" | "arch" => Some(Family::Arch),
        "alpinelinux" | "alpine" => Some(Family::Alpine),
        "gentoo" => Some(Family::Gentoo),
        _ => None,
    };
    let mut words = distro.into_iter().chain(id_like.into_iter().flat_map(str::split_whitespace));
    words.find_map(by_name).unwrap_or(Family::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // A derivative keeps its configuration where its parent does.
    fn families_follow_from_names_and_parents() {
        assert_eq!(family(Some("debian"), None), Family::Debian);
        assert_eq!(family(None, Some("ubuntu debian")), Family::Debian);
        assert_eq!(family(Some("almalinux"), Some("rhel centos fedora")), Family::RedHat);
        assert_eq!(family(Some("mageia"), Some("mandriva fedora")), Family::RedHat);
        assert_eq!(family(Some("voidlinux"), None), Family::Other);
    }
}
