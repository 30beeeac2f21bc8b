//! The list that the metadata, and a startup key's file, consist of.

use zerocopy::byteorder::little_endian::U16;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::{Error, Result};

/// What an entry is for (`role`).
pub(super) mod role {
    pub(crate) const VOLUME_MASTER_KEY: u16 = 0x0002;
    pub(crate) const FULL_VOLUME_ENCRYPTION_KEY: u16 = 0x0003;
    pub(crate) const STARTUP_KEY: u16 = 0x0006;
    pub(crate) const DESCRIPTION: u16 = 0x0007;
}

/// What an entry's data is (`kind`).
pub(super) mod kind {
    pub(crate) const KEY: u16 = 0x0001;
    pub(crate) const UNICODE: u16 = 0x0002;
    pub(crate) const STRETCH_KEY: u16 = 0x0003;
    pub(crate) const AES_CCM_KEY: u16 = 0x0005;
    pub(crate) const VOLUME_MASTER_KEY: u16 = 0x0008;
    pub(crate) const EXTERNAL_KEY: u16 = 0x0009;
}

/// An entry's header on disk, little-endian.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntry {
    /// 0x00: with this header, in bytes.
    size: U16,
    /// 0x02: of [`role`].
    role: U16,
    /// 0x04: of [`kind`].
    kind: U16,
    kept_06: U16,
}
const HEADER_LEN: usize = size_of::<RawEntry>();

/// An entry within its list.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) role: u16,
    pub(super) kind: u16,
    pub(super) data: &'a [u8],
    /// Where `data` begins, in bytes from the start of the device or file.
    pub(super) offset: u64,
}

impl<'a> Entry<'a> {
    /// The `N` bytes at `at`, and what follows them.
    pub(super) fn split<const N: usize>(&self, at: usize, what: &str) -> Result<(&'a [u8; N], Entry<'a>)> {
        let rest = self.data.get(at..).and_then(<[u8]>::split_first_chunk::<N>);
        let (bytes, rest) = rest.ok_or_else(|| self.corrupt(what))?;
        Ok((bytes, Entry { data: rest, offset: self.offset + (at + N) as u64, ..*self }))
    }

    /// The entries that the data consists of.
    pub(super) fn entries(&self, what: &str) -> Result<Vec<Entry<'a>>> {
        decode(self.data, self.offset, what)
    }

    /// The data as text, up to its NUL.
    pub(super) fn text(&self) -> String {
        let units: Vec<u16> =
            self.data.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
        String::from_utf16_lossy(units.split(|unit| *unit == 0).next().unwrap_or_default())
    }

    pub(super) fn corrupt(&self, what: &str) -> Error {
        Error::Corrupt { what: format!("BitLocker metadata: {what}"), offset: self.offset }
    }
}

/// The entries of a list that fills `bytes`, which begin at byte `offset`.
pub(super) fn decode<'a>(bytes: &'a [u8], offset: u64, what: &str) -> Result<Vec<Entry<'a>>> {
    let mut entries = Vec::new();
    let mut at = 0;
    // What is shorter than a header is padding. Each turn takes a header or more off `bytes`.
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= HEADER_LEN) {
        let Ok((raw, _)) = RawEntry::ref_from_prefix(rest) else { break };
        let size = usize::from(raw.size.get());
        if size == 0 {
            break; // padding
        }
        let data = rest.get(HEADER_LEN..size).ok_or_else(|| Error::Corrupt {
            what: format!("BitLocker metadata: an entry of {size} bytes in {what}"),
            offset: offset + at as u64,
        })?;
        let (role, kind) = (raw.role.get(), raw.kind.get());
        entries.push(Entry { role, kind, data, offset: offset + (at + HEADER_LEN) as u64 });
        at += size;
    }
    Ok(entries)
}
