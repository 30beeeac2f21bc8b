//! A session of the real program is a transaction: all disks change at its end, or none.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::support::{binary, interruptible, output};

/// Two disks with an ext4 file system on each, one raw and one qcow2.
struct Disks {
    dir: tempfile::TempDir,
    raw: PathBuf,
    qcow2: PathBuf,
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the test's own paths are text")
}

impl Disks {
    fn new() -> Self {
        let dir = testkit::tempdir();
        let (raw, qcow2) = (dir.path().join("one.raw"), dir.path().join("two.qcow2"));
        fs::File::create(&raw).and_then(|file| file.set_len(32 << 20)).expect("an image");
        testkit::run_ok("mke2fs", ["-q", "-t", "ext4", text(&raw)]);
        testkit::run_ok("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", text(&raw), text(&qcow2)]);
        fs::write(dir.path().join("data"), vec![b'x'; 3 << 20]).expect("data");
        Self { dir, raw, qcow2 }
    }

    /// The program with both disks.
    fn command(&self) -> Command {
        let mut command = interruptible();
        command.current_dir(self.dir.path());
        command.args(["--format=raw", "-a", "one.raw", "--format=qcow2", "-a", "two.qcow2"]);
        command
    }

    /// What a script leads to, with the disks mounted on /a and /b.
    fn script(&self, options: &[&str], script: &str) -> Output {
        let mut child = self.start(options);
        send(&mut child, script);
        drop(child.stdin.take());
        child.wait_with_output().expect("the output")
    }

    /// The program, waiting for a script.
    fn start(&self, options: &[&str]) -> Child {
        let mut command = self.command();
        command.args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        send(&mut child, "run\nmkmountpoint /a\nmkmountpoint /b\nmount /dev/sda /a\nmount /dev/sdb /b\n");
        child
    }

    /// How large a file is on both disks; `None` where it is not.
    fn sizes(&self, name: &str) -> [Option<String>; 2] {
        ["sda", "sdb"].map(|device| {
            let done = output(self.command().args([
                "--ro",
                "-m",
                &format!("/dev/{device}"),
                "filesize",
                &format!("/{name}"),
            ]));
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(done.status.success() || said.contains("no such file"), "{said}");
            done.status.success().then(|| String::from_utf8_lossy(&done.stdout).trim().to_owned())
        })
    }

    /// Fails unless both images and file systems are clean.
    fn check(&self) {
        testkit::run_ok("qemu-img", ["check", "-q", "-f", "qcow2", text(&self.qcow2)]);
        let copy = self.dir.path().join("copy.raw");
        testkit::run_ok("qemu-img", ["convert", "-O", "raw", text(&self.qcow2), text(&copy)]);
        for image in [&self.raw, &copy] {
            testkit::run_ok("e2fsck", ["-fn", text(image)]);
        }
        fs::remove_file(copy).expect("the copy goes");
    }

    fn bytes(&self) -> [Vec<u8>; 2] {
        [&self.raw, &self.qcow2].map(|image| fs::read(image).expect("the image"))
    }

    /// What is beside the images.
    fn journals(&self) -> usize {
        let names = fs::read_dir(self.dir.path()).expect("a directory");
        names.filter(|name| text(&name.as_ref().expect("a name").path()).contains("vmcraft-journal")).count()
    }
}

fn send(child: &mut Child, script: &str) {
    // A program that ended does not read on.
    let _ = child.stdin.as_mut().expect("a pipe").write_all(script.as_bytes());
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const CHANGE: &str = "upload data /a/file\nupload data /b/file\n";

#[test] // What a second handle changes would not be in the file.
fn reopen_is_refused_while_an_undo_file_is_kept() {
    let disks = Disks::new();
    let done = disks.script(&["--undo", "before.undo"], "write /a/x 1\nreopen\n");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!done.status.success() && said.contains("reopen: not with --undo"), "{said}");
    assert_eq!(disks.sizes("x"), [None, None]);
}

#[test]
fn a_session_that_goes_well_changes_all_disks() {
    let disks = Disks::new();
    let done = disks.script(&[], CHANGE);
    assert!(done.status.success(), "{}", errors(&done));
    assert_eq!(disks.sizes("file"), [Some("3145728".into()), Some("3145728".into())]);
    assert_eq!(disks.journals(), 0);
    disks.check();
}

#[test] // What is not written is said, with the images.
fn a_script_that_fails_changes_nothing_after_its_last_commit() {
    let disks = Disks::new();
    let start = disks.bytes();
    let done = disks.script(&[], &format!("{CHANGE}cat /a/nonesuch\nwrite /a/later x\n"));
    assert_eq!(done.status.code(), Some(1));
    let said = errors(&done);
    assert!(said.contains("was not written to one.raw, two.qcow2"), "{said}");
    assert!(disks.bytes() == start, "an image was changed");
    let done = disks.script(&[], "write /a/early x\nsync\nwrite /b/late x\ncat /a/nonesuch\n");
    assert!(errors(&done).contains("was not written to two.qcow2"), "{}", errors(&done));
    assert_eq!(disks.sizes("early"), [Some("1".into()), None]);
    assert_eq!(disks.sizes("late"), [None, None]);
    let done = disks.script(&["--commit-on-error"], "write /b/kept xy\ncat /a/nonesuch\n");
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(disks.sizes("kept"), [None, Some("2".into())]);
    disks.check();
}

#[test] // It was said twice, and is an end that writes nothing.
fn an_interruption_is_said_once() {
    let disks = Disks::new();
    let start = disks.bytes();
    let mut child = disks.start(&["-x"]);
    send(&mut child, "write /a/x y\nsleep 1000\n");
    let mut said = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    // From here on, ^C ends the call and not the process.
    while !line.contains("trace: sleep") {
        line.clear();
        assert_ne!(said.read_line(&mut line).expect("text"), 0, "no sleep");
    }
    testkit::run_ok("kill", ["-INT", &child.id().to_string()]);
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("text");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    assert_eq!(rest.matches("error: interrupted").count(), 1, "{rest}");
    assert!(rest.contains("was not written to one.raw"), "{rest}");
    assert!(disks.bytes() == start, "an image was changed");
}

#[test] // The process ended at once, and said nothing.
fn an_interruption_between_two_commands_is_as_one_in_a_command() {
    let disks = Disks::new();
    let start = disks.bytes();
    let script = disks.dir.path().join("script");
    testkit::run_ok("mkfifo", [text(&script)]);
    for (options, until) in [
        (&["-x"][..], "trace: write = "),
        (&["-x", "-f", "script"], "trace: write = "),
        // It reads what never comes.
        (&["-x", "--run", "write /x y", "--run", "upload - /later"], "trace: upload"),
    ] {
        let mut command = disks.command();
        command.args(["-m", "/dev/sda:/"]).args(options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let fifo = options.contains(&"-f").then(|| fs::File::options().write(true).open(&script));
        let mut fifo = fifo.transpose().expect("a pipe");
        match &mut fifo {
            Some(fifo) => fifo.write_all(b"write /x y\n").expect("a pipe"),
            None if options.contains(&"--run") => {}
            None => send(&mut child, "write /x y\n"),
        }
        let mut said = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        while !line.contains(until) {
            line.clear();
            assert_ne!(said.read_line(&mut line).expect("text"), 0, "{options:?}: no {until}");
        }
        testkit::run_ok("kill", ["-INT", &child.id().to_string()]);
        let mut rest = String::new();
        // The script is not at its end.
        said.read_to_string(&mut rest).expect("text");
        assert_eq!(child.wait().expect("it ends").code(), Some(130), "{options:?}: {rest}");
        assert_eq!(rest.matches("error: interrupted").count(), 1, "{options:?}: {rest}");
        assert!(rest.contains("was not written to one.raw"), "{options:?}: {rest}");
        assert!(disks.bytes() == start, "{options:?}: an image was changed");
    }
}

#[test]
fn a_session_can_be_tried_and_taken_back() {
    let disks = Disks::new();
    let start = disks.bytes();
    for (options, script) in [
        (&["--dry-run"][..], CHANGE),
        (&["--no-sync"], CHANGE),
        (&["--ro"], "-write /a/x y\n"),
        (&[], "upload data /a/file\nrollback\nls /a\n"),
    ] {
        let done = disks.script(options, script);
        assert!(done.status.success(), "{options:?}: {}", errors(&done));
        assert!(disks.bytes() == start, "{options:?}: an image was changed");
        assert!(!String::from_utf8_lossy(&done.stdout).contains("file"), "{options:?}");
    }
    let done = disks.script(&["--undo", "undo"], &format!("{CHANGE}sync\nrm /a/file\nwrite /b/file x\n"));
    assert!(done.status.success(), "{}", errors(&done));
    assert_eq!(disks.sizes("file"), [None, Some("1".into())]);
    let undone = output(Command::new(binary()).current_dir(disks.dir.path()).args(["undo", "undo"]));
    assert!(undone.status.success(), "{}", errors(&undone));
    assert!(disks.bytes()[0] == start[0], "the raw image is not as before");
    assert_eq!(disks.sizes("file"), [None, None]);
    disks.check();
}

#[test] // One writer at a time, be it QEMU or another session.
fn an_image_in_use_is_refused_for_writing() {
    let disks = Disks::new();
    let mut session = disks.start(&[]);
    send(&mut session, "echo ready\n");
    let mut ready = [0; 5];
    session.stdout.as_mut().expect("a pipe").read_exact(&mut ready).expect("the session is ready");
    let other = disks.script(&[], "");
    assert_eq!(other.status.code(), Some(1));
    let said = errors(&other);
    assert!(said.contains("in use by another process") && said.contains("--ro"), "{said}");
    let qemu = testkit::run("qemu-io", ["-f", "qcow2", "-c", "write 0 512", text(&disks.qcow2)]);
    assert!(!qemu.status.success() && errors(&qemu).contains("lock"), "{qemu:?}");
    assert_eq!(disks.sizes("file"), [None, None], "--ro looks at it");
    send(&mut session, CHANGE);
    drop(session.stdin.take());
    assert!(session.wait().expect("the session ends").success());
    assert_eq!(disks.sizes("file")[1].as_deref(), Some("3145728"));
}

#[test] // `kill -9` at any moment: both disks have the file, or none.
fn a_session_that_is_killed_changes_all_or_nothing() {
    let disks = Disks::new();
    for round in 0..16u64 {
        let name = format!("file-{round}");
        let mut child = disks.start(&[]);
        let change =
            format!("upload data /a/{name}\nupload data /b/{name}\nsync\nrm /a/{name}\nrm /b/{name}\n");
        send(&mut child, &change);
        drop(child.stdin.take());
        std::thread::sleep(Duration::from_millis(round * 37 % 500));
        child.kill().expect("it is killed");
        child.wait().expect("it is gone");
        // Who only looks sees what the disks become.
        let shown = disks.sizes(&name);
        assert_eq!(shown[0], shown[1], "round {round}");
        let opened = output(disks.command().arg("run"));
        assert!(opened.status.success(), "{}", errors(&opened));
        assert_eq!(disks.sizes(&name), shown, "round {round}");
        assert_eq!(disks.journals(), 0);
        let copy = disks.dir.path().join("copy.raw");
        testkit::run_ok("qemu-img", ["convert", "-O", "raw", text(&disks.qcow2), text(&copy)]);
        for image in [&disks.raw, &copy] {
            testkit::run_ok("e2fsck", ["-fn", text(image)]);
        }
    }
}
