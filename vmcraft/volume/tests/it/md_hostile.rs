//! Members that contradict each other or themselves: each is named, and nothing panics.

use std::sync::Arc;

use proptest::prelude::*;
use testkit::seal;
use vmcraft_block::MemoryDevice;
use vmcraft_volume::Member;
use vmcraft_volume::md;

use crate::md::{content, fixture, members, only};

const SUPERBLOCK: usize = 4096;

/// Changes the superblock of version 1.2, and makes its checksum fit.
fn patch(member: &mut [u8], change: impl FnOnce(&mut [u8])) {
    let superblock = &mut member[SUPERBLOCK..2 * SUPERBLOCK];
    change(superblock);
    seal::md(superblock);
}

fn set<const N: usize>(superblock: &mut [u8], at: usize, bytes: [u8; N]) {
    superblock[at..at + N].copy_from_slice(&bytes);
}

/// What is wrong with an array whose members were all changed so.
fn problem_with(name: &str, change: impl Fn(&mut [u8])) -> String {
    let mut bytes = fixture(name).members;
    for member in &mut bytes {
        patch(member, &change);
    }
    let array = only(&members(&bytes, &[]));
    let error = array.open().err().expect("refused").to_string();
    assert!(error.contains(&array.uuid), "{error}");
    assert!(error.contains(array.problem.as_deref().expect("a problem")), "{error}");
    error
}

#[test]
fn what_is_not_supported_is_named() {
    let feature = |bit: u32| move |superblock: &mut [u8]| set(superblock, 8, bit.to_le_bytes());
    assert!(problem_with("raid5-degraded", feature(4)).contains("reshape"));
    assert!(problem_with("raid5-degraded", feature(256)).contains("clustered"));
    assert!(
        problem_with("raid5-degraded", feature(1 << 20))
            .contains("features of the metadata that are not known")
    );
    let level = |level: i32| move |superblock: &mut [u8]| set(superblock, 72, level.to_le_bytes());
    assert!(problem_with("raid5-degraded", level(-4)).contains("multipath"));
    assert!(problem_with("raid5-degraded", level(77)).contains("RAID level 77"));
    let layout = |layout: u32| move |superblock: &mut [u8]| set(superblock, 76, layout.to_le_bytes());
    assert!(problem_with("raid5-left-symmetric", layout(8)).contains("layout 0x8 of raid5"));
    assert!(problem_with("raid10-n2-3", layout(0)).contains("RAID-10 layout 0x0"));
    assert!(problem_with("raid0-zones-original", feature(0)).contains("differ in size"));
}

#[test]
fn numbers_that_cannot_be_are_named() {
    let chunk = |chunk: u32| move |superblock: &mut [u8]| set(superblock, 88, chunk.to_le_bytes());
    assert!(problem_with("raid5-left-symmetric", chunk(0)).contains("chunk size of 0"));
    let damaged = |at: usize, value: u64| {
        let mut bytes = fixture("raid1-1.2").members;
        patch(&mut bytes[1], |superblock| set(superblock, at, value.to_le_bytes()));
        let found = md::scan(&members(&bytes, &[]));
        assert_eq!(found.damaged.len(), 1);
        assert_eq!(found.damaged[0].name, "/dev/sdb");
        // The others are an array without it.
        assert_eq!(found.arrays[0].missing, [1]);
        found.damaged[0].error.to_string()
    };
    assert!(damaged(80, 1 << 40).contains("size of the members"));
    assert!(damaged(80, u64::MAX).contains("size of the members"));
    assert!(damaged(128, u64::MAX / 512).contains("the device ends at"));
    assert!(damaged(128, u64::MAX).contains("data offset"));
    assert!(damaged(136, 1 << 40).contains("the device ends at"));
    let mut bytes = fixture("raid1-1.2").members;
    bytes[0][SUPERBLOCK + 200] ^= 1;
    let found = md::scan(&members(&bytes, &[]));
    assert!(found.damaged[0].error.to_string().contains("checksum"), "{:?}", found.damaged);
}

#[test]
fn too_few_members_are_named() {
    let fixture = fixture("raid5-left-symmetric");
    let array = only(&fixture.devices(&[0, 2]));
    let error = array.open().err().expect("refused").to_string();
    assert!(error.contains("only 2 of 4 are there, without the members of place 0, 2"), "{error}");
    let array = only(&crate::md::fixture("raid0").devices(&[1]));
    assert!(array.open().err().expect("refused").to_string().contains("place 1"));
}

#[test] // A disk and its copy: neither can be preferred.
fn duplicate_members_are_named() {
    let fixture = fixture("raid1-1.2");
    let mut devices = fixture.devices(&[]);
    devices.push(Member { name: "/dev/copy".into(), device: devices[0].device.clone() });
    let error = only(&devices).open().err().expect("refused").to_string();
    assert!(error.contains("/dev/copy and /dev/sda are copies of one member"), "{error}");
    let mut bytes = fixture.members.clone();
    // Another device that says it has the same place.
    bytes.push(bytes[0].clone());
    patch(&mut bytes[3], |superblock| superblock[168] ^= 1);
    let error = only(&members(&bytes, &[])).open().err().expect("refused").to_string();
    assert!(error.contains("/dev/sda and /dev/sdd claim the same place"), "{error}");
}

#[test] // Each half was written while the other was away.
fn halves_that_diverged_are_named() {
    let fixture = fixture("raid1-1.1");
    let write_alone = |index: usize, times: usize| {
        let alone = vec![fixture.devices(&[])[index].clone()];
        for _ in 0..times {
            only(&alone)
                .open()
                .expect("open")
                .write_at(0, &[if index == 0 { 1 } else { 2 }])
                .expect("written");
        }
        alone.into_iter().next().expect("one")
    };
    // As often: nobody can tell which one is wanted.
    let error = only(&[write_alone(0, 1), write_alone(1, 1)]).open().err().expect("refused").to_string();
    assert!(
        error.contains("diverged") && error.contains("/dev/sda") && error.contains("/dev/sdb"),
        "{error}"
    );
    // One more often than the other: the newer one is taken, and the older one is said to differ.
    let array = only(&[write_alone(0, 1), write_alone(1, 2)]);
    let warning = array.warnings.iter().find(|w| w.contains("/dev/sda")).expect("a warning");
    assert!(
        warning.contains("out of date") && warning.contains("each was used without the other"),
        "{warning}"
    );
    assert_eq!(content(&*array.open().expect("open"))[0], 2);
}

#[test] // A bad block of one member is read from another; of all, it is an error that says so.
fn bad_blocks_are_not_read() {
    let mut bytes = fixture("raid1-1.1").members;
    let whole = content(&*only(&members(&bytes, &[])).open().expect("open"));
    let data = 2048u64;
    let add = |member: &mut Vec<u8>, sector: u64| {
        let superblock = &mut member[..4096];
        superblock[8] |= 8;
        let offset = i32::from_le_bytes(superblock[188..192].try_into().expect("four"));
        let log = usize::try_from(offset).expect("behind") * 512;
        seal::md(superblock);
        member[log..log + 8].copy_from_slice(&((data + sector) << 10 | 4).to_le_bytes());
        member[log + 8..log + 16].fill(0xff);
        let start = usize::try_from(data + sector).expect("small") * 512;
        member[start..start + 2048].fill(0xee);
    };
    add(&mut bytes[0], 100);
    let array = only(&members(&bytes, &[]));
    assert!(content(&*array.open().expect("open")) == whole);
    add(&mut bytes[1], 102);
    let device = only(&members(&bytes, &[])).open().expect("open");
    let mut sector = [0; 512];
    device.read_at(101 * 512, &mut sector).expect("of the second");
    device.read_at(104 * 512, &mut sector).expect("of the first");
    let error = device.read_at(102 * 512, &mut sector).expect_err("on neither");
    assert!(error.to_string().contains("bad block"), "{error}");
    assert!(device.write_at(102 * 512, &sector).is_err());
}

#[test]
fn other_metadata_is_named() {
    let mut old = fixture("raid1-0.90").members.remove(0);
    let at = (old.len() & !0xffff) - 0x1_0000;
    for word in old[at..at + 4096].chunks_exact_mut(4) {
        word.reverse();
    }
    let mut ddf = vec![0; 4 << 20];
    let end = ddf.len() - 512;
    ddf[end..end + 4].copy_from_slice(&[0xde, 0x11, 0xde, 0x11]);
    let mut intel = vec![0; 4 << 20];
    let end = intel.len() - 1024;
    intel[end..end + 24].copy_from_slice(b"Intel Raid ISM Cfg Sig. ");
    let found = md::scan(&members(&[old, ddf, intel, vec![0; 4 << 20]], &[]));
    let errors: Vec<_> = found.damaged.iter().map(|damaged| damaged.error.to_string()).collect();
    assert_eq!(errors.len(), 3, "{errors:?}");
    for (error, name) in errors.iter().zip(["big-endian", "DDF", "IMSM"]) {
        assert!(error.contains(name), "{error}");
    }
    assert!(found.arrays.is_empty());
}

#[test] // The corpus's arrays have the content that Linux saw.
fn arrays_of_the_corpus() {
    let Some(corpus) = testkit::corpus::dir() else { return };
    let dir = testkit::tempdir();
    let mut groups = std::collections::BTreeMap::<String, (Vec<Vec<u8>>, serde_json::Value)>::new();
    for row in testkit::corpus::rows(&corpus, "md/dissect") {
        let facts: serde_json::Value = serde_json::from_str(&row.facts).expect("facts are JSON");
        let bytes = std::fs::read(testkit::corpus::unpack(&corpus, &row, dir.path())).expect("unpacked");
        let name = facts["group"].as_str().expect("a group").to_owned();
        groups.entry(name).or_insert_with(|| (Vec::new(), facts["md_array"].clone())).0.push(bytes);
    }
    assert!(groups.len() >= 4, "only {} arrays", groups.len());
    for (name, (bytes, facts)) in groups {
        let array = only(&members(&bytes, &[]));
        assert_eq!(Some(array.uuid.as_str()), facts["uuid"].as_str(), "{name}");
        assert_eq!(Some(array.size), facts["array_size"].as_u64(), "{name}");
        let content = content(&*array.open().expect("open"));
        assert_eq!(Some(crate::md::sha256(&content).as_str()), facts["array_sha256"].as_str(), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test] // Forged superblocks with right checksums: anything but a panic or a hang.
    fn forged_superblocks_do_no_harm(
        which in 0usize..3,
        changes in prop::collection::vec((0usize..4096, any::<u64>(), 1usize..9), 1..6),
    ) {
        thread_local! {
            static FIXTURES: [Vec<Vec<u8>>; 3] =
                ["raid6-degraded", "raid10-o2-3", "raid5-bitmap"].map(|name| fixture(name).members);
        }
        let mut bytes = FIXTURES.with(|fixtures| fixtures[which].clone());
        for member in &mut bytes {
            patch(member, |superblock| {
                for (at, value, len) in &changes {
                    // Mostly the fields, not the roles.
                    let at = if at % 8 == 0 { *at } else { at % 256 };
                    let len = (*len).min(superblock.len() - at);
                    superblock[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
                }
            });
        }
        let devices: Vec<Member> = bytes
            .into_iter()
            .map(|bytes| Member { name: "/dev/x".into(), device: Arc::new(MemoryDevice::new(bytes)) })
            .collect();
        for array in md::scan(&devices).arrays {
            let Ok(device) = array.open() else { continue };
            let mut buf = [0; 5000];
            for offset in [0, device.size() / 2, device.size().saturating_sub(5000)] {
                let _ = device.read_at(offset, &mut buf);
                let _ = device.write_at(offset, &buf);
            }
        }
    }
}
