# --ro -a IMAGE -i
echo "--- cat /t/lines"
cat /t/lines
echo "--- cat /t/no-newline"
cat /t/no-newline
echo "--- cat /t/empty"
cat /t/empty
echo "--- -cat /t/nonesuch"
-cat /t/nonesuch
echo "--- -cat /t/dir"
-cat /t/dir
echo "--- read-file /t/no-newline"
read-file /t/no-newline
echo "--- read-file /t/binary | xxd"
read-file /t/binary | xxd
echo "--- read-lines /t/lines"
read-lines /t/lines
echo "--- read-lines /t/no-newline"
read-lines /t/no-newline
echo "--- read-lines /t/empty"
read-lines /t/empty
echo "--- pread /t/lines 4 5"
pread /t/lines 4 5
echo "--- pread /t/lines 100 80"
pread /t/lines 100 80
echo "--- head /t/lines"
head /t/lines
echo "--- head-n 3 /t/lines"
head-n 3 /t/lines
echo "--- head-n -10 /t/lines"
head-n -10 /t/lines
echo "--- head-n 0 /t/lines"
head-n 0 /t/lines
echo "--- tail /t/lines"
tail /t/lines
echo "--- tail-n 3 /t/lines"
tail-n 3 /t/lines
echo "--- tail-n -3 /t/lines"
tail-n -3 /t/lines
echo "--- tail-n 0 /t/lines"
tail-n 0 /t/lines
echo "--- wc-l /t/lines"
wc-l /t/lines
echo "--- wc-w /t/lines"
wc-w /t/lines
echo "--- wc-c /t/lines"
wc-c /t/lines
echo "--- wc-l /t/no-newline"
wc-l /t/no-newline
echo "--- strings /t/binary"
strings /t/binary
echo "--- strings-e l /t/binary"
strings-e l /t/binary
echo "--- hexdump /t/binary"
hexdump /t/binary
echo "--- hexdump /t/zeros"
hexdump /t/zeros
echo "--- base64-out /t/binary -"
base64-out /t/binary -
echo "--- grep a.c /t/grep-me"
grep a.c /t/grep-me
echo "--- grep a.c /t/grep-me fixed:true"
grep a.c /t/grep-me fixed:true
echo "--- grep ABC /t/grep-me insensitive:true"
grep ABC /t/grep-me insensitive:true
echo "--- grep \"^[0-9]+$\" /t/grep-me extended:true"
grep '^[0-9]+$' /t/grep-me extended:true
echo "--- grep \"[0-9]\\+\" /t/grep-me"
grep '[0-9]\+' /t/grep-me
echo "--- grep \"(abc)\" /t/grep-me"
grep '(abc)' /t/grep-me
echo "--- grep \"\\(abc\\)\" /t/grep-me"
grep '\(abc\)' /t/grep-me
echo "--- grep abc /t/grep-me.gz compressed:true"
grep abc /t/grep-me.gz compressed:true
echo "--- grep nonesuch /t/grep-me"
grep nonesuch /t/grep-me
echo "--- fgrep a.c /t/grep-me"
fgrep a.c /t/grep-me
echo "--- egrep \"abc|123\" /t/grep-me"
egrep "abc|123" /t/grep-me
echo "--- grepi xyz /t/grep-me"
grepi xyz /t/grep-me
echo "--- zgrep abc /t/grep-me.gz"
zgrep abc /t/grep-me.gz
echo "--- zfile gzip /t/hello.gz"
zfile gzip /t/hello.gz
echo "--- checksum md5 /t/lines"
checksum md5 /t/lines
echo "--- checksum crc /t/lines"
checksum crc /t/lines
echo "--- checksum sha1 /t/lines"
checksum sha1 /t/lines
echo "--- checksum sha256 /t/lines"
checksum sha256 /t/lines
echo "--- checksum sha512 /t/sparse"
checksum sha512 /t/sparse
echo "--- -checksum nonesuch /t/lines"
-checksum nonesuch /t/lines
echo "--- checksums-out md5 /t/dir -"
checksums-out md5 /t/dir -
echo "--- equal /t/lines /t/hard-link"
equal /t/lines /t/hard-link
echo "--- equal /t/lines /t/empty"
equal /t/lines /t/empty
echo "--- is-zero /t/zeros"
is-zero /t/zeros
echo "--- is-zero /t/lines"
is-zero /t/lines
echo "--- download /t/lines -"
download /t/lines -
echo "--- download-offset /t/lines - 7 6"
download-offset /t/lines - 7 6
echo "--- tar-out /t/dir - | tar -tvf - --numeric-owner"
tar-out /t/dir - | tar -tvf - --numeric-owner
echo "--- tar-out /t/dir - compress:gzip | tar -tzf -"
tar-out /t/dir - compress:gzip | tar -tzf -
echo "--- tar-out /t - excludes:\"many dir\" | tar -tf - | sort"
tar-out /t - "excludes:many dir" | tar -tf - | sort
echo "--- tgz-out /t/dir - | tar -tzf -"
tgz-out /t/dir - | tar -tzf -
echo "--- cpio-out /t/dir - format:newc | cpio -t --quiet"
cpio-out /t/dir - format:newc | cpio -t --quiet
echo "--- compress-out gzip /t/lines - | gunzip"
compress-out gzip /t/lines - | gunzip
