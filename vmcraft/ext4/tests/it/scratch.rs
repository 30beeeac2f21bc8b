//! Volumes that tests write to, and the judges of what they wrote.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tempfile::TempDir;
use testkit::run;
use vmcraft_block::{BlockDevice, RawFile};
use vmcraft_fs::{
    Error, FileSystem, InodeNumber, NewInode, OpenOptions, Result, Sources, Timestamp, WriteFiles,
};

use crate::features::mke2fs;
use crate::kernel::{Mount, assert_like_kernel, can_mount};
use crate::tree::Tree;

/// What new files of tests have.
pub(crate) const NEW: NewInode = NewInode { permissions: 0o640, uid: 1000, gid: 70_000 };
pub(crate) const NEW_DIR: NewInode = NewInode { permissions: 0o755, uid: 0, gid: 0 };

/// When the clock of tests starts, in seconds since 1970.
pub(crate) const START: i64 = 1_700_000_000;

/// A volume in a file, open for writing. Its clock stands until it is set.
pub(crate) struct Scratch {
    _dir: TempDir,
    pub(crate) image: PathBuf,
    /// `None` while something else has the image.
    fs: Option<Box<dyn FileSystem>>,
    clock: Arc<AtomicI64>,
    what: String,
}

impl Scratch {
    /// A volume made by `mke2fs` with these options.
    pub(crate) fn new(size_mib: u64, options: &str) -> Self {
        let dir = testkit::tempdir();
        let image = mke2fs(dir.path(), size_mib, options);
        Self::from_image(dir, image, options)
    }

    /// A volume that is there.
    pub(crate) fn from_image(dir: TempDir, image: PathBuf, what: &str) -> Self {
        let clock = Arc::new(AtomicI64::new(START));
        let mut scratch = Self { _dir: dir, image, fs: None, clock, what: what.to_owned() };
        scratch.open();
        scratch
    }

    fn open(&mut self) {
        let file = File::options().read(true).write(true).open(&self.image).expect("the image");
        let device: Arc<dyn BlockDevice> = Arc::new(RawFile::new(file, false).expect("the image"));
        let clock = self.clock.clone();
        let sources = Sources::default()
            .with_clock(move || Timestamp { seconds: clock.load(Ordering::Relaxed), nanoseconds: 0 });
        let options = OpenOptions { sources, ..OpenOptions::default() };
        let fs = (vmcraft_ext4::DRIVER.open)(device, options);
        self.fs = Some(fs.unwrap_or_else(|e| panic!("{}: {e}", self.what)));
    }

    pub(crate) fn fs(&self) -> &dyn FileSystem {
        &**self.fs.as_ref().expect("it is open")
    }

    pub(crate) fn writer(&self) -> &dyn WriteFiles {
        self.fs().writer().unwrap_or_else(|e| panic!("{}: {e}", self.what))
    }

    pub(crate) fn root(&self) -> InodeNumber {
        self.fs().root()
    }

    pub(crate) fn set_clock(&self, seconds: i64) {
        self.clock.store(seconds, Ordering::Relaxed);
    }

    /// An inode by its path, without leading slash.
    pub(crate) fn at(&self, path: &str) -> InodeNumber {
        let mut inode = self.root();
        for name in path.split('/').filter(|n| !n.is_empty()) {
            inode = self.fs().lookup(inode, name.into()).unwrap_or_else(|e| panic!("{path}: {e}"));
        }
        inode
    }

    /// How many blocks and inodes are free.
    pub(crate) fn free(&self) -> (u64, u64) {
        let statfs = self.fs().statfs().expect("statfs");
        (statfs.blocks_free, statfs.inodes_free)
    }

    /// Writes everything out and closes it; `e2fsck` must find nothing, and the kernel must see the
    /// same tree as we do. Opens it again.
    pub(crate) fn judge(&mut self) -> Option<Tree> {
        self.writer().sync().unwrap_or_else(|e| panic!("{}: {e}", self.what));
        self.fs = None;
        assert_clean(&self.image, &self.what);
        let tree = can_mount(&self.what).then(|| assert_like_kernel(&self.image, &self.what));
        self.open();
        tree
    }

    /// Lets another have the image meanwhile.
    pub(crate) fn lend<T>(&mut self, other: impl FnOnce(&Path) -> T) -> T {
        self.writer().sync().unwrap_or_else(|e| panic!("{}: {e}", self.what));
        self.fs = None;
        let result = other(&self.image);
        self.open();
        result
    }

    /// Lets a shell script change the volume through the kernel; its directory is `$1`. `false`
    /// where nothing can be mounted.
    pub(crate) fn in_kernel(&mut self, script: &str) -> bool {
        let can = can_mount(&self.what);
        if can {
            self.lend(|image| {
                let mount = Mount::new(image, "noatime");
                let at = mount.path().to_str().expect("a plain path");
                testkit::run_ok("bash", ["-euc", script, "script", at]);
            });
        }
        can
    }
}

/// Fails if `e2fsck` finds anything to mend.
pub(crate) fn assert_clean(image: &Path, what: &str) {
    let name = image.to_str().expect("a plain path");
    let check = run("e2fsck", ["-fn", name]);
    assert!(
        check.status.code() == Some(0),
        "{what}: e2fsck -fn: {}\n{}{}",
        check.status,
        String::from_utf8_lossy(&check.stdout),
        String::from_utf8_lossy(&check.stderr)
    );
}

/// The `errno` of what was answered, 0 for success.
pub(crate) fn errno<T>(result: &Result<T>) -> i32 {
    result.as_ref().map_or_else(Error::errno, |_| 0)
}
