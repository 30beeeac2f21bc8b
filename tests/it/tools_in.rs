//! The names of the tools that change a guest: what they did is read with debugfs, in an image that
//! e2fsck finds clean.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use testkit::run_ok;

use crate::support::{Guest, named, output};

impl Guest {
    /// A tool, with the guest's image as its disk.
    fn tool(&self, name: &str) -> Command {
        let dir = self.dir.path().join(name);
        fs::create_dir_all(&dir).expect("own directory");
        let link = dir.join(name);
        let program = if link.exists() { link } else { named(name, &dir) };
        let mut command = Command::new(program);
        command.env("TMPDIR", self.dir.path()).arg("-a").arg(&self.image);
        command
    }

    /// What debugfs prints for a request on the root partition.
    fn debugfs(&self, request: &str) -> String {
        run_ok("debugfs", ["-R", request, &self.file_system()])
    }

    /// The guest's root file system, as the programs of e2fsprogs name it.
    fn file_system(&self) -> String {
        let table = run_ok("sfdisk", ["--json".as_ref(), self.image.as_os_str()]);
        let table: serde_json::Value = serde_json::from_str(&table).expect("JSON");
        let start = table["partitiontable"]["partitions"][0]["start"].as_u64().expect("a start") * 512;
        format!("{}?offset={start}", self.image.display())
    }

    fn check(&self) {
        run_ok("e2fsck", ["-fn", &self.file_system()]);
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.image).expect("the image is there")
    }

    /// A file of the host with this content.
    fn host_file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, content).expect("own directory");
        path
    }
}

fn succeeded(ran: &Output) {
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

fn failed(ran: &Output, message: &str) {
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{errors}");
    assert!(errors.contains(message), "{errors}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary names are text")
}

#[test]
fn virt_edit_changes_files_by_an_expression() {
    let guest = Guest::new();
    let before = guest.debugfs("cat /etc/fstab");
    let edited = output(guest.tool("virt-edit").args(["-b", ".orig", "-e", r"s/^/#$lineno /", "/etc/fstab"]));
    succeeded(&edited);
    let expected: String =
        before.lines().enumerate().map(|(at, line)| format!("#{} {line}\n", at + 1)).collect();
    assert_eq!(guest.debugfs("cat /etc/fstab"), expected);
    assert_eq!(guest.debugfs("cat /etc/fstab.orig"), before);
    // As with the real tool, `next` leaves a line out, and what perl says is heard.
    let fewer = output(guest.tool("virt-edit").args(["-e", "warn 'x'; next if $lineno == 2", "/etc/fstab"]));
    succeeded(&fewer);
    assert!(String::from_utf8_lossy(&fewer.stderr).contains("/etc/fstab: perl: x at -e line 1"));
    let left: String = expected
        .lines()
        .enumerate()
        .filter(|(at, _)| *at != 1)
        .map(|(_, line)| format!("{line}\n"))
        .collect();
    assert_eq!(guest.debugfs("cat /etc/fstab"), left);
    guest.check();
    let image = guest.bytes();
    for (args, message) in [
        (["-e", "die 'no'", "/etc/hostname"], "perl failed, and nothing was changed"),
        (["-e", "s/a/b/", "/etc/nosuch"], "/etc/nosuch"),
    ] {
        failed(&output(guest.tool("virt-edit").args(args)), message);
    }
    // Of several files, all are changed or none.
    failed(
        &output(guest.tool("virt-edit").args(["-e", "s/^/x/", "/etc/hostname", "/etc/nosuch"])),
        "/etc/nosuch",
    );
    // An expression that changes nothing writes nothing.
    succeeded(&output(guest.tool("virt-edit").args(["-e", "s/no such text//", "/etc/hostname"])));
    assert!(guest.bytes() == image, "the image was written to");
}

#[test]
fn virt_edit_runs_the_editor() {
    let guest = Guest::new();
    let mode =
        |guest: &Guest| guest.debugfs("stat /etc/hostname").split("Mode:").nth(1).map(|m| m[..8].to_owned());
    let before = mode(&guest);
    let mut edit = guest.tool("virt-edit");
    succeeded(&output(edit.env("EDITOR", "sed -i 1s/.*/renamed.example.com/").arg("/etc/hostname")));
    assert_eq!(guest.debugfs("cat /etc/hostname"), "renamed.example.com\n");
    assert_eq!(mode(&guest), before);
    guest.check();
    let image = guest.bytes();
    let mut edit = guest.tool("virt-edit");
    failed(&output(edit.env("EDITOR", "false").arg("/etc/hostname")), "the editor failed");
    let mut edit = guest.tool("virt-edit");
    failed(&output(edit.env("EDITOR", "rm").arg("/etc/hostname")), "the editor removed the file");
    failed(
        &output(guest.tool("virt-edit").args(["-b", "", "-e", "s/^/x/", "/etc/hostname"])),
        "extension is empty",
    );
    let mut edit = guest.tool("virt-edit");
    succeeded(&output(edit.env("EDITOR", "true").arg("/etc/hostname")));
    assert!(guest.bytes() == image, "the image was written to");
}

#[test]
fn virt_copy_in_copies_files_and_directories() {
    let guest = Guest::new();
    let tree = guest.dir.path().join("site");
    fs::create_dir_all(tree.join("a/b")).expect("own directory");
    fs::write(tree.join("a/b/page"), "page").expect("own directory");
    std::os::unix::fs::symlink("a/b/page", tree.join("index")).expect("own directory");
    let motd = guest.host_file("motd", "welcome\n");
    succeeded(&output(guest.tool("virt-copy-in").arg(&motd).arg(&tree).arg("/etc")));
    assert_eq!(guest.debugfs("cat /etc/motd"), "welcome\n");
    assert_eq!(guest.debugfs("cat /etc/site/a/b/page"), "page");
    assert!(guest.debugfs("stat /etc/site/index").contains("Fast link dest: \"a/b/page\""));
    guest.check();
    let image = guest.bytes();
    failed(
        &output(guest.tool("virt-copy-in").arg(&tree).arg("/nosuch")),
        "/nosuch: no such file or directory",
    );
    failed(
        &output(guest.tool("virt-copy-in").args([text(&motd), "/nonexistent/x", "/etc"])),
        "/nonexistent/x",
    );
    assert!(guest.bytes() == image, "the image was written to");
}

#[test]
fn virt_tar_in_unpacks_from_a_file_and_from_standard_input() {
    let guest = Guest::new();
    let page = guest.host_file("page", "from a tar");
    let archive = guest.dir.path().join("a.tar.gz");
    let names = ["-C", text(guest.dir.path()), "page"];
    run_ok("tar", ["--owner=0", "--group=0", "-czf", text(&archive)].into_iter().chain(names));
    succeeded(&output(guest.tool("virt-tar-in").arg(&archive).arg("/etc")));
    assert_eq!(guest.debugfs("cat /etc/page"), "from a tar");

    fs::write(&page, "from a pipe").expect("own directory");
    let packed = output(Command::new("tar").args(["-cf", "-"]).args(names)).stdout;
    let mut unpack = guest.tool("virt-tar-in");
    let mut unpack = unpack
        .args(["-", "/etc/default"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    unpack.stdin.take().expect("a pipe").write_all(&packed).expect("all of it is read");
    succeeded(&unpack.wait_with_output().expect("the binary ends"));
    assert_eq!(guest.debugfs("cat /etc/default/page"), "from a pipe");
    guest.check();

    // An archive that leads out, and one that ends in the middle.
    let image = guest.bytes();
    let evil = guest.dir.path().join("evil.tar");
    let renaming = ["-P", "--transform=s,page,../../page,", "-cf", text(&evil)];
    run_ok("tar", renaming.into_iter().chain(names));
    failed(&output(guest.tool("virt-tar-in").arg(&evil).arg("/etc")), "its name contains '..'");
    fs::write(&evil, &packed[..700]).expect("own directory");
    failed(&output(guest.tool("virt-tar-in").arg(&evil).arg("/etc")), "the archive ends in the middle");
    assert!(guest.bytes() == image, "the image was written to");
}

#[test] // The word "commit" stood before it twice.
fn a_full_disk_of_the_host_is_an_error_and_the_image_is_as_it_was() {
    let guest = Guest::new();
    let small = guest.dir.path().join("small");
    fs::create_dir(&small).expect("own directory");
    let edit = named("virt-edit", guest.dir.path());
    let unshare = testkit::require("unshare");
    let namespace = || {
        let mut command = Command::new(&unshare);
        command.arg("-rm");
        command
    };
    let probe = output(namespace().args(["mount", "-t", "tmpfs", "none"]).arg(&small));
    if !probe.status.success() {
        testkit::skip(&format!("nothing can be mounted here: {}", String::from_utf8_lossy(&probe.stderr)));
        return;
    }
    // A disk of its own, in a name space where an ordinary user may mount it.
    let script = format!(
        "mount -t tmpfs -o size=$(($(du -k --apparent-size {image} | cut -f1) / 1024 + 1))M none {small} &&
        cp --sparse=never {image} {small}/image && cd {small} && sum=$(sha256sum image) || exit
        {edit} -a image -e 's/.*/q(x) x 6000000/e' /etc/hostname; echo $?
        test \"$sum\" = \"$(sha256sum image)\" && echo same; ls",
        image = text(&guest.image),
        small = text(&small),
        edit = text(&edit),
    );
    let ran = output(namespace().args(["sh", "-c", &script]));
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "1\nsame\nimage\n", "{said}");
    let wanted = format!("virt-edit: error: commit: {}", text(&small));
    assert!(said.starts_with(&wanted) && said.lines().count() == 1, "{said}");
}
