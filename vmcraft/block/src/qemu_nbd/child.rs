//! The process: started with its socket, ended with us.
//!
//! The socket listens, and our connection waits in it, before the child runs; the child inherits it
//! (systemd's socket activation, which `qemu-nbd` takes part in). So nobody waits for a socket to
//! appear, and its name is gone from the file system before the child has begun. A child that fails
//! closes the socket, which ends the handshake at once.
//!
//! The child dies with us, even if we are killed: the kernel sends it a signal when the thread that
//! started it ends. That is why a thread of its own starts it, and stays until it has ended. Apart
//! from that it ends by itself when its only client disconnects.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, getpid, getppid};

/// How much of what the child says is kept, from the end, in bytes.
const WORDS_KEPT: usize = 16 << 10;
/// The status with which a shell ends that does not find the program.
const NOT_FOUND: i32 = 127;

/// Gives the child its socket as descriptor 3, which is where systemd puts it. The process stays the
/// shell's own, which is how `LISTEN_PID` can be right.
const SCRIPT: &str = "export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$@\" 3<&0 </dev/null";
/// The first descriptor that a shell has no use of its own for.
const FIRST_PRIVATE_FD: i32 = 10;

/// A file for the child that has no name in the file system.
pub(crate) struct PrivateFile(OwnedFd);

impl PrivateFile {
    /// A file with these bytes.
    pub(crate) fn new(bytes: &[u8]) -> io::Result<Self> {
        let mut file = tempfile::tempfile()?;
        file.write_all(bytes)?;
        let fd = fcntl(&file, FcntlArg::F_DUPFD_CLOEXEC(FIRST_PRIVATE_FD))?;
        #[allow(unsafe_code)]
        // SAFETY: the descriptor is new, open, and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Where the child finds it. Opened there, it is read from its start.
    pub(crate) fn path(&self) -> String {
        format!("/dev/fd/{}", self.0.as_raw_fd())
    }
}

/// A running child, ended when dropped.
pub(super) struct Child {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// How long the child may take to write what it has, once its client is gone.
    grace: Duration,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    process: Option<std::process::Child>,
    words: VecDeque<u8>,
    status: Option<ExitStatus>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a child ended.
pub(super) struct End {
    /// `None`: it runs.
    pub(super) status: Option<ExitStatus>,
    /// What it said on its standard error.
    pub(super) words: Vec<u8>,
}

impl End {
    /// Whether the program was not there.
    pub(super) fn was_not_found(&self) -> bool {
        self.status.is_some_and(|status| status.code() == Some(NOT_FOUND))
    }

    /// The signal that ended it.
    pub(super) fn signal(&self) -> Option<Signal> {
        self.status?.signal().and_then(|signal| Signal::try_from(signal).ok())
    }
}

impl Child {
    /// Starts a program that takes its socket as systemd gives it, and a connection to it. It inherits
    /// `files`.
    pub(super) fn start(
        program: &str,
        arguments: Vec<String>,
        files: Vec<Arc<PrivateFile>>,
        read_only: bool,
    ) -> io::Result<(Self, UnixStream)> {
        let (listener, stream) = connected_listener()?;
        let shared = Arc::new(Shared::default());
        let (started, outcome) = mpsc::channel();
        let program = program.to_owned();
        let thread = {
            let shared = shared.clone();
            let run = move || supervise(&shared, &program, &arguments, listener, files, read_only, &started);
            Builder::new().name("qemu-nbd".to_owned()).stack_size(128 << 10).spawn(run)?
        };
        let grace = if read_only { Duration::ZERO } else { Duration::from_secs(60) };
        let child = Self { shared, thread: Some(thread), grace };
        // The thread sends an outcome unless it panicked.
        outcome.recv().unwrap_or_else(|_| Err(io::Error::other("the thread of the child died")))?;
        Ok((child, stream))
    }

    /// Waits up to `limit` for the child to end, and tells how it did.
    pub(super) fn wait(&self, limit: Duration) -> End {
        let state = self.shared.state();
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, limit, |state| state.status.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        End { status: state.status, words: state.words.iter().copied().collect() }
    }

    /// Ends the child.
    pub(super) fn kill(&self) {
        if let Some(process) = &mut self.shared.state().process {
            // It fails only if the child has ended.
            let _ = process.kill();
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.wait(self.grace);
        self.kill();
        if let Some(thread) = self.thread.take() {
            // The thread only reports.
            let _ = thread.join();
        }
    }
}

/// A listening socket with our connection to it in its queue. Only we could have connected: its name
/// was in a directory of our own, and is no more.
fn connected_listener() -> io::Result<(UnixListener, UnixStream)> {
    let dir = tempfile::Builder::new().prefix("vmcraft-").tempdir()?;
    let path = dir.path().join("nbd");
    let listener = UnixListener::bind(&path)?;
    let stream = UnixStream::connect(&path)?;
    dir.close()?;
    Ok((listener, stream))
}

/// The life of the thread: starts the child, keeps its last words, sees it end.
fn supervise(
    shared: &Shared,
    program: &str,
    arguments: &[String],
    listener: UnixListener,
    files: Vec<Arc<PrivateFile>>,
    read_only: bool,
    started: &Sender<io::Result<()>>,
) {
    let mut process = match spawn(program, arguments, listener, files, read_only) {
        Ok(process) => process,
        Err(e) => {
            // Whoever started the thread waits for this.
            let _ = started.send(Err(e));
            return;
        }
    };
    let words = process.stderr.take();
    let pid = process.id();
    shared.state().process = Some(process);
    let _ = started.send(Ok(()));

    if let Some(mut words) = words {
        let mut piece = [0; 1024];
        while let Ok(n @ 1..) = words.read(&mut piece) {
            let mut state = shared.state();
            state.words.extend(&piece[..n]);
            let excess = state.words.len().saturating_sub(WORDS_KEPT);
            state.words.drain(..excess);
        }
    }
    // Waits without the lock, so that `kill` can have it, and without ending the process's record, so
    // that `kill` cannot hit another process.
    if let Ok(pid) = i32::try_from(pid) {
        let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(Pid::from_raw(pid)), ended) == Err(nix::errno::Errno::EINTR) {}
    }
    let mut state = shared.state();
    state.status = state.process.as_mut().and_then(|process| process.wait().ok());
    state.process = None;
    shared.changed.notify_all();
}

#[allow(unsafe_code)] // `pre_exec`; see there.
fn spawn(
    program: &str,
    arguments: &[String],
    listener: UnixListener,
    files: Vec<Arc<PrivateFile>>,
    read_only: bool,
) -> io::Result<std::process::Child> {
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "sh", program]).args(arguments);
    command.stdin(OwnedFd::from(listener)).stderr(Stdio::piped());
    command.stdout(Stdio::null());
    // A Ctrl-C in the terminal is for us; what becomes of the child is our decision.
    command.process_group(0);
    // A writer gets the chance to finish what it has in hand.
    let signal = if read_only { Signal::SIGKILL } else { Signal::SIGTERM };
    let parent = getpid();
    let inherited: Vec<_> = files.iter().map(|file| file.0.as_raw_fd()).collect();
    // SAFETY: between `fork` and `exec` only async-signal-safe functions may be called, and nothing
    // may be allocated: these are the system calls `prctl`, `getppid` and `fcntl`, and the error is a
    // number. The borrowed descriptors are those of `files`, which live until `spawn` has returned.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(signal)?;
            // If we died before the line above, nobody will send the signal.
            if getppid() != parent {
                return Err(nix::errno::Errno::ESRCH.into());
            }
            for fd in &inherited {
                fcntl(BorrowedFd::borrow_raw(*fd), FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            Ok(())
        });
    }
    let process = command.spawn();
    drop(files);
    process
}
