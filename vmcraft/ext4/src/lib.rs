//! ext2, ext3 and ext4.
#![forbid(unsafe_code)]
