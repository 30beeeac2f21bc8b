//! Images that others made, the hostile ones among them: whatever is in them, the binary ends by
//! itself with a result or an error, within bounds of time and memory.

use std::path::Path;
use std::process::Command;

use crate::support::{binary, output};

/// What may be had of memory and processor time: 256 MiB of data and a minute, which nothing here
/// comes near unless a loop or an allocation is unbounded.
const LIMITS: &[&str] = &["--data=268435456", "--cpu=60"];

/// Lists what is on every device and walks every tree. Returns what standard error said.
fn look(image: &Path) -> String {
    let script = "run\n-list-filesystems\n-part-list /dev/sda\n-mount /dev/sda /\n-find0 / /dev/null\n-tar-out / /dev/null xattrs:true\n\
                  -umount-all\n-mount /dev/sda1 /\n-find0 / /dev/null\n-tar-out / /dev/null xattrs:true\n-inspect-os\n";
    let dir = testkit::tempdir();
    let file = dir.path().join("script");
    std::fs::write(&file, script).expect("space for a script");
    let mut command = Command::new(testkit::require("prlimit"));
    command.args(LIMITS).arg(binary()).arg("-a").arg(image).arg("-f").arg(&file);
    let done = output(&mut command);
    let error = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(matches!(done.status.code(), Some(0 | 1)), "{}: {}\n{error}", image.display(), done.status,);
    assert!(!error.contains("panicked"), "{}: {error}", image.display());
    error
}

fn look_at_all(prefix: &str) {
    let Some(corpus) = testkit::corpus::dir() else { return };
    let dir = testkit::tempdir();
    for row in testkit::corpus::rows(&corpus, prefix) {
        let image = testkit::corpus::unpack(&corpus, &row, dir.path());
        look(&image);
        std::fs::remove_file(image).expect("own file");
    }
}

#[test]
fn ext() {
    look_at_all("ext/");
}

#[test]
fn images() {
    for prefix in ["qcow2/", "vmdk/", "vhd/", "vhdx/", "vdi/", "guestdisk/", "ptable/"] {
        look_at_all(prefix);
    }
}

#[test]
fn what_this_version_does_not_open() {
    for prefix in
        ["btrfs/", "xfs/", "ntfs/", "fat/", "exfat/", "iso/", "luks/", "lvm/", "md/", "squashfs/", "otherfs/"]
    {
        look_at_all(prefix);
    }
}

#[test] // One bit at a time, all over the first structures of a small guest.
fn flipped_bits() {
    let dir = testkit::tempdir();
    let image = crate::support::small_guest(dir.path());
    let whole = std::fs::read(&image).expect("the image");
    let root = 1 << 20;
    // A fixed generator: the same flips in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).expect("below a usize")
    };
    let rounds = if std::env::var_os("VMCRAFT_TEST_ALL").is_some() { 2000 } else { 60 };
    for _ in 0..rounds {
        let mut bytes = whole.clone();
        for _ in 0..8 {
            // The partition table, then the superblock, descriptors, inodes and directories.
            let at = if next(8) == 0 { next(512) } else { root + 1024 + next(600 << 10) };
            bytes[at] ^= 1 << next(8);
        }
        std::fs::write(&image, bytes).expect("space for the image");
        look(&image);
    }
}
