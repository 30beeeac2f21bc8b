//! A cache over a device: bounded memory, read-ahead, and counts of what was read.
//!
//! File systems read their metadata in small pieces, again and again; those come from memory. Large
//! reads are file content that is seldom read twice: they go to the device as they are, straight into
//! the caller's buffer. Writes go through, so there is never anything to write back.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::device::check_range;
use crate::generations::Generations;
use crate::{BlockDevice, Discard, Extent, MapExtents};

/// What is kept and loaded at a time, in bytes.
const BLOCK: u64 = 8 << 10;

/// Reads of this many bytes and more bypass the cache.
const LARGE: usize = 64 << 10;

/// The most that one load reads ahead, in blocks: 512 KiB.
const MAX_AHEAD: u64 = 64;

/// Blocks are spread over this many locks.
const SHARDS: u64 = 16;

/// How much was read so far. The numbers only grow.
#[derive(Debug, Default)]
pub struct Counters {
    requests: AtomicU64,
    bytes: AtomicU64,
    device_requests: AtomicU64,
    device_bytes: AtomicU64,
}

/// The numbers at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads that were asked of the cache.
    pub requests: u64,
    /// Bytes that they asked for.
    pub bytes: u64,
    /// Reads that the cache asked of the device.
    pub device_requests: u64,
    /// Bytes that those asked for.
    pub device_bytes: u64,
}

impl Counters {
    /// The numbers now.
    pub fn get(&self) -> Counts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            requests: load(&self.requests),
            bytes: load(&self.bytes),
            device_requests: load(&self.device_requests),
            device_bytes: load(&self.device_bytes),
        }
    }
}

/// A device, with what was read of it lately kept in memory.
pub struct Cache {
    inner: Arc<dyn BlockDevice>,
    shards: Vec<Mutex<Shard>>,
    /// How far a load may read ahead, in blocks.
    max_ahead: u64,
    counters: Arc<Counters>,
}

type Block = Arc<[u8]>;

struct Shard {
    blocks: Generations<u64, Block>,
    /// Counts the writes to blocks of this shard, so that what was read before a write is not kept
    /// after it.
    writes: u64,
}

impl Cache {
    /// A cache of at most `capacity` bytes; with 0 nothing is kept.
    pub fn new(inner: Arc<dyn BlockDevice>, capacity: usize) -> Self {
        let blocks = capacity as u64 / BLOCK;
        // Each shard keeps two generations.
        let in_shard = usize::try_from((blocks / SHARDS / 2).max(1)).unwrap_or(usize::MAX);
        let shard = || Mutex::new(Shard { blocks: Generations::new(in_shard), writes: 0 });
        let shards = if blocks == 0 { 0 } else { SHARDS };
        Self {
            inner,
            shards: (0..shards).map(|_| shard()).collect(),
            max_ahead: MAX_AHEAD.min(blocks / 8).max(1),
            counters: Arc::default(),
        }
    }

    /// The counts, which can be read while the cache is in use.
    pub fn counters(&self) -> Arc<Counters> {
        self.counters.clone()
    }

    fn shard(&self, block: u64) -> MutexGuard<'_, Shard> {
        // Below the number of shards; there are some wherever this is called.
        let index = usize::try_from(block % SHARDS).unwrap_or(0);
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_device(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.counters.device_requests.fetch_add(1, Ordering::Relaxed);
        self.counters.device_bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.inner.read_at(offset, buf)
    }

    /// The blocks to load for a miss at `first`, if those up to `wanted` (exclusive) are needed: the
    /// further, the more blocks before `first` are known, as one who reads on will go on.
    fn blocks_to_load(&self, first: u64, wanted: u64) -> Range<u64> {
        let known_before = (1..=self.max_ahead)
            .take_while(|back| first.checked_sub(*back).is_some_and(|b| self.shard(b).blocks.contains(&b)))
            .count() as u64;
        let ahead = (first + known_before.saturating_mul(2).min(self.max_ahead)).max(wanted);
        let end = ahead.min(self.inner.size().div_ceil(BLOCK));
        let known_after = (first + 1..end).find(|b| self.shard(*b).blocks.contains(b));
        first..known_after.unwrap_or(end)
    }

    /// Loads blocks and keeps them, unless they are written meanwhile. Gives the bytes from the start
    /// of the first block on, up to the end of the last one or of the device.
    fn load(&self, blocks: Range<u64>) -> io::Result<Vec<u8>> {
        let writes: Vec<u64> = blocks.clone().map(|block| self.shard(block).writes).collect();
        let start = blocks.start * BLOCK;
        let end = (blocks.end * BLOCK).min(self.inner.size());
        // At most the read-ahead, or a small read and two parts of blocks.
        let mut bytes = vec![0; usize::try_from(end - start).map_err(io::Error::other)?];
        self.read_device(start, &mut bytes)?;
        let pieces = bytes.chunks(usize::try_from(BLOCK).unwrap_or(usize::MAX));
        for ((block, piece), writes) in blocks.zip(pieces).zip(writes) {
            let piece: Block = piece.into();
            let mut shard = self.shard(block);
            if shard.writes == writes {
                shard.blocks.insert(block, piece);
            }
        }
        Ok(bytes)
    }

    /// Forgets what is known of a range that has been written.
    fn forget(&self, offset: u64, len: u64) {
        if self.shards.is_empty() || len == 0 {
            return;
        }
        let blocks = offset / BLOCK..(offset + len).div_ceil(BLOCK);
        let all = blocks.end - blocks.start > SHARDS * 64;
        if !all {
            for block in blocks {
                let mut shard = self.shard(block);
                shard.writes += 1;
                shard.blocks.remove(&block);
            }
            return;
        }
        // A range so long that it is quicker to look at what is kept.
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.writes += 1;
            shard.blocks.retain(|block| !blocks.contains(block));
        }
    }
}

impl BlockDevice for Cache {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.inner.size(), "a read")?;
        self.counters.requests.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        if buf.len() >= LARGE || self.shards.is_empty() {
            return self.read_device(offset, buf);
        }
        let end = offset + buf.len() as u64;
        let mut at = offset;
        let mut rest = buf;
        while at < end {
            let block = at / BLOCK;
            let known = self.shard(block).blocks.get(&block);
            // What was found or loaded, and where in it the next byte is: within a small read.
            let in_block = usize::try_from(at % BLOCK).map_err(io::Error::other)?;
            let loaded;
            let bytes = match &known {
                Some(bytes) => &bytes[..],
                None => {
                    let wanted = end.div_ceil(BLOCK);
                    let range = self.blocks_to_load(block, wanted);
                    loaded = match self.load(range.clone()) {
                        Ok(bytes) => bytes,
                        // Something that nobody asked for may be what cannot be read.
                        Err(_) => return self.read_device(at, rest),
                    };
                    &loaded[..]
                }
            };
            let found = bytes.get(in_block..).unwrap_or_default();
            let len = found.len().min(rest.len());
            if len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (now, later) = rest.split_at_mut(len);
            now.copy_from_slice(&found[..len]);
            rest = later;
            at += len as u64;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.inner.size(), "a write")?;
        let done = self.inner.write_at(offset, buf);
        // After a failure too: some of it may have been written.
        self.forget(offset, buf.len() as u64);
        done
    }

    fn flush(&self) -> io::Result<()> {
        self.inner.flush()
    }

    fn is_read_only(&self) -> bool {
        self.inner.is_read_only()
    }

    fn logical_sector_size(&self) -> u32 {
        self.inner.logical_sector_size()
    }

    fn extents(&self) -> Option<&dyn MapExtents> {
        self.inner.extents().map(|_| self as &dyn MapExtents)
    }

    fn discard(&self) -> Option<&dyn Discard> {
        self.inner.discard().map(|_| self as &dyn Discard)
    }
}

impl MapExtents for Cache {
    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        self.inner.extents().ok_or(io::ErrorKind::Unsupported)?.extent_at(offset)
    }
}

impl Discard for Cache {
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.inner.size(), "a discard")?;
        let done = self.inner.discard().ok_or(io::ErrorKind::Unsupported)?.discard(offset, len);
        self.forget(offset, len);
        done
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.inner.size(), "a write of zeros")?;
        let done = self.inner.discard().ok_or(io::ErrorKind::Unsupported)?.write_zeroes(offset, len);
        self.forget(offset, len);
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryDevice;

    fn device(len: usize) -> Arc<MemoryDevice> {
        Arc::new(MemoryDevice::new((0..len).map(|at| ((at / 512) ^ (at % 251)).to_le_bytes()[0]).collect()))
    }

    fn read(cache: &Cache, offset: u64, len: usize) -> Vec<u8> {
        let mut buf = vec![0; len];
        cache.read_at(offset, &mut buf).unwrap();
        buf
    }

    #[test] // What a file system asks for again does not reach the device.
    fn a_second_small_read_is_answered_from_memory() {
        let cache = Cache::new(device(1 << 20), 1 << 20);
        let first = read(&cache, 5000, 1024);
        let before = cache.counters().get();
        assert_eq!(read(&cache, 5000, 1024), first);
        let after = cache.counters().get();
        assert_eq!(after.device_requests, before.device_requests);
        assert_eq!((after.requests, after.bytes), (2, 2048));
    }

    #[test] // One who reads on in small steps makes few and large reads.
    fn reading_on_reads_ahead() {
        let (len, inner) = (4 << 20, device(4 << 20));
        let cache = Cache::new(inner.clone(), 1 << 20);
        let mut expected = vec![0; len];
        inner.read_at(0, &mut expected).unwrap();
        for at in (0..len).step_by(4096) {
            assert!(read(&cache, at as u64, 4096) == expected[at..at + 4096], "at {at:#x}");
        }
        let counts = cache.counters().get();
        assert_eq!(counts.requests, 1024);
        assert!(counts.device_requests < 1024 / 20, "{counts:?}");
        assert_eq!(counts.device_bytes, len as u64, "nothing is read twice");
    }

    #[test] // Content passes by without driving the metadata out.
    fn large_reads_bypass_the_cache() {
        let cache = Cache::new(device(8 << 20), 256 << 10);
        read(&cache, 0, 512);
        let before = cache.counters().get().device_requests;
        read(&cache, 1 << 20, 4 << 20);
        assert_eq!(cache.counters().get().device_requests, before + 1);
        read(&cache, 0, 512);
        assert_eq!(cache.counters().get().device_requests, before + 1);
    }

    #[test] // Memory stays within the bound whatever is read.
    fn the_cache_is_bounded() {
        let capacity = 1 << 20;
        let cache = Cache::new(device(8 << 20), capacity);
        for at in (0..8 << 20).step_by(3000) {
            read(&cache, at, 512);
        }
        let kept: usize = cache.shards.iter().map(|shard| shard.lock().unwrap().blocks.len()).sum();
        assert!(kept as u64 * BLOCK <= capacity as u64, "{kept} blocks");
        assert!(kept > 0);
    }

    #[test] // The last block is shorter than the others.
    fn the_end_of_an_odd_device() {
        let inner = device(100_000);
        let cache = Cache::new(inner.clone(), 1 << 20);
        let mut expected = vec![0; 10];
        inner.read_at(99_990, &mut expected).unwrap();
        assert_eq!(read(&cache, 99_990, 10), expected);
        assert!(cache.read_at(99_991, &mut [0; 10]).is_err());
    }

    #[test] // No reader sees old bytes once a write is done, with readers at it all the time.
    fn writes_are_seen_at_once() {
        let inner = Arc::new(MemoryDevice::new(vec![0; 1 << 20]));
        let cache = Cache::new(inner, 1 << 20);
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        for at in (0..1 << 20).step_by(4096) {
                            read(&cache, at, 512);
                        }
                    }
                });
            }
            for round in 1..=20 {
                for at in (0..1 << 20).step_by(8192) {
                    cache.write_at(at, &[round; 700]).unwrap();
                    assert_eq!(read(&cache, at, 700), [round; 700]);
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
