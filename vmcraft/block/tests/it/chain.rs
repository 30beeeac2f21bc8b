//! Files that an image names.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use vmcraft_block::Error;
use vmcraft_block::image::{self, Format, OpenOptions};

use crate::support::{open, options, refusal, text, write_file};

/// Creates an image with this backing file, which need not exist.
fn overlay(path: &Path, backing: &str, format: Option<&str>) {
    let mut arguments = vec!["create", "-q", "-u", "-f", "qcow2", "-b", backing];
    // qemu-img wants a format; without one it is taken out of the header afterwards.
    arguments.extend(["-F", format.unwrap_or("qcow2"), text(path), "1M"]);
    testkit::run_ok("qemu-img", arguments);
    if format.is_none() {
        let mut bytes = std::fs::read(path).unwrap();
        let kind = 0xe279_2acau32.to_be_bytes();
        let at = bytes.windows(4).position(|window| window == kind).expect("a backing format");
        // An extension of an unknown kind is skipped.
        bytes[at..at + 4].copy_from_slice(&0x1234_5678u32.to_be_bytes());
        std::fs::write(path, bytes).unwrap();
    }
}

fn base(dir: &Path) -> PathBuf {
    write_file(dir, "base.raw", &[5; 1 << 20])
}

#[test] // What is opened has been asked for, with what the image says and where it leads.
fn the_gate_is_asked_before_a_file_is_opened() {
    let dir = testkit::tempdir();
    base(dir.path());
    let (middle, top) = (dir.path().join("middle.qcow2"), dir.path().join("top.qcow2"));
    overlay(&middle, "./base.raw", Some("raw"));
    overlay(&top, "middle.qcow2", Some("qcow2"));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let gate = move |reference: &image::Reference<'_>| {
        log.lock().unwrap().push((
            reference.image.to_owned(),
            reference.named.to_owned(),
            reference.resolved.to_owned(),
            reference.role,
        ));
        Ok(())
    };
    image::open(text(&top), &OpenOptions { gate: Arc::new(gate), ..options() }).unwrap();
    let asked = asked.lock().unwrap().clone();
    let row = |image: &Path, named: &str| {
        (text(image).to_owned(), named.to_owned(), dir.path().join(named), "backing file")
    };
    assert_eq!(asked, [row(&top, "middle.qcow2"), row(&middle, "./base.raw")]);
}

#[test] // A disk that somebody uploaded must not show the host's files.
fn a_closed_gate_keeps_files_shut() {
    let dir = testkit::tempdir();
    let top = dir.path().join("top.qcow2");
    overlay(&top, "/etc/passwd", Some("raw"));
    let said =
        refusal(&top, &OpenOptions { gate: Arc::new(|_| Err("not in its directory".into())), ..options() });
    assert_eq!(
        said,
        format!("{}: refers to \"/etc/passwd\", which was not opened: not in its directory", text(&top))
    );
    // The default lets nothing through.
    let said = refusal(&top, &OpenOptions::default());
    assert!(said.contains("which was not opened"), "{said}");
    let data = dir.path().join("data.qcow2");
    let file = dir.path().join("data.raw");
    let creation = format!("data_file={}", text(&file));
    testkit::run_ok("qemu-img", ["create", "-q", "-f", "qcow2", "-o", &creation, text(&data), "1M"]);
    let gate = |reference: &image::Reference<'_>| Err(format!("no {}", reference.role));
    let said = refusal(&data, &OpenOptions { gate: Arc::new(gate), ..options() });
    assert!(said.ends_with("was not opened: no data file"), "{said}");
}

#[test]
fn chains_that_loop_are_refused() {
    let dir = testkit::tempdir();
    let (a, b) = (dir.path().join("a.qcow2"), dir.path().join("b.qcow2"));
    overlay(&a, "a.qcow2", Some("qcow2"));
    assert!(refusal(&a, &options()).contains("the backing chain loops"));
    overlay(&a, "b.qcow2", Some("qcow2"));
    // By another name of the same file.
    std::fs::hard_link(&a, dir.path().join("link.qcow2")).unwrap();
    overlay(&b, "link.qcow2", Some("qcow2"));
    assert!(refusal(&a, &options()).contains("the backing chain loops"));
}

#[test] // The same base under two disks is no loop; nor is a long chain.
fn long_chains_open_up_to_a_limit() {
    let dir = testkit::tempdir();
    base(dir.path());
    overlay(&dir.path().join("0"), "base.raw", Some("raw"));
    let template = std::fs::read(dir.path().join("0")).unwrap();
    let at = template.windows(8).position(|window| window == b"base.raw").unwrap();
    let format = template.windows(3).position(|window| window == b"raw").unwrap();
    for number in 1..=260 {
        let mut bytes = template.clone();
        bytes[at..at + 8].copy_from_slice(format!("./{:06}", number - 1).as_bytes());
        bytes[format..format + 3].copy_from_slice(b"qco");
        // The format's name becomes longer: its length is just before it, padded to eight bytes.
        bytes[format..format + 5].copy_from_slice(b"qcow2");
        bytes[format - 1] = 5;
        std::fs::write(dir.path().join(format!("{number:06}")), bytes).unwrap();
    }
    std::fs::rename(dir.path().join("0"), dir.path().join("000000")).unwrap();
    let image = open(&dir.path().join("000254"));
    let mut buf = [0; 4096];
    image.device.read_at(0, &mut buf).unwrap();
    assert_eq!(buf, [5; 4096]);
    let said = refusal(&dir.path().join("000260"), &options());
    assert!(said.contains("more than 256 images"), "{said}");
}

#[test] // As QEMU does: a probe, and a word about it.
fn a_backing_file_without_format_is_probed_with_a_warning() {
    let dir = testkit::tempdir();
    base(dir.path());
    let top = dir.path().join("top.qcow2");
    overlay(&top, "base.raw", None);
    let image = open(&top);
    assert_eq!(image.format, Format::Qcow2);
    let [warning] = &image.warnings[..] else { panic!("{:?}", image.warnings) };
    assert!(warning.contains("\"base.raw\", which was taken for raw"), "{warning}");
    assert!(warning.contains("qemu-img rebase -u -F raw"), "{warning}");
}

#[test]
fn missing_backing_files_name_both_images() {
    let dir = testkit::tempdir();
    let top = dir.path().join("top.qcow2");
    overlay(&top, "gone.qcow2", Some("qcow2"));
    let error = image::open(text(&top), &options()).err().expect("a refusal");
    assert!(matches!(error, Error::Within { .. }));
    let said = error.to_string();
    assert!(said.contains("top.qcow2") && said.contains("gone.qcow2: cannot open: No such file"), "{said}");
    overlay(&top, "nbd://example.net/disk", Some("raw"));
    assert!(refusal(&top, &options()).contains("the protocol \"nbd\" is not followed"));
    overlay(&top, "base.raw", Some("qcow2"));
    base(dir.path());
    let mut bytes = std::fs::read(&top).unwrap();
    let at = bytes.windows(5).position(|window| window == b"qcow2").expect("a backing format");
    bytes[at..at + 5].copy_from_slice(b"florp");
    std::fs::write(&top, bytes).unwrap();
    assert!(refusal(&top, &options()).contains("\"florp\" is not a disk image format"));
}
