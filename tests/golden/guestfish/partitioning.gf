# -n: scratch disks
add-drive-scratch 1G
add-drive-scratch 100M
add-drive-scratch 64M
add-drive-scratch 128M blocksize:4096
add-drive-scratch 8M
run
echo "--- part-disk /dev/sda gpt"
part-disk /dev/sda gpt
echo "--- part-list /dev/sda"
part-list /dev/sda
echo "--- part-get-parttype /dev/sda"
part-get-parttype /dev/sda
echo "--- part-get-name /dev/sda 1"
part-get-name /dev/sda 1
echo "--- part-get-gpt-type /dev/sda 1"
part-get-gpt-type /dev/sda 1
echo "--- part-disk /dev/sda mbr"
part-disk /dev/sda mbr
echo "--- part-get-parttype /dev/sda"
part-get-parttype /dev/sda
echo "--- part-list /dev/sda"
part-list /dev/sda
echo "--- part-get-mbr-id /dev/sda 1"
part-get-mbr-id /dev/sda 1
echo "--- part-disk /dev/sdd gpt"
part-disk /dev/sdd gpt
echo "--- part-list /dev/sdd"
part-list /dev/sdd
echo "--- part-disk /dev/sdd mbr"
part-disk /dev/sdd mbr
echo "--- part-list /dev/sdd"
part-list /dev/sdd
echo "--- part-init /dev/sda efi"
part-init /dev/sda efi
echo "--- list-partitions"
list-partitions
echo "--- part-add /dev/sda p 2048 4095"
part-add /dev/sda p 2048 4095
echo "--- part-add /dev/sda e 4096 6143"
part-add /dev/sda e 4096 6143
echo "--- part-add /dev/sda logical 8192 10239"
part-add /dev/sda logical 8192 10239
echo "--- part-add /dev/sda primary 63 1000"
part-add /dev/sda primary 63 1000
echo "--- part-add /dev/sda p 9000 20000"
-part-add /dev/sda p 9000 20000
echo "--- part-add /dev/sda p 1001 33"
-part-add /dev/sda p 1001 33
echo "--- part-add /dev/sda p 12000 -33"
-part-add /dev/sda p 12000 -33
echo "--- part-add /dev/sda p 12000 -34"
part-add /dev/sda p 12000 -34
echo "--- part-list /dev/sda"
part-list /dev/sda
echo "--- part-get-name /dev/sda 2"
part-get-name /dev/sda 2
echo "--- part-get-name /dev/sda 3"
part-get-name /dev/sda 3
echo "--- part-set-bootable /dev/sda 1 true"
part-set-bootable /dev/sda 1 true
echo "--- part-get-gpt-type /dev/sda 1"
part-get-gpt-type /dev/sda 1
echo "--- part-get-gpt-attributes /dev/sda 1"
part-get-gpt-attributes /dev/sda 1
echo "--- part-get-bootable /dev/sda 1"
part-get-bootable /dev/sda 1
echo "--- part-set-bootable /dev/sda 1 false"
part-set-bootable /dev/sda 1 false
echo "--- part-get-gpt-type /dev/sda 1"
part-get-gpt-type /dev/sda 1
echo "--- part-get-bootable /dev/sda 1"
part-get-bootable /dev/sda 1
echo "--- part-set-gpt-attributes /dev/sda 2 4"
part-set-gpt-attributes /dev/sda 2 4
echo "--- part-get-gpt-attributes /dev/sda 2"
part-get-gpt-attributes /dev/sda 2
echo "--- part-get-bootable /dev/sda 2"
part-get-bootable /dev/sda 2
echo "--- part-set-gpt-type /dev/sda 2 c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
part-set-gpt-type /dev/sda 2 c12a7328-f81f-11d2-ba4b-00a0c93ec93b
echo "--- part-get-gpt-type /dev/sda 2"
part-get-gpt-type /dev/sda 2
echo "--- part-set-gpt-type /dev/sda 2 nonsense"
-part-set-gpt-type /dev/sda 2 nonsense
echo "--- part-set-gpt-type /dev/sda 9 c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
-part-set-gpt-type /dev/sda 9 c12a7328-f81f-11d2-ba4b-00a0c93ec93b
echo "--- part-set-gpt-guid /dev/sda 2 01234567-89AB-CDEF-0123-456789ABCDEF"
part-set-gpt-guid /dev/sda 2 01234567-89AB-CDEF-0123-456789ABCDEF
echo "--- part-get-gpt-guid /dev/sda 2"
part-get-gpt-guid /dev/sda 2
echo "--- part-set-disk-guid /dev/sda 01234567-89AB-CDEF-0123-456789ABCDEF"
part-set-disk-guid /dev/sda 01234567-89AB-CDEF-0123-456789ABCDEF
echo "--- part-get-disk-guid /dev/sda"
part-get-disk-guid /dev/sda
echo "--- part-set-disk-guid-random /dev/sda"
part-set-disk-guid-random /dev/sda
echo "--- part-set-name /dev/sda 1 grub"
part-set-name /dev/sda 1 grub
echo "--- part-get-name /dev/sda 1"
part-get-name /dev/sda 1
echo "--- part-del /dev/sda 1"
part-del /dev/sda 1
echo "--- part-del /dev/sda 1"
-part-del /dev/sda 1
echo "--- part-add /dev/sda p 2048 4000"
part-add /dev/sda p 2048 4000
echo "--- part-list /dev/sda"
part-list /dev/sda
echo "--- part-resize /dev/sda 2 9000"
-part-resize /dev/sda 2 9000
echo "--- part-resize /dev/sda 2 7000"
part-resize /dev/sda 2 7000
echo "--- part-list /dev/sda"
part-list /dev/sda
echo "--- part-init /dev/sdb msdos"
part-init /dev/sdb msdos
echo "--- part-get-mbr-id /dev/sdb 1"
-part-get-mbr-id /dev/sdb 1
echo "--- part-add /dev/sdb p 2048 4095"
part-add /dev/sdb p 2048 4095
echo "--- part-add /dev/sdb p 4096 8191"
part-add /dev/sdb p 4096 8191
echo "--- part-add /dev/sdb e 8192 -1"
part-add /dev/sdb e 8192 -1
echo "--- part-add /dev/sdb l 20000 29999"
part-add /dev/sdb l 20000 29999
echo "--- part-add /dev/sdb l 10000 19000"
part-add /dev/sdb l 10000 19000
echo "--- part-add /dev/sdb l 30001 40000"
part-add /dev/sdb l 30001 40000
echo "--- part-add /dev/sdb l 40001 50000"
-part-add /dev/sdb l 40001 50000
echo "--- part-add /dev/sdb l 50001 60000"
part-add /dev/sdb l 50001 60000
echo "--- part-add /dev/sdb p 1000 2047"
part-add /dev/sdb p 1000 2047
echo "--- part-add /dev/sdb p 100 200"
-part-add /dev/sdb p 100 200
echo "--- part-add /dev/sdb e 100 200"
-part-add /dev/sdb e 100 200
echo "--- part-list /dev/sdb"
part-list /dev/sdb
echo "--- list-partitions"
list-partitions
echo "--- part-get-mbr-id /dev/sdb 1"
part-get-mbr-id /dev/sdb 1
echo "--- part-get-mbr-id /dev/sdb 3"
part-get-mbr-id /dev/sdb 3
echo "--- part-get-mbr-id /dev/sdb 5"
part-get-mbr-id /dev/sdb 5
echo "--- part-get-mbr-part-type /dev/sdb 3"
part-get-mbr-part-type /dev/sdb 3
echo "--- part-get-mbr-part-type /dev/sdb 5"
part-get-mbr-part-type /dev/sdb 5
echo "--- part-set-mbr-id /dev/sdb 6 0x8e"
part-set-mbr-id /dev/sdb 6 0x8e
echo "--- part-get-mbr-id /dev/sdb 6"
part-get-mbr-id /dev/sdb 6
echo "--- part-set-bootable /dev/sdb 1 true"
part-set-bootable /dev/sdb 1 true
echo "--- part-set-bootable /dev/sdb 2 true"
part-set-bootable /dev/sdb 2 true
echo "--- part-get-bootable /dev/sdb 1"
part-get-bootable /dev/sdb 1
echo "--- part-get-bootable /dev/sdb 2"
part-get-bootable /dev/sdb 2
echo "--- part-set-bootable /dev/sdb 6 true"
part-set-bootable /dev/sdb 6 true
echo "--- part-get-bootable /dev/sdb 6"
part-get-bootable /dev/sdb 6
echo "--- part-set-name /dev/sdb 1 x"
-part-set-name /dev/sdb 1 x
echo "--- part-set-gpt-type /dev/sdb 1 c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
-part-set-gpt-type /dev/sdb 1 c12a7328-f81f-11d2-ba4b-00a0c93ec93b
echo "--- part-expand-gpt /dev/sdb"
-part-expand-gpt /dev/sdb
echo "--- part-del /dev/sdb 5"
part-del /dev/sdb 5
echo "--- part-list /dev/sdb"
part-list /dev/sdb
echo "--- part-get-mbr-id /dev/sdb 5"
part-get-mbr-id /dev/sdb 5
echo "--- part-resize /dev/sdb 6 45000"
part-resize /dev/sdb 6 45000
echo "--- part-resize /dev/sdb 3 -1"
-part-resize /dev/sdb 3 -1
echo "--- part-list /dev/sdb"
part-list /dev/sdb
echo "--- part-del /dev/sdb 3"
part-del /dev/sdb 3
echo "--- part-list /dev/sdb"
part-list /dev/sdb
echo "--- part-init /dev/sdb nonsense"
-part-init /dev/sdb nonsense
echo "--- part-init /dev/sdb1 gpt"
-part-init /dev/sdb1 gpt
echo "--- blockdev-setro /dev/sdc"
blockdev-setro /dev/sdc
echo "--- blockdev-getro /dev/sdc"
blockdev-getro /dev/sdc
echo "--- zero /dev/sdc"
-zero /dev/sdc
echo "--- part-init /dev/sdc gpt"
-part-init /dev/sdc gpt
echo "--- blockdev-setrw /dev/sdc"
blockdev-setrw /dev/sdc
echo "--- blockdev-getro /dev/sdc"
blockdev-getro /dev/sdc
echo "--- blockdev-flushbufs /dev/sdc"
blockdev-flushbufs /dev/sdc
echo "--- blockdev-rereadpt /dev/sdc"
blockdev-rereadpt /dev/sdc
echo "--- pwrite-device /dev/sdc \"hello\" 0"
pwrite-device /dev/sdc "hello" 0
echo "--- pwrite-device /dev/sdc \"hello\" 131070"
pwrite-device /dev/sdc "hello" 131070
echo "--- pwrite-device /dev/sdc \"hello\" 67108860"
pwrite-device /dev/sdc "hello" 67108860
echo "--- pwrite-device /dev/sdc \"hello\" 67108864"
-pwrite-device /dev/sdc "hello" 67108864
echo "--- pwrite-device /dev/sdc \"hello\" -1"
-pwrite-device /dev/sdc "hello" -1
echo "--- pread-device /dev/sdc 8 67108856 | hexdump -C"
pread-device /dev/sdc 8 67108856 | hexdump -C
echo "--- is-zero-device /dev/sdc"
is-zero-device /dev/sdc
echo "--- zero /dev/sdc"
zero /dev/sdc
echo "--- pread-device /dev/sdc 8 131070 | hexdump -C"
pread-device /dev/sdc 8 131070 | hexdump -C
echo "--- checksum-device sha256 /dev/sdc"
checksum-device sha256 /dev/sdc
echo "--- copy-device-to-device /dev/sdc /dev/sde size:8M srcoffset:56M"
copy-device-to-device /dev/sdc /dev/sde size:8M srcoffset:56M
echo "--- checksum-device sha256 /dev/sde"
checksum-device sha256 /dev/sde
echo "--- copy-device-to-device /dev/sdc /dev/sde"
-copy-device-to-device /dev/sdc /dev/sde
echo "--- copy-device-to-device /dev/sdc /dev/sde size:1M srcoffset:64M"
-copy-device-to-device /dev/sdc /dev/sde size:1M srcoffset:64M
echo "--- copy-device-to-device /dev/sdc /dev/sde size:1M destoffset:1T"
-copy-device-to-device /dev/sdc /dev/sde size:1M destoffset:1T
echo "--- pwrite-device /dev/sdc \"world\" 1000"
pwrite-device /dev/sdc "world" 1000
echo "--- copy-device-to-device /dev/sdc /dev/sde size:2000 sparse:true"
copy-device-to-device /dev/sdc /dev/sde size:2000 sparse:true
echo "--- copy-device-to-device /dev/sdc /dev/sde srcoffset:1000 destoffset:5 size:3"
copy-device-to-device /dev/sdc /dev/sde srcoffset:1000 destoffset:5 size:3
echo "--- pread-device /dev/sde 1010 0 | md5sum"
pread-device /dev/sde 1010 0 | md5sum
echo "--- zero-device /dev/sde"
zero-device /dev/sde
echo "--- is-zero-device /dev/sde"
is-zero-device /dev/sde
echo "--- part-init /dev/sde gpt"
part-init /dev/sde gpt
echo "--- is-zero-device /dev/sde"
is-zero-device /dev/sde
