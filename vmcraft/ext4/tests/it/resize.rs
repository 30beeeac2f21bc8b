//! Volumes that we make larger and smaller, as e2fsck and the kernel see them: their files stay the same.

use std::fs::File;
use std::path::Path;

use sha2::{Digest, Sha256};
use testkit::run_ok;
use vmcraft_fs::ResizeTo;

use crate::features::mke2fs;
use crate::kernel::{Mount, assert_like_kernel, can_mount};
use crate::mkfs::{MIB, assert_clean, open, sources, tools};
use crate::sample::{self, name};
use crate::tree;

fn digest(image: &Path) -> String {
    let fs = tree::open(image).expect("a volume");
    let tree = tree::ours(&*fs).expect("a tree");
    tree::hex(&Sha256::digest(format!(
        "{:?}",
        tree.iter().map(|(p, n)| (p, n.mode, n.size, &n.content)).collect::<Vec<_>>()
    )))
}

#[test]
fn volumes_grow() {
    for options in [
        "-t ext4 -b 1024",
        "-t ext4",
        "-t ext4 -O ^metadata_csum,uninit_bg -b 1024",
        "-t ext4 -O ^flex_bg,meta_bg,^resize_inode -b 1024",
        "-t ext4 -O ^64bit -b 2048",
        "-t ext3 -b 1024",
        "-t ext2 -b 1024",
    ] {
        let dir = testkit::tempdir();
        let image = sample::image(dir.path(), 21, options);
        let before = digest(&image);
        for mib in [22, 60, 300] {
            File::options().write(true).open(&image).and_then(|f| f.set_len(mib * MIB)).expect("room");
            let size = tools().resize(&open(&image), ResizeTo::Device, &sources());
            let size = size.unwrap_or_else(|e| panic!("{options}, {mib} MiB: {e}"));
            assert!(size <= mib * MIB && size > (mib - 2) * MIB, "{options}: {size} of {mib} MiB");
            assert_clean(&image, &format!("{options}, {mib} MiB"));
            assert_eq!(digest(&image), before, "{options}, {mib} MiB");
            if can_mount("volumes that grow") {
                assert_like_kernel(&image, &format!("{options}, {mib} MiB"));
            }
        }
    }
}

/// Files of all kinds in all groups, written through the kernel: directories below the root are spread, and
/// what is deleted in between leaves holes to fill.
const POPULATE: &str = r#"
set -eu
cd "$1"
for d in $(seq 1 40); do
    mkdir "dir$d"
    for i in $(seq 1 12); do head -c $((i * 3000 + d)) /dev/urandom > "dir$d/file$i"; done
    mkdir "dir$d/sub"; ln -s "../file1" "dir$d/sub/link"
    setfattr -n user.small -v "$d" "dir$d/file1"
done
mkdir many
for i in $(seq 1 900); do : > "many/a-rather-long-file-name-to-fill-blocks-$i"; done
for i in $(seq 1 200); do printf '%d' $i | dd of=fragmented bs=1 seek=$((i * 70000)) conv=notrunc status=none; done
for d in $(seq 1 20); do
    dd if=/dev/urandom of="dir$d/large" bs=64k count=12 status=none
    setfattr -n user.shared -v "$(printf '%0700d' 7)" "dir$d/large"
done
sync
for d in $(seq 1 3 40); do rm "dir$d"/file[2-8]; done
for d in $(seq 1 20); do dd if=/dev/urandom of="dir$d/later" bs=64k count=8 status=none; done
ln dir7/large dir30/hard; ln dir33/file12 hard
ln -s "$(printf '%0200d' 7)" dir39/long-link
mknod dir40/null c 1 3; mkfifo dir38/fifo
fallocate -l 300000 dir37/unwritten || true
truncate -s 50M dir36/sparse; printf end >> dir36/sparse
chmod 4750 dir3/large; chown 12:34 dir5; touch -d '2001-02-03 04:05:06 UTC' dir9/file9
"#;

/// What the kernel sees, without what may change: numbers of inodes, and the blocks of maps.
fn as_kernel_sees(image: &Path) -> tree::Tree {
    let mount = Mount::new(image, "ro,noatime");
    let mut tree = tree::mounted(mount.path());
    for node in tree.values_mut() {
        (node.inode, node.blocks) = (0, 0);
    }
    tree
}

fn last_inode(image: &Path) -> u64 {
    let fs = tree::open(image).expect("a volume");
    tree::ours(&*fs).expect("a tree").values().map(|node| node.inode).max().unwrap_or(0)
}

#[test]
fn volumes_shrink_and_grow_again() {
    if !can_mount("volumes that shrink") {
        return;
    }
    for options in [
        "-t ext4 -b 1024",
        "-t ext4 -b 4096 -g 2048",
        "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg",
        "-t ext4 -b 1024 -O ^flex_bg",
        "-t ext4 -b 1024 -O ^flex_bg,meta_bg,^resize_inode",
        "-t ext4 -b 1024 -O ^64bit,^extent",
        "-t ext4 -b 2048 -g 4096 -O ^resize_inode,orphan_file -G 4",
        "-t ext4 -b 1024 -I 128 -N 40000",
        "-t ext3 -b 1024",
        "-t ext2 -b 1024",
        "-t ext2 -b 4096 -g 2048",
    ] {
        let dir = testkit::tempdir();
        let image = mke2fs(dir.path(), 160, options);
        {
            let mount = Mount::new(&image, "rw");
            run_ok("bash", ["-c", POPULATE, "populate", name(mount.path())]);
        }
        assert_clean(&image, options);
        let before = as_kernel_sees(&image);
        let highest = last_inode(&image);
        let minimum = tools().minimum_size(&open(&image)).unwrap_or_else(|e| panic!("{options}: {e}"));
        assert!(minimum < 64 * MIB, "{options}: {minimum}");
        for to in [
            ResizeTo::Bytes(131 * MIB),
            ResizeTo::Bytes(100 * MIB + 3000),
            ResizeTo::Minimum,
            ResizeTo::Bytes(90 * MIB),
            ResizeTo::Minimum,
            ResizeTo::Device,
        ] {
            let what = format!("{options}, {to:?}");
            let size =
                tools().resize(&open(&image), to, &sources()).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_clean(&image, &what);
            // Nothing behind the end is needed.
            if to != ResizeTo::Device {
                let file = File::options().write(true).open(&image).expect("the image");
                file.set_len(size).and_then(|()| file.set_len(160 * MIB)).expect("room");
            }
            match to {
                ResizeTo::Bytes(bytes) => assert!(size <= bytes && size > bytes - 9 * MIB, "{what}: {size}"),
                ResizeTo::Minimum => assert!(size <= minimum + MIB, "{what}: {size}, not {minimum}"),
                ResizeTo::Device => assert!(size > 150 * MIB, "{what}: {size}"),
            }
            tree::assert_same(&before, &as_kernel_sees(&image), &what);
        }
        let is_spread = options.contains("ext2") || options.contains("^flex_bg") || options.contains("-G");
        assert!(last_inode(&image) < highest || !is_spread, "{options}: inodes got other numbers");
        // The kernel can write to what it became.
        {
            let mount = Mount::new(&image, "rw");
            std::fs::write(mount.path().join("new"), vec![7; 1 << 20]).expect("a file");
            std::fs::remove_dir_all(mount.path().join("dir7")).expect("a directory less");
        }
        assert_clean(&image, &format!("{options}, written by the kernel"));
    }
}

/// With a stride, groups have their bitmaps at different places, which may be behind the new end.
#[test]
fn bitmaps_of_the_last_group_move() {
    let options = "-t ext4 -b 1024 -O ^flex_bg -E stride=1900";
    let dir = testkit::tempdir();
    let original = sample::image(dir.path(), 100, options);
    let files = digest(&original);
    let image = dir.path().join("smaller");
    let bitmaps = |image: &Path| -> Vec<String> {
        let said = run_ok("dumpe2fs", [name(image)]);
        let lines = said.lines().filter(|line| line.contains(" bitmap at "));
        lines.map(|line| line.split(" (").next().unwrap_or(line).to_owned()).collect()
    };
    let before = bitmaps(&original);
    let mut moved = 0;
    for kept in [700, 1500, 2966, 2967, 5600] {
        std::fs::copy(&original, &image).expect("a copy");
        let what = format!("{kept} blocks of the last group");
        let to = ResizeTo::Bytes((1 + 9 * 8192 + kept) << 10);
        tools().resize(&open(&image), to, &sources()).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_clean(&image, &what);
        assert_eq!(digest(&image), files, "{what}");
        moved += usize::from(bitmaps(&image).iter().any(|line| !before.contains(line)));
    }
    assert!((1..5).contains(&moved), "in {moved} of 5 the end is in front of a bitmap");
}

/// The minimum can be reached, and a volume is not made smaller than that.
#[test]
fn what_does_not_fit_is_refused_and_nothing_changes() {
    for options in ["-t ext4 -b 1024", "-t ext2 -b 1024", "-t ext4 -b 4096"] {
        let dir = testkit::tempdir();
        let image = sample::image(dir.path(), 64, options);
        let before = std::fs::read(&image).expect("the image");
        let minimum = tools().minimum_size(&open(&image)).expect("a minimum");
        let error = tools().resize(&open(&image), ResizeTo::Bytes(minimum / 2), &sources()).unwrap_err();
        assert!(matches!(error, vmcraft_fs::Error::NoSpace(_)), "{options}: {error}");
        assert!(std::fs::read(&image).expect("the image") == before, "{options}: nothing changes");
        let files = digest(&image);
        let size = tools().resize(&open(&image), ResizeTo::Minimum, &sources()).expect("it fits");
        assert_eq!(size, minimum, "{options}");
        assert_clean(&image, options);
        File::options().write(true).open(&image).and_then(|f| f.set_len(size)).expect("less");
        assert_clean(&image, options);
        assert_eq!(digest(&image), files, "{options}");
    }
}

#[test]
fn what_cannot_be_done_is_refused() {
    let dir = testkit::tempdir();
    let image = sample::image(dir.path(), 21, "-t ext4");
    let error = tools().resize(&open(&image), ResizeTo::Bytes(99 * MIB), &sources()).unwrap_err();
    assert!(error.to_string().contains("device"), "{error}");
    assert_clean(&image, "refused");
    for (options, expected) in [
        ("-t ext4 -O bigalloc", "bigalloc"),
        ("-t ext4 -O mmp", "mmp"),
        ("-t ext4 -O quota", "quota"),
        ("-t ext4 -O sparse_super2,^resize_inode", "sparse_super2"),
    ] {
        let dir = testkit::tempdir();
        let image = mke2fs(dir.path(), 64, options);
        let before = std::fs::read(&image).expect("the image");
        for to in [ResizeTo::Bytes(32 * MIB), ResizeTo::Minimum] {
            let error = tools().resize(&open(&image), to, &sources()).unwrap_err().to_string();
            assert!(error.contains(expected), "{options}: {error}");
        }
        assert!(std::fs::read(&image).expect("the image") == before, "{options}: nothing changes");
    }
}
