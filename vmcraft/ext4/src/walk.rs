//! All blocks that an inode's map leads to.

use vmcraft_fs::Result;
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use crate::blockmap::DIRECT;
use crate::extent;
use crate::inode::{Inode, InodeFlags};
use crate::volume::Volume;
use crate::{content, corrupt};

/// A part of what an inode has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owned {
    /// A block of the map itself.
    Node(u64),
    /// `len` blocks from `physical`, which hold those of the file from `logical` on, or if they are not
    /// `written` zeros.
    Data { logical: u64, physical: u64, len: u64, written: bool },
}

/// What is called for each part. For a node it answers whether to follow it: not if it was seen before,
/// without which a forged map has no end.
pub(crate) type Visit<'a> = dyn FnMut(Owned) -> Result<bool> + 'a;

/// Shows each part of an inode's map, in the order of the file, a node before what it leads to.
pub(crate) fn each(volume: &Volume, inode: &Inode, visit: &mut Visit<'_>) -> Result<()> {
    if !content::has_map(volume, inode) {
        return Ok(());
    }
    if inode.flags.contains(InodeFlags::EXTENTS) {
        let (depth, entries) = extent::root_entries(volume, inode)?;
        return extents(volume, inode, depth, &entries, u32::MAX.into(), visit);
    }
    let root = <[U32]>::ref_from_bytes(&inode.block).unwrap_or_default();
    let per_block = u64::from(volume.sb.block_size / 4);
    let (mut logical, mut span) = (0, 1);
    let mut pending = None;
    for (slot, pointer) in root.iter().enumerate() {
        if slot >= DIRECT {
            span *= per_block; // at most 2^42
        }
        let levels = (slot + 1).saturating_sub(DIRECT);
        pointers(volume, inode, pointer.get().into(), levels, (logical, span), &mut pending, visit)?;
        logical += span;
    }
    flush(&mut pending, visit)
}

/// Shows what the entries of a node lead to; the node maps nothing from block `high` on.
fn extents(
    volume: &Volume,
    inode: &Inode,
    depth: u16,
    entries: &[extent::Entry],
    high: u64,
    visit: &mut Visit<'_>,
) -> Result<()> {
    for (index, entry) in entries.iter().enumerate() {
        let Some(below) = depth.checked_sub(1) else {
            visit(Owned::Data {
                logical: entry.block,
                physical: entry.physical,
                len: entry.len,
                written: !entry.unwritten,
            })?;
            continue;
        };
        let high = entries.get(index + 1).map_or(high, |next| next.block);
        if visit(Owned::Node(entry.physical))? {
            let children = extent::node_entries(volume, inode, entry.physical, below, (entry.block, high))?;
            extents(volume, inode, below, &children, high, visit)?;
        }
    }
    Ok(())
}

type Run = Option<(u64, u64, u64)>;

fn flush(pending: &mut Run, visit: &mut Visit<'_>) -> Result<()> {
    if let Some((logical, physical, len)) = pending.take() {
        visit(Owned::Data { logical, physical, len, written: true })?;
    }
    Ok(())
}

/// Shows what a pointer leads to through `levels` indirect blocks; it maps `span` blocks from `logical`.
fn pointers(
    volume: &Volume,
    inode: &Inode,
    pointer: u64,
    levels: usize,
    (logical, span): (u64, u64),
    pending: &mut Run,
    visit: &mut Visit<'_>,
) -> Result<()> {
    let sb = &volume.sb;
    if pointer == 0 {
        return Ok(());
    }
    if !sb.holds(pointer, 1) {
        let what = format!("block map of inode {}: block {pointer} of {}", inode.number, sb.blocks);
        return Err(corrupt(what, inode.offset));
    }
    if levels == 0 {
        match pending {
            Some((start, physical, len)) if *start + *len == logical && *physical + *len == pointer => {
                *len += 1
            }
            _ => {
                flush(pending, visit)?;
                *pending = Some((logical, pointer, 1));
            }
        }
        return Ok(());
    }
    flush(pending, visit)?;
    if !visit(Owned::Node(pointer))? {
        return Ok(());
    }
    let held = volume.block(pointer, || format!("indirect block of inode {}", inode.number))?;
    let below = span / u64::from(sb.block_size / 4);
    let children = <[U32]>::ref_from_bytes(&held.bytes).unwrap_or_default();
    for (index, child) in (0..).zip(children) {
        let range = (logical + index * below, below);
        pointers(volume, inode, child.get().into(), levels - 1, range, pending, visit)?;
    }
    Ok(())
}
