//! What keeps the volume master key: a password, a recovery password, a startup key, a TPM.

use std::fmt;

use uuid::Uuid;
use zeroize::Zeroizing;

use super::entry::{Entry, kind};
use super::secret;
use crate::Result;

/// A way to unlock a volume.
#[derive(Debug, Clone)]
pub struct Protector {
    /// Its GUID, in lower case: what Windows shows to tell recovery passwords apart, and the name of a `.BEK` file.
    pub id: String,
    /// What it takes.
    pub kind: ProtectorKind,
    /// The name that it was given, if it has one.
    pub description: Option<String>,
    pub(super) raw_id: [u8; 16],
    seal: Seal,
}

/// What a protector takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtectorKind {
    /// Nothing: the key stands beside it, as in a volume whose protection is suspended.
    ClearKey,
    /// The machine's TPM, with what it wants besides.
    Tpm {
        /// A PIN.
        pin: bool,
        /// A startup key.
        startup_key: bool,
    },
    /// The content of a `.BEK` file: a startup key, or what unlocks a data volume automatically.
    StartupKey,
    /// The 48 digits.
    RecoveryPassword,
    /// A certificate or a smart card.
    PublicKey,
    /// A password.
    Password,
    /// One that is not known, with its number.
    Other(u16),
}

impl From<u16> for ProtectorKind {
    fn from(number: u16) -> Self {
        match number {
            0x0000 => Self::ClearKey,
            0x0100 => Self::Tpm { pin: false, startup_key: false },
            0x0200 => Self::StartupKey,
            0x0300 => Self::Tpm { pin: false, startup_key: true },
            0x0500 => Self::Tpm { pin: true, startup_key: false },
            0x0700 => Self::Tpm { pin: true, startup_key: true },
            0x0800 => Self::RecoveryPassword,
            0x1000 => Self::PublicKey,
            0x2000 => Self::Password,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for ProtectorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClearKey => "clear key",
            Self::Tpm { pin: false, startup_key: false } => "TPM",
            Self::Tpm { pin: true, startup_key: false } => "TPM and PIN",
            Self::Tpm { pin: false, startup_key: true } => "TPM and startup key",
            Self::Tpm { pin: true, startup_key: true } => "TPM, PIN and startup key",
            Self::StartupKey => "startup key",
            Self::RecoveryPassword => "recovery password",
            Self::PublicKey => "certificate or smart card",
            Self::Password => "password",
            Self::Other(number) => return write!(f, "unknown protector {number:#06x}"),
        })
    }
}

/// How the master key is sealed. The bytes are as on disk: a reader of the disk has them too, clear key included.
#[derive(Debug, Clone, Default)]
struct Seal {
    clear_key: Option<[u8; 32]>,
    salt: Option<[u8; 16]>,
    /// The data of the AES-CCM sealed key, and where they are on the device.
    sealed: Option<(Vec<u8>, u64)>,
}

/// Says that the salted hash is another one, as Windows makes it when its policy asks for FIPS 140.
const FLAG_PBKDF2: u16 = 0x40;

impl Protector {
    /// Reads an entry of the kind "volume master key".
    pub(super) fn decode(entry: &Entry<'_>) -> Result<Self> {
        const WHAT: &str = "a protector that is too short";
        let (raw_id, rest) = entry.split::<16>(0, WHAT)?;
        // 10 bytes: when it was changed, and a number that we do not know.
        let (number, rest) = rest.split::<2>(10, WHAT)?;
        let mut seal = Seal::default();
        let mut description = None;
        for property in rest.entries("a protector")? {
            match property.kind {
                kind::UNICODE => description = Some(property.text()),
                kind::KEY => seal.clear_key = property.key()?.try_into().ok(),
                kind::STRETCH_KEY => {
                    let (method, rest) = property.split::<4>(0, WHAT)?;
                    let (salt, _copies) = rest.split::<16>(0, WHAT)?;
                    let flags = u16::from_le_bytes([method[2], method[3]]);
                    seal.salt = (flags & FLAG_PBKDF2 == 0).then_some(*salt);
                }
                kind::AES_CCM_KEY => seal.sealed = Some((property.data.to_vec(), property.offset)),
                _ => {}
            }
        }
        Ok(Self {
            id: Uuid::from_bytes_le(*raw_id).to_string(),
            kind: u16::from_le_bytes(*number).into(),
            description,
            raw_id: *raw_id,
            seal,
        })
    }

    /// The salt of what it takes, if it takes something that is salted.
    pub(super) fn salt(&self) -> Option<&[u8; 16]> {
        self.seal.salt.as_ref()
    }

    /// The key that stands beside it.
    pub(super) fn clear_key(&self) -> Option<&[u8; 32]> {
        self.seal.clear_key.as_ref()
    }

    /// The volume master key; `None` if `key` is not what sealed it.
    pub(super) fn master_key(&self, key: &[u8; 32]) -> Result<Option<Zeroizing<[u8; 32]>>> {
        let Some((data, offset)) = &self.seal.sealed else { return Ok(None) };
        let sealed = Entry { role: 0, kind: kind::AES_CCM_KEY, data, offset: *offset };
        let Some(opened) = secret::unwrap(&sealed, key)? else { return Ok(None) };
        let key: [u8; 32] = opened
            .as_slice()
            .try_into()
            .map_err(|_| sealed.corrupt("a volume master key that has not 32 bytes"))?;
        Ok(Some(Zeroizing::new(key)))
    }
}
