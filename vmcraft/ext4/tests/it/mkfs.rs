//! File systems that we make, against those that mke2fs makes of the same size and options.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use testkit::{run, run_ok};
use vmcraft_block::{BlockDevice, MemoryDevice, RawFile};
use vmcraft_fs::{Error, FormatOptions, Maintain, Sources, Timestamp};

use crate::kernel::{Mount, can_mount};
use crate::sample::name;

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

pub(crate) fn tools() -> &'static dyn Maintain {
    vmcraft_ext4::DRIVER.maintain.expect("the driver makes file systems")
}

/// An image of this size, and its device.
pub(crate) fn device(image: &Path, size: u64) -> Arc<dyn BlockDevice> {
    let file =
        File::options().read(true).write(true).create(true).truncate(false).open(image).expect("a file");
    file.set_len(size).expect("room");
    open(image)
}

/// The device of an image.
pub(crate) fn open(image: &Path) -> Arc<dyn BlockDevice> {
    let file = File::options().read(true).write(true).open(image).expect("a file");
    Arc::new(RawFile::new(file, false).expect("a device"))
}

/// A clock that stands still, and numbers that count.
pub(crate) fn sources() -> Sources {
    Sources::new(
        || Timestamp { seconds: 1_700_000_000, nanoseconds: 0 },
        |bytes| bytes.iter_mut().zip(1..).for_each(|(b, n)| *b = n),
    )
}

/// The options that `mke2fs` has for the same.
fn for_mke2fs(options: &FormatOptions) -> Vec<String> {
    let mut all = Vec::new();
    let mut add = |letter: &str, value: String| all.extend([letter.to_owned(), value]);
    if let Some(size) = options.block_size {
        add("-b", size.to_string());
    }
    if let Some(size) = options.inode_size {
        add("-I", size.to_string());
    }
    if let Some(count) = options.inodes {
        add("-N", count.to_string());
    }
    if let Some(bytes) = options.bytes_per_inode {
        add("-i", bytes.to_string());
    }
    if !options.features.is_empty() {
        add("-O", options.features.join(","));
    }
    if let Some(percent) = options.reserved_percent {
        add("-m", percent.to_string());
    }
    if let Some(bytes) = options.journal_bytes {
        add("-J", format!("size={}", bytes / MIB));
    }
    if let Some(label) = &options.label {
        add("-L", label.to_string());
    }
    all
}

/// What `dumpe2fs -h` says, without what differs from one volume to the next.
pub(crate) fn header(image: &Path) -> BTreeMap<String, String> {
    let text = run_ok("dumpe2fs", ["-h", name(image)]);
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(field, value)| (field.trim().to_owned(), value.trim().to_owned()))
        .filter(|(field, _)| {
            !["UUID", "created", "time", "checked", "Lifetime", "Seed", "Checksum", "Journal checksum"]
                .iter()
                .any(|kept_out| field.contains(kept_out))
        })
        .collect()
}

pub(crate) fn assert_clean(image: &Path, what: &str) {
    let output = run("e2fsck", ["-fn", name(image)]);
    assert!(output.status.success(), "{what}: e2fsck: {}", String::from_utf8_lossy(&output.stdout));
}

fn options(features: &str) -> FormatOptions {
    let features = if features.is_empty() { Vec::new() } else { vec![features.to_owned()] };
    FormatOptions { features, sources: sources(), ..FormatOptions::default() }
}

/// Makes the volume with both, compares them, and checks ours.
fn compare(kind: &str, size: u64, options: &FormatOptions) {
    let what = format!("{kind}, {size} bytes, {:?} {options:?}", options.features);
    let dir = testkit::tempdir();
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    let device = device(&ours, size);
    tools().format(&device, kind, options).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_clean(&ours, &what);
    File::create(&theirs).and_then(|f| f.set_len(size)).expect("room");
    let mut arguments = vec!["-q".to_owned(), "-F".to_owned(), "-t".to_owned(), kind.to_owned()];
    arguments.extend(["-E".to_owned(), "lazy_itable_init=0,lazy_journal_init=0".to_owned()]);
    arguments.extend(for_mke2fs(options));
    arguments.push(name(&theirs).to_owned());
    arguments.extend(options.blocks.map(|b| b.to_string()));
    run_ok("mke2fs", arguments);
    let (ours, theirs) = (header(&ours), header(&theirs));
    for (field, value) in &theirs {
        // mke2fs puts the root directory's entries into its inode, and we into a block.
        if field == "Free blocks" && options.features.iter().any(|f| f.contains("inline_data")) {
            continue;
        }
        assert_eq!(ours.get(field), Some(value), "{what}: {field}");
    }
}

#[test] // The size decides block size, inodes, journal and the room to grow.
fn sizes_as_mke2fs() {
    for size in [300 * KIB, MIB, 3 * MIB - KIB, 3 * MIB, 9 * MIB + 5 * KIB, 64 * MIB, 513 * MIB, 5 * GIB] {
        for kind in ["ext2", "ext3", "ext4"] {
            compare(kind, size, &options(""));
        }
    }
    // Too small for mke2fs with its choices
    for size in [64 * KIB, 100 * KIB] {
        let dir = testkit::tempdir();
        let image = dir.path().join("image");
        tools().format(&device(&image, size), "ext2", &options("")).expect("a volume");
        assert_clean(&image, &format!("{size} bytes"));
    }
}

#[test]
fn features_as_mke2fs() {
    for features in [
        "^has_journal",
        "^64bit",
        "^extent,^64bit",
        "^flex_bg",
        "^metadata_csum,uninit_bg",
        "^metadata_csum",
        "^resize_inode",
        "^resize_inode,meta_bg",
        "^resize_inode,^sparse_super",
        "sparse_super2",
        "metadata_csum_seed,orphan_file",
        "inline_data,ea_inode,large_dir",
        "^dir_index,^filetype",
        "encrypt,casefold,verity,stable_inodes",
    ] {
        compare("ext4", 300 * MIB, &options(features));
    }
    compare("ext3", 40 * MIB, &options("none,has_journal"));
    compare("ext2", 40 * MIB, &options("^sparse_super,^resize_inode"));
}

#[test]
fn options_as_mke2fs() {
    for block_size in [1024, 2048, 4096, 8192, 65536] {
        compare("ext4", 1300 * MIB, &FormatOptions { block_size: Some(block_size), ..options("") });
    }
    compare("ext3", 2 * GIB, &FormatOptions { block_size: Some(1024), ..options("") });
    compare("ext4", 300 * MIB, &FormatOptions { inode_size: Some(128), ..options("") });
    compare("ext4", 300 * MIB, &FormatOptions { inode_size: Some(1024), ..options("") });
    compare("ext4", 300 * MIB, &FormatOptions { inodes: Some(200_000), ..options("") });
    compare("ext4", 300 * MIB, &FormatOptions { bytes_per_inode: Some(2048), ..options("") });
    compare("ext4", 300 * MIB, &FormatOptions { reserved_percent: Some(1.25), ..options("") });
    compare("ext4", 300 * MIB, &FormatOptions { journal_bytes: Some(32 * MIB), ..options("") });
    let blocks = FormatOptions { block_size: Some(4096), blocks: Some(70_536), ..options("") };
    compare("ext4", 300 * MIB, &blocks);
    compare("ext4", 300 * MIB, &FormatOptions { label: Some("sixteen letters!".into()), ..options("") });
}

#[test] // The kernel takes them, writes, and leaves them clean.
fn the_kernel_writes_on_them() {
    if !can_mount("the kernel writing on new file systems") {
        return;
    }
    for (kind, size, features) in [
        ("ext2", 10 * MIB, ""),
        ("ext3", 80 * MIB, ""),
        ("ext4", 80 * MIB, ""),
        ("ext4", 600 * MIB, "metadata_csum_seed,orphan_file,inline_data"),
        ("ext4", 600 * MIB, "^metadata_csum,uninit_bg"),
    ] {
        let dir = testkit::tempdir();
        let image = dir.path().join("image");
        tools().format(&device(&image, size), kind, &options(features)).expect("a volume");
        {
            let mount = Mount::new(&image, "rw");
            for index in 0..200 {
                let sub = mount.path().join(format!("d{}", index % 7));
                std::fs::create_dir_all(&sub).expect("a directory");
                std::fs::write(sub.join(index.to_string()), vec![7; index * 50]).expect("a file");
            }
        }
        assert_clean(&image, &format!("{kind} {features} after the kernel"));
    }
}

#[test]
fn blkid_sees_only_the_new_one() {
    let dir = testkit::tempdir();
    let image = dir.path().join("image");
    let device = device(&image, 200 * MIB);
    run_ok("mkfs.btrfs", ["-q", "-f", name(&image)]);
    let uuid = [0x11; 16];
    let options =
        FormatOptions { uuid: Some(uuid), label: Some("data".into()), block_size: Some(4096), ..options("") };
    tools().format(&device, "ext4", &options).expect("a volume");
    let seen = run_ok("blkid", ["-p", "-o", "export", name(&image)]);
    for line in ["TYPE=ext4", "LABEL=data", "UUID=11111111-1111-1111-1111-111111111111"] {
        assert!(seen.lines().any(|l| l == line), "{line} in {seen}");
    }
}

#[test] // With the same clock and numbers, the same bytes.
fn the_same_input_gives_the_same_bytes() {
    let make = || {
        let dir = testkit::tempdir();
        let image = dir.path().join("image");
        tools().format(&device(&image, 8 * MIB), "ext4", &options("")).expect("a volume");
        std::fs::read(&image).expect("the image")
    };
    assert!(make() == make());
}

#[test]
fn what_cannot_be_made_is_refused() {
    let refused = |size: usize, kind: &str, options: FormatOptions| {
        let device: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(vec![0xaa; size]));
        let error = tools().format(&device, kind, &options).expect_err("a refusal");
        let mut first = [0];
        device.read_at(0, &mut first).expect("a byte");
        assert_eq!(first, [0xaa], "nothing is written: {error}");
        error
    };
    let mib = 1 << 20;
    let large = FormatOptions { blocks: Some(4096), block_size: Some(1024), ..options("") };
    for (error, expected) in [
        (refused(16 << 10, "ext2", options("")), "too small"),
        (refused(512, "ext4", options("")), "too small"),
        (refused(mib, "ext4", large), "room for 1024"),
        (refused(mib, "btrfs", options("")), "btrfs"),
        (refused(mib, "ext4", options("teleport")), "teleport"),
        (refused(mib, "ext4", FormatOptions { block_size: Some(3000), ..options("") }), "block size"),
        (refused(mib, "ext4", FormatOptions { inode_size: Some(200), ..options("") }), "inode size"),
        (refused(mib, "ext4", FormatOptions { inodes: Some(1 << 20), ..options("") }), "inodes"),
        (
            refused(mib, "ext4", FormatOptions { label: Some("seventeen letters".into()), ..options("") }),
            "label",
        ),
        (refused(mib, "ext4", FormatOptions { reserved_percent: Some(f64::NAN), ..options("") }), "percent"),
        (refused(8 * mib, "ext4", FormatOptions { journal_bytes: Some(1000), ..options("") }), "journal"),
        (refused(8 * mib, "ext4", FormatOptions { journal_bytes: Some(5 << 20), ..options("") }), "half"),
    ] {
        assert!(error.to_string().contains(expected), "{error} lacks {expected}");
        assert!(!matches!(error, Error::Io(_)), "{error}");
    }
}
