//! Changing the content of files: writing, cutting off, space in advance, holes.
//!
//! These functions change what the inode says in memory; whoever calls them stores it. They run inside
//! [`Volume::atomically`], which undoes changes of metadata if one fails. Content goes to the device
//! at once, so a function writes it last, when all space is there.

use std::ops::Range;

use vmcraft_fs::{Error, FileType, InodeNumber, Result};

use crate::extent::Entry;
use crate::features::{Incompat, RoCompat};
use crate::inode::{I_BLOCK_SIZE, Inode, InodeFlags};
use crate::map::{self, Run, RunKind};
use crate::volume::Volume;
use crate::{blockmap_edit, extent_edit, in_memory, inline_edit, symlink, xattr_edit};

/// The last block that a file may have is the one before this: 32 bits number blocks, and extents end
/// below the last number.
const MOST_BLOCKS: u64 = u32::MAX as u64;
/// The largest piece of zeros that is written at once, in bytes.
const ZEROS: usize = 256 << 10;

/// A change of a regular file's content, with what goes with it: the times, and that a program whose
/// content changes loses its capabilities.
pub(crate) fn change(
    volume: &Volume,
    mut inode: Inode,
    change: impl FnOnce(&mut Inode) -> Result<()>,
) -> Result<()> {
    xattr_edit::drop_capability(volume, &mut inode)?;
    change(&mut inode)?;
    inode.modified = volume.now();
    inode.changed = inode.modified;
    volume.store_inode(&inode)
}

/// The inode of a file whose content is to change.
pub(crate) fn regular(volume: &Volume, number: InodeNumber) -> Result<Inode> {
    let inode = volume.inode(number)?;
    match inode.file_type {
        FileType::Regular => map::check_readable(&inode)?,
        FileType::Directory => return Err(Error::IsADirectory),
        _ => return Err(Error::InvalidInput("not a regular file")),
    }
    inode.check_appendable()?;
    Ok(inode)
}

/// Allocates up to `want` blocks that follow each other, which count as the inode's.
pub(crate) fn claim(volume: &Volume, inode: &mut Inode, goal: u64, want: u64) -> Result<Range<u64>> {
    let want = u32::try_from(want).unwrap_or(u32::MAX);
    let blocks = volume.allocate_blocks(goal, want)?;
    count(volume, inode, blocks.end - blocks.start);
    Ok(blocks)
}

/// Lets blocks count as the inode's.
pub(crate) fn count(volume: &Volume, inode: &mut Inode, count: u64) {
    inode.blocks_512 = inode.blocks_512.saturating_add(count.saturating_mul(sectors(volume)));
}

/// Frees blocks that counted as the inode's.
pub(crate) fn release(volume: &Volume, inode: &mut Inode, first: u64, count: u64) -> Result<()> {
    volume.free_blocks(first, count)?;
    uncount(volume, inode, count)
}

/// Lets blocks no longer count as the inode's.
pub(crate) fn uncount(volume: &Volume, inode: &mut Inode, count: u64) -> Result<()> {
    let sectors = count.saturating_mul(sectors(volume));
    inode.blocks_512 = inode.blocks_512.checked_sub(sectors).ok_or_else(|| {
        inode.corrupt(format_args!("{sectors} sectors are freed, but it has only {}", inode.blocks_512))
    })?;
    Ok(())
}

/// Units of `blocks_512` in a block.
fn sectors(volume: &Volume) -> u64 {
    u64::from(volume.sb.block_size / 512)
}

/// Where a new block for block `block` of the file is best: behind the one before it.
pub(crate) fn goal(volume: &Volume, inode: &Inode, block: u64) -> Result<u64> {
    if let Some(before) = block.checked_sub(1)
        && let Run { start, kind: RunKind::Data(first), .. } = map::map(volume, inode, before)?
    {
        return Ok(first + (block - start));
    }
    Ok(volume.block_goal(inode))
}

/// Whether `i_block` leads to blocks: not if it holds content, a target or a device number.
pub(crate) fn has_map(volume: &Volume, inode: &Inode) -> bool {
    match inode.file_type {
        _ if inode.flags.contains(InodeFlags::INLINE_DATA) => false,
        FileType::Regular | FileType::Directory => true,
        FileType::Symlink => !symlink::is_fast(inode, volume),
        _ => false,
    }
}

/// Makes `i_block` a map without blocks, of the kind that new files of the volume have.
pub(crate) fn start_map(volume: &Volume, inode: &mut Inode) {
    let extents = volume.sb.incompat.contains(Incompat::EXTENTS);
    inode.flags.set(InodeFlags::EXTENTS, extents);
    inode.block = if extents { extent_edit::empty_root() } else { [0; I_BLOCK_SIZE] };
}

/// Maps a hole, or a part of one, to blocks that were allocated for it.
fn insert(volume: &Volume, inode: &mut Inode, block: u64, to: Range<u64>, unwritten: bool) -> Result<()> {
    let len = to.end - to.start;
    if inode.flags.contains(InodeFlags::EXTENTS) {
        extent_edit::insert(volume, inode, Entry { block, len, physical: to.start, unwritten })
    } else {
        blockmap_edit::insert(volume, inode, block..block + len, to.start)
    }
}

/// Unmaps and frees blocks of a file.
fn remove(volume: &Volume, inode: &mut Inode, blocks: Range<u64>) -> Result<()> {
    if inode.flags.contains(InodeFlags::EXTENTS) {
        extent_edit::remove(volume, inode, blocks.start, blocks.end)
    } else {
        blockmap_edit::remove(volume, inode, blocks)
    }
}

/// The largest size that a file of this kind of map can have, in bytes.
fn largest(volume: &Volume, inode: &Inode) -> u64 {
    let sb = &volume.sb;
    let block_size = u64::from(sb.block_size);
    // `i_blocks` has 32 bits for sectors or, with the feature, 48 for blocks.
    let counted = if sb.ro_compat.contains(RoCompat::HUGE_FILE) {
        (1 << 48) - 1
    } else {
        u64::from(u32::MAX) / sectors(volume)
    };
    let blocks = if inode.flags.contains(InodeFlags::EXTENTS) {
        MOST_BLOCKS.min(counted)
    } else {
        let n = block_size / 4;
        let indirect = 1 + (1 + n) + (1 + n + n * n);
        let mapped = blockmap_edit::most_blocks(sb.block_size);
        MOST_BLOCKS.min(mapped).min(counted.saturating_sub(indirect))
    };
    blocks.saturating_mul(block_size).min(i64::MAX.cast_unsigned())
}

/// The end of a range of bytes, which the file must be able to reach.
fn end_of(volume: &Volume, inode: &Inode, offset: u64, len: u64) -> Result<u64> {
    let most = largest(volume, inode);
    offset.checked_add(len).filter(|&end| end <= most).ok_or(Error::FileTooLarge(most))
}

/// Blocks to be written, which follow each other in the file and on the volume.
struct Piece {
    block: u64,
    len: u64,
    physical: u64,
    /// What is there now does not count: it is written whole.
    fresh: bool,
}

impl Piece {
    fn end(&self) -> u64 {
        self.block + self.len
    }
}

/// Writes all of `data` at byte `offset`.
pub(crate) fn write(volume: &Volume, inode: &mut Inode, offset: u64, data: &[u8]) -> Result<()> {
    if data.is_empty() {
        return Ok(());
    }
    if inline_edit::may_hold(volume, inode) && inline_edit::write(volume, inode, offset, data)? {
        return Ok(());
    }
    inline_edit::move_out(volume, inode)?;
    write_blocks(volume, inode, offset, data)
}

/// [`write`] for a file that is not inline.
pub(crate) fn write_blocks(volume: &Volume, inode: &mut Inode, offset: u64, data: &[u8]) -> Result<()> {
    let end = end_of(volume, inode, offset, data.len() as u64)?;
    let pieces = prepare(volume, inode, offset, end)?;
    if offset > inode.size {
        zero_tail(volume, inode, inode.size, offset)?;
    }
    for piece in &pieces {
        write_piece(volume, piece, offset, data)?;
    }
    grow(volume, inode, end)
}

/// Sets the size, if that is larger than it was.
fn grow(volume: &Volume, inode: &mut Inode, size: u64) -> Result<()> {
    inode.size = inode.size.max(size);
    note_size(volume, inode)
}

/// Sees to it that a volume with a file of 2 GiB or more says that it has such.
fn note_size(volume: &Volume, inode: &Inode) -> Result<()> {
    const SMALL: u64 = i32::MAX as u64;
    if inode.size > SMALL { volume.require(RoCompat::LARGE_FILE) } else { Ok(()) }
}

/// Sees to it that all blocks of `offset..end` are there and written, and says where.
fn prepare(volume: &Volume, inode: &mut Inode, offset: u64, end: u64) -> Result<Vec<Piece>> {
    let block_size = u64::from(volume.sb.block_size);
    let end = end.div_ceil(block_size);
    let mut block = offset / block_size;
    let mut pieces: Vec<Piece> = Vec::new();
    // Before this, unwritten blocks were made written.
    let mut converted = 0;
    while block < end {
        let run = map::map(volume, inode, block)?;
        let len = run.end().min(end) - block;
        let piece = match run.kind {
            RunKind::Unwritten => {
                extent_edit::convert(volume, inode, block, block + len)?;
                converted = block + len;
                continue;
            }
            RunKind::Data(first) => {
                let fresh = block < converted;
                let len = if fresh { len.min(converted - block) } else { len };
                Piece { block, len, physical: first + (block - run.start), fresh }
            }
            RunKind::Hole => {
                let goal = goal_after(volume, inode, pieces.last(), block)?;
                let blocks = claim(volume, inode, goal, len)?;
                let (len, physical) = (blocks.end - blocks.start, blocks.start);
                insert(volume, inode, block, blocks, false)?;
                Piece { block, len, physical, fresh: true }
            }
        };
        block = piece.end();
        match pieces.last_mut() {
            Some(last) if last.physical + last.len == piece.physical && last.fresh == piece.fresh => {
                last.len += piece.len;
            }
            _ => pieces.push(piece),
        }
    }
    Ok(pieces)
}

/// [`goal`], where the piece before is known.
fn goal_after(volume: &Volume, inode: &Inode, before: Option<&Piece>, block: u64) -> Result<u64> {
    match before {
        Some(piece) => Ok(piece.physical + piece.len),
        None => goal(volume, inode, block),
    }
}

/// Writes what of `data`, which is for byte `offset` of the file, falls into a piece.
fn write_piece(volume: &Volume, piece: &Piece, offset: u64, data: &[u8]) -> Result<()> {
    let block_size = u64::from(volume.sb.block_size);
    let (start, end) = (piece.block * block_size, piece.end() * block_size);
    let data_end = offset + data.len() as u64;
    let (from, to) = (start.max(offset), end.min(data_end));
    let bytes = data.get(in_memory(from - offset)..in_memory(to - offset)).unwrap_or_default();
    let at = |byte: u64| volume.sb.byte_of(piece.physical) + (byte - start);
    if !piece.fresh || (from == start && to == end) {
        volume.device.write_at(at(from), bytes)?;
        return Ok(());
    }
    // Zeros before and behind, up to whole blocks: in one write if that is not much to copy.
    if bytes.len() < ZEROS {
        let mut padded = vec![0; in_memory(end - start)];
        let first = in_memory(from - start);
        if let Some(middle) = padded.get_mut(first..first + bytes.len()) {
            middle.copy_from_slice(bytes);
        }
        volume.device.write_at(at(start), &padded)?;
    } else {
        write_zeros(volume, at(start), from - start)?;
        volume.device.write_at(at(from), bytes)?;
        write_zeros(volume, at(to), end - to)?;
    }
    Ok(())
}

/// Writes `len` zeros at a byte of the volume.
fn write_zeros(volume: &Volume, mut byte: u64, mut len: u64) -> Result<()> {
    let zeros = vec![0; in_memory(len).min(ZEROS)];
    while len > 0 {
        let piece = zeros.get(..in_memory(len)).unwrap_or(&zeros);
        volume.device.write_at(byte, piece)?;
        byte += piece.len() as u64;
        len -= piece.len() as u64;
    }
    Ok(())
}

/// Zeroes bytes of one block, if it is there and written.
fn zero_part(volume: &Volume, inode: &Inode, from: u64, to: u64) -> Result<()> {
    let block_size = u64::from(volume.sb.block_size);
    if from < to
        && let Run { start, kind: RunKind::Data(first), .. } = map::map(volume, inode, from / block_size)?
    {
        write_zeros(volume, volume.sb.byte_of(first) + (from - start * block_size), to - from)?;
    }
    Ok(())
}

/// Zeroes what of `from..to` is in a block that `from` is inside of. What is behind the end of a file is
/// to be zeros, lest it show when the file grows.
fn zero_tail(volume: &Volume, inode: &Inode, from: u64, to: u64) -> Result<()> {
    zero_part(volume, inode, from, to.min(from.next_multiple_of(u64::from(volume.sb.block_size))))
}

/// Makes a file `size` bytes long, and frees what space it has behind that.
pub(crate) fn truncate(volume: &Volume, inode: &mut Inode, size: u64) -> Result<()> {
    if inode.flags.contains(InodeFlags::INLINE_DATA) {
        if inline_edit::resize(volume, inode, size)? {
            return Ok(());
        }
        inline_edit::move_out(volume, inode)?;
    }
    end_of(volume, inode, 0, size)?;
    let (old, block_size) = (inode.size, u64::from(volume.sb.block_size));
    remove(volume, inode, size.div_ceil(block_size)..MOST_BLOCKS)?;
    if size < old {
        zero_tail(volume, inode, size, old)?;
    } else {
        zero_tail(volume, inode, old, size)?;
    }
    inode.size = size;
    note_size(volume, inode)
}

/// Allocates what is not there of `len` bytes from `offset`, as unwritten space. The file grows to
/// hold them unless `keep_size`.
pub(crate) fn allocate(
    volume: &Volume,
    inode: &mut Inode,
    offset: u64,
    len: u64,
    keep_size: bool,
) -> Result<()> {
    if len == 0 {
        return Err(Error::InvalidInput("a range of no bytes"));
    }
    inline_edit::move_out(volume, inode)?;
    let end = end_of(volume, inode, offset, len)?;
    if !inode.flags.contains(InodeFlags::EXTENTS) {
        return Err(Error::Unsupported(
            "space in advance for a file with a block map, which has no unwritten blocks; write zeros instead".into(),
        ));
    }
    let block_size = u64::from(volume.sb.block_size);
    let end_block = end.div_ceil(block_size);
    let mut block = offset / block_size;
    while block < end_block {
        let run = map::map(volume, inode, block)?;
        let mut len = run.end().min(end_block) - block;
        if run.kind == RunKind::Hole {
            let goal = goal(volume, inode, block)?;
            let blocks = claim(volume, inode, goal, len)?;
            len = blocks.end - blocks.start;
            insert(volume, inode, block, blocks, true)?;
        }
        block += len;
    }
    if !keep_size && end > inode.size {
        zero_tail(volume, inode, inode.size, end)?;
        grow(volume, inode, end)?;
    }
    Ok(())
}

/// Makes a range read as zeros, and frees the blocks that are wholly inside.
pub(crate) fn punch_hole(volume: &Volume, inode: &mut Inode, offset: u64, len: u64) -> Result<()> {
    if len == 0 {
        return Err(Error::InvalidInput("a range of no bytes"));
    }
    // What is behind the end is left alone, but the last block's rest reads as nothing.
    let end = offset.saturating_add(len).min(inode.size);
    if offset >= end {
        return Ok(());
    }
    if inode.flags.contains(InodeFlags::INLINE_DATA) {
        return inline_edit::zero(volume, inode, offset, end);
    }
    let block_size = u64::from(volume.sb.block_size);
    let first = offset.div_ceil(block_size);
    let last = if end == inode.size { end.div_ceil(block_size) } else { end / block_size };
    if first < last {
        remove(volume, inode, first..last)?;
    }
    zero_tail(volume, inode, offset, end)?;
    let tail = end - end % block_size;
    if tail >= offset { zero_part(volume, inode, tail, end) } else { Ok(()) }
}

/// Frees all blocks of an inode that goes, but the one of its extended attributes.
pub(crate) fn free_all(volume: &Volume, inode: &mut Inode) -> Result<()> {
    if has_map(volume, inode) {
        remove(volume, inode, 0..MOST_BLOCKS)?;
    }
    inode.size = 0;
    Ok(())
}

/// Gives a directory or a link one more block with this content, and says which block of the file that
/// is. A directory's is metadata, a link's is not.
pub(crate) fn append_block(volume: &Volume, inode: &mut Inode, content: Box<[u8]>) -> Result<u64> {
    let block = inode.size.div_ceil(u64::from(volume.sb.block_size));
    let size = (block + 1).saturating_mul(u64::from(volume.sb.block_size));
    end_of(volume, inode, 0, size)?;
    fill_hole(volume, inode, block, content)?;
    grow(volume, inode, size)?;
    Ok(block)
}

/// Gives block `block` of a directory or a link, which is a hole, this content.
pub(crate) fn fill_hole(volume: &Volume, inode: &mut Inode, block: u64, content: Box<[u8]>) -> Result<()> {
    let goal = goal(volume, inode, block)?;
    let blocks = claim(volume, inode, goal, 1)?;
    let physical = blocks.start;
    insert(volume, inode, block, blocks, false)?;
    if inode.is_dir() {
        volume.put(physical, content)?;
    } else {
        volume.device.write_at(volume.sb.byte_of(physical), &content)?;
    }
    Ok(())
}
