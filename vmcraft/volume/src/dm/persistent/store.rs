//! Metadata that is changed in transactions.

use std::collections::{BTreeMap, HashSet};
use std::io;

use super::Space;
use super::block::{BLOCK, Blocks, Kind, SUPERBLOCK};
use super::space_map::SpaceMap;
use crate::Result;

/// Metadata that can be changed: blocks, and what is known of the space in two address spaces.
///
/// Changes are staged, and reach the device with [`Store::commit`].
pub(in crate::dm) struct Store {
    pub(in crate::dm) blocks: Blocks,
    /// The reference counts of the metadata's own blocks.
    pub(in crate::dm) metadata: SpaceMap,
    /// The reference counts of the data blocks.
    pub(in crate::dm) data: SpaceMap,
    pub(super) changes: Changes,
    /// Both maps as they were at the last commit.
    committed: (SpaceMap, SpaceMap),
    /// Why nobody knows which superblock the device has.
    lost: Option<String>,
}

/// What has changed since the last commit.
#[derive(Default)]
pub(super) struct Changes {
    /// The metadata blocks that were taken since: nothing that counts has them, so they are changed where they are.
    new: HashSet<u64>,
    /// The reference counts of metadata blocks that the bitmaps do not have yet. Writing a bitmap takes metadata
    /// blocks itself, so that is left to the end.
    pub(super) counts: BTreeMap<u64, u32>,
    metadata: Freed,
    data: Freed,
    /// Whether so many data blocks come back that it is not kept which: none can be taken until the commit.
    gives_data_back: bool,
}

/// Blocks that nothing refers to any more.
#[derive(Default)]
struct Freed {
    /// Those that must not be taken yet.
    blocks: HashSet<u64>,
    /// The first of all.
    first: Option<u64>,
}

impl Changes {
    /// Notes that nothing refers to a block any more.
    pub(super) fn free(&mut self, space: Space, block: u64) {
        let freed = match space {
            Space::Metadata => &mut self.metadata,
            Space::Data => &mut self.data,
        };
        freed.first = Some(freed.first.map_or(block, |first| first.min(block)));
        if space == Space::Metadata || !self.gives_data_back {
            freed.blocks.insert(block);
        }
    }

    /// Whether a block that a bitmap says is free can be taken: not if it was in use at the last commit, or was taken
    /// since.
    pub(super) fn can_take(&self, space: Space, block: u64) -> bool {
        match space {
            Space::Metadata => !self.counts.contains_key(&block) && !self.metadata.blocks.contains(&block),
            Space::Data => !self.gives_data_back && !self.data.blocks.contains(&block),
        }
    }

    /// Notes that from now to the commit data blocks only come back, without limit.
    pub(super) fn give_data_back(&mut self) {
        self.gives_data_back = true;
    }

    pub(super) fn is_new(&self, block: u64) -> bool {
        self.new.contains(&block)
    }
}

impl Store {
    pub(in crate::dm) fn new(blocks: Blocks, metadata: SpaceMap, data: SpaceMap) -> Self {
        let committed = (metadata.clone(), data.clone());
        Self { blocks, metadata, data, changes: Changes::default(), committed, lost: None }
    }

    /// Takes a metadata block, to be filled.
    pub(super) fn take_block(&mut self) -> Result<u64> {
        let number = self.allocate(Space::Metadata)?;
        if number >= self.blocks.count() {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "the metadata device is smaller than its space map says",
            )
            .into());
        }
        self.changes.new.insert(number);
        Ok(number)
    }

    /// Where a block that only one has can be changed: a copy, unless the last commit does not have it.
    pub(super) fn own(&mut self, number: u64, kind: Kind) -> Result<u64> {
        if self.changes.is_new(number) {
            return Ok(number);
        }
        let block = self.blocks.read(number, kind)?;
        let copy = self.take_block()?;
        *self.blocks.create(copy, kind) = *block;
        self.drop_reference(Space::Metadata, number)?;
        Ok(copy)
    }

    /// Brings the metadata's own space map up to date: nothing must change any more before the commit.
    pub(in crate::dm) fn settle(&mut self) -> Result<()> {
        // Each bitmap and each node is copied once, so this ends.
        while let Some((&block, &count)) = self.changes.counts.first_key_value() {
            self.record(Space::Metadata, block, count)?;
            if self.changes.counts.get(&block) == Some(&count) {
                self.changes.counts.remove(&block);
            }
        }
        Ok(())
    }

    /// Writes all changes, which were settled: the superblock last, as `seal` makes it from the space maps of metadata
    /// and data.
    pub(in crate::dm) fn commit(
        &mut self,
        superblock: Kind,
        seal: impl FnOnce(&SpaceMap, &SpaceMap, &mut [u8; BLOCK]),
    ) -> Result<()> {
        let old = self.blocks.read(SUPERBLOCK, superblock)?;
        seal(&self.metadata, &self.data, self.blocks.edit(SUPERBLOCK, superblock)?);
        self.blocks.commit_below_superblock()?;
        if let Err(error) = self.blocks.commit() {
            if self.blocks.read(SUPERBLOCK, superblock).ok() != Some(old) {
                self.lost = Some(error.to_string());
            }
            return Err(error);
        }
        let changes = std::mem::take(&mut self.changes);
        self.metadata.can_take_from(changes.metadata.first);
        self.data.can_take_from(changes.data.first);
        self.committed = (self.metadata.clone(), self.data.clone());
        Ok(())
    }

    /// Why nobody knows which superblock the device has, after writing it has failed.
    pub(in crate::dm) fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// Drops all changes.
    pub(in crate::dm) fn abandon(&mut self) {
        self.blocks.abandon();
        self.changes = Changes::default();
        (self.metadata, self.data) = self.committed.clone();
    }
}
