//! Symbolic links.

use bstr::BString;
use vmcraft_fs::{Error, FileType, Result};

use crate::features::Incompat;
use crate::inode::{I_BLOCK_SIZE, Inode, InodeFlags};
use crate::map::{self, OpenInode};
use crate::volume::Volume;
use crate::{in_memory, inline};

/// The target: in `i_block` if that has room, inline, or in one block.
pub(crate) fn read(volume: &Volume, inode: &OpenInode) -> Result<BString> {
    if inode.file_type != FileType::Symlink {
        return Err(Error::InvalidInput("not a symbolic link"));
    }
    map::check_readable(inode)?;
    let is_inline = inode.flags.contains(InodeFlags::INLINE_DATA);
    let longest = if !is_inline && is_fast(inode, volume) {
        I_BLOCK_SIZE as u64 - 1
    } else {
        u64::from(volume.sb.block_size)
    };
    if inode.size == 0 || inode.size > longest {
        return Err(inode.corrupt(format_args!("a symbolic link of {} bytes", inode.size)));
    }
    // At most a block.
    let mut target = vec![0; in_memory(inode.size)];
    if is_inline {
        inline::read(volume, inode, 0, &mut target)?;
    } else if is_fast(inode, volume) {
        let len = target.len();
        target.copy_from_slice(&inode.block[..len]);
    } else {
        map::read(volume, inode, 0, &mut target)?;
    }
    if target.contains(&0) {
        return Err(inode.corrupt("a symbolic link with a NUL in its target"));
    }
    Ok(target.into())
}

/// Whether the target is in `i_block`.
pub(crate) fn is_fast(inode: &Inode, volume: &Volume) -> bool {
    if volume.sb.incompat.contains(Incompat::EA_INODE) {
        // The values of its attributes may count as its own blocks.
        return inode.size < I_BLOCK_SIZE as u64;
    }
    has_no_blocks(inode, volume)
}

/// Whether no block is the inode's but the one of its attributes.
pub(crate) fn has_no_blocks(inode: &Inode, volume: &Volume) -> bool {
    let sb = &volume.sb;
    let xattrs = if inode.xattr_block != 0 { u64::from(sb.block_size / 512 * sb.cluster_blocks) } else { 0 };
    inode.blocks_512 == xattrs
}
