//! The numbers of `docs/benchmarks.md`: each is a ratio of two programs on the same data, run by
//! turns in one process, so that a busy machine slows both.

mod loopmount;
mod luks;
mod measure;
mod raid;
mod writing;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use testkit::guest::{Layout, Packing};

use crate::loopmount::LoopMount;
use crate::measure::{Command, Row, compare, peak_kib};

/// Where MBR layout's root begins in the disk, in bytes.
const ROOT_START: u64 = 1 << 20;

/// The size of the file that is read as a whole.
const BIG_BYTES: u64 = 1 << 30;

fn main() -> Result<()> {
    let vmcraft = vmcraft();
    anyhow::ensure!(
        vmcraft.exists(),
        "{}: build it first: cargo build --release -p vmcraft-cli",
        vmcraft.display()
    );
    let dir = tempfile::Builder::new().prefix("vmcraft-bench-").tempdir_in(testkit::cache_dir())?;
    let raw = testkit::guest::debian(Layout::Mbr, Packing::Raw);
    let qcow2 = testkit::guest::debian(Layout::Mbr, Packing::Qcow2);
    let mut rows = Vec::new();

    open_and_inspect(&mut rows, &vmcraft, &qcow2)?;
    if testkit::have_root() {
        against_kernel(&mut rows, &vmcraft, &raw, dir.path())?;
        writing::measure(&mut rows, &vmcraft, dir.path())?;
    } else {
        eprintln!("skipped: the comparison with a kernel loop mount needs root");
    }

    luks::measure(&mut rows, dir.path())?;
    raid::measure(&mut rows)?;

    println!("| what | vmcraft | other | ratio | bar |");
    println!("|---|---|---|---|---|");
    for row in &rows {
        println!("{row}");
    }
    Ok(())
}

/// The binary next to this one.
fn vmcraft() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.with_file_name("vmcraft")
}

fn arguments(fixed: &[&str], disk: &Path) -> Vec<OsString> {
    let mut all: Vec<OsString> = vec!["-a".into(), disk.into()];
    all.extend(fixed.iter().map(OsString::from));
    all
}

fn open_and_inspect(rows: &mut Vec<Row>, vmcraft: &Path, disk: &Path) -> Result<()> {
    let ours = Command::new(vmcraft, arguments(&["-i", "--run", "cat /etc/hostname"], disk));
    let seconds = measure::median(&ours, 21)?;
    rows.push(Row::figure(
        "open, inspect, read /etc/hostname; cold process",
        seconds * 1e3,
        "ms",
        "under 10 ms",
    ));
    let kib = peak_kib(&ours)?;
    rows.push(Row::figure("peak memory at that", kib / 1024.0, "MiB", "under 20 MiB"));
    if let Some(guestfish) = testkit::find("guestfish") {
        let mut theirs = Command::new(&guestfish, arguments(&["--ro", "-i", "cat", "/etc/hostname"], disk));
        theirs.environment("LIBGUESTFS_BACKEND", "direct");
        // Nested KVM is not everywhere; where it is, this is still what a container has.
        theirs.environment("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg");
        let other = measure::median(&theirs, 1)?;
        rows.push(Row::times("the same, against `guestfish -i`", seconds, other, "500 times faster"));
    } else {
        eprintln!("skipped: guestfish is not installed (package libguestfs-tools)");
    }
    Ok(())
}

fn against_kernel(rows: &mut Vec<Row>, vmcraft: &Path, raw: &Path, dir: &Path) -> Result<()> {
    let big = big_file(dir)?;
    {
        let mount = LoopMount::new(&big, 0, dir)?;
        let ours =
            Command::new(vmcraft, arguments(&["-m", "/dev/sda", "download", "/big", "/dev/null"], &big));
        let theirs =
            Command::shell(&format!("dd if={}/big of=/dev/null bs=1M status=none", mount.path().display()));
        rows.push(compare("sequential read of 1 GiB, raw image", &ours, &theirs, 7, "at least 0.8")?);
    }
    let mount = LoopMount::new(raw, ROOT_START, dir)?;
    let root = mount.path().display();
    let ours = Command::new(vmcraft, arguments(&["-m", "/dev/sda1", "du", "/"], raw));
    let theirs = Command::shell(&format!("find {root} -printf '%s %k\\n' > /dev/null"));
    rows.push(compare("walk and stat all files", &ours, &theirs, 11, "at least 1.0")?);
    let image = raw.display();
    let ours = Command::shell(&format!(
        "{} -a {image} -m /dev/sda1 tar-out / - | cat > /dev/null",
        vmcraft.display()
    ));
    let theirs =
        Command::shell(&format!("tar -C {root} --numeric-owner -cf - . 2> /dev/null | cat > /dev/null"));
    rows.push(compare("tar-out of the root file system", &ours, &theirs, 7, "at least 0.8")?);
    Ok(())
}

/// A raw ext4 image with one big file.
fn big_file(dir: &Path) -> Result<PathBuf> {
    let tree = dir.join("tree");
    std::fs::create_dir(&tree)?;
    let content: Vec<u8> = (0..1_u32 << 20).map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let mut file = std::fs::File::create(tree.join("big")).context("space for the big file")?;
    for _ in 0..BIG_BYTES / content.len() as u64 {
        std::io::Write::write_all(&mut file, &content)?;
    }
    let image = dir.join("big.raw");
    std::fs::File::create(&image)?.set_len(BIG_BYTES + (64 << 20))?;
    testkit::run_ok(
        "mke2fs",
        [
            "-q".as_ref(),
            "-F".as_ref(),
            "-t".as_ref(),
            "ext4".as_ref(),
            "-d".as_ref(),
            tree.as_os_str(),
            image.as_os_str(),
        ],
    );
    std::fs::remove_dir_all(&tree)?;
    // What was just written lies in the page cache in smaller pieces than what was read, and is
    // slower to copy. Users read images: so both sides find this one as if read.
    let target = format!("of={}", image.display());
    testkit::run_ok("dd", [&target, "oflag=nocache", "conv=notrunc,fdatasync", "count=0", "status=none"]);
    std::io::copy(&mut std::fs::File::open(&image)?, &mut std::io::sink())?;
    Ok(image)
}
