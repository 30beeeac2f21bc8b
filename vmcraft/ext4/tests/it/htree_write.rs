//! Directories that grow to three levels and shrink again.

use std::collections::BTreeMap;

use bstr::{BStr, ByteSlice};
use testkit::run_ok;
use vmcraft_fs::{Error, InodeNumber};

use crate::namespace::long_form;
use crate::random::Random;
use crate::scratch::{NEW, NEW_DIR, Scratch, errno};

/// A name of `len` bytes that starts with a number.
fn long(n: usize, len: usize) -> String {
    let mut name = format!("{n}-");
    while name.len() < len {
        name.push(char::from(b'a' + u8::try_from((n / 7 + name.len()) % 26).unwrap()));
    }
    name
}

/// What `debugfs` says of the htree: how many levels of nodes are below the root.
fn levels(scratch: &mut Scratch, path: &str) -> Option<u64> {
    scratch.lend(|image| {
        let text = run_ok("debugfs", ["-R", &format!("htree_dump {path}"), image.to_str().unwrap()]);
        if !text.contains("Indirect levels") {
            return None;
        }
        Some(crate::sample::number_after(&text, "Indirect levels:"))
    })
}

/// Makes links to one file in a directory, which may be many more than inodes.
fn fill(scratch: &Scratch, dir: InodeNumber, names: impl IntoIterator<Item = String>) -> Vec<String> {
    let w = scratch.writer();
    let mut files: Option<InodeNumber> = None;
    let mut made = Vec::new();
    for name in names {
        // A file can have 65000 names.
        let result = match files {
            Some(file) if made.len() % 60_000 != 0 => w.link(file, dir, name.as_str().into()).map(|()| file),
            _ => w.create(dir, name.as_str().into(), NEW),
        };
        files = Some(result.unwrap_or_else(|e| panic!("{}: {e}", made.len())));
        made.push(name);
    }
    made
}

#[test]
fn grows_from_one_block_to_three_levels_and_empties_again() {
    // Fewer names in blocks of 1 KiB make more levels.
    let cases = [
        ("-t ext4 -b 1024 -O large_dir", 250, 30_000, Some(2)),
        ("-t ext4 -b 1024", 100, 3_000, Some(1)),
        ("-t ext4 -b 1024 -O ^metadata_csum,^64bit", 250, 3_000, Some(1)),
        ("-t ext3 -b 4096", 20, 5_000, Some(0)),
        ("-t ext4 -b 2048 -O ^dir_index", 120, 600, None),
    ];
    for (options, len, count, expected) in cases {
        let mut scratch = Scratch::new(64, options);
        let dir = scratch.writer().mkdir(scratch.root(), "dir".into(), NEW_DIR).unwrap();
        let mut names = fill(&scratch, dir, (0..count).map(|n| long(n, len)));
        for name in &names {
            let made = scratch.writer().create(dir, name.as_str().into(), NEW);
            assert_eq!(errno(&made), 17, "{options}: {name} is there");
        }
        scratch.judge();
        assert_eq!(levels(&mut scratch, "/dir"), expected, "{options}");

        let mut random = Random::new(7);
        random.shuffle(&mut names);
        let (gone, kept) = names.split_at(names.len() / 2);
        for name in gone {
            scratch.writer().unlink(dir, name.as_str().into()).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        for name in gone {
            assert_eq!(errno(&scratch.fs().lookup(dir, name.as_str().into())), 2, "{options}");
        }
        scratch.judge();
        // Into the room that they left.
        let free = scratch.free().0;
        for name in &gone[..gone.len() / 2] {
            let other = kept[0].as_str().into();
            let file = scratch.fs().lookup(dir, other).unwrap();
            scratch.writer().link(file, dir, name.as_str().into()).unwrap();
        }
        assert_eq!(scratch.free().0, free, "{options}: no new blocks");
        for name in kept.iter().chain(&gone[..gone.len() / 2]) {
            scratch.writer().unlink(dir, name.as_str().into()).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        scratch.judge();
        scratch.writer().rmdir(scratch.root(), "dir".into()).unwrap();
        scratch.judge();
    }
}

#[test]
fn an_index_that_is_full_refuses_the_next_name() {
    if !long_form() {
        eprintln!("skipped: filling an index takes a minute: set VMCRAFT_TEST_ALL=1");
        return;
    }
    let mut scratch = Scratch::new(64, "-t ext4 -b 1024");
    let (w, root) = (scratch.writer(), scratch.root());
    let dir = w.mkdir(root, "dir".into(), NEW_DIR).unwrap();
    let file = w.create(root, "file".into(), NEW).unwrap();
    let mut made = 0;
    let error = loop {
        match w.link(file, dir, long(made, 255).as_str().into()) {
            Ok(()) => made += 1,
            Err(e) => break e,
        }
    };
    assert!(made > 10_000 && matches!(&error, Error::NoSpace(m) if m.contains("index")), "{made}: {error}");
    scratch.judge();
}

/// Names that TEA hashes alike: it takes them 16 bytes at a time as keys, and a key has the same
/// effect with the top bits of its first two words inverted.
fn colliding(count: u32) -> Vec<Vec<u8>> {
    let name = |n: u32| {
        let mut name = vec![b'x'; 240];
        for (bit, block) in name.chunks_exact_mut(8).enumerate().take(14) {
            if n >> bit & 1 == 1 {
                block[0] ^= 0x80;
                block[4] ^= 0x80;
            }
        }
        name
    };
    (0..count).map(name).collect()
}

#[test]
fn names_of_one_hash_go_on_in_the_next_leaves() {
    for options in ["-t ext4 -b 1024", "-t ext4 -b 4096", "-t ext3 -b 1024"] {
        let dir = testkit::tempdir();
        let image = crate::features::mke2fs(dir.path(), 16, options);
        run_ok("tune2fs", ["-E", "hash_alg=tea", image.to_str().unwrap()]);
        let mut scratch = Scratch::from_image(dir, image, options);
        let (w, root) = (scratch.writer(), scratch.root());
        let dir = w.mkdir(root, "dir".into(), NEW_DIR).unwrap();
        let file = w.create(root, "file".into(), NEW).unwrap();
        let mut names = colliding(700);
        // Others among them.
        names.extend((0..700).map(|n| long(n, 60).into_bytes()));
        let mut random = Random::new(11);
        random.shuffle(&mut names);
        for name in &names {
            w.link(file, dir, name.as_bstr()).unwrap();
        }
        for name in &names {
            assert_eq!(scratch.fs().lookup(dir, name.as_bstr()).unwrap(), file, "{}", name.as_bstr());
            assert_eq!(errno(&w.link(file, dir, name.as_bstr())), 17, "{}", name.as_bstr());
        }
        scratch.judge();
        if !options.contains("ext3") {
            let hashes = scratch.lend(|image| {
                let dump = run_ok("debugfs", ["-R", "htree_dump /dir", image.to_str().unwrap()]);
                dump.matches("(collision)").count()
                    + dump.lines().filter(|l| l.contains("Hash 0x")).filter(|l| odd_hash(l)).count()
            });
            assert!(hashes > 10, "{options}: {hashes} leaves go on");
        }
        random.shuffle(&mut names);
        for name in &names {
            scratch.writer().unlink(dir, name.as_bstr()).unwrap();
        }
        scratch.judge();
        scratch.writer().rmdir(scratch.root(), "dir".into()).unwrap();
        scratch.judge();
    }
}

/// Whether the lowest bit is set of the hash in a line of `debugfs`.
fn odd_hash(line: &str) -> bool {
    let hash = line.split("ash 0x").nth(1).unwrap_or_default();
    let digits: String = hash.chars().take_while(char::is_ascii_hexdigit).collect();
    u32::from_str_radix(&digits, 16).is_ok_and(|hash| hash & 1 == 1)
}

#[test]
fn every_hash_function_is_written() {
    for algorithm in ["legacy", "half_md4", "tea"] {
        for unsigned in [false, true] {
            let dir = testkit::tempdir();
            let image = crate::features::mke2fs(dir.path(), 8, "-t ext4 -b 1024");
            run_ok("tune2fs", ["-E", &format!("hash_alg={algorithm}"), image.to_str().unwrap()]);
            let flags = if unsigned { 2 } else { 1 };
            crate::sample::debugfs(&image, &format!("set_super_value flags {flags}"));
            let mut scratch = Scratch::from_image(dir, image, algorithm);
            let dir = scratch.writer().mkdir(scratch.root(), "dir".into(), NEW_DIR).unwrap();
            // Beyond ASCII, where signed and unsigned characters differ.
            fill(&scratch, dir, (0..400).map(|n| format!("\u{e9}\u{fc}-{n}-{}", "\u{f1}".repeat(n % 30))));
            scratch.judge();
        }
    }
}

#[test] // The kernel goes on where we stopped, and we where it did.
fn takes_turns_with_the_kernel() {
    for options in [
        "-t ext4 -b 1024",
        "-t ext4 -b 4096 -O inline_data",
        "-t ext3 -b 1024",
        "-t ext2 -b 1024 -O ^dir_index",
    ] {
        let mut scratch = Scratch::new(32, options);
        let dir = scratch.writer().mkdir(scratch.root(), "dir".into(), NEW_DIR).unwrap();
        let small = scratch.writer().mkdir(scratch.root(), "small".into(), NEW_DIR).unwrap();
        fill(&scratch, small, (0..2).map(|n| format!("ours-{n}")));
        let ours = fill(&scratch, dir, (0..900).map(|n| format!("ours-{n}-{}", "o".repeat(n % 90))));
        let done = scratch.in_kernel(
            r#"cd "$1/dir"
            for i in $(seq 900); do : > "theirs-$i-$(printf "%0$((i % 90))d" 0)"; done
            rm ours-1* ours-33*
            cd ../small; rm ours-0; : > theirs; mv ours-1 moved"#,
        );
        if !done {
            continue;
        }
        let mut expected: BTreeMap<Vec<u8>, ()> = ours
            .iter()
            .filter(|n| !n.starts_with("ours-1") && !n.starts_with("ours-33"))
            .map(|n| (n.clone().into_bytes(), ()))
            .collect();
        for i in 1..=900usize {
            let name = format!("theirs-{i}-{}", "0".repeat((i % 90).max(1)));
            expected.insert(name.into_bytes(), ());
        }
        let (small, dir) = (scratch.at("small"), scratch.at("dir"));
        for n in 0..200 {
            let name = format!("theirs-{}-{}", n + 1, "0".repeat(((n + 1) % 90).max(1)));
            scratch.writer().unlink(dir, name.as_str().into()).unwrap_or_else(|e| panic!("{name}: {e}"));
            expected.remove(name.as_bytes());
            let name = format!("again-{n}");
            scratch.writer().create(dir, name.as_str().into(), NEW).unwrap();
            expected.insert(name.into_bytes(), ());
        }
        let mut found = BTreeMap::new();
        scratch
            .fs()
            .read_dir(dir, 0, &mut |entry| {
                found.insert(entry.name.to_vec(), ());
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(found, expected, "{options}");
        for name in ["theirs", "moved"] {
            scratch.fs().lookup(small, name.into()).unwrap_or_else(|e| panic!("{options}: {name}: {e}"));
        }
        scratch.judge();
    }
}

#[test] // With blocks of 64 KiB the length of an entry can be more than its field holds.
fn blocks_of_64_kib() {
    let dir = testkit::tempdir();
    let image = dir.path().join("image");
    std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    for features in ["metadata_csum", "^metadata_csum"] {
        let name = image.to_str().unwrap();
        // mke2fs warns that this machine cannot mount it, and then waits for a key.
        run_ok("mke2fs", ["-q", "-F", "-F", "-t", "ext4", "-b", "65536", "-O", features, name]);
        let scratch_dir = testkit::tempdir();
        let copy = scratch_dir.path().join("image");
        std::fs::copy(&image, &copy).unwrap();
        let mut scratch = Scratch::from_image(scratch_dir, copy, features);
        let dir = scratch.writer().mkdir(scratch.root(), "dir".into(), NEW_DIR).unwrap();
        let mut names = fill(&scratch, dir, (0..1500).map(|n| long(n, 200)));
        scratch.lend(|image| crate::scratch::assert_clean(image, features));
        Random::new(3).shuffle(&mut names);
        for name in &names {
            scratch.writer().unlink(dir, name.as_str().into()).unwrap();
        }
        scratch.lend(|image| crate::scratch::assert_clean(image, features));
        scratch.writer().rmdir(scratch.root(), "dir".into()).unwrap();
        scratch.lend(|image| crate::scratch::assert_clean(image, features));
    }
}

#[test]
fn a_damaged_index_is_refused_and_nothing_changes() {
    let mut scratch = Scratch::new(8, "-t ext2 -b 1024");
    let dir = scratch.writer().mkdir(scratch.root(), "dir".into(), NEW_DIR).unwrap();
    fill(&scratch, dir, (0..500).map(|n| long(n, 60)));
    scratch.lend(|image| {
        let block = crate::sample::first_block(image, "/dir");
        let mut bytes = std::fs::read(image).unwrap();
        let at = usize::try_from(block * 1024 + 32).unwrap();
        bytes[at] ^= 1; // the limit of the root
        std::fs::write(image, bytes).unwrap();
    });
    let before = scratch.free();
    let (w, dir) = (scratch.writer(), scratch.at("dir"));
    let name: &BStr = "new".into();
    for refused in [w.create(dir, name, NEW).map(|_| ()), w.unlink(dir, long(1, 60).as_str().into())] {
        assert!(matches!(refused, Err(Error::Corrupt { .. })), "{refused:?}");
    }
    assert_eq!(scratch.free(), before);
}
