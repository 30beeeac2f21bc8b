//! What is said of an image, against `qemu-img info`.

use std::path::Path;

use serde_json::Value;
use vmcraft_block::image::{self, FormatSpecific, OpenOptions};

use crate::support::{options, qemu_io, text, write_file};

fn create(path: &Path, arguments: &[&str]) {
    let mut all = vec!["create", "-q", "-f", "qcow2"];
    all.extend(arguments);
    all.extend([text(path), "3M"]);
    testkit::run_ok("qemu-img", all);
}

/// What `qemu-img` prints, without what is about its own nodes or a key's slots.
fn qemu_info(path: &Path) -> Value {
    let said = testkit::run_ok("qemu-img", ["info", "-U", "--backing-chain", "--output=json", text(path)]);
    let mut chain: Value = serde_json::from_str(&said).unwrap();
    for image in chain.as_array_mut().unwrap() {
        image.as_object_mut().unwrap().remove("children");
        if let Some(encrypt) = image.pointer_mut("/format-specific/data/encrypt") {
            encrypt.as_object_mut().unwrap().retain(|key, _| key == "format");
        }
    }
    chain
}

#[track_caller]
fn assert_as_qemu(path: &Path) {
    let info = image::info(text(path), &options()).unwrap();
    assert_eq!(serde_json::to_value(&info.chain).unwrap(), qemu_info(path), "{}", path.display());
    assert_eq!(info.warnings, [] as [&str; 0]);
}

#[test]
fn json_is_that_of_qemu_img() {
    let dir = testkit::tempdir();
    let path = |name: &str| dir.path().join(name);
    create(&path("v2"), &["-o", "compat=0.10"]);
    create(&path("plain"), &[]);
    qemu_io(&path("plain"), &["write 0 100k"]);
    create(&path("extended"), &["-o", "extended_l2=on,cluster_size=32k,compression_type=zstd"]);
    create(&path("lazy"), &["-o", "lazy_refcounts=on,refcount_bits=64"]);
    let data = format!("data_file={},data_file_raw=on", text(&path("data.raw")));
    create(&path("data"), &["-o", &data]);
    let secret = ["--object", "secret,id=s,data=x", "-o"];
    let luks = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    create(&path("luks"), &[&secret[..], &[luks]].concat());
    let aes = "encrypt.format=aes,encrypt.key-secret=s";
    create(&path("aes"), &[&secret[..], &[aes]].concat());
    create(&path("snapshots"), &[]);
    testkit::run_ok("qemu-img", ["snapshot", "-c", "first", text(&path("snapshots"))]);
    testkit::run_ok("qemu-img", ["snapshot", "-c", "zw\u{f6}lf", text(&path("snapshots"))]);
    testkit::run_ok("qemu-img", ["bitmap", "--add", "-g", "4k", text(&path("snapshots")), "bits"]);
    write_file(dir.path(), "odd.raw", &[1; 1000]);
    create(&path("middle"), &["-b", "odd.raw", "-F", "raw"]);
    create(&path("top"), &["-b", text(&path("middle")), "-F", "qcow2"]);
    for name in ["v2", "plain", "extended", "lazy", "data", "luks", "aes", "snapshots", "odd.raw", "top"] {
        assert_as_qemu(&path(name));
    }
}

#[test] // What is broken is said, and the rest is shown.
fn unopenable_images_are_described_as_far_as_their_header_goes() {
    let dir = testkit::tempdir();
    let top = dir.path().join("top.qcow2");
    create(&top, &["-u", "-b", "gone.qcow2", "-F", "qcow2"]);
    let info = image::info(text(&top), &options()).unwrap();
    assert_eq!(info.chain.len(), 1);
    assert!(info.warnings[0].contains("gone.qcow2: cannot open"), "{:?}", info.warnings);
    let closed = OpenOptions { gate: std::sync::Arc::new(|_| Err("closed".into())), ..options() };
    assert!(image::info(text(&top), &closed).unwrap().warnings[0].ends_with("not opened: closed"));

    let mut bytes = std::fs::read(&top).unwrap();
    bytes[72] = 0x80; // An incompatible feature of the future.
    bytes[79] = 0x09; // Dirty, and with a compression type,
    bytes[104] = 9; // which nobody knows.
    bytes[60..64].copy_from_slice(&5u32.to_be_bytes()); // Snapshots that are not there.
    bytes[64..72].copy_from_slice(&(1u64 << 40).to_be_bytes());
    let future = write_file(dir.path(), "future.qcow2", &bytes);
    let info = image::info(text(&future), &options()).unwrap();
    assert!(info.chain[0].dirty_flag);
    assert_eq!(info.chain[0].virtual_size, Some(3 << 20));
    let Some(FormatSpecific::Qcow2(qcow2)) = &info.chain[0].format_specific else { panic!("no qcow2") };
    assert_eq!(qcow2.unknown_features, ["bit 63, which the image does not name"]);
    assert_eq!(qcow2.compression_type, "9");
    assert!(info.warnings.iter().any(|w| w.contains("snapshot table")), "{:?}", info.warnings);

    let cut = write_file(dir.path(), "cut.qcow2", &bytes[..90]);
    assert!(image::info(text(&cut), &options()).unwrap_err().to_string().contains("truncated"));
}
