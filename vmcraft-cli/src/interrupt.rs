//! ^C, which ends the call that is running, and the other signals that end a process.
//!
//! SIGINT is blocked in every thread but one that waits for it. The others have a handler, which gives the terminal its
//! settings back and nothing else. Programs that the shell starts get an unblocked mask from the standard library, and
//! no handlers.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};

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
    TAKEN_OVER.call_once(|| result = take_over_signals());
    result
}

/// Leaves the signals to somebody else, who calls [`terminal::give_back`] before they end the process.
pub(crate) fn leave_to_others() {
    TAKEN_OVER.call_once(|| {});
}

fn take_over_signals() -> io::Result<()> {
    for signal in [Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGTERM] {
        // One that whoever started us had ignored, as nohup does, stays so.
        if !is_ignored(signal)? {
            end_by(signal)?;
        }
    }
    if is_ignored(Signal::SIGINT)? {
        return Ok(());
    }
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    std::thread::Builder::new().name("interrupt".into()).spawn(move || {
        while signals.wait().is_ok() {
            if !interrupted() {
                terminal::give_back();
                // It has its usual effect, which ends the process.
                let _ = signals.thread_unblock();
                let _ = raise(Signal::SIGINT);
            }
        }
    })?;
    Ok(())
}

/// Whether a signal has no effect.
#[allow(unsafe_code)] // Only the C library tells what becomes of a signal.
fn is_ignored(signal: Signal) -> io::Result<bool> {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: without a new action nothing changes, and the old one is written to where there is room for it.
    let result = unsafe { libc::sigaction(signal as libc::c_int, ptr::null(), action.as_mut_ptr()) };
    Errno::result(result)?;
    // SAFETY: the call succeeded, so it has written the action.
    Ok(unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN)
}

/// Has a signal end the process with the terminal as it was. A handler does it, and no thread: it runs before a process
/// that was stopped in the background goes on, which would be stopped again at the terminal.
#[allow(unsafe_code)] // Handlers are installed in no other way.
fn end_by(signal: Signal) -> io::Result<()> {
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::SA_RESETHAND, SigSet::empty());
    // SAFETY: the handler takes no lock and no memory, and calls what may be called in one.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}

extern "C" fn end(signal: libc::c_int) {
    terminal::give_back();
    // It comes again after this handler, with its usual effect.
    let _ = Signal::try_from(signal).and_then(raise);
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
