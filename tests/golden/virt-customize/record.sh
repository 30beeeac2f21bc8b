#!/usr/bin/env bash
# Records what virt-customize and virt-sysprep of libguestfs make of the Debian guest:
#
#   record.sh DIRECTORY-WITH-debian-mbr.raw
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export LIBGUESTFS_BACKEND=direct LIBGUESTFS_BACKEND_SETTINGS=force_tcg LC_ALL=C TZ=UTC
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
base=$(realpath "$1")/debian-mbr.raw
record() { # SCRIPT OUTPUT COMMAND...
    qemu-img create -q -f qcow2 -F raw -b "$base" "$work/disk.qcow2"
    "${@:3}" -a "$work/disk.qcow2"
    guestfish --ro -a "$work/disk.qcow2" -i -f "$1" > "$2"
}
record look.gf debian.out virt-customize --commands-from-file debian.commands
record sysprep.gf sysprep.out virt-sysprep
virt-sysprep --list-operations > operations.out
