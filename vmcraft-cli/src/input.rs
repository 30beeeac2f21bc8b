//! Standard input, as calls and scripts read it.

use std::io::{self, BufReader, Read};
use std::sync::{LazyLock, Mutex, MutexGuard};

use nix::unistd;

use crate::interrupt;

/// What descriptor 0 is when it is read: nothing is read ahead, so what a call leaves is there for the
/// program's next reader, and a server that takes over a client's descriptors reads the client's.
pub(crate) struct StandardInput;

impl Read for StandardInput {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let stdin = io::stdin();
        interrupt::wait_for(&stdin)?;
        Ok(unistd::read(stdin, buf)?)
    }
}

/// The lines of standard input. Whoever reads them goes on where the last one stopped.
///
/// They are read byte by byte, as a shell of POSIX reads a script: what follows a line is there for the command
/// that the line runs, be that a call, a program of the host or one in a server.
pub(crate) fn lines() -> MutexGuard<'static, BufReader<StandardInput>> {
    static LINES: LazyLock<Mutex<BufReader<StandardInput>>> =
        LazyLock::new(|| Mutex::new(BufReader::with_capacity(1, StandardInput)));
    LINES.lock().unwrap_or_else(|e| e.into_inner())
}
