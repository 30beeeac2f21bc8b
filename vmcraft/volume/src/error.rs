//! What is wrong with a partition table or a volume.

use std::io;

/// The result of reading a partition table or a volume's metadata.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a partition table or a volume could not be read or changed. The caller adds the device's name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The metadata contradicts its own format.
    #[error("corrupt {what} at byte {offset:#x} of the device")]
    Corrupt {
        /// The structure or field that is wrong.
        what: String,
        /// Where it is, in bytes from the start of the device.
        offset: u64,
    },
    /// Valid, but it needs something we do not have.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// The caller asked for something that the table cannot hold.
    #[error("{0}")]
    Refused(String),
    /// A key that opens nothing here.
    #[error("{0}")]
    WrongKey(String),
    /// Members are missing, stale or contradict each other, so that the volume cannot be opened.
    #[error("{0}")]
    Incomplete(String),
    /// The device below failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a device answers when the metadata under it turns out to be bad while it is in use.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::Io(error) => return error,
            Error::Corrupt { .. } => io::ErrorKind::InvalidData,
            Error::Unsupported(_) => io::ErrorKind::Unsupported,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
