//! Comparing bitmaps and counts with what was found.

use vmcraft_fs::Result;

use super::Check;
use crate::bitmap;
use crate::checksum::crc32c;
use crate::group::{Group, flags};
use crate::mkfs::layout::Placement;

impl Check<'_> {
    /// Compares the bitmaps and counts of all groups, then their sums in the superblock.
    pub(super) fn compare_bitmaps(&mut self) -> Result<()> {
        let sb = &self.volume.sb;
        let (mut free_blocks, mut free_inodes) = (0, 0);
        let mut is_complete = true;
        for number in 0..sb.groups {
            let Some(group) = self.groups.get(number as usize).copied().flatten() else {
                is_complete = false;
                continue;
            };
            let free = self.block_bitmap(number, &group)?;
            let (unused, directories) = self.inode_bitmap(number, &group)?;
            free_blocks += u64::from(free);
            free_inodes += u64::from(unused);
            for (what, stored, found) in [
                ("free blocks", group.free_clusters, free),
                ("free inodes", group.free_inodes, unused),
                ("directories", group.used_dirs, directories),
            ] {
                if stored != found {
                    self.findings.add_soft(format!(
                        "group {number}: it says that it has {stored} {what}, and has {found}"
                    ));
                    self.fixes.counts.insert(number, (free, unused, directories));
                }
            }
        }
        let stored = u64::from(self.raw.free_blocks_count_hi.get()) << 32
            | u64::from(self.raw.free_blocks_count_lo.get());
        // The kernel brings these two up to date only when it unmounts.
        let stored_inodes = u64::from(self.raw.free_inodes_count.get());
        for (what, stored, found) in
            [("free blocks", stored, free_blocks), ("free inodes", stored_inodes, free_inodes)]
        {
            if stored != found && is_complete {
                self.findings.add_soft(format!(
                    "superblock: it says that there are {stored} {what}, and there are {found}"
                ));
            }
        }
        Ok(())
    }

    /// Compares a group's block bitmap; says how many blocks should be free.
    fn block_bitmap(&mut self, number: u32, group: &Group) -> Result<u32> {
        let sb = &self.volume.sb;
        let (start, len) = (sb.group_start(number), sb.blocks_in_group(number));
        let mut right = vec![0; sb.block_size as usize];
        for index in (0..len).filter(|index| self.claims.is_claimed(start + u64::from(*index))) {
            bitmap::fill(&mut right, index..index + 1, true);
        }
        let free = bitmap::count_clear(&right, len);
        bitmap::fill(&mut right, len..sb.block_size * 8, true);
        if group.flags & flags::BLOCK_UNINIT != 0 {
            // Then only metadata may be in use.
            let placement = Placement {
                block_bitmap: group.block_bitmap,
                inode_bitmap: group.inode_bitmap,
                inode_table: group.inode_table,
            };
            let own = sb.own_blocks_in(number, placement);
            if u64::from(len - free) != own {
                self.findings.add_soft(format!(
                    "group {number}: its block bitmap was never written, but {} of its blocks are in use",
                    len - free
                ));
                self.fixes.block_bitmaps.insert(number, right);
            }
            return Ok(free);
        }
        if !sb.holds(group.block_bitmap, 1) {
            return Ok(free);
        }
        let block = self.volume.block(group.block_bitmap, || format!("block bitmap of group {number}"))?;
        let covered = (sb.blocks_per_group / 8) as usize;
        self.bitmap_checksum(number, "block", &block.bytes, covered, group.block_bitmap_checksum);
        if let Some(what) = difference(&block.bytes, &right, len) {
            let at = start + u64::from(what.first);
            self.findings.add_soft(format!(
                "group {number}: its block bitmap is wrong for {} blocks, block {at} first, which is {}",
                what.count,
                if what.is_used { "in use" } else { "free" }
            ));
            self.fixes.block_bitmaps.insert(number, right);
        } else if *block.bytes != *right {
            self.findings
                .add_soft(format!("group {number}: the end of its block bitmap is not padded with ones"));
            self.fixes.block_bitmaps.insert(number, right);
        }
        Ok(free)
    }

    /// Compares a group's inode bitmap; says how many inodes should be free, and how many are
    /// directories.
    fn inode_bitmap(&mut self, number: u32, group: &Group) -> Result<(u32, u32)> {
        let sb = &self.volume.sb;
        let len = sb.inodes_per_group;
        let mut right = vec![0; sb.block_size as usize];
        let mut directories = 0;
        for (index, fact) in (0..).zip(self.facts.group(number).unwrap_or_default()) {
            if fact.in_use {
                bitmap::fill(&mut right, index..index + 1, true);
                let inode = number * len + index + 1;
                directories += u32::from(self.directories.contains_key(&inode));
            }
        }
        let free = bitmap::count_clear(&right, len);
        bitmap::fill(&mut right, len..sb.block_size * 8, true);
        if group.flags & flags::INODE_UNINIT != 0 || !sb.holds(group.inode_bitmap, 1) {
            return Ok((free, directories));
        }
        let block = self.volume.block(group.inode_bitmap, || format!("inode bitmap of group {number}"))?;
        let covered = (len / 8) as usize;
        self.bitmap_checksum(number, "inode", &block.bytes, covered, group.inode_bitmap_checksum);
        if let Some(what) = difference(&block.bytes, &right, len) {
            let inode = number * len + what.first + 1;
            self.findings.add_soft(format!(
                "group {number}: its inode bitmap is wrong for {} inodes, inode {inode} first, which is {}",
                what.count,
                if what.is_used { "in use" } else { "free" }
            ));
            self.fixes.inode_bitmaps.insert(number, right);
        } else if *block.bytes != *right {
            self.findings
                .add_soft(format!("group {number}: the end of its inode bitmap is not padded with ones"));
            self.fixes.inode_bitmaps.insert(number, right);
        }
        Ok((free, directories))
    }

    fn bitmap_checksum(&mut self, number: u32, which: &str, bytes: &[u8], covered: usize, stored: u32) {
        let sb = &self.volume.sb;
        if !sb.metadata_csum() {
            return;
        }
        let found = crc32c(sb.checksum_seed, bytes.get(..covered).unwrap_or(bytes));
        if !sb.bitmap_checksum_is(found, stored) {
            self.findings.add_soft(format!(
                "group {number}: the checksum of its {which} bitmap is {stored:#x}, its content gives {found:#x}"
            ));
            let copy = bytes.to_vec();
            match which {
                "block" => self.fixes.block_bitmaps.entry(number).or_insert(copy),
                _ => self.fixes.inode_bitmaps.entry(number).or_insert(copy),
            };
        }
    }
}

/// Where two bitmaps differ.
struct Difference {
    first: u32,
    count: u32,
    /// What the first should be.
    is_used: bool,
}

/// Compares the first `len` bits.
fn difference(stored: &[u8], right: &[u8], len: u32) -> Option<Difference> {
    let differ: Vec<u8> = stored.iter().zip(right).map(|(a, b)| a ^ b).collect();
    let first = bitmap::next_set(&differ, 0..len);
    let is_used = right.get(first as usize / 8).is_some_and(|byte| byte >> (first % 8) & 1 == 1);
    (first < len).then(|| Difference { first, count: len - bitmap::count_clear(&differ, len), is_used })
}
