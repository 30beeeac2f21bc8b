//! What makes a key of a passphrase, at a price.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use zeroize::{Zeroize, Zeroizing};

use crate::crypt::hash::Hash;
use crate::{Error, Result};

/// The most memory that cryptsetup lets a key slot ask for, in KiB.
pub(super) const MAX_MEMORY_KIB: u32 = 4 << 20;

/// The most memory times passes, in KiB: some minutes of work. cryptsetup's default is 1 GiB a few times over.
const MAX_ARGON2_WORK_KIB: u64 = 512 << 20;

/// The most lanes; cryptsetup makes up to 4.
const MAX_LANES: u32 = 64;

/// The most iterations for all pieces of a key together: some minutes of work.
const MAX_PBKDF2_WORK: u64 = 1_000_000_000;

/// What the costs of several functions are added up in: the most that one of them may cost.
pub(super) const MAX_COST: u64 = 1_000_000;

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

    /// What a key of `len` bytes costs, in parts of [`MAX_COST`]. What costs more is refused by
    /// [`derive`](Kdf::derive).
    pub(super) fn cost(&self, len: usize) -> u64 {
        match self {
            Self::Pbkdf2 { hash, iterations } => pbkdf2_cost(hash, *iterations, len),
            Self::Argon2i(costs) | Self::Argon2id(costs) => part(costs.work(), MAX_ARGON2_WORK_KIB),
        }
    }

    /// The memory that it takes, in KiB.
    pub(super) fn memory_kib(&self) -> u32 {
        match self {
            Self::Pbkdf2 { .. } => 0,
            Self::Argon2i(costs) | Self::Argon2id(costs) => costs.memory_kib,
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
    if pbkdf2_work(hash, iterations, len) > MAX_PBKDF2_WORK {
        return Err(Error::Unsupported(format!(
            "PBKDF2 with {iterations} iterations: it would take too long"
        )));
    }
    Ok(hash.pbkdf2(passphrase, salt, iterations, len))
}

/// What PBKDF2 costs, in parts of [`MAX_COST`]; nothing with a hash that we do not have.
pub(super) fn pbkdf2_cost(hash: &str, iterations: u32, len: usize) -> u64 {
    let work = Hash::parse(hash).map_or(0, |hash| pbkdf2_work(hash, iterations, len));
    part(work, MAX_PBKDF2_WORK)
}

fn pbkdf2_work(hash: Hash, iterations: u32, len: usize) -> u64 {
    u64::from(iterations).saturating_mul(len.div_ceil(hash.len()) as u64)
}

/// Work in parts of the most that there may be, rounded up: no derivation is free.
fn part(work: u64, most: u64) -> u64 {
    work.saturating_mul(MAX_COST).div_ceil(most)
}

/// The hash function of this name.
pub(super) fn find_hash(name: &str) -> Result<Hash> {
    Hash::parse(name).ok_or_else(|| Error::Unsupported(format!("hash function {}", name.escape_debug())))
}

impl Argon2Costs {
    /// Memory times passes, in KiB.
    fn work(self) -> u64 {
        u64::from(self.memory_kib) * u64::from(self.time)
    }

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
        if self.work() > MAX_ARGON2_WORK_KIB {
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

    #[test]
    fn costs_are_parts_of_the_most() {
        let argon = |time, memory_kib| Kdf::Argon2id(Argon2Costs { time, memory_kib, lanes: 4 }).cost(64);
        assert_eq!(argon(128, 4 << 20), MAX_COST);
        assert_eq!(argon(4, 1 << 20), MAX_COST / 128 + 1, "of 32 slots, a quarter");
        assert!(argon(u32::MAX, u32::MAX) > MAX_COST);
        let pbkdf2 = |hash: &str, iterations| Kdf::Pbkdf2 { hash: hash.into(), iterations }.cost(64);
        assert_eq!(pbkdf2("sha256", 500_000_000), MAX_COST);
        assert_eq!(pbkdf2("sha512", 1), 1);
        assert_eq!(pbkdf2("md4", 1), 0, "it is refused");
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
