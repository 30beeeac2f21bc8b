//! Metadata of thin pools that is damaged or forged: an answer or an error, never a panic, and soon.

use std::io::ErrorKind;
use std::sync::Arc;

use proptest::prelude::*;
use testkit::device::Sparse;
use testkit::{seal, tempdir, volumes};
use vmcraft_block::BlockDevice;
use vmcraft_volume::dm::thin::{Options, Pool};
use vmcraft_volume::{Error, Member, lvm};

use super::{content, memory, unpack};

const BLOCK: usize = 4096;

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The metadata of the pool that Linux made, with blocks changed, and their checksums made to fit.
fn forged(good: &[u8], change: impl FnOnce(&mut [u8])) -> Arc<dyn BlockDevice> {
    let mut bytes = good.to_vec();
    change(&mut bytes);
    for (block, old) in bytes.chunks_exact_mut(BLOCK).zip(good.chunks_exact(BLOCK)) {
        if block != old
            && let Some(kind) = seal::thin_kind(old)
        {
            seal::dm(block, seal::THIN[kind]);
        }
    }
    memory(bytes)
}

fn metadata() -> Vec<u8> {
    unpack("dm-thin", "metadata.img", tempdir().path())
}

fn open(metadata: Arc<dyn BlockDevice>) -> Result<Arc<Pool>, Error> {
    Pool::open("vg/pool", metadata, Arc::new(Sparse::new(64 << 20)), Options::default())
}

fn message<T>(result: Result<T, Error>) -> String {
    result.map(|_| ()).expect_err("this is refused").to_string()
}

/// The root of a volume's tree: a value in the only leaf of the upper tree.
fn tree(bytes: &[u8], id: u64) -> usize {
    let top = usize::try_from(le64(bytes, 0x140)).unwrap() * BLOCK;
    let index = (0..252).find(|index| le64(bytes, top + 32 + 8 * index) == id).expect("the volume");
    usize::try_from(le64(bytes, top + 32 + 8 * (252 + index))).unwrap()
}

/// Where the value of the first entry of a node is.
fn first_value(node: usize) -> usize {
    node * BLOCK + 32 + 8 * 252
}

#[test]
fn superblocks_that_make_no_sense_are_named() {
    let good = metadata();
    let why = |change: &dyn Fn(&mut [u8])| message(open(forged(&good, change)));
    let mut flipped = good.clone();
    flipped[1000] ^= 1;
    assert!(
        message(open(memory(flipped)))
            .contains("superblock of the thin pool's metadata (checksum) at byte 0x0")
    );
    assert!(message(open(memory(vec![0; 100]))).contains("beyond the end"));
    assert!(why(&|b| b[8] = 1).contains("its own block number"));
    assert!(why(&|b| b[32] ^= 1).contains("magic number"));
    assert!(why(&|b| b[40] = 3).contains("version 3"));
    assert!(why(&|b| b[360] = 1).contains("incompatible features 0x1"));
    assert!(why(&|b| b[340] = 16).contains("size of metadata blocks"));
    assert!(why(&|b| b[336] = 1).contains("size of data blocks"));
    assert!(why(&|b| b[336..340].fill(0)).contains("size of data blocks"));
    assert!(why(&|b| b[64..72].fill(0xff)).contains("its data device has only"));
    assert!(why(&|b| b[192 + 4] = 1).contains("metadata space map (size)"));
    assert!(why(&|b| b[72 + 4] = 1).contains("data space map (size)"));
}

#[test] // A pool that Linux marked can be read, and is not written before somebody checked it.
fn needs_check_allows_only_reading() {
    let good = metadata();
    for at in [4, 356] {
        let pool = open(forged(&good, |b| b[at] |= 1)).unwrap();
        assert!(pool.read_only_reason().is_some());
        let volume = pool.volume(0, 8 << 20, None).unwrap();
        assert!(volume.is_read_only());
        let error = volume.write_at(0, &[1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
        assert_eq!(volume.discard().unwrap().discard(0, 1 << 20).unwrap_err().kind(), error.kind());
        content(&*volume);
    }
}

#[test] // Cycles, levels without end, keys and blocks that cannot be.
fn forged_trees_are_errors() {
    let good = metadata();
    let node = tree(&good, 7);
    let read = |change: &dyn Fn(&mut [u8])| {
        let volume = open(forged(&good, change)).unwrap().volume(7, 65636 * 512, None).unwrap();
        let mut bytes = vec![0; 32 << 20];
        let error = volume.read_at(0, &mut bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        error.to_string()
    };
    let set = |b: &mut [u8], at: usize, value: u64| b[at..at + 8].copy_from_slice(&value.to_le_bytes());
    let child = usize::try_from(le64(&good, first_value(node))).unwrap();
    assert_eq!(good[node * BLOCK + 4], 1, "the root of volume 7 is an internal node");
    let own = node as u64;
    let alone = |b: &mut [u8]| {
        b[node * BLOCK + 16] = 1;
        set(b, first_value(node), own);
    };
    assert!(read(&alone).contains("deeper than"));
    assert!(read(&|b| set(b, first_value(node), own)).contains("outside of what its parent says"));
    assert!(read(&|b| set(b, first_value(node) + 8, own)).contains("outside of what its parent says"));
    assert!(
        read(&|b| set(b, first_value(node) + 8, child as u64)).contains("outside of what its parent says")
    );
    assert!(read(&|b| set(b, first_value(node), 0)).contains("B-tree node (it is a superblock"));
    assert!(read(&|b| set(b, first_value(node), 1 << 50)).contains("beyond the end of the metadata"));
    assert!(read(&|b| set(b, child * BLOCK + 32, 1 << 60)).contains("keys out of order"));
    assert!(read(&|b| b[child * BLOCK + 4] = 3).contains("flags"));
    assert!(read(&|b| b[child * BLOCK + 17] = 9).contains("number of entries"));
    assert!(read(&|b| b[child * BLOCK + 24] = 4).contains("size of values"));
    assert!(read(&|b| b[node * BLOCK + 16] = 0).contains("children"));
    assert!(read(&|b| set(b, first_value(child), 5000 << 24)).contains("to data block 5000 of 1024"));
    // A key far away: nothing is mapped there, and nobody walks the way to it.
    let far = open(memory(good.clone())).unwrap();
    let volume = far.volume(7, 1 << 62, None).unwrap();
    volume.read_at((1 << 62) - 4096, &mut [0; 4096]).unwrap();
    assert!(volume.extents().unwrap().extent_at(1 << 61).unwrap().is_hole);
    volume.write_at((1 << 62) - 1, &[1]).unwrap();
    assert!(volume.write_at((1 << 62) - 1, &[1; 2]).is_err());
    assert!(message(far.volume(7, (1 << 62) + 512, None)).contains("the limit is"));
}

#[test] // A space map that calls blocks free which are in use must not get them overwritten.
fn counts_that_contradict_the_trees_are_errors() {
    let good = metadata();
    // The bitmap of the metadata's own space map: the first of the index.
    let index = usize::try_from(le64(&good, 192 + 16)).unwrap() * BLOCK;
    let bitmap = usize::try_from(le64(&good, index + 16)).unwrap() * BLOCK;
    let pool = open(forged(&good, |b| b[bitmap + 16..bitmap + BLOCK].fill(0))).unwrap();
    let error = pool.volume(0, 8 << 20, None).unwrap().write_at(0, &[1]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
}

#[test]
fn a_transaction_that_lvm_does_not_expect_is_named() {
    let case = volumes::case("lvm-thin");
    let mut disks: Vec<_> = case.disks.iter().map(|disk| std::fs::read(disk).unwrap()).collect();
    let mut changed = 0;
    for block in disks.iter_mut().flat_map(|disk| disk.chunks_exact_mut(BLOCK)) {
        if le64(block, 32) == 27_022_010 && seal::thin_kind(block) == Some(0) {
            block[48] ^= 0x40;
            seal::dm(block, seal::THIN[0]);
            changed += 1;
        }
    }
    assert_eq!(changed, 1);
    let member = |bytes| Member { name: "disk".into(), device: memory(bytes) };
    let found = lvm::scan(&disks.into_iter().map(member).collect::<Vec<_>>());
    let error = message(found.group("vg").unwrap().open("thin"));
    assert!(error.contains("thin pool vg/pool: its metadata is of transaction"), "{error}");
}

/// Replaces a text in the metadata of LVM by another one as long, with checksums that fit.
fn change_lvm_text(disk: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    // Where `pvcreate` puts the area, and where that has its text.
    let area = &mut disk[4096..];
    let place = |at: usize| usize::try_from(le64(area, at)).unwrap();
    let mut text = area[place(40)..place(40) + place(48)].to_vec();
    let at = text.windows(from.len()).position(|part| part == from.as_bytes()).expect("the text is there");
    text[at..at + from.len()].copy_from_slice(to.as_bytes());
    seal::lvm_text(area, &text);
}

#[test] // It would wait for itself when a block is copied from the origin.
fn external_origin_in_the_same_pool_is_refused() {
    let case = volumes::case("lvm-thin");
    let mut disks: Vec<_> = case.disks.iter().map(|disk| std::fs::read(disk).unwrap()).collect();
    for disk in &mut disks {
        change_lvm_text(disk, "external_origin = \"origin\"", "external_origin = \"sparse\"");
    }
    let member = |(n, bytes)| Member { name: format!("disk {n}"), device: memory(bytes) };
    let found = lvm::scan(&disks.into_iter().enumerate().map(member).collect::<Vec<_>>());
    let group = found.group("vg").unwrap();
    let error = message(group.open("external"));
    assert!(error.contains("the external origin sparse of a volume of the thin pool vg/pool"), "{error}");
    assert!(group.open("thin").is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test] // Bytes changed anywhere in what is used, with checksums that fit.
    fn anything_is_survived(changes in prop::collection::vec((0..19_usize, 0..4096_usize, any::<u8>()), 1..6)) {
        let good = metadata();
        // The blocks that are in use are those with a checksum.
        let used: Vec<_> = good
            .chunks_exact(BLOCK)
            .enumerate()
            .filter(|(_, block)| seal::thin_kind(block).is_some())
            .map(|(number, _)| number)
            .collect();
        let forged = forged(&good, |bytes| {
            for (block, at, value) in changes {
                // Most of a block is zeros: half of the changes go to its beginning.
                let at = if value % 2 == 0 { at % 128 } else { at };
                bytes[used[block % used.len()] * BLOCK + at] = value;
            }
        });
        let Ok(pool) = open(forged) else { return Ok(()) };
        let _ = pool.volumes();
        for id in [0, 1, 3, 7, 8, 9] {
            let Ok(volume) = pool.volume(id, 8_388_608, None) else { continue };
            let _ = volume.read_at(0, &mut vec![0; 8_388_608]);
            let map = volume.extents().unwrap();
            let mut at = 0;
            while let Ok(extent) = map.extent_at(at) {
                prop_assert!(extent.len > 0);
                at += extent.len;
            }
            for place in [0, 3_000_000, 8_388_000] {
                let _ = volume.write_at(place, &[1; 600]);
            }
            let discard = volume.discard().unwrap();
            let _ = discard.discard(0, 4_000_000);
            let _ = discard.write_zeroes(100, 8_000_000);
        }
        for id in [7, 0, 8] {
            let _ = pool.remove_volumes(&[id], 6);
            let _ = pool.volume(1, 8_388_608, None).map(|volume| volume.write_at(5_000_000, &[2; 600]));
        }
    }
}
