//! Inline data: small files and directories whose content is in their inode.
//!
//! The first 60 bytes are in `i_block`, the rest is the value of the attribute `system.data` in the
//! inode. A directory starts with its parent's number instead of `.` and `..`; its entries are two
//! lists, one in each place.
//!
//! Spec: Linux `Documentation/filesystems/ext4/inlinedata.rst`.

use std::ops::ControlFlow;

use vmcraft_fs::Result;

use crate::dir::List;
use crate::inode::{I_BLOCK_SIZE, I_BLOCK_START, Inode};
use crate::volume::Volume;
use crate::{in_memory, xattr};

/// Bytes of a directory's `i_block` before its entries.
pub(crate) const PARENT_SIZE: usize = 4;

/// Fills `buf` from byte `offset`; all of it must be before the end of the file.
pub(crate) fn read(volume: &Volume, inode: &Inode, offset: u64, buf: &mut [u8]) -> Result<()> {
    let mut offset = in_memory(offset);
    let mut left = buf;
    if let Some(here) = inode.block.get(offset..) {
        let (now, later) = left.split_at_mut(here.len().min(left.len()));
        now.copy_from_slice(&here[..now.len()]);
        offset += now.len();
        left = later;
    }
    if left.is_empty() {
        return Ok(());
    }
    let len = left.len();
    let at = offset.saturating_sub(I_BLOCK_SIZE);
    let source = xattr::inline_data(volume, inode)?;
    let available = source.as_ref().map_or(0, |s| s.bytes().len());
    match source.as_ref().and_then(|s| s.bytes().get(at..)?.get(..len)) {
        Some(bytes) => left.copy_from_slice(bytes),
        None => {
            let there = I_BLOCK_SIZE + available;
            let what = format_args!("inline data of {} bytes, of which {there} are there", inode.size);
            return Err(inode.corrupt(what));
        }
    }
    Ok(())
}

/// Calls `see` with both lists of entries, as [`crate::dir::each_list`] does.
pub(crate) fn each_list(
    volume: &Volume,
    inode: &Inode,
    from: u64,
    see: &mut dyn FnMut(List<'_>, u64) -> Result<ControlFlow<()>>,
) -> Result<()> {
    if from < I_BLOCK_SIZE as u64 {
        // What the inode has in memory can be newer than its bytes.
        let bytes = inode.block.get(PARENT_SIZE..).unwrap_or_default();
        let offset = inode.offset + (I_BLOCK_START + PARENT_SIZE) as u64;
        let list = List { bytes, inode: inode.number, offset };
        if see(list, PARENT_SIZE as u64)?.is_break() {
            return Ok(());
        }
    }
    let Some(data) = xattr::inline_data(volume, inode)? else {
        return Ok(());
    };
    let list = List { bytes: data.bytes(), inode: inode.number, offset: data.offset };
    see(list, I_BLOCK_SIZE as u64).map(|_| ())
}

/// The parent of an inline directory.
pub(crate) fn parent(inode: &Inode) -> u32 {
    inode.block.first_chunk().map_or(0, |b| u32::from_le_bytes(*b))
}
