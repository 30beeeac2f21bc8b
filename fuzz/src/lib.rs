//! What the fuzz targets share: disks in few bytes, and checksums that fit.

mod disk;
mod image;
mod seal;
mod using;

pub use disk::{decode, disk, encode};
pub use image::Image;
pub use seal::{LVM_TEXT_LIMIT, luks2, lvm, seal, thin_kind};
pub use using::{read_around, write_around};
