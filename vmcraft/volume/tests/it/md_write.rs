//! Writing md arrays: what the members hold then, and what `mdadm` says of them.

use std::io::ErrorKind;
use std::sync::Arc;

use vmcraft_block::{BlockDevice, MemoryDevice};
use vmcraft_volume::Member;
use vmcraft_volume::md::{Level, MemberState, Metadata, NewArray};

use crate::md::{content, fixture, fixtures, only};

/// Writes pieces all over an array. Gives what its content is then.
pub(crate) fn scribble(device: &dyn BlockDevice) -> Vec<u8> {
    let mut expect = content(device);
    for (at, len) in
        [(0, 1), (700, 5000), (65_000, 1100), (100_000, 250_000), (400_001, 70_003), (511_000, 3)]
    {
        let bytes: Vec<u8> = (0..len).map(|i: usize| (i * 31 + at).to_le_bytes()[0] | 1).collect();
        device.write_at(at as u64, &bytes).expect("written");
        expect[at..at + len].copy_from_slice(&bytes);
    }
    assert!(content(device) == expect, "what was written is not read");
    expect
}

/// What `mdadm` prints of a member, or of its bitmap.
fn mdadm(option: &str, member: &Member) -> String {
    mdadm_on(option, &content(&*member.device))
}

fn mdadm_on(option: &str, bytes: &[u8]) -> String {
    let dir = testkit::tempdir();
    let path = dir.path().join("member");
    std::fs::write(&path, bytes).expect("written");
    testkit::run_ok("mdadm", [option.as_ref(), path.as_os_str()])
}

/// What `mdadm` prints of a member's bitmap. In a file it looks for one at the start.
fn bitmap(member: &Member, metadata: Metadata) -> String {
    let bytes = content(&*member.device);
    let superblock = match metadata {
        Metadata::V1_0 => (bytes.len() - 8192) & !4095,
        Metadata::V1_1 => 0,
        _ => 4096,
    };
    let offset = i32::from_le_bytes(bytes[superblock + 96..superblock + 100].try_into().expect("four"));
    let at = superblock.checked_add_signed(offset as isize * 512).expect("on the member");
    mdadm_on("--examine-bitmap", &bytes[at..])
}

fn line<'a>(text: &'a str, key: &str) -> &'a str {
    let mut lines = text.lines().filter_map(|line| line.split_once(" : "));
    lines.find(|line| line.0.trim() == key).unwrap_or_else(|| panic!("no {key:?} in:\n{text}")).1.trim()
}

#[test] // A clean array needs no change of its metadata, and every member fits the others afterwards.
fn writing_a_clean_array_changes_only_data() {
    for fixture in fixtures() {
        let name = &fixture.name;
        let members = fixture.devices(&[]);
        let array = only(&members);
        let level = array.level.expect("a level");
        let usual = ["raid5-left-symmetric", "raid6-left-symmetric", "raid6-ddf-N-continue"];
        if array.state.is_degraded
            || !array.state.is_clean
            || array.read_only.is_some()
            || (name.contains("symmetric") && !usual.contains(&name.as_str()))
        {
            continue;
        }
        let expect = scribble(&*array.open().expect("open"));
        for (member, before) in members.iter().zip(&fixture.members) {
            let after = content(&*member.device);
            // Metadata of 1.1 and 1.2 are in the first MiB, of others in the last 64 KiB.
            let (from, to) = match array.metadata {
                Metadata::V1_1 | Metadata::V1_2 => (0, 1 << 20),
                _ => (before.len() - (64 << 10), before.len()),
            };
            assert!(after[from..to] == before[from..to], "{name}: {} has other metadata", member.name);
        }
        if matches!(level, Level::Linear | Level::Raid0) {
            continue;
        }
        for without in 0..members.len() {
            let mut kept = members.clone();
            kept.remove(without);
            let degraded = only(&kept).open().unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(content(&*degraded) == expect, "{name} without {without}");
        }
    }
}

#[test] // The members that were written are ahead of the one that was not, and say that it failed.
fn degraded_writes_leave_the_missing_member_behind() {
    for (name, metadata) in
        [("raid1-1.2", "1.2"), ("raid5-1.0", "1.0"), ("raid5-0.90", "0.90"), ("raid5-bitmap", "1.2")]
    {
        let fixture = fixture(name);
        let all = fixture.devices(&[]);
        let missing = 1;
        let mut kept = all.clone();
        kept.remove(missing);
        let expect = scribble(&*only(&kept).open().expect("open"));
        let array = only(&all);
        assert_eq!(array.metadata.name(), metadata);
        let left_out = array.members.iter().find(|member| matches!(member.state, MemberState::LeftOut(_)));
        assert_eq!(left_out.map(|member| &member.member.name), Some(&all[missing].name), "{name}");
        assert!(content(&*array.open().expect("open")) == expect, "{name}");
        let text = mdadm("--examine", &kept[0]);
        assert!(line(&text, "Checksum").ends_with("correct"), "{text}");
        if metadata == "0.90" {
            assert_eq!(line(&text, "Failed Devices"), "1", "{text}");
        } else {
            assert!(
                line(&text, "Array State").starts_with(if name == "raid1-1.2" { "A.A" } else { "A." }),
                "{text}"
            );
        }
        let stale = mdadm("--examine", &all[missing]);
        let events = |text: &str| line(text, "Events").parse::<u64>().expect("a number");
        assert_eq!(events(&text), events(&stale) + 2, "{name}");
        // Opening it again and writing once more is one more change.
        only(&kept).open().expect("open").write_at(0, &[1]).expect("written");
        assert_eq!(events(&mdadm("--examine", &kept[1])), events(&stale) + 4, "{name}");
    }
}

#[test] // What is written while a member is missing is marked, and nothing else.
fn degraded_writes_are_in_the_bitmap() {
    for (name, offset, len, dirty) in [
        ("raid1-bitmap", 65_530, 10, 2),
        ("raid1-bitmap", 0, 65_536, 1),
        ("raid5-bitmap", 200_000, 65_536, 2),
    ] {
        let fixture = fixture(name);
        let kept = fixture.devices(&[1]);
        let device = only(&kept).open().expect("open");
        device.write_at(offset, &vec![7; len]).expect("written");
        let text = bitmap(&kept[0], Metadata::V1_2);
        assert!(line(&text, "Bitmap").contains(&format!(" {dirty} dirty")), "{name}: {text}");
        let events = only(&kept).events.to_string();
        assert_eq!(line(&text, "Events"), events, "{name}: {text}");
        assert_ne!(line(&text, "Events Cleared"), events, "{name}: {text}");
    }
}

#[test] // Parity that was never computed is computed where data are written.
fn writing_an_unsynchronised_array_makes_parity_fit() {
    let fixture = fixture("raid5-unsynced");
    let members = fixture.devices(&[]);
    let array = only(&members);
    assert!(!array.state.is_clean && array.warnings.iter().any(|w| w.contains("resynchronise")), "{array:?}");
    let device = array.open().expect("open");
    let bytes = [9; 3000];
    device.write_at(150_000, &bytes).expect("written");
    let text = mdadm("--examine", &members[0]);
    assert_eq!(line(&text, "State"), "active", "{text}");
    for without in 0..3 {
        let mut kept = members.clone();
        kept.remove(without);
        let degraded = only(&kept);
        assert!(degraded.warnings.iter().any(|w| w.contains("may be wrong")), "{:?}", degraded.warnings);
        let device = degraded.open().expect("readable");
        let mut read = [0; 3000];
        device.read_at(150_000, &mut read).expect("readable");
        assert_eq!(read, bytes, "without {without}");
        // Nothing can be written that could be told apart from what is wrong.
        let error = device.write_at(0, &[1]).expect_err("not writable");
        assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
        assert!(error.to_string().contains("not stopped cleanly and lacks the member of place"), "{error}");
    }
}

#[test] // A member that is being rebuilt is not written, so its rebuilding begins again.
fn writing_begins_rebuilding_again() {
    let fixture = fixture("raid5-rebuilding");
    let members = fixture.devices(&[]);
    let array = only(&members);
    assert_eq!(array.missing, [2]);
    assert!(array.members.iter().any(|member| member.state == MemberState::Rebuilding));
    assert_eq!(line(&mdadm("--examine", &members[2]), "Recovery Offset"), "256 sectors");
    scribble(&*array.open().expect("open"));
    let text = mdadm("--examine", &members[2]);
    assert_eq!(line(&text, "Recovery Offset"), "0 sectors", "{text}");
    assert!(line(&text, "Checksum").ends_with("correct"), "{text}");
    assert_eq!(line(&text, "Events"), line(&mdadm("--examine", &members[0]), "Events"));
}

#[test] // The journal would bring back what it holds over what is written.
fn an_array_with_a_journal_is_only_read() {
    let array = only(&fixture("raid5-journal").devices(&[]));
    let device = array.open().expect("readable");
    assert!(device.is_read_only());
    let error = device.write_at(0, &[1]).expect_err("not writable");
    assert!(error.to_string().contains("journal"), "{error}");
}

#[test] // A spare goes along with the events, or Linux would not take it when it is needed.
fn spares_follow_degraded_writes() {
    let fixture = fixture("raid5-spare");
    let all = fixture.devices(&[]);
    let spare =
        all.iter().position(|member| mdadm("--examine", member).contains(": spare")).expect("a spare");
    let missing = (0..all.len()).find(|index| *index != spare).expect("another");
    let kept = fixture.devices(&[missing]);
    let array = only(&kept);
    assert!(array.members.iter().any(|member| member.state == MemberState::Spare && member.flags() == "S"));
    scribble(&*array.open().expect("open"));
    let events: Vec<_> =
        kept.iter().map(|member| line(&mdadm("--examine", member), "Events").to_owned()).collect();
    assert!(events.iter().all(|count| *count == events[0]), "{events:?}");
}

/// An array of four members of 8 MiB with old content.
pub(crate) fn new_array(level: Level) -> NewArray {
    NewArray {
        name: "fixtures:new".into(),
        level,
        layout: None,
        chunk_bytes: None,
        metadata: Metadata::V1_2,
        members: (0..4u8)
            .map(|i| {
                let device = Arc::new(MemoryDevice::new(vec![i ^ 0x5a; 8 << 20]));
                Some(Member { name: format!("/dev/sd{}", char::from(b'a' + i)), device })
            })
            .collect(),
        spares: Vec::new(),
        has_bitmap: false,
    }
}

pub(crate) fn create(new: &NewArray) -> Result<vmcraft_volume::md::Array, vmcraft_volume::Error> {
    let mut next = 0u8;
    new.create(1_700_000_000, &mut |bytes| {
        for byte in bytes {
            next = next.wrapping_mul(5).wrapping_add(77);
            *byte = next;
        }
    })
}

#[test] // `mdadm` reads from the members of a new array what was asked for.
fn new_arrays_are_what_mdadm_reads() {
    for level in ["linear", "raid0", "raid1", "raid4", "raid5", "raid6", "raid10"] {
        for metadata in [Metadata::V1_0, Metadata::V1_1, Metadata::V1_2] {
            let level = Level::from_name(level).expect("a level");
            let mut new = new_array(level);
            new.metadata = metadata;
            new.has_bitmap = !matches!(level, Level::Linear | Level::Raid0);
            let array = create(&new).expect("made");
            let members: Vec<Member> = new.members.iter().flatten().cloned().collect();
            for member in &members {
                let text = mdadm("--examine", member);
                assert!(line(&text, "Checksum").ends_with("correct"), "{text}");
                assert_eq!(line(&text, "Version"), metadata.name(), "{text}");
                assert_eq!(line(&text, "Raid Level"), level.name(), "{text}");
                assert_eq!(line(&text, "Raid Devices"), "4", "{text}");
                assert_eq!(line(&text, "Array UUID"), array.uuid, "{text}");
                assert!(line(&text, "Name").starts_with("fixtures:new"), "{text}");
                assert!(line(&text, "Array State").starts_with("AAAA"), "{text}");
                if !matches!(level, Level::Linear | Level::Raid0) {
                    assert_eq!(
                        line(&text, "Array Size").split(' ').next(),
                        Some(&*(array.size >> 10).to_string()),
                        "{text}"
                    );
                    assert_eq!(line(&text, "State"), "active", "{text}");
                    let bitmap = bitmap(member, metadata);
                    assert_eq!(line(&bitmap, "UUID"), array.uuid, "{bitmap}");
                }
            }
            let device = array.open().expect("open");
            let expect = scribble(&*device);
            assert!(content(&*only(&members).open().expect("open")) == expect);
        }
    }
}

#[test]
fn new_arrays_that_cannot_be_are_refused() {
    let refused = |change: &dyn Fn(&mut NewArray), level| {
        let mut new = new_array(level);
        change(&mut new);
        create(&new).expect_err("refused").to_string()
    };
    type Refused<'a> = (&'a dyn Fn(&mut NewArray), Level, &'a str);
    let all: [Refused<'_>; 11] = [
        (&|new| new.members.truncate(3), Level::Raid6, "3 members"),
        (&|new| new.members[2] = None, Level::Raid0, "too few"),
        (&|new| new.members[2] = None, Level::Raid6, "with one missing"),
        (&|new| new.members[1] = new.members[0].clone(), Level::Raid1, "/dev/sda is given twice"),
        (&|new| new.chunk_bytes = Some(12 << 10), Level::Raid5, "power of 2"),
        (&|new| new.chunk_bytes = Some(512 << 20), Level::Raid0, "too small"),
        (&|new| new.layout = Some("ddf-N-restart".into()), Level::Raid5, "no layout"),
        (&|new| new.metadata = Metadata::V0_90, Level::Raid1, "not 0.90"),
        (&|new| new.name = "x".repeat(33), Level::Raid1, "more than 32 bytes"),
        (&|new| new.has_bitmap = true, Level::Raid0, "write-intent bitmap"),
        (
            &|new| {
                let device = Arc::new(MemoryDevice::new(vec![0; 4096]));
                new.members[3] = Some(Member { name: "/dev/sdd".into(), device });
            },
            Level::Raid1,
            "/dev/sdd is too small",
        ),
    ];
    for (change, level, expect) in all {
        let message = refused(change, level);
        assert!(message.contains(expect), "{message}");
    }
}
