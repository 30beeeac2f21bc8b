//! What a sector's number becomes: dm-crypt's generators of initialisation vectors.

use super::Sectors;
use super::block::EncryptBlock;

/// A generator of initialisation vectors. Each fills a whole block of the cipher.
pub(crate) enum Iv {
    /// `null`: zeros.
    Null,
    /// `plain`: the low 32 bits of the number, little-endian.
    Plain,
    /// `plain64`: the number, little-endian.
    Plain64,
    /// `plain64be`: the number, big-endian, at the end of the block.
    Plain64Be,
    /// `benbi`: the number of the sector's first cipher block counted from 1, big-endian, at the end of the block.
    Benbi {
        /// How many times a number of 512 bytes is doubled to count blocks.
        shift: u32,
    },
    /// `essiv`: the number as of `plain64`, encrypted with a hash of the key.
    Essiv(Box<dyn EncryptBlock>),
    /// `eboiv`: the number times the size of a sector, little-endian, encrypted with the key.
    Eboiv(Box<dyn EncryptBlock>),
}

impl Iv {
    /// Fills `iv`, which is a block of the cipher: 8 or 16 bytes, for the sector at `index` of the run.
    pub(crate) fn fill(&self, sectors: Sectors, index: usize, iv: &mut [u8]) {
        let number = sectors.number(index);
        iv.fill(0);
        match self {
            Self::Null => {}
            Self::Plain => iv[..4].copy_from_slice(&number.to_le_bytes()[..4]),
            Self::Plain64 => iv[..8].copy_from_slice(&number.to_le_bytes()),
            Self::Plain64Be => fill_end(iv, number),
            Self::Benbi { shift } => fill_end(iv, (number << shift).wrapping_add(1)),
            Self::Essiv(salted) => {
                iv[..8].copy_from_slice(&number.to_le_bytes());
                salted.encrypt_block(iv);
            }
            Self::Eboiv(encryptor) => {
                iv[..8].copy_from_slice(&number.wrapping_mul(sectors.size as u64).to_le_bytes());
                encryptor.encrypt_block(iv);
            }
        }
    }
}

fn fill_end(iv: &mut [u8], number: u64) {
    let start = iv.len() - 8;
    iv[start..].copy_from_slice(&number.to_be_bytes());
}
