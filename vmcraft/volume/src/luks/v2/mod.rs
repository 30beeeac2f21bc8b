//! The two headers of LUKS2: each a binary part and a JSON area, with a checksum over both.
//!
//! Spec: LUKS2 On-Disk Format 1.1.1. Big-endian.

mod metadata;
mod node;

use serde_json::Value;
use vmcraft_block::BlockDevice;
use zerocopy::byteorder::big_endian::{U16, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

pub(super) use metadata::{MAX_KEYSLOTS_BYTES, MAX_SLOTS, NewMetadata, NewSlot, area_bytes};

use super::layout::Layout;
use super::v1::put_text;
use super::{MAGIC, text};
use crate::crypt::hash::Hash;
use crate::{Error, Result};

const MAGIC_SECOND: &[u8; 6] = b"SKUL\xba\xbe";

/// The size of the binary part, in bytes.
const BINARY_BYTES: u64 = 4096;

/// The sizes that a header with its JSON area can have, and so the places of the second one, in bytes.
const SIZES: [u64; 9] =
    [0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000];

/// The smallest header, which new volumes get unless another is asked for.
pub(super) const SMALLEST: u64 = SIZES[0];

/// The binary part on disk.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 6],
    version: U16,
    /// 8: the size with the JSON area, in bytes.
    size: U64,
    /// 16: grows with each write.
    sequence: U64,
    label: [u8; 48],
    /// 72: the hash of the checksum.
    checksum_hash: [u8; 32],
    salt: [u8; 64],
    /// 168
    uuid: [u8; 40],
    subsystem: [u8; 48],
    /// 256: where this header is, in bytes.
    offset: U64,
    kept_264: [u8; 184],
    /// 448: over the binary part, with zeros here, and the JSON area.
    checksum: [u8; 64],
    kept_512: [u8; 7 * 512],
}

const _: () = assert!(size_of::<RawHeader>() as u64 == BINARY_BYTES);

/// A header, checked.
#[derive(Clone)]
pub(super) struct Header {
    pub(super) uuid: String,
    pub(super) label: String,
    pub(super) subsystem: String,
    /// The size of one header with its JSON area, in bytes; the second follows the first.
    size: u64,
    sequence: u64,
    checksum_hash: Hash,
    json: Value,
    pub(super) layout: Layout,
    /// Whether both headers are good and say the same.
    pub(super) is_whole: bool,
}

/// Reads both headers, and gives the newer good one with what is wrong with the other; `None` if there are none.
///
/// # Errors
/// `Corrupt` if there are headers, none of which is good.
pub(super) fn read(device: &dyn BlockDevice) -> Result<Option<(Header, Vec<String>)>> {
    let first = read_one(device, 0, MAGIC);
    let places: Vec<u64> = match &first {
        Ok(Some(found)) => vec![found.size],
        _ => SIZES.to_vec(),
    };
    let mut second = Ok(None);
    for place in places {
        let found = read_one(device, place, MAGIC_SECOND);
        let is_good = matches!(found, Ok(Some(_)));
        if is_good || matches!(second, Ok(None)) {
            second = found;
        }
        if is_good {
            break;
        }
    }
    let what_is_wrong = |name: &str, found: &Result<Option<Unchecked>>| match found {
        Err(error) => format!("the {name} header is bad: {error}"),
        Ok(_) => format!("the {name} header is missing"),
    };
    let (chosen, warning) = match (first, second) {
        (Ok(None), Ok(None)) => return Ok(None),
        (Ok(Some(first)), Ok(Some(second))) => match first.sequence.cmp(&second.sequence) {
            std::cmp::Ordering::Less => {
                (second, Some("the first header is older than the second, which is used".to_owned()))
            }
            std::cmp::Ordering::Equal => (first, None),
            std::cmp::Ordering::Greater => {
                (first, Some("the second header is older than the first, which is used".to_owned()))
            }
        },
        (Ok(Some(first)), other) => {
            (first, Some(format!("{}; the first is used", what_is_wrong("second", &other))))
        }
        (other, Ok(Some(second))) => {
            (second, Some(format!("{}; the second is used", what_is_wrong("first", &other))))
        }
        (Err(error @ Error::Io(_)), _) | (Ok(None), Err(error)) => return Err(error),
        (Err(Error::Corrupt { what, offset }), second) => {
            let second = what_is_wrong("second", &second);
            return Err(Error::Corrupt { what: format!("{what} (and {second})"), offset });
        }
        (Err(error), _) => return Err(error),
    };
    let is_whole = warning.is_none();
    Ok(Some((chosen.check(is_whole)?, warning.into_iter().collect())))
}

/// A header whose checksum fits, before its metadata is looked at.
struct Unchecked {
    uuid: String,
    label: String,
    subsystem: String,
    size: u64,
    sequence: u64,
    checksum_hash: Hash,
    json: Vec<u8>,
    offset: u64,
}

fn read_one(device: &dyn BlockDevice, offset: u64, magic: &[u8; 6]) -> Result<Option<Unchecked>> {
    if device.size() < offset + BINARY_BYTES {
        return Ok(None);
    }
    let mut bytes = vec![0; 512];
    device.read_at(offset, &mut bytes)?;
    if !bytes.starts_with(magic) || bytes.get(6..8) != Some(&[0, 2]) {
        return Ok(None);
    }
    bytes.resize(4096, 0);
    device.read_at(offset, &mut bytes)?;
    let corrupt = |what: &str, at: u64| Error::Corrupt { what: what.into(), offset: offset + at };
    let raw = RawHeader::ref_from_bytes(&bytes).map_err(|_| corrupt("LUKS2 header", 0))?;
    let size = raw.size.get();
    if !SIZES.contains(&size) || (offset > 0 && offset != size) {
        return Err(corrupt("LUKS2 header: size", 8));
    }
    if raw.offset.get() != offset {
        return Err(corrupt("LUKS2 header: its own offset", 256));
    }
    if device.size() < offset + size {
        return Err(corrupt("LUKS2 header: the device ends within it", 0));
    }
    let field = |bytes: &[u8], what, at| text(bytes).ok_or_else(|| corrupt(what, at));
    let hash = field(&raw.checksum_hash, "LUKS2 header: name of the checksum", 72)?;
    let hash = super::kdf::find_hash(&hash)?;
    let (uuid, label) =
        (field(&raw.uuid, "LUKS2 header: UUID", 168)?, field(&raw.label, "LUKS2 header: label", 24)?);
    let subsystem = field(&raw.subsystem, "LUKS2 header: subsystem", 208)?;
    let (sequence, expected) = (raw.sequence.get(), raw.checksum);
    bytes[448..512].fill(0);
    let json_bytes = usize::try_from(size - BINARY_BYTES).map_err(|_| corrupt("LUKS2 header: size", 8))?;
    let mut json = vec![0; json_bytes];
    device.read_at(offset + BINARY_BYTES, &mut json)?;
    if !expected.starts_with(&hash.digest(&[&bytes, &json])) {
        return Err(corrupt("LUKS2 header: checksum", 448));
    }
    Ok(Some(Unchecked { uuid, label, subsystem, size, sequence, checksum_hash: hash, json, offset }))
}

impl Unchecked {
    fn check(self, is_whole: bool) -> Result<Header> {
        let at = self.offset + BINARY_BYTES;
        let corrupt = |what: String| Error::Corrupt { what: format!("LUKS2 metadata: {what}"), offset: at };
        let end = self.json.iter().position(|byte| *byte == 0).unwrap_or(self.json.len());
        let json: Value = serde_json::from_slice(&self.json[..end]).map_err(|e| corrupt(e.to_string()))?;
        let layout = metadata::layout(&json, self.size).map_err(corrupt)?;
        Ok(Header {
            uuid: self.uuid,
            label: self.label,
            subsystem: self.subsystem,
            size: self.size,
            sequence: self.sequence,
            checksum_hash: self.checksum_hash,
            json,
            layout,
            is_whole,
        })
    }
}

impl Header {
    /// A header that no device has yet.
    pub(super) fn new(
        uuid: &str,
        label: &str,
        subsystem: &str,
        size: u64,
        metadata: &NewMetadata<'_>,
    ) -> Result<Self> {
        if !SIZES.contains(&size) {
            return Err(Error::Refused(format!("LUKS2 has no metadata of {size} bytes")));
        }
        let json = metadata.to_json(size);
        let layout = metadata::layout(&json, size).map_err(Error::Refused)?;
        Ok(Self {
            uuid: uuid.into(),
            label: label.into(),
            subsystem: subsystem.into(),
            size,
            sequence: 0,
            checksum_hash: Hash::Sha256,
            json,
            layout,
            is_whole: true,
        })
    }

    /// Writes both headers, one newer than before.
    ///
    /// # Errors
    /// `Refused` if the metadata does not fit into its area.
    pub(super) fn write(
        &mut self,
        device: &dyn BlockDevice,
        random: &mut dyn FnMut(&mut [u8]),
    ) -> Result<()> {
        let text = serde_json::to_vec(&self.json).map_err(|e| Error::Refused(e.to_string()))?;
        let area = usize::try_from(self.size - BINARY_BYTES).unwrap_or(0);
        // A NUL ends the text.
        if text.len() >= area {
            let (needed, have) = (text.len(), area - 1);
            return Err(Error::Refused(format!(
                "the LUKS2 metadata takes {needed} bytes, and there is space for {have}"
            )));
        }
        let sequence = self.sequence.checked_add(1).ok_or_else(|| {
            Error::Unsupported("a LUKS2 header with the highest sequence number there is".into())
        })?;
        for (offset, magic) in [(0, MAGIC), (self.size, MAGIC_SECOND)] {
            let mut raw = RawHeader::new_zeroed();
            raw.magic = *magic;
            raw.version.set(2);
            raw.size.set(self.size);
            raw.sequence.set(sequence);
            put_text(&mut raw.label, &self.label, "label")?;
            put_text(&mut raw.checksum_hash, self.checksum_hash.name(), "hash name")?;
            random(&mut raw.salt);
            put_text(&mut raw.uuid, &self.uuid, "UUID")?;
            put_text(&mut raw.subsystem, &self.subsystem, "subsystem")?;
            raw.offset.set(offset);
            let mut json = text.clone();
            json.resize(area, 0);
            let checksum = self.checksum_hash.digest(&[raw.as_bytes(), &json]);
            raw.checksum.iter_mut().zip(checksum.iter()).for_each(|(to, from)| *to = *from);
            device.write_at(offset, raw.as_bytes())?;
            device.write_at(offset + BINARY_BYTES, &json)?;
        }
        self.sequence = sequence;
        self.is_whole = true;
        Ok(())
    }

    /// Changes the metadata, if what comes out is still good.
    fn change(&mut self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut json = self.json.clone();
        change(&mut json);
        self.layout = metadata::layout(&json, self.size).map_err(Error::Refused)?;
        self.json = json;
        Ok(())
    }

    /// Says that a slot has a key, which the digests of `like` prove as well.
    pub(super) fn put_slot(&mut self, slot: &NewSlot<'_>, like: Option<u32>) -> Result<()> {
        self.change(|json| metadata::put_slot(json, slot, like))
    }

    /// Says that a slot is not there any more.
    pub(super) fn remove_slot(&mut self, number: u32) -> Result<()> {
        self.change(|json| metadata::remove_slot(json, number))
    }

    /// A free place for the stripes of a slot, in bytes.
    pub(super) fn free_area(&self, len: u64) -> Result<u64> {
        metadata::free_area(&self.json, self.size, len)
    }

    /// A slot's area, whatever its type is.
    pub(super) fn area_of(&self, number: u32) -> Option<(u64, u64)> {
        metadata::area_of(&self.json, number)
    }
}
