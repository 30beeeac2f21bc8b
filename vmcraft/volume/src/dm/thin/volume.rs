//! A volume of a pool.

use std::io;
use std::sync::Arc;

use vmcraft_block::{BlockDevice, Discard, Extent, MapExtents, check_extent_query, check_range};

use super::pool::{Discards, Mapping, Pool, State};

/// How much is copied at a time, in bytes.
const COPY_BYTES: u64 = 1 << 20;
/// How many blocks one transaction of a discard goes over.
const DISCARD_BLOCKS: u64 = 4096;

/// A volume of a pool.
pub(super) struct Volume {
    pool: Arc<Pool>,
    id: u32,
    size_bytes: u64,
    /// Where blocks come from that the volume has not.
    origin: Option<Arc<dyn BlockDevice>>,
}

/// A piece of a volume, within one block or where there are none.
#[derive(Debug, Clone, Copy)]
struct Piece {
    offset: u64,
    len: u64,
    mapping: Option<Mapping>,
}

/// What is to be done with data once the metadata has a place for it.
struct Step {
    piece: Piece,
    /// The data block to write to.
    data_block: u64,
}

impl Volume {
    pub(super) fn new(
        pool: Arc<Pool>,
        id: u32,
        size_bytes: u64,
        origin: Option<Arc<dyn BlockDevice>>,
    ) -> Self {
        Self { pool, id, size_bytes, origin }
    }

    fn block_bytes(&self) -> u64 {
        self.pool.block_bytes
    }

    /// The pieces from `at` on, up to `end` or less, and where they end.
    fn pieces(&self, state: &State, at: u64, end: u64) -> io::Result<(Vec<Piece>, u64)> {
        let size = self.block_bytes();
        let mappings = state.mappings(self.id, at / size)?;
        let end = mappings.end().map_or(end, |block| block.saturating_mul(size).min(end));
        let (mut pieces, mut at) = (Vec::new(), at);
        for entry in mappings.iter() {
            let (block, mapping) = entry?;
            let start = block.saturating_mul(size);
            if start >= end {
                break;
            }
            if start > at {
                pieces.push(Piece { offset: at, len: start - at, mapping: None });
                at = start;
            }
            let len = start.saturating_add(size).min(end) - at;
            pieces.push(Piece { offset: at, len, mapping: Some(mapping) });
            at += len;
        }
        if at < end {
            pieces.push(Piece { offset: at, len: end - at, mapping: None });
        }
        Ok((pieces, end))
    }

    /// All pieces of a range.
    fn all_pieces(&self, state: &State, offset: u64, len: u64) -> io::Result<Vec<Piece>> {
        let (mut all, mut at) = (Vec::new(), offset);
        while at < offset + len {
            let (mut pieces, end) = self.pieces(state, at, offset + len)?;
            all.append(&mut pieces);
            at = end;
        }
        Ok(all)
    }

    /// The byte of the data device where a byte of a mapped block is.
    fn position(&self, data_block: u64, offset: u64) -> u64 {
        // The pool made sure that all its data blocks are on the device.
        data_block * self.block_bytes() + offset % self.block_bytes()
    }

    /// Reads what unmapped blocks read as.
    fn read_unmapped(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let there = self.origin.as_ref().map_or(0, |origin| origin.size().saturating_sub(offset));
        let there = usize::try_from(there).unwrap_or(usize::MAX).min(buf.len());
        let (from_origin, zeros) = buf.split_at_mut(there);
        zeros.fill(0);
        match &self.origin {
            Some(origin) if there > 0 => origin.read_at(offset, from_origin),
            _ => Ok(()),
        }
    }

    /// Whether unmapped blocks of this range read as zeros because there is nothing below them.
    fn is_bare(&self, offset: u64) -> bool {
        self.origin.as_ref().is_none_or(|origin| offset >= origin.size())
    }

    /// Fills a part of a data block that the caller does not write.
    fn fill(&self, step: &Step, from: u64, to: u64) -> io::Result<()> {
        let mut at = from;
        while at < to {
            let len = (to - at).min(COPY_BYTES);
            let target = self.position(step.data_block, at);
            let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
            match step.piece.mapping {
                Some(old) => self.pool.data.read_at(self.position(old.data_block, at), &mut bytes)?,
                None if !self.is_bare(at) => self.read_unmapped(at, &mut bytes)?,
                None if !self.pool.options.zero_new_blocks => return Ok(()),
                None => {}
            }
            self.pool.data.write_at(target, &bytes)?;
            at += len;
        }
        Ok(())
    }

    /// Writes to blocks of which some have to be provisioned or copied first.
    fn write_provisioning(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let size = self.block_bytes();
        let mut state = self.pool.write();
        state.transact(|change| {
            let mut steps = Vec::new();
            for piece in self.all_pieces(change.state(), offset, buf.len() as u64)? {
                let mut at = piece.offset;
                while at < piece.offset + piece.len {
                    let len = (size - at % size).min(piece.offset + piece.len - at);
                    let data_block = match piece.mapping {
                        Some(mapping) if !mapping.is_shared => mapping.data_block,
                        _ => change.provision(self.id, at / size)?,
                    };
                    steps.push(Step { piece: Piece { offset: at, len, ..piece }, data_block });
                    at += len;
                }
            }
            for step in steps {
                let Piece { offset: at, len, mapping } = step.piece;
                if mapping.is_none_or(|old| old.data_block != step.data_block) {
                    let block_start = at - at % size;
                    self.fill(&step, block_start, at)?;
                    self.fill(&step, at + len, block_start + size)?;
                }
                let start = usize::try_from(at - offset).map_err(io::Error::other)?;
                let len = usize::try_from(len).map_err(io::Error::other)?;
                let bytes = buf.get(start..start + len).ok_or(io::ErrorKind::InvalidInput)?;
                self.pool.data.write_at(self.position(step.data_block, at), bytes)?;
            }
            Ok(())
        })
    }

    /// Takes whole blocks from the volume, as far as nothing shows below them.
    fn unmap(&self, first: u64, end: u64) -> io::Result<()> {
        let size = self.block_bytes();
        let mut at = first;
        while at < end {
            let upto = at.saturating_add(DISCARD_BLOCKS).min(end);
            let mut state = self.pool.write();
            let last = upto.saturating_mul(size).min(self.size_bytes);
            let pieces = self.all_pieces(&state, at * size, last - at * size)?;
            let mapped = pieces.iter().filter(|piece| piece.mapping.is_some() && self.is_bare(piece.offset));
            let blocks: Vec<u64> = mapped.map(|piece| piece.offset / size).collect();
            if !blocks.is_empty() {
                let mut freed = Vec::new();
                state.transact(|change| {
                    for block in blocks {
                        freed.extend(change.unmap(self.id, block)?);
                    }
                    Ok(())
                })?;
                if self.pool.options.discards == Discards::Passdown
                    && let Some(data) = self.pool.data.discard()
                {
                    for block in freed {
                        data.discard(block * size, size)?;
                    }
                }
            }
            at = upto;
        }
        Ok(())
    }

    /// The blocks that a range has as a whole: the first, and the one after the last.
    fn whole_blocks(&self, offset: u64, len: u64) -> (u64, u64) {
        let (size, end) = (self.block_bytes(), offset + len);
        let last = if end == self.size_bytes { end.div_ceil(size) } else { end / size };
        (offset.div_ceil(size), last)
    }

    /// Writes zeros where something else may be.
    fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        let pieces = self.all_pieces(&self.pool.read(), offset, len)?;
        for piece in pieces {
            if piece.mapping.is_none() && self.is_bare(piece.offset) {
                continue;
            }
            let zeros = vec![0; usize::try_from(piece.len.min(COPY_BYTES)).map_err(io::Error::other)?];
            let mut at = piece.offset;
            while at < piece.offset + piece.len {
                let len = (piece.offset + piece.len - at).min(zeros.len() as u64);
                // At most the buffer's length.
                let bytes = &zeros[..usize::try_from(len).map_err(io::Error::other)?];
                self.write_at(at, bytes)?;
                at += len;
            }
        }
        Ok(())
    }
}

impl BlockDevice for Volume {
    fn size(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size_bytes, "a read")?;
        let state = self.pool.read();
        let (mut at, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let (pieces, _) = self.pieces(&state, at, at + rest.len() as u64)?;
            let mut pieces = pieces.into_iter().peekable();
            while let Some(mut piece) = pieces.next() {
                // Neighbours on the data device are read at once.
                while let (Some(first), Some(Some(next))) =
                    (piece.mapping, pieces.peek().map(|next| next.mapping))
                    && self.position(first.data_block, piece.offset) + piece.len
                        == next.data_block * self.block_bytes()
                {
                    piece.len += pieces.next().map_or(0, |next| next.len);
                }
                let len = usize::try_from(piece.len).map_err(io::Error::other)?;
                let (now, later) = rest.split_at_mut(len);
                match piece.mapping {
                    Some(mapping) => {
                        self.pool.data.read_at(self.position(mapping.data_block, at), now)?;
                    }
                    None => self.read_unmapped(at, now)?,
                }
                at += piece.len;
                rest = later;
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size_bytes, "a write")?;
        self.pool.check_writable()?;
        {
            let state = self.pool.read();
            let pieces = self.all_pieces(&state, offset, buf.len() as u64)?;
            if pieces.iter().all(|piece| piece.mapping.is_some_and(|mapping| !mapping.is_shared)) {
                let mut rest = buf;
                for piece in pieces {
                    let len = usize::try_from(piece.len).map_err(io::Error::other)?;
                    let (now, later) = rest.split_at(len);
                    let data_block = piece.mapping.map_or(0, |mapping| mapping.data_block);
                    self.pool.data.write_at(self.position(data_block, piece.offset), now)?;
                    rest = later;
                }
                return Ok(());
            }
        }
        self.write_provisioning(offset, buf)
    }

    fn flush(&self) -> io::Result<()> {
        self.pool.flush()
    }

    fn is_read_only(&self) -> bool {
        self.pool.is_read_only()
    }

    fn logical_sector_size(&self) -> u32 {
        self.pool.data.logical_sector_size()
    }

    fn extents(&self) -> Option<&dyn MapExtents> {
        Some(self)
    }

    fn discard(&self) -> Option<&dyn Discard> {
        Some(self)
    }
}

impl MapExtents for Volume {
    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_extent_query(offset, self.size_bytes)?;
        let state = self.pool.read();
        let (pieces, _) = self.pieces(&state, offset, self.size_bytes)?;
        let first = pieces.first().copied().ok_or(io::ErrorKind::InvalidData)?;
        let (below, position, limit) = match (first.mapping, &self.origin) {
            (Some(mapping), _) => {
                (Some(&*self.pool.data), self.position(mapping.data_block, offset), first.len)
            }
            (None, Some(origin)) if offset < origin.size() => {
                (Some(&**origin), offset, first.len.min(origin.size() - offset))
            }
            (None, _) => (None, 0, first.len),
        };
        let Some(below) = below else { return Ok(Extent { offset, len: limit, is_hole: true }) };
        if let Some(map) = below.extents() {
            let extent = map.extent_at(position)?;
            return Ok(Extent { offset, len: extent.len.min(limit), is_hole: extent.is_hole });
        }
        // Without a map below, all mapped blocks are alike.
        let mut len = limit;
        if first.mapping.is_some() {
            len = pieces.iter().take_while(|piece| piece.mapping.is_some()).map(|piece| piece.len).sum();
        }
        Ok(Extent { offset, len, is_hole: false })
    }
}

impl Discard for Volume {
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.size_bytes, "a discard")?;
        self.pool.check_writable()?;
        if self.pool.options.discards == Discards::Ignore {
            return Ok(());
        }
        let (first, end) = self.whole_blocks(offset, len);
        self.unmap(first, end)
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.size_bytes, "a write of zeros")?;
        self.pool.check_writable()?;
        if self.pool.options.discards != Discards::Ignore {
            let (first, end) = self.whole_blocks(offset, len);
            self.unmap(first, end)?;
        }
        self.zero(offset, len)
    }
}
