//! Locks: QEMU and we keep each other off.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use vmcraft_block::Error;
use vmcraft_block::image::{self, Format, OpenOptions};

use crate::support::{given, open, options, refusal, text};

/// A `qemu-io` that has an image open, until dropped.
struct QemuIo(Child);

impl QemuIo {
    fn open(path: &Path, format: &str, flags: &[&str]) -> Self {
        let mut child = Command::new(testkit::require("qemu-io"))
            .args(["-f", format])
            .args(flags)
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The answer to a command shows that the image is open.
        child.stdin.as_mut().unwrap().write_all(b"length\n").unwrap();
        let mut answer = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        while !answer.contains("MiB") {
            assert!(output.read_line(&mut answer).unwrap() > 0, "qemu-io ended: {answer}");
        }
        child.stdout = Some(output.into_inner());
        Self(child)
    }
}

impl Drop for QemuIo {
    fn drop(&mut self) {
        // It ends when its input does.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn create(dir: &Path, format: &str) -> std::path::PathBuf {
    let path = dir.join(format!("disk.{format}"));
    testkit::run_ok("qemu-img", ["create", "-q", "-f", format, text(&path), "4M"]);
    path
}

fn writable(format: &str) -> OpenOptions {
    OpenOptions { read_only: false, ..given(format.parse().unwrap()) }
}

#[test]
fn an_image_that_qemu_writes_is_refused() {
    let dir = testkit::tempdir();
    for format in ["raw", "qcow2"] {
        let path = create(dir.path(), format);
        let qemu = QemuIo::open(&path, format, &[]);
        for options in [options(), writable(format)] {
            let error = image::open(text(&path), &options).err().expect("a refusal");
            let said = error.to_string();
            assert!(matches!(error, Error::InUse { .. }), "{said}");
            assert!(said.contains("in use by another process") && said.contains("--ro"), "{said}");
        }
        let anyway = OpenOptions { allow_in_use: true, ..options() };
        let image = image::open(text(&path), &anyway).unwrap();
        assert!(image.warnings[0].contains("open for writing"), "{:?}", image.warnings);
        let writing = OpenOptions { allow_in_use: true, ..writable(format) };
        assert!(refusal(&path, &writing).contains("in use"), "{format}: never for writing");
        drop(qemu);
        assert_eq!(open(&path).warnings, [] as [&str; 0]);
    }
}

#[test]
fn an_image_that_qemu_reads_can_be_read_but_not_written() {
    let dir = testkit::tempdir();
    let path = create(dir.path(), "qcow2");
    let _qemu = QemuIo::open(&path, "qcow2", &["-r"]);
    assert_eq!(open(&path).warnings, [] as [&str; 0]);
    assert!(refusal(&path, &writable("qcow2")).contains("does not share the \"write\" lock"));
}

#[test]
fn qemu_is_refused_what_we_have_open() {
    let dir = testkit::tempdir();
    let path = create(dir.path(), "raw");
    let read_write = |path: &Path| testkit::run("qemu-io", ["-f", "raw", "-c", "write 0 512", text(path)]);
    let image = open(&path);
    let said = read_write(&path);
    assert!(String::from_utf8_lossy(&said.stderr).contains("Failed to get \"write\" lock"), "{said:?}");
    drop(image);
    assert!(read_write(&path).status.success());

    let image = image::open(text(&path), &writable("raw")).unwrap();
    let info = testkit::run("qemu-io", ["-r", "-f", "raw", "-c", "read 0 512", text(&path)]);
    // A raw image open for reading bears a writer, as QEMU has it; another writer is refused.
    assert!(info.status.success());
    let said = read_write(&path);
    assert!(String::from_utf8_lossy(&said.stderr).contains("lock"), "{said:?}");
    assert!(!said.status.success());
    drop(image);
}

#[test] // A base that a guest still writes to is no base.
fn backing_files_are_locked_as_well() {
    let dir = testkit::tempdir();
    let base = create(dir.path(), "raw");
    let top = dir.path().join("top.qcow2");
    testkit::run_ok("qemu-img", ["create", "-q", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", text(&top)]);
    let qemu = QemuIo::open(&base, "raw", &[]);
    let said = refusal(&top, &options());
    assert!(said.contains("disk.raw: the image is in use"), "{said}");
    drop(qemu);
    let _image = open(&top);
    assert!(refusal(&base, &writable("raw")).contains("in use"));
    assert_eq!(open(&base).format, Format::Raw);
}
