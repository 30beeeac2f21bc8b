# disks of fixtures/partitioned-disks.sh
echo "--- add-drive gpt.img readonly:true format:raw label:guid"
add-drive gpt.img readonly:true format:raw label:guid
echo "--- add-drive mbr.img readonly:true format:raw label:dos"
add-drive mbr.img readonly:true format:raw label:dos
echo "--- add-drive-ro whole.img"
add-drive-ro whole.img
echo "--- add-drive-ro floppy.img"
add-drive-ro floppy.img
echo "--- add-drive empty.img readonly:true format:raw"
add-drive empty.img readonly:true format:raw
echo "--- add-drive 4k.img readonly:true blocksize:4096 format:raw"
add-drive 4k.img readonly:true blocksize:4096 format:raw
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
echo "--- list-disk-labels | sort"
list-disk-labels | sort
echo "--- list-dm-devices"
list-dm-devices
echo "--- list-md-devices"
list-md-devices
echo "--- lvs"
lvs
echo "--- pvs"
pvs
echo "--- vgs"
vgs
echo "--- part-list /dev/sda"
part-list /dev/sda
echo "--- part-get-parttype /dev/sda"
part-get-parttype /dev/sda
echo "--- part-get-disk-guid /dev/sda"
part-get-disk-guid /dev/sda
echo "--- vfs-type /dev/sda"
vfs-type /dev/sda
echo "--- vfs-label /dev/sda"
vfs-label /dev/sda
echo "--- vfs-uuid /dev/sda"
vfs-uuid /dev/sda
echo "--- blockdev-getsize64 /dev/sda"
blockdev-getsize64 /dev/sda
echo "--- blockdev-getsz /dev/sda"
blockdev-getsz /dev/sda
echo "--- blockdev-getss /dev/sda"
blockdev-getss /dev/sda
echo "--- blockdev-getbsz /dev/sda"
blockdev-getbsz /dev/sda
echo "--- device-index /dev/sda"
device-index /dev/sda
echo "--- is-whole-device /dev/sda"
is-whole-device /dev/sda
echo "--- part-list /dev/sdb"
part-list /dev/sdb
echo "--- part-get-parttype /dev/sdb"
part-get-parttype /dev/sdb
echo "--- vfs-type /dev/sdb"
vfs-type /dev/sdb
echo "--- vfs-label /dev/sdb"
vfs-label /dev/sdb
echo "--- vfs-uuid /dev/sdb"
vfs-uuid /dev/sdb
echo "--- blockdev-getsize64 /dev/sdb"
blockdev-getsize64 /dev/sdb
echo "--- blockdev-getsz /dev/sdb"
blockdev-getsz /dev/sdb
echo "--- blockdev-getss /dev/sdb"
blockdev-getss /dev/sdb
echo "--- blockdev-getbsz /dev/sdb"
blockdev-getbsz /dev/sdb
echo "--- device-index /dev/sdb"
device-index /dev/sdb
echo "--- is-whole-device /dev/sdb"
is-whole-device /dev/sdb
echo "--- -part-get-parttype /dev/sdc"
-part-get-parttype /dev/sdc
echo "--- vfs-type /dev/sdc"
vfs-type /dev/sdc
echo "--- vfs-label /dev/sdc"
vfs-label /dev/sdc
echo "--- vfs-uuid /dev/sdc"
vfs-uuid /dev/sdc
echo "--- blockdev-getsize64 /dev/sdc"
blockdev-getsize64 /dev/sdc
echo "--- blockdev-getsz /dev/sdc"
blockdev-getsz /dev/sdc
echo "--- blockdev-getss /dev/sdc"
blockdev-getss /dev/sdc
echo "--- blockdev-getbsz /dev/sdc"
blockdev-getbsz /dev/sdc
echo "--- device-index /dev/sdc"
device-index /dev/sdc
echo "--- is-whole-device /dev/sdc"
is-whole-device /dev/sdc
echo "--- -part-get-parttype /dev/sdd"
-part-get-parttype /dev/sdd
echo "--- vfs-type /dev/sdd"
vfs-type /dev/sdd
echo "--- vfs-label /dev/sdd"
vfs-label /dev/sdd
echo "--- vfs-uuid /dev/sdd"
vfs-uuid /dev/sdd
echo "--- blockdev-getsize64 /dev/sdd"
blockdev-getsize64 /dev/sdd
echo "--- blockdev-getsz /dev/sdd"
blockdev-getsz /dev/sdd
echo "--- blockdev-getss /dev/sdd"
blockdev-getss /dev/sdd
echo "--- blockdev-getbsz /dev/sdd"
blockdev-getbsz /dev/sdd
echo "--- device-index /dev/sdd"
device-index /dev/sdd
echo "--- is-whole-device /dev/sdd"
is-whole-device /dev/sdd
echo "--- -part-get-parttype /dev/sde"
-part-get-parttype /dev/sde
echo "--- vfs-type /dev/sde"
vfs-type /dev/sde
echo "--- vfs-label /dev/sde"
vfs-label /dev/sde
echo "--- vfs-uuid /dev/sde"
vfs-uuid /dev/sde
echo "--- blockdev-getsize64 /dev/sde"
blockdev-getsize64 /dev/sde
echo "--- blockdev-getsz /dev/sde"
blockdev-getsz /dev/sde
echo "--- blockdev-getss /dev/sde"
blockdev-getss /dev/sde
echo "--- blockdev-getbsz /dev/sde"
blockdev-getbsz /dev/sde
echo "--- device-index /dev/sde"
device-index /dev/sde
echo "--- is-whole-device /dev/sde"
is-whole-device /dev/sde
echo "--- part-list /dev/sdf"
part-list /dev/sdf
echo "--- part-get-parttype /dev/sdf"
part-get-parttype /dev/sdf
echo "--- vfs-type /dev/sdf"
vfs-type /dev/sdf
echo "--- vfs-label /dev/sdf"
vfs-label /dev/sdf
echo "--- vfs-uuid /dev/sdf"
vfs-uuid /dev/sdf
echo "--- blockdev-getsize64 /dev/sdf"
blockdev-getsize64 /dev/sdf
echo "--- blockdev-getsz /dev/sdf"
blockdev-getsz /dev/sdf
echo "--- blockdev-getss /dev/sdf"
blockdev-getss /dev/sdf
echo "--- blockdev-getbsz /dev/sdf"
blockdev-getbsz /dev/sdf
echo "--- device-index /dev/sdf"
device-index /dev/sdf
echo "--- is-whole-device /dev/sdf"
is-whole-device /dev/sdf
echo "--- part-get-bootable /dev/sda 1"
part-get-bootable /dev/sda 1
echo "--- part-get-mbr-part-type /dev/sda 1"
part-get-mbr-part-type /dev/sda 1
echo "--- part-get-gpt-type /dev/sda 1"
part-get-gpt-type /dev/sda 1
echo "--- part-get-gpt-guid /dev/sda 1"
part-get-gpt-guid /dev/sda 1
echo "--- part-get-name /dev/sda 1"
part-get-name /dev/sda 1
echo "--- part-get-gpt-attributes /dev/sda 1"
part-get-gpt-attributes /dev/sda 1
echo "--- vfs-type /dev/sda1"
vfs-type /dev/sda1
echo "--- vfs-label /dev/sda1"
vfs-label /dev/sda1
echo "--- vfs-uuid /dev/sda1"
vfs-uuid /dev/sda1
echo "--- blockdev-getsize64 /dev/sda1"
blockdev-getsize64 /dev/sda1
echo "--- blockdev-getsz /dev/sda1"
blockdev-getsz /dev/sda1
echo "--- blockdev-getss /dev/sda1"
blockdev-getss /dev/sda1
echo "--- blockdev-getbsz /dev/sda1"
blockdev-getbsz /dev/sda1
echo "--- part-to-dev /dev/sda1"
part-to-dev /dev/sda1
echo "--- part-to-partnum /dev/sda1"
part-to-partnum /dev/sda1
echo "--- is-whole-device /dev/sda1"
is-whole-device /dev/sda1
echo "--- is-lv /dev/sda1"
is-lv /dev/sda1
echo "--- blkid /dev/sda1 | grep -v 'SEC_TYPE|LABEL_FATBOOT|BLOCK_SIZE|PART_ENTRY_DISK' | sort"
blkid /dev/sda1 | grep -v 'SEC_TYPE\|LABEL_FATBOOT\|BLOCK_SIZE\|PART_ENTRY_DISK' | sort
echo "--- part-get-bootable /dev/sda 2"
part-get-bootable /dev/sda 2
echo "--- part-get-mbr-part-type /dev/sda 2"
part-get-mbr-part-type /dev/sda 2
echo "--- part-get-gpt-type /dev/sda 2"
part-get-gpt-type /dev/sda 2
echo "--- part-get-gpt-guid /dev/sda 2"
part-get-gpt-guid /dev/sda 2
echo "--- part-get-name /dev/sda 2"
part-get-name /dev/sda 2
echo "--- part-get-gpt-attributes /dev/sda 2"
part-get-gpt-attributes /dev/sda 2
echo "--- vfs-type /dev/sda2"
vfs-type /dev/sda2
echo "--- vfs-label /dev/sda2"
vfs-label /dev/sda2
echo "--- vfs-uuid /dev/sda2"
vfs-uuid /dev/sda2
echo "--- blockdev-getsize64 /dev/sda2"
blockdev-getsize64 /dev/sda2
echo "--- blockdev-getsz /dev/sda2"
blockdev-getsz /dev/sda2
echo "--- blockdev-getss /dev/sda2"
blockdev-getss /dev/sda2
echo "--- blockdev-getbsz /dev/sda2"
blockdev-getbsz /dev/sda2
echo "--- part-to-dev /dev/sda2"
part-to-dev /dev/sda2
echo "--- part-to-partnum /dev/sda2"
part-to-partnum /dev/sda2
echo "--- is-whole-device /dev/sda2"
is-whole-device /dev/sda2
echo "--- is-lv /dev/sda2"
is-lv /dev/sda2
echo "--- blkid /dev/sda2 | grep -v 'SEC_TYPE|LABEL_FATBOOT|BLOCK_SIZE|PART_ENTRY_DISK' | sort"
blkid /dev/sda2 | grep -v 'SEC_TYPE\|LABEL_FATBOOT\|BLOCK_SIZE\|PART_ENTRY_DISK' | sort
echo "--- part-get-bootable /dev/sda 3"
part-get-bootable /dev/sda 3
echo "--- part-get-mbr-part-type /dev/sda 3"
part-get-mbr-part-type /dev/sda 3
echo "--- part-get-gpt-type /dev/sda 3"
part-get-gpt-type /dev/sda 3
echo "--- part-get-gpt-guid /dev/sda 3"
part-get-gpt-guid /dev/sda 3
echo "--- part-get-name /dev/sda 3"
part-get-name /dev/sda 3
echo "--- part-get-gpt-attributes /dev/sda 3"
part-get-gpt-attributes /dev/sda 3
echo "--- vfs-type /dev/sda3"
vfs-type /dev/sda3
echo "--- vfs-label /dev/sda3"
vfs-label /dev/sda3
echo "--- vfs-uuid /dev/sda3"
vfs-uuid /dev/sda3
echo "--- blockdev-getsize64 /dev/sda3"
blockdev-getsize64 /dev/sda3
echo "--- blockdev-getsz /dev/sda3"
blockdev-getsz /dev/sda3
echo "--- blockdev-getss /dev/sda3"
blockdev-getss /dev/sda3
echo "--- blockdev-getbsz /dev/sda3"
blockdev-getbsz /dev/sda3
echo "--- part-to-dev /dev/sda3"
part-to-dev /dev/sda3
echo "--- part-to-partnum /dev/sda3"
part-to-partnum /dev/sda3
echo "--- is-whole-device /dev/sda3"
is-whole-device /dev/sda3
echo "--- is-lv /dev/sda3"
is-lv /dev/sda3
echo "--- blkid /dev/sda3 | grep -v 'SEC_TYPE|LABEL_FATBOOT|BLOCK_SIZE|PART_ENTRY_DISK' | sort"
blkid /dev/sda3 | grep -v 'SEC_TYPE\|LABEL_FATBOOT\|BLOCK_SIZE\|PART_ENTRY_DISK' | sort
echo "--- part-get-bootable /dev/sda 4"
part-get-bootable /dev/sda 4
echo "--- part-get-mbr-part-type /dev/sda 4"
part-get-mbr-part-type /dev/sda 4
echo "--- part-get-gpt-type /dev/sda 4"
part-get-gpt-type /dev/sda 4
echo "--- part-get-gpt-guid /dev/sda 4"
part-get-gpt-guid /dev/sda 4
echo "--- part-get-name /dev/sda 4"
part-get-name /dev/sda 4
echo "--- vfs-type /dev/sda4"
vfs-type /dev/sda4
echo "--- vfs-label /dev/sda4"
vfs-label /dev/sda4
echo "--- vfs-uuid /dev/sda4"
vfs-uuid /dev/sda4
echo "--- blockdev-getsize64 /dev/sda4"
blockdev-getsize64 /dev/sda4
echo "--- blockdev-getsz /dev/sda4"
blockdev-getsz /dev/sda4
echo "--- blockdev-getss /dev/sda4"
blockdev-getss /dev/sda4
echo "--- blockdev-getbsz /dev/sda4"
blockdev-getbsz /dev/sda4
echo "--- part-to-dev /dev/sda4"
part-to-dev /dev/sda4
echo "--- part-to-partnum /dev/sda4"
part-to-partnum /dev/sda4
echo "--- is-whole-device /dev/sda4"
is-whole-device /dev/sda4
echo "--- is-lv /dev/sda4"
is-lv /dev/sda4
echo "--- blkid /dev/sda4 | grep -v 'SEC_TYPE|LABEL_FATBOOT|BLOCK_SIZE|PART_ENTRY_DISK' | sort"
blkid /dev/sda4 | grep -v 'SEC_TYPE\|LABEL_FATBOOT\|BLOCK_SIZE\|PART_ENTRY_DISK' | sort
echo "--- part-get-bootable /dev/sda 6"
part-get-bootable /dev/sda 6
echo "--- part-get-mbr-part-type /dev/sda 6"
part-get-mbr-part-type /dev/sda 6
echo "--- part-get-gpt-type /dev/sda 6"
part-get-gpt-type /dev/sda 6
echo "--- part-get-gpt-guid /dev/sda 6"
part-get-gpt-guid /dev/sda 6
echo "--- part-get-name /dev/sda 6"
part-get-name /dev/sda 6
echo "--- part-get-gpt-attributes /dev/sda 6"
part-get-gpt-attributes /dev/sda 6
echo "--- vfs-type /dev/sda6"
vfs-type /dev/sda6
echo "--- vfs-label /dev/sda6"
vfs-label /dev/sda6
echo "--- vfs-uuid /dev/sda6"
vfs-uuid /dev/sda6
echo "--- blockdev-getsize64 /dev/sda6"
blockdev-getsize64 /dev/sda6
echo "--- blockdev-getsz /dev/sda6"
blockdev-getsz /dev/sda6
echo "--- blockdev-getss /dev/sda6"
blockdev-getss /dev/sda6
echo "--- blockdev-getbsz /dev/sda6"
blockdev-getbsz /dev/sda6
echo "--- part-to-dev /dev/sda6"
part-to-dev /dev/sda6
echo "--- part-to-partnum /dev/sda6"
part-to-partnum /dev/sda6
echo "--- is-whole-device /dev/sda6"
is-whole-device /dev/sda6
echo "--- is-lv /dev/sda6"
is-lv /dev/sda6
echo "--- blkid /dev/sda6 | grep -v 'SEC_TYPE|LABEL_FATBOOT|BLOCK_SIZE|PART_ENTRY_DISK' | sort"
blkid /dev/sda6 | grep -v 'SEC_TYPE\|LABEL_FATBOOT\|BLOCK_SIZE\|PART_ENTRY_DISK' | sort
echo "--- part-get-bootable /dev/sda 9"
part-get-bootable /dev/sda 9
echo "--- part-get-mbr-part-type /dev/sda 9"
part-get-mbr-part-type /dev/sda 9
echo "--- part-get-gpt-type /dev/sda 9"
part-get-gpt-type /dev/sda 9
echo "--- part-get-gpt-guid /dev/sda 9"
part-get-gpt-guid /dev/sda 9
echo "--- part-get-name /dev/sda 9"
part-get-name /dev/sda 9
echo "--- part-get-gpt-attributes /dev/sda 9"
part-get-gpt-attributes /dev/sda 9
echo "--- vfs-type /dev/sda9"
vfs-type /dev/sda9
echo "--- vfs-label /dev/sda9"
vfs-label /dev/sda9
echo "--- vfs-uuid /dev/sda9"
vfs-uuid /dev/sda9
echo "--- blockdev-getsize64 /dev/sda9"
blockdev-getsize64 /dev/sda9
echo "--- blockdev-getsz /dev/sda9"
blockdev-getsz /dev/sda9
echo "--- blockdev-getss /dev/sda9"
blockdev-getss /dev/sda9
echo "--- blockdev-getbsz /dev/sda9"
blockdev-getbsz /dev/sda9
echo "--- part-to-dev /dev/sda9"
part-to-dev /dev/sda9
echo "--- part-to-partnum /dev/sda9"
part-to-partnum /dev/sda9
echo "--- is-whole-device /dev/sda9"
is-whole-device /dev/sda9
echo "--- is-lv /dev/sda9"
is-lv /dev/sda9
echo "--- blkid /dev/sda9 | grep -v 'SEC_TYPE|LABEL_FATBOOT|BLOCK_SIZE|PART_ENTRY_DISK' | sort"
blkid /dev/sda9 | grep -v 'SEC_TYPE\|LABEL_FATBOOT\|BLOCK_SIZE\|PART_ENTRY_DISK' | sort
echo "--- part-get-bootable /dev/sda 10"
part-get-bootable /dev/sda 10
echo "--- part-get-mbr-part-type /dev/sda 10"
part-get-mbr-part-type /dev/sda 10
echo "--- part-get-gpt-type /dev/sda 10"
part-get-gpt-type /dev/sda 10
echo "--- part-get-gpt-guid /dev/sda 10"
part-get-gpt-guid /dev/sda 10
echo "--- part-get-name /dev/sda 10"
part-get-name /dev/sda 10
echo "--- part-get-gpt-attributes /dev/sda 10"
part-get-gpt-attributes /dev/sda 10
echo "--- vfs-type /dev/sda10"
vfs-type /dev/sda10
echo "--- vfs-label /dev/sda10"
vfs-label /dev/sda10
echo "--- vfs-uuid /dev/sda10"
vfs-uuid /dev/sda10
echo "--- blockdev-getsize64 /dev/sda10"
blockdev-getsize64 /dev/sda10
echo "--- blockdev-getsz /dev/sda10"
blockdev-getsz /dev/sda10
echo "--- blockdev-getss /dev/sda10"
blockdev-getss /dev/sda10
echo "--- blockdev-getbsz /dev/sda10"
blockdev-getbsz /dev/sda10
echo "--- part-to-dev /dev/sda10"
part-to-dev /dev/sda10
echo "--- part-to-partnum /dev/sda10"
part-to-partnum /dev/sda10
echo "--- is-whole-device /dev/sda10"
is-whole-device /dev/sda10
echo "--- is-lv /dev/sda10"
is-lv /dev/sda10
echo "--- blkid /dev/sda10 | grep -v 'SEC_TYPE|LABEL_FATBOOT|BLOCK_SIZE|PART_ENTRY_DISK' | sort"
blkid /dev/sda10 | grep -v 'SEC_TYPE\|LABEL_FATBOOT\|BLOCK_SIZE\|PART_ENTRY_DISK' | sort
echo "--- part-get-bootable /dev/sda 11"
part-get-bootable /dev/sda 11
echo "--- part-get-mbr-part-type /dev/sda 11"
part-get-mbr-part-type /dev/sda 11
echo "--- part-get-gpt-type /dev/sda 11"
part-get-gpt-type /dev/sda 11
echo "--- part-get-gpt-guid /dev/sda 11"
part-get-gpt-guid /dev/sda 11
echo "--- part-get-name /dev/sda 11"
part-get-name /dev/sda 11
echo "--- part-get-gpt-attributes /dev/sda 11"
part-get-gpt-attributes /dev/sda 11
echo "--- vfs-type /dev/sda11"
vfs-type /dev/sda11
echo "--- vfs-label /dev/sda11"
vfs-label /dev/sda11
echo "--- vfs-uuid /dev/sda11"
vfs-uuid /dev/sda11
echo "--- blockdev-getsize64 /dev/sda11"
blockdev-getsize64 /dev/sda11
echo "--- blockdev-getsz /dev/sda11"
blockdev-getsz /dev/sda11
echo "--- blockdev-getss /dev/sda11"
blockdev-getss /dev/sda11
echo "--- blockdev-getbsz /dev/sda11"
blockdev-getbsz /dev/sda11
echo "--- part-to-dev /dev/sda11"
part-to-dev /dev/sda11
echo "--- part-to-partnum /dev/sda11"
part-to-partnum /dev/sda11
echo "--- is-whole-device /dev/sda11"
is-whole-device /dev/sda11
echo "--- is-lv /dev/sda11"
is-lv /dev/sda11
echo "--- blkid /dev/sda11 | grep -v 'SEC_TYPE|LABEL_FATBOOT|BLOCK_SIZE|PART_ENTRY_DISK' | sort"
blkid /dev/sda11 | grep -v 'SEC_TYPE\|LABEL_FATBOOT\|BLOCK_SIZE\|PART_ENTRY_DISK' | sort
echo "--- part-get-bootable /dev/sda 12"
part-get-bootable /dev/sda 12
echo "--- part-get-mbr-part-type /dev/sda 12"
part-get-mbr-part-type /dev/sda 12
echo "--- part-get-gpt-type /dev/sda 12"
part-get-gpt-type /dev/sda 12
echo "--- part-get-gpt-guid /dev/sda 12"
part-get-gpt-guid /dev/sda 12
echo "--- part-get-name /dev/sda 12"
part-get-name /dev/sda 12
echo "--- part-get-gpt-attributes /dev/sda 12"
part-get-gpt-attributes /dev/sda 12
echo "--- vfs-type /dev/sda12"
vfs-type /dev/sda12
echo "--- vfs-label /dev/sda12"
vfs-label /dev/sda12
echo "--- vfs-uuid /dev/sda12"
vfs-uuid /dev/sda12
echo "--- blockdev-getsize64 /dev/sda12"
blockdev-getsize64 /dev/sda12
echo "--- blockdev-getsz /dev/sda12"
blockdev-getsz /dev/sda12
echo "--- blockdev-getss /dev/sda12"
blockdev-getss /dev/sda12
echo "--- blockdev-getbsz /dev/sda12"
blockdev-getbsz /dev/sda12
echo "--- part-to-dev /dev/sda12"
part-to-dev /dev/sda12
echo "--- part-to-partnum /dev/sda12"
part-to-partnum /dev/sda12
echo "--- is-whole-device /dev/sda12"
is-whole-device /dev/sda12
echo "--- is-lv /dev/sda12"
is-lv /dev/sda12
echo "--- blkid /dev/sda12 | grep -v 'SEC_TYPE|LABEL_FATBOOT|BLOCK_SIZE|PART_ENTRY_DISK' | sort"
blkid /dev/sda12 | grep -v 'SEC_TYPE\|LABEL_FATBOOT\|BLOCK_SIZE\|PART_ENTRY_DISK' | sort
echo "--- part-get-bootable /dev/sdb 1"
part-get-bootable /dev/sdb 1
echo "--- part-get-mbr-id /dev/sdb 1"
part-get-mbr-id /dev/sdb 1
echo "--- part-get-mbr-part-type /dev/sdb 1"
part-get-mbr-part-type /dev/sdb 1
echo "--- part-get-gpt-type /dev/sdb 1"
part-get-gpt-type /dev/sdb 1
echo "--- vfs-type /dev/sdb1"
vfs-type /dev/sdb1
echo "--- vfs-label /dev/sdb1"
vfs-label /dev/sdb1
echo "--- vfs-uuid /dev/sdb1"
vfs-uuid /dev/sdb1
echo "--- blockdev-getsize64 /dev/sdb1"
blockdev-getsize64 /dev/sdb1
echo "--- blockdev-getsz /dev/sdb1"
blockdev-getsz /dev/sdb1
echo "--- blockdev-getss /dev/sdb1"
blockdev-getss /dev/sdb1
echo "--- blockdev-getbsz /dev/sdb1"
blockdev-getbsz /dev/sdb1
echo "--- part-to-dev /dev/sdb1"
part-to-dev /dev/sdb1
echo "--- part-to-partnum /dev/sdb1"
part-to-partnum /dev/sdb1
echo "--- is-whole-device /dev/sdb1"
is-whole-device /dev/sdb1
echo "--- is-lv /dev/sdb1"
is-lv /dev/sdb1
echo "--- blkid /dev/sdb1 | grep -v 'DEVNAME|SEC_TYPE|BLOCK_SIZE|PART_ENTRY_DISK|PTTYPE' | sort"
blkid /dev/sdb1 | grep -v 'DEVNAME\|SEC_TYPE\|BLOCK_SIZE\|PART_ENTRY_DISK\|PTTYPE' | sort
echo "--- part-get-bootable /dev/sdb 2"
part-get-bootable /dev/sdb 2
echo "--- part-get-mbr-id /dev/sdb 2"
part-get-mbr-id /dev/sdb 2
echo "--- part-get-mbr-part-type /dev/sdb 2"
part-get-mbr-part-type /dev/sdb 2
echo "--- vfs-type /dev/sdb2"
vfs-type /dev/sdb2
echo "--- vfs-label /dev/sdb2"
vfs-label /dev/sdb2
echo "--- vfs-uuid /dev/sdb2"
vfs-uuid /dev/sdb2
echo "--- blockdev-getsize64 /dev/sdb2"
blockdev-getsize64 /dev/sdb2
echo "--- blockdev-getsz /dev/sdb2"
blockdev-getsz /dev/sdb2
echo "--- blockdev-getss /dev/sdb2"
blockdev-getss /dev/sdb2
echo "--- blockdev-getbsz /dev/sdb2"
blockdev-getbsz /dev/sdb2
echo "--- part-to-dev /dev/sdb2"
part-to-dev /dev/sdb2
echo "--- part-to-partnum /dev/sdb2"
part-to-partnum /dev/sdb2
echo "--- is-whole-device /dev/sdb2"
is-whole-device /dev/sdb2
echo "--- is-lv /dev/sdb2"
is-lv /dev/sdb2
echo "--- blkid /dev/sdb2 | grep -v 'DEVNAME|SEC_TYPE|BLOCK_SIZE|PART_ENTRY_DISK|PTTYPE' | sort"
blkid /dev/sdb2 | grep -v 'DEVNAME\|SEC_TYPE\|BLOCK_SIZE\|PART_ENTRY_DISK\|PTTYPE' | sort
echo "--- part-get-bootable /dev/sdb 3"
part-get-bootable /dev/sdb 3
echo "--- part-get-mbr-id /dev/sdb 3"
part-get-mbr-id /dev/sdb 3
echo "--- part-get-mbr-part-type /dev/sdb 3"
part-get-mbr-part-type /dev/sdb 3
echo "--- part-get-gpt-type /dev/sdb 3"
part-get-gpt-type /dev/sdb 3
echo "--- vfs-type /dev/sdb3"
vfs-type /dev/sdb3
echo "--- vfs-label /dev/sdb3"
vfs-label /dev/sdb3
echo "--- vfs-uuid /dev/sdb3"
vfs-uuid /dev/sdb3
echo "--- blockdev-getsize64 /dev/sdb3"
blockdev-getsize64 /dev/sdb3
echo "--- blockdev-getsz /dev/sdb3"
blockdev-getsz /dev/sdb3
echo "--- blockdev-getss /dev/sdb3"
blockdev-getss /dev/sdb3
echo "--- blockdev-getbsz /dev/sdb3"
blockdev-getbsz /dev/sdb3
echo "--- part-to-dev /dev/sdb3"
part-to-dev /dev/sdb3
echo "--- part-to-partnum /dev/sdb3"
part-to-partnum /dev/sdb3
echo "--- is-whole-device /dev/sdb3"
is-whole-device /dev/sdb3
echo "--- is-lv /dev/sdb3"
is-lv /dev/sdb3
echo "--- blkid /dev/sdb3 | grep -v 'DEVNAME|SEC_TYPE|BLOCK_SIZE|PART_ENTRY_DISK|PTTYPE' | sort"
blkid /dev/sdb3 | grep -v 'DEVNAME\|SEC_TYPE\|BLOCK_SIZE\|PART_ENTRY_DISK\|PTTYPE' | sort
echo "--- part-get-bootable /dev/sdb 5"
part-get-bootable /dev/sdb 5
echo "--- part-get-mbr-id /dev/sdb 5"
part-get-mbr-id /dev/sdb 5
echo "--- part-get-mbr-part-type /dev/sdb 5"
part-get-mbr-part-type /dev/sdb 5
echo "--- part-get-gpt-type /dev/sdb 5"
part-get-gpt-type /dev/sdb 5
echo "--- vfs-type /dev/sdb5"
vfs-type /dev/sdb5
echo "--- vfs-label /dev/sdb5"
vfs-label /dev/sdb5
echo "--- vfs-uuid /dev/sdb5"
vfs-uuid /dev/sdb5
echo "--- blockdev-getsize64 /dev/sdb5"
blockdev-getsize64 /dev/sdb5
echo "--- blockdev-getsz /dev/sdb5"
blockdev-getsz /dev/sdb5
echo "--- blockdev-getss /dev/sdb5"
blockdev-getss /dev/sdb5
echo "--- blockdev-getbsz /dev/sdb5"
blockdev-getbsz /dev/sdb5
echo "--- part-to-dev /dev/sdb5"
part-to-dev /dev/sdb5
echo "--- part-to-partnum /dev/sdb5"
part-to-partnum /dev/sdb5
echo "--- is-whole-device /dev/sdb5"
is-whole-device /dev/sdb5
echo "--- is-lv /dev/sdb5"
is-lv /dev/sdb5
echo "--- blkid /dev/sdb5 | grep -v 'DEVNAME|SEC_TYPE|BLOCK_SIZE|PART_ENTRY_DISK|PTTYPE' | sort"
blkid /dev/sdb5 | grep -v 'DEVNAME\|SEC_TYPE\|BLOCK_SIZE\|PART_ENTRY_DISK\|PTTYPE' | sort
echo "--- part-get-bootable /dev/sdb 6"
part-get-bootable /dev/sdb 6
echo "--- part-get-mbr-id /dev/sdb 6"
part-get-mbr-id /dev/sdb 6
echo "--- part-get-mbr-part-type /dev/sdb 6"
part-get-mbr-part-type /dev/sdb 6
echo "--- part-get-gpt-type /dev/sdb 6"
part-get-gpt-type /dev/sdb 6
echo "--- vfs-type /dev/sdb6"
vfs-type /dev/sdb6
echo "--- vfs-label /dev/sdb6"
vfs-label /dev/sdb6
echo "--- vfs-uuid /dev/sdb6"
vfs-uuid /dev/sdb6
echo "--- blockdev-getsize64 /dev/sdb6"
blockdev-getsize64 /dev/sdb6
echo "--- blockdev-getsz /dev/sdb6"
blockdev-getsz /dev/sdb6
echo "--- blockdev-getss /dev/sdb6"
blockdev-getss /dev/sdb6
echo "--- blockdev-getbsz /dev/sdb6"
blockdev-getbsz /dev/sdb6
echo "--- part-to-dev /dev/sdb6"
part-to-dev /dev/sdb6
echo "--- part-to-partnum /dev/sdb6"
part-to-partnum /dev/sdb6
echo "--- is-whole-device /dev/sdb6"
is-whole-device /dev/sdb6
echo "--- is-lv /dev/sdb6"
is-lv /dev/sdb6
echo "--- blkid /dev/sdb6 | grep -v 'DEVNAME|SEC_TYPE|BLOCK_SIZE|PART_ENTRY_DISK|PTTYPE' | sort"
blkid /dev/sdb6 | grep -v 'DEVNAME\|SEC_TYPE\|BLOCK_SIZE\|PART_ENTRY_DISK\|PTTYPE' | sort
echo "--- part-get-bootable /dev/sdf 1"
part-get-bootable /dev/sdf 1
echo "--- part-get-mbr-part-type /dev/sdf 1"
part-get-mbr-part-type /dev/sdf 1
echo "--- part-get-gpt-type /dev/sdf 1"
part-get-gpt-type /dev/sdf 1
echo "--- part-get-gpt-attributes /dev/sdf 1"
part-get-gpt-attributes /dev/sdf 1
echo "--- vfs-type /dev/sdf1"
vfs-type /dev/sdf1
echo "--- vfs-label /dev/sdf1"
vfs-label /dev/sdf1
echo "--- vfs-uuid /dev/sdf1"
vfs-uuid /dev/sdf1
echo "--- blockdev-getsize64 /dev/sdf1"
blockdev-getsize64 /dev/sdf1
echo "--- blockdev-getsz /dev/sdf1"
blockdev-getsz /dev/sdf1
echo "--- blockdev-getss /dev/sdf1"
blockdev-getss /dev/sdf1
echo "--- blockdev-getbsz /dev/sdf1"
blockdev-getbsz /dev/sdf1
echo "--- part-to-dev /dev/sdf1"
part-to-dev /dev/sdf1
echo "--- part-to-partnum /dev/sdf1"
part-to-partnum /dev/sdf1
echo "--- is-whole-device /dev/sdf1"
is-whole-device /dev/sdf1
echo "--- is-lv /dev/sdf1"
is-lv /dev/sdf1
echo "--- blkid /dev/sda | sort"
blkid /dev/sda | sort
echo "--- -part-to-dev /dev/sda"
-part-to-dev /dev/sda
echo "--- -part-to-partnum /dev/sda"
-part-to-partnum /dev/sda
echo "--- -part-to-dev /dev/sda99"
-part-to-dev /dev/sda99
echo "--- part-to-dev /dev/vdb1"
part-to-dev /dev/vdb1
echo "--- part-to-partnum /dev/disk/guestfs/dos5"
part-to-partnum /dev/disk/guestfs/dos5
echo "--- -part-to-dev foo"
-part-to-dev foo
echo "--- device-index /dev/vdb"
device-index /dev/vdb
echo "--- -device-index /dev/sda1"
-device-index /dev/sda1
echo "--- -is-whole-device /dev/nonesuch"
-is-whole-device /dev/nonesuch
echo "--- -is-lv /dev/sdz"
-is-lv /dev/sdz
echo "--- canonical-device-name /dev/mapper/vg-lv"
canonical-device-name /dev/mapper/vg-lv
echo "--- canonical-device-name /dev/hdz9"
canonical-device-name /dev/hdz9
echo "--- canonical-device-name /dev/sdzz"
canonical-device-name /dev/sdzz
echo "--- canonical-device-name /dev/vdb5"
canonical-device-name /dev/vdb5
echo "--- canonical-device-name btrfsvol:/dev/vda1/x"
canonical-device-name btrfsvol:/dev/vda1/x
echo "--- -part-get-name /dev/sda 5"
-part-get-name /dev/sda 5
echo "--- -part-get-bootable /dev/sda 5"
-part-get-bootable /dev/sda 5
echo "--- -part-get-mbr-id /dev/sdb 4"
-part-get-mbr-id /dev/sdb 4
echo "--- -part-get-bootable /dev/sda 0"
-part-get-bootable /dev/sda 0
echo "--- -part-list /dev/sda1"
-part-list /dev/sda1
echo "--- -part-get-bootable /dev/sda1 1"
-part-get-bootable /dev/sda1 1
echo "--- -part-get-parttype /dev/sda1"
-part-get-parttype /dev/sda1
echo "--- pread-device /dev/sda1 10 0 | wc -c"
pread-device /dev/sda1 10 0 | wc -c
echo "--- pread-device /dev/sde 10 1048570 | wc -c"
pread-device /dev/sde 10 1048570 | wc -c
echo "--- pread-device /dev/sde 10 1048576 | wc -c"
pread-device /dev/sde 10 1048576 | wc -c
echo "--- -pread-device /dev/sde -1 0"
-pread-device /dev/sde -1 0
echo "--- -pread-device /dev/sde 1 -1"
-pread-device /dev/sde 1 -1
echo "--- findfs-label 'root fs'"
findfs-label "root fs"
echo "--- findfs-label EFI"
findfs-label EFI
echo "--- findfs-label whole"
findfs-label whole
echo "--- -findfs-label nonesuch"
-findfs-label nonesuch
echo "--- findfs-uuid 1234-5678"
findfs-uuid 1234-5678
echo "--- findfs-uuid 11111111-2222-4333-8444-666666666606"
findfs-uuid 11111111-2222-4333-8444-666666666606
echo "--- findfs-uuid 11111111-2222-4333-8444-666666666612"
findfs-uuid 11111111-2222-4333-8444-666666666612
echo "--- mountable-device btrfsvol:/dev/sda1/foo/bar"
mountable-device btrfsvol:/dev/sda1/foo/bar
echo "--- mountable-subvolume btrfsvol:/dev/sda1/foo/bar"
mountable-subvolume btrfsvol:/dev/sda1/foo/bar
echo "--- mountable-device /dev/vda2"
mountable-device /dev/vda2
echo "--- -mountable-subvolume /dev/sda2"
-mountable-subvolume /dev/sda2
echo "--- -mountable-device nonsense"
-mountable-device nonsense
echo "--- -available nonesuch"
-available nonesuch
echo "--- feature-available realpath"
feature-available realpath
echo "--- available-all-groups"
available-all-groups
echo "--- filesystem-available ext4"
filesystem-available ext4
echo "--- filesystem-available nonesuch"
filesystem-available nonesuch
echo "--- ping-daemon"
ping-daemon
echo "--- sync"
sync
echo "--- drop-caches 3"
drop-caches 3
echo "--- echo-daemon 'a 'b c''"
echo-daemon "a 'b c'"
echo "--- is-config"
is-config
echo "--- -add-drive-ro empty.img"
-add-drive-ro empty.img
echo "--- -launch"
-launch
echo "--- shutdown"
shutdown
echo "--- -list-devices"
-list-devices
echo "--- shutdown"
shutdown
echo "--- is-config"
is-config
echo "--- get-memsize"
get-memsize
echo "--- get-smp"
get-smp
echo "--- get-network"
get-network
echo "--- get-pgroup"
get-pgroup
echo "--- get-autosync"
get-autosync
echo "--- get-verbose"
get-verbose
echo "--- get-trace"
get-trace
echo "--- get-recovery-proc"
get-recovery-proc
echo "--- get-selinux"
get-selinux
echo "--- get-attach-method"
get-attach-method
echo "--- get-identifier"
get-identifier
echo "--- set-identifier a_b-1"
set-identifier a_b-1
echo "--- get-identifier"
get-identifier
echo "--- -set-identifier 'a b'"
-set-identifier "a b"
echo "--- set-backend-settings 'a=b c'"
set-backend-settings "a=b c"
echo "--- get-backend-settings"
get-backend-settings
echo "--- get-backend-setting a"
get-backend-setting a
echo "--- get-backend-setting c"
get-backend-setting c
echo "--- set-backend-setting c d"
set-backend-setting c d
echo "--- get-backend-setting c"
get-backend-setting c
echo "--- clear-backend-setting c"
clear-backend-setting c
echo "--- -get-backend-setting c"
-get-backend-setting c
echo "--- parse-environment-list 'LIBGUESTFS_MEMSIZE=600 LIBGUESTFS_BACKEND=libvirt'"
parse-environment-list "LIBGUESTFS_MEMSIZE=600 LIBGUESTFS_BACKEND=libvirt"
echo "--- get-memsize"
get-memsize
echo "--- get-backend"
get-backend
echo "--- -set-memsize 10"
-set-memsize 10
echo "--- -set-smp 0"
-set-smp 0
echo "--- -set-backend nonsense"
-set-backend nonsense
echo "--- disk-format gpt.img"
disk-format gpt.img
echo "--- disk-virtual-size gpt.img"
disk-virtual-size gpt.img
echo "--- disk-has-backing-file gpt.img"
disk-has-backing-file gpt.img
