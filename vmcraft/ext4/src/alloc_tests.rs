//! The allocator against volumes that `mke2fs` made, judged by `e2fsck`.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use vmcraft_block::{BlockDevice, MemoryDevice};
use vmcraft_fs::{Error, InodeNumber, Result, Sources};
use zerocopy::{FromZeros, IntoBytes};

use crate::inode::ROOT;
use crate::superblock::{RawSuperblock, START, Superblock};
use crate::volume::Volume;

fn bytes_of(size_mib: u64, options: &str) -> Vec<u8> {
    let dir = testkit::tempdir();
    let image = dir.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(size_mib << 20).unwrap();
    let name = image.to_str().unwrap();
    testkit::run_ok("mke2fs", ["-q", "-F"].into_iter().chain(options.split(' ')).chain([name]));
    std::fs::read(&image).unwrap()
}

fn volume(device: &Arc<MemoryDevice>) -> Volume {
    let mut raw = RawSuperblock::new_zeroed();
    device.read_at(START, raw.as_mut_bytes()).unwrap();
    let sb = Superblock::decode(&raw, device.size()).unwrap();
    Volume::new(device.clone(), sb, Sources::default())
}

fn assert_clean(device: &MemoryDevice, what: &str) {
    let mut bytes = vec![0; usize::try_from(device.size()).unwrap()];
    device.read_at(0, &mut bytes).unwrap();
    let dir = testkit::tempdir();
    let image = dir.path().join("image");
    std::fs::write(&image, bytes).unwrap();
    check(&image, what);
}

fn check(image: &Path, what: &str) {
    let output = testkit::run("e2fsck", ["-fn", image.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{what}: {text}");
}

impl Volume {
    fn available_blocks(&self) -> Result<u64> {
        self.with_groups(|groups| Ok(groups.free_blocks))
    }
}

/// All blocks, in the pieces that the allocator has.
fn allocate_all(volume: &Volume) -> Vec<Range<u64>> {
    let mut pieces = Vec::new();
    loop {
        match volume.allocate_blocks(0, 1 << 20) {
            Ok(run) => pieces.push(run),
            Err(Error::NoSpace(_)) => return pieces,
            Err(e) => panic!("{e}"),
        }
    }
}

const KINDS: [&str; 8] = [
    "-t ext4 -b 1024",
    "-t ext4 -b 4096 -I 128 -O ^64bit,^metadata_csum,uninit_bg -g 1024",
    "-t ext2 -b 1024",
    "-t ext3 -b 2048 -g 4096",
    "-t ext4 -b 1024 -O meta_bg,^resize_inode -g 2048",
    "-t ext4 -b 1024 -O ^flex_bg -g 1024",
    "-t ext4 -b 1024 -O sparse_super2 -g 1024",
    "-t ext4 -b 4096 -G 4 -g 512",
];

#[test] // Everything is given away once, and all of it comes back.
fn all_blocks_and_inodes() {
    for options in KINDS {
        let device = Arc::new(MemoryDevice::new(bytes_of(20, options)));
        let volume = volume(&device);
        let free = volume.available_blocks().unwrap();
        let mut pieces = allocate_all(&volume);
        assert_eq!(pieces.iter().map(|p| p.end - p.start).sum::<u64>(), free, "{options}");
        pieces.sort_by_key(|p| p.start);
        assert!(pieces.windows(2).all(|w| w[0].end <= w[1].start), "{options}: {pieces:?}");
        assert_eq!(volume.available_blocks().unwrap(), 0);
        volume.write_out().unwrap();

        let root = volume.inode(InodeNumber(ROOT.into())).unwrap();
        let mut inodes = Vec::new();
        loop {
            match volume.allocate_inode(&root, inodes.len() % 3 == 0) {
                Ok(number) => inodes.push(number),
                Err(Error::NoSpace(_)) => break,
                Err(e) => panic!("{options}: {e}"),
            }
        }
        volume.write_out().unwrap();
        let count = inodes.len();
        for (index, number) in inodes.iter().enumerate() {
            volume.free_inode(*number, index % 3 == 0).unwrap();
        }
        inodes.sort_unstable();
        inodes.dedup();
        assert_eq!(inodes.len(), count, "{options}: an inode was given away twice");
        assert_eq!(
            count,
            (volume.sb.inodes - volume.sb.first_inode) as usize,
            "{options}: all but lost+found"
        );
        for piece in pieces {
            volume.free_blocks(piece.start, piece.end - piece.start).unwrap();
        }
        assert_eq!(volume.available_blocks().unwrap(), free);
        volume.write_out().unwrap();
        assert_clean(&device, options);
    }
}

#[test] // A long request near an empty place gets one run; a short one gets the goal itself.
fn runs_are_long_and_near() {
    let device = Arc::new(MemoryDevice::new(bytes_of(64, "-t ext4 -b 4096")));
    let volume = volume(&device);
    let run = volume.allocate_blocks(8000, 4000).unwrap();
    assert_eq!(run, 8000..12_000);
    assert_eq!(volume.allocate_blocks(12_000, 1).unwrap(), 12_000..12_001);
    assert_eq!(volume.allocate_blocks(8000, 1).unwrap(), 12_001..12_002, "the next one that is free");
    volume.free_blocks(9000, 10).unwrap();
    assert_eq!(volume.allocate_blocks(8000, 1).unwrap(), 9000..9001);
    let run = volume.allocate_blocks(8000, 100).unwrap();
    assert_eq!(run.end - run.start, 100, "not the hole of nine: {run:?}");
}

#[test] // What fails is undone, whatever it did before.
fn failed_operations_leave_nothing() {
    let device = Arc::new(MemoryDevice::new(bytes_of(20, "-t ext4 -b 1024 -g 1024")));
    let volume = volume(&device);
    let free = volume.available_blocks().unwrap();
    let root = volume.inode(InodeNumber(ROOT.into())).unwrap();
    let failed: Result<()> = volume.atomically(|| {
        let run = volume.allocate_blocks(5000, 700)?;
        volume.put(run.start, vec![7; 1024].into())?;
        let number = volume.allocate_inode(&root, true)?;
        volume.free_inode(number, true)?;
        volume.free_blocks(run.start, 10)?;
        let mut changed = root.clone();
        changed.mode = 0o040_000;
        volume.store_inode(&changed)?;
        Err(Error::NotFound)
    });
    assert!(matches!(failed, Err(Error::NotFound)));
    assert_eq!(volume.available_blocks().unwrap(), free);
    assert_eq!(volume.inode(InodeNumber(ROOT.into())).unwrap().mode, root.mode);
    volume.write_out().unwrap();
    assert_clean(&device, "after a failure");
}

#[test] // Blocks that are free, or the file system's own, are not freed; nothing of the range is.
fn wrong_frees_are_refused() {
    let device = Arc::new(MemoryDevice::new(bytes_of(20, "-t ext4 -b 1024")));
    let volume = volume(&device);
    let run = volume.allocate_blocks(10_000, 20).unwrap();
    let free = volume.available_blocks().unwrap();
    for (first, count) in
        [(run.start, 21), (run.start - 1, 2), (1, 1), (2, 5), (0, 1), (20_479, 2), (u64::MAX, 2)]
    {
        let error = volume.atomically(|| volume.free_blocks(first, count)).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{first} {count}: {error}");
        assert_eq!(volume.available_blocks().unwrap(), free);
    }
    for number in [0, 1, 2, 10, volume.sb.inodes, volume.sb.inodes + 1, u32::MAX] {
        let error = volume.atomically(|| volume.free_inode(number, false)).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{number}: {error}");
    }
    volume.free_blocks(run.start, 20).unwrap();
    volume.write_out().unwrap();
    assert_clean(&device, "after wrong frees");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test] // Against a plain list of what is given away.
    fn as_a_list_of_blocks(
        kind in 0..KINDS.len(),
        steps in prop::collection::vec((any::<u64>(), 1..3000u32, 0..4u8), 1..120),
    ) {
        let device = Arc::new(MemoryDevice::new(bytes_of(20, KINDS[kind])));
        let volume = volume(&device);
        let mut held: Vec<Range<u64>> = Vec::new();
        let mut free = volume.available_blocks().unwrap();
        for (number, want, what) in steps {
            let before = (held.clone(), free);
            let fails = what == 3;
            let result = volume.atomically(|| {
                if what == 0 && !held.is_empty() {
                    // A part of what is held goes back.
                    let index = usize::try_from(number % held.len() as u64).unwrap();
                    let piece = held.swap_remove(index);
                    let cut = piece.start + (piece.end - piece.start) / 2;
                    volume.free_blocks(cut, piece.end - cut)?;
                    free += piece.end - cut;
                    if cut > piece.start {
                        held.push(piece.start..cut);
                    }
                } else {
                    let run = volume.allocate_blocks(number % volume.sb.blocks, want)?;
                    assert!(run.start < run.end && run.end - run.start <= u64::from(want));
                    assert!(held.iter().all(|h| h.end <= run.start || run.end <= h.start), "{run:?}");
                    free -= run.end - run.start;
                    held.push(run);
                }
                if fails { Err(Error::NotFound) } else { Ok(()) }
            });
            match result {
                Ok(()) => (),
                Err(Error::NotFound) => (held, free) = before,
                Err(Error::NoSpace(_)) => prop_assert_eq!(free, 0),
                Err(e) => panic!("{e}"),
            }
            prop_assert_eq!(volume.available_blocks().unwrap(), free);
        }
        for piece in held {
            volume.free_blocks(piece.start, piece.end - piece.start).unwrap();
        }
        volume.write_out().unwrap();
        assert_clean(&device, KINDS[kind]);
    }
}
