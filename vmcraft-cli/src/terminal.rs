//! A terminal whose settings are others for a while, and which gets its own back however the process ends.
//!
//! A signal handler gives them back, so all that it looks at is atomic or never changes.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{self, FlushArg, SetArg, Termios};
use nix::unistd::{getpgrp, tcgetpgrp};

/// A terminal, and how it was.
struct Kept {
    terminal: File,
    /// Its device number.
    device: u64,
    before: libc::termios,
    /// What is written to it if it is not as it was.
    farewell: &'static str,
}

/// How many are kept. Questions at one terminal share one, unless a program that ran between them changed its settings;
/// after as many changes, a signal leaves the terminal as it then is.
const MOST: usize = 64;

static KEPT: [OnceLock<Kept>; MOST] = [const { OnceLock::new() }; MOST];
/// Which of them the terminal gets back now. There is one terminal, at which one question is asked at a time.
static CURRENT: AtomicUsize = AtomicUsize::new(MOST);
/// Whether the process ends: settings that change after that are taken back at once.
static ENDS: AtomicBool = AtomicBool::new(false);

/// Until this is dropped, a signal that ends the process has the terminal be as it was when this was made.
pub(crate) struct Settings {
    terminal: File,
    before: Termios,
}

impl Settings {
    /// Keeps the settings of a terminal. If it then has others, `farewell` is written to it at the end.
    pub(crate) fn keep(terminal: File, farewell: &'static str) -> std::io::Result<Self> {
        let before = termios::tcgetattr(&terminal)?;
        let device = terminal.metadata()?.rdev();
        let is_same = |kept: &Kept| {
            (kept.device, kept.farewell) == (device, farewell) && Termios::from(kept.before) == before
        };
        for (number, slot) in KEPT.iter().enumerate() {
            if slot.get().is_none() {
                let kept =
                    Kept { terminal: terminal.try_clone()?, device, before: before.clone().into(), farewell };
                let _ = slot.set(kept);
            }
            if slot.get().is_some_and(is_same) {
                CURRENT.store(number, Ordering::SeqCst);
                break;
            }
        }
        Ok(Self { terminal, before })
    }

    /// How the terminal was.
    pub(crate) fn before(&self) -> &Termios {
        &self.before
    }

    /// Changes them.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Termios)) -> nix::Result<()> {
        let mut settings = self.before.clone();
        change(&mut settings);
        let result = termios::tcsetattr(&self.terminal, SetArg::TCSAFLUSH, &settings);
        if ENDS.load(Ordering::SeqCst) {
            // They were given back before this.
            let _ = termios::tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before);
        }
        result
    }
}

impl Drop for Settings {
    fn drop(&mut self) {
        CURRENT.store(MOST, Ordering::SeqCst);
    }
}

/// Has the terminal be as it was, for a process that ends now. It waits for nothing, and may run in a signal handler.
pub(crate) fn give_back() {
    ENDS.store(true, Ordering::SeqCst);
    let Some(kept) = KEPT.get(CURRENT.load(Ordering::SeqCst)).and_then(OnceLock::get) else { return };
    let terminal = &kept.terminal;
    // Behind a job that has the terminal now, its settings are not ours.
    if tcgetpgrp(terminal) != Ok(getpgrp()) {
        return;
    }
    let before = Termios::from(kept.before);
    let is_changed = termios::tcgetattr(terminal).is_ok_and(|now| now.local_flags != before.local_flags);
    // What was typed so far would be shown. A terminal that went away shows nothing.
    let _ = termios::tcflush(terminal, FlushArg::TCIFLUSH);
    let _ = termios::tcsetattr(terminal, SetArg::TCSANOW, &before);
    // One that was stopped by ^S takes nothing.
    let mut room = [PollFd::new(terminal.as_fd(), PollFlags::POLLOUT)];
    if is_changed && poll(&mut room, PollTimeout::ZERO) == Ok(1) && room[0].any() == Some(true) {
        let mut out = terminal;
        let _ = out.write_all(kept.farewell.as_bytes());
    }
}
