//! A kernel's read-only mount of an image, for as long as the value lives.

use std::path::{Path, PathBuf};

use anyhow::Result;

pub(crate) struct LoopMount {
    dir: PathBuf,
}

impl LoopMount {
    /// Mounts the file system that begins at byte `offset` of `image` on a new directory in `dir`.
    pub(crate) fn new(image: &Path, offset: u64, dir: &Path) -> Result<Self> {
        let dir = dir.join(format!("mount-{offset}"));
        std::fs::create_dir_all(&dir)?;
        let options = format!("loop,ro,noload,offset={offset}");
        testkit::run_ok("mount", ["-o".as_ref(), options.as_ref(), image.as_os_str(), dir.as_os_str()]);
        Ok(Self { dir })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }
}

impl Drop for LoopMount {
    fn drop(&mut self) {
        testkit::run("umount", [&self.dir]);
    }
}
