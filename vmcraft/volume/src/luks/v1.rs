//! The header of LUKS1.
//!
//! Spec: LUKS On-Disk Format 1.2.3. Big-endian; offsets on disk count sectors of 512 bytes.

use zerocopy::byteorder::big_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::af;
use super::kdf::{self, Kdf};
use super::layout::{
    Digest, Keyslot, KeyslotState, Layout, MAX_KEY_BYTES, Priority, Segment, SegmentKind, Slot,
    material_sectors_bytes,
};
use super::{MAGIC, text};
use crate::{Error, Result};

/// The size of the header on disk, in bytes.
pub(super) const HEADER_BYTES: usize = 592;

/// The slots that there are.
pub(super) const SLOTS: u32 = 8;

const ACTIVE: u32 = 0x00ac_71f3;
const INACTIVE: u32 = 0x0000_dead;

/// The header on disk.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 6],
    version: U16,
    /// 8: `aes`, `serpent` …
    cipher_name: [u8; 32],
    /// 40: `xts-plain64`, `cbc-essiv:sha256` …
    cipher_mode: [u8; 32],
    /// 72: the hash of PBKDF2 and the splitter.
    hash: [u8; 32],
    /// 104: where the data begins, in sectors; 0 if the header is detached.
    payload_offset: U32,
    /// 108: the length of the volume key, in bytes.
    key_bytes: U32,
    /// 112: the volume key's digest.
    digest: [u8; 20],
    digest_salt: [u8; 32],
    digest_iterations: U32,
    /// 168
    uuid: [u8; 40],
    /// 208
    slots: [RawSlot; 8],
}

#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSlot {
    state: U32,
    iterations: U32,
    salt: [u8; 32],
    /// 40: where the stripes are, in sectors.
    material_offset: U32,
    stripes: U32,
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES);

/// What a new header says.
pub(super) struct NewHeader<'a> {
    pub(super) cipher: &'a str,
    pub(super) hash: &'a str,
    pub(super) key_bytes: u32,
    pub(super) uuid: &'a str,
    /// In bytes.
    pub(super) data_offset: u64,
    pub(super) digest: &'a [u8],
    pub(super) digest_salt: [u8; 32],
    pub(super) digest_iterations: u32,
}

/// The slots begin and end at multiples of this, as cryptsetup places them.
const SLOT_ALIGNMENT: u64 = 4096;

/// Where the last slot of a new header ends, in bytes.
pub(super) fn slots_end(key_bytes: u32) -> u64 {
    SLOT_ALIGNMENT + u64::from(SLOTS) * slot_bytes(key_bytes)
}

/// The bytes from one slot to the next.
fn slot_bytes(key_bytes: u32) -> u64 {
    material_sectors_bytes(u64::from(key_bytes), af::STRIPES).next_multiple_of(SLOT_ALIGNMENT)
}

/// The header, checked.
#[derive(Clone)]
pub(super) struct Header {
    raw: RawHeader,
    pub(super) uuid: String,
    pub(super) cipher: String,
    pub(super) hash: String,
    pub(super) key_bytes: u32,
}

impl Header {
    /// Checks a header's bytes.
    pub(super) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self> {
        let raw = RawHeader::read_from_bytes(bytes).map_err(|_| corrupt("LUKS1 header", 0))?;
        let field = |bytes: &[u8], what, offset| text(bytes).ok_or_else(|| corrupt(what, offset));
        let cipher = field(&raw.cipher_name, "LUKS1 cipher name", 8)?;
        let mode = field(&raw.cipher_mode, "LUKS1 cipher mode", 40)?;
        let header = Self {
            cipher: format!("{cipher}-{mode}"),
            hash: field(&raw.hash, "LUKS1 hash name", 72)?,
            uuid: field(&raw.uuid, "LUKS1 UUID", 168)?,
            key_bytes: raw.key_bytes.get(),
            raw,
        };
        if !(1..=MAX_KEY_BYTES).contains(&u64::from(header.key_bytes)) {
            return Err(corrupt("LUKS1 length of the key", 108));
        }
        header.check_slots()?;
        Ok(header)
    }

    /// Slots must lie between the header and the data, and not on each other.
    fn check_slots(&self) -> Result<()> {
        let payload = self.data_offset();
        let mut areas = Vec::new();
        for (number, slot) in (0..SLOTS).zip(&self.raw.slots) {
            let at = 208 + 48 * u64::from(number);
            let bad = |what: &str| corrupt(&format!("LUKS1 key slot {number}: {what}"), at);
            if !matches!(slot.state.get(), ACTIVE | INACTIVE) {
                return Err(bad("its state is neither active nor inactive"));
            }
            if slot.stripes.get() != af::STRIPES {
                return Err(bad("the number of stripes is not 4000"));
            }
            let start = u64::from(slot.material_offset.get()) * 512;
            let end = start + material_sectors_bytes(u64::from(self.key_bytes), af::STRIPES);
            if start < HEADER_BYTES as u64 {
                return Err(bad("its key material is in the header"));
            }
            if payload > 0 && end > payload {
                return Err(bad("its key material reaches into the data"));
            }
            areas.push((start, end, number));
        }
        areas.sort_unstable();
        for pair in areas.windows(2) {
            if let [(_, end, first), (start, _, second)] = pair
                && end > start
            {
                let at = 208 + 48 * u64::from(*second);
                return Err(corrupt(&format!("LUKS1 key slots {first} and {second}: they overlap"), at));
            }
        }
        Ok(())
    }

    /// Where the data begins, in bytes.
    fn data_offset(&self) -> u64 {
        u64::from(self.raw.payload_offset.get()) * 512
    }

    pub(super) fn layout(&self) -> Layout {
        let kdf = |slot: &RawSlot| Kdf::Pbkdf2 { hash: self.hash.clone(), iterations: slot.iterations.get() };
        let is_active = |slot: &RawSlot| slot.state.get() == ACTIVE;
        let numbered = || (0..SLOTS).zip(&self.raw.slots);
        let slots: Vec<_> = numbered()
            .filter(|(_, slot)| is_active(slot))
            .map(|(number, slot)| Slot {
                kdf: kdf(slot),
                salt: slot.salt.to_vec(),
                ..self.empty_slot(number)
            })
            .collect();
        let listing = numbered()
            .map(|(number, slot)| Keyslot {
                number,
                state: if is_active(slot) { KeyslotState::Active } else { KeyslotState::Inactive },
                priority: Priority::Normal,
                kdf: is_active(slot).then(|| kdf(slot)),
            })
            .collect();
        let digest = Digest {
            hash: self.hash.clone(),
            iterations: self.raw.digest_iterations.get(),
            salt: self.raw.digest_salt.to_vec(),
            digest: self.raw.digest.to_vec(),
            slots: slots.iter().map(|slot| slot.number).collect(),
            is_of_volume: true,
        };
        let segment = Segment {
            offset: self.data_offset(),
            size: None,
            kind: SegmentKind::Crypt { cipher: self.cipher.clone(), iv_tweak: 0, sector_size: 512 },
        };
        let slot_bytes = material_sectors_bytes(u64::from(self.key_bytes), af::STRIPES);
        let ends = self.raw.slots.iter().map(|slot| u64::from(slot.material_offset.get()) * 512 + slot_bytes);
        Layout {
            slots,
            listing,
            digests: vec![digest],
            segments: vec![segment],
            refusal: None,
            header_end: ends.max().unwrap_or(HEADER_BYTES as u64),
        }
    }

    /// A slot's place, with what a new key needs.
    pub(super) fn empty_slot(&self, number: u32) -> Slot {
        let material = self.raw.slots.get(number as usize).map_or(0, |slot| slot.material_offset.get());
        Slot {
            number,
            priority: Priority::Normal,
            kdf: Kdf::Pbkdf2 { hash: self.hash.clone(), iterations: 0 },
            salt: Vec::new(),
            key_bytes: self.key_bytes as usize,
            stripes: af::STRIPES,
            af_hash: self.hash.clone(),
            area_offset: u64::from(material) * 512,
            area_cipher: self.cipher.clone(),
            area_key_bytes: self.key_bytes as usize,
        }
    }
}

impl Header {
    /// A header without keys.
    ///
    /// # Errors
    /// `Refused` for names that are too long and places that do not fit.
    pub(super) fn new(new: &NewHeader<'_>) -> Result<Self> {
        let (name, mode) = new.cipher.split_once('-').unwrap_or((new.cipher, "cbc-plain"));
        let mut raw = RawHeader::new_zeroed();
        raw.magic = *MAGIC;
        raw.version.set(1);
        put_text(&mut raw.cipher_name, name, "cipher name")?;
        put_text(&mut raw.cipher_mode, mode, "cipher mode")?;
        put_text(&mut raw.hash, new.hash, "hash name")?;
        put_text(&mut raw.uuid, new.uuid, "UUID")?;
        raw.key_bytes.set(new.key_bytes);
        raw.payload_offset.set(sectors(new.data_offset)?);
        raw.digest.iter_mut().zip(new.digest).for_each(|(to, from)| *to = *from);
        raw.digest_salt = new.digest_salt;
        raw.digest_iterations.set(new.digest_iterations);
        for (number, slot) in (0_u64..).zip(&mut raw.slots) {
            slot.state.set(INACTIVE);
            slot.stripes.set(af::STRIPES);
            slot.material_offset.set(sectors(SLOT_ALIGNMENT + number * slot_bytes(new.key_bytes))?);
        }
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(raw.as_bytes());
        Self::decode(&bytes)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.raw.as_bytes()
    }

    /// Says that a slot has a key.
    pub(super) fn activate(&mut self, slot: &Slot) -> Result<()> {
        let Kdf::Pbkdf2 { hash, iterations } = &slot.kdf else {
            return Err(Error::Refused(format!("LUKS1 has no {}: use pbkdf2", slot.kdf.name())));
        };
        if kdf::find_hash(hash)? != kdf::find_hash(&self.hash)? {
            return Err(Error::Refused(format!(
                "all keys of this LUKS1 volume use {}, not {hash}",
                self.hash
            )));
        }
        let raw = self.raw_slot(slot.number)?;
        raw.state.set(ACTIVE);
        raw.iterations.set(*iterations);
        raw.salt.iter_mut().zip(&slot.salt).for_each(|(to, from)| *to = *from);
        Ok(())
    }

    /// Says that a slot has no key any more.
    pub(super) fn deactivate(&mut self, number: u32) -> Result<()> {
        let raw = self.raw_slot(number)?;
        raw.state.set(INACTIVE);
        raw.iterations.set(0);
        raw.salt = [0; 32];
        Ok(())
    }

    pub(super) fn set_uuid(&mut self, uuid: &str) -> Result<()> {
        put_text(&mut self.raw.uuid, uuid, "UUID")?;
        self.uuid = uuid.into();
        Ok(())
    }

    fn raw_slot(&mut self, number: u32) -> Result<&mut RawSlot> {
        let missing = || Error::Refused(format!("LUKS1 has the key slots 0 to 7, not {number}"));
        self.raw.slots.get_mut(number as usize).ok_or_else(missing)
    }
}

fn corrupt(what: &str, offset: u64) -> Error {
    Error::Corrupt { what: what.into(), offset }
}

fn sectors(bytes: u64) -> Result<u32> {
    u32::try_from(bytes / 512).map_err(|_| Error::Refused("LUKS1 cannot hold so large an offset".into()))
}

/// Writes a text into a field, with the NUL that ends it.
pub(super) fn put_text(field: &mut [u8], text: &str, what: &str) -> Result<()> {
    if text.len() >= field.len() || text.contains('\0') {
        let most = field.len() - 1;
        return Err(Error::Refused(format!("{what} {}: longer than {most} bytes", text.escape_debug())));
    }
    field.fill(0);
    field[..text.len()].copy_from_slice(text.as_bytes());
    Ok(())
}
