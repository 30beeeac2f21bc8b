//! The allocation of inodes: in which group, and which of its inodes.
//!
//! As the kernel does it, after Orlov: directories right below the root go to groups with much room and
//! few directories, so that what belongs together has room to stay together; others stay near their
//! parent, unless it is crowded there. Files go to their directory's group.

use std::ops::Range;
use std::sync::Arc;

use vmcraft_fs::{Error, Result};

use crate::bitmap;
use crate::corrupt;
use crate::group::flags;
use crate::groups::{GroupState, Groups};
use crate::inode::{Inode, InodeFlags, ROOT};
use crate::superblock::START;
use crate::volume::{Block, Volume};

const ALL_IN_USE: Error = Error::NoSpace("all inodes are in use");

/// What groups that have their metadata together have in all.
struct Room {
    free_inodes: u64,
    free_blocks: u64,
    used_dirs: u64,
}

impl Volume {
    /// Allocates an inode for a new file in `parent`. Its bytes on the disk are undefined.
    pub(crate) fn allocate_inode(&self, parent: &Inode, is_dir: bool) -> Result<u32> {
        self.with_groups(|groups| {
            let number = if is_dir {
                self.group_for_directory(groups, parent)
            } else {
                self.group_for_file(groups, parent)
            };
            self.take_inode(groups, number.ok_or(ALL_IN_USE)?, is_dir)
        })
    }

    /// The group of an inode.
    fn group_of_inode(&self, number: u32) -> u32 {
        (number.max(1) - 1) / self.sb.inodes_per_group
    }

    /// The groups that have their metadata together with group `number`.
    fn flex_of(&self, number: u32) -> Range<u32> {
        let start = number - number % self.sb.flex_groups;
        start..start.saturating_add(self.sb.flex_groups).min(self.sb.groups)
    }

    fn group_for_file(&self, groups: &Groups, parent: &Inode) -> Option<u32> {
        let sb = &self.sb;
        let near = self.group_of_inode(parent.number);
        if sb.flex_groups > 1 {
            return first_with_inodes(groups, self.flex_of(near)).or_else(|| self.group_near(groups, near));
        }
        let has_both = |number: &u32| {
            let group = groups.get(*number);
            group.is_some_and(|group| group.free_inodes > 0 && group.free_clusters > 0)
        };
        // Directories that share a group spread their files when it is full.
        let start = (u64::from(near) + u64::from(parent.number)) % u64::from(sb.groups);
        let steps = (0..32).map(|i| 1u64 << i).take_while(|step| *step < u64::from(sb.groups));
        let mut at = start;
        let probed = steps.map(|step| {
            at = (at + step) % u64::from(sb.groups);
            u32::try_from(at).unwrap_or(near)
        });
        std::iter::once(near)
            .chain(probed)
            .find(has_both)
            .or_else(|| first_with_inodes(groups, near..sb.groups))
            .or_else(|| first_with_inodes(groups, 0..near))
    }

    fn group_for_directory(&self, groups: &Groups, parent: &Inode) -> Option<u32> {
        let near = self.group_of_inode(parent.number);
        if parent.number != ROOT && !parent.flags.contains(InodeFlags::TOPDIR) {
            return self.group_near(groups, near);
        }
        let flexes = self.flexes();
        let average = average(groups, flexes);
        let start = u64::from(u32::from_le_bytes(self.sources.random())) % u64::from(flexes);
        let start = u32::try_from(start).unwrap_or(0);
        (start..flexes)
            .chain(0..start)
            .map(|flex| self.flex_of(flex * self.sb.flex_groups))
            .map(|range| (room(groups, range.clone()), range))
            .filter(|(room, _)| {
                room.free_inodes > 0
                    && room.free_inodes >= average.free_inodes
                    && room.free_blocks >= average.free_blocks
            })
            .min_by_key(|(room, _)| room.used_dirs)
            .and_then(|(_, range)| first_with_inodes(groups, range))
            .or_else(|| self.group_near(groups, near))
    }

    /// A group at or behind `near` that is not crowded, or any that has an inode.
    fn group_near(&self, groups: &Groups, near: u32) -> Option<u32> {
        let sb = &self.sb;
        let flexes = self.flexes();
        let average = average(groups, flexes);
        let (inodes, blocks) = (
            u64::from(sb.inodes_per_group) * u64::from(sb.flex_groups),
            u64::from(sb.blocks_per_group) * u64::from(sb.flex_groups),
        );
        let least_inodes = average.free_inodes.saturating_sub(inodes / 4).max(1);
        let least_blocks = average.free_blocks.saturating_sub(blocks / 4);
        let most_dirs = average.used_dirs + inodes / 16;
        let start = near / sb.flex_groups;
        let in_order = || (start..flexes).chain(0..start).map(|flex| self.flex_of(flex * sb.flex_groups));
        in_order()
            .find(|range| {
                let room = room(groups, range.clone());
                room.free_inodes >= least_inodes
                    && room.free_blocks >= least_blocks
                    && room.used_dirs < most_dirs.max(1)
            })
            .and_then(|range| first_with_inodes(groups, range))
            .or_else(|| in_order().find_map(|range| first_with_inodes(groups, range)))
    }

    /// How many sets of groups have their metadata together.
    fn flexes(&self) -> u32 {
        self.sb.groups.div_ceil(self.sb.flex_groups)
    }

    /// Takes the first free inode of a group.
    fn take_inode(&self, groups: &mut Groups, number: u32, is_dir: bool) -> Result<u32> {
        let sb = &self.sb;
        let bits = self.inode_bitmap(groups, number)?;
        // The kernel has no inode in use in a group whose block bitmap was never written.
        self.block_bitmap(groups, number)?;
        let state = self.change_group(groups, number)?;
        let reserved = if number == 0 { sb.first_inode - 1 } else { 0 };
        let first = state.first_free_inode.max(reserved);
        let index = bitmap::next_clear(&bits.bytes, first..sb.inodes_per_group);
        if index >= sb.inodes_per_group {
            let what = format!("inode bitmap of group {number}: only reserved inodes are free");
            return Err(corrupt(what, sb.byte_of(state.group.inode_bitmap)));
        }
        drop(bits);
        self.edit(
            state.group.inode_bitmap,
            || format!("inode bitmap of group {number}"),
            |bits| {
                bitmap::fill(bits, index..index + 1, true);
                Ok(())
            },
        )?;
        state.inodes_changed = true;
        state.first_free_inode = index + 1;
        // The bitmap was held against the count, which therefore has this one.
        state.group.free_inodes -= 1;
        if is_dir {
            state.group.used_dirs += 1;
        }
        if sb.group_checksums() {
            let used = sb.inodes_per_group - state.group.unused_inodes;
            if index >= used {
                // What is there was never written, but counts as inodes from now on.
                let group = *state;
                for index in used..index {
                    self.zero_inode(&group, number, index)?;
                }
                state.group.unused_inodes = sb.inodes_per_group - index - 1;
            }
        }
        groups.free_inodes -= 1;
        groups.used_dirs += u64::from(is_dir);
        Ok(number * sb.inodes_per_group + index + 1)
    }

    /// Fills an inode with zeros.
    fn zero_inode(&self, state: &GroupState, group: u32, index: u32) -> Result<()> {
        let sb = &self.sb;
        let byte = u64::from(index) * u64::from(sb.inode_size);
        let block = state.group.inode_table + byte / u64::from(sb.block_size);
        // Less than a block.
        let start = crate::in_memory(byte % u64::from(sb.block_size));
        self.edit(
            block,
            || format!("inode table of group {group}"),
            |bytes| {
                bytes[start..start + usize::from(sb.inode_size)].fill(0);
                Ok(())
            },
        )
    }

    /// Gives an inode back that has nothing any more. `Corrupt` if it is free already or reserved, and
    /// nothing changes.
    pub(crate) fn free_inode(&self, number: u32, is_dir: bool) -> Result<()> {
        let sb = &self.sb;
        if number < sb.first_inode || number > sb.inodes {
            return Err(corrupt(format!("inode {number} is to be freed, of {}", sb.inodes), START));
        }
        let (group, index) = (self.group_of_inode(number), (number - 1) % sb.inodes_per_group);
        self.with_groups(|groups| {
            let bits = self.inode_bitmap(groups, group)?;
            let state = self.change_group(groups, group)?;
            let wrong = |what: &str| {
                Err(corrupt(
                    format!("inode bitmap of group {group}: {what}"),
                    sb.byte_of(state.group.inode_bitmap),
                ))
            };
            if bitmap::next_set(&bits.bytes, index..index + 1) > index {
                return wrong(&format!("inode {number} is to be freed, but is free already"));
            }
            if is_dir && state.group.used_dirs == 0 {
                return wrong(&format!("inode {number} is a directory of a group that has none"));
            }
            drop(bits);
            self.edit(
                state.group.inode_bitmap,
                || format!("inode bitmap of group {group}"),
                |bits| {
                    bitmap::fill(bits, index..index + 1, false);
                    Ok(())
                },
            )?;
            state.inodes_changed = true;
            state.first_free_inode = state.first_free_inode.min(index);
            state.group.free_inodes += 1;
            state.group.used_dirs -= u32::from(is_dir);
            groups.free_inodes += 1;
            groups.used_dirs -= u64::from(is_dir);
            Ok(())
        })?;
        self.mark_deleted(number)
    }

    /// The inode bitmap of a group, verified; one that was never written is made.
    fn inode_bitmap(&self, groups: &mut Groups, number: u32) -> Result<Arc<Block>> {
        let sb = &self.sb;
        let Some(&GroupState { group, inodes_verified, .. }) = groups.states.get(number as usize) else {
            return Err(corrupt(format!("group {number} of {}", sb.groups), START));
        };
        let what = || format!("inode bitmap of group {number}");
        if inodes_verified {
            return self.block(group.inode_bitmap, what);
        }
        let never_written = group.flags & flags::INODE_UNINIT != 0;
        let block = if never_written {
            let mut bits = vec![0; sb.block_size as usize].into_boxed_slice();
            bitmap::fill(&mut bits, sb.inodes_per_group..sb.block_size * 8, true);
            Block::new(bits)
        } else {
            self.block(group.inode_bitmap, what)?
        };
        let wrong = |what: String| {
            Err(corrupt(format!("inode bitmap of group {number}: {what}"), sb.byte_of(group.inode_bitmap)))
        };
        if sb.metadata_csum() && !never_written {
            let found = self.inode_bitmap_checksum(&block.bytes);
            let stored = group.inode_bitmap_checksum;
            if !sb.bitmap_checksum_is(found, stored) {
                return wrong(format!("checksum is {stored:#x}, its content gives {found:#x}"));
            }
        }
        let free = bitmap::count_clear(&block.bytes, sb.inodes_per_group);
        if free != group.free_inodes {
            let counted = group.free_inodes;
            return wrong(format!("it has {free} free inodes, but the group's descriptor says {counted}"));
        }
        let used = sb.inodes_per_group - group.unused_inodes;
        let beyond = bitmap::next_set(&block.bytes, used..sb.inodes_per_group);
        if beyond < sb.inodes_per_group {
            return wrong(format!(
                "inode {beyond} is in use, but the group's descriptor says only {used} ever were"
            ));
        }
        if never_written {
            self.put(group.inode_bitmap, block.bytes.clone())?;
            let state = self.change_group(groups, number)?;
            state.group.flags &= !flags::INODE_UNINIT;
            state.inodes_changed = true;
        }
        if let Some(state) = groups.states.get_mut(number as usize) {
            state.inodes_verified = true;
        }
        Ok(block)
    }
}

/// The first group of these that has a free inode.
fn first_with_inodes(groups: &Groups, mut range: Range<u32>) -> Option<u32> {
    range.find(|&number| groups.get(number).is_some_and(|group| group.free_inodes > 0))
}

fn room(groups: &Groups, range: Range<u32>) -> Room {
    let mut room = Room { free_inodes: 0, free_blocks: 0, used_dirs: 0 };
    for group in range.filter_map(|number| groups.get(number)) {
        room.free_inodes += u64::from(group.free_inodes);
        room.free_blocks += u64::from(group.free_clusters);
        room.used_dirs += u64::from(group.used_dirs);
    }
    room
}

fn average(groups: &Groups, flexes: u32) -> Room {
    let flexes = u64::from(flexes.max(1));
    Room {
        free_inodes: groups.free_inodes / flexes,
        free_blocks: groups.free_blocks / flexes,
        used_dirs: groups.used_dirs / flexes,
    }
}
