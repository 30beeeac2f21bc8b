//! What the fuzz targets share: disks in few bytes, and checksums that fit.

mod disk;
mod guest;
mod image;
mod nbd;
mod seal;
pub mod section;
mod text;
mod using;
mod volumes;

pub use disk::{decode, disk, encode};
pub use guest::with_guest;
pub use image::Image;
pub use nbd::nbd;
pub use seal::{LVM_TEXT_LIMIT, luks2, lvm, seal, thin_kind};
pub use text::{encode_files, files};
pub use using::{ask_extents, read_around, write_around};
pub use volumes::{members, volumes};
