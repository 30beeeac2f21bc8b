//! What a driver answers when it cannot do what it was asked.

use std::io;

/// The result of a driver.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a driver could not answer. It does not know the path, the device or the image: the caller
/// adds them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory has no entry of this name.
    #[error("no such file or directory")]
    NotFound,
    /// A directory was needed.
    #[error("not a directory")]
    NotADirectory,
    /// Anything but a directory was needed.
    #[error("is a directory")]
    IsADirectory,
    /// The operation does not fit this type of file, as `read_link` of a regular file.
    #[error("{0}")]
    InvalidInput(&'static str),
    /// The volume contradicts its own format.
    #[error("corrupt {what} at byte {offset:#x} of the volume")]
    Corrupt {
        /// The structure or field that is wrong, with its number where it has one.
        what: String,
        /// Where it is, in bytes from the start of the volume.
        offset: u64,
    },
    /// The volume is valid, and needs a feature that the driver does not have.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// The device below failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Error {
    /// The `errno` that a kernel would answer with, as Linux numbers it.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NotFound => 2,
            Self::NotADirectory => 20,
            Self::IsADirectory => 21,
            Self::InvalidInput(_) => 22,
            Self::Corrupt { .. } => 117, // EUCLEAN, what ext4 and XFS answer for corruption
            Self::Unsupported(_) => 95,
            Self::Io(e) => e.raw_os_error().unwrap_or(5),
        }
    }
}
