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
mod partitions;
mod signatures;
