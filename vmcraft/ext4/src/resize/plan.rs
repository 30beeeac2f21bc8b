//! What making a volume smaller comes to, found out before anything changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use vmcraft_fs::{Error, Result};

use crate::descriptors::DescriptorTable;
use crate::features::{Compat, Incompat};
use crate::group::flags;
use crate::inode::{Inode, InodeFlags, ROOT, is_in_use};
use crate::map::OpenInode;
use crate::mkfs::{self, layout, layout::Placement};
use crate::space::Space;
use crate::superblock::{RawSuperblock, Superblock};
use crate::volume::Volume;
use crate::walk::{self, Owned};
use crate::{dir, extent_edit};

/// The list of bad blocks.
const BAD_BLOCKS: u32 = 1;
const NO_BLOCKS: Error = Error::NoSpace("its files do not fit below the new end");
const NO_INODES: Error = Error::NoSpace("its files are more than the inodes below the new end");

/// Where blocks go that are at or behind the new end.
#[derive(Default)]
pub(super) struct Moves {
    /// By the first block that moves: where it goes, and how many move with it.
    runs: BTreeMap<u64, (u64, u64)>,
}

impl Moves {
    fn add(&mut self, from: u64, to: u64, len: u64) {
        self.runs.insert(from, (to, len));
    }

    /// Where `len` blocks from `first` are afterwards.
    pub(super) fn pieces(&self, first: u64, len: u64) -> Vec<Range<u64>> {
        let end = first + len;
        let mut at = first;
        let mut pieces = Vec::new();
        while at < end {
            let before = self.runs.range(..=at).next_back();
            let moved = before.map(|(from, (to, len))| (*from, *to, *len)).filter(|(f, _, l)| at < f + l);
            let (to, len) = match moved {
                Some((from, to, len)) => (to + (at - from), (from + len).min(end) - at),
                None => {
                    let next = self.runs.range(at..).next().map_or(end, |(from, _)| (*from).min(end));
                    (at, next - at)
                }
            };
            pieces.push(to..to + len);
            at += len;
        }
        pieces
    }

    /// Where a block is afterwards.
    pub(super) fn of(&self, block: u64) -> u64 {
        self.pieces(block, 1).first().map_or(block, |piece| piece.start)
    }
}

/// An inode that gets another number.
pub(super) struct Renumbered {
    pub(super) to: u32,
    /// As it was: what its table has is overwritten.
    pub(super) bytes: Vec<u8>,
}

/// What is to be done.
pub(super) struct Plan {
    pub(super) raw: RawSuperblock,
    pub(super) new: Superblock,
    /// All blocks that are in use afterwards.
    pub(super) space: Space,
    pub(super) moves: Moves,
    pub(super) renumbered: BTreeMap<u32, Renumbered>,
    /// The blocks of new extent trees, by inode.
    pub(super) nodes: HashMap<u32, Vec<u64>>,
    /// The inodes that are written anew, with the directories that lead to such; by their old numbers.
    pub(super) touched: BTreeSet<u32>,
    /// Where the metadata of the groups is afterwards.
    pub(super) placements: Vec<Placement>,
    /// The map of the inode that keeps room for descriptors, if there is one.
    pub(super) room_map: Option<u64>,
    /// Up to here all blocks below the new end are in use.
    full_to: u64,
}

impl Plan {
    /// Finds out how a volume on which a check found nothing becomes as `new` says. `NoSpace` if its
    /// files do not fit, `Unsupported` if something cannot be moved.
    pub(super) fn new(volume: &Volume, raw: &RawSuperblock, new: &Superblock) -> Result<Self> {
        let mut plan = Self {
            raw: raw.clone(),
            new: new.clone(),
            space: Space::default(),
            moves: Moves::default(),
            renumbered: BTreeMap::new(),
            nodes: HashMap::new(),
            touched: BTreeSet::new(),
            placements: Vec::new(),
            room_map: None,
            full_to: 0,
        };
        // Descriptors, and inode tables across the end, are read all along from where they were.
        let mut unused = Space::default();
        let table = DescriptorTable::read(volume)?;
        for group in 0..new.groups {
            let (start, len) = (table.placement(group).inode_table, u64::from(new.inode_table_blocks()));
            if start < new.blocks && start + len > new.blocks {
                unused.take(start, new.blocks - start);
            }
        }
        for group in 0..new.groups {
            layout::take_group_start(new, &mut plan.space, group);
            let start = new.group_start(group);
            let (kept, had) = (new.blocks_at_start(group), volume.sb.blocks_at_start(group));
            unused.take(
                start + kept,
                had.saturating_sub(kept).min(new.group_end(group).saturating_sub(start + kept)),
            );
        }
        plan.space.take(0, new.first_data_block.into());
        plan.survey(volume)?;
        for range in unused.within(0..new.blocks) {
            if plan.space.used_in(range.clone()) != 0 {
                return Err(Error::Unsupported(
                    "making it smaller: a file has blocks among descriptors".into(),
                ));
            }
        }
        for range in unused.within(0..new.blocks) {
            plan.space.take(range.start, range.end - range.start);
        }
        plan.place_metadata()?;
        plan.renumber(volume)?;
        let mut left = unused;
        for number in plan.touched.clone() {
            plan.move_inode(volume, number, &mut left)?;
        }
        plan.lead_directories(volume)?;
        for range in left.within(0..new.blocks) {
            plan.space.give_back(range.start, range.end - range.start);
        }
        Ok(plan)
    }

    /// Looks at all inodes: takes the blocks that stay where they are, and notes which inodes change.
    fn survey(&mut self, volume: &Volume) -> Result<()> {
        let end = self.new.blocks;
        let table = DescriptorTable::read(volume)?;
        let per_table = u64::from(self.new.inode_table_blocks());
        for group in 0..self.new.groups {
            let at = table.placement(group);
            for (first, len) in [(at.block_bitmap, 1), (at.inode_bitmap, 1), (at.inode_table, per_table)] {
                if first + len <= end {
                    self.space.take(first, len);
                }
            }
            self.placements.push(at);
        }
        for_each_inode(volume, &mut |number, bytes, offset| {
            if number == BAD_BLOCKS {
                let map = std::mem::offset_of!(crate::inode::RawInode, block);
                if bytes.get(map..map + crate::inode::I_BLOCK_SIZE).is_some_and(|b| b.iter().any(|b| *b != 0))
                {
                    return Err(Error::Unsupported(
                        "making a volume with a list of bad blocks smaller".into(),
                    ));
                }
                return Ok(());
            }
            if !is_in_use(bytes) {
                return Ok(());
            }
            let inode = Inode::decode(bytes, &volume.sb, number, offset)?;
            if number == mkfs::RESIZE_INODE && self.new.compat.contains(Compat::RESIZE_INODE) {
                let map = mkfs::room_map(volume)?;
                if map < end {
                    self.space.take(map, 1);
                }
                self.room_map = Some(map);
                return Ok(());
            }
            let mut changes = number > self.new.inodes;
            let mut stay = |first: u64, len: u64| {
                self.space.take(first, end.saturating_sub(first).min(len));
                changes |= first + len > end;
            };
            if inode.xattr_block != 0 {
                stay(inode.xattr_block, 1);
            }
            walk::each(volume, &inode, &mut |owned| {
                match owned {
                    Owned::Node(node) => stay(node, 1),
                    Owned::Data { physical, len, .. } => stay(physical, len),
                }
                Ok(true)
            })?;
            if changes {
                self.touched.insert(number);
            }
            if number > self.new.inodes {
                self.renumbered.insert(number, Renumbered { to: 0, bytes: bytes.to_vec() });
            }
            Ok(())
        })
    }

    /// Finds a place for what groups that stay have behind the new end.
    fn place_metadata(&mut self) -> Result<()> {
        let sb = &self.new;
        let per_table = u64::from(sb.inode_table_blocks());
        for (group, at) in (0..).zip(&mut self.placements) {
            let window = if sb.incompat.contains(Incompat::FLEX_BG) {
                u64::from(sb.first_data_block)..sb.blocks
            } else {
                sb.group_start(group)..sb.group_end(group)
            };
            for (first, len) in
                [(&mut at.block_bitmap, 1), (&mut at.inode_bitmap, 1), (&mut at.inode_table, per_table)]
            {
                if *first + len > sb.blocks {
                    *first = self.space.find(window.clone(), len).ok_or(NO_BLOCKS)?;
                    self.space.take(*first, len);
                }
            }
        }
        if let Some(map) = self.room_map.filter(|map| *map >= self.new.blocks) {
            let to = self.allocate(1)?.first().map_or(map, |piece| piece.start);
            self.room_map = Some(to);
        }
        Ok(())
    }

    /// Gives the inodes of groups that go away numbers that are free.
    fn renumber(&mut self, volume: &Volume) -> Result<()> {
        if self.renumbered.is_empty() {
            return Ok(());
        }
        let sb = &self.new;
        for (has, what) in [
            (sb.incompat.contains(Incompat::EA_INODE), "ea_inode"),
            (sb.compat.contains(Compat::STABLE_INODES), "stable_inodes"),
        ] {
            if has {
                return Err(Error::Unsupported(format!(
                    "making a volume with {what} smaller than its inodes allow: {} inodes would get other numbers",
                    self.renumbered.len()
                )));
            }
        }
        let mut used = BTreeSet::new();
        for_each_inode(volume, &mut |number, bytes, _| {
            if is_in_use(bytes) && number <= sb.inodes {
                used.insert(number);
            }
            Ok(())
        })?;
        let mut free = (sb.first_inode..=sb.inodes).filter(|number| !used.contains(number));
        for renumbered in self.renumbered.values_mut() {
            renumbered.to = free.next().ok_or(NO_INODES)?;
        }
        Ok(())
    }

    /// An inode as it is before, with its bytes.
    pub(super) fn inode(&self, volume: &Volume, number: u32) -> Result<(Vec<u8>, Inode)> {
        let (bytes, offset) = match self.renumbered.get(&number) {
            Some(renumbered) => (renumbered.bytes.clone(), 0),
            None => {
                let (block, range, offset) = volume.inode_bytes(number)?;
                (block.bytes.get(range).unwrap_or_default().to_vec(), offset)
            }
        };
        let inode = Inode::decode(&bytes, &volume.sb, number, offset)?;
        Ok((bytes, inode))
    }

    /// Finds places for what an inode has behind the new end.
    fn move_inode(&mut self, volume: &Volume, number: u32, left: &mut Space) -> Result<()> {
        let (_, inode) = self.inode(volume, number)?;
        let end = self.new.blocks;
        let extents = inode.flags.contains(InodeFlags::EXTENTS);
        let (mut nodes, mut runs) = (Vec::new(), Vec::new());
        walk::each(volume, &inode, &mut |owned| {
            match owned {
                Owned::Node(node) => nodes.push(node),
                Owned::Data { physical, len, .. } => runs.push((physical, len)),
            }
            Ok(true)
        })?;
        let attributes = Some((inode.xattr_block, 1)).filter(|_| inode.xattr_block != 0);
        let maps = nodes.iter().filter(|_| !extents).map(|node| (*node, 1));
        for (first, len) in runs.iter().copied().chain(maps).chain(attributes) {
            let from = first.max(end);
            let len = (first + len).saturating_sub(from);
            // Inodes may share a block of attributes.
            if len > 0 && self.moves.of(from) == from {
                let mut at = from;
                for piece in self.allocate(len)? {
                    self.moves.add(at, piece.start, piece.end - piece.start);
                    at += piece.end - piece.start;
                }
            }
        }
        if extents {
            let entries = runs.iter().map(|(first, len)| self.moves.pieces(*first, *len).len()).sum();
            let needed = extent_edit::nodes_for(entries, &self.new);
            let mut kept: Vec<u64> = nodes.into_iter().filter(|node| *node < end).collect();
            for node in kept.drain(needed.min(kept.len())..) {
                left.take(node, 1);
            }
            if kept.len() < needed {
                let more = self.allocate((needed - kept.len()) as u64)?;
                kept.extend(more.into_iter().flatten());
            }
            self.nodes.insert(number, kept);
        }
        Ok(())
    }

    /// Notes the directories that have inodes with new numbers.
    fn lead_directories(&mut self, volume: &Volume) -> Result<()> {
        if self.renumbered.is_empty() {
            return Ok(());
        }
        let (renumbered, touched) = (&self.renumbered, &mut self.touched);
        for_each_inode(volume, &mut |number, bytes, offset| {
            if !is_in_use(bytes) || number < volume.sb.first_inode && number != ROOT {
                return Ok(());
            }
            let inode = Inode::decode(bytes, &volume.sb, number, offset)?;
            if !inode.is_dir() {
                return Ok(());
            }
            if !inode.flags.contains(InodeFlags::INLINE_DATA) {
                touched.insert(number);
                return Ok(());
            }
            let inode = OpenInode::new(inode);
            let parent = dir::parent(volume, &inode)?.0;
            let mut leads = u32::try_from(parent).is_ok_and(|parent| renumbered.contains_key(&parent));
            dir::each_list(volume, &inode, 0, &mut |list, _| {
                for slot in list.slots(&volume.sb) {
                    leads |= renumbered.contains_key(&slot?.inode);
                }
                Ok(std::ops::ControlFlow::Continue(()))
            })?;
            if leads {
                return Err(Error::Unsupported(format!(
                    "making a volume smaller: directory inode {number} has inline_data, and leads to an inode that \
                     would get another number"
                )));
            }
            Ok(())
        })
    }

    /// Takes free blocks, the first there are.
    fn allocate(&mut self, len: u64) -> Result<Vec<Range<u64>>> {
        let pieces = self.space.allocate(self.full_to..self.new.blocks, len).ok_or(NO_BLOCKS)?;
        self.full_to = pieces.last().map_or(self.full_to, |piece| piece.end);
        Ok(pieces)
    }
}

type See<'a> = dyn FnMut(u32, &[u8], u64) -> Result<()> + 'a;

/// Calls `see` with the number, the bytes and the place of each inode that was ever in use.
fn for_each_inode(volume: &Volume, see: &mut See<'_>) -> Result<()> {
    let sb = &volume.sb;
    for number in 0..sb.groups {
        let group = volume.read_group(number)?;
        if group.flags & flags::INODE_UNINIT != 0 {
            continue;
        }
        let first = number * sb.inodes_per_group + 1;
        for inode in first..first + sb.inodes_per_group.saturating_sub(group.unused_inodes) {
            let (block, range, offset) = volume.inode_bytes(inode)?;
            see(inode, block.bytes.get(range).unwrap_or_default(), offset)?;
        }
    }
    Ok(())
}
