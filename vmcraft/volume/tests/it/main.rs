//! Partition tables and signatures, measured against the tools that made the disks.

mod partitions;
mod signatures;
