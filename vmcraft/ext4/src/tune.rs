//! Changing what a volume is called, and how it is to be used.
//!
//! The checksums of all metadata begin with one of the UUID, unless the superblock stores the seed. Who
//! changes the UUID computes them all anew: the feature that stores the seed would do, but not all boot
//! loaders know it.

use std::collections::HashSet;
use std::sync::Arc;

use bstr::BStr;
use vmcraft_block::BlockDevice;
use vmcraft_fs::{Error, OnError, Reserved, Result, Tuning};
use zerocopy::{FromZeros, IntoBytes};

use crate::checksum::crc32c;
use crate::descriptors::{DescriptorTable, write_superblocks};
use crate::features::{Compat, Incompat};
use crate::group::flags;
use crate::inode::{Inode, InodeFlags, checksum_seed, is_in_use};
use crate::superblock::{RawSuperblock, START, Superblock};
use crate::volume::Volume;
use crate::walk::{self, Owned};
use crate::{dir, dir_edit, extent, htree, htree_edit, inode_edit, xattr, xattr_edit};

/// Sets the label.
pub(crate) fn set_label(volume: &Volume, label: &BStr) -> Result<()> {
    let mut padded = [0; 16];
    match padded.get_mut(..label.len()) {
        Some(room) if !label.contains(&0) => room.copy_from_slice(label),
        _ => return Err(Error::InvalidInput("a label has 16 bytes at most, none of them NUL")),
    }
    volume.edit_superblock(|raw| raw.volume_name = padded)
}

/// The most that mount counts can be.
const MOST_MOUNTS: u16 = 16000;

/// Changes how a volume is to be used, all of which is on the device.
pub(crate) fn tune(device: &Arc<dyn BlockDevice>, tuning: &Tuning) -> Result<()> {
    let mut raw = RawSuperblock::new_zeroed();
    device.read_at(START, raw.as_mut_bytes())?;
    let sb = Superblock::decode(&raw, device.size())?;
    let Tuning { most_mounts, mounts, check_interval_secs, on_error, reserved, .. } = tuning;
    if [most_mounts, mounts].into_iter().flatten().any(|count| *count > MOST_MOUNTS) {
        return Err(Error::InvalidInput("mount counts are 16000 at most"));
    }
    if let Some(most) = most_mounts {
        // -1 says never, as 0 does.
        raw.max_mnt_count = if *most == 0 { u16::MAX } else { *most }.into();
    }
    if let Some(mounts) = mounts {
        raw.mnt_count = (*mounts).into();
    }
    if let Some(seconds) = check_interval_secs {
        raw.checkinterval = (*seconds).into();
    }
    if let Some(on_error) = on_error {
        raw.errors = match on_error {
            OnError::Continue => 1,
            OnError::ReadOnly => 2,
            OnError::Panic => 3,
        }
        .into();
    }
    match *reserved {
        None => {}
        Some(Reserved::Percent(percent)) if percent <= 50 => {
            // Less than the blocks.
            let blocks = u128::from(sb.blocks) * u128::from(percent) / 100;
            raw.set_reserved(u64::try_from(blocks).unwrap_or(sb.blocks / 2));
        }
        Some(Reserved::Blocks(blocks)) if blocks < sb.blocks / 2 => raw.set_reserved(blocks),
        Some(_) => return Err(Error::InvalidInput("less than half of the blocks can be reserved")),
    }
    if let Some(uid) = tuning.reserved_uid {
        raw.def_resuid = uid.into();
    }
    if let Some(gid) = tuning.reserved_gid {
        raw.def_resgid = gid.into();
    }
    if let Some(path) = &tuning.last_mounted {
        let mut padded = [0; 64];
        match padded.get_mut(..path.len()) {
            Some(room) if path.len() < 64 && !path.contains(&0) => room.copy_from_slice(path),
            _ => {
                return Err(Error::InvalidInput("a last mount point has 63 bytes at most, none of them NUL"));
            }
        }
        raw.last_mounted = padded;
    }
    raw.seal();
    device.write_at(START, raw.as_bytes())?;
    Ok(())
}

/// Sets the UUID of a volume all of which is on the device.
pub(crate) fn set_uuid(device: &Arc<dyn BlockDevice>, volume: &Volume, uuid: [u8; 16]) -> Result<()> {
    let old = &volume.sb;
    if old.compat.contains(Compat::STABLE_INODES) {
        return Err(Error::Unsupported(
            "changing the UUID with stable_inodes: encrypted files depend on it".into(),
        ));
    }
    let mut raw = RawSuperblock::new_zeroed();
    device.read_at(START, raw.as_mut_bytes())?;
    raw.uuid = uuid;
    raw.seal();
    let new = Superblock::decode(&raw, device.size())?;
    if new.checksum_seed != old.checksum_seed && old.metadata_csum() {
        if old.incompat.intersects(Incompat::EA_INODE | Incompat::MMP) {
            return Err(Error::Unsupported(
                "changing the UUID with ea_inode or mmp, whose checksums depend on it; with metadata_csum_seed \
                 (tune2fs -O metadata_csum_seed) they do not"
                    .into(),
            ));
        }
        // Once to see that everything can be read, then to write.
        for write in [false, true] {
            let seen = (HashSet::new(), HashSet::new());
            let mut reseal = Reseal { device, volume, new: &new, write, nodes: seen.0, xattrs: seen.1 };
            let mut table = reseal.all(&raw)?;
            if write {
                table.write(&**device)?;
            }
        }
    } else {
        DescriptorTable::read(volume)?.with_superblock(&new).write(&**device)?;
    }
    write_superblocks(&**device, &new, &raw)
}

/// Computes the checksums of a volume anew.
struct Reseal<'a> {
    device: &'a dyn BlockDevice,
    volume: &'a Volume,
    new: &'a Superblock,
    /// Otherwise all is only read.
    write: bool,
    /// Blocks that several maps of a damaged volume lead to, and those that inodes may share.
    nodes: HashSet<u64>,
    xattrs: HashSet<u64>,
}

impl Reseal<'_> {
    fn all(&mut self, raw: &RawSuperblock) -> Result<DescriptorTable> {
        let volume = self.volume;
        let sb = &volume.sb;
        let mut table = DescriptorTable::read(volume)?.with_superblock(self.new);
        for number in 0..sb.groups {
            let group = volume.read_group(number)?;
            if group.flags & flags::BLOCK_UNINIT == 0 {
                let bitmap =
                    volume.block(group.block_bitmap, || format!("block bitmap of group {number}"))?;
                table.set_block_bitmap_checksum(number, &bitmap.bytes);
            }
            if group.flags & flags::INODE_UNINIT != 0 {
                continue;
            }
            let bitmap = volume.block(group.inode_bitmap, || format!("inode bitmap of group {number}"))?;
            table.set_inode_bitmap_checksum(number, &bitmap.bytes);
            let first = number * sb.inodes_per_group + 1;
            for inode in first..first + sb.inodes_per_group.saturating_sub(group.unused_inodes) {
                self.inode(inode, raw.orphan_file_inum.get())?;
            }
        }
        Ok(table)
    }

    fn inode(&mut self, number: u32, orphan_file: u32) -> Result<()> {
        let volume = self.volume;
        let (block, range, offset) = volume.inode_bytes(number)?;
        let Some(bytes) = block.bytes.get(range) else { return Ok(()) };
        if bytes.iter().all(|b| *b == 0) {
            return Ok(());
        }
        if is_in_use(bytes) {
            let inode = Inode::decode(bytes, &volume.sb, number, offset)?;
            let seed = checksum_seed(self.new, number, inode.generation);
            let indexed = inode.is_dir() && dir::is_indexed(&inode, &volume.sb);
            walk::each(volume, &inode, &mut |owned| match owned {
                Owned::Node(node) => {
                    let first_time = self.nodes.insert(node);
                    if first_time && inode.flags.contains(InodeFlags::EXTENTS) {
                        // The walk verifies nodes as it reads them, later than this: from the cache.
                        let held = volume.block(node, || format!("extent tree of inode {number}"))?;
                        self.store(node, &held.bytes, |bytes| extent::seal(bytes, seed, self.new))?;
                    }
                    Ok(first_time)
                }
                Owned::Data { logical, physical, len, .. } => {
                    for index in 0..if inode.is_dir() { len } else { 0 } {
                        let (logical, physical) = (logical + index, physical + index);
                        let held = dir::block(volume, &inode, logical, physical, len - index)?;
                        let is_node = indexed && (logical == 0 || dir::fills(&held.bytes, &volume.sb));
                        self.store(physical, &held.bytes, |bytes| {
                            if is_node {
                                htree_edit::seal(bytes, htree::entries_start(logical), seed, self.new);
                            } else {
                                dir_edit::seal(bytes, seed, self.new);
                            }
                        })?;
                    }
                    if number == orphan_file && volume.sb.compat.contains(Compat::ORPHAN_FILE) {
                        for block in physical..physical + len {
                            let held = volume.block(block, || "orphan file".into())?;
                            self.store(block, &held.bytes, |bytes| {
                                if let Some((covered, tail)) =
                                    bytes.split_at_mut_checked(held.bytes.len() - 8)
                                {
                                    let crc = crc32c(crc32c(seed, &block.to_le_bytes()), covered);
                                    tail[4..].copy_from_slice(&crc.to_le_bytes());
                                }
                            })?;
                        }
                    }
                    Ok(true)
                }
            })?;
            if self.xattrs.insert(inode.xattr_block)
                && let Some(held) = xattr::block_of(volume, &inode)?
            {
                self.store(inode.xattr_block, &held.bytes, |bytes| {
                    xattr_edit::seal_block(bytes, self.new, inode.xattr_block);
                })?;
            }
        }
        if self.write {
            let mut bytes = bytes.to_vec();
            inode_edit::seal(&mut bytes, self.new, number);
            self.device.write_at(offset, &bytes)?;
        }
        Ok(())
    }

    /// Writes a block as `seal` leaves it.
    fn store(&self, number: u64, bytes: &[u8], seal: impl FnOnce(&mut [u8])) -> Result<()> {
        if self.write {
            let mut bytes = bytes.to_vec();
            seal(&mut bytes);
            self.device.write_at(self.volume.sb.byte_of(number), &bytes)?;
        }
        Ok(())
    }
}
