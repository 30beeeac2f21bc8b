//! Setting and locking passwords.

use std::path::PathBuf;

use bstr::{BStr, BString, ByteSlice};
use vmcraft_fs::Sources;

use super::accounts;
use super::crypt::Crypt;
use super::system::System;
use crate::{Error, Guest, Result};

/// The longest file that a password is read from, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// What a password is to be: virt-builder's SELECTOR.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    /// Whether the account is locked, so that the password counts only once it is unlocked.
    pub is_locked: bool,
    /// The password.
    pub password: Password,
}

/// A password.
#[derive(Clone, PartialEq, Eq)]
pub enum Password {
    /// This one.
    Text(BString),
    /// One that is made, and reported.
    Random,
    /// None: no password lets anybody in.
    Disabled,
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Text(_) => "Text(…)",
            Self::Random => "Random",
            Self::Disabled => "Disabled",
        })
    }
}

impl Selector {
    /// Reads `password:TEXT`, `file:NAME`, `random`, `disabled`, and each of them after `locked:`. A file is
    /// read now, of which the first line counts.
    pub fn parse(selector: &BStr) -> Result<Self> {
        let (is_locked, rest) = match selector.strip_prefix(b"locked") {
            Some(b"") => return Ok(Self { is_locked: true, password: Password::Disabled }),
            Some(rest) if rest.starts_with(b":") => (true, &rest[1..]),
            _ => (false, selector.as_bytes()),
        };
        let password = if let Some(text) = rest.strip_prefix(b"password:") {
            Password::Text(text.into())
        } else if let Some(name) = rest.strip_prefix(b"file:") {
            let path = name.to_path().map(PathBuf::from);
            let path =
                path.map_err(|_| Error::Usage(format!("{:?}: not a path of this host", name.as_bstr())))?;
            let content = super::read_host(&path, MAX_FILE)?;
            Password::Text(content.lines().next().unwrap_or_default().into())
        } else if rest == b"random" {
            Password::Random
        } else if rest == b"disabled" {
            Password::Disabled
        } else {
            // The rest may hold a password, which must not stand in a message.
            return Err(Error::Usage(
                "a password is given as password:TEXT, file:NAME, random, disabled, locked, or one of them after \
                 locked:"
                    .into(),
            ));
        };
        match &password {
            Password::Text(text) if text.contains(&0) || text.contains(&b'\n') => {
                Err(Error::Usage("a password has no line feed and no NUL in it".into()))
            }
            _ => Ok(Self { is_locked, password }),
        }
    }
}

/// Sets the password of a user. A password that was made is returned.
pub(crate) fn set(
    guest: &mut Guest,
    system: &System,
    user: &str,
    selector: &Selector,
    crypt: Option<Crypt>,
) -> Result<Option<String>> {
    let sources = guest.sources();
    let made = (selector.password == Password::Random).then(|| random_password(&sources));
    let text = match (&selector.password, &made) {
        (Password::Text(text), _) => Some(text.as_bytes()),
        (_, made) => made.as_ref().map(String::as_bytes),
    };
    let hash =
        text.map(|text| crypt.unwrap_or_else(|| system.crypt()).hash(text, sources.random())).transpose()?;
    let field = match (hash, selector.is_locked) {
        (Some(hash), false) => hash,
        (Some(hash), true) => format!("!!{hash}"),
        (None, false) => "*".to_owned(),
        (None, true) => "!!*".to_owned(),
    };
    let passwd = super::require(guest, "/etc/passwd")?;
    let user: &BStr = user.into();
    if !accounts::users(&passwd).iter().any(|found| found.name == user) {
        return Err(Error::Usage(format!("{user}: the guest has no such user in /etc/passwd")));
    }
    let change = |_: &BStr| BString::from(field.as_str());
    if let Some(shadow) = super::read(guest, "/etc/shadow")?
        && let Some(changed) = accounts::with_password(&shadow, user, change)
    {
        super::write(guest, "/etc/shadow", &changed)?;
        return Ok(made);
    }
    // Without a line in /etc/shadow the password is where it was before there were shadows.
    let changed = accounts::with_password(&passwd, user, |old| match old.as_bytes() {
        b"x" => old.to_owned(),
        _ => change(old),
    });
    match changed {
        Some(changed) if changed != passwd => super::write(guest, "/etc/passwd", &changed).map(|()| made),
        _ => Err(Error::Usage(format!(
            "{user}: the user's password is to be in /etc/shadow, which has no line for it"
        ))),
    }
}

/// A password of 20 letters and digits, of which each is one of 62: 119 bits.
fn random_password(sources: &Sources) -> String {
    const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut password = String::new();
    while password.len() < 20 {
        // One byte at a time: longer runs of the source have bits that are fixed.
        let [byte] = sources.random::<1>();
        // All of them are as likely only below a multiple of 62.
        if byte < 248 {
            password.push(char::from(ALPHABET[usize::from(byte % 62)]));
        }
    }
    password
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_those_of_virt_builder() {
        let parse = |text: &str| Selector::parse(text.into()).unwrap();
        let selector = |is_locked, password| Selector { is_locked, password };
        assert_eq!(parse("password:a:b"), selector(false, Password::Text("a:b".into())));
        assert_eq!(parse("random"), selector(false, Password::Random));
        assert_eq!(parse("locked"), selector(true, Password::Disabled));
        assert_eq!(parse("locked:disabled"), selector(true, Password::Disabled));
        assert_eq!(parse("locked:password:x"), selector(true, Password::Text("x".into())));
        let dir = testkit::tempdir();
        let file = dir.path().join("p");
        std::fs::write(&file, "first\nsecond\n").unwrap();
        assert_eq!(
            parse(&format!("file:{}", file.display())),
            selector(false, Password::Text("first".into()))
        );
        let refused = Selector::parse("hunter2".into()).unwrap_err().to_string();
        assert!(refused.contains("password:TEXT") && !refused.contains("hunter2"));
        assert!(!format!("{:?}", parse("password:hunter2")).contains("hunter2"));
    }

    #[test] // A fixed source of random bytes must not hang it, as long as some of them are usable.
    fn random_passwords_are_letters_and_digits() {
        let next = std::sync::atomic::AtomicU8::new(0);
        let sources = Sources::default();
        let fixed = Sources::new(Default::default, move |bytes| {
            bytes.fill_with(|| next.fetch_add(51, std::sync::atomic::Ordering::Relaxed));
        });
        for sources in [sources, fixed] {
            let password = random_password(&sources);
            assert_eq!(password.len(), 20);
            assert!(password.bytes().all(|b| b.is_ascii_alphanumeric()), "{password}");
        }
    }
}
