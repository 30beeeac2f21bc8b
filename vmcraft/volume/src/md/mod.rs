//! Linux software RAID (md).
