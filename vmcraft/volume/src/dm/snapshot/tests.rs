use std::io::ErrorKind;
use std::sync::Arc;

use proptest::prelude::*;
use vmcraft_block::{BlockDevice, MapExtents, MemoryDevice};

use super::*;

const CHUNK: u64 = 4096;

fn memory(bytes: Vec<u8>) -> Arc<dyn BlockDevice> {
    Arc::new(MemoryDevice::new(bytes))
}

fn cow(name: &str, device: Arc<dyn BlockDevice>, size_bytes: u64, chunk_bytes: u64) -> Cow {
    Cow {
        name: name.into(),
        store: Ok(Member { name: format!("{name}-cow"), device }),
        size_bytes,
        chunk_bytes,
    }
}

fn content(device: &dyn BlockDevice) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(device.size()).unwrap()];
    device.read_at(0, &mut bytes).unwrap();
    bytes
}

fn header(valid: u32, version: u32, chunk_sectors: u32, exceptions: &[(u64, u64)], len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes[..4].copy_from_slice(b"SnAp");
    bytes[4..8].copy_from_slice(&valid.to_le_bytes());
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    bytes[12..16].copy_from_slice(&chunk_sectors.to_le_bytes());
    for (n, (old, new)) in exceptions.iter().enumerate() {
        bytes[4096 + 16 * n..][..8].copy_from_slice(&old.to_le_bytes());
        bytes[4096 + 16 * n + 8..][..8].copy_from_slice(&new.to_le_bytes());
    }
    bytes
}

/// What is wrong with a store of these bytes, over an origin of 16 chunks.
fn broken(bytes: Vec<u8>) -> String {
    let origin = memory(vec![1; 16 * 4096]);
    let family = Family::open(origin, vec![cow("s", memory(bytes), 16 * CHUNK, CHUNK)]).unwrap();
    assert!(family.origin().is_read_only());
    let refused = family.origin().write_at(0, &[0]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnlyFilesystem);
    assert!(family.snapshot("s").is_err());
    match family.state("s").unwrap() {
        State::Broken(why) => why,
        state => panic!("{state:?}"),
    }
}

#[test] // Whatever is in the store of one snapshot, the origin can be read.
fn stores_that_cannot_be_understood_are_named() {
    let mut foreign = header(1, 1, 8, &[], 65536);
    foreign[0] = b'X';
    assert!(broken(foreign).contains("magic"));
    assert!(broken(header(1, 2, 8, &[], 65536)).contains("version 2"));
    assert!(broken(header(1, 1, 7, &[], 65536)).contains("chunk size"));
    assert!(broken(header(1, 1, 0, &[], 65536)).contains("chunk size"));
    assert!(broken(header(1, 1, 1 << 31, &[], 65536)).contains("limit"));
    assert!(broken(header(1, 1, 8, &[(16, 2)], 65536)).contains("chunk of the origin"));
    assert!(broken(header(1, 1, 8, &[(0, 16)], 65536)).contains("chunk of the COW device"));
    assert!(broken(header(1, 1, 8, &[(0, 1)], 65536)).contains("chunk of the COW device"));
    assert!(broken(header(1, 1, 8, &[(0, u64::MAX)], 65536)).contains("chunk of the COW device"));
    assert!(broken(header(1, 1, 8, &[(3, 2), (3, 3)], 65536)).contains("two copies"));
    assert!(broken(header(1, 1, 8, &[(3, 2), (4, 3), (4, 5)], 65536)).contains("two copies"));
    assert!(broken(vec![0; 100]).contains("only 100 bytes"));
}

#[test] // Sizes at which counting in chunks would overflow.
fn huge_snapshots_are_refused() {
    let store = memory(header(1, 1, 8, &[], 65536));
    let family = Family::open(memory(vec![1; 65536]), vec![cow("s", store, u64::MAX, CHUNK)]).unwrap();
    assert!(matches!(family.state("s"), Some(State::Broken(why)) if why.contains("the limit is")));
}

#[test] // A snapshot that Linux gave up stays lost, and does not keep the origin from being written.
fn an_invalid_snapshot_is_named() {
    let store = memory(header(0, 1, 8, &[], 65536));
    let family = Family::open(memory(vec![1; 65536]), vec![cow("old", store, 65536, CHUNK)]).unwrap();
    assert_eq!(family.state("old"), Some(State::Invalid));
    let error = family.snapshot("old").map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("snapshot old is invalid"), "{error}");
    family.origin().write_at(5, &[2]).unwrap();
    assert!(family.snapshot("other").is_err());
}

#[test] // Where there is no room to keep the old content, the snapshot goes and the write succeeds.
fn a_write_to_the_origin_invalidates_a_full_snapshot() {
    // Header, one area and two chunks.
    let store = memory(vec![0; 4 * 4096]);
    let origin = memory(vec![7; 65536]);
    let open = || Family::open(origin.clone(), vec![cow("s", store.clone(), 65536, CHUNK)]).unwrap();
    let family = open();
    let snapshot = family.snapshot("s").unwrap();
    family.origin().write_at(0, &[1; 4096]).unwrap();
    assert_eq!(snapshot.write_at(4096, &[3; 3 * 4096]).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(content(&*snapshot), vec![7; 65536]);
    assert!(family.take_lost().is_empty());
    family.origin().write_at(8192, &[2; 3 * 4096]).unwrap();
    assert_eq!(family.state("s"), Some(State::Invalid));
    assert_eq!((family.take_lost(), family.take_lost()), (vec!["s".into()], vec![]));
    assert!(snapshot.read_at(0, &mut [0]).unwrap_err().to_string().contains("invalid"));
    assert_eq!(open().state("s"), Some(State::Invalid), "it is in the header, too");
    assert_eq!(content(&*origin)[8192..20480], [2; 12288]);
}

#[test] // The next area is wiped before the last entry of one leads to it.
fn a_store_goes_on_in_the_next_area() {
    // Chunks of 512 bytes: 32 exceptions an area; old bytes lie where the second area will be.
    let store = memory([vec![0; 1024], vec![0xee; 63 * 1024]].concat());
    let origin = memory((0..65536_u32).map(|n| n.to_le_bytes()[1]).collect());
    let before = content(&*origin);
    let open = || Family::open(origin.clone(), vec![cow("s", store.clone(), 65536, 512)]).unwrap();
    open().origin().write_at(100, &[9; 512 * 31]).unwrap();
    assert_eq!(content(&*open().snapshot("s").unwrap()), before);
    open().origin().write_at(40_000, &[9; 5000]).unwrap();
    let family = open();
    assert_eq!(content(&*family.snapshot("s").unwrap()), before);
    // Header, two areas, 32 + 10 chunks.
    assert_eq!(
        family.state("s"),
        Some(State::Valid { used_bytes: 512 * (1 + 2 + 42), metadata_bytes: 512 * 3, total_bytes: 65536 })
    );
}

#[test] // An origin that grew after the snapshot was made has nothing to keep there.
fn what_lies_beyond_the_snapshot_is_not_copied() {
    let store = memory(vec![0; 65536]);
    let origin = memory(vec![7; 65536]);
    let family = Family::open(origin, vec![cow("s", store, 10_000, CHUNK)]).unwrap();
    family.origin().write_at(9_000, &[1; 50_000]).unwrap();
    let snapshot = family.snapshot("s").unwrap();
    assert_eq!(content(&*snapshot), vec![7; 10_000]);
    assert_eq!(
        family.state("s"),
        Some(State::Valid { used_bytes: 3 * 4096, metadata_bytes: 2 * 4096, total_bytes: 65536 })
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test] // Two snapshots of different chunk sizes and their origin against three vectors.
    fn random_writes_keep_all_three_apart(
        writes in prop::collection::vec((0..3_usize, 0..131_072_u64, 1..9000_usize, any::<u8>(), any::<bool>()), 1..40)
    ) {
        let size = 131_072;
        let origin = memory((0..size).map(|n: u32| n.to_le_bytes()[1]).collect());
        let stores = [memory(vec![0; 400 * 1024]), memory(vec![0; 400 * 1024])];
        let open = || Family::open(origin.clone(), vec![
            cow("a", stores[0].clone(), size.into(), 512),
            cow("b", stores[1].clone(), size.into(), 16384),
        ]).unwrap();
        let mut family = open();
        let mut model = vec![content(&*origin); 3];
        for (which, offset, len, value, reopen) in writes {
            let len = len.min(usize::try_from(u64::from(size) - offset).unwrap());
            let device = match which {
                0 => family.origin(),
                1 => family.snapshot("a").unwrap(),
                _ => family.snapshot("b").unwrap(),
            };
            device.write_at(offset, &vec![value; len]).unwrap();
            let start = usize::try_from(offset).unwrap();
            model[which][start..start + len].fill(value);
            if reopen {
                family = open();
            }
        }
        prop_assert!(content(&*family.origin()) == model[0]);
        for (name, expected) in [("a", &model[1]), ("b", &model[2])] {
            let snapshot = family.snapshot(name).unwrap();
            prop_assert!(content(&*snapshot) == *expected);
            let map: &dyn MapExtents = snapshot.extents().unwrap();
            let mut at = 0;
            while at < snapshot.size() {
                at += map.extent_at(at).unwrap().len;
            }
            prop_assert_eq!(at, snapshot.size());
        }
    }
}
