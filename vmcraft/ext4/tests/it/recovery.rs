//! What is done before the first change: the journal is replayed to the device, and orphans go.

use std::fs::File;
use std::path::{Path, PathBuf};

use testkit::run_ok;
use vmcraft_fs::{SetMetadata, Timestamp};

use crate::features::mke2fs;
use crate::journal::{assert_replays_like_kernel, copy, needs_recovery, power_cut};
use crate::kernel::{Mount, assert_like_kernel, can_mount};
use crate::sample::{debugfs, inode_of, name};
use crate::scratch::assert_clean;
use crate::tree::{self, Tree, open_for_writing};

/// Changes the access time of the root, and nothing else.
fn touch_root(image: &Path) {
    let fs = open_for_writing(image).expect("a volume");
    let accessed = Some(Timestamp { seconds: 1_000_000_000, nanoseconds: 5 });
    let writer = fs.writer().unwrap_or_else(|e| panic!("{}: {e}", image.display()));
    let before = fs.statfs().expect("statfs").inodes_free;
    writer.set_metadata(fs.root(), &SetMetadata { accessed, ..SetMetadata::default() }).expect("a change");
    assert!(fs.statfs().expect("statfs").inodes_free >= before);
    writer.sync().expect("a sync");
}

/// Without what [`touch_root`] changes, and what the kernel changes by mounting.
fn comparable(mut tree: Tree) -> Tree {
    tree.get_mut(&b""[..]).expect("the root").times = Default::default();
    tree
}

#[test]
fn a_first_change_leaves_what_the_kernel_recovers() {
    if !can_mount("recovery before a change") {
        return;
    }
    for (options, mount) in [
        ("-t ext3 -b 1024", "noatime,data=journal"),
        ("-t ext4 -b 4096", "noatime"),
        ("-t ext4 -b 1024 -O ^metadata_csum,64bit", "noatime,journal_async_commit,data=journal"),
        ("-t ext4 -b 2048 -O metadata_csum", "noatime,data=journal"),
        ("-t ext4 -b 4096 -O orphan_file,inline_data", "noatime"),
    ] {
        let what = format!("{options} {mount}");
        let (_dir, cut) = power_cut(options, mount, 2);
        let theirs = copy(&cut, "theirs");
        drop(Mount::new(&theirs, "noatime"));
        let theirs = assert_like_kernel(&theirs, &what);

        touch_root(&cut);
        assert!(!needs_recovery(&cut), "{what}");
        assert_clean(&cut, &what);
        let ours = assert_like_kernel(&cut, &what);
        tree::assert_same(&comparable(theirs), &comparable(ours), &what);

        // The kernel goes on with the journal, and nothing of the old log comes back.
        let again = {
            let mounted = Mount::new(&cut, mount);
            let at = name(mounted.path());
            run_ok("bash", ["-euc", "cd \"$1\"; mkdir later; echo x > later/x; sync .", "later", at]);
            copy(&cut, "again")
        };
        let tree = assert_replays_like_kernel(&again, &what);
        assert!(tree.contains_key(&b"/later/x"[..]), "{what}");
    }
}

/// A volume as a power cut leaves it with files that are open but have no name.
fn with_orphans(options: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = testkit::tempdir();
    let image = mke2fs(dir.path(), 64, options);
    let cut = {
        let mounted = Mount::new(&image, "noatime");
        let at = mounted.path();
        run_ok(
            "bash",
            [
                "-euc",
                "cd \"$1\"; head -c 300000 /dev/urandom > big; : > empty; mkdir dir; ln -s x link; echo kept > kept
                 for i in $(seq 1 200); do dd if=/dev/zero of=pieces bs=1000 count=1 seek=$((i * 20)) conv=notrunc status=none
                 done; head -c 5000 /dev/zero > attributes; setfattr -n user.large -v \"$(printf '%0700d' 1)\" attributes",
                "fill",
                name(at),
            ],
        );
        let open: Vec<File> = ["big", "empty", "dir", "pieces", "attributes"]
            .iter()
            .map(|file| File::open(at.join(file)).expect("a file"))
            .collect();
        run_ok(
            "bash",
            ["-euc", "cd \"$1\"; rm big empty pieces attributes; rmdir dir; sync .", "rm", name(at)],
        );
        let cut = copy(&image, "cut");
        drop(open);
        cut
    };
    (dir, cut)
}

#[test]
fn deleted_files_that_were_open_go() {
    if !can_mount("orphans") {
        return;
    }
    for options in [
        "-t ext4 -b 4096",
        "-t ext4 -b 1024 -O orphan_file",
        "-t ext4 -b 1024 -O orphan_file,^metadata_csum,uninit_bg",
        "-t ext3 -b 1024",
    ] {
        let (_dir, cut) = with_orphans(options);
        let theirs = copy(&cut, "theirs");
        drop(Mount::new(&theirs, "noatime"));
        let theirs = tree::open(&theirs).expect("a volume").statfs().expect("statfs");
        touch_root(&cut);
        assert_clean(&cut, options);
        let ours = tree::open(&cut).expect("a volume").statfs().expect("statfs");
        assert_eq!(
            (ours.blocks_free, ours.inodes_free),
            (theirs.blocks_free, theirs.inodes_free),
            "{options}"
        );
        let tree = assert_like_kernel(&cut, options);
        assert!(tree.contains_key(&b"/kept"[..]) && !tree.contains_key(&b"/big"[..]), "{options}");
    }
}

/// A file with blocks behind its end, in the orphan list: a power cut while it was being cut off.
fn half_cut_off(dir: &Path, options: &str) -> PathBuf {
    let image = mke2fs(dir, 16, options);
    let content = dir.join("content");
    std::fs::write(&content, vec![b'x'; 100_000]).expect("a file");
    debugfs(&image, &format!("write {} file", name(&content)));
    debugfs(&image, "sif file size 5000");
    let number = inode_of(&image, "file");
    debugfs(&image, &format!("ssv last_orphan {number}"));
    image
}

#[test]
fn files_that_were_being_cut_off_are() {
    for options in ["-t ext4 -b 1024", "-t ext4 -b 4096 -O ^metadata_csum", "-t ext2 -b 1024"] {
        let dir = testkit::tempdir();
        let image = half_cut_off(dir.path(), options);
        touch_root(&image);
        assert_clean(&image, options);
        assert!(debugfs(&image, "stat file").contains("Size: 5000"), "{options}");
        let tree = tree::ours(&*tree::open(&image).expect("a volume")).expect("a tree");
        let block = if options.contains("4096") { 4096 } else { 1024 };
        assert_eq!(tree[&b"/file"[..]].blocks, 5000u64.div_ceil(block) * block / 512, "{options}");
    }
}

#[test] // A list that leads to itself, out of the volume, or to what is free.
fn forged_orphans_are_refused() {
    let dir = testkit::tempdir();
    let image = half_cut_off(dir.path(), "-t ext4 -b 1024 -O ^metadata_csum");
    let number = inode_of(&image, "file");
    for commands in [
        vec![format!("sif file dtime {number}")],
        vec!["sif file dtime 100000".into()],
        vec!["sif file dtime 3000".into()],
        vec!["sif file dtime 8".into()],
        vec!["sif file dtime 0".into(), "sif file links_count 0".into(), "freei file".into()],
    ] {
        for command in &commands {
            debugfs(&image, command);
        }
        assert_refused(&image, &commands);
        // Nor is the journal replayed then.
        let (dirty, script) = (copy(&image, "dirty"), dir.path().join("script"));
        let content = dir.path().join("content");
        std::fs::write(&script, format!("jo\njw -b 9000 {}\njc\n", name(&content))).expect("a script");
        run_ok("debugfs", ["-w", "-f", name(&script), name(&dirty)]);
        assert!(needs_recovery(&dirty));
        assert_refused(&dirty, &commands);
    }
}

/// A volume whose orphans are no orphans stays as it is.
fn assert_refused(image: &Path, commands: &[String]) {
    let before = std::fs::read(image).expect("an image");
    let fs = open_for_writing(image).expect("a volume");
    let result = fs.writer().expect("a writer").set_metadata(fs.root(), &SetMetadata::default());
    let error = result.expect_err("a forged list");
    assert!(matches!(error, vmcraft_fs::Error::Corrupt { .. }), "{commands:?}: {error}");
    drop(fs);
    assert!(before == std::fs::read(image).expect("an image"), "{commands:?}: something was changed");
}
