//! Reading qcow2 images that QEMU wrote.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use vmcraft_block::image::{self, OpenOptions};

use crate::support::{
    Noise, assert_same, mixed_disk, open, options, qemu_bytes, qemu_io, read_all, refusal, text, write_file,
};

const MIB: usize = 1 << 20;

/// Converts a raw disk with the given options of `qemu-img convert`.
fn convert(raw: &Path, arguments: &[&str]) -> PathBuf {
    let target = raw.with_extension("qcow2");
    let mut all = vec!["convert", "-f", "raw", "-O", "qcow2"];
    all.extend(arguments);
    all.extend([text(raw), text(&target)]);
    testkit::run_ok("qemu-img", all);
    target
}

#[test] // Every option of qemu-img that changes the layout.
fn reads_what_qemu_img_converts() {
    let dir = testkit::tempdir();
    let disk = mixed_disk(1, 5 * MIB + 512);
    let raw = write_file(dir.path(), "disk.raw", &disk);
    for arguments in [
        &[][..],
        &["-o", "compat=0.10"],
        &["-o", "cluster_size=512"],
        &["-o", "cluster_size=4096,refcount_bits=1"],
        &["-o", "cluster_size=2M"],
        &["-o", "extended_l2=on"],
        &["-o", "extended_l2=on,cluster_size=16k"],
        &["-o", "preallocation=metadata"],
        &["-o", "preallocation=full,cluster_size=8k"],
        &["-o", "lazy_refcounts=on"],
        &["-c"],
        &["-c", "-o", "compat=0.10"],
        &["-c", "-o", "cluster_size=512"],
        &["-c", "-o", "cluster_size=2M"],
        &["-c", "-o", "compression_type=zstd"],
        &["-c", "-o", "compression_type=zstd,cluster_size=4k"],
        &["-c", "-o", "compression_type=zstd,cluster_size=2M"],
        &["-c", "-o", "compression_type=zstd,extended_l2=on"],
    ] {
        let image = open(&convert(&raw, arguments));
        assert_eq!(image.warnings, [] as [&str; 0]);
        assert_same(&read_all(&image.device), &disk, &format!("{arguments:?}"));
    }
}

#[test] // Parts of clusters and subclusters, zeros, discards: what a guest leaves behind.
fn reads_what_qemu_io_writes() {
    let dir = testkit::tempdir();
    for (name, creation) in [
        ("plain", "cluster_size=64k"),
        ("small", "cluster_size=512"),
        ("large", "cluster_size=1M"),
        ("extended", "extended_l2=on"),
        ("extended-16k", "extended_l2=on,cluster_size=16k"),
    ] {
        let path = dir.path().join(name);
        testkit::run_ok("qemu-img", ["create", "-q", "-f", "qcow2", "-o", creation, text(&path), "20M"]);
        let mut noise = Noise::new(2);
        let mut commands = Vec::new();
        for round in 0..120 {
            let offset = noise.below(40_000) * 512;
            let len = (noise.below(300) + 1) * 512;
            let len = len.min(20 * MIB as u64 - offset);
            commands.push(match round % 6 {
                0 => format!("write -z {offset} {len}"),
                1 => format!("write -z -u {offset} {len}"),
                2 => format!("discard {offset} {len}"),
                _ => format!("write -P {} {offset} {len}", noise.below(255) + 1),
            });
        }
        qemu_io(&path, &commands.iter().map(String::as_str).collect::<Vec<_>>());
        assert_same(&read_all(&open(&path).device), &qemu_bytes(&path), creation);
    }
}

#[test] // The middle image is smaller than the others, so it hides what is below its end.
fn backing_chains_of_different_sizes_and_formats() {
    let dir = testkit::tempdir();
    let base = write_file(dir.path(), "base.raw", &mixed_disk(3, 4 * MIB));
    let (middle, top) = (dir.path().join("middle.qcow2"), dir.path().join("top.qcow2"));
    let create = |path: &Path, backing: &str, format: &str, size: &str| {
        let arguments = ["create", "-q", "-f", "qcow2", "-b", backing, "-F", format, text(path), size];
        testkit::run_ok("qemu-img", arguments);
    };
    create(&middle, "base.raw", "raw", "3M");
    qemu_io(&middle, &["write -P 7 100k 50k", "write -z 1M 128k"]);
    create(&top, text(&middle), "qcow2", "6M");
    qemu_io(&top, &["write -P 9 2M 3000", "write -P 8 5M 512"]);
    let image = open(&top);
    assert_same(&read_all(&image.device), &qemu_bytes(&top), "the chain");
    assert_eq!(image.warnings, [] as [&str; 0]);
    drop(base);
}

#[test] // Guests are read from many threads at once.
fn many_threads_read_one_image() {
    let dir = testkit::tempdir();
    let disk = mixed_disk(4, 8 * MIB);
    let raw = write_file(dir.path(), "disk.raw", &disk);
    let image = open(&convert(&raw, &["-c"]));
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (device, disk) = (&image.device, &disk);
            scope.spawn(move || {
                let mut noise = Noise::new(seed);
                for _ in 0..200 {
                    let len = usize::try_from(noise.below(200_000) + 1).unwrap();
                    let at = usize::try_from(noise.below((disk.len() - len) as u64)).unwrap();
                    let mut buf = vec![0; len];
                    device.read_at(at as u64, &mut buf).unwrap();
                    assert_same(&buf, &disk[at..at + len], "a thread");
                }
            });
        }
    });
}

#[test]
fn external_data_files() {
    let dir = testkit::tempdir();
    for raw in ["off", "on"] {
        let path = dir.path().join(format!("disk-{raw}.qcow2"));
        let data = dir.path().join(format!("disk-{raw}.data"));
        let creation = format!("data_file={},data_file_raw={raw}", text(&data));
        testkit::run_ok("qemu-img", ["create", "-q", "-f", "qcow2", "-o", &creation, text(&path), "4M"]);
        qemu_io(&path, &["write -P 1 0 64k", "write -P 2 1M 100k", "write -z 1M 4k", "write -P 3 3M 1M"]);
        assert_same(&read_all(&open(&path).device), &qemu_bytes(&path), raw);
    }
}

#[test] // Snapshots are other L1 tables over the same clusters.
fn internal_snapshots_are_readable() {
    let dir = testkit::tempdir();
    let path = dir.path().join("disk.qcow2");
    testkit::run_ok("qemu-img", ["create", "-q", "-f", "qcow2", text(&path), "4M"]);
    let mut states = Vec::new();
    for (name, pattern) in [("first", "1"), ("second", "2"), ("third", "3")] {
        let write = format!("write -P {pattern} {pattern}00k 300k");
        qemu_io(&path, &[&write]);
        states.push((name, qemu_bytes(&path)));
        testkit::run_ok("qemu-img", ["snapshot", "-c", name, text(&path)]);
    }
    qemu_io(&path, &["write -P 9 0 4M"]);
    for (index, (name, bytes)) in states.iter().enumerate() {
        for wanted in [(*name).to_owned(), (index + 1).to_string()] {
            let options = OpenOptions { snapshot: Some(wanted.clone()), ..options() };
            let image = image::open(text(&path), &options).unwrap();
            assert_same(&read_all(&image.device), bytes, &wanted);
        }
    }
    assert_same(&read_all(&open(&path).device), &vec![9; 4 * MIB], "the disk as it is now");
    let missing = OpenOptions { snapshot: Some("fourth".into()), ..options() };
    assert!(refusal(&path, &missing).contains("only 1 (first), 2 (second), 3 (third)"));
    let writable = OpenOptions { snapshot: Some("first".into()), read_only: false, ..options() };
    assert!(refusal(&path, &writable).contains("read-only"));
}

#[test] // Holes are found through the chain, and data is never called a hole.
fn extents_follow_the_chain() {
    let dir = testkit::tempdir();
    let (base, top) = (dir.path().join("base.qcow2"), dir.path().join("top.qcow2"));
    testkit::run_ok("qemu-img", ["create", "-q", "-f", "qcow2", text(&base), "4M"]);
    qemu_io(&base, &["write -P 5 1M 64k", "write -P 6 2M 64k"]);
    testkit::run_ok(
        "qemu-img",
        ["create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", text(&top), "8M"],
    );
    qemu_io(&top, &["write -z 2M 64k", "write -P 7 5M 64k"]);
    let image = open(&top);
    let map = image.device.extents().expect("qcow2 knows its extents");
    let mut at = 0;
    let mut data = Vec::new();
    while at < image.device.size() {
        let extent = map.extent_at(at).unwrap();
        assert_eq!(extent.offset, at);
        assert!(extent.len > 0);
        if !extent.is_hole {
            data.push((at, extent.len));
        }
        at += extent.len;
    }
    assert_eq!(data, [(1 << 20, 64 << 10), (5 << 20, 64 << 10)]);
    assert!(map.extent_at(at).is_err());
}

/// Writes a word into a copy of an image, and gives what reading from `guest` says then.
fn read_error(path: &Path, at: u64, word: u64, guest: u64) -> String {
    let mut bytes = std::fs::read(path).unwrap();
    let at = usize::try_from(at).unwrap();
    bytes[at..at + 8].copy_from_slice(&word.to_be_bytes());
    let damaged = path.with_extension("damaged");
    std::fs::write(&damaged, bytes).unwrap();
    let error = open(&damaged).device.read_at(guest, &mut [0; 512]).expect_err("the table is damaged");
    let said = error.to_string();
    assert!(said.starts_with(text(&damaged)), "{said}");
    said
}

#[test] // A guest's disk that cannot be read says why, and where in the image.
fn damaged_tables_name_the_image_and_the_byte() {
    let dir = testkit::tempdir();
    let path = dir.path().join("disk.qcow2");
    let field = |path: &Path, at: u64| {
        let at = usize::try_from(at).unwrap();
        u64::from_be_bytes(std::fs::read(path).unwrap()[at..at + 8].try_into().unwrap()) & !(1 << 63)
    };
    testkit::run_ok("qemu-img", ["create", "-q", "-f", "qcow2", text(&path), "4M"]);
    qemu_io(&path, &["write -P 1 0 128k"]);
    let l1 = field(&path, 40);
    let l2 = field(&path, l1);
    let copied = 1 << 63;
    let said = read_error(&path, l1, (l2 + 512) | copied, 0);
    assert!(said.contains("corrupt L1 entry") && said.contains(&format!("{:#x}", l2 + 512)), "{said}");
    let said = read_error(&path, l1, (1 << 40) | copied, 0);
    assert!(said.contains("truncated: the L2 table at byte 0x10000000000"), "{said}");
    let said = read_error(&path, l2 + 8, (l2 + 1024) | copied, 65536);
    assert!(
        said.contains(&format!(
            "corrupt L2 entry: its offset is not a multiple of the cluster size at byte {:#x}",
            l2 + 8
        )),
        "{said}"
    );
    let said = read_error(&path, l2, (1 << 40) | copied, 0);
    assert!(said.contains("truncated: the data cluster at byte 0x10000000000"), "{said}");
    // Compressed, from where zeros are.
    let said = read_error(&path, l2, (1 << 62) | (l1 + 4096), 0);
    assert!(said.contains(&format!("corrupt compressed cluster at byte {:#x}", l1 + 4096)), "{said}");

    let path = dir.path().join("extended.qcow2");
    let creation = ["create", "-q", "-f", "qcow2", "-o", "extended_l2=on", text(&path), "4M"];
    testkit::run_ok("qemu-img", creation);
    qemu_io(&path, &["write -P 1 0 64k"]);
    let l2 = field(&path, field(&path, 40));
    let said = read_error(&path, l2 + 8, 0x0000_0001_ffff_ffff, 0);
    assert!(said.contains("a subcluster that is both allocated and zero"), "{said}");
    let said = read_error(&path, l2, 0, 0);
    assert!(said.contains("allocated subclusters without a cluster"), "{said}");

    let path = dir.path().join("old.qcow2");
    testkit::run_ok("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "compat=0.10", text(&path), "4M"]);
    qemu_io(&path, &["write -P 1 0 64k"]);
    let said = read_error(&path, field(&path, field(&path, 40)), 1, 0);
    assert!(said.contains("a zero cluster in an image of version 2"), "{said}");
}

#[test] // Images that no one here made, alone and as a chain.
fn real_images_convert_to_the_same_bytes() {
    let Some(corpus) = testkit::corpus::dir() else { return };
    let dir = testkit::tempdir();
    let rows = testkit::corpus::rows(&corpus, "qcow2/");
    let paths: Vec<_> = rows.iter().map(|row| testkit::corpus::unpack(&corpus, row, dir.path())).collect();
    let mut compared = 0;
    for (row, path) in rows.iter().zip(&paths) {
        let facts: serde_json::Value = serde_json::from_str(&row.facts).unwrap();
        if facts["class"].as_str().is_some_and(|class| class.starts_with("adversarial")) {
            assert!(refusal(path, &options()).contains("truncated"), "{}", row.path);
            continue;
        }
        let of = &facts["qemu"];
        let sha256 = of["raw_sha256_of_chain"].as_str().or(of["raw_sha256"].as_str());
        let sha256 = sha256.unwrap_or_else(|| panic!("{}: no hash to compare with", row.path));
        let (image, mut hash) = (open(path), Sha256::new());
        let mut piece = vec![0; MIB];
        for at in (0..image.device.size()).step_by(MIB) {
            let len = piece.len().min(usize::try_from(image.device.size() - at).unwrap());
            image.device.read_at(at, &mut piece[..len]).unwrap();
            hash.update(&piece[..len]);
        }
        let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, sha256, "{}", row.path);
        compared += 1;
    }
    assert!(compared > 0, "the corpus has no qcow2 image to compare with");
}
