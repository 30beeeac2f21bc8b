//! Keys of encrypted devices: from options, from standard input, and from who sits at the terminal.

mod prompt;

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufRead, IsTerminal, Read};
use std::os::fd::AsFd;

use vmcraft::Key;

use crate::error::{Error, Result, message};
use crate::input;

/// The longest key that is read: as cryptsetup's.
const MOST_BYTES: u64 = 8 << 20;

/// A key of the option `--key`, and the devices that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyOption {
    /// A device's name or UUID, or `all`.
    pub(crate) selector: String,
    pub(crate) key: Key,
}

impl KeyOption {
    /// Reads `ID:key:TEXT`, `ID:file:NAME` and `ID:env:VARIABLE`.
    pub(crate) fn parse(option: &str) -> Result<Self> {
        let (selector, rest) = split_selector(option);
        // What stands after the selector may be the key.
        let (kind, value) = rest.split_once(':').map_or((rest, None), |(kind, value)| (kind, Some(value)));
        let key = match (kind, value) {
            ("key", Some(text)) if !selector.is_empty() => Key::new(text.as_bytes().to_vec()),
            ("file", Some(name)) if !selector.is_empty() && !name.is_empty() => {
                key_of_file(name).map_err(|e| message(format!("--key {selector}:file:{name}: {e}")))?
            }
            ("env", Some(name)) if !selector.is_empty() && !name.is_empty() => {
                let refused = |why: &str| message(format!("--key {selector}:env:{name}: {why}"));
                let value = std::env::var_os(name)
                    .ok_or_else(|| refused("there is no such variable"))?
                    .into_encoded_bytes();
                if value.is_empty() {
                    // Whoever means the empty passphrase writes `key:`.
                    return Err(refused("the variable is empty"));
                }
                Key::new(value)
            }
            ("clevis", None) => {
                return Err(message(format!(
                    "--key {selector}:clevis: not supported: it asks servers of the guest's network for keys"
                )));
            }
            // What was given may be a passphrase: it is not shown.
            _ => {
                return Err(message(
                    "--key: not of the form ID:key:TEXT, ID:file:NAME or ID:env:VARIABLE, where ID is a device, \
                     a UUID or all",
                ));
            }
        };
        Ok(Self { selector: selector.to_owned(), key })
    }
}

/// The selector, and what follows its colon. The name of an array has a colon of its own in `/dev/md/HOST:NAME`. What
/// stands behind the next one may be a passphrase, and is not searched.
fn split_selector(option: &str) -> (&str, &str) {
    let is_kind = |rest: &str| ["key:", "file:", "env:"].iter().any(|kind| rest.starts_with(kind));
    let mut colons = option.match_indices(':').map(|(at, _)| at);
    let first = colons.next();
    let second = colons.next().filter(|at| is_kind(&option[at + 1..]));
    let colon = match first {
        Some(at) if option.starts_with("/dev/md/") && !is_kind(&option[at + 1..]) => second.or(first),
        _ => first,
    };
    colon.map_or((option, ""), |colon| (&option[..colon], &option[colon + 1..]))
}

/// The content of a file. The newline after a passphrase is not part of it; one at the end of random bytes is.
fn key_of_file(name: &str) -> std::result::Result<Key, String> {
    let cannot = |e: io::Error| e.to_string();
    let file = File::open(name).map_err(cannot)?;
    // What has no length, such as a pipe, is read as far as it goes.
    let len = file.metadata().map_err(cannot)?.len().min(MOST_BYTES);
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0).saturating_add(1));
    let read = file.take(MOST_BYTES + 1).read_to_end(&mut bytes);
    let is_text = std::str::from_utf8(&bytes).is_ok_and(|text| !text.contains('\0'));
    if is_text && bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    // It is zeroed however this ends.
    let key = Key::new(bytes);
    match read {
        Err(e) => Err(cannot(e)),
        Ok(0) => Err("it is empty".to_owned()),
        Ok(read) if read as u64 > MOST_BYTES => Err(format!("it is longer than {MOST_BYTES} bytes")),
        Ok(_) => Ok(key),
    }
}

/// Why no key was read.
#[derive(Debug)]
pub(crate) enum NoKey {
    /// The user pressed ^C.
    Interrupted,
    /// What the user should be told.
    Because(String),
}

impl NoKey {
    fn because(reason: impl Display) -> Self {
        Self::Because(reason.to_string())
    }

    /// As the error of something for which a key was needed.
    pub(crate) fn of(self, what: &str) -> Error {
        match self {
            Self::Interrupted => Error::Interrupted,
            Self::Because(reason) => message(format!("{what}: {reason}")),
        }
    }
}

impl Display for NoKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted"),
            Self::Because(reason) => f.write_str(reason),
        }
    }
}

const ENDED: &str = "a key is needed, and the input has ended";

/// Where keys come from that no option gave.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KeyReader {
    /// They are lines of standard input.
    pub(crate) from_stdin: bool,
    /// They are shown as they are typed.
    pub(crate) echo: bool,
}

impl KeyReader {
    /// Whether keys are read from an input at which nobody sits.
    pub(crate) fn asks_nobody(self) -> bool {
        self.from_stdin && !io::stdin().is_terminal()
    }

    /// Asks for a key: of the argument of a call, or of a device.
    pub(crate) fn read(self, what: &str) -> std::result::Result<Key, NoKey> {
        if self.asks_nobody() {
            return line_of(&mut *input::lines());
        }
        let terminal = if self.from_stdin {
            io::stdin().as_fd().try_clone_to_owned().map(File::from)
        } else {
            // Where standard output goes elsewhere, the question still comes to the terminal.
            File::options().read(true).write(true).open("/dev/tty")
        };
        let terminal = terminal.map_err(|_| {
            NoKey::because("a key is needed, and there is no terminal to ask: use --key or --keys-from-stdin")
        })?;
        prompt::ask(&terminal, &format!("Enter key or passphrase (\"{what}\"): "), self.echo)
    }
}

/// A line of an input at which nobody sits.
fn line_of(input: &mut dyn BufRead) -> std::result::Result<Key, NoKey> {
    let mut line = Vec::with_capacity(512);
    let read = io::Read::take(input, MOST_BYTES).read_until(b'\n', &mut line);
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    let key = Key::new(line);
    match read {
        Ok(0) => Err(NoKey::because(ENDED)),
        Ok(_) => Ok(key),
        Err(e) => Err(NoKey::because(format!("the key cannot be read: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // A passphrase may have colons, and no message may have a passphrase.
    fn options_give_keys() {
        let option = KeyOption::parse("/dev/sda2:key:a:b c").unwrap();
        assert_eq!((option.selector.as_str(), option.key.as_bytes()), ("/dev/sda2", &b"a:b c"[..]));
        let option = KeyOption::parse("/dev/md/host:name:key:a:file:b").unwrap();
        assert_eq!(
            (option.selector.as_str(), option.key.as_bytes()),
            ("/dev/md/host:name", &b"a:file:b"[..])
        );
        for bad in [
            "",
            "/dev/md/host:secret",
            "/dev/md/name:kez:secret:key:secret",
            "secret",
            "all:secret",
            "all:key",
            ":key:secret",
            "all:clevis",
            "all:kez:secret",
            "all:file:",
        ] {
            let error = KeyOption::parse(bad).unwrap_err().to_string();
            assert!(error.starts_with("--key"), "{bad}: {error}");
            assert!(!error.contains("secret"), "{bad}: {error}");
        }
    }
    #[test] // A file of random bytes can end with any.
    fn files_are_keys_without_the_newline_of_text() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let parse = |content: &[u8]| {
            std::fs::write(file.path(), content).unwrap();
            KeyOption::parse(&format!("all:file:{}", file.path().display()))
        };
        for (content, expected) in [
            (&b"secret"[..], &b"secret"[..]),
            (b"secret\n\n", b"secret\n"),
            (b"\xff\n", b"\xff\n"),
            (b"\0\n", b"\0\n"),
        ] {
            assert_eq!(parse(content).unwrap().key.as_bytes(), expected);
        }
        let error = parse(b"").unwrap_err().to_string();
        assert!(error.ends_with(": it is empty"), "{error}");
        let error = KeyOption::parse("all:file:/dev/zero").unwrap_err().to_string();
        assert_eq!(error, "--key all:file:/dev/zero: it is longer than 8388608 bytes");
    }
}
