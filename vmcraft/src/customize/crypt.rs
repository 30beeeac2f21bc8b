//! Password hashes as `crypt(3)` makes and checks them.

use md5::{Digest, Md5};
use sha_crypt::ShaCrypt;
use sha_crypt::password_hash::PasswordHasher;
use yescrypt::Yescrypt;

use crate::{Error, Result};

/// How a password is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crypt {
    /// `$1$`: for guests from before 2008, and weak.
    Md5,
    /// `$5$`: glibc 2.7 and later.
    Sha256,
    /// `$6$`: glibc 2.7 and later, musl.
    Sha512,
    /// `$y$`: libxcrypt 4.3 and later.
    Yescrypt,
}

impl Crypt {
    /// The method with this name: `md5`, `sha256`, `sha512` or `yescrypt`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "md5" => Self::Md5,
            "sha256" => Self::Sha256,
            "sha512" => Self::Sha512,
            "yescrypt" => Self::Yescrypt,
            _ => return None,
        })
    }

    /// The hash of a password, as it stands in `/etc/shadow`.
    pub fn hash(self, password: &[u8], salt: [u8; 16]) -> Result<String> {
        // What these encode of the salt is one character for each six bits.
        let hashed = match self {
            Self::Md5 => return Ok(md5_crypt(password, &salt)),
            Self::Sha256 => ShaCrypt::SHA256.hash_password_with_salt(password, &salt[..12]),
            Self::Sha512 => ShaCrypt::SHA512.hash_password_with_salt(password, &salt[..12]),
            Self::Yescrypt => Yescrypt::default().hash_password_with_salt(password, &salt),
        };
        hashed
            .map(|hash| hash.as_str().to_owned())
            .map_err(|e| Error::Usage(format!("the password cannot be hashed: {e}")))
    }
}

/// The alphabet of `crypt(3)`.
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The 64th part of the alphabet that six bits of a number name, lowest first.
fn encode(out: &mut String, mut bits: u32, characters: usize) {
    for _ in 0..characters {
        out.push(char::from(ALPHABET[(bits & 0x3f) as usize]));
        bits >>= 6;
    }
}

/// Poul-Henning Kamp's method of FreeBSD 2.0, with a salt of eight characters.
fn md5_crypt(password: &[u8], salt: &[u8; 16]) -> String {
    let mut text = String::new();
    for byte in &salt[..8] {
        encode(&mut text, u32::from(*byte), 1);
    }
    let salt = text.as_bytes();

    let mixed = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut first = Md5::new().chain_update(password).chain_update(b"$1$").chain_update(salt);
    for chunk in password.chunks(mixed.len()) {
        first.update(&mixed[..chunk.len()]);
    }
    let mut bits = password.len();
    while bits > 0 {
        // A zero byte for each set bit of the length, else the password's first.
        first.update(if bits & 1 == 1 { &[0][..] } else { &password[..1] });
        bits >>= 1;
    }
    let mut hash = first.finalize();
    for round in 0..1000 {
        let mut next = Md5::new();
        let odd = round % 2 == 1;
        next.update(if odd { password } else { &hash[..] });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if odd { &hash[..] } else { password });
        hash = next.finalize();
    }

    let mut out = format!("$1${text}$");
    for (a, b, c) in [(0, 6, 12), (1, 7, 13), (2, 8, 14), (3, 9, 15), (4, 10, 5)] {
        encode(&mut out, u32::from(hash[a]) << 16 | u32::from(hash[b]) << 8 | u32::from(hash[c]), 4);
    }
    encode(&mut out, u32::from(hash[11]), 2);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the host's `crypt(3)` makes of a password, with the salt of a hash.
    fn crypt3(password: &str, hash: &str) -> String {
        testkit::run_ok("perl", ["-e", "print crypt($ARGV[0], $ARGV[1])", password, hash])
    }

    #[test] // A guest's login must take them.
    fn hashes_are_those_of_crypt() {
        let long = "long enough to be hashed in more than one piece of sixteen bytes";
        for crypt in [Crypt::Md5, Crypt::Sha256, Crypt::Sha512, Crypt::Yescrypt] {
            for password in ["secret", "", "p", "grün und 16 byte", long] {
                let hash = crypt.hash(password.as_bytes(), *b"\x00\x7f\xff1 salt \x80bytes").unwrap();
                assert_eq!(crypt3(password, &hash), hash, "{crypt:?} {password:?}");
                assert!(!hash.contains(':'));
            }
        }
    }
}
