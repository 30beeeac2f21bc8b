//! `vmcraft mount`: a guest's tree through FUSE.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use testkit::{have_root, run, run_ok, tempdir};

use crate::support::{binary, named, output, small_guest};

const LARGE: usize = 5000;
const SPARSE_BYTES: u64 = 8 << 20;

/// An ext4 image with what a mount has to show. All tests share it: none may write it.
fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let dir = tempdir();
        let built = build_image(dir.path());
        // Under nextest every test is a process, and has an image of its own. Nothing runs when a
        // process ends, so the next one takes the images of those that are gone away.
        let shared = Path::new(env!("CARGO_TARGET_TMPDIR"));
        for entry in fs::read_dir(shared).expect("cargo makes it").flatten() {
            let name = entry.file_name().into_string().unwrap_or_default();
            let process = name.strip_prefix("mount-").and_then(|name| name.strip_suffix(".img"));
            if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
                let _ = fs::remove_file(entry.path()); // another test may be quicker
            }
        }
        let image = shared.join(format!("mount-{}.img", std::process::id()));
        run_ok("cp", ["--sparse=always".as_ref(), built.as_os_str(), image.as_os_str()]);
        image
    })
}

fn build_image(dir: &Path) -> PathBuf {
    let tree = dir.join("tree");
    let make = |name: &str| fs::create_dir_all(tree.join(name)).expect("a directory");
    let write = |name: &str, content: &[u8]| fs::write(tree.join(name), content).expect("a file");
    make("large");
    for number in 0..LARGE {
        write(&format!("large/file-{number}"), b"");
    }
    make("secret");
    write("secret/key", b"secret\n");
    fs::set_permissions(tree.join("secret/key"), fs::Permissions::from_mode(0o000)).expect("own file");
    let content: Vec<u8> =
        (0..3_000_000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    write("content", &content);
    fs::hard_link(tree.join("content"), tree.join("same-content")).expect("a link");
    std::os::unix::fs::symlink("secret/key", tree.join("link")).expect("a link");
    run_ok("mkfifo", [tree.join("fifo")]);
    let sparse = File::create(tree.join("sparse")).expect("a file");
    sparse.set_len(SPARSE_BYTES).expect("a sparse file");
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", 4 << 20).expect("space");
    write("new\nline é", b"");
    let image = dir.join("disk.img");
    File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("space");
    let all = ["-q", "-t", "ext4", "-b", "4096", "-d"].map(PathBuf::from);
    run_ok("mke2fs", all.iter().chain([&tree, &image]));
    for request in ["ea_set content user.note value", "ea_set content user.empty \"\""] {
        run_ok("debugfs", ["-w".as_ref(), "-R".as_ref(), request.as_ref(), image.as_os_str()]);
    }
    run_ok("chmod", ["-R".as_ref(), "u+rw".as_ref(), tree.as_os_str()]);
    fs::remove_dir_all(&tree).expect("own files");
    image
}

/// A mounted tree, unmounted with the value.
struct Mounted {
    dir: tempfile::TempDir,
    user: User,
}

/// Who runs the program.
#[derive(Clone)]
struct User {
    /// What stands before the program's name.
    prefix: Vec<String>,
    program: PathBuf,
}

impl User {
    fn own() -> Self {
        Self { prefix: Vec::new(), program: binary() }
    }

    fn command(&self) -> Command {
        let mut words = self.prefix.iter().map(AsRef::as_ref).chain([self.program.as_os_str()]);
        let mut command = Command::new(words.next().expect("at least the program"));
        command.args(words);
        command
    }
}

impl Mounted {
    fn new(arguments: &[&str]) -> Self {
        Self::by(User::own(), arguments, tempdir())
    }

    fn by(user: User, arguments: &[&str], dir: tempfile::TempDir) -> Self {
        let done = output(user.command().arg("mount").args(arguments).arg(dir.path()));
        assert!(done.status.success(), "{}", errors(&done));
        assert!(done.stderr.is_empty(), "{}", errors(&done));
        assert!(is_mounted(dir.path()), "the command has ended, so the mount is there");
        Self { dir, user }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn unmount(&self, options: &[&str]) -> Output {
        output(self.user.command().arg("unmount").args(options).arg(self.dir.path()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if is_mounted(self.dir.path()) {
            self.unmount(&[]);
        }
    }
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn is_mounted(dir: &Path) -> bool {
    let list = fs::read_to_string("/proc/self/mountinfo").expect("Linux");
    let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    list.lines().any(|line| line.split(' ').nth(4) == dir.to_str())
}

/// Waits for what another process does.
fn wait_until(what: &str, is_done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_done() {
        assert!(begin.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether the machine has FUSE.
fn can_mount() -> bool {
    let can = File::options().read(true).write(true).open("/dev/fuse").is_ok();
    if !can {
        testkit::skip("/dev/fuse cannot be opened");
    }
    can
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a name of our own")
}

fn hash(path: &Path) -> String {
    run_ok("sha256sum", [path]).split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn shows_what_the_guest_has() {
    if !can_mount() {
        return;
    }
    let image = image();
    let before = hash(image);
    let mounted = Mounted::new(&["-a", text(image), "-m", "/dev/sda"]);
    // Twice: from the driver, and from the kernel's cache.
    for _ in 0..2 {
        let mut names: Vec<_> = fs::read_dir(mounted.at("large"))
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), LARGE);
        assert_eq!(fs::read_dir(mounted.dir.path()).expect("the root").count(), 9);
    }
    let (content, same) = (fs::metadata(mounted.at("content")), fs::metadata(mounted.at("same-content")));
    let (content, same) = (content.expect("a file"), same.expect("a file"));
    assert_eq!((content.ino(), content.nlink(), content.len()), (same.ino(), 2, 3_000_000));
    assert!(
        run_ok("debugfs", ["-R", "stat content", text(image)])
            .contains(&format!("Inode: {} ", content.ino()))
    );
    assert_eq!(fs::read_link(mounted.at("link")).expect("a link"), Path::new("secret/key"));
    assert!(fs::metadata(mounted.at("fifo")).expect("a pipe").file_type().is_fifo());
    assert!(mounted.at("new\nline é").exists() && !mounted.at("new").exists());
    let xattrs = run_ok("getfattr", ["--absolute-names", "-d", text(&mounted.at("content"))]);
    for line in ["user.note=\"value\"", "user.empty=\"\""] {
        assert!(xattrs.lines().any(|found| found == line), "{xattrs}");
    }
    assert!(!xattrs.contains("server-pid"), "{xattrs}");
    let missing = run("getfattr", ["--absolute-names", "-n", "user.nosuch", text(&mounted.at("content"))]);
    assert!(errors(&missing).contains("No such attribute"), "{}", errors(&missing));
    let sizes = run_ok("stat", ["-f", "-c", "%S %b %l", text(mounted.dir.path())]);
    let sizes: Vec<u64> = sizes.split_whitespace().map(|size| size.parse().expect("a number")).collect();
    assert!(sizes[0] == 4096 && sizes[1] > 12_000 && sizes[1] <= 16_384 && sizes[2] == 255, "{sizes:?}");
    drop(mounted);
    assert_eq!(hash(image), before);
}

#[test] // qemu-img asks for data and holes with lseek.
fn holes_are_shown() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new(&["-a", text(image()), "-m", "/dev/sda"]);
    let map = run_ok("qemu-img", ["map", "-U", "-f", "raw", "--output=json", text(&mounted.at("sparse"))]);
    let map: serde_json::Value = serde_json::from_str(&map).expect("JSON");
    let runs: Vec<_> = map
        .as_array()
        .expect("a list")
        .iter()
        .map(|run| (run["start"].as_u64(), run["length"].as_u64(), run["data"].as_bool()))
        .collect();
    let run = |start: u64, end: u64, data| (Some(start), Some(end - start), Some(data));
    let (data, end) = (4 << 20, (4 << 20) + 4096);
    assert_eq!(runs, [run(0, data, false), run(data, end, true), run(end, SPARSE_BYTES, false)]);
}

#[test]
fn several_readers_read_the_same() {
    if !can_mount() {
        return;
    }
    let mounted = Mounted::new(&["-a", text(image()), "-m", "/dev/sda"]);
    let expected: Vec<u8> =
        (0..3_000_000_u32).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    std::thread::scope(|scope| {
        for reader in 0..8_usize {
            let (mounted, expected) = (&mounted, &expected);
            scope.spawn(move || {
                let name = if reader % 2 == 0 { "content" } else { "same-content" };
                let mut file = File::open(mounted.at(name)).expect("a file");
                for step in 0..50 {
                    let at = (reader * 977 + step * 59_393) % 2_900_000;
                    let mut piece = [0; 10_000];
                    file.seek(SeekFrom::Start(at as u64)).expect("within the file");
                    file.read_exact(&mut piece).expect("a read");
                    assert!(piece == expected[at..at + 10_000], "reader {reader} at {at}");
                }
                let mut all = Vec::new();
                file.rewind().and_then(|()| file.read_to_end(&mut all)).expect("a read");
                assert!(all == *expected, "reader {reader}");
            });
        }
    });
}

#[test]
fn nothing_can_be_written() {
    if !can_mount() {
        return;
    }
    let image = image();
    let before = hash(image);
    let mounted = Mounted::new(&["-a", text(image), "-m", "/dev/sda"]);
    let file = mounted.at("content");
    let new = mounted.at("new");
    let refused = [
        ("write", File::options().write(true).open(&file).map(drop)),
        ("create", File::create(&new).map(drop)),
        ("mkdir", fs::create_dir(&new)),
        ("remove", fs::remove_file(&file)),
        ("rename", fs::rename(&file, &new)),
        ("link", fs::hard_link(&file, &new)),
        ("symlink", std::os::unix::fs::symlink("x", &new)),
        ("chmod", fs::set_permissions(&file, fs::Permissions::from_mode(0o777))),
    ];
    for (what, result) in refused {
        let error = result.expect_err(what);
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{what}: {error}");
    }
    let setfattr = run("setfattr", ["-n", "user.x", "-v", "y", text(&file)]);
    assert!(errors(&setfattr).contains("Read-only file system"), "{}", errors(&setfattr));
    drop(mounted);
    assert_eq!(hash(image), before);
}

#[test] // The kernel wrote, and never unmounted: the journal is replayed into memory, not into the image.
fn a_dirty_journal_is_shown_replayed_and_stays_dirty() {
    if !can_mount() {
        return;
    }
    if !have_root() {
        return testkit::skip("a loop mount needs root");
    }
    let dir = tempdir();
    let clean = dir.path().join("clean.img");
    let dirty = dir.path().join("dirty.img");
    run_ok("cp", [image(), &clean]);
    let loop_dir = tempdir();
    run_ok("mount", ["-o", "loop", text(&clean), text(loop_dir.path())]);
    fs::write(loop_dir.path().join("in-the-journal"), "written\n").expect("a writable mount");
    fs::rename(loop_dir.path().join("link"), loop_dir.path().join("renamed")).expect("a writable mount");
    run_ok("sync", ["-f", text(loop_dir.path())]);
    run_ok("cp", [&clean, &dirty]);
    run_ok("umount", [loop_dir.path()]);
    let features = run_ok("debugfs", ["-R", "stats", text(&dirty)]);
    assert!(features.contains("needs_recovery"), "the image is not dirty");
    let before = hash(&dirty);
    let mounted = Mounted::new(&["-a", text(&dirty), "-m", "/dev/sda"]);
    assert_eq!(fs::read_to_string(mounted.at("in-the-journal")).expect("a file"), "written\n");
    assert!(mounted.at("renamed").is_symlink() && !mounted.at("link").is_symlink());
    assert_eq!(mounted.unmount(&[]).status.code(), Some(0));
    assert_eq!(hash(&dirty), before);
}

#[test]
fn an_ordinary_user_sees_everything() {
    if !can_mount() {
        return;
    }
    let dir = tempdir();
    let image = image();
    let readable = dir.path().join("disk.img");
    run_ok("cp", [image, &readable]);
    for path in [dir.path(), &readable] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("own file");
    }
    let mount_dir = tempdir();
    let user = if have_root() {
        // The binary may stand where nobody may go.
        let program = dir.path().join("vmcraft");
        fs::copy(binary(), &program).expect("space for the binary");
        std::os::unix::fs::chown(mount_dir.path(), Some(65534), Some(65534)).expect("root may");
        let prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"].map(str::to_owned);
        User { prefix: prefix.to_vec(), program }
    } else {
        User::own()
    };
    testkit::require("fusermount3");
    let mounted = Mounted::by(user.clone(), &["-a", text(&readable), "-m", "/dev/sda"], mount_dir);
    let as_user = |arguments: &[&str]| {
        let mut command = User { program: arguments[0].into(), ..user.clone() }.command();
        output(command.args(&arguments[1..]))
    };
    let read = as_user(&["cat", text(&mounted.at("secret/key"))]);
    assert_eq!(String::from_utf8_lossy(&read.stdout), "secret\n", "{}", errors(&read));
    let write = as_user(&["touch", text(&mounted.at("new"))]);
    assert!(errors(&write).contains("Read-only file system"), "{}", errors(&write));
    let done = mounted.unmount(&[]);
    assert_eq!(done.status.code(), Some(0), "{}", errors(&done));
    assert!(!is_mounted(mounted.dir.path()));
}

#[test]
fn mounts_inside_mounts_are_one_tree() {
    if !can_mount() {
        return;
    }
    let image = image();
    let mounted = Mounted::new(&[
        "-a",
        text(image),
        "-a",
        text(image),
        "--ro",
        "-m",
        "/dev/sda",
        "-m",
        "/dev/sdb:/secret",
        "-m",
        "/dev/sda:/secret/large",
    ]);
    let inode = |name: &str| fs::metadata(mounted.at(name)).expect("a file").ino();
    assert!(mounted.at("secret/content").exists() && !mounted.at("secret/key").exists());
    assert!(mounted.at("secret/large/secret").exists());
    let inodes = [inode("content"), inode("secret/content"), inode("secret/large/content")];
    assert!(inodes[0] != inodes[1] && inodes[1] != inodes[2] && inodes[0] != inodes[2], "{inodes:?}");
    assert_eq!(inode("secret/.."), inode("."));
    assert_eq!(inode("secret/large/.."), inode("secret"));
    let dir_entry = |dir: &str, name: &str| {
        let listed = run_ok("ls", ["-aif", text(&mounted.at(dir))]);
        let line = listed.lines().find(|line| line.ends_with(&format!(" {name}"))).map(str::to_owned);
        line.and_then(|line| line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()))
    };
    assert_eq!(dir_entry("secret", ".."), Some(inode(".")));
    assert_eq!(dir_entry(".", "secret"), Some(inode("secret")));
}

#[test] // What is damaged is named and refused, and takes nothing else with it.
fn a_corrupt_inode_is_listed_and_cannot_be_read() {
    if !can_mount() {
        return;
    }
    let dir = tempdir();
    let damaged = dir.path().join("damaged.img");
    run_ok("cp", [image(), &damaged]);
    run_ok("debugfs", ["-w", "-R", "set_inode_field content checksum 0x1234", text(&damaged)]);
    let mounted = Mounted::new(&["-a", text(&damaged), "-m", "/dev/sda"]);
    let names: Vec<_> = fs::read_dir(mounted.dir.path())
        .expect("the root")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert!(names.iter().any(|name| name == "content"), "{names:?}");
    let refused = fs::read(mounted.at("content")).expect_err("its inode is corrupt");
    assert_eq!(refused.raw_os_error(), Some(117), "{refused}");
    assert_eq!(fs::read(mounted.at("sparse")).expect("another file").len() as u64, SPARSE_BYTES);
}

#[test]
fn devices_are_files() {
    if !can_mount() {
        return;
    }
    let dir = tempdir();
    let image = small_guest(dir.path());
    let qcow2 = dir.path().join("disk.qcow2");
    run_ok("qemu-img", ["convert", "-O", "qcow2", text(&image), text(&qcow2)]);
    let mounted = Mounted::new(&["-a", text(&qcow2), "--devices"]);
    assert_eq!(hash(&mounted.at("sda")), hash(&image));
    let part = fs::metadata(mounted.at("sda1")).expect("a partition");
    let line = run_ok("sfdisk", ["-d", text(&image)]);
    let sectors: u64 = line
        .lines()
        .find(|line| line.contains("img1 :"))
        .and_then(|line| line.split("size=").nth(1)?.split(',').next()?.trim().parse().ok())
        .expect("the first partition");
    assert_eq!(part.len(), sectors * 512);
    assert!(File::options().write(true).open(mounted.at("sda")).is_err());
    assert_eq!(
        run_ok("blkid", ["-p", "-s", "TYPE", "-o", "value", text(&mounted.at("sda1"))]).trim(),
        "ext4"
    );
}

#[test]
fn what_cannot_be_mounted_is_said() {
    let dir = tempdir();
    let image = image();
    let empty = tempdir();
    let at = text(empty.path());
    let image = text(image);
    let file = text(&dir.path().join("file")).to_owned();
    fs::write(&file, "").expect("a file");
    let cases: [(&[&str], &str); 9] = [
        (&[at], "no disk was given"),
        (&["-a", image, at], "nothing to show"),
        (&["-a", image, "-m", "/dev/sda", "/nonexistent/dir"], "/nonexistent/dir: No such file or directory"),
        (&["-a", image, "-m", "/dev/sda", &file], "file: not a directory"),
        (&["-a", "/nonexistent.img", "-m", "/dev/sda", at], "/nonexistent.img"),
        (&["-a", image, "-m", "/dev/sda1", at], "/dev/sda1: no such device"),
        (&["-a", image, "-m", "/dev/sda", "--rw", at], "read-only"),
        (&["-a", image, "-m", "/dev/sda", "-o", "nosuch=1", at], "-o nosuch=1: there is no such option"),
        (&["-a", image, "-i", at], "no operating system"),
    ];
    for (arguments, expected) in cases {
        let done = output(Command::new(binary()).arg("mount").args(arguments));
        assert_eq!(done.status.code(), Some(1), "{arguments:?}");
        let said = errors(&done);
        assert!(said.contains(expected), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(!is_mounted(empty.path()));
    }
    let done = output(Command::new(binary()).arg("unmount").arg(at));
    assert_eq!((done.status.code(), errors(&done).contains("not mounted")), (Some(3), true));
    let done = output(Command::new(binary()).args(["unmount", "-q", at]));
    assert_eq!((done.status.code(), errors(&done).as_str()), (Some(3), ""));
}

/// A mount in the foreground.
fn in_foreground(image: &Path, dir: &Path) -> Child {
    let mut command = Command::new(binary());
    command.args(["mount", "-f", "-a", text(image), "-m", "/dev/sda"]).arg(dir);
    let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    wait_until("the tree is mounted", || is_mounted(dir));
    child
}

#[test]
fn signals_unmount() {
    if !can_mount() {
        return;
    }
    let image = image();
    for signal in ["INT", "TERM"] {
        for is_busy in [false, true] {
            let at = tempdir();
            let mut child = in_foreground(image, at.path());
            let open = is_busy.then(|| File::open(at.path().join("content")).expect("a file"));
            run_ok("kill", [&format!("-{signal}"), &child.id().to_string()]);
            if let Some(mut open) = open {
                wait_until("the tree is detached", || !is_mounted(at.path()));
                // Who uses the tree may go on until then.
                let mut all = Vec::new();
                open.read_to_end(&mut all).expect("the file is still there");
                assert_eq!(all.len(), 3_000_000);
            }
            let status = child.wait().expect("it ends");
            assert_eq!((status.code(), is_mounted(at.path())), (Some(0), false), "{signal}");
        }
    }
}

#[test] // A server that does not answer must not make a process that only `kill -9` ends.
fn a_mount_that_hangs_can_be_interrupted() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let uri = format!("nbd://{}", silent.local_addr().expect("its number"));
    let at = tempdir();
    let mut command = Command::new(binary());
    command.args(["mount", "-f", "-a", &uri, "-m", "/dev/sda"]).arg(at.path());
    let mut child = command.stdin(Stdio::null()).spawn().expect("the binary runs");
    let connection = silent.accept();
    run_ok("kill", ["-INT", &child.id().to_string()]);
    let status = child.wait().expect("it ends");
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(2), "{status}");
    drop(connection);
}

#[test]
fn unmount_waits_tries_again_and_says_when_it_cannot() {
    if !can_mount() {
        return;
    }
    let image = image();
    let mounted = Mounted::new(&["-a", text(image), "-m", "/dev/sda"]);
    let open = File::open(mounted.at("content")).expect("a file");
    let busy = mounted.unmount(&["--no-retry"]);
    assert_eq!(busy.status.code(), Some(2), "{}", errors(&busy));
    assert!(errors(&busy).to_lowercase().contains("busy"), "{}", errors(&busy));
    let closes = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        drop(open);
    });
    let done = mounted.unmount(&["--retry=3"]);
    assert_eq!(done.status.code(), Some(0), "{}", errors(&done));
    closes.join().expect("a thread");
    assert!(!is_mounted(mounted.dir.path()));
}

#[test] // Nothing answers there any more, and it must still be possible to take it away.
fn a_mount_whose_process_was_killed_can_be_unmounted() {
    if !can_mount() {
        return;
    }
    let at = tempdir();
    let mut child = in_foreground(image(), at.path());
    child.kill().expect("our own child");
    child.wait().expect("it ends");
    assert_eq!(fs::metadata(at.path()).expect_err("nothing answers").raw_os_error(), Some(107));
    let done = output(Command::new(binary()).arg("unmount").arg(at.path()));
    assert_eq!((done.status.code(), is_mounted(at.path())), (Some(0), false), "{}", errors(&done));
}

#[test]
fn answers_to_the_names_of_libguestfs() {
    if !can_mount() {
        return;
    }
    let dir = tempdir();
    let image = image();
    let (guestmount, guestunmount) = (named("guestmount", dir.path()), named("guestunmount", dir.path()));
    let at = tempdir();
    let pid_file = dir.path().join("pid");
    let done = output(Command::new(&guestmount).args([
        "--pid-file",
        text(&pid_file),
        "-a",
        text(image),
        "--format=raw",
        "-m",
        "/dev/sda:/",
        "--ro",
        "-o",
        "uid=1234,gid=5678,kernel_cache",
        "--dir-cache-timeout",
        "60",
        text(at.path()),
    ]));
    assert!(done.status.success(), "{}", errors(&done));
    let found = fs::metadata(at.path().join("content")).expect("a file");
    assert_eq!((found.uid(), found.gid()), (1234, 5678));
    let pid = fs::read_to_string(&pid_file).expect("a number").trim().to_owned();
    assert!(Path::new("/proc").join(&pid).exists());
    let done = output(Command::new(&guestunmount).arg(at.path()));
    assert!(done.status.success(), "{}", errors(&done));
    // Without an init that reaps, what has ended stays as a zombie.
    let stat = fs::read_to_string(Path::new("/proc").join(&pid).join("stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "guestunmount waits for the process: {stat}");
    let refused = output(Command::new(&guestmount).arg(at.path()));
    assert!(errors(&refused).starts_with("guestmount: error: no disk was given"), "{}", errors(&refused));
}
