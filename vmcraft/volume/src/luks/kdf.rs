//! What makes a key of a passphrase, at a price.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::{Zeroize, Zeroizing};

use crate::crypt::hash::Hash;
use crate::{Error, Result};

/// The most memory that cryptsetup lets a key slot ask for, in KiB.
const MAX_MEMORY_KIB: u32 = 4 << 20;

/// The most memory times passes, in KiB: some minutes of work. cryptsetup's default is 1 GiB a few times over.
const MAX_ARGON2_WORK_KIB: u64 = 512 << 20;

/// The most lanes; cryptsetup makes up to 4.
const MAX_LANES: u32 = 64;

/// The most iterations for all pieces of a key together: some minutes of work.
const MAX_PBKDF2_WORK: u64 = 1_000_000_000;

/// A function that makes a key of a passphrase, with its costs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kdf {
    /// PBKDF2, the only one of LUKS1.
    Pbkdf2 {
        /// The hash function, as cryptsetup names it: `sha256`, `sha512`, `sha1`, `ripemd160`, `whirlpool` …
        hash: String,
        /// How often it is applied.
        iterations: u32,
    },
    /// Argon2i.
    Argon2i(Argon2Costs),
    /// Argon2id, the default of LUKS2.
    Argon2id(Argon2Costs),
}

/// What Argon2 costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argon2Costs {
    /// The passes over the memory.
    pub time: u32,
    /// The memory, in KiB.
    pub memory_kib: u32,
    /// The lanes, which threads work on at once.
    pub lanes: u32,
}

impl Kdf {
    /// As LUKS2 names it: `pbkdf2`, `argon2i` or `argon2id`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pbkdf2 { .. } => "pbkdf2",
            Self::Argon2i(_) => "argon2i",
            Self::Argon2id(_) => "argon2id",
        }
    }

    /// A key of `len` bytes.
    ///
    /// # Errors
    /// `Unsupported` for a hash function that we do not have, and for costs that no one has chosen who wanted the
    /// volume to be opened.
    pub(super) fn derive(&self, passphrase: &[u8], salt: &[u8], len: usize) -> Result<Zeroizing<Vec<u8>>> {
        match self {
            Self::Pbkdf2 { hash, iterations } => pbkdf2(hash, *iterations, passphrase, salt, len),
            Self::Argon2i(costs) => costs.derive(Algorithm::Argon2i, passphrase, salt, len),
            Self::Argon2id(costs) => costs.derive(Algorithm::Argon2id, passphrase, salt, len),
        }
    }
}

/// PBKDF2 with the hash of this name, within bounds.
pub(super) fn pbkdf2(
    hash: &str,
    iterations: u32,
    passphrase: &[u8],
    salt: &[u8],
    len: usize,
) -> Result<Zeroizing<Vec<u8>>> {
    let hash = find_hash(hash)?;
    let work = u64::from(iterations).saturating_mul(len.div_ceil(hash.len()) as u64);
    if work > MAX_PBKDF2_WORK {
        return Err(Error::Unsupported(format!(
            "PBKDF2 with {iterations} iterations: it would take too long"
        )));
    }
    Ok(hash.pbkdf2(passphrase, salt, iterations, len))
}

/// The hash function of this name.
pub(super) fn find_hash(name: &str) -> Result<Hash> {
    Hash::parse(name).ok_or_else(|| Error::Unsupported(format!("hash function {}", name.escape_debug())))
}

impl Argon2Costs {
    fn derive(
        self,
        algorithm: Algorithm,
        passphrase: &[u8],
        salt: &[u8],
        len: usize,
    ) -> Result<Zeroizing<Vec<u8>>> {
        let refused = |why: &str| {
            let Self { time, memory_kib, lanes } = self;
            Error::Unsupported(format!(
                "Argon2 with {memory_kib} KiB of memory, {time} passes and {lanes} lanes: {why}"
            ))
        };
        if self.memory_kib > MAX_MEMORY_KIB {
            return Err(refused("more than 4 GiB of memory"));
        }
        if u64::from(self.memory_kib) * u64::from(self.time) > MAX_ARGON2_WORK_KIB {
            return Err(refused("it would take too long"));
        }
        if self.lanes > MAX_LANES {
            return Err(refused("too many lanes"));
        }
        let params = Params::new(self.memory_kib, self.time, self.lanes, Some(len))
            .map_err(|error| refused(&error.to_string()))?;
        let mut memory = Vec::new();
        memory.try_reserve_exact(params.block_count()).map_err(|_| refused("there is not so much memory"))?;
        memory.resize(params.block_count(), Block::default());
        let mut key = Zeroizing::new(vec![0; len]);
        let done = Argon2::new(algorithm, Version::V0x13, params).hash_password_into_with_memory(
            passphrase,
            salt,
            &mut key,
            &mut memory,
        );
        memory.iter_mut().for_each(Block::zeroize);
        done.map_err(|error| refused(&error.to_string()))?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kdf: &Kdf) -> String {
        kdf.derive(b"a", &[0; 32], 64).expect_err("too much is asked for").to_string()
    }

    #[test] // A header must not make us take all memory, or never come back.
    fn costs_are_bounded() {
        let costs = |time, memory_kib, lanes| Kdf::Argon2id(Argon2Costs { time, memory_kib, lanes });
        assert!(error(&costs(1, MAX_MEMORY_KIB + 1, 4)).contains("more than 4 GiB"));
        assert!(error(&costs(u32::MAX, 1024, 4)).contains("too long"));
        assert!(error(&costs(1, 1024, 65)).contains("lanes"));
        assert!(error(&costs(1, 8, 4)).contains("Argon2 with 8 KiB"));
        assert!(error(&costs(0, 1024, 4)).contains("0 passes"));
        let slow = Kdf::Pbkdf2 { hash: "sha256".into(), iterations: u32::MAX };
        assert!(error(&slow).contains("PBKDF2 with 4294967295 iterations"));
        let unknown = Kdf::Pbkdf2 { hash: "md4".into(), iterations: 1 };
        assert_eq!(error(&unknown), "not supported: hash function md4");
    }
}
