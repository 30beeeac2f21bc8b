//! `--machine-readable`: what other programs read, in virt-resize's form.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{BorrowedFd, RawFd};

use jiff::Timestamp;
use nix::libc;
use serde_json::Value;

/// What this version can do, by virt-resize's names.
pub(super) const FEATURES: &[&str] =
    &["virt-resize", "32bitok", "128-sector-alignment", "alignment", "align-first", "infile-uri"];

/// Where messages for programs go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Machine {
    Stdout,
    Stderr,
    /// A descriptor that whoever started the program left open.
    Descriptor(RawFd),
    /// A file, which is made anew.
    File(String),
}

impl Machine {
    /// Reads what follows `--machine-readable=`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text.is_empty() => Ok(Self::Stdout),
            Some(("stream", "stdout")) => Ok(Self::Stdout),
            Some(("stream", "stderr")) => Ok(Self::Stderr),
            Some(("file", name)) if !name.is_empty() => Ok(Self::File(name.to_owned())),
            Some(("fd", number)) => match number.parse() {
                Ok(number) if number >= 0 => Ok(Self::Descriptor(number)),
                _ => Err(format!("{number:?} is not the number of a descriptor")),
            },
            _ => Err("not of the form fd:N, file:NAME, stream:stdout or stream:stderr".to_owned()),
        }
    }

    /// What leads there.
    pub(super) fn open(&self) -> io::Result<Box<dyn Write>> {
        Ok(match self {
            Self::Stdout => Box::new(io::stdout()),
            Self::Stderr => Box::new(io::stderr()),
            Self::Descriptor(number) => Box::new(inherited(*number)?),
            Self::File(name) => Box::new(File::create(name)?),
        })
    }
}

/// What a descriptor leads to that was open when the program was started.
#[allow(unsafe_code)] // The user gives it as a number.
fn inherited(number: RawFd) -> io::Result<File> {
    // SAFETY: this reads flags of the process, whatever the number is.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    // Those that the program opened itself, for which the number was free, are closed by exec.
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::other(format!("descriptor {number} is not open")));
    }
    // SAFETY: it is open, and nothing here closes a descriptor that it did not open.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    Ok(descriptor.try_clone_to_owned()?.into())
}

/// A message, as a line.
pub(super) fn line(kind: &str, text: &str, now: Timestamp) -> String {
    let text = Value::from(text);
    format!("{{ \"message\": {text}, \"timestamp\": \"{now:.9}\", \"type\": \"{kind}\" }}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_read() {
        for (text, expected) in [
            ("", Some(Machine::Stdout)),
            ("stream:stderr", Some(Machine::Stderr)),
            ("fd:7", Some(Machine::Descriptor(7))),
            ("file:a:b", Some(Machine::File("a:b".to_owned()))),
            ("file:", None),
            ("fd:x", None),
            ("fd:-1", None),
            ("json", None),
        ] {
            assert_eq!(Machine::parse(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn messages_are_json_on_a_line() {
        let now = Timestamp::new(1_600_000_000, 5).unwrap();
        let line = line("error", "a \"b\"\nc", now);
        assert_eq!(
            line,
            "{ \"message\": \"a \\\"b\\\"\\nc\", \"timestamp\": \"2020-09-13T12:26:40.000000005Z\", \"type\": \
             \"error\" }\n"
        );
        let json: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["message"], "a \"b\"\nc");
    }
}
