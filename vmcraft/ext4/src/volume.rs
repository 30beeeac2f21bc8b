//! The volume: its device, its superblock and the metadata blocks that are in memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use vmcraft_block::BlockDevice;
use vmcraft_fs::{Result, Sources};

use crate::cache::Cache;
use crate::edit::Edits;
use crate::groups::Groups;
use crate::map::OpenInode;
use crate::superblock::Superblock;
use crate::{corrupt, in_memory};

/// How many bytes of metadata blocks a generation of the cache holds.
const CACHE_BYTES: usize = 4 << 20;
/// The largest read-ahead of an inode table, in bytes.
const READ_AHEAD_BYTES: u64 = 128 << 10;
/// How many inodes whose content was read a generation of the cache holds.
const CACHED_INODES: usize = 1024;

/// The device and what is known of it. Everything else in this crate reads through it.
pub(crate) struct Volume {
    pub(crate) device: Arc<dyn BlockDevice>,
    pub(crate) sb: Superblock,
    /// For the times and numbers of what is changed.
    pub(crate) sources: Sources,
    pub(crate) blocks: Cache<Arc<Block>>,
    /// Inodes whose content was read, with what is known of where it is.
    pub(crate) inodes: Cache<Arc<OpenInode>>,
    /// What is newer in memory than on the device.
    pub(crate) edits: Edits,
    /// The groups as they are in memory, once something is allocated or freed.
    pub(crate) groups: Mutex<Option<Groups>>,
    pub(crate) inode_tables: ReadAhead,
    pub(crate) directories: ReadAhead,
}

/// Where reads that follow each other have come to, and how far ahead to read the next.
#[derive(Default)]
pub(crate) struct ReadAhead {
    /// The block behind the last that was read.
    next: AtomicU64,
    /// How many blocks the last read had.
    window: AtomicU64,
}

impl ReadAhead {
    /// How many blocks to read from `number`, of `longest`: twice as many as before if they follow.
    fn advance(&self, number: u64, longest: u64) -> u64 {
        // Two threads may mix their traces, which costs a read, no more.
        let follows = number == self.next.load(Ordering::Relaxed);
        let window = if follows { self.window.load(Ordering::Relaxed).saturating_mul(2) } else { 2 };
        let count = window.clamp(1, longest.max(1));
        self.window.store(count, Ordering::Relaxed);
        self.next.store(number + count, Ordering::Relaxed);
        count
    }
}

/// A metadata block in memory.
pub(crate) struct Block {
    pub(crate) bytes: Box<[u8]>,
    /// What its checksum was verified as: 0, or a [`Role`].
    verified: AtomicU64,
}

impl Clone for Block {
    fn clone(&self) -> Self {
        let verified = AtomicU64::new(self.verified.load(Ordering::Relaxed));
        Self { bytes: self.bytes.clone(), verified }
    }
}

/// What a block is used as, and for which inode. A block that a damaged volume uses in two roles is
/// verified in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    ExtentNode(u32),
    Directory(u32),
    Xattrs,
}

impl Role {
    fn key(self) -> u64 {
        match self {
            Self::ExtentNode(inode) => 1 << 32 | u64::from(inode),
            Self::Directory(inode) => 2 << 32 | u64::from(inode),
            Self::Xattrs => 3 << 32,
        }
    }
}

impl Block {
    pub(crate) fn new(bytes: Box<[u8]>) -> Arc<Self> {
        Arc::new(Self { bytes, verified: AtomicU64::new(0) })
    }

    /// Runs `verify`, unless it passed before for the same role.
    pub(crate) fn verify_once(&self, role: Role, verify: impl FnOnce(&[u8]) -> Result<()>) -> Result<()> {
        // Two threads may both verify; the outcome is the same.
        if self.verified.load(Ordering::Relaxed) != role.key() {
            verify(&self.bytes)?;
            self.verified.store(role.key(), Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Volume {
    pub(crate) fn new(device: Arc<dyn BlockDevice>, sb: Superblock, sources: Sources) -> Self {
        let capacity = CACHE_BYTES / sb.block_size as usize;
        Self {
            device,
            sb,
            sources,
            blocks: Cache::new(capacity),
            inodes: Cache::new(CACHED_INODES),
            edits: Edits::default(),
            groups: Mutex::new(None),
            inode_tables: ReadAhead::default(),
            directories: ReadAhead::default(),
        }
    }

    /// A metadata block. `what` names the structure that should be there, for an error.
    pub(crate) fn block(&self, number: u64, what: impl FnOnce() -> String) -> Result<Arc<Block>> {
        if let Some(block) = self.edits.get(number).or_else(|| self.blocks.get(number)) {
            return Ok(block);
        }
        if number >= self.sb.blocks {
            let what = format!("{}: block {number} of {}", what(), self.sb.blocks);
            return Err(corrupt(what, number.saturating_mul(u64::from(self.sb.block_size))));
        }
        let mut bytes = vec![0; self.sb.block_size as usize].into_boxed_slice();
        self.device.read_at(self.sb.byte_of(number), &mut bytes)?;
        Ok(self.blocks.insert(number, Block::new(bytes)))
    }

    /// A block of what is likely to be read in order, such as an inode table. `available` blocks
    /// from `number` on belong to it, all of them within the volume.
    pub(crate) fn block_in_order(
        &self,
        number: u64,
        available: u64,
        ahead: &ReadAhead,
    ) -> Result<Arc<Block>> {
        if let Some(block) = self.edits.get(number).or_else(|| self.blocks.get(number)) {
            return Ok(block);
        }
        let block_size = u64::from(self.sb.block_size);
        let count = ahead.advance(number, available.min(READ_AHEAD_BYTES / block_size));
        // At most READ_AHEAD_BYTES, or one block.
        let mut bytes = vec![0; in_memory(count * block_size)];
        self.device.read_at(self.sb.byte_of(number), &mut bytes)?;
        let mut blocks = bytes.chunks_exact(in_memory(block_size)).map(|b| Block::new(b.into()));
        let first = blocks.next().map(|b| self.blocks.insert(number, b));
        for (block, after) in blocks.zip(number + 1..) {
            self.blocks.insert(after, block);
        }
        first.ok_or_else(|| corrupt("block of a table", self.sb.byte_of(number)))
    }
}
