//! Adding drives, launching, metrics.

use std::fs::File;
use std::path::{Path, PathBuf};

use testkit::{run_ok, tempdir};
use vmcraft::{DeviceName, DriveOptions, Guest, Key};

/// A raw disk of `mib` MiB.
pub(crate) fn disk(dir: &Path, name: &str, mib: u64) -> PathBuf {
    let image = dir.join(name);
    File::create(&image).and_then(|file| file.set_len(mib << 20)).expect("space for a sparse file");
    image
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// A guest with these disks, launched.
pub(crate) fn open<P: AsRef<Path>>(images: &[P]) -> Guest {
    let mut guest = Guest::new();
    for image in images {
        guest.add_drive_with(text(image.as_ref()), DriveOptions::default()).expect("the image is there");
    }
    guest.launch().expect("the images open");
    guest
}

pub(crate) fn key(text: &str) -> Key {
    Key::new(text.into())
}

pub(crate) fn device(name: &str) -> &DeviceName {
    DeviceName::new(name)
}

/// A call of the table by the words of a script.
pub(crate) fn call(guest: &mut Guest, words: &[&str]) -> vmcraft::Result<vmcraft::value::Value> {
    let call = vmcraft::call::Call::find(words[0]).unwrap_or_else(|| panic!("no call {}", words[0]));
    let words: Vec<_> = words[1..].iter().map(|word| (*word).into()).collect();
    (call.invoke)(guest, &call.bind_words(&words)?)
}

#[track_caller]
pub(crate) fn refused(guest: &mut Guest, words: &[&str], parts: &[&str]) {
    let error = call(guest, words).expect_err("it should be refused").to_string();
    for part in parts {
        assert!(error.contains(part), "{words:?}: {part:?} is not in {error:?}");
    }
}

#[test] // What cannot be meant is said at once, not at launch.
fn wrong_drives_are_refused_by_name() {
    let dir = tempdir();
    let image = disk(dir.path(), "disk.img", 1);
    let image = text(&image);
    let mut guest = Guest::new();
    for (arguments, parts) in [
        (&["/nonexistent/disk.img"][..], &["/nonexistent/disk.img", "No such file"][..]),
        (&[image, "format:floppy"], &[image, "floppy"]),
        (&[image, "label:a1"], &[image, "label", "a1"]),
        (&[image, "blocksize:1000"], &["512 or 4096"]),
        (&[image, "cachemode:none"], &["writeback or unsafe"]),
        (&[image, "readonly:true", "discard:enable"], &["discard", "read-only"]),
        (&[image, "iface:a/b"], &["iface"]),
        (&[image, "server:host"], &["server", "protocol"]),
        (&["x", "protocol:nbd"], &["exactly one server"]),
        (&["x", "protocol:rbd", "server:host"], &["not supported", "rbd"]),
        (&["/dev/null", "format:qcow2"], &["/dev/null", "raw"]),
    ] {
        let words: Vec<_> = std::iter::once("add-drive").chain(arguments.iter().copied()).collect();
        refused(&mut guest, &words, parts);
    }
    refused(&mut guest, &["add-drive-scratch", "0"], &["0 bytes"]);
    refused(&mut guest, &["run"], &["no drives"]);
    call(&mut guest, &["add-drive", image, "label:one"]).expect("it is fine");
    refused(&mut guest, &["add-drive", image, "label:one"], &["another drive", "one"]);
}

#[test] // Scratch disks and /dev/null, which scripts use to have a handle without a disk.
fn empty_disks_read_as_zeros() {
    let mut guest = Guest::new();
    guest.add_drive_with("/dev/null", DriveOptions::default()).expect("it is fine");
    guest.add_drive_scratch(1 << 40, None, Some("scratch"), Some(4096)).expect("it is fine");
    guest.launch().expect("there is nothing to open");
    assert_eq!(guest.blockdev_getsize64("/dev/sda".into()).expect("a disk"), 4096);
    assert_eq!(guest.blockdev_getsize64("/dev/disk/guestfs/scratch".into()).expect("a disk"), 1 << 40);
    assert_eq!(guest.blockdev_getss("/dev/sdb".into()).expect("a disk"), 4096);
    assert_eq!(guest.pread_device("/dev/sdb".into(), 4, (1 << 40) - 2).expect("two bytes"), [0, 0]);
    assert_eq!(guest.list_filesystems().expect("readable").len(), 2);
}

#[test] // After shutdown the handle is as new, and its settings stay.
fn shutdown_gives_the_handle_back() {
    let dir = tempdir();
    let image = disk(dir.path(), "disk.img", 8);
    run_ok("mke2fs", ["-q", "-F", text(&image)]);
    let mut guest = Guest::new();
    guest.set_memsize(512).expect("enough");
    for _ in 0..2 {
        guest.add_drive_ro(text(&image)).expect("it is there");
        guest.launch().expect("it opens");
        guest.mount("/dev/sda".into(), "/".into()).expect("it mounts");
        assert!(guest.is_ready().expect("a handle"));
        guest.shutdown().expect("it closes");
        assert!(guest.is_config().expect("a handle"));
        assert_eq!(guest.mounts().expect("none"), Vec::<String>::new());
        assert!(guest.list_devices().is_err());
    }
    assert_eq!(guest.get_memsize().expect("it stays"), 512);
}

#[test] // Times and counts, as an API and as a call.
fn metrics_count_what_was_read() {
    let dir = tempdir();
    let image = disk(dir.path(), "disk.img", 8);
    run_ok("mke2fs", ["-q", "-F", text(&image)]);
    let mut guest = Guest::new();
    guest.add_drive_ro(text(&image)).expect("it is there");
    guest.launch().expect("it opens");
    let before = guest.metrics();
    guest.pread_device("/dev/sda".into(), 3 << 20, 0).expect("readable");
    let after = guest.metrics();
    assert!(after.bytes_requested >= before.bytes_requested + (3 << 20));
    assert!(after.bytes_read >= 3 << 20 && after.bytes_read <= 8 << 20);
    assert!(after.requests > before.requests && after.read_requests > 0);
    let rows = guest.get_performance_metrics().expect("always there");
    let value = |name: &str| rows.iter().find(|(key, _)| key == name).map(|(_, value)| value.to_string());
    assert_eq!(value("bytes-requested"), Some(after.bytes_requested.to_string()));
    assert!(value("open").is_some_and(|seconds| seconds.parse::<f64>().is_ok_and(|s| s > 0.0)));
}
