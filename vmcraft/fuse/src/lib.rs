//! A guest's tree as a file system of the host, through FUSE, read-only.
//!
//! The host's kernel sees neither the image nor the guest's file systems: it asks this process, one
//! inode and one name at a time. As nothing changes while the tree is shown, the kernel is told to
//! keep all that it learns.
//!
//! Interface: Linux `include/uapi/linux/fuse.h`, through the crate `fuser`.
#![deny(unsafe_code)]

pub mod daemon;
mod devices;
mod number;
mod session;
mod tree;
pub mod unmount;

pub use devices::Devices;
pub use session::{Access, Options, Session, Signals};

/// Why a tree could not be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The guest's root could not be found.
    #[error(transparent)]
    Guest(#[from] vmcraft::Error),
    /// The kernel or `fusermount3` refused.
    #[error("{}: cannot mount: {source}", .dir.display())]
    Mount {
        /// The directory of the host.
        dir: std::path::PathBuf,
        /// What was said.
        source: std::io::Error,
    },
    /// The connection to the kernel failed while the tree was shown.
    #[error("{}: the mount ended: {source}", .dir.display())]
    Serve {
        /// The directory of the host.
        dir: std::path::PathBuf,
        /// What was said.
        source: std::io::Error,
    },
}
