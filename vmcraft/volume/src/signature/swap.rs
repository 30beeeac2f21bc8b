//! Swap space, also with a suspended system in it.
//!
//! The signature is at the end of the first page, whose size is the machine's; the header is at
//! byte 1024 for all.

use super::reader::Reader;
use super::{Format, Found, Usage};
use crate::Result;

/// Ten pages are the least that Linux takes.
const MIN_BYTES: u64 = 10 * 4096;

pub(super) const SWAP: Format = Format::new("swap", Usage::Other, swap).at_least(MIN_BYTES);
pub(super) const SUSPENDED: Format = Format::new("swsuspend", Usage::Other, suspended).at_least(MIN_BYTES);

/// The sizes of a page.
const PAGES: [u64; 5] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];

/// TuxOnIce overwrites the start and leaves the swap signature where it is.
const TUX_ON_ICE: &[u8] = &[0xed, 0xc3, 0x02, 0xe9, 0x98, 0x56, 0xe5, 0x0c];

fn swap(reader: &Reader<'_>) -> Result<Option<Found>> {
    if reader.has(0, TUX_ON_ICE)? {
        return Ok(None);
    }
    for page in PAGES {
        if reader.has(page - 10, b"SWAP-SPACE")? {
            return Ok(Some(Found { version: "0".into(), ..Found::default() }));
        }
        if reader.has(page - 10, b"SWAPSPACE2")? {
            let Some(header) = reader.block(1024, 512)? else { return Ok(None) };
            let is_sound = matches!((header.le32(0), header.be32(0)), (1, _) | (_, 1)) && header.le32(4) != 0;
            return Ok(if is_sound { found(reader, "1")? } else { None });
        }
    }
    Ok(None)
}

fn suspended(reader: &Reader<'_>) -> Result<Option<Found>> {
    if reader.has(0, TUX_ON_ICE)? {
        return found(reader, "tuxonice");
    }
    for page in PAGES {
        for (magic, version) in [
            ("S1SUSPEND", "s1suspend"),
            ("S2SUSPEND", "s2suspend"),
            ("ULSUSPEND", "ulsuspend"),
            ("LINHIB0001", "linhib0001"),
        ] {
            if reader.has(page - 10, magic.as_bytes())? {
                return found(reader, version);
            }
        }
    }
    Ok(None)
}

fn found(reader: &Reader<'_>, version: &str) -> Result<Option<Found>> {
    let Some(header) = reader.block(1024, 512)? else { return Ok(None) };
    let mut found = Found { version: version.into(), ..Found::default() };
    // Where the padding is not empty, something else than a label is before it.
    if header.bytes(44 + 128, 8) == [0; 8] {
        found.uuid = header.uuid(12);
        found.label = header.text(28, 16);
    }
    Ok(Some(found))
}
