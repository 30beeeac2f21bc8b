//! Names made and removed, on volumes of each kind.

use bstr::{BStr, ByteSlice};
use vmcraft_fs::{DeviceNumber, Error, FileType, InodeNumber};

use crate::sample::debugfs;
use crate::scratch::{NEW, NEW_DIR, START, Scratch, errno};

/// Volumes whose directories differ most from each other.
pub(crate) const KINDS: &[&str] = &[
    "-t ext4 -b 1024",
    "-t ext4 -b 4096",
    "-t ext4 -b 4096 -O inline_data -I 256",
    "-t ext4 -b 1024 -O inline_data -I 1024",
    "-t ext4 -b 2048 -O ^metadata_csum,large_dir",
    "-t ext4 -b 4096 -O ^dir_index,metadata_csum_seed",
    "-t ext4 -b 1024 -O ^extents,^64bit,^flex_bg,uninit_bg,^metadata_csum",
    "-t ext3 -b 2048",
    "-t ext2 -b 1024 -O ^dir_index,^filetype -I 128",
    "-t ext2 -b 1024 -r 0",
];

fn name(text: &str) -> &BStr {
    text.into()
}

#[test]
fn every_type_of_file_on_every_kind_of_volume() {
    for options in KINDS {
        let mut scratch = Scratch::new(16, options);
        let (w, root) = (scratch.writer(), scratch.root());
        let before = scratch.free();
        let dir = w.mkdir(root, name("dir"), NEW_DIR).unwrap();
        w.create(root, name("file"), NEW).unwrap();
        let long = "n".repeat(255);
        w.create(dir, name(&long), NEW).unwrap();
        w.create(dir, b"\xff not UTF-8 \x01".as_bstr(), NEW).unwrap();
        for (link, len) in [("fast", 59), ("slow", 60), ("slower", 1000)] {
            w.symlink(dir, name(link), name(&"t".repeat(len)), NEW).unwrap();
        }
        let node = |n: &str, file_type, major, minor| {
            w.mknod(dir, name(n), file_type, DeviceNumber { major, minor }, NEW).unwrap();
        };
        node("char", FileType::CharDevice, 5, 1);
        node("block", FileType::BlockDevice, 255, 255);
        node("large", FileType::CharDevice, 300, 300);
        node("largest", FileType::BlockDevice, 4095, 0xf_ffff);
        node("zero", FileType::CharDevice, 0, 0);
        node("fifo", FileType::Fifo, 0, 0);
        node("socket", FileType::Socket, 0, 0);
        let sub = w.mkdir(dir, name("sub"), NEW_DIR).unwrap();
        w.link(scratch.at("file"), sub, name("link")).unwrap();
        assert_eq!(scratch.fs().metadata(dir).unwrap().links, 3, "{options}");

        if let Some(tree) = scratch.judge() {
            assert_eq!(
                tree[&b"/dir/largest"[..]].device,
                DeviceNumber { major: 4095, minor: 0xf_ffff }.to_rdev()
            );
            assert_eq!(tree[&b"/dir/slow"[..]].content, "t".repeat(60), "{options}");
            assert_eq!(tree[&b"/dir/sub/link"[..]].links, 2, "{options}");
            assert_eq!(tree[&b"/file"[..]].owner, (1000, 70_000), "{options}");
        }

        // All of it goes, and gives back what it took.
        let (w, root) = (scratch.writer(), scratch.root());
        for path in ["dir/sub", "dir", ""] {
            let dir = scratch.at(path);
            let mut entries = Vec::new();
            let listed = scratch.fs().read_dir(dir, 0, &mut |entry| {
                entries.push((entry.name.to_owned(), entry.inode));
                std::ops::ControlFlow::Continue(())
            });
            listed.unwrap();
            for (entry, inode) in entries {
                let is_dir = scratch.fs().metadata(inode).unwrap().is_dir();
                if entry == "lost+found" {
                    continue;
                } else if is_dir {
                    w.rmdir(dir, entry.as_bstr()).unwrap();
                } else {
                    w.unlink(dir, entry.as_bstr()).unwrap();
                }
            }
        }
        assert_eq!(errno(&scratch.fs().lookup(root, name("dir"))), 2, "{options}");
        assert_eq!(scratch.free(), before, "{options}");
        scratch.judge();
    }
}

#[test]
fn refusals_have_the_kernels_errno_and_change_nothing() {
    let mut scratch = Scratch::new(8, "-t ext4 -b 1024");
    let (w, root) = (scratch.writer(), scratch.root());
    let dir = w.mkdir(root, name("dir"), NEW_DIR).unwrap();
    let file = w.create(root, name("file"), NEW).unwrap();
    w.create(dir, name("inner"), NEW).unwrap();
    let before = crate::tree::ours(scratch.fs()).unwrap();
    let free = scratch.free();
    scratch.set_clock(START + 5);

    let too_long = "n".repeat(256);
    for (bad, expected) in [("", 22), (".", 22), ("..", 22), ("a/b", 22), ("a\0b", 22), (&*too_long, 36)] {
        let bad = name(bad);
        assert_eq!(errno(&w.create(root, bad, NEW)), expected, "{bad}");
        assert_eq!(errno(&w.mkdir(root, bad, NEW)), expected, "{bad}");
        assert_eq!(errno(&w.symlink(root, bad, name("t"), NEW)), expected, "{bad}");
        assert_eq!(
            errno(&w.mknod(root, bad, FileType::Fifo, DeviceNumber::default(), NEW)),
            expected,
            "{bad}"
        );
        assert_eq!(errno(&w.link(file, root, bad)), expected, "{bad}");
        assert_eq!(errno(&w.unlink(root, bad)), expected, "{bad}");
        assert_eq!(errno(&w.rmdir(root, bad)), expected, "{bad}");
        assert_eq!(errno(&w.rename(root, bad, root, name("x"))), expected, "{bad}");
        assert_eq!(errno(&w.rename(root, name("file"), root, bad)), expected, "{bad}");
    }
    // EEXIST
    for taken in ["file", "dir"] {
        assert_eq!(errno(&w.create(root, name(taken), NEW)), 17);
        assert_eq!(errno(&w.mkdir(root, name(taken), NEW)), 17);
        assert_eq!(errno(&w.symlink(root, name(taken), name("t"), NEW)), 17);
        assert_eq!(errno(&w.link(file, root, name(taken))), 17);
    }
    assert_eq!(errno(&w.create(file, name("x"), NEW)), 20, "ENOTDIR");
    assert_eq!(errno(&w.unlink(file, name("x"))), 20, "ENOTDIR");
    assert_eq!(errno(&w.rmdir(root, name("file"))), 20, "ENOTDIR");
    assert_eq!(errno(&w.unlink(root, name("dir"))), 21, "EISDIR");
    assert_eq!(errno(&w.rmdir(root, name("dir"))), 39, "ENOTEMPTY");
    assert_eq!(errno(&w.unlink(root, name("none"))), 2, "ENOENT");
    assert_eq!(errno(&w.rmdir(root, name("none"))), 2, "ENOENT");
    assert_eq!(errno(&w.link(dir, root, name("x"))), 1, "EPERM");
    assert_eq!(errno(&w.symlink(root, name("x"), name(""), NEW)), 22, "an empty target");
    assert_eq!(errno(&w.symlink(root, name("x"), name("a\0b"), NEW)), 22, "a NUL in a target");
    assert_eq!(errno(&w.symlink(root, name("x"), name(&"t".repeat(1024)), NEW)), 36, "more than a block");
    let regular = w.mknod(root, name("x"), FileType::Regular, DeviceNumber::default(), NEW);
    assert_eq!(errno(&regular), 22, "no node");
    let device = DeviceNumber { major: 4096, minor: 0 };
    assert_eq!(errno(&w.mknod(root, name("x"), FileType::CharDevice, device, NEW)), 22);
    let missing = w.create(InodeNumber(1_000_000), name("x"), NEW);
    assert!(matches!(missing, Err(Error::Corrupt { .. })), "{missing:?}");

    assert_eq!(crate::tree::ours(scratch.fs()).unwrap(), before);
    assert_eq!(scratch.free(), free);
    scratch.judge();
}

#[test] // As the kernel changes them.
fn times_of_directories_and_inodes() {
    let mut scratch = Scratch::new(8, "-t ext4 -b 4096");
    let (w, root) = (scratch.writer(), scratch.root());
    let times = |inode| {
        let m = scratch.fs().metadata(inode).unwrap();
        [m.accessed, m.modified, m.changed].map(|t| t.seconds - START)
    };
    let a = w.mkdir(root, name("a"), NEW_DIR).unwrap();
    let b = w.mkdir(root, name("b"), NEW_DIR).unwrap();
    assert_eq!((times(a), times(root)[1..].to_vec()), ([0, 0, 0], vec![0, 0]));
    scratch.set_clock(START + 1);
    let file = w.create(a, name("file"), NEW).unwrap();
    assert_eq!((times(a), times(file)), ([0, 1, 1], [1, 1, 1]));
    assert_eq!(scratch.fs().metadata(file).unwrap().created.unwrap().seconds, START + 1);
    scratch.set_clock(START + 2);
    w.link(file, b, name("link")).unwrap();
    assert_eq!((times(a), times(b), times(file)), ([0, 1, 1], [0, 2, 2], [1, 1, 2]));
    scratch.set_clock(START + 3);
    w.unlink(a, name("file")).unwrap();
    assert_eq!((times(a), times(b), times(file)), ([0, 3, 3], [0, 2, 2], [1, 1, 3]));
    scratch.set_clock(START + 4);
    w.rename(b, name("link"), a, name("back")).unwrap();
    assert_eq!((times(a), times(b), times(file)), ([0, 4, 4], [0, 4, 4], [1, 1, 4]));
    let sub = w.mkdir(a, name("sub"), NEW_DIR).unwrap();
    scratch.set_clock(START + 5);
    w.rename(a, name("sub"), b, name("sub")).unwrap();
    assert_eq!((times(a), times(b), times(sub)), ([0, 5, 5], [0, 5, 5], [4, 4, 5]));
    scratch.set_clock(START + 6);
    w.rmdir(b, name("sub")).unwrap();
    assert_eq!(times(b), [0, 6, 6]);
    assert_eq!(scratch.fs().metadata(b).unwrap().links, 2);
    scratch.judge();
}

#[test]
fn flags_are_heeded() {
    let mut scratch = Scratch::new(8, "-t ext4 -b 4096");
    let (w, root) = (scratch.writer(), scratch.root());
    for (dir, file) in [("still", "file"), ("grows", "file"), ("free", "still"), ("free", "grows")] {
        if errno(&scratch.fs().lookup(root, name(dir))) == 2 {
            w.mkdir(root, name(dir), NEW_DIR).unwrap();
        }
        w.create(scratch.at(dir), name(file), NEW).unwrap();
    }
    w.create(root, name("source"), NEW).unwrap();
    scratch.lend(|image| {
        for (path, flags) in [
            ("/still", "0x80010"),
            ("/grows", "0x80020"),
            ("/free/still", "0x80010"),
            ("/free/grows", "0x80020"),
        ] {
            debugfs(image, &format!("set_inode_field {path} flags {flags}"));
        }
    });
    let (w, root) = (scratch.writer(), scratch.root());
    let (still, grows, free) = (scratch.at("still"), scratch.at("grows"), scratch.at("free"));
    let source = scratch.at("source");
    // EPERM
    assert_eq!(errno(&w.create(still, name("x"), NEW)), 1);
    assert_eq!(errno(&w.mkdir(still, name("x"), NEW)), 1);
    assert_eq!(errno(&w.link(source, still, name("x"))), 1);
    assert_eq!(errno(&w.unlink(still, name("file"))), 1);
    assert_eq!(errno(&w.rename(still, name("file"), free, name("x"))), 1);
    assert_eq!(errno(&w.rename(root, name("source"), still, name("x"))), 1);
    assert_eq!(errno(&w.unlink(grows, name("file"))), 1);
    assert_eq!(errno(&w.rename(grows, name("file"), grows, name("x"))), 1);
    assert_eq!(errno(&w.rename(root, name("source"), grows, name("file"))), 1);
    assert_eq!(errno(&w.rename(root, name("grows"), root, name("x"))), 1);
    for file in ["still", "grows"] {
        assert_eq!(errno(&w.unlink(free, name(file))), 1);
        assert_eq!(errno(&w.rename(free, name(file), root, name("x"))), 1);
        assert_eq!(errno(&w.rename(root, name("source"), free, name(file))), 1);
        assert_eq!(errno(&w.link(scratch.at(&format!("free/{file}")), root, name("x"))), 1);
    }
    // Names may be added to what only grows, which new files take over.
    w.link(source, grows, name("added")).unwrap();
    w.create(free, name("x"), NEW).unwrap();
    scratch.judge();
}

#[test]
fn links_have_a_limit() {
    let mut scratch = Scratch::new(24, "-t ext4 -b 4096");
    let (w, root) = (scratch.writer(), scratch.root());
    let file = w.create(root, name("file"), NEW).unwrap();
    let dir = w.mkdir(root, name("dir"), NEW_DIR).unwrap();
    for n in 1..65000 {
        w.link(file, dir, name(&format!("{n}"))).unwrap();
    }
    let more = w.link(file, dir, name("more"));
    assert!(matches!(more, Err(Error::TooManyLinks(65000))), "{more:?}");
    assert_eq!(scratch.fs().metadata(file).unwrap().links, 65000);
    scratch.judge();
}

#[test] // What may be counted as 65000 subdirectories is not counted any more: links are then 1.
fn subdirectories_are_counted_up_to_a_limit() {
    if !long_form() {
        eprintln!("skipped: 65000 subdirectories take a minute: set VMCRAFT_TEST_ALL=1");
        return;
    }
    for (options, limit) in
        [("-t ext4 -b 1024 -N 80000", None), ("-t ext4 -b 1024 -N 80000 -O ^dir_nlink", Some(64998))]
    {
        let mut scratch = Scratch::new(160, options);
        let (w, root) = (scratch.writer(), scratch.root());
        let dir = w.mkdir(root, name("dir"), NEW_DIR).unwrap();
        for n in 0..65_010 {
            let made = w.mkdir(dir, name(&format!("{n}")), NEW_DIR);
            match limit {
                Some(limit) if n >= limit => {
                    assert!(matches!(made, Err(Error::TooManyLinks(65000))), "{n}: {made:?}");
                }
                _ => drop(made.unwrap_or_else(|e| panic!("{n}: {e}"))),
            }
            let links = scratch.fs().metadata(dir).unwrap().links;
            let expected = if n + 3 > 65000 && limit.is_none() { 1 } else { (n + 3).min(65000) };
            assert_eq!(links, expected, "{options}: {n}");
        }
        w.rmdir(dir, name("7")).unwrap();
        let links = scratch.fs().metadata(dir).unwrap().links;
        assert_eq!(links, if limit.is_some() { 64999 } else { 1 });
        scratch.judge();
    }
}

/// Whether the long forms of tests run, too.
pub(crate) fn long_form() -> bool {
    std::env::var_os("VMCRAFT_TEST_ALL").is_some_and(|v| !v.is_empty() && v != "0")
}

#[test]
fn full_disks_leave_everything_as_it_was() {
    // No inode is left.
    let mut scratch = Scratch::new(8, "-t ext4 -b 1024 -N 64");
    let (w, root) = (scratch.writer(), scratch.root());
    let mut made = 0;
    loop {
        match w.create(root, name(&format!("file-{made}")), NEW) {
            Ok(_) => made += 1,
            Err(Error::NoSpace(_)) => break,
            Err(e) => panic!("{made}: {e}"),
        }
    }
    assert_eq!(scratch.free().1, 0);
    let before = crate::tree::ours(scratch.fs()).unwrap();
    for refused in [
        w.create(root, name("x"), NEW),
        w.mkdir(root, name("x"), NEW),
        w.symlink(root, name("x"), name("t"), NEW),
        w.mknod(root, name("x"), FileType::Fifo, DeviceNumber::default(), NEW),
    ] {
        assert!(matches!(refused, Err(Error::NoSpace(_))), "{refused:?}");
    }
    assert_eq!(errno(&w.create(root, name("file-0"), NEW)), 17, "the name counts first");
    assert_eq!(crate::tree::ours(scratch.fs()).unwrap(), before);
    scratch.judge();
    let (w, root) = (scratch.writer(), scratch.root());
    w.unlink(root, name("file-0")).unwrap();
    w.create(root, name("again"), NEW).unwrap();
    scratch.judge();

    // No block is left: an operation that needs one in any of its steps leaves no trace.
    for options in [
        "-t ext4 -b 1024 -N 8192 -m 0",
        "-t ext2 -b 1024 -N 8192 -m 0",
        "-t ext4 -b 1024 -N 8192 -O ^dir_index",
    ] {
        let mut scratch = Scratch::new(4, options);
        let (w, root) = (scratch.writer(), scratch.root());
        let long = |n: usize| format!("{n:0>200}");
        let dir = w.mkdir(root, name("dir"), NEW_DIR).unwrap();
        let filler = w.create(root, name("filler"), NEW).unwrap();
        let (mut files, mut dirs) = (0, 0);
        loop {
            match w.mkdir(root, name(&format!("dir-{dirs}")), NEW_DIR) {
                Ok(_) => dirs += 1,
                Err(Error::NoSpace(_)) => break,
                Err(e) => panic!("{options}: {e}"),
            }
            match w.create(dir, name(&long(files)), NEW) {
                Ok(_) => files += 1,
                Err(Error::NoSpace(_)) => break,
                Err(e) => panic!("{options}: {e}"),
            }
        }
        while w.create(dir, name(&long(files)), NEW).is_ok() {
            files += 1;
        }
        // Where an index would have needed two blocks at once, one is left: which it is depends on the seed of the hashes.
        (0..).find(|block| w.write(filler, block * 1024, &[1; 1024]).is_err()).unwrap();
        let before = crate::tree::ours(scratch.fs()).unwrap();
        let free = scratch.free();
        for n in files..files + 20 {
            assert_eq!(errno(&w.mkdir(dir, name(&long(n)), NEW_DIR)), 28, "{options}");
        }
        assert_eq!(errno(&w.symlink(root, name("x"), name(&"t".repeat(70)), NEW)), 28, "{options}");
        assert_eq!(scratch.free(), free, "{options}");
        assert_eq!(crate::tree::ours(scratch.fs()).unwrap(), before, "{options}");
        scratch.judge();
    }
}

#[test]
fn encrypted_and_casefolded_directories_are_refused_by_name() {
    for (options, flags, feature) in [
        ("-t ext4 -b 4096 -O encrypt", "0x80800", "encrypted"),
        ("-t ext4 -b 4096 -O casefold", "0x40080000", "casefold"),
    ] {
        let dir = testkit::tempdir();
        let image = crate::features::mke2fs(dir.path(), 8, options);
        debugfs(&image, "mkdir dir");
        debugfs(&image, &format!("set_inode_field dir flags {flags}"));
        let file = std::fs::File::options().read(true).write(true).open(&image).unwrap();
        let device = std::sync::Arc::new(vmcraft_block::RawFile::new(file, false).unwrap());
        let fs = (vmcraft_ext4::DRIVER.open)(device, vmcraft_fs::OpenOptions::default()).unwrap();
        let dir = fs.lookup(fs.root(), name("dir")).unwrap();
        let made = fs.writer().and_then(|w| w.create(dir, name("x"), NEW));
        let Err(Error::Unsupported(message)) = made else { panic!("{options}: {made:?}") };
        assert!(message.contains(feature) || message.contains(&options[17..]), "{message}");
    }
}

#[test] // A block with many deleted inodes whose flags spoke of extents that were gone.
fn deleted_inodes_do_not_look_like_garbage() {
    for options in ["-t ext4 -b 2048 -O ^metadata_csum", "-t ext4 -b 2048 -O ^metadata_csum,inline_data"] {
        let mut scratch = Scratch::new(8, options);
        let (w, root) = (scratch.writer(), scratch.root());
        let many: Vec<String> = (0..20).map(|n| format!("file-{n}")).collect();
        for file in &many {
            w.create(root, name(file), NEW).unwrap();
        }
        for file in &many {
            w.unlink(root, name(file)).unwrap();
        }
        scratch.judge();
    }
}
