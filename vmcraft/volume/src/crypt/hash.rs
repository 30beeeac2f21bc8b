//! Hash functions by the names that cryptsetup and the kernel give them.

use digest::Digest;
use zeroize::Zeroizing;

/// A hash function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha1,
    Sha224,
    Sha256,
    Sha384,
    Sha512,
    Ripemd160,
    Whirlpool,
    Blake2b512,
    Blake2s256,
}

impl Hash {
    const ALL: [(&'static str, Self); 9] = [
        ("sha1", Self::Sha1),
        ("sha224", Self::Sha224),
        ("sha256", Self::Sha256),
        ("sha384", Self::Sha384),
        ("sha512", Self::Sha512),
        ("ripemd160", Self::Ripemd160),
        ("whirlpool", Self::Whirlpool),
        ("blake2b-512", Self::Blake2b512),
        ("blake2s-256", Self::Blake2s256),
    ];

    /// The hash function of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find_map(|(known, hash)| known.eq_ignore_ascii_case(name).then_some(*hash))
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        Self::ALL.iter().find_map(|(name, hash)| (*hash == self).then_some(*name)).unwrap_or_default()
    }

    /// The length of a digest, in bytes.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Sha1 | Self::Ripemd160 => 20,
            Self::Sha224 => 28,
            Self::Sha256 | Self::Blake2s256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 | Self::Whirlpool | Self::Blake2b512 => 64,
        }
    }

    /// The digest of the parts, one after the other.
    pub(crate) fn digest(self, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        fn run<D: Digest>(parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
            let mut digest = D::new();
            parts.iter().for_each(|part| digest.update(part));
            Zeroizing::new(digest.finalize().to_vec())
        }
        match self {
            Self::Sha1 => run::<sha1::Sha1>(parts),
            Self::Sha224 => run::<sha2::Sha224>(parts),
            Self::Sha256 => run::<sha2::Sha256>(parts),
            Self::Sha384 => run::<sha2::Sha384>(parts),
            Self::Sha512 => run::<sha2::Sha512>(parts),
            Self::Ripemd160 => run::<ripemd::Ripemd160>(parts),
            Self::Whirlpool => run::<whirlpool::Whirlpool>(parts),
            Self::Blake2b512 => run::<blake2::Blake2b512>(parts),
            Self::Blake2s256 => run::<blake2::Blake2s256>(parts),
        }
    }

    /// PBKDF2 with the HMAC of this hash function: `len` bytes.
    pub(crate) fn pbkdf2(
        self,
        password: &[u8],
        salt: &[u8],
        iterations: u32,
        len: usize,
    ) -> Zeroizing<Vec<u8>> {
        use hmac::{Hmac, SimpleHmac};
        let mut key = Zeroizing::new(vec![0; len]);
        let result = match self {
            Self::Sha1 => pbkdf2::pbkdf2::<Hmac<sha1::Sha1>>(password, salt, iterations, &mut key),
            Self::Sha224 => pbkdf2::pbkdf2::<Hmac<sha2::Sha224>>(password, salt, iterations, &mut key),
            Self::Sha256 => pbkdf2::pbkdf2::<Hmac<sha2::Sha256>>(password, salt, iterations, &mut key),
            Self::Sha384 => pbkdf2::pbkdf2::<Hmac<sha2::Sha384>>(password, salt, iterations, &mut key),
            Self::Sha512 => pbkdf2::pbkdf2::<Hmac<sha2::Sha512>>(password, salt, iterations, &mut key),
            Self::Ripemd160 => {
                pbkdf2::pbkdf2::<Hmac<ripemd::Ripemd160>>(password, salt, iterations, &mut key)
            }
            Self::Whirlpool => {
                pbkdf2::pbkdf2::<Hmac<whirlpool::Whirlpool>>(password, salt, iterations, &mut key)
            }
            Self::Blake2b512 => {
                pbkdf2::pbkdf2::<SimpleHmac<blake2::Blake2b512>>(password, salt, iterations, &mut key)
            }
            Self::Blake2s256 => {
                pbkdf2::pbkdf2::<SimpleHmac<blake2::Blake2s256>>(password, salt, iterations, &mut key)
            }
        };
        // HMAC takes passwords of any length.
        debug_assert!(result.is_ok());
        key
    }
}
