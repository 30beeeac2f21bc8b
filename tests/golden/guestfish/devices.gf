# --ro -a IMAGE
echo "--- run"
run
echo "--- list-devices"
list-devices
echo "--- nr-devices"
nr-devices
echo "--- list-partitions"
list-partitions
echo "--- list-filesystems"
list-filesystems
echo "--- device-index /dev/sda"
device-index /dev/sda
echo "--- canonical-device-name /dev/vda1"
canonical-device-name /dev/vda1
echo "--- canonical-device-name /dev/sda"
canonical-device-name /dev/sda
echo "--- is-whole-device /dev/sda"
is-whole-device /dev/sda
echo "--- is-whole-device /dev/sda1"
is-whole-device /dev/sda1
echo "--- part-to-dev /dev/sda2"
part-to-dev /dev/sda2
echo "--- part-to-partnum /dev/sda2"
part-to-partnum /dev/sda2
echo "--- part-list /dev/sda"
part-list /dev/sda
echo "--- part-get-parttype /dev/sda"
part-get-parttype /dev/sda
echo "--- part-get-bootable /dev/sda 1"
part-get-bootable /dev/sda 1
echo "--- part-get-bootable /dev/sda 2"
part-get-bootable /dev/sda 2
echo "--- part-get-mbr-id /dev/sda 1"
part-get-mbr-id /dev/sda 1
echo "--- part-get-mbr-id /dev/sda 3"
part-get-mbr-id /dev/sda 3
echo "--- part-get-mbr-part-type /dev/sda 1"
part-get-mbr-part-type /dev/sda 1
echo "--- blockdev-getsize64 /dev/sda"
blockdev-getsize64 /dev/sda
echo "--- blockdev-getsize64 /dev/sda1"
blockdev-getsize64 /dev/sda1
echo "--- blockdev-getsz /dev/sda1"
blockdev-getsz /dev/sda1
echo "--- blockdev-getss /dev/sda"
blockdev-getss /dev/sda
echo "--- vfs-type /dev/sda1"
vfs-type /dev/sda1
echo "--- vfs-type /dev/sda2"
vfs-type /dev/sda2
echo "--- vfs-type /dev/sda3"
vfs-type /dev/sda3
echo "--- vfs-label /dev/sda1"
vfs-label /dev/sda1
echo "--- vfs-uuid /dev/sda1"
vfs-uuid /dev/sda1
echo "--- vfs-uuid /dev/sda3"
vfs-uuid /dev/sda3
echo "--- findfs-label data"
findfs-label data
echo "--- findfs-uuid 22222222-3333-4444-8555-666666666601"
findfs-uuid 22222222-3333-4444-8555-666666666601
echo "--- -findfs-label nonesuch"
-findfs-label nonesuch
echo "--- -vfs-type /dev/sdz"
-vfs-type /dev/sdz
echo "--- -ls /"
-ls /
echo "--- pread-device /dev/sda 2 510 | xxd"
pread-device /dev/sda 2 510 | xxd
echo "--- mkmountpoint /x"
mkmountpoint /x
echo "--- mkmountpoint /y"
mkmountpoint /y
echo "--- mount /dev/sda1 /x"
mount /dev/sda1 /x
echo "--- mount-ro /dev/sda2 /y"
mount-ro /dev/sda2 /y
echo "--- mounts"
mounts
echo "--- mountpoints"
mountpoints
echo "--- cat /y/file"
cat /y/file
echo "--- ls /x/t/dir"
ls /x/t/dir
echo "--- umount /x"
umount /x
echo "--- mounts"
mounts
echo "--- umount-all"
umount-all
echo "--- mounts"
mounts
echo "--- mount-options ro /dev/sda1 /"
mount-options ro /dev/sda1 /
echo "--- mount-ro /dev/sda2 /srv/data"
mount-ro /dev/sda2 /srv/data
echo "--- mountpoints"
mountpoints
echo "--- ls /srv/data"
ls /srv/data
echo "--- -mount /dev/sda3 /mnt"
-mount /dev/sda3 /mnt
echo "--- -mount /dev/sda2 /nonesuch"
-mount /dev/sda2 /nonesuch
echo "--- checksum-device md5 /dev/sda3"
checksum-device md5 /dev/sda3
echo "--- list-disk-labels"
list-disk-labels
echo "--- max-disks | grep -c ."
max-disks | grep -c .
