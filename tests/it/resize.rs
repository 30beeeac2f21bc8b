//! `virt-resize`: what it prints is what the real one prints, and the new disk holds what the old one held.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use testkit::{run_ok, tempdir};

use crate::support::{binary, named, output};

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// The disks of `make-disks.sh`, and the program.
struct Disks {
    dir: tempfile::TempDir,
    program: PathBuf,
}

impl Disks {
    fn new() -> Self {
        let dir = tempdir();
        for tool in ["sfdisk", "mke2fs"] {
            testkit::require(tool);
        }
        let recipe = testkit::workspace().join("tests/golden/resize/make-disks.sh");
        run_ok("bash", [recipe.as_os_str(), dir.path().as_os_str()]);
        let program = named("virt-resize", dir.path());
        Self { dir, program }
    }

    fn old(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new disk of `mib` MiB with random bytes, and the command that resizes onto it.
    fn resize(&self, old: &str, mib: u64, options: &[&str]) -> (PathBuf, std::process::Output) {
        let new = self.dir.path().join("new.img");
        File::create(&new).and_then(|file| file.set_len(mib << 20)).expect("room");
        // What was on the disk before must not show.
        run_ok("qemu-io", ["-f", "raw", "-c", &format!("write -q -P 0x5a 0 {mib}M"), text(&new)]);
        let done = output(Command::new(&self.program).args(options).arg(self.old(old)).arg(&new));
        (new, done)
    }

    fn succeed(&self, old: &str, mib: u64, options: &[&str]) -> (PathBuf, String) {
        let (new, done) = self.resize(old, mib, options);
        assert!(done.status.success(), "{options:?}: {}", String::from_utf8_lossy(&done.stderr));
        (new, String::from_utf8_lossy(&done.stdout).into_owned())
    }
}

/// Compares with what the real tool printed.
fn compare(name: &str, printed: &str) {
    let golden = testkit::workspace().join("tests/golden/resize").join(name).with_extension("out");
    let lines =
        printed.lines().map(|line| match line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((_, rest)) if rest.starts_with(" Examining") => "[] Examining INDISK".to_owned(),
            Some((_, rest)) if rest.contains(" on ") => {
                "[] Setting up initial partition table on OUTDISK".to_owned()
            }
            Some((_, rest)) => format!("[]{rest}"),
            None => line.to_owned(),
        });
    let ours: String = lines.map(|line| line + "\n").collect();
    assert_eq!(ours, fs::read_to_string(golden).expect("what virt-resize printed"), "{name}");
}

/// A line for each partition, as `sfdisk` dumps it: number, start, size, type and flags.
fn partitions(image: &Path) -> Vec<String> {
    let dump = run_ok("sfdisk", ["-d", text(image)]);
    let lines = dump.lines().filter_map(|line| line.strip_prefix(text(image)));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// The bytes of sectors of an image.
fn sectors(image: &Path, start: usize, count: usize) -> Vec<u8> {
    fs::read(image).expect("there")[start * 512..(start + count) * 512].to_vec()
}

#[test]
fn what_is_printed_is_what_virt_resize_prints() {
    let disks = Disks::new();
    let (new, said) = disks.succeed("primary.img", 128, &["--colours", "--wrap"]);
    compare("surplus", &said);
    assert_eq!(
        partitions(&new),
        [
            "1 : start= 2048, size= 32768, type=83, bootable",
            "2 : start= 34816, size= 20480, type=82",
            "3 : start= 55296, size= 75776, type=83",
            "4 : start= 131072, size= 131008, type=83"
        ]
    );
    let old = disks.old("primary.img");
    assert!(
        sectors(&new, 1, 131_071) == sectors(&old, 1, 131_071),
        "partitions and boot loader are the same"
    );
    assert_eq!(sectors(&new, 0, 1)[..0x1be], sectors(&old, 0, 1)[..0x1be], "boot code and signature stay");

    let (new, said) = disks.succeed(
        "primary.img",
        128,
        &["--delete", "/dev/sda2", "--ignore", "/dev/sda1", "--no-extra-partition"],
    );
    compare("delete", &said);
    // The number stays, so that what names the partition in the guest does not come to mean another.
    assert_eq!(partitions(&new)[1], "3 : start= 34816, size= 75776, type=83");
    assert!(sectors(&new, 34_816, 75_776) == sectors(&old, 55_296, 75_776));

    let (new, said) = disks.succeed("primary.img", 128, &["--expand", "/dev/sda2"]);
    compare("expand-swap", &said);
    assert_eq!(partitions(&new)[2], "3 : start= 183808, size= 75776, type=83");
    assert!(sectors(&new, 183_808, 75_776) == sectors(&old, 55_296, 75_776));
}

#[test] // It copied a disk on which half of a commit was.
fn a_commit_that_was_cut_off_is_copied_whole() {
    let disks = Disks::new();
    let old = disks.old("primary.img");
    let before = sectors(&old, 0, 131_072);
    let other = disks.old("other.img");
    fs::copy(&old, &other).expect("room");
    // The journal is small enough for this limit, and the place in the image is behind it.
    let script =
        "ulimit -f 32768; trap '' XFSZ; exec \"$0\" -a \"$1\" run : pwrite-device /dev/sda3 cut-off 30M";
    let cut = output(Command::new("bash").args(["-c", script, text(&binary()), text(&old)]));
    assert!(!cut.status.success(), "the commit is not cut off");
    assert!(sectors(&old, 0, 131_072) == before, "the image was written");

    // Where it would be written to, nothing is done that was only asked about.
    let journal = old.with_extension("img.vmcraft-journal");
    let journalled = fs::read(&journal).expect("a journal");
    let asked =
        output(Command::new(&disks.program).args(["-n", "-q", "--delete", "/dev/sda2"]).args([&other, &old]));
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    assert!(fs::read(&journal).expect("the journal") == journalled, "the journal was changed");
    assert!(sectors(&old, 0, 131_072) == before, "the image was written");

    let (new, done) = disks.resize("primary.img", 128, &["-q"]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success() && said.contains("an earlier session was cut off"), "{said}");
    assert!(sectors(&new, 55_296 + (30 << 11), 1).starts_with(b"cut-off"));
    assert!(sectors(&old, 0, 131_072) == before, "the old disk was changed");
}

#[test] // Its place was not used, and was missing for the partition that grows.
fn another_partition_gets_the_space_of_a_first_one_that_is_deleted() {
    let disks = Disks::new();
    let (new, _) = disks.succeed("primary.img", 64, &["--delete", "/dev/sda1", "--expand", "/dev/sda3"]);
    let found = partitions(&new);
    assert_eq!(found[0], "2 : start= 2048, size= 20480, type=82");
    assert!(found[1].starts_with("3 : start= 22528, size= 10"), "{found:?}");
}

#[test] // Logical partitions are part of the extended one, and move with it.
fn extended_partitions_keep_what_is_in_them() {
    let disks = Disks::new();
    let old = disks.old("logical.img");
    let (new, said) = disks.succeed("logical.img", 128, &["--expand", "/dev/sda2"]);
    compare("extended", &said);
    assert_eq!(
        partitions(&new)[1..],
        [
            "2 : start= 34816, size= 224896, type=5",
            "5 : start= 36864, size= 20480, type=82",
            "6 : start= 59392, size= 71680, type=83"
        ]
    );
    let (new, _) = disks.succeed(
        "logical.img",
        128,
        &["--resize", "sda1=+50%", "--no-expand-content", "--no-extra-partition", "-q"],
    );
    assert_eq!(
        partitions(&new)[1..3],
        ["2 : start= 51200, size= 96256, type=5", "5 : start= 53248, size= 20480, type=82"]
    );
    assert!(sectors(&new, 75_776, 71_680) == sectors(&old, 59_392, 71_680));
    run_ok("sfdisk", ["-V", text(&new)]);
}

#[test] // Numbers, GUIDs, names and attributes are what boot loaders and guests know partitions by.
fn a_gpt_keeps_its_identities() {
    let disks = Disks::new();
    let old = disks.old("gpt.img");
    File::create(&old).and_then(|file| file.set_len(64 << 20)).expect("room");
    run_ok(
        "sgdisk",
        [
            "-n",
            "14:2048:+4M",
            "-t",
            "14:ef02",
            "-n",
            "15:0:+16M",
            "-t",
            "15:ef00",
            "-c",
            "15:esp",
            "-n",
            "1:0:0",
            "-A",
            "1:set:2",
            text(&old),
        ],
    );
    run_ok("qemu-io", ["-f", "raw", "-c", "write -q -P 9 22M 1M", text(&old)]);
    let (new, _) = disks.succeed("gpt.img", 256, &["--expand", "/dev/sda1"]);
    let said = run_ok("sgdisk", ["-v", text(&new)]);
    assert!(said.contains("No problems found"), "{said}");
    let identity = |image: &Path| {
        let dump = run_ok("sfdisk", ["-d", text(image)]);
        let lines = dump.lines().filter_map(|line| line.strip_prefix(text(image)));
        let mut found: Vec<String> = lines
            .map(|line| format!("{} {}", &line[..3], &line[line.find("type=").expect("a type")..]))
            .collect();
        found.extend(dump.lines().filter(|line| line.starts_with("label-id")).map(str::to_owned));
        found
    };
    assert_eq!(identity(&new), identity(&old));
    run_ok("qemu-io", ["-r", "-f", "raw", "-c", "read -P 9 22M 1M", text(&new)]);
}

#[test]
fn logical_volumes_are_expanded_with_their_partition() {
    let disks = Disks::new();
    let guestfish = named("guestfish", disks.dir.path());
    let made = output(
        Command::new(&guestfish)
            .args([
                "-N",
                "old.img=lvfs:/dev/vg/root:ext4:64M",
                "-m",
                "/dev/vg/root",
                "write",
                "/hello",
                "world",
            ])
            .current_dir(disks.dir.path()),
    );
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let (new, said) =
        disks.succeed("old.img", 160, &["--expand", "/dev/sda1", "--lv-expand", "/dev/vg/root"]);
    for part in [
        "The LVM PV on /dev/sda1 will be expanded using the ‘pvresize’ method.",
        "/dev/vg/root: This logical volume will be expanded to maximum size.",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let volume = disks.dir.path().join("volume");
    let script = ["cat", "/hello", ":", "umount-all", ":", "download", "/dev/vg/root", text(&volume)];
    let seen = output(
        Command::new(&guestfish)
            .args(["--ro", "--format=raw", "-a", text(&new), "-m", "/dev/vg/root"])
            .args(script),
    );
    assert_eq!(String::from_utf8_lossy(&seen.stdout), "world\n", "{}", String::from_utf8_lossy(&seen.stderr));
    run_ok("e2fsck", ["-fn", text(&volume)]);
    let size = fs::metadata(&volume).expect("downloaded").len();
    assert!(size > 150 << 20, "{size}");
}

#[test]
fn what_cannot_be_done_is_refused_before_anything_is_written() {
    let disks = Disks::new();
    for (mib, options, why) in [
        (60, &[][..], "There is a deficit of 5537792 bytes (5.3M)."),
        (48, &["--shrink", "/dev/sda3"], "has an ext4 file system of 38797312 bytes"),
        (128, &["--resize", "/dev/sda3=10M"], "has an ext4 file system of 38797312 bytes"),
        (128, &["--shrink", "/dev/sda3"], "there is no deficit"),
        (128, &["--expand", "/dev/sda9"], "/dev/sda9: partition not found"),
        (128, &["--resize", "/dev/sda1"], "PART=SIZE"),
        (128, &["--resize", "/dev/sda1=big"], "not a size"),
        (128, &["--delete", "/dev/sda1", "--expand", "/dev/sda1"], "several options"),
        (128, &["--lv-expand", "/dev/VG/LV"], "the disk has no such logical volume"),
        (128, &["--format", "floppy"], "floppy"),
    ] {
        let (new, done) = disks.resize("primary.img", mib, options);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && said.contains(why), "{options:?}: {said}");
        assert_eq!(sectors(&new, 0, 1), [0x5a; 512], "{options:?}");
    }
    // What stands for another process in its lock is not what is wrong.
    let old = disks.old("primary.img");
    let done = output(Command::new(&disks.program).arg(&old).arg(&old));
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(!done.status.success() && said.contains("the new disk is the old one"), "{said}");
    let (new, _) = disks.succeed("primary.img", 128, &["-n", "--resize-force", "/dev/sda3=10M"]);
    assert_eq!(sectors(&new, 0, 1), [0x5a; 512], "a dry run writes nothing");
    let (new, _) = disks.succeed("primary.img", 60, &["--resize-force", "/dev/sda3=10M"]);
    assert_eq!(partitions(&new)[2], "3 : start= 55296, size= 20480, type=83");
}

#[test] // What virt-resize 1.48 prints, line for line, but for the marks of time and what is copied at once.
fn programs_are_told_what_happens() {
    let disks = Disks::new();
    let run = |options: &[&str]| output(Command::new(&disks.program).args(options));
    let features = run(&["--machine-readable"]);
    assert!(features.status.success());
    let features = String::from_utf8_lossy(&features.stdout).into_owned();
    assert_eq!(
        features.lines().collect::<Vec<_>>(),
        ["virt-resize", "32bitok", "128-sector-alignment", "alignment", "align-first", "infile-uri"]
    );
    for (options, why) in [
        (&["--machine-readable=json"][..], "not of the form fd:N, file:NAME"),
        (&["--machine-readable", "one.img"], "2 values required"),
        (
            &["--machine-readable=fd:999", "one.img", "two.img"],
            "--machine-readable: descriptor 999 is not open",
        ),
        (&[], "required arguments were not provided"),
    ] {
        let done = run(options);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && said.contains(why), "{options:?}: {said}");
    }

    let (_, said) = disks.succeed("primary.img", 128, &["--machine-readable", "--expand", "/dev/sda3"]);
    let (json, others): (Vec<_>, Vec<_>) = said.lines().partition(|line| line.starts_with('{'));
    let told: Vec<_> = json.iter().map(|line| message(line)).collect();
    let of = |at: usize| told[at].1.as_str();
    assert_eq!(told[0].0, "message");
    assert!(of(0).starts_with("Examining "), "{told:?}");
    assert_eq!((told[1].0.as_str(), of(1)), ("info", "/dev/sda1: This partition will be left alone."));
    assert_eq!(of(told.len() - 2), "Expanding /dev/sda3 using the ‘resize2fs’ method");
    assert!(of(told.len() - 1).starts_with("Resize operation completed with no errors."), "{told:?}");
    // Each is among the lines for people too.
    for (_, said) in &told {
        assert!(others.iter().any(|line| line.ends_with(said.as_str())), "{said}");
    }
    // The last word on each partition is that all of it was copied.
    assert!(others.contains(&"38797312/38797312"), "{said}");

    // People and programs can have streams of their own.
    let log = disks.dir.path().join("log");
    let to_log = format!("--machine-readable=file:{}", text(&log));
    let (_, done) = disks.resize("primary.img", 60, &["--quiet", &to_log]);
    assert!(!done.status.success());
    let log = fs::read_to_string(&log).expect("made");
    let last = message(log.lines().last().expect("lines"));
    assert_eq!(last.0, "error");
    assert!(last.1.starts_with("There is a deficit of 5537792 bytes"), "{log}");
    assert!(done.stdout.is_empty());
}

#[test] // It was opened by its name in /proc, which sockets do not have.
fn programs_are_told_through_descriptors_of_any_kind() {
    let disks = Disks::new();
    let features = |end: OwnedFd| {
        // The shell gives it the number.
        let script = "exec \"$0\" --machine-readable=fd:3 3>&0 </dev/null";
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).arg(&disks.program).stdin(end).output().expect("the shell starts")
    };
    let (socket, mut from_socket) = UnixStream::pair().expect("sockets");
    let (mut from_pipe, pipe) = io::pipe().expect("a pipe");
    for (end, other) in
        [(OwnedFd::from(socket), &mut from_socket as &mut dyn Read), (OwnedFd::from(pipe), &mut from_pipe)]
    {
        let done = features(end);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let mut told = String::new();
        other.read_to_string(&mut told).expect("text");
        assert!(told.starts_with("virt-resize\n") && done.stdout.is_empty(), "{told}");
    }
    // What was written there before stays: both write on from the same place.
    let log = disks.dir.path().join("log");
    let mut file = File::create(&log).expect("a file");
    file.write_all(b"before\n").expect("written");
    assert!(features(file.try_clone().expect("another").into()).status.success());
    file.write_all(b"after\n").expect("written");
    let log = fs::read_to_string(&log).expect("text");
    assert!(log.starts_with("before\nvirt-resize\n") && log.ends_with("infile-uri\nafter\n"), "{log}");
}

/// The type and the text of a message, whose other field is a mark of time.
fn message(line: &str) -> (String, String) {
    let json: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    let field = |name: &str| json[name].as_str().expect("text").to_owned();
    assert_eq!(json.as_object().map(|fields| fields.len()), Some(3), "{line}");
    assert!(field("timestamp").starts_with("20"), "{line}");
    (field("type"), field("message"))
}
