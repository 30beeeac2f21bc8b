//! Standard output, or the pipe that stands in for it while a command's output goes elsewhere.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::sync::{Arc, Mutex, MutexGuard};

const BUFFER_BYTES: usize = 64 << 10;

/// Where results go. Clones are the same output, so that what a call writes to `-` and what the
/// shell prints keep their order.
#[derive(Clone)]
pub(crate) struct Output(Arc<Mutex<Target>>);

enum Target {
    Stdout(BufWriter<Stdout>),
    File(BufWriter<File>),
}

impl Output {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        Self::new(Target::Stdout(BufWriter::with_capacity(BUFFER_BYTES, io::stdout())))
    }

    /// A file of the host, or the end of a pipe.
    pub(crate) fn file(file: File) -> Self {
        Self::new(Target::File(BufWriter::with_capacity(BUFFER_BYTES, file)))
    }

    fn new(target: Target) -> Self {
        Self(Arc::new(Mutex::new(target)))
    }

    fn target(&self) -> MutexGuard<'_, Target> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Whether a person reads it.
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(&*self.target(), Target::Stdout(_)) && io::stdout().is_terminal()
    }
}

impl Write for Output {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut *self.target() {
            Target::Stdout(stdout) => stdout.write(buf),
            Target::File(file) => file.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut *self.target() {
            Target::Stdout(stdout) => stdout.flush(),
            Target::File(file) => file.flush(),
        }
    }
}
