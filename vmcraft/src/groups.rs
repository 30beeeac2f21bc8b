//! libguestfs's optional groups of calls, and which of them are here.

use crate::call::Call;

/// A group, and the calls that make it up.
pub(crate) struct Group {
    pub(crate) name: &'static str,
    calls: &'static [&'static str],
}

impl Group {
    /// Those of its calls that the table has not; none if the group is available.
    pub(crate) fn missing(&self) -> impl Iterator<Item = &'static str> {
        self.calls.iter().copied().filter(|name| Call::find(name).is_none())
    }
}

/// The group with this name.
pub(crate) fn find(name: &str) -> Option<&'static Group> {
    GROUPS.iter().find(|group| group.name == name)
}

const fn group(name: &'static str, calls: &'static [&'static str]) -> Group {
    Group { name, calls }
}

/// All groups, by name.
pub(crate) const GROUPS: &[Group] = &[
    group("acl", &["acl-delete-def-file", "acl-get-file", "acl-set-file"]),
    group(
        "augeas",
        &[
            "aug-clear",
            "aug-close",
            "aug-defnode",
            "aug-defvar",
            "aug-get",
            "aug-init",
            "aug-insert",
            "aug-label",
            "aug-load",
            "aug-ls",
            "aug-match",
            "aug-mv",
            "aug-rm",
            "aug-save",
            "aug-set",
            "aug-setm",
            "aug-transform",
        ],
    ),
    group("blkdiscard", &["blkdiscard"]),
    group("blkdiscardzeroes", &["blkdiscardzeroes"]),
    group(
        "btrfs",
        &[
            "btrfs-balance-cancel",
            "btrfs-balance-pause",
            "btrfs-balance-resume",
            "btrfs-balance-status",
            "btrfs-device-add",
            "btrfs-device-delete",
            "btrfs-filesystem-balance",
            "btrfs-filesystem-defragment",
            "btrfs-filesystem-resize",
            "btrfs-filesystem-show",
            "btrfs-filesystem-sync",
            "btrfs-fsck",
            "btrfs-image",
            "btrfs-qgroup-assign",
            "btrfs-qgroup-create",
            "btrfs-qgroup-destroy",
            "btrfs-qgroup-limit",
            "btrfs-qgroup-remove",
            "btrfs-qgroup-show",
            "btrfs-quota-enable",
            "btrfs-quota-rescan",
            "btrfs-replace",
            "btrfs-rescue-chunk-recover",
            "btrfs-rescue-super-recover",
            "btrfs-scrub-cancel",
            "btrfs-scrub-resume",
            "btrfs-scrub-start",
            "btrfs-scrub-status",
            "btrfs-set-seeding",
            "btrfs-subvolume-create",
            "btrfs-subvolume-delete",
            "btrfs-subvolume-get-default",
            "btrfs-subvolume-list",
            "btrfs-subvolume-set-default",
            "btrfs-subvolume-show",
            "btrfs-subvolume-snapshot",
            "btrfstune-enable-extended-inode-refs",
            "btrfstune-enable-skinny-metadata-extent-refs",
            "btrfstune-seeding",
            "mkfs-btrfs",
        ],
    ),
    group("extlinux", &["extlinux"]),
    group("f2fs", &["f2fs-expand"]),
    group("fstrim", &["fstrim"]),
    group(
        "gdisk",
        &[
            "part-expand-gpt",
            "part-get-disk-guid",
            "part-get-gpt-attributes",
            "part-get-gpt-guid",
            "part-get-gpt-type",
            "part-set-disk-guid",
            "part-set-disk-guid-random",
            "part-set-gpt-attributes",
            "part-set-gpt-guid",
            "part-set-gpt-type",
        ],
    ),
    group("grub", &["grub-install"]),
    group(
        "hivex",
        &[
            "hivex-close",
            "hivex-commit",
            "hivex-node-add-child",
            "hivex-node-children",
            "hivex-node-delete-child",
            "hivex-node-get-child",
            "hivex-node-get-value",
            "hivex-node-name",
            "hivex-node-parent",
            "hivex-node-set-value",
            "hivex-node-values",
            "hivex-open",
            "hivex-root",
            "hivex-value-key",
            "hivex-value-string",
            "hivex-value-type",
            "hivex-value-utf8",
            "hivex-value-value",
        ],
    ),
    group(
        "inotify",
        &[
            "inotify-add-watch",
            "inotify-close",
            "inotify-files",
            "inotify-init",
            "inotify-read",
            "inotify-rm-watch",
        ],
    ),
    group(
        "journal",
        &[
            "journal-close",
            "journal-get",
            "journal-get-data-threshold",
            "journal-get-realtime-usec",
            "journal-next",
            "journal-open",
            "journal-set-data-threshold",
            "journal-skip",
        ],
    ),
    group(
        "ldm",
        &[
            "ldmtool-create-all",
            "ldmtool-diskgroup-disks",
            "ldmtool-diskgroup-name",
            "ldmtool-diskgroup-volumes",
            "ldmtool-remove-all",
            "ldmtool-scan",
            "ldmtool-scan-devices",
            "ldmtool-volume-hint",
            "ldmtool-volume-partitions",
            "ldmtool-volume-type",
            "list-ldm-partitions",
            "list-ldm-volumes",
        ],
    ),
    group("libtsk", &["filesystem-walk", "find-inode"]),
    group("libyara", &["yara-destroy", "yara-load", "yara-scan"]),
    group("linuxcaps", &["cap-get-file", "cap-set-file"]),
    group("linuxfsuuid", &["mke2fs-JU", "mke2journal-U", "mkswap-U", "swapoff-uuid", "swapon-uuid"]),
    group("linuxmodules", &["modprobe"]),
    group(
        "linuxxattrs",
        &[
            "getxattr",
            "getxattrs",
            "lgetxattr",
            "lgetxattrs",
            "lremovexattr",
            "lsetxattr",
            "lxattrlist",
            "removexattr",
            "setxattr",
        ],
    ),
    group(
        "luks",
        &[
            "cryptsetup-close",
            "cryptsetup-open",
            "luks-add-key",
            "luks-close",
            "luks-format",
            "luks-format-cipher",
            "luks-kill-slot",
            "luks-open",
            "luks-open-ro",
            "luks-uuid",
        ],
    ),
    group(
        "lvm2",
        &[
            "lvcreate",
            "lvcreate-free",
            "lvm-remove-all",
            "lvm-set-filter",
            "lvremove",
            "lvresize",
            "lvresize-free",
            "lvs",
            "lvs-full",
            "pvchange-uuid",
            "pvchange-uuid-all",
            "pvcreate",
            "pvremove",
            "pvresize",
            "pvresize-size",
            "pvs",
            "pvs-full",
            "vg-activate",
            "vg-activate-all",
            "vgchange-uuid",
            "vgchange-uuid-all",
            "vgcreate",
            "vgmeta",
            "vgremove",
            "vgs",
            "vgs-full",
        ],
    ),
    group("mdadm", &["md-create", "md-detail", "md-stat", "md-stop"]),
    group("mknod", &["mkfifo", "mknod", "mknod-b", "mknod-c"]),
    group("ntfs3g", &["ntfs-3g-probe", "ntfsclone-in", "ntfsclone-out", "ntfsfix"]),
    group("ntfsprogs", &["ntfsresize", "ntfsresize-size"]),
    group("realpath", &["realpath"]),
    group("rsync", &["rsync", "rsync-in", "rsync-out"]),
    group("scrub", &["scrub-device", "scrub-file", "scrub-freespace"]),
    group("selinux", &["getcon", "setcon"]),
    group("selinuxrelabel", &["selinux-relabel", "setfiles"]),
    group("sleuthkit", &["download-blocks", "download-inode"]),
    group("squashfs", &["mksquashfs"]),
    group("syslinux", &["syslinux"]),
    group("wipefs", &["wipefs"]),
    group("xfs", &["xfs-admin", "xfs-growfs", "xfs-info", "xfs-repair"]),
    group("xz", &["txz-in", "txz-out"]),
    group("zerofree", &["zerofree"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test] // A group is no more available than each of its calls.
    fn groups_are_available_when_all_their_calls_are() {
        assert_eq!(find("realpath").map(|group| group.missing().count()), Some(0));
        for available in ["lvm2", "luks", "ldm"] {
            let missing = find(available).map(|group| group.missing().collect::<Vec<_>>());
            assert_eq!(missing, Some(Vec::new()), "{available}");
        }
        assert_eq!(find("augeas").and_then(|group| group.missing().next()), Some("aug-clear"));
        assert!(find("nonesuch").is_none());
        assert!(GROUPS.is_sorted_by_key(|group| group.name));
    }
}
