//! The header block of a tar member.
//!
//! Spec: POSIX.1-2017, `pax` utility, "ustar Interchange Format"; GNU tar's manual, "Basic Tar Format",
//! for the fields of GNU's sparse files and for numbers in base 256.

use bstr::{BString, ByteSlice};

use crate::unpack::sparse::Map;

pub(super) const BLOCK_BYTES: usize = 512;

/// A header block, with a right checksum.
pub(super) struct Header([u8; BLOCK_BYTES]);

/// Where a field begins and how long it is.
#[derive(Clone, Copy)]
pub(super) struct Field(usize, usize);

impl Field {
    const NAME: Self = Self(0, 100);
    pub(super) const MODE: Self = Self(100, 8);
    pub(super) const UID: Self = Self(108, 8);
    pub(super) const GID: Self = Self(116, 8);
    pub(super) const SIZE: Self = Self(124, 12);
    pub(super) const MTIME: Self = Self(136, 12);
    const CHECKSUM: Self = Self(148, 8);
    const LINKNAME: Self = Self(157, 100);
    const MAGIC: Self = Self(257, 6);
    pub(super) const DEVMAJOR: Self = Self(329, 8);
    pub(super) const DEVMINOR: Self = Self(337, 8);
    const PREFIX: Self = Self(345, 155);
    /// GNU's: how large a sparse file is.
    pub(super) const REAL_SIZE: Self = Self(483, 12);
}

const TYPEFLAG: usize = 156;

/// GNU's: the first entries of a sparse file's map, and whether a block with more follows.
const SPARSE: std::ops::Range<usize> = 386..482;
const SPARSE_GOES_ON: usize = 482;

/// The same of a block with more.
const MORE_SPARSE: std::ops::Range<usize> = 0..504;
const MORE_GOES_ON: usize = 504;

/// Two numbers of 12 bytes each.
const SPARSE_ENTRY_BYTES: usize = 24;

impl Header {
    /// `None` if the checksum is wrong: then it is no header.
    pub(super) fn decode(block: [u8; BLOCK_BYTES]) -> Option<Self> {
        let header = Self(block);
        let Field(start, len) = Field::CHECKSUM;
        // The field itself counts as spaces.
        let counted =
            |(at, byte): (usize, &u8)| if (start..start + len).contains(&at) { b' ' } else { *byte };
        let unsigned: i128 = block.iter().enumerate().map(|byte| i128::from(counted(byte))).sum();
        // Old programs took bytes for signed.
        let signed: i128 = block.iter().enumerate().map(|byte| i128::from(counted(byte).cast_signed())).sum();
        let stored = header.number(Field::CHECKSUM)?;
        (stored == unsigned || stored == signed).then_some(header)
    }

    fn bytes(&self, Field(start, len): Field) -> &[u8] {
        &self.0[start..start + len]
    }

    /// The bytes up to the first NUL.
    fn text(&self, field: Field) -> &[u8] {
        self.bytes(field).split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// The number in a field, of which none is 0. `None` if it is none.
    pub(super) fn number(&self, field: Field) -> Option<i128> {
        number(self.bytes(field))
    }

    pub(super) fn typeflag(&self) -> u8 {
        self.0[TYPEFLAG]
    }

    /// The member's name, with the directories before it.
    pub(super) fn name(&self) -> BString {
        let (name, prefix) = (self.text(Field::NAME), self.text(Field::PREFIX));
        // GNU's own format has other fields where the prefix is.
        if self.bytes(Field::MAGIC) == b"ustar\0" && !prefix.is_empty() {
            return [prefix, b"/", name].concat().into();
        }
        name.into()
    }

    pub(super) fn link_name(&self) -> BString {
        self.text(Field::LINKNAME).into()
    }

    /// The entries of a sparse file's map in GNU's own format, and whether more follow.
    pub(super) fn sparse(&self, map: &mut Map) -> Option<bool> {
        entries(&self.0[SPARSE], map)?;
        Some(self.0[SPARSE_GOES_ON] != 0)
    }
}

/// The entries in a block that goes on with a map, and whether more follow.
pub(super) fn more_sparse(block: &[u8; BLOCK_BYTES], map: &mut Map) -> Option<bool> {
    entries(&block[MORE_SPARSE], map)?;
    Some(block[MORE_GOES_ON] != 0)
}

fn entries(bytes: &[u8], map: &mut Map) -> Option<()> {
    for entry in bytes.chunks_exact(SPARSE_ENTRY_BYTES) {
        let (offset, len) = entry.split_at(SPARSE_ENTRY_BYTES / 2);
        if offset[0] == 0 {
            break;
        }
        map.push(u64::try_from(number(offset)?).ok()?, u64::try_from(number(len)?).ok()?)?;
    }
    Some(())
}

/// A number: octal digits with spaces around them, or binary if the highest bit is set.
fn number(field: &[u8]) -> Option<i128> {
    match field.first()? {
        first @ (0x80 | 0xff) => {
            // Big-endian; the first byte is a sign.
            let start = if *first == 0xff { -1 } else { 0 };
            let (high, low) = field[1..].split_at(field.len().saturating_sub(9));
            if high.iter().any(|byte| i128::from(*byte) != start & 0xff) {
                return None;
            }
            Some(low.iter().fold(start, |number, byte| number << 8 | i128::from(*byte)))
        }
        _ => {
            let digits = field.split(|byte| *byte == 0).next().unwrap_or_default().trim();
            if digits.is_empty() {
                return Some(0);
            }
            if !digits.iter().all(|digit| matches!(digit, b'0'..=b'7')) {
                return None;
            }
            Some(digits.iter().fold(0, |number, digit| number << 3 | i128::from(digit - b'0')))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // As GNU tar writes them in fields of 8 and of 12 bytes.
    fn numbers_are_octal_or_binary() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"77777777", Some(0o77_777_777)),
            (b"0000689\0", None),
            (b"-000001\0", None),
            (b"\x80\0\0\0\0\x20\0\0", Some(1 << 21)),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", Some(1 << 33)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\x01\0\0\0\0\0\0\0\0\0\0", None),
        ] {
            assert_eq!(number(field), expected, "{:?}", field.as_bstr());
        }
    }
}
