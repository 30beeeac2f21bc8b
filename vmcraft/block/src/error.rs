//! What can go wrong between a name on the command line and an open disk.

use std::io;

/// The result of opening or reading an image.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an image could not be opened or read. Every variant names the image; `offset` counts bytes
/// of the image file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The host's file system, or the other end of a connection, said no.
    #[error("{image}: {doing}: {source}")]
    Io {
        /// The image as the user named it.
        image: String,
        /// What was being done, as in "cannot open".
        doing: &'static str,
        /// What the host said.
        source: io::Error,
    },
    /// The image contradicts its own format.
    #[error("{image}: corrupt {what} at byte {offset:#x} of the image")]
    Corrupt {
        /// The image as the user named it.
        image: String,
        /// The structure or field that is wrong.
        what: String,
        /// Where it is, in bytes from the start of the image file.
        offset: u64,
    },
    /// The image is shorter than it says itself.
    #[error("{image}: truncated: the {what} at byte {offset:#x} of the image is not all there")]
    Truncated {
        /// The image as the user named it.
        image: String,
        /// The structure that is beyond the end.
        what: String,
        /// Where it begins, in bytes from the start of the image file.
        offset: u64,
    },
    /// The image has no bytes at all.
    #[error("{image}: the file is empty (0 bytes), so there is no disk in it")]
    Empty {
        /// The image as the user named it.
        image: String,
    },
    /// The name leads to something that holds no bytes by offset.
    #[error("{image}: is {kind}, not a disk image")]
    NotAFile {
        /// The image as the user named it.
        image: String,
        /// What it is, as in "a directory".
        kind: &'static str,
    },
    /// A valid image that needs something we do not have.
    #[error("{image}: not supported: {feature}")]
    Unsupported {
        /// The image as the user named it.
        image: String,
        /// The feature's name in the format's own specification, and what to do instead.
        feature: String,
    },
    /// Another process has the image open in a way that excludes ours.
    #[error("{image}: the image is in use by another process ({detail}); {advice}")]
    InUse {
        /// The image as the user named it.
        image: String,
        /// Which lock conflicts.
        detail: String,
        /// What the user can do.
        advice: &'static str,
    },
    /// The caller named a format, and the content is another.
    #[error("{image}: the image is not in format {given}: {found}")]
    WrongFormat {
        /// The image as the user named it.
        image: String,
        /// The format that the caller gave.
        given: String,
        /// What was found instead.
        found: String,
    },
    /// The image refers to a file that the caller's gate did not let through.
    #[error("{image}: refers to {named:?}, which was not opened: {reason}")]
    Refused {
        /// The image that refers to the file.
        image: String,
        /// The name in the image's header.
        named: String,
        /// Why the gate closed.
        reason: String,
    },
    /// The journal of an earlier session cannot be finished.
    #[error("{journal}: {problem}")]
    Journal {
        /// The journal's path.
        journal: String,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A backing or data file of the image could not be opened or read.
    #[error("{image}: {source}")]
    Within {
        /// The image that refers to it.
        image: String,
        /// What is wrong with the file, by its own name.
        source: Box<Error>,
    },
}

/// What a device answers when the image under it turns out to be bad while it is read.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Io { source, .. } => source.kind(),
            Error::Corrupt { .. } => io::ErrorKind::InvalidData,
            Error::Truncated { .. } => io::ErrorKind::UnexpectedEof,
            Error::Unsupported { .. } => io::ErrorKind::Unsupported,
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}
