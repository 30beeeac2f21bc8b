//! What is refused, and that the message says what and where.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use testkit::run_ok;
use vmcraft_block::{BlockDevice, RawFile};
use vmcraft_fs::{Error, FileSystem, InodeNumber};

use crate::features::mke2fs;
use crate::kernel::{Mount, can_mount};
use crate::sample::{self, debugfs, inode_at, inode_of, name, number_after};
use crate::tree;

fn refusal(image: &Path) -> String {
    match tree::open(image) {
        Ok(_) => panic!("{} was opened", image.display()),
        Err(e) => e.to_string(),
    }
}

/// The inode at a path of plain names.
fn resolve(fs: &dyn FileSystem, path: &str) -> vmcraft_fs::Result<InodeNumber> {
    path.split('/').filter(|c| !c.is_empty()).try_fold(fs.root(), |dir, name| fs.lookup(dir, name.into()))
}

#[test]
fn unknown_features() {
    let dir = testkit::tempdir();
    let image = mke2fs(dir.path(), 4, "-t ext4");
    debugfs(&image, "ssv feature_ro_compat 0x8000046b");
    tree::open(&image).expect("unknown features that do not concern reading");
    let image = mke2fs(dir.path(), 4, "-t ext4");
    debugfs(&image, "ssv feature_incompat 0x402012c3");
    let message = refusal(&image);
    assert!(message.contains("dirdata") && message.contains("0x40000000"), "{message}");
}

#[test]
fn file_system_larger_than_its_device() {
    let dir = testkit::tempdir();
    let image = mke2fs(dir.path(), 8, "-t ext4");
    let file = File::options().write(true).open(&image).expect("an image");
    file.set_len(4_999_680).expect("a shorter image");
    let message = refusal(&image);
    assert!(message.contains("2048 blocks of 4096 bytes, but only 4999680 bytes"), "{message}");
    // Not even a superblock.
    for len in [0, 1, 1024, 1080, 1536] {
        file.set_len(len).expect("a shorter image");
        let device = RawFile::new(File::open(&image).expect("an image"), true).expect("a device");
        assert!(!(vmcraft_ext4::DRIVER.probe)(&device).expect("a probe"), "{len} bytes");
        refusal(&image);
    }
}

#[test]
fn probes_only_ext() {
    let dir = testkit::tempdir();
    let probe = |image: &Path| {
        let device = RawFile::new(File::open(image).expect("an image"), true).expect("a device");
        (vmcraft_ext4::DRIVER.probe)(&device as &dyn BlockDevice).expect("a probe")
    };
    let image = mke2fs(dir.path(), 4, "-t ext2");
    assert!(probe(&image));
    run_ok("mkfs.vfat", [name(&image)]);
    assert!(!probe(&image));
}

#[test] // Names, labels and UUIDs as blkid prints them.
fn same_identity_as_blkid() {
    for options in ["-t ext2", "-t ext3", "-t ext4", "-t ext2 -O meta_bg,^resize_inode", "-t ext3 -O extent"]
    {
        let dir = testkit::tempdir();
        let image = mke2fs(dir.path(), 8, &format!("{options} -L a-label"));
        let printed = run_ok("blkid", ["-p", "-o", "export", name(&image)]);
        let field = |key: &str| {
            printed.lines().find_map(|l| l.strip_prefix(key)).map(str::to_owned).unwrap_or_default()
        };
        let fs = tree::open(&image).expect("a volume");
        assert_eq!(fs.kind(), field("TYPE="), "{options}");
        assert_eq!(fs.label(), "a-label");
        assert_eq!(fs.uuid(), field("UUID="));
    }
}

#[test] // With checksums, a wrong bit is found wherever it is, and the message says in what.
fn damage_is_found_by_its_checksum() {
    let dir = testkit::tempdir();
    let image = sample::image(dir.path(), 8, "-t ext4 -b 1024 -O metadata_csum");
    let fs = tree::open(&image).expect("a volume");
    let inode = |path: &str| inode_of(&image, path);
    let block = |text: String, key: &str| number_after(&text, key);
    let (file, big, many, fragmented) =
        (inode("/sub/file"), inode("/big"), inode("/many"), inode("/fragmented"));
    let leaf = block(debugfs(&image, "stat /fragmented"), "(ETB0):");
    let blocks_of = |path: &str| -> Vec<u64> {
        debugfs(&image, &format!("blocks {path}"))
            .split_whitespace()
            .map(|b| b.parse().expect("a block"))
            .collect()
    };
    let (sub, index) = (blocks_of("/sub")[0], blocks_of("/many"));
    let acl = block(debugfs(&image, "stat /sub/file"), "File ACL:");
    drop(fs);

    type Ask = fn(&dyn FileSystem) -> vmcraft_fs::Result<()>;
    let cases: Vec<(u64, Ask, String)> = vec![
        (2 * 1024 + 3, |fs| fs.statfs().map(|_| ()), "descriptor of group 0: checksum is".into()),
        (
            inode_at(&image, "/big", 1024) + 8,
            |fs| resolve(fs, "big").and_then(|i| fs.metadata(i)).map(|_| ()),
            format!("inode {big}: checksum is"),
        ),
        (
            leaf * 1024 + 30,
            |fs| resolve(fs, "fragmented").and_then(|i| fs.next_data(i, 0)).map(|_| ()),
            format!("extent block {leaf} of inode {fragmented}: checksum is"),
        ),
        (
            sub * 1024 + 40,
            |fs| resolve(fs, "sub/file").map(|_| ()),
            format!("directory block 0 of inode {}: checksum is", inode("/sub")),
        ),
        (
            sub * 1024 + 1015,
            |fs| resolve(fs, "sub/file").map(|_| ()),
            format!("directory block 0 of inode {}: its checksum is missing", inode("/sub")),
        ),
        (
            index[0] * 1024 + 45,
            |fs| resolve(fs, "many/x").map(|_| ()),
            format!("htree block 0 of directory inode {many}: checksum is"),
        ),
        (
            acl * 1024 + 700,
            |fs| resolve(fs, "sub/file").and_then(|i| fs.xattrs(i)).map(|_| ()),
            format!("extended attribute block {acl} of inode {file}: checksum is"),
        ),
    ];
    for (offset, ask, expected) in cases {
        let damaged = dir.path().join("damaged");
        std::fs::copy(&image, &damaged).expect("a copy");
        let device = File::options().read(true).write(true).open(&damaged).expect("an image");
        let mut byte = [0];
        device.read_exact_at(&mut byte, offset).expect("a byte");
        device.write_all_at(&[byte[0] ^ 0x10], offset).expect("a byte");
        let fs = tree::open(&damaged).expect("what is damaged is not the superblock");
        let Err(error) = ask(&*fs) else { panic!("{expected}: not found") };
        let message = error.to_string();
        assert!(message.contains(&expected), "{message} is not {expected}");
        let Error::Corrupt { offset: at, .. } = error else { panic!("{message}") };
        assert!(at / 1024 == offset / 1024 || at == offset - 8 + 0x7c, "{message}, but it is at {offset:#x}");
    }

    let damaged = dir.path().join("damaged");
    std::fs::copy(&image, &damaged).expect("a copy");
    let device = File::options().write(true).open(&damaged).expect("an image");
    device.write_all_at(b"X", 1024 + 0x78).expect("a byte");
    let message = refusal(&damaged);
    assert!(message.contains("superblock: checksum is"), "{message}");
    assert!(message.contains("a backup should be at block 8193"), "{message}");
}

#[test]
fn encrypted_files() {
    if !can_mount("encrypted files") {
        return;
    }
    let dir = testkit::tempdir();
    let image = mke2fs(dir.path(), 16, "-t ext4 -O encrypt,inline_data");
    drop(Mount::new(&image, "noatime"));
    debugfs(&image, "mkdir plain");
    {
        let Ok(mount) = Mount::try_new(&image, "noatime,test_dummy_encryption") else {
            testkit::skip("encrypted files: this kernel cannot make them");
            return;
        };
        let root = mount.path();
        std::fs::create_dir(root.join("dir")).expect("a directory");
        std::fs::write(root.join("dir/file"), "secret").expect("a file");
        std::fs::write(root.join("file"), "secret").expect("a file");
        std::os::unix::fs::symlink("target", root.join("link")).expect("a link");
    }
    let fs = tree::open(&image).expect("a volume");
    let unsupported = |result: vmcraft_fs::Result<()>, what: &str| {
        let Err(Error::Unsupported(message)) = result else { panic!("{what}: {result:?}") };
        assert!(message.contains(what) && message.contains("fscrypt"), "{message}");
    };
    let at = |path: &str| resolve(&*fs, path).expect("a plain name");
    unsupported(fs.read(at("file"), 0, &mut [0]).map(|_| ()), "encrypted content");
    unsupported(fs.next_data(at("file"), 0).map(|_| ()), "encrypted content");
    unsupported(fs.read_link(at("link")).map(|_| ()), "encrypted content");
    unsupported(fs.read_dir(at("dir"), 0, &mut |_| std::ops::ControlFlow::Continue(())), "encrypted names");
    unsupported(fs.lookup(at("dir"), "file".into()).map(|_| ()), "encrypted names");
    // All else is as ever.
    assert_eq!(fs.metadata(at("file")).expect("metadata").size_bytes, 6);
    assert_eq!(fs.parent(at("dir")).expect("a parent"), fs.root());
    assert!(fs.metadata(at("plain")).expect("metadata").is_dir());
    vmcraft_fs::conformance::check(&*fs).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn verity_content() {
    let dir = testkit::tempdir();
    let image = sample::image(dir.path(), 8, "-t ext4 -O verity");
    debugfs(&image, "sif /big flags 0x180000");
    let fs = tree::open(&image).expect("a volume");
    let big = resolve(&*fs, "big").expect("a file");
    let Err(Error::Unsupported(message)) = fs.read(big, 0, &mut [0]) else { panic!("it was read") };
    assert!(message.contains("fs-verity"), "{message}");
    assert_eq!(fs.metadata(big).expect("metadata").size_bytes, 100_000);
}

#[test] // Exact names and ASCII names of another case are found; what takes Unicode's tables is refused.
fn directories_that_ignore_letter_case() {
    let dir = testkit::tempdir();
    let image = mke2fs(dir.path(), 8, "-t ext4 -O casefold -E encoding=utf8");
    let content = dir.path().join("content");
    std::fs::write(&content, "x").expect("a file");
    for command in ["mkdir /ascii", "mkdir /mixed"] {
        debugfs(&image, command);
    }
    for target in ["/ascii/Readme.TXT", "/mixed/Readme.TXT", "/mixed/stra\u{df}e"] {
        debugfs(&image, &format!("write {} {target}", name(&content)));
    }
    for path in ["/ascii", "/mixed"] {
        debugfs(&image, &format!("sif {path} flags 0x40080000"));
    }
    let fs = tree::open(&image).expect("a volume");
    let exact = resolve(&*fs, "ascii/Readme.TXT").expect("the exact name");
    assert_eq!(resolve(&*fs, "ascii/README.txt").expect("another case"), exact);
    assert!(matches!(resolve(&*fs, "ascii/other"), Err(Error::NotFound)));
    resolve(&*fs, "mixed/readme.txt").expect("another case");
    resolve(&*fs, "mixed/stra\u{df}e").expect("the exact name");
    for name in ["mixed/STRASSE", "mixed/other", "ascii/\u{212a}"] {
        let Err(Error::Unsupported(message)) = resolve(&*fs, name) else { panic!("{name}") };
        assert!(message.contains("casefold"), "{message}");
    }
    // Elsewhere on the volume case counts.
    assert!(matches!(resolve(&*fs, "ASCII"), Err(Error::NotFound)));
}

#[test] // A value that has an inode of its own is checked by the hash in its access time.
fn damaged_value_of_a_large_attribute() {
    let dir = testkit::tempdir();
    let image = sample::image(dir.path(), 8, "-t ext4 -b 1024 -O ea_inode");
    // debugfs takes no more than a block, which is too much for a block with a header.
    let value = "a value that is nowhere else ".repeat(36)[..1024].to_owned();
    let file = dir.path().join("large-value");
    std::fs::write(&file, &value).expect("a file");
    debugfs(&image, &format!("ea_set -f {} /big user.huge", name(&file)));
    let fs = tree::open(&image).expect("a volume");
    let big = resolve(&*fs, "big").expect("a file");
    let xattrs = fs.xattrs(big).expect("the attribute");
    assert!(xattrs == [("user.huge".into(), value.clone().into_bytes())], "{xattrs:?}");

    let mut bytes = std::fs::read(&image).expect("an image");
    let at = bytes.windows(100).position(|w| w == &value.as_bytes()[..100]).expect("the value");
    bytes[at] ^= 1;
    std::fs::write(&image, bytes).expect("an image");
    let fs = tree::open(&image).expect("a volume");
    let message = fs.xattrs(big).expect_err("it is damaged").to_string();
    assert!(message.contains("value of \"huge\" of inode"), "{message}");
    assert!(message.contains("the hash of its content is wrong"), "{message}");
    assert!(fs.read(big, 0, &mut [0]).is_ok(), "the file itself is not");
}
