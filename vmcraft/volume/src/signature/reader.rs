//! Reading for the probes: most of what they look at is in the device's first bytes, read once.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;

use bstr::{BString, ByteSlice};
use uuid::Uuid;
use vmcraft_block::BlockDevice;

use crate::partition::PartitionTable;

/// How much of the device's start is read at once: up to the end of a Btrfs superblock.
const HEAD_BYTES: u64 = 68 << 10;

/// Where magics were found: offsets on the device and lengths, in bytes.
type Magics = RefCell<Vec<(u64, usize)>>;

/// A device as the probes read it.
pub(super) struct Reader<'a> {
    device: &'a dyn BlockDevice,
    head: Vec<u8>,
    magics: Magics,
}

impl<'a> Reader<'a> {
    pub(super) fn new(device: &'a dyn BlockDevice) -> io::Result<Self> {
        let len = usize::try_from(device.size().min(HEAD_BYTES)).map_err(io::Error::other)?;
        let mut head = vec![0; len];
        device.read_at(0, &mut head)?;
        Ok(Self { device, head, magics: RefCell::default() })
    }

    /// Where magics were found since this was asked last: offsets and lengths in bytes.
    pub(super) fn take_magics(&self) -> Vec<(u64, usize)> {
        self.magics.take()
    }

    /// The device's size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.device.size()
    }

    /// Whether the device has a partition table, and a partition covers these bytes.
    pub(super) fn is_in_partition(&self, start: u64, end: u64) -> bool {
        let Ok(Some(table)) = PartitionTable::read(self.device) else { return false };
        table.partitions.iter().any(|p| p.start_bytes <= start && end <= p.end_bytes())
    }

    /// `len` bytes from `offset`; `None` if the device ends before that.
    pub(super) fn block(&self, offset: u64, len: usize) -> io::Result<Option<Block<'_>>> {
        let Some(end) = offset.checked_add(len as u64).filter(|end| *end <= self.size()) else {
            return Ok(None);
        };
        if end <= self.head.len() as u64 {
            let start = usize::try_from(offset).map_err(io::Error::other)?;
            return Ok(Some(self.placed(offset, Cow::Borrowed(&self.head[start..start + len]))));
        }
        let mut bytes = vec![0; len];
        self.device.read_at(offset, &mut bytes)?;
        Ok(Some(self.placed(offset, Cow::Owned(bytes))))
    }

    fn placed<'b>(&'b self, offset: u64, bytes: Cow<'b, [u8]>) -> Block<'b> {
        Block { bytes, place: Some((offset, &self.magics)) }
    }

    /// Whether these bytes stand at `offset`.
    pub(super) fn has(&self, offset: u64, magic: &[u8]) -> io::Result<bool> {
        Ok(self.block(offset, magic.len())?.is_some_and(|block| block.has(0, magic)))
    }

    /// The block from `offset`, if `magic` stands at byte `at` of it.
    pub(super) fn block_with(
        &self,
        offset: u64,
        len: usize,
        at: usize,
        magic: &[u8],
    ) -> io::Result<Option<Block<'_>>> {
        Ok(self.block(offset, len)?.filter(|block| block.has(at, magic)))
    }
}

/// Bytes of the device. What lies beyond their end reads as 0, and as an empty slice.
pub(super) struct Block<'a> {
    bytes: Cow<'a, [u8]>,
    /// Where they are, and where magics found in them are noted.
    place: Option<(u64, &'a Magics)>,
}

impl Block<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes.get(at..).and_then(<[u8]>::first_chunk).copied().unwrap_or([0; N])
    }

    pub(super) fn u8(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }
    pub(super) fn le16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }
    pub(super) fn le32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }
    pub(super) fn le64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }
    pub(super) fn be16(&self, at: usize) -> u16 {
        u16::from_be_bytes(self.array(at))
    }
    pub(super) fn be32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.array(at))
    }
    pub(super) fn be64(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.array(at))
    }

    /// All bytes.
    pub(super) fn all(&self) -> &[u8] {
        &self.bytes
    }

    /// `len` bytes from `at`, or none.
    pub(super) fn bytes(&self, at: usize, len: usize) -> &[u8] {
        at.checked_add(len).and_then(|end| self.bytes.get(at..end)).unwrap_or_default()
    }

    /// Whether these bytes stand at `at`.
    pub(super) fn has(&self, at: usize, magic: &[u8]) -> bool {
        let found = self.bytes.get(at..).is_some_and(|rest| rest.starts_with(magic));
        if let (true, Some((start, magics))) = (found, self.place) {
            magics.borrow_mut().push((start + at as u64, magic.len()));
        }
        found
    }

    /// A UUID of 16 bytes in big-endian order; empty if it is all zeros.
    pub(super) fn uuid(&self, at: usize) -> String {
        uuid(self.array(at))
    }

    /// Text of `len` bytes, up to its first NUL and without white space at its end.
    pub(super) fn text(&self, at: usize, len: usize) -> BString {
        text(self.bytes(at, len))
    }
}

/// A UUID as `blkid` prints it; empty if it is all zeros.
pub(super) fn uuid(bytes: [u8; 16]) -> String {
    if bytes == [0; 16] { String::new() } else { Uuid::from_bytes(bytes).hyphenated().to_string() }
}

/// Up to the first NUL and without white space at the end, in C's sense of both.
pub(super) fn text(bytes: &[u8]) -> BString {
    let end = bytes.find_byte(0).unwrap_or(bytes.len());
    let is_space = |byte: char| matches!(byte, ' ' | '\t'..='\r');
    // The end is trimmed by bytes: what is not UTF-8 is kept.
    let kept = bytes[..end].iter().rposition(|byte| !is_space(char::from(*byte))).map_or(0, |at| at + 1);
    bytes[..kept].into()
}

/// UTF-16 text up to its first NUL, as UTF-8.
pub(super) fn utf16_text(units: impl Iterator<Item = u16>) -> BString {
    let decoded: String = char::decode_utf16(units.take_while(|unit| *unit != 0))
        .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
        .collect();
    text(decoded.as_bytes())
}

/// Pairs of bytes as little-endian numbers.
pub(super) fn le16_units(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
}

/// Pairs of bytes as big-endian numbers.
pub(super) fn be16_units(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
}

/// CRC-32 as some formats use it: with a start value of their own, and not inverted at the end.
pub(crate) fn crc32_from(start: u32, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(!start);
    crc.update(bytes);
    !crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // Labels come padded with NUL by some tools and with blanks by others.
    fn text_ends_like_a_c_string_without_its_blanks() {
        assert_eq!(text(b"a b \t\0x"), "a b");
        assert_eq!(text(b"  "), "");
        assert_eq!(text(b"\xff "), BString::from(b"\xff".as_slice()));
        assert_eq!(utf16_text(le16_units(b"\xe4\0 \0\0\0x\0")), "\u{e4}");
        assert_eq!(utf16_text([0xd83d, 0xdc27, 0xd800].into_iter()), "\u{1f427}\u{fffd}");
    }

    #[test] // What a probe reads beyond its block must not stop it.
    fn blocks_read_as_zero_beyond_their_end() {
        let block = Block { bytes: Cow::Borrowed(&[1, 2, 3]), place: None };
        assert_eq!((block.le16(0), block.le16(2), block.be32(usize::MAX)), (0x0201, 0, 0));
        assert_eq!(block.bytes(2, usize::MAX), b"");
        assert!(!block.has(3, b"x"));
    }
}
