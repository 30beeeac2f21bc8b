//! Every feature that `mke2fs` can set, against the kernel.

use std::path::{Path, PathBuf};

use testkit::run_ok;

use crate::kernel::{Mount, assert_like_kernel, can_mount};

/// Makes an image in `dir`; `options` are `mke2fs`'s, separated by spaces.
pub(crate) fn mke2fs(dir: &Path, size_mib: u64, options: &str) -> PathBuf {
    // Its own choice for images as small as ours would be 1 KiB, which few real volumes have.
    let options = if options.contains("-b ") { options.to_owned() } else { format!("{options} -b 4096") };
    let image = dir.join("image");
    let file = std::fs::File::create(&image).expect("space for the image");
    file.set_len(size_mib << 20).expect("space for the image");
    let mut arguments: Vec<&str> = vec!["-q", "-F"];
    arguments.extend(options.split(' '));
    let image_name = image.to_str().expect("a plain path");
    arguments.push(image_name);
    run_ok("mke2fs", arguments);
    image
}

/// Files of all kinds, written through the kernel.
const POPULATE: &str = r#"
set -eu
cd "$1"
mkdir -p dir/sub many deep/a/b/c/d
printf x > tiny
printf '%0100d' 1 > hundred
head -c 3000000 /dev/urandom > big
: > empty
# Sparse: data in the middle and at the end, and one that is only a hole.
truncate -s 20000000 sparse
printf middle | dd of=sparse bs=1 seek=9000000 conv=notrunc status=none
# Beyond double indirect blocks, and beyond 4 GiB.
printf far | dd of=far bs=1 seek=70000000 conv=notrunc status=none
printf farther | dd of=far bs=1 seek=5000000001 conv=notrunc status=none
printf end | dd of=sparse bs=1 seek=19999997 conv=notrunc status=none
truncate -s 5000000 hole
fallocate -l 300000 preallocated 2>/dev/null || :
# Fragmented, so that the map has many entries.
i=0
while [ $i -lt 400 ]; do
    printf '%d' $i | dd of=fragmented bs=1 seek=$((i * 20000)) conv=notrunc status=none
    i=$((i + 1))
done
for i in $(seq 1 700); do : > "many/a-rather-long-file-name-to-fill-blocks-$i"; done
ln -s short link-fast
ln -s "$(printf '%059d' 7)" link-59
ln -s "$(printf '%060d' 7)" link-60
ln -s "$(printf '%0900d' 7)" link-slow
ln big hard-link
mkfifo fifo
mknod char c 5 1
mknod block b 259 70000
mknod large c 300 300
chmod 6755 hundred
chown 70000:80000 tiny
touch -d '1901-12-20 00:00:00.5 UTC' old
touch -d '2106-02-07 06:28:16.123456789 UTC' future 2>/dev/null || touch future
setfattr -n user.short -v value tiny
setfattr -n user.empty tiny
setfattr -n user.large -v "$(printf '%0500d' 3)" tiny
setfattr -n trusted.thing -v secret dir
setfattr -n security.capability -v 0x0100000200040000000000000000000000000000 hundred
setfattr -n user.on-dir -v d dir/sub
setfacl -m u:1000:rw,g:2000:r,m:rwx tiny
setfacl -d -m u:1000:rwx,o::- dir
head -c 40000 /dev/urandom | base64 -w0 | head -c 50000 > "$2"
setfattr -n user.huge -v "$(cat "$2")" dir/sub 2>/dev/null || :
setfattr -n user.huge -v "$(cat "$2")" many 2>/dev/null || :
setfattr -n user.medium -v "$(head -c 3000 "$2")" many 2>/dev/null || :
# Inline data of every length, where that is on; a directory that is just too large for it.
for i in $(seq 1 170); do head -c $i "$2" > dir/length-$i; done
mkdir small; : > small/a; : > small/bb; : > small/ccc; ln -s "$(printf '%0100d' 7)" small/link
mkdir middle; for i in $(seq 1 12); do : > middle/file-$i; done
rm small/bb
name=$(printf 'n%.0s' $(seq 1 255))
: > "$name"
: > "$(printf 'bytes\377\001\n')"
"#;

fn populate(image: &Path) {
    let mount = Mount::new(image, "noatime");
    let root = mount.path().to_str().expect("a plain path");
    let scratch = tempfile::NamedTempFile::new().expect("a temporary file");
    run_ok("bash", ["-c", POPULATE, "populate", root, scratch.path().to_str().expect("a plain path")]);
}

/// Makes, populates and compares images with each of the options.
fn compare_all(all: &[&str]) {
    if !can_mount("ext4 features") {
        return;
    }
    for options in all {
        let dir = testkit::tempdir();
        let image = mke2fs(dir.path(), if options.contains("bigalloc") { 128 } else { 24 }, options);
        populate(&image);
        assert_like_kernel(&image, options);
    }
}

#[test]
fn ext4_block_sizes() {
    compare_all(&["-t ext4 -b 1024", "-t ext4 -b 2048", "-t ext4 -b 4096"]);
}

#[test]
fn ext2_and_ext3() {
    compare_all(&[
        "-t ext2 -b 1024",
        "-t ext2",
        "-t ext2 -O ^filetype,^dir_index",
        "-t ext3 -b 1024",
        "-t ext3 -b 4096",
        "-t ext4 -O ^extent,^64bit",
        "-t ext4 -O ^extent,^64bit,inline_data -b 1024",
    ]);
}

#[test]
fn inode_sizes() {
    compare_all(&[
        "-t ext4 -I 128",
        "-t ext4 -I 128 -b 1024 -O ^extra_isize",
        "-t ext4 -I 512",
        "-t ext4 -I 1024 -b 1024",
    ]);
}

#[test]
fn group_descriptors() {
    compare_all(&[
        "-t ext4 -O 64bit -b 1024 -g 1024",
        "-t ext4 -O ^64bit -b 1024 -g 1024",
        "-t ext4 -O meta_bg,^resize_inode -b 1024 -g 512",
        "-t ext4 -O meta_bg,^resize_inode,64bit -b 1024 -g 512 -G 1",
        "-t ext4 -O ^flex_bg -b 1024 -g 2048",
        "-t ext4 -O sparse_super2,^resize_inode -b 1024 -g 1024",
        "-t ext4 -O ^sparse_super,^resize_inode -b 1024 -g 2048",
        "-t ext2 -O meta_bg,^resize_inode -b 1024 -g 256",
    ]);
}

#[test]
fn checksums() {
    compare_all(&[
        "-t ext4 -O metadata_csum",
        "-t ext4 -O metadata_csum -b 1024 -I 512",
        "-t ext4 -O metadata_csum,metadata_csum_seed",
        "-t ext4 -O ^metadata_csum,uninit_bg",
        "-t ext4 -O ^metadata_csum,uninit_bg,^64bit -b 1024 -g 1024",
        "-t ext4 -O ^metadata_csum,^uninit_bg",
        "-t ext4 -O ^metadata_csum,ea_inode",
    ]);
}

#[test]
fn bigalloc() {
    compare_all(&[
        "-t ext4 -O bigalloc",
        "-t ext4 -O bigalloc -C 65536 -b 1024",
        "-t ext4 -O bigalloc,^resize_inode -C 32768",
    ]);
}

#[test] // Older versions of mkfs did not leave the number of clusters that metadata takes.
fn bigalloc_overhead_is_counted() {
    if !can_mount("overhead of bigalloc") {
        return;
    }
    for options in [
        "-t ext4 -O bigalloc -g 32768",
        "-t ext4 -O bigalloc -C 65536 -b 1024",
        "-t ext4 -O bigalloc,^flex_bg -C 16384",
        "-t ext4 -O bigalloc,^resize_inode,^has_journal",
        "-t ext4 -O bigalloc,meta_bg,^resize_inode -C 32768",
    ] {
        let dir = testkit::tempdir();
        let image = mke2fs(dir.path(), 600, options);
        let name = image.to_str().expect("a plain path");
        run_ok("debugfs", ["-w", "-R", "ssv overhead_clusters 0", name]);
        assert!(!run_ok("dumpe2fs", ["-h", name]).contains("Overhead clusters"));
        assert_like_kernel(&image, options);
    }
}

#[test]
fn inline_data() {
    compare_all(&[
        "-t ext4 -O inline_data",
        "-t ext4 -O inline_data -I 1024",
        "-t ext4 -O inline_data -b 1024 -I 512",
        "-t ext4 -O inline_data,^metadata_csum,bigalloc,ea_inode",
    ]);
}

#[test]
fn large_attributes() {
    compare_all(&[
        "-t ext4 -O ea_inode",
        "-t ext4 -O ea_inode,metadata_csum_seed -b 1024",
        "-t ext4 -O ea_inode -I 1024",
    ]);
}

#[test]
fn other_features() {
    compare_all(&[
        "-t ext4 -O large_dir",
        "-t ext4 -O ^dir_index",
        "-t ext4 -O ^has_journal",
        "-t ext4 -O encrypt,verity,stable_inodes",
        "-t ext4 -O orphan_file",
        "-t ext4 -O fast_commit",
        "-t ext4 -O mmp -E mmp_update_interval=1",
        "-t ext4 -O ^huge_file,^large_file,^dir_nlink",
    ]);
}

#[test] // What this kernel may lack for writing, turned on when the files are there.
fn features_turned_on_later() {
    if !can_mount("ext4 features turned on later") {
        return;
    }
    let dir = testkit::tempdir();
    let image = mke2fs(dir.path(), 24, "-t ext4 -O ^metadata_csum,^64bit -I 256");
    populate(&image);
    let name = image.to_str().expect("a plain path");
    for change in [
        &["tune2fs", "-O", "quota,project"][..],
        &["tune2fs", "-E", "hash_alg=tea"],
        &["resize2fs", "-b"],
        &["tune2fs", "-O", "metadata_csum"],
        &["tune2fs", "-O", "metadata_csum_seed"],
        &["tune2fs", "-U", "random"],
        &["resize2fs", "-M"],
    ] {
        let (program, options) = change.split_first().expect("a program");
        // They insist on a check first; it ends with 1 if it changed something.
        testkit::run("e2fsck", ["-fy", name]);
        run_ok(program, options.iter().copied().chain([name]));
        assert_like_kernel(&image, &change.join(" "));
    }
}

/// Every hash that an htree can have, with characters of either sign.
#[test]
fn htree_hashes() {
    if !can_mount("htree hashes") {
        return;
    }
    const NAMES: &str = r#"
cd "$1"; mkdir d; cd d
for i in $(seq 1 3000); do : > "name-$i-"$'\xc3\xa9\xff'"-$((i * i))"; done
"#;
    for (algorithm, flags) in
        [("legacy", 1), ("legacy", 2), ("half_md4", 1), ("half_md4", 2), ("tea", 1), ("tea", 2)]
    {
        let dir = testkit::tempdir();
        let image = mke2fs(dir.path(), 16, "-t ext4 -b 1024 -N 4096");
        let name = image.to_str().expect("a plain path");
        run_ok("tune2fs", ["-E", &format!("hash_alg={algorithm}"), name]);
        run_ok("debugfs", ["-w", "-R", &format!("ssv flags {flags}"), name]);
        {
            let mount = Mount::new(&image, "noatime");
            run_ok("bash", ["-c", NAMES, "names", mount.path().to_str().expect("a plain path")]);
        }
        let tree = assert_like_kernel(&image, &format!("{algorithm} {flags}"));
        assert_eq!(tree.len(), 3003, "all names are there");
    }
}

/// A directory whose htree has two levels of nodes below the root, which needs `large_dir`, and names
/// that hash alike, so that they go on in the next leaf.
#[test]
fn htree_of_three_levels() {
    if !can_mount("an htree of three levels") {
        return;
    }
    const NAMES: &str = r#"
cd "$1"; mkdir d; cd d
: > target
# Hard links need no inodes; 50000 of them in a directory are allowed.
python3 - <<'P'
import os
for i in range(50000):
    os.link("target", "%0240d" % i)
P
"#;
    let dir = testkit::tempdir();
    let image = mke2fs(dir.path(), 64, "-t ext4 -b 1024 -O large_dir -N 256");
    {
        let mount = Mount::new(&image, "noatime");
        run_ok("bash", ["-c", NAMES, "names", mount.path().to_str().expect("a plain path")]);
    }
    let levels = run_ok("debugfs", ["-R", "htree_dump /d", image.to_str().expect("a plain path")]);
    assert!(levels.contains("Indirect levels: 2"), "{}", levels.lines().take(12).collect::<String>());
    assert_like_kernel(&image, "three levels");
}

/// Trees of extents and of indirect blocks as deep as a small image can have them.
#[test]
fn deep_maps() {
    use std::os::unix::fs::FileExt;
    if !can_mount("deep maps") {
        return;
    }
    for options in ["-t ext4 -b 1024", "-t ext4 -b 1024 -O bigalloc -C 2048", "-t ext3 -b 1024"] {
        let dir = testkit::tempdir();
        let image = mke2fs(dir.path(), 96, options);
        {
            let mount = Mount::new(&image, "noatime");
            let file = std::fs::File::create(mount.path().join("fragments")).expect("a file");
            for block in 0..30_000u64 {
                file.write_all_at(&block.to_le_bytes(), block * 2048 + block % 1000).expect("space");
            }
        }
        let tree = assert_like_kernel(&image, options);
        assert_eq!(tree[&b"/fragments"[..]].data.len(), 30_000);
    }
}
