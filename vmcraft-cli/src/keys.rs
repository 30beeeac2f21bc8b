//! Keys of encrypted devices: from options, from standard input, and from who sits at the terminal.

use std::fs;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::os::fd::AsFd;

use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use vmcraft::Key;

use crate::error::{Result, message};

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
        let mut parts = option.splitn(3, ':');
        // What stands after the first colon may be the key.
        let (selector, kind, value) =
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next());
        let key = match (kind, value) {
            ("key", Some(text)) if !selector.is_empty() => Key::new(text.as_bytes().to_vec()),
            ("file", Some(name)) if !selector.is_empty() => key_of_file(name)?,
            ("env", Some(name)) if !selector.is_empty() => {
                let value = std::env::var_os(name).ok_or_else(|| {
                    message(format!("--key {selector}:env:{name}: there is no such variable"))
                })?;
                Key::new(value.into_encoded_bytes())
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

/// The content of a file without the newline at its end.
fn key_of_file(name: &str) -> Result<Key> {
    let cannot = |e: io::Error| message(format!("--key: {name}: {e}"));
    if fs::metadata(name).map_err(cannot)?.len() > MOST_BYTES {
        return Err(message(format!("--key: {name}: longer than {MOST_BYTES} bytes")));
    }
    let mut bytes = fs::read(name).map_err(cannot)?;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(Key::new(bytes))
}

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
    pub(crate) fn read(self, what: &str) -> Result<Key> {
        if self.from_stdin {
            let stdin = io::stdin();
            return self.ask(what, stdin.is_terminal(), &stdin, &mut stdin.lock());
        }
        let terminal = fs::OpenOptions::new().read(true).write(true).open("/dev/tty");
        let terminal = terminal.map_err(|_| {
            message(format!(
                "{what}: a key is needed, and there is no terminal to ask: use --key or --keys-from-stdin"
            ))
        })?;
        self.ask(what, true, &terminal, &mut BufReader::new(&terminal))
    }

    fn ask(
        self,
        what: &str,
        is_terminal: bool,
        terminal: &impl AsFd,
        input: &mut dyn BufRead,
    ) -> Result<Key> {
        let _hidden = if is_terminal {
            let mut out = io::stdout();
            let prompt = write!(out, "Enter key or passphrase (\"{what}\"): ").and_then(|()| out.flush());
            prompt.map_err(|e| message(format!("cannot ask for a key: {e}")))?;
            (!self.echo).then(|| Hidden::new(terminal)).flatten()
        } else {
            None
        };
        let mut line = Vec::with_capacity(512);
        let read = io::Read::take(input, MOST_BYTES).read_until(b'\n', &mut line);
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        // It is zeroed however this ends.
        let key = Key::new(line);
        match read {
            Ok(0) => Err(message(format!("{what}: a key is needed, and the input has ended"))),
            Ok(_) => Ok(key),
            Err(e) => Err(message(format!("cannot read the key of {what}: {e}"))),
        }
    }
}

/// A terminal that does not show what is typed, until this is dropped.
struct Hidden<'a, T: AsFd> {
    terminal: &'a T,
    before: Termios,
}

impl<'a, T: AsFd> Hidden<'a, T> {
    /// `None` if it is no terminal that can hide.
    fn new(terminal: &'a T) -> Option<Self> {
        let before = termios::tcgetattr(terminal).ok()?;
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        termios::tcsetattr(terminal, SetArg::TCSAFLUSH, &hidden).ok()?;
        Some(Self { terminal, before })
    }
}

impl<T: AsFd> Drop for Hidden<'_, T> {
    fn drop(&mut self) {
        // A terminal that went away shows nothing either.
        let _ = termios::tcsetattr(self.terminal, SetArg::TCSAFLUSH, &self.before);
        println!();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // A passphrase may have colons, and no message may have a passphrase.
    fn options_give_keys() {
        let option = KeyOption::parse("/dev/sda2:key:a:b c").unwrap();
        assert_eq!((option.selector.as_str(), option.key.as_bytes()), ("/dev/sda2", &b"a:b c"[..]));
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"secret\n\n").unwrap();
        let option = KeyOption::parse(&format!("all:file:{}", file.path().display())).unwrap();
        assert_eq!(option.key.as_bytes(), b"secret\n");
        for bad in ["", "secret", "all:secret", "all:key", ":key:secret", "all:clevis", "all:kez:secret"] {
            let error = KeyOption::parse(bad).unwrap_err().to_string();
            assert!(error.starts_with("--key"), "{bad}: {error}");
            assert!(!error.contains("secret"), "{bad}: {error}");
        }
    }
}
