//! A metadata area: its header, and a ring of texts behind it, of which the header names the one that counts.
//!
//! Spec: LVM2 `lib/format_text/layout.h`; `pvck --dump headers` prints it. All numbers are little-endian.

use vmcraft_block::BlockDevice;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::label::{Range, SECTOR, checksum};
use crate::{Error, Result};

/// The size of the header; the ring of texts begins behind it.
pub(crate) const HEADER_BYTES: u64 = 512;
const MAGIC: &[u8; 16] = b" LVM2 x[5A%r0N*>";
const VERSION: u32 = 1;
/// A location of text: the area is not to be used.
const IGNORED: u32 = 1;
/// The longest text that is read: groups of thousands of volumes have some MiB.
const MAX_TEXT_BYTES: u64 = 32 << 20;

/// Where a text is.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawTextLocation {
    /// 0: in bytes from the start of the area.
    offset: U64,
    /// 8: in bytes, with the NUL at its end.
    size: U64,
    /// 16: of the text.
    checksum: U32,
    /// 20: 1 = the area is not to be used.
    flags: U32,
}

/// The header on disk: 512 bytes.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawAreaHeader {
    /// 0: of all that follows.
    checksum: U32,
    /// 4: always [`MAGIC`].
    magic: [u8; 16],
    /// 20: always 1.
    version: U32,
    /// 24: where the area begins on the device, in bytes.
    start: U64,
    /// 32: the area's size in bytes, with this header.
    size: U64,
    /// 40: the text that counts, and the one that is being written.
    texts: [RawTextLocation; 2],
    /// 88: not used.
    rest: [u8; 424],
}
const _: () = assert!(size_of::<RawAreaHeader>() == 512);

/// Where a text is in its area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TextLocation {
    /// In bytes from the start of the area.
    pub(crate) offset: u64,
    /// In bytes, with the NUL at its end.
    pub(crate) len: u64,
    /// Of the text.
    pub(crate) checksum: u32,
}

/// The header of a metadata area, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AreaHeader {
    /// Where the area is on the device.
    pub(crate) range: Range,
    /// The text that counts. `None` where there is none, as in a volume that belongs to no group.
    pub(crate) text: Option<TextLocation>,
    /// Whether the area is not to be used (`pvchange --metadataignore y`).
    pub(crate) is_ignored: bool,
}

impl AreaHeader {
    /// Reads the header of the area that a label tells of.
    ///
    /// # Errors
    /// `Corrupt` if it is not one, or is for another place.
    pub(crate) fn read(device: &dyn BlockDevice, range: Range) -> Result<Self> {
        let corrupt = |what: &str, at: u64| Error::Corrupt {
            what: format!("metadata area: {what}"),
            offset: range.offset.saturating_add(at),
        };
        let end = range.offset.checked_add(range.len);
        if range.len <= HEADER_BYTES || end.is_none_or(|end| end > device.size()) {
            return Err(corrupt("its size, or it is beyond the end of the device", 0));
        }
        let mut raw = RawAreaHeader::new_zeroed();
        device.read_at(range.offset, raw.as_mut_bytes())?;
        if raw.checksum.get() != checksum(&raw.as_bytes()[4..]) {
            return Err(corrupt("checksum of its header", 0));
        }
        if raw.magic != *MAGIC {
            return Err(corrupt("magic", 4));
        }
        if raw.version.get() != VERSION {
            let version = raw.version.get();
            return Err(Error::Unsupported(format!("metadata areas of version {version}")));
        }
        if raw.start.get() != range.offset || raw.size.get() != range.len {
            return Err(corrupt("it is for another place", 24));
        }
        let first = &raw.texts[0];
        let is_ignored = first.flags.get() & IGNORED != 0;
        let text = TextLocation {
            offset: first.offset.get(),
            len: first.size.get(),
            checksum: first.checksum.get(),
        };
        if text.offset == 0 {
            return Ok(Self { range, text: None, is_ignored });
        }
        let is_inside = (HEADER_BYTES..range.len).contains(&text.offset);
        if !is_inside || text.len == 0 || text.len > range.len - HEADER_BYTES {
            return Err(corrupt("place of its text", 40));
        }
        Ok(Self { range, text: Some(text), is_ignored })
    }

    /// The text that counts, without the NUL at its end.
    ///
    /// # Errors
    /// `Corrupt` if its checksum is wrong, `Unsupported` if it is too long for us.
    pub(crate) fn read_text(&self, device: &dyn BlockDevice) -> Result<Option<Vec<u8>>> {
        let Some(location) = self.text else { return Ok(None) };
        if location.len > MAX_TEXT_BYTES {
            return Err(Error::Unsupported(format!("metadata of {} bytes", location.len)));
        }
        let mut text = vec![0; usize::try_from(location.len).map_err(std::io::Error::other)?];
        let (first, wrapped) = text.split_at_mut(self.before_wrap(&location));
        device.read_at(self.range.offset + location.offset, first)?;
        if !wrapped.is_empty() {
            device.read_at(self.range.offset + HEADER_BYTES, wrapped)?;
        }
        if checksum(&text) != location.checksum {
            return Err(Error::Corrupt {
                what: "metadata area: checksum of its text".into(),
                offset: self.range.offset + location.offset,
            });
        }
        if text.last() == Some(&0) {
            text.pop();
        }
        Ok(Some(text))
    }

    /// How many bytes of a text lie before the end of the ring; the rest is at its start.
    fn before_wrap(&self, location: &TextLocation) -> usize {
        let first = location.len.min(self.range.len - location.offset);
        usize::try_from(first).unwrap_or(usize::MAX)
    }

    /// Where the next text of `len` bytes goes: behind the one that counts, at a whole sector.
    ///
    /// # Errors
    /// `Refused` if the area cannot hold both.
    pub(crate) fn next_location(&self, len: u64, checksum: u32) -> Result<TextLocation> {
        let ring = self.range.len - HEADER_BYTES;
        let offset = match self.text {
            None => HEADER_BYTES,
            Some(old) => {
                let end = (old.offset - HEADER_BYTES + old.len).next_multiple_of(SECTOR);
                HEADER_BYTES + end % (ring / SECTOR * SECTOR).max(1)
            }
        };
        // What starts at a whole sector must not run into the old one from behind.
        let kept = self.text.map_or(0, |old| old.len.next_multiple_of(SECTOR) + SECTOR);
        if kept + len > ring {
            return Err(Error::Refused(format!(
                "the metadata area at byte {:#x} is full: {len} bytes of metadata do not fit beside the old ones",
                self.range.offset
            )));
        }
        Ok(TextLocation { offset, len, checksum })
    }

    /// Takes a text that ends in a NUL as the one that counts. Returns what is to be written, in this order, and where
    /// on the device: the text into its place, then the header that names it.
    pub(crate) fn replace_text(&mut self, text: &[u8]) -> Result<Vec<(u64, Vec<u8>)>> {
        let location = self.next_location(text.len() as u64, checksum(text))?;
        let (first, wrapped) = text.split_at(self.before_wrap(&location).min(text.len()));
        let mut writes = vec![(self.range.offset + location.offset, first.to_vec())];
        if !wrapped.is_empty() {
            writes.push((self.range.offset + HEADER_BYTES, wrapped.to_vec()));
        }
        self.text = Some(location);
        writes.push((self.range.offset, self.encode()));
        Ok(writes)
    }

    /// The header as it is on disk.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut raw = RawAreaHeader::new_zeroed();
        raw.magic = *MAGIC;
        raw.version = VERSION.into();
        raw.start = self.range.offset.into();
        raw.size = self.range.len.into();
        if let Some(text) = self.text {
            raw.texts[0].offset = text.offset.into();
            raw.texts[0].size = text.len.into();
            raw.texts[0].checksum = text.checksum.into();
        }
        raw.texts[0].flags = u32::from(self.is_ignored).into();
        raw.checksum = checksum(&raw.as_bytes()[4..]).into();
        raw.as_bytes().to_vec()
    }

    /// How much longer the texts may become, in bytes, as LVM counts it: an old and a new one have to fit.
    pub(crate) fn free_bytes(&self) -> u64 {
        // It keeps a sector back for each.
        let used = SECTOR + self.text.map_or(0, |text| text.len);
        ((self.range.len - HEADER_BYTES) / 2).saturating_sub(used) / SECTOR * SECTOR
    }
}

#[cfg(test)]
mod tests {
    use vmcraft_block::MemoryDevice;

    use super::*;

    fn area(len: u64) -> AreaHeader {
        AreaHeader { range: Range { offset: 4096, len }, text: None, is_ignored: false }
    }

    fn write(header: &mut AreaHeader, device: &MemoryDevice, text: &[u8]) -> Result<()> {
        for (offset, bytes) in header.replace_text(text)? {
            device.write_at(offset, &bytes)?;
        }
        Ok(())
    }

    #[test] // Texts of all lengths go round the ring many times, and the one before is never touched.
    fn texts_go_round_the_ring() {
        let device = MemoryDevice::new(vec![0xee; 16384]);
        let mut header = area(8192 + 100);
        let mut old: Option<(AreaHeader, Vec<u8>)> = None;
        for round in 0..200_usize {
            let mut text = vec![b'a' + u8::try_from(round % 26).unwrap(); 1 + round * 37 % 3000];
            text.push(0);
            write(&mut header, &device, &text).unwrap();
            text.pop();
            let read = AreaHeader::read(&device, header.range).unwrap();
            assert_eq!(read, header);
            assert_eq!(read.read_text(&device).unwrap().unwrap(), text, "round {round}");
            if let Some((old, old_text)) = old {
                assert_eq!(old.read_text(&device).unwrap().unwrap(), old_text, "round {round}");
            }
            old = Some((read, text));
        }
        let mut beyond = [0; 1000];
        device.read_at(4096 + 8292, &mut beyond).unwrap();
        assert!(beyond.iter().all(|b| *b == 0xee));
    }

    #[test]
    fn full_areas_are_refused() {
        let device = MemoryDevice::new(vec![0; 16384]);
        let mut header = area(4096);
        write(&mut header, &device, &[b'x'; 2000]).unwrap();
        let error = write(&mut header, &device, &[b'y'; 2000]).unwrap_err().to_string();
        assert!(error.contains("is full"), "{error}");
        assert_eq!(header.read_text(&device).unwrap().unwrap(), [b'x'; 2000]);
    }

    #[test]
    fn damaged_headers_are_named() {
        let device = MemoryDevice::new(vec![0; 16384]);
        let mut header = area(4096);
        write(&mut header, &device, b"text\0").unwrap();
        let other = Range { offset: 4096, len: 8192 };
        for (range, message) in [
            (other, "it is for another place"),
            (Range { offset: 4096, len: 20000 }, "beyond the end of the device"),
            (Range { offset: u64::MAX - 4, len: 4 }, "beyond the end of the device"),
            (Range { offset: 0, len: 4096 }, "checksum of its header"),
        ] {
            let error = AreaHeader::read(&device, range).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        device.write_at(4096 + 512, b"T").unwrap();
        let read = AreaHeader::read(&device, header.range).unwrap();
        let error = read.read_text(&device).unwrap_err().to_string();
        assert_eq!(error, "corrupt metadata area: checksum of its text at byte 0x1200 of the device");
    }
}
