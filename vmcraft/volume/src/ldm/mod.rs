//! Dynamic disks of Windows: the logical disk manager (LDM).
