//! Work on the guest inside a virtual machine's disks, in the process of an ordinary user.
//!
//! ```no_run
//! let mut guest = vmcraft::Guest::open("disk.qcow2")?;
//! guest.mount_root()?;
//! println!("{}", guest.cat("/etc/hostname".into())?);
//! # Ok::<(), vmcraft::Error>(())
//! ```
//!
//! [`Guest`] is a handle with libguestfs's calls: add drives, launch, mount, look, read, change. Each
//! call is one documented method; [`call::table`] lists them for programs that make calls by name.
//! What is changed collects in a transaction, and reaches all images together at
//! [`Guest::commit`], or not at all.
#![forbid(unsafe_code)]

mod acl;
mod archive;
pub mod call;
mod calls;
mod capabilities;
mod change;
mod content;
mod copy_out;
pub mod customize;
mod decompress;
mod device;
mod drive;
mod drive_uri;
mod driver;
mod encrypted;
mod error;
mod file_device;
mod glob;
mod groups;
mod guest;
mod hexdump;
mod host;
pub mod inspect;
mod keys;
mod libvirt;
mod limits;
mod lines;
mod links;
mod listing;
mod magic;
mod metrics;
mod owners;
mod partition_types;
mod path;
mod posix_regex;
mod printable;
#[cfg(test)]
mod raw_tree;
mod settings;
mod simple;
mod stack;
#[cfg(test)]
mod testing;
mod unpack;
pub mod value;
pub mod vfs;
pub mod walk;

/// The records that calls return: libguestfs's structs of the same names and fields.
pub mod records {
    pub use crate::calls::arrays::MdStat;
    pub use crate::calls::directories::Dirent;
    pub use crate::calls::handle::Version;
    pub use crate::calls::lvm::logical_volumes::LvmLv;
    pub use crate::calls::lvm::physical_volumes::LvmPv;
    pub use crate::calls::lvm::volume_groups::LvmVg;
    pub use crate::calls::metadata::{Stat, StatNs, StatVfs};
    pub use crate::calls::partitions::PartitionRange;
    pub use crate::calls::xattrs::Xattr;
    pub use crate::inspect::{Application, Application2};
}

pub use change::{ChangedImage, undo};
pub use drive::{DriveOptions, directory_gate};
pub use error::{Error, Result};
pub use guest::Guest;
pub use host::Progress;
pub use keys::KeyPrompt;
pub use metrics::Metrics;
pub use path::{DeviceName, DeviceOrPath, GuestPath, Mountable};
pub use stack::DeviceNode;
pub use vmcraft_volume::Key;
