//! The transaction against a plain vector of bytes.

use std::io;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use vmcraft_block::{
    Access, BlockDevice, Discard, Extent, MapExtents, MemoryDevice, Transaction, TransactionDisk,
    TransactionOptions,
};

use crate::support::{Noise, assert_same, read_all};

/// A disk in memory that gives space back: zeros are holes.
pub(crate) struct Thin {
    bytes: MemoryDevice,
    /// What was discarded or made zeros: start, length, whether zeros are certain.
    pub(crate) cleared: Mutex<Vec<(u64, u64, bool)>>,
}

impl Thin {
    pub(crate) fn new(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self { bytes: MemoryDevice::new(bytes), cleared: Mutex::default() })
    }

    fn clear(&self, offset: u64, len: u64, certain: bool) -> io::Result<()> {
        self.cleared.lock().unwrap().push((offset, len, certain));
        self.bytes.write_at(offset, &vec![0; usize::try_from(len).unwrap()])
    }
}

impl BlockDevice for Thin {
    fn size(&self) -> u64 {
        self.bytes.size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.bytes.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.bytes.write_at(offset, buf)
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
        Some(self)
    }
    fn discard(&self) -> Option<&dyn Discard> {
        Some(self)
    }
}

impl MapExtents for Thin {
    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        // A piece of an extent will do, and holes need not begin or end where sectors do.
        const PIECE: u64 = 1000;
        let first = PIECE - offset % PIECE;
        let len = |at: u64, most: u64| usize::try_from((self.size() - at).min(most)).unwrap();
        let mut bytes = vec![0; len(offset, first + 20 * PIECE)];
        self.bytes.read_at(offset, &mut bytes)?;
        let (start, rest) = bytes.split_at(len(offset, first));
        let is_hole = is_zero(start);
        let same = rest.chunks(1000).take_while(|piece| is_zero(piece) == is_hole);
        let len = start.len() + same.map(<[u8]>::len).sum::<usize>();
        Ok(Extent { offset, len: len as u64, is_hole })
    }
}

impl Discard for Thin {
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.clear(offset, len, false)
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        self.clear(offset, len, true)
    }
}

pub(crate) fn disk(device: Arc<dyn BlockDevice>, access: Access) -> TransactionDisk {
    TransactionDisk { device, name: "disk".into(), access, image: None }
}

/// So little memory that most chunks are in the file.
fn little_memory(chunks: usize) -> TransactionOptions {
    TransactionOptions { memory: chunks << 16, ..TransactionOptions::default() }
}

#[derive(Debug, Clone)]
enum Operation {
    Write(u64, usize, u64),
    Discard(u64, u64),
    Zeroes(u64, u64),
    Savepoint,
    RollbackToSavepoint,
    ReleaseSavepoint,
    Commit,
    Rollback,
}

/// Six chunks and a piece that is no whole sector.
const SIZE: usize = (6 << 16) + 700;

fn operation() -> impl Strategy<Value = Operation> {
    let range = (0..SIZE as u64, 1..200_000u64, 0..3u8).prop_map(|(at, len, align)| {
        let unit = [1, 512, 1 << 16][usize::from(align)];
        let (at, end) = (at / unit * unit, (at + len).next_multiple_of(unit).min(SIZE as u64));
        (at, end - at)
    });
    prop_oneof![
        8 => (range.clone(), any::<u64>())
            .prop_map(|((at, len), seed)| Operation::Write(at, usize::try_from(len).unwrap(), seed)),
        4 => (0..SIZE as u64 - 3000, 1..3000usize, any::<u64>())
            .prop_map(|(at, len, seed)| Operation::Write(at, len, seed)),
        3 => range.clone().prop_map(|(at, len)| Operation::Discard(at, len)),
        3 => range.prop_map(|(at, len)| Operation::Zeroes(at, len)),
        2 => Just(Operation::Savepoint),
        2 => Just(Operation::RollbackToSavepoint),
        1 => Just(Operation::ReleaseSavepoint),
        1 => Just(Operation::Commit),
        1 => Just(Operation::Rollback),
    ]
}

fn zero(model: &mut [u8], at: u64, end: u64) {
    model[usize::try_from(at).unwrap()..usize::try_from(end).unwrap()].fill(0);
}

/// Compares memory, which is fast in unoptimised tests too.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| *first == 0 && bytes[1..] == bytes[..bytes.len() - 1])
}

fn check_extents(device: &dyn BlockDevice, model: &[u8]) {
    let extents = device.extents().expect("the disk below has them");
    let mut at = 0;
    while at < SIZE as u64 {
        let extent = extents.extent_at(at).unwrap();
        assert_eq!(extent.offset, at);
        assert!(extent.len > 0 && at + extent.len <= SIZE as u64, "{extent:?}");
        let range = usize::try_from(at).unwrap()..usize::try_from(at + extent.len).unwrap();
        if extent.is_hole {
            assert!(is_zero(&model[range]), "{extent:?} is no hole");
        }
        at += extent.len;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_transaction_is_as_a_vector_of_bytes(
        operations in prop::collection::vec(operation(), 1..40),
        memory in 0..5usize,
    ) {
        let start = Noise::new(1).bytes(SIZE);
        let below = Thin::new(start.clone());
        let transaction =
            Transaction::new(vec![disk(below.clone(), Access::Commit)], little_memory(memory));
        let device = transaction.device(0).unwrap();
        let (mut model, mut saved, mut committed) = (start.clone(), None, start);
        for operation in operations {
            match operation {
                Operation::Write(at, len, seed) => {
                    let bytes = Noise::new(seed).bytes(len);
                    device.write_at(at, &bytes).unwrap();
                    model[usize::try_from(at).unwrap()..][..len].copy_from_slice(&bytes);
                }
                Operation::Discard(at, len) => {
                    device.discard().unwrap().discard(at, len).unwrap();
                    let end = if at + len == SIZE as u64 { SIZE as u64 } else { (at + len) / 512 * 512 };
                    let first = at.next_multiple_of(512).min(end);
                    zero(&mut model, first, end);
                }
                Operation::Zeroes(at, len) => {
                    device.discard().unwrap().write_zeroes(at, len).unwrap();
                    zero(&mut model, at, at + len);
                }
                Operation::Savepoint => {
                    transaction.savepoint();
                    saved = Some(model.clone());
                }
                Operation::RollbackToSavepoint => {
                    transaction.rollback_to_savepoint();
                    model = saved.take().unwrap_or(model);
                }
                Operation::ReleaseSavepoint => {
                    transaction.release_savepoint();
                    saved = None;
                }
                Operation::Commit => {
                    transaction.commit().unwrap();
                    (committed, saved) = (model.clone(), None);
                    assert!(!transaction.is_changed());
                }
                Operation::Rollback => {
                    transaction.rollback().unwrap();
                    (model, saved) = (committed.clone(), None);
                }
            }
            assert_same(&read_all(&device), &model, "the disk");
            check_extents(&device, &model);
            assert_same(&read_all(&below), &committed, "the disk below");
        }
        transaction.commit().unwrap();
        assert_same(&read_all(&below), &model, "the disk below after the last commit");
    }
}

#[test] // It stayed when nothing was to be written, and going back to it lost what was written since.
fn a_commit_of_nothing_forgets_the_savepoint() {
    let below = Arc::new(MemoryDevice::new(vec![1; 8192]));
    let transaction =
        Transaction::new(vec![disk(below.clone(), Access::Commit)], TransactionOptions::default());
    let device = transaction.device(0).unwrap();
    transaction.savepoint();
    transaction.commit().unwrap();
    device.write_at(0, &[2; 512]).unwrap();
    transaction.rollback_to_savepoint();
    assert_eq!(read_all(&device)[..512], [2; 512]);
    transaction.commit().unwrap();
    assert_eq!(read_all(&*below)[..512], [2; 512]);
}

/// Memory for so many chunks, and nowhere for more.
fn memory_only(chunks: usize) -> TransactionOptions {
    TransactionOptions { spill_directories: Vec::new(), ..little_memory(chunks) }
}

#[test] // A part of a long write stayed when the rest found no room.
fn a_write_that_finds_no_room_changes_nothing() {
    let start = Noise::new(4).bytes(SIZE);
    let below = Thin::new(start);
    let transaction = Transaction::new(vec![disk(below, Access::Commit)], memory_only(5));
    let device = transaction.device(0).unwrap();
    device.write_at(70_000, &[1; 1000]).unwrap();
    device.discard().unwrap().write_zeroes(200_000, 50_000).unwrap();
    let before = read_all(&device);
    for with_savepoint in [false, true] {
        if with_savepoint {
            transaction.savepoint();
        }
        let error = device.write_at(1000, &[2; 390_000]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
        assert_same(&read_all(&device), &before, "after the write that failed");
        check_extents(&device, &before);
        transaction.rollback_to_savepoint();
        assert_same(&read_all(&device), &before, "after the rollback");
    }
    device.write_at(75_000, &[3; 1000]).unwrap();
}

#[test] // Each disk had all of the memory for itself, and a commit that found no room stayed in part.
fn disks_that_are_only_seen_share_the_memory_and_are_committed_together() {
    let devices: Vec<_> = (0..2).map(|_| Arc::new(MemoryDevice::new(vec![0; 40 << 16]))).collect();
    let disks = devices.iter().map(|device| disk(device.clone(), Access::Forget)).collect();
    let transaction = Transaction::new(disks, memory_only(32));
    let of = |index| transaction.device(index).unwrap();
    for index in 0..2 {
        of(index).write_at(0, &vec![1; 4 << 16]).unwrap();
        transaction.commit().unwrap();
    }
    for index in 0..2 {
        of(index).write_at(0, &vec![2; 9 << 16]).unwrap();
    }
    of(0).write_at(20 << 16, &vec![2; 9 << 16]).unwrap_err();
    transaction.commit().unwrap_err();
    for index in 0..2 {
        assert_same(&read_all(&of(index))[..9 << 16], &vec![2; 9 << 16], "what is not committed");
    }
    transaction.rollback().unwrap();
    for index in 0..2 {
        let committed = [vec![1; 4 << 16], vec![0; 36 << 16]].concat();
        assert_same(&read_all(&of(index)), &committed, "what was committed");
        assert!(transaction.is_disk_changed(index));
    }
}

#[test] // However long they are, zeros are a range: no memory, no time, and a hole in the end.
fn zeros_are_kept_as_ranges() {
    struct Huge(Mutex<Vec<(u64, u64, bool)>>);
    impl BlockDevice for Huge {
        fn size(&self) -> u64 {
            1 << 50
        }
        fn read_at(&self, _: u64, buf: &mut [u8]) -> io::Result<()> {
            buf.fill(0x55);
            Ok(())
        }
        fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
            assert_eq!((offset, buf), (4096, &[7; 512][..]));
            Ok(())
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
            Some(self)
        }
    }
    impl Discard for Huge {
        fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
            self.0.lock().unwrap().push((offset, len, false));
            Ok(())
        }
        fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
            self.0.lock().unwrap().push((offset, len, true));
            Ok(())
        }
    }
    let below = Arc::new(Huge(Mutex::default()));
    let transaction =
        Transaction::new(vec![disk(below.clone(), Access::Commit)], TransactionOptions::default());
    let device = transaction.device(0).unwrap();
    device.write_at(1 << 40, &[1; 70_000]).unwrap();
    device.discard().unwrap().write_zeroes(0, 1 << 50).unwrap();
    device.discard().unwrap().discard(1 << 20, 1 << 45).unwrap();
    device.write_at(4096, &[7; 512]).unwrap();
    let mut buf = [1; 1024];
    device.read_at(4096, &mut buf).unwrap();
    assert_eq!((buf[511], buf[512]), (7, 0));
    transaction.commit().unwrap();
    // What was made zeros stays so although it was discarded afterwards.
    assert_eq!(*below.0.lock().unwrap(), [(0, 4096, true), (4608, (1 << 50) - 4608, true)]);
}

#[test] // Whoever may not write is told which image and why; whoever only looks may try things out.
fn accesses_are_kept_apart() {
    let bytes = vec![3; 8192];
    let devices: Vec<_> = (0..3).map(|_| Arc::new(MemoryDevice::new(bytes.clone()))).collect();
    let access = [Access::Commit, Access::Forget, Access::Refuse("permission denied".into())];
    let disks = devices.iter().zip(access).map(|(device, access)| disk(device.clone(), access)).collect();
    let transaction = Transaction::new(disks, TransactionOptions::default());
    let of = |index| transaction.device(index).unwrap();
    of(1).write_at(10, &[9; 10]).unwrap();
    assert!(!transaction.is_changed());
    of(0).write_at(10, &[9; 10]).unwrap();
    assert!(transaction.is_changed());
    let refused = of(2).write_at(0, &[0]).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(refused.to_string(), "disk: cannot be changed: permission denied");
    transaction.commit().unwrap();
    let mut byte = [0];
    of(1).read_at(10, &mut byte).unwrap();
    assert_eq!(byte, [9], "what is only seen stays until the end");
    of(1).write_at(10, &[8]).unwrap();
    transaction.rollback().unwrap();
    of(1).read_at(10, &mut byte).unwrap();
    assert_eq!(byte, [9], "a rollback goes back to the last commit there, too");
    assert!(transaction.is_disk_changed(1) && !transaction.is_disk_changed(0));
    assert_eq!(read_all(&*devices[1]), bytes);
    assert_eq!(read_all(&*devices[0])[10..20], [9; 10]);
    assert!(transaction.device(3).is_none());
}
