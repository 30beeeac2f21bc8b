//! Changes to metadata, in memory until they are written out.
//!
//! A changed block is kept here, in front of the cache and the device, and readers see it at once. An
//! operation runs in [`Volume::atomically`]: before the first change that it makes to a block, the block
//! as it was is set aside, which costs a reference; if the operation fails, these are put back.
//!
//! The content of files does not come through here. It is written to the device at once, to blocks that
//! nothing leads to until the operation succeeds.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use vmcraft_fs::Result;
use zerocopy::FromBytes;

use crate::features::{Compat, RoCompat};
use crate::groups::GroupState;
use crate::superblock::{FIRST_INODE, RawSuperblock, START};
use crate::volume::{Block, Volume};
use crate::{corrupt, in_memory};

/// Between operations, more changed metadata than this is written out.
const MOST_DIRTY_BYTES: usize = 16 << 20;
/// The longest single write, in bytes.
const LONGEST_WRITE: usize = 1 << 20;

/// The changed blocks, and what it takes to undo the operation that is under way.
#[derive(Default)]
pub(crate) struct Edits {
    /// Whether there was ever a change: without one, readers need not ask for the lock.
    any: AtomicBool,
    /// Whether something was changed since all was brought to the device.
    unwritten: AtomicBool,
    /// Whether the superblock's fields are to be taken up.
    superblock_changed: AtomicBool,
    changed: Mutex<Changed>,
}

#[derive(Default)]
struct Changed {
    /// Blocks that differ from the device's.
    blocks: HashMap<u64, Arc<Block>>,
    undo: Option<Undo>,
}

/// What an operation changed, as it was before.
#[derive(Default)]
struct Undo {
    /// `None` if the device had the block.
    blocks: HashMap<u64, Option<Arc<Block>>>,
    groups: HashMap<u32, GroupState>,
    inodes: Vec<u32>,
}

impl Edits {
    /// The block, if it was changed.
    pub(crate) fn get(&self, number: u64) -> Option<Arc<Block>> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.lock().blocks.get(&number).cloned()
    }

    /// Whether something was changed since [`Edits::all_written`].
    pub(crate) fn is_unwritten(&self) -> bool {
        self.unwritten.load(Ordering::Relaxed)
    }

    /// Notes that the device has all.
    pub(crate) fn all_written(&self) {
        self.unwritten.store(false, Ordering::Relaxed);
    }

    /// Whether the superblock was changed since this was asked last.
    pub(crate) fn take_superblock_changed(&self) -> bool {
        self.superblock_changed.swap(false, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Changed> {
        // A panic between two statements leaves an operation half done, which `roll_back` undoes.
        self.changed.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Takes the block out to be changed, setting it aside as it was if the operation must be able to
    /// go back to it.
    fn take(&self, number: u64) -> Option<Arc<Block>> {
        self.any.store(true, Ordering::Release);
        self.unwritten.store(true, Ordering::Relaxed);
        let mut changed = self.lock();
        let block = changed.blocks.remove(&number);
        if let Some(undo) = &mut changed.undo {
            undo.blocks.entry(number).or_insert_with(|| block.clone());
        }
        block
    }

    fn put(&self, number: u64, block: Arc<Block>) {
        self.lock().blocks.insert(number, block);
    }

    /// Sets a group's state aside as it was before the operation's first change to it.
    pub(crate) fn keep_group(&self, number: u32, state: GroupState) {
        if let Some(undo) = &mut self.lock().undo
            && let Entry::Vacant(entry) = undo.groups.entry(number)
        {
            entry.insert(state);
        }
    }

    /// Notes that the inode differs from what readers may have in memory.
    fn touch_inode(&self, number: u32) {
        if let Some(undo) = &mut self.lock().undo
            && undo.inodes.last() != Some(&number)
        {
            undo.inodes.push(number);
        }
    }
}

impl Volume {
    /// Changes a metadata block, which readers see at once. `what` names the structure that should be
    /// there, for an error.
    ///
    /// `change` has the whole block, and must leave its checksum right. It must not look at the same
    /// block through the volume, and if it fails the operation must fail.
    pub(crate) fn edit<T>(
        &self,
        number: u64,
        what: impl FnOnce() -> String,
        change: impl FnOnce(&mut [u8]) -> Result<T>,
    ) -> Result<T> {
        let current = self.block(number, what)?;
        // While the block is held in one place only, it is changed there.
        let mut block = self.edits.take(number).map_or_else(
            || current.clone(),
            |held| {
                debug_assert!(Arc::ptr_eq(&held, &current), "readers see what was changed last");
                held
            },
        );
        drop(current);
        let result = change(&mut Arc::make_mut(&mut block).bytes);
        self.edits.put(number, block);
        result
    }

    /// Sets the content of a metadata block that was just allocated: a whole block.
    pub(crate) fn put(&self, number: u64, bytes: Box<[u8]>) -> Result<()> {
        if !self.sb.holds(number, 1) || bytes.len() != self.sb.block_size as usize {
            let what = format!("new block {number} of {} bytes", bytes.len());
            return Err(corrupt(what, number.saturating_mul(u64::from(self.sb.block_size))));
        }
        self.edits.take(number);
        self.edits.put(number, Block::new(bytes));
        Ok(())
    }

    /// Drops what is in memory of blocks that are free now. [`Volume::free_blocks`] calls it.
    pub(crate) fn forget(&self, first: u64, count: u64) {
        let end = first.saturating_add(count);
        // A few are looked up; for many all that is in memory is gone through, which is bounded.
        if count <= 64 {
            for number in first..end {
                self.blocks.remove(number);
            }
        } else {
            self.blocks.retain(|number| !(first..end).contains(&number));
        }
        let mut changed = self.edits.lock();
        let changed = &mut *changed;
        let freed: Vec<u64> = if count <= 64 {
            (first..end).filter(|number| changed.blocks.contains_key(number)).collect()
        } else {
            changed.blocks.keys().copied().filter(|number| (first..end).contains(number)).collect()
        };
        for number in freed {
            let block = changed.blocks.remove(&number);
            if let Some(undo) = &mut changed.undo {
                undo.blocks.entry(number).or_insert(block);
            }
        }
    }

    /// Runs an operation; if it fails, all changes to metadata and to the allocator since its start
    /// are undone. Within another operation it is a part of that, which must fail with it.
    pub(crate) fn atomically<T, E>(&self, operation: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        {
            let mut changed = self.edits.lock();
            if changed.undo.is_some() {
                drop(changed);
                return operation();
            }
            changed.undo = Some(Undo::default());
        }
        let result = operation();
        if result.is_ok() {
            self.edits.lock().undo = None;
        } else {
            self.roll_back();
        }
        result
    }

    /// Undoes what the operation under way has changed, if there is one: it failed, or panicked.
    pub(crate) fn roll_back(&self) {
        let Some(undo) = self.edits.lock().undo.take() else { return };
        {
            let mut changed = self.edits.lock();
            for (number, block) in undo.blocks {
                match block {
                    Some(block) => changed.blocks.insert(number, block),
                    None => changed.blocks.remove(&number),
                };
            }
        }
        if let Some(groups) = &mut *self.lock_groups() {
            groups.restore(undo.groups);
        }
        for number in undo.inodes {
            self.inodes.remove(number.into());
        }
    }

    /// Forgets what readers keep of an inode that changes, now and if the operation is undone.
    pub(crate) fn inode_changed(&self, number: u32) {
        self.inodes.remove(number.into());
        self.edits.touch_inode(number);
    }

    /// Whether so much is changed that it should be written out before the next operation.
    pub(crate) fn is_full_of_edits(&self) -> bool {
        self.edits.lock().blocks.len() > MOST_DIRTY_BYTES / self.sb.block_size as usize
    }

    /// Writes all changed blocks to the device, in order. Not within an operation.
    pub(crate) fn write_out(&self) -> Result<()> {
        self.write_groups()?;
        let mut blocks: Vec<(u64, Arc<Block>)> =
            self.edits.lock().blocks.iter().map(|(&number, block)| (number, block.clone())).collect();
        blocks.sort_unstable_by_key(|(number, _)| *number);
        let most = (LONGEST_WRITE / self.sb.block_size as usize).max(1);
        let mut buffer = Vec::new();
        let follows = |a: &(u64, Arc<Block>), b: &(u64, Arc<Block>)| a.0 + 1 == b.0;
        for run in blocks.chunk_by(follows).flat_map(|run| run.chunks(most)) {
            let Some((first, block)) = run.first() else { continue };
            let at = self.sb.byte_of(*first);
            if run.len() == 1 {
                self.device.write_at(at, &block.bytes)?;
                continue;
            }
            buffer.clear();
            for (_, block) in run {
                buffer.extend_from_slice(&block.bytes);
            }
            self.device.write_at(at, &buffer)?;
        }
        self.edits.lock().blocks.clear();
        for (number, block) in blocks {
            self.blocks.replace(number, block);
        }
        Ok(())
    }

    /// The superblock as it is now.
    pub(crate) fn raw_superblock(&self) -> Result<RawSuperblock> {
        let block_size = u64::from(self.sb.block_size);
        let block = self.block(START / block_size, || "superblock".into())?;
        let bytes = block.bytes.get(in_memory(START % block_size)..).unwrap_or_default();
        match RawSuperblock::read_from_prefix(bytes) {
            Ok((raw, _)) => Ok(raw),
            Err(_) => Err(corrupt("superblock: its block is too small", START)),
        }
    }

    /// Notes on the volume that it has what a feature stands for, if it does not say so yet.
    pub(crate) fn require(&self, feature: RoCompat) -> Result<()> {
        if self.sb.ro_compat.contains(feature) {
            return Ok(());
        }
        self.add_feature(|raw| raw.feature_ro_compat = (raw.feature_ro_compat.get() | feature.bits()).into())
    }

    /// As [`Self::require`], for a compatible feature.
    pub(crate) fn require_compat(&self, feature: Compat) -> Result<()> {
        if self.sb.compat.contains(feature) {
            return Ok(());
        }
        self.add_feature(|raw| raw.feature_compat = (raw.feature_compat.get() | feature.bits()).into())
    }

    fn add_feature(&self, add: impl FnOnce(&mut RawSuperblock)) -> Result<()> {
        self.edit_superblock(|raw| {
            if raw.rev_level.get() == 0 {
                // The first revision has no features; what the second lets vary was fixed in it.
                raw.rev_level = 1.into();
                raw.first_ino = FIRST_INODE.into();
                raw.inode_size = 128.into();
            }
            add(raw);
        })
    }

    /// Changes the superblock, and sets its checksum.
    pub(crate) fn edit_superblock<T>(&self, change: impl FnOnce(&mut RawSuperblock) -> T) -> Result<T> {
        let block_size = u64::from(self.sb.block_size);
        let start = in_memory(START % block_size);
        self.edits.superblock_changed.store(true, Ordering::Relaxed);
        self.edit(
            START / block_size,
            || "superblock".into(),
            |bytes| {
                let raw = bytes.get_mut(start..).and_then(|b| RawSuperblock::mut_from_prefix(b).ok());
                let Some((raw, _)) = raw else {
                    return Err(corrupt("superblock: its block is too small", START));
                };
                let result = change(raw);
                raw.seal();
                Ok(result)
            },
        )
    }
}
