//! Dynamic disks that Windows made, against what libldm and the kernel read from them.

use std::fs::File;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use testkit::volumes::{Case, case};
use vmcraft_block::{BlockDevice, MemoryDevice, RawFile};
use vmcraft_volume::ldm::{self, DiskGroup, Layout, Ldm, Volume};
use vmcraft_volume::{Error, Member};

/// The disks of a case, writable, by the names that a guest has for them.
fn members(case: &Case) -> Vec<Member> {
    let open = |(index, path): (usize, &std::path::PathBuf)| {
        let file = File::options().read(true).write(true).open(path).expect("the disk opens");
        Member {
            name: format!("/dev/sd{}", char::from(b'a' + u8::try_from(index).expect("few disks"))),
            device: Arc::new(RawFile::new(file, false).expect("the disk is readable")),
        }
    };
    case.disks.iter().enumerate().map(open).collect()
}

fn only_group(ldm: &Ldm) -> &DiskGroup {
    assert_eq!((ldm.groups.len(), ldm.warnings.as_slice()), (1, &[][..]));
    &ldm.groups[0]
}

fn content(device: &dyn BlockDevice) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(device.size()).expect("it fits into memory")];
    device.read_at(0, &mut bytes).expect("readable");
    bytes
}

fn sha256(device: &dyn BlockDevice) -> String {
    Sha256::digest(content(device)).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the kernel read from a device, by its name under `/dev/mapper`.
fn known<'a>(case: &'a Case, name: &str) -> &'a str {
    let path = format!("/dev/mapper/{name}");
    let device = case.devices.iter().find(|device| device.name == path);
    device.and_then(|device| device.sha256.as_deref()).unwrap_or_else(|| panic!("{name} is not known"))
}

/// The members without those whose disks have these names.
fn without(members: &[Member], group: &DiskGroup, disks: &[&str]) -> Vec<Member> {
    let is_left = |member: &&Member| {
        let disk = group.disks.iter().find(|d| d.member.as_ref().is_some_and(|m| m.name == member.name));
        !disk.is_some_and(|disk| disks.contains(&disk.name.as_str()))
    };
    members.iter().filter(is_left).cloned().collect()
}

fn disks_of<'a>(group: &'a DiskGroup, volume: &Volume) -> Vec<&'a str> {
    volume.partitions().map(|partition| group.disks[partition.disk].name.as_str()).collect()
}

#[test] // Names, GUIDs, sizes, hints and partitions are those that ldmtool shows; MBR and GPT, both revisions.
fn groups_are_what_ldmtool_shows() {
    for name in ["ldm-2003r2", "ldm-2008r2"] {
        let case = case(name);
        let ldm = ldm::scan(&members(&case));
        let group = only_group(&ldm);
        let theirs = &case.facts["group"];
        assert_eq!(
            (&*group.guid, &*group.name),
            (theirs["guid"].as_str().unwrap(), theirs["name"].as_str().unwrap())
        );
        assert!(group.warnings.is_empty(), "{:?}", group.warnings);
        let disks: Vec<Value> = group
            .disks
            .iter()
            .map(|disk| {
                serde_json::json!([disk.name, disk.guid, disk.data_start / 512, disk.data_bytes / 512])
            })
            .collect();
        let expected: Vec<Value> = theirs["disks"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|disk| {
                serde_json::json!([disk["name"], disk["guid"], disk["data-start"], disk["data-size"]])
            })
            .collect();
        assert_eq!(disks, expected, "{name}");
        let volumes: Vec<Value> = group
            .volumes
            .iter()
            .map(|volume| {
                let partitions = volume.partitions().map(|p| {
                    serde_json::json!({
                        "name": p.name, "start": p.start / 512, "size": p.len / 512,
                        "disk": group.disks[p.disk].name,
                    })
                });
                serde_json::json!({
                    "name": volume.name, "guid": volume.guid, "type": volume.layout.to_string(),
                    "size": volume.size / 512, "chunk-size": volume.chunk_bytes / 512,
                    "hint": volume.hint, "partitions": partitions.collect::<Vec<_>>(),
                })
            })
            .collect();
        assert_eq!(Value::from(volumes), theirs["volumes"], "{name}");
    }
}

#[test] // Every layout: the whole content is what the kernel read through libldm's tables.
fn content_is_what_the_kernel_reads() {
    for name in ["ldm-2003r2", "ldm-2008r2"] {
        let case = case(name);
        let ldm = ldm::scan(&members(&case));
        let group = only_group(&ldm);
        let mut compared = 0;
        for volume in &group.volumes {
            let device = group.open(volume).unwrap_or_else(|e| panic!("{name} {}: {e}", volume.name));
            assert_eq!(device.size(), volume.size);
            let known = known(&case, &group.volume_device(volume));
            assert_eq!(sha256(&*device), known, "{name} {}", volume.name);
            compared += 1;
            // Partitions have devices of their own where the kernel needs them.
            for partition in volume.partitions().filter(|_| volume.is_redundant()) {
                let device = group.open_partition(partition).expect("the partition opens");
                let known = self::known(&case, &group.partition_device(partition));
                assert_eq!(sha256(&*device), known, "{name} {}", partition.name);
                compared += 1;
            }
        }
        assert_eq!(compared, case.devices.len(), "{name}: all that the kernel had");
    }
}

#[test] // What is redundant reads on without a disk, and is not written; the rest says which disk it needs.
fn missing_disks_are_named() {
    let case = case("ldm-2003r2");
    let all = members(&case);
    let whole = ldm::scan(&all);
    let group = only_group(&whole);
    for volume in &group.volumes {
        let known = known(&case, &group.volume_device(volume));
        let disks = disks_of(group, volume);
        for disk in &disks {
            let ldm = ldm::scan(&without(&all, group, &[disk]));
            let group = only_group(&ldm);
            let volume = group.volume(&volume.name).expect("the database still has it");
            assert_eq!(group.missing(volume), [*disk]);
            match group.open(volume) {
                Ok(device) => {
                    assert!(volume.is_redundant(), "{}", volume.name);
                    assert_eq!(sha256(&*device), known, "{} without {disk}", volume.name);
                    let error = device.write_at(0, &[0; 512]).expect_err("not written");
                    assert!(device.is_read_only());
                    assert!(error.to_string().contains(&format!("{disk} is not there")), "{error}");
                }
                Err(Error::Incomplete(message)) => {
                    assert!(!volume.is_redundant(), "{message}");
                    assert!(message.contains(&format!("needs {disk}, which is not there")), "{message}");
                }
                Err(other) => panic!("{}: {other}", volume.name),
            }
        }
        if volume.is_redundant() {
            let ldm = ldm::scan(&without(&all, group, &disks[..2]));
            let group = only_group(&ldm);
            let error = group.open(group.volume(&volume.name).unwrap()).err().expect("two are too many");
            assert!(error.to_string().contains(&disks[..2].join(" and ")), "{error}");
        }
    }
}

#[test] // What is written reads back, from each copy and with each member left out: copies and parity are right.
fn writes_reach_all_copies_and_parity() {
    for name in ["ldm-2003r2", "ldm-2008r2"] {
        let case = case(name);
        let all = members(&case);
        let ldm = ldm::scan(&all);
        let group = only_group(&ldm);
        for volume in &group.volumes {
            let device = group.open(volume).expect("all disks are there");
            assert!(!device.is_read_only());
            let mut expected = content(&*device);
            // From less than a sector to several rows of chunks, aligned and not, with the last byte.
            for (index, (at, len)) in [
                (0, 512),
                (700, 9),
                (65_536 - 17, 40),
                (300_000, 400_001),
                (1_048_576, 262_144),
                (expected.len() - 70_000, 70_000),
            ]
            .into_iter()
            .enumerate()
            {
                let bytes: Vec<u8> =
                    (0..len).map(|i| u8::try_from((i * 7 + index + i / 251) % 256).unwrap()).collect();
                device.write_at(at as u64, &bytes).expect("writable");
                expected[at..at + len].copy_from_slice(&bytes);
            }
            device.flush().expect("flushed");
            drop(device);
            let again = ldm::scan(&all);
            let device = only_group(&again).open(volume).expect("it opens again");
            assert!(content(&*device) == expected, "{name} {}", volume.name);
            for disk in disks_of(group, volume).iter().filter(|_| volume.is_redundant()) {
                let ldm = ldm::scan(&without(&all, group, &[disk]));
                let group = only_group(&ldm);
                let device = group.open(group.volume(&volume.name).unwrap()).expect("one may miss");
                assert!(content(&*device) == expected, "{name} {} without {disk}", volume.name);
            }
        }
    }
}

/// One disk in memory, which holds the simple volume `Volume1` and nothing else.
fn simple_disk() -> Vec<u8> {
    let case = case("ldm-2003r2");
    let ldm = ldm::scan(&members(&case));
    let group = only_group(&ldm);
    let volume = group.volume("Volume1").expect("it is there");
    assert_eq!(volume.layout, Layout::Simple);
    let disk = &group.disks[volume.partitions().next().unwrap().disk];
    content(&*disk.member.as_ref().expect("it is there").device)
}

/// Scans a disk after a change to it.
fn changed(disk: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Ldm {
    let mut bytes = disk.to_vec();
    change(&mut bytes);
    let device = Arc::new(MemoryDevice::read_only(bytes));
    ldm::scan(&[Member { name: "/dev/sda".into(), device }])
}

#[test] // Damage is found, copies are used where there are some, and messages say what and where.
fn damaged_databases_are_told() {
    let disk = simple_disk();
    // The last megabyte of the disk; the records begin in its sector 17.
    let database = disk.len() - (1 << 20);
    let records = database + 17 * 512;
    let first_record = records + 512 + 16;
    assert_eq!(&disk[records..records + 4], b"VMDB");

    let is_good = |ldm: &Ldm| {
        let group = &ldm.groups[0];
        assert_eq!(group.open(group.volume("Volume1").unwrap()).unwrap().size(), 49_283_072);
    };
    // The private header is there three times, the table of contents four times.
    let ldm = changed(&disk, |disk| disk[6 * 512] = b'X');
    assert!(
        ldm.warnings[0].contains("/dev/sda: corrupt LDM private header: signature at byte 0xc00"),
        "{:?}",
        ldm.warnings
    );
    is_good(&ldm);
    is_good(&changed(&disk, |disk| disk[database + 512..][..1024].fill(0)));

    let privheads = [6 * 512, database + 1856 * 512, database + 2047 * 512];
    let set = |disk: &mut Vec<u8>, at: usize, bytes: &[u8]| {
        for head in privheads {
            disk[head + at..][..bytes.len()].copy_from_slice(bytes);
        }
    };
    type Change<'a> = Box<dyn FnOnce(&mut Vec<u8>) + 'a>;
    let cases: Vec<(Change<'_>, &str)> = vec![
        (Box::new(|disk| set(disk, 0, b"X")), "LDM private header, of which no copy is whole"),
        (Box::new(|disk| set(disk, 0xc, &[0, 3])), "an LDM private header of version 3.11"),
        (Box::new(|disk| set(disk, 0x30, b"not a GUID\0")), "the disk's GUID"),
        (Box::new(|disk| set(disk, 0x12b, &[0xff; 8])), "place of the database"),
        (Box::new(|disk| set(disk, 0x12b, &[0, 0, 0, 1, 0, 0, 0, 0])), "the database is beyond the end"),
        (Box::new(|disk| set(disk, 0x133, &[0, 0, 0, 0, 0, 0, 0xff, 0])), "the database is beyond the end"),
        (
            Box::new(|disk| {
                for sector in [1, 2, 2045, 2046] {
                    disk[database + sector * 512] = 0;
                }
            }),
            "LDM table of contents: no copy is there",
        ),
        (
            Box::new(|disk| {
                for sector in [1, 2, 2045, 2046] {
                    disk[database + sector * 512 + 0x2e..][..8].fill(0xff);
                }
            }),
            "LDM table of contents: place of the records",
        ),
        (Box::new(|disk| disk[records] = 0), "LDM database: signature"),
        (Box::new(|disk| disk[records + 0x12] = 9), "an LDM database of version"),
        (Box::new(|disk| disk[records + 0x11] = 2), "in the middle of a change"),
        (Box::new(|disk| disk[records + 0x84] ^= 1), "in the middle of a change"),
        (Box::new(|disk| disk[records + 0x35] ^= 1), "LDM database: it is of the group"),
        (Box::new(|disk| disk[records + 0x8..][..4].fill(0)), "blocks of 0 bytes"),
        (Box::new(|disk| disk[records + 0xc..][..4].fill(0xff)), "place of the first block"),
        (Box::new(|disk| disk[records + 0x88] += 1), "records of volumes, components"),
        (Box::new(|disk| disk[first_record + 1] = 1), "record in the middle of a change"),
        (Box::new(|disk| disk[first_record + 3] = 0x56), "an LDM record of type 6 and revision 5"),
        (Box::new(|disk| disk[first_record + 4..][..4].fill(0xff)), "LDM record: the size"),
        (Box::new(|disk| disk[first_record + 8] = 9), "LDM record: the id of a volume"),
        (Box::new(|disk| disk[first_record + 11] = 0xff), "LDM record: the name of a volume"),
        // A block of the record is gone: the 7th and the 10th block begin records of two.
        (Box::new(|disk| disk[records + 512 + 3 * 128] = 0), "records of volumes, components"),
        (Box::new(|disk| disk[records + 512 + 3 * 128 + 11] ^= 0x40), "of its 2 parts"),
        (Box::new(|disk| disk[records + 512 + 3 * 128 + 13] = 7), "LDM block: part 7 of 2"),
        (Box::new(|disk| disk.truncate(database)), "LDM private header, of which no copy is whole"),
    ];
    for (change, expected) in cases {
        let ldm = changed(&disk, change);
        assert!(ldm.groups.is_empty(), "{expected}");
        let [warning] = ldm.warnings.as_slice() else { panic!("{expected}: {:?}", ldm.warnings) };
        assert!(warning.starts_with("/dev/sda: ") && warning.contains(expected), "{expected}: {warning}");
    }
    // Other disks are not our matter.
    let ldm = changed(&disk, |disk| disk[0x1c2] = 7);
    assert!(ldm.groups.is_empty() && ldm.warnings.is_empty(), "{:?}", ldm.warnings);
}

#[test] // Partitions that do not fit their disk are refused when they are opened, the rest of the group is there.
fn partitions_stay_on_their_disk() {
    let disk = simple_disk();
    let name = disk.windows(8).position(|bytes| bytes == b"Disk1-01").expect("the record is there");
    // After the name: 12 bytes, the start, the place in the volume, the size.
    let start = name + 8 + 12;
    for change in [[0, 0, 0, 0, 0, 1, 0, 0], [0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]] {
        let ldm = changed(&disk, |disk| disk[start..start + 8].copy_from_slice(&change));
        let error = match ldm.groups.first() {
            Some(group) => group.open(group.volume("Volume1").unwrap()).err().expect("refused").to_string(),
            None => ldm.warnings[0].clone(),
        };
        assert!(error.contains("beyond the data of the disk") || error.contains("Volume1"), "{error}");
    }
    // The disk was cut off behind its table, and the database copied to its new end.
    let ldm = changed(&disk, |disk| {
        let database = disk.split_off(disk.len() - (1 << 20));
        disk.truncate(8 << 20);
        disk.extend(&database);
        let moved = (8_u64 << 20) / 512;
        for head in [6 * 512, (8 << 20) + 1856 * 512, (8 << 20) + 2047 * 512] {
            disk[head + 0x12b..][..8].copy_from_slice(&moved.to_be_bytes());
        }
    });
    let group = only_group(&ldm);
    let error = group.open(group.volume("Volume1").unwrap()).err().expect("refused").to_string();
    assert!(error.contains("Disk1-01 on /dev/sda (Disk1): it reaches beyond the end of the disk"), "{error}");
}

#[test] // The newest database counts. A mirror does not read from a disk that missed changes, others must.
fn stale_and_double_disks_are_told() {
    let case = case("ldm-2003r2");
    let all = members(&case);
    let whole = ldm::scan(&all);
    let group = only_group(&whole);
    // The committed sequence of Disk6, a half of the mirror, and of Disk1, the simple volume.
    let stale: Vec<Member> = all
        .iter()
        .map(|member| {
            let disk = group.disks.iter().find(|d| d.member.as_ref().is_some_and(|m| m.name == member.name));
            if !disk.is_some_and(|disk| ["Disk6", "Disk1"].contains(&disk.name.as_str())) {
                return member.clone();
            }
            let mut bytes = content(&*member.device);
            let records = bytes.len() - (1 << 20) + 17 * 512;
            for sequence in [records + 0x75, records + 0x7d] {
                bytes[sequence..sequence + 8].copy_from_slice(&7_u64.to_be_bytes());
            }
            Member { name: member.name.clone(), device: Arc::new(MemoryDevice::new(bytes)) }
        })
        .collect();
    let ldm = ldm::scan(&stale);
    let group = only_group(&ldm);
    assert_eq!(group.warnings.len(), 2, "{:?}", group.warnings);
    assert!(group.warnings[0].contains("it is at change 7, the group at 1133"), "{:?}", group.warnings);
    let mirror = group.volume("Volume3").unwrap();
    assert_eq!(group.missing(mirror), ["Disk6"]);
    let device = group.open(mirror).expect("the other half is current");
    assert!(device.is_read_only());
    assert_eq!(sha256(&*device), known(&case, &group.volume_device(mirror)));
    let simple = group.volume("Volume1").unwrap();
    assert!(group.missing(simple).is_empty());
    group.open(simple).expect("its content is nowhere else");

    // The same disk twice: the first one counts.
    let mut twice = all.clone();
    twice.push(Member { name: "/dev/sdz".into(), device: Arc::clone(&all[0].device) });
    let ldm = ldm::scan(&twice);
    let group = only_group(&ldm);
    assert!(
        group.warnings[0].contains("/dev/sdz and /dev/sda both say that they are Disk6"),
        "{:?}",
        group.warnings
    );
}

#[test] // Single flipped bits all over the database: an answer or an error, never a panic.
fn flipped_bits_are_survived() {
    let disk = simple_disk();
    let database = disk.len() - (1 << 20);
    let members = [Member { name: "/dev/sda".into(), device: Arc::new(MemoryDevice::new(disk)) }];
    let device = &members[0].device;
    // The private header, the tables of contents, the header of the records, and the blocks in use.
    let places = (6 * 512..6 * 512 + 0x13b)
        .chain(database + 512..database + 1024 + 0x68)
        .chain(database + 17 * 512..database + 18 * 512 + 70 * 128);
    for (index, at) in places.step_by(7).enumerate() {
        let mut byte = [0];
        device.read_at(at as u64, &mut byte).expect("readable");
        device.write_at(at as u64, &[byte[0] ^ 1 << (index % 8)]).expect("writable");
        for group in ldm::scan(&members).groups {
            for volume in &group.volumes {
                assert!(group.missing(volume).len() <= group.disks.len());
                let Ok(device) = group.open(volume) else { continue };
                assert_eq!(device.size(), volume.size);
                // What was opened can be read to its end.
                let last = device.size().saturating_sub(512);
                let mut bytes = vec![0; usize::try_from(device.size() - last).expect("a sector")];
                device.read_at(last, &mut bytes).expect("readable");
            }
        }
        device.write_at(at as u64, &byte).expect("writable");
    }
}
