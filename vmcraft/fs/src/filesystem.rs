//! The trait through which an open file system is read.

use std::ops::ControlFlow;

use bstr::{BStr, BString};

use crate::{FileType, InodeNumber, Metadata, Result, StatFs, WriteFiles};

/// One name in a directory, as [`FileSystem::read_dir`] shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// The inode that the name leads to.
    pub inode: InodeNumber,
    /// The name: any bytes but `/` and NUL, never empty.
    pub name: &'a BStr,
    /// The type if the directory stores it, else [`FileType::Unknown`].
    pub file_type: FileType,
    /// Where to go on after this entry: an opaque cursor, never 0.
    pub next: u64,
}

/// What [`FileSystem::read_dir`] calls for each entry; `Break` ends the listing.
pub type Visit<'a> = dyn FnMut(DirEntry<'_>) -> ControlFlow<()> + 'a;

/// An open file system, as its driver sees it. Paths and symbolic links are resolved above.
///
/// Everything is positional and takes `&self`: several threads may ask at once.
pub trait FileSystem: Send + Sync {
    /// The type as `blkid` names it, such as `ext4`.
    fn kind(&self) -> &'static str;

    /// The volume's label, empty if it has none.
    fn label(&self) -> BString;

    /// The volume's UUID in the form that `blkid` prints, empty if it has none.
    fn uuid(&self) -> String;

    /// The root directory.
    fn root(&self) -> InodeNumber;

    /// The inode that `name` leads to in `dir`. `.` and `..` are resolved above and never asked for.
    ///
    /// `NotFound` if there is no such name, `NotADirectory` if `dir` is not a directory.
    fn lookup(&self, dir: InodeNumber, name: &BStr) -> Result<InodeNumber>;

    /// What `stat` would say.
    fn metadata(&self, inode: InodeNumber) -> Result<Metadata>;

    /// Reads from byte `offset` of a regular file; returns how many bytes, 0 at the end of the file.
    /// Fewer than asked only at the end. Holes read as zeros.
    fn read(&self, inode: InodeNumber, offset: u64, buf: &mut [u8]) -> Result<usize>;

    /// The next run of data at or after byte `offset`: where it starts and ends, within the file's
    /// size. `None` if only a hole follows. Unwritten (preallocated) space is a hole.
    fn next_data(&self, inode: InodeNumber, offset: u64) -> Result<Option<(u64, u64)>>;

    /// Shows each entry of `dir` from `cursor` (0 is the start, else a [`DirEntry::next`]), in the
    /// order of the disk, without `.` and `..`.
    fn read_dir(&self, dir: InodeNumber, cursor: u64, visit: &mut Visit<'_>) -> Result<()>;

    /// The parent of a directory, which of the root is the root.
    fn parent(&self, dir: InodeNumber) -> Result<InodeNumber>;

    /// The target of a symbolic link. `InvalidInput` if `inode` is anything else.
    fn read_link(&self, inode: InodeNumber) -> Result<BString>;

    /// All extended attributes with their full names (`user.…`, `security.…`,
    /// `system.posix_acl_access` …) and values as the kernel's `getxattr` returns them.
    fn xattrs(&self, inode: InodeNumber) -> Result<Vec<(BString, Vec<u8>)>>;

    /// The flags of an inode, in the bits of `FS_IOC_GETFLAGS`; 0 where the format has none.
    fn flags(&self, inode: InodeNumber) -> Result<u32>;

    /// The generation number of an inode, as `FS_IOC_GETVERSION`; 0 where the format has none.
    fn generation(&self, inode: InodeNumber) -> Result<u32>;

    /// What `statvfs` would say.
    fn statfs(&self) -> Result<StatFs>;

    /// The writing side. `ReadOnly` if it was opened so, `Unsupported` with the feature's name if
    /// something on the volume cannot be written safely.
    fn writer(&self) -> Result<&dyn WriteFiles>;
}
