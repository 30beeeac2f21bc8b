//! The `qemu-nbd` child: that it ends with us, whatever happens, and leaves nothing behind.
//!
//! Some of these tests run this test program once more, as another process, which they can kill: the
//! ignored test `holder` is what runs there.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vmcraft_block::BlockDevice;
use vmcraft_block::image::{self, OpenOptions};

use crate::support::{mixed_disk, open, options, text, write_file};

const IMAGE: &str = "VMCRAFT_TEST_HOLD";
const WRITABLE: &str = "VMCRAFT_TEST_HOLD_WRITABLE";
/// How long to wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// The processes that have an image in their arguments and are named `qemu-nbd`.
fn children_of(image: &Path) -> Vec<Pid> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&read("cmdline")).into_owned();
        // A zombie has no arguments.
        if read("comm") == b"qemu-nbd\n" && arguments.contains(text(image)) {
            found.push(Pid::from_raw(pid));
        }
    }
    found
}

fn child_of(image: &Path) -> Pid {
    let children = children_of(image);
    assert_eq!(children.len(), 1, "{children:?}");
    children[0]
}

/// Fails unless the image's children are gone before long.
fn assert_gone(image: &Path) {
    let until = Instant::now() + PATIENCE;
    while !children_of(image).is_empty() {
        assert!(Instant::now() < until, "the child still runs");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn vdi(dir: &Path) -> PathBuf {
    let raw = write_file(dir, "raw", &mixed_disk(30, 1 << 20));
    let path = dir.join("disk.vdi");
    testkit::run_ok("qemu-img", ["convert", "-f", "raw", "-O", "vdi", text(&raw), text(&path)]);
    path
}

/// Not a test: what runs in the process that is killed.
#[test]
#[ignore = "run by other tests, in a process of its own"]
fn holder() {
    let Some(path) = std::env::var_os(IMAGE) else { return };
    let read_only = std::env::var_os(WRITABLE).is_none();
    match image::open(path.to_str().unwrap(), &OpenOptions { read_only, ..options() }) {
        Ok(image) => {
            println!("\nopen {}", image.device.size());
            std::io::stdin().read_line(&mut String::new()).unwrap();
        }
        Err(e) => println!("\nfailed {e}"),
    }
}

/// Starts a process that holds the image open, and gives the line that it says.
fn hold(path: &Path, change: impl FnOnce(&mut Command)) -> (Child, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "qemu_nbd_child::holder", "--ignored", "--nocapture"]);
    command.env(IMAGE, path).stdin(Stdio::piped()).stdout(Stdio::piped());
    change(&mut command);
    let mut process = command.spawn().unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let said =
        lines.map(Result::unwrap).find(|line| line.starts_with("open ") || line.starts_with("failed "));
    (process, said.expect("the holder says how it went"))
}

#[test]
fn child_ends_when_the_image_is_dropped() {
    let dir = testkit::tempdir();
    let path = vdi(dir.path());
    for read_only in [true, false] {
        let image = image::open(text(&path), &OpenOptions { read_only, ..options() }).unwrap();
        child_of(&path);
        drop(image);
        assert_eq!(children_of(&path), []);
    }
}

#[test] // Not even a child that is stopped, and so takes no notice of a closed socket, stays.
fn child_ends_when_we_are_killed() {
    let dir = testkit::tempdir();
    let path = vdi(dir.path());
    for writable in [false, true] {
        let (mut holder, said) = hold(&path, |command| {
            if writable {
                command.env(WRITABLE, "1");
            }
        });
        assert!(said.starts_with("open"), "{said}");
        let child = child_of(&path);
        // A stopped process dies by SIGKILL only.
        if !writable {
            kill(child, Signal::SIGSTOP).unwrap();
        }
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert_gone(&path);
    }
}

#[test] // The signal is tied to the thread that started the child, which is not the opener's.
fn child_outlives_the_thread_that_opened_the_image() {
    let dir = testkit::tempdir();
    let path = vdi(dir.path());
    let opener = path.clone();
    let image = std::thread::spawn(move || open(&opener)).join().unwrap();
    let mut buf = vec![0; 4096];
    for offset in (0..1 << 20).step_by(4096) {
        image.device.read_at(offset, &mut buf).unwrap();
    }
    child_of(&path);
}

#[test] // Neither the socket's directory nor anything else is in the way or left behind.
fn nothing_is_left_in_the_temporary_directory() {
    let dir = testkit::tempdir();
    let path = vdi(dir.path());
    let temporary = dir.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let (mut holder, said) = hold(&path, |command| _ = command.env("TMPDIR", &temporary));
    assert!(said.starts_with("open"), "{said}");
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
    drop(holder.stdin.take());
    holder.wait().unwrap();
    assert_gone(&path);
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
}

#[test]
fn missing_program_is_named_with_its_package() {
    let dir = testkit::tempdir();
    let path = vdi(dir.path());
    let programs = dir.path().join("bin");
    std::fs::create_dir(&programs).unwrap();
    std::os::unix::fs::symlink("/bin/sh", programs.join("sh")).unwrap();
    let (mut holder, said) = hold(&path, |command| _ = command.env("PATH", &programs));
    holder.wait().unwrap();
    assert!(
        said.contains("the program qemu-nbd, which is not installed; its package is qemu-utils"),
        "{said}"
    );
}

#[test] // QEMU without the driver of a protocol says so; we add where to get it.
fn missing_driver_is_named_with_its_package() {
    let dir = testkit::tempdir();
    let programs = dir.path().join("bin");
    std::fs::create_dir(&programs).unwrap();
    let script = write_file(
        &programs,
        "qemu-nbd",
        b"#!/bin/sh\necho \"qemu-nbd: Unknown driver 'https'\" >&2\nexit 1\n",
    );
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("/bin/sh", programs.join("sh")).unwrap();
    let uri = Path::new("https://me:secret@localhost/disk.img");
    let (mut holder, said) = hold(uri, |command| _ = command.env("PATH", &programs));
    holder.wait().unwrap();
    assert_eq!(
        said,
        "failed https://me:***@localhost/disk.img: not supported: Unknown driver 'https'; QEMU's drivers for \
         remote disks are in the package qemu-block-extra (Debian, Ubuntu), qemu-block-* (Fedora, openSUSE)"
    );
}

#[test] // Whoever reads when the child dies learns how it died.
fn killed_child_is_an_error_of_all_later_reads() {
    let dir = testkit::tempdir();
    let path = vdi(dir.path());
    let image = image::open(text(&path), &OpenOptions { cache_bytes: 0, ..options() }).unwrap();
    image.device.read_at(0, &mut [0; 512]).unwrap();
    kill(child_of(&path), Signal::SIGKILL).unwrap();
    let error = image.device.read_at(600_000, &mut [0; 512]).unwrap_err();
    let says = "qemu-nbd: the server closed the connection; it was ended by SIGKILL";
    assert!(error.to_string().contains(says), "{error}");
    assert!(image.device.read_at(700_000, &mut [0; 512]).is_err());
}
