//! What comes out of a real guest is what the kernel sees in it.

use std::path::Path;
use std::process::Command;

use testkit::guest::{Layout, Packing, debian};
use testkit::{run_ok, tempdir};

use crate::support::{binary, output};

/// A tree in text: names, types, modes, owners, times, sizes, links, device numbers, then the
/// content's hashes, then extended attributes.
fn manifest(tree: &Path) -> [String; 3] {
    let shell = |script: &str| {
        let script =
            format!("cd '{}' && {{ {script}; }} | LC_ALL=C sort -z | tr '\\0' '\\n'", tree.display());
        run_ok("bash", ["-o", "pipefail", "-c", &script])
    };
    [
        // A directory's size and a socket are the host's affair.
        shell(
            "find . ! -type s ! -type d -printf '%P %y %m %U %G %T@ %s %n %l\\0'; find . -type d -printf '%P %y %m %U %G %T@\\0'; \
               find . \\( -type b -o -type c \\) -print0 | xargs -0r stat --printf '%n %t:%T\\0'",
        ),
        shell("find . -type f -print0 | xargs -0r sha256sum -z"),
        // A context ends with a NUL when a program set it; the fixture's has none, and tar restores one.
        shell(
            "getfattr -R -h -P -d -m - -e hex . 2>/dev/null | tr '\\n' '\\1' | \
               sed -E 's/(security.selinux=0x([0-9a-f]{2})*)00\\x01/\\1\\x01/g; s/\\x01\\x01/\\x00/g'",
        ),
    ]
}

/// A loop mount, read-only, gone with the value.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(image: &Path, offset: u64) -> Self {
        let dir = tempdir();
        let options = format!("loop,ro,noload,offset={offset}");
        run_ok("mount", ["-o".as_ref(), options.as_ref(), image.as_os_str(), dir.path().as_os_str()]);
        Self(dir)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        testkit::run("umount", [self.0.path()]);
    }
}

fn assert_same(ours: &Path, kernels: &Path) {
    for (ours, kernels) in manifest(ours).iter().zip(&manifest(kernels)) {
        let (ours, kernels): (Vec<_>, Vec<_>) = (ours.lines().collect(), kernels.lines().collect());
        assert!(kernels.len() > 2, "the manifest is empty: {kernels:?}");
        if let Some((ours, kernels)) = ours.iter().zip(&kernels).find(|(ours, kernels)| ours != kernels) {
            panic!("vmcraft: {ours:?}\n kernel: {kernels:?}");
        }
        assert_eq!(ours.len(), kernels.len());
    }
}

#[test]
fn tar_out_of_a_debian_guest_equals_the_kernels_tree() {
    if !testkit::have_root() {
        return testkit::skip("restoring owners and a loop mount need root");
    }
    let raw = debian(Layout::Mbr, Packing::Raw);
    let dir = tempdir();
    let unpacked = dir.path().join("unpacked");
    std::fs::create_dir(&unpacked).expect("an empty directory");
    for packing in [Packing::Qcow2Zstd, Packing::Raw] {
        let tar = dir.path().join("root.tar");
        let disk = debian(Layout::Mbr, packing);
        let command = "tar-out / ROOT.TAR xattrs:true acls:true selinux:true"
            .replace("ROOT.TAR", &tar.display().to_string());
        let done =
            output(Command::new(binary()).arg("-a").arg(&disk).args(["-m", "/dev/sda1", "--run", &command]));
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        run_ok("rm", ["-rf".as_ref(), unpacked.as_os_str()]);
        std::fs::create_dir(&unpacked).expect("an empty directory");
        let options = ["--xattrs", "--xattrs-include=*", "--acls", "--selinux", "--numeric-owner", "-xpf"];
        run_ok(
            "tar",
            options.iter().map(std::ffi::OsStr::new).chain([
                tar.as_os_str(),
                "-C".as_ref(),
                unpacked.as_os_str(),
            ]),
        );
        let kernel = Mounted::new(&raw, 1 << 20);
        assert_same(&unpacked, kernel.0.path());
    }
}

#[test]
fn fuse_mount_of_a_debian_guest_equals_the_kernels_tree() {
    if !testkit::have_root() {
        return testkit::skip("a loop mount needs root");
    }
    let raw = debian(Layout::Gpt, Packing::Raw);
    let before = run_ok("sha256sum", [&raw]);
    let dir = tempdir();
    let done = output(
        Command::new(binary()).arg("mount").arg("-a").arg(&raw).args(["-m", "/dev/sda3"]).arg(dir.path()),
    );
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let kernel = Mounted::new(&raw, 526_336 * 512);
    assert_same(dir.path(), kernel.0.path());
    let done = output(Command::new(binary()).arg("unmount").arg(dir.path()));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(run_ok("sha256sum", [&raw]), before);
}
