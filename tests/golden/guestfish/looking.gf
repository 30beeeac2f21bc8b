# --ro -a IMAGE -i
echo "--- ls /"
ls /
echo "--- ls /t"
ls /t
echo "--- ls0 /t/dir | xxd"
ls0 /t/dir - | xxd
echo "--- ll /t/dir"
ll /t/dir
echo "--- find /t/dir"
find /t/dir
echo "--- find /"
find /
echo "--- find0 /t/dir - | xxd"
find0 /t/dir - | xxd
echo "--- -ls /nonesuch"
-ls /nonesuch
echo "--- -ls /t/lines"
-ls /t/lines
echo "--- exists /t"
exists /t
echo "--- exists /t/nonesuch"
exists /t/nonesuch
echo "--- exists /t/dangling"
exists /t/dangling
echo "--- is-dir /t"
is-dir /t
echo "--- is-dir /t/abs-link-dir"
is-dir /t/abs-link-dir
echo "--- is-dir /t/abs-link-dir followsymlinks:true"
is-dir /t/abs-link-dir followsymlinks:true
echo "--- is-file /t/lines"
is-file /t/lines
echo "--- is-file /t/link"
is-file /t/link
echo "--- is-file /t/link followsymlinks:true"
is-file /t/link followsymlinks:true
echo "--- is-symlink /t/link"
is-symlink /t/link
echo "--- is-symlink /t/lines"
is-symlink /t/lines
echo "--- is-fifo /t/fifo"
is-fifo /t/fifo
echo "--- is-chardev /t/char"
is-chardev /t/char
echo "--- is-blockdev /t/block"
is-blockdev /t/block
echo "--- is-socket /t/fifo"
is-socket /t/fifo
echo "--- readlink /t/link"
readlink /t/link
echo "--- readlink /t/abs-link-dir"
readlink /t/abs-link-dir
echo "--- -readlink /t/lines"
-readlink /t/lines
echo "--- realpath /t/abs-link-dir/sub"
realpath /t/abs-link-dir/sub
echo "--- -realpath /t/dangling"
-realpath /t/dangling
echo "--- -realpath /t/loop-a"
-realpath /t/loop-a
echo "--- cat /t/escape"
cat /t/escape
echo "--- readlinklist /t \"link lines dangling\""
readlinklist /t "link lines dangling"
echo "--- glob-expand /t/l*"
glob-expand /t/l*
echo "--- glob-expand /t/*/"
glob-expand /t/*/
echo "--- glob-expand /t/d*"
glob-expand /t/d*
echo "--- glob-expand /t/d* directoryslash:false"
glob-expand /t/d* directoryslash:false
echo "--- glob-expand /t/nonesuch*"
glob-expand /t/nonesuch*
echo "--- glob-expand /t/{lines,link}"
glob-expand /t/{lines,link}
echo "--- glob echo /t/l*"
glob echo /t/l*
echo "--- du /t/dir"
du /t/dir
echo "--- du /t/zeros"
du /t/zeros
echo "--- statvfs /"
statvfs /
echo "--- case-sensitive-path /T/LINES"
case-sensitive-path /T/LINES
echo "--- -case-sensitive-path /T/NONESUCH/x"
-case-sensitive-path /T/NONESUCH/x
echo "--- filesize /t/lines"
filesize /t/lines
echo "--- file /t/lines"
file /t/lines
echo "--- file /t/grep-me.gz"
file /t/grep-me.gz
echo "--- file /t/dir"
file /t/dir
echo "--- file /t/link"
file /t/link
echo "--- file /t/empty"
file /t/empty
echo "--- file /t/char"
file /t/char
echo "--- file /t/fifo"
file /t/fifo
echo "--- file /t/script.sh"
file /t/script.sh
echo "--- file /bin/ls"
file /bin/ls
echo "--- file-architecture /bin/ls"
file-architecture /bin/ls
echo "--- -file-architecture /t/lines"
-file-architecture /t/lines
