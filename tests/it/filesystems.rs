//! `vmcraft filesystems`: the tree of devices.

use std::fs;
use std::process::Command;

use crate::support::{binary, output};

/// A volume group that LVM made, in a qcow2 image.
fn tree(options: &[&str]) -> Option<String> {
    let corpus = testkit::corpus::dir()?;
    let dir = testkit::tempdir();
    let row = testkit::corpus::rows(&corpus, "lvm/dfvfs-lvm").pop().expect("a row of the manifest");
    let image = testkit::corpus::unpack(&corpus, &row, dir.path());
    let done = output(Command::new(binary()).arg("filesystems").args(options).arg(&image));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(String::from_utf8(done.stdout).expect("text"))
}

#[test]
fn the_tree_shows_what_stands_on_what() {
    let Some(text) = tree(&[]) else { return };
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let disk = ["/dev/sda", "disk", "8.0M", "LVM2_member", "-", "K994MB-Sn1r-7rpS-hQEW-DgUP-87Dr-9d0MFa"];
    let volume = ["└─/dev/test_volume_group/test_logical_volume", "lv:linear", "4.0M", "ext2", "ext2_test"];
    assert_eq!(rows[1][..6], disk);
    assert_eq!(rows[1][6..], ["of", "test_volume_group"]);
    assert_eq!(rows[2][..5], volume);
    assert_eq!(rows.len(), 3);
}

#[test]
fn the_tree_is_there_for_programs() {
    let Some(json) = tree(&["--json"]) else { return };
    let tree: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let disk = &tree[0];
    assert_eq!((&disk["name"], &disk["member_of"]), (&"/dev/sda".into(), &"test_volume_group".into()));
    let volume = &disk["children"][0];
    assert_eq!(volume["name"], "/dev/test_volume_group/test_logical_volume");
    assert_eq!((&volume["type"], &volume["layout"]), (&"lv".into(), &"linear".into()));
    assert_eq!(volume["size_bytes"], 4_194_304);
    assert_eq!(volume["uuid"], "d9912dca-6814-488b-b137-170f67823766");
}

#[test]
fn what_lacks_a_disk_is_listed_with_the_reason() {
    let case = testkit::volumes::case("lvm-linear");
    let done = output(Command::new(binary()).args(["filesystems", "--json"]).arg(&case.disks[0]));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let tree: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let over = &tree[0]["children"][0];
    for (node, name) in [(over, "/dev/vg/over"), (&tree[1], "/dev/vg/small"), (&tree[2], "/dev/vg/between")] {
        assert_eq!((&node["name"], &node["size_bytes"]), (&name.into(), &serde_json::Value::Null));
        let note = node["note"].as_str().unwrap_or_default();
        assert!(note.contains("DVjnu3-3R7S-WAOT-apHc-qZsN-2tTp-amyFU1, which is missing"), "{note}");
    }
}

#[test] // A volume that does without an image says so, and one that lacks nothing does not.
fn degraded_logical_volumes_are_told_from_whole_ones() {
    let case = testkit::volumes::case("lvm-degraded");
    let done = output(Command::new(binary()).args(["filesystems", "--json"]).args(&case.disks));
    let warnings = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{warnings}");
    let tree: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let first = &tree[0];
    let note = first["note"].as_str().unwrap_or_default();
    assert!(note.starts_with("the group lacks QtFGro-"), "{note}");
    let volumes = first["children"].as_array().expect("volumes");
    for device in &case.devices {
        let node = volumes.iter().find(|node| node["name"] == *device.name);
        let node = node.unwrap_or_else(|| panic!("{}: not on the first disk", device.name));
        let kind = device.facts["type"].as_str().expect("a type");
        let note = node["note"].as_str();
        let expected = match kind {
            "linear" => None,
            _ if kind.starts_with("raid") => Some("degraded: "),
            _ => continue,
        };
        let short = device.name.trim_start_matches("/dev/vg/");
        assert_eq!(note.is_some(), expected.is_some(), "{short}: {note:?}");
        if let Some(note) = note {
            assert!(note.starts_with(&format!("degraded: {short}_rimage_")), "{short}: {note}");
            assert!(note.ends_with(" is missing"), "{short}: {note}");
            assert!(warnings.contains(&format!("vmcraft: warning: {}: {note}\n", device.name)), "{warnings}");
        }
    }
    assert!(!warnings.contains("WARN"), "{warnings}");
}

#[test] // No key would help: it is not called locked.
fn an_encrypted_device_without_a_whole_header_is_not_called_locked() {
    let dir = testkit::tempdir();
    let image = dir.path().join("disk.img");
    fs::write(&image, vec![0; 17 << 20]).expect("space for an image");
    let key = dir.path().join("key");
    fs::write(&key, "secret").expect("a key file");
    let mut format = Command::new(testkit::require("cryptsetup"));
    format.args([
        "luksFormat",
        "-q",
        "--type",
        "luks2",
        "--pbkdf",
        "pbkdf2",
        "--pbkdf-force-iterations",
        "1000",
    ]);
    let done = output(format.arg(&image).arg(&key));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));

    let note = || {
        let done = output(Command::new(binary()).args(["filesystems", "--json"]).arg(&image));
        let tree: serde_json::Value = serde_json::from_slice(&done.stdout).expect("JSON");
        assert_eq!(tree[0]["content"], "crypto_LUKS");
        tree[0]["note"].as_str().expect("a note").to_owned()
    };
    assert_eq!(note(), "locked: open it with --key");
    // Each copy of the header has its checksum at byte 448 and is 16 KiB long.
    let mut bytes = fs::read(&image).expect("the image");
    for copy in [0, 16384] {
        bytes[copy + 448] ^= 1;
        fs::write(&image, &bytes).expect("space for an image");
        let is_bad = note().starts_with("corrupt LUKS2 header: checksum");
        assert_eq!(is_bad, copy > 0, "one of two is enough");
    }
}

#[test]
fn no_disk_is_an_error_that_says_what_to_do() {
    let done = output(Command::new(binary()).arg("filesystems"));
    assert_eq!(done.status.code(), Some(1));
    let error = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(error.contains("no disk was given: vmcraft filesystems DISK"), "{error}");
}
