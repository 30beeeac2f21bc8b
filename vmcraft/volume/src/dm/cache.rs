//! A cached device: the target `cache`, read through to its origin.
//!
//! What the cache has is a copy of the origin as long as no block is dirty, so the origin alone is
//! read. A write drops the cached copy of what it changes, and leaves the rest of the cache as it is.
//!
//! Spec: Linux `Documentation/admin-guide/device-mapper/cache.rst` and
//! `drivers/md/dm-cache-metadata.c`.
//!
//! Not supported: caches with dirty blocks, and writeback caches that were not stopped, of which
//! nobody can tell.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};

use vmcraft_block::{BlockDevice, Discard, MapExtents, check_range};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::persistent::array::{self, PER_BLOCK};
use super::persistent::block::{BLOCK, Block, Blocks, Kind, corrupt};
use crate::{Error, Result};

/// As the kernel writes it: in octal.
const MAGIC: u64 = 0o6_142_003;
const CLEAN_SHUTDOWN: u32 = 1;
const NEEDS_CHECK: u32 = 2;
/// Flags of a mapping.
const VALID: u64 = 1;
const DIRTY: u64 = 2;
const SECTOR: u64 = 512;

/// When a cached block is written to the origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// At once, or never cached: the origin is always up to date.
    Writethrough,
    /// Later.
    Writeback,
}

/// The superblock on disk: block 0 of the metadata, little-endian.
///
/// Spec: Linux `drivers/md/dm-cache-metadata.c`, `struct cache_disk_superblock`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSuperblock {
    kept_000: [u8; 4],
    /// 0x004: [`CLEAN_SHUTDOWN`] and [`NEEDS_CHECK`].
    flags: U32,
    kept_008: [u8; 24],
    /// 0x020: [`MAGIC`].
    magic: U64,
    /// 0x028: 1, or 2 with a bitset of dirty blocks.
    version: U32,
    kept_02c: [u8; 148],
    /// 0x0c0: the array of mappings, by block of the cache.
    mapping_root: U64,
    kept_0c8: [u8; 8],
    /// 0x0d0: the bitset of blocks of the origin that were discarded.
    discard_root: U64,
    /// 0x0d8: in sectors of 512 bytes.
    discard_block_size: U64,
    /// 0x0e0: how many bits the bitset has.
    discard_nr_blocks: U64,
    /// 0x0e8: in sectors of 512 bytes.
    data_block_size: U32,
    kept_0ec: [u8; 4],
    /// 0x0f0: how many blocks the cache has.
    cache_blocks: U32,
    kept_0f4: [u8; 8],
    /// 0x0fc: features that one must know.
    incompat_flags: U32,
    kept_100: [u8; 28],
    /// 0x11c: the bitset of dirty blocks, in version 2.
    dirty_root: U64,
}
const _: () = assert!(size_of::<RawSuperblock>() == 0x124);

/// The superblock, checked.
struct Superblock {
    is_clean: bool,
    needs_check: bool,
    mapping_root: u64,
    /// The bitset of dirty blocks, if mappings do not say it themselves.
    dirty_root: Option<u64>,
    discard_root: u64,
    discard_block_bytes: u64,
    discard_blocks: u64,
    block_bytes: u64,
    cache_blocks: u64,
}

impl Superblock {
    fn decode(block: &Block) -> Result<Self> {
        let bad = |what: &str| corrupt(format!("{} ({what})", Kind::CacheSuperblock.name()), 0);
        let (raw, _) = RawSuperblock::ref_from_prefix(&**block).map_err(|_| bad("size"))?;
        if raw.magic.get() != MAGIC {
            return Err(bad("magic number"));
        }
        let version = raw.version.get();
        if !(1..=2).contains(&version) {
            return Err(Error::Unsupported(format!(
                "version {version} of a cache's metadata (1 and 2 are known)"
            )));
        }
        if raw.incompat_flags.get() != 0 {
            return Err(Error::Unsupported(format!(
                "incompatible features {:#x} of a cache's metadata",
                raw.incompat_flags.get()
            )));
        }
        let sectors = u64::from(raw.data_block_size.get());
        if sectors == 0 {
            return Err(bad("size of data blocks"));
        }
        let discard_block_bytes = raw.discard_block_size.get().checked_mul(SECTOR);
        let discard_blocks = if discard_block_bytes == Some(0) { 0 } else { raw.discard_nr_blocks.get() };
        Ok(Self {
            is_clean: raw.flags.get() & CLEAN_SHUTDOWN != 0,
            needs_check: raw.flags.get() & NEEDS_CHECK != 0,
            mapping_root: raw.mapping_root.get(),
            dirty_root: (version == 2).then(|| raw.dirty_root.get()),
            discard_root: raw.discard_root.get(),
            discard_block_bytes: discard_block_bytes.ok_or_else(|| bad("size of discard blocks"))?,
            discard_blocks,
            block_bytes: sectors * SECTOR,
            cache_blocks: raw.cache_blocks.get().into(),
        })
    }
}

/// A cached device.
pub struct Cache {
    origin: Arc<dyn BlockDevice>,
    /// `None` if the cache has never been used.
    cached: Option<Mutex<Cached>>,
    /// Why it may only be read.
    read_only: Option<&'static str>,
}

/// What is known of the content of a cache.
struct Cached {
    blocks: Blocks,
    superblock: Superblock,
    /// The blocks of the cache by those of the origin; read when something is first written.
    mappings: Option<HashMap<u64, u64>>,
}

impl Cache {
    /// Opens a cached device by the cache's metadata and the origin.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the cache may have what the origin has not, [`Error::Corrupt`] with the
    /// byte of the metadata device.
    pub fn open(
        metadata: Arc<dyn BlockDevice>,
        origin: Arc<dyn BlockDevice>,
        mode: Mode,
    ) -> Result<Arc<dyn BlockDevice>> {
        // Linux formats metadata that is all zeros when it first uses it.
        let mut first = [0; BLOCK];
        metadata.read_at(0, &mut first)?;
        if first == [0; BLOCK] {
            return Ok(Arc::new(Self { origin, cached: None, read_only: None }));
        }
        let blocks = Blocks::new(metadata);
        let superblock = Superblock::decode(&blocks.read(0, Kind::CacheSuperblock)?)?;
        let cached = Cached { blocks, superblock, mappings: None };
        if cached.superblock.is_clean {
            let dirty = cached.count_dirty()?;
            if dirty > 0 {
                return Err(Error::Unsupported(format!(
                    "a cache with {dirty} dirty blocks (dirty writeback), which the origin has not: \
                     start it in Linux and let it write them (lvchange --cachemode writethrough)"
                )));
            }
        } else if mode == Mode::Writeback {
            return Err(Error::Unsupported(
                "a writeback cache that was not stopped, so that all its blocks may be dirty: \
                 start it in Linux and let it write them (lvchange --cachemode writethrough)"
                    .into(),
            ));
        }
        let read_only =
            cached.superblock.needs_check.then_some("its metadata needs a check (needs_check): cache_check");
        Ok(Arc::new(Self { origin, cached: Some(Mutex::new(cached)), read_only }))
    }

    /// Sees that the cache has no copy of what is about to change.
    fn invalidate(&self, offset: u64, len: u64) -> io::Result<()> {
        if let Some(why) = self.read_only {
            return Err(io::Error::new(
                io::ErrorKind::ReadOnlyFilesystem,
                format!("the cached device cannot be written: {why}"),
            ));
        }
        let Some(cached) = &self.cached else { return Ok(()) };
        let mut cached = cached.lock().unwrap_or_else(|e| e.into_inner());
        let result = cached.invalidate(offset, len);
        if result.is_err() {
            cached.blocks.abandon();
        }
        Ok(result?)
    }
}

impl Cached {
    /// Calls `each` with the index and the value of all mappings.
    fn each_mapping(&self, mut each: impl FnMut(u64, u64)) -> Result<()> {
        for part in 0..self.superblock.cache_blocks.div_ceil(PER_BLOCK) {
            let found = array::part(&self.blocks, self.superblock.mapping_root, part)?;
            let found = found.ok_or_else(|| {
                corrupt(
                    format!("mappings of the cache (part {part} is missing)"),
                    self.superblock.mapping_root,
                )
            })?;
            for (index, value) in (part * PER_BLOCK..).zip(found.values()) {
                each(index, value);
            }
        }
        Ok(())
    }

    /// How many blocks are dirty. What the bitset says of blocks without a mapping means nothing.
    fn count_dirty(&self) -> Result<u64> {
        let (mut dirty, mut bits, mut failed) = (0, None, Ok(()));
        self.each_mapping(|index, value| {
            let is_dirty = match self.superblock.dirty_root {
                _ if value & VALID == 0 => false,
                None => value & DIRTY != 0,
                Some(root) => self.is_dirty(root, index, &mut bits).unwrap_or_else(|error| {
                    failed = Err(error);
                    true
                }),
            };
            dirty += u64::from(is_dirty);
        })?;
        failed.map(|()| dirty)
    }

    /// Looks into the bitset of dirty blocks; `known` is the part that was looked at last.
    fn is_dirty(&self, root: u64, index: u64, known: &mut Option<(u64, array::Part)>) -> Result<bool> {
        let (word, number) = (index / 64 % PER_BLOCK, index / 64 / PER_BLOCK);
        let missing = || corrupt(format!("dirty blocks of the cache (part {number} is missing)"), root);
        let part = match known.take() {
            Some((known, part)) if known == number => part,
            _ => array::part(&self.blocks, root, number)?.ok_or_else(missing)?,
        };
        let word = usize::try_from(word).ok().and_then(|word| part.get(word));
        *known = Some((number, part));
        Ok(word.ok_or_else(missing)? >> (index % 64) & 1 == 1)
    }

    fn invalidate(&mut self, offset: u64, len: u64) -> Result<()> {
        let mut mappings = match self.mappings.take() {
            Some(mappings) => mappings,
            None => {
                let mut mappings = HashMap::new();
                self.each_mapping(|index, value| {
                    if value & VALID != 0 {
                        mappings.insert(value >> 16, index);
                    }
                })?;
                mappings
            }
        };
        let (size, end) = (self.superblock.block_bytes, offset.saturating_add(len));
        for block in offset / size..end.div_ceil(size) {
            if let Some(index) = mappings.remove(&block) {
                array::set(&mut self.blocks, self.superblock.mapping_root, index, 0)?;
            }
        }
        // A block that counts as discarded would not be copied to the cache again. 0: there are none.
        let size = self.superblock.discard_block_bytes.max(1);
        for block in offset / size..end.div_ceil(size).min(self.superblock.discard_blocks) {
            let root = self.superblock.discard_root;
            let word = array::get(&self.blocks, root, block / 64)?.unwrap_or(0);
            if word >> (block % 64) & 1 == 1 {
                array::set(&mut self.blocks, root, block / 64, word & !(1 << (block % 64)))?;
            }
        }
        self.blocks.commit()?;
        self.mappings = Some(mappings);
        Ok(())
    }
}

impl BlockDevice for Cache {
    fn size(&self) -> u64 {
        self.origin.size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.origin.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size(), "a write")?;
        self.invalidate(offset, buf.len() as u64)?;
        self.origin.write_at(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        if let Some(cached) = &self.cached {
            cached.lock().unwrap_or_else(|e| e.into_inner()).blocks.device().flush()?;
        }
        self.origin.flush()
    }
    fn is_read_only(&self) -> bool {
        self.read_only.is_some()
            || self.origin.is_read_only()
            || self.cached.as_ref().is_some_and(|cached| {
                cached.lock().unwrap_or_else(|e| e.into_inner()).blocks.device().is_read_only()
            })
    }
    fn logical_sector_size(&self) -> u32 {
        self.origin.logical_sector_size()
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        self.origin.extents()
    }
    fn discard(&self) -> Option<&dyn Discard> {
        self.origin.discard().map(|_| self as &dyn Discard)
    }
}

impl Discard for Cache {
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.size(), "a discard")?;
        self.invalidate(offset, len)?;
        self.origin.discard().ok_or(io::ErrorKind::Unsupported)?.discard(offset, len)
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.size(), "a write of zeros")?;
        self.invalidate(offset, len)?;
        self.origin.discard().ok_or(io::ErrorKind::Unsupported)?.write_zeroes(offset, len)
    }
}
