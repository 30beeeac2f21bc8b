//! Where each group's bitmaps and inode table come to stand.

use std::ops::Range;

use vmcraft_fs::{Error, Result};

use crate::space::Space;
use crate::statfs;
use crate::superblock::Superblock;

/// The metadata of a group that may stand anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) block_bitmap: u64,
    pub(crate) inode_bitmap: u64,
    pub(crate) inode_table: u64,
}

/// Takes the blocks that superblock and descriptors have at the start of a group.
pub(crate) fn take_group_start(sb: &Superblock, space: &mut Space, group: u32) {
    space.take(sb.group_start(group), sb.blocks_at_start(group));
}

/// Places what the groups of `new` need, behind what `before`, the groups in front of them in the same
/// flexible group, have. The starts of all groups are taken already.
pub(crate) fn place(
    sb: &Superblock,
    space: &mut Space,
    new: Range<u32>,
    before: Option<Placement>,
) -> Result<Vec<Placement>> {
    let per_flex = sb.flex_groups;
    let mut previous = before;
    let mut placed = Vec::new();
    for group in new {
        let first = group / per_flex * per_flex;
        let last = first.saturating_add(per_flex - 1).min(sb.groups - 1);
        if group == first {
            previous = None;
        }
        let mut place = Place {
            space: &mut *space,
            window: sb.group_start(first)..sb.group_end(last),
            group,
            left: u64::from(last - group + 1),
            most: u64::from(sb.blocks_per_group / 4),
        };
        let table_blocks = u64::from(sb.inode_table_blocks());
        // Room for the bitmaps of the whole flexible group is left between the first of each kind.
        let block_bitmap = place.next(previous.map(|p| p.block_bitmap + 1), 1)?;
        let after = previous.map_or(block_bitmap + u64::from(per_flex), |p| p.inode_bitmap + 1);
        let inode_bitmap = place.next(Some(after), 1)?;
        let after = previous.map_or(inode_bitmap + u64::from(per_flex), |p| p.inode_table + table_blocks);
        let inode_table = place.next(Some(after), table_blocks)?;
        let placement = Placement { block_bitmap, inode_bitmap, inode_table };
        previous = Some(placement);
        placed.push(placement);
    }
    Ok(placed)
}

struct Place<'a> {
    space: &'a mut Space,
    /// The blocks of the flexible group.
    window: Range<u64>,
    group: u32,
    /// The group and those behind it in the flexible group.
    left: u64,
    /// The longest run that is looked for.
    most: u64,
}

impl Place<'_> {
    /// Takes `len` blocks at `at` if they are free, else where there is room for as many for each group
    /// that is left, else where there is room.
    fn next(&mut self, at: Option<u64>, len: u64) -> Result<u64> {
        let fits = |at: &u64| at.saturating_add(len) <= self.window.end && self.space.is_free(*at, len);
        let found = at
            .filter(fits)
            .or_else(|| self.space.find(self.window.clone(), (self.left * len).min(self.most).max(len)))
            .or_else(|| self.space.find(self.window.clone(), len))
            .ok_or_else(|| {
                Error::Unsupported(format!(
                    "{len} blocks in one piece for the bitmaps and inodes of group {}: there is no room for them",
                    self.group
                ))
            })?;
        self.space.take(found, len);
        Ok(found)
    }
}

impl Superblock {
    /// The block behind a group.
    pub(crate) fn group_end(&self, group: u32) -> u64 {
        self.blocks.min(self.group_start(group).saturating_add(self.blocks_per_group.into()))
    }

    /// How many blocks superblock, descriptors and the room for more of them have at a group's start.
    pub(crate) fn blocks_at_start(&self, group: u32) -> u64 {
        statfs::blocks_at_start(self, group) + statfs::reserved_at_start(self, group)
    }

    /// How many blocks within a group its own metadata has.
    pub(crate) fn own_blocks_in(&self, group: u32, placement: Placement) -> u64 {
        let range = self.group_start(group)..self.group_end(group);
        let within = |start: u64, len: u64| {
            start.saturating_add(len).min(range.end).saturating_sub(start.max(range.start))
        };
        self.blocks_at_start(group)
            + within(placement.block_bitmap, 1)
            + within(placement.inode_bitmap, 1)
            + within(placement.inode_table, self.inode_table_blocks().into())
    }
}
