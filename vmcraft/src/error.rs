//! What a call answers when it fails.

use std::io;
use std::path::PathBuf;

use bstr::BString;

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. The message says what, where and, if there is something, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The call was made in a wrong way or at a wrong time.
    #[error("{0}")]
    Usage(String),
    /// There is no operating system on the disks.
    #[error("no operating system was found on the disks{why}")]
    NoSystem {
        /// Which devices might have one and could not be looked into, in parentheses; empty if all could.
        why: String,
    },
    /// A disk image could not be opened or read.
    #[error(transparent)]
    Image(#[from] vmcraft_block::Error),
    /// A partition table or volume could not be read.
    #[error("{device}: {source}")]
    Volume {
        /// The device that holds it.
        device: String,
        /// What is wrong with it.
        source: vmcraft_volume::Error,
    },
    /// There is no such device.
    #[error("{0}: no such device")]
    NoSuchDevice(String),
    /// A volume is there and cannot be opened.
    #[error("{device}: cannot be opened: {reason}")]
    Closed {
        /// Its name.
        device: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A device could not be read.
    #[error("{device}: {source}")]
    Device {
        /// Its name.
        device: String,
        /// What went wrong.
        source: io::Error,
    },
    /// A file system could not be opened, or is damaged or unsupported.
    #[error("{device}: {source}")]
    FileSystem {
        /// The device that holds it.
        device: String,
        /// What its driver said.
        source: vmcraft_fs::Error,
    },
    /// A path inside the guest could not be followed, or what is there does not fit.
    #[error("{path}: {source}{}", .component.as_ref().map(|c| format!(" (at {c})")).unwrap_or_default())]
    Path {
        /// The path that was asked for.
        path: BString,
        /// Where on the way it failed, if not at its end.
        component: Option<BString>,
        /// What the driver said.
        source: vmcraft_fs::Error,
    },
    /// A name is in use as a mount point, and the call would take it away.
    #[error("{path}: busy: {device} is mounted there; unmount it first")]
    Busy {
        /// The name.
        path: BString,
        /// What is mounted there.
        device: String,
    },
    /// A name cannot be given across file systems.
    #[error("{from} and {to} are on different file systems")]
    CrossDevice {
        /// What was to be renamed or linked.
        from: BString,
        /// The name that it was to have.
        to: BString,
    },
    /// A path leads through more symbolic links than Linux follows.
    #[error("{0}: too many levels of symbolic links")]
    TooManySymlinks(BString),
    /// A file of the host could not be read or written.
    #[error("{}: {doing}: {source}", .path.display())]
    Host {
        /// The file, as the caller named it.
        path: PathBuf,
        /// What was being done, as in "cannot create".
        doing: &'static str,
        /// What the host said.
        source: io::Error,
    },
    /// The image of what is to be changed may not be written.
    #[error("{what}: cannot be changed: {reason}")]
    ReadOnlyDisk {
        /// The path or device.
        what: String,
        /// Which image it is in, and why that is so.
        reason: String,
    },
    /// What was changed could not be written to the images.
    #[error("the changes were not written to the images: {0}")]
    Commit(io::Error),
    /// What was found is valid, and needs something we do not have.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// The user interrupted the call.
    #[error("interrupted")]
    Cancelled,
}

impl Error {
    /// The `errno` that libguestfs would give for it, as Linux numbers it; 0 if there is none.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Path { source, .. } | Self::FileSystem { source, .. } => source.errno(),
            Self::TooManySymlinks(_) => 40,
            Self::Busy { .. } => 16,
            Self::CrossDevice { .. } => 18,
            Self::NoSuchDevice(_) => 2,
            Self::Device { source, .. } | Self::Host { source, .. } | Self::Commit(source) => {
                source.raw_os_error().unwrap_or(5)
            }
            Self::Image(vmcraft_block::Error::Io { source, .. }) => source.raw_os_error().unwrap_or(5),
            Self::ReadOnlyDisk { .. } => 30,
            Self::Unsupported(_) => 95,
            Self::Cancelled => 4,
            Self::Usage(_) | Self::NoSystem { .. } => 22,
            _ => 0,
        }
    }

    /// Whether what was asked for does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::Path { source: vmcraft_fs::Error::NotFound | vmcraft_fs::Error::NotADirectory, .. }
        )
    }
}
