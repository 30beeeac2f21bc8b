//! Keys in and out of a slot's area.

use vmcraft_block::BlockDevice;
use zeroize::Zeroizing;

use super::af;
use super::kdf::find_hash;
use super::layout::Slot;
use crate::crypt::{CipherSpec, SectorCipher, Sectors};
use crate::{Error, Key, Result};

/// How the sectors of an area are numbered: 512 bytes each, from 0, whatever the data's sectors are.
const SECTORS: Sectors = Sectors { size: 512, first: 0, step: 1 };

impl Slot {
    /// What the passphrase makes of the slot's area: the key, if it is the right one.
    pub(super) fn open(&self, device: &dyn BlockDevice, key: &Key) -> Result<Zeroizing<Vec<u8>>> {
        let hash = find_hash(&self.af_hash)?;
        let cipher = self.area_cipher(key)?;
        let mut material = Zeroizing::new(self.read_area(device)?);
        cipher.decrypt(SECTORS, &mut material);
        Ok(af::merge(&material[..self.material_bytes()], self.key_bytes, hash))
    }

    /// Puts a key into the slot's area.
    pub(super) fn store(
        &self,
        device: &dyn BlockDevice,
        key: &Key,
        stored: &[u8],
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<()> {
        let cipher = self.area_cipher(key)?;
        let mut material = af::split(stored, self.stripes, find_hash(&self.af_hash)?, random);
        let whole = material.len().next_multiple_of(SECTORS.size);
        // Reserving first, so that no copy of the material is left behind in memory.
        let mut padded = Zeroizing::new(Vec::with_capacity(whole));
        padded.append(&mut material);
        padded.resize(whole, 0);
        cipher.encrypt(SECTORS, &mut padded);
        device.write_at(self.area_offset, &padded)?;
        Ok(())
    }

    /// The cipher of the area, with the key that a passphrase makes.
    fn area_cipher(&self, key: &Key) -> Result<Box<dyn SectorCipher>> {
        let spec = CipherSpec::parse(&self.area_cipher)?;
        // Nothing is secret in such a slot; to believe a passphrase there would say otherwise.
        if spec.is_null() && !key.as_bytes().is_empty() {
            return Err(Error::Unsupported(format!(
                "key slot {} is not encrypted (cipher_null): only the empty passphrase opens it",
                self.number
            )));
        }
        spec.with_key(&self.kdf.derive(key.as_bytes(), &self.salt, self.area_key_bytes)?)
    }

    fn read_area(&self, device: &dyn BlockDevice) -> Result<Vec<u8>> {
        let len = self.material_bytes().next_multiple_of(SECTORS.size);
        let end = self.area_offset.checked_add(len as u64);
        if end.is_none_or(|end| end > device.size()) {
            return Err(Error::Corrupt {
                what: format!("LUKS header: the device ends within the area of key slot {}", self.number),
                offset: self.area_offset,
            });
        }
        let mut area = vec![0; len];
        device.read_at(self.area_offset, &mut area)?;
        Ok(area)
    }

    /// The first sector of the area that cannot be encrypted key material, as all its bytes are the same.
    pub(super) fn overwritten_at(&self, device: &dyn BlockDevice) -> Option<u64> {
        let area = self.read_area(device).ok()?;
        // The rest of the last sector need not be encrypted.
        let sectors = area[..self.material_bytes()].chunks_exact(SECTORS.size);
        let index = sectors.clone().position(|sector| sector.iter().all(|byte| *byte == sector[0]))?;
        Some(self.area_offset + (index * SECTORS.size) as u64)
    }
}
