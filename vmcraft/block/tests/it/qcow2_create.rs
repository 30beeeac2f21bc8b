//! New images, and random sessions on them that shrink when they fail.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use vmcraft_block::image;
use vmcraft_block::qcow2::{Compression, CreateOptions, Header, Parts, Qcow2, create};
use vmcraft_block::storage::HostFile;
use vmcraft_block::{BlockDevice, Error};

use crate::qcow2_write::assert_clean;
use crate::support::{assert_same, mixed_disk, options, qemu_bytes, read_all, text, write_file};

fn try_create(path: &Path, creation: &CreateOptions) -> Result<(), Error> {
    let file = File::options().create(true).read(true).write(true).truncate(true).open(path).unwrap();
    create(text(path), &HostFile::new(file, false).unwrap(), creation)
}

fn open_writable(path: &Path) -> Qcow2 {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let storage = Arc::new(HostFile::new(file, false).unwrap());
    let header = Header::read(text(path), &storage).unwrap();
    Qcow2::open(text(path), storage, header, Parts::default()).unwrap()
}

#[test]
fn new_images_are_what_was_asked_for() {
    let dir = testkit::tempdir();
    let path = dir.path().join("new.qcow2");
    let new = CreateOptions::new;
    for creation in [
        new(10 << 30),
        new(0),
        new(1000),
        CreateOptions { version: 2, ..new(3 << 20) },
        CreateOptions { cluster_size: 512, refcount_bits: 64, ..new(100 << 20) },
        CreateOptions { cluster_size: 512, refcount_bits: 1, ..new(3 << 20) },
        CreateOptions { cluster_size: 1024, refcount_bits: 2, ..new(30 << 20) },
        CreateOptions { cluster_size: 4096, refcount_bits: 4, ..new(5 << 30) },
        CreateOptions { cluster_size: 2 << 20, compression: Compression::Zstd, ..new(1 << 50) },
        CreateOptions { extended_l2: true, refcount_bits: 8, ..new(1 << 40) },
        CreateOptions { preallocated: true, ..new(5 << 30) },
        CreateOptions { preallocated: true, ..new(0) },
        CreateOptions { preallocated: true, version: 2, cluster_size: 512, ..new((3 << 20) + 512) },
    ] {
        try_create(&path, &creation).unwrap_or_else(|e| panic!("{creation:?}: {e}"));
        assert_clean(&path, &format!("{creation:?}"));
        let said = testkit::run_ok("qemu-img", ["info", "--output=json", text(&path)]);
        let info: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(info["virtual-size"], creation.size.next_multiple_of(512));
        assert_eq!(info["cluster-size"], creation.cluster_size);
        let data = &info["format-specific"]["data"];
        assert_eq!(data["refcount-bits"], creation.refcount_bits);
        assert_eq!(data["compat"], if creation.version == 3 { "1.1" } else { "0.10" });
        assert_eq!(data["compression-type"], creation.compression.to_string());
        if creation.version == 3 {
            assert_eq!(data["extended-l2"], creation.extended_l2);
        }
        let ours = serde_json::to_value(&image::info(text(&path), &options()).unwrap().chain[0]).unwrap();
        assert_eq!(ours["format-specific"], info["format-specific"]);
    }
    for creation in [
        CreateOptions { cluster_size: 256, ..new(1) },
        CreateOptions { cluster_size: 3000, ..new(1) },
        CreateOptions { refcount_bits: 128, ..new(1) },
        CreateOptions { version: 4, ..new(1) },
        CreateOptions { version: 2, extended_l2: true, ..new(1) },
        CreateOptions { cluster_size: 4096, extended_l2: true, ..new(1) },
        CreateOptions { cluster_size: 512, ..new(1 << 50) },
        CreateOptions { preallocated: true, extended_l2: true, ..new(1) },
        CreateOptions { preallocated: true, backing: Some(("x".into(), "raw".into())), ..new(1) },
        CreateOptions { backing: Some(("x".repeat(1024), "raw".into())), ..new(1) },
        CreateOptions { cluster_size: 512, backing: Some(("x".repeat(400), "raw".into())), ..new(1) },
        new(u64::MAX),
    ] {
        let refused = try_create(&path, &creation).unwrap_err();
        assert!(matches!(refused, Error::Unsupported { .. }), "{creation:?}: {refused}");
    }
}

#[test]
fn new_images_over_a_backing_file() {
    let dir = testkit::tempdir();
    let base = write_file(dir.path(), "base.raw", &mixed_disk(1, 1 << 20));
    for (cluster_size, version) in [(65536, 3), (512, 3), (4096, 2)] {
        let path = dir.path().join("top.qcow2");
        let backing = Some(("base.raw".into(), "raw".into()));
        let creation = CreateOptions { backing, version, cluster_size, ..CreateOptions::new(1 << 20) };
        try_create(&path, &creation).unwrap();
        assert_clean(&path, "over a backing file");
        assert_same(&qemu_bytes(&path), &std::fs::read(&base).unwrap(), "as QEMU reads it");
        let image = image::open(text(&path), &options()).unwrap();
        assert_eq!(image.warnings, [] as [&str; 0]);
        assert_same(&read_all(&image.device), &std::fs::read(&base).unwrap(), "as we read it");
    }
}

/// What a session does to a disk.
#[derive(Debug, Clone)]
enum Operation {
    Write { at: usize, len: usize, byte: u8 },
    Zero { at: usize, len: usize },
    Discard { at: usize, len: usize },
    Flush,
    Reopen,
}

const DISK: usize = 400_000 / 512 * 512;

fn operation() -> impl Strategy<Value = Operation> {
    let range = (0..DISK, 1usize..70_000).prop_map(|(at, len)| (at, len.min(DISK - at)));
    prop_oneof![
        6 => (range.clone(), 1u8..).prop_map(|((at, len), byte)| Operation::Write { at, len, byte }),
        2 => range.clone().prop_map(|(at, len)| Operation::Zero { at, len }),
        2 => range.prop_map(|(at, len)| Operation::Discard { at, len }),
        1 => Just(Operation::Flush),
        1 => Just(Operation::Reopen),
    ]
}

fn creation() -> impl Strategy<Value = CreateOptions> {
    (9u32..=17, 0u32..=6, any::<bool>(), any::<bool>()).prop_map(|(cluster_bits, order, extended, old)| {
        let base = CreateOptions { cluster_size: 1 << cluster_bits, ..CreateOptions::new(DISK as u64) };
        if old {
            CreateOptions { version: 2, ..base }
        } else {
            CreateOptions { refcount_bits: 1 << order, extended_l2: extended && cluster_bits >= 14, ..base }
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test] // The disk is an array of bytes, whatever the layout and the order of things.
    fn any_session_is_what_an_array_would_be(
        creation in creation(),
        operations in prop::collection::vec(operation(), 1..60),
    ) {
        let dir = testkit::tempdir();
        let path = dir.path().join("disk.qcow2");
        try_create(&path, &creation).unwrap();
        let mut model = vec![0; DISK];
        let mut device = open_writable(&path);
        for operation in operations {
            match operation {
                Operation::Write { at, len, byte } => {
                    device.write_at(at as u64, &vec![byte; len]).unwrap();
                    model[at..at + len].fill(byte);
                }
                Operation::Zero { at, len } => {
                    device.discard().unwrap().write_zeroes(at as u64, len as u64).unwrap();
                    model[at..at + len].fill(0);
                }
                Operation::Discard { at, len } => {
                    device.discard().unwrap().discard(at as u64, len as u64).unwrap();
                    let mut now = vec![0; len];
                    device.read_at(at as u64, &mut now).unwrap();
                    prop_assert!(now.iter().zip(&model[at..]).all(|(now, old)| now == old || *now == 0));
                    model[at..at + len].copy_from_slice(&now);
                }
                Operation::Flush => device.flush().unwrap(),
                Operation::Reopen => {
                    drop(device);
                    device = open_writable(&path);
                }
            }
        }
        prop_assert!(read_all(&device) == model, "as we read it");
        drop(device);
        assert_clean(&path, "after the session");
        prop_assert!(qemu_bytes(&path) == model, "as QEMU reads it");
    }
}

#[test] // Each cluster has a place, which reads as zeros and is written in place.
fn preallocated_images_do_not_grow() {
    let dir = testkit::tempdir();
    let path = dir.path().join("new.qcow2");
    try_create(&path, &CreateOptions { preallocated: true, ..CreateOptions::new(100 << 20) }).unwrap();
    let map = testkit::run_ok("qemu-img", ["map", "--output=json", text(&path)]);
    let map: serde_json::Value = serde_json::from_str(&map).unwrap();
    assert!(map.as_array().unwrap().iter().all(|extent| extent["offset"].is_u64()), "{map}");
    let before = path.metadata().unwrap().len();
    let image = open_writable(&path);
    assert_eq!(read_all(&image), vec![0; 100 << 20]);
    image.write_at(77 << 20, &[5; 1 << 20]).unwrap();
    image.flush().unwrap();
    drop(image);
    assert_eq!(path.metadata().unwrap().len(), before);
    assert_clean(&path, "written to");
}

#[test] // As `qemu-img create` with its kinds of preallocation.
fn images_take_the_space_that_was_asked_for() {
    use std::os::unix::fs::MetadataExt;
    use vmcraft_block::image::{NewFormat, NewImage, Space};
    let dir = testkit::tempdir();
    for (space, is_allocated) in [(Space::Sparse, false), (Space::Allocated, true), (Space::Written, true)] {
        let raw = dir.path().join("new.raw");
        image::create(text(&raw), &NewImage { format: NewFormat::Raw(4 << 20), space }).unwrap();
        let found = raw.metadata().unwrap();
        assert_eq!((found.len(), found.blocks() * 512 >= 4 << 20), (4 << 20, is_allocated), "{space:?}");
        let qcow2 = dir.path().join("new.qcow2");
        let options = CreateOptions { preallocated: true, ..CreateOptions::new(4 << 20) };
        image::create(text(&qcow2), &NewImage { format: NewFormat::Qcow2(options), space }).unwrap();
        assert_eq!(qcow2.metadata().unwrap().blocks() * 512 >= 4 << 20, is_allocated, "{space:?}");
        assert_clean(&qcow2, &format!("{space:?}"));
    }
}

#[test] // What another process writes to is not emptied, and half an image is not left.
fn images_in_use_are_not_made_anew() {
    use vmcraft_block::image::{NewFormat, NewImage, Space};
    let dir = testkit::tempdir();
    let disk = mixed_disk(7, 1 << 20);
    let path = write_file(dir.path(), "disk.raw", &disk);
    let open = image::open(text(&path), &image::OpenOptions { read_only: false, ..options() }).unwrap();
    let new = NewImage { format: NewFormat::Raw(1 << 20), space: Space::Sparse };
    assert!(matches!(image::create(text(&path), &new), Err(Error::InUse { .. })));
    drop(open);
    assert_eq!(std::fs::read(&path).unwrap(), disk);
    let bad = dir.path().join("bad.qcow2");
    let options = CreateOptions { cluster_size: 3000, ..CreateOptions::new(1) };
    let new = NewImage { format: NewFormat::Qcow2(options), space: Space::Sparse };
    assert!(image::create(text(&bad), &new).is_err());
    assert!(!bad.exists());
}
