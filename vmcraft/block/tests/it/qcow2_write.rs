//! Writing qcow2 images: what we wrote is what QEMU reads, and `qemu-img check` finds nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmcraft_block::BlockDevice;
use vmcraft_block::image::{self, OpenOptions};

use crate::support::{
    Noise, assert_same, mixed_disk, options, qemu_bytes, qemu_io, read_all, refusal, text, write_file,
};

const MIB: usize = 1 << 20;

fn writable() -> OpenOptions {
    OpenOptions { read_only: false, ..options() }
}

fn open_writable(path: &Path) -> Arc<dyn BlockDevice> {
    image::open(text(path), &writable()).unwrap_or_else(|e| panic!("{e}")).device
}

fn qemu_img<const N: usize>(arguments: [&str; N]) {
    testkit::run_ok("qemu-img", arguments);
}

fn create(path: &Path, creation: &str, size: &str) {
    qemu_img(["create", "-q", "-f", "qcow2", "-o", creation, text(path), size]);
}

/// `qemu-img check` finds neither errors nor leaks.
#[track_caller]
pub(crate) fn assert_clean(path: &Path, what: &str) {
    let output = testkit::run("qemu-img", ["check", "-U", "-f", "qcow2", text(path)]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("No errors were found"),
        "{what}: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A random run of operations, on the device and on the model.
fn operate(device: &dyn BlockDevice, model: &mut [u8], noise: &mut Noise, operations: usize) {
    let size = model.len() as u64;
    let discard = device.discard().expect("qcow2 can discard");
    for _ in 0..operations {
        let most = 1 << (6 + noise.below(13));
        // Every fourth is aligned, as file systems write.
        let align = if noise.below(4) == 0 { 65536 } else { 1 };
        let offset = noise.below(size) / align * align;
        let len = (noise.below(most) + 1).next_multiple_of(align).min(size - offset);
        let (at, count) = (usize::try_from(offset).unwrap(), usize::try_from(len).unwrap());
        let range = at..at + count;
        match noise.below(8) {
            0 => {
                discard.write_zeroes(offset, len).unwrap();
                model[range].fill(0);
            }
            1 => {
                discard.discard(offset, len).unwrap();
                let mut now = vec![0; count];
                device.read_at(offset, &mut now).unwrap();
                let told = now.iter().zip(&model[range.clone()]).all(|(now, old)| now == old || *now == 0);
                assert!(told, "a discarded range has neither its old content nor zeros");
                model[range].copy_from_slice(&now);
            }
            2 => device.flush().unwrap(),
            3 => {
                let mut now = vec![0; count];
                device.read_at(offset, &mut now).unwrap();
                assert_same(&now, &model[range], "a read between");
            }
            _ => {
                let bytes = noise.bytes(count);
                device.write_at(offset, &bytes).unwrap();
                model[range].copy_from_slice(&bytes);
            }
        }
    }
}

/// Operates on an image twice, and has QEMU look at it after each time.
fn operate_and_compare(path: &Path, seed: u64, operations: usize, what: &str) {
    let mut model = qemu_bytes(path);
    let mut noise = Noise::new(seed);
    for round in 0..2 {
        let what = format!("{what}, seed {seed}, round {round}");
        let device = open_writable(path);
        operate(&device, &mut model, &mut noise, operations);
        assert_same(&read_all(&device), &model, &format!("{what}: as we read it"));
        drop(device);
        assert_clean(path, &what);
        assert_same(&qemu_bytes(path), &model, &format!("{what}: as QEMU reads it"));
    }
}

#[test] // An image of each layout, empty at first.
fn random_writes_leave_a_clean_image_of_every_layout() {
    let dir = testkit::tempdir();
    for (seed, creation) in [
        "cluster_size=64k",
        "compat=0.10",
        "cluster_size=512",
        "cluster_size=512,compat=0.10",
        "cluster_size=4k,refcount_bits=1",
        "cluster_size=4k,refcount_bits=2",
        "cluster_size=1k,refcount_bits=4",
        "cluster_size=1k,refcount_bits=8",
        "cluster_size=512,refcount_bits=32",
        "cluster_size=512,refcount_bits=64",
        "cluster_size=2M",
        "extended_l2=on",
        "extended_l2=on,cluster_size=16k",
        "extended_l2=on,cluster_size=1M",
        "preallocation=metadata",
        "preallocation=metadata,extended_l2=on",
        "preallocation=falloc,cluster_size=8k",
        "lazy_refcounts=on",
    ]
    .into_iter()
    .enumerate()
    {
        let path = dir.path().join("disk.qcow2");
        create(&path, creation, "6300672");
        operate_and_compare(&path, seed as u64, 150, creation);
    }
}

#[test] // Content that must be copied before it is written over: from below, or compressed.
fn random_writes_over_a_backing_file_and_compressed_clusters() {
    let dir = testkit::tempdir();
    let disk = mixed_disk(7, 4 * MIB);
    let raw = write_file(dir.path(), "base.raw", &disk);
    let top = dir.path().join("top.qcow2");
    for (seed, creation) in
        ["compat=0.10", "cluster_size=4k", "extended_l2=on", "cluster_size=1M"].into_iter().enumerate()
    {
        qemu_img([
            "create",
            "-q",
            "-f",
            "qcow2",
            "-b",
            "base.raw",
            "-F",
            "raw",
            "-o",
            creation,
            text(&top),
            "5M",
        ]);
        operate_and_compare(&top, 100 + seed as u64, 120, creation);
    }
    assert_same(&std::fs::read(&raw).unwrap(), &disk, "the backing file");
    for (seed, creation) in [
        "compat=0.10",
        "compression_type=zstd",
        "cluster_size=4k",
        "compression_type=zstd,extended_l2=on",
        "cluster_size=2M",
    ]
    .into_iter()
    .enumerate()
    {
        qemu_img(["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", creation, text(&raw), text(&top)]);
        operate_and_compare(&top, 200 + seed as u64, 120, creation);
    }
}

#[test] // What a snapshot shares is copied; the snapshot stays as it was.
fn random_writes_leave_snapshots_alone() {
    let dir = testkit::tempdir();
    let path = dir.path().join("disk.qcow2");
    for (seed, creation) in
        ["cluster_size=64k", "cluster_size=512,compat=0.10", "extended_l2=on,cluster_size=16k"]
            .into_iter()
            .enumerate()
    {
        create(&path, creation, "4M");
        let seed = 300 + seed as u64;
        operate_and_compare(&path, seed, 60, creation);
        let before = qemu_bytes(&path);
        qemu_img(["snapshot", "-c", "before", text(&path)]);
        operate_and_compare(&path, seed + 50, 100, creation);
        let options = OpenOptions { snapshot: Some("before".into()), ..options() };
        let snapshot = image::open(text(&path), &options).unwrap();
        assert_same(&read_all(&snapshot.device), &before, "the snapshot as we read it");
        drop(snapshot);
        qemu_img(["snapshot", "-a", "before", text(&path)]);
        assert_same(&qemu_bytes(&path), &before, "the snapshot as QEMU reads it");
        qemu_img(["snapshot", "-d", "before", text(&path)]);
        assert_clean(&path, creation);
    }
}

#[test] // A raw data file can be used without the image, so it must be right by itself.
fn random_writes_with_an_external_data_file() {
    let dir = testkit::tempdir();
    for (seed, raw) in ["off", "on"].into_iter().enumerate() {
        let path = dir.path().join(format!("{raw}.qcow2"));
        let data = dir.path().join(format!("{raw}.data"));
        create(&path, &format!("data_file={},data_file_raw={raw}", text(&data)), "4M");
        operate_and_compare(&path, 400 + seed as u64, 150, raw);
        if raw == "on" {
            let mut bytes = std::fs::read(&data).unwrap();
            bytes.resize(4 * MIB, 0);
            assert_same(&bytes, &qemu_bytes(&path), "the data file by itself");
        }
    }
}

#[test] // The table that leads to the refcounts has to move, more than once.
fn the_refcount_table_grows() {
    let dir = testkit::tempdir();
    for creation in ["cluster_size=512,refcount_bits=64", "cluster_size=512"] {
        let path = dir.path().join("disk.qcow2");
        create(&path, creation, "64M");
        let table_len = |path: &Path| {
            let bytes = std::fs::read(path).unwrap();
            u32::from_be_bytes(bytes[56..60].try_into().unwrap())
        };
        let before = table_len(&path);
        let device = open_writable(&path);
        let bytes = Noise::new(1).bytes(24 * MIB);
        for (index, piece) in bytes.chunks(100_000).enumerate() {
            device.write_at(index as u64 * 100_000, piece).unwrap();
        }
        drop(device);
        assert!(table_len(&path) > before * 2, "{creation}: the table did not grow");
        assert_clean(&path, creation);
        assert_same(&qemu_bytes(&path)[..bytes.len()], &bytes, creation);
    }
}

#[test] // Space that was given back is used again, and goes back to the host.
fn discarded_space_is_given_back_and_used_again() {
    let dir = testkit::tempdir();
    let path = dir.path().join("disk.qcow2");
    create(&path, "cluster_size=64k", "1G");
    let device = open_writable(&path);
    let taken = || {
        use std::os::unix::fs::MetadataExt;
        let metadata = std::fs::metadata(&path).unwrap();
        (metadata.len(), metadata.blocks() * 512)
    };
    device.write_at(0, &vec![1; 32 * MIB]).unwrap();
    device.flush().unwrap();
    let (len, blocks) = taken();
    assert!(blocks > 32 << 20);
    device.discard().unwrap().discard(0, 1 << 30).unwrap();
    device.flush().unwrap();
    assert!(taken().1 < 2 << 20, "{} bytes are still taken", taken().1);
    device.write_at(64 << 20, &vec![2; 32 * MIB]).unwrap();
    device.flush().unwrap();
    assert_eq!(taken().0, len, "the file grew although there was room");
    drop(device);
    assert_clean(&path, "after all");
}

#[test] // Zeros over a terabyte are a matter of tables, and nothing where nothing is.
fn zeros_over_a_large_disk_take_no_space() {
    let dir = testkit::tempdir();
    let path = dir.path().join("disk.qcow2");
    create(&path, "cluster_size=64k", "4T");
    let device = open_writable(&path);
    device.discard().unwrap().write_zeroes(0, 4 << 40).unwrap();
    device.write_at(3 << 40, b"here").unwrap();
    device.discard().unwrap().write_zeroes(1, (4 << 40) - 2).unwrap();
    drop(device);
    assert!(std::fs::metadata(&path).unwrap().len() < 2 << 20);
    assert_clean(&path, "a large disk");
}

#[test] // Several threads, each in its own part, as a mounted file system with many writers is.
fn many_threads_write_one_image() {
    let dir = testkit::tempdir();
    let path = dir.path().join("disk.qcow2");
    create(&path, "cluster_size=4k", "8M");
    let device = open_writable(&path);
    let mut parts: Vec<Vec<u8>> = vec![vec![0; 2 * MIB]; 4];
    std::thread::scope(|scope| {
        for (index, part) in parts.iter_mut().enumerate() {
            let device = &device;
            scope.spawn(move || {
                let mut noise = Noise::new(index as u64);
                for _ in 0..150 {
                    let at = usize::try_from(noise.below(2 * MIB as u64 - 20_000)).unwrap();
                    let count = usize::try_from(noise.below(20_000)).unwrap();
                    let bytes = noise.bytes(count);
                    device.write_at((index * 2 * MIB + at) as u64, &bytes).unwrap();
                    part[at..at + count].copy_from_slice(&bytes);
                    let mut back = vec![0; count];
                    device.read_at((index * 2 * MIB + at) as u64, &mut back).unwrap();
                    assert_same(&back, &bytes, "a thread's own write");
                }
            });
        }
    });
    drop(device);
    assert_clean(&path, "after threads");
    assert_same(&qemu_bytes(&path), &parts.concat(), "after threads");
}

fn patched(path: &Path, at: usize, bytes: &[u8]) -> PathBuf {
    let mut image = std::fs::read(path).unwrap();
    image[at..at + bytes.len()].copy_from_slice(bytes);
    let target = path.with_extension("patched");
    std::fs::write(&target, image).unwrap();
    target
}

fn field(path: &Path, at: usize) -> u64 {
    u64::from_be_bytes(std::fs::read(path).unwrap()[at..at + 8].try_into().unwrap())
}

#[test] // A forged image must not make us write over its own tables.
fn references_to_metadata_are_refused() {
    let dir = testkit::tempdir();
    let path = dir.path().join("disk.qcow2");
    create(&path, "cluster_size=64k", "4M");
    qemu_io(&path, &["write -P 1 0 128k"]);
    let (l1, refcounts) = (field(&path, 40), field(&path, 48));
    let l2 = field(&path, usize::try_from(l1).unwrap()) & !(1 << 63);
    let entry = usize::try_from(l2).unwrap();
    for (target, named) in [(0, "header"), (l1, "L1 table"), (l2, "L2 table"), (refcounts, "refcount table")]
    {
        if target == 0 {
            continue; // Offset 0 is "not allocated".
        }
        let forged = patched(&path, entry, &(target | 1 << 63).to_be_bytes());
        let before = std::fs::read(&forged).unwrap();
        let device = open_writable(&forged);
        let error = device.write_at(0, &[7; 4096]).unwrap_err().to_string();
        assert!(error.contains("corrupt reference: it leads to") && error.contains(named), "{error}");
        // The second cluster is in order.
        device.write_at(65536, &[8; 4096]).unwrap();
        drop(device);
        let after = std::fs::read(&forged).unwrap();
        let second = usize::try_from(field(&path, entry + 8) & !(1 << 63)).unwrap();
        assert_eq!(before[..second], after[..second], "{named}");
        // As an L2 table, it is seen when the image is opened.
        if target != l2 {
            let forged = patched(&path, usize::try_from(l1).unwrap(), &(target | 1 << 63).to_be_bytes());
            assert!(refusal(&forged, &writable()).contains(named));
        }
    }
    let forged = patched(&path, entry, &(1u64 << 50 | 1 << 63).to_be_bytes());
    let error = open_writable(&forged).write_at(0, &[7; 512]).unwrap_err().to_string();
    assert!(error.contains("beyond the end of the image"), "{error}");
    // Refcounts that call the header free.
    let block = usize::try_from(field(&path, usize::try_from(refcounts).unwrap())).unwrap();
    let forged = patched(&path, block, &[0, 0]);
    let error = open_writable(&forged).write_at(1 << 20, &[7; 512]).unwrap_err().to_string();
    assert!(error.contains("refcount: it is 0 for a cluster with metadata"), "{error}");
}

#[test]
fn marked_images_are_refused_for_writing_but_not_for_reading() {
    let dir = testkit::tempdir();
    let path = dir.path().join("disk.qcow2");
    create(&path, "cluster_size=64k", "1M");
    for (bits, named) in [(1, "marked dirty"), (2, "marked corrupt")] {
        let marked = patched(&path, 79, &[bits]);
        let said = refusal(&marked, &writable());
        assert!(said.contains(named) && said.contains("qemu-img check -r all"), "{said}");
        assert_eq!(read_all(&image::open(text(&marked), &options()).unwrap().device), vec![0; MIB]);
    }
}

#[test] // Features that we do not keep up are taken back before the first write, and not by opening.
fn autoclear_features_and_bitmaps() {
    let dir = testkit::tempdir();
    let path = dir.path().join("disk.qcow2");
    create(&path, "cluster_size=64k", "1M");
    qemu_img(["bitmap", "--add", text(&path), "followed"]);
    qemu_img(["bitmap", "--add", "--disable", text(&path), "fixed"]);
    let unknown = patched(&path, 88, &[0x40]);
    let before = std::fs::read(&unknown).unwrap();
    let image = image::open(text(&unknown), &writable()).unwrap();
    assert!(image.warnings.iter().any(|warning| warning.contains("\"followed\"")), "{:?}", image.warnings);
    let mut buf = [0; 512];
    image.device.read_at(0, &mut buf).unwrap();
    drop(image);
    assert_eq!(std::fs::read(&unknown).unwrap(), before, "an image that was only opened");

    open_writable(&unknown).write_at(0, &[1; 512]).unwrap();
    assert_eq!(field(&unknown, 88), 1, "the bitmaps are kept");
    assert_clean(&unknown, "with bitmaps");
    let info = image::info(text(&unknown), &options()).unwrap();
    let said = serde_json::to_value(&info.chain[0]).unwrap();
    assert_eq!(
        said["format-specific"]["data"]["bitmaps"],
        serde_json::json!([
            { "name": "followed", "granularity": 65536, "flags": ["in-use", "auto"] },
            { "name": "fixed", "granularity": 65536, "flags": [] },
        ])
    );
}
