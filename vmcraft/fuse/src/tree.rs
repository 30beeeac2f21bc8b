//! Answering the kernel: each request is one question to a file system's driver.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use bstr::{BStr, BString, ByteSlice};
use fuser::{
    Errno, FileAttr, FileHandle, Filesystem, Generation, INodeNo, InitFlags, KernelConfig, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEntry, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyXattr, Request,
};
use vmcraft::vfs::{LastLink, Mount, Vfs};
use vmcraft_fs::{FileType, Metadata, Timestamp};

use crate::number::{Numbers, Place};
use crate::session::Options;

/// The extended attribute of the root that has the number of the process that serves the mount. It
/// is not listed.
pub(crate) const SERVER_ATTRIBUTE: &str = "user.vmcraft.server-pid";

/// How long the kernel may believe what it was told, unless the user says otherwise.
pub(crate) const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The largest answer to one read: what the kernel asks for at most, with all that can be set.
const MAX_READ_BYTES: usize = 16 << 20;

const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

thread_local! {
    /// What a read fills, kept for the next one of the thread.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The tree that the kernel is shown.
pub(crate) struct Tree {
    vfs: Vfs,
    /// The mounts; the index is that of a [`Place`].
    mounts: Vec<Mount>,
    numbers: Numbers,
    uid: Option<u32>,
    gid: Option<u32>,
    keep_for: Duration,
}

/// Takes a name of a directory: where it leads, its type if that is known, the offset after it.
type Add<'a> = dyn FnMut(Place, FileType, u64, &[u8]) -> ControlFlow<()> + 'a;

/// The result of a request, with what the kernel is told when it fails.
type Result<T> = std::result::Result<T, Errno>;

impl Tree {
    pub(crate) fn new(vfs: Vfs, options: &Options) -> vmcraft::Result<Self> {
        let root = vfs.resolve("/".into(), LastLink::Keep)?;
        // With nothing on / itself, the root is the tree of mount points below all mounts.
        let mut mounts = vec![vfs.mount_of(&root).clone()];
        mounts.extend(vfs.mounts().iter().filter(|mount| mount.id != root.mount).cloned());
        let numbers = Numbers::new(Place { mount: 0, inode: root.inode });
        Ok(Self {
            vfs,
            mounts,
            numbers,
            uid: options.uid,
            gid: options.gid,
            keep_for: options.keep_for.unwrap_or(FOREVER),
        })
    }

    /// The mount and inode with this number.
    fn place(&self, number: INodeNo) -> Result<(&Mount, Place)> {
        let place = self.numbers.place(number.0).ok_or(Errno::ESTALE)?;
        Ok((self.mounts.get(place.mount).ok_or(Errno::ESTALE)?, place))
    }

    fn at(&self, (mount, inode): (&Mount, vmcraft_fs::InodeNumber)) -> Place {
        // All mounts are in the list, and the tree is ours alone, so it has not changed.
        let index = self.mounts.iter().position(|known| known.id == mount.id).unwrap_or(0);
        Place { mount: index, inode }
    }

    /// What the kernel is told of a driver's error; corruption is worth a line in the log.
    fn failed(&self, place: Place, what: &str, error: &vmcraft_fs::Error) -> Errno {
        if !matches!(error, vmcraft_fs::Error::NotFound | vmcraft_fs::Error::NotADirectory) {
            let device = self.mounts.get(place.mount).map_or("", |mount| mount.device.as_str());
            tracing::warn!("{device}: inode {}: {what}: {error}", place.inode);
        }
        Errno::from_i32(error.errno())
    }

    fn attributes(&self, place: Place, metadata: &Metadata) -> FileAttr {
        FileAttr {
            ino: INodeNo(self.numbers.of(place)),
            size: metadata.size_bytes,
            blocks: metadata.blocks_512,
            atime: system_time(metadata.accessed),
            mtime: system_time(metadata.modified),
            ctime: system_time(metadata.changed),
            crtime: system_time(metadata.created.unwrap_or_default()),
            kind: kind(metadata.file_type),
            // 12 bits.
            perm: u16::try_from(metadata.permissions & 0o7777).unwrap_or_default(),
            nlink: u32::try_from(metadata.links).unwrap_or(u32::MAX),
            uid: self.uid.unwrap_or(metadata.uid),
            gid: self.gid.unwrap_or(metadata.gid),
            // The protocol has 32 bits, which are the lower ones; Linux has no larger numbers.
            rdev: metadata.device.map_or(0, |device| u32::try_from(device.to_rdev()).unwrap_or(0)),
            blksize: metadata.block_size,
            flags: 0,
        }
    }

    fn metadata(&self, place: Place) -> Result<Metadata> {
        let mount = self.mounts.get(place.mount).ok_or(Errno::ESTALE)?;
        mount.filesystem.metadata(place.inode).map_err(|e| self.failed(place, "attributes", &e))
    }

    fn parent(&self, place: Place) -> Result<Place> {
        if self.numbers.of(place) == crate::number::ROOT {
            return Ok(place);
        }
        let mount = self.mounts.get(place.mount).ok_or(Errno::ESTALE)?;
        let parent =
            self.vfs.parent(mount, place.inode).map_err(|e| self.failed(place, "parent directory", &e))?;
        Ok(self.at(parent))
    }

    fn look_up(&self, parent: INodeNo, name: &OsStr) -> Result<Place> {
        let (mount, dir) = self.place(parent)?;
        // The kernel asks for these only for handles that outlived its caches, as NFS has them.
        match name.as_bytes() {
            b"." => return Ok(dir),
            b".." => return self.parent(dir),
            _ => {}
        }
        let inode = mount
            .filesystem
            .lookup(dir.inode, BStr::new(name.as_bytes()))
            .map_err(|e| self.failed(dir, "lookup", &e))?;
        Ok(self.at(self.vfs.place(mount, inode)))
    }

    /// Shows the entries of a directory after `offset` until `add` says that there is no more room.
    ///
    /// The kernel's offsets are the driver's cursors and 2, because `.` and `..` come first.
    fn list(&self, number: INodeNo, offset: u64, add: &mut Add<'_>) -> Result<()> {
        let (mount, dir) = self.place(number)?;
        if offset == 0 && add(dir, FileType::Directory, 1, b".").is_break() {
            return Ok(());
        }
        // A directory whose parent cannot be found still shows its files.
        let parent = self.parent(dir).unwrap_or(dir);
        if offset <= 1 && add(parent, FileType::Directory, 2, b"..").is_break() {
            return Ok(());
        }
        mount
            .filesystem
            .read_dir(dir.inode, offset.saturating_sub(2), &mut |entry| {
                let place = self.at(self.vfs.place(mount, entry.inode));
                add(place, entry.file_type, entry.next.saturating_add(2), entry.name)
            })
            .map_err(|e| self.failed(dir, "directory", &e))
    }

    /// Reads into the thread's buffer and shows it.
    fn read_with(&self, number: INodeNo, offset: u64, size: u32, show: impl FnOnce(&[u8])) -> Result<()> {
        let (mount, file) = self.place(number)?;
        BUFFER.with_borrow_mut(|buffer| {
            let size = usize::try_from(size).unwrap_or(MAX_READ_BYTES).min(MAX_READ_BYTES);
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            let n = mount
                .filesystem
                .read(file.inode, offset, &mut buffer[..size])
                .map_err(|e| self.failed(file, "content", &e))?;
            show(&buffer[..n]);
            Ok(())
        })
    }

    fn xattrs(&self, number: INodeNo) -> Result<Vec<(BString, Vec<u8>)>> {
        let (mount, place) = self.place(number)?;
        mount.filesystem.xattrs(place.inode).map_err(|e| self.failed(place, "extended attributes", &e))
    }

    fn xattr(&self, number: INodeNo, name: &OsStr) -> Result<Vec<u8>> {
        if number == INodeNo::ROOT && name == SERVER_ATTRIBUTE {
            return Ok(std::process::id().to_string().into_bytes());
        }
        let found = self.xattrs(number)?.into_iter().find(|(known, _)| known.as_bytes() == name.as_bytes());
        found.map(|(_, value)| value).ok_or(Errno::NO_XATTR)
    }

    /// Where the next data or hole is.
    fn seek(&self, number: INodeNo, offset: i64, whence: i32) -> Result<i64> {
        let (mount, file) = self.place(number)?;
        let size = self.metadata(file)?.size_bytes;
        let start = u64::try_from(offset).map_err(|_| Errno::ENXIO)?;
        if start >= size {
            return Err(Errno::ENXIO);
        }
        let next = |at| {
            mount
                .filesystem
                .next_data(file.inode, at)
                .map_err(|e| self.failed(file, "map of the content", &e))
        };
        let found = match whence {
            SEEK_DATA => {
                next(start)?.map(|(data, _)| data).filter(|data| *data < size).ok_or(Errno::ENXIO)?
            }
            SEEK_HOLE => {
                let mut hole = start;
                while hole < size {
                    match next(hole)? {
                        Some((data, end)) if data <= hole && end > hole => hole = end,
                        _ => break,
                    }
                }
                hole.min(size)
            }
            _ => return Err(Errno::EINVAL),
        };
        i64::try_from(found).map_err(|_| Errno::EOVERFLOW)
    }
}

impl Filesystem for Tree {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Each by itself: an older kernel lacks some of them.
        for wanted in [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_ASYNC_DIO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_CACHE_SYMLINKS,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_NO_OPEN_SUPPORT,
            InitFlags::FUSE_NO_OPENDIR_SUPPORT,
            InitFlags::FUSE_EXPORT_SUPPORT,
        ] {
            if config.add_capabilities(wanted).is_err() {
                tracing::debug!("the kernel does not have {wanted:?}");
            }
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.look_up(parent, name).and_then(|place| Ok((place, self.metadata(place)?)));
        match found {
            Ok((place, metadata)) => {
                reply.entry(&self.keep_for, &self.attributes(place, &metadata), Generation(0));
            }
            // Number 0 lets the kernel remember that there is no such name.
            Err(errno) if errno == Errno::ENOENT => reply.entry(&self.keep_for, &absent(), Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let found = self.place(number).and_then(|(_, place)| Ok((place, self.metadata(place)?)));
        match found {
            Ok((place, metadata)) => reply.attr(&self.keep_for, &self.attributes(place, &metadata)),
            Err(errno) => reply.error(errno),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        let target = self.place(number).and_then(|(mount, place)| {
            mount.filesystem.read_link(place.inode).map_err(|e| self.failed(place, "symbolic link", &e))
        });
        match target {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // The kernel then opens by itself from now on, and keeps what it has read.
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut reply = Some(reply);
        let result = self.read_with(number, offset, size, |data| {
            if let Some(reply) = reply.take() {
                reply.data(data);
            }
        });
        if let (Err(errno), Some(reply)) = (result, reply) {
            reply.error(errno);
        }
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut is_empty = true;
        let result = self.list(number, offset, &mut |place, file_type, next, name| {
            let number = INodeNo(self.numbers.of(place));
            let is_full = reply.add(number, next, kind(file_type), OsStr::from_bytes(name));
            is_empty &= is_full;
            if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match result {
            // What was read is shown; asked for the rest, the error comes again.
            Err(errno) if is_empty => reply.error(errno),
            _ => reply.ok(),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let mut is_empty = true;
        let result = self.list(number, offset, &mut |place, file_type, next, name| {
            let (attributes, keep_for) = match self.metadata(place) {
                Ok(metadata) => (self.attributes(place, &metadata), self.keep_for),
                // The name is shown, and whoever asks for more is told what is wrong.
                Err(_) => {
                    let ino = INodeNo(self.numbers.of(place));
                    (FileAttr { ino, kind: kind(file_type), ..absent() }, Duration::ZERO)
                }
            };
            let name = OsStr::from_bytes(name);
            let is_full = reply.add(attributes.ino, next, name, &keep_for, &attributes, Generation(0));
            is_empty &= is_full;
            if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match result {
            Err(errno) if is_empty => reply.error(errno),
            _ => reply.ok(),
        }
    }

    fn statfs(&self, _: &Request, number: INodeNo, reply: ReplyStatfs) {
        let found = self.place(number).and_then(|(mount, place)| {
            mount.filesystem.statfs().map_err(|e| self.failed(place, "size of the file system", &e))
        });
        match found {
            Ok(found) => reply.statfs(
                found.blocks,
                found.blocks_free,
                found.blocks_available,
                found.inodes,
                found.inodes_free,
                found.block_size,
                found.name_max,
                found.block_size,
            ),
            Err(errno) => reply.error(errno),
        }
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        reply_xattr(self.xattr(number, name), size, reply);
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.xattrs(number).map(|xattrs| {
            let mut names = Vec::new();
            for (name, _) in xattrs {
                names.extend_from_slice(&name);
                names.push(0);
            }
            names
        });
        reply_xattr(names, size, reply);
    }

    fn lseek(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        match self.seek(number, offset, whence) {
            Ok(found) => reply.offset(found),
            Err(errno) => reply.error(errno),
        }
    }
}

/// Answers with the bytes, or how many there are if the kernel asks that.
fn reply_xattr(bytes: Result<Vec<u8>>, size: u32, reply: ReplyXattr) {
    match bytes {
        Ok(bytes) => match u32::try_from(bytes.len()) {
            Ok(len) if size == 0 => reply.size(len),
            Ok(len) if len <= size => reply.data(&bytes),
            _ => reply.error(Errno::ERANGE),
        },
        Err(errno) => reply.error(errno),
    }
}

/// What stands for a file that is not there.
fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: fuser::FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

fn kind(file_type: FileType) -> fuser::FileType {
    match file_type {
        FileType::Directory => fuser::FileType::Directory,
        FileType::Symlink => fuser::FileType::Symlink,
        FileType::CharDevice => fuser::FileType::CharDevice,
        FileType::BlockDevice => fuser::FileType::BlockDevice,
        FileType::Fifo => fuser::FileType::NamedPipe,
        FileType::Socket => fuser::FileType::Socket,
        FileType::Regular | FileType::Unknown => fuser::FileType::RegularFile,
    }
}

/// A moment as the standard library has it. One that it cannot hold becomes 1970.
fn system_time(time: Timestamp) -> SystemTime {
    let epoch = SystemTime::UNIX_EPOCH;
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = if time.seconds < 0 { epoch.checked_sub(seconds) } else { epoch.checked_add(seconds) };
    whole.and_then(|whole| whole.checked_add(Duration::from_nanos(time.nanoseconds.into()))).unwrap_or(epoch)
}
