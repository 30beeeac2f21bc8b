//! A pool: its metadata, and the changes to it.

use std::io;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use vmcraft_block::BlockDevice;

use super::superblock::Superblock;
use super::volume::Volume;
use crate::dm::persistent::block::{BLOCK, Blocks, Kind, SUPERBLOCK, corrupt, le32, le64, put};
use crate::dm::persistent::btree::{Leaf, Values, leaf_at};
use crate::dm::persistent::{Space, Store};
use crate::{Error, Result};

/// The largest volume: 4 EiB.
const MAX_VOLUME_BYTES: u64 = 1 << 62;
/// How many free metadata blocks Linux keeps at most, and the part of all blocks that it keeps of few.
///
/// Spec: `drivers/md/dm-thin-metadata.c`, `metadata_reserve`.
const MAX_RESERVE: u64 = 4096;
const RESERVE_DIVISOR: u64 = 10;

/// What a pool's table says beside its devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Whether a new block is zeroed where it is not written. If not, it shows what was there before.
    pub zero_new_blocks: bool,
    /// What a discard of a whole block does.
    pub discards: Discards,
}

impl Default for Options {
    /// What LVM does by default.
    fn default() -> Self {
        Self { zero_new_blocks: true, discards: Discards::Passdown }
    }
}

/// What a discard of a whole block does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discards {
    /// Nothing.
    Ignore,
    /// The block goes back to the pool.
    NoPassdown,
    /// The block goes back to the pool, and the data device is told if nobody else has it.
    Passdown,
}

/// What a pool's metadata says of one of its volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeDetails {
    /// The volume's number in the pool.
    pub id: u32,
    /// How many blocks it has.
    pub mapped_blocks: u64,
    /// The pool's transaction in which it was made.
    pub transaction_id: u64,
    /// The pool's time when it was made.
    pub creation_time: u32,
    /// The pool's time of its last snapshot.
    pub snapshotted_time: u32,
}

impl VolumeDetails {
    fn decode(id: u32, bytes: &[u8]) -> Self {
        Self {
            id,
            mapped_blocks: le64(bytes, 0),
            transaction_id: le64(bytes, 8),
            creation_time: le32(bytes, 16),
            snapshotted_time: le32(bytes, 20),
        }
    }

    fn encode(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        put(&mut bytes, 0, &self.mapped_blocks.to_le_bytes());
        put(&mut bytes, 8, &self.transaction_id.to_le_bytes());
        put(&mut bytes, 16, &self.creation_time.to_le_bytes());
        put(&mut bytes, 20, &self.snapshotted_time.to_le_bytes());
        bytes
    }
}

/// A thin pool.
pub struct Pool {
    pub(super) data: Arc<dyn BlockDevice>,
    pub(super) options: Options,
    pub(super) block_bytes: u64,
    /// Why the pool may only be read.
    read_only: Option<&'static str>,
    /// Held for reading while data is moved, and for writing while mappings change.
    state: RwLock<State>,
}

/// A pool's metadata.
pub(super) struct State {
    /// The pool's name in messages.
    name: String,
    store: Store,
    superblock: Superblock,
}

/// Where a block of a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mapping {
    /// The block of the data device.
    pub(super) data_block: u64,
    /// Whether a snapshot may have it, too.
    pub(super) is_shared: bool,
}

/// The mappings of a stretch of a volume.
pub(super) struct Mappings {
    leaf: Leaf,
    snapshotted_time: u32,
    data_blocks: u64,
}

impl Mappings {
    /// The first block that this stretch does not tell of; `None` if it tells of all that follow.
    pub(super) fn end(&self) -> Option<u64> {
        self.leaf.end
    }

    /// The blocks that are mapped, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Result<(u64, Mapping)>> {
        self.leaf.entries().map(|(block, value)| {
            // The data block is in the upper 40 bits, the time in the others.
            let (data_block, time) = (le64(value, 0) >> 24, le64(value, 0) & 0xff_ffff);
            if data_block >= self.data_blocks {
                return Err(corrupt(
                    format!("mapping of block {block} (to data block {data_block} of {})", self.data_blocks),
                    0,
                ));
            }
            Ok((block, Mapping { data_block, is_shared: u64::from(self.snapshotted_time) > time }))
        })
    }
}

impl Pool {
    /// Opens a pool by its metadata and data devices. Errors of writes call it by `name`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the byte of the metadata device, [`Error::Unsupported`] for metadata
    /// of another version, [`Error::Incomplete`] if the data device is too small.
    pub fn open(
        name: &str,
        metadata: Arc<dyn BlockDevice>,
        data: Arc<dyn BlockDevice>,
        options: Options,
    ) -> Result<Arc<Self>> {
        let blocks = Blocks::new(metadata);
        let (superblock, metadata_map, data_map) =
            Superblock::decode(&blocks.read(SUPERBLOCK, Kind::ThinSuperblock)?)?;
        let needed = data_map.blocks.checked_mul(superblock.block_bytes);
        if needed.is_none_or(|needed| needed > data.size()) {
            return Err(Error::Incomplete(format!(
                "the thin pool's metadata tells of {} data blocks of {} bytes, but its data device has only {} bytes",
                data_map.blocks,
                superblock.block_bytes,
                data.size()
            )));
        }
        Ok(Arc::new(Self {
            data,
            options,
            block_bytes: superblock.block_bytes,
            read_only: superblock.read_only,
            state: RwLock::new(State {
                name: name.into(),
                store: Store::new(blocks, metadata_map, data_map),
                superblock,
            }),
        }))
    }

    /// The size of a data block in bytes.
    pub fn block_bytes(&self) -> u64 {
        self.block_bytes
    }

    /// The transaction that user space gave last; LVM compares it with its own metadata.
    pub fn transaction_id(&self) -> u64 {
        self.read().superblock.transaction_id
    }

    /// How many data blocks are in use, and how many there are.
    pub fn data_usage(&self) -> (u64, u64) {
        let map = &self.read().store.data;
        (map.allocated, map.blocks)
    }

    /// How many metadata blocks are in use, and how many there are.
    pub fn metadata_usage(&self) -> (u64, u64) {
        let map = &self.read().store.metadata;
        (map.allocated, map.blocks)
    }

    /// Why the pool may only be read, if its metadata says so.
    pub fn read_only_reason(&self) -> Option<&'static str> {
        self.read_only
    }

    /// What the metadata says of all volumes, by their numbers.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the metadata is.
    pub fn volumes(&self) -> Result<Vec<VolumeDetails>> {
        let state = self.read();
        state.check_known()?;
        let (mut found, mut next) = (Vec::new(), Some(0));
        while let Some(key) = next {
            let leaf = leaf_at(&state.store.blocks, state.superblock.details_root, Values::Details, key)?;
            for (id, value) in leaf.entries() {
                // Numbers have 24 bits.
                if let Ok(id) = u32::try_from(id) {
                    found.push(VolumeDetails::decode(id, value));
                }
            }
            next = leaf.end;
        }
        Ok(found)
    }

    /// What the metadata says of a volume.
    ///
    /// # Errors
    /// [`Error::Refused`] if the pool has no volume of this number, [`Error::Corrupt`] if the metadata is.
    pub fn volume_details(&self, id: u32) -> Result<VolumeDetails> {
        self.read().details(id)
    }

    /// Opens a volume. Its size is not in the metadata: whoever made the volume keeps it.
    ///
    /// `origin` is the device that blocks come from which the volume has not yet; without one they
    /// are zeros.
    ///
    /// # Errors
    /// [`Error::Refused`] if the pool has no volume of this number, or its size cannot be right.
    pub fn volume(
        self: &Arc<Self>,
        id: u32,
        size_bytes: u64,
        origin: Option<Arc<dyn BlockDevice>>,
    ) -> Result<Arc<dyn BlockDevice>> {
        self.read().details(id)?;
        // Rounding up to blocks must not overflow.
        if size_bytes > MAX_VOLUME_BYTES {
            return Err(Error::Refused(format!(
                "volume {id} of the thin pool has {size_bytes} bytes (the limit is {MAX_VOLUME_BYTES})"
            )));
        }
        Ok(Arc::new(Volume::new(self.clone(), id, size_bytes, origin)))
    }

    /// Removes volumes, as the pool's message `delete` does, and notes the transaction of user space in which that
    /// was. What only they had goes back to the pool. Volumes that the pool has not are passed over.
    ///
    /// # Errors
    /// [`Error::Io`], which names the pool, if it cannot be written or its metadata is corrupt.
    pub fn remove_volumes(&self, ids: &[u32], transaction_id: u64) -> Result<()> {
        self.check_writable()?;
        let there: Vec<u32> = self.volumes()?.iter().map(|volume| volume.id).collect();
        self.write().transact(|change| {
            for id in ids.iter().filter(|id| there.contains(id)) {
                change.remove_volume(*id)?;
            }
            change.state.superblock.transaction_id = transaction_id;
            Ok(())
        })?;
        Ok(())
    }

    /// Whether neither metadata nor data may be written.
    pub(super) fn is_read_only(&self) -> bool {
        self.read_only.is_some()
            || self.data.is_read_only()
            || self.read().store.blocks.device().is_read_only()
    }

    /// Refuses if the pool may only be read.
    pub(super) fn check_writable(&self) -> io::Result<()> {
        match self.read_only {
            Some(why) => Err(io::Error::new(
                io::ErrorKind::ReadOnlyFilesystem,
                format!("thin pool {} cannot be written: {why}", self.read().name),
            )),
            None if self.is_read_only() => Err(io::Error::new(
                io::ErrorKind::ReadOnlyFilesystem,
                format!("the devices of thin pool {} are read-only", self.read().name),
            )),
            None => Ok(()),
        }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(|e| e.into_inner())
    }

    /// Makes all that was written last.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.data.flush()?;
        self.read().store.blocks.device().flush()
    }
}

impl State {
    /// Refuses if nobody knows what the metadata device has.
    fn check_known(&self) -> Result<()> {
        match self.store.lost() {
            None => Ok(()),
            Some(why) => Err(Error::Refused(format!(
                "thin pool {} is not used any more: writing the superblock of its metadata failed ({why}), and what is \
                 there now is neither the old one nor known",
                self.name
            ))),
        }
    }

    fn details(&self, id: u32) -> Result<VolumeDetails> {
        self.check_known()?;
        let root = self.superblock.details_root;
        let leaf = leaf_at(&self.store.blocks, root, Values::Details, id.into())?;
        let found = leaf.get(id.into()).map(|value| VolumeDetails::decode(id, value));
        found.ok_or_else(|| Error::Refused(format!("the thin pool has no volume {id}")))
    }

    /// The root of a volume's own tree.
    fn tree(&self, id: u32) -> Result<u64> {
        let root = self.superblock.mapping_root;
        let leaf = leaf_at(&self.store.blocks, root, Values::Trees, id.into())?;
        let found = leaf.get(id.into()).map(|value| le64(value, 0));
        found.ok_or_else(|| corrupt(format!("mappings of the thin pool (none of volume {id})"), root))
    }

    /// What is known of the blocks of a volume from `block` on.
    pub(super) fn mappings(&self, id: u32, block: u64) -> Result<Mappings> {
        let snapshotted_time = self.details(id)?.snapshotted_time;
        let leaf = leaf_at(&self.store.blocks, self.tree(id)?, Values::Mappings, block)?;
        Ok(Mappings { leaf, snapshotted_time, data_blocks: self.store.data.blocks })
    }

    pub(super) fn transact<T>(
        &mut self,
        change: impl FnOnce(&mut Change<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        self.check_known()?;
        let old = self.superblock.clone();
        let mut begun = Change { state: self, takes_blocks: false };
        let result = change(&mut begun).and_then(|value| {
            let takes_blocks = begun.takes_blocks;
            self.store.settle()?;
            if takes_blocks {
                self.check_reserve()?;
            }
            let superblock = &self.superblock;
            self.store.commit(Kind::ThinSuperblock, |metadata, data, block| {
                superblock.encode(metadata, data, block);
            })?;
            Ok(value)
        });
        if result.is_err() {
            self.store.abandon();
            self.superblock = old;
        }
        result.map_err(|error| io::Error::new(error.kind(), format!("thin pool {}: {error}", self.name)))
    }

    /// Refuses metadata of which Linux would take no new block of a volume: it keeps some free, so that volumes can
    /// still be removed, and lets the pool only be read once it has no more.
    fn check_reserve(&self) -> io::Result<()> {
        let map = &self.store.metadata;
        let (free, reserve) = (map.blocks - map.allocated, MAX_RESERVE.min(map.blocks / RESERVE_DIVISOR));
        if free > reserve {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::StorageFull,
            format!(
                "its metadata would have {free} of {} blocks of {BLOCK} bytes free, and Linux keeps {reserve} in \
                 reserve and then only reads the pool: enlarge it (lvextend --poolmetadatasize), or discard or \
                 remove what is not needed",
                map.blocks
            ),
        ))
    }
}

/// A change to a pool's metadata that has begun.
pub(super) struct Change<'a> {
    state: &'a mut State,
    /// Whether it gives data blocks to volumes.
    takes_blocks: bool,
}

impl Change<'_> {
    /// The metadata with all that has changed so far.
    pub(super) fn state(&self) -> &State {
        self.state
    }

    /// Makes sure that what is above a volume's own tree is not shared with a snapshot of the
    /// metadata, so that the counts of that tree are right, and gives its root.
    fn own_tree(&mut self, id: u32) -> Result<u64> {
        let tree = self.state.tree(id)?;
        self.set_tree(id, tree)?;
        Ok(tree)
    }

    fn set_tree(&mut self, id: u32, tree: u64) -> Result<()> {
        let State { store, superblock, .. } = &mut *self.state;
        superblock.mapping_root =
            store.insert(Values::Trees, superblock.mapping_root, id.into(), &tree.to_le_bytes())?;
        Ok(())
    }

    fn count_blocks(&mut self, id: u32, change: impl FnOnce(u64) -> Option<u64>) -> Result<()> {
        let mut details = self.state.details(id)?;
        let State { store, superblock, .. } = &mut *self.state;
        details.mapped_blocks = change(details.mapped_blocks).ok_or_else(|| {
            corrupt(format!("details of volume {id} (mapped blocks)"), superblock.details_root)
        })?;
        superblock.details_root =
            store.insert(Values::Details, superblock.details_root, id.into(), &details.encode())?;
        Ok(())
    }

    /// Gives a block of a volume a new data block, in place of the one that it may have.
    pub(super) fn provision(&mut self, id: u32, block: u64) -> Result<u64> {
        self.takes_blocks = true;
        let data_block = self.state.store.allocate(Space::Data)?;
        let tree = self.own_tree(id)?;
        let leaf = leaf_at(&self.state.store.blocks, tree, Values::Mappings, block)?;
        let old = leaf.get(block).map(|value| le64(value, 0) >> 24);
        let time = u64::from(self.state.superblock.time) & 0xff_ffff;
        let value = (data_block << 24 | time).to_le_bytes();
        let tree = self.state.store.insert(Values::Mappings, tree, block, &value)?;
        self.set_tree(id, tree)?;
        match old {
            Some(old) => {
                self.state.store.drop_reference(Space::Data, old)?;
            }
            None => self.count_blocks(id, |n| n.checked_add(1))?,
        }
        Ok(data_block)
    }

    /// Takes a volume out of the pool, with all blocks that only it has.
    fn remove_volume(&mut self, id: u32) -> Result<()> {
        let tree = self.own_tree(id)?;
        let State { store, superblock, .. } = &mut *self.state;
        superblock.details_root = store.remove(Values::Details, superblock.details_root, id.into())?;
        superblock.mapping_root = store.remove(Values::Trees, superblock.mapping_root, id.into())?;
        store.drop_mappings(tree)
    }

    /// Takes a block from a volume, and gives the data block if nobody has it any more.
    pub(super) fn unmap(&mut self, id: u32, block: u64) -> Result<Option<u64>> {
        let tree = self.own_tree(id)?;
        let leaf = leaf_at(&self.state.store.blocks, tree, Values::Mappings, block)?;
        let Some(old) = leaf.get(block).map(|value| le64(value, 0) >> 24) else { return Ok(None) };
        let tree = self.state.store.remove(Values::Mappings, tree, block)?;
        self.set_tree(id, tree)?;
        self.count_blocks(id, |n| n.checked_sub(1))?;
        let left = self.state.store.drop_reference(Space::Data, old)?;
        Ok((left == 0).then_some(old))
    }
}
