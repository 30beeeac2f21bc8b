//! UDF.
//!
//! Spec: ECMA-167 and OSTA UDF 2.60. Little-endian.

use bstr::{BString, ByteSlice};

use super::reader::{Block, Reader, be16_units, utf16_text};
use super::{Format, Found, Usage};
use crate::Result;

pub(super) const UDF: Format = Format::new("udf", Usage::FileSystem, udf).tolerant();

/// How many descriptors of either sequence are looked at; the spec asks for 16 to begin with.
const MAX_DESCRIPTORS: u64 = 64;

const TAG_PRIMARY: u16 = 1;
const TAG_ANCHOR: u16 = 2;
const TAG_LOGICAL: u16 = 6;
const TAG_TERMINATOR: u16 = 8;
const TAG_INTEGRITY: u16 = 9;

fn udf(reader: &Reader<'_>) -> Result<Option<Found>> {
    // The block size is that of the disk, which an image file does not tell.
    for block_bytes in [512, 1024, 2048, 4096] {
        if !is_recognised(reader, block_bytes)? {
            continue;
        }
        let Some(anchor) = reader.block(256 * block_bytes, 512)? else { return Ok(None) };
        if anchor.le16(0) == TAG_ANCHOR && anchor.le32(12) == 256 {
            return Ok(Some(describe(reader, block_bytes, &anchor)?));
        }
    }
    Ok(None)
}

/// Whether the volume recognition sequence names UDF.
fn is_recognised(reader: &Reader<'_>, block_bytes: u64) -> Result<bool> {
    let step = block_bytes.max(2048);
    for index in 0..MAX_DESCRIPTORS {
        let Some(descriptor) = reader.block((32 << 10) + index * step, 7)? else { return Ok(false) };
        let is_one_of = |names: &[&[u8; 5]]| names.iter().any(|name| descriptor.has(1, *name));
        if is_one_of(&[b"NSR02", b"NSR03"]) {
            return Ok(true);
        }
        if !is_one_of(&[b"BEA01", b"BOOT2", b"CD001", b"CDW02", b"TEA01"]) {
            return Ok(false);
        }
    }
    Ok(false)
}

/// Reads the volume descriptor sequence that the anchor leads to.
fn describe(reader: &Reader<'_>, block_bytes: u64, anchor: &Block<'_>) -> Result<Found> {
    let count = u64::from(anchor.le32(16)) / block_bytes;
    let first = u64::from(anchor.le32(20));
    let mut found = Found::default();
    let mut revision = 0;
    let mut integrity = None;
    for location in first..first.saturating_add(count.min(MAX_DESCRIPTORS)) {
        let Some(descriptor) = reader.block(location * block_bytes, 512)? else { break };
        let tag = descriptor.le16(0);
        if tag == 0 || tag == TAG_TERMINATOR || u64::from(descriptor.le32(12)) != location {
            break;
        }
        if tag == TAG_PRIMARY && found.uuid.is_empty() {
            found.uuid = volume_set_uuid(descriptor.bytes(72, 128));
        }
        if tag == TAG_LOGICAL {
            if found.label.is_empty() {
                found.label = dstring(descriptor.bytes(84, 128)).unwrap_or_default();
            }
            if descriptor.has(217, b"*OSTA UDF Compliant") {
                revision = descriptor.le16(240);
            }
            if descriptor.le32(268) != 0 && descriptor.le32(432) >= 512 {
                integrity = Some(u64::from(descriptor.le32(436)));
            }
        }
    }
    if let Some(location) = integrity
        && let Some(descriptor) = reader.block(location * block_bytes, 512)?
        && descriptor.le16(0) == TAG_INTEGRITY
        && u64::from(descriptor.le32(12)) == location
    {
        // Two tables of a number for each partition are before the implementation's own part.
        let tables = usize::try_from(descriptor.le32(72)).unwrap_or(usize::MAX).saturating_mul(8);
        let lowest = descriptor.le16(80_usize.saturating_add(tables).saturating_add(40));
        if lowest != 0 {
            revision = lowest;
        }
    }
    if revision != 0 {
        // The digits are hexadecimal: 0x0250 is 2.50.
        found.version = format!("{:x}.{:02x}", revision >> 8, revision & 0xff);
    }
    Ok(found)
}

/// A `dstring`: its last byte is its length, its first says how many bits a character has.
fn dstring(field: &[u8]) -> Option<BString> {
    let (len, field) = field.split_last()?;
    let (bits, characters) = field.split_first()?;
    let characters = &characters[..usize::from(len.saturating_sub(1)).min(characters.len())];
    match bits {
        8 => Some(utf16_text(characters.iter().map(|byte| u16::from(*byte)))),
        16 => Some(utf16_text(be16_units(characters))),
        _ => None,
    }
}

/// The first 16 characters of the volume set's identifier, made hexadecimal where they are not.
///
/// The first half should be a time in hexadecimal digits, the second is free.
fn volume_set_uuid(field: &[u8]) -> String {
    let Some(identifier) = dstring(field) else { return String::new() };
    let bytes: Vec<u8> = identifier.bytes().chain(std::iter::repeat(0)).take(16).collect();
    if identifier.len() < 8 {
        return String::new();
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let lower = |bytes: &[u8]| bytes.to_ascii_lowercase().to_str_lossy().into_owned();
    match bytes.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(16) {
        0..8 => hex(&bytes[..8]),
        8..16 => lower(&bytes[..8]) + &hex(&bytes[8..12]),
        _ => lower(&bytes),
    }
}
