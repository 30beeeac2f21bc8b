//! Changing the key slots, and the header itself.
//!
//! A change is made on a copy of the metadata first, so that what is refused has changed nothing. Each writes all
//! copies of the header; one that was damaged is whole afterwards.

use zeroize::Zeroizing;

use super::format::{Version, default_kdf, parse_uuid, salt, write};
use super::kdf::Kdf;
use super::layout::{KeyslotState, Slot, material_sectors_bytes};
use super::{Effort, Luks, Metadata, v1, v2};
use crate::{Error, Key, Result};

/// How a key is added or replaced.
#[derive(Debug, Clone, Default)]
pub struct KeyOptions {
    /// The slot: of a key that is added, the one that takes it, by default the first that is free; of a key that is
    /// replaced, the one it must open, by default any.
    pub slot: Option<u32>,
    /// What makes a key of the new passphrase: by default what [`super::FormatOptions`] has for the volume's version.
    pub kdf: Option<Kdf>,
}

impl Luks {
    /// Adds a key to the volume that `existing` opens; gives the slot that has it.
    ///
    /// # Errors
    /// `WrongKey` if `existing` opens nothing; `Refused` if the slot has a key, or there is no free slot or space.
    pub fn add_key(
        &mut self,
        existing: &Key,
        new: &Key,
        options: &KeyOptions,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<u32> {
        self.check_changeable()?;
        let (like, volume_key) = self.find_key(existing, None)?;
        let number = match options.slot {
            Some(number) => number,
            None => self.free_slot()?,
        };
        if self.listed(number).is_some_and(|state| state != KeyslotState::Inactive) {
            return Err(Error::Refused(format!("key slot {number} is in use")));
        }
        let mut metadata = self.metadata.clone();
        let slot = match &mut metadata {
            Metadata::V1(header) => {
                let slot = self.with_new_salt(header.empty_slot(number), options, random);
                header.activate(&slot)?;
                slot
            }
            Metadata::V2(header) => {
                let pattern = self.slot(like)?.clone();
                let area_bytes = v2::area_bytes(pattern.key_bytes as u64, pattern.stripes);
                let area_offset = header.free_area(area_bytes)?;
                let priority = super::Priority::Normal;
                let slot = Slot { number, priority, area_offset, ..pattern };
                let slot = self.with_new_salt(slot, options, random);
                header.put_slot(&v2::NewSlot { slot: &slot, area_bytes }, Some(like))?;
                slot
            }
        };
        self.store(metadata, &slot, new, &volume_key, random)?;
        Ok(number)
    }

    /// Replaces a key by another in the same slot; gives the slot.
    ///
    /// # Errors
    /// `WrongKey` if `old` does not open the slot of `options`, or any if it has none.
    pub fn change_key(
        &mut self,
        old: &Key,
        new: &Key,
        options: &KeyOptions,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<u32> {
        self.check_changeable()?;
        let (number, volume_key) = self.find_key(old, options.slot)?;
        let slot = self.with_new_salt(self.slot(number)?.clone(), options, random);
        let mut metadata = self.metadata.clone();
        match &mut metadata {
            Metadata::V1(header) => header.activate(&slot)?,
            Metadata::V2(header) => {
                let area_bytes = header.area_of(number).map_or(0, |(_, bytes)| bytes);
                header.put_slot(&v2::NewSlot { slot: &slot, area_bytes }, None)?;
            }
        }
        self.store(metadata, &slot, new, &volume_key, random)?;
        Ok(number)
    }

    /// Destroys the key in a slot, given a key that opens another one.
    ///
    /// # Errors
    /// `Refused` if the slot has no key, or the volume's last; `WrongKey` if `remaining` opens no other slot.
    pub fn kill_slot(
        &mut self,
        number: u32,
        remaining: &Key,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<()> {
        self.check_changeable()?;
        if self.listed(number).is_none_or(|state| state == KeyslotState::Inactive) {
            return Err(Error::Refused(format!("key slot {number} has no key")));
        }
        self.check_not_last(number)?;
        let others = self.volume_slots().filter(|slot| slot.number != number);
        self.try_slots(others.collect(), remaining, &mut Effort::for_given_key())?;
        self.destroy(number, random)
    }

    /// Destroys a key; gives the slot that had it.
    ///
    /// # Errors
    /// `WrongKey` if it opens nothing; `Refused` if it is the volume's last.
    pub fn remove_key(&mut self, key: &Key, random: &mut dyn FnMut(&mut [u8])) -> Result<u32> {
        self.check_changeable()?;
        let (number, _) = self.find_key(key, None)?;
        self.check_not_last(number)?;
        self.destroy(number, random)?;
        Ok(number)
    }

    /// Gives the volume another UUID.
    ///
    /// # Errors
    /// `Refused` if the text is no UUID.
    pub fn set_uuid(&mut self, uuid: &str, random: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        self.check_changeable()?;
        let uuid = parse_uuid(uuid)?;
        let mut metadata = self.metadata.clone();
        match &mut metadata {
            Metadata::V1(header) => header.set_uuid(&uuid)?,
            Metadata::V2(header) => header.uuid = uuid,
        }
        self.write(metadata, random)
    }

    /// Makes both copies of a LUKS2 header whole and equal; says whether there was anything to do.
    ///
    /// # Errors
    /// `Io`.
    pub fn repair(&mut self, random: &mut dyn FnMut(&mut [u8])) -> Result<bool> {
        match &self.metadata {
            Metadata::V2(header) if !header.is_whole => {}
            _ => return Ok(false),
        }
        self.write(self.metadata.clone(), random)?;
        Ok(true)
    }

    /// What a volume requires that we do not know of, a change could break.
    fn check_changeable(&self) -> Result<()> {
        match &self.layout.refusal {
            Some(refusal) => Err(Error::Unsupported(refusal.clone())),
            None => Ok(()),
        }
    }

    fn check_not_last(&self, number: u32) -> Result<()> {
        let is_last = self.is_volume_slot(number) && !self.volume_slots().any(|slot| slot.number != number);
        if is_last {
            return Err(Error::Refused(format!(
                "key slot {number} has the last key of this volume: without it all data would be lost"
            )));
        }
        Ok(())
    }

    fn listed(&self, number: u32) -> Option<KeyslotState> {
        self.layout.listing.iter().find(|slot| slot.number == number).map(|slot| slot.state)
    }

    fn free_slot(&self) -> Result<u32> {
        let count = if self.version() == 1 { v1::SLOTS } else { v2::MAX_SLOTS };
        let is_free = |number: &u32| self.listed(*number).is_none_or(|state| state == KeyslotState::Inactive);
        let free = (0..count).find(is_free);
        free.ok_or_else(|| Error::Refused(format!("all {count} key slots are in use: remove a key first")))
    }

    fn slot(&self, number: u32) -> Result<&Slot> {
        let found = self.layout.slots.iter().find(|slot| slot.number == number);
        found.ok_or_else(|| Error::Refused(format!("key slot {number} has no key")))
    }

    /// The slot, to be opened by a new key.
    fn with_new_salt(&self, slot: Slot, options: &KeyOptions, random: &mut dyn FnMut(&mut [u8])) -> Slot {
        let kdf = options.kdf.clone().unwrap_or_else(|| match &self.metadata {
            Metadata::V1(header) => default_kdf(Version::Luks1, &header.hash),
            Metadata::V2(_) => default_kdf(Version::Luks2, &slot.af_hash),
        });
        Slot { kdf, salt: salt(random), ..slot }
    }

    fn store(
        &mut self,
        metadata: Metadata,
        slot: &Slot,
        key: &Key,
        volume_key: &Zeroizing<Vec<u8>>,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<()> {
        slot.store(&*self.header, key, volume_key, random)?;
        self.write(metadata, random)
    }

    /// Overwrites a slot's area with noise, and forgets the slot.
    fn destroy(&mut self, number: u32, random: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        let mut metadata = self.metadata.clone();
        let area = match &mut metadata {
            Metadata::V1(header) => {
                header.deactivate(number)?;
                let slot = header.empty_slot(number);
                Some((slot.area_offset, material_sectors_bytes(slot.key_bytes as u64, slot.stripes)))
            }
            Metadata::V2(header) => {
                let area = header.area_of(number);
                header.remove_slot(number)?;
                area
            }
        };
        if let Some((offset, len)) = area {
            let mut noise = vec![0; 64 << 10];
            let mut done = 0;
            while done < len {
                let part = usize::try_from(len - done).unwrap_or(noise.len()).min(noise.len());
                random(&mut noise[..part]);
                self.header.write_at(offset + done, &noise[..part])?;
                done += part as u64;
            }
        }
        self.write(metadata, random)
    }

    fn write(&mut self, mut metadata: Metadata, random: &mut dyn FnMut(&mut [u8])) -> Result<()> {
        write(&mut metadata, &*self.header, random)?;
        self.layout = metadata.layout();
        self.metadata = metadata;
        self.warnings.clear();
        Ok(())
    }
}
