//! The whole table of group descriptors in memory, with its backups on the disk: for tools that work on
//! a volume that is not mounted.

use vmcraft_block::BlockDevice;
use vmcraft_fs::Result;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, IntoBytes};

use crate::bitmap;
use crate::checksum::crc32c;
use crate::group::{self, RawGroupDescriptor, flags};
use crate::in_memory;
use crate::mkfs::layout::Placement;
use crate::space::Space;
use crate::superblock::{RawSuperblock, START, Superblock};
use crate::volume::Volume;

/// Descriptors as they are on the disk, those of one group behind those of the one before.
pub(crate) struct DescriptorTable {
    bytes: Vec<u8>,
    sb: Superblock,
}

/// The fields of a descriptor that are not halves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// In clusters.
    pub(crate) free_blocks: u32,
    pub(crate) free_inodes: u32,
    pub(crate) directories: u32,
    /// Inodes at the end of the table that were never in use.
    pub(crate) unused_inodes: u32,
    pub(crate) flags: u16,
}

impl DescriptorTable {
    /// One of zeros.
    pub(crate) fn empty(sb: &Superblock) -> Self {
        let blocks = sb.groups.div_ceil(sb.descriptors_per_block());
        Self { bytes: vec![0; in_memory(u64::from(blocks) * u64::from(sb.block_size))], sb: sb.clone() }
    }

    /// The one of a volume, as the copy that is used has it.
    pub(crate) fn read(volume: &Volume) -> Result<Self> {
        let mut table = Self::empty(&volume.sb);
        let block_size = volume.sb.block_size as usize;
        for (index, room) in (0..).zip(table.bytes.chunks_exact_mut(block_size)) {
            let number = volume.sb.descriptor_block(index);
            room.copy_from_slice(
                &volume.block(number, || format!("block {index} of the descriptors"))?.bytes,
            );
        }
        Ok(table)
    }

    /// The same for a volume with more groups, which are zeros, or with fewer.
    pub(crate) fn resized(self, sb: &Superblock) -> Self {
        let mut other = Self::empty(sb);
        for group in 0..sb.groups.min(self.sb.groups) {
            let (to, from) = (other.slot(group), self.slot(group));
            for (to, from) in
                other.bytes.get_mut(to).into_iter().flatten().zip(self.bytes.get(from).into_iter().flatten())
            {
                *to = *from;
            }
        }
        other
    }

    /// The same for a volume whose checksums begin otherwise.
    pub(crate) fn with_superblock(self, sb: &Superblock) -> Self {
        Self { sb: sb.clone(), ..self }
    }

    fn slot(&self, group: u32) -> std::ops::Range<usize> {
        let size = usize::from(self.sb.descriptor_size);
        let per_block = self.sb.descriptors_per_block() as usize;
        let group = group as usize;
        // What is left at the end of a block is nobody's.
        let start = group / per_block * self.sb.block_size as usize + group % per_block * size;
        start..start + size
    }

    fn raw(&self, group: u32) -> RawGroupDescriptor {
        let mut raw = RawGroupDescriptor::new_zeroed();
        let bytes = self.bytes.get(self.slot(group)).unwrap_or_default();
        for (to, from) in raw.as_mut_bytes().iter_mut().zip(bytes) {
            *to = *from;
        }
        raw
    }

    fn set_raw(&mut self, group: u32, raw: &RawGroupDescriptor) {
        let slot = self.slot(group);
        for (to, from) in self.bytes.get_mut(slot).into_iter().flatten().zip(raw.as_bytes()) {
            *to = *from;
        }
    }

    /// Where a group's metadata is.
    pub(crate) fn placement(&self, group: u32) -> Placement {
        let raw = self.raw(group);
        let wide = |low: U32, high: U32| u64::from(high.get()) << 32 | u64::from(low.get());
        Placement {
            block_bitmap: wide(raw.block_bitmap_lo, raw.block_bitmap_hi),
            inode_bitmap: wide(raw.inode_bitmap_lo, raw.inode_bitmap_hi),
            inode_table: wide(raw.inode_table_lo, raw.inode_table_hi),
        }
    }

    /// Sets where a group's metadata is.
    pub(crate) fn set_placement(&mut self, group: u32, placement: Placement) {
        let mut raw = self.raw(group);
        (raw.block_bitmap_lo, raw.block_bitmap_hi) = halves(placement.block_bitmap);
        (raw.inode_bitmap_lo, raw.inode_bitmap_hi) = halves(placement.inode_bitmap);
        (raw.inode_table_lo, raw.inode_table_hi) = halves(placement.inode_table);
        self.set_raw(group, &raw);
    }

    /// What a group counts.
    pub(crate) fn counts(&self, group: u32) -> Counts {
        let raw = self.raw(group);
        let wide = |low: U16, high: U16| u32::from(high.get()) << 16 | u32::from(low.get());
        Counts {
            free_blocks: wide(raw.free_blocks_count_lo, raw.free_blocks_count_hi),
            free_inodes: wide(raw.free_inodes_count_lo, raw.free_inodes_count_hi),
            directories: wide(raw.used_dirs_count_lo, raw.used_dirs_count_hi),
            unused_inodes: wide(raw.itable_unused_lo, raw.itable_unused_hi),
            flags: raw.flags.get(),
        }
    }

    /// Sets what a group counts.
    pub(crate) fn set_counts(&mut self, group: u32, counts: Counts) {
        let mut raw = self.raw(group);
        (raw.free_blocks_count_lo, raw.free_blocks_count_hi) = halves16(counts.free_blocks);
        (raw.free_inodes_count_lo, raw.free_inodes_count_hi) = halves16(counts.free_inodes);
        (raw.used_dirs_count_lo, raw.used_dirs_count_hi) = halves16(counts.directories);
        (raw.itable_unused_lo, raw.itable_unused_hi) = halves16(counts.unused_inodes);
        raw.flags = counts.flags.into();
        self.set_raw(group, &raw);
    }

    /// Free blocks and inodes of all groups.
    pub(crate) fn free_counts(&self) -> (u64, u64) {
        (0..self.sb.groups).map(|group| self.counts(group)).fold((0, 0), |(blocks, inodes), counts| {
            (
                blocks + u64::from(counts.free_blocks) * u64::from(self.sb.cluster_blocks),
                inodes + u64::from(counts.free_inodes),
            )
        })
    }

    /// Describes a group whose inode table is zeroed and has its first `inodes` in use, and writes its
    /// bitmaps, except where the descriptor can say that they need not be read.
    pub(crate) fn set_new(
        &mut self,
        group: u32,
        placement: Placement,
        space: &Space,
        inodes: u64,
        directories: u64,
        device: &dyn BlockDevice,
    ) -> Result<()> {
        let range = self.sb.group_start(group)..self.sb.group_end(group);
        let used = space.used_in(range.clone());
        let described = self.sb.group_checksums();
        let own = self.sb.own_blocks_in(group, placement);
        let mut counts = Counts {
            free_blocks: narrow(range.end - range.start - used),
            free_inodes: narrow(u64::from(self.sb.inodes_per_group) - inodes),
            directories: narrow(directories),
            unused_inodes: 0,
            flags: 0,
        };
        if described {
            counts.unused_inodes = counts.free_inodes;
            counts.flags = flags::INODE_ZEROED;
            if inodes == 0 {
                counts.flags |= flags::INODE_UNINIT;
            }
            if used == own && group != 0 && group + 1 != self.sb.groups {
                counts.flags |= flags::BLOCK_UNINIT;
            }
        }
        self.set_placement(group, placement);
        self.set_counts(group, counts);
        if counts.flags & flags::BLOCK_UNINIT == 0 {
            let mut bitmap = self.bitmap(range.end - range.start);
            for used in space.within(range.clone()) {
                bitmap::fill(
                    &mut bitmap,
                    narrow(used.start - range.start)..narrow(used.end - range.start),
                    true,
                );
            }
            self.write_block_bitmap(group, &bitmap, device)?;
        }
        if counts.flags & flags::INODE_UNINIT == 0 {
            let mut bitmap = self.bitmap(self.sb.inodes_per_group.into());
            bitmap::fill(&mut bitmap, 0..narrow(inodes), true);
            self.write_inode_bitmap(group, &bitmap, device)?;
        }
        Ok(())
    }

    /// A bitmap of `bits` that are 0, with ones behind them.
    fn bitmap(&self, bits: u64) -> Vec<u8> {
        let mut bytes = vec![0; self.sb.block_size as usize];
        bitmap::fill(&mut bytes, narrow(bits)..self.sb.block_size * 8, true);
        bytes
    }

    /// Sets the checksum of a group's block bitmap.
    pub(crate) fn set_block_bitmap_checksum(&mut self, group: u32, bitmap: &[u8]) {
        let mut raw = self.raw(group);
        let covered = self.sb.blocks_per_group / self.sb.cluster_blocks / 8;
        (raw.block_bitmap_csum_lo, raw.block_bitmap_csum_hi) = self.bitmap_checksum(bitmap, covered);
        self.set_raw(group, &raw);
    }

    /// Sets the checksum of a group's inode bitmap.
    pub(crate) fn set_inode_bitmap_checksum(&mut self, group: u32, bitmap: &[u8]) {
        let mut raw = self.raw(group);
        let covered = self.sb.inodes_per_group / 8;
        (raw.inode_bitmap_csum_lo, raw.inode_bitmap_csum_hi) = self.bitmap_checksum(bitmap, covered);
        self.set_raw(group, &raw);
    }

    /// Writes a group's block bitmap and sets its checksum.
    pub(crate) fn write_block_bitmap(
        &mut self,
        group: u32,
        bitmap: &[u8],
        device: &dyn BlockDevice,
    ) -> Result<()> {
        self.set_block_bitmap_checksum(group, bitmap);
        Ok(device.write_at(self.sb.byte_of(self.placement(group).block_bitmap), bitmap)?)
    }

    /// Writes a group's inode bitmap and sets its checksum.
    pub(crate) fn write_inode_bitmap(
        &mut self,
        group: u32,
        bitmap: &[u8],
        device: &dyn BlockDevice,
    ) -> Result<()> {
        self.set_inode_bitmap_checksum(group, bitmap);
        Ok(device.write_at(self.sb.byte_of(self.placement(group).inode_bitmap), bitmap)?)
    }

    /// The checksum of the first `covered` bytes of a bitmap; zeros on a volume without.
    fn bitmap_checksum(&self, bitmap: &[u8], covered: u32) -> (U16, U16) {
        if !self.sb.metadata_csum() {
            return (0.into(), 0.into());
        }
        halves16(crc32c(self.sb.checksum_seed, bitmap.get(..covered as usize).unwrap_or(bitmap)))
    }

    /// Writes the table and all its backups, with the checksums of the descriptors.
    pub(crate) fn write(&mut self, device: &dyn BlockDevice) -> Result<()> {
        for group in 0..self.sb.groups {
            let slot = self.slot(group);
            let mut raw = self.raw(group);
            let sum = self.bytes.get(slot).and_then(|bytes| group::checksum(bytes, &self.sb, group));
            raw.checksum = sum.unwrap_or(0).into();
            self.set_raw(group, &raw);
        }
        let backups: Vec<u32> = self.sb.backups().collect();
        for (index, block) in (0..).zip(self.bytes.chunks_exact(self.sb.block_size as usize)) {
            for copy in self.sb.descriptor_copies(index, &backups) {
                device.write_at(self.sb.byte_of(copy), block)?;
            }
        }
        Ok(())
    }
}

/// Writes the superblock and all its backups, each with its group's number and its checksum.
pub(crate) fn write_superblocks(
    device: &dyn BlockDevice,
    sb: &Superblock,
    raw: &RawSuperblock,
) -> Result<()> {
    let mut raw = raw.clone();
    for group in std::iter::once(0).chain(sb.backups()) {
        // Only 16 bits are there, and nobody relies on them.
        raw.block_group_nr = U16::from_bytes([group.to_le_bytes()[0], group.to_le_bytes()[1]]);
        raw.seal();
        let at = if group == 0 { START } else { sb.byte_of(sb.group_start(group)) };
        device.write_at(at, raw.as_bytes())?;
    }
    Ok(())
}

fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn halves(number: u64) -> (U32, U32) {
    let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
    (U32::from_bytes([a, b, c, d]), U32::from_bytes([e, f, g, h]))
}

fn halves16(number: u32) -> (U16, U16) {
    let [a, b, c, d] = number.to_le_bytes();
    (U16::from_bytes([a, b]), U16::from_bytes([c, d]))
}
