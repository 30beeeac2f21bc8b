//! Which protector a key opens, and what it takes to say that it opens none.

use zeroize::Zeroizing;

use super::cipher::{self, Method};
use super::entry::{kind, role};
use super::secret::{self, RecoveryPassword, StartupKey};
use super::{BitLocker, Protector, ProtectorKind};
use crate::crypt::SectorCipher;
use crate::{Error, Key, Result};

/// The cipher of a volume that `key` opens.
pub(super) fn with_key(volume: &BitLocker, key: &Key) -> Result<Box<dyn SectorCipher>> {
    if let Some(file) = StartupKey::read(key.as_bytes())? {
        let fits = |p: &&Protector| p.kind == ProtectorKind::StartupKey && p.raw_id == file.id;
        let Some(protector) = volume.protectors.iter().find(fits) else {
            let id = uuid::Uuid::from_bytes_le(file.id);
            return Err(Error::WrongKey(format!(
                "the startup key's file (.BEK) is for the protector {id}, which this BitLocker volume does not have; \
                 it has {}",
                listed(&volume.protectors)
            )));
        };
        return match protector.master_key(&file.key)? {
            Some(master_key) => open_cipher(volume, &master_key),
            None => Err(Error::WrongKey(format!(
                "the startup key's file (.BEK) names the protector {}, but does not open it",
                protector.id
            ))),
        };
    }
    let text = std::str::from_utf8(key.as_bytes()).map_err(|_| {
        Error::WrongKey(
            "the key is neither text nor a startup key's file (.BEK), so it opens no BitLocker volume".into(),
        )
    })?;
    let mut tried = Vec::new();
    let mut hint = String::new();
    let mut hashes = Vec::new();
    match RecoveryPassword::read(text) {
        RecoveryPassword::Hash(hash) => hashes.push((ProtectorKind::RecoveryPassword, hash)),
        RecoveryPassword::Mistyped(group) => {
            hint =
                format!("; it looks like a recovery password, but group {group} of its digits is mistyped");
        }
        RecoveryPassword::NotOne => {}
    }
    hashes.push((ProtectorKind::Password, secret::password_hash(text)));
    for (kind, hash) in hashes {
        for protector in volume.protectors.iter().filter(|protector| protector.kind == kind) {
            let Some(salt) = protector.salt() else { continue };
            tried.push(protector.clone());
            if let Some(master_key) = protector.master_key(&secret::stretch(&hash, salt))? {
                return open_cipher(volume, &master_key);
            }
        }
    }
    let is_left = |p: &&Protector| !tried.iter().any(|tried| tried.raw_id == p.raw_id);
    let left: Vec<_> = volume.protectors.iter().filter(is_left).cloned().collect();
    let mut message = match tried.len() {
        0 => "no protector of the BitLocker volume takes such a key".into(),
        _ => format!("the key does not open the BitLocker volume: tried {}", listed(&tried)),
    };
    message += &hint;
    if !left.is_empty() {
        message += &format!("; it has also {}", listed(&left));
    }
    if left.iter().any(|protector| matches!(protector.kind, ProtectorKind::Tpm { .. })) {
        message += " (a TPM unlocks only in its own machine: give the recovery password)";
    }
    Err(Error::WrongKey(message))
}

/// The cipher of a volume with a clear key; `None` if nothing is encrypted.
pub(super) fn without_key(volume: &BitLocker) -> Result<Option<Box<dyn SectorCipher>>> {
    if !volume.is_encrypted() {
        return Ok(None);
    }
    for protector in &volume.protectors {
        let Some(key) = protector.clear_key() else { continue };
        if let Some(master_key) = protector.master_key(key)? {
            return open_cipher(volume, &master_key).map(Some);
        }
    }
    Err(Error::WrongKey(format!(
        "the BitLocker volume needs a key: it has {}, and no clear key that opens it",
        listed(&volume.protectors)
    )))
}

/// The cipher that a master key gives, once the metadata is seen to be what the key's owner wrote.
fn open_cipher(volume: &BitLocker, master_key: &Zeroizing<[u8; 32]>) -> Result<Box<dyn SectorCipher>> {
    let metadata = &volume.metadata;
    if metadata.is_authentic(master_key)? == Some(false) {
        return Err(Error::Corrupt {
            what: "BitLocker metadata: its hash is not the one that the volume's key protects".into(),
            offset: metadata.offset,
        });
    }
    let method = Method::from_number(metadata.method).ok_or_else(|| {
        Error::Unsupported(format!("BitLocker with the encryption method {:#06x}", metadata.method))
    })?;
    let entries = metadata.entries()?;
    let is_key = |role: u16, kind: u16| (role, kind) == (role::FULL_VOLUME_ENCRYPTION_KEY, kind::AES_CCM_KEY);
    let sealed =
        entries.iter().find(|entry| is_key(entry.role, entry.kind)).ok_or_else(|| Error::Corrupt {
            what: "BitLocker metadata: there is no full volume encryption key".into(),
            offset: metadata.offset,
        })?;
    let key = secret::unwrap(sealed, master_key)?;
    let key = key
        .ok_or_else(|| sealed.corrupt("a full volume encryption key that the volume's key does not open"))?;
    cipher::with_key(method, &key)
}

/// The kinds of protectors, with how many there are of each: `1 password, 2 recovery passwords`.
fn listed(protectors: &[Protector]) -> String {
    let mut kinds: Vec<(String, usize)> = Vec::new();
    for protector in protectors {
        let name = protector.kind.to_string();
        match kinds.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => kinds.push((name, 1)),
        }
    }
    if kinds.is_empty() {
        return "no protector".into();
    }
    let plural = |count: &usize| if *count > 1 { "s" } else { "" };
    kinds
        .iter()
        .map(|(kind, count)| format!("{count} {kind}{}", plural(count)))
        .collect::<Vec<_>>()
        .join(", ")
}
