//! BitLocker drive encryption.
//!
//! A volume begins with a header that names three copies of its metadata. They hold the *volume master key*, sealed
//! once by each of the volume's *protectors* (a password, a recovery password, a startup key, a TPM), and the *full
//! volume encryption key*, sealed by the master key, which encrypts the sectors. The first sectors of the volume
//! are kept elsewhere, to make room for the header.
//!
//! Spec: libbde, "BitLocker Drive Encryption (BDE) format"; Niels Ferguson, "AES-CBC + Elephant diffuser", 2006.
//! All numbers are little-endian. What is not read is in `docs/formats/bitlocker.md`.

mod cipher;
mod elephant;
mod entry;
mod eow;
mod header;
mod layout;
mod metadata;
mod protector;
mod secret;
mod unlock;
mod vista;

use std::sync::Arc;

use vmcraft_block::BlockDevice;

use self::entry::{kind, role};
use self::header::Header;
use self::metadata::Metadata;
use crate::{Key, Member, Result};

pub use self::cipher::Method;
pub use self::metadata::State;
pub use self::protector::{Protector, ProtectorKind};

/// A BitLocker volume, locked.
#[derive(Debug, Clone)]
pub struct BitLocker {
    member: Member,
    header: Header,
    metadata: Metadata,
    description: Option<String>,
    protectors: Vec<Protector>,
    warnings: Vec<String>,
}

impl BitLocker {
    /// Reads what a volume says of itself; `None` if it is not a BitLocker volume.
    ///
    /// # Errors
    /// `Corrupt` if no copy of the metadata is whole, `Unsupported` if it is of a version that is not known.
    pub fn read(member: &Member) -> Result<Option<Self>> {
        let device = &*member.device;
        let Some(header) = header::read(device)? else { return Ok(None) };
        let (metadata, mut warnings) = metadata::read(device, &header)?;
        let mut protectors = Vec::new();
        let mut description = None;
        for entry in metadata.entries()? {
            match (entry.role, entry.kind) {
                (role::VOLUME_MASTER_KEY, kind::VOLUME_MASTER_KEY) => {
                    protectors.push(Protector::decode(&entry)?);
                }
                (role::DESCRIPTION, kind::UNICODE) => description = Some(entry.text()),
                _ => {}
            }
        }
        let size = device.size();
        if metadata.encrypted_bytes > size {
            warnings.push(format!(
                "the device ends at byte {size:#x}, before the BitLocker volume does at byte {:#x}",
                metadata.encrypted_bytes
            ));
        }
        Ok(Some(Self { member: member.clone(), header, metadata, description, protectors, warnings }))
    }

    /// The volume's GUID, in lower case.
    pub fn guid(&self) -> String {
        self.metadata.guid.to_string()
    }

    /// What Windows calls the volume: the computer, the label and the date.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// The version of the metadata: 1 for Vista, 2 for all later ones.
    pub fn version(&self) -> u16 {
        self.metadata.version
    }

    /// Whether it is encrypted, or on its way to that.
    pub fn state(&self) -> State {
        self.metadata.state
    }

    /// How sectors are encrypted; `None` if they are not, or by a method that is not known.
    pub fn method(&self) -> Option<Method> {
        Method::from_number(self.metadata.method)
    }

    /// The unit of encryption, in bytes.
    pub fn sector_size(&self) -> u32 {
        self.header.sector_size
    }

    /// The ways to unlock it, in the order of the metadata.
    pub fn protectors(&self) -> &[Protector] {
        &self.protectors
    }

    /// What the user should know, such as a damaged copy of the metadata.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether it takes a key to open it: not if it is decrypted, or if its protection is suspended.
    pub fn needs_key(&self) -> bool {
        self.is_encrypted() && !self.protectors.iter().any(|protector| protector.clear_key().is_some())
    }

    fn is_encrypted(&self) -> bool {
        self.metadata.state != State::Decrypted
    }

    /// Opens the volume with a password, a recovery password (48 digits) or the content of a startup key's file
    /// (`.BEK`). Each password takes a second or so.
    ///
    /// What is written is encrypted in its place. The places of BitLocker's own structures read as zeros, and what is
    /// written there is forgotten, as with the device mapper of Linux.
    ///
    /// # Errors
    /// [`Error::WrongKey`](crate::Error::WrongKey) if the key opens none of the protectors, and says which were tried;
    /// `Corrupt` if it does, but the metadata is not what the owner of the key wrote; `Unsupported` for a method that is
    /// not known, and for a volume whose conversion was interrupted.
    pub fn unlock(&self, key: &Key) -> Result<Arc<dyn BlockDevice>> {
        layout::open(self, if self.is_encrypted() { Some(unlock::with_key(self, key)?) } else { None })
    }

    /// Opens a volume that does not need a key.
    ///
    /// # Errors
    /// As for [`unlock`](Self::unlock).
    pub fn unlock_clear(&self) -> Result<Arc<dyn BlockDevice>> {
        layout::open(self, unlock::without_key(self)?)
    }
}
