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
    /// The name is taken.
    #[error("file exists")]
    Exists,
    /// A directory that is to go, or to be replaced, has entries.
    #[error("directory not empty")]
    NotEmpty,
    /// No block or inode is left, or only those that are reserved; what was found is unchanged.
    #[error("no space left on the file system: {0}")]
    NoSpace(&'static str),
    /// The owner's quota does not allow more.
    #[error("disk quota exceeded")]
    QuotaExceeded,
    /// The file system was opened, or mounted, read-only. The reason follows.
    #[error("read-only file system: {0}")]
    ReadOnly(&'static str),
    /// A name is longer than the file system holds.
    #[error("file name too long: {len} bytes, and at most {most} are possible")]
    NameTooLong {
        /// Its length in bytes.
        len: usize,
        /// The longest in bytes.
        most: usize,
    },
    /// The inode cannot have one more name, or the directory one more subdirectory.
    #[error("too many links: at most {0} are possible")]
    TooManyLinks(u32),
    /// The file would be larger than the file system allows.
    #[error("file too large: at most {0} bytes are possible")]
    FileTooLarge(u64),
    /// A flag of the inode forbids it, such as immutable.
    #[error("operation not permitted: {0}")]
    NotPermitted(&'static str),
    /// The inode has no extended attribute of this name.
    #[error("no such extended attribute")]
    NoAttribute,
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
            Self::Exists => 17,
            Self::NotEmpty => 39,
            Self::NoSpace(_) => 28,
            Self::QuotaExceeded => 122,
            Self::ReadOnly(_) => 30,
            Self::NameTooLong { .. } => 36,
            Self::TooManyLinks(_) => 31,
            Self::FileTooLarge(_) => 27,
            Self::NotPermitted(_) => 1,
            Self::NoAttribute => 61,
            Self::Corrupt { .. } => 117, // EUCLEAN, what ext4 and XFS answer for corruption
            Self::Unsupported(_) => 95,
            Self::Io(e) => e.raw_os_error().unwrap_or(5),
        }
    }
}
