//! Changing block maps: the direct, indirect, double and triple indirect pointers of ext2 and ext3.

use std::ops::Range;

use vmcraft_fs::Result;
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use crate::blockmap::DIRECT;
use crate::inode::{I_BLOCK_SIZE, I_BLOCK_START, Inode};
use crate::volume::Volume;
use crate::{content, corrupt, in_memory};

/// Pointers of `i_block`.
const POINTERS: usize = I_BLOCK_SIZE / 4;

/// The most blocks that a map can have.
pub(crate) fn most_blocks(block_size: u32) -> u64 {
    let n = u64::from(block_size / 4);
    DIRECT as u64 + n + n * n + n * n * n
}

/// Maps the blocks `blocks` of a file, which were a hole, to the same number of blocks of the volume
/// from `physical` on.
pub(crate) fn insert(volume: &Volume, inode: &mut Inode, blocks: Range<u64>, physical: u64) -> Result<()> {
    let mut insert = Insert { first: blocks.start, physical };
    change(volume, inode, &blocks, &mut insert)
}

/// Unmaps `blocks` and frees them, with the indirect blocks that then have no pointers.
pub(crate) fn remove(volume: &Volume, inode: &mut Inode, blocks: Range<u64>) -> Result<()> {
    let mut remove = Remove { freed: 0..0 };
    change(volume, inode, &blocks, &mut remove)?;
    remove.flush(volume, inode)
}

/// What is done to the pointers of a range.
trait Change {
    /// The new pointer to block `block` of the file; what `pointer` is now has to be let go of.
    fn leaf(&mut self, volume: &Volume, inode: &mut Inode, block: u64, pointer: u32, at: u64) -> Result<u32>;

    /// Whether a subtree that is not there is to be made.
    fn grows(&self) -> bool;
}

struct Insert {
    first: u64,
    physical: u64,
}

impl Change for Insert {
    fn leaf(&mut self, _: &Volume, inode: &mut Inode, block: u64, pointer: u32, at: u64) -> Result<u32> {
        if pointer != 0 {
            return Err(corrupt(format!("block map of inode {}: block {block} is mapped", inode.number), at));
        }
        pointer_to(inode, self.physical + (block - self.first))
    }

    fn grows(&self) -> bool {
        true
    }
}

struct Remove {
    /// What is to be freed next: blocks that follow each other.
    freed: Range<u64>,
}

impl Remove {
    fn flush(&mut self, volume: &Volume, inode: &mut Inode) -> Result<()> {
        let run = std::mem::take(&mut self.freed);
        if run.is_empty() { Ok(()) } else { content::release(volume, inode, run.start, run.end - run.start) }
    }
}

impl Change for Remove {
    fn leaf(&mut self, volume: &Volume, inode: &mut Inode, _: u64, pointer: u32, at: u64) -> Result<u32> {
        let pointer = u64::from(pointer);
        if pointer != 0 {
            check(volume, inode, pointer, at)?;
            if pointer == self.freed.end && !self.freed.is_empty() {
                self.freed.end += 1;
            } else {
                self.flush(volume, inode)?;
                self.freed = pointer..pointer + 1;
            }
        }
        Ok(0)
    }

    fn grows(&self) -> bool {
        false
    }
}

/// A block map has 32 bits for a block.
fn pointer_to(inode: &Inode, block: u64) -> Result<u32> {
    u32::try_from(block)
        .map_err(|_| inode.corrupt(format_args!("block {block} is beyond what a block map can point to")))
}

fn check(volume: &Volume, inode: &Inode, pointer: u64, at: u64) -> Result<()> {
    if volume.sb.holds(pointer, 1) {
        return Ok(());
    }
    let what = format!("block map of inode {}: block {pointer} of {}", inode.number, volume.sb.blocks);
    Err(corrupt(what, at))
}

fn change(volume: &Volume, inode: &mut Inode, blocks: &Range<u64>, change: &mut dyn Change) -> Result<()> {
    let per_block = u64::from(volume.sb.block_size / 4);
    let (mut start, mut span) = (0, 1);
    for index in 0..POINTERS {
        // Direct pointers first, then one with each number of levels.
        let levels = index.saturating_sub(DIRECT - 1);
        if index >= DIRECT {
            span *= per_block; // at most 2^42: blocks of 64 KiB, three levels
        }
        if start < blocks.end && blocks.start < start + span {
            let field = 4 * index..4 * index + 4;
            let old =
                inode.block.get(field.clone()).and_then(|b| b.first_chunk()).copied().unwrap_or_default();
            let at = inode.offset + (I_BLOCK_START + field.start) as u64;
            let tree = Tree { levels, start, span, at };
            let new = tree.change(volume, inode, u32::from_le_bytes(old), blocks, change)?;
            inode.block[field].copy_from_slice(&new.to_le_bytes());
        }
        start += span;
    }
    Ok(())
}

/// What a pointer leads to.
struct Tree {
    /// Indirect blocks on the way to the data.
    levels: usize,
    /// The first block of the file that it maps, and how many.
    start: u64,
    span: u64,
    /// The byte of the volume where the pointer is.
    at: u64,
}

impl Tree {
    /// Changes what of `blocks` is in here, and returns the new pointer. Goes down three levels at most.
    fn change(
        &self,
        volume: &Volume,
        inode: &mut Inode,
        pointer: u32,
        blocks: &Range<u64>,
        change: &mut dyn Change,
    ) -> Result<u32> {
        if self.levels == 0 {
            return change.leaf(volume, inode, self.start, pointer, self.at);
        }
        let whose = format!("indirect block of inode {}", inode.number);
        let (number, mut bytes) = match u64::from(pointer) {
            0 if !change.grows() => return Ok(0),
            0 => {
                let goal = content::goal(volume, inode, blocks.start.max(self.start))?;
                let number = content::claim(volume, inode, goal, 1)?.start;
                (number, vec![0; volume.sb.block_size as usize].into_boxed_slice())
            }
            number => {
                check(volume, inode, number, self.at)?;
                (number, volume.block(number, || whose)?.bytes.clone())
            }
        };
        let per_block = u64::from(volume.sb.block_size / 4);
        let span = self.span / per_block;
        let pointers = <[U32]>::mut_from_bytes(&mut bytes).unwrap_or_default();
        let first = in_memory(blocks.start.saturating_sub(self.start) / span);
        let mut changed = pointer == 0;
        for (index, entry) in pointers.iter_mut().enumerate().skip(first) {
            let start = self.start + index as u64 * span;
            if start >= blocks.end {
                break;
            }
            let at = volume.sb.byte_of(number) + 4 * index as u64;
            let child = Tree { levels: self.levels - 1, start, span, at };
            let new = child.change(volume, inode, entry.get(), blocks, change)?;
            if new != entry.get() {
                entry.set(new);
                changed = true;
            }
        }
        if pointers.iter().all(|p| p.get() == 0) {
            content::release(volume, inode, number, 1)?;
            return Ok(0);
        }
        if changed {
            volume.put(number, bytes)?;
        }
        pointer_to(inode, number)
    }
}
