//! Setting up a guest without running any of its programs.

use std::path::PathBuf;

use bstr::{BStr, BString};
use vmcraft_macros::api;

use crate::customize::selinux::Which;
use crate::customize::{KeySource, Operation, Said, Selector, files, identity, selinux};
use crate::value::FileIn;
use crate::{Error, Guest, GuestPath, Result};

#[api(area = "customize")]
impl Guest {
    /// Set the name of the guest
    ///
    /// `name` is the name, or the name with its domain. It is set where the guest's distribution keeps it, and
    /// `/etc/hosts` gets it where the old name stands.
    ///
    /// ```guestfish
    /// hostname web1.example.com
    /// ```
    pub fn hostname(&mut self, name: &str) -> Result<()> {
        self.change_by(Operation::Hostname(name.to_owned()))
    }

    /// Set the time zone of the guest
    ///
    /// `zone` is a name such as `Europe/London`, which the guest must know: it is a file in its
    /// `/usr/share/zoneinfo`.
    ///
    /// ```guestfish
    /// timezone Europe/London
    /// ```
    pub fn timezone(&mut self, zone: &str) -> Result<()> {
        self.change_by(Operation::Timezone(zone.to_owned()))
    }

    /// Set the password of root
    ///
    /// `selector` is that of `password`.
    ///
    /// ```guestfish
    /// root-password password:secret
    /// ```
    pub fn root_password(&mut self, selector: &BStr) -> Result<Vec<BString>> {
        self.password("root", selector)
    }

    /// Set, disable or lock the password of a user
    ///
    /// `selector` is `password:TEXT`, `file:NAME` (the first line of a file of the host), `random` (a password
    /// is made and returned), `disabled` (no password is taken), `locked` (disabled and locked), or one of
    /// these after `locked:` (a password that counts once the account is unlocked). It is hashed as the
    /// guest's version does.
    ///
    /// ```guestfish
    /// password root random
    /// ```
    pub fn password(&mut self, user: &str, selector: &BStr) -> Result<Vec<BString>> {
        let operation = Operation::Password { user: user.to_owned(), selector: Selector::parse(selector)? };
        let mut made = Vec::new();
        self.change_with(operation, |said| made.push(BString::from(said)))?;
        Ok(made)
    }

    /// Let a user log in with a key
    ///
    /// `key` is a line as in a `.pub` file; it is added to the user's `.ssh/authorized_keys`.
    ///
    /// ```guestfish
    /// ssh-inject root "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGXDhWc8kLpO5oQrCbSkZmeAkQwKMq2WzPfKJcb2cDWL me@host"
    /// ```
    pub fn ssh_inject(&mut self, user: &str, key: &BStr) -> Result<()> {
        self.change_by(Operation::SshInject { user: user.to_owned(), key: KeySource::Text(key.to_owned()) })
    }

    /// Run a script when the guest boots next
    ///
    /// `script` is a file of the host, which is copied into the guest. It runs once, late in the boot, as root;
    /// what it prints goes to the console and to `/root/virt-sysprep-firstboot.log`. Several run in the order
    /// in which they were installed.
    ///
    /// ```guestfish
    /// firstboot setup.sh
    /// ```
    pub fn firstboot(&mut self, script: &FileIn) -> Result<()> {
        let FileIn::Path(path) = script else {
            return Err(Error::Usage(
                "-: a script has a name, so it cannot be read from standard input".into(),
            ));
        };
        self.change_by(Operation::Firstboot(PathBuf::from(path)))
    }

    /// Run a command when the guest boots next
    ///
    /// As `firstboot`, with a script that is this command.
    ///
    /// ```guestfish
    /// firstboot-command "useradd -m -p '' rjones ; chage -d 0 rjones"
    /// ```
    pub fn firstboot_command(&mut self, command: &BStr) -> Result<()> {
        self.change_by(Operation::FirstbootCommand(command.to_owned()))
    }

    /// Add a line to the end of a file
    ///
    /// A last line without an end gets one first. The line ends as the others of the file do, with a line feed,
    /// or with a carriage return before it. A file that is not there is made.
    ///
    /// ```guestfish
    /// append-line /etc/hosts "10.0.0.1 db"
    /// ```
    pub fn append_line(&mut self, path: &GuestPath, line: &BStr) -> Result<()> {
        files::append_line(self, path, line)
    }

    /// Remove files and directories by a pattern
    ///
    /// `pattern` is a path, in which `*`, `?`, `[…]` and `{…,…}` stand for names. Directories go with their
    /// content. A path without wildcards must be there.
    ///
    /// ```guestfish
    /// delete /var/log/*.log
    /// ```
    pub fn delete(&mut self, pattern: &GuestPath) -> Result<()> {
        self.atomically(|guest| files::delete(guest, pattern))
    }

    /// Empty all files below a directory
    ///
    /// Regular files keep their names, owners and permissions; all else stays as it is.
    ///
    /// ```guestfish
    /// truncate-recursive /var/log
    /// ```
    pub fn truncate_recursive(&mut self, path: &GuestPath) -> Result<()> {
        self.atomically(|guest| files::truncate_recursive(guest, path))
    }

    /// Give files the SELinux labels of a policy
    ///
    /// `specfile` is the policy's `file_contexts` in the guest; those beside it with `.homedirs`, `.local`,
    /// `.subs_dist` and `.subs` are heeded. `path` and all that is below it are labelled. With `force:true` labels
    /// are replaced whole, and also where an administrator may have chosen them; otherwise only the type
    /// changes. No program of the guest is run.
    ///
    /// ```guestfish
    /// selinux-relabel /etc/selinux/targeted/contexts/files/file_contexts / force:true
    /// ```
    pub fn selinux_relabel(
        &mut self,
        specfile: &GuestPath,
        path: &GuestPath,
        force: Option<bool>,
    ) -> Result<()> {
        let which = if force == Some(true) { Which::All } else { Which::Types };
        self.atomically(|guest| selinux::relabel(guest, specfile, path, which)).map(drop)
    }

    /// Set the machine ID, or have the guest make one
    ///
    /// `id` is 32 hexadecimal digits. Without it the ID is taken away, and the guest makes one at its next boot:
    /// copies of an image should not have the same.
    ///
    /// ```guestfish
    /// machine-id
    /// machine-id id:0123456789abcdef0123456789abcdef
    /// ```
    pub fn machine_id(&mut self, id: Option<&str>) -> Result<()> {
        self.atomically(|guest| identity::set_machine_id(guest, id))
    }
}

impl Guest {
    /// Makes one change as `customize` does, but nothing beside it.
    fn change_by(&mut self, operation: Operation) -> Result<()> {
        self.change_with(operation, |_| ())
    }

    /// The same, with what is done with the words that are a result.
    fn change_with(&mut self, operation: Operation, mut result: impl FnMut(&str)) -> Result<()> {
        self.customize_only(&[operation], &mut |said| {
            if let Said::Result(text) = said {
                result(text.rsplit(' ').next().unwrap_or(text));
            }
        })
    }
}
