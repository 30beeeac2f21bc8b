//! A terminal whose settings are others for a while, and which gets its own back however the process ends.

use std::fs::File;
use std::io::Write;
use std::sync::{Mutex, MutexGuard};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::termios::{self, FlushArg, SetArg, Termios};

/// A terminal, and how it was.
struct Kept {
    terminal: File,
    before: Termios,
    /// What is written to it if it is not as it was.
    farewell: &'static str,
}

/// There is one terminal, at which one question is asked at a time.
static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

fn kept() -> MutexGuard<'static, Option<Kept>> {
    KEPT.lock().unwrap_or_else(|e| e.into_inner())
}

/// Until this is dropped, a signal that ends the process has the terminal be as it was when this was made.
pub(crate) struct Settings(());

impl Settings {
    /// Keeps the settings of a terminal. If it then has others, `farewell` is written to it at the end.
    pub(crate) fn keep(terminal: File, farewell: &'static str) -> nix::Result<Self> {
        let before = termios::tcgetattr(&terminal)?;
        *kept() = Some(Kept { terminal, before, farewell });
        Ok(Self(()))
    }

    /// Changes them.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Termios)) -> nix::Result<()> {
        // Held meanwhile, so that nothing is changed after it was given back.
        match &*kept() {
            None => Ok(()),
            Some(Kept { terminal, before, .. }) => {
                let mut settings = before.clone();
                change(&mut settings);
                termios::tcsetattr(terminal, SetArg::TCSAFLUSH, &settings)
            }
        }
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        *kept() = None;
    }
}

/// Has the terminal be as it was, for a process that ends now: nobody changes it again.
pub(crate) fn give_back() {
    let kept = kept();
    if let Some(Kept { terminal, before, farewell }) = &*kept {
        // Somebody else may have the terminal already: this must not stop us.
        let mut stop = SigSet::empty();
        stop.add(Signal::SIGTTOU);
        let _ = stop.thread_block();
        let is_changed = termios::tcgetattr(terminal).is_ok_and(|now| now.local_flags != before.local_flags);
        // What was typed so far would be shown. A terminal that went away shows nothing.
        let _ = termios::tcflush(terminal, FlushArg::TCIFLUSH);
        let _ = termios::tcsetattr(terminal, SetArg::TCSANOW, before);
        if is_changed {
            let mut out = terminal;
            let _ = out.write_all(farewell.as_bytes());
        }
    }
    std::mem::forget(kept);
}
