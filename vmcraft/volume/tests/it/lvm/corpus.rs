//! Volume groups that no one here made.

use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use testkit::{corpus, tempdir};
use vmcraft_block::{BlockDevice, MemoryDevice};
use vmcraft_volume::Member;
use vmcraft_volume::lvm::{Lvm, scan};

/// The content of a device, as a digest in hexadecimal.
pub(super) fn sha256(device: &dyn BlockDevice) -> String {
    let mut hash = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    while at < device.size() {
        let part = (device.size() - at).min(1 << 20);
        let part = &mut buf[..usize::try_from(part).expect("at most a MiB")];
        device.read_at(at, part).expect("readable");
        hash.update(&*part);
        at += part.len() as u64;
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn scan_row(corpus: &std::path::Path, row: &corpus::Row) -> Lvm {
    let dir = tempdir();
    let mut image = corpus::unpack(corpus, row, dir.path());
    if image.extension().is_some_and(|extension| extension == "qcow2") {
        let raw = dir.path().join("raw");
        let paths = [image.to_str().expect("UTF-8"), raw.to_str().expect("UTF-8")];
        testkit::run_ok("qemu-img", ["convert", "-O", "raw", paths[0], paths[1]]);
        image = raw;
    }
    let bytes = std::fs::read(image).expect("the image is there");
    let device = Arc::new(MemoryDevice::read_only(bytes));
    scan(&[Member { name: "/dev/sda".into(), device }])
}

#[test] // Names, sizes and every byte of the volumes are those that Linux sees; identifiers those of blkid.
fn volumes_are_what_linux_sees() {
    let Some(corpus) = corpus::dir() else { return };
    let (mut labels, mut volumes) = (0, 0);
    for row in corpus::rows(&corpus, "lvm/") {
        let facts: Value = serde_json::from_str(&row.facts).expect("facts are JSON");
        let lvm = scan_row(&corpus, &row);
        let blkid = [&facts["blkid"]["UUID"], &facts["qemu"]["blkid"]["UUID"]];
        if let Some(uuid) = blkid.into_iter().find_map(Value::as_str) {
            let found: Vec<String> =
                lvm.physical_volumes.iter().map(|pv| pv.label.uuid.to_string()).collect();
            assert_eq!(found, [uuid], "{}", row.path);
            labels += 1;
        }
        let Some(theirs) = facts["lvm"]["lv_facts"].as_str() else { continue };
        for block in theirs.split("@@L ").filter(|block| block.lines().count() > 2) {
            let lines: Vec<&str> = block.lines().collect();
            let (group, name) = lines[0].trim_start_matches("/dev/").split_once('/').expect("/dev/VG/LV");
            let device = lvm.group(group).expect("the group is there").open(name);
            let device = device.unwrap_or_else(|e| panic!("{}: {e}", row.path));
            assert_eq!(device.size().to_string(), lines[1], "{}", row.path);
            assert_eq!(sha256(&*device), lines[2], "{}", row.path);
            volumes += 1;
        }
    }
    assert!(labels >= 4 && volumes >= 2, "{labels} labels, {volumes} volumes");
}
