//! How RAID levels lay out data and parity over members, whatever the metadata: used by md, LVM and LDM.
//!
//! A [`Geometry`] says where each byte of the array is; a [`RaidDevice`] reads and writes by it, over members
//! of which some may be missing. It keeps nothing in memory: after each write all copies and parities are right.
//!
//! Spec: the behaviour of Linux `drivers/md/{linear,raid0,raid1,raid10,raid5}.c`.

mod bitmap;
mod device;
mod discard;
mod galois;
mod geometry;
mod locks;
mod parity;
mod placement;
mod raid10;
mod record;
#[cfg(test)]
mod tests;
mod zones;

pub(crate) use bitmap::{Bitmap, new_bytes as new_bitmap};
pub(crate) use device::{RaidDevice, RaidMember};
pub(crate) use geometry::{Geometry, Layout};
pub(crate) use placement::ParityLayout;
pub(crate) use raid10::Raid10;
pub(crate) use record::{Record, Recorded, Superblocks};
pub(crate) use zones::ZoneOrder;
