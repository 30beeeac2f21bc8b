//! LUKS1 and LUKS2.
