//! Mounting and unmounting.

use std::sync::Arc;

use bstr::BString;
use vmcraft_fs::{FileSystem, OpenOptions};
use vmcraft_macros::api;

use crate::driver;
use crate::file_device::FileDevice;
use crate::vfs::Mount;
use crate::{DeviceName, DeviceOrPath, Error, Guest, GuestPath, Mountable, Result};

/// Options of mount(8) that change nothing here: those of every file system, and those of
/// ext2/3/4. `=` at the end stands for a value.
const WITHOUT_EFFECT: &[&str] = &[
    "defaults",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "iversion",
    "noiversion",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "symfollow",
    "sync",
    "async",
    "dirsync",
    "mand",
    "nomand",
    "silent",
    "loud",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "comment=",
    "context=",
    "fscontext=",
    "defcontext=",
    "rootcontext=",
    "seclabel",
    "acl",
    "noacl",
    "user_xattr",
    "nouser_xattr",
    "barrier",
    "barrier=",
    "nobarrier",
    "block_validity",
    "noblock_validity",
    "bsddf",
    "minixdf",
    "check",
    "check=",
    "nocheck",
    "commit=",
    "data=",
    "data_err=",
    "dax",
    "dax=",
    "debug",
    "delalloc",
    "nodelalloc",
    "dioread_lock",
    "dioread_nolock",
    "discard",
    "nodiscard",
    "errors=",
    "grpid",
    "nogrpid",
    "bsdgroups",
    "sysvgroups",
    "grpjquota=",
    "grpquota",
    "i_version",
    "init_itable",
    "init_itable=",
    "noinit_itable",
    "inode_readahead_blks=",
    "jqfmt=",
    "journal_async_commit",
    "journal_checksum",
    "nojournal_checksum",
    "journal_ioprio=",
    "max_batch_time=",
    "max_dir_size_kb=",
    "mb_optimize_scan=",
    "min_batch_time=",
    "noquota",
    "nouid32",
    "oldalloc",
    "orlov",
    "prjquota",
    "quota",
    "resgid=",
    "resuid=",
    "stripe=",
    "usrjquota=",
    "usrquota",
    "auto_da_alloc",
    "auto_da_alloc=",
    "noauto_da_alloc",
];

#[api(area = "mounting")]
impl Guest {
    /// Mount a file system
    ///
    /// `mountable` is a device, such as `/dev/sda1`. `mountpoint` is the directory under which its
    /// files will stand: `/` first, then directories that are there.
    ///
    /// A journal that was not written back is replayed. What is changed reaches the disk with the next
    /// commit, which `sync` and `umount-all` make.
    ///
    /// ```guestfish
    /// mount /dev/sda1 /
    /// ```
    pub fn mount(&mut self, mountable: &Mountable, mountpoint: &GuestPath) -> Result<()> {
        self.mount_vfs("", "auto", mountable, mountpoint)
    }

    /// Mount a file system read-only
    ///
    /// This is `mount`, but nothing can be changed through this mount. `mountable` is a device,
    /// `mountpoint` a directory.
    ///
    /// ```guestfish
    /// mount-ro /dev/sda1 /
    /// ```
    pub fn mount_ro(&mut self, mountable: &Mountable, mountpoint: &GuestPath) -> Result<()> {
        self.mount_vfs("ro", "auto", mountable, mountpoint)
    }

    /// Mount a file system with options
    ///
    /// `options` are as after `-o` of mount(8), separated by commas; an empty text means none.
    /// `noload` (or `norecovery`) leaves a journal that was not written back as it is. With
    /// `ro` nothing can be changed through this mount. Options that change nothing here, such as
    /// `noatime` or `errors=remount-ro`, are accepted. Anything else is an error that names it.
    ///
    /// `mountable` is a device, `mountpoint` a directory.
    ///
    /// ```guestfish
    /// mount-options ro,noload /dev/sda1 /
    /// ```
    pub fn mount_options(
        &mut self,
        options: &str,
        mountable: &Mountable,
        mountpoint: &GuestPath,
    ) -> Result<()> {
        self.mount_vfs(options, "auto", mountable, mountpoint)
    }

    /// Mount a file system with options and a given type
    ///
    /// `options` are those of `mount-options`. `vfstype` is a type as `vfs-type` names it; `auto` or an
    /// empty text takes the type that is found. It is an error if the device holds another type, but
    /// `ext4` also stands for `ext2` and `ext3`, as it does for Linux.
    ///
    /// `mountable` is a device, `mountpoint` a directory.
    ///
    /// ```guestfish
    /// mount-vfs ro ext4 /dev/sda1 /
    /// ```
    pub fn mount_vfs(
        &mut self,
        options: &str,
        vfstype: &str,
        mountable: &Mountable,
        mountpoint: &GuestPath,
    ) -> Result<()> {
        let parsed = parse_options(options)?;
        let device = mountable_device(mountable)?;
        let (name, filesystem) = self.open_filesystem_with(device, parsed.open)?;
        check_type(&name, &*filesystem, vfstype)?;
        self.vfs.mount(&name, filesystem, mountpoint, parsed.read_only)
    }

    /// Mount the file system inside a file
    ///
    /// `file` is an image of a file system that lies inside the guest, such as the `squashfs.img` of a
    /// live CD. `mountpoint` is the directory under which its files will stand. In `mounts` it has the
    /// name of a loop device, `/dev/loop0`.
    ///
    /// ```guestfish
    /// mount-loop /images/inner.img /mnt
    /// ```
    pub fn mount_loop(&mut self, file: &GuestPath, mountpoint: &GuestPath) -> Result<()> {
        let node = self.resolve(file)?;
        let device = FileDevice::open(node)?;
        let filesystem = driver::open(&file.to_string(), Arc::new(device), OpenOptions::default())?;
        let taken: Vec<_> = self.vfs.mounts().iter().map(|mount| mount.device.as_str()).collect();
        let free = (0..=taken.len()).map(|number| format!("/dev/loop{number}"));
        // One more name than there are mounts: one is free.
        let name = free.into_iter().find(|name| !taken.contains(&name.as_str())).unwrap_or_default();
        self.vfs.mount(&name, filesystem, mountpoint, true)
    }

    /// Change the options of a mounted file system
    ///
    /// `mountpoint` is where it is mounted. With `rw:false` nothing can be changed through it any more,
    /// with `rw:true` it can. One of them must be given.
    ///
    /// ```guestfish
    /// remount / rw:false
    /// ```
    pub fn remount(&mut self, mountpoint: &GuestPath, rw: Option<bool>) -> Result<()> {
        let node = self.resolve(mountpoint)?;
        if self.vfs.mount_of(&node).mountpoint != node.path {
            return Err(Error::Usage(format!("{mountpoint}: not mounted")));
        }
        let Some(rw) = rw else {
            return Err(Error::Usage("remount needs rw:true or rw:false".into()));
        };
        self.vfs.set_read_only(node.mount, !rw);
        Ok(())
    }

    /// Unmount a file system
    ///
    /// `pathordevice` is the directory that it is mounted on, or its device; of several mounts the last
    /// one goes. It is an error if another file system is mounted inside it, unless
    /// `lazyunmount:true` takes that away too. `force` is accepted and changes nothing: no program
    /// runs here that could use the file system.
    ///
    /// ```guestfish
    /// umount /boot
    /// ```
    #[call(alias = "unmount", alias = "umount-opts")]
    pub fn umount(
        &mut self,
        pathordevice: &DeviceOrPath,
        force: Option<bool>,
        lazyunmount: Option<bool>,
    ) -> Result<()> {
        let _ = force;
        let with_inner = lazyunmount.unwrap_or(false);
        let Some(device) = pathordevice.as_device() else {
            let path = self.resolve(pathordevice.as_path())?.path;
            return self.vfs.unmount(pathordevice, with_inner, |mount| mount.mountpoint == path);
        };
        // A loop device has a name here and nowhere else.
        let name = self.find_device(device).map_or_else(|_| device.to_string(), |found| found.name);
        self.vfs.unmount(pathordevice, with_inner, |mount| mount.device == name)
    }

    /// Unmount all file systems, and write what was changed to the images
    ///
    /// As `sync`, this commits what was changed on all disks. If that fails, everything stays mounted.
    ///
    /// ```guestfish
    /// umount-all
    /// ```
    #[call(alias = "unmount-all")]
    pub fn umount_all(&mut self) -> Result<()> {
        if self.disks.is_some() {
            self.commit()?;
        }
        self.vfs.unmount_all();
        Ok(())
    }

    /// List the devices that are mounted
    ///
    /// They come in the order in which they were mounted.
    ///
    /// ```guestfish
    /// mounts
    /// ```
    pub fn mounts(&self) -> Result<Vec<String>> {
        Ok(self.vfs.mounts().iter().map(|mount| mount.device.clone()).collect())
    }

    /// List the devices that are mounted, and where
    ///
    /// The result is a table from devices to directories, in the order in which they were mounted.
    ///
    /// ```guestfish
    /// mountpoints
    /// ```
    pub fn mountpoints(&self) -> Result<Vec<(BString, BString)>> {
        let row = |mount: &Mount| (BString::from(mount.device.as_str()), mount.mountpoint.clone());
        Ok(self.vfs.mounts().iter().map(row).collect())
    }

    /// Make a directory to mount on, before anything is mounted on /
    ///
    /// `exemptpath` is the directory. It is in memory, not in a guest's file system. So several file
    /// systems can be looked at side by side that are no tree of one guest.
    ///
    /// ```guestfish
    /// mkmountpoint /first
    /// ```
    pub fn mkmountpoint(&mut self, exemptpath: &GuestPath) -> Result<()> {
        self.launched()?;
        self.vfs.make_mountpoint(exemptpath)
    }

    /// Remove a directory that `mkmountpoint` made
    ///
    /// `exemptpath` is the directory; nothing may be mounted on it or lie in it.
    ///
    /// ```guestfish
    /// rmmountpoint /first
    /// ```
    pub fn rmmountpoint(&mut self, exemptpath: &GuestPath) -> Result<()> {
        self.launched()?;
        self.vfs.remove_mountpoint(exemptpath)
    }
}

/// What mount options come to.
#[derive(Debug, Default)]
struct Parsed {
    open: OpenOptions,
    read_only: bool,
}

fn parse_options(options: &str) -> Result<Parsed> {
    let mut parsed = Parsed::default();
    for option in options.split(',').map(str::trim).filter(|option| !option.is_empty()) {
        let name = option.find('=').map_or(option, |end| &option[..=end]);
        match name {
            "noload" | "norecovery" => parsed.open.ignore_journal = true,
            "ro" => parsed.read_only = true,
            "rw" => parsed.read_only = false,
            "remount" | "bind" | "rbind" | "move" => {
                return Err(Error::Unsupported(format!("mount option {option}")));
            }
            _ if name.starts_with("x-") || name.starts_with("X-") || WITHOUT_EFFECT.contains(&name) => {}
            _ => {
                return Err(Error::Usage(format!(
                    "mount option {option:?} is not known, or this version does not have it"
                )));
            }
        }
    }
    Ok(parsed)
}

/// The device of a mountable.
fn mountable_device(mountable: &Mountable) -> Result<&DeviceName> {
    if mountable.as_bstr().starts_with(b"btrfsvol:") {
        return Err(Error::Unsupported(format!("{mountable}: this version does not open btrfs")));
    }
    Ok(DeviceName::new(mountable))
}

/// Whether the file system is of the type that was asked for.
fn check_type(device: &str, filesystem: &dyn FileSystem, wanted: &str) -> Result<()> {
    let kind = filesystem.kind();
    if matches!(wanted, "" | "auto") || wanted == kind {
        return Ok(());
    }
    if wanted == "ext4" && matches!(kind, "ext2" | "ext3") {
        return Ok(());
    }
    Err(Error::Usage(format!("{device}: the file system is of type {kind}, not {wanted}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryFs;

    #[test] // What is ignored must be harmless, and what is not known must not pass for it.
    fn options_are_known_or_refused() {
        let parsed = parse_options("ro, noatime,errors=remount-ro,x-systemd.automount,").unwrap();
        assert!(!parsed.open.ignore_journal && parsed.read_only);
        assert!(parse_options("noload").unwrap().open.ignore_journal);
        assert!(!parse_options("ro,rw,norecovery").unwrap().read_only);
        for bad in ["bogus", "errors", "noatime=1", "sb=8193", "subvol=x", "bind"] {
            let refused = parse_options(bad).unwrap_err().to_string();
            assert!(refused.contains(bad), "{refused}");
        }
    }

    #[test]
    fn types_must_fit() {
        let fs = MemoryFs::new();
        for fits in ["ext4", "auto", ""] {
            check_type("/dev/sda1", &fs, fits).unwrap();
        }
        let refused = check_type("/dev/sda1", &fs, "xfs").unwrap_err().to_string();
        assert_eq!(refused, "/dev/sda1: the file system is of type ext4, not xfs");
    }
}
