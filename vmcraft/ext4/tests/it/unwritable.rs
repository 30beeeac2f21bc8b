//! Volumes that are not changed: the reason is named, and not a byte is.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use testkit::run;
use vmcraft_fs::{Error, FileSystem, OpenOptions, SetMetadata};

use crate::features::mke2fs;
use crate::sample::{debugfs, name, number_after};
use crate::scratch::{NEW, Scratch};
use crate::tree::{self, open_for_writing};

/// Why the volume cannot be changed.
fn refusal(fs: &dyn FileSystem, what: &str) -> String {
    match fs.writer() {
        Ok(_) => panic!("{what}: it can be changed"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn features_that_are_not_kept_right() {
    for (options, commands, expected) in [
        ("-t ext4 -O bigalloc -C 65536", "", "bigalloc"),
        ("-t ext4 -O quota", "", "quota"),
        ("-t ext4 -O quota,project", "", "project"),
        ("-t ext4", "ssv feature_ro_compat 0x4eb", "has_snapshot"),
        ("-t ext4", "ssv feature_ro_compat 0x446b", "shared_blocks"),
        ("-t ext4", "ssv feature_ro_compat 0x146b", "the feature read-only"),
        ("-t ext4", "ssv feature_ro_compat 0x4000046b", "unknown feature 0x40000000"),
        ("-t ext4", "ssv creator_os 1", "the Hurd"),
        ("-t ext4", "ssv state 3", "errors were found"),
        ("-t ext2", "ssv state 0", "not unmounted cleanly"),
    ] {
        let dir = testkit::tempdir();
        let image = mke2fs(dir.path(), 16, options);
        if !commands.is_empty() {
            debugfs(&image, commands);
        }
        let before = std::fs::read(&image).expect("an image");
        let fs = open_for_writing(&image).unwrap_or_else(|e| panic!("{options} {commands}: {e}"));
        let message = refusal(&*fs, commands);
        assert!(message.contains(expected), "{message} is not {expected}");
        tree::ours(&*fs).unwrap_or_else(|e| panic!("{options} {commands}: it can be read, but {e}"));
        drop(fs);
        assert!(before == std::fs::read(&image).expect("an image"), "{expected}: something was changed");
    }
}

#[test] // A host that has the volume mounted says so in a block of its own.
fn volumes_that_are_in_use_elsewhere() {
    let dir = testkit::tempdir();
    let image = mke2fs(dir.path(), 16, "-t ext4 -O mmp");
    let fs = open_for_writing(&image).expect("a volume");
    let writer = fs.writer().expect("no one uses it");
    writer.create(fs.root(), "file".into(), NEW).expect("a file");
    writer.sync().expect("a sync");
    drop(fs);
    crate::scratch::assert_clean(&image, "mmp");
    let block = number_after(&debugfs(&image, "stats"), "MMP block number:");
    let file = File::options().write(true).open(&image).expect("an image");
    // A sequence number, as a mount counts them.
    file.write_all_at(&[1, 0, 0, 0], block * 4096 + 4).expect("a write");
    let fs = open_for_writing(&image).expect("a volume");
    assert!(refusal(&*fs, "mmp").contains("mmp"));
}

#[test] // Opened so, on such a device, or without the journal that it needs.
fn volumes_that_are_open_for_reading() {
    let dir = testkit::tempdir();
    let image = mke2fs(dir.path(), 16, "-t ext4");
    let fs = tree::open(&image).expect("a volume");
    assert!(refusal(&*fs, "a device that refuses").contains("refuses writes"));
    let open = |options| {
        let file = File::options().read(true).write(true).open(&image).expect("an image");
        let device = vmcraft_block::RawFile::new(file, false).expect("a device");
        (vmcraft_ext4::DRIVER.open)(std::sync::Arc::new(device), options).expect("a volume")
    };
    let fs = open(OpenOptions { read_only: true, ..OpenOptions::default() });
    assert!(refusal(&*fs, "read-only").contains("opened read-only"));
    debugfs(&image, "feature needs_recovery");
    let fs = open(OpenOptions { ignore_journal: true, ..OpenOptions::default() });
    assert!(refusal(&*fs, "noload").contains("noload"));
}

#[test]
fn external_journals_are_named() {
    let dir = testkit::tempdir();
    let journal = dir.path().join("journal");
    File::create(&journal).expect("a file").set_len(8 << 20).expect("space");
    testkit::run_ok("mke2fs", ["-q", "-F", "-b", "4096", "-O", "journal_dev", name(&journal)]);
    let image = mke2fs(dir.path(), 16, "-t ext4");
    let made = run("tune2fs", ["-O", "^has_journal", name(&image)]);
    assert!(made.status.success());
    debugfs(&image, "feature has_journal");
    debugfs(&image, "ssv journal_inum 0");
    let fs = open_for_writing(&image).expect("a volume");
    assert!(refusal(&*fs, "an external journal").contains("external journal"));
}

/// Turns bits over at a byte of the image.
fn flip(image: &Path, at: u64, mask: u8) {
    let file = File::options().read(true).write(true).open(image).expect("an image");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ mask], at).expect("a byte");
}

/// Where group 0's bitmaps are.
fn bitmaps(image: &Path) -> (u64, u64) {
    let stats = debugfs(image, "stats");
    let group = stats.split("Group  0:").nth(1).expect("group 0");
    (number_after(group, "block bitmap at"), number_after(group, "inode bitmap at"))
}

#[test] // Nothing is allocated by what contradicts itself, and nothing else is changed with it.
fn damaged_bitmaps_and_counts() {
    type Damage = fn(&Path);
    // Descriptors of 32 or 64 bytes are in block 2, as blocks are 1 KiB.
    const DESCRIPTOR: u64 = 2048;
    let cases: [(&str, &str, Damage, &str); 9] = [
        (
            "a bit of the block bitmap",
            "metadata_csum",
            |i| flip(i, bitmaps(i).0 * 1024 + 400, 1),
            "block bitmap of group 0: checksum",
        ),
        (
            "a bit of the inode bitmap",
            "metadata_csum",
            |i| flip(i, bitmaps(i).1 * 1024 + 1, 1),
            "inode bitmap of group 0: checksum",
        ),
        (
            "the group's checksum",
            "metadata_csum",
            |i| flip(i, DESCRIPTOR + 0x1e, 1),
            "descriptor of group 0: checksum",
        ),
        (
            "the group's checksum",
            "^metadata_csum,uninit_bg",
            |i| flip(i, DESCRIPTOR + 0x1e, 1),
            "descriptor of group 0: checksum",
        ),
        (
            "a block marked as used",
            "^metadata_csum,^uninit_bg",
            |i| flip(i, bitmaps(i).0 * 1024 + 400, 1),
            "free blocks, but",
        ),
        (
            "metadata marked as free",
            "^metadata_csum,^uninit_bg",
            |i| flip(i, bitmaps(i).0 * 1024, 1),
            "block 1 is metadata, but marked as free",
        ),
        (
            "an inode marked as used",
            "^metadata_csum,^uninit_bg",
            |i| flip(i, bitmaps(i).1 * 1024 + 100, 1),
            "free inodes, but",
        ),
        (
            "a count of free blocks",
            "^metadata_csum,^uninit_bg",
            |i| flip(i, DESCRIPTOR + 0xc, 1),
            "but the group's descriptor says",
        ),
        (
            "too many free inodes",
            "^metadata_csum,^uninit_bg",
            |i| flip(i, DESCRIPTOR + 0xf, 0xff),
            "free inodes",
        ),
    ];
    for (what, features, damage, expected) in cases {
        let dir = testkit::tempdir();
        let image = mke2fs(dir.path(), 4, &format!("-t ext4 -b 1024 -O {features}"));
        damage(&image);
        let before = std::fs::read(&image).expect("an image");
        let fs = open_for_writing(&image).expect("a volume");
        let result = fs.writer().and_then(|writer| writer.create(fs.root(), "file".into(), NEW));
        let error = result.expect_err(what);
        assert!(matches!(error, Error::Corrupt { .. }), "{what}: {error}");
        assert!(error.to_string().contains(expected), "{what}: {error}");
        if let Ok(writer) = fs.writer() {
            writer.sync().expect("nothing to write");
        }
        drop(fs);
        assert!(before == std::fs::read(&image).expect("an image"), "{what}: something was changed");
    }
}

#[test] // The count says that there are free blocks, and the bitmap has none: the disk is not full.
fn free_blocks_that_no_bitmap_has() {
    let dir = testkit::tempdir();
    let image = mke2fs(dir.path(), 4, "-t ext2 -b 1024");
    let (blocks, _) = bitmaps(&image);
    let file = File::options().write(true).open(&image).expect("an image");
    file.write_all_at(&[0xff; 1024], blocks * 1024).expect("a write");
    let fs = open_for_writing(&image).expect("a volume");
    let writer = fs.writer().expect("a writer");
    let inode = writer.create(fs.root(), "file".into(), NEW);
    let error = inode.and_then(|inode| writer.write(inode, 0, b"x")).expect_err("no space is there");
    assert!(error.to_string().contains("block bitmap of group 0: it has 0 free blocks"), "{error}");
}

#[test] // Two files that claim one block: the second to give it back finds it free.
fn blocks_of_two_files() {
    let mut scratch = Scratch::new(4, "-t ext2 -b 1024");
    for file in ["a", "b"] {
        let inode = scratch.writer().create(scratch.root(), file.into(), NEW).expect("a file");
        scratch.writer().write(inode, 0, &[7; 3000]).expect("a write");
    }
    scratch.lend(|image| {
        let of_a = debugfs(image, "blocks a");
        let block = of_a.split_whitespace().next().expect("a block");
        debugfs(image, &format!("sif b block[0] {block}"));
    });
    let (root, b) = (scratch.root(), scratch.at("b"));
    scratch.writer().unlink(root, "a".into()).expect("the first");
    let error = scratch.writer().unlink(root, "b".into()).expect_err("the second");
    assert!(error.to_string().contains("is to be freed, but is free already"), "{error}");
    assert_eq!(scratch.at("b"), b, "it is still there");
    let error = scratch.writer().truncate(b, 0).expect_err("the second");
    assert!(matches!(error, Error::Corrupt { .. }));
    assert_eq!(scratch.fs().metadata(b).expect("metadata").size_bytes, 3000);
}

#[test] // A block of a file is the inode table's, or the journal's.
fn blocks_of_the_file_systems_own() {
    type Find = fn(&Path) -> u64;
    let table: Find = |image| {
        let stats = debugfs(image, "stats");
        number_after(stats.split("Group  0:").nth(1).expect("group 0"), "inode table at")
    };
    let journal: Find = |image| {
        let blocks = debugfs(image, "blocks <8>");
        let first = blocks.split_whitespace().next().expect("a block");
        first.parse().expect("a number")
    };
    for (options, find) in [("-t ext2 -b 1024", table), ("-t ext3 -b 1024", journal)] {
        let mut scratch = Scratch::new(8, options);
        let inode = scratch.writer().create(scratch.root(), "a".into(), NEW).expect("a file");
        scratch.writer().write(inode, 0, &[7; 3000]).expect("a write");
        scratch.lend(|image| {
            debugfs(image, &format!("sif a block[1] {}", find(image)));
        });
        let error = scratch.writer().unlink(scratch.root(), "a".into()).expect_err("a forged block");
        assert!(error.to_string().contains("the file system's own"), "{error}");
    }
}

#[test]
fn immutable_and_append_only_files() {
    const IMMUTABLE: u32 = 0x10;
    const APPEND: u32 = 0x20;
    let mut scratch = Scratch::new(8, "-t ext4");
    let inode = scratch.writer().create(scratch.root(), "file".into(), NEW).expect("a file");
    for flag in [IMMUTABLE, APPEND] {
        let flags = scratch.fs().flags(inode).expect("flags");
        scratch.writer().set_flags(inode, flags | flag).expect("flags");
        let set = SetMetadata { permissions: Some(0), ..SetMetadata::default() };
        let writer = scratch.writer();
        for result in [
            writer.set_metadata(inode, &set),
            writer.set_generation(inode, 5),
            writer.unlink(scratch.root(), "file".into()),
            writer.set_xattr(inode, "user.a".into(), b"x", Default::default()),
        ] {
            assert!(matches!(result, Err(Error::NotPermitted(_))), "{flag:#x}: {result:?}");
        }
        writer.set_flags(inode, flags).expect("flags");
        assert_eq!(scratch.fs().flags(inode).expect("flags"), flags);
    }
    scratch.judge();
}
