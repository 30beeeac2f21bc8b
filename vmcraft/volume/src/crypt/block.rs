//! Block ciphers by name, and the modes that are made of them besides XTS.

use cipher::array::Array;
use cipher::consts::U16;
use cipher::{
    BlockCipherDecrypt, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, BlockSizeUser, InnerIvInit,
    KeyInit,
};

use super::iv::Iv;
use super::xts::Xts;
use super::{SectorCipher, Sectors};

/// A block cipher that is named at run time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Aes,
    Serpent,
    Twofish,
    Camellia,
    Cast5,
}

/// A mode of operation, with what makes the initialisation vectors.
pub(super) enum BlockMode {
    Ecb,
    Cbc(Iv),
    Xts(Iv),
}

/// Encrypts a single block.
pub(crate) trait EncryptBlock: Send + Sync {
    /// Encrypts the block in place; it has the length of the cipher's blocks.
    fn encrypt_block(&self, block: &mut [u8]);
}

/// What a block cipher must be able to do here.
trait Cipher: BlockCipherEncrypt + BlockCipherDecrypt + KeyInit + Send + Sync + 'static {}
impl<C: BlockCipherEncrypt + BlockCipherDecrypt + KeyInit + Send + Sync + 'static> Cipher for C {}

impl Algorithm {
    pub(super) const ALL: [(&'static str, Self); 5] = [
        ("aes", Self::Aes),
        ("serpent", Self::Serpent),
        ("twofish", Self::Twofish),
        ("camellia", Self::Camellia),
        ("cast5", Self::Cast5),
    ];

    /// The size of a block, in bytes.
    pub(super) fn block_bytes(self) -> usize {
        if self == Self::Cast5 { 8 } else { 16 }
    }

    /// The cipher for single blocks; `None` if it takes no key of this length.
    pub(super) fn encryptor(self, key: &[u8]) -> Option<Box<dyn EncryptBlock>> {
        fn make<C: Cipher>(key: &[u8]) -> Option<Box<dyn EncryptBlock>> {
            Some(Box::new(Single(C::new_from_slice(key).ok()?)))
        }
        match (self, key.len()) {
            (Self::Aes, 16) => make::<aes::Aes128>(key),
            (Self::Aes, 24) => make::<aes::Aes192>(key),
            (Self::Aes, 32) => make::<aes::Aes256>(key),
            (Self::Camellia, 16) => make::<camellia::Camellia128>(key),
            (Self::Camellia, 24) => make::<camellia::Camellia192>(key),
            (Self::Camellia, 32) => make::<camellia::Camellia256>(key),
            (Self::Serpent, 16..=32) => make::<serpent::Serpent>(key),
            (Self::Twofish, 16 | 24 | 32) => make::<twofish::Twofish>(key),
            (Self::Cast5, 5..=16) => make::<cast5::Cast5>(key),
            _ => None,
        }
    }

    /// The cipher for sectors; `None` if there is none with such a key or mode.
    pub(super) fn sector_cipher(self, mode: BlockMode, key: &[u8]) -> Option<Box<dyn SectorCipher>> {
        let single = if matches!(mode, BlockMode::Xts(_)) { key.len() / 2 } else { key.len() };
        match (self, single) {
            (Self::Aes, 16) => wide::<aes::Aes128>(mode, key),
            (Self::Aes, 24) => wide::<aes::Aes192>(mode, key),
            (Self::Aes, 32) => wide::<aes::Aes256>(mode, key),
            (Self::Camellia, 16) => wide::<camellia::Camellia128>(mode, key),
            (Self::Camellia, 24) => wide::<camellia::Camellia192>(mode, key),
            (Self::Camellia, 32) => wide::<camellia::Camellia256>(mode, key),
            (Self::Serpent, 16..=32) => wide::<serpent::Serpent>(mode, key),
            (Self::Twofish, 16 | 24 | 32) => wide::<twofish::Twofish>(mode, key),
            (Self::Cast5, 5..=16) => narrow::<cast5::Cast5>(mode, key),
            _ => None,
        }
    }
}

/// The modes of a cipher with blocks of 16 bytes.
fn wide<C>(mode: BlockMode, key: &[u8]) -> Option<Box<dyn SectorCipher>>
where
    C: Cipher + BlockSizeUser<BlockSize = U16>,
{
    let BlockMode::Xts(iv) = mode else { return narrow::<C>(mode, key) };
    let (data, tweak) = key.split_at(key.len() / 2);
    Some(Box::new(Xts::new(C::new_from_slice(data).ok()?, C::new_from_slice(tweak).ok()?, iv)))
}

/// The modes that do not ask for a size of blocks.
fn narrow<C: Cipher>(mode: BlockMode, key: &[u8]) -> Option<Box<dyn SectorCipher>> {
    let cipher = C::new_from_slice(key).ok()?;
    match mode {
        BlockMode::Ecb => Some(Box::new(Ecb(cipher))),
        BlockMode::Cbc(iv) => Some(Box::new(Cbc { cipher, iv })),
        BlockMode::Xts(_) => None,
    }
}

struct Single<C>(C);

impl<C: Cipher> EncryptBlock for Single<C> {
    fn encrypt_block(&self, block: &mut [u8]) {
        if let Some(block) = Array::slice_as_mut_array(block) {
            self.0.encrypt_block(block);
        }
    }
}

/// Each block for itself.
struct Ecb<C>(C);

impl<C: Cipher> SectorCipher for Ecb<C> {
    fn decrypt(&self, _: Sectors, data: &mut [u8]) {
        self.0.decrypt_blocks(Array::slice_as_chunks_mut(data).0);
    }

    fn encrypt(&self, _: Sectors, data: &mut [u8]) {
        self.0.encrypt_blocks(Array::slice_as_chunks_mut(data).0);
    }
}

/// Cipher block chaining within each sector.
struct Cbc<C> {
    cipher: C,
    iv: Iv,
}

impl<C: Cipher> SectorCipher for Cbc<C> {
    fn decrypt(&self, sectors: Sectors, data: &mut [u8]) {
        let mut iv = cipher::Block::<C>::default();
        for (i, sector) in data.chunks_exact_mut(sectors.size).enumerate() {
            self.iv.fill(sectors, i, &mut iv);
            let mut mode = cbc::Decryptor::inner_iv_init(&self.cipher, &iv);
            mode.decrypt_blocks(Array::slice_as_chunks_mut(sector).0);
        }
    }

    fn encrypt(&self, sectors: Sectors, data: &mut [u8]) {
        let mut iv = cipher::Block::<C>::default();
        for (i, sector) in data.chunks_exact_mut(sectors.size).enumerate() {
            self.iv.fill(sectors, i, &mut iv);
            let mut mode = cbc::Encryptor::inner_iv_init(&self.cipher, &iv);
            mode.encrypt_blocks(Array::slice_as_chunks_mut(sector).0);
        }
    }
}
