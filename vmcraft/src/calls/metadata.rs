//! What `stat` and its kin say of a file, and of a file system.

use bstr::{BStr, BString, ByteSlice};
use vmcraft_fs::{DeviceNumber, FileType, Metadata};
use vmcraft_macros::api;

use crate::device::parse_disk_name;
use crate::value::record;
use crate::vfs::{Mount, Node, join};
use crate::{Error, Guest, GuestPath, Result};

record! {
    /// What `stat` says of a file, with times in whole seconds.
    pub struct Stat as "stat" {
        /// The number of the device that the file system is on.
        pub dev: i64,
        /// The inode's number.
        pub ino: i64,
        /// Type and permissions.
        pub mode: i64,
        /// How many names the inode has.
        pub nlink: i64,
        /// The owner's number.
        pub uid: i64,
        /// The group's number.
        pub gid: i64,
        /// For a device node, its number.
        pub rdev: i64,
        /// Bytes of content.
        pub size: i64,
        /// The file system's block size in bytes.
        pub blksize: i64,
        /// Space taken, in units of 512 bytes.
        pub blocks: i64,
        /// Last read, in seconds since 1970.
        pub atime: i64,
        /// Last change of content, in seconds since 1970.
        pub mtime: i64,
        /// Last change of the inode, in seconds since 1970.
        pub ctime: i64,
    }
}

record! {
    /// What `stat` says of a file, with times to the nanosecond.
    pub struct StatNs as "statns" {
        /// The number of the device that the file system is on.
        pub st_dev: i64,
        /// The inode's number.
        pub st_ino: i64,
        /// Type and permissions.
        pub st_mode: i64,
        /// How many names the inode has.
        pub st_nlink: i64,
        /// The owner's number.
        pub st_uid: i64,
        /// The group's number.
        pub st_gid: i64,
        /// For a device node, its number.
        pub st_rdev: i64,
        /// Bytes of content.
        pub st_size: i64,
        /// The file system's block size in bytes.
        pub st_blksize: i64,
        /// Space taken, in units of 512 bytes.
        pub st_blocks: i64,
        /// Last read: seconds since 1970.
        pub st_atime_sec: i64,
        /// Last read: nanoseconds past the second.
        pub st_atime_nsec: i64,
        /// Last change of content: seconds since 1970.
        pub st_mtime_sec: i64,
        /// Last change of content: nanoseconds past the second.
        pub st_mtime_nsec: i64,
        /// Last change of the inode: seconds since 1970.
        pub st_ctime_sec: i64,
        /// Last change of the inode: nanoseconds past the second.
        pub st_ctime_nsec: i64,
        /// Always 0, as in libguestfs.
        pub st_spare1: i64,
        /// Always 0, as in libguestfs.
        pub st_spare2: i64,
        /// Always 0, as in libguestfs.
        pub st_spare3: i64,
        /// Always 0, as in libguestfs.
        pub st_spare4: i64,
        /// Always 0, as in libguestfs.
        pub st_spare5: i64,
        /// Always 0, as in libguestfs.
        pub st_spare6: i64,
    }
}

record! {
    /// What `statvfs` says of a file system.
    pub struct StatVfs as "statvfs" {
        /// The block size in bytes.
        pub bsize: i64,
        /// The unit of the block counts, in bytes.
        pub frsize: i64,
        /// All blocks that files could use.
        pub blocks: i64,
        /// Free blocks.
        pub bfree: i64,
        /// Blocks free to users other than root.
        pub bavail: i64,
        /// All inodes.
        pub files: i64,
        /// Free inodes.
        pub ffree: i64,
        /// Inodes free to users other than root.
        pub favail: i64,
        /// The file system's number.
        pub fsid: i64,
        /// Flags of the mount.
        pub flag: i64,
        /// The longest name in bytes.
        pub namemax: i64,
    }
}

/// `ST_RDONLY` and `ST_RELATIME`, which a mount with the option `ro` has.
const READ_ONLY_FLAGS: i64 = 1 | 4096;

#[api(area = "metadata")]
impl Guest {
    /// Get a file's metadata
    ///
    /// `path` is the file; a symbolic link is followed. Times are in whole seconds: `statns` has
    /// their nanoseconds too.
    ///
    /// ```guestfish
    /// stat /etc/fstab
    /// ```
    #[call(deprecated = "statns")]
    pub fn stat(&self, path: &GuestPath) -> Result<Stat> {
        self.statns(path).map(Stat::from)
    }

    /// Get a file's metadata without following a symbolic link
    ///
    /// `path` is the file or the link itself. Times are in whole seconds: `lstatns` has their
    /// nanoseconds too.
    ///
    /// ```guestfish
    /// lstat /etc/os-release
    /// ```
    #[call(deprecated = "lstatns")]
    pub fn lstat(&self, path: &GuestPath) -> Result<Stat> {
        self.lstatns(path).map(Stat::from)
    }

    /// Get a file's metadata, with nanoseconds
    ///
    /// `path` is the file; a symbolic link is followed. The fields are those of stat(2). `st_dev` is
    /// the number that Linux would give to the disk or partition.
    ///
    /// ```guestfish
    /// statns /etc/fstab
    /// ```
    pub fn statns(&self, path: &GuestPath) -> Result<StatNs> {
        self.stat_node(&self.resolve(path)?)
    }

    /// Get a file's metadata, with nanoseconds, without following a symbolic link
    ///
    /// `path` is the file or the link itself.
    ///
    /// ```guestfish
    /// lstatns /etc/os-release
    /// ```
    pub fn lstatns(&self, path: &GuestPath) -> Result<StatNs> {
        self.stat_node(&self.resolve_link(path)?)
    }

    /// Get the metadata of several files in a directory
    ///
    /// `path` is the directory, `names` are names in it. There is one record for each name, in their
    /// order; where there is no such file, its `ino` is -1. Links are not followed.
    ///
    /// ```guestfish
    /// lstatlist /etc "fstab os-release"
    /// ```
    #[call(deprecated = "lstatnslist")]
    pub fn lstatlist(&self, path: &GuestPath, names: &[BString]) -> Result<Vec<Stat>> {
        Ok(self.lstatnslist(path, names)?.into_iter().map(Stat::from).collect())
    }

    /// Get the metadata of several files in a directory, with nanoseconds
    ///
    /// `path` is the directory, `names` are names in it. There is one record for each name, in their
    /// order; where there is no such file, its `st_ino` is -1. Links are not followed.
    ///
    /// ```guestfish
    /// lstatnslist /etc "fstab os-release"
    /// ```
    pub fn lstatnslist(&self, path: &GuestPath, names: &[BString]) -> Result<Vec<StatNs>> {
        let mut records = Vec::new();
        self.for_each_name(path, names, |found| {
            let record = match found {
                Ok(node) => self.stat_node(&node),
                Err(e) => Err(e),
            };
            records.push(record.unwrap_or(NO_STAT));
            Ok(())
        })?;
        Ok(records)
    }

    /// Get the statistics of a mounted file system
    ///
    /// `path` is any file in it. The fields are those of statvfs(3).
    ///
    /// ```guestfish
    /// statvfs /
    /// ```
    pub fn statvfs(&self, path: &GuestPath) -> Result<StatVfs> {
        let node = self.resolve(path)?;
        let stat = node.filesystem.statfs().map_err(|source| node.error(source))?;
        Ok(StatVfs {
            bsize: stat.block_size.into(),
            frsize: stat.block_size.into(),
            blocks: stat.blocks.cast_signed(),
            bfree: stat.blocks_free.cast_signed(),
            bavail: stat.blocks_available.cast_signed(),
            files: stat.inodes.cast_signed(),
            ffree: stat.inodes_free.cast_signed(),
            favail: stat.inodes_free.cast_signed(),
            fsid: stat.id.cast_signed(),
            flag: READ_ONLY_FLAGS,
            namemax: stat.name_max.into(),
        })
    }

    /// Show how full the mounted file systems are
    ///
    /// The table is that of df(1), with sizes in units of 1024 bytes. Programs better use `statvfs`.
    ///
    /// ```guestfish
    /// df
    /// ```
    pub fn df(&self) -> Result<BString> {
        self.df_table("1K-blocks", "Available", |bytes| bytes.div_ceil(1024).to_string())
    }

    /// Show how full the mounted file systems are, in units for people
    ///
    /// The table is that of `df -h`. Programs better use `statvfs`.
    ///
    /// ```guestfish
    /// df-h
    /// ```
    pub fn df_h(&self) -> Result<BString> {
        self.df_table("Size", "Avail", human_size)
    }

    /// Get the size of a file in bytes
    ///
    /// `file` is the file; a symbolic link is followed. The size of a device is
    /// `blockdev-getsize64`'s to tell.
    ///
    /// ```guestfish
    /// filesize /etc/fstab
    /// ```
    pub fn filesize(&self, file: &GuestPath) -> Result<i64> {
        Ok(self.resolve(file)?.metadata()?.size_bytes.cast_signed())
    }

    /// Test whether something has this name
    ///
    /// `path` may be of any type, also a symbolic link that leads nowhere.
    ///
    /// ```guestfish
    /// exists /etc/fstab
    /// ```
    pub fn exists(&self, path: &GuestPath) -> Result<bool> {
        present(self.resolve_link(path)).map(|node| node.is_some())
    }

    /// Test for a regular file
    ///
    /// `path` is what is looked at. With `followsymlinks:true` a link that leads to a regular file
    /// counts, else not.
    ///
    /// ```guestfish
    /// is-file /etc/os-release followsymlinks:true
    /// ```
    #[call(alias = "is-file-opts")]
    pub fn is_file(&self, path: &GuestPath, followsymlinks: Option<bool>) -> Result<bool> {
        self.is_type(path, FileType::Regular, followsymlinks)
    }

    /// Test for a directory
    ///
    /// `path` is what is looked at. With `followsymlinks:true` a link that leads to a directory
    /// counts, else not.
    ///
    /// ```guestfish
    /// is-dir /etc
    /// ```
    #[call(alias = "is-dir-opts")]
    pub fn is_dir(&self, path: &GuestPath, followsymlinks: Option<bool>) -> Result<bool> {
        self.is_type(path, FileType::Directory, followsymlinks)
    }

    /// Test for a symbolic link
    ///
    /// `path` is what is looked at.
    ///
    /// ```guestfish
    /// is-symlink /etc/os-release
    /// ```
    pub fn is_symlink(&self, path: &GuestPath) -> Result<bool> {
        self.is_type(path, FileType::Symlink, None)
    }

    /// Test for a block device node
    ///
    /// `path` is a file inside the guest, not a disk of the handle. With `followsymlinks:true` a link
    /// that leads to a block device node counts, else not.
    ///
    /// ```guestfish
    /// is-blockdev /etc/fstab
    /// ```
    #[call(alias = "is-blockdev-opts")]
    pub fn is_blockdev(&self, path: &GuestPath, followsymlinks: Option<bool>) -> Result<bool> {
        self.is_type(path, FileType::BlockDevice, followsymlinks)
    }

    /// Test for a character device node
    ///
    /// `path` is what is looked at. With `followsymlinks:true` a link that leads to a character
    /// device node counts, else not.
    ///
    /// ```guestfish
    /// is-chardev /etc/fstab
    /// ```
    #[call(alias = "is-chardev-opts")]
    pub fn is_chardev(&self, path: &GuestPath, followsymlinks: Option<bool>) -> Result<bool> {
        self.is_type(path, FileType::CharDevice, followsymlinks)
    }

    /// Test for a named pipe
    ///
    /// `path` is what is looked at. With `followsymlinks:true` a link that leads to a named pipe
    /// counts, else not.
    ///
    /// ```guestfish
    /// is-fifo /etc/fstab
    /// ```
    #[call(alias = "is-fifo-opts")]
    pub fn is_fifo(&self, path: &GuestPath, followsymlinks: Option<bool>) -> Result<bool> {
        self.is_type(path, FileType::Fifo, followsymlinks)
    }

    /// Test for a Unix socket
    ///
    /// `path` is what is looked at. With `followsymlinks:true` a link that leads to a socket counts,
    /// else not.
    ///
    /// ```guestfish
    /// is-socket /etc/fstab
    /// ```
    #[call(alias = "is-socket-opts")]
    pub fn is_socket(&self, path: &GuestPath, followsymlinks: Option<bool>) -> Result<bool> {
        self.is_type(path, FileType::Socket, followsymlinks)
    }
}

impl Guest {
    fn stat_node(&self, node: &Node) -> Result<StatNs> {
        let metadata = node.metadata()?;
        Ok(stat_record(device_number(self.vfs.mount_of(node)), &metadata))
    }

    fn is_type(&self, path: &GuestPath, wanted: FileType, follow: Option<bool>) -> Result<bool> {
        let found = if follow.unwrap_or(false) { self.resolve(path) } else { self.resolve_link(path) };
        match present(found)? {
            Some(node) => Ok(node.metadata()?.file_type == wanted),
            None => Ok(false),
        }
    }

    /// Shows what each name in a directory leads to, links not followed.
    pub(crate) fn for_each_name(
        &self,
        path: &GuestPath,
        names: &[BString],
        mut show: impl FnMut(Result<Node>) -> Result<()>,
    ) -> Result<()> {
        if let Some(bad) = names.iter().find(|name| name.is_empty() || name.contains(&b'/')) {
            return Err(Error::Usage(format!(
                "{bad:?} is not a name in a directory: it is empty or has a /"
            )));
        }
        let dir = self.resolve(path)?;
        if !dir.metadata()?.is_dir() {
            return Err(dir.error(vmcraft_fs::Error::NotADirectory));
        }
        for name in names {
            self.host.check_cancelled()?;
            let name: &BStr = name.as_bstr();
            show(match name.as_bytes() {
                b"." | b".." => self.resolve_link(GuestPath::new(&join(&dir.path, name))),
                _ => self.vfs.child(&dir, name),
            })?;
        }
        Ok(())
    }

    fn df_table(&self, size: &str, available: &str, show: impl Fn(u128) -> String) -> Result<BString> {
        let header = ["Filesystem", size, "Used", available, "Use%", "Mounted on"];
        let mut rows = vec![header.map(BString::from)];
        for mount in self.vfs.mounts() {
            let stat = mount
                .filesystem
                .statfs()
                .map_err(|source| Error::FileSystem { device: mount.device.clone(), source })?;
            let used = stat.blocks.saturating_sub(stat.blocks_free);
            let bytes = |blocks: u64| show(u128::from(blocks) * u128::from(stat.block_size));
            let usable = u128::from(used) + u128::from(stat.blocks_available);
            let percent = match (u128::from(used) * 100).checked_div(usable) {
                None => "-".to_owned(),
                Some(_) => format!("{}%", (u128::from(used) * 100).div_ceil(usable)),
            };
            rows.push([
                mount.device.as_str().into(),
                bytes(stat.blocks).into(),
                bytes(used).into(),
                bytes(stat.blocks_available).into(),
                percent.into(),
                mount.mountpoint.clone(),
            ]);
        }
        // df's least widths; what is wider widens its column.
        let mut widths = [14, 5, 5, 5, 4];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut table = BString::default();
        for row in &rows {
            let [name, cells @ .., mountpoint] = row;
            table.extend_from_slice(format!("{name:<0$}", widths[0]).as_bytes());
            for (cell, width) in cells.iter().zip(&widths[1..]) {
                table.extend_from_slice(format!(" {cell:>width$}").as_bytes());
            }
            table.extend_from_slice(b" ");
            table.extend_from_slice(mountpoint);
            table.extend_from_slice(b"\n");
        }
        Ok(table)
    }
}

/// What resolution found, or `None` if there is nothing. Loops and damage stay errors.
fn present(found: Result<Node>) -> Result<Option<Node>> {
    match found {
        Ok(node) => Ok(Some(node)),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) => Err(e),
    }
}

/// The number that Linux gives to the device of a mount: `sd` disks have major numbers of their
/// own; what is no disk gets an anonymous one.
pub(crate) fn device_number(mount: &Mount) -> DeviceNumber {
    // The majors of disks 0-15, 16-31 and so on, each with 16 minors for a disk.
    const SD_MAJORS: [u32; 16] = [8, 65, 66, 67, 68, 69, 70, 71, 128, 129, 130, 131, 132, 133, 134, 135];
    let of_disk = parse_disk_name(&mount.device).and_then(|(index, partition)| {
        let partition = partition.unwrap_or(0);
        let major = *SD_MAJORS.get(index / 16)?;
        let minor = u32::try_from(index % 16).ok()? * 16 + partition;
        (partition < 16).then_some(DeviceNumber { major, minor })
    });
    of_disk.unwrap_or(DeviceNumber { major: 0, minor: mount.id.number() })
}

fn stat_record(device: DeviceNumber, metadata: &Metadata) -> StatNs {
    StatNs {
        st_dev: device.to_rdev().cast_signed(),
        st_ino: metadata.inode.0.cast_signed(),
        st_mode: metadata.mode().into(),
        st_nlink: metadata.links.cast_signed(),
        st_uid: metadata.uid.into(),
        st_gid: metadata.gid.into(),
        st_rdev: metadata.device.map_or(0, |device| device.to_rdev().cast_signed()),
        st_size: metadata.size_bytes.cast_signed(),
        st_blksize: metadata.block_size.into(),
        st_blocks: metadata.blocks_512.cast_signed(),
        st_atime_sec: metadata.accessed.seconds,
        st_atime_nsec: metadata.accessed.nanoseconds.into(),
        st_mtime_sec: metadata.modified.seconds,
        st_mtime_nsec: metadata.modified.nanoseconds.into(),
        st_ctime_sec: metadata.changed.seconds,
        st_ctime_nsec: metadata.changed.nanoseconds.into(),
        ..NO_STAT
    }
}

/// The record for what is not there.
const NO_STAT: StatNs = StatNs {
    st_dev: 0,
    st_ino: -1,
    st_mode: 0,
    st_nlink: 0,
    st_uid: 0,
    st_gid: 0,
    st_rdev: 0,
    st_size: 0,
    st_blksize: 0,
    st_blocks: 0,
    st_atime_sec: 0,
    st_atime_nsec: 0,
    st_mtime_sec: 0,
    st_mtime_nsec: 0,
    st_ctime_sec: 0,
    st_ctime_nsec: 0,
    st_spare1: 0,
    st_spare2: 0,
    st_spare3: 0,
    st_spare4: 0,
    st_spare5: 0,
    st_spare6: 0,
};

impl From<StatNs> for Stat {
    fn from(stat: StatNs) -> Self {
        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
            mode: stat.st_mode,
            nlink: stat.st_nlink,
            uid: stat.st_uid,
            gid: stat.st_gid,
            rdev: stat.st_rdev,
            size: stat.st_size,
            blksize: stat.st_blksize,
            blocks: stat.st_blocks,
            atime: stat.st_atime_sec,
            mtime: stat.st_mtime_sec,
            ctime: stat.st_ctime_sec,
        }
    }
}

/// A size as `df -h` shows it: rounded up, with one decimal below 10.
fn human_size(bytes: u128) -> String {
    const UNITS: &[u8; 9] = b" KMGTPEZY";
    let mut divisor: u128 = 1;
    for unit in UNITS {
        let whole = bytes.div_ceil(divisor);
        let tenths = (bytes * 10).div_ceil(divisor);
        match (*unit, whole) {
            (b' ', 0..1024) => return bytes.to_string(),
            (b' ', _) => {}
            (unit, _) if tenths < 100 => {
                return format!("{}.{}{}", tenths / 10, tenths % 10, char::from(unit));
            }
            (unit, 0..1024) => return format!("{whole}{}", char::from(unit)),
            _ => {}
        }
        divisor *= 1024;
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::MemoryFs;
    use crate::vfs::Vfs;

    #[test] // Sizes as GNU df rounds them.
    fn human_sizes_round_up() {
        for (bytes, shown) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0K"),
            (1025, "1.1K"),
            (10138, "10K"),
            (10240, "10K"),
            (10241, "11K"),
            (1024 * 1023 + 1, "1.0M"),
            (3 << 30, "3.0G"),
            ((3 << 30) + 1, "3.1G"),
            (u128::from(u64::MAX) * 65536, "1.0Y"),
        ] {
            assert_eq!(human_size(bytes), shown, "{bytes}");
        }
    }

    #[test] // The numbers that Linux gives to SCSI disks, which scripts compare.
    fn device_numbers_are_those_of_linux() {
        let number = |device: &str| {
            let vfs = Vfs::with_root(device, Arc::new(MemoryFs::new()));
            device_number(&vfs.mounts()[0]).to_rdev()
        };
        assert_eq!(number("/dev/sda"), 2048);
        assert_eq!(number("/dev/sda1"), 2049);
        assert_eq!(number("/dev/sdb2"), 2066);
        assert_eq!(number("/dev/sdq1"), 65 << 8 | 1);
        assert_eq!(number("/dev/vg/lv"), 1);
    }
}
