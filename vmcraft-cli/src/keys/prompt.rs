//! A key that is typed at a terminal, which does not show it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::thread;
use std::time::Duration;

use nix::libc::_POSIX_VDISABLE;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::termios::{self, LocalFlags, SetArg, SpecialCharacterIndices};
use nix::unistd::Pid;
use vmcraft::Key;

use super::{ENDED, MOST_BYTES, NoKey};
use crate::interrupt;
use crate::terminal::Settings;

/// The process ends long before this is over.
const UNTIL_ENDED: Duration = Duration::from_secs(10);

/// Asks at a terminal until a line was typed. With `echo`, it is shown.
pub(super) fn ask(terminal: &File, question: &str, echo: bool) -> Result<Key, NoKey> {
    let failed = |e: io::Error| NoKey::Because(format!("cannot ask for a key at the terminal: {e}"));
    loop {
        let typing = Typing::begin(terminal, echo).map_err(failed)?;
        let mut out = terminal;
        out.write_all(question.as_bytes()).map_err(failed)?;
        match typing.line().map_err(failed)? {
            Typed::Line(key) => return Ok(key),
            Typed::End => return Err(NoKey::because(ENDED)),
            Typed::Interrupt => {
                drop(typing);
                if !interrupt::request() {
                    // It ends the process, and with it the others that the terminal would have told of it.
                    let _ = kill(Pid::from_raw(0), Signal::SIGINT);
                    // Where this thread has it blocked, another one waits for it and ends the process: nothing more is
                    // asked meanwhile.
                    if SigSet::thread_get_mask().is_ok_and(|blocked| blocked.contains(Signal::SIGINT)) {
                        thread::sleep(UNTIL_ENDED);
                    }
                }
                return Err(NoKey::Interrupted);
            }
            Typed::Suspend => {
                drop(typing);
                // When the process goes on, it asks again.
                kill(Pid::from_raw(0), Signal::SIGTSTP).map_err(|e| failed(e.into()))?;
            }
        }
    }
}

/// What was typed.
enum Typed {
    Line(Key),
    /// ^D.
    End,
    /// ^C.
    Interrupt,
    /// ^Z.
    Suspend,
}

/// A terminal at which a key is typed, until this is dropped. ^C and ^Z end the line meanwhile, and not the
/// process, and ^\ is a character: nothing would show again what is typed.
struct Typing<'a> {
    terminal: &'a File,
    echo: bool,
    /// A signal that ends the process must not leave it so.
    settings: Settings,
}

impl<'a> Typing<'a> {
    fn begin(terminal: &'a File, echo: bool) -> io::Result<Self> {
        use SpecialCharacterIndices::{VEOL, VEOL2, VINTR, VQUIT, VSUSP};
        let settings = Settings::keep(terminal.try_clone()?, "\n")?;
        let control_chars = settings.before().control_chars;
        settings.change(|typing| {
            if !echo {
                typing.local_flags.remove(LocalFlags::ECHO);
            }
            typing.local_flags.insert(LocalFlags::ICANON | LocalFlags::IEXTEN);
            for (signal, end) in [(VINTR, VEOL), (VSUSP, VEOL2)] {
                typing.control_chars[end as usize] = control_chars[signal as usize];
                typing.control_chars[signal as usize] = _POSIX_VDISABLE;
            }
            typing.control_chars[VQUIT as usize] = _POSIX_VDISABLE;
        })?;
        Ok(Self { terminal, echo, settings })
    }

    /// The next line.
    fn line(&self) -> io::Result<Typed> {
        let is = |byte: u8, index: SpecialCharacterIndices| {
            byte != _POSIX_VDISABLE && self.settings.before().control_chars.get(index as usize) == Some(&byte)
        };
        // The terminal's own limit: it is not moved, which would leave copies.
        let mut line = Vec::with_capacity(4096);
        let end = loop {
            let mut byte = [0];
            match self.terminal.take(MOST_BYTES - line.len() as u64).read_exact(&mut byte) {
                Ok(()) if byte == *b"\n" => break Ok(None),
                Ok(()) if is(byte[0], SpecialCharacterIndices::VINTR) => break Ok(Some(Typed::Interrupt)),
                Ok(()) if is(byte[0], SpecialCharacterIndices::VSUSP) => break Ok(Some(Typed::Suspend)),
                Ok(()) => line.extend(byte),
                Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => break Err(e),
                Err(_) if line.is_empty() => break Ok(Some(Typed::End)),
                Err(_) => break Ok(None),
            }
        };
        // It is zeroed however this ends.
        let key = Key::new(line);
        Ok(end?.unwrap_or(Typed::Line(key)))
    }
}

impl Drop for Typing<'_> {
    fn drop(&mut self) {
        // A terminal that went away shows nothing either.
        let _ = termios::tcsetattr(self.terminal, SetArg::TCSAFLUSH, self.settings.before());
        if !self.echo {
            let mut out = self.terminal;
            let _ = out.write_all(b"\n");
        }
    }
}
