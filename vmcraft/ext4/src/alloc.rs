//! The allocation of blocks.

use std::ops::Range;

use vmcraft_fs::{Error, FileType, Result};

use crate::groups::Groups;
use crate::inode::Inode;
use crate::superblock::{START, Superblock};
use crate::volume::Volume;
use crate::{bitmap, corrupt};

/// A search is content with a run of so many blocks when more are wanted.
const ENOUGH: u32 = 2048;
/// The shortest piece of a longer request that is taken right at the goal.
const SHORTEST_AT_GOAL: u32 = 16;
/// From so many groups together on, the kernel keeps directories in the first of them.
const FLEX_FOR_DIRECTORIES: u32 = 4;

impl Superblock {
    /// The group of a block that is within the volume, and its place there.
    fn place_of(&self, block: u64) -> Result<(u32, u32)> {
        let index = block.saturating_sub(self.first_data_block.into());
        let per_group = u64::from(self.blocks_per_group);
        match (u32::try_from(index / per_group), u32::try_from(index % per_group)) {
            (Ok(group), Ok(within)) if group < self.groups => Ok((group, within)),
            _ => Err(corrupt(format!("block number {block} of {}", self.blocks), START)),
        }
    }
}

impl Volume {
    /// Where blocks for an inode's content are looked for first: in its group. Where groups have their
    /// metadata together, the first of them is for directories and the next one for files.
    pub(crate) fn block_goal(&self, inode: &Inode) -> u64 {
        let sb = &self.sb;
        let mut group = (inode.number.max(1) - 1) / sb.inodes_per_group;
        if sb.flex_groups >= FLEX_FOR_DIRECTORIES {
            group -= group % sb.flex_groups;
            if inode.file_type == FileType::Regular && group + 1 < sb.groups {
                group += 1;
            }
        }
        sb.group_start(group)
    }

    /// Allocates from 1 to `want` blocks that follow each other, at `goal` or near it: all of them if
    /// the volume has such a run not far away, else a long one. `NoSpace` if none is free.
    ///
    /// Reserved blocks are given away like others, as the kernel does for the superuser. Blocks that
    /// the same operation freed may be among them, so it must not write to the device what it could
    /// have to take back.
    pub(crate) fn allocate_blocks(&self, goal: u64, want: u32) -> Result<Range<u64>> {
        let sb = &self.sb;
        let want = want.max(1);
        let goal = goal.clamp(sb.first_data_block.into(), sb.blocks - 1);
        let (goal_group, within) = sb.place_of(goal)?;
        self.with_groups(|groups| {
            if groups.free_blocks == 0 {
                return Err(Error::NoSpace("all blocks are in use"));
            }
            let enough = want.min(ENOUGH);
            let in_order = || (goal_group..sb.groups).chain(0..goal_group);
            for number in in_order() {
                let Some(state) = groups.states.get(number as usize) else { continue };
                let at_goal = number == goal_group && state.group.free_clusters > 0;
                if state.most_in_a_run() < enough && !at_goal {
                    continue;
                }
                let from = if number == goal_group { within } else { 0 };
                if let Some(run) = self.find_run(groups, number, from, want, enough, at_goal)? {
                    return self.take_blocks(groups, number, run);
                }
            }
            // No group has enough. What each can have at most may be too high an estimate, which looking
            // there corrects.
            loop {
                let (number, longest) = in_order()
                    .filter_map(|n| groups.states.get(n as usize).map(|s| (n, s.most_in_a_run())))
                    .fold((0, 0), |best, (n, run)| if run > best.1 { (n, run) } else { best });
                if longest == 0 {
                    return Err(Error::NoSpace("all blocks are in use"));
                }
                let enough = (longest / 2).clamp(1, want);
                if let Some(run) = self.find_run(groups, number, 0, want, enough, false)? {
                    return self.take_blocks(groups, number, run);
                }
            }
        })
    }

    /// Looks in a group for `want` free blocks that follow each other, from block `from` of it; or for
    /// the longest run, if it has `enough`.
    fn find_run(
        &self,
        groups: &mut Groups,
        number: u32,
        from: u32,
        want: u32,
        enough: u32,
        at_goal: bool,
    ) -> Result<Option<Range<u32>>> {
        let bits = self.block_bitmap(groups, number)?;
        let bits = &bits.bytes;
        let len = self.sb.blocks_in_group(number);
        let Some(state) = groups.states.get_mut(number as usize) else { return Ok(None) };
        if at_goal {
            let end = bitmap::next_set(bits, from..from.saturating_add(want).min(len));
            if end - from >= want.min(SHORTEST_AT_GOAL) {
                return Ok(Some(from..end));
            }
        }
        let low = state.first_free_block;
        let mut longest = 0..0;
        for run in bitmap::clear_runs(bits, from.max(low)..len) {
            if run.len() >= want as usize {
                return Ok(Some(run.start..run.start + want));
            }
            if run.len() > longest.len() {
                longest = run;
            }
        }
        // A run that begins before `from` and goes on behind it is seen whole only here.
        for run in bitmap::clear_runs(bits, low..len).take_while(|run| run.start < from) {
            if run.len() >= want as usize {
                return Ok(Some(run.start..run.start + want));
            }
            if run.len() > longest.len() {
                longest = run;
            }
        }
        state.longest_run = longest.end - longest.start;
        Ok(Some(longest).filter(|run| !run.is_empty() && run.len() >= enough as usize))
    }

    /// Marks free blocks of a group as in use.
    fn take_blocks(&self, groups: &mut Groups, number: u32, run: Range<u32>) -> Result<Range<u64>> {
        let count = run.end - run.start;
        let state = self.change_group(groups, number)?;
        let marked = run.clone();
        self.edit(
            state.group.block_bitmap,
            || format!("block bitmap of group {number}"),
            |bits| {
                bitmap::fill(bits, marked, true);
                Ok(())
            },
        )?;
        state.blocks_changed = true;
        // The bitmap was held against the count, which therefore has these.
        state.group.free_clusters -= count;
        if run.start <= state.first_free_block {
            state.first_free_block = run.end;
        }
        groups.free_blocks -= u64::from(count);
        let first = self.sb.group_start(number) + u64::from(run.start);
        Ok(first..first + u64::from(count))
    }

    /// Frees blocks, and forgets what is in memory of them. Blocks that are free already, or that are
    /// metadata of fixed place, are `Corrupt`, and nothing changes.
    pub(crate) fn free_blocks(&self, first: u64, count: u64) -> Result<()> {
        let sb = &self.sb;
        if !sb.holds(first, count) {
            let what = format!(
                "blocks {first} to {} are to be freed, of {}",
                first.saturating_add(count),
                sb.blocks
            );
            return Err(corrupt(what, START));
        }
        self.with_groups(|groups| {
            let end = first + count;
            if let Some(zone) = groups.zones_in(first..end).next() {
                let what = format!("block {} is to be freed, but is the file system's own", zone.start);
                return Err(corrupt(what, sb.byte_of(zone.start)));
            }
            let mut pieces = Vec::new();
            let mut at = first;
            while at < end {
                let (number, start) = sb.place_of(at)?;
                let len = u64::from(sb.blocks_in_group(number) - start).min(end - at);
                // At most the blocks of a group.
                let run = start..start + u32::try_from(len).unwrap_or(u32::MAX);
                let bits = self.block_bitmap(groups, number)?;
                let free = bitmap::next_clear(&bits.bytes, run.clone());
                if free < run.end {
                    let block = sb.group_start(number) + u64::from(free);
                    let what = format!("block {block} is to be freed, but is free already");
                    return Err(corrupt(what, sb.byte_of(block)));
                }
                pieces.push((number, run));
                at += len;
            }
            for (number, run) in pieces {
                let count = run.end - run.start;
                let state = self.change_group(groups, number)?;
                let cleared = run.clone();
                self.edit(
                    state.group.block_bitmap,
                    || format!("block bitmap of group {number}"),
                    |bits| {
                        bitmap::fill(bits, cleared, false);
                        Ok(())
                    },
                )?;
                state.blocks_changed = true;
                state.group.free_clusters += count;
                state.first_free_block = state.first_free_block.min(run.start);
                // It may join the runs before and behind it.
                let joined = state.longest_run.saturating_mul(2).saturating_add(count);
                state.longest_run = joined.min(state.group.free_clusters);
                groups.free_blocks += u64::from(count);
            }
            Ok(())
        })?;
        self.forget(first, count);
        Ok(())
    }
}
