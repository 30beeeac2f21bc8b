//! Replaying journals: made by the kernel and by debugfs, compared with what the kernel recovers.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use testkit::{run, run_ok};
use vmcraft_fs::OpenOptions;

use crate::features::mke2fs;
use crate::kernel::{Mount, assert_like_kernel, can_mount};
use crate::tree::{self, Tree};

fn name(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

pub(crate) fn copy(from: &Path, to: &str) -> PathBuf {
    let to = from.with_file_name(to);
    run_ok("cp", ["--sparse=always", name(from), name(&to)]);
    to
}

/// `sync` of a directory commits, but leaves the blocks where they were, as `sync -f` would not: so
/// the log is all that knows of them.
///
/// Work that journals metadata of all kinds: directories whose blocks are freed and used for data
/// (revoked), names, attributes, files that begin with the journal's magic.
const WORK: &str = r#"
set -eu
cd "$1"
round() {
    mkdir "dir-$1" && for i in $(seq 1 60); do echo "$1 $i" > "dir-$1/a-name-that-takes-some-room-$i"; done
    sync .
    for i in $(seq 1 40); do mkdir "dir-$1/sub-$i"; done
    setfattr -n user.round -v "$1" "dir-$1"
    ln -s "$(printf '%0300d' "$1")" "link-$1"
    sync .
    rm -r "dir-$1"/sub-*
    printf '\300\073\071\230 looks like the journal' > "magic-$1"
    for i in $(seq 1 40); do printf '\300\073\071\230 %d' "$i" | dd of="data-$1-$i" bs=5000 conv=sync status=none; done
    sync .
    mv "dir-$1" "moved-$1"
    truncate -s $((3000 * $1)) "magic-$1"
    sync .
}
for round in $(seq 1 "$2"); do round "$round"; done
"#;

/// A volume as a power cut leaves it while the kernel writes to it. `mount` are the options of the
/// mount, `rounds` how much is done.
pub(crate) fn power_cut(options: &str, mount: &str, rounds: u32) -> (tempfile::TempDir, PathBuf) {
    let dir = testkit::tempdir();
    let image = mke2fs(dir.path(), 64, options);
    let cut = {
        let mounted = Mount::new(&image, mount);
        run_ok("bash", ["-c", WORK, "work", name(mounted.path()), &rounds.to_string()]);
        copy(&image, "cut")
    };
    (dir, cut)
}

pub(crate) fn needs_recovery(image: &Path) -> bool {
    run_ok("dumpe2fs", ["-h", name(image)]).contains("needs_recovery")
}

/// Compares our replay in memory with the kernel's on the disk; the image itself must not change.
pub(crate) fn assert_replays_like_kernel(cut: &Path, what: &str) -> Tree {
    assert!(needs_recovery(cut), "{what}: the journal is clean");
    let before = run_ok("sha256sum", [name(cut)]);
    let fs = tree::open(cut).unwrap_or_else(|e| panic!("{what}: {e}"));
    let ours = tree::ours(&*fs).unwrap_or_else(|e| panic!("{what}: {e}"));
    let free = fs.statfs().expect("statfs");
    assert_eq!(before, run_ok("sha256sum", [name(cut)]), "{what}: the image has changed");

    let recovered = copy(cut, "recovered");
    drop(Mount::new(&recovered, "noatime"));
    assert!(!needs_recovery(&recovered));
    let theirs = assert_like_kernel(&recovered, what);
    tree::assert_same(&theirs, &ours, what);
    let fs = tree::open(&recovered).expect("a recovered volume");
    assert_eq!(fs.statfs().expect("statfs"), free, "{what}");
    ours
}

#[test]
fn journals_of_every_kind() {
    if !can_mount("journals") {
        return;
    }
    for (options, mount) in [
        ("-t ext3 -b 1024", "noatime"),
        ("-t ext3 -b 4096", "noatime,data=journal"),
        ("-t ext4 -b 4096", "noatime"),
        ("-t ext4 -b 1024 -O 64bit", "noatime,data=journal"),
        ("-t ext4 -b 4096 -O ^metadata_csum,^64bit", "noatime,journal_checksum"),
        ("-t ext4 -b 1024 -O ^metadata_csum,64bit", "noatime,journal_async_commit,data=journal"),
        ("-t ext4 -b 4096 -O metadata_csum", "noatime,journal_async_commit,data=writeback"),
        ("-t ext4 -O metadata_csum -b 2048", "noatime,data=journal"),
        ("-t ext4 -b 4096 -O orphan_file,inline_data", "noatime"),
        ("-t ext4 -b 4096 -O ^extent,^64bit", "noatime,data=journal"),
    ] {
        let what = format!("{options} {mount}");
        let (_dir, cut) = power_cut(options, mount, 2);
        let tree = assert_replays_like_kernel(&cut, &what);
        assert!(tree.contains_key(&b"/moved-2"[..]), "{what}: the last commit is there");
        // The journal mattered: without it the volume is another.
        let without = tree::open_with(&cut, OpenOptions { ignore_journal: true, ..OpenOptions::default() });
        let without = without.map(|fs| tree::ours(&*fs));
        assert!(!matches!(without, Ok(Ok(t)) if t == tree), "{what}: nothing was replayed");
    }
}

#[test]
fn log_wraps_around() {
    if !can_mount("a log that wraps around") {
        return;
    }
    // 1024 blocks of journal; each round writes some 200.
    for (options, mount) in
        [("-t ext4 -b 1024 -J size=1", "noatime"), ("-t ext3 -b 1024 -J size=1", "noatime,data=journal")]
    {
        let mut wrapped = false;
        for rounds in 7..14 {
            let (_dir, cut) = power_cut(options, mount, rounds);
            assert_replays_like_kernel(&cut, &format!("{options} {mount} {rounds}"));
            let log = run_ok("debugfs", ["-R", "logdump", name(&cut)]);
            let blocks: Vec<u32> = log
                .lines()
                .filter_map(|l| {
                    l.split("at block ").nth(1)?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
                })
                .collect();
            wrapped |= blocks.windows(2).any(|w| w[1] < w[0]);
            if wrapped {
                break;
            }
        }
        assert!(wrapped, "{options}: no log of these wrapped around");
    }
}

/// Two volumes that differ in files, and a copy of the first with the difference in its journal.
/// debugfs writes journals with each checksum version.
#[test]
fn journals_by_debugfs() {
    for (options, journal, feature) in [
        ("-t ext3 -b 1024", "jo", ""),
        ("-t ext4 -b 4096 -O ^metadata_csum,^64bit", "jo", ""),
        ("-t ext4 -b 1024 -O ^metadata_csum,64bit", "jo", "journal_64bit"),
        ("-t ext4 -b 1024 -O ^metadata_csum,^64bit", "jo -c", "journal_checksum "),
        ("-t ext4 -b 1024 -O metadata_csum,^64bit", "jo -c -v 2", "journal_checksum_v2"),
        ("-t ext4 -b 4096 -O metadata_csum,64bit", "jo -c -v 2", "journal_checksum_v2"),
        ("-t ext4 -b 1024 -O metadata_csum,^64bit", "jo -c -v 3", "journal_checksum_v3"),
        ("-t ext4 -b 4096 -O metadata_csum,64bit", "jo -c -v 3", "journal_checksum_v3"),
    ] {
        let what = format!("{options} {journal}");
        let dir = testkit::tempdir();
        let before = mke2fs(dir.path(), 16, options);
        let content = dir.path().join("content");
        std::fs::write(&content, vec![b'x'; 10_000]).expect("a file");
        debugfs(&before, &[&format!("write {} one", name(&content))]);
        let after = copy(&before, "after");
        debugfs(
            &after,
            &[
                "mkdir sub",
                "cd sub",
                &format!("write {} two", name(&content)),
                "cd /",
                "ln one sub/link",
                "unlink one",
            ],
        );

        let dirty = copy(&before, "dirty");
        let block_size = if options.contains("-b 4096") { 4096 } else { 1024 };
        let (blocks, file) = difference(&before, &after, block_size);
        let list = blocks.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
        debugfs(&dirty, &[journal, &format!("jw -b {list} {}", name(&file)), "jc"]);
        assert!(needs_recovery(&dirty), "{what}");
        let features = run_ok("dumpe2fs", ["-h", name(&dirty)]);
        let features = features.lines().find(|l| l.starts_with("Journal features:")).unwrap_or_default();
        assert!(format!("{features} ").contains(feature), "{what}: {features}");
        let expected = walk(&after);
        assert!(expected.contains_key(&b"/sub/two"[..]), "{what}");
        tree::assert_same(&expected, &walk(&dirty), &what);

        if journal == "jo -c" {
            continue; // the kernel refuses debugfs's revokes with this checksum, as we do
        }
        // Revoked in a later transaction, the copies no longer count.
        let revoked = copy(&dirty, "revoked");
        debugfs(&revoked, &[journal, &format!("jw -r {list} /dev/null"), "jc"]);
        tree::assert_same(&walk(&before), &walk(&revoked), &format!("{what}, revoked"));

        // Written again after that, they do.
        let again = copy(&revoked, "again");
        debugfs(&again, &[journal, &format!("jw -b {list} {}", name(&file)), "jc"]);
        tree::assert_same(&expected, &walk(&again), &format!("{what}, written again"));

        // Not committed, they never happened.
        let uncommitted = copy(&before, "uncommitted");
        debugfs(&uncommitted, &[journal, &format!("jw -c -b {list} {}", name(&file)), "jc"]);
        tree::assert_same(&walk(&before), &walk(&uncommitted), &format!("{what}, not committed"));
    }
}

fn debugfs(image: &Path, commands: &[&str]) {
    let script = image.with_file_name("script");
    std::fs::write(&script, commands.join("\n")).expect("a script");
    let output = run("debugfs", ["-w", "-f", name(&script), name(image)]);
    let errors = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> =
        errors.lines().filter(|l| !l.starts_with("debugfs 1.") && !l.is_empty()).collect();
    assert!(output.status.success() && errors.is_empty(), "{commands:?}: {errors:?}");
}

fn walk(image: &Path) -> Tree {
    let fs = tree::open(image).unwrap_or_else(|e| panic!("{}: {e}", image.display()));
    tree::ours(&*fs).unwrap_or_else(|e| panic!("{}: {e}", image.display()))
}

/// The blocks in which two images differ, and a file with their content in the second. The
/// superblock is left out: its flag that the journal is dirty must stay.
fn difference(before: &Path, after: &Path, block_size: usize) -> (Vec<u64>, PathBuf) {
    let read = |path: &Path| std::fs::read(path).expect("an image");
    let (a, b) = (read(before), read(after));
    let mut blocks = Vec::new();
    let mut content = Vec::new();
    for (number, (x, y)) in a.chunks(block_size).zip(b.chunks(block_size)).enumerate() {
        if x != y && number * block_size >= 2048 {
            blocks.push(number as u64);
            content.extend_from_slice(y);
        }
    }
    let file = after.with_file_name("blocks");
    std::fs::write(&file, content).expect("a file");
    (blocks, file)
}

/// Makes a journal with two transactions in which a debugfs journal write put the given damage.
#[test]
fn damaged_journals_are_refused_and_can_be_ignored() {
    let dir = testkit::tempdir();
    let image = mke2fs(dir.path(), 16, "-t ext4 -b 4096 -O metadata_csum,64bit");
    let before = walk(&image);
    let content = dir.path().join("content");
    std::fs::write(&content, vec![b'x'; 4096]).expect("a file");
    let dirty = copy(&image, "dirty");
    // A free block, written twice.
    let free = "3000";
    let write = format!("jw -b {free} {}", name(&content));
    debugfs(&dirty, &["jo -c -v 3", &write, &write, "jc"]);
    tree::assert_same(&before, &walk(&dirty), "two transactions");

    let log = run_ok("debugfs", ["-R", "logdump", name(&dirty)]);
    let journal = run_ok("debugfs", ["-R", "bmap <8> 0", name(&dirty)]);
    let first: u64 = journal.trim().parse().expect("a block");
    let at = |what: &str| -> u64 {
        let line = log.lines().find(|l| l.contains(what)).unwrap_or_else(|| panic!("no {what} in {log}"));
        let number = line.rsplit("block ").next().expect("a block");
        let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
        first + digits.parse::<u64>().expect("a block")
    };
    let descriptor = at("descriptor block");
    for (block, offset, expected) in [
        (first, 0x20, "journal: its superblock: checksum"),
        (descriptor, 100, "a checksum in transaction"),
        (descriptor + 1, 7, "the checksum of a copy of block 3000"),
        (descriptor + 2, 60, "the checksum of the commit of transaction"),
    ] {
        let damaged = copy(&dirty, "damaged");
        flip(&damaged, block * 4096 + offset);
        let Err(error) = tree::open(&damaged) else { panic!("{expected}: opened") };
        let message = error.to_string();
        assert!(message.contains(expected) && message.contains("of the volume"), "{message}");
        let ignored =
            tree::open_with(&damaged, OpenOptions { ignore_journal: true, ..OpenOptions::default() })
                .expect("no replay");
        tree::assert_same(&before, &tree::ours(&*ignored).expect("a tree"), expected);
    }
}

fn flip(image: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(image).expect("an image");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1], offset).expect("a byte");
}

#[test]
fn fast_commits_are_refused_by_name() {
    if !can_mount("fast commits") {
        return;
    }
    let dir = testkit::tempdir();
    let image = mke2fs(dir.path(), 64, "-t ext4 -O fast_commit");
    let cut = {
        let mount = Mount::new(&image, "noatime");
        std::fs::write(mount.path().join("first"), "1").expect("a file");
        run_ok("sync", [name(mount.path())]);
        // fsync of one file is what makes a fast commit.
        let mut file = File::options().append(true).open(mount.path().join("first")).expect("a file");
        std::io::Write::write_all(&mut file, b"2").expect("space");
        file.sync_all().expect("a fast commit");
        copy(&image, "cut")
    };
    let Err(error) = tree::open(&cut) else { panic!("opened") };
    assert!(error.to_string().contains("not supported: fast_commit"), "{error}");
    tree::open_with(&cut, OpenOptions { ignore_journal: true, ..OpenOptions::default() }).expect("no replay");
}

#[test]
fn external_journals() {
    let dir = testkit::tempdir();
    let journal = dir.path().join("journal");
    File::create(&journal).and_then(|f| f.set_len(8 << 20)).expect("space");
    run_ok("mke2fs", ["-q", "-F", "-b", "4096", "-O", "journal_dev", name(&journal)]);
    let Err(error) = tree::open(&journal) else { panic!("opened") };
    assert!(error.to_string().contains("journal_dev"), "{error}");

    // A volume whose journal is elsewhere: fine while clean, refused with changes in that journal.
    let image = mke2fs(dir.path(), 16, "-t ext4 -O ^has_journal");
    debugfs(&image, &["feature has_journal", "ssv journal_uuid 01020304-0506-0708-090a-0b0c0d0e0f10"]);
    walk(&image);
    debugfs(&image, &["feature needs_recovery"]);
    let Err(error) = tree::open(&image) else { panic!("opened") };
    assert!(error.to_string().contains("external journal"), "{error}");
    assert!(error.to_string().contains("01020304-0506-0708-090a-0b0c0d0e0f10"), "{error}");
    tree::open_with(&image, OpenOptions { ignore_journal: true, ..OpenOptions::default() })
        .expect("no replay");
}
