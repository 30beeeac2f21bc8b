//! Keys by which users may log in.

use std::path::PathBuf;

use bstr::{BStr, BString, ByteSlice};

use super::{accounts, text};
use crate::vfs::join;
use crate::{Error, Guest, GuestPath, Result};

/// The longest file of keys, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The user's own public keys in `~/.ssh`, besides any other `id*.pub`.
const DEFAULT_KEYS: &[&str] = &["id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub", "id_dsa.pub"];

/// Where a public key comes from: virt-builder's SELECTOR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The public key of the user who runs this program: the newest `~/.ssh/id*.pub`, as `ssh-copy-id`.
    Default,
    /// These lines.
    Text(BString),
    /// A file of the host, in the form of `authorized_keys`.
    File(PathBuf),
}

impl KeySource {
    /// Reads `file:NAME` or `string:KEY`.
    pub fn parse(selector: &BStr) -> Result<Self> {
        if let Some(name) = selector.strip_prefix(b"file:") {
            let path = name.to_path().map(PathBuf::from);
            return path
                .map(Self::File)
                .map_err(|_| Error::Usage(format!("{:?}: not a path of this host", name.as_bstr())));
        }
        match selector.strip_prefix(b"string:") {
            Some(key) => Ok(Self::Text(key.into())),
            None => Err(Error::Usage(format!("{selector:?}: a key is given as file:NAME or string:KEY"))),
        }
    }

    /// The keys, one a line. `home` is the home directory of the user who runs this program.
    pub(crate) fn read(&self, home: Option<&std::path::Path>) -> Result<Vec<BString>> {
        let content = match self {
            Self::Text(key) => key.to_vec(),
            Self::File(path) => super::read_host(path, MAX_FILE)?,
            Self::Default => super::read_host(&default_key(home)?, MAX_FILE)?,
        };
        let keys: Vec<BString> =
            content.lines().map(ByteSlice::trim).filter(|line| !line.is_empty()).map(BString::from).collect();
        if keys.is_empty() {
            return Err(Error::Usage("there is no key in it".into()));
        }
        if let Some(private) = keys.iter().find(|key| key.starts_with(b"-----BEGIN")) {
            return Err(Error::Usage(format!(
                "{private}: that is a private key or a certificate; the public key is in the file with .pub"
            )));
        }
        Ok(keys)
    }
}

/// The newest `id*.pub` in `~/.ssh`, as `ssh-copy-id` takes it; among those of one age the better kind.
fn default_key(home: Option<&std::path::Path>) -> Result<PathBuf> {
    let Some(home) = home else {
        return Err(Error::Usage("no home directory is known: give the key as USER:file:NAME".into()));
    };
    let dir = home.join(".ssh");
    let names = std::fs::read_dir(&dir).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let keys = names.filter_map(|name| {
        let text = name.to_str()?;
        if !text.starts_with("id") || !text.ends_with(".pub") {
            return None;
        }
        let rank = DEFAULT_KEYS.iter().position(|known| *known == text).unwrap_or(DEFAULT_KEYS.len());
        let path = dir.join(&name);
        let modified = path.metadata().ok()?.modified().ok()?;
        Some((modified, std::cmp::Reverse(rank), path))
    });
    let newest = keys.max().map(|(_, _, path)| path);
    newest.ok_or_else(|| {
        Error::Usage(format!("{}: there is no id*.pub; give the key as USER:file:NAME", dir.display()))
    })
}

/// Adds keys to those that a user may log in with.
pub(crate) fn inject(guest: &mut Guest, user: &str, keys: &[BString]) -> Result<()> {
    let passwd = super::require(guest, "/etc/passwd")?;
    let user = accounts::users(&passwd)
        .into_iter()
        .find(|found| found.name == user)
        .ok_or_else(|| Error::Usage(format!("{user}: the guest has no such user in /etc/passwd")))?;
    if !user.home.starts_with(b"/") {
        return Err(Error::Usage(format!("{}: the user has no home directory", user.name)));
    }
    let (uid, gid) = (number(user.uid)?, number(user.gid)?);
    let dir = join(&user.home, ".ssh".into());
    if !super::exists(guest, &dir)? {
        if !super::exists(guest, &user.home)? {
            return Err(Error::Usage(format!(
                "{}: the home directory {} is not there",
                user.name, user.home
            )));
        }
        guest.mkdir_mode(GuestPath::new(&dir), 0o700)?;
        guest.chown(uid, gid, GuestPath::new(&dir))?;
    }
    let file = join(&dir, "authorized_keys".into());
    let old = super::read(guest, &file)?;
    let mut content = old.clone().unwrap_or_default();
    for key in keys {
        // A key is there once.
        if !content.lines().any(|line| line.trim() == key.as_slice()) {
            content = text::with_line(&content, key.as_bstr());
        }
    }
    if old.as_ref() == Some(&content) {
        return Ok(());
    }
    super::write(guest, &file, &content)?;
    if old.is_none() {
        guest.chmod(0o600, GuestPath::new(&file))?;
        guest.chown(uid, gid, GuestPath::new(&file))?;
    }
    Ok(())
}

/// libguestfs has owners as signed numbers.
fn number(id: u32) -> Result<i32> {
    i32::try_from(id).map_err(|_| Error::Usage(format!("{id}: the number of the owner is too large")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_text_files_and_the_home_directory() {
        let dir = testkit::tempdir();
        let ssh = dir.path().join(".ssh");
        std::fs::create_dir(&ssh).unwrap();
        assert!(KeySource::Default.read(Some(dir.path())).unwrap_err().to_string().contains("id*.pub"));
        std::fs::write(ssh.join("id_rsa"), "-----BEGIN OPENSSH PRIVATE KEY-----").unwrap();
        std::fs::write(ssh.join("id_rsa.pub"), "ssh-rsa AAAA me\n\n").unwrap();
        assert_eq!(KeySource::Default.read(Some(dir.path())).unwrap(), ["ssh-rsa AAAA me"]);
        assert!(KeySource::Default.read(None).is_err());
        let parse = |text: String| KeySource::parse(text.as_str().into());
        let private = parse(format!("file:{}", ssh.join("id_rsa").display())).unwrap();
        assert!(private.read(None).unwrap_err().to_string().contains("private key"));
        assert_eq!(parse("string:ssh-rsa A b".into()).unwrap().read(None).unwrap(), ["ssh-rsa A b"]);
        assert!(parse("ssh-rsa".into()).unwrap_err().to_string().contains("string:KEY"));
        assert!(parse("string:".into()).unwrap().read(None).is_err());
    }
}
