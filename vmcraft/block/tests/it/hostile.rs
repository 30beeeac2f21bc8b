//! Forged and damaged images: an error or some content, but no panic, no hang, no memory without bound.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use vmcraft_block::BlockDevice;
use vmcraft_block::image::{self, OpenOptions};
use vmcraft_block::qcow2::{Header, Parts, Qcow2};

use crate::recorder::Recorder;
use crate::support::{Noise, mixed_disk, options, qemu_io, text, write_file};

/// The most that the process may take, whatever the image says.
const MAX_MEMORY: u64 = 256 << 20;

/// Does with an image what can be done with one; all of it may fail.
fn try_everything(path: &Path) {
    let _ = image::info(text(path), &options());
    if let Ok(image) = image::open(text(path), &options()) {
        look_around(&*image.device);
    }
    let snapshot = OpenOptions { snapshot: Some("1".into()), ..options() };
    if let Ok(image) = image::open(text(path), &snapshot) {
        look_around(&*image.device);
    }
}

/// Writes to an image, as far as that works.
fn try_to_write(device: &dyn BlockDevice) {
    let size = device.size();
    for at in [0, 5000, 1 << 20, (2 << 20) - 512, size.saturating_sub(4096)] {
        let _ = device.write_at(at, &[7; 4096]);
        if let Some(discard) = device.discard() {
            let _ = discard.write_zeroes(at, 10_000);
            let _ = discard.discard(at, 40_000);
        }
    }
    let _ = device.write_at(100_000, &vec![8; 200_000]);
    let _ = device.flush();
}

/// The same with an image in memory, for which there is no waiting.
fn try_everything_with(path: &Path, bytes: Vec<u8>) {
    std::fs::write(path, &bytes).unwrap();
    try_everything(path);
    let storage = Arc::new(Recorder::new(bytes));
    if let Ok(header) = Header::read("damaged", &storage)
        && let Ok(device) = Qcow2::open("damaged", storage, header, Parts::default())
    {
        try_to_write(&device);
    }
}

fn look_around(device: &dyn BlockDevice) {
    let size = device.size();
    let mut buf = vec![0; 100_000];
    for at in (0..2 << 20).step_by(buf.len()).chain([size / 2, size.saturating_sub(100_000)]) {
        let _ = device.read_at(at, &mut buf);
    }
    if let Some(map) = device.extents() {
        let mut at = 0;
        for _ in 0..1000 {
            match map.extent_at(at) {
                Ok(extent) => {
                    assert!(extent.offset == at && extent.len > 0 && at + extent.len <= size);
                    at += extent.len;
                }
                Err(_) => break,
            }
        }
    }
}

/// Images with all kinds of metadata, small ones.
fn seeds(dir: &Path) -> Vec<Vec<u8>> {
    let raw = write_file(dir, "seed.raw", &mixed_disk(1, 1 << 18));
    let path = dir.join("seed.qcow2");
    let mut seeds = Vec::new();
    for arguments in [
        &["-o", "cluster_size=4k"][..],
        &["-o", "cluster_size=512,compat=0.10"],
        &["-o", "extended_l2=on,cluster_size=16k"],
        &["-c", "-o", "cluster_size=16k"],
        &["-c", "-o", "cluster_size=16k,compression_type=zstd"],
    ] {
        let mut all = vec!["convert", "-f", "raw", "-O", "qcow2"];
        all.extend(arguments);
        testkit::run_ok("qemu-img", all.into_iter().chain([text(&raw), text(&path)]));
        testkit::run_ok("qemu-img", ["snapshot", "-c", "kept", text(&path)]);
        qemu_io(&path, &["write -P 3 50k 50k", "discard 128k 64k"]);
        if !arguments.contains(&"cluster_size=512,compat=0.10") {
            testkit::run_ok("qemu-img", ["bitmap", "--add", text(&path), "bits"]);
        }
        seeds.push(std::fs::read(&path).unwrap());
    }
    seeds
}

fn be64(bytes: &[u8], at: usize) -> usize {
    usize::try_from(u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap()
}

/// Where an image's metadata is: header, tables, the first L2 table and refcount block.
fn metadata(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mask = 0x00ff_ffff_ffff_fe00;
    let cluster = 1 << bytes[23];
    let (l1, refcounts) = (be64(bytes, 40), be64(bytes, 48));
    let snapshots = be64(bytes, 64);
    let starts = [l1, refcounts, snapshots, be64(bytes, l1) & mask, be64(bytes, refcounts)];
    let mut ranges = vec![0..112, 112..cluster];
    ranges.extend(starts.iter().map(|start| *start..(*start + cluster.min(256)).min(bytes.len())));
    ranges
}

#[test]
#[ignore = "run by the test below, in a process of its own"]
fn in_a_process_of_its_own() {
    let dir = testkit::tempdir();
    let path = dir.path().join("damaged.qcow2");
    let interesting = [0u8, 1, 2, 0x7f, 0x80, 0xff];
    for (number, seed) in seeds(dir.path()).into_iter().enumerate() {
        let mut noise = Noise::new(number as u64);
        let ranges = metadata(&seed);
        // Every byte of the header's fields at its extremes.
        for at in 4..112 {
            for value in [0, 1, 0xff] {
                let mut bytes = seed.clone();
                bytes[at] = value;
                try_everything_with(&path, bytes);
            }
        }
        for _ in 0..300 {
            let mut bytes = seed.clone();
            for _ in 0..noise.below(6) + 1 {
                let range = &ranges[usize::try_from(noise.below(ranges.len() as u64)).unwrap()];
                let at = range.start + usize::try_from(noise.below(range.len() as u64)).unwrap();
                match noise.below(3) {
                    0 => bytes[at] ^= 1 << noise.below(8),
                    1 => bytes[at] = interesting[usize::try_from(noise.below(6)).unwrap()],
                    _ => bytes[at] = noise.next().to_le_bytes()[0],
                }
            }
            try_everything_with(&path, bytes);
        }
        for _ in 0..60 {
            let len = usize::try_from(noise.below(seed.len() as u64)).unwrap();
            try_everything_with(&path, seed[..len].to_vec());
        }
    }
    for build in [large_l1, many_refcount_blocks, large_snapshot_table, large_compressed_clusters] {
        let file = std::fs::File::create(&path).unwrap();
        build(&file);
        try_everything(&path);
        if let Ok(image) = image::open(text(&path), &OpenOptions { read_only: false, ..options() }) {
            try_to_write(&*image.device);
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak of memory");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    println!("peak of memory: {peak} KiB");
    assert!(peak * 1024 < MAX_MEMORY, "{peak} KiB");
}

/// A header of version 3 with these fields: by offset, as 4 or 8 bytes.
fn write_header(file: &std::fs::File, words: &[(u64, u32)], longs: &[(u64, u64)]) {
    file.write_all_at(b"QFI\xfb\0\0\0\x03", 0).unwrap();
    for (at, word) in [(100, 112), (96, 4)].iter().chain(words) {
        file.write_all_at(&u32::to_be_bytes(*word), *at).unwrap();
    }
    for (at, long) in longs {
        file.write_all_at(&long.to_be_bytes(), *at).unwrap();
    }
}

/// An L1 table of the largest size, all of its entries to different places.
fn large_l1(file: &std::fs::File) {
    let (l1, entries) = (1u64 << 20, 4u64 << 20);
    let size = entries << 15;
    write_header(file, &[(20, 9), (36, 4 << 20), (56, 1)], &[(24, size), (40, l1), (48, 512)]);
    for block in 0..64 {
        let first = block * (entries / 64);
        let bytes: Vec<u8> = (first..first + entries / 64)
            .flat_map(|index| (((64 << 20) + index * 512) | (1 << 63)).to_be_bytes())
            .collect();
        file.write_all_at(&bytes, l1 + first * 8).unwrap();
    }
    file.set_len(4 << 30).unwrap();
}

/// A refcount table of the largest size, full.
fn many_refcount_blocks(file: &std::fs::File) {
    let longs = [(24, 1 << 20), (40, 16 << 20), (48, 4 << 20)];
    write_header(file, &[(20, 9), (36, 64), (56, 16384)], &longs);
    let bytes: Vec<u8> = (0..1u64 << 20).flat_map(|index| ((32 << 20) + index * 512).to_be_bytes()).collect();
    file.write_all_at(&bytes, 4 << 20).unwrap();
    file.set_len(1 << 30).unwrap();
}

/// A snapshot table of snapshots with the longest names.
fn large_snapshot_table(file: &std::fs::File) {
    let longs = [(24, 1 << 20), (40, 65536), (48, 131_072), (64, 1 << 20)];
    write_header(file, &[(20, 16), (36, 1), (56, 1), (60, 65536)], &longs);
    let entry = [&[0; 12][..], &[0xff; 4], &[0; 24], &vec![0xff; 131_070]].concat();
    for index in 0..1000 {
        file.write_all_at(&entry, (1 << 20) + index * entry.len().next_multiple_of(8) as u64).unwrap();
    }
}

/// Every cluster of 2 MiB is compressed, from the same bytes.
fn large_compressed_clusters(file: &std::fs::File) {
    let longs = [(24, 1 << 30), (40, 2 << 20), (48, 4 << 20)];
    write_header(file, &[(20, 21), (36, 1), (56, 1)], &longs);
    file.write_all_at(&(6u64 << 20 | 1 << 63).to_be_bytes(), 2 << 20).unwrap();
    let bytes: Vec<u8> =
        (0..512u64).flat_map(|index| (1 << 62 | 0xfff << 49 | ((8 << 20) + index)).to_be_bytes()).collect();
    file.write_all_at(&bytes, 6 << 20).unwrap();
    file.write_all_at(&vec![0xaa; 8 << 20], 8 << 20).unwrap();
}

#[test] // In a process of its own, as the memory of others does not count.
fn damaged_images_neither_panic_nor_take_memory() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "hostile::in_a_process_of_its_own", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("peak of memory"), "{output:?}");
}
