#!/bin/bash
# Makes the disks that virt-resize is recorded with, primary.img and logical.img, in a directory.
set -eu
cd "$1"
truncate -s 64M primary.img logical.img
sfdisk -q primary.img <<END
label: dos
label-id: 0x1badcafe
start=2048, size=32768, type=83, bootable
start=34816, size=20480, type=82
start=55296, size=75776, type=83
END
mke2fs -q -F -t ext2 -E offset=$((2048 * 512)) primary.img 16M
mke2fs -q -F -t ext4 -E offset=$((55296 * 512)) -L root primary.img 37888k
sfdisk -q logical.img <<END
label: dos
label-id: 0x1badcafe
1 : start=2048, size=32768, type=83, bootable
2 : start=34816, size=96256, type=5
5 : start=36864, size=20480, type=82
6 : start=59392, size=71680, type=83
END
mke2fs -q -F -t ext2 -E offset=$((2048 * 512)) logical.img 16M
mke2fs -q -F -t ext4 -E offset=$((59392 * 512)) -L root logical.img 35840k
# Boot code, and a boot loader behind the table.
for disk in primary.img logical.img; do
    head -c 440 /dev/urandom | dd of=$disk conv=notrunc status=none
    head -c 1000000 /dev/urandom | dd of=$disk bs=512 seek=1 conv=notrunc status=none
done
