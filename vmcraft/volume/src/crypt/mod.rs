//! Devices that decrypt what is read from, and encrypt what is written to, the device below, sector by sector.
//!
//! What a sector's place does to its encryption is said with dm-crypt's words: each sector has a number, from which
//! the cipher makes its initialisation vector (IV). The names of ciphers are dm-crypt's too, such as `aes-xts-plain64`.
//!
//! Spec: Linux `Documentation/admin-guide/device-mapper/dm-crypt.rst`.

mod block;
mod device;
pub(crate) mod hash;
mod iv;
mod spec;
#[cfg(test)]
mod tests;
mod xts;

pub(crate) use device::{CryptDevice, CryptLayout};
pub(crate) use spec::CipherSpec;

/// How the sectors of a run are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sectors {
    /// The size of a sector in bytes: a power of two from 512 to 4096.
    pub(crate) size: usize,
    /// The number of the first.
    pub(crate) first: u64,
    /// What the number grows by from one to the next: 1, or the 512-byte units in a larger sector.
    pub(crate) step: u64,
}

impl Sectors {
    /// The number of the sector at `index` of the run. Numbers wrap, as in the kernel.
    pub(crate) fn number(&self, index: usize) -> u64 {
        self.first.wrapping_add((index as u64).wrapping_mul(self.step))
    }
}

/// A cipher with its key, which works on whole sectors in place.
///
/// The length of the data is a multiple of the sector size.
pub(crate) trait SectorCipher: Send + Sync {
    /// Decrypts a run of sectors.
    fn decrypt(&self, sectors: Sectors, data: &mut [u8]);

    /// Encrypts a run of sectors.
    fn encrypt(&self, sectors: Sectors, data: &mut [u8]);
}
