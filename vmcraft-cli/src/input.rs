//! Standard input, as calls read it.

use std::io::{self, Read};

use nix::unistd;

/// What descriptor 0 is when it is read: nothing is read ahead, so what a call leaves is there for the
/// program's next reader, and a server that takes over a client's descriptors reads the client's.
pub(crate) struct StandardInput;

impl Read for StandardInput {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(unistd::read(io::stdin(), buf)?)
    }
}
