//! ^C: ends the call that is running, and the process if none is.
//!
//! The signal is blocked in every thread but one that waits for it, so no code runs in a signal
//! handler. Programs that the shell starts get an unblocked mask from the standard library.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use nix::sys::signal::{SigSet, Signal};

/// How a shell says that SIGINT ended a program.
pub(crate) const EXIT_STATUS: u8 = 128 + 2;

struct State {
    /// What a call looks at to see that it is to end.
    flag: Arc<AtomicBool>,
    /// How many commands run, one inside another.
    depth: usize,
    /// Whether the process outlives a ^C between commands.
    stays: bool,
}

static STATE: OnceLock<Mutex<State>> = OnceLock::new();

fn state() -> Option<MutexGuard<'static, State>> {
    STATE.get().map(|state| state.lock().unwrap_or_else(|e| e.into_inner()))
}

/// Takes over ^C. Called before the first thread is started, so that all have the signal blocked.
pub(crate) fn install(flag: Arc<AtomicBool>, stays: bool) -> io::Result<()> {
    if STATE.set(Mutex::new(State { flag, depth: 0, stays })).is_err() {
        return Ok(());
    }
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    std::thread::Builder::new().name("interrupt".into()).spawn(move || {
        while signals.wait().is_ok() {
            interrupted();
        }
    })?;
    Ok(())
}

/// The user pressed ^C.
fn interrupted() {
    let Some(state) = state() else { return };
    let again = state.depth > 0 && state.flag.swap(true, Ordering::Relaxed);
    // A second ^C is for calls that do not look at the flag in time.
    if again || (state.depth == 0 && !state.stays) {
        std::process::exit(EXIT_STATUS.into());
    }
}

/// Looks at another handle's flag from now on.
pub(crate) fn follow(flag: Arc<AtomicBool>) {
    if let Some(mut state) = state() {
        state.flag = flag;
    }
}

/// Ends the call that is running as ^C would. `false` if ^C still ends the process.
pub(crate) fn request() -> bool {
    let state = state();
    if let Some(state) = &state {
        state.flag.store(true, Ordering::Relaxed);
    }
    state.is_some()
}

/// Whether ^C came since the command began.
pub(crate) fn pending() -> bool {
    state().is_some_and(|state| state.flag.load(Ordering::Relaxed))
}

/// A command that is running.
pub(crate) struct Running(());

/// Says that a command runs, until the value is dropped: ^C now ends the command, not the process.
pub(crate) fn running() -> Running {
    if let Some(mut state) = state() {
        state.depth += 1;
    }
    Running(())
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut state) = state() {
            state.depth -= 1;
            if state.depth == 0 {
                state.flag.store(false, Ordering::Relaxed);
            }
        }
    }
}
