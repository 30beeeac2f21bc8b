//! What a handle is told before it is launched.

use bstr::{BStr, BString, ByteSlice};

use crate::{Error, Result};

/// The settings that libguestfs's handles have.
///
/// Most are about its appliance, a virtual machine that there is none of here. They are kept so that
/// scripts can set and read them.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) verbose: bool,
    pub(crate) trace: bool,
    pub(crate) autosync: bool,
    pub(crate) program: String,
    pub(crate) identifier: String,
    pub(crate) pgroup: bool,
    pub(crate) path: String,
    pub(crate) memsize: i32,
    pub(crate) smp: i32,
    pub(crate) network: bool,
    pub(crate) backend: String,
    pub(crate) backend_settings: Vec<BString>,
    pub(crate) hypervisor: String,
    pub(crate) append: String,
    pub(crate) recovery_process: bool,
    pub(crate) selinux: bool,
    pub(crate) cachedir: String,
    pub(crate) tmpdir: String,
    pub(crate) sockdir: String,
    /// Permissions that new files do not get.
    pub(crate) umask: u32,
}

/// libguestfs's own, where it has one that does not name its files.
impl Default for Settings {
    fn default() -> Self {
        Self {
            verbose: false,
            trace: false,
            autosync: true,
            program: String::new(),
            identifier: String::new(),
            pgroup: false,
            path: String::new(),
            memsize: 1280,
            smp: 1,
            network: false,
            backend: "direct".into(),
            backend_settings: Vec::new(),
            hypervisor: String::new(),
            append: String::new(),
            recovery_process: true,
            selinux: false,
            cachedir: "/var/tmp".into(),
            tmpdir: "/tmp".into(),
            sockdir: "/tmp".into(),
            umask: 0o022,
        }
    }
}

/// The least memory that libguestfs's appliance starts with, in MiB.
const MIN_MEMSIZE: i32 = 256;

impl Settings {
    pub(crate) fn set_memsize(&mut self, mebibytes: i32) -> Result<()> {
        if mebibytes < MIN_MEMSIZE {
            return Err(Error::Usage(format!("memsize is at least {MIN_MEMSIZE}, not {mebibytes}")));
        }
        self.memsize = mebibytes;
        Ok(())
    }

    pub(crate) fn set_smp(&mut self, processors: i32) -> Result<()> {
        if !(1..=255).contains(&processors) {
            return Err(Error::Usage(format!("smp is from 1 to 255, not {processors}")));
        }
        self.smp = processors;
        Ok(())
    }

    pub(crate) fn set_backend(&mut self, backend: &str) -> Result<()> {
        let is_known = matches!(backend, "direct" | "appliance" | "libvirt")
            || backend.starts_with("libvirt:")
            || backend.starts_with("unix:");
        if !is_known {
            return Err(Error::Usage(format!(
                "{backend:?} is no backend: direct, libvirt and unix:PATH are"
            )));
        }
        // Its old name.
        self.backend = if backend == "appliance" { "direct" } else { backend }.to_owned();
        Ok(())
    }

    /// The place of the backend setting `NAME` or `NAME=…`.
    fn find_backend_setting(&self, name: &[u8]) -> Option<usize> {
        self.backend_settings.iter().position(|setting| value_of(setting, name).is_some())
    }

    pub(crate) fn backend_setting(&self, name: &[u8]) -> Option<&BStr> {
        self.backend_settings.iter().find_map(|setting| value_of(setting, name))
    }

    pub(crate) fn set_backend_setting(&mut self, name: &[u8], value: &[u8]) {
        self.clear_backend_setting(name);
        self.backend_settings.push([name, b"=", value].concat().into());
    }

    /// Returns how many there were.
    pub(crate) fn clear_backend_setting(&mut self, name: &[u8]) -> usize {
        let before = self.backend_settings.len();
        while let Some(index) = self.find_backend_setting(name) {
            self.backend_settings.remove(index);
        }
        before - self.backend_settings.len()
    }

    /// Takes one `NAME=VALUE` of an environment. What is not ours is left alone.
    pub(crate) fn set_from_environment(&mut self, variable: &BStr) -> Result<()> {
        let Some((name, value)) = variable.split_once_str("=") else { return Ok(()) };
        let (Ok(name), value) = (name.to_str(), value.to_str_lossy()) else { return Ok(()) };
        let wrong = |what: &str| Error::Usage(format!("{name}={value}: {what}"));
        let flag = || match &*value {
            "1" | "true" | "t" | "yes" | "y" | "on" => Ok(true),
            "0" | "false" | "f" | "no" | "n" | "off" => Ok(false),
            _ => Err(wrong("neither 0 nor 1")),
        };
        match name {
            "LIBGUESTFS_DEBUG" => self.verbose = flag()?,
            "LIBGUESTFS_TRACE" => self.trace = flag()?,
            "LIBGUESTFS_MEMSIZE" => {
                self.set_memsize(value.parse().map_err(|_| wrong("not a number of MiB"))?)
                    .map_err(|e| wrong(&e.to_string()))?;
            }
            "LIBGUESTFS_BACKEND" => self.set_backend(&value).map_err(|e| wrong(&e.to_string()))?,
            "LIBGUESTFS_BACKEND_SETTINGS" => {
                self.backend_settings = value.split(':').map(BString::from).collect();
            }
            "LIBGUESTFS_HV" | "LIBGUESTFS_QEMU" => self.hypervisor = value.into_owned(),
            "LIBGUESTFS_APPEND" => self.append = value.into_owned(),
            "LIBGUESTFS_PATH" => self.path = value.into_owned(),
            "LIBGUESTFS_CACHEDIR" => self.cachedir = value.into_owned(),
            "LIBGUESTFS_TMPDIR" => self.tmpdir = value.into_owned(),
            "XDG_RUNTIME_DIR" => self.sockdir = value.into_owned(),
            _ => {}
        }
        Ok(())
    }
}

/// The value of a setting if it is `NAME` (then it is `1`) or `NAME=VALUE`.
fn value_of<'a>(setting: &'a [u8], name: &[u8]) -> Option<&'a BStr> {
    match setting.strip_prefix(name)? {
        [] => Some("1".into()),
        [b'=', value @ ..] => Some(value.as_bstr()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // As libguestfs 1.48 answers.
    fn backend_settings_are_found_by_name() {
        let mut settings =
            Settings { backend_settings: vec!["a=b".into(), "c".into()], ..Settings::default() };
        assert_eq!(settings.backend_setting(b"a"), Some("b".into()));
        assert_eq!(settings.backend_setting(b"c"), Some("1".into()));
        assert_eq!(settings.backend_setting(b""), None);
        settings.set_backend_setting(b"c", b"d=e");
        assert_eq!(settings.backend_settings, ["a=b", "c=d=e"]);
        assert_eq!((settings.clear_backend_setting(b"a"), settings.clear_backend_setting(b"a")), (1, 0));
    }

    #[test] // A misspelt value must not be taken for the default.
    fn environment_sets_what_it_names() {
        let mut settings = Settings::default();
        let mut set = |variable: &str| settings.set_from_environment(variable.into());
        for good in
            ["LIBGUESTFS_DEBUG=1", "LIBGUESTFS_MEMSIZE=600", "LIBGUESTFS_BACKEND_SETTINGS=a:b", "HOME=/", "x"]
        {
            set(good).unwrap();
        }
        for bad in [
            "LIBGUESTFS_TRACE=maybe",
            "LIBGUESTFS_MEMSIZE=10",
            "LIBGUESTFS_MEMSIZE=x",
            "LIBGUESTFS_BACKEND=x",
        ] {
            assert!(set(bad).unwrap_err().to_string().starts_with(bad));
        }
        assert!(settings.verbose && !settings.trace);
        assert_eq!((settings.memsize, settings.backend_settings.len()), (600, 2));
    }
}
