//! Writing into a guest: a tar archive in, and everything out again, against the kernel.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use testkit::guest::{self, Layout, Packing};

use crate::measure::{Command, Row, compare, peak_kib};

/// Room for the largest of the archives.
const IMAGE_BYTES: u64 = 6 << 30;
const BIG_BYTES: u64 = 2 << 30;
const SMALL_FILES: u32 = 100_000;

/// Makes an archive in a directory.
type Make = fn(&Path) -> Result<PathBuf>;

/// Adds the rows. `dir` is for images and archives, some 20 GiB while it runs.
pub(crate) fn measure(rows: &mut Vec<Row>, vmcraft: &Path, dir: &Path) -> Result<()> {
    let bench = Bench { vmcraft, dir, mount: dir.join("written") };
    std::fs::create_dir_all(&bench.mount)?;
    let empty = bench.empty()?;
    let archives: [(&str, Make); 3] = [
        ("a root file system", root_archive),
        ("100,000 small files", small_files),
        ("a file of 2 GiB", big_file),
    ];
    let bar = "at least 0.5";
    for (what, make) in archives {
        let archive = make(dir)?;
        let ours = bench.ours(&empty, &format!("tar-in {} /", archive.display()));
        let theirs = bench.theirs(&empty, &format!("tar -x --numeric-owner -C $M -f {}", archive.display()));
        rows.push(compare(&format!("tar-in of {what}, with commit"), &ours, &theirs, 5, bar)?);
        rows.push(Row::figure("peak memory at that", peak_kib(&ours)? / 1024.0, "MiB", "under 128 MiB"));
        let full = bench.filled(&empty, &archive)?;
        let ours = bench.ours(&full, "glob rm-rf /*");
        let theirs = bench.theirs(&full, "rm -rf $M/*");
        rows.push(compare(&format!("rm-rf of {what}, with commit"), &ours, &theirs, 5, bar)?);
        std::fs::remove_file(full)?;
        std::fs::remove_file(archive)?;
    }
    Ok(())
}

struct Bench<'a> {
    vmcraft: &'a Path,
    dir: &'a Path,
    mount: PathBuf,
}

impl Bench<'_> {
    /// The image that both sides write to.
    fn image(&self) -> PathBuf {
        self.dir.join("written.raw")
    }

    /// An image of an empty ext4 file system.
    fn empty(&self) -> Result<PathBuf> {
        let image = self.dir.join("empty.raw");
        File::create(&image)?.set_len(IMAGE_BYTES)?;
        // Inode tables that are not zeroed yet would have the kernel do so in the background.
        let options = "lazy_itable_init=0,lazy_journal_init=0";
        testkit::run_ok(
            "mke2fs",
            ["-q", "-F", "-t", "ext4", "-N", "400000", "-E", options]
                .map(AsRef::as_ref)
                .into_iter()
                .chain([image.as_os_str()]),
        );
        Ok(image)
    }

    /// An image in which the kernel unpacked an archive.
    fn filled(&self, empty: &Path, archive: &Path) -> Result<PathBuf> {
        let full = self.dir.join("full.raw");
        let unpack = self.theirs(empty, &format!("tar -x --numeric-owner -C $M -f {}", archive.display()));
        unpack.run()?;
        std::fs::rename(self.image(), &full).context("the image that was filled")?;
        Ok(full)
    }

    fn ours(&self, from: &Path, call: &str) -> Command {
        let image = self.image();
        let mut command = Command::shell(&format!(
            "{} -a {} --format=raw -m /dev/sda --run '{call}'",
            self.vmcraft.display(),
            image.display()
        ));
        command.prepare(&self.copy(from));
        command
    }

    /// The kernel's side: a loop mount, the change, and all of it on the disk. `$M` is where it is mounted.
    fn theirs(&self, from: &Path, change: &str) -> Command {
        let (image, mount) = (self.image(), self.mount.display().to_string());
        let mut command = Command::shell(&format!(
            "M={mount}; mount -o loop {image} $M && {change}; s=$?; sync -f $M; umount $M && sync {image} && exit $s",
            image = image.display()
        ));
        command.prepare(&self.copy(from));
        command
    }

    fn copy(&self, from: &Path) -> String {
        let image = self.image();
        format!("cp --sparse=always {} {image} && sync {image}", from.display(), image = image.display())
    }
}

/// The Debian guest's root file system.
fn root_archive(dir: &Path) -> Result<PathBuf> {
    let disk = guest::debian(Layout::Mbr, Packing::Raw);
    let archive = dir.join("root.tar");
    let mount = crate::loopmount::LoopMount::new(&disk, crate::ROOT_START, dir)?;
    let root = mount.path().as_os_str();
    let options = ["--numeric-owner", "--xattrs", "-cf"].map(AsRef::as_ref);
    testkit::run_ok(
        "tar",
        ["-C".as_ref(), root].into_iter().chain(options).chain([archive.as_os_str(), ".".as_ref()]),
    );
    Ok(archive)
}

/// 1,000 directories of 100 files of up to 8 KiB.
fn small_files(dir: &Path) -> Result<PathBuf> {
    let tree = dir.join("small");
    let content: Vec<u8> = (0..8192_u32).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    for number in 0..SMALL_FILES {
        let parent = tree.join(format!("{:03}", number / 100));
        if number % 100 == 0 {
            std::fs::create_dir_all(&parent)?;
        }
        let len = usize::try_from(number.wrapping_mul(2_654_435_761) % 8193).unwrap_or(0);
        std::fs::write(parent.join(format!("file-{number:06}.txt")), &content[..len])?;
    }
    archive_of(dir, &tree)
}

/// One file that does not compress and has no holes.
fn big_file(dir: &Path) -> Result<PathBuf> {
    let tree = dir.join("big-tree");
    std::fs::create_dir(&tree)?;
    let content: Vec<u8> = (0..1_u32 << 20).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let mut file = BufWriter::new(File::create(tree.join("big"))?);
    for _ in 0..BIG_BYTES / content.len() as u64 {
        file.write_all(&content)?;
    }
    file.into_inner().context("space for the big file")?;
    archive_of(dir, &tree)
}

/// A tar archive of a tree, which goes.
fn archive_of(dir: &Path, tree: &Path) -> Result<PathBuf> {
    let archive = dir.join("tree.tar");
    testkit::run_ok(
        "tar",
        ["-C".as_ref(), tree.as_os_str(), "-cf".as_ref(), archive.as_os_str(), ".".as_ref()],
    );
    std::fs::remove_dir_all(tree)?;
    Ok(archive)
}
