//! The guest's name, time zone, machine ID and random seed.

use bstr::ByteSlice;

use super::system::{Family, System};
use super::text;
use crate::{Error, Guest, GuestPath, Result};

/// Sets the name of the guest, and has `/etc/hosts` know it by the new one.
pub(crate) fn set_hostname(guest: &mut Guest, system: &System, name: &str) -> Result<()> {
    check_hostname(name)?;
    let is_file = |guest: &Guest, path: &str| super::exists(guest, path.as_bytes());
    let has_systemd = system.found.init == Some("systemd");
    if system.family == Family::RedHat && !has_systemd {
        let path = "/etc/sysconfig/network";
        let content = super::read(guest, path)?.unwrap_or_default();
        super::write(guest, path, &text::with_assignment(&content, "HOSTNAME", name))?;
    } else if system.family == Family::Gentoo && !has_systemd {
        let path = "/etc/conf.d/hostname";
        let content = super::read(guest, path)?.unwrap_or_default();
        super::write(guest, path, &text::with_assignment(&content, "hostname", name))?;
    } else if system.family == Family::Suse && !has_systemd {
        super::write(guest, "/etc/HOSTNAME", format!("{name}\n").as_bytes())?;
    } else if has_systemd || system.family != Family::Other || is_file(guest, "/etc/hostname")? {
        super::write(guest, "/etc/hostname", format!("{name}\n").as_bytes())?;
        // Older openSUSE reads this one, where it is no link to the other.
        if system.family == Family::Suse && is_file(guest, "/etc/HOSTNAME")? {
            super::write(guest, "/etc/HOSTNAME", format!("{name}\n").as_bytes())?;
        }
    } else {
        return Err(system.unsupported("setting the name of the guest"));
    }
    let old = system.found.hostname.as_deref().unwrap_or_default();
    let is_common = old.is_empty() || old == "localhost" || old.starts_with("localhost.");
    if let Some(hosts) = super::read(guest, "/etc/hosts")?
        && !is_common
    {
        let mut changed = text::with_renamed_host(&hosts, old.into(), name.into());
        if let (Some((old, _)), Some((new, _))) = (old.split_once('.'), name.split_once('.')) {
            changed = text::with_renamed_host(&changed, old.into(), new.into());
        }
        if changed != hosts {
            super::write(guest, "/etc/hosts", &changed)?;
        }
    }
    Ok(())
}

/// Linux has names of at most 64 bytes; the characters are those of RFC 1123.
fn check_hostname(name: &str) -> Result<()> {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() <= 64 && name.split('.').all(is_label) {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{name:?}: not the name of a host: it has up to 64 letters, digits and hyphens, in parts with dots between"
    )))
}

/// Sets the time zone.
pub(crate) fn set_timezone(guest: &mut Guest, system: &System, zone: &str) -> Result<()> {
    let is_path = !zone.is_empty()
        && zone.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        && zone.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_-+".contains(&b));
    if !is_path {
        return Err(Error::Usage(format!("{zone:?}: not the name of a time zone, such as Europe/London")));
    }
    let file = format!("/usr/share/zoneinfo/{zone}");
    if !guest.is_file(GuestPath::new(&file), Some(true))? {
        let hint = match super::exists(guest, "/usr/share/zoneinfo")? {
            true => "",
            false => "; the guest has no time zones at all: package tzdata is missing",
        };
        return Err(Error::Usage(format!(
            "{zone}: the guest does not know this time zone: there is no {file}{hint}"
        )));
    }
    guest.ln_sf(file.as_bytes().as_bstr(), GuestPath::new("/etc/localtime"))?;
    // Debian's own tools read it here, and the others in shell assignments.
    if super::exists(guest, "/etc/timezone")? || system.family == Family::Debian {
        super::write(guest, "/etc/timezone", format!("{zone}\n").as_bytes())?;
    }
    for name in ["ZONE", "TIMEZONE"] {
        let path = "/etc/sysconfig/clock";
        let Some(content) = super::read(guest, path)? else { break };
        let has_it = content.lines().any(|line| line.trim_start().starts_with(format!("{name}=").as_bytes()));
        if has_it {
            super::write(guest, path, &text::with_assignment(&content, name, zone))?;
        }
    }
    Ok(())
}

/// Sets the machine ID, or takes it away so that the guest makes one of its own at its next boot.
pub(crate) fn set_machine_id(guest: &mut Guest, id: Option<&str>) -> Result<()> {
    if let Some(id) = id
        && !(id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
    {
        return Err(Error::Usage(format!("{id:?}: a machine ID is 32 digits of 0 to 9 and a to f")));
    }
    let content = id.map(|id| format!("{id}\n")).unwrap_or_default();
    if id.is_some() || super::exists(guest, "/etc/machine-id")? {
        super::write(guest, "/etc/machine-id", content.as_bytes())?;
    }
    // D-Bus had one of its own before systemd; where both are there this is a link to the other.
    let dbus = "/var/lib/dbus/machine-id";
    if guest.is_file(dbus.into(), Some(false))? {
        match id {
            Some(_) => super::write(guest, dbus, content.as_bytes())?,
            None => guest.rm_f(dbus.into())?,
        }
    }
    Ok(())
}

/// Where the distributions keep what the random number generator starts with.
const SEEDS: &[&str] = &[
    "/var/lib/systemd/random-seed",
    "/var/lib/random-seed",
    "/var/lib/urandom/random-seed",
    "/var/lib/misc/random-seed",
    "/var/lib/seedrng/seed.no-credit",
    "/var/lib/seedrng/seed.credit",
];

/// Gives the guest's random number generator a new start, so that guests made from one image differ. Says
/// whether the guest has a place for it.
pub(crate) fn set_random_seed(guest: &mut Guest, system: &System) -> Result<bool> {
    let mut is_set = false;
    for path in SEEDS {
        // A link that leads elsewhere is none of ours.
        if guest.is_file((*path).into(), Some(false))? {
            let seed = seed(guest);
            super::write(guest, path, &seed)?;
            is_set = true;
        }
    }
    if !is_set && system.found.init == Some("systemd") && super::exists(guest, "/var/lib/systemd")? {
        let seed = seed(guest);
        super::write(guest, SEEDS[0], &seed)?;
        guest.chmod(0o600, SEEDS[0].into())?;
        is_set = true;
    }
    Ok(is_set)
}

/// As many bytes as the kernel's pool has.
fn seed(guest: &Guest) -> Vec<u8> {
    guest.sources().random::<512>().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hosts_are_checked() {
        for name in ["a", "box.example.com", "x-1", &"a".repeat(63)] {
            assert!(check_hostname(name).is_ok(), "{name}");
        }
        for name in ["", ".", "a..b", "-a", "a b", "a\nb", &"a".repeat(64), "ä"] {
            assert!(check_hostname(name).is_err(), "{name}");
        }
    }
}
