//! Customising a guest without running any of its programs: what `vmcraft customize` and `vmcraft sysprep` do.
//!
//! Each change is an [`Operation`] under the name of virt-customize's option; [`Guest::customize`] makes a list of
//! them, all or none. What resets a guest before it is copied is in [`sysprep`].

pub mod accounts;
pub mod crypt;
pub(crate) mod files;
mod firstboot;
pub(crate) mod identity;
mod operation;
mod password;
pub mod perl;
pub mod selinux;
mod ssh;
pub mod sysprep;
mod system;
#[cfg(test)]
mod tests;
pub mod text;

use std::path::{Path, PathBuf};

use bstr::ByteSlice;

use self::crypt::Crypt;
pub use self::operation::{Meaning, OPTIONS, Operation, OptionRow};
pub use self::password::{Password, Selector};
use self::selinux::Which;
pub use self::ssh::KeySource;
use self::system::System;
use crate::value::FileIn;
use crate::{DeviceOrPath, Error, Guest, GuestPath, Result};

/// The largest file of a guest's configuration that is changed, in bytes.
const MAX_CONFIGURATION: u64 = 64 << 20;

/// What a change depends on beside the guest.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The home directory of the user who runs this program, where the default key for ssh is.
    pub home: Option<PathBuf>,
    /// Whether new files of a guest with SELinux are left without labels.
    pub no_selinux_labels: bool,
}

/// What is said while a guest is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said<'a> {
    /// What is done next.
    Step(&'a str),
    /// What the user must be told, such as a password that was made.
    Result(&'a str),
}

/// What is called with what is said.
pub type Say<'a> = dyn FnMut(Said<'_>) + 'a;

impl Guest {
    /// Makes changes to the guest that is mounted, all or none, in their order; passwords are set and files
    /// labelled last. The random number generator gets a new start in any case.
    ///
    /// What could be left out without harm becomes a warning ([`take_warnings`](Guest::take_warnings)).
    pub fn customize(
        &mut self,
        operations: &[Operation],
        options: &Options,
        say: &mut Say<'_>,
    ) -> Result<()> {
        let system = System::of(self)?;
        self.atomically(|guest| {
            say(Said::Step("Setting a random seed"));
            if !identity::set_random_seed(guest, &system)? {
                guest.warnings.push("the guest has no place for a random seed that is known".into());
            }
            Customization { guest, system: &system, options, say }.run(operations)
        })
    }

    /// Makes these changes and nothing beside them.
    pub(crate) fn customize_only(&mut self, operations: &[Operation], say: &mut Say<'_>) -> Result<()> {
        let system = System::of(self)?;
        let options = Options { no_selinux_labels: true, ..Options::default() };
        self.atomically(|guest| {
            Customization { guest, system: &system, options: &options, say }.run(operations)
        })
    }
}

/// Changes that are under way.
pub(crate) struct Customization<'a, 's> {
    pub(crate) guest: &'a mut Guest,
    pub(crate) system: &'a System,
    pub(crate) options: &'a Options,
    pub(crate) say: &'a mut Say<'s>,
}

impl Customization<'_, '_> {
    /// Says what is done next.
    pub(crate) fn step(&mut self, what: &str) {
        (self.say)(Said::Step(what));
    }

    /// Makes all the changes.
    pub(crate) fn run(&mut self, operations: &[Operation]) -> Result<()> {
        let mut passwords = Vec::new();
        let mut crypt = None;
        let mut which = Which::Missing;
        for operation in operations {
            match operation {
                Operation::Password { user, selector } => passwords.push((user, selector)),
                Operation::PasswordCrypto(method) => crypt = Some(*method),
                Operation::SelinuxRelabel => which = Which::All,
                operation => self.apply(operation)?,
            }
        }
        self.set_passwords(&passwords, crypt)?;
        if which == Which::All || !self.options.no_selinux_labels {
            self.label(which)?;
        }
        Ok(())
    }

    fn set_passwords(&mut self, passwords: &[(&String, &Selector)], crypt: Option<Crypt>) -> Result<()> {
        if !passwords.is_empty() {
            self.step("Setting passwords");
        }
        for (index, (user, selector)) in passwords.iter().enumerate() {
            // The last one that a user is given counts.
            if passwords[index + 1..].iter().any(|(later, _)| later == user) {
                continue;
            }
            if let Some(made) = password::set(self.guest, self.system, user, selector, crypt)? {
                (self.say)(Said::Result(&format!("Setting random password of {user} to {made}")));
            }
        }
        Ok(())
    }

    /// Gives labels to the files of a guest with SELinux. If that fails, the guest does it at its next boot.
    fn label(&mut self, which: Which) -> Result<()> {
        let policy = selinux::policy(self.guest)?;
        let Some(policy) = policy else {
            if which == Which::All {
                let nothing = "nothing was labelled: the guest has no SELinux (no /etc/selinux/config)";
                self.guest.warnings.push(nothing.into());
            }
            return Ok(());
        };
        if which == Which::All {
            self.step("SELinux relabelling");
        } else {
            let mode = self.system.found.selinux.as_ref().map(|selinux| selinux.mode.as_str());
            let root = self.guest.resolve("/".into())?;
            if mode.is_none_or(|mode| mode == "disabled") || !selinux::is_labelled(&root)? {
                return Ok(());
            }
        }
        let policy = GuestPath::new(&policy);
        let labelled = self.guest.atomically(|guest| selinux::relabel(guest, policy, "/".into(), which));
        match labelled {
            Ok(_) if which == Which::All => self.guest.rm_f("/.autorelabel".into()),
            Ok(_) => Ok(()),
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(e) => {
                self.guest
                    .warnings
                    .push(format!("files were not labelled, and the guest does it at its next boot: {e}"));
                self.guest.touch("/.autorelabel".into())
            }
        }
    }

    fn apply(&mut self, operation: &Operation) -> Result<()> {
        let system = self.system;
        match operation {
            Operation::AppendLine { path, line } => {
                self.step(&format!("Appending line to {path}"));
                files::append_line(self.guest, GuestPath::new(path), line.as_bstr())
            }
            Operation::Chmod { mode, path } => {
                self.step(&format!("Changing permissions of {path} to {mode:04o}"));
                // Checked when it was parsed.
                self.guest.chmod(i32::try_from(*mode).unwrap_or(0o7777), GuestPath::new(path))
            }
            Operation::Chown { uid, gid, path } => {
                self.step(&format!("Changing owner of {path} to {uid}.{gid}"));
                let number = |id: &u32| {
                    i32::try_from(*id)
                        .map_err(|_| Error::Usage(format!("--chown: {id}: the number is too large")))
                };
                self.guest.chown(number(uid)?, number(gid)?, GuestPath::new(path))
            }
            Operation::Copy { from, to } => {
                self.step(&format!("Copying (in image): {from} to {to}"));
                self.guest.cp_a(GuestPath::new(from), GuestPath::new(to))
            }
            Operation::CopyIn { local, directory } => {
                self.step(&format!("Copying: {} to {directory}", local.display()));
                self.guest.copy_in(host_name(local), GuestPath::new(directory))
            }
            Operation::Delete(pattern) => {
                self.step(&format!("Deleting: {pattern}"));
                files::delete(self.guest, GuestPath::new(pattern))
            }
            Operation::Edit { path, expression } => {
                self.step(&format!("Editing: {path}"));
                files::edit(self.guest, GuestPath::new(path), expression.as_bstr())
            }
            Operation::Firstboot(local) => {
                self.step(&format!("Installing firstboot script: {}", local.display()));
                let script = read_host(local, firstboot::MAX_SCRIPT)?;
                let name = local.file_name().unwrap_or_default().to_string_lossy();
                firstboot::add(self.guest, system, &name, &script)
            }
            Operation::FirstbootCommand(command) => {
                self.step(&format!("Installing firstboot command: {command}"));
                firstboot::add(self.guest, system, &command.to_str_lossy(), command)
            }
            Operation::FirstbootInstall(packages) => {
                self.step(&format!("Installing firstboot packages: {}", packages.join(" ")));
                let script = firstboot::install_script(system, packages)?;
                firstboot::add(
                    self.guest,
                    system,
                    &format!("install {}", packages.join(" ")),
                    script.as_bytes(),
                )
            }
            Operation::Hostname(name) => {
                self.step(&format!("Setting the hostname: {name}"));
                identity::set_hostname(self.guest, system, name)
            }
            Operation::Link { target, links } => {
                for link in links {
                    self.step(&format!("Linking: {link} -> {target}"));
                    self.guest.ln_sf(target.as_bstr(), GuestPath::new(link))?;
                }
                Ok(())
            }
            Operation::Mkdir(path) => {
                self.step(&format!("Making directory: {path}"));
                self.guest.mkdir_p(GuestPath::new(path))
            }
            Operation::Move { from, to } => {
                self.step(&format!("Moving: {from} -> {to}"));
                self.guest.mv(GuestPath::new(from), GuestPath::new(to))
            }
            Operation::Scrub(path) => {
                self.step(&format!("Scrubbing: {path}"));
                files::scrub(self.guest, GuestPath::new(path))
            }
            Operation::SshInject { user, key } => {
                self.step(&format!("SSH key inject: {user}"));
                let keys = key.read(self.options.home.as_deref())?;
                ssh::inject(self.guest, user, &keys)
            }
            Operation::TarIn { local, directory } => {
                self.step(&format!("Copying tar archive: {} to {directory}", local.display()));
                let archive = FileIn::Path(local.clone());
                let attributes = Some(true);
                self.guest.tar_in(&archive, GuestPath::new(directory), None, attributes, None, attributes)
            }
            Operation::Timezone(zone) => {
                self.step(&format!("Setting the timezone: {zone}"));
                identity::set_timezone(self.guest, system, zone)
            }
            Operation::Touch(path) => {
                self.step(&format!("Running touch: {path}"));
                self.guest.touch(GuestPath::new(path))
            }
            Operation::Truncate(path) => {
                self.step(&format!("Truncating: {path}"));
                self.guest.truncate(GuestPath::new(path))
            }
            Operation::TruncateRecursive(path) => {
                self.step(&format!("Recursively truncating: {path}"));
                files::truncate_recursive(self.guest, GuestPath::new(path))
            }
            Operation::Upload { local, path } => {
                self.step(&format!("Uploading: {} to {path}", local.display()));
                upload(self.guest, local, GuestPath::new(path))
            }
            Operation::Write { path, content } => {
                self.step(&format!("Writing: {path}"));
                write(self.guest, path, content)
            }
            // Taken together at the end.
            Operation::Password { .. } | Operation::PasswordCrypto(_) | Operation::SelinuxRelabel => Ok(()),
        }
    }
}

/// Copies a file of the host with its permissions, to a name or into a directory.
fn upload(guest: &mut Guest, local: &Path, path: &GuestPath) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(local).map_err(|source| cannot_read(local, source))?;
    let to = match guest.is_dir(path, Some(true))? {
        true => crate::vfs::join(path.as_ref(), host_name(Path::new(local.file_name().unwrap_or_default()))),
        false => path.as_bstr().to_owned(),
    };
    guest.upload(&FileIn::Path(local.to_owned()), DeviceOrPath::new(&to))?;
    guest.chmod(i32::try_from(metadata.mode() & 0o7777).unwrap_or(0o644), GuestPath::new(&to))?;
    let owner = i32::try_from(metadata.uid()).ok().zip(i32::try_from(metadata.gid()).ok());
    match owner {
        Some((uid, gid)) => guest.chown(uid, gid, GuestPath::new(&to)),
        None => Ok(()),
    }
}

fn host_name(path: &Path) -> &bstr::BStr {
    use std::os::unix::ffi::OsStrExt;
    path.as_os_str().as_bytes().into()
}

/// A file of the guest's configuration; `None` if it is not there.
pub(crate) fn read(guest: &Guest, path: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
    match require(guest, path) {
        Ok(content) => Ok(Some(content)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

/// A file of the guest's configuration, which must be there.
pub(crate) fn require(guest: &Guest, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
    guest.resolve(GuestPath::new(path.as_ref()))?.read_to_vec(MAX_CONFIGURATION)
}

/// Whether something is there, links followed.
pub(crate) fn exists(guest: &Guest, path: impl AsRef<[u8]>) -> Result<bool> {
    match guest.resolve(GuestPath::new(path.as_ref())) {
        Ok(_) => Ok(true),
        Err(e) if e.is_not_found() => Ok(false),
        Err(e) => Err(e),
    }
}

/// Replaces the content of a file, which keeps its owner, permissions and labels; makes it if it is not there.
pub(crate) fn write(guest: &mut Guest, path: impl AsRef<[u8]>, content: &[u8]) -> Result<()> {
    guest.write(GuestPath::new(path.as_ref()), content)
}

/// Reads a file of the host.
pub(crate) fn read_host(path: &Path, limit: u64) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut content = Vec::new();
    let file = std::fs::File::open(path).map_err(|source| cannot_read(path, source))?;
    file.take(limit + 1).read_to_end(&mut content).map_err(|source| cannot_read(path, source))?;
    if content.len() as u64 > limit {
        return Err(Error::Usage(format!("{}: the file is longer than {limit} bytes", path.display())));
    }
    Ok(content)
}

fn cannot_read(path: &Path, source: std::io::Error) -> Error {
    Error::Host { path: path.to_owned(), doing: "cannot read", source }
}
