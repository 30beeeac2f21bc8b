//! ISO 9660 with Joliet, and its forerunner High Sierra.
//!
//! Spec: ECMA-119; Joliet Specification 1. Volume descriptors have 2048 bytes and begin at 32 KiB.

use bstr::BString;

use super::reader::{Block, Reader, be16_units, text, utf16_text};
use super::{Format, Found, Usage};
use crate::Result;

pub(super) const ISO9660: Format = Format::new("iso9660", Usage::FileSystem, iso9660).tolerant();

const DESCRIPTORS: u64 = 32 << 10;
const DESCRIPTOR_BYTES: u64 = 2048;

/// How many descriptors are looked at; real discs have three or four.
const MAX_DESCRIPTORS: u64 = 16;

const SUPPLEMENTARY: u8 = 2;
const TERMINATOR: u8 = 255;

fn iso9660(reader: &Reader<'_>) -> Result<Option<Found>> {
    let Some(primary) = reader.block(DESCRIPTORS, 2048)? else { return Ok(None) };
    if primary.has(9, b"CDROM") {
        let label = primary.text(48, 32);
        return Ok(Some(Found { label, version: "High Sierra".into(), ..Found::default() }));
    }
    if !primary.has(1, b"CD001") {
        return Ok(None);
    }
    let mut found = Found {
        label: primary.text(40, 32),
        uuid: date(primary.bytes(830, 17)).or_else(|| date(primary.bytes(813, 17))).unwrap_or_default(),
        ..Found::default()
    };
    for index in 1..MAX_DESCRIPTORS {
        let Some(descriptor) = reader.block(DESCRIPTORS + index * DESCRIPTOR_BYTES, 2048)? else { break };
        if descriptor.u8(0) == TERMINATOR {
            break;
        }
        if descriptor.u8(0) == SUPPLEMENTARY && is_joliet(&descriptor) {
            found.version = "Joliet Extension".into();
            found.label = joliet_label(descriptor.bytes(40, 32), primary.bytes(40, 32));
            break;
        }
    }
    Ok(Some(found))
}

/// Joliet is marked by the escape sequences of UCS-2 levels 1, 2 and 3.
fn is_joliet(descriptor: &Block<'_>) -> bool {
    [b"%/@", b"%/C", b"%/E"].into_iter().any(|level| descriptor.has(88, level))
}

/// The date in digits as `blkid` makes a UUID of it; `None` if it is not set.
fn date(field: &[u8]) -> Option<String> {
    let (digits, zone) = field.split_at_checked(16)?;
    // Unset is digits of 0 in the zone 0; some tools leave NULs.
    let is_unset = digits.iter().all(|digit| *digit == b'0') && zone == [0];
    if is_unset || digits.iter().all(|digit| *digit == 0) {
        return None;
    }
    let digits: String = digits.iter().map(|digit| char::from(*digit)).collect();
    // Year, month, day, hour, minute, second, hundredths. What is no digit is shown all the same.
    let mut parts = vec![digits.chars().take(4).collect::<String>()];
    for at in (4..16).step_by(2) {
        parts.push(digits.chars().skip(at).take(2).collect());
    }
    Some(parts.join("-"))
}

/// Joliet's label has the right letters and half the length: where the two agree, the longer one's
/// rest is added to it.
fn joliet_label(joliet: &[u8], primary: &[u8]) -> BString {
    let mut merged = Vec::new();
    let mut plain = primary.iter().map(|byte| u16::from(*byte));
    let mut units = be16_units(joliet).peekable();
    while let Some(unit) = units.next() {
        if (0xd800..0xdc00).contains(&unit)
            && let Some(low) = units.next_if(|low| (0xdc00..0xe000).contains(low))
        {
            merged.extend([unit, low]);
            // A pair was written as two underscores.
            plain.next();
            plain.next();
            continue;
        }
        let Some(letter) = plain.next() else { break };
        let is_same = match (u8::try_from(unit), u8::try_from(letter)) {
            (_, Ok(b'_')) => true,
            (Ok(b'_'), _) => {
                merged.push(letter);
                continue;
            }
            (Ok(unit), Ok(letter)) => unit == letter || unit.to_ascii_uppercase() == letter,
            _ => false,
        };
        if !is_same {
            return utf16_text(be16_units(joliet));
        }
        let is_capital = u8::try_from(letter).is_ok_and(|letter| letter.is_ascii_uppercase());
        merged.push(if letter == u16::from(b'_') || is_capital { unit } else { letter });
    }
    merged.extend(plain);
    text(&utf16_text(merged.into_iter()))
}
