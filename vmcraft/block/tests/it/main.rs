//! The block layer against QEMU's tools and real images.

mod chain;
mod hostile;
mod info;
mod lock;
mod nbd;
mod nbd_hostile;
mod nbd_servers;
mod open;
mod qcow2_crash;
mod qcow2_create;
mod qcow2_read;
mod qcow2_write;
mod qemu_nbd;
mod qemu_nbd_child;
mod raw;
mod recorder;
mod remote;
mod support;
mod transaction;
mod transaction_crash;
mod transaction_undo;
