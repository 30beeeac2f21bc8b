# --rw -a IMAGE -i
mkdir /w
echo "--- write"
ln-s nowhere /w/dangling
write /w/dangling hello
cat /w/nowhere
-write /w "x"
-touch /w/dangling
fill 65 10 /w/fill
fill 66 4 /w/fill
cat /w/fill
fill-pattern abc 10 /w/pattern
fill-pattern xy 3 /w/pattern
cat /w/pattern
pwrite /w/fill abc 20
hexdump /w/fill
write-append /w/app aa
write-append /w/app bb
cat /w/app
truncate-size /w/app 5
hexdump /w/app
fallocate64 /w/space 100000
stat /w/space | grep -E "mode|size|nlink"
echo "--- make"
mkdir-mode /w/m 01777
mkdir-mode /w/m2 02777
mkdir-p /w/d/e/f/g
ln-s /w/d/e /w/de
mkdir-p /w/de/h
-mkdir /w/d
-mkdir-p /w/fill
umask 077
get-umask
mkdir /w/u77
write /w/u77f x
mkdir-mode /w/u77m 0755
mknod 0777 10 20 /w/mn
mknod-c 0777 10 20 /w/mnc
mknod-b 0777 300 70000 /w/mnb
mkfifo 0777 /w/fifo
-umask 01777
umask 022
fill-dir /w/d/e/f/g 3
ls /w/d/e/f/g
find /w
echo "--- attributes"
ln-s /w/fill /w/sl
chmod 04711 /w/sl
chown 12 34 /w/sl
lchown 56 78 /w/sl
stat /w/fill | grep -E "mode|uid|gid|size"
lstat /w/sl | grep -E "mode|uid|gid|size"
chown -1 99 /w/fill
utimens /w/fill 12345 67890 9876 5432
utimens /w/sl 1 2 3 4
utimens /w/fill 99 -2 100 -2
statns /w/fill | grep -E "atime|mtime|gid"
lstatns /w/sl | grep -E "atime|mtime"
setxattr user.a value 3 /w/sl
getxattr /w/fill user.a
echo ""
-removexattr user.zz /w/fill
removexattr user.a /w/fill
getxattrs /w/fill
echo "--- links"
ln /w/fill /w/hl
ln-f /w/fill /w/hl
-ln /w/fill /w/hl
-ln-f /w/fill /w/d
-ln /w/d /w/hd
-ln-s x /w/hl
stat /w/hl | grep nlink
ln-sf x /w/hl
readlink /w/hl
echo "--- cp"
mkdir /w/c
write /w/c/f content
chmod 04751 /w/c/f
chown 7 8 /w/c/f
chmod 04751 /w/c/f
setxattr user.x v 1 /w/c/f
utimens /w/c/f 1000 0 2000 0
ln-s f /w/c/l
ln /w/c/f /w/c/hard
mkfifo 0644 /w/c/fifo
mkdir /w/c/sub
chmod 02775 /w/c/sub
cp /w/c/f /w/f1
cp /w/c/f /w/c/sub
cp /w/c/l /w/l1
-cp /w/c /w/c2
-cp /w/c/f /w/c/hard
-cp /w/c/f /w/none/x
cp-a /w/c /w/ca
cp-r /w/c /w/cr
cp-a /w/c /w/ca
-mv /w/none /w/x
mv /w/f1 /w/f2
mv /w/f2 /w/c/sub
-mv /w/c /w/c/sub
-mv /w/ca/sub /w/cr
-rename /w/c/f /w/c/sub
-rename /w/c /w/c/sub/x
find /w/c
find /w/ca
find /w/cr
stat /w/ca/f | grep -E "mode|nlink|uid|gid|mtime"
stat /w/cr/f | grep -E "mode|nlink|uid|gid"
stat /w/ca/sub | grep -E "mode|nlink|uid|gid"
stat /w/cr/sub | grep -E "mode|nlink|uid|gid"
getxattrs /w/ca/f
getxattrs /w/cr/f
echo "--- inherit"
mkdir /w/sg
chown 5 6 /w/sg
chmod 02775 /w/sg
mkdir /w/sg/dir
write /w/sg/file x
acl-set-file /w/sg default u::rwx,u:9:rwx,g::r-x,m::rwx,o::---
mkdir /w/sg/dir2
write /w/sg/file2 x
mkdir-mode /w/sg/dir3 0700
glob stat /w/sg/* | grep -E "mode|uid|gid"
acl-get-file /w/sg/dir2 access
acl-get-file /w/sg/dir2 default
acl-get-file /w/sg/file2 access
acl-get-file /w/sg/dir3 access
chmod 0600 /w/sg/file2
acl-get-file /w/sg/file2 access
acl-set-file /w/sg/file2 access u::rwx,g::r-x,o::---
getxattrs /w/sg/file2
acl-delete-def-file /w/sg
acl-get-file /w/sg default
echo "--- copy"
write /w/x 0123456789
copy-file-to-file /w/x /w/x2 srcoffset:2 destoffset:3 size:5
hexdump /w/x2
copy-file-to-file /w/x /w/x2
cat /w/x2
copy-size /w/x /w/x3 4
cat /w/x3
echo "--- remove"
-rm /w/d
-rm /w/none
rm-f /w/none
-rm-rf /
-rmdir /w/d
-rmdir /w/fill
rm /w/fill
rm-rf /w/d
rm-rf /w/none
find /w
