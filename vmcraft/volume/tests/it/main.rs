//! Partition tables and signatures, measured against the tools that made the disks.

mod bitlocker;
mod corpus;
mod dm;
mod editing;
mod hostile;
mod ldm;
mod luks;
mod lvm;
mod md;
mod md_crash;
mod md_hostile;
mod md_kernel;
mod md_write;
mod partitions;
mod signatures;
