//! Volumes that no one made by accident.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use vmcraft_block::{BlockDevice, Discard, MapExtents, MemoryDevice};
use vmcraft_ext4::fuzz;
use vmcraft_fs::{Error, OpenOptions};

use crate::corpus::probe_all;
use crate::features::mke2fs;
use crate::sample::{self, debugfs, inode_of, name};
use crate::tree;

/// A device that fails after so many reads: what reads more would never end.
struct Patient {
    inner: MemoryDevice,
    left: AtomicU64,
}

impl BlockDevice for Patient {
    fn size(&self) -> u64 {
        self.inner.size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |l| l.checked_sub(1)).is_err() {
            return Err(io::Error::other("out of patience"));
        }
        self.inner.read_at(offset, buf)
    }
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        panic!("a driver that only reads wrote")
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn is_read_only(&self) -> bool {
        true
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

/// Asks everything of a volume; it may fail, but only so late.
fn probe(bytes: Vec<u8>) {
    let device = Arc::new(Patient { inner: MemoryDevice::read_only(bytes), left: AtomicU64::new(300_000) });
    if let Ok(fs) = (vmcraft_ext4::DRIVER.open)(device.clone(), OpenOptions::default()) {
        probe_all(&*fs);
    }
    assert!(device.left.load(Ordering::Relaxed) > 0, "it reads without end");
}

/// A good volume with bits turned over where there is something to turn over.
pub(crate) struct Flips {
    good: Vec<u8>,
    /// Where the chunks of 128 bytes are that hold more than zeros and a file's filling.
    used: Vec<usize>,
}

/// A bit: which of the used chunks, and the byte and bit in it.
pub(crate) type Flip = (prop::sample::Index, usize, u32);

impl Flips {
    pub(crate) fn of(good: Vec<u8>) -> Self {
        let used = good
            .chunks(128)
            .enumerate()
            .filter(|(_, c)| c.iter().any(|b| *b != 0) && !c.iter().all(|b| *b == b'z'))
            .map(|(n, _)| n * 128)
            .collect();
        Self { good, used }
    }

    /// Some bits to turn over.
    pub(crate) fn some() -> impl Strategy<Value = Vec<Flip>> {
        prop::collection::vec((any::<prop::sample::Index>(), 0..128usize, 0..8u32), 1..20)
    }

    /// The volume with these bits turned over.
    pub(crate) fn turned(&self, bits: &[Flip]) -> Vec<u8> {
        let mut bytes = self.good.clone();
        for (chunk, at, bit) in bits {
            bytes[self.used[chunk.index(self.used.len())] + at] ^= 1 << bit;
        }
        bytes
    }
}

#[test] // Some bits of a good volume are turned over.
fn bit_flips() {
    for options in
        ["-t ext4 -b 1024 -O ^metadata_csum,inline_data", "-t ext4 -b 1024 -I 256", "-t ext3 -b 1024"]
    {
        let dir = testkit::tempdir();
        let image = sample::image(dir.path(), 4, options);
        let good = std::fs::read(&image).expect("an image");
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        let flips = Flips::of(good);
        proptest!(config, |(bits in Flips::some())| {
            probe(flips.turned(&bits));
        });
    }
}

/// A volume whose journal has a transaction, with the blocks of its log in order.
fn dirty(dir: &Path, options: &str, journal: &str) -> (PathBuf, Vec<u64>) {
    let image = sample::image(dir, 4, options);
    let blocks: Vec<u64> =
        debugfs(&image, "blocks <8>").split_whitespace().map(|b| b.parse().expect("a block")).collect();
    let content = dir.join("content");
    std::fs::write(&content, vec![0; 3 * 1024]).expect("a file");
    let script = dir.join("script");
    let commands =
        format!("{journal}\njw -b 3900,3901,3902 {}\njw -b 3901 {}\njc\n", name(&content), name(&content));
    std::fs::write(&script, commands).expect("a script");
    testkit::run_ok("debugfs", ["-w", "-f", name(&script), name(&image)]);
    assert!(testkit::run_ok("dumpe2fs", ["-h", name(&image)]).contains("needs_recovery"));
    (image, blocks)
}

#[test] // Bits of a dirty journal are turned over.
fn bit_flips_in_a_journal() {
    for (options, journal) in [
        ("-t ext4 -b 1024 -J size=1 -O ^metadata_csum", "jo"),
        ("-t ext4 -b 1024 -J size=1 -O metadata_csum", "jo -c -v 3"),
    ] {
        let dir = testkit::tempdir();
        let (image, blocks) = dirty(dir.path(), options, journal);
        let good = std::fs::read(&image).expect("an image");
        let flips = prop::collection::vec((0..9usize, prop_oneof![0..64usize, 0..1024usize], 0..8u32), 1..6);
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(flips in flips)| {
            let mut bytes = good.clone();
            for (block, at, bit) in flips {
                let block = usize::try_from(blocks[block]).expect("a small image");
                bytes[block * 1024 + at] ^= 1 << bit;
            }
            probe(bytes);
        });
    }
}

#[test] // A log in which each block seems to go on with the transaction, round and round.
fn log_without_end() {
    let dir = testkit::tempdir();
    let (image, blocks) = dirty(dir.path(), "-t ext4 -b 1024 -J size=1 -O ^metadata_csum", "jo");
    let bytes = std::fs::read(&image).expect("an image");
    let at = |block: u64| usize::try_from(block * 1024).expect("a small image");
    let log = &blocks[1..];
    let descriptor = bytes[at(log[0])..][..1024].to_vec();
    // A descriptor with tags, one with none, a revoke block: each over the whole log.
    let mut no_tags = descriptor.clone();
    no_tags.truncate(12);
    no_tags.resize(1024, 0xff);
    let mut revoke = descriptor.clone();
    revoke[7] = 5;
    revoke[12..16].copy_from_slice(&1024u32.to_be_bytes());
    for block in [descriptor, no_tags, revoke] {
        let mut bytes = bytes.clone();
        for &target in log {
            bytes[at(target)..][..1024].copy_from_slice(&block);
        }
        probe(bytes);
    }
}

#[test] // All blocks of the log are one revoke block, and there are as many as a file can have.
fn journal_longer_than_its_volume() {
    let dir = testkit::tempdir();
    let (image, blocks) = dirty(dir.path(), "-t ext3 -b 1024 -J size=1", "jo");
    let log = u32::try_from(blocks[1]).expect("a small image");
    loop_blocks(&image, "<8>", log, 1 << 34);
    let file = File::options().read(true).write(true).open(&image).expect("an image");
    let mut revoke = [0; 1024];
    file.read_exact_at(&mut revoke, blocks[1] * 1024).expect("a block");
    revoke[7] = 5;
    revoke[12..16].copy_from_slice(&16_u32.to_be_bytes());
    file.write_all_at(&revoke, blocks[1] * 1024).expect("a block");
    let maxlen = blocks[0] * 1024 + 0x10;
    file.write_all_at(&(1_u32 << 23).to_be_bytes(), maxlen).expect("a block");
    let error = tree::open(&image).map(drop).expect_err("a forged journal").to_string();
    assert!(error.contains("8388608 blocks, on a volume of 4096"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test] // Bytes of any kind: mostly small numbers, as formats have them.
    fn decoders_do_not_panic(
        bytes in prop::collection::vec(prop_oneof![3 => Just(0u8), 3 => 0..16u8, 1 => any::<u8>()], 0..4096),
        magic in 0..6usize,
    ) {
        let mut bytes = bytes;
        let start: &[u8] = [
            &b""[..],
            &[0x0a, 0xf3, 3, 0, 4, 0, 0, 0],
            &[0x0a, 0xf3, 3, 0, 40, 0, 1, 0],
            &[0, 0, 2, 0xea],
            &[0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 4],
            &[1, 0, 0, 0],
        ][magic];
        for (byte, given) in bytes.iter_mut().zip(start) {
            *byte = *given;
        }
        fuzz::superblock(&bytes);
        fuzz::group_descriptor(&bytes);
        fuzz::inode(&bytes);
        fuzz::extent_node(&bytes);
        fuzz::directory(&bytes);
        fuzz::htree_root(&bytes);
        fuzz::xattr_block(&bytes);
        fuzz::posix_acl(&bytes);
        fuzz::journal(&bytes);
        fuzz::volume(&bytes);
    }
}

/// Fills a block with one number.
fn fill(image: &Path, block: u64, number: u32) {
    let file = File::options().write(true).open(image).expect("an image");
    file.write_all_at(&number.to_le_bytes().repeat(256), block * 1024).expect("a block");
}

/// Lets all pointers of a file lead to one block again and again, through three levels.
fn loop_blocks(image: &Path, path: &str, data: u32, size: u64) {
    let (single, double, triple) = (3000, 3001, 3002);
    fill(image, single, data);
    fill(image, double, 3000);
    fill(image, triple, 3001);
    for (field, value) in [("IND", single), ("DIND", double), ("TIND", triple)] {
        debugfs(image, &format!("sif {path} block[{field}] {value}"));
    }
    debugfs(image, &format!("sif {path} size {size}"));
}

#[test]
fn directory_whose_blocks_are_one_block() {
    let dir = testkit::tempdir();
    let image = mke2fs(dir.path(), 4, "-t ext2 -b 1024");
    debugfs(&image, "mkdir loop");
    let block = debugfs(&image, "blocks /loop").trim().parse().expect("a block");
    loop_blocks(&image, "/loop", block, 0x4000_0000);
    let fs = tree::open(&image).expect("a volume");
    let inode = fs.lookup(fs.root(), "loop".into()).expect("the directory");
    let mut entries = 0u64;
    let result = fs.read_dir(inode, 0, &mut |_| {
        entries += 1;
        ControlFlow::Continue(())
    });
    let Err(Error::Corrupt { what, .. }) = result else { panic!("{result:?}") };
    assert!(what.contains("more blocks than the volume has"), "{what}");
    assert!(matches!(fs.lookup(inode, "nothing".into()), Err(Error::Corrupt { .. })));
}

#[test] // A file may claim any size: what is asked for is answered, and holes take no time.
fn file_of_claimed_size() {
    let dir = testkit::tempdir();
    let image = mke2fs(dir.path(), 4, "-t ext2 -b 1024");
    let content = dir.path().join("content");
    std::fs::write(&content, "data").expect("a file");
    debugfs(&image, &format!("write {} file", name(&content)));
    let block = debugfs(&image, "blocks /file").trim().parse().expect("a block");
    loop_blocks(&image, "/file", block, 17_000_000_000);
    let fs = tree::open(&image).expect("a volume");
    let inode = fs.lookup(fs.root(), "file".into()).expect("the file");
    let mut buf = vec![0; 3000];
    assert_eq!(fs.read(inode, 16_000_000_000, &mut buf).expect("data"), 3000);
    assert!(buf.windows(4).any(|w| w == b"data"));
    // The run of data is as long as one answer may look.
    let (start, end) = fs.next_data(inode, 13 * 1024).expect("data").expect("data");
    assert!(start == 13 * 1024 && end > start);

    fill(&image, 3000, 0);
    let fs = tree::open(&image).expect("a volume");
    assert_eq!(fs.next_data(inode, 13 * 1024).expect("holes"), None);

    debugfs(&image, "sif /file size 0x7fffffffffffffff");
    let fs = tree::open(&image).expect("a volume");
    assert_eq!(fs.metadata(inode).expect("metadata").size_bytes, i64::MAX as u64);
    assert!(matches!(fs.read(inode, 1 << 60, &mut buf), Err(Error::Corrupt { .. })));
}

#[test]
fn htree_that_leads_back_to_itself() {
    let dir = testkit::tempdir();
    let image = sample::image(dir.path(), 8, "-t ext4 -b 1024 -O ^metadata_csum");
    let blocks: Vec<u64> =
        debugfs(&image, "blocks /many").split_whitespace().map(|b| b.parse().expect("a block")).collect();
    let many = inode_of(&image, "/many");
    let file = File::options().read(true).write(true).open(&image).expect("an image");
    let root = blocks[0] * 1024;
    let find = |name: &str| {
        let fs = tree::open(&image).expect("a volume");
        fs.lookup(vmcraft_fs::InodeNumber(many), name.into())
    };
    // One more level: leaves are taken for nodes.
    file.write_all_at(&[1], root + 30).expect("a byte");
    assert!(matches!(find("x"), Err(Error::Corrupt { .. })), "{:?}", find("x"));
    file.write_all_at(&[0], root + 30).expect("a byte");
    // Every leaf is the first one, and every hash goes on in the next.
    let mut count = [0; 2];
    file.read_exact_at(&mut count, root + 34).expect("the count");
    file.write_all_at(&1u32.to_le_bytes(), root + 36).expect("an entry");
    for entry in 1..u64::from(u16::from_le_bytes(count)) {
        file.write_all_at(&0xffff_fffeu32.to_le_bytes(), root + 32 + entry * 8).expect("an entry");
        file.write_all_at(&1u32.to_le_bytes(), root + 36 + entry * 8).expect("an entry");
    }
    assert!(matches!(find("x"), Err(Error::NotFound)), "{:?}", find("x"));
    // The root as a leaf of its own.
    file.write_all_at(&0u32.to_le_bytes(), root + 36).expect("an entry");
    assert!(matches!(find("x"), Err(Error::NotFound)), "{:?}", find("x"));
}

#[test] // Names of one hash may go on in the next leaf, which its lowest bit says.
fn names_of_one_hash_in_two_leaves() {
    let dir = testkit::tempdir();
    let image = sample::image(dir.path(), 8, "-t ext4 -b 1024 -O ^metadata_csum");
    let dump = debugfs(&image, "htree_dump /many");
    // The second leaf begins with the name whose hash the second entry has.
    let leaf = dump.split("Entry #1: Hash 0x").nth(2).expect("the second leaf");
    let hash = u32::from_str_radix(&leaf[..8], 16).expect("a hash");
    let first = leaf.lines().nth(2).expect("a name");
    assert!(first.contains(&format!("0x{hash:08x}")), "{first}");
    let name = first.split_whitespace().nth(3).expect("a name");
    let root: u64 = debugfs(&image, "blocks /many")
        .split_whitespace()
        .next()
        .and_then(|b| b.parse().ok())
        .expect("a block");
    let file = File::options().write(true).open(&image).expect("an image");
    let find = |entry: u32| {
        file.write_all_at(&entry.to_le_bytes(), root * 1024 + 40).expect("an entry");
        let fs = tree::open(&image).expect("a volume");
        let many = fs.lookup(fs.root(), "many".into())?;
        fs.lookup(many, name.into())
    };
    let inode = find(hash).expect("the name");
    assert_eq!(find(hash | 1).expect("the name, in the next leaf"), inode);
    assert!(matches!(find(hash + 2), Err(Error::NotFound)));
}

#[test] // Out of order, a search would miss entries that are there.
fn extents_out_of_order() {
    let dir = testkit::tempdir();
    let image = sample::image(dir.path(), 8, "-t ext4 -b 1024 -O ^metadata_csum");
    let leaf = sample::number_after(&debugfs(&image, "stat /fragmented"), "(ETB0):");
    let file = File::options().read(true).write(true).open(&image).expect("an image");
    let mut entries = [0; 24];
    file.read_exact_at(&mut entries, leaf * 1024 + 12 * 10).expect("two extents");
    entries.rotate_left(12);
    file.write_all_at(&entries, leaf * 1024 + 12 * 10).expect("two extents");
    let fs = tree::open(&image).expect("a volume");
    let inode = fs.lookup(fs.root(), "fragmented".into()).expect("the file");
    let Err(Error::Corrupt { what, .. }) = fs.read(inode, 0, &mut [0]) else { panic!("it was read") };
    assert!(what.contains(&format!("extent block {leaf}")) && what.contains("out of order"), "{what}");
}

#[test] // A device that fails is not taken for a damaged volume.
fn failing_device() {
    let dir = testkit::tempdir();
    let image = sample::image(dir.path(), 4, "-t ext4 -b 1024");
    let bytes = std::fs::read(&image).expect("an image");
    for reads in 0..40 {
        let inner = MemoryDevice::read_only(bytes.clone());
        let device = Arc::new(Patient { inner, left: AtomicU64::new(reads) });
        let outcome =
            (vmcraft_ext4::DRIVER.open)(device, OpenOptions::default()).and_then(|fs| tree::ours(&*fs));
        match outcome {
            Err(Error::Io(e)) => assert_eq!(e.to_string(), "out of patience"),
            Err(other) => panic!("after {reads} reads: {other}"),
            Ok(_) => panic!("{reads} reads are too few"),
        }
    }
}
