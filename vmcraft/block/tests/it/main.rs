//! The block layer against QEMU's tools and real images.

mod open;
mod qcow2_read;
mod raw;
mod support;
