//! Partitioning disks and writing what devices hold: judged by `sgdisk`, `sfdisk` and `qemu-img`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use testkit::{run_ok, tempdir};
use vmcraft::Guest;
use vmcraft::value::Value;

use crate::drives::{call, disk, open, refused, text};
use crate::sample::Sample;

#[track_caller]
fn run_calls(guest: &mut Guest, script: &str) {
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split(' ').collect();
        call(guest, &words).unwrap_or_else(|e| panic!("{line}: {e}"));
    }
}

#[test]
fn tables_reach_the_image_with_the_commit() {
    let dir = tempdir();
    let image = disk(dir.path(), "disk.img", 64);
    let mut guest = open(&[&image]);
    run_calls(
        &mut guest,
        "part-init /dev/sda gpt
         part-add /dev/sda p 2048 -34
         part-set-name /dev/sda 1 root
         part-set-gpt-type /dev/sda 1 4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709
         part-set-gpt-attributes /dev/sda 1 4",
    );
    assert_eq!(guest.list_partitions().expect("a table"), ["/dev/sda1"]);
    assert_eq!(image.metadata().expect("there").blocks(), 0, "nothing is written before the commit");
    guest.commit().expect("the image can be written");
    drop(guest);
    let said = run_ok("sgdisk", ["-v", "-i", "1", text(&image)]);
    assert!(said.contains("No problems found"), "{said}");
    for line in ["4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "Attribute flags: 0000000000000004", "'root'"] {
        assert!(said.contains(line), "{said}");
    }
    fs::OpenOptions::new()
        .write(true)
        .open(&image)
        .and_then(|file| file.set_len(128 << 20))
        .expect("own file");
    let mut guest = open(&[&image]);
    run_calls(&mut guest, "part-expand-gpt /dev/sda\npart-resize /dev/sda 1 -34");
    guest.commit().expect("the image can be written");
    drop(guest);
    let said = run_ok("sgdisk", ["-v", "-p", text(&image)]);
    assert!(said.contains("No problems found") && said.contains("262110"), "{said}");
}

#[test] // A change that fails in its middle leaves the table as it was.
fn what_fails_changes_nothing() {
    let dir = tempdir();
    let image = disk(dir.path(), "disk.img", 8);
    let small = disk(dir.path(), "small.img", 1);
    fs::OpenOptions::new()
        .write(true)
        .open(&small)
        .and_then(|file| file.set_len(64 << 10))
        .expect("own file");
    let mut guest = open(&[&image, &small]);
    run_calls(&mut guest, "part-disk /dev/sda mbr\npwrite-device /dev/sdb hello 0");
    refused(&mut guest, &["part-disk", "/dev/sdb", "gpt"], &["/dev/sdb", "before it begins"]);
    refused(&mut guest, &["part-init", "/dev/sda", "mac"], &["not supported", "mac"]);
    refused(&mut guest, &["part-init", "/dev/sda", "floppy"], &["gpt or mbr", "floppy"]);
    refused(&mut guest, &["part-add", "/dev/sda", "x", "1", "2"], &["p, l or e"]);
    refused(&mut guest, &["part-add", "/dev/sda", "p", "-5", "2"], &["startsect", "-5"]);
    refused(
        &mut guest,
        &["part-add", "/dev/sda", "p", "1", "-20000"],
        &["before the start", "16384 sectors"],
    );
    refused(&mut guest, &["part-del", "/dev/sda", "0"], &["begin at 1"]);
    refused(&mut guest, &["part-del", "/dev/sda1", "1"], &["/dev/sda1", "name the disk"]);
    refused(&mut guest, &["part-set-mbr-id", "/dev/sda", "1", "256"], &["0xff", "0x100"]);
    refused(&mut guest, &["part-set-disk-guid", "/dev/sda", "nonsense"], &["not a GUID"]);
    assert_eq!(guest.pread_device("/dev/sdb".into(), 5, 0).expect("readable"), b"hello");
    assert_eq!(guest.list_partitions().expect("tables"), ["/dev/sda1"]);
}

#[test]
fn devices_in_use_are_not_written() {
    let sample = Sample::new();
    let mut guest = open(&[&sample.image()]);
    guest.mount("/dev/sda".into(), "/".into()).expect("it mounts");
    for words in [
        &["part-init", "/dev/sda", "gpt"][..],
        &["zero", "/dev/sda"],
        &["zero-device", "/dev/sda"],
        &["blkdiscard", "/dev/sda"],
        &["pwrite-device", "/dev/sda", "x", "0"],
        &["blockdev-setro", "/dev/sda"],
        &["blockdev-rereadpt", "/dev/sda"],
        &["copy-file-to-device", "/few", "/dev/sda"],
    ] {
        refused(&mut guest, words, &["/dev/sda: busy", "mounted on /"]);
    }
    guest.umount("/".into(), None, None).expect("it is mounted");
    run_calls(&mut guest, "blockdev-setro /dev/sda");
    refused(&mut guest, &["zero", "/dev/sda"], &["/dev/sda", "read-only"]);
    assert!(guest.blockdev_getro("/dev/sda".into()).expect("there"));
    run_calls(&mut guest, "blockdev-setrw /dev/sda\nzero /dev/sda");
    assert_eq!(guest.vfs_type("/dev/sda".into()).expect("readable"), "");
}

#[test] // 8 EiB would take years to write.
fn clearing_a_device_does_not_write_it() {
    let dir = tempdir();
    let image = dir.path().join("huge.qcow2");
    run_ok("qemu-img", ["create", "-q", "-f", "qcow2", "-o", "cluster_size=2M", text(&image), "16T"]);
    run_ok("qemu-io", ["-c", "write -P 7 1T 8M", text(&image)]);
    let mut guest = open(&[&image]);
    run_calls(&mut guest, "part-disk /dev/sda gpt\nzero-device /dev/sda1");
    assert!(guest.is_zero_device("/dev/sda1".into()).expect("readable"));
    guest.commit().expect("the image can be written");
    drop(guest);
    run_ok("qemu-io", ["-r", "-c", "read -P 0 1T 8M", text(&image)]);
    run_ok("qemu-img", ["check", "-q", text(&image)]);
}

#[test] // What nobody uses goes back to the host, and what is used stays.
fn free_space_is_given_back_and_cleared() {
    let sample = Sample::new();
    let image = sample.image();
    for clear in ["zero-free-space /", "zerofree /dev/sda", "umount-all\nzerofree /dev/sda"] {
        let random = fs::read(sample.tree().join("random")).expect("there");
        let has_it = || {
            let bytes = fs::read(&image).expect("there");
            bytes.windows(1024).any(|window| window == &random[..1024])
        };
        let mut guest = open(&[&image]);
        guest.mount("/dev/sda".into(), "/".into()).expect("it mounts");
        guest.write("/random".into(), &random).expect("there is room");
        guest.rm("/random".into()).expect("there");
        guest.commit().expect("it can be written");
        assert!(has_it(), "{clear}: nothing to clear");
        refused(&mut guest, &["zero-free-space", "/few"], &["/few", "not a directory"]);
        run_calls(&mut guest, clear);
        guest.umount_all().expect("it can be unmounted");
        guest.commit().expect("it can be written");
        drop(guest);
        run_ok("e2fsck", ["-fn", text(&image)]);
        assert!(!has_it(), "{clear}: the deleted file can still be read");
    }

    // All blocks are allocated on the host, and those without content are not afterwards.
    run_ok("fallocate", ["-l", "64M", text(&image)]);
    let full = image.metadata().expect("there").blocks();
    let mut guest = open(&[&image]);
    guest.mount("/dev/sda".into(), "/".into()).expect("it mounts");
    run_calls(&mut guest, "fstrim / minimumfreeextent:4096");
    guest.umount_all().expect("it commits");
    drop(guest);
    assert!(image.metadata().expect("there").blocks() < full / 2);
    run_ok("e2fsck", ["-fn", text(&image)]);
}

#[test]
fn images_are_made() {
    let dir = tempdir();
    let name = |name: &str| text(&dir.path().join(name)).to_owned();
    let mut guest = Guest::new();
    let info = |image: &str| -> serde_json::Value {
        serde_json::from_str(&run_ok("qemu-img", ["info", "--output=json", image])).expect("JSON")
    };
    let (raw, base, overlay, old) =
        (name("new.raw"), name("base.qcow2"), name("overlay.qcow2"), name("old.qcow2"));
    for words in [
        &["disk-create", &raw, "raw", "10M", "preallocation:full"][..],
        &["disk-create", &base, "qcow2", "10M", "clustersize:128K", "preallocation:metadata"],
        &["disk-create", &overlay, "qcow2", "-1", "backingfile:base.qcow2"],
        &["disk-create", &old, "qcow2", "1G", "compat:0.10"],
    ] {
        assert_eq!(call(&mut guest, words).unwrap_or_else(|e| panic!("{words:?}: {e}")), Value::Unit);
    }
    assert_eq!(
        (info(&raw)["format"].as_str(), fs::metadata(&raw).expect("there").len()),
        (Some("raw"), 10 << 20)
    );
    assert!(fs::metadata(&raw).expect("there").blocks() * 512 >= 10 << 20);
    assert_eq!(info(&base)["cluster-size"], 128 << 10);
    assert_eq!(info(&overlay)["virtual-size"], 10 << 20);
    assert_eq!(info(&overlay)["backing-filename"], "base.qcow2");
    assert_eq!(info(&overlay)["backing-filename-format"], "qcow2");
    assert_eq!(info(&old)["format-specific"]["data"]["compat"], "0.10");
    for image in [&base, &overlay, &old] {
        run_ok("qemu-img", ["check", "-q", image]);
    }
    let new = name("new.img");
    for (words, parts) in [
        (&["vmdk", "1G"][..], &["not supported", "vmdk"][..]),
        (&["raw", "-1"], &["-1 bytes"]),
        (&["raw", "1G", "backingfile:base.qcow2"], &["backingfile", "raw image"]),
        (&["raw", "1G", "compat:1.1"], &["compat", "raw image"]),
        (&["raw", "1G", "preallocation:metadata"], &["preallocation:metadata", "raw image"]),
        (&["qcow2", "1G", "preallocation:some"], &["off, metadata or full", "some"]),
        (&["qcow2", "1G", "compat:2"], &["0.10 or 1.1"]),
        (&["qcow2", "1G", "clustersize:1000"], &["power of two", "1000"]),
        (&["qcow2", "1G", "backingformat:raw"], &["without backingfile"]),
        (&["qcow2", "-1", "backingfile:nosuch.img"], &["nosuch.img", "No such file"]),
        (&["qcow2", "1G", "backingfile:base.qcow2", "backingformat:floppy"], &["floppy"]),
    ] {
        refused(&mut guest, &[&["disk-create", new.as_str()], words].concat(), parts);
        assert!(!Path::new(&new).exists(), "{words:?}");
    }
}
