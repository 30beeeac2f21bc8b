//! Devices that decrypt what is read from, and encrypt what is written to, the device below, sector by sector.
