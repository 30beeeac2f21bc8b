//! How RAID levels lay out data and parity over members, whatever the metadata: used by md and LVM.
