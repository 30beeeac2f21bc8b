//! The map of a sparse file in an archive.

use bstr::ByteSlice;

use crate::Result;
use crate::unpack::stream::Stream;

/// How many runs of data a map has at most.
const MAX_RUNS: usize = 1 << 20;

/// The longest line of a map in front of the data.
const LINE_BYTES: usize = 24;

/// Runs of data, in order: where each begins in the file and how long it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Map(Vec<(u64, u64)>);

impl Map {
    /// Adds a run. `None` if it does not come after those before, or there are too many.
    pub(super) fn push(&mut self, offset: u64, len: u64) -> Option<()> {
        offset.checked_add(len)?;
        if offset < self.end() || self.0.len() == MAX_RUNS {
            return None;
        }
        self.0.push((offset, len));
        Some(())
    }

    pub(super) fn runs(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// Where the last run ends.
    pub(super) fn end(&self) -> u64 {
        self.0.last().map_or(0, |(offset, len)| offset + len)
    }

    /// How many bytes of data there are.
    pub(super) fn data_bytes(&self) -> u64 {
        self.0.iter().map(|(_, len)| len).sum()
    }

    /// From numbers with commas between them: offset and length in turn.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut map = Self::default();
        let mut numbers = text.split(|byte| *byte == b',').map(parse_number);
        while let Some(offset) = numbers.next() {
            map.push(offset?, numbers.next()??)?;
        }
        Some(map)
    }

    /// From what stands before the data: a number a line, how many runs there are and then offset and
    /// length of each, filled up to a block. Says how many bytes that was.
    pub(super) fn read(stream: &mut Stream<'_>) -> Result<(Self, u64)> {
        let start = stream.position();
        let mut lines = Lines { block: [0; 512], at: 512 };
        let mut map = Self::default();
        let count = lines.number(stream)?;
        for _ in 0..count {
            let (offset, len) = (lines.number(stream)?, lines.number(stream)?);
            // An entry that is empty says where the file ends.
            map.push(offset, len).ok_or_else(|| stream.corrupt("a sparse file's map is out of order"))?;
        }
        Ok((map, stream.position() - start))
    }
}

/// A decimal number.
pub(super) fn parse_number(digits: &[u8]) -> Option<u64> {
    if !digits.first()?.is_ascii_digit() {
        return None;
    }
    digits.to_str().ok()?.parse().ok()
}

/// Lines that are read a block at a time.
struct Lines {
    block: [u8; 512],
    at: usize,
}

impl Lines {
    fn number(&mut self, stream: &mut Stream<'_>) -> Result<u64> {
        let mut digits = Vec::new();
        loop {
            if self.at == self.block.len() {
                stream.read_exact(&mut self.block)?;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            if byte == b'\n' {
                return parse_number(&digits)
                    .ok_or_else(|| stream.corrupt("a sparse file's map holds something else than numbers"));
            }
            digits.push(byte);
            if digits.len() > LINE_BYTES {
                return Err(stream.corrupt("a sparse file's map has too long a line"));
            }
        }
    }
}
