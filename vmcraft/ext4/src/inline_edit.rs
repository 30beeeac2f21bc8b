//! Changing inline data: content in the inode, and moving it out to blocks when it has no room there.

use vmcraft_fs::{FileType, Result};

use crate::features::Incompat;
use crate::inode::{I_BLOCK_SIZE, Inode, InodeFlags};
use crate::volume::Volume;
use crate::{content, in_memory, inline, symlink, xattr_edit};

/// Whether the content is in the inode, or could be put there: that of an empty file without blocks.
pub(crate) fn may_hold(volume: &Volume, inode: &Inode) -> bool {
    inode.flags.contains(InodeFlags::INLINE_DATA)
        || volume.sb.incompat.contains(Incompat::INLINE_DATA)
            && inode.file_type == FileType::Regular
            && inode.size == 0
            && symlink::has_no_blocks(inode, volume)
}

/// All of the content; of a directory, its parent's number before its entries.
pub(crate) fn content(volume: &Volume, inode: &Inode) -> Result<Vec<u8>> {
    let len = in_memory(inode.size);
    if len > usize::from(volume.sb.inode_size) {
        return Err(inode.corrupt(format_args!("inline data of {len} bytes")));
    }
    let mut content = vec![0; len];
    inline::read(volume, inode, 0, &mut content)?;
    Ok(content)
}

/// The largest content that the inode has room for.
pub(crate) fn room(volume: &Volume, inode: &Inode) -> Result<usize> {
    Ok(xattr_edit::room_for_inline_data(volume, inode)?.map_or(0, |room| room + I_BLOCK_SIZE))
}

/// Makes this the content of an inode without blocks; `false`, and nothing changed, if there is no room.
pub(crate) fn store(volume: &Volume, inode: &mut Inode, content: &[u8]) -> Result<bool> {
    let (head, rest) = content.split_at(content.len().min(I_BLOCK_SIZE));
    if !xattr_edit::set_inline_data(volume, inode, Some(rest))? {
        return Ok(false);
    }
    inode.block = [0; I_BLOCK_SIZE];
    inode.block[..head.len()].copy_from_slice(head);
    inode.flags.remove(InodeFlags::EXTENTS);
    inode.flags.insert(InodeFlags::INLINE_DATA);
    inode.size = content.len() as u64;
    Ok(true)
}

/// What of the content is kept, up to `len` bytes, with zeros to make it so long.
fn resized(volume: &Volume, inode: &Inode, len: u64) -> Result<Option<Vec<u8>>> {
    if len > u64::from(volume.sb.inode_size) {
        return Ok(None);
    }
    let is_inline = inode.flags.contains(InodeFlags::INLINE_DATA);
    let mut content = if is_inline { content(volume, inode)? } else { Vec::new() };
    content.resize(in_memory(len), 0);
    Ok(Some(content))
}

/// Writes `data` at byte `offset`; `false`, and nothing changed, if there is no room.
pub(crate) fn write(volume: &Volume, inode: &mut Inode, offset: u64, data: &[u8]) -> Result<bool> {
    let end = offset.saturating_add(data.len() as u64);
    let Some(mut content) = resized(volume, inode, end.max(inode.size))? else {
        return Ok(false);
    };
    let place = in_memory(offset)..in_memory(end);
    if let Some(place) = content.get_mut(place) {
        place.copy_from_slice(data);
    }
    store(volume, inode, &content)
}

/// Makes the content `size` bytes long; `false`, and nothing changed, if there is no room.
pub(crate) fn resize(volume: &Volume, inode: &mut Inode, size: u64) -> Result<bool> {
    match resized(volume, inode, size)? {
        Some(content) => store(volume, inode, &content),
        None => Ok(false),
    }
}

/// Zeroes `from..to`, which is within the content.
pub(crate) fn zero(volume: &Volume, inode: &mut Inode, from: u64, to: u64) -> Result<()> {
    let zeros = vec![0; in_memory(to - from).min(usize::from(volume.sb.inode_size))];
    write(volume, inode, from, &zeros).map(|_| ())
}

/// Takes the content out of the inode, which then has a map without blocks and a size of 0.
pub(crate) fn take(volume: &Volume, inode: &mut Inode) -> Result<Vec<u8>> {
    let content = content(volume, inode)?;
    xattr_edit::set_inline_data(volume, inode, None)?;
    inode.flags.remove(InodeFlags::INLINE_DATA);
    content::start_map(volume, inode);
    inode.size = 0;
    Ok(content)
}

/// Moves the content of a file that is inline to a block.
pub(crate) fn move_out(volume: &Volume, inode: &mut Inode) -> Result<()> {
    if !inode.flags.contains(InodeFlags::INLINE_DATA) {
        return Ok(());
    }
    let content = take(volume, inode)?;
    if content.is_empty() { Ok(()) } else { content::write_blocks(volume, inode, 0, &content) }
}
