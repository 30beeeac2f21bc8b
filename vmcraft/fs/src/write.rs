//! The trait through which an open file system is changed.

use bstr::{BStr, BString};

use crate::{DeviceNumber, FileType, InodeNumber, Result, Timestamp};

/// What a new inode starts with. Its times are those of the file system's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewInode {
    /// Permission, set-id and sticky bits: the low 12 bits of `st_mode`. No umask is applied. A
    /// default access control list of the directory takes away what it does not allow.
    pub permissions: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number. Heeding a set-group-id bit of the directory is the caller's affair.
    pub gid: u32,
}

/// What [`WriteFiles::set_metadata`] changes: `None` leaves a field as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetMetadata {
    /// Permission, set-id and sticky bits: the low 12 bits of `st_mode`. An access control list that the
    /// file has changes with them.
    pub permissions: Option<u32>,
    /// The owner's number.
    pub uid: Option<u32>,
    /// The group's number.
    pub gid: Option<u32>,
    /// Last read.
    pub accessed: Option<Timestamp>,
    /// Last change of content.
    pub modified: Option<Timestamp>,
}

/// Whether an extended attribute may or must be there before it is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum XattrMode {
    /// Created or replaced.
    #[default]
    Any,
    /// Refused with `Exists` if it is there.
    Create,
    /// Refused with `NoAttribute` if it is not there.
    Replace,
}

/// What [`WriteFiles::free_space`] does to the space that no file uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreeSpace {
    /// Gives it back to what holds the device.
    Discard,
    /// Makes it read as zeros.
    Zero,
}

/// What the kernel is to do when it finds an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// Go on.
    Continue,
    /// Write nothing any more.
    ReadOnly,
    /// Halt the machine.
    Panic,
}

/// Blocks that are kept for the superuser.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reserved {
    /// In percent of all, 50 at most.
    Percent(u32),
    /// Less than half of all.
    Blocks(u64),
}

/// How a volume is to be used; `None` leaves a thing as it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tuning {
    /// After so many mounts it is checked; 0 for never. 16000 at most.
    pub most_mounts: Option<u16>,
    /// How often it was mounted since it was checked. 16000 at most.
    pub mounts: Option<u16>,
    /// After so many seconds it is checked; 0 for never.
    pub check_interval_secs: Option<u32>,
    /// What the kernel does about errors.
    pub on_error: Option<OnError>,
    /// Blocks that only the superuser, and the user and group below, may use.
    pub reserved: Option<Reserved>,
    /// The user, by number.
    pub reserved_uid: Option<u16>,
    /// The group, by number.
    pub reserved_gid: Option<u16>,
    /// Where it was mounted last, in 63 bytes at most.
    pub last_mounted: Option<BString>,
}

/// The writing side of a file system, which [`FileSystem::writer`](crate::FileSystem::writer) gives.
///
/// Each method is all or nothing: one that fails leaves the file system as it was before. What they
/// change is seen by readers at once, and is on the device after [`WriteFiles::sync`]. Permissions
/// are not checked; flags of the inode (immutable, append-only) are. Times of inodes and directories
/// change as the kernel changes them, and so do access control lists: what is made in a directory with
/// a default list inherits it, and a list follows permissions that are set.
///
/// A `name` is any bytes but `/` and NUL, neither empty nor `.` nor `..`: `InvalidInput` otherwise.
/// A method that takes a directory answers `NotADirectory` if it is none.
pub trait WriteFiles: Send + Sync {
    /// Makes a regular file. `Exists` if the name is taken.
    fn create(&self, dir: InodeNumber, name: &BStr, new: NewInode) -> Result<InodeNumber>;

    /// Makes a directory. `Exists` if the name is taken.
    fn mkdir(&self, dir: InodeNumber, name: &BStr, new: NewInode) -> Result<InodeNumber>;

    /// Makes a symbolic link to `target`, which is 1 byte at least. `Exists` if the name is taken.
    fn symlink(&self, dir: InodeNumber, name: &BStr, target: &BStr, new: NewInode) -> Result<InodeNumber>;

    /// Makes a device node, named pipe or socket; `device` is heeded for devices. `Exists` if the
    /// name is taken.
    fn mknod(
        &self,
        dir: InodeNumber,
        name: &BStr,
        file_type: FileType,
        device: DeviceNumber,
        new: NewInode,
    ) -> Result<InodeNumber>;

    /// Gives an inode that is no directory one more name. `Exists` if the name is taken.
    fn link(&self, inode: InodeNumber, dir: InodeNumber, name: &BStr) -> Result<()>;

    /// Takes a name away, and the inode with its last name. `IsADirectory` for a directory.
    fn unlink(&self, dir: InodeNumber, name: &BStr) -> Result<()>;

    /// Takes an empty directory away. `NotEmpty` if it has entries.
    fn rmdir(&self, dir: InodeNumber, name: &BStr) -> Result<()>;

    /// Moves a name, as `rename(2)`: what `to_name` leads to is replaced if its type fits. Two names
    /// of one inode stay as they are. `InvalidInput` if a directory would come inside itself.
    fn rename(
        &self,
        from_dir: InodeNumber,
        from_name: &BStr,
        to_dir: InodeNumber,
        to_name: &BStr,
    ) -> Result<()>;

    /// Writes all of `data` at byte `offset` of a regular file, which grows if it must; what lies
    /// between its old end and `offset` reads as zeros.
    fn write(&self, inode: InodeNumber, offset: u64, data: &[u8]) -> Result<()>;

    /// Makes a regular file `size` bytes long: cuts it off, or lets it end in a hole.
    fn truncate(&self, inode: InodeNumber, size: u64) -> Result<()>;

    /// Gives space to a range of a regular file, which reads as zeros where nothing was, as
    /// `fallocate(2)`. The file grows to hold the range unless `keep_size`. `Unsupported` where the
    /// format cannot have space that reads as zeros.
    fn allocate(&self, inode: InodeNumber, offset: u64, len: u64, keep_size: bool) -> Result<()>;

    /// Makes a range of a regular file read as zeros, and gives back the space of all blocks that are
    /// wholly inside. The size stays.
    fn punch_hole(&self, inode: InodeNumber, offset: u64, len: u64) -> Result<()>;

    /// Changes what `stat` says. Set-id bits stay unless they are changed; `st_ctime` becomes now.
    fn set_metadata(&self, inode: InodeNumber, set: &SetMetadata) -> Result<()>;

    /// Sets an extended attribute, whose full name and value are as for `setxattr(2)`. Changing
    /// `system.posix_acl_access` changes the permissions with it, as in the kernel.
    fn set_xattr(&self, inode: InodeNumber, name: &BStr, value: &[u8], mode: XattrMode) -> Result<()>;

    /// Takes an extended attribute away. `NoAttribute` if it is not there.
    fn remove_xattr(&self, inode: InodeNumber, name: &BStr) -> Result<()>;

    /// Sets the flags of an inode that users may set, in the bits of `FS_IOC_SETFLAGS`.
    fn set_flags(&self, inode: InodeNumber, flags: u32) -> Result<()>;

    /// Sets the generation number of an inode, as `FS_IOC_SETVERSION`.
    fn set_generation(&self, inode: InodeNumber, generation: u32) -> Result<()>;

    /// Changes the volume's label. `InvalidInput` if it is too long.
    fn set_label(&self, label: &BStr) -> Result<()>;

    /// Changes the volume's UUID.
    fn set_uuid(&self, uuid: [u8; 16]) -> Result<()>;

    /// Changes what the volume says of how it is to be used. `Unsupported` for what the format has no
    /// field for.
    fn tune(&self, tuning: &Tuning) -> Result<()>;

    /// Discards or zeroes each free extent of at least `minimum` bytes that lies in the `len` bytes
    /// of the volume from `offset`; says how many bytes that was.
    fn free_space(&self, what: FreeSpace, offset: u64, len: u64, minimum: u64) -> Result<u64>;

    /// Writes everything to the device, which then holds a clean file system. The device is not
    /// flushed.
    fn sync(&self) -> Result<()>;

    /// Forgets what is in memory: the device went back to what it held at an earlier `sync`.
    fn reload(&self) -> Result<()>;
}
