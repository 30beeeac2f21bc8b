//! Loop mounts, where the machine lets us.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tempfile::TempDir;
use testkit::{run, run_ok};

use crate::tree::{self, Tree};

/// A loop mount, undone when dropped.
pub(crate) struct Mount {
    dir: TempDir,
    image: PathBuf,
}

/// Finding a free loop device and taking it are two steps: one test at a time.
static MOUNTING: Mutex<()> = Mutex::new(());

impl Mount {
    pub(crate) fn new(image: &Path, options: &str) -> Self {
        Self::try_new(image, options).unwrap_or_else(|e| panic!("mount {}: {e}", image.display()))
    }

    /// Mounts, or gives the kernel's reason not to.
    pub(crate) fn try_new(image: &Path, options: &str) -> Result<Self, String> {
        let _one = MOUNTING.lock().unwrap_or_else(|e| e.into_inner());
        let dir = testkit::tempdir();
        let options = format!("loop,{options}");
        let arguments = [
            "-t".as_ref(),
            "ext4".as_ref(),
            "-o".as_ref(),
            options.as_ref(),
            image.as_os_str(),
            dir.path().as_os_str(),
        ];
        let output = run("mount", arguments);
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(Self { dir, image: image.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A program that another test starts has our open files until it runs: the mount is then busy.
        retry(|| run("umount", [self.dir.path()]).status.success(), "the mount is busy");
        // While any process looks at the loop device it stays, and the next mount of the image would get it
        // again: read-only if it was, and with blocks that have changed since.
        let is_free = || run_ok("losetup", ["-j".as_ref(), self.image.as_os_str()]).is_empty();
        retry(is_free, "the loop device stays");
    }
}

/// Tries for some seconds.
fn retry(mut is_done: impl FnMut() -> bool, problem: &str) {
    for _ in 0..500 {
        if is_done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // A second panic would end all tests.
    assert!(std::thread::panicking(), "{problem}");
}

/// Whether loop mounts can be made. If not, says which part of the tests did not run.
pub(crate) fn can_mount(part: &str) -> bool {
    let can = testkit::have_root() && Path::new("/dev/loop-control").exists();
    if !can {
        testkit::skip(&format!("{part}: loop mounts need root and loop devices"));
    }
    can
}

/// Compares our whole tree and `statfs` with a read-only loop mount.
pub(crate) fn assert_like_kernel(image: &Path, what: &str) -> Tree {
    let mount = Mount::new(image, "ro,noatime");
    let theirs = tree::mounted(mount.path());
    let fs = tree::open(image).unwrap_or_else(|e| panic!("{what}: {e}"));
    let ours = tree::ours(&*fs).unwrap_or_else(|e| panic!("{what}: {e}"));
    tree::assert_same(&theirs, &ours, what);
    vmcraft_fs::conformance::check(&*fs).unwrap_or_else(|e| panic!("{what}: {e}"));

    let k = rustix::fs::statvfs(mount.path()).expect("statvfs");
    let o = fs.statfs().unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(
        [k.f_bsize, k.f_blocks, k.f_bfree, k.f_bavail, k.f_files, k.f_ffree, k.f_fsid, k.f_namemax],
        [
            o.block_size.into(),
            o.blocks,
            o.blocks_free,
            o.blocks_available,
            o.inodes,
            o.inodes_free,
            o.id,
            o.name_max.into()
        ],
        "{what}: statvfs (block size, blocks, free, available, inodes, free, id, longest name)"
    );
    ours
}
