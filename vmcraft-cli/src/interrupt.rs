//! ^C, which ends the call that is running, and the other signals that end a process.
//!
//! The signals are blocked in every thread but one that waits for them, so no code runs in a signal
//! handler. Programs that the shell starts get an unblocked mask from the standard library.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, raise};

use crate::terminal;

/// How a shell says that SIGINT ended a program.
pub(crate) const EXIT_STATUS: u8 = 128 + 2;

struct State {
    /// What a call looks at to see that it is to end.
    flag: Arc<AtomicBool>,
    /// What a read looks at: a byte is in it from ^C until the command has ended.
    wakes: PipeWriter,
    /// Takes the byte out again.
    woken: PipeReader,
    is_awake: bool,
    /// How many commands run, one inside another.
    depth: usize,
    /// Whether the process outlives a ^C between commands.
    stays: bool,
}

impl State {
    /// Ends the call that is running, and what it reads. The answer is whether that was done before.
    fn interrupt(&mut self) -> bool {
        let again = self.flag.swap(true, Ordering::Relaxed);
        // An empty pipe has room for a byte.
        self.is_awake |= !self.is_awake && self.wakes.write_all(b"!").is_ok();
        again
    }

    /// What runs next is not interrupted.
    fn forget(&mut self) {
        self.flag.store(false, Ordering::Relaxed);
        self.is_awake &= self.is_awake && self.woken.read_exact(&mut [0]).is_err();
    }
}

static STATE: OnceLock<Mutex<State>> = OnceLock::new();
/// The other end of what reads look at.
static WOKEN: OnceLock<PipeReader> = OnceLock::new();
static TAKEN_OVER: Once = Once::new();

fn state() -> Option<MutexGuard<'static, State>> {
    STATE.get().map(|state| state.lock().unwrap_or_else(|e| e.into_inner()))
}

/// Takes over the signals that end a process, so that a terminal is left as it was. Called before the first thread
/// is started, so that all have them blocked.
pub(crate) fn take_over() -> io::Result<()> {
    let mut result = Ok(());
    TAKEN_OVER.call_once(|| result = wait_for_signals());
    result
}

/// Leaves the signals to somebody else, who calls [`terminal::give_back`] before they end the process.
pub(crate) fn leave_to_others() {
    TAKEN_OVER.call_once(|| {});
}

fn wait_for_signals() -> io::Result<()> {
    let ignored = ignored();
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        // One that whoever started us had ignored, as nohup does, would come if it were blocked.
        if ignored & (1 << (signal as u32 - 1)) == 0 {
            signals.add(signal);
        }
    }
    signals.thread_block()?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        while let Ok(signal) = signals.wait() {
            if signal == Signal::SIGINT && interrupted() {
                continue;
            }
            terminal::give_back();
            // It has its usual effect, which ends the process.
            let _ = signals.thread_unblock();
            let _ = raise(signal);
        }
    })?;
    Ok(())
}

/// The signals that are ignored, bit by bit: the lowest is signal 1. Where there is no `/proc`, as in some rescue
/// systems, none is known to be.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Lets ^C end calls by this flag from now on. Between commands it ends the process, unless that stays.
pub(crate) fn install(flag: Arc<AtomicBool>, stays: bool) -> io::Result<()> {
    let (woken, wakes) = io::pipe()?;
    let reader = woken.try_clone()?;
    if STATE.set(Mutex::new(State { flag, wakes, woken, is_awake: false, depth: 0, stays })).is_ok() {
        let _ = WOKEN.set(reader);
    }
    Ok(())
}

/// The user pressed ^C. Whether the process goes on.
fn interrupted() -> bool {
    let Some(mut state) = state() else { return false };
    // A second ^C is for calls that do not look at the flag in time.
    let ends = if state.depth == 0 { !state.stays } else { state.interrupt() };
    if ends {
        terminal::give_back();
        std::process::exit(EXIT_STATUS.into());
    }
    true
}

/// Looks at another handle's flag from now on.
pub(crate) fn follow(flag: Arc<AtomicBool>) {
    if let Some(mut state) = state() {
        // What came shortly before is not lost.
        flag.fetch_or(state.depth > 0 && state.flag.load(Ordering::Relaxed), Ordering::Relaxed);
        state.flag = flag;
    }
}

/// Ends the call that is running as ^C would. `false` if ^C still ends the process.
pub(crate) fn request() -> bool {
    let state = state();
    state.map(|mut state| state.interrupt()).is_some()
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

/// Says that from here to the end of the process, everything is as one command. Who runs it looks at [`pending`]
/// before each of its steps.
pub(crate) fn running_to_the_end() {
    std::mem::forget(running());
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut state) = state() {
            state.depth -= 1;
            if state.depth == 0 {
                state.forget();
            }
        }
    }
}

/// Something whose reads ^C ends with an error, also where it has nothing to give.
pub(crate) struct Interruptible<R>(pub(crate) R);

impl<R: Read + AsFd> Read for Interruptible<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        wait_for(&self.0)?;
        self.0.read(buf)
    }
}

/// Waits until there is something to read. ^C ends it with an error.
pub(crate) fn wait_for(source: &impl AsFd) -> io::Result<()> {
    let Some(woken) = WOKEN.get() else { return Ok(()) };
    loop {
        let mut both = [woken.as_fd(), source.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut both, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
            Ok(_) if both[0].any() == Some(true) => return Err(io::Error::other("interrupted")),
            Ok(_) => return Ok(()),
        }
    }
}
