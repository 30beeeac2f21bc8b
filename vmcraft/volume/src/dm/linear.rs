//! A table of pieces: what the kernel's `linear`, `error` and `zero` targets make together.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use vmcraft_block::{BlockDevice, Discard, Extent, MapExtents, check_extent_query, check_range};

use crate::{Error, Result};

/// How many zeros are written at a time where the device below cannot make them itself.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// One run of bytes of a [`Linear`] device.
pub struct Piece {
    /// How long it is, in bytes.
    pub len: u64,
    /// What it reads as.
    pub content: Content,
}

/// What a [`Piece`] reads as.
pub enum Content {
    /// The bytes of another device, from `offset`.
    Device {
        /// The other device.
        device: Arc<dyn BlockDevice>,
        /// Where the piece begins there, in bytes.
        offset: u64,
    },
    /// Zeros; what is written is forgotten.
    Zero,
    /// Nothing: reads and writes fail, and say this.
    Error(String),
}

/// Pieces one after the other, as one device.
pub struct Linear {
    /// The pieces, each with its start.
    pieces: Vec<(u64, Piece)>,
    size: u64,
    /// Each device below once.
    devices: Vec<Arc<dyn BlockDevice>>,
}

impl Linear {
    /// The pieces in their order. Pieces of no length are left out.
    ///
    /// # Errors
    /// `Refused` if a piece reaches beyond the end of its device, or all are too large together.
    pub fn new(pieces: Vec<Piece>) -> Result<Self> {
        let mut placed: Vec<(u64, Piece)> = Vec::with_capacity(pieces.len());
        let mut devices: Vec<Arc<dyn BlockDevice>> = Vec::new();
        let mut known = HashSet::new();
        let mut size = 0_u64;
        for piece in pieces.into_iter().filter(|piece| piece.len > 0) {
            if let Content::Device { device, offset } = &piece.content {
                check_range(*offset, piece.len, device.size(), "a piece")
                    .map_err(|e| Error::Refused(e.to_string()))?;
                if known.insert(Arc::as_ptr(device).cast::<()>()) {
                    devices.push(Arc::clone(device));
                }
            }
            let start = size;
            size = size
                .checked_add(piece.len)
                .ok_or_else(|| Error::Refused("the pieces of a device are larger than 2^64 bytes".into()))?;
            placed.push((start, piece));
        }
        Ok(Self { pieces: placed, size, devices })
    }

    /// Calls `each` with what lies in `offset..offset + len`: the piece, where in it, and how many bytes.
    fn split(
        &self,
        offset: u64,
        len: u64,
        mut each: impl FnMut(&Piece, u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut at = offset;
        let end = offset + len; // the caller has checked the range
        let first = self.pieces.partition_point(|(start, piece)| start + piece.len <= offset);
        for (start, piece) in self.pieces.get(first..).unwrap_or_default() {
            if at >= end {
                break;
            }
            let within = at - start;
            let part = (piece.len - within).min(end - at);
            each(piece, within, part)?;
            at += part;
        }
        Ok(())
    }
}

/// The next `len` bytes of a buffer, which has as many as the pieces together.
fn part(done: &mut usize, len: u64) -> io::Result<std::ops::Range<usize>> {
    let start = *done;
    *done += usize::try_from(len).map_err(io::Error::other)?;
    Ok(start..*done)
}

impl BlockDevice for Linear {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size, "a read")?;
        let mut done = 0;
        self.split(offset, buf.len() as u64, |piece, within, len| {
            let target = &mut buf[part(&mut done, len)?];
            match &piece.content {
                Content::Device { device, offset } => device.read_at(offset + within, target),
                Content::Zero => {
                    target.fill(0);
                    Ok(())
                }
                Content::Error(why) => Err(io::Error::other(why.clone())),
            }
        })
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size, "a write")?;
        let mut done = 0;
        self.split(offset, buf.len() as u64, |piece, within, len| {
            let source = &buf[part(&mut done, len)?];
            match &piece.content {
                Content::Device { device, offset } => device.write_at(offset + within, source),
                Content::Zero => Ok(()),
                Content::Error(why) => Err(io::Error::other(why.clone())),
            }
        })
    }

    fn flush(&self) -> io::Result<()> {
        self.devices.iter().try_for_each(|device| device.flush())
    }

    fn is_read_only(&self) -> bool {
        self.devices.iter().any(|device| device.is_read_only())
    }

    fn logical_sector_size(&self) -> u32 {
        self.devices.iter().map(|device| device.logical_sector_size()).max().unwrap_or(512)
    }

    fn extents(&self) -> Option<&dyn MapExtents> {
        let knows = |(_, piece): &(u64, Piece)| match &piece.content {
            Content::Device { device, .. } => device.extents().is_some(),
            Content::Zero => true,
            Content::Error(_) => false,
        };
        self.pieces.iter().any(knows).then_some(self as &dyn MapExtents)
    }

    fn discard(&self) -> Option<&dyn Discard> {
        self.devices.iter().any(|device| device.discard().is_some()).then_some(self as &dyn Discard)
    }
}

impl MapExtents for Linear {
    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_extent_query(offset, self.size)?;
        let mut found = Extent { offset, len: 1, is_hole: false };
        self.split(offset, 1, |piece, within, _| {
            let rest = piece.len - within;
            (found.len, found.is_hole) = match &piece.content {
                Content::Device { device, offset: base } => match device.extents() {
                    Some(map) => {
                        let below = map.extent_at(base + within)?;
                        (below.len.min(rest), below.is_hole)
                    }
                    None => (rest, false),
                },
                Content::Zero => (rest, true),
                Content::Error(_) => (rest, false),
            };
            Ok(())
        })?;
        Ok(found)
    }
}

impl Discard for Linear {
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.size, "a discard")?;
        self.split(offset, len, |piece, within, part| match &piece.content {
            Content::Device { device, offset } => match device.discard() {
                Some(below) => below.discard(offset + within, part),
                None => Ok(()),
            },
            Content::Zero => Ok(()),
            Content::Error(why) => Err(io::Error::other(why.clone())),
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.size, "a write of zeros")?;
        self.split(offset, len, |piece, within, part| match &piece.content {
            Content::Device { device, offset } => write_zeroes(&**device, offset + within, part),
            Content::Zero => Ok(()),
            Content::Error(why) => Err(io::Error::other(why.clone())),
        })
    }
}

/// Makes a range read as zeros, by the device's own means where it has them.
pub(crate) fn write_zeroes(device: &dyn BlockDevice, offset: u64, len: u64) -> io::Result<()> {
    if let Some(discard) = device.discard() {
        return discard.write_zeroes(offset, len);
    }
    check_range(offset, len, device.size(), "a write of zeros")?;
    let mut done = 0;
    while done < len {
        let part = (len - done).min(ZEROES.len() as u64);
        let zeroes = &ZEROES[..usize::try_from(part).map_err(io::Error::other)?];
        device.write_at(offset + done, zeroes)?;
        done += part;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vmcraft_block::MemoryDevice;

    use super::*;

    fn memory(range: std::ops::Range<u8>) -> Arc<dyn BlockDevice> {
        Arc::new(MemoryDevice::new(range.collect()))
    }

    fn of(device: &Arc<dyn BlockDevice>, offset: u64, len: u64) -> Piece {
        Piece { len, content: Content::Device { device: Arc::clone(device), offset } }
    }

    #[test] // Reads and writes across the seams reach the right bytes of the right device.
    fn pieces_follow_each_other() {
        let (a, b) = (memory(0..100), memory(100..200));
        let device =
            Linear::new(vec![of(&b, 10, 5), Piece { len: 3, content: Content::Zero }, of(&a, 0, 4)]).unwrap();
        assert_eq!(device.size(), 12);
        let mut all = [9; 12];
        device.read_at(0, &mut all).unwrap();
        assert_eq!(all, [110, 111, 112, 113, 114, 0, 0, 0, 0, 1, 2, 3]);
        device.write_at(4, &[77; 5]).unwrap();
        device.read_at(0, &mut all).unwrap();
        assert_eq!(all, [110, 111, 112, 113, 77, 0, 0, 0, 77, 1, 2, 3]);
        device.read_at(8, &mut all[..1]).unwrap();
        assert_eq!(all[0], 77);
        assert!(device.read_at(9, &mut [0; 4]).is_err());
        write_zeroes(&device, 3, 9).unwrap();
        device.read_at(0, &mut all).unwrap();
        assert_eq!(all, [110, 111, 112, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test] // Where a piece is missing, the error says why; the rest is read.
    fn missing_pieces_name_their_reason() {
        let a = memory(0..100);
        let device = Linear::new(vec![
            of(&a, 0, 10),
            Piece { len: 10, content: Content::Error("PV x is missing".into()) },
        ]);
        let device = device.unwrap();
        device.read_at(0, &mut [0; 10]).unwrap();
        assert_eq!(device.read_at(5, &mut [0; 10]).unwrap_err().to_string(), "PV x is missing");
        assert!(device.extents().is_none());
    }

    #[test] // What a device does not have is not promised.
    fn pieces_beyond_the_end_are_refused() {
        let a = memory(0..100);
        assert!(Linear::new(vec![of(&a, 90, 11)]).is_err());
        assert!(Linear::new(vec![of(&a, u64::MAX, 2)]).is_err());
        let zero = || Piece { len: u64::MAX, content: Content::Zero };
        assert!(Linear::new(vec![zero(), zero()]).is_err());
    }
}
