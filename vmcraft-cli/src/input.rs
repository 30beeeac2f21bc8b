//! Standard input, as calls and scripts read it.

use std::io::{self, BufRead, Read};
use std::sync::{Mutex, MutexGuard};

use nix::sys::uio::pread;
use nix::unistd::{self, Whence};

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

/// Lines of standard input. What follows a line is left there for the command that the line runs, be that a call, a
/// program of the host or one in a server.
pub(crate) struct Lines {
    /// What was looked at, and not taken.
    buf: [u8; LOOK_AHEAD],
    len: usize,
    /// Whether it cannot be left there.
    is_taken: bool,
}

/// How many bytes of a file are looked at for the end of a line.
const LOOK_AHEAD: usize = 4096;

impl Read for Lines {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Lines {
    /// A piece of a file, of which a part can be taken. Of what can only be read, a byte, as shells of POSIX read it.
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.len == 0 {
            let stdin = io::stdin();
            self.len = match unistd::lseek(&stdin, 0, Whence::SeekCur) {
                Ok(at) => pread(&stdin, &mut self.buf, at)?,
                Err(_) => {
                    let n = StandardInput.read(&mut self.buf[..1])?;
                    self.is_taken = true;
                    n
                }
            };
        }
        Ok(&self.buf[..self.len])
    }

    fn consume(&mut self, n: usize) {
        // What is in the buffer may be a key, and what follows a line may be read by others.
        self.buf[..self.len].fill(0);
        self.len = 0;
        if !std::mem::take(&mut self.is_taken) {
            // It could be moved before.
            let _ = unistd::lseek(io::stdin(), n as i64, Whence::SeekCur);
        }
    }
}

/// The lines of standard input. Whoever reads them goes on where the last one stopped.
pub(crate) fn lines() -> MutexGuard<'static, Lines> {
    static LINES: Mutex<Lines> = Mutex::new(Lines { buf: [0; LOOK_AHEAD], len: 0, is_taken: false });
    LINES.lock().unwrap_or_else(|e| e.into_inner())
}
