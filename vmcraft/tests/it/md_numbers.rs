//! Arrays have the numbers that libguestfs gives them: `fixtures/md-numbers.sh` wrote down which these are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use testkit::{run_ok, tempdir};
use vmcraft::{DeviceName, DriveOptions, Guest};

use crate::drives::text;

const MEMBER_BYTES: usize = 2 << 20;

/// The members, by array and place, as `a0`.
fn members(folder: &Path, dir: &Path) -> BTreeMap<String, PathBuf> {
    let all = dir.join("members");
    let packed = folder.join("members.zst");
    run_ok("zstd", ["-dq".as_ref(), packed.as_os_str(), "-o".as_ref(), all.as_os_str()]);
    let bytes = fs::read(&all).expect("it was unpacked");
    let names = ('a'..='z').flat_map(|array| ['0', '1'].map(|place| format!("{array}{place}")));
    let written = bytes.chunks_exact(MEMBER_BYTES).zip(names).map(|(member, name)| {
        let path = dir.join(&name);
        fs::write(&path, member).expect("there is room");
        (name, path)
    });
    written.collect()
}

fn uuid(guest: &Guest, array: &str) -> String {
    let detail = guest.md_detail(DeviceName::new(array)).unwrap_or_else(|e| panic!("{array}: {e}"));
    let row = detail.into_iter().find(|(key, _)| key == "uuid").expect("a UUID");
    row.1.to_string()
}

#[test] // In libguestfs the order of arrays without a claim to a number is that of a race; ours is that of the disks.
fn arrays_have_the_numbers_that_libguestfs_gives_them() {
    let folder = testkit::workspace().join("fixtures/images/volumes/md-numbers");
    let cases = fs::read(folder.join("numbers.json")).expect("the facts are there");
    let cases: Vec<Value> = serde_json::from_slice(&cases).expect("facts are JSON");
    let dir = tempdir();
    let members = members(&folder, dir.path());
    for case in &cases {
        let disks = case["disks"].as_array().expect("disks").iter().filter_map(Value::as_str);
        let mut guest = Guest::new();
        for disk in disks {
            guest.add_drive_with(text(&members[disk]), DriveOptions::default()).expect("a disk");
        }
        guest.launch().expect("the disks open");
        let arrays = guest.list_md_devices().expect("arrays");
        let is_as_seen = |seen: &Value| {
            let seen = seen.as_object().expect("names with devices");
            let mut devices: Vec<&str> = seen.values().filter_map(Value::as_str).collect();
            devices.sort_unstable();
            let mut ours: Vec<&str> = arrays.iter().map(String::as_str).collect();
            ours.sort_unstable();
            ours == devices
                && seen.iter().all(|(name, device)| {
                    uuid(&guest, name) == uuid(&guest, device.as_str().expect("a device"))
                })
        };
        let seen = case["seen"].as_array().expect("what was seen");
        assert!(seen.iter().any(is_as_seen), "{case}: not {arrays:?}");
    }
}
