//! Going to the background: the process that the user started ends when the mount is there, or has
//! failed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe2, setsid};

/// Which of the two processes this is.
pub enum Side {
    /// The one that the user started.
    Foreground(Waiting),
    /// The one that stays.
    Background(Ready),
}

/// The process that waits.
pub struct Waiting {
    child: Pid,
    ready: File,
}

/// The process that stays. It still has the terminal, and says there what fails.
pub struct Ready {
    ready: File,
}

/// Splits the process in two. It must have one thread only; more are refused.
pub fn split() -> io::Result<Side> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("the process has {threads} threads and cannot be split")));
    }
    let (read, write): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC)?;
    // SAFETY: there is no other thread that could hold a lock or be in the middle of a change.
    #[allow(unsafe_code)]
    let forked = unsafe { fork() }?;
    Ok(match forked {
        ForkResult::Parent { child } => Side::Foreground(Waiting { child, ready: read.into() }),
        ForkResult::Child => Side::Background(Ready { ready: write.into() }),
    })
}

impl Waiting {
    /// Waits until the other process is ready. Otherwise gives the status that it ended with.
    pub fn wait(mut self) -> io::Result<Result<(), u8>> {
        let mut byte = [0];
        if self.ready.read(&mut byte)? == 1 {
            return Ok(Ok(()));
        }
        Ok(Err(match waitpid(self.child, None)? {
            // What a shell would say.
            WaitStatus::Exited(_, code) => u8::try_from(code).unwrap_or(1).max(1),
            WaitStatus::Signaled(_, signal, _) => {
                u8::try_from(signal as i32).map_or(1, |signal| 128 + signal)
            }
            _ => 1,
        }))
    }
}

impl Ready {
    /// Leaves the terminal, and lets the other process end.
    pub fn detach(mut self) -> io::Result<()> {
        setsid()?;
        std::env::set_current_dir(Path::new("/"))?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        dup2_stderr(&null)?;
        self.ready.write_all(b"\n")
    }
}
