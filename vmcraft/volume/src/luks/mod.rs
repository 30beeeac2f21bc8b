//! LUKS1 and LUKS2: what `cryptsetup` makes, opened, changed and made.
//!
//! A header has key slots, each of which holds the volume's key, encrypted with a key that is made of a passphrase.
//! [`Luks::read`] reads the header, [`Luks::unlock`] opens the volume as a device, [`format()`] makes a new volume, and
//! the methods in `manage.rs` change the slots. All randomness comes from the caller.
//!
//! Not opened, and refused by name: authenticated encryption (integrity), a reencryption that is not finished, and
//! self-encrypting drives (OPAL).
//!
//! Spec: LUKS On-Disk Format 1.2.3; LUKS2 On-Disk Format 1.1.1.

mod af;
mod effort;
mod format;
mod kdf;
mod layout;
mod manage;
mod slot;
mod v1;
mod v2;

use std::sync::Arc;

use vmcraft_block::BlockDevice;
use zeroize::Zeroizing;

pub use effort::Effort;
pub use format::{FormatOptions, Version, format};
pub use kdf::{Argon2Costs, Kdf};
pub use layout::{Keyslot, KeyslotState, Priority};
pub use manage::KeyOptions;

use crate::crypt::{CipherSpec, CryptDevice, CryptLayout};
use crate::dm::{Content, Linear, Piece};
use crate::{Error, Key, Member, Result};
use layout::{Digest, Layout, Segment, SegmentKind, Slot};

/// What a header begins with.
const MAGIC: &[u8; 6] = b"LUKS\xba\xbe";

/// A LUKS volume whose header was read.
pub struct Luks {
    /// Where the header and the key slots are.
    header: Arc<dyn BlockDevice>,
    /// Where the data is.
    data: Arc<dyn BlockDevice>,
    is_detached: bool,
    metadata: Metadata,
    layout: Layout,
    warnings: Vec<String>,
}

/// The header in its version's own words.
#[derive(Clone)]
enum Metadata {
    V1(Box<v1::Header>),
    V2(Box<v2::Header>),
}

impl Metadata {
    fn layout(&self) -> Layout {
        match self {
            Self::V1(header) => header.layout(),
            Self::V2(header) => header.layout.clone(),
        }
    }
}

impl Luks {
    /// Reads the header on `member`, or on `detached_header` if the header is not with the data; `None` if there is
    /// none.
    ///
    /// A volume that cannot be opened, such as one with authenticated encryption, can still be read; [`Luks::unlock`]
    /// then says what it needs.
    ///
    /// # Errors
    /// `Corrupt` if no copy of the header is good, `Unsupported` for a version or hash that we do not have, `Io`.
    pub fn read(member: &Member, detached_header: Option<&Member>) -> Result<Option<Self>> {
        let header = &detached_header.unwrap_or(member).device;
        let Some((metadata, warnings)) = read_metadata(&**header)? else { return Ok(None) };
        Ok(Some(Self {
            header: header.clone(),
            data: member.device.clone(),
            is_detached: detached_header.is_some(),
            layout: metadata.layout(),
            metadata,
            warnings,
        }))
    }

    /// 1 or 2.
    pub fn version(&self) -> u32 {
        match self.metadata {
            Metadata::V1(_) => 1,
            Metadata::V2(_) => 2,
        }
    }

    /// The UUID as text; any text, if someone wrote it so.
    pub fn uuid(&self) -> &str {
        match &self.metadata {
            Metadata::V1(header) => &header.uuid,
            Metadata::V2(header) => &header.uuid,
        }
    }

    /// The label, which only LUKS2 has; empty if it has none.
    pub fn label(&self) -> &str {
        match &self.metadata {
            Metadata::V1(_) => "",
            Metadata::V2(header) => &header.label,
        }
    }

    /// The subsystem, a second label of LUKS2; empty if it has none.
    pub fn subsystem(&self) -> &str {
        match &self.metadata {
            Metadata::V1(_) => "",
            Metadata::V2(header) => &header.subsystem,
        }
    }

    /// The data's cipher as dm-crypt names it, such as `aes-xts-plain64`; `none` if nothing is encrypted.
    pub fn cipher(&self) -> &str {
        let name = self.layout.segments.iter().find_map(|segment| match &segment.kind {
            SegmentKind::Crypt { cipher, .. } => Some(&**cipher),
            SegmentKind::Linear => None,
        });
        name.unwrap_or("none")
    }

    /// The size of the data's sectors in bytes.
    pub fn sector_size(&self) -> u32 {
        let size = self.layout.segments.iter().find_map(|segment| match segment.kind {
            SegmentKind::Crypt { sector_size, .. } => Some(sector_size),
            SegmentKind::Linear => None,
        });
        size.unwrap_or(512)
    }

    /// The length of the volume's key in bytes; `None` if no slot has one.
    pub fn key_bytes(&self) -> Option<usize> {
        match &self.metadata {
            Metadata::V1(header) => Some(header.key_bytes as usize),
            Metadata::V2(_) => self.volume_slots().map(|slot| slot.key_bytes).next(),
        }
    }

    /// Where the data begins on its device, in bytes.
    pub fn data_offset(&self) -> u64 {
        self.layout.segments.first().map_or(0, |segment| segment.offset)
    }

    /// The key slots in ascending order; of LUKS1 all eight, of LUKS2 those that there are.
    pub fn keyslots(&self) -> &[Keyslot] {
        &self.layout.listing
    }

    /// What is wrong with the header, though it can be used: such as a second copy that is damaged.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Opens the volume with a passphrase or a key file's content: with the key slot `slot`, or with whichever it
    /// fits, those first that are to be preferred.
    ///
    /// The device reads and writes the members below it at once; it may be used by several threads.
    ///
    /// # Errors
    /// `WrongKey` with the number of slots that were tried; `Unsupported` with the name of what the volume needs and
    /// we do not have; `Incomplete` if the data is on another device.
    pub fn unlock(&self, key: &Key, slot: Option<u32>) -> Result<Arc<dyn BlockDevice>> {
        self.check_openable()?;
        let (_, volume_key) = self.find_key(key, slot)?;
        self.open(&volume_key)
    }

    /// Opens the volume as [`Luks::unlock`] does, with a key of which nobody said that it should be tried, and with no
    /// more effort than this; `None` if none of the slots that it is enough for opens, and there are others.
    ///
    /// # Errors
    /// As of [`Luks::unlock`].
    pub fn unlock_within(&self, key: &Key, effort: &mut Effort) -> Result<Option<Arc<dyn BlockDevice>>> {
        self.check_openable()?;
        let left_out = effort.left_out();
        match self.try_slots(self.slots_to_try(), key, effort) {
            Ok((_, volume_key)) => self.open(&volume_key).map(Some),
            Err(_) if effort.left_out() > left_out => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The slot that a passphrase opens, and the volume's key in it.
    ///
    /// # Errors
    /// As of [`Luks::unlock`].
    pub fn volume_key(&self, key: &Key, slot: Option<u32>) -> Result<(u32, Key)> {
        let (slot, volume_key) = self.find_key(key, slot)?;
        Ok((slot, Key::new(volume_key.to_vec())))
    }

    /// Opens the volume with the volume's key itself.
    ///
    /// # Errors
    /// `WrongKey` if it is not this volume's; else as of [`Luks::unlock`].
    pub fn unlock_with_volume_key(&self, volume_key: &Key) -> Result<Arc<dyn BlockDevice>> {
        self.check_openable()?;
        for digest in self.layout.digests.iter().filter(|digest| digest.is_of_volume) {
            if digest.proves(volume_key.as_bytes())? {
                return self.open(volume_key.as_bytes());
            }
        }
        Err(Error::WrongKey("this is not the volume key of this LUKS volume".into()))
    }

    /// The slots whose keys are the volume's.
    fn volume_slots(&self) -> impl Iterator<Item = &Slot> {
        self.layout.slots.iter().filter(|slot| self.is_volume_slot(slot.number))
    }

    /// The slots that a key is tried with for which none is named.
    fn slots_to_try(&self) -> Vec<&Slot> {
        self.volume_slots().filter(|slot| slot.priority != Priority::Ignore).collect()
    }

    fn is_volume_slot(&self, number: u32) -> bool {
        self.digests_of(number).next().is_some()
    }

    /// Finds the slot that `key` opens.
    fn find_key(&self, key: &Key, slot: Option<u32>) -> Result<(u32, Zeroizing<Vec<u8>>)> {
        if let Some(number) = slot {
            let slot = self.layout.slots.iter().find(|slot| slot.number == number);
            let slot = slot.ok_or_else(|| Error::Refused(format!("key slot {number} has no key")))?;
            if !self.is_volume_slot(number) {
                return Err(Error::Refused(format!("key slot {number} has a key that is not this volume's")));
            }
            let opened = self.try_slot(slot, key)?;
            return opened.map(|found| (number, found)).ok_or_else(|| {
                Error::WrongKey(format!("this key does not open key slot {number}{}", self.damage([slot])))
            });
        }
        self.try_slots(self.slots_to_try(), key, &mut Effort::for_given_key())
    }

    /// Finds the slot of these that `key` opens.
    fn try_slots(
        &self,
        mut slots: Vec<&Slot>,
        key: &Key,
        effort: &mut Effort,
    ) -> Result<(u32, Zeroizing<Vec<u8>>)> {
        slots.sort_by_key(|slot| slot.priority);
        if slots.is_empty() {
            return Err(Error::WrongKey("no key slot of this LUKS volume has a key to try".into()));
        }
        let mut unusable = Vec::new();
        let mut too_much = Vec::new();
        for slot in &slots {
            let cost = slot.kdf.cost(slot.area_key_bytes);
            // What is too much by itself is refused at once, and costs nothing.
            if cost <= kdf::MAX_COST
                && !effort.spend(cost.saturating_add(self.digests_cost(slot)), slot.kdf.memory_kib())
            {
                too_much.push(slot.number.to_string());
                continue;
            }
            match self.try_slot(slot, key) {
                Ok(Some(found)) => return Ok((slot.number, found)),
                Ok(None) => {}
                Err(error) => unusable.push((slot.number, error)),
            }
        }
        let tried = slots.len() - unusable.len() - too_much.len();
        let not_tried = match &too_much[..] {
            [] => String::new(),
            slots => format!(
                "key slots not tried: {}: it would take too long altogether; cryptsetup config --priority prefer \
                 has a slot tried first",
                slots.join(", ")
            ),
        };
        // Without a slot that could be tried, why is what there is to say.
        if tried == 0 {
            if let Some((_, error)) = unusable.pop() {
                return Err(error);
            }
            return Err(Error::Unsupported(format!("a LUKS volume that costs so much to open; {not_tried}")));
        }
        let skipped: String =
            unusable.iter().map(|(slot, error)| format!("; key slot {slot}: {error}")).collect();
        let not_tried = if not_tried.is_empty() { not_tried } else { format!("; {not_tried}") };
        let slots_tried = if tried == 1 { "1 key slot".to_owned() } else { format!("{tried} key slots") };
        let damage = self.damage(slots);
        Err(Error::WrongKey(format!(
            "this key opens nothing here ({slots_tried} tried){damage}{skipped}{not_tried}"
        )))
    }

    /// The digests that can prove the key of a slot.
    fn digests_of(&self, slot: u32) -> impl Iterator<Item = &Digest> {
        self.layout.digests.iter().filter(move |digest| digest.is_of_volume && digest.slots.contains(&slot))
    }

    /// What proving a slot's key costs at most.
    fn digests_cost(&self, slot: &Slot) -> u64 {
        self.digests_of(slot.number).fold(0, |cost, digest| cost.saturating_add(digest.cost()))
    }

    /// The volume key in a slot, if the passphrase is right.
    fn try_slot(&self, slot: &Slot, key: &Key) -> Result<Option<Zeroizing<Vec<u8>>>> {
        let candidate = slot.open(&*self.header, key)?;
        for digest in self.digests_of(slot.number) {
            if digest.proves(&candidate)? {
                return Ok(Some(candidate));
            }
        }
        Ok(None)
    }

    /// What can be seen of damage to the key material of slots that did not open.
    fn damage<'a>(&self, slots: impl IntoIterator<Item = &'a Slot>) -> String {
        let seen = slots.into_iter().filter_map(|slot| {
            let at = slot.overwritten_at(&*self.header)?;
            let number = slot.number;
            Some(format!(
                "; the key material of key slot {number} is overwritten at byte {at:#x}: no key opens it"
            ))
        });
        seen.collect()
    }

    fn check_openable(&self) -> Result<()> {
        if let Some(refusal) = &self.layout.refusal {
            return Err(Error::Unsupported(refusal.clone()));
        }
        for segment in &self.layout.segments {
            if let SegmentKind::Crypt { cipher, .. } = &segment.kind {
                CipherSpec::parse(cipher)?;
            }
        }
        if !self.is_detached && self.data_offset() < self.layout.header_end {
            return Err(Error::Incomplete(
                "this is a detached LUKS header: the data is on another device, to be opened with this header".into(),
            ));
        }
        Ok(())
    }

    /// The device, with a volume key that was proved.
    fn open(&self, volume_key: &[u8]) -> Result<Arc<dyn BlockDevice>> {
        if let [Segment { offset, size, kind: SegmentKind::Crypt { cipher, iv_tweak, sector_size } }] =
            &self.layout.segments[..]
        {
            let size = self.segment_size(*offset, *size)?;
            return Ok(Arc::new(self.crypt(*offset, size, cipher, *iv_tweak, *sector_size, volume_key)?));
        }
        let mut pieces = Vec::new();
        for segment in &self.layout.segments {
            let len = self.segment_size(segment.offset, segment.size)?;
            let content = match &segment.kind {
                SegmentKind::Linear => Content::Device { device: self.data.clone(), offset: segment.offset },
                SegmentKind::Crypt { cipher, iv_tweak, sector_size } => {
                    let device =
                        self.crypt(segment.offset, len, cipher, *iv_tweak, *sector_size, volume_key)?;
                    Content::Device { device: Arc::new(device), offset: 0 }
                }
            };
            pieces.push(Piece { len, content });
        }
        Ok(Arc::new(Linear::new(pieces)?))
    }

    /// The length of a segment, which must be on the device.
    fn segment_size(&self, offset: u64, size: Option<u64>) -> Result<u64> {
        let device_size = self.data.size();
        let len = size.unwrap_or_else(|| device_size.saturating_sub(offset));
        if len == 0 || offset.checked_add(len).is_none_or(|end| end > device_size) {
            let wanted = size.map_or(String::new(), |size| format!(" and be {size} bytes long"));
            return Err(Error::Incomplete(format!(
                "the device ends at byte {device_size}, and LUKS data is to begin at byte {offset}{wanted}"
            )));
        }
        Ok(len)
    }

    fn crypt(
        &self,
        offset: u64,
        size: u64,
        cipher: &str,
        iv_offset: u64,
        sector_size: u32,
        volume_key: &[u8],
    ) -> Result<CryptDevice> {
        let cipher = CipherSpec::parse(cipher)?.with_key(volume_key)?;
        let layout = CryptLayout { offset, size, sector_size, iv_offset, iv_large_sectors: false };
        CryptDevice::new(self.data.clone(), cipher, layout)
    }
}

impl std::fmt::Debug for Luks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LUKS{} {} {}", self.version(), self.uuid(), self.cipher())
    }
}

/// Reads the header of either version, with what is wrong with it.
fn read_metadata(device: &dyn BlockDevice) -> Result<Option<(Metadata, Vec<String>)>> {
    let mut bytes = [0; v1::HEADER_BYTES];
    if device.size() < bytes.len() as u64 {
        return Ok(None);
    }
    device.read_at(0, &mut bytes)?;
    let version = u16::from_be_bytes([bytes[6], bytes[7]]);
    let is_luks = bytes.starts_with(MAGIC);
    if is_luks && version == 1 {
        return Ok(Some((Metadata::V1(Box::new(v1::Header::decode(&bytes)?)), Vec::new())));
    }
    // The first header of LUKS2 may be damaged or gone, and the second still be there.
    match v2::read(device)? {
        Some((header, warnings)) => Ok(Some((Metadata::V2(Box::new(header)), warnings))),
        None if is_luks && version != 2 => Err(Error::Unsupported(format!("LUKS version {version}"))),
        None => Ok(None),
    }
}

/// A text field: what is before its first NUL. `None` without a NUL, or if it is not text.
fn text(field: &[u8]) -> Option<String> {
    let end = field.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&field[..end]).ok().map(str::to_owned)
}
