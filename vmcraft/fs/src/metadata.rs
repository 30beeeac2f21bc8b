//! What a file system says of an inode, and of itself.

use std::fmt;

/// The number of an inode within its file system. Each driver maps its own identifier to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeNumber(pub u64);

impl fmt::Display for InodeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileType {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A directory entry whose type the file system does not store there.
    Unknown,
}

impl FileType {
    /// The `S_IFMT` bits of `st_mode`.
    pub fn mode_bits(self) -> u32 {
        match self {
            Self::Regular => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Symlink => 0o120_000,
            Self::CharDevice => 0o020_000,
            Self::BlockDevice => 0o060_000,
            Self::Fifo => 0o010_000,
            Self::Socket => 0o140_000,
            Self::Unknown => 0,
        }
    }

    /// The type in the `S_IFMT` bits of `st_mode`.
    pub fn from_mode(mode: u32) -> Self {
        match mode & 0o170_000 {
            0o100_000 => Self::Regular,
            0o040_000 => Self::Directory,
            0o120_000 => Self::Symlink,
            0o020_000 => Self::CharDevice,
            0o060_000 => Self::BlockDevice,
            0o010_000 => Self::Fifo,
            0o140_000 => Self::Socket,
            _ => Self::Unknown,
        }
    }

    /// The letter that `readdir` of libguestfs uses: `r`, `d`, `l`, `c`, `b`, `f`, `s` or `u`.
    pub fn letter(self) -> u8 {
        match self {
            Self::Regular => b'r',
            Self::Directory => b'd',
            Self::Symlink => b'l',
            Self::CharDevice => b'c',
            Self::BlockDevice => b'b',
            Self::Fifo => b'f',
            Self::Socket => b's',
            Self::Unknown => b'u',
        }
    }
}

/// A moment: seconds since 1970-01-01 00:00 UTC, negative before it, and nanoseconds past them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Whole seconds.
    pub seconds: i64,
    /// 0 to 999 999 999.
    pub nanoseconds: u32,
}

/// The numbers of a device node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct DeviceNumber {
    /// The driver's number.
    pub major: u32,
    /// The device's number within the driver.
    pub minor: u32,
}

impl DeviceNumber {
    /// As `st_rdev` holds it on Linux (glibc's `makedev`).
    pub fn to_rdev(self) -> u64 {
        let (major, minor) = (u64::from(self.major), u64::from(self.minor));
        (major & 0xfff) << 8 | (major & !0xfff) << 32 | (minor & 0xff) | (minor & !0xff) << 12
    }
}

/// What `stat` would say of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// Its number.
    pub inode: InodeNumber,
    /// What it is.
    pub file_type: FileType,
    /// Permission, set-id and sticky bits: the low 12 bits of `st_mode`.
    pub permissions: u32,
    /// How many names it has.
    pub links: u64,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// For a device node, its numbers.
    pub device: Option<DeviceNumber>,
    /// Bytes of content; of a symbolic link, of its target.
    pub size_bytes: u64,
    /// Space taken, in units of 512 bytes.
    pub blocks_512: u64,
    /// The file system's block size in bytes.
    pub block_size: u32,
    /// Last read.
    pub accessed: Timestamp,
    /// Last change of content.
    pub modified: Timestamp,
    /// Last change of the inode.
    pub changed: Timestamp,
    /// Creation, where the file system keeps it.
    pub created: Option<Timestamp>,
}

impl Metadata {
    /// `st_mode`: type and permissions.
    pub fn mode(&self) -> u32 {
        self.file_type.mode_bits() | self.permissions
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type == FileType::Directory
    }
}

/// What `statvfs` would say of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatFs {
    /// The unit of the block counts, in bytes.
    pub block_size: u32,
    /// All blocks that files could use.
    pub blocks: u64,
    /// Those that are free.
    pub blocks_free: u64,
    /// Those that are free to users other than root.
    pub blocks_available: u64,
    /// All inodes.
    pub inodes: u64,
    /// Those that are free.
    pub inodes_free: u64,
    /// The file system's number, as `f_fsid`.
    pub id: u64,
    /// The longest name in bytes.
    pub name_max: u32,
}
