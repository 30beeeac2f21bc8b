//! Damaged, contradictory and forged metadata: a message that names what is wrong, and what is whole is still read.

use std::sync::Arc;

use proptest::prelude::*;
use testkit::seal;
use vmcraft_block::{BlockDevice, MemoryDevice};
use vmcraft_volume::Member;
use vmcraft_volume::lvm::{Lvm, NewVolume, Size, scan};

use super::tools::{with_author, with_seed};

const MIB: u64 = 1 << 20;
/// Where `pvcreate` puts the metadata area.
const AREA: usize = 4096;

/// Disks whose bytes a test can change, and where they stand.
struct Disks(Vec<Vec<u8>>);

impl Disks {
    /// A group `vg` over so many disks of 16 MiB: `first` on the first, `both` striped over the first two.
    fn new(count: usize) -> Self {
        let mut disks = Self(vec![vec![0; 16 << 20]; count]);
        disks.change(|lvm, members| {
            with_author(|author| lvm.create_group("vg", members, author)).expect("a group");
            let mut create = |name, stripes| {
                let new = NewVolume { name, size: Size::Bytes(4 * MIB), stripes, stripe_size: 65536 };
                with_seed(name.len() as u64, |author| lvm.create_volume("vg", &new, author))
                    .expect("a volume");
            };
            create("first", 1);
            if count > 1 {
                create("both", 2);
            }
        });
        disks
    }

    fn members(&self) -> Vec<Member> {
        let member = |(index, bytes): (usize, &Vec<u8>)| Member {
            name: format!("/dev/sd{}", char::from(b'a' + u8::try_from(index).expect("few disks"))),
            device: Arc::new(MemoryDevice::new(bytes.clone())),
        };
        self.0.iter().enumerate().map(member).collect()
    }

    fn scan(&self) -> Lvm {
        scan(&self.members())
    }

    /// Lets a test change the disks through LVM.
    fn change(&mut self, body: impl FnOnce(&mut Lvm, &[Member])) {
        let members = self.members();
        let mut lvm = scan(&members);
        body(&mut lvm, &members);
        for (bytes, member) in self.0.iter_mut().zip(&members) {
            member.device.read_at(0, bytes).expect("memory");
        }
    }

    /// Replaces the metadata of a disk by a changed one, under right checksums.
    fn forge(&mut self, disk: usize, change: impl FnOnce(String) -> String) {
        let bytes = &mut self.0[disk];
        let field = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let start = AREA + usize::try_from(field(AREA + 40)).expect("small");
        let len = usize::try_from(field(AREA + 48)).expect("small");
        let text = String::from_utf8(bytes[start..start + len - 1].to_vec()).expect("UTF-8");
        let mut text = change(text).into_bytes();
        text.push(0);
        seal::lvm_text(&mut bytes[AREA..], &text);
    }

    /// Forges all disks alike.
    fn forge_all(&mut self, change: impl Fn(String) -> String) {
        (0..self.0.len()).for_each(|disk| self.forge(disk, &change));
    }
}

/// A disk with an MBR of one partition.
fn partitioned() -> Member {
    let mut bytes = vec![0; 4 << 20];
    bytes[446..462].copy_from_slice(&[0, 0, 2, 0, 0x83, 0, 1, 1, 8, 0, 0, 0, 0, 8, 0, 0]);
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    Member { name: "/dev/sdx".into(), device: Arc::new(MemoryDevice::new(bytes)) }
}

/// The text with `from` replaced, which must be there.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from:?} in {text}");
    text.replace(from, to)
}

fn open_error(lvm: &Lvm, volume: &str) -> String {
    match lvm.group("vg").expect("the group is read").open(volume) {
        Ok(_) => panic!("{volume} opens"),
        Err(e) => e.to_string(),
    }
}

/// What refuses to change the group.
fn change_error(lvm: &mut Lvm) -> String {
    let new = NewVolume { name: "new", size: Size::Bytes(MIB), stripes: 1, stripe_size: 0 };
    with_author(|author| lvm.create_volume("vg", &new, author)).expect_err("a change is refused").to_string()
}

fn assert_warns(lvm: &Lvm, message: &str) {
    assert!(lvm.warnings.iter().any(|warning| warning.contains(message)), "{message}: {:?}", lvm.warnings);
}

#[test] // What does not need the missing one is opened; the rest names it.
fn missing_physical_volume_is_named() {
    let mut disks = Disks::new(2);
    let uuid = disks.scan().physical_volumes[1].label.uuid;
    disks.0.pop();
    let mut lvm = disks.scan();
    assert_warns(&lvm, &format!("physical volume {uuid} is missing (it was /dev/sdb)"));
    let group = lvm.group("vg").unwrap();
    assert_eq!(group.missing(), [uuid]);
    assert!(group.open("first").is_ok());
    let error = open_error(&lvm, "both");
    assert_eq!(
        error,
        format!("logical volume vg/both needs physical volume {uuid}, which is missing (it was /dev/sdb)")
    );
    assert!(change_error(&mut lvm).contains(&uuid.to_string()));
    assert_eq!(lvm.report_volume_groups()[0].vg_attr, "wz-pn-");
}

#[test] // A physical volume that LVM went on without has old data.
fn physical_volume_marked_as_missing_is_not_used() {
    let mut disks = Disks::new(2);
    disks.forge_all(|text| text.replacen("[\"ALLOCATABLE\"]", "[\"ALLOCATABLE\", \"MISSING\"]", 1));
    let lvm = disks.scan();
    assert_warns(&lvm, "is marked as missing");
    assert!(open_error(&lvm, "first").contains("which is missing"));
}

#[test] // A copied disk has the identifiers of the first one: neither is taken for the other.
fn duplicate_physical_volumes_are_named() {
    let mut disks = Disks::new(2);
    disks.0.push(disks.0[0].clone());
    let mut lvm = disks.scan();
    assert_warns(&lvm, "is there more than once, on /dev/sda and /dev/sdc");
    assert!(open_error(&lvm, "first").contains("more than once: /dev/sda and /dev/sdc"));
    assert!(change_error(&mut lvm).contains("there twice"));
    assert!(lvm.remove_physical_volume("/dev/sda").is_err());
}

#[test] // Both groups are read, and each is reached by its identifier.
fn groups_of_the_same_name_are_told_apart() {
    let mut disks = Disks::new(1);
    let mut other = Disks(vec![vec![0; 16 << 20]]);
    other.change(|lvm, members| {
        with_seed(77, |author| lvm.create_group("vg", members, author)).expect("a group");
    });
    disks.0.append(&mut other.0);
    let mut lvm = disks.scan();
    let uuids: Vec<String> = lvm.volume_groups.iter().map(|vg| vg.metadata.uuid.to_string()).collect();
    assert_warns(&lvm, "there are two volume groups vg");
    let error = lvm.group("vg").unwrap_err().to_string();
    assert!(uuids.iter().all(|uuid| error.contains(uuid)), "{error}");
    assert!(lvm.group(&uuids[0]).unwrap().open("first").is_ok());
    with_author(|author| lvm.rename_group(&uuids[1], "second", author)).unwrap();
    assert!(lvm.group("vg").is_ok() && lvm.group("second").is_ok());
    assert!(lvm.warnings.is_empty(), "{:?}", lvm.warnings);
}

#[test] // The newest metadata counts, old copies are named, and the next change mends them.
fn old_and_damaged_copies_are_named_and_mended() {
    let mut disks = Disks::new(3);
    let old = disks.0[0].clone();
    disks.change(|lvm, _| {
        let new = NewVolume { name: "late", size: Size::Bytes(MIB), stripes: 1, stripe_size: 0 };
        with_seed(5, |author| lvm.create_volume("vg", &new, author)).expect("a volume");
    });
    disks.0[0][..1 << 20].copy_from_slice(&old[..1 << 20]);
    disks.0[1][AREA + 7] ^= 1;
    let lvm = disks.scan();
    assert_warns(&lvm, "/dev/sda: its metadata of volume group vg is old (seqno 3, the newest is 4)");
    assert_warns(&lvm, "/dev/sdb: corrupt metadata area: checksum of its header at byte 0x1000");
    assert!(lvm.group("vg").unwrap().open("late").is_ok());
    disks.change(|lvm, _| with_seed(6, |author| lvm.remove_volume("vg", "late", author)).expect("removed"));
    let lvm = disks.scan();
    assert!(lvm.warnings.is_empty(), "{:?}", lvm.warnings);
    assert_eq!(lvm.group("vg").unwrap().metadata.seqno, 5);
}

#[test] // Two copies of one seqno that differ: said, and one of them is used.
fn copies_that_differ_are_named() {
    let mut disks = Disks::new(2);
    disks.forge(1, |text| replaced(&text, "first {", "other {"));
    let lvm = disks.scan();
    assert_warns(&lvm, "differs from another copy with the same seqno 3");
    assert!(lvm.group("vg").unwrap().open("first").is_ok());
}

#[test] // A disk that was away while it was taken out of the group.
fn outdated_physical_volume_is_named() {
    let mut disks = Disks::new(4);
    let old = disks.0[3].clone();
    disks.change(|lvm, _| {
        with_seed(5, |author| lvm.reduce_group("vg", &["/dev/sdd"], author)).expect("it is free");
    });
    disks.0[3] = old;
    let lvm = disks.scan();
    assert_warns(&lvm, "is outdated: volume group vg no longer has it");
    assert!(lvm.group("vg").unwrap().open("both").is_ok());
}

#[test] // Without any metadata left, the physical volume is still known to be in use.
fn group_without_metadata_is_said_to_be_one() {
    let mut disks = Disks::new(1);
    disks.0[0][AREA + 7] ^= 1;
    let mut lvm = disks.scan();
    assert!(lvm.volume_groups.is_empty());
    assert_warns(&lvm, "part of a volume group whose metadata is not here");
    let members = disks.members();
    let error = with_author(|author| lvm.create_physical_volume(&members[0], author)).unwrap_err();
    assert!(error.to_string().contains("whose metadata is not here"), "{error}");
}

#[test] // Each word of the status that forbids something, by its name.
fn groups_that_are_not_ours_to_change_are_refused() {
    for (from, to, message, is_readable) in [
        ("\"RESIZEABLE\", ", "\"RESIZEABLE\", \"EXPORTED\", ", "vg is exported", false),
        ("\"RESIZEABLE\", ", "\"RESIZEABLE\", \"CLUSTERED\", ", "vg is clustered", true),
        ("extent_size", "lock_type = \"sanlock\"\nextent_size", "shared by hosts (lock type sanlock)", true),
        ("\"RESIZEABLE\", ", "", "does not allow changes", true),
    ] {
        let mut disks = Disks::new(1);
        disks.forge_all(|text| replaced(&text, from, to));
        let mut lvm = disks.scan();
        assert!(change_error(&mut lvm).contains(message), "{message}");
        let opened = lvm.group("vg").unwrap().open("first");
        match opened {
            Ok(device) => {
                assert!(is_readable);
                let is_shared = message.contains("clustered") || message.contains("shared");
                assert_eq!(device.is_read_only(), is_shared, "{message}");
                assert_eq!(device.write_at(0, &[1]).is_err(), is_shared, "{message}");
            }
            Err(e) => assert!(!is_readable && e.to_string().contains(message), "{e}"),
        }
    }
}

#[test] // A volume without WRITE is not written.
fn read_only_volumes_are_not_written() {
    let mut disks = Disks::new(1);
    disks.forge_all(|text| replaced(&text, "\"READ\", \"WRITE\", \"VISIBLE\"", "\"READ\", \"VISIBLE\""));
    let device = disks.scan().group("vg").unwrap().open("first").unwrap();
    assert!(device.is_read_only() && device.write_at(0, &[1]).is_err());
}

#[test] // One contradiction in one volume: its own message, and the other volume opens.
fn contradictions_are_named() {
    for (from, to, message) in [
        ("extent_count = 2\n", "extent_count = 4000000000\n", "beyond the 3 extents of physical volume pv"),
        ("extent_count = 2\n", "extent_count = 9223372036854775807\n", "beyond the 3 extents"),
        ("extent_count = 2\n", "extent_count = 0\n", "a segment without extents"),
        ("extent_count = 2\n", "extent_count = 1\n", "do not make 2 stripes"),
        ("stripe_size = 128\n", "", "without stripe_size"),
        ("stripe_size = 128\n", "stripe_size = 0\n", "cannot be dealt in chunks of 0 bytes"),
        ("stripe_size = 128\n", "stripe_size = 9223372036854775807\n", "overflows"),
        (
            "type = \"striped\"\nstripe_count = 2",
            "type = \"quantum\"\nstripe_count = 2",
            "segments of type quantum",
        ),
        (
            "type = \"striped\"\nstripe_count = 2",
            "type = \"striped+FANCY\"\nstripe_count = 2",
            "segments of type striped+FANCY",
        ),
        ("stripes = [\"pv0\", 1, ", "stripes = [\"pv0\", 0, ", "it shares extent 0 of pv0 with first"),
        ("stripes = [\"pv0\", 1, ", "stripes = [\"pv0\", -1, ", "before the first extent"),
        ("stripes = [\"pv0\", 1, ", "stripes = [\"pv0\", ", "are not names and extents"),
        ("stripes = [\"pv0\", 1, ", "stripes = [\"nothing\", 1, ", "no logical volume vg/nothing"),
        ("stripes = [\"pv0\", 1, ", "stripes = [\"both\", 0, ", "made of themselves"),
    ] {
        let mut disks = Disks::new(2);
        disks.forge_all(|text| replaced(&text, from, to));
        let lvm = disks.scan();
        let error = open_error(&lvm, "both");
        assert!(error.contains(message) && error.contains("both"), "{message}: {error}");
        let first = lvm.group("vg").unwrap().open("first");
        assert_eq!(first.is_ok(), !message.contains("shares"), "{message}");
    }
}

#[test] // What is wrong with the whole is named with its device, and nothing is made of it.
fn metadata_that_is_wrong_as_a_whole_is_named() {
    for (from, to, message) in [
        ("version = 1", "version = 2", "metadata of version 2"),
        ("format = \"lvm2\"", "format = \"lvm1\"", "metadata of format lvm1"),
        ("extent_size = 8192", "extent_size = 0", "extent size"),
        ("extent_size = 8192", "extent_size = 9223372036854775807", "extent size"),
        ("pe_count = 3", "pe_count = 9000000000000000000", "its size overflows"),
        ("vg {", "\"../etc\" {", "LVM does not allow the name \"../etc\""),
        ("first {", "\"..\" {", "LVM does not allow the name \"..\""),
        ("contents = \"Text", "contents = \"Other", "says that it is"),
        ("physical_volumes {", "physical_volumes [", "neither '=' nor '{'"),
    ] {
        let mut disks = Disks::new(1);
        disks.forge_all(|text| replaced(&text, from, to));
        let lvm = disks.scan();
        assert!(lvm.volume_groups.is_empty(), "{message}");
        assert_warns(&lvm, message);
        assert!(lvm.warnings.iter().all(|warning| warning.starts_with("/dev/sda: ")), "{:?}", lvm.warnings);
    }
}

#[test] // Deep chains and wide trees of volumes end in a message, at once.
fn recursion_bombs_are_refused() {
    let volume = |name: &str, next: &str| {
        let segment = |n: u64| {
            format!(
                "segment{n} {{\nstart_extent = {n}\nextent_count = 1\ntype = \"striped\"\nstripe_count = 1\nstripes = \
                 [\"{next}\", 0]\n}}\n"
            )
        };
        let uuid = format!("{name:0>32}");
        format!(
            "{name} {{\nid = \"{uuid}\"\nstatus = [\"READ\", \"VISIBLE\"]\nsegment_count = 2\n{}{}}}\n",
            segment(0),
            segment(1)
        )
    };
    let bomb = |names: u32| -> String {
        (0..names).map(|n| volume(&format!("bomb{n}"), &format!("bomb{}", n + 1))).collect()
    };
    let mut disks = Disks::new(1);
    disks
        .forge_all(|text| replaced(&text, "logical_volumes {", &format!("logical_volumes {{\n{}", bomb(60))));
    let lvm = disks.scan();
    assert!(open_error(&lvm, "bomb0").contains("more than 24 deep"));
    assert!(open_error(&lvm, "bomb59").contains("no logical volume vg/bomb60"));
    assert!(lvm.group("vg").unwrap().open("first").is_ok());
}

#[test] // Sums of forged sizes: reported as the largest number, and nothing is changed.
fn sizes_that_overflow_are_survived() {
    let volume = |name: &str| {
        format!(
            "{name} {{\nid = \"{name:0>32}\"\nstatus = [\"READ\", \"VISIBLE\"]\nsegment_count = 1\nsegment1 {{\n\
             start_extent = 0\nextent_count = 9223372036854775807\ntype = \"striped\"\nstripe_count = 1\nstripes = \
             [\"pv0\", 9223372036854775807]\n}}\n}}\n"
        )
    };
    let many: String = ["a", "b", "c", "d"].map(volume).concat();
    let mut disks = Disks::new(1);
    disks.forge_all(|text| replaced(&text, "logical_volumes {", &format!("logical_volumes {{\n{many}")));
    let mut lvm = disks.scan();
    assert_eq!(lvm.report_physical_volumes()[0].pv_pe_alloc_count, u64::MAX);
    assert_eq!((lvm.report_volume_groups()[0].vg_free, lvm.report_logical_volumes().len()), (0, 5));
    assert!(with_author(|author| lvm.resize_physical_volume("/dev/sda", None, author)).is_err());
    assert!(change_error(&mut lvm).contains("contradicts itself"));
    assert!(open_error(&lvm, "a").contains("beyond the 3 extents"));
}

#[test] // What is not understood may have extents, which must not be given to others.
fn extents_of_unknown_segments_are_not_free() {
    let mut disks = Disks::new(2);
    disks.forge_all(|text| replaced(&text, "type = \"striped\"", "type = \"striped/FUTURE\""));
    let mut lvm = disks.scan();
    assert!(open_error(&lvm, "first").contains("segments of type striped/FUTURE"));
    let why = "giving away extents of volume group vg, which has segments of type striped/FUTURE";
    assert!(change_error(&mut lvm).contains(why));
    let smaller = with_author(|author| lvm.resize_physical_volume("/dev/sda", Some(6 << 20), author));
    assert!(smaller.unwrap_err().to_string().contains(why));
    let reduced = with_author(|author| lvm.reduce_group("vg", &["/dev/sdb"], author));
    assert!(reduced.unwrap_err().to_string().contains(why));
}

#[test] // What was there before does not come to light again in a new volume.
fn new_volumes_hold_nothing_that_is_recognised() {
    let mut disks = Disks::new(1);
    disks.change(|lvm, _| {
        let device = lvm.group("vg").unwrap().open("first").unwrap();
        device.write_at(0, &[0xee; 8192]).expect("writable");
        with_author(|author| lvm.remove_volume("vg", "first", author)).expect("removed");
        let new = NewVolume { name: "again", size: Size::Bytes(4 * MIB), stripes: 1, stripe_size: 0 };
        with_author(|author| lvm.create_volume("vg", &new, author)).expect("a volume");
        let device = lvm.group("vg").unwrap().open("again").unwrap();
        let mut start = [0; 8192];
        device.read_at(0, &mut start).expect("readable");
        assert!(
            start[..4096].iter().all(|byte| *byte == 0) && start[4096..].iter().all(|byte| *byte == 0xee)
        );
    });
}

#[test] // The physical volume is larger than what is left of the disk.
fn truncated_disks_are_named() {
    let mut disks = Disks::new(1);
    disks.0[0].truncate(4 << 20);
    let lvm = disks.scan();
    assert_warns(&lvm, "was made on 16777216 bytes, but the device has 4194304");
    let error = open_error(&lvm, "first");
    assert!(error.contains("vg/first") && error.contains("beyond the end of the device"), "{error}");
}

#[test] // Names, sizes and devices that are refused before anything is written.
fn changes_that_cannot_be_are_refused() {
    let mut disks = Disks::new(2);
    disks.0.push(vec![0; 1 << 20]);
    let before = disks.0.clone();
    disks.change(|lvm, members| {
        let refused = |message: &str, result: vmcraft_volume::Result<()>| {
            let error = result.expect_err(message).to_string();
            assert!(error.contains(message), "{message}: {error}");
        };
        let new = |name, size| NewVolume { name, size: Size::Bytes(size), stripes: 1, stripe_size: 0 };
        with_author(|a| {
            refused("already", lvm.create_volume("vg", &new("first", MIB), a).map(drop));
            refused("does not allow the name", lvm.create_volume("vg", &new("a/b", MIB), a).map(drop));
            refused("not 1 to 127", lvm.create_volume("vg", &new("", MIB), a).map(drop));
            refused("LVM keeps names", lvm.create_volume("vg", &new("x_tdata", MIB), a).map(drop));
            refused("3 free extents", lvm.create_volume("vg", &new("x", 1 << 40), a).map(drop));
            refused("no extents", lvm.create_volume("vg", &new("x", 0), a).map(drop));
            refused("no volume group nothing", lvm.create_volume("nothing", &new("x", 1), a).map(drop));
            let striped = NewVolume { stripes: 3, stripe_size: 65536, ..new("x", MIB) };
            refused("3 stripes", lvm.create_volume("vg", &striped, a).map(drop));
            let odd = NewVolume { stripes: 2, stripe_size: 5000, ..new("x", MIB) };
            refused("a power of 2", lvm.create_volume("vg", &odd, a).map(drop));
            refused("would have no extents", lvm.resize_volume("vg", "first", Size::Bytes(0), a));
            refused("no logical volume", lvm.remove_volume("vg", "nothing", a));
            refused("already", lvm.rename_volume("vg", "first", "both", a));
            refused("is used by logical volumes", lvm.reduce_group("vg", &["/dev/sda"], a));
            refused(
                "is a physical volume of volume group vg",
                lvm.create_physical_volume(&members[0], a).map(drop),
            );
            refused("is a physical volume of volume group vg", lvm.remove_physical_volume("/dev/sdb"));
            refused(
                "is a physical volume of volume group vg",
                lvm.create_group("x", &members[..1], a).map(drop),
            );
            refused("is not a physical volume", lvm.remove_physical_volume("/dev/sdc"));
            refused("is partitioned", lvm.create_physical_volume(&partitioned(), a).map(drop));
            refused("too small", lvm.create_physical_volume(&members[2], a).map(drop));
            refused("there is a volume group vg already", lvm.create_group("vg", &members[2..], a).map(drop));
            refused("are needed", lvm.resize_physical_volume("/dev/sda", Some(2 * MIB), a));
            refused("fewer than", lvm.resize_physical_volume("/dev/sda", Some(1 << 40), a));
        });
    });
    assert!(disks.0 == before, "something was written");
}

#[test] // No space for longer metadata: said before the first byte is written.
fn full_metadata_area_is_refused() {
    let mut disks = Disks::new(1);
    disks.forge_all(|text| {
        let padding = "x".repeat(500_000);
        replaced(&text, "contents =", &format!("padding = \"{padding}\"\ncontents ="))
    });
    let before = disks.0.clone();
    disks.change(|lvm, _| {
        with_author(|a| lvm.rename_volume("vg", "first", "fits-once", a))
            .expect("there is room for one more");
    });
    disks.forge_all(|text| replaced(&text, "padding = \"", &format!("padding = \"{}", "y".repeat(100_000))));
    let forged = disks.0.clone();
    disks.change(|lvm, _| assert!(change_error(lvm).contains("is full")));
    assert!(disks.0 == forged && forged != before);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test] // Bytes that flip under right checksums: whatever comes out, nothing panics, hangs or reads wrong places.
    fn flipped_bytes_do_no_harm(flips in prop::collection::vec((0_usize..2000, 1_u8..=127), 1..6)) {
        let mut disks = Disks::new(1);
        disks.forge_all(|text| {
            let mut bytes = text.into_bytes();
            let len = bytes.len();
            for (at, bits) in &flips {
                bytes[at % len] ^= bits & 0x7f;
            }
            String::from_utf8(bytes).expect("ASCII stays ASCII")
        });
        let mut lvm = disks.scan();
        let _ = (lvm.report_physical_volumes(), lvm.report_volume_groups(), lvm.report_logical_volumes());
        for group in &lvm.volume_groups {
            for volume in &group.metadata.logical_volumes {
                if let Ok(device) = group.open(&volume.name) {
                    let _ = device.read_at(device.size().saturating_sub(16), &mut [0; 16]);
                }
            }
        }
        let new = NewVolume { name: "new", size: Size::Bytes(MIB), stripes: 1, stripe_size: 0 };
        if with_author(|author| lvm.create_volume("vg", &new, author)).is_ok() {
            let group = lvm.group("vg").expect("it was changed");
            prop_assert!(group.open("new").is_ok());
        }
    }

    #[test] // The same for the header of the device and of the area, with checksums that no longer fit.
    fn flipped_bytes_of_headers_do_no_harm(flips in prop::collection::vec((0_usize..1 << 13, 1_u8..), 1..4)) {
        let mut disks = Disks::new(1);
        for (at, bits) in &flips {
            disks.0[0][*at] ^= bits;
        }
        let mut lvm = disks.scan();
        let _ = (lvm.report_physical_volumes(), lvm.report_volume_groups(), lvm.remove_all());
    }
}
