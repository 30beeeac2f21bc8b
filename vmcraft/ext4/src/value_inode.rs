//! Inodes that hold the value of an extended attribute (`ea_inode`).
//!
//! Such an inode has no name and counts how many attributes refer to it, in two fields that have no
//! other use there; its access time is the hash of its content.

use vmcraft_fs::{FileType, NewInode, Result, Timestamp};

use crate::checksum::crc32c;
use crate::inode::{Inode, InodeFlags, VERSION_START};
use crate::volume::Volume;
use crate::{content, corrupt};

/// Makes an inode for a value, to which one attribute refers. Returns its number and the hash of the
/// value.
pub(crate) fn create(volume: &Volume, owner: &Inode, value: &[u8]) -> Result<(u32, u32)> {
    let number = volume.allocate_inode(owner, false)?;
    let new = NewInode { permissions: 0o600, uid: owner.uid, gid: owner.gid };
    let mut inode = volume.new_inode(number, FileType::Regular, new, owner)?;
    inode.flags = InodeFlags::EA_INODE;
    content::start_map(volume, &mut inode);
    content::write_blocks(volume, &mut inode, 0, value)?;
    let hash = crc32c(volume.sb.checksum_seed, value);
    // All 32 bits fit the field, whose sign is no matter.
    inode.accessed = Timestamp { seconds: hash.cast_signed().into(), nanoseconds: 0 };
    set_references(volume, &mut inode, 1)?;
    Ok((number, hash))
}

/// One more attribute refers to it.
pub(crate) fn refer(volume: &Volume, number: u32) -> Result<()> {
    let mut inode = read(volume, number)?;
    let references = references(volume, &inode)?.saturating_add(1);
    set_references(volume, &mut inode, references)
}

/// One attribute less refers to it; with the last it goes.
pub(crate) fn drop(volume: &Volume, number: u32) -> Result<()> {
    let mut inode = read(volume, number)?;
    let references = references(volume, &inode)?;
    if references > 1 {
        return set_references(volume, &mut inode, references - 1);
    }
    content::free_all(volume, &mut inode)?;
    volume.free_inode(number, false)
}

/// Blocks that count as the owner's, for a value of `size` bytes.
pub(crate) fn blocks(volume: &Volume, size: u32) -> u64 {
    u64::from(size.div_ceil(volume.sb.block_size))
}

fn read(volume: &Volume, number: u32) -> Result<Inode> {
    let inode = volume.any_inode(number)?;
    if number < volume.sb.first_inode || !inode.flags.contains(InodeFlags::EA_INODE) {
        return Err(inode.corrupt("an extended attribute has its value there, but it is not for one"));
    }
    Ok(inode)
}

/// The high half is the time of change, the low half the version.
fn references(volume: &Volume, inode: &Inode) -> Result<u64> {
    let (block, range, offset) = volume.inode_bytes(inode.number)?;
    let bytes = block.bytes.get(range).unwrap_or_default();
    let low = bytes.get(VERSION_START..).and_then(|b| b.first_chunk()).map(|b| u32::from_le_bytes(*b));
    let low = low.ok_or_else(|| corrupt(format!("inode {}: too small", inode.number), offset))?;
    Ok((inode.changed.seconds.cast_unsigned() & 0xffff_ffff) << 32 | u64::from(low))
}

fn set_references(volume: &Volume, inode: &mut Inode, references: u64) -> Result<()> {
    // There are fewer attributes than 2^31 in all.
    inode.changed = Timestamp { seconds: i64::try_from(references >> 32).unwrap_or(0), nanoseconds: 0 };
    volume.store_inode(inode)?;
    volume.edit_inode_bytes(inode.number, |bytes| {
        if let Some(field) = bytes.get_mut(VERSION_START..VERSION_START + 4) {
            field.copy_from_slice(&((references & 0xffff_ffff) as u32).to_le_bytes());
        }
        Ok(())
    })
}
