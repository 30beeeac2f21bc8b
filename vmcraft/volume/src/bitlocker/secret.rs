//! From what the user gives to the key that encrypts sectors.
//!
//! The user's secret opens the volume master key, which opens the full volume encryption key.

use aes::Aes256;
use aes::cipher::consts::{U12, U16};
use ccm::{AeadInOut, Ccm, KeyInit};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::entry::{self, Entry, kind, role};
use crate::{Error, Result};

/// How often a secret is hashed to make guessing slow.
const ROUNDS: u64 = 0x10_0000;

/// Opens an AES-CCM sealed key; `None` if `key` is not the one that sealed it.
///
/// The data are a nonce of 12 bytes, the authentication code of 16, and what is sealed: an entry of the kind "key"
/// with its header.
pub(super) fn unwrap(sealed: &Entry<'_>, key: &[u8; 32]) -> Result<Option<Zeroizing<Vec<u8>>>> {
    const WHAT: &str = "an encrypted key that is too short";
    let (nonce, rest) = sealed.split::<12>(0, WHAT)?;
    let (code, rest) = rest.split::<16>(0, WHAT)?;
    let mut plain = Zeroizing::new(rest.data.to_vec());
    let cipher = Ccm::<Aes256, U16, U12>::new(&(*key).into());
    if cipher
        .decrypt_inout_detached(&(*nonce).into(), b"", plain.as_mut_slice().into(), &(*code).into())
        .is_err()
    {
        return Ok(None);
    }
    let entries = entry::decode(&plain, rest.offset, "an encrypted key")?;
    let opened = entries.iter().find(|entry| entry.kind == kind::KEY);
    let key = opened.ok_or_else(|| sealed.corrupt("an encrypted key that holds none"))?.key()?;
    Ok(Some(Zeroizing::new(key.to_vec())))
}

impl<'a> Entry<'a> {
    /// The bytes of an entry of the kind "key".
    pub(super) fn key(&self) -> Result<&'a [u8]> {
        let (_method_and_flags, rest) = self.split::<4>(0, "a key that is too short")?;
        Ok(rest.data)
    }
}

/// The first hash of a password, which [`stretch`] goes on from.
pub(super) fn password_hash(password: &str) -> Zeroizing<[u8; 32]> {
    let units: Zeroizing<Vec<u8>> =
        Zeroizing::new(password.encode_utf16().flat_map(u16::to_le_bytes).collect());
    let once = Zeroizing::new(<[u8; 32]>::from(Sha256::digest(&*units)));
    Zeroizing::new(Sha256::digest(*once).into())
}

/// What [`RecoveryPassword::read`] makes of a text.
pub(super) enum RecoveryPassword {
    /// It has not the form of one.
    NotOne,
    /// It has the form, but the group with this number, from 1, is mistyped.
    Mistyped(usize),
    /// The first hash of it, which [`stretch`] goes on from.
    Hash(Zeroizing<[u8; 32]>),
}

impl RecoveryPassword {
    /// Reads 48 digits in eight groups, with or without dashes or spaces between the groups. Each group of a recovery
    /// password is a 16-bit number times 11.
    pub(super) fn read(text: &str) -> Self {
        let text = text.trim();
        let digits: Zeroizing<Vec<u8>> =
            Zeroizing::new(text.bytes().filter(|byte| !matches!(byte, b'-' | b' ')).collect());
        if digits.len() != 48 || !digits.iter().all(u8::is_ascii_digit) {
            return Self::NotOne;
        }
        let mut key = Zeroizing::new([0; 16]);
        for (number, (group, part)) in digits.chunks_exact(6).zip(key.chunks_exact_mut(2)).enumerate() {
            let value = group.iter().fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
            match u16::try_from(value / 11) {
                Ok(word) if value % 11 == 0 => part.copy_from_slice(&word.to_le_bytes()),
                _ => return Self::Mistyped(number + 1),
            }
        }
        Self::Hash(Zeroizing::new(Sha256::digest(*key).into()))
    }
}

/// The key that comes from a first hash and the protector's salt.
pub(super) fn stretch(first: &[u8; 32], salt: &[u8; 16]) -> Zeroizing<[u8; 32]> {
    // The last hash, the first hash, the salt, and the number of the round.
    let mut state = Zeroizing::new([0; 88]);
    state[32..64].copy_from_slice(first);
    state[64..80].copy_from_slice(salt);
    for round in 0..ROUNDS {
        state[80..].copy_from_slice(&round.to_le_bytes());
        let hash = Sha256::digest(&state[..]);
        state[..32].copy_from_slice(&hash);
    }
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(&state[..32]);
    key
}

/// A startup key: what is in a `.BEK` file.
pub(super) struct StartupKey {
    /// The identifier of the protector that it opens.
    pub(super) id: [u8; 16],
    pub(super) key: Zeroizing<[u8; 32]>,
}

impl StartupKey {
    /// Reads a `.BEK` file; `None` if it is not one.
    ///
    /// The file is a header of 48 bytes like that of the metadata's entries, and entries.
    ///
    /// # Errors
    /// [`Error::WrongKey`] if it is one, but damaged.
    pub(super) fn read(file: &[u8]) -> Result<Option<Self>> {
        let word = |at: usize| {
            let bytes = file.get(at..).and_then(<[u8]>::first_chunk)?;
            usize::try_from(u32::from_le_bytes(*bytes)).ok()
        };
        let (Some(size), Some(1), Some(48), Some(copy)) = (word(0), word(4), word(8), word(12)) else {
            return Ok(None);
        };
        let damaged = |why: &str| Error::WrongKey(format!("the startup key's file (.BEK) is damaged: {why}"));
        let Some(list) = file.get(48..size).filter(|_| size == copy) else {
            return Err(damaged("it is cut off"));
        };
        let of_file = |error| match error {
            Error::Corrupt { what, offset } => damaged(&format!("{what} at byte {offset:#x} of the file")),
            other => other,
        };
        let entries = entry::decode(list, 48, "the file").map_err(of_file)?;
        let external = entries.iter().find(|e| (e.role, e.kind) == (role::STARTUP_KEY, kind::EXTERNAL_KEY));
        let external = external.ok_or_else(|| damaged("it has no external key"))?;
        let (id, rest) = external.split::<16>(0, "an external key that is too short").map_err(of_file)?;
        let (_changed, rest) = rest.split::<8>(0, "an external key that is too short").map_err(of_file)?;
        let properties = rest.entries("an external key").map_err(of_file)?;
        let key = properties.iter().find(|entry| entry.kind == kind::KEY);
        let key = key.ok_or_else(|| damaged("its external key has no key"))?.key().map_err(of_file)?;
        let key = key.try_into().map_err(|_| damaged("its key has not 32 bytes"))?;
        Ok(Some(Self { id: *id, key: Zeroizing::new(key) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "471207-278498-422125-177177-561902-537405-468006-693451"; // of the format's description

    #[test] // Its form alone tells a recovery password from a password, and a slip of the finger from both.
    fn recovery_passwords_are_told_from_passwords() {
        let hash = |text: &str| match RecoveryPassword::read(text) {
            RecoveryPassword::Hash(hash) => *hash,
            _ => panic!("{text} is a recovery password"),
        };
        assert_eq!(hash(GOOD), hash(&GOOD.replace('-', "")));
        assert_eq!(hash(GOOD), hash(&format!(" {} \n", GOOD.replace('-', " "))));
        for other in ["", "anaconda", &GOOD[1..], &format!("{GOOD}0"), &GOOD.replace('4', "x")] {
            assert!(matches!(RecoveryPassword::read(other), RecoveryPassword::NotOne), "{other}");
        }
        for (number, group) in GOOD.split('-').enumerate() {
            let slipped = GOOD.replace(group, &format!("{:06}", group.parse::<u32>().unwrap() + 1));
            assert!(
                matches!(RecoveryPassword::read(&slipped), RecoveryPassword::Mistyped(n) if n == number + 1)
            );
            // Divisible, but more than 16 bits.
            let beyond = GOOD.replace(group, "720896");
            assert!(
                matches!(RecoveryPassword::read(&beyond), RecoveryPassword::Mistyped(n) if n == number + 1)
            );
        }
    }

    #[test] // Files that are none, and files that are cut off anywhere.
    fn startup_keys_are_checked() {
        assert!(StartupKey::read(b"anaconda").unwrap().is_none());
        let mut file = vec![0; 0x9c];
        for (at, word) in [(0, 0x9c_u32), (4, 1), (8, 48), (12, 0x9c), (0x30, 6 << 16 | 0x6c), (0x34, 9)] {
            file[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        file[0x50..0x58].copy_from_slice(&[44, 0, 0, 0, 1, 0, 1, 0]);
        file[0x38..0x3a].copy_from_slice(&[7, 7]);
        let found = StartupKey::read(&file).unwrap().expect("a startup key");
        assert_eq!((found.id[..2].to_vec(), *found.key), (vec![7, 7], [0; 32]));
        for len in 0..file.len() {
            assert!(!matches!(StartupKey::read(&file[..len]), Ok(Some(_))), "{len}");
        }
    }
}
