//! Bad input gets a message that says what is wrong, and where.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use testkit::{run_ok, tempdir};

use crate::support::{binary, output, small_guest};

/// Runs `vmcraft ARGUMENTS`, which must fail with status 1, print nothing on standard output, and
/// say all of `parts` on standard error.
fn refused(arguments: &[&str], parts: &[&str]) {
    let done = output(Command::new(binary()).args(arguments));
    let error = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{arguments:?}: {error}");
    assert!(done.stdout.is_empty(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stdout));
    for part in parts {
        assert!(error.contains(part), "{arguments:?}: {part:?} is not in:\n{error}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

fn qcow2_of(image: &Path, options: &[&str]) -> PathBuf {
    let target = image.with_extension("qcow2");
    let mut arguments = vec!["convert", "-f", "raw", "-O", "qcow2"];
    arguments.extend(options);
    arguments.extend([text(image), text(&target)]);
    run_ok("qemu-img", arguments);
    target
}

/// Overwrites bytes of a file.
fn patch(file: &Path, offset: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    fs::File::options()
        .write(true)
        .open(file)
        .expect("the image")
        .write_all_at(bytes, offset)
        .expect("a patched image");
}

#[test]
fn missing_image() {
    refused(
        &["-a", "/nonexistent/disk.qcow2", "-i", "--run", "ls /"],
        &["/nonexistent/disk.qcow2", "No such file"],
    );
}

#[test]
fn directory_instead_of_an_image() {
    let dir = tempdir();
    refused(&["-a", text(dir.path()), "--run", "run"], &[text(dir.path()), "directory"]);
}

#[test]
fn empty_image() {
    let dir = tempdir();
    let image = dir.path().join("empty.img");
    fs::write(&image, "").expect("an empty file");
    refused(&["-a", text(&image), "-i", "--run", "ls /"], &["empty.img", "empty"]);
}

#[test]
fn truncated_qcow2() {
    let dir = tempdir();
    let qcow2 = qcow2_of(&small_guest(dir.path()), &[]);
    for len in [3, 50, 100, 70_000] {
        fs::File::options()
            .write(true)
            .open(&qcow2)
            .and_then(|file| file.set_len(len))
            .expect("a shorter file");
        refused(&["--format=qcow2", "-a", text(&qcow2), "-i", "--run", "ls /"], &["small-guest.qcow2"]);
        fs::remove_file(&qcow2).expect("the image");
        qcow2_of(&dir.path().join("small-guest.img"), &[]);
    }
}

#[test]
fn wrong_format() {
    let dir = tempdir();
    let image = small_guest(dir.path());
    refused(&["--format=qcow2", "-a", text(&image), "--run", "run"], &["small-guest.img", "qcow2"]);
    refused(&["--format=nonesuch", "-a", text(&image), "--run", "run"], &["nonesuch", "format"]);
}

#[test]
fn corrupt_qcow2_header() {
    let dir = tempdir();
    let image = small_guest(dir.path());
    let qcow2 = qcow2_of(&image, &[]);
    patch(&qcow2, 20, &60_u32.to_be_bytes()); // cluster_bits
    refused(&["-a", text(&qcow2), "--run", "run"], &["small-guest.qcow2", "cluster", "0x14"]);
    let qcow2 = qcow2_of(&image, &[]);
    patch(&qcow2, 72, &(1_u64 << 60).to_be_bytes()); // incompatible_features
    refused(&["-a", text(&qcow2), "--run", "run"], &["small-guest.qcow2", "not supported", "60"]);
}

#[test]
fn encrypted_qcow2_is_refused_by_name() {
    let dir = tempdir();
    let image = dir.path().join("secret.qcow2");
    let secret = [
        "--object",
        "secret,id=s,data=abc",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
    ];
    run_ok("qemu-img", ["create", "-q", "-f", "qcow2"].into_iter().chain(secret).chain([text(&image), "1M"]));
    refused(&["-a", text(&image), "--run", "run"], &["secret.qcow2", "encrypt"]);
}

#[test]
fn backing_chain_that_loops() {
    let dir = tempdir();
    let (a, b) = (dir.path().join("a.qcow2"), dir.path().join("b.qcow2"));
    run_ok("qemu-img", ["create", "-q", "-f", "qcow2", text(&a), "1M"]);
    run_ok("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", text(&a), text(&b)]);
    run_ok("qemu-img", ["rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", text(&b), text(&a)]);
    refused(&["-a", text(&a), "--run", "run"], &["a.qcow2", "loop"]);
}

#[test] // An uploaded image must not be able to read the host's files.
fn backing_file_outside_the_images_directory() {
    let dir = tempdir();
    let elsewhere = tempdir();
    let secret = elsewhere.path().join("shadow");
    fs::write(&secret, vec![b's'; 65536]).expect("a file");
    let image = dir.path().join("uploaded.qcow2");
    run_ok("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", text(&secret), text(&image)]);
    refused(&["-a", text(&image), "--run", "run"], &["uploaded.qcow2", text(&secret), "--allow-backing"]);
    let allowed = output(Command::new(binary()).args([
        "-a",
        text(&image),
        "--allow-backing",
        text(elsewhere.path()),
        "--run",
        "run",
    ]));
    assert!(allowed.status.success(), "{}", String::from_utf8_lossy(&allowed.stderr));
    // The directory of a symbolic link is not the only one of its image.
    let beside = elsewhere.path().join("overlay.qcow2");
    run_ok("qemu-img", ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", text(&secret), text(&beside)]);
    let link = dir.path().join("link.qcow2");
    std::os::unix::fs::symlink(&beside, &link).expect("the link can be made");
    let linked = output(Command::new(binary()).args(["-a", text(&link), "--run", "run"]));
    assert!(linked.status.success(), "{}", String::from_utf8_lossy(&linked.stderr));
}

#[test] // No other process is to blame.
fn image_that_is_given_twice() {
    let dir = tempdir();
    let image = small_guest(dir.path());
    let link = dir.path().join("link.img");
    fs::hard_link(&image, &link).expect("the link can be made");
    refused(
        &["-a", text(&image), "-a", text(&link), "run"],
        &["link.img: the image is that of", "small-guest.img"],
    );
}

#[test]
fn image_in_use_by_another_process() {
    let dir = tempdir();
    let image = small_guest(dir.path());
    // qemu-io holds the image open for writing until its standard input ends.
    let mut holder = Command::new(testkit::require("qemu-io"))
        .args(["-f", "raw", text(&image)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("qemu-io");
    // Its prompt says that the image is open.
    let mut prompt = [0; 8];
    std::io::Read::read_exact(holder.stdout.as_mut().expect("a pipe"), &mut prompt).expect("a prompt");
    refused(&["-a", text(&image), "-i", "--run", "ls /"], &["small-guest.img", "in use", "--ro"]);
    let forced =
        output(Command::new(binary()).args(["--ro", "-a", text(&image), "-i", "--run", "cat /etc/hostname"]));
    assert!(forced.status.success(), "{}", String::from_utf8_lossy(&forced.stderr));
    drop(holder.stdin.take());
    holder.wait().expect("qemu-io ends");
}

#[test]
fn partition_beyond_the_end_of_the_disk() {
    let dir = tempdir();
    let image = small_guest(dir.path());
    fs::File::options()
        .write(true)
        .open(&image)
        .and_then(|file| file.set_len(16 << 20))
        .expect("a shorter disk");
    refused(&["-a", text(&image), "--run", "run", "--run", "mount /dev/sda2 /"], &["sda2", "beyond the end"]);
}

#[test]
fn file_system_larger_than_its_partition() {
    let dir = tempdir();
    let image = small_guest(dir.path());
    patch(&image, 446 + 12, &20_000_u32.to_le_bytes()); // the first partition's length in sectors
    refused(&["-a", text(&image), "--run", "run", "--run", "mount /dev/sda1 /"], &["sda1", "larger than"]);
}

#[test]
fn paths_that_lead_nowhere() {
    let dir = tempdir();
    let image = small_guest(dir.path());
    let failing = |call: &str, parts: &[&str]| refused(&["-a", text(&image), "-i", "--run", call], parts);
    failing(
        "cat /etc/nonesuch/deeper/file",
        &["/etc/nonesuch/deeper/file", "no such file", "(at /etc/nonesuch)"],
    );
    failing("cat /etc/hostname/file", &["/etc/hostname/file", "not a directory", "(at /etc/hostname)"]);
    failing("cat /t/loop-a", &["/t/loop-a", "too many levels of symbolic links"]);
    failing("ls /etc/hostname", &["/etc/hostname", "not a directory"]);
    failing("cat /etc", &["/etc", "is a directory"]);
    failing("cat etc/hostname", &["etc/hostname", "must start with /"]);
    failing("cta /etc/hostname", &["cta", "unknown command", "cat"]);
    failing("cat", &["cat", "usage: cat path"]);
    failing("mount /dev/sdz1 /", &["/dev/sdz1", "no such device"]);
}

#[test]
fn interrupted_download_leaves_nothing_under_the_final_name() {
    let dir = tempdir();
    let image = small_guest(dir.path());
    let target = dir.path().join("out");
    fs::write(&target, "what was there").expect("a file");
    // A file-size limit stands in for the disk that fills up half-way.
    let script = format!(
        "ulimit -f 2; trap '' XFSZ; exec {} -a {} -i --run 'download /t/zeros {}'",
        binary().display(),
        image.display(),
        target.display()
    );
    let done = output(Command::new("bash").args(["-c", &script]));
    assert_eq!(done.status.code(), Some(1), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8_lossy(&done.stderr).contains(text(&target)));
    assert_eq!(fs::read_to_string(&target).expect("the old file"), "what was there");
    let names: Vec<_> =
        fs::read_dir(dir.path()).expect("the directory").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn full_standard_output_is_an_error() {
    let dir = tempdir();
    let image = small_guest(dir.path());
    let full = fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let done = Command::new(binary())
        .args(["-a", text(&image), "-i", "--run", "cat /etc/hostname"])
        .stdin(Stdio::null())
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .expect("vmcraft runs");
    assert_eq!(done.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&done.stderr).contains("No space left"),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
}

#[test]
fn broken_pipe_is_quiet() {
    let dir = tempdir();
    let image = small_guest(dir.path());
    let script = format!("{} -a {} -i --run 'find /' | head -n 1", binary().display(), image.display());
    let done = output(Command::new("bash").args(["-c", &script]));
    assert_eq!(String::from_utf8_lossy(&done.stdout), "bin\n");
    assert!(done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
}
