//! The groups in memory.
//!
//! Once something is allocated or freed, all descriptors are held here, with what is known of their
//! bitmaps; the table and the superblock get the new counts when changes are written out. A bitmap is
//! verified before it is changed for the first time: its checksum, that it has all metadata in use, and
//! that it agrees with the descriptor's count. What contradicts itself is refused, as nothing can be
//! allocated safely from it.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, MutexGuard};

use vmcraft_fs::{Error, Result};

use crate::checksum::crc32c;
use crate::features::Incompat;
use crate::group::{Group, flags};
use crate::map::{OpenInode, RunKind};
use crate::superblock::{JournalPlace, START, Superblock};
use crate::volume::{Block, Volume};
use crate::{bitmap, corrupt, statfs};

/// More groups than this are not written: 128 TiB in blocks of 4 KiB. It bounds memory.
const MOST_GROUPS: u32 = 1 << 20;
/// A journal of more pieces than this is not looked after; real ones have a few.
const MOST_JOURNAL_RUNS: usize = 1 << 16;

/// A group in memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupState {
    pub(crate) group: Group,
    /// No block below this one, counted from the group's start, is free.
    pub(crate) first_free_block: u32,
    /// No run of free blocks is longer.
    pub(crate) longest_run: u32,
    /// No inode below this one, counted from the group's first, is free.
    pub(crate) first_free_inode: u32,
    pub(crate) blocks_verified: bool,
    pub(crate) inodes_verified: bool,
    /// The checksums of the bitmaps are to be made anew.
    pub(crate) blocks_changed: bool,
    pub(crate) inodes_changed: bool,
}

impl GroupState {
    /// How many free blocks can follow each other at most.
    pub(crate) fn most_in_a_run(&self) -> u32 {
        self.longest_run.min(self.group.free_clusters)
    }
}

/// All groups in memory.
pub(crate) struct Groups {
    pub(crate) states: Vec<GroupState>,
    /// The metadata of fixed place, in order.
    zones: Vec<Range<u64>>,
    pub(crate) free_blocks: u64,
    pub(crate) free_inodes: u64,
    pub(crate) used_dirs: u64,
    /// The groups that differ from the table of descriptors.
    changed: BTreeSet<u32>,
}

impl Groups {
    fn load(volume: &Volume) -> Result<Self> {
        let sb = &volume.sb;
        if sb.groups > MOST_GROUPS {
            return Err(Error::Unsupported(format!("changing a volume of over {MOST_GROUPS} groups")));
        }
        let mut groups = Self {
            states: Vec::new(),
            zones: Vec::new(),
            free_blocks: 0,
            free_inodes: 0,
            used_dirs: 0,
            changed: BTreeSet::new(),
        };
        for number in 0..sb.groups {
            let group = volume.read_group(number)?;
            check_group(&group, sb, number)?;
            groups.free_blocks += u64::from(group.free_clusters);
            groups.free_inodes += u64::from(group.free_inodes);
            groups.used_dirs += u64::from(group.used_dirs);
            let start = sb.group_start(number);
            groups.zones.extend([
                start..start + statfs::blocks_at_start(sb, number) + statfs::reserved_at_start(sb, number),
                group.block_bitmap..group.block_bitmap + 1,
                group.inode_bitmap..group.inode_bitmap + 1,
                group.inode_table..group.inode_table + u64::from(sb.inode_table_blocks()),
            ]);
            groups.states.push(GroupState {
                group,
                first_free_block: 0,
                longest_run: group.free_clusters,
                first_free_inode: 0,
                blocks_verified: false,
                inodes_verified: false,
                blocks_changed: false,
                inodes_changed: false,
            });
        }
        groups.zones.extend(journal_runs(volume)?);
        groups.zones.retain(|zone| !zone.is_empty());
        groups.zones.sort_unstable_by_key(|zone| zone.start);
        if let Some([_, zone]) =
            groups.zones.windows(2).find_map(|w| w.as_array::<2>().filter(|[a, b]| a.end > b.start))
        {
            let what = format!("group descriptors: block {} is metadata twice", zone.start);
            return Err(corrupt(what, sb.byte_of(zone.start)));
        }
        groups.zones.dedup_by(|next, zone| {
            let joins = zone.end == next.start;
            if joins {
                zone.end = next.end;
            }
            joins
        });
        Ok(groups)
    }

    /// The group, if there is such a one.
    pub(crate) fn get(&self, number: u32) -> Option<Group> {
        self.states.get(number as usize).map(|state| state.group)
    }

    /// The metadata of fixed place within `range`.
    pub(crate) fn zones_in(&self, range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let first = self.zones.partition_point(|zone| zone.end <= range.start);
        let zones = self.zones.get(first..).unwrap_or_default().iter();
        zones
            .take_while(move |zone| zone.start < range.end)
            .map(move |zone| zone.start.max(range.start)..zone.end.min(range.end))
    }

    /// Puts groups back as they were.
    pub(crate) fn restore(&mut self, groups: HashMap<u32, GroupState>) {
        for (number, before) in groups {
            let Some(state) = self.states.get_mut(number as usize) else { continue };
            let now = std::mem::replace(state, before).group;
            // The sums hold what each group has.
            let sum = |sum: u64, now: u32, before: u32| sum - u64::from(now) + u64::from(before);
            self.free_blocks = sum(self.free_blocks, now.free_clusters, before.group.free_clusters);
            self.free_inodes = sum(self.free_inodes, now.free_inodes, before.group.free_inodes);
            self.used_dirs = sum(self.used_dirs, now.used_dirs, before.group.used_dirs);
            self.changed.insert(number);
        }
    }
}

/// Where the journal is: no file may have its blocks.
fn journal_runs(volume: &Volume) -> Result<Vec<Range<u64>>> {
    let JournalPlace::Inode(number) = volume.sb.journal else { return Ok(Vec::new()) };
    let journal = OpenInode::new(volume.any_inode(number)?);
    let end = journal.size.div_ceil(volume.sb.block_size.into()).min(volume.sb.blocks);
    let mut runs = Vec::new();
    let mut block = 0;
    while block < end {
        let run = journal.run(volume, block)?;
        if let RunKind::Data(first) = run.kind {
            runs.push(first..first + run.len.min(end - block));
        }
        if runs.len() > MOST_JOURNAL_RUNS {
            return Err(Error::Unsupported(format!("a journal in over {MOST_JOURNAL_RUNS} pieces")));
        }
        block = run.end();
    }
    Ok(runs)
}

/// Refuses a descriptor that nothing can be allocated by.
fn check_group(group: &Group, sb: &Superblock, number: u32) -> Result<()> {
    let wrong = |what: String| {
        let index = number / sb.descriptors_per_block();
        let at = number % sb.descriptors_per_block() * u32::from(sb.descriptor_size);
        Err(corrupt(
            format!("descriptor of group {number}: {what}"),
            sb.byte_of(sb.descriptor_block(index)) + u64::from(at),
        ))
    };
    for (name, block) in [("block bitmap", group.block_bitmap), ("inode bitmap", group.inode_bitmap)] {
        if !sb.holds(block, 1) {
            return wrong(format!("{name} at block {block}"));
        }
    }
    let blocks = sb.blocks_in_group(number);
    if group.free_clusters > blocks {
        return wrong(format!("{} free blocks, of {blocks}", group.free_clusters));
    }
    let inodes = sb.inodes_per_group;
    if group.free_inodes > inodes || group.unused_inodes > group.free_inodes {
        let (free, unused) = (group.free_inodes, group.unused_inodes);
        return wrong(format!("{free} free inodes, {unused} of them never used, of {inodes}"));
    }
    if group.used_dirs > inodes - group.free_inodes {
        return wrong(format!("{} directories in {} inodes", group.used_dirs, inodes - group.free_inodes));
    }
    Ok(())
}

impl Superblock {
    /// How many blocks a group has: the last may be shorter.
    pub(crate) fn blocks_in_group(&self, group: u32) -> u32 {
        let left = self.blocks.saturating_sub(self.group_start(group));
        u32::try_from(left).unwrap_or(u32::MAX).min(self.blocks_per_group)
    }

    /// Whether a bitmap's checksum is the one stored, of which small descriptors have half.
    pub(crate) fn bitmap_checksum_is(&self, found: u32, stored: u32) -> bool {
        if self.descriptor_size >= 64 { found == stored } else { found & 0xffff == stored & 0xffff }
    }
}

impl Volume {
    pub(crate) fn lock_groups(&self) -> MutexGuard<'_, Option<Groups>> {
        // What a panic leaves half done, `roll_back` undoes.
        self.groups.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Does something with the groups, which come into memory for it.
    pub(crate) fn with_groups<T>(&self, act: impl FnOnce(&mut Groups) -> Result<T>) -> Result<T> {
        if self.lock_groups().is_none() {
            // Who changes something is alone with the volume: no one loads them meanwhile.
            let groups = Groups::load(self)?;
            *self.lock_groups() = Some(groups);
        }
        let mut groups = self.lock_groups();
        let Some(groups) = &mut *groups else {
            return Err(corrupt("group descriptors: they are not in memory", START));
        };
        act(groups)
    }

    /// A group that is about to change. What it was is set aside.
    pub(crate) fn change_group<'a>(&self, groups: &'a mut Groups, number: u32) -> Result<&'a mut GroupState> {
        let sb = &self.sb;
        let Some(state) = groups.states.get_mut(number as usize) else {
            return Err(corrupt(format!("group {number} of {}", sb.groups), START));
        };
        self.edits.keep_group(number, *state);
        groups.changed.insert(number);
        Ok(state)
    }

    /// The block bitmap of a group, verified; one that was never written is made.
    pub(crate) fn block_bitmap(&self, groups: &mut Groups, number: u32) -> Result<Arc<Block>> {
        let Some(&GroupState { group, blocks_verified, .. }) = groups.states.get(number as usize) else {
            return Err(corrupt(format!("group {number} of {}", self.sb.groups), START));
        };
        let what = || format!("block bitmap of group {number}");
        if blocks_verified {
            return self.block(group.block_bitmap, what);
        }
        let never_written = group.flags & flags::BLOCK_UNINIT != 0;
        let block = if never_written {
            Block::new(self.first_block_bitmap(groups, number))
        } else {
            self.block(group.block_bitmap, what)?
        };
        self.verify_block_bitmap(groups, number, &block.bytes)?;
        if never_written {
            self.put(group.block_bitmap, block.bytes.clone())?;
            let state = self.change_group(groups, number)?;
            state.group.flags &= !flags::BLOCK_UNINIT;
            state.blocks_changed = true;
        }
        if let Some(state) = groups.states.get_mut(number as usize) {
            state.blocks_verified = true;
        }
        Ok(block)
    }

    /// The block bitmap of a group, verified. One that was never written stays so.
    pub(crate) fn free_in_group(&self, number: u32) -> Result<Box<[u8]>> {
        self.with_groups(|groups| {
            let never_written = groups.get(number).is_some_and(|g| g.flags & flags::BLOCK_UNINIT != 0);
            if never_written {
                return Ok(self.first_block_bitmap(groups, number));
            }
            Ok(self.block_bitmap(groups, number)?.bytes.clone())
        })
    }

    /// What the block bitmap of a group is before any block is allocated.
    fn first_block_bitmap(&self, groups: &Groups, number: u32) -> Box<[u8]> {
        let sb = &self.sb;
        let mut bits = vec![0; sb.block_size as usize].into_boxed_slice();
        for run in groups.metadata_of(sb, number) {
            bitmap::fill(&mut bits, run, true);
        }
        bitmap::fill(&mut bits, sb.blocks_in_group(number)..sb.block_size * 8, true);
        bits
    }

    fn verify_block_bitmap(&self, groups: &Groups, number: u32, bits: &[u8]) -> Result<()> {
        let sb = &self.sb;
        let Some(group) = groups.get(number) else { return Ok(()) };
        let wrong = |what: String| {
            Err(corrupt(format!("block bitmap of group {number}: {what}"), sb.byte_of(group.block_bitmap)))
        };
        if sb.metadata_csum() && group.flags & flags::BLOCK_UNINIT == 0 {
            let found = self.block_bitmap_checksum(bits);
            if !sb.bitmap_checksum_is(found, group.block_bitmap_checksum) {
                let stored = group.block_bitmap_checksum;
                return wrong(format!("checksum is {stored:#x}, its content gives {found:#x}"));
            }
        }
        for run in groups.metadata_of(sb, number) {
            let free = bitmap::next_clear(bits, run.clone());
            if free < run.end {
                let block = sb.group_start(number) + u64::from(free);
                return wrong(format!("block {block} is metadata, but marked as free"));
            }
        }
        let free = bitmap::count_clear(bits, sb.blocks_in_group(number));
        if free != group.free_clusters {
            let counted = group.free_clusters;
            return wrong(format!("it has {free} free blocks, but the group's descriptor says {counted}"));
        }
        Ok(())
    }

    fn block_bitmap_checksum(&self, bits: &[u8]) -> u32 {
        let covered = bits.get(..self.sb.blocks_per_group as usize / 8).unwrap_or(bits);
        crc32c(self.sb.checksum_seed, covered)
    }

    pub(crate) fn inode_bitmap_checksum(&self, bits: &[u8]) -> u32 {
        let covered = bits.get(..self.sb.inodes_per_group as usize / 8).unwrap_or(bits);
        crc32c(self.sb.checksum_seed, covered)
    }

    /// Brings the changed groups into the table of descriptors, and their sums into the superblock.
    pub(crate) fn write_groups(&self) -> Result<()> {
        let sb = &self.sb;
        let mut groups = self.lock_groups();
        let Some(groups) = &mut *groups else { return Ok(()) };
        if groups.changed.is_empty() {
            return Ok(());
        }
        for &number in &groups.changed {
            let Some(state) = groups.states.get_mut(number as usize) else { continue };
            if sb.metadata_csum() && state.blocks_changed {
                let bits =
                    self.block(state.group.block_bitmap, || format!("block bitmap of group {number}"))?;
                state.group.block_bitmap_checksum = self.block_bitmap_checksum(&bits.bytes);
            }
            if sb.metadata_csum() && state.inodes_changed {
                let bits =
                    self.block(state.group.inode_bitmap, || format!("inode bitmap of group {number}"))?;
                state.group.inode_bitmap_checksum = self.inode_bitmap_checksum(&bits.bytes);
            }
            (state.blocks_changed, state.inodes_changed) = (false, false);
            let block = sb.descriptor_block(number / sb.descriptors_per_block());
            let size = usize::from(sb.descriptor_size);
            let start = (number % sb.descriptors_per_block()) as usize * size;
            self.edit(
                block,
                || format!("descriptor of group {number}"),
                |bytes| {
                    state.group.encode(&mut bytes[start..start + size], sb, number);
                    Ok(())
                },
            )?;
        }
        groups.changed.clear();
        let (free_blocks, free_inodes) = (groups.free_blocks, groups.free_inodes);
        self.edit_superblock(|raw| {
            raw.free_blocks_count_lo = ((free_blocks & 0xffff_ffff) as u32).into();
            if sb.incompat.contains(Incompat::SIXTY_FOUR_BIT) {
                raw.free_blocks_count_hi = ((free_blocks >> 32) as u32).into();
            }
            // Inodes are counted in 32 bits.
            raw.free_inodes_count = u32::try_from(free_inodes).unwrap_or(u32::MAX).into();
        })
    }
}

impl Groups {
    /// The metadata of fixed place in a group, counted from the group's start.
    fn metadata_of(&self, sb: &Superblock, number: u32) -> impl Iterator<Item = Range<u32>> {
        let start = sb.group_start(number);
        let end = start + u64::from(sb.blocks_in_group(number));
        // Within a group, whose blocks are counted in 32 bits.
        let within = move |block: u64| u32::try_from(block - start).unwrap_or(u32::MAX);
        self.zones_in(start..end).map(move |zone| within(zone.start)..within(zone.end))
    }
}
