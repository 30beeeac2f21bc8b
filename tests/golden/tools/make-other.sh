#!/usr/bin/env bash
# make-other.sh IMAGE OTHER: the small guest with a few differences, for virt-diff.
set -euo pipefail
export LC_ALL=C TZ=UTC E2FSPROGS_FAKE_TIME=1700000001
cp --sparse=always "$1" "$2"
source=$(mktemp)
printf 'new content\n' > "$source"
debugfs -w -f - "$2?offset=1048576" > /dev/null 2>&1 <<D
rm /t/empty
rm /t/dir/hello
write $source /t/dir/hello
sif /t/dir/hello mtime 1700000100
sif /t/dir/hello atime 1700000100
sif /t/dir/hello ctime 1700000100
write $source /t/new
sif /t/new mtime 1700000100
sif /t/new atime 1700000100
sif /t/new ctime 1700000100
sif /t/script.sh mode 0100644
sif /t/zeros uid 7
D
rm "$source"
