//! Blocks of metadata: checked when they are read, sealed when they are written.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use vmcraft_block::BlockDevice;

use super::node;
use crate::{Error, Result};

/// The size of a block in bytes.
pub(in crate::dm) const BLOCK: usize = 4096;
/// Where the superblock is, of thin pools and of caches.
pub(in crate::dm) const SUPERBLOCK: u64 = 0;
/// How many blocks are kept in memory that are the same on the device: 16 MiB.
const MAX_CLEAN: usize = 4096;

/// The bytes of a block.
pub(in crate::dm) type Block = Arc<[u8; BLOCK]>;

/// What a block is. Each kind has its own seed, so that one is not taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dm) enum Kind {
    ThinSuperblock,
    CacheSuperblock,
    Node,
    /// 16320 counts of two bits.
    Bitmap,
    /// The places of the bitmaps of a metadata space map.
    Index,
    /// The values of an array.
    Array,
}

impl Kind {
    /// What the checksum is combined with.
    fn seed(self) -> u32 {
        match self {
            Self::ThinSuperblock => 160_774,
            Self::CacheSuperblock => 9_031_977,
            Self::Node => 121_107,
            Self::Bitmap => 240_779,
            Self::Index => 160_478,
            Self::Array => 595_846_735,
        }
    }

    /// Where a block of this kind has its own number.
    fn number_at(self) -> usize {
        match self {
            Self::Array => 16,
            _ => 8,
        }
    }

    pub(in crate::dm) fn name(self) -> &'static str {
        match self {
            Self::ThinSuperblock => "superblock of the thin pool's metadata",
            Self::CacheSuperblock => "superblock of the cache's metadata",
            Self::Node => "B-tree node",
            Self::Bitmap => "space map bitmap",
            Self::Index => "space map index",
            Self::Array => "array block",
        }
    }

    /// The checksum that a block of this kind must have: CRC-32C of all but the first four bytes,
    /// without the last inversion, combined with the seed.
    fn checksum(self, bytes: &[u8; BLOCK]) -> u32 {
        !crc32c::crc32c(&bytes[4..]) ^ self.seed()
    }
}

/// Something that contradicts the format in block `number`.
pub(in crate::dm) fn corrupt(what: impl Into<String>, number: u64) -> Error {
    Error::Corrupt { what: what.into(), offset: number.saturating_mul(BLOCK as u64) }
}

/// Reads a number at `at`; 0 beyond the end, which callers rule out.
pub(in crate::dm) fn le64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Reads a number at `at`; 0 beyond the end, which callers rule out.
pub(in crate::dm) fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Writes bytes at `at`; nothing beyond the end, which callers rule out.
pub(in crate::dm) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// The blocks of a metadata device.
pub(in crate::dm) struct Blocks {
    device: Arc<dyn BlockDevice>,
    clean: Mutex<HashMap<u64, (Kind, Block)>>,
    staged: BTreeMap<u64, (Kind, Block)>,
}

impl Blocks {
    pub(in crate::dm) fn new(device: Arc<dyn BlockDevice>) -> Self {
        Self { device, clean: Mutex::new(HashMap::new()), staged: BTreeMap::new() }
    }

    /// How many there are.
    pub(in crate::dm) fn count(&self) -> u64 {
        self.device.size() / BLOCK as u64
    }

    /// The metadata device.
    pub(in crate::dm) fn device(&self) -> &dyn BlockDevice {
        &*self.device
    }

    fn clean(&self) -> MutexGuard<'_, HashMap<u64, (Kind, Block)>> {
        self.clean.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A block as it is now, staged changes included.
    pub(in crate::dm) fn read(&self, number: u64, kind: Kind) -> Result<Block> {
        let known = self.staged.get(&number).cloned().or_else(|| self.clean().get(&number).cloned());
        if let Some((known, block)) = known {
            if known != kind {
                return Err(corrupt(format!("{} (it is a {})", kind.name(), known.name()), number));
            }
            return Ok(block);
        }
        if number >= self.count() {
            return Err(corrupt(format!("{} (beyond the end of the metadata)", kind.name()), number));
        }
        let mut bytes = [0; BLOCK];
        self.device.read_at(number * BLOCK as u64, &mut bytes)?;
        if kind.checksum(&bytes) != le32(&bytes, 0) {
            return Err(corrupt(format!("{} (checksum)", kind.name()), number));
        }
        if le64(&bytes, kind.number_at()) != number {
            return Err(corrupt(format!("{} (its own block number)", kind.name()), number));
        }
        if kind == Kind::Node {
            node::check(&bytes, number)?;
        }
        let block = Arc::new(bytes);
        let mut clean = self.clean();
        if clean.len() >= MAX_CLEAN {
            clean.clear();
        }
        clean.insert(number, (kind, block.clone()));
        Ok(block)
    }

    /// The bytes of a block, to be changed.
    pub(in crate::dm) fn edit(&mut self, number: u64, kind: Kind) -> Result<&mut [u8; BLOCK]> {
        let block = self.read(number, kind)?;
        let (_, staged) = self.staged.entry(number).or_insert((kind, block));
        Ok(Arc::make_mut(staged))
    }

    /// The bytes of a new block, all zeros.
    pub(in crate::dm) fn create(&mut self, number: u64, kind: Kind) -> &mut [u8; BLOCK] {
        let block = (kind, Arc::new([0; BLOCK]));
        let staged = self.staged.entry(number).insert_entry(block).into_mut();
        Arc::make_mut(&mut staged.1)
    }

    /// Drops what is known of a block that is not used any more.
    pub(in crate::dm) fn forget(&mut self, number: u64) {
        self.staged.remove(&number);
        self.clean().remove(&number);
    }

    /// Writes all that is staged.
    pub(in crate::dm) fn commit(&mut self) -> Result<()> {
        while let Some((number, block)) = self.staged.pop_first() {
            self.write(number, block)?;
        }
        Ok(())
    }

    /// Writes all that is staged but the superblock.
    pub(super) fn commit_below_superblock(&mut self) -> Result<()> {
        let superblock = self.staged.remove(&SUPERBLOCK);
        self.commit()?;
        self.staged.extend(superblock.map(|superblock| (SUPERBLOCK, superblock)));
        Ok(())
    }

    fn write(&mut self, number: u64, (kind, block): (Kind, Block)) -> Result<()> {
        self.clean().remove(&number);
        let mut bytes = *block;
        put(&mut bytes, kind.number_at(), &number.to_le_bytes());
        let sum = kind.checksum(&bytes);
        put(&mut bytes, 0, &sum.to_le_bytes());
        self.device.write_at(number * BLOCK as u64, &bytes)?;
        let mut clean = self.clean();
        if clean.len() < MAX_CLEAN {
            clean.insert(number, (kind, Arc::new(bytes)));
        }
        Ok(())
    }

    /// Drops all that is staged.
    pub(in crate::dm) fn abandon(&mut self) {
        self.staged.clear();
    }
}
