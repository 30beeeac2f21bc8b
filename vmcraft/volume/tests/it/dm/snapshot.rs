//! Old-style snapshots that Linux made, and those that we changed in Linux.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use testkit::appliance::{Disk, run_ok};
use testkit::tempdir;
use vmcraft_block::BlockDevice;
use vmcraft_volume::Member;
use vmcraft_volume::dm::snapshot::{Cow, Family, State};

use super::{check_extents, content, facts, memory, sha256, unpack};

const KIND: &str = "dm-snapshot";
const STORES: [&str; 3] = ["small", "large", "full"];

fn devices(dir: &Path) -> Vec<Arc<dyn BlockDevice>> {
    ["origin", "small", "large", "full"].map(|name| memory(unpack(KIND, &format!("{name}.img"), dir))).into()
}

fn open(devices: &[Arc<dyn BlockDevice>]) -> Family {
    let cows = STORES.iter().zip(&devices[1..]).map(|(name, device)| Cow {
        name: (*name).into(),
        store: Ok(Member { name: format!("{name}-cow"), device: device.clone() }),
        size_bytes: devices[0].size(),
        chunk_bytes: 4096,
    });
    Family::open(devices[0].clone(), cows.collect()).expect("the devices can be read")
}

#[test]
fn snapshots_of_linux_read_as_in_linux() {
    let dir = tempdir();
    let family = open(&devices(dir.path()));
    for name in ["origin", "small", "large"] {
        let device = if name == "origin" { family.origin() } else { family.snapshot(name).unwrap() };
        assert_eq!((device.size(), sha256(&content(&*device))), facts(KIND, name), "{name}");
    }
    check_extents(&*family.snapshot("small").unwrap());
    // As `dmsetup status` printed it: 2912 and 2752 of 8192 sectors.
    for (name, sectors) in [("small", 2912), ("large", 2752)] {
        let Some(State::Valid { used_bytes, metadata_bytes, total_bytes }) = family.state(name) else {
            panic!("{name}: {:?}", family.state(name));
        };
        assert_eq!((used_bytes, total_bytes), (sectors * 512, 8192 * 512), "{name}");
        assert!(metadata_bytes < used_bytes, "{name}: {metadata_bytes}");
    }
    assert_eq!(family.state("full"), Some(State::Invalid));
    assert!(family.snapshot("full").is_err());
}

#[test] // What we wrote to the origin and to both snapshots, as Linux reads it.
fn linux_reads_what_we_wrote() {
    if !testkit::long_suites("old-style snapshots in Linux") {
        return;
    }
    let dir = tempdir();
    let devices = devices(dir.path());
    let family = open(&devices);
    for (name, offset, len) in [
        ("origin", 3_000_000, 700_001_usize),
        ("small", 100, 5),
        ("small", 6_000_001, 70_000),
        ("large", 8_388_000, 608),
        ("origin", 0, 20_000),
        ("origin", 8_388_000, 608),
    ] {
        let device = if name == "origin" { family.origin() } else { family.snapshot(name).unwrap() };
        device.write_at(offset, &vec![b'w'; len]).unwrap();
    }
    let expected = [family.origin(), family.snapshot("small").unwrap(), family.snapshot("large").unwrap()]
        .map(|device| sha256(&content(&*device)));
    let images: Vec<_> = (0..4).map(|n| dir.path().join(format!("{n}.img"))).collect();
    for (image, device) in images.iter().zip(&devices) {
        fs::write(image, content(&**device)).expect("space for an image");
    }
    let disks: Vec<_> = images.iter().map(|image| Disk::raw(image)).collect();
    let printed = run_ok(
        &disks,
        "set -e; modprobe dm-snapshot; s=$(blockdev --getsz /dev/vda)
        dmsetup create real --table \"0 $s linear /dev/vda 0\"
        dmsetup create small --table \"0 $s snapshot /dev/mapper/real /dev/vdb P 8\"
        dmsetup create large --table \"0 $s snapshot /dev/mapper/real /dev/vdc P 32\"
        for d in real small large; do sha256sum < /dev/mapper/$d; done; dmsetup status
        for d in small large real; do dmsetup remove $d; done",
    );
    let sums: Vec<_> =
        printed.lines().take(3).map(|line| line.split(' ').next().unwrap_or_default()).collect();
    assert_eq!(sums, expected, "{printed}");
}
