//! Linux software RAID (md): arrays with metadata 0.90, 1.0, 1.1 and 1.2.
//!
//! [`scan`] reads the superblocks of devices and puts together what belongs together: it says of each array what it is,
//! which members it has and lacks, and what is wrong with it. [`Array::open`] then gives its content. Nothing is written
//! before the first write to that device.
//!
//! Writing keeps copies and parity right, so an array that Linux stopped cleanly stays clean and needs no change of its
//! metadata. With members missing, the first write marks them as failed and raises the event count of the others, so
//! that Linux does not take them back as they are; and all that is written is marked in the write-intent bitmap.
//!
//! Spec: Linux `include/uapi/linux/raid/md_p.h`, `Documentation/admin-guide/md.rst`, md(4), mdadm(8).

mod array;
mod bad_blocks;
mod create;
mod level;
mod record;
mod scan;
mod superblock;
mod v0;
mod v1;

pub use array::{Array, ArrayMember, ArrayState, MemberState};
pub use create::NewArray;
pub use level::Level;
pub use scan::{Damaged, Found, scan};
pub use superblock::Metadata;
