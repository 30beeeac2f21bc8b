//! Real images from elsewhere, and images made to break drivers.

use std::collections::HashSet;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};
use vmcraft_fs::{FileSystem, FileType, InodeNumber};

use crate::tree;

/// The manifest's digest of a tree: over the lines `SHA256  SIZE  /path` of all regular files.
fn digest(fs: &dyn FileSystem) -> vmcraft_fs::Result<String> {
    let tree = tree::ours(fs)?;
    let mut hasher = Sha256::new();
    for (path, node) in tree.iter().filter(|(_, n)| FileType::from_mode(n.mode) == FileType::Regular) {
        let sum = if node.size > 64 << 20 { "-" } else { &node.content };
        hasher.update(format!("{sum}  {}  ", node.size));
        hasher.update(path);
        hasher.update("\n");
    }
    Ok(tree::hex(&hasher.finalize()))
}

#[test] // What the kernel reads, we read the same.
fn files_are_those_that_the_kernel_sees() {
    let Some(corpus) = testkit::corpus::dir() else { return };
    let mut compared = 0;
    for row in testkit::corpus::rows(&corpus, "ext/") {
        let facts: serde_json::Value = serde_json::from_str(&row.facts).expect("facts in JSON");
        let Some(expected) = facts["mount"]["digest"].as_str() else { continue };
        let dir = testkit::tempdir();
        let image = testkit::corpus::unpack(&corpus, &row, dir.path());
        let fs = tree::open(&image).unwrap_or_else(|e| panic!("{}: {e}", row.path));
        let found = match digest(&*fs) {
            // Without the key the kernel shows names of its own making; we refuse.
            Err(e) if row.path.ends_with("ext4view-test_disk1.img.zst") => {
                assert!(e.to_string().starts_with("not supported: encrypted names (fscrypt, "), "{e}");
                continue;
            }
            digest => digest.unwrap_or_else(|e| panic!("{}: {e}", row.path)),
        };
        assert_eq!(found, expected, "{}", row.path);
        compared += 1;
    }
    assert!(compared >= 16, "only {compared} images have a digest");
}

/// How many entries of a damaged volume are looked at: loops among its directories have no end.
const MOST_ENTRIES: usize = 200_000;
/// How much of each file is read.
const MOST_BYTES: usize = 4 << 20;

/// Asks everything of everything, and goes on after errors. Returns what it saw, for a person.
pub(crate) fn probe_all(fs: &dyn FileSystem) -> String {
    let mut summary = String::new();
    let (mut files, mut errors, mut entries) = (0, Vec::new(), 0);
    let mut note = |r: vmcraft_fs::Result<()>| {
        if let Err(e) = r {
            errors.push(e.to_string());
        }
    };
    note(fs.statfs().map(|_| ()));
    let mut seen = HashSet::new();
    let mut todo = vec![fs.root()];
    while let Some(inode) = todo.pop() {
        if !seen.insert(inode) || entries > MOST_ENTRIES {
            continue;
        }
        files += 1;
        note(probe_one(fs, inode));
        note(fs.parent(inode).map(|_| ()).or_else(ignore_type));
        let mut names = Vec::new();
        let listed = fs.read_dir(inode, 0, &mut |entry| {
            entries += 1;
            names.push(entry.name.to_owned());
            todo.push(entry.inode);
            if entries > MOST_ENTRIES { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        note(listed.or_else(ignore_type));
        for name in names {
            note(fs.lookup(inode, name.as_ref()).map(|_| ()));
        }
    }
    errors.sort();
    errors.dedup();
    let _ = write!(summary, "{files} inodes, {} kinds of errors", errors.len());
    for error in errors.iter().take(3) {
        let _ = write!(summary, "; {error}");
    }
    summary
}

fn ignore_type(error: vmcraft_fs::Error) -> vmcraft_fs::Result<()> {
    if matches!(error, vmcraft_fs::Error::NotADirectory) { Ok(()) } else { Err(error) }
}

fn probe_one(fs: &dyn FileSystem, inode: InodeNumber) -> vmcraft_fs::Result<()> {
    let metadata = fs.metadata(inode)?;
    let xattrs = fs.xattrs(inode).map(|_| ());
    let content = match metadata.file_type {
        FileType::Symlink => fs.read_link(inode).map(|_| ()),
        FileType::Regular => probe_content(fs, inode),
        _ => Ok(()),
    };
    xattrs.and(content)
}

fn probe_content(fs: &dyn FileSystem, inode: InodeNumber) -> vmcraft_fs::Result<()> {
    let mut buf = vec![0; 1 << 17];
    let (mut at, mut total) = (0, 0);
    while let Some((start, end)) = fs.next_data(inode, at)? {
        assert!(at <= start && start < end, "next_data from {at} is {start} to {end}");
        let mut offset = start;
        while offset < end && total < MOST_BYTES {
            let n = fs.read(inode, offset, &mut buf)?;
            assert!(n > 0, "nothing to read at {offset}, where data is");
            offset += n as u64;
            total += n;
        }
        if total >= MOST_BYTES {
            break;
        }
        at = end;
    }
    Ok(())
}

/// Set in the child that walks the corpus on its own, so that its memory can be told.
const CHILD: &str = "VMCRAFT_EXT4_CORPUS_CHILD";
/// KiB of memory that the walk of all images may take at its peak, the images themselves excluded:
/// they are read from files.
const MEMORY_KIB: u64 = 256 << 10;

#[test] // Damaged images end in an answer or an error: no panic, no hang, no more than 256 MiB.
fn damaged_images_end_in_bounds() {
    let Some(corpus) = testkit::corpus::dir() else { return };
    let test = "corpus::damaged_images_end_in_bounds";
    if std::env::var_os(CHILD).is_none() {
        let output = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", test, "--nocapture"])
            .env(CHILD, "1")
            .output()
            .expect("this test runs again");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    for row in testkit::corpus::rows(&corpus, "ext/") {
        walk(&corpus, &row);
    }
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("VmHWM");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    eprintln!("peak of {peak} KiB");
    assert!(peak <= MEMORY_KIB, "{peak} KiB");
}

fn walk(corpus: &Path, row: &testkit::corpus::Row) {
    let dir = testkit::tempdir();
    let image = testkit::corpus::unpack(corpus, row, dir.path());
    for ignore_journal in [false, true] {
        let options = vmcraft_fs::OpenOptions { ignore_journal, ..Default::default() };
        let saw = match tree::open_with(&image, options) {
            Ok(fs) => probe_all(&*fs),
            Err(e) => format!("not opened: {e}"),
        };
        eprintln!("{}{}: {saw}", row.path, if ignore_journal { " (noload)" } else { "" });
    }
}
