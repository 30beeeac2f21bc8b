//! Making a volume smaller, as a plan says.
//!
//! All is read as it was: nothing is written to a block that something is read from later, except by
//! who reads it.

use std::collections::HashSet;
use std::mem::offset_of;

use vmcraft_block::BlockDevice;
use vmcraft_fs::{Result, Sources};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

use super::narrow;
use super::plan::Plan;
use crate::blockmap::DIRECT;
use crate::checksum::crc32c;
use crate::descriptors::{DescriptorTable, write_superblocks};
use crate::extent::Entry;
use crate::features::Compat;
use crate::group::flags;
use crate::inode::{I_BLOCK_SIZE, Inode, InodeFlags, RawInode, checksum_seed, with_fields};
use crate::superblock::JournalPlace;
use crate::volume::Volume;
use crate::walk::{self, Owned};
use crate::{
    bitmap, content, corrupt, dir, dir_edit, extent_edit, htree, htree_edit, in_memory, inode_edit, mkfs,
    xattr, xattr_edit,
};

/// The piece in which data is copied, in bytes.
const COPIED: u64 = 1 << 20;

/// Does what the plan says.
pub(super) fn carry_out(
    device: &dyn BlockDevice,
    volume: &Volume,
    plan: Plan,
    sources: &Sources,
) -> Result<()> {
    let mut shrink = Shrink { device, volume, plan, attributes: HashSet::new() };
    let mut table = DescriptorTable::read(volume)?.resized(&shrink.plan.new);
    shrink.move_tables(&mut table)?;
    shrink.take_inodes(&mut table)?;
    for number in shrink.plan.touched.clone() {
        shrink.inode(number, &table)?;
    }
    shrink.write_block_bitmaps(&mut table)?;
    let Plan { mut raw, new, renumbered, room_map, .. } = shrink.plan;
    if let Some(map) = room_map {
        mkfs::keep_room(device, map, &new, table.placement(0), sources.now())?;
    }
    for field in [&mut raw.journal_inum, &mut raw.orphan_file_inum, &mut raw.lpf_ino] {
        if let Some(renumbered) = renumbered.get(&field.get()) {
            *field = renumbered.to.into();
        }
    }
    let (blocks, inodes) = table.free_counts();
    raw.set_free(blocks, inodes);
    table.write(device)?;
    write_superblocks(device, &new, &raw)
}

struct Shrink<'a> {
    device: &'a dyn BlockDevice,
    volume: &'a Volume,
    plan: Plan,
    /// The blocks of attributes that were moved.
    attributes: HashSet<u64>,
}

impl Shrink<'_> {
    /// Copies inode tables that were behind the end, and notes where the metadata of all groups is.
    fn move_tables(&self, table: &mut DescriptorTable) -> Result<()> {
        for (group, to) in (0..).zip(&self.plan.placements) {
            let from = table.placement(group);
            if from.inode_table != to.inode_table {
                let blocks = self.plan.new.inode_table_blocks().into();
                self.copy(from.inode_table, to.inode_table, blocks)?;
            }
            table.set_placement(group, *to);
        }
        Ok(())
    }

    /// Takes the inodes that others become, and writes the inode bitmaps.
    fn take_inodes(&self, table: &mut DescriptorTable) -> Result<()> {
        let sb = &self.plan.new;
        let mut taken = self.plan.renumbered.values().map(|r| r.to).collect::<Vec<_>>();
        taken.sort_unstable();
        let mut directories = HashSet::new();
        for (from, renumbered) in &self.plan.renumbered {
            if self.plan.inode(self.volume, *from)?.1.is_dir() {
                directories.insert(renumbered.to);
            }
        }
        let mut taken = taken.into_iter().peekable();
        for group in 0..sb.groups {
            let first = group * sb.inodes_per_group + 1;
            let old = self.volume.read_group(group)?;
            let moved = old.inode_bitmap != table.placement(group).inode_bitmap;
            let is_next = |number: &u32| number - first < sb.inodes_per_group;
            if !moved && taken.peek().is_none_or(|number| !is_next(number)) {
                continue;
            }
            let mut counts = table.counts(group);
            let mut bits = vec![0; sb.block_size as usize];
            if counts.flags & flags::INODE_UNINIT == 0 {
                let block =
                    self.volume.block(old.inode_bitmap, || format!("inode bitmap of group {group}"))?;
                bits.copy_from_slice(&block.bytes);
            }
            bitmap::fill(&mut bits, sb.inodes_per_group..sb.block_size * 8, true);
            let used = sb.inodes_per_group - counts.unused_inodes;
            let mut last = None;
            while let Some(number) = taken.next_if(is_next) {
                let index = number - first;
                bitmap::fill(&mut bits, index..index + 1, true);
                counts.free_inodes = counts.free_inodes.saturating_sub(1);
                counts.directories += u32::from(directories.contains(&number));
                last = Some(index);
            }
            if let Some(last) = last {
                if sb.group_checksums() {
                    if last >= used {
                        // What was never written counts as inodes from now on.
                        let at = self.inode_at(table, first + used);
                        let size = u64::from(sb.inode_size);
                        mkfs::zero(self.device, at, u64::from(last + 1 - used) * size)?;
                    }
                    counts.unused_inodes = counts.unused_inodes.min(sb.inodes_per_group - last - 1);
                }
                // The kernel has no inode in use in a group whose block bitmap was never written.
                counts.flags &= !(flags::INODE_UNINIT | flags::BLOCK_UNINIT);
            }
            table.set_counts(group, counts);
            table.write_inode_bitmap(group, &bits, self.device)?;
        }
        Ok(())
    }

    /// Writes the bitmaps of blocks, and counts what is free.
    fn write_block_bitmaps(&self, table: &mut DescriptorTable) -> Result<()> {
        let sb = &self.plan.new;
        for group in 0..sb.groups {
            let (start, end) = (sb.group_start(group), sb.group_end(group));
            let used = self.plan.space.used_in(start..end);
            let mut counts = table.counts(group);
            counts.free_blocks = narrow(end - start - used);
            let is_own = used == sb.own_blocks_in(group, table.placement(group));
            if !is_own || group + 1 == sb.groups {
                counts.flags &= !flags::BLOCK_UNINIT;
            }
            table.set_counts(group, counts);
            if counts.flags & flags::BLOCK_UNINIT != 0 {
                continue;
            }
            let mut bits = vec![0; sb.block_size as usize];
            for used in self.plan.space.within(start..end) {
                bitmap::fill(&mut bits, narrow(used.start - start)..narrow(used.end - start), true);
            }
            bitmap::fill(&mut bits, narrow(end - start)..sb.block_size * 8, true);
            table.write_block_bitmap(group, &bits, self.device)?;
        }
        Ok(())
    }

    /// Moves what an inode has, and writes it where it is to be.
    fn inode(&mut self, number: u32, table: &DescriptorTable) -> Result<()> {
        let volume = self.volume;
        let (mut bytes, mut inode) = self.plan.inode(volume, number)?;
        let to = self.number(number);
        let seed = checksum_seed(&self.plan.new, to, inode.generation);
        let renumbers = !self.plan.renumbered.is_empty();
        if content::has_map(volume, &inode) {
            let is_orphan_file = self.plan.new.compat.contains(Compat::ORPHAN_FILE)
                && number == self.plan.raw.orphan_file_inum.get();
            let (mut entries, mut nodes) = (Vec::new(), 0);
            walk::each(volume, &inode, &mut |owned| {
                match owned {
                    Owned::Node(_) => nodes += 1,
                    Owned::Data { logical, physical, len, written } => {
                        entries.push(Entry { block: logical, len, physical, unwritten: !written });
                    }
                }
                Ok(true)
            })?;
            for extent in &entries {
                if inode.is_dir() && renumbers {
                    self.directory(&inode, extent, seed)?;
                } else if is_orphan_file {
                    self.orphan_file(extent, seed)?;
                } else if !extent.unwritten {
                    let mut at = extent.physical;
                    for piece in self.plan.moves.pieces(extent.physical, extent.len) {
                        if piece.start != at {
                            self.copy(at, piece.start, piece.end - piece.start)?;
                        }
                        at += piece.end - piece.start;
                    }
                }
            }
            if inode.flags.contains(InodeFlags::EXTENTS) {
                if let Some(blocks) = self.plan.nodes.get(&number) {
                    let moved = self.moved(&entries);
                    self.extents(&mut inode, &moved, blocks, seed)?;
                    content::uncount(volume, &mut inode, nodes)?;
                    content::count(volume, &mut inode, blocks.len() as u64);
                }
            } else {
                self.block_map(&mut inode)?;
            }
        }
        if inode.xattr_block != 0 {
            let block = self.plan.moves.of(inode.xattr_block);
            if block != inode.xattr_block
                && self.attributes.insert(block)
                && let Some(held) = xattr::block_of(volume, &inode)?
            {
                let mut bytes = held.bytes.to_vec();
                xattr_edit::seal_block(&mut bytes, &self.plan.new, block);
                self.device.write_at(self.plan.new.byte_of(block), &bytes)?;
            }
            inode.xattr_block = block;
        }
        self.encode(&inode, &mut bytes, to)?;
        self.device.write_at(self.inode_at(table, to), &bytes)?;
        if let JournalPlace::Inode(journal) = self.plan.new.journal
            && journal == number
            && self.plan.raw.jnl_backup_type != 0
        {
            let fields = <[U32]>::ref_from_bytes(&inode.block).unwrap_or_default();
            for (to, from) in self.plan.raw.jnl_blocks.iter_mut().zip(fields) {
                *to = *from;
            }
        }
        Ok(())
    }

    /// Puts what changed into the bytes of an inode.
    fn encode(&self, inode: &Inode, bytes: &mut [u8], number: u32) -> Result<()> {
        let mut raw: RawInode = zerocopy::transmute!(with_fields(bytes));
        raw.block = inode.block;
        raw.file_acl_lo = U32::new((inode.xattr_block & 0xffff_ffff) as u32);
        raw.file_acl_high = U16::new((inode.xattr_block >> 32 & 0xffff) as u16);
        raw.flags = inode.encode_space(&mut raw, &self.plan.new)?.bits().into();
        let len = bytes.len().min(raw.as_bytes().len());
        bytes[..len].copy_from_slice(&raw.as_bytes()[..len]);
        inode_edit::seal(bytes, &self.plan.new, number);
        Ok(())
    }

    /// The number that an inode has afterwards.
    fn number(&self, before: u32) -> u32 {
        self.plan.renumbered.get(&before).map_or(before, |renumbered| renumbered.to)
    }

    /// The byte where an inode is afterwards.
    fn inode_at(&self, table: &DescriptorTable, number: u32) -> u64 {
        let sb = &self.plan.new;
        let (group, index) = ((number - 1) / sb.inodes_per_group, (number - 1) % sb.inodes_per_group);
        sb.byte_of(table.placement(group).inode_table) + u64::from(index) * u64::from(sb.inode_size)
    }

    /// Extents with their blocks where they are afterwards.
    fn moved(&self, entries: &[Entry]) -> Vec<Entry> {
        let mut moved = Vec::with_capacity(entries.len());
        for extent in entries {
            let mut block = extent.block;
            for piece in self.plan.moves.pieces(extent.physical, extent.len) {
                let len = piece.end - piece.start;
                moved.push(Entry { block, len, physical: piece.start, unwritten: extent.unwritten });
                block += len;
            }
        }
        moved
    }

    /// Writes an extent tree anew.
    fn extents(&self, inode: &mut Inode, entries: &[Entry], blocks: &[u64], seed: u32) -> Result<()> {
        let (root, nodes) = extent_edit::build(entries, blocks, seed, &self.plan.new)
            .ok_or_else(|| inode.corrupt("its extents need more blocks than were planned"))?;
        for (block, bytes) in nodes {
            self.device.write_at(self.plan.new.byte_of(block), &bytes)?;
        }
        inode.block = root;
        Ok(())
    }

    /// Changes the pointers of a block map.
    fn block_map(&self, inode: &mut Inode) -> Result<()> {
        for index in 0..I_BLOCK_SIZE / 4 {
            let field = 4 * index..4 * index + 4;
            let old = inode.block.get(field.clone()).and_then(|b| b.first_chunk()).copied();
            let levels = (index + 1).saturating_sub(DIRECT);
            let new = self.pointer(u32::from_le_bytes(old.unwrap_or_default()), levels)?;
            inode.block[field].copy_from_slice(&new.to_le_bytes());
        }
        Ok(())
    }

    /// Changes what a pointer leads to through `levels` indirect blocks; returns the new pointer.
    fn pointer(&self, pointer: u32, levels: usize) -> Result<u32> {
        if pointer == 0 {
            return Ok(0);
        }
        let to = self.plan.moves.of(pointer.into());
        // Blocks move to lower numbers only.
        let new = u32::try_from(to).unwrap_or(pointer);
        if levels > 0 {
            let held = self.volume.block(pointer.into(), || "indirect block".into())?;
            let mut bytes = held.bytes.to_vec();
            for child in <[U32]>::mut_from_bytes(&mut bytes).unwrap_or_default() {
                child.set(self.pointer(child.get(), levels - 1)?);
            }
            if new != pointer || *bytes != *held.bytes {
                self.device.write_at(self.plan.new.byte_of(to), &bytes)?;
            }
        }
        Ok(new)
    }

    /// Writes blocks of a directory where they are to be, with the new numbers.
    fn directory(&self, inode: &Inode, extent: &Entry, seed: u32) -> Result<()> {
        let (old, new) = (&self.volume.sb, &self.plan.new);
        for index in 0..extent.len {
            let (logical, physical) = (extent.block + index, extent.physical + index);
            let held = dir::block(self.volume, inode, logical, physical, extent.len - index)?;
            let mut bytes = held.bytes.to_vec();
            let list = dir::List { bytes: &held.bytes, inode: inode.number, offset: old.byte_of(physical) };
            for slot in list.slots(old) {
                let slot = slot?;
                let to = self.number(slot.inode);
                if to != slot.inode
                    && let Some(field) = bytes.get_mut(slot.start..slot.start + 4)
                {
                    field.copy_from_slice(&to.to_le_bytes());
                }
            }
            if dir::is_indexed(inode, old) && (logical == 0 || dir::fills(&bytes, old)) {
                htree_edit::seal(&mut bytes, htree::entries_start(logical), seed, new);
            } else {
                dir_edit::seal(&mut bytes, seed, new);
            }
            let to = self.plan.moves.of(physical);
            if to != physical || *bytes != *held.bytes {
                self.device.write_at(new.byte_of(to), &bytes)?;
            }
        }
        Ok(())
    }

    /// Writes blocks of the orphan file, whose checksums know where they are.
    fn orphan_file(&self, extent: &Entry, seed: u32) -> Result<()> {
        const TAIL: usize = 8;
        for block in extent.physical..extent.physical + extent.len {
            let held = self.volume.block(block, || "orphan file".into())?;
            let mut bytes = held.bytes.to_vec();
            let to = self.plan.moves.of(block);
            if self.plan.new.metadata_csum() {
                let Some((covered, tail)) = bytes.split_at_mut_checked(held.bytes.len() - TAIL) else {
                    return Err(corrupt("block of the orphan file", self.plan.new.byte_of(block)));
                };
                let crc = crc32c(crc32c(seed, &to.to_le_bytes()), covered);
                tail[4..].copy_from_slice(&crc.to_le_bytes());
            }
            self.device.write_at(self.plan.new.byte_of(to), &bytes)?;
        }
        Ok(())
    }

    fn copy(&self, from: u64, to: u64, blocks: u64) -> Result<()> {
        let sb = &self.plan.new;
        let at_once = (COPIED / u64::from(sb.block_size)).clamp(1, blocks.max(1));
        let mut buffer = vec![0; in_memory(sb.byte_of(at_once))];
        let mut done = 0;
        while done < blocks {
            let count = at_once.min(blocks - done);
            let piece = &mut buffer[..in_memory(sb.byte_of(count))];
            self.device.read_at(sb.byte_of(from + done), piece)?;
            self.device.write_at(sb.byte_of(to + done), piece)?;
            done += count;
        }
        Ok(())
    }
}

/// Where `i_block` is in an inode.
const _: () = assert!(offset_of!(RawInode, block) == crate::inode::I_BLOCK_START);
