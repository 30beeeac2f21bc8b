//! Group descriptors: where each group's bitmaps and inode table are.

use std::mem::{offset_of, size_of};

use vmcraft_fs::Result;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{crc16, crc32c};
use crate::corrupt;
use crate::features::{Incompat, RoCompat};
use crate::superblock::Superblock;
use crate::volume::Volume;

/// A group descriptor on disk: 32 bytes, or with `64bit` the superblock's `desc_size` of at least
/// 64, little-endian. The second half is zeros here when the disk has only the first.
///
/// Spec: Linux `Documentation/filesystems/ext4/group_descr.rst`; fields have its names without `bg_`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawGroupDescriptor {
    pub(crate) block_bitmap_lo: U32,
    pub(crate) inode_bitmap_lo: U32,
    pub(crate) inode_table_lo: U32,
    /// Free clusters.
    pub(crate) free_blocks_count_lo: U16,
    pub(crate) free_inodes_count_lo: U16,
    pub(crate) used_dirs_count_lo: U16,
    /// See [`flags`].
    pub(crate) flags: U16,
    pub(crate) exclude_bitmap_lo: U32,
    /// The low halves of the bitmaps' CRC-32C, with `metadata_csum`.
    pub(crate) block_bitmap_csum_lo: U16,
    pub(crate) inode_bitmap_csum_lo: U16,
    /// How many inodes at the table's end were never in use.
    pub(crate) itable_unused_lo: U16,
    pub(crate) checksum: U16,
    pub(crate) block_bitmap_hi: U32,
    pub(crate) inode_bitmap_hi: U32,
    pub(crate) inode_table_hi: U32,
    pub(crate) free_blocks_count_hi: U16,
    pub(crate) free_inodes_count_hi: U16,
    pub(crate) used_dirs_count_hi: U16,
    pub(crate) itable_unused_hi: U16,
    pub(crate) exclude_bitmap_hi: U32,
    pub(crate) block_bitmap_csum_hi: U16,
    pub(crate) inode_bitmap_csum_hi: U16,
    kept_3c: [u8; 4],
}
const _: () = assert!(size_of::<RawGroupDescriptor>() == 64);
const _: () = assert!(offset_of!(RawGroupDescriptor, checksum) == 0x1e);
const _: () = assert!(offset_of!(RawGroupDescriptor, free_blocks_count_hi) == 0x2c);

/// `bg_flags`; valid with checksums.
pub(crate) mod flags {
    /// No inode is in use, and the inode bitmap was never written.
    pub(crate) const INODE_UNINIT: u16 = 0x1;
    /// Only metadata is in use, and the block bitmap was never written.
    pub(crate) const BLOCK_UNINIT: u16 = 0x2;
    /// The inode table is zeroed.
    pub(crate) const INODE_ZEROED: u16 = 0x4;
}

/// A group descriptor, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) block_bitmap: u64,
    pub(crate) inode_bitmap: u64,
    /// The first block of the inode table, all of which is within the volume.
    pub(crate) inode_table: u64,
    /// Free clusters.
    pub(crate) free_clusters: u32,
    pub(crate) free_inodes: u32,
    pub(crate) used_dirs: u32,
    /// See [`flags`]; 0 on a volume without checksums.
    pub(crate) flags: u16,
    /// How many inodes at the table's end were never in use; 0 on a volume without checksums.
    pub(crate) unused_inodes: u32,
    /// The CRC-32C of the bitmaps, or their low halves, with `metadata_csum`.
    pub(crate) block_bitmap_checksum: u32,
    pub(crate) inode_bitmap_checksum: u32,
}

impl Group {
    /// Checks the descriptor of group `number`. `bytes` are all of it, `offset` where they are.
    pub(crate) fn decode(bytes: &[u8], sb: &Superblock, number: u32, offset: u64) -> Result<Self> {
        let mut whole = [0; 64];
        let len = bytes.len().min(64);
        whole[..len].copy_from_slice(&bytes[..len]);
        let raw: RawGroupDescriptor = zerocopy::transmute!(whole);
        verify(bytes, &raw, sb, number, offset)?;
        let wide = |low: U32, high: U32| u64::from(high.get()) << 32 | u64::from(low.get());
        let wide16 = |low: U16, high: U16| u32::from(high.get()) << 16 | u32::from(low.get());
        let inode_table = wide(raw.inode_table_lo, raw.inode_table_hi);
        if !sb.holds(inode_table, u64::from(sb.inode_table_blocks())) {
            let what = format!("descriptor of group {number}: inode table at block {inode_table}");
            return Err(corrupt(what, offset + offset_of!(RawGroupDescriptor, inode_table_lo) as u64));
        }
        Ok(Self {
            block_bitmap: wide(raw.block_bitmap_lo, raw.block_bitmap_hi),
            inode_bitmap: wide(raw.inode_bitmap_lo, raw.inode_bitmap_hi),
            inode_table,
            free_clusters: wide16(raw.free_blocks_count_lo, raw.free_blocks_count_hi),
            free_inodes: wide16(raw.free_inodes_count_lo, raw.free_inodes_count_hi),
            used_dirs: wide16(raw.used_dirs_count_lo, raw.used_dirs_count_hi),
            flags: if sb.group_checksums() { raw.flags.get() } else { 0 },
            unused_inodes: if sb.group_checksums() {
                wide16(raw.itable_unused_lo, raw.itable_unused_hi)
            } else {
                0
            },
            block_bitmap_checksum: wide16(raw.block_bitmap_csum_lo, raw.block_bitmap_csum_hi),
            inode_bitmap_checksum: wide16(raw.inode_bitmap_csum_lo, raw.inode_bitmap_csum_hi),
        })
    }

    /// Puts the counts, flags and checksums into the descriptor of group `number`; where its bitmaps
    /// and inode table are stays as it is in `bytes`, which are all of it.
    pub(crate) fn encode(&self, bytes: &mut [u8], sb: &Superblock, number: u32) {
        let mut whole = [0; 64];
        let len = bytes.len().min(64);
        whole[..len].copy_from_slice(&bytes[..len]);
        let mut raw: RawGroupDescriptor = zerocopy::transmute!(whole);
        let halves = |value: u32| (U16::new((value & 0xffff) as u16), U16::new((value >> 16) as u16));
        (raw.free_blocks_count_lo, raw.free_blocks_count_hi) = halves(self.free_clusters);
        (raw.free_inodes_count_lo, raw.free_inodes_count_hi) = halves(self.free_inodes);
        (raw.used_dirs_count_lo, raw.used_dirs_count_hi) = halves(self.used_dirs);
        if sb.group_checksums() {
            raw.flags = self.flags.into();
            (raw.itable_unused_lo, raw.itable_unused_hi) = halves(self.unused_inodes);
        }
        if sb.metadata_csum() {
            (raw.block_bitmap_csum_lo, raw.block_bitmap_csum_hi) = halves(self.block_bitmap_checksum);
            (raw.inode_bitmap_csum_lo, raw.inode_bitmap_csum_hi) = halves(self.inode_bitmap_checksum);
        }
        bytes[..len].copy_from_slice(&raw.as_bytes()[..len]);
        if let Some(found) = checksum(bytes, sb, number) {
            raw.checksum = found.into();
            bytes[..len].copy_from_slice(&raw.as_bytes()[..len]);
        }
    }
}

/// The checksum that a descriptor's bytes give; `None` on a volume without.
pub(crate) fn checksum(bytes: &[u8], sb: &Superblock, number: u32) -> Option<u16> {
    const FIELD: usize = offset_of!(RawGroupDescriptor, checksum);
    let (before, after) = (bytes.get(..FIELD)?, bytes.get(FIELD + 2..)?);
    let number_le = number.to_le_bytes();
    if sb.metadata_csum() {
        let crc = crc32c(crc32c(sb.checksum_seed, &number_le), before);
        // Only the low half is stored.
        Some((crc32c(crc32c(crc, &[0, 0]), after) & 0xffff) as u16)
    } else if sb.ro_compat.contains(RoCompat::GDT_CSUM) {
        Some(crc16(crc16(crc16(crc16(!0, &sb.uuid), &number_le), before), after))
    } else {
        None
    }
}

fn verify(bytes: &[u8], raw: &RawGroupDescriptor, sb: &Superblock, number: u32, offset: u64) -> Result<()> {
    const FIELD: usize = offset_of!(RawGroupDescriptor, checksum);
    let Some(found) = checksum(bytes, sb, number) else { return Ok(()) };
    let stored = raw.checksum.get();
    if found != stored {
        let what = format!(
            "descriptor of group {number}: checksum is {stored:#06x}, its content gives {found:#06x}"
        );
        return Err(corrupt(what, offset + FIELD as u64));
    }
    Ok(())
}

impl Superblock {
    /// The block that holds the `index`-th block of the descriptor table.
    pub(crate) fn descriptor_block(&self, index: u32) -> u64 {
        // Where the superblock is: block 1 only if blocks are 1 KiB.
        let superblock = u64::from(self.block_size == 1024);
        if !self.incompat.contains(Incompat::META_BG) || index < self.first_meta_bg {
            return superblock + 1 + u64::from(index);
        }
        let group = index.saturating_mul(self.descriptors_per_block());
        let mut block = self.group_start(group) + u64::from(self.has_superblock(group));
        // With bigalloc and 1 KiB blocks group 0 starts before the boot block, not behind it.
        if self.block_size == 1024 && index == 0 && self.first_data_block == 0 {
            block += 1;
        }
        block
    }

    /// All blocks that hold the `index`-th block of the descriptor table: the one that is used, then its
    /// backups. `backups` are all groups with a backup of the superblock.
    pub(crate) fn descriptor_copies(&self, index: u32, backups: &[u32]) -> Vec<u64> {
        let mut all = vec![self.descriptor_block(index)];
        if self.incompat.contains(Incompat::META_BG) && index >= self.first_meta_bg {
            let per_block = self.descriptors_per_block();
            let first = index.saturating_mul(per_block);
            let copies = [first.saturating_add(1), first.saturating_add(per_block - 1)];
            let copies = copies.into_iter().filter(|g| *g < self.groups && *g > first);
            all.extend(copies.map(|g| self.group_start(g) + u64::from(self.has_superblock(g))));
            all.dedup();
        } else {
            all.extend(backups.iter().map(|g| self.group_start(*g) + 1 + u64::from(index)));
        }
        all
    }

    /// The groups that hold a backup of the superblock, in order.
    pub(crate) fn backups(&self) -> impl Iterator<Item = u32> + '_ {
        (1..self.groups).filter(|g| self.has_superblock(*g))
    }

    /// How many blocks of the descriptor table a group holds a copy of.
    pub(crate) fn descriptor_blocks_in(&self, group: u32) -> u32 {
        let per_block = self.descriptors_per_block();
        let index = group / per_block;
        let meta = self.incompat.contains(Incompat::META_BG);
        if meta && index >= self.first_meta_bg {
            let place = group % per_block;
            return u32::from(place == 0 || place == 1 || place == per_block - 1);
        }
        match (self.has_superblock(group), meta) {
            (false, _) => 0,
            (true, true) => self.first_meta_bg,
            (true, false) => self.groups.div_ceil(per_block),
        }
    }
}

impl Volume {
    /// The descriptor of a group, which is below the superblock's count of groups.
    pub(crate) fn group(&self, number: u32) -> Result<Group> {
        if let Some(group) = self.lock_groups().as_ref().and_then(|groups| groups.get(number)) {
            return Ok(group);
        }
        self.read_group(number)
    }

    /// The descriptor of a group as the table has it.
    pub(crate) fn read_group(&self, number: u32) -> Result<Group> {
        let sb = &self.sb;
        let per_block = sb.descriptors_per_block();
        let number_of_block = sb.descriptor_block(number / per_block);
        let block = self.block(number_of_block, || format!("descriptor of group {number}"))?;
        let size = usize::from(sb.descriptor_size);
        let start = (number % per_block) as usize * size;
        let offset = sb.byte_of(number_of_block) + start as u64;
        Group::decode(&block.bytes[start..start + size], sb, number, offset)
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;
    use crate::superblock::RawSuperblock;

    fn superblock(features: impl Fn(&mut RawSuperblock)) -> Superblock {
        let mut raw = RawSuperblock::new_zeroed();
        raw.magic = crate::superblock::MAGIC.into();
        raw.log_block_size = 2.into();
        raw.blocks_count_lo = (32768 * 300).into();
        raw.blocks_per_group = 32768.into();
        raw.inodes_per_group = 64.into();
        raw.inodes_count = (64 * 300).into();
        raw.feature_ro_compat = RoCompat::SPARSE_SUPER.bits().into();
        features(&mut raw);
        Superblock::decode(&raw, 1 << 50).unwrap()
    }

    #[test]
    fn meta_bg_spreads_the_table() {
        let sb = superblock(|raw| {
            raw.feature_incompat = Incompat::META_BG.bits().into();
            raw.first_meta_bg = 1.into();
        });
        assert_eq!(sb.descriptors_per_block(), 128);
        assert_eq!(sb.descriptor_block(0), 1);
        assert_eq!(sb.descriptor_block(1), 128 * 32768); // group 128 has no superblock
        let copies: Vec<u32> = (128..256).filter(|&g| sb.descriptor_blocks_in(g) == 1).collect();
        assert_eq!(copies, [128, 129, 255]);
        assert_eq!((sb.descriptor_blocks_in(0), sb.descriptor_blocks_in(2)), (1, 0));
    }

    #[test]
    fn table_is_behind_the_superblock() {
        let sb = superblock(|_| ());
        assert_eq!((sb.descriptor_block(0), sb.descriptor_block(2)), (1, 3));
        assert_eq!((sb.descriptor_blocks_in(3), sb.descriptor_blocks_in(4)), (3, 0));
    }
}
