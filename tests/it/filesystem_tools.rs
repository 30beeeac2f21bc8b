//! The calls that change a file system as a whole, from the command line: afterwards `e2fsck` is
//! content, and the kernel finds in it what was there before.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use testkit::{run, run_ok};

use crate::support::{binary, named};

const MIB: u64 = 1 << 20;

fn text(path: &Path) -> &str {
    path.to_str().expect("test paths are UTF-8")
}

/// A disk with a file system that holds a tree.
struct Disk {
    dir: tempfile::TempDir,
    image: PathBuf,
    tree: PathBuf,
}

impl Disk {
    /// An image of `mib` MiB, in all of which `mke2fs` makes a file system with the tree.
    fn new(mib: u64, options: &[&str]) -> Self {
        let dir = testkit::tempdir();
        let (image, tree) = (dir.path().join("disk.img"), dir.path().join("tree"));
        make_tree(&tree);
        File::create(&image).and_then(|file| file.set_len(mib * MIB)).expect("an image");
        let made = ["-q", "-F", "-d", text(&tree)].into_iter().chain(options.iter().copied());
        run_ok("mke2fs", made.chain([text(&image)]));
        Self { dir, image, tree }
    }

    /// What commands print that must succeed.
    fn shell(&self, commands: &str) -> String {
        let (is_done, said, error) = self.try_shell(commands);
        assert!(is_done, "{commands}: {error}");
        said
    }

    /// The message with which one of the commands fails, which changes nothing.
    fn refusal(&self, commands: &str) -> String {
        let before = fs::read(&self.image).expect("the image");
        let (is_done, _, error) = self.try_shell(commands);
        assert!(!is_done, "{commands} succeeded");
        assert!(fs::read(&self.image).expect("the image") == before, "{commands} changed something");
        error
    }

    fn try_shell(&self, commands: &str) -> (bool, String, String) {
        use std::io::Write;
        let mut command = Command::new(binary());
        command.args(["--format=raw", "-a"]).arg(&self.image);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(format!("run\n{commands}\n").as_bytes()).expect("written");
        drop(input);
        let done = child.wait_with_output().expect("its output");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.success(), text(&done.stdout), text(&done.stderr))
    }

    fn assert_unharmed(&self) {
        assert_unharmed(&self.image, &self.tree, self.dir.path());
    }

    /// What `dumpe2fs -h` says under a name.
    fn field(&self, name: &str) -> String {
        field(&self.image, name)
    }

    fn file_system_bytes(&self) -> u64 {
        let number = |name| self.field(name).parse::<u64>().expect("a number");
        number("Block count") * number("Block size")
    }
}

/// Files of several sizes in several directories.
fn make_tree(tree: &Path) {
    for directory in ["a", "b/c/d", "empty"] {
        fs::create_dir_all(tree.join(directory)).expect("a directory");
    }
    for number in 0..300_usize {
        let directory = tree.join(["a", "b", "b/c/d"][number % 3]);
        let bytes: Vec<u8> = (0..=250).cycle().step_by(number + 1).take(number * 97).collect();
        fs::write(directory.join(format!("file {number}")), bytes).expect("a file");
    }
    std::os::unix::fs::symlink("../b/c", tree.join("a/link")).expect("a link");
}

fn field(image: &Path, name: &str) -> String {
    let dump = run_ok("dumpe2fs", ["-h", text(image)]);
    let value = dump.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("{name} is not in {dump}")).trim().to_owned()
}

/// `e2fsck` finds nothing, and the kernel reads the tree.
fn assert_unharmed(image: &Path, tree: &Path, dir: &Path) {
    let checked = run("e2fsck", ["-fn", text(image)]);
    assert!(checked.status.success(), "{checked:?}");
    if !testkit::have_root() {
        testkit::skip("that the kernel reads it: mounting needs root");
        return;
    }
    let mount = dir.join("mount");
    fs::create_dir_all(&mount).expect("a directory");
    run_ok("mount", ["-o", "loop,ro", text(image), text(&mount)]);
    let compared =
        run("diff", ["-r", "--no-dereference", "-x", "lost+found", "-x", "swap", text(tree), text(&mount)]);
    run_ok("umount", [text(&mount)]);
    assert!(compared.status.success(), "{compared:?}");
}

#[test]
fn resize2fs_shrinks_and_grows_a_file_system_with_files() {
    for options in [&["-t", "ext4"][..], &["-t", "ext3", "-b", "1024"], &["-t", "ext2", "-b", "2048"]] {
        let disk = Disk::new(96, options);
        let least: u64 = disk.shell("vfs-minimum-size /dev/sda").trim().parse().expect("bytes");
        assert!(least < 40 * MIB, "{least}");
        disk.shell(&format!("resize2fs-size /dev/sda {}", 64 * MIB));
        assert_eq!(disk.file_system_bytes(), 64 * MIB);
        disk.assert_unharmed();
        disk.shell("resize2fs-M /dev/sda");
        let small = disk.file_system_bytes();
        assert!(small <= least, "{options:?}: {small} is more than {least}");
        disk.assert_unharmed();
        // It says itself that it cannot be made smaller still, and grows back.
        assert!(disk.shell("vfs-minimum-size /dev/sda").trim().parse::<u64>().expect("bytes") <= small);
        let said = disk.refusal(&format!("resize2fs-size /dev/sda {}", small / 2));
        assert!(said.contains("/dev/sda"), "{said}");
        disk.shell("resize2fs /dev/sda");
        assert_eq!(disk.file_system_bytes(), 96 * MIB);
        disk.assert_unharmed();
    }
}

#[test]
fn check_finds_nothing_in_a_sound_file_system_and_names_what_is_wrong_in_another() {
    let disk = Disk::new(32, &["-t", "ext4"]);
    assert_eq!(disk.shell("check /dev/sda"), "");
    assert_eq!(disk.shell("fsck ext4 /dev/sda").trim(), "0");
    disk.shell("e2fsck /dev/sda");
    disk.assert_unharmed();
    // A file that is in use, and free in the inode bitmap.
    run_ok("debugfs", ["-w", "-R", "freei /a/link", text(&disk.image)]);
    let found = disk.shell("check /dev/sda");
    assert!(found.contains("inode"), "{found}");
    let said = disk.refusal("e2fsck /dev/sda");
    assert!(said.contains("/dev/sda"), "{said}");
}

#[test]
fn labels_and_uuids_are_set() {
    let disk = Disk::new(32, &["-t", "ext4"]);
    disk.shell(
        "set-label /dev/sda \"new label\"\nset-uuid /dev/sda 9f2b0a3e-5a39-4a0f-8a5e-3f4f6f0c2f11\n\
         mount /dev/sda /\nwrite /a/added text\nrm /a/added",
    );
    assert_eq!(disk.field("Filesystem volume name"), "new label");
    assert_eq!(disk.field("Filesystem UUID"), "9f2b0a3e-5a39-4a0f-8a5e-3f4f6f0c2f11");
    disk.assert_unharmed();
    disk.shell("set-uuid-random /dev/sda");
    assert_ne!(disk.field("Filesystem UUID"), "9f2b0a3e-5a39-4a0f-8a5e-3f4f6f0c2f11");
    disk.assert_unharmed();
    let said = disk.refusal("set-label /dev/sda \"a label of more than 16 bytes\"");
    assert!(said.contains("16 bytes"), "{said}");
    let said = disk.refusal("set-uuid /dev/sda nonsense");
    assert!(said.contains("nonsense"), "{said}");
}

#[test]
fn virt_resize_expands_the_file_system_with_its_partition() {
    let disk = Disk::new(48, &["-t", "ext4", "-L", "root"]);
    let (old, new) = (disk.dir.path().join("old.img"), disk.dir.path().join("new.qcow2"));
    File::create(&old).and_then(|file| file.set_len(64 * MIB)).expect("an image");
    run_ok(
        "bash",
        [
            "-c",
            "printf 'label: gpt\\nstart=2048, size=16384\\nstart=18432, size=98304\\n' | sfdisk -q \"$1\" &&
            dd if=\"$2\" of=\"$1\" bs=512 seek=18432 conv=notrunc,sparse status=none",
            "bash",
            text(&old),
            text(&disk.image),
        ],
    );
    run_ok("qemu-img", ["create", "-q", "-f", "qcow2", text(&new), "160M"]);
    let program = named("virt-resize", disk.dir.path());
    let arguments =
        ["--format", "raw", "--output-format", "qcow2", "--expand", "/dev/sda2", text(&old), text(&new)];
    run_ok(text(&program), arguments);
    run_ok("qemu-img", ["check", "-q", text(&new)]);
    let (raw, partition) = (disk.dir.path().join("new.img"), disk.dir.path().join("partition.img"));
    run_ok("qemu-img", ["convert", "-O", "raw", text(&new), text(&raw)]);
    let dump = run_ok("sfdisk", ["-d", text(&raw)]);
    let line = dump.lines().find(|line| line.contains("new.img2")).expect("a second partition");
    let value = |name: &str| -> u64 {
        let (_, rest) = line.split_once(name).expect("a field");
        rest.split(',').next().and_then(|value| value.trim().parse().ok()).expect("a number")
    };
    let (start, size) = (value("start="), value("size="));
    assert!(size > 140 * 2048, "{line}");
    let copy = format!("dd if=\"$1\" of=\"$2\" bs=512 skip={start} count={size} conv=sparse status=none");
    run_ok("bash", ["-c", &copy, "bash", text(&raw), text(&partition)]);
    let blocks: u64 = field(&partition, "Block count").parse().expect("a number");
    let block: u64 = field(&partition, "Block size").parse().expect("a number");
    assert_eq!(blocks * block, size * 512 / block * block, "the file system fills its partition");
    assert_eq!(field(&partition, "Filesystem volume name"), "root");
    assert_unharmed(&partition, &disk.tree, disk.dir.path());
}

#[test]
fn tune2fs_changes_what_tune2fs_shows() {
    let disk = Disk::new(32, &["-t", "ext4", "-L", "data"]);
    disk.shell(
        "tune2fs /dev/sda maxmountcount:25 mountcount:3 errorbehavior:panic intervalbetweenchecks:86400 \
         reservedblockspercentage:1 user:5 group:root lastmounteddirectory:/srv",
    );
    for (name, value) in [
        ("Maximum mount count", "25"),
        ("Mount count", "3"),
        ("Errors behavior", "Panic"),
        ("Check interval", "86400 (1 day)"),
        ("Last mounted on", "/srv"),
    ] {
        assert_eq!(disk.field(name), value);
    }
    assert_eq!(disk.field("Reserved blocks uid"), "5 (user games)");
    let blocks: u64 = disk.field("Block count").parse().expect("a number");
    assert_eq!(disk.field("Reserved block count"), (blocks / 100).to_string());
    disk.assert_unharmed();
    // On a mounted one, too.
    disk.shell("mount /dev/sda /\nwrite /new text\ntune2fs /dev/sda reservedblockscount:0\nrm /new");
    assert_eq!(disk.field("Reserved block count"), "0");
    disk.assert_unharmed();
    let shown = disk.shell("tune2fs-l /dev/sda");
    assert!(
        shown.contains("Filesystem volume name: data\n") && shown.contains("Reserved block count: 0\n"),
        "{shown}"
    );
    for (options, problem) in [
        ("", "at least one"),
        ("errorbehavior:burn", "remount-ro"),
        ("user:alice", "/etc/passwd"),
        ("mountcount:16001", "16000"),
        ("reservedblockspercentage:60", "half"),
        ("reservedblockspercentage:1 reservedblockscount:1", "give one"),
    ] {
        let said = disk.refusal(&format!("tune2fs /dev/sda {options}"));
        assert!(said.contains(problem), "{said}");
    }
}

#[test]
fn a_swap_file_is_one_for_the_kernels_tools() {
    let disk = Disk::new(32, &["-t", "ext4"]);
    disk.shell("mount /dev/sda /\nfallocate64 /swap 8M\nmkswap-file /swap\nchmod 0600 /swap");
    disk.assert_unharmed();
    let swap = disk.dir.path().join("swap");
    run_ok("debugfs", ["-R", &format!("dump /swap {}", text(&swap)), text(&disk.image)]);
    let seen = run_ok("blkid", ["-p", "-o", "export", text(&swap)]);
    assert!(seen.contains("TYPE=swap") && seen.contains("VERSION=1"), "{seen}");
    let said = disk.refusal("mount /dev/sda /\nfallocate64 /small 8192\nmkswap-file /small");
    assert!(said.contains("40 KiB"), "{said}");
}
