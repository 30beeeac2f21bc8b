//! Commands of guestfish that this version does not have, and why: a script that uses one is told so
//! instead of being asked whether it meant another.

/// Why a known command is missing.
pub(crate) fn reason(name: &str) -> Option<&'static str> {
    GROUPS
        .iter()
        .find(|group| {
            group.names.split_whitespace().any(|known| match known.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == known,
            })
        })
        .map(|group| group.reason)
}

struct Group {
    /// Names with white space between them; `*` at the end stands for any ending.
    names: &'static str,
    reason: &'static str,
}

const GROUPS: &[Group] = &[
    Group {
        names: "command command-lines command-out sh sh-lines sh-out",
        reason: "runs a program of the guest, which vmcraft does not: there is no virtual machine it could run in; \
            read what you need from the guest's files, or boot the guest",
    },
    Group {
        names: "display mkfs-btrfs mksquashfs \
            xfs-growfs xfs-repair xfs-admin ntfsresize* ntfsfix ntfsclone-* ntfs-3g-probe \
            ntfs-chmod f2fs-expand btrfs-* btrfstune-*",
        reason: "is not in this version",
    },
    Group {
        names: "hexedit",
        reason: "is not in this version: hexdump shows a file, and pwrite changes bytes of it",
    },
    Group {
        names: "rsync*",
        reason: "is not in this version: copy-in, copy-out, tar-in and tar-out copy trees, and vmcraft mount shows one to \
            rsync",
    },
    Group { names: "setfiles", reason: "is selinux-relabel here, which runs no program" },
    Group {
        names: "blockdev-setbsz blockdev-setra",
        reason: "has no meaning here: it sets what the kernel of libguestfs's appliance reads at once, and vmcraft has none",
    },
    Group {
        names: "download-inode download-blocks filesystem-walk find-inode",
        reason: "is about what was deleted, and is not in this version: find0, download and download-offset read what is \
            there",
    },
    Group { names: "write-file", reason: "was replaced by write in libguestfs, too" },
    Group {
        names: "mke2journal* mke2fs-J*",
        reason: "is about journals on devices of their own, which are not supported: mkfs ext4 makes one inside the \
            file system",
    },
    Group {
        names: "swapon-* swapoff-*",
        reason: "has no meaning here: no kernel runs that could swap; mkswap and mkswap-file make swap space",
    },
    Group {
        names: "grub-install extlinux syslinux",
        reason: "installs a boot loader, which a program of the guest or of the boot loader's own has to do: \
            firstboot-command runs it when the guest boots next",
    },
    Group {
        names: "sfdisk*",
        reason: "is for one program's words: use part-list, part-init, part-add and part-set-mbr-id",
    },
    Group {
        names: "scrub-*",
        reason: "overwrites data so that nothing of it can be found on the medium, which a disk image cannot \
            promise: zero-device and zero-free-space make it read as zeros",
    },
    Group {
        names: "aug-* hivex-* journal-* yara-* inotify-* isoinfo isoinfo-device initrd-cat initrd-list ntfscat-i xfs-info xfs-info2 \
            clevis-luks-unlock",
        reason: "is not in this version",
    },
    Group {
        names: "mount-local mount-local-run umount-local",
        reason: "is a sub-command: vmcraft mount -a DISK -i DIRECTORY, and vmcraft unmount DIRECTORY",
    },
    Group {
        names: "event list-events delete-event",
        reason: "is not supported: use -x to see the calls, and --progress-bars to see how far they are",
    },
    Group {
        names: "getcon setcon",
        reason: "is about SELinux in libguestfs's appliance, and vmcraft has none: the labels of files are the extended \
            attribute security.selinux, which selinux-relabel sets",
    },
    Group {
        names: "debug* modprobe dmesg utsname mount-9p list-9p \
            remove-drive c-pointer config direct set-direct get-direct pid get-pid internal-* \
            parse-environment set-libvirt-* get-libvirt-*",
        reason: "is about libguestfs's appliance, and vmcraft has none",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::local;

    #[test] // A name goes from this list when its call comes.
    fn no_command_that_works_is_named() {
        let calls = vmcraft::call::table().flat_map(|call| std::iter::once(&call.name).chain(call.aliases));
        let own =
            local::COMMANDS.iter().flat_map(|command| std::iter::once(&command.name).chain(command.aliases));
        let works: Vec<_> = calls.chain(own).collect();
        let named = GROUPS.iter().flat_map(|group| group.names.split_whitespace());
        let stale: Vec<_> = named.filter(|name| works.contains(&name)).collect();
        assert_eq!(stale, Vec::<&str>::new());
    }

    #[test]
    fn scripts_are_told_why() {
        assert!(reason("sh").unwrap().contains("program of the guest"));
        assert!(reason("rsync-in").unwrap().contains("copy-in"));
        assert!(reason("swapon-label").unwrap().contains("no kernel"));
        assert!(reason("mke2journal-l").unwrap().contains("journals on devices"));
        assert!(reason("aug-get").is_some());
        assert_eq!(reason("unmount"), None);
    }
}
