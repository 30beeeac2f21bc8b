# -n --keys-from-stdin: scratch disks
# Volume groups, encrypted devices, and what is listed of them.
scratch 64M
scratch 64M
scratch 128M
scratch 64M
run
echo --- physical volumes
pvcreate /dev/sda
part-disk /dev/sdb mbr
pvcreate /dev/sdb1
vgcreate VG "/dev/sda /dev/sdb1"
pvs
vgs
pvs-full | grep -v "uuid\\|mda_free"
vgs-full | grep -v "uuid\\|mda_free"
echo --- logical volumes
lvcreate LV1 VG 16
lvcreate-free LV2 VG 50
lvcreate my-lv VG 8
lvs
lvs-full | grep -v "uuid\\|mda_free"
list-dm-devices
list-filesystems
mkfs ext2 /dev/VG/LV1
mkfs ext2 /dev/mapper/VG-my--lv
list-filesystems
list-partitions
is-lv /dev/VG/LV1
is-lv /dev/sda
is-lv /dev/mapper/VG-LV1
is-whole-device /dev/VG/LV1
is-whole-device /dev/sda
lvm-canonical-lv-name /dev/mapper/VG-LV1
lvm-canonical-lv-name /dev/mapper/VG-my--lv
lvm-canonical-lv-name /dev/VG/LV1
-lvm-canonical-lv-name /dev/sda
canonical-device-name /dev/mapper/VG-LV1
canonical-device-name /dev/mapper/VG-my--lv
canonical-device-name /dev/mapper/nope
vfs-type /dev/VG/LV1
vfs-type /dev/VG/LV2
vfs-type /dev/sda
-device-index /dev/VG/LV1
blockdev-getsize64 /dev/VG/LV1
blockdev-getss /dev/VG/LV1
blockdev-getro /dev/VG/LV1
mount /dev/mapper/VG-LV1 /
mounts
mountpoints
touch /f
ls /
-lvremove /dev/VG/LV1
-vgremove VG
-vg-activate false VG
lvs-full | grep attr
umount /
echo --- changing them
lvresize /dev/VG/LV1 24
lvresize-free /dev/VG/LV2 100
lvs-full | grep -v "uuid\\|mda_free"
-lvresize-free /dev/VG/LV2 0
-lvresize /dev/VG/LV1 100000
-lvresize /dev/VG/LV1 0
-lvcreate LV1 VG 4
lvrename /dev/VG/LV1 /dev/VG/LVX
-lvrename /dev/VG/nope /dev/VG/LVZ
lvs
lvrename VG/LVX VG/LVQ
lvs
vgrename VG VG2
lvs
vgs
-vgrename nope VGX
-vgrename VG2 bad/name
-vgcreate VG2 /dev/sdc
-vgcreate VG3 /dev/sda
-vgcreate VG3 /dev/nope
-pvcreate /dev/sda
-lvcreate LVQ VG2 4
-lvcreate BIG VG2 100000
-lvcreate X nope 4
-lvcreate zero VG2 0
-lvcreate-free X VG2 101
-lvcreate-free X VG2 0
-lvcreate snapshot VG2 4
-lvcreate x_mimage VG2 4
-lvremove /dev/VG2/nope
lvs
echo --- activation
vg-activate false VG2
lvs
lvs-full | grep -v "uuid\\|mda_free"
list-filesystems
-vfs-type /dev/VG2/LVQ
vgchange-uuid-all
pvchange-uuid-all
vgchange-uuid VG2
pvchange-uuid /dev/sda
-vgchange-uuid nope
-pvchange-uuid /dev/sdc
vg-activate-all true
-vg-activate true nope
list-filesystems
lvm-set-filter /dev/sdc
vgs
pvs
lvs
lvm-clear-filter
vgs
lvm-scan true
lvm-scan false
vgpvuuids VG2 | wc -l
vglvuuids VG2 | wc -l
echo --- removing them
-pvresize-size /dev/sda 4194304
-pvresize /dev/sdc
lvremove /dev/VG2/LVQ
lvs
pvresize /dev/sda
pvs-full | grep -v "uuid\\|mda_free"
vgs-full | grep -v "uuid\\|mda_free"
lvremove /dev/VG2
lvs
vgremove VG2
vgs
pvs
pvs-full | grep -v "uuid\\|mda_free"
-vgremove nope
pvremove /dev/sda
-pvremove /dev/sda
pvs
vgcreate VG /dev/sdc
lvcreate-free LV VG 100
lvm-remove-all
pvs
vgs
lvs
vgcreate /dev/VGD /dev/sdc
vgs
lvcreate LV /dev/VGD 8
lvcreate-free LV2 /dev/VGD 50
lvs
vgrename /dev/VGD /dev/VGE
lvs
vg-activate false /dev/VGE
lvs
vgchange-uuid /dev/VGE
vg-activate true /dev/VGE
vgpvuuids /dev/VGE | wc -l
vgremove /dev/VGE
vgs
lvm-remove-all
echo --- arrays
md-create one "/dev/sda /dev/sdc"
list-md-devices
md-stop /dev/md127
list-md-devices
md-create two "/dev/sda /dev/sdc"
list-md-devices
-md-create alone /dev/sdd
md-stop /dev/md127
zero-device /dev/sda
zero-device /dev/sdc
echo --- encrypted devices
luks-format /dev/sdc 0
k
list-filesystems
vfs-type /dev/sdc
-luks-open /dev/sdc nope
wrong
luks-open /dev/sdc lukstest
k
list-dm-devices
list-filesystems
blockdev-getsize64 /dev/mapper/lukstest
blockdev-getro /dev/mapper/lukstest
canonical-device-name /dev/mapper/lukstest
is-whole-device /dev/mapper/lukstest
-luks-open /dev/sdc again
k
pvcreate /dev/mapper/lukstest
vgcreate CR /dev/mapper/lukstest
lvcreate inner CR 32
pvs
lvs
luks-format-cipher /dev/CR/inner 3 aes-cbc-essiv:sha256
i
cryptsetup-open /dev/CR/inner again
i
list-dm-devices
mkfs ext2 /dev/mapper/again
list-filesystems
mount /dev/mapper/again /
write /f innermost
cat /f
-cryptsetup-close /dev/mapper/again
umount /
-cryptsetup-close /dev/mapper/lukstest
-vg-activate-all false
cryptsetup-close /dev/mapper/again
vg-activate-all false
cryptsetup-close /dev/mapper/lukstest
-cryptsetup-close /dev/mapper/lukstest
list-dm-devices
lvs
luks-add-key /dev/sdc 1
k
k2
-luks-add-key /dev/sdc 1
k
k3
luks-kill-slot /dev/sdc 1
k
-luks-kill-slot /dev/sdc 5
k
cryptsetup-open /dev/sdc ro readonly:true crypttype:luks
k
blockdev-getro /dev/mapper/ro
-cryptsetup-open /dev/sdd none
k
-luks-uuid /dev/sdd
