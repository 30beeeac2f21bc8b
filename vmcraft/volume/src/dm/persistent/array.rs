//! Arrays: values by index, in blocks that a B-tree lists.

use super::block::{BLOCK, Block, Blocks, Kind, corrupt, le32, le64, put};
use super::btree::{Values, leaf_at};
use crate::Result;

/// The header's size. On disk: checksum (4 bytes), most entries (4), number of entries (4), size of
/// a value (4), block number (8); then the values.
const HEADER: usize = 24;
const VALUE: usize = 8;
/// How many values of eight bytes a block has.
pub(in crate::dm) const PER_BLOCK: u64 = ((BLOCK - HEADER) / VALUE) as u64;

/// A block of an array of 64-bit values.
pub(in crate::dm) struct Part {
    number: u64,
    block: Block,
}

impl Part {
    /// How many values it has.
    fn len(&self) -> usize {
        le32(&*self.block, 8) as usize
    }

    /// The value at `index` in this block.
    pub(in crate::dm) fn get(&self, index: usize) -> Option<u64> {
        (index < self.len()).then(|| le64(&*self.block, offset(index)))
    }

    /// Its values.
    pub(in crate::dm) fn values(&self) -> impl Iterator<Item = u64> {
        (0..self.len()).map_while(|index| self.get(index))
    }
}

/// Where a value is in its block.
fn offset(index: usize) -> usize {
    HEADER + VALUE * index
}

/// The `index`-th block of an array; `None` beyond the last.
pub(in crate::dm) fn part(blocks: &Blocks, root: u64, index: u64) -> Result<Option<Part>> {
    let leaf = leaf_at(blocks, root, Values::Trees, index)?;
    let Some(value) = leaf.get(index) else { return Ok(None) };
    let number = le64(value, 0);
    let block = blocks.read(number, Kind::Array)?;
    let most = le32(&*block, 4);
    if le32(&*block, 12) as usize != VALUE || u64::from(most) > PER_BLOCK || le32(&*block, 8) > most {
        return Err(corrupt("array block (number or size of values)", number));
    }
    Ok(Some(Part { number, block }))
}

/// Stages a new value for one that is there. The array must not be shared.
pub(in crate::dm) fn set(blocks: &mut Blocks, root: u64, index: u64, value: u64) -> Result<()> {
    let missing = || corrupt(format!("array (no value {index})"), root);
    let part = part(blocks, root, index / PER_BLOCK)?.ok_or_else(missing)?;
    let within = usize::try_from(index % PER_BLOCK).map_err(|_| missing())?;
    if within >= part.len() {
        return Err(missing());
    }
    put(blocks.edit(part.number, Kind::Array)?, offset(within), &value.to_le_bytes());
    Ok(())
}

/// A value; `None` beyond the last.
pub(in crate::dm) fn get(blocks: &Blocks, root: u64, index: u64) -> Result<Option<u64>> {
    let part = part(blocks, root, index / PER_BLOCK)?;
    let within = usize::try_from(index % PER_BLOCK).unwrap_or(usize::MAX);
    Ok(part.and_then(|part| part.get(within)))
}
