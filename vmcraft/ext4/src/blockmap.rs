//! Block maps: the direct, indirect, double and triple indirect pointers of ext2 and ext3.
//!
//! Spec: Linux `Documentation/filesystems/ext4/blockmap.rst`.

use vmcraft_fs::Result;
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use crate::inode::{I_BLOCK_START, Inode};
use crate::map::{Run, RunKind};
use crate::volume::Volume;
use crate::{corrupt, in_memory};

/// Pointers of `i_block` that lead to data.
pub(crate) const DIRECT: usize = 12;

/// The run that holds block `block` of a file that has a block map.
pub(crate) fn map(volume: &Volume, inode: &Inode, block: u32) -> Result<Run> {
    let sb = &volume.sb;
    let root = <[U32]>::ref_from_bytes(&inode.block).unwrap_or_default();
    let (direct, indirect) = root.split_at_checked(DIRECT).unwrap_or_default();
    let block = u64::from(block);
    if let Ok(index) = usize::try_from(block)
        && index < DIRECT
    {
        return run(volume, inode, direct, index, 0, inode.offset + I_BLOCK_START as u64);
    }
    let per_block = u64::from(sb.block_size / 4);
    // What the tree of the pointer under study maps: `span` blocks from `start`.
    let (mut start, mut span) = (DIRECT as u64, per_block);
    for (pointer, levels) in indirect.iter().zip(1..) {
        if block < start + span {
            return descend(volume, inode, pointer.get(), levels, start, span, block);
        }
        start += span;
        span *= per_block; // at most 2^42: blocks of 64 KiB, three levels
    }
    Err(inode.corrupt(format_args!("block {block} is past what its block map can have")))
}

/// Follows `levels` indirect blocks from `pointer`, which maps `span` blocks from `start`.
fn descend(
    volume: &Volume,
    inode: &Inode,
    pointer: u32,
    levels: u32,
    mut start: u64,
    mut span: u64,
    block: u64,
) -> Result<Run> {
    let sb = &volume.sb;
    let per_block = u64::from(sb.block_size / 4);
    let mut pointer = u64::from(pointer);
    let mut offset = inode.offset + I_BLOCK_START as u64; // of the block that `pointer` is in
    for level in (0..levels).rev() {
        if pointer == 0 {
            return Ok(Run { start, len: span, kind: RunKind::Hole });
        }
        let whose = || format!("indirect block of inode {}", inode.number);
        if !sb.holds(pointer, 1) {
            return Err(corrupt(format!("{} at block {pointer} of {}", whose(), sb.blocks), offset));
        }
        offset = sb.byte_of(pointer);
        let held = volume.block(pointer, whose)?;
        let pointers = <[U32]>::ref_from_bytes(&held.bytes).unwrap_or_default();
        span /= per_block;
        // Below the pointers in a block: `block` is in [start, start + span * per_block).
        let index = in_memory((block - start) / span);
        if level == 0 {
            return run(volume, inode, pointers, index, start, offset);
        }
        start += index as u64 * span;
        pointer = pointers.get(index).map_or(0, |p| u64::from(p.get()));
    }
    Ok(Run { start, len: span, kind: RunKind::Hole })
}

/// The run of data or hole at `pointers[index]`; the first of `pointers` maps block `start` and is
/// at byte `offset` of the volume.
fn run(
    volume: &Volume,
    inode: &Inode,
    pointers: &[U32],
    index: usize,
    start: u64,
    offset: u64,
) -> Result<Run> {
    let after = pointers.get(index..).unwrap_or_default();
    let first = after.first().map_or(0, |p| u64::from(p.get()));
    let len = if first == 0 {
        after.iter().take_while(|p| p.get() == 0).count() as u64
    } else {
        after.iter().zip(first..).take_while(|(p, expected)| u64::from(p.get()) == *expected).count() as u64
    };
    let kind = if first == 0 { RunKind::Hole } else { RunKind::Data(first) };
    if first != 0 && !volume.sb.holds(first, len) {
        let what = format!("block map of inode {}: {len} blocks from block {first}", inode.number);
        return Err(corrupt(what, offset + 4 * index as u64));
    }
    Ok(Run { start: start + index as u64, len: len.max(1), kind })
}
