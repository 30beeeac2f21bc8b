//! Standard output, or the pipe that stands in for it while a command's output goes elsewhere.
//!
//! What a guest holds may have been made to harm the terminal that shows it: control characters
//! never reach one. In text they become visible; binary data is refused.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use bstr::ByteSlice;
use nix::fcntl::{FcntlArg, fcntl};

const BUFFER_BYTES: usize = 64 << 10;

/// How much a pipe is to hold: an archive is then written while its reader works, and not by turns with it.
/// Any user may have as much.
const PIPE_BYTES: i32 = 1 << 20;

/// Where results go. Clones are the same output, so that what a call writes to `-` and what the
/// shell prints keep their order.
#[derive(Clone)]
pub(crate) struct Output {
    target: Arc<Mutex<Target>>,
    is_terminal: bool,
}

enum Target {
    Stdout(BufWriter<Stdout>),
    File(BufWriter<File>),
}

impl Output {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        widen(io::stdout());
        let target = Target::Stdout(BufWriter::with_capacity(BUFFER_BYTES, io::stdout()));
        Self { target: Arc::new(Mutex::new(target)), is_terminal: io::stdout().is_terminal() }
    }

    /// A file of the host, or the end of a pipe.
    pub(crate) fn file(file: File) -> Self {
        let is_terminal = file.is_terminal();
        widen(&file);
        let target = Target::File(BufWriter::with_capacity(BUFFER_BYTES, file));
        Self { target: Arc::new(Mutex::new(target)), is_terminal }
    }

    fn target(&self) -> MutexGuard<'_, Target> {
        self.target.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Another descriptor of the same file.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        match &*self.target() {
            Target::Stdout(_) => io::stdout().as_fd().try_clone_to_owned(),
            Target::File(file) => file.get_ref().as_fd().try_clone_to_owned(),
        }
    }

    /// Whether a person reads it.
    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Writes text of the guest, with its control characters made visible on a terminal.
    pub(crate) fn write_text(&mut self, text: &[u8]) -> io::Result<()> {
        if self.is_terminal { self.write_all(visible(text).as_bytes()) } else { self.write_all(text) }
    }
}

/// Makes a pipe hold more. What is no pipe, or may not, is used as it is.
fn widen(pipe: impl AsFd) {
    if fcntl(&pipe, FcntlArg::F_GETPIPE_SZ).is_ok_and(|bytes| bytes < PIPE_BYTES) {
        let _ = fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
    }
}

impl Write for Output {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut *self.target() {
            Target::Stdout(stdout) => stdout.write(buf),
            Target::File(file) => file.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut *self.target() {
            Target::Stdout(stdout) => stdout.flush(),
            Target::File(file) => file.flush(),
        }
    }
}

/// What a call writes to `-`: the output, which takes no binary data if it is a terminal.
pub(crate) struct Guarded(pub(crate) Output);

impl Write for Guarded {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.0.is_terminal && is_binary(buf) {
            return Err(io::Error::other(BINARY));
        }
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Why binary data is refused, and what to do.
pub(crate) const BINARY: &str = "binary data is not written to a terminal: put `| xxd` behind the command, \
    or name a file instead of -, as in `download PATH FILE`";

/// Whether bytes hold what is not text: control characters, or what is not UTF-8. A character that
/// is cut at either end does not count: the bytes may be part of a stream.
pub(crate) fn is_binary(bytes: &[u8]) -> bool {
    let start = bytes.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count();
    ByteSlice::utf8_chunks(&bytes[start..]).any(|chunk| {
        chunk.valid().chars().any(|c| is_control(c) && !matches!(c, '\r' | '\x0c'))
            || (!chunk.invalid().is_empty() && !chunk.incomplete())
    })
}

fn is_control(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\t')
}

/// Text as a terminal may show it: `\xNN` for the bytes of control characters, and for those that
/// are not UTF-8.
pub(crate) fn visible(text: &[u8]) -> String {
    let mut shown = String::with_capacity(text.len());
    let escape = |bytes: &[u8], shown: &mut String| {
        bytes.iter().for_each(|byte| shown.push_str(&format!("\\x{byte:02x}")));
    };
    for chunk in text.utf8_chunks() {
        let mut chars = chunk.valid().chars().peekable();
        while let Some(c) = chars.next() {
            // A line of a Windows guest ends in both.
            let ends_line = c == '\r' && chars.peek() == Some(&'\n');
            if is_control(c) && !ends_line {
                escape(c.encode_utf8(&mut [0; 4]).as_bytes(), &mut shown);
            } else {
                shown.push(c);
            }
        }
        escape(chunk.invalid(), &mut shown);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_with_control_characters_or_bad_utf8_is_binary() {
        for text in [&b"plain\r\n\ttext"[..], "größe".as_bytes(), b"", &"ö".as_bytes()[1..], b"a\xc3"] {
            assert!(!is_binary(text), "{:?}", text.as_bstr());
        }
        for binary in [&b"a\0b"[..], b"\x1b[31m", b"a\xffb", b"\x7fELF", "\u{9b}31m".as_bytes()] {
            assert!(is_binary(binary), "{:?}", binary.as_bstr());
        }
    }

    #[test] // A file name of the guest could otherwise clear the screen, or worse.
    fn control_characters_become_visible() {
        assert_eq!(visible(b"a\x1b[2J\r\n\tb\r\xff"), "a\\x1b[2J\r\n\tb\\x0d\\xff");
        assert_eq!(visible("ö\u{9b}".as_bytes()), "ö\\xc2\\x9b");
    }
}
