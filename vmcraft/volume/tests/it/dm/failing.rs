//! Thin pools on devices that fail while they are written.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use testkit::tempdir;
use vmcraft_block::{BlockDevice, Discard, MapExtents};
use vmcraft_volume::dm::thin::{Options, Pool};

use super::thin::{check, restore};
use super::{content, memory};

const BLOCK: u64 = 65536;
const SIZE: u64 = 20 * BLOCK;
/// No write fails.
const NEVER: u64 = u64::MAX;

/// How a write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// That one, and nothing is written.
    Once,
    /// And all that follow.
    ForGood,
    /// That one, after some of it was written.
    Torn,
}

/// A device of which one write fails. Several share the count.
struct Failing {
    device: Arc<dyn BlockDevice>,
    left: Arc<AtomicU64>,
    failure: Failure,
}

impl BlockDevice for Failing {
    fn size(&self) -> u64 {
        self.device.size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.device.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        match self.left.load(Ordering::SeqCst) {
            NEVER => return self.device.write_at(offset, buf),
            0 if self.failure == Failure::ForGood => {}
            0 => {
                self.left.store(NEVER, Ordering::SeqCst);
                if self.failure == Failure::Torn {
                    // Within what a superblock has.
                    self.device.write_at(offset, &buf[..buf.len().min(200)])?;
                }
            }
            left => {
                self.left.store(left - 1, Ordering::SeqCst);
                return self.device.write_at(offset, buf);
            }
        }
        Err(io::Error::other("the disk failed"))
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn logical_sector_size(&self) -> u32 {
        512
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        None
    }
    fn discard(&self) -> Option<&dyn Discard> {
        None
    }
}

/// Metadata of volumes 0 and 1, which share twelve blocks, and of 2, which has five of its own.
fn metadata(dir: &Path) -> Vec<u8> {
    let mapping = |block: u64, data: u64| {
        format!(r#"<single_mapping origin_block="{block}" data_block="{data}" time="0"/>"#)
    };
    let shared: String = (0..12).map(|n| mapping(n, n)).collect();
    let own: String = (5..10).map(|n| mapping(n, n + 20)).collect();
    let xml = format!(
        r#"<superblock uuid="" time="1" transaction="4" flags="0" version="2" data_block_size="128" nr_data_blocks="40">
        <device dev_id="0" mapped_blocks="12" transaction="0" creation_time="0" snap_time="1">{shared}</device>
        <device dev_id="1" mapped_blocks="12" transaction="1" creation_time="1" snap_time="1">{shared}</device>
        <device dev_id="2" mapped_blocks="5" transaction="2" creation_time="0" snap_time="0">{own}</device></superblock>"#
    );
    content(&*restore(&xml, 1, dir))
}

fn contents(pool: &Arc<Pool>, ids: &[u32]) -> Vec<Vec<u8>> {
    ids.iter().map(|id| content(&*pool.volume(*id, SIZE, None).expect("a volume"))).collect()
}

/// Makes a change fail at each of its writes: what was there before is whole, in memory and on the disk, or the pool
/// says that it is not.
fn fail_everywhere(change: &dyn Fn(&Arc<Pool>) -> io::Result<()>, ids: &[u32]) {
    let dir = tempdir();
    let fresh = metadata(dir.path());
    for failure in [Failure::Once, Failure::ForGood, Failure::Torn] {
        let (mut fails, mut lost) = (0, 0);
        loop {
            let left = Arc::new(AtomicU64::new(NEVER));
            let data: Vec<u8> = (0..40 * BLOCK).map(|n| n.to_le_bytes()[2] ^ n.to_le_bytes()[0]).collect();
            let (metadata, data) = (memory(fresh.clone()), memory(data));
            let failing = |device: &Arc<dyn BlockDevice>| {
                Arc::new(Failing { device: device.clone(), left: left.clone(), failure })
            };
            let pool = Pool::open("vg/pool", failing(&metadata), failing(&data), Options::default()).unwrap();
            let before = contents(&pool, ids);
            let dump = check(&*metadata, dir.path());
            left.store(fails, Ordering::SeqCst);
            let result = change(&pool);
            let has_happened = left.swap(NEVER, Ordering::SeqCst) == NEVER;
            if result.is_ok() {
                assert!(!has_happened, "a failure was passed over");
                break;
            }
            let at = format!("{failure:?}, write {fails}");
            fails += 1;
            if failure == Failure::Torn && metadata_is_torn(&*metadata) {
                lost += 1;
                let error = pool.volume(0, SIZE, None).map(|_| ()).unwrap_err().to_string();
                assert!(error.contains("thin pool vg/pool is not used any more"), "{error}");
                assert!(change(&pool).unwrap_err().to_string().contains("is not used any more"));
                continue;
            }
            let told = result.unwrap_err().to_string();
            assert!(told.contains("thin pool vg/pool: ") && told.contains("the disk failed"), "{told}");
            assert_eq!(check(&*metadata, dir.path()), dump, "{at}");
            assert!(contents(&pool, ids) == before, "{at}");
            let reopened = Pool::open("again", metadata.clone(), data, Options::default()).unwrap();
            assert!(contents(&reopened, ids) == before, "{at}");
            assert_eq!((pool.transaction_id(), reopened.transaction_id()), (4, 4), "{at}");
            change(&pool).unwrap_or_else(|error| panic!("{at}, and again: {error}"));
            assert_ne!(check(&*metadata, dir.path()), dump, "{at}");
        }
        assert!(fails > 5, "{fails}");
        assert_eq!(lost, u64::from(failure == Failure::Torn));
    }
}

/// Whether the superblock is half old and half new: then no tool reads it.
fn metadata_is_torn(metadata: &dyn BlockDevice) -> bool {
    Pool::open("torn", memory(content(metadata)), memory(vec![0; 40 << 16]), Options::default()).is_err()
}

#[test]
fn a_write_that_fails_changes_nothing() {
    // Shared blocks, and new ones.
    fail_everywhere(
        &|pool| {
            let volume = pool.volume(0, SIZE, None).map_err(io::Error::from)?;
            volume.write_at(9 * BLOCK + 100, &vec![7; 5 << 16])
        },
        &[0, 1, 2],
    );
}

#[test]
fn a_discard_that_fails_changes_nothing() {
    fail_everywhere(
        &|pool| {
            let volume = pool.volume(1, SIZE, None).map_err(io::Error::from)?;
            volume.discard().ok_or(io::ErrorKind::Unsupported)?.discard(3 * BLOCK, 5 * BLOCK)
        },
        &[0, 1, 2],
    );
}

#[test]
fn a_removal_that_fails_changes_nothing() {
    fail_everywhere(&|pool| pool.remove_volumes(&[1], 5).map_err(io::Error::from), &[0, 2]);
}
