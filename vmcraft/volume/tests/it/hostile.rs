//! Damaged and forged disks: an answer or an error, never a panic, and soon.

use std::fs::{self, File};
use std::path::Path;

use proptest::prelude::*;
use testkit::{run_ok, tempdir};
use vmcraft_block::MemoryDevice;
use vmcraft_volume::partition::PartitionTable;
use vmcraft_volume::signature;

/// Reads all that can be read; what counts is that it comes back.
fn look_at(bytes: Vec<u8>) -> Vec<u8> {
    let device = MemoryDevice::read_only(bytes);
    if let Ok(Some(table)) = PartitionTable::read(&device) {
        assert!(table.partitions.len() <= 8192);
        assert!(table.warnings.len() <= 64);
        assert!(table.partitions.iter().all(|p| p.len_bytes > 0 && p.end_bytes() > p.start_bytes));
    }
    // A signature that is found has a type; everything else is free.
    if let Ok(Some(signature)) = signature::probe(&device) {
        assert!(!signature.kind.is_empty());
    }
    device.into_bytes()
}

fn image(dir: &Path, mib: u64, program: &str, arguments: &[&str]) -> Vec<u8> {
    let image = dir.join("image");
    File::create(&image).and_then(|file| file.set_len(mib << 20)).expect("space for a sparse file");
    run_ok(program, arguments.iter().map(|a| (*a).into()).chain([image.clone().into_os_string()]));
    fs::read(&image).expect("the image is there")
}

/// Where the bytes are that say something: those that are not zero, and some behind them.
fn interesting(bytes: &[u8]) -> Vec<usize> {
    let mut places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    places.extend(0..4096.min(bytes.len()));
    places.sort_unstable();
    places.dedup();
    places
}

#[test] // Single flipped bits, all over what the tools wrote.
fn flipped_bits_are_survived() {
    let dir = tempdir();
    let recipes: &[(u64, &str, &[&str])] = &[
        (2, "sgdisk", &["-a", "1", "-n", "1:64:+256K", "-n", "2:0:0", "-c", "2:name", "-h", "1"]),
        (2, "mke2fs", &["-q", "-F", "-t", "ext4", "-L", "label"]),
        (2, "mkfs.vfat", &["-F", "12", "-n", "LABEL"]),
        (8, "mkfs.vfat", &["-F", "32", "-s", "1", "-n", "LABEL"]),
        (2, "mkntfs", &["-q", "-Q", "-F", "-L", "label"]),
        (8, "mkfs.exfat", &["-b", "64K", "-L", "label"]),
        (2, "mkswap", &["-L", "label"]),
        (2, "mkudffs", &["-l", "label"]),
        (2, "mkfs.minix", &["-3"]),
    ];
    for (mib, program, arguments) in recipes {
        let mut bytes = image(dir.path(), *mib, program, arguments);
        let places = interesting(&bytes);
        // A prime step spreads some hundred flips over all of it.
        for (index, at) in places.iter().step_by((places.len() / 400).max(1)).enumerate() {
            bytes[*at] ^= 1 << (index % 8);
            bytes = look_at(bytes);
            bytes[*at] ^= 1 << (index % 8);
        }
    }
}

#[test] // An image that was cut off anywhere.
fn truncated_images_are_survived() {
    let dir = tempdir();
    let disk = image(dir.path(), 2, "sgdisk", &["-a", "1", "-n", "1:64:+256K", "-n", "2:0:0"]);
    let volume = image(dir.path(), 2, "mke2fs", &["-q", "-F", "-t", "ext4"]);
    for len in (0..2048).chain((2048..2 << 20).step_by(37_123)) {
        look_at(disk[..len].to_vec());
        look_at(volume[..len].to_vec());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test] // A partition table of noise, with the signature that makes it one.
    fn random_mbrs_are_survived(entries in proptest::collection::vec(any::<u8>(), 64), protective in any::<bool>()) {
        let mut disk = vec![0; 256 << 10];
        disk[0x1be..0x1fe].copy_from_slice(&entries);
        for entry in 0..4 {
            disk[0x1be + entry * 16] &= 0x80;
        }
        if protective {
            disk[0x1be + 4] = 0xee;
            disk[512..520].copy_from_slice(b"EFI PART");
        }
        disk[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        look_at(disk);
    }

    #[test] // Noise behind the magic of every format.
    fn noise_behind_a_magic_is_survived(
        noise in proptest::collection::vec(any::<u8>(), 4096),
        (place, magic) in proptest::sample::select(MAGICS.to_vec()),
    ) {
        let mut device = vec![0; 1600 << 10];
        for chunk in device[..160 << 10].chunks_exact_mut(4096) {
            chunk.copy_from_slice(&noise);
        }
        device[place..place + magic.len()].copy_from_slice(magic);
        look_at(device);
    }
}

/// Where formats have their magic, so that the noise gets past the first check.
const MAGICS: &[(usize, &[u8])] = &[
    (0, b"XFSB"),
    (0, b"LUKS\xba\xbe\0\x02"),
    (0, b"hsqs"),
    (0, b"\xeb\x58\x90-FVE-FS-"),
    (0, b"\xeb\x52\x90NTFS    "),
    (0, b"\xeb\x76\x90EXFAT   "),
    (0, b"\xfc\x4e\x2b\xa9\x01\0\0\0"),
    (32, b"NXSB"),
    (88, b"CS"),
    (512, b"LABELONE"),
    (516, b"!Stra0tis\x86\xff\x02^\x41rh"),
    (1024, b"H+"),
    (1024, b"BD"),
    (1024, b"\x10\x20\xf5\xf2\x01\0\x02\0"),
    (1024, b"\xe2\xe1\xf5\xe0"),
    (1030, b"\x34\x34"),
    (1040, b"\x7f\x13"),
    (1080, b"\x53\xef"),
    (4086, b"SWAPSPACE2"),
    (4120, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"),
    (8192 + 0x34, b"ReIsErFs"),
    (8192 + 0x55c, b"\x19\x01\x54\x19"),
    (32768, b"\x01CD001"),
    (32768, b"\0BEA01"),
    (65536, b"\x01\x16\x19\x70"),
    (65600, b"_BHRfS_M"),
];
