//! The content of files: against a model in memory, `e2fsck` and the kernel.

use std::fs::File;
use std::os::unix::fs::FileExt;

use bstr::BStr;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use vmcraft_fs::{Error, InodeNumber};

use crate::kernel::{Mount, can_mount};
use crate::sample::{debugfs, number_after};
use crate::scratch::{NEW, Scratch, assert_clean};

/// A new file in the root.
fn file(scratch: &Scratch, name: &str) -> InodeNumber {
    scratch.writer().create(scratch.root(), BStr::new(name), NEW).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// All content of a file.
fn content(scratch: &Scratch, inode: InodeNumber) -> Vec<u8> {
    let size = scratch.fs().metadata(inode).expect("metadata").size_bytes;
    let mut bytes = vec![0; usize::try_from(size).expect("a small file")];
    let read = scratch.fs().read(inode, 0, &mut bytes).expect("its content");
    assert_eq!(read, bytes.len());
    bytes
}

/// The space that a file has, in units of 512 bytes.
fn space(scratch: &Scratch, inode: InodeNumber) -> u64 {
    scratch.fs().metadata(inode).expect("metadata").blocks_512
}

/// Bytes that tell where they are from.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 7).to_le_bytes()[0] | 1)
        .collect()
}

/// Something done to one of a few files.
#[derive(Debug, Clone)]
enum Op {
    Write { file: usize, at: usize, len: usize, seed: u64 },
    Append { file: usize, len: usize, seed: u64 },
    Truncate { file: usize, size: usize },
    Allocate { file: usize, at: usize, len: usize, keep_size: bool },
    Punch { file: usize, at: usize, len: usize },
    Sync,
}

const FILES: usize = 3;
/// Far enough for triple indirect blocks of 1 KiB blocks is too far for a model; this is double.
const MOST: usize = 700_000;

fn op() -> impl Strategy<Value = Op> {
    let file = 0..FILES;
    let at = prop_oneof![3 => 0..MOST, 1 => 0..300usize, 1 => (0..MOST / 4096).prop_map(|b| b * 4096)];
    let len = prop_oneof![4 => 1..5000usize, 2 => 1..100usize, 1 => 1..100_000usize];
    prop_oneof![
        6 => (file.clone(), at.clone(), len.clone(), 0..100u64)
            .prop_map(|(file, at, len, seed)| Op::Write { file, at, len, seed }),
        3 => (file.clone(), len.clone(), 0..100u64).prop_map(|(file, len, seed)| Op::Append { file, len, seed }),
        2 => (file.clone(), at.clone()).prop_map(|(file, size)| Op::Truncate { file, size }),
        2 => (file.clone(), at.clone(), len.clone(), any::<bool>())
            .prop_map(|(file, at, len, keep_size)| Op::Allocate { file, at, len, keep_size }),
        3 => (file, at, len).prop_map(|(file, at, len)| Op::Punch { file, at, len }),
        1 => Just(Op::Sync),
    ]
}

/// Does the same to a file in memory.
fn model(files: &mut [Vec<u8>], op: &Op) {
    match *op {
        Op::Write { file, at, len, seed } => {
            let content = &mut files[file];
            content.resize(content.len().max(at + len), 0);
            content[at..at + len].copy_from_slice(&pattern(seed, len));
        }
        Op::Append { file, len, seed } => files[file].extend(pattern(seed, len)),
        Op::Truncate { file, size } => files[file].resize(size, 0),
        Op::Allocate { file, at, len, keep_size } => {
            let content = &mut files[file];
            if !keep_size {
                content.resize(content.len().max(at + len), 0);
            }
        }
        Op::Punch { file, at, len } => {
            let content = &mut files[file];
            let end = (at + len).min(content.len());
            if at < end {
                content[at..end].fill(0);
            }
        }
        Op::Sync => (),
    }
}

fn apply(scratch: &Scratch, inodes: &[InodeNumber], sizes: &[usize], op: &Op) -> Result<(), Error> {
    let w = scratch.writer();
    match *op {
        Op::Write { file, at, len, seed } => w.write(inodes[file], at as u64, &pattern(seed, len)),
        Op::Append { file, len, seed } => w.write(inodes[file], sizes[file] as u64, &pattern(seed, len)),
        Op::Truncate { file, size } => w.truncate(inodes[file], size as u64),
        Op::Allocate { file, at, len, keep_size } => {
            w.allocate(inodes[file], at as u64, len as u64, keep_size)
        }
        Op::Punch { file, at, len } => w.punch_hole(inodes[file], at as u64, len as u64),
        Op::Sync => w.sync(),
    }
}

/// Runs operations on a volume and a model; a full disk must leave a file as it was.
fn run_ops(size_mib: u64, options: &str, ops: &[Op]) {
    let mut scratch = Scratch::new(size_mib, options);
    let inodes: Vec<_> = (0..FILES).map(|i| file(&scratch, &format!("file-{i}"))).collect();
    let mut files = vec![Vec::new(); FILES];
    for op in ops {
        let sizes: Vec<_> = files.iter().map(Vec::len).collect();
        match apply(&scratch, &inodes, &sizes, op) {
            Ok(()) => model(&mut files, op),
            Err(Error::NoSpace(_)) => (),
            Err(Error::Unsupported(what)) if matches!(op, Op::Allocate { .. }) => {
                assert!(what.contains("block map"), "{what}");
            }
            Err(e) => panic!("{options}: {op:?}: {e}"),
        }
    }
    let compare = |scratch: &Scratch, when: &str| {
        for (inode, file) in inodes.iter().zip(&files) {
            assert!(content(scratch, *inode) == *file, "{options}: inode {inode:?} differs {when}");
        }
    };
    compare(&scratch, "before it is written out");
    scratch.judge();
    compare(&scratch, "afterwards");
    for inode in &inodes {
        scratch.writer().truncate(*inode, 0).unwrap_or_else(|e| panic!("{options}: {e}"));
        assert_eq!(content(&scratch, *inode), b"");
    }
    scratch.judge();
}

fn random_operations(cases: u32, size_mib: u64, options: &str, ops: std::ops::Range<usize>) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    TestRunner::new(config)
        .run(&prop::collection::vec(op(), ops), |ops| {
            run_ops(size_mib, options, &ops);
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{options}: {e}"));
}

#[test]
fn extents_like_a_model() {
    for options in [
        "-t ext4 -b 1024",
        "-t ext4 -b 4096 -O ^metadata_csum,^64bit",
        "-t ext4 -b 2048 -O inline_data",
        "-t ext4 -b 1024 -O inline_data -I 512",
        "-t ext4 -b 4096 -I 128 -O ^has_journal",
    ] {
        random_operations(6, 16, options, 10..80);
    }
}

#[test]
fn block_maps_like_a_model() {
    for options in
        ["-t ext2 -b 1024", "-t ext3 -b 2048", "-t ext4 -b 1024 -O ^extent,^64bit", "-t ext2 -b 4096 -r 0"]
    {
        random_operations(6, 16, options, 10..80);
    }
}

#[test] // No operation that finds no space changes anything.
fn full_disks_like_a_model() {
    for options in [
        "-t ext4 -b 1024 -O ^has_journal -N 16",
        "-t ext2 -b 1024 -N 16",
        "-t ext4 -b 1024 -O ^has_journal,inline_data -N 16",
    ] {
        random_operations(6, 1, options, 30..120);
    }
}

/// Fills the volume with files of a block through the kernel, and removes every other one.
fn fragment(scratch: &mut Scratch) -> bool {
    let can = can_mount("fragmented space");
    if can {
        scratch.lend(|image| {
            let mount = Mount::new(image, "noatime");
            let path = |i: usize| mount.path().join("fill").join(i.to_string());
            std::fs::create_dir(mount.path().join("fill")).expect("a directory");
            let made = (0..6000).take_while(|&i| std::fs::write(path(i), [0; 1024]).is_ok()).count();
            for i in (0..made).step_by(2) {
                std::fs::remove_file(path(i)).expect("a file");
            }
        });
    }
    can
}

#[test]
fn fragmented_space_makes_deep_trees() {
    for options in ["-t ext4 -b 1024 -N 8000 -O ^has_journal", "-t ext2 -b 1024 -N 8000"] {
        let mut scratch = Scratch::new(8, options);
        if !fragment(&mut scratch) {
            return;
        }
        let inode = file(&scratch, "fragmented");
        let free = scratch.free().0;
        assert!(free > 2500, "{free} blocks are free");
        // Almost all of what is left, then a bit too much, then all pieces in random order.
        let data = pattern(1, 2_000_000);
        scratch.writer().write(inode, 0, &data).expect("space");
        let (left, before) = (scratch.free().0, space(&scratch, inode));
        let error = scratch.writer().write(inode, 2_000_000, &pattern(2, 4 << 20)).expect_err("a full disk");
        assert!(matches!(error, Error::NoSpace(_)), "{error}");
        assert_eq!((scratch.free().0, space(&scratch, inode)), (left, before));
        scratch.judge();
        assert!(content(&scratch, inode) == data);
        if options.contains("ext4") {
            let stat = debugfs(&scratch.image, "ex fragmented");
            assert!(stat.contains(" 1/ 2 ") || stat.contains(" 1/ 3 "), "a tree of two levels: {stat}");
        }
        // In the middle every other block goes, then all.
        for block in (100..1500).step_by(2) {
            scratch.writer().punch_hole(inode, block * 1024, 1024).expect("a hole");
        }
        scratch.judge();
        scratch.writer().truncate(inode, 50_000).expect("less");
        scratch.judge();
        scratch.writer().write(inode, 0, &data).expect("space again");
        scratch.judge();
        assert!(content(&scratch, inode) == data);
        scratch.writer().truncate(inode, 0).expect("nothing");
        assert_eq!(space(&scratch, inode), 0);
        assert_eq!(scratch.free().0, free);
        scratch.judge();
    }
}

#[test] // Sparse in ascending, descending and random order: each extent is alone.
fn sparse_files_in_any_order() {
    for options in ["-t ext4 -b 1024", "-t ext4 -b 4096", "-t ext3 -b 1024"] {
        let mut scratch = Scratch::new(32, options);
        let blocks = 1000u64;
        let orders: [(&str, Vec<u64>); 3] = [
            ("ascending", (0..blocks).collect()),
            ("descending", (0..blocks).rev().collect()),
            ("mixed", (0..blocks).map(|i| i * 617 % blocks).collect()),
        ];
        for (name, order) in &orders {
            let inode = file(&scratch, name);
            for block in order {
                scratch.writer().write(inode, block * 9000, &block.to_le_bytes()).expect("space");
            }
        }
        scratch.judge();
        for (name, _) in &orders {
            let inode = scratch.at(name);
            for block in 0..blocks {
                let mut bytes = [0; 8];
                scratch.fs().read(inode, block * 9000, &mut bytes).expect("its content");
                assert_eq!(u64::from_le_bytes(bytes), block, "{options}: {name}");
            }
            // From the other end.
            for block in (0..blocks).rev().step_by(3) {
                scratch.writer().punch_hole(inode, block * 9000 / 4096 * 4096, 8192).expect("a hole");
            }
            scratch.judge();
            let inode = scratch.at(name);
            scratch.writer().truncate(inode, 9000 * 20).expect("less");
        }
        scratch.judge();
    }
}

#[test] // One call, one extent: what is written at once lies together.
fn large_writes_lie_together() {
    let mut scratch = Scratch::new(64, "-t ext4 -b 4096");
    let data = pattern(3, 20 << 20);
    let inode = file(&scratch, "large");
    for (index, piece) in data.chunks(1 << 20).enumerate() {
        scratch.writer().write(inode, (index as u64) << 20, piece).expect("space");
    }
    scratch.judge();
    assert!(content(&scratch, inode) == data);
    let runs = debugfs(&scratch.image, "ex large");
    assert!(runs.lines().count() <= 6, "{runs}");
}

#[test]
fn largest_sizes() {
    for (options, most) in [
        ("-t ext4 -b 1024", 0xffff_ffffu64 << 10),
        ("-t ext4 -b 4096", 0xffff_ffffu64 << 12),
        ("-t ext4 -b 4096 -O ^huge_file", (0xffff_ffffu64 / 8) << 12),
        ("-t ext2 -b 1024", (12 + 256 + 256 * 256 + 256 * 256 * 256) << 10),
    ] {
        let mut scratch = Scratch::new(16, options);
        let (inode, w) = (file(&scratch, "far"), scratch.writer());
        let error = w.truncate(inode, most + 1).expect_err("too large");
        assert!(matches!(error, Error::FileTooLarge(m) if m == most), "{options}: {error}");
        assert!(matches!(w.write(inode, most - 3, b"1234"), Err(Error::FileTooLarge(_))), "{options}");
        assert!(matches!(w.write(inode, u64::MAX - 3, b"1234"), Err(Error::FileTooLarge(_))), "{options}");
        w.write(inode, most - 4, b"1234").unwrap_or_else(|e| panic!("{options}: {e}"));
        w.write(inode, most / 2, b"half").unwrap_or_else(|e| panic!("{options}: {e}"));
        w.truncate(inode, most).unwrap_or_else(|e| panic!("{options}: {e}"));
        scratch.judge();
        let mut end = [0; 4];
        scratch.fs().read(inode, most - 4, &mut end).expect("its content");
        assert_eq!(&end, b"1234", "{options}");
        scratch.writer().truncate(inode, most / 2 + 2).expect("less");
        scratch.writer().truncate(inode, most / 2 + 4).expect("more");
        let mut end = [1; 4];
        scratch.fs().read(inode, most / 2, &mut end).expect("its content");
        assert_eq!(&end, b"ha\0\0", "what was cut off must not come back");
        scratch.judge();
    }
}

#[test] // A volume with a file of 2 GiB says so.
fn large_file_is_noted() {
    let mut scratch = Scratch::new(8, "-t ext2 -b 1024 -O ^large_file");
    let inode = file(&scratch, "large");
    scratch.writer().truncate(inode, i32::MAX as u64).expect("a hole");
    scratch.judge();
    assert!(!debugfs(&scratch.image, "features").contains("large_file"));
    scratch.writer().truncate(inode, 1 << 31).expect("a hole");
    scratch.judge();
    assert!(debugfs(&scratch.image, "features").contains("large_file"));
}

#[test]
fn space_in_advance() {
    let mut scratch = Scratch::new(32, "-t ext4 -b 1024");
    let (inode, w) = (file(&scratch, "file"), scratch.writer());
    w.allocate(inode, 0, 10_000_000, true).expect("space");
    assert_eq!(scratch.fs().metadata(inode).expect("metadata").size_bytes, 0);
    let taken = space(&scratch, inode);
    assert!(taken >= 10_000_000 / 512, "{taken}");
    w.write(inode, 5_000_100, b"in the middle").expect("space");
    assert_eq!(scratch.fs().next_data(inode, 0).expect("a map"), Some((5_000_100 / 1024 * 1024, 5_000_113)));
    w.write(inode, 1_000, &pattern(7, 3_000_000)).expect("space");
    scratch.judge();
    let mut expected = vec![0; 5_000_113];
    expected[5_000_100..].copy_from_slice(b"in the middle");
    expected[1_000..3_001_000].copy_from_slice(&pattern(7, 3_000_000));
    assert!(content(&scratch, inode) == expected);
    let w = scratch.writer();
    w.allocate(inode, 4_000_000, 8_000_000, false).expect("space");
    expected.resize(12_000_000, 0);
    assert!(content(&scratch, inode) == expected);
    // More than there is: nothing changes.
    let (free, before) = (scratch.free(), space(&scratch, inode));
    assert!(matches!(w.allocate(inode, 0, 40 << 20, false), Err(Error::NoSpace(_))));
    assert!(matches!(w.allocate(inode, 0, 0, false), Err(Error::InvalidInput(_))));
    assert_eq!((scratch.free(), space(&scratch, inode)), (free, before));
    // Truncating to the same size gives back what is behind it.
    w.allocate(inode, 12_000_000, 1_000_000, true).expect("space");
    assert!(space(&scratch, inode) > before);
    w.truncate(inode, 12_000_000).expect("the same size");
    assert_eq!(space(&scratch, inode), before);
    scratch.judge();
    assert!(content(&scratch, inode) == expected);
}

#[test] // What the kernel wrote we go on with, and the other way round.
fn writing_in_turns_with_the_kernel() {
    for options in ["-t ext4 -b 1024", "-t ext4 -b 4096", "-t ext2 -b 2048", "-t ext4 -b 4096 -O inline_data"]
    {
        let mut scratch = Scratch::new(24, options);
        let mut expected = vec![0; 300_000];
        let inode = file(&scratch, "file");
        scratch.writer().truncate(inode, 300_000).expect("a hole");
        for round in 0..6usize {
            let ours = pattern(round as u64, 3_000);
            let at = 40_000 * round + 777;
            scratch.writer().write(inode, at as u64, &ours).expect("space");
            expected[at..at + 3000].copy_from_slice(&ours);
            scratch.judge();
            let theirs = pattern(round as u64 + 50, 5_000);
            let at = 35_000 * round + 9_000;
            if !can_mount(options) {
                return;
            }
            scratch.lend(|image| {
                let mount = Mount::new(image, "noatime");
                let file =
                    File::options().read(true).write(true).open(mount.path().join("file")).expect("the file");
                let mut seen = vec![0; 300_000];
                file.read_exact_at(&mut seen, 0).expect("its content");
                assert!(seen == expected, "{options}: round {round}");
                file.write_all_at(&theirs, at as u64).expect("space");
            });
            expected[at..at + 5000].copy_from_slice(&theirs);
            assert!(content(&scratch, inode) == expected, "{options}: round {round}");
        }
        scratch.judge();
    }
}

#[test] // Small content is in the inode until it no longer fits, and what is around stays.
fn inline_data_grows_and_moves_out() {
    for options in ["-t ext4 -b 1024 -O inline_data", "-t ext4 -b 4096 -O inline_data -I 1024"] {
        let mut scratch = Scratch::new(8, options);
        let inode = file(&scratch, "small");
        let mut expected = Vec::new();
        let mut moved = false;
        for step in 0..150u64 {
            let piece = pattern(step, 9);
            scratch.writer().write(inode, expected.len() as u64, &piece).expect("space");
            expected.extend(piece);
            assert!(content(&scratch, inode) == expected, "{options}: step {step}");
            let inline = scratch.fs().flags(inode).expect("flags") & 0x1000_0000 != 0;
            assert_eq!(inline, !moved && inline, "{options}: content does not move back");
            assert!(step > 5 || inline, "{options}: 54 bytes are inline");
            moved = !inline;
            if step % 10 == 3 || moved && step % 50 == 0 {
                scratch.judge();
            }
        }
        assert!(moved, "{options}");
        scratch.judge();

        let other = file(&scratch, "other");
        let w = scratch.writer();
        w.write(other, 0, &pattern(9, 100)).expect("space");
        w.set_xattr(other, BStr::new("user.beside"), &[7; 20], Default::default()).expect("room");
        w.truncate(other, 30).expect("less");
        scratch.judge();
        let w = scratch.writer();
        w.truncate(other, 110).expect("more");
        let mut expected = pattern(9, 30);
        expected.resize(110, 0);
        assert_eq!(content(&scratch, other), expected);
        w.punch_hole(other, 10, 10).expect("zeros");
        expected[10..20].fill(0);
        assert_eq!(content(&scratch, other), expected);
        scratch.judge();
        scratch.writer().truncate(other, 100_000).expect("more");
        expected.resize(100_000, 0);
        assert_eq!(content(&scratch, other), expected);
        assert_eq!(scratch.fs().xattrs(other).expect("attributes"), [("user.beside".into(), vec![7; 20])]);
        scratch.judge();
    }
}

#[test] // A damaged map is refused by every change of content, and nothing is changed.
fn damaged_maps_are_not_changed() {
    let mut scratch = Scratch::new(16, "-t ext4 -b 1024 -O ^metadata_csum,^has_journal");
    let inode = file(&scratch, "file");
    for block in 0..400u64 {
        scratch.writer().write(inode, block * 2048, &[1; 1024]).expect("space");
    }
    scratch.judge();
    let tree = debugfs(&scratch.image, "ex file");
    let leaf = tree
        .lines()
        .find(|l| l.trim_start().starts_with("1/") || l.trim_start().starts_with("0/"))
        .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
        .unwrap_or_default();
    assert!(!leaf.is_empty(), "{tree}");
    let block = debugfs(&scratch.image, "blocks file");
    assert!(!block.is_empty());
    let index = number_after(&debugfs(&scratch.image, "stat file"), "(ETB0):");
    for (what, at, bytes) in [
        ("magic", 0u64, &[0u8, 0][..]),
        ("more entries than room", 2, &[0xff, 0xff]),
        ("another depth", 6, &[3, 0]),
        ("a block beyond the end", 12 + 8, &[0xff, 0xff, 0xff, 0x7f]),
        ("a length of none", 12 + 4, &[0, 0]),
        ("out of order", 24, &[0, 0, 0, 0]),
        ("overlapping", 12 + 4, &[0xff, 0x7f]),
    ] {
        let old = scratch.lend(|image| {
            let file = File::options().read(true).write(true).open(image).expect("the image");
            let mut old = vec![0; bytes.len()];
            file.read_exact_at(&mut old, index * 1024 + at).expect("the node");
            file.write_all_at(bytes, index * 1024 + at).expect("the node");
            old
        });
        let before = std::fs::read(&scratch.image).expect("the image");
        let w = scratch.writer();
        let results = [
            w.write(inode, 1024, b"x"),
            w.truncate(inode, 1000),
            w.punch_hole(inode, 0, 100_000),
            w.allocate(inode, 1024, 1024, false),
        ];
        for result in results {
            assert!(matches!(result, Err(Error::Corrupt { .. })), "{what}: {result:?}");
        }
        w.sync().expect("nothing to write");
        let mut after = std::fs::read(&scratch.image).expect("the image");
        // The time of the last change may be there.
        after[1024..2048].copy_from_slice(&before[1024..2048]);
        assert!(before == after, "{what}");
        scratch.lend(|image| {
            let file = File::options().write(true).open(image).expect("the image");
            file.write_all_at(&old, index * 1024 + at).expect("the node");
        });
    }
    scratch.lend(|image| assert_clean(image, "the damage is mended"));
}

#[test] // A block map that leads to itself ends in an error.
fn looping_block_maps_are_not_changed() {
    let mut scratch = Scratch::new(16, "-t ext2 -b 1024");
    let inode = file(&scratch, "file");
    scratch.writer().write(inode, 70_000_000, b"far").expect("space");
    scratch.judge();
    let triple = number_after(&debugfs(&scratch.image, "stat file"), "(TIND):");
    scratch.lend(|image| {
        let file = File::options().write(true).open(image).expect("the image");
        let pointer = u32::try_from(triple).expect("a block").to_le_bytes();
        file.write_all_at(&pointer.repeat(256), triple * 1024).expect("the block");
    });
    let before = scratch.free();
    let error = scratch.writer().truncate(inode, 0).expect_err("a loop");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    assert_eq!(scratch.free(), before);
}

#[test]
fn what_cannot_be_written_is_refused() {
    let mut scratch = Scratch::new(8, "-t ext4 -b 1024");
    let inode = file(&scratch, "file");
    let w = scratch.writer();
    let root = scratch.root();
    assert!(matches!(w.write(root, 0, b"x"), Err(Error::IsADirectory)));
    let link = w.symlink(root, BStr::new("link"), BStr::new("file"), NEW).expect("a link");
    assert!(matches!(w.truncate(link, 0), Err(Error::InvalidInput(_))));
    w.write(inode, 0, b"content").expect("space");
    const IMMUTABLE: u32 = 0x10;
    const APPEND: u32 = 0x20;
    let flags = w_flags(&scratch, inode);
    w.set_flags(inode, flags | IMMUTABLE).expect("a flag");
    assert!(matches!(w.write(inode, 7, b"x"), Err(Error::NotPermitted(_))));
    assert!(matches!(w.allocate(inode, 0, 9000, false), Err(Error::NotPermitted(_))));
    assert!(matches!(
        w.set_xattr(inode, BStr::new("user.a"), b"", Default::default()),
        Err(Error::NotPermitted(_))
    ));
    w.set_flags(inode, flags | APPEND).expect("a flag");
    assert!(matches!(w.write(inode, 0, b"x"), Err(Error::NotPermitted(_))));
    assert!(matches!(w.truncate(inode, 0), Err(Error::NotPermitted(_))));
    assert!(matches!(w.punch_hole(inode, 0, 3), Err(Error::NotPermitted(_))));
    w.write(inode, 7, b", more").expect("it may be added to");
    assert_eq!(content(&scratch, inode), b"content, more");
    scratch.judge();
}

fn w_flags(scratch: &Scratch, inode: InodeNumber) -> u32 {
    scratch.fs().flags(inode).expect("flags")
}
