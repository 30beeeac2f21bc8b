//! Block devices, disk images and the layers between them.
//!
//! Everything that holds a guest's bytes is a [`BlockDevice`]: a raw file, a qcow2 image, an NBD
//! export, a partition ([`Slice`]), a cache. Layers take a device and are one, so they stack in any
//! order.
//!
//! Nothing here prints, exits or reads the environment. A file that an image names is opened only
//! through the gate that the caller passes in.
#![deny(unsafe_code)]

mod cache;
mod device;
mod error;
mod generations;
pub mod image;
mod lock;
pub mod nbd;
pub mod qcow2;
mod qemu_nbd;
mod raw;
mod read_only;
pub mod storage;
mod transaction;
mod uri;

pub use cache::{Cache, Counters, Counts};
pub use device::{
    BlockDevice, Discard, Extent, MapExtents, MemoryDevice, Slice, check_extent_query, check_range,
};
pub use error::{Error, Result};
pub use raw::RawFile;
pub use read_only::ReadOnly;
pub use transaction::{
    Access, ImageIdentity, Observer, OpenImage, Step, Transaction, TransactionDisk, TransactionOptions, undo,
};
