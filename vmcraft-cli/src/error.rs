//! What the binary says when something fails, and how it ends.

use std::io;
use std::process::ExitCode;

/// The result of a command of the shell, or of a sub-command.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A call failed.
    #[error("{call}: {source}")]
    Call {
        /// Its name.
        call: &'static str,
        /// What the library said.
        source: vmcraft::Error,
    },
    /// Something else that the message says in full.
    #[error("{0}")]
    Message(String),
    /// Whoever read our output has gone.
    #[error("standard output was closed")]
    BrokenPipe,
    /// The user pressed ^C.
    #[error("interrupted")]
    Interrupted,
    /// A command failed, and has said why already.
    #[error("a command failed")]
    Reported,
}

/// Short for [`Error::Message`].
pub(crate) fn message(text: impl Into<String>) -> Error {
    Error::Message(text.into())
}

impl Error {
    /// What a failed call means.
    pub(crate) fn call(call: &'static str, source: vmcraft::Error) -> Self {
        match &source {
            vmcraft::Error::Cancelled => Self::Interrupted,
            // The only file with this name is the one that `-` leads to.
            vmcraft::Error::Host { path, source, .. }
                if path.as_os_str() == "standard output" && source.kind() == io::ErrorKind::BrokenPipe =>
            {
                Self::BrokenPipe
            }
            _ => Self::Call { call, source },
        }
    }

    /// What a failed write to our output means.
    pub(crate) fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Message(format!("cannot write to standard output: {error}")),
        }
    }

    /// The exit status that this failure ends the process with.
    ///
    /// 1, and for the two ways in which a signal would have ended a program, what a shell would
    /// have said of it.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::BrokenPipe => ExitCode::from(128 + 13),
            Self::Interrupted => ExitCode::from(crate::interrupt::EXIT_STATUS),
            _ => ExitCode::FAILURE,
        }
    }
}

impl From<vmcraft::Error> for Error {
    fn from(source: vmcraft::Error) -> Self {
        match source {
            vmcraft::Error::Cancelled => Self::Interrupted,
            other => Self::Message(other.to_string()),
        }
    }
}
