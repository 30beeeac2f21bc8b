//! Ciphers by dm-crypt's names: `aes-xts-plain64`, `serpent-cbc-essiv:sha256` …

use std::fmt;

use super::block::{Algorithm, BlockMode};
use super::hash::Hash;
use super::iv::Iv;
use super::{SectorCipher, Sectors};
use crate::{Error, Result};

/// A cipher's name, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CipherSpec {
    name: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `cipher_null`: nothing is encrypted.
    Null,
    Block(Algorithm, Chaining),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chaining {
    Ecb,
    Cbc(IvName),
    Xts(IvName),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IvName {
    Null,
    Plain,
    Plain64,
    Plain64Be,
    Benbi,
    Essiv(Hash),
    Eboiv,
}

impl CipherSpec {
    /// Understands `CIPHER-MODE[-IV[:OPTION]]`.
    ///
    /// # Errors
    /// `Unsupported` for a cipher, mode or IV that we do not have.
    pub(crate) fn parse(name: &str) -> Result<Self> {
        let unsupported =
            |what: String| Error::Unsupported(format!("cipher {}: {what}", name.escape_debug()));
        if name.starts_with("capi:") {
            return Err(unsupported("a cipher that is named as the kernel's crypto API does".into()));
        }
        let (algorithm, mode) = name.split_once('-').unwrap_or((name, "cbc-plain"));
        let (mode, iv) = mode.split_once('-').unwrap_or((mode, ""));
        if algorithm == "cipher_null" {
            return Ok(Self { name: name.into(), kind: Kind::Null });
        }
        let algorithm = Algorithm::ALL
            .iter()
            .find_map(|(known, value)| (*known == algorithm).then_some(*value))
            .ok_or_else(|| unsupported(format!("block cipher {}", algorithm.escape_debug())))?;
        let iv = match iv {
            "" if mode == "ecb" => IvName::Null,
            "null" => IvName::Null,
            "plain" => IvName::Plain,
            "plain64" => IvName::Plain64,
            "plain64be" => IvName::Plain64Be,
            "benbi" => IvName::Benbi,
            "eboiv" => IvName::Eboiv,
            _ => match iv.strip_prefix("essiv:").and_then(Hash::parse) {
                Some(hash) => IvName::Essiv(hash),
                None => return Err(unsupported(format!("initialisation vector {}", iv.escape_debug()))),
            },
        };
        let chaining = match mode {
            "ecb" => Chaining::Ecb,
            "cbc" => Chaining::Cbc(iv),
            "xts" if algorithm.block_bytes() == 16 => Chaining::Xts(iv),
            _ => return Err(unsupported(format!("mode {}", mode.escape_debug()))),
        };
        Ok(Self { name: name.into(), kind: Kind::Block(algorithm, chaining) })
    }

    /// Whether this cipher encrypts nothing.
    pub(crate) fn is_null(&self) -> bool {
        self.kind == Kind::Null
    }

    /// The cipher with a key.
    ///
    /// # Errors
    /// `Unsupported` if the cipher takes no key of this length.
    pub(crate) fn with_key(&self, key: &[u8]) -> Result<Box<dyn SectorCipher>> {
        let Kind::Block(algorithm, chaining) = self.kind else { return Ok(Box::new(NullCipher)) };
        let wrong_length = || {
            Error::Unsupported(format!("cipher {self} with a key of {} bits", key.len().saturating_mul(8)))
        };
        let mode = match chaining {
            Chaining::Ecb => BlockMode::Ecb,
            Chaining::Cbc(iv) => BlockMode::Cbc(iv.generator(algorithm, key).ok_or_else(wrong_length)?),
            Chaining::Xts(iv) => {
                if !key.len().is_multiple_of(2) {
                    return Err(wrong_length());
                }
                BlockMode::Xts(iv.generator(algorithm, key).ok_or_else(wrong_length)?)
            }
        };
        algorithm.sector_cipher(mode, key).ok_or_else(wrong_length)
    }
}

impl fmt::Display for CipherSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl IvName {
    /// The generator; `None` if the cipher takes no key of the length of the hash.
    fn generator(self, algorithm: Algorithm, key: &[u8]) -> Option<Iv> {
        Some(match self {
            Self::Null => Iv::Null,
            Self::Plain => Iv::Plain,
            Self::Plain64 => Iv::Plain64,
            Self::Plain64Be => Iv::Plain64Be,
            // Numbers count 512 bytes, which is 32 blocks of 16 bytes or 64 of 8.
            Self::Benbi => Iv::Benbi { shift: if algorithm.block_bytes() == 8 { 6 } else { 5 } },
            Self::Essiv(hash) => Iv::Essiv(algorithm.encryptor(&hash.digest(&[key]))?),
            Self::Eboiv => Iv::Eboiv(algorithm.encryptor(key)?),
        })
    }
}

/// Leaves everything as it is.
struct NullCipher;

impl SectorCipher for NullCipher {
    fn decrypt(&self, _: Sectors, _: &mut [u8]) {}
    fn encrypt(&self, _: Sectors, _: &mut [u8]) {}
}
