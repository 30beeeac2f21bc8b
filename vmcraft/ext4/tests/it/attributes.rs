//! Owners, permissions, times, flags and generations, as the kernel and `e2fsck` see them.

use std::os::unix::fs::MetadataExt;

use vmcraft_fs::{Error, SetMetadata, Timestamp};

use crate::kernel::{Mount, can_mount};
use crate::sample::debugfs;
use crate::scratch::{NEW, NEW_DIR, START, Scratch};

const fn time(seconds: i64, nanoseconds: u32) -> Timestamp {
    Timestamp { seconds, nanoseconds }
}

#[test]
fn as_the_kernel_shows_them() {
    for options in ["-t ext4 -I 256", "-t ext4 -I 128", "-t ext3 -b 1024", "-t ext4 -I 1024 -O inline_data"] {
        let mut scratch = Scratch::new(16, options);
        let root = scratch.root();
        let dir = scratch.writer().mkdir(root, "dir".into(), NEW_DIR).expect("a directory");
        let file = scratch.writer().create(dir, "file".into(), NEW).expect("a file");
        let small = options.contains("-I 128");
        let set = SetMetadata {
            permissions: Some(0o6751),
            uid: Some(4_000_000_000),
            gid: Some(70_000),
            accessed: Some(time(0x8000_0000, 999_999_999)),
            modified: Some(time(-5, 1)),
        };
        scratch.set_clock(START + 100);
        scratch.writer().set_metadata(file, &set).expect("a change");
        let sticky = SetMetadata { permissions: Some(0o1777), ..SetMetadata::default() };
        scratch.writer().set_metadata(dir, &sticky).expect("a change");
        let m = scratch.fs().metadata(file).expect("metadata");
        assert_eq!((m.permissions, m.uid, m.gid), (0o6751, 4_000_000_000, 70_000), "{options}");
        let latest = if small { time(0x7fff_ffff, 0) } else { time(0x8000_0000, 999_999_999) };
        assert_eq!(m.accessed, latest, "{options}: the latest that it holds");
        assert_eq!(m.modified, if small { time(-5, 0) } else { time(-5, 1) }, "{options}");
        assert_eq!(m.changed.seconds, START + 100);
        scratch.judge();
        let m = scratch.fs().metadata(file).expect("metadata");
        assert_eq!(m.accessed, latest, "{options}: on the disk, too");
        if can_mount("times") {
            scratch.lend(|image| {
                let mount = Mount::new(image, "ro,noatime");
                let k = std::fs::metadata(mount.path().join("dir/file")).expect("the file");
                assert_eq!((k.mode() & 0o7777, k.uid(), k.gid()), (0o6751, 4_000_000_000, 70_000));
                assert_eq!((k.atime(), k.mtime()), (latest.seconds, -5), "{options}");
            });
        }
    }
}

#[test]
fn flags_that_users_set() {
    const NODUMP: u32 = 0x40;
    const NOATIME: u32 = 0x80;
    const INDEX: u32 = 0x1000;
    const TOPDIR: u32 = 0x2_0000;
    const EXTENTS: u32 = 0x8_0000;
    let mut scratch = Scratch::new(8, "-t ext4");
    let root = scratch.root();
    let dir = scratch.writer().mkdir(root, "dir".into(), NEW_DIR).expect("a directory");
    let file = scratch.writer().create(dir, "file".into(), NEW).expect("a file");
    let before = scratch.fs().flags(file).expect("flags");
    assert_eq!(before, EXTENTS);
    scratch.writer().set_flags(file, before | NODUMP | INDEX | TOPDIR).expect("flags");
    assert_eq!(
        scratch.fs().flags(file).expect("flags"),
        EXTENTS | NODUMP,
        "only what users may set on a file"
    );
    let result = scratch.writer().set_flags(file, NODUMP);
    assert!(matches!(result, Err(Error::Unsupported(_))), "a conversion to a block map");
    let flags = scratch.fs().flags(dir).expect("flags");
    scratch.writer().set_flags(dir, flags | NOATIME | TOPDIR).expect("flags");
    let child = scratch.writer().create(dir, "child".into(), NEW).expect("a file");
    assert_eq!(scratch.fs().flags(child).expect("flags"), EXTENTS | NOATIME, "inherited");
    let child = scratch.writer().mkdir(dir, "sub".into(), NEW_DIR).expect("a directory");
    assert_eq!(scratch.fs().flags(child).expect("flags"), EXTENTS | NOATIME, "inherited");
    scratch.judge();
}

#[test] // The checksums of its blocks depend on it.
fn generations() {
    for (options, checksums) in [("-t ext4 -b 1024", true), ("-t ext3 -b 1024", false)] {
        let mut scratch = Scratch::new(8, options);
        let root = scratch.root();
        let dir = scratch.writer().mkdir(root, "dir".into(), NEW_DIR).expect("a directory");
        let file = scratch.writer().create(dir, "file".into(), NEW).expect("a file");
        scratch.writer().write(file, 5000, b"x").expect("a write");
        scratch.writer().set_generation(file, 0xdead_beef).expect("a generation");
        assert_eq!(scratch.fs().generation(file).expect("a generation"), 0xdead_beef);
        assert_eq!(scratch.writer().set_generation(dir, 7).is_err(), checksums, "{options}");
        scratch.judge();
        assert_eq!(scratch.fs().generation(file).expect("a generation"), 0xdead_beef);
    }
}

#[test] // An inode of 256 bytes that says it uses 128 of them, as a 128-byte file system leaves it.
fn inodes_that_use_none_of_their_room() {
    let mut scratch = Scratch::new(8, "-t ext4 -I 256");
    let file = scratch.writer().create(scratch.root(), "file".into(), NEW).expect("a file");
    scratch.lend(|image| {
        debugfs(image, "sif file extra_isize 0");
    });
    let set = SetMetadata { modified: Some(time(5_000_000_000, 5)), ..SetMetadata::default() };
    scratch.writer().set_metadata(file, &set).expect("a change");
    scratch.judge();
    assert_eq!(scratch.fs().metadata(file).expect("metadata").modified, time(5_000_000_000, 5));
}

#[test] // Going back to what the device holds, as when a transaction goes back.
fn reload_forgets_what_is_not_written() {
    let scratch = Scratch::new(8, "-t ext4");
    let file = scratch.writer().create(scratch.root(), "kept".into(), NEW).expect("a file");
    scratch.writer().sync().expect("a sync");
    scratch.writer().create(scratch.root(), "lost".into(), NEW).expect("a file");
    scratch.writer().reload().expect("a volume");
    assert_eq!(scratch.at("kept"), file);
    assert!(matches!(scratch.fs().lookup(scratch.root(), "lost".into()), Err(Error::NotFound)));
}
