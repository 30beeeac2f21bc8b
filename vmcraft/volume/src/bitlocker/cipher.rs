//! How sectors are encrypted.

use std::fmt;

use aes::cipher::array::Array;
use aes::cipher::consts::U16;
use aes::cipher::{BlockCipherEncrypt, BlockSizeUser, KeyInit};
use aes::{Aes128, Aes256};

use super::elephant;
use crate::crypt::{CipherSpec, SectorCipher, Sectors};
use crate::{Error, Result};

/// The methods of encryption, by the number in the metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// AES-CBC with the Elephant diffuser: Windows Vista and 7. The keys have this many bits.
    CbcElephant(u16),
    /// AES-CBC: Windows 8, and removable media until today.
    Cbc(u16),
    /// AES-XTS: Windows 10 1511 and later.
    Xts(u16),
}

impl Method {
    pub(super) fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            0x8000 => Self::CbcElephant(128),
            0x8001 => Self::CbcElephant(256),
            0x8002 => Self::Cbc(128),
            0x8003 => Self::Cbc(256),
            0x8004 => Self::Xts(128),
            0x8005 => Self::Xts(256),
            _ => return None,
        })
    }
}

/// As `cryptsetup` names them.
impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CbcElephant(bits) => write!(f, "aes-cbc-elephant, {bits} bit"),
            Self::Cbc(bits) => write!(f, "aes-cbc-eboiv, {bits} bit"),
            Self::Xts(bits) => write!(f, "aes-xts-plain64, {bits} bit"),
        }
    }
}

/// The cipher with the full volume encryption key.
///
/// # Errors
/// `Unsupported` if the key has not the method's length.
pub(super) fn with_key(method: Method, key: &[u8]) -> Result<Box<dyn SectorCipher>> {
    let (name, bits, with_diffuser) = match method {
        Method::CbcElephant(bits) => ("aes-cbc-eboiv", usize::from(bits), true),
        Method::Cbc(bits) => ("aes-cbc-eboiv", usize::from(bits), false),
        Method::Xts(bits) => ("aes-xts-plain64", 2 * usize::from(bits), false),
    };
    let wrong_length = || {
        let has = key.len() * 8;
        Error::Unsupported(format!("BitLocker's cipher {method} with a key of {has} bits"))
    };
    let spec = CipherSpec::parse(name)?;
    if !with_diffuser {
        return if key.len() == bits / 8 { spec.with_key(key) } else { Err(wrong_length()) };
    }
    // Two halves of 32 bytes, whatever the length of the keys in them.
    let (key, tweak) = key.split_first_chunk::<32>().ok_or_else(wrong_length)?;
    let tweak: &[u8; 32] = tweak.try_into().map_err(|_| wrong_length())?;
    let (key, tweak) = (&key[..bits / 8], &tweak[..bits / 8]);
    let cbc = spec.with_key(key)?;
    Ok(match (Aes128::new_from_slice(tweak), Aes256::new_from_slice(tweak)) {
        (Ok(tweak), _) => Box::new(Diffused { cbc, tweak }),
        (_, Ok(tweak)) => Box::new(Diffused { cbc, tweak }),
        _ => return Err(wrong_length()),
    })
}

/// A cipher with the diffuser under it, and under that a key for each sector.
struct Diffused<C> {
    cbc: Box<dyn SectorCipher>,
    tweak: C,
}

impl<C> SectorCipher for Diffused<C>
where
    C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16> + Send + Sync,
{
    fn decrypt(&self, sectors: Sectors, data: &mut [u8]) {
        self.cbc.decrypt(sectors, data);
        for (index, sector) in data.chunks_exact_mut(sectors.size).enumerate() {
            elephant::gather(sector);
            self.xor_sector_key(sectors.number(index), sector);
        }
    }

    fn encrypt(&self, sectors: Sectors, data: &mut [u8]) {
        for (index, sector) in data.chunks_exact_mut(sectors.size).enumerate() {
            self.xor_sector_key(sectors.number(index), sector);
            elephant::spread(sector);
        }
        self.cbc.encrypt(sectors, data);
    }
}

impl<C: BlockCipherEncrypt + BlockSizeUser<BlockSize = U16>> Diffused<C> {
    /// Mixes a sector with its key: its offset in bytes encrypted, twice, the second time with a bit set.
    fn xor_sector_key(&self, number: u64, sector: &mut [u8]) {
        let offset = u128::from(number) * sector.len() as u128;
        let mut blocks = [Array(offset.to_le_bytes()), Array(offset.to_le_bytes())];
        blocks[1][15] = 0x80;
        self.tweak.encrypt_blocks(&mut blocks);
        for part in sector.chunks_mut(32) {
            part.iter_mut().zip(blocks.iter().flatten()).for_each(|(byte, key)| *byte ^= key);
        }
    }
}
