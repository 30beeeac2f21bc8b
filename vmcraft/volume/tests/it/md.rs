//! md arrays that the kernel made: what is found of them, and their content, also with members missing.

use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use vmcraft_block::{BlockDevice, MemoryDevice};
use vmcraft_volume::Member;
use vmcraft_volume::md::{self, Array, Level, MemberState};

/// An array of `fixtures/images/volumes/md`, as `fixtures/md-arrays.sh` made it.
pub(crate) struct Fixture {
    pub(crate) name: String,
    pub(crate) facts: Value,
    /// The content of each member, in the order in which `mdadm` was given them.
    pub(crate) members: Vec<Vec<u8>>,
}

impl Fixture {
    pub(crate) fn fact(&self, name: &str) -> &str {
        self.facts[name].as_str().unwrap_or_else(|| panic!("{}: no fact {name}", self.name))
    }

    /// The members, without those whose numbers are in `without`.
    pub(crate) fn devices(&self, without: &[usize]) -> Vec<Member> {
        members(&self.members, without)
    }
}

pub(crate) fn members(bytes: &[Vec<u8>], without: &[usize]) -> Vec<Member> {
    let kept = bytes.iter().enumerate().filter(|(index, _)| !without.contains(index));
    kept.map(|(index, bytes)| Member {
        name: format!("/dev/sd{}", char::from(b'a' + u8::try_from(index).expect("few members"))),
        device: Arc::new(MemoryDevice::new(bytes.clone())),
    })
    .collect()
}

pub(crate) fn fixtures() -> Vec<Fixture> {
    let folder = testkit::workspace().join("fixtures/images/volumes/md");
    let list = std::fs::read(folder.join("arrays.json")).expect("the list of arrays is there");
    let list: Vec<Value> = serde_json::from_slice(&list).expect("the list is JSON");
    list.into_iter()
        .map(|facts| {
            let name = facts["name"].as_str().expect("a name").to_owned();
            let mut rest = unpack(&folder.join(format!("{name}.zst")));
            let sizes = facts["member_kib"].as_array().expect("sizes").iter();
            let members = sizes
                .map(|size| {
                    let size = usize::try_from(size.as_u64().expect("a size")).expect("small") << 10;
                    let tail = rest.split_off(size);
                    std::mem::replace(&mut rest, tail)
                })
                .collect();
            Fixture { name, facts, members }
        })
        .collect()
}

pub(crate) fn fixture(name: &str) -> Fixture {
    fixtures().into_iter().find(|fixture| fixture.name == name).unwrap_or_else(|| panic!("no array {name}"))
}

fn unpack(path: &std::path::Path) -> Vec<u8> {
    let output = testkit::run("zstd", [std::ffi::OsStr::new("-dcq"), path.as_os_str()]);
    assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The only array on the devices.
pub(crate) fn only(members: &[Member]) -> Array {
    let mut found = md::scan(members);
    assert!(found.damaged.is_empty(), "{:?}", found.damaged);
    assert_eq!(found.arrays.len(), 1);
    found.arrays.remove(0)
}

pub(crate) fn content(device: &dyn BlockDevice) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(device.size()).expect("small")];
    device.read_at(0, &mut bytes).expect("readable");
    bytes
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test] // Size, content and description of each array are what the kernel and mdadm gave.
fn arrays_are_what_the_kernel_sees() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 50, "only {} arrays", fixtures.len());
    for fixture in fixtures {
        let name = &fixture.name;
        let array = only(&fixture.devices(&[]));
        assert_eq!(array.problem, None, "{name}");
        assert_eq!(array.size.to_string(), fixture.fact("size"), "{name}");
        for (key, value) in array.detail() {
            let expect = fixture.facts[format!("MD_{}", key.to_uppercase())].as_str();
            assert_eq!(Some(value.as_str()), expect, "{name}: {key}");
        }
        let device = array.open().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(sha256(&content(&*device)), fixture.fact("sha256"), "{name}");
    }
}

#[test] // Each set of members that the level can do without is computed from the others.
fn arrays_are_read_without_members() {
    for fixture in fixtures() {
        let name = &fixture.name;
        let complete = only(&fixture.devices(&[]));
        let level = complete.level.expect("a level");
        // What is lost beside is in a test of its own.
        if matches!(level, Level::Linear | Level::Raid0)
            || complete.state.is_degraded
            || !complete.state.is_clean
        {
            continue;
        }
        let mut whole = content(&*complete.open().expect("whole"));
        // More than the layouts take to come back to where they began.
        whole.truncate(512 << 10);
        let content = |device: &dyn BlockDevice| {
            let mut bytes = vec![0; whole.len()];
            device.read_at(0, &mut bytes).expect("readable");
            bytes
        };
        let places = usize::try_from(complete.raid_devices).expect("few");
        for one in 0..places {
            for other in one..places {
                let lost = if one == other { 1 } else { 2 };
                if lost == fixture.members.len() {
                    continue;
                }
                let array = only(&fixture.devices(&[one, other]));
                assert_eq!(array.missing.len(), lost, "{name}");
                let can_lose = match level {
                    Level::Raid1 => places - 1,
                    Level::Raid6 => 2,
                    _ => 1,
                };
                if lost <= can_lose {
                    let device =
                        array.open().unwrap_or_else(|e| panic!("{name} without {one}, {other}: {e}"));
                    assert!(content(&*device) == whole, "{name} without {one}, {other}");
                } else if level != Level::Raid10 {
                    let problem = array.problem.unwrap_or_else(|| panic!("{name} without {one}, {other}"));
                    assert!(
                        problem.contains("too many members are missing")
                            && problem.contains(&format!("place {one}, {other}")),
                        "{name}: {problem}"
                    );
                } else if let Ok(device) = array.open() {
                    assert!(content(&*device) == whole, "{name} without {one}, {other}");
                }
            }
        }
    }
}

#[test]
fn stale_members_are_left_out_and_named() {
    for name in
        ["raid1-bitmap-degraded", "raid5-degraded", "raid5-0.90-degraded", "raid6-degraded", "raid10-n2-4"]
    {
        let fixture = fixture(name);
        let array = only(&fixture.devices(&[]));
        let stale: Vec<_> = array
            .members
            .iter()
            .filter(|member| matches!(&member.state, MemberState::LeftOut(reason) if reason.contains("out of date")))
            .collect();
        assert_eq!(stale.len(), if name == "raid6-degraded" { 2 } else { 1 }, "{name}: {:?}", array.warnings);
        assert!(array.state.is_degraded && array.state.is_clean, "{name}");
        for member in stale {
            assert!(
                array.warnings.iter().any(|w| w.contains(&member.member.name) && w.contains("out of date")),
                "{name}: {:?}",
                array.warnings
            );
        }
    }
}

/// Where the superblock of metadata 1.2 is.
const SUPERBLOCK: usize = 4096;

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[SUPERBLOCK + at..][..4].try_into().unwrap())
}

fn events(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[SUPERBLOCK + 0xc8..][..8].try_into().unwrap())
}

#[test] // The member that was replaced may come back, and must not be taken for one with all that was written.
fn writing_by_way_of_a_replacement_counts_events() {
    let mut fixture = fixture("raid1-1.2");
    // The second member becomes a replacement that is complete, for one that is not there.
    let superblock = &mut fixture.members[1][SUPERBLOCK..];
    superblock[8] |= 16;
    superblock[0xd8..0xdc].fill(0);
    let len =
        256 + 2 * usize::try_from(u32::from_le_bytes(superblock[0xdc..0xe0].try_into().unwrap())).unwrap();
    let words = superblock[..len].chunks_exact(4);
    let mut sum: u64 = words.map(|word| u64::from(u32::from_le_bytes(word.try_into().unwrap()))).sum();
    sum += superblock[len - len % 4..len].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    superblock[0xd8..0xdc].copy_from_slice(&u32::try_from(sum).unwrap().to_le_bytes());
    assert_eq!(word(&fixture.members[1], 8) & 16, 16);

    let members = fixture.devices(&[]);
    let array = only(&members);
    assert_eq!((array.members[1].role, &array.members[1].state), (Some(1), &MemberState::Active));
    let before = events(&fixture.members[0]);
    array.open().unwrap().write_at(0, &[7; 512]).unwrap();
    for member in &members {
        assert!(events(&content(&*member.device)) >= before + 2, "{}", member.name);
    }
    let again = only(&members);
    assert_eq!(again.warnings, [""; 0]);
    let mut read = [0; 512];
    again.open().unwrap().read_at(0, &mut read).unwrap();
    assert_eq!(read, [7; 512]);
}
