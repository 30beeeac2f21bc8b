//! An export as a block device: requests split and aligned as the server wants them.

use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use super::connection::{Call, Connection, Data};
use super::handshake::Export;
use super::protocol::{
    BlockSizes, COMMAND_FUA, Command, RawDescriptor, STATE_HOLE, STATE_ZERO, TransmissionFlags,
};
use crate::device::{check_extent_query, check_range, read_only};
use crate::{BlockDevice, Discard, Extent, MapExtents};

/// The longest read or write that is one request. Longer ones are sent as several at once, so that
/// the server works on the next while we take the data of the first.
const MAX_PIECE: u32 = 256 << 10;
/// How many requests of one read or write are under way at once. QEMU's server takes 16.
const MAX_PIECES: usize = 16;
/// The longest trim or write of zeros that is one request, and the longest range whose extents are
/// asked for at once.
const MAX_EFFECT: u32 = 1 << 30;
/// How many zeros are sent at a time to a server that knows no write of zeros.
const ZEROS: usize = 64 << 10;

/// An NBD server's export.
///
/// It may be used by many threads at once; their requests go to the server together. When the server
/// goes away, all requests fail, those that wait as well as later ones.
pub struct NbdDevice {
    connection: Connection,
    size: u64,
    flags: TransmissionFlags,
    block_sizes: BlockSizes,
    read_only: bool,
    has_extents: bool,
    /// Held for writing by who reads a block, changes a part of it and writes it back, and for
    /// reading by all others that write.
    partial_writes: RwLock<()>,
    extents: Mutex<KnownExtents>,
}

/// The server's last answer about what is allocated.
#[derive(Default)]
struct KnownExtents {
    /// Adjacent, in order of their offsets.
    extents: Vec<Extent>,
    /// Counts writes: an answer from before the last write is not kept.
    generation: u64,
}

/// A range cut at the server's minimum block size. The parts are adjacent; each may be empty.
struct Parts {
    /// Up to the first boundary, or all of a range within one block.
    head: Range<u64>,
    /// From boundary to boundary.
    middle: Range<u64>,
    tail: Range<u64>,
}

impl NbdDevice {
    pub(crate) fn new(connection: Connection, export: &Export, read_only: bool) -> Self {
        Self {
            connection,
            size: export.size,
            flags: export.flags,
            block_sizes: export.block_sizes,
            read_only: read_only || export.flags.contains(TransmissionFlags::READ_ONLY),
            has_extents: export.allocation_context.is_some(),
            partial_writes: RwLock::new(()),
            extents: Mutex::new(KnownExtents::default()),
        }
    }

    /// Writes all of `buf` at `offset`, and returns once it would survive a power cut.
    pub fn write_through(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        if self.flags.contains(TransmissionFlags::SEND_FUA) {
            self.write(offset, buf, COMMAND_FUA)
        } else {
            self.write(offset, buf, 0)?;
            self.flush()
        }
    }

    /// The block size, in bytes, at which the server is at its best.
    pub fn preferred_block_size(&self) -> u32 {
        self.block_sizes.preferred
    }

    /// Whether the connection is over: the server is gone, or broke the protocol.
    pub fn is_dead(&self) -> bool {
        self.connection.is_dead()
    }

    /// The longest read or write that is one request.
    fn piece(&self) -> usize {
        // Both are multiples of the minimum, or the maximum is the only choice.
        usize::try_from(self.block_sizes.maximum.min(MAX_PIECE)).unwrap_or(usize::MAX)
    }

    /// A size past which no block begins: the last block may be a part of one.
    fn parts(&self, offset: u64, len: u64) -> Parts {
        let minimum = u64::from(self.block_sizes.minimum);
        let end = offset + len;
        let first = offset.next_multiple_of(minimum).min(end);
        let last = if end == self.size { end } else { end - end % minimum };
        // Within one block there is no boundary, or only one of the two that a middle needs.
        let (first, last) = if last < first { (end, end) } else { (first, last) };
        Parts { head: offset..first, middle: first..last, tail: last..end }
    }

    /// The block around a part that is less than a block.
    fn block_around(&self, part: &Range<u64>) -> Range<u64> {
        let minimum = u64::from(self.block_sizes.minimum);
        let start = part.start - part.start % minimum;
        start..(start + minimum).min(self.size)
    }

    fn run(&self, command: Command, flags: u16, offset: u64, len: u32, data: Data<'_>) -> io::Result<()> {
        self.connection.run(&mut [Call { command, flags, offset, len, data }])
    }

    fn read_aligned(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let mut offset = offset;
        for group in buf.chunks_mut(self.piece().saturating_mul(MAX_PIECES)) {
            let mut calls = Vec::with_capacity(MAX_PIECES);
            for piece in group.chunks_mut(self.piece()) {
                let len = u32::try_from(piece.len()).map_err(io::Error::other)?;
                let data = Data::Receive(piece);
                calls.push(Call { command: Command::Read, flags: 0, offset, len, data });
                offset += u64::from(len);
            }
            self.connection.run(&mut calls)?;
        }
        Ok(())
    }

    fn write_aligned(&self, offset: u64, buf: &[u8], flags: u16) -> io::Result<()> {
        let mut offset = offset;
        for group in buf.chunks(self.piece().saturating_mul(MAX_PIECES)) {
            let mut calls = Vec::with_capacity(MAX_PIECES);
            for piece in group.chunks(self.piece()) {
                let len = u32::try_from(piece.len()).map_err(io::Error::other)?;
                calls.push(Call { command: Command::Write, flags, offset, len, data: Data::Send(piece) });
                offset += u64::from(len);
            }
            self.connection.run(&mut calls)?;
        }
        Ok(())
    }

    /// Reads less than a block, at a place that the server does not take.
    fn read_part(&self, part: &Range<u64>, buf: &mut [u8]) -> io::Result<()> {
        if part.is_empty() {
            return Ok(());
        }
        let (block, inside) = self.read_block_around(part)?;
        buf.copy_from_slice(&block[inside]);
        Ok(())
    }

    /// The block's content, and where in it the part is.
    fn read_block_around(&self, part: &Range<u64>) -> io::Result<(Vec<u8>, Range<usize>)> {
        let around = self.block_around(part);
        // A block is at most 64 KiB.
        let at = |offset: u64| usize::try_from(offset - around.start).map_err(io::Error::other);
        let mut block = vec![0; at(around.end)?];
        self.read_aligned(around.start, &mut block)?;
        Ok((block, at(part.start)?..at(part.end)?))
    }

    /// Changes less than a block. The caller holds `partial_writes` for writing.
    fn change_part(&self, part: &Range<u64>, flags: u16, change: impl FnOnce(&mut [u8])) -> io::Result<()> {
        if part.is_empty() {
            return Ok(());
        }
        let (mut block, inside) = self.read_block_around(part)?;
        change(&mut block[inside]);
        self.write_aligned(self.block_around(part).start, &block, flags)
    }

    fn write(&self, offset: u64, buf: &[u8], flags: u16) -> io::Result<()> {
        self.change(offset, buf.len() as u64, "a write", |parts| {
            // `parts` lies within `buf`, whose length is a usize.
            let at = |offset_on_disk: u64| usize::try_from(offset_on_disk - offset).unwrap_or(usize::MAX);
            let (head, rest) = buf.split_at(at(parts.head.end));
            let (middle, tail) = rest.split_at(at(parts.middle.end) - head.len());
            self.change_part(&parts.head, flags, |block| block.copy_from_slice(head))?;
            self.write_aligned(parts.middle.start, middle, flags)?;
            self.change_part(&parts.tail, flags, |block| block.copy_from_slice(tail))
        })
    }

    /// Makes a change of a range, with the locks that it needs, and forgets extents afterwards.
    fn change(
        &self,
        offset: u64,
        len: u64,
        what: &str,
        change: impl FnOnce(&Parts) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.read_only {
            return Err(read_only());
        }
        check_range(offset, len, self.size, what)?;
        if len == 0 {
            return Ok(());
        }
        let parts = self.parts(offset, len);
        let result = if parts.head.is_empty() && parts.tail.is_empty() {
            let _shared = self.partial_writes.read().unwrap_or_else(PoisonError::into_inner);
            change(&parts)
        } else {
            let _alone = self.partial_writes.write().unwrap_or_else(PoisonError::into_inner);
            change(&parts)
        };
        let mut known = self.known_extents();
        known.generation = known.generation.wrapping_add(1);
        known.extents.clear();
        result
    }

    /// Sends a command without data for a range of whole blocks, in pieces.
    fn effect(&self, command: Command, range: &Range<u64>) -> io::Result<()> {
        let mut offset = range.start;
        while offset < range.end {
            let len = u32::try_from(range.end - offset).map_or(MAX_EFFECT, |len| len.min(MAX_EFFECT));
            self.run(command, 0, offset, len, Data::Nothing)?;
            offset += u64::from(len);
        }
        Ok(())
    }

    fn known_extents(&self) -> MutexGuard<'_, KnownExtents> {
        self.extents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the server what is allocated from `offset` on.
    fn ask_extents(&self, offset: u64) -> io::Result<Vec<Extent>> {
        let minimum = u64::from(self.block_sizes.minimum);
        let start = offset - offset % minimum;
        let len = u32::try_from(self.size - start).map_or(MAX_EFFECT, |len| len.min(MAX_EFFECT));
        let mut descriptors = Vec::new();
        self.run(Command::BlockStatus, 0, start, len, Data::Descriptors(&mut descriptors))?;
        decode_extents(start, self.size, &descriptors)
    }
}

/// The extents that descriptors from `start` on tell of, cut off at `end`, the device's end.
fn decode_extents(start: u64, end: u64, descriptors: &[RawDescriptor]) -> io::Result<Vec<Extent>> {
    let mut extents: Vec<Extent> = Vec::new();
    let mut offset = start;
    for descriptor in descriptors {
        let len = u64::from(descriptor.len.get()).min(end - offset);
        if len == 0 {
            break;
        }
        let is_hole = descriptor.flags.get() & (STATE_HOLE | STATE_ZERO) == STATE_HOLE | STATE_ZERO;
        match extents.last_mut() {
            Some(last) if last.is_hole == is_hole => last.len += len,
            _ => extents.push(Extent { offset, len, is_hole }),
        }
        offset += len;
    }
    if extents.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the NBD server says nothing of what is allocated at byte {start:#x}"),
        ));
    }
    Ok(extents)
}

impl BlockDevice for NbdDevice {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size, "a read")?;
        if buf.is_empty() {
            return Ok(());
        }
        let parts = self.parts(offset, buf.len() as u64);
        // The parts lie within `buf`, whose length is a usize.
        let at = |offset_on_disk: u64| usize::try_from(offset_on_disk - offset).unwrap_or(usize::MAX);
        let (head, rest) = buf.split_at_mut(at(parts.head.end));
        let (middle, tail) = rest.split_at_mut(at(parts.middle.end) - head.len());
        self.read_part(&parts.head, head)?;
        self.read_aligned(parts.middle.start, middle)?;
        self.read_part(&parts.tail, tail)
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.write(offset, buf, 0)
    }

    /// A server that has no flush promises nothing, and neither can this.
    fn flush(&self) -> io::Result<()> {
        if self.read_only || !self.flags.contains(TransmissionFlags::SEND_FLUSH) {
            return Ok(());
        }
        self.run(Command::Flush, 0, 0, 0, Data::Nothing)
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// NBD does not tell it. The minimum block size is the server's, not the guest's.
    fn logical_sector_size(&self) -> u32 {
        512
    }

    fn extents(&self) -> Option<&dyn MapExtents> {
        self.has_extents.then_some(self)
    }

    fn discard(&self) -> Option<&dyn Discard> {
        (!self.read_only).then_some(self)
    }
}

impl MapExtents for NbdDevice {
    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_extent_query(offset, self.size)?;
        let from = |extents: &[Extent]| {
            let at = extents.partition_point(|extent| extent.offset + extent.len <= offset);
            let extent = extents.get(at).filter(|extent| extent.offset <= offset)?;
            Some(Extent { offset, len: extent.offset + extent.len - offset, is_hole: extent.is_hole })
        };
        let known = self.known_extents();
        if let Some(extent) = from(&known.extents) {
            return Ok(extent);
        }
        let generation = known.generation;
        drop(known);
        let extents = self.ask_extents(offset)?;
        let extent = from(&extents).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the NBD server says nothing of what is allocated at byte {offset:#x}"),
            )
        })?;
        let mut known = self.known_extents();
        if known.generation == generation {
            known.extents = extents;
        }
        Ok(extent)
    }
}

impl Discard for NbdDevice {
    /// Does nothing with a server that knows no trim, and nothing to parts of blocks.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(offset, len, "a discard", |parts| {
            if self.flags.contains(TransmissionFlags::SEND_TRIM) {
                self.effect(Command::Trim, &parts.middle)
            } else {
                Ok(())
            }
        })
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        self.change(offset, len, "a write of zeros", |parts| {
            self.change_part(&parts.head, 0, |block| block.fill(0))?;
            if self.flags.contains(TransmissionFlags::SEND_WRITE_ZEROES) {
                self.effect(Command::WriteZeroes, &parts.middle)?;
            } else {
                let zeros = [0; ZEROS];
                let mut offset = parts.middle.start;
                while offset < parts.middle.end {
                    let len = usize::try_from(parts.middle.end - offset).map_or(ZEROS, |len| len.min(ZEROS));
                    self.write_aligned(offset, &zeros[..len], 0)?;
                    offset += len as u64;
                }
            }
            self.change_part(&parts.tail, 0, |block| block.fill(0))
        })
    }
}

impl Drop for NbdDevice {
    fn drop(&mut self) {
        self.connection.disconnect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(len: u32, flags: u32) -> RawDescriptor {
        RawDescriptor { len: len.into(), flags: flags.into() }
    }

    #[test] // The last descriptor may go past what was asked for, and past the end.
    fn extents_are_merged_and_cut_off_at_the_end() {
        let hole = STATE_HOLE | STATE_ZERO;
        let descriptors = [
            descriptor(512, 0),
            // Zeros that take space are no hole.
            descriptor(512, STATE_ZERO),
            descriptor(512, hole),
            descriptor(u32::MAX, hole),
            descriptor(512, 0),
        ];
        assert_eq!(
            decode_extents(1024, 4096, &descriptors).unwrap(),
            [
                Extent { offset: 1024, len: 1024, is_hole: false },
                Extent { offset: 2048, len: 2048, is_hole: true },
            ]
        );
        assert!(decode_extents(1024, 4096, &[descriptor(0, 0), descriptor(512, 0)]).is_err());
    }
}
