//! LVM2: physical volumes, volume groups, logical volumes.
