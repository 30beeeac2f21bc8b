//! Making disks: `-N`, `virt-format` and `virt-make-fs`, judged by the tools of others.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use testkit::{run_ok, tempdir};

use crate::support::{binary, named, output};

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// Runs a command that succeeds, and gives what it printed.
fn succeed(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command that fails, and gives what it said.
fn fail(command: &mut Command) -> String {
    let output = output(command);
    assert!(!output.status.success(), "{command:?} should fail");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test] // guestfish's own commands for it; a size without a unit is in KiB.
fn blank_disks_are_made_by_commands() {
    let dir = tempdir();
    let guestfish = named("guestfish", dir.path());
    let run = |words: &[&str]| {
        let mut command = Command::new(&guestfish);
        command.args(words).current_dir(dir.path());
        command
    };
    let said = succeed(&mut run(&["alloc", "a.img", "3M", ":", "sparse", "b.img", "5000", ":", "run", ":"]
        .into_iter()
        .chain(["blockdev-getsize64", "/dev/sda", ":", "blockdev-getsize64", "/dev/sdb"])
        .collect::<Vec<_>>()));
    assert_eq!(said, "3145728\n5120000\n");
    let blocks = |name: &str| fs::metadata(dir.path().join(name)).expect("made").blocks();
    assert!(blocks("a.img") >= (3 << 20) / 512 && blocks("b.img") == 0);
    let late = fail(&mut run(&["sparse", "c.img", "1M", ":", "run", ":", "alloc", "d.img", "1M"]));
    assert!(late.contains("alloc: disks are added before") && !dir.path().join("d.img").exists(), "{late}");
    let wrong = fail(&mut run(&["sparse", "e.img", "much"]));
    assert!(wrong.contains("sparse: \"much\" is not a size"), "{wrong}");
}

#[test] // The files have the names that guestfish gives them, and what is written to them stays.
fn prepared_disks_are_made_before_the_first_command() {
    let dir = tempdir();
    let script = [
        "-m",
        "/dev/sda1",
        "write",
        "/hello",
        "world",
        ":",
        "list-filesystems",
        ":",
        "part-list",
        "/dev/sdb",
    ];
    let said = succeed(
        Command::new(named("guestfish", dir.path()))
            .args([
                "-N",
                "fs:ext4:64M",
                "-N",
                "other.img=bootroot:ext2:ext4:300M:100M:gpt",
                "-N",
                "part:8M:gpt",
            ])
            .args(["-N", "disk:1M"])
            .args(script)
            .current_dir(dir.path()),
    );
    for part in
        ["/dev/sda1: ext4", "/dev/sdb1: ext2", "/dev/sdb2: ext4", "/dev/sdc1: unknown", "part_start: 32768"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(fs::metadata(dir.path().join("test4.img")).expect("made").len(), 1 << 20);
    for image in ["other.img", "test3.img"] {
        let said = run_ok("sgdisk", ["-v", text(&dir.path().join(image))]);
        assert!(said.contains("No problems found"), "{said}");
    }
    let partition = dir.path().join("partition");
    let part = |option: &str| {
        format!(
            "{option}={}",
            text(&if option == "if" { dir.path().join("test1.img") } else { partition.clone() })
        )
    };
    run_ok("dd", [part("if"), part("of"), "bs=64K".into(), "skip=1".into(), "status=none".into()]);
    run_ok("e2fsck", ["-fn", text(&partition)]);
    assert_eq!(run_ok("debugfs", ["-R", "cat /hello", text(&partition)]), "world");
}

#[test]
fn prepared_disks_have_logical_volumes() {
    let dir = tempdir();
    let guestfish = named("guestfish", dir.path());
    let volume = dir.path().join("volume");
    let script = ["lvs", ":", "list-filesystems", ":", "download", "/dev/b/root", text(&volume)];
    let said = succeed(
        Command::new(&guestfish)
            .args(["-N", "lv:/dev/a/v:32M", "-N", "bootrootlv:/dev/b/root:ext2:ext4:64M:16M:gpt"])
            .args(["-N", "lvfs:/dev/VG/LV:ext3:48M"])
            .args(script)
            .current_dir(dir.path()),
    );
    assert_eq!(
        said,
        "/dev/VG/LV\n/dev/a/v\n/dev/b/root\n/dev/sdb1: ext2\n/dev/VG/LV: ext3\n/dev/a/v: unknown\n/dev/b/root: ext4\n"
    );
    run_ok("e2fsck", ["-fn", text(&volume)]);
    // What LVM itself makes of the second disk's physical volume, which begins behind the first partition.
    let partition = dir.path().join("partition");
    let skip = format!("skip={}", 64 + (16 << 20) / 512);
    let (from, to) =
        (format!("if={}", text(&dir.path().join("test2.img"))), format!("of={}", text(&partition)));
    run_ok("dd", [from.as_str(), &to, "bs=512", &skip, "status=none"]);
    let metadata = run_ok("pvck", ["--dump", "metadata", text(&partition)]);
    assert!(metadata.contains("root {") && metadata.contains("id = "), "{metadata}");
}

#[test]
fn virt_format_makes_logical_volumes() {
    let dir = tempdir();
    let image = dir.path().join("disk.qcow2");
    run_ok("qemu-img", ["create", "-q", "-f", "qcow2", text(&image), "256M"]);
    let format = named("virt-format", dir.path());
    let list =
        || succeed(Command::new(binary()).args(["--ro", "-a", text(&image), "run", ":", "list-filesystems"]));
    succeed(Command::new(&format).args(["--lvm", "--filesystem=ext4", "-a", text(&image)]));
    assert_eq!(list(), "/dev/VG/LV: ext4\n");
    // Over what was there before, under another name.
    succeed(Command::new(&format).args([
        "--lvm=/dev/x/y",
        "--partition=none",
        "--filesystem=ext2",
        "-a",
        text(&image),
    ]));
    assert_eq!(list(), "/dev/x/y: ext2\n");
    run_ok("qemu-img", ["check", "-q", text(&image)]);
}

#[test]
fn prepared_disks_that_cannot_be_made_are_refused() {
    let dir = tempdir();
    let guestfish = named("guestfish", dir.path());
    let run = |what: &str| fail(Command::new(&guestfish).args(["-N", what, "exit"]).current_dir(dir.path()));
    assert!(run("nonsense").contains("there is no kind \"nonsense\""));
    assert!(run("lvfs:VG/LV").contains("no name of a logical volume such as /dev/VG/LV"));
    assert!(run("fs:ext4:1X").contains("size: \"1X\" is not a size"));
    assert!(run("disk:1G:mbr").contains("one parameter too many"));
    assert!(run("fs:vfat:64M").contains("vfat"));
    let help = succeed(Command::new(&guestfish).args(["-N", "help"]));
    assert!(help.contains("-N bootroot:<bootfs>:<rootfs>:<size>:<bootsize>:<partition>"), "{help}");
}

#[test]
fn virt_format_makes_blank_disks() {
    let dir = tempdir();
    let image = dir.path().join("disk.qcow2");
    run_ok("qemu-img", ["create", "-q", "-f", "qcow2", text(&image), "1G"]);
    run_ok("qemu-io", ["-c", "write -P 7 0 200M", text(&image)]);
    let format = named("virt-format", dir.path());
    let vmcraft = |call: &[&str]| {
        succeed(Command::new(binary()).args(["--ro", "-a", text(&image), "run", ":"]).args(call))
    };
    succeed(Command::new(&format).args(["--filesystem=ext4", "--label=data", "-a", text(&image)]));
    assert_eq!(vmcraft(&["list-filesystems"]), "/dev/sda1: ext4\n");
    assert_eq!(vmcraft(&["vfs-label", "/dev/sda1", ":", "part-get-parttype", "/dev/sda"]), "data\nmsdos\n");
    succeed(Command::new(&format).args(["--partition=gpt", "-a", text(&image)]));
    assert_eq!(
        vmcraft(&["list-filesystems", ":", "part-get-parttype", "/dev/sda"]),
        "/dev/sda1: unknown\ngpt\n"
    );
    succeed(Command::new(&format).args(["--partition=none", "--filesystem=ext2", "-a", text(&image)]));
    assert_eq!(vmcraft(&["list-filesystems"]), "/dev/sda: ext2\n");
    succeed(Command::new(&format).args(["--wipe", "--partition=none", "-a", text(&image)]));
    run_ok("qemu-io", ["-r", "-c", "read -P 0 0 1G", text(&image)]);
    run_ok("qemu-img", ["check", "-q", text(&image)]);
    for (options, why) in [
        (&["--lvm=LV"][..], "no name of a logical volume such as /dev/VG/LV"),
        (&["--filesystem=ntfs"], "ntfs"),
        (&["--label=x"], "no file system to label"),
        (&["--partition=bsd"], "bsd"),
    ] {
        let said = fail(Command::new(&format).args(["-a", text(&image)]).args(options));
        assert!(said.contains(why), "{said}");
    }
    assert!(fail(&mut Command::new(&format)).contains("no disk was given"));
}

/// A tree with several kinds of files.
fn tree(dir: &Path) -> std::path::PathBuf {
    let tree = dir.join("tree");
    let script = "mkdir -p tree/sub/deep && cd tree && seq 1 200000 > numbers && ln -s numbers link && ln numbers sub/hard \
                  && mkfifo pipe && truncate -s 1G sparse && setfattr -n user.one -v 1 numbers && chmod 2750 sub \
                  && for i in $(seq 1 3000); do echo $i > sub/deep/$i; done";
    run_ok("bash", ["-c".as_ref(), format!("cd {} && {script}", text(dir)).as_ref() as &std::ffi::OsStr]);
    tree
}

#[test] // The image has room for all that it was made for, and the kernel's tools find nothing wrong.
fn virt_make_fs_packs_directories_and_archives() {
    let dir = tempdir();
    let tree = tree(dir.path());
    let archive = dir.path().join("tree.tar.gz");
    run_ok("tar", ["-C", text(&tree), "-Sczf", text(&archive), "."]);
    let make_fs = named("virt-make-fs", dir.path());
    for (input, kind) in [(&tree, "ext2"), (&tree, "ext4"), (&archive, "ext3")] {
        let image = dir.path().join("image");
        succeed(Command::new(&make_fs).args(["-t", kind, "--label=files", text(input), text(&image)]));
        run_ok("e2fsck", ["-fn", text(&image)]);
        // What an archive lists of a sparse file is its size with the holes.
        let limit = if input == &tree { 64 << 20 } else { 2 << 30 };
        assert!(image.metadata().expect("made").len() < limit, "{kind}: no space is wasted");
        let blkid = run_ok("blkid", ["-p", text(&image)]);
        assert!(blkid.contains(&format!(" TYPE=\"{kind}\"")) && blkid.contains("LABEL=\"files\""), "{blkid}");
        let numbers = run_ok("debugfs", ["-R", "cat /sub/hard", text(&image)]);
        assert_eq!(numbers.as_bytes(), fs::read(tree.join("numbers")).expect("there"));
        let stat = run_ok("debugfs", ["-R", "stat /numbers", text(&image)]);
        assert!(stat.contains("Links: 2"), "{stat}");
        assert!(run_ok("debugfs", ["-R", "cat /sub/deep/3000", text(&image)]).contains("3000"));
    }
    let image = dir.path().join("disk.qcow2");
    let options = ["--format=qcow2", "--partition=gpt", "--size=300M", "--type=ext4"];
    succeed(Command::new(&make_fs).args(options).args([text(&tree), text(&image)]));
    run_ok("qemu-img", ["check", "-q", text(&image)]);
    assert!(run_ok("qemu-img", ["info", text(&image)]).contains("(314572800 bytes)"));
    let said = succeed(Command::new(binary()).args([
        "--ro",
        "-a",
        text(&image),
        "-m",
        "/dev/sda1",
        "getxattr",
        "/numbers",
        "user.one",
    ]));
    assert_eq!(said, "1");
}

#[test] // Half an image is not left behind.
fn virt_make_fs_says_what_does_not_fit() {
    let dir = tempdir();
    let tree = tree(dir.path());
    let make_fs = named("virt-make-fs", dir.path());
    let image = dir.path().join("image");
    for (options, why) in [
        (&["--size=2M"][..], "space"),
        (&["--type=btrfs"], "btrfs"),
        (&["--floppy"], "FAT"),
        (&["--size=1X"], "not a size"),
        (&["--format=vmdk"], "vmdk"),
        (&["--partition=mac"], "mac"),
    ] {
        let said = fail(Command::new(&make_fs).args(options).args([text(&tree), text(&image)]));
        assert!(said.contains(why), "{options:?}: {said}");
        assert!(!image.exists(), "{options:?}");
    }
    // What is mistyped costs nobody the image of before.
    fs::write(&image, "of before").expect("room");
    for option in ["--type=btrfs", "--size=1X", "--format=vmdk", "--partition=mac", "--partition=bsd"] {
        fail(Command::new(&make_fs).arg(option).args([text(&tree), text(&image)]));
        assert_eq!(fs::read(&image).expect("there"), b"of before", "{option}");
    }
    fs::remove_file(&image).expect("own file");
    let broken = dir.path().join("broken.tar");
    File::create(&broken).and_then(|file| file.set_len(10_000)).expect("room");
    fs::write(&broken, [7; 10_000]).expect("room");
    assert!(fail(Command::new(&make_fs).args([text(&broken), text(&image)])).contains("broken.tar"));
    assert!(fail(Command::new(&make_fs).args(["/nonexistent", text(&image)])).contains("/nonexistent"));
}

#[test]
fn vmcraft_disk_create_makes_images() {
    let dir = tempdir();
    let create = |words: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["disk", "create"]).args(words).current_dir(dir.path());
        command
    };
    succeed(&mut create(&["-f", "qcow2", "--cluster-size=128K", "base.qcow2", "1G"]));
    succeed(&mut create(&["-f", "qcow2", "-b", "base.qcow2", "overlay.qcow2"]));
    succeed(&mut create(&["disk.raw", "10M"]));
    assert_eq!(fs::metadata(dir.path().join("disk.raw")).expect("made").len(), 10 << 20);
    let info = run_ok("qemu-img", ["info", text(&dir.path().join("overlay.qcow2"))]);
    assert!(info.contains("(1073741824 bytes)") && info.contains("backing file: base.qcow2"), "{info}");
    assert!(fail(&mut create(&["disk.raw", "10X"])).contains("not a size"));
    assert!(fail(&mut create(&["-f", "vmdk", "disk.vmdk", "10M"])).contains("vmdk"));
}
