//! Every feature that `mke2fs` can set, against the kernel.

use std::path::{Path, PathBuf};

use testkit::run_ok;

use crate::kernel::{Mount, assert_like_kernel, can_mount};

/// Makes an image in `dir`; `options` are `mke2fs`'s, separated by spaces.
fn mke2fs(dir: &Path, size_mib: u64, options: &str) -> PathBuf {
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
name=$(printf 'n%.0s' $(seq 1 255))
: > "$name"
: > "$(printf 'bytes\377\001\n')"
"#;

fn populate(image: &Path) {
    let mount = Mount::new(image, "noatime");
    let root = mount.path().to_str().expect("a plain path");
    run_ok("bash", ["-c", POPULATE, "populate", root]);
}

/// Makes, populates and compares images with each of the options.
fn compare_all(all: &[&str]) {
    if !can_mount("ext4 features") {
        return;
    }
    for options in all {
        let dir = testkit::tempdir();
        let image = mke2fs(dir.path(), 24, options);
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
    compare_all(&["-t ext2", "-t ext2 -b 4096", "-t ext3 -b 1024", "-t ext3 -b 4096"]);
}
