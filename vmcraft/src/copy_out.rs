//! Copying a tree of the guest into a directory of the host, and nowhere else.
//!
//! Names and links are the guest's, so they may be meant to lead out. Every directory is opened by
//! one name in its parent, never through a link, and everything in it is made relative to that open
//! directory. What is not a directory is made under a name of our own and then renamed: a link or
//! file that is in the way is replaced, not followed, and nothing incomplete has its final name.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use bstr::{BStr, BString, ByteSlice};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{
    FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, futimens, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, geteuid, linkat, symlinkat, unlinkat};
use vmcraft_fs::{FileType, Metadata, Timestamp};

use crate::content::{Content, Run};
use crate::host::{Host, Sink};
use crate::links::FirstNames;
use crate::vfs::{Node, Vfs};
use crate::walk::{Entry, Walk};
use crate::{Error, Progress, Result};

/// How many nested directories are kept open; those further up are opened again on the way back.
const OPEN_DIRECTORIES: usize = 64;

/// Copies what is at `start` to `name` in the directory `target`; with an empty name, what is in the
/// directory `start` to `target` itself.
pub(crate) fn copy_out(
    vfs: &Vfs,
    host: &mut Host,
    warnings: &mut Vec<String>,
    start: Node,
    name: &BStr,
    target: &Path,
) -> Result<()> {
    let root = openat(AT_FDCWD, target, DIRECTORY, Mode::empty()).map_err(|errno| Error::Host {
        path: target.to_owned(),
        doing: "cannot open the directory",
        source: errno.into(),
    })?;
    let mut copy = Copy {
        target,
        name,
        dirs: Dirs { root, inner: Vec::new() },
        first_names: FirstNames::default(),
        temporaries: Cell::new(0),
        is_root: geteuid().is_root(),
        owner_refused: Cell::new(false),
        bytes_done: Cell::new(0),
        warnings,
    };
    let mut walk = Walk::new(vfs, start);
    while let Some(entry) = walk.next()? {
        copy.leave_to(entry.depth)?;
        copy.add(host, &entry)?;
        host.check_cancelled()?;
    }
    copy.leave_to(0)?;
    if copy.owner_refused.get() {
        let target = target.display();
        copy.warnings.push(format!("{target}: some owners were not kept: the host does not allow them"));
    }
    Ok(())
}

/// A copy under way.
struct Copy<'a> {
    target: &'a Path,
    /// What the start is called in `target`; empty if it is `target`.
    name: &'a BStr,
    dirs: Dirs,
    /// Relative to `target`.
    first_names: FirstNames,
    /// How many temporary names were used.
    temporaries: Cell<u64>,
    /// Whether owners can be given.
    is_root: bool,
    /// Whether the host refused an owner.
    owner_refused: Cell<bool>,
    bytes_done: Cell<u64>,
    warnings: &'a mut Vec<String>,
}

/// The directories that lead to where the walk is.
struct Dirs {
    /// The target.
    root: OwnedFd,
    inner: Vec<Dir>,
}

/// A directory that is being filled.
struct Dir {
    /// Relative to the target.
    path: BString,
    handle: Handle,
    /// What it gets when it is complete; `None` for the target, which is the user's.
    metadata: Option<Metadata>,
}

enum Handle {
    Open(OwnedFd),
    /// Closed because of its many descendants: the numbers of its device and inode.
    Closed(u64, u64),
}

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

impl Dirs {
    /// The innermost directory.
    fn here(&self) -> BorrowedFd<'_> {
        match self.inner.last() {
            Some(Dir { handle: Handle::Open(fd), .. }) => fd.as_fd(),
            // `leave` opens the one that it comes back to.
            _ => self.root.as_fd(),
        }
    }

    fn enter(&mut self, dir: Dir) -> Result<(), Errno> {
        self.inner.push(dir);
        if let Some(index) = self.inner.len().checked_sub(OPEN_DIRECTORIES + 1) {
            let far = &mut self.inner[index].handle;
            if let Handle::Open(fd) = far {
                let found = fstat(fd.as_fd())?;
                *far = Handle::Closed(found.st_dev, found.st_ino);
            }
        }
        Ok(())
    }

    /// Leaves the innermost directory, and opens the one around it if it was closed.
    fn leave(&mut self) -> Result<Option<(Dir, OwnedFd)>, Errno> {
        let Some(mut dir) = self.inner.pop() else { return Ok(None) };
        let fd = match std::mem::replace(&mut dir.handle, Handle::Closed(0, 0)) {
            Handle::Open(fd) => fd,
            Handle::Closed(..) => return Err(Errno::ESTALE),
        };
        if let Some(Dir { handle, .. }) = self.inner.last_mut()
            && let Handle::Closed(device, inode) = *handle
        {
            let parent = openat(fd.as_fd(), "..", DIRECTORY, Mode::empty())?;
            let found = fstat(parent.as_fd())?;
            if (found.st_dev, found.st_ino) != (device, inode) {
                // Somebody moved it while we were in it.
                return Err(Errno::ESTALE);
            }
            *handle = Handle::Open(parent);
        }
        Ok(Some((dir, fd)))
    }

    /// Opens the directory that holds the last name of `path`, and gives that name.
    fn open_parent<'p>(&self, path: &'p BStr) -> Result<(OwnedFd, &'p BStr), Errno> {
        let (dirs, name) = path.rsplit_once_str("/").unwrap_or((b"", path));
        let mut fd = self
            .root
            .as_fd()
            .try_clone_to_owned()
            .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
        for dir in dirs.split_str("/").filter(|dir| !dir.is_empty()) {
            fd = openat(fd.as_fd(), dir, DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())?;
        }
        Ok((fd, name.as_bstr()))
    }
}

impl Copy<'_> {
    /// Completes directories until `depth` are left.
    fn leave_to(&mut self, depth: usize) -> Result<()> {
        while self.dirs.inner.len() > depth {
            let path = self.dirs.inner.last().map(|dir| dir.path.clone()).unwrap_or_default();
            let left = self
                .dirs
                .leave()
                .map_err(|errno| self.error(path.as_bstr(), "cannot leave the directory", errno))?;
            if let Some((Dir { path, metadata: Some(metadata), .. }, fd)) = left {
                self.keep(Place::Open(fd.as_fd()), &metadata)
                    .map_err(|errno| self.error(path.as_bstr(), "cannot set the permissions", errno))?;
            }
        }
        Ok(())
    }

    fn add(&mut self, host: &mut Host, entry: &Entry<'_>) -> Result<()> {
        let path = match (self.name.is_empty(), entry.path.is_empty()) {
            (true, _) => entry.path.to_owned(),
            (false, true) => self.name.to_owned(),
            (false, false) => BString::from([self.name.as_bytes(), b"/", entry.path].concat()),
        };
        let path = path.as_bstr();
        let name = path.rsplit_once_str("/").map_or(path.as_bytes(), |(_, name)| name).as_bstr();
        match entry.metadata.file_type {
            FileType::Directory => self.add_dir(path, name, &entry.metadata),
            // A socket means nothing without the process that listens.
            FileType::Socket => Ok(()),
            _ if self.add_link(entry, path, name)? => Ok(()),
            _ => self.add_file(host, entry, path, name),
        }
    }

    fn add_dir(&mut self, path: &BStr, name: &BStr, metadata: &Metadata) -> Result<()> {
        let failed = |errno| self.error(path, "cannot create the directory", errno);
        let is_target = path.is_empty();
        let fd = if is_target {
            openat(self.dirs.root.as_fd(), ".", DIRECTORY, Mode::empty()).map_err(failed)?
        } else {
            let made = mkdirat(self.dirs.here(), name.as_bytes(), Mode::S_IRWXU);
            if let Err(errno) = made
                && errno != Errno::EEXIST
            {
                return Err(failed(errno));
            }
            // What existed may be a link: that is refused.
            let flags = DIRECTORY | OFlag::O_NOFOLLOW;
            let fd = openat(self.dirs.here(), name.as_bytes(), flags, Mode::empty()).map_err(failed)?;
            if made.is_err() {
                let found = fstat(fd.as_fd()).map_err(failed)?;
                if found.st_mode & 0o700 != 0o700 {
                    // An earlier copy may have left it without permission to write. It gets its own
                    // permissions at the end; without the right to change them, making files says so.
                    let _ = fchmod(fd.as_fd(), Mode::from_bits_truncate(found.st_mode | 0o700));
                }
            }
            fd
        };
        let metadata = (!is_target).then_some(*metadata);
        let dir = Dir { path: path.to_owned(), handle: Handle::Open(fd), metadata };
        self.dirs.enter(dir).map_err(|errno| self.error(path, "cannot enter the directory", errno))
    }

    /// Makes a hard link to an earlier name of the same inode. `false` if there is none, or the host
    /// cannot.
    fn add_link(&mut self, entry: &Entry<'_>, path: &BStr, name: &BStr) -> Result<bool> {
        let Some(first) = self.first_names.find(entry) else { return Ok(false) };
        let Ok((parent, first)) = self.dirs.open_parent(first) else { return Ok(false) };
        let mut temporary = self.temporary();
        if linkat(
            parent.as_fd(),
            first.as_bytes(),
            temporary.dir,
            temporary.name.as_bytes(),
            AtFlags::empty(),
        )
        .is_err()
        {
            return Ok(false);
        }
        temporary.is_made = true;
        temporary.rename(name).map_err(|errno| self.error(path, "cannot create", errno))?;
        // If this name was a link to the same file already, renaming did nothing.
        temporary.is_made = true;
        Ok(true)
    }

    /// Makes anything but a directory.
    fn add_file(&mut self, host: &mut Host, entry: &Entry<'_>, path: &BStr, name: &BStr) -> Result<()> {
        let metadata = &entry.metadata;
        let failed = |errno| self.error(path, "cannot create", errno);
        let mut temporary = self.temporary();
        let (dir, new) = (temporary.dir, temporary.name.clone());
        let private = Mode::S_IRUSR | Mode::S_IWUSR;
        let mut size_bytes = 0;
        match metadata.file_type {
            FileType::Regular => {
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
                let mut file = File::from(openat(dir, new.as_bytes(), flags, private).map_err(failed)?);
                temporary.is_made = true;
                let content = Content::of_file(entry.node())?;
                size_bytes = content.size_bytes();
                let done = self.bytes_done.get();
                let mut sink = Sink::of_file(&mut file, self.host_path(path));
                content.read_runs(
                    0..size_bytes,
                    &mut |position| host.step(Progress { position: done.saturating_add(position), total: 0 }),
                    |run| match run {
                        Run::Data(data) => sink.put(data),
                        Run::Hole(len) => sink.put_hole(len),
                    },
                )?;
                sink.finish()?;
                self.keep(Place::Open(file.as_fd()), metadata).map_err(failed)?;
            }
            FileType::Symlink => {
                let link = entry.mount.filesystem.read_link(entry.inode).map_err(|e| entry.error(e))?;
                symlinkat(link.as_bytes(), dir, new.as_bytes()).map_err(failed)?;
                temporary.is_made = true;
            }
            FileType::Fifo => {
                mknodat(dir, new.as_bytes(), SFlag::S_IFIFO, private, 0).map_err(failed)?;
                temporary.is_made = true;
            }
            FileType::BlockDevice | FileType::CharDevice => {
                let is_block = metadata.file_type == FileType::BlockDevice;
                let kind = if is_block { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
                let device = metadata.device.unwrap_or_default().to_rdev();
                match mknodat(dir, new.as_bytes(), kind, private, device) {
                    Ok(()) => temporary.is_made = true,
                    Err(Errno::EPERM) => {
                        let warning =
                            format!("{}: left out: only root can make device nodes", entry.guest_path());
                        drop(temporary);
                        self.warnings.push(warning);
                        return Ok(());
                    }
                    Err(errno) => return Err(failed(errno)),
                }
            }
            FileType::Directory | FileType::Socket | FileType::Unknown => {
                return Err(entry.error(vmcraft_fs::Error::InvalidInput("a file of an unknown type")));
            }
        }
        if metadata.file_type != FileType::Regular {
            self.keep(Place::Named(dir, new.as_bstr()), metadata).map_err(failed)?;
        }
        temporary.rename(name).map_err(failed)?;
        drop(temporary);
        self.bytes_done.set(self.bytes_done.get().saturating_add(size_bytes));
        self.first_names.note(entry, path);
        Ok(())
    }

    /// Gives what was made the owner, permissions and times that it has in the guest.
    fn keep(&self, place: Place<'_>, metadata: &Metadata) -> Result<(), Errno> {
        let mut has_owner = self.is_root;
        if self.is_root {
            let (uid, gid) = (Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)));
            let result = match place {
                Place::Open(fd) => fchown(fd, uid, gid),
                Place::Named(dir, name) => {
                    fchownat(dir, name.as_bytes(), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
                }
            };
            match result {
                // A container's root may not have all numbers.
                Err(Errno::EPERM | Errno::EINVAL) => {
                    has_owner = false;
                    self.owner_refused.set(true);
                }
                other => other?,
            }
        }
        // A set-id bit of a guest's program must not give away the rights of another owner.
        let kept = if has_owner { 0o7777 } else { 0o1777 };
        let mode = Mode::from_bits_truncate(metadata.permissions & kept);
        let (accessed, modified) = (time(metadata.accessed), time(metadata.modified));
        match place {
            Place::Open(fd) => {
                fchmod(fd, mode)?;
                futimens(fd, &accessed, &modified)
            }
            Place::Named(dir, name) => {
                if metadata.file_type != FileType::Symlink {
                    fchmodat(dir, name.as_bytes(), mode, FchmodatFlags::FollowSymlink)?;
                }
                utimensat(dir, name.as_bytes(), &accessed, &modified, UtimensatFlags::NoFollowSymlink)
            }
        }
    }

    /// A new name in the innermost directory.
    fn temporary(&self) -> Temporary<'_> {
        let number = self.temporaries.get();
        self.temporaries.set(number + 1);
        let name = format!(".vmcraft-{}-{number}", std::process::id()).into();
        Temporary { dir: self.dirs.here(), name, is_made: false }
    }

    fn host_path(&self, path: &BStr) -> PathBuf {
        self.target.join(path.to_path_lossy())
    }

    fn error(&self, path: &BStr, doing: &'static str, errno: Errno) -> Error {
        Error::Host { path: self.host_path(path), doing, source: errno.into() }
    }
}

/// What attributes are given to.
#[derive(Clone, Copy)]
enum Place<'a> {
    Open(BorrowedFd<'a>),
    /// A name that we made, in a directory.
    Named(BorrowedFd<'a>, &'a BStr),
}

/// A file under a name of our own, removed unless it gets its final one.
struct Temporary<'a> {
    dir: BorrowedFd<'a>,
    name: BString,
    /// Whether there is a file of ours under the name.
    is_made: bool,
}

impl Temporary<'_> {
    fn rename(&mut self, name: &BStr) -> Result<(), Errno> {
        renameat(self.dir, self.name.as_bytes(), self.dir, name.as_bytes())?;
        self.is_made = false;
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if self.is_made {
            // Nobody is left to be told.
            let _ = unlinkat(self.dir, self.name.as_bytes(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

fn time(time: Timestamp) -> TimeSpec {
    // Larger numbers of nanoseconds have other meanings to the system call.
    TimeSpec::new(time.seconds, i64::from(time.nanoseconds.min(999_999_999)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use vmcraft_fs::DeviceNumber;

    use super::*;
    use crate::Guest;
    use crate::raw_tree::{ROOT, RawTree};

    fn guest(tree: RawTree) -> Guest {
        let mut guest = Guest::new();
        guest.vfs = Vfs::with_root("/dev/sda1", Arc::new(tree));
        guest
    }

    fn copy(guest: &mut Guest, from: &str, to: &Path) -> Result<()> {
        guest.copy_out(from.into(), to.to_str().unwrap().into())
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn keeps_what_the_help_says() {
        let mut tree = RawTree::new();
        let dir = tree.add(ROOT, "dir", FileType::Directory, 0o555, b"");
        let file = tree.add(dir, "file", FileType::Regular, 0o641, b"content");
        tree.metadata_mut(file).links = 2;
        tree.metadata_mut(file).modified = Timestamp { seconds: -5, nanoseconds: 123_456_789 };
        tree.link(dir, b"second", file);
        tree.add(dir, "link", FileType::Symlink, 0o777, b"../../outside");
        tree.add(dir, "fifo", FileType::Fifo, 0o600, b"");
        tree.add(dir, "socket", FileType::Socket, 0o600, b"");
        let sparse = tree.file(dir, "sparse", b"");
        tree.inode(sparse).content = vec![0; 1 << 20].into_iter().chain(*b"data").collect();
        tree.inode(sparse).data = vec![(1 << 20, (1 << 20) + 4)];
        *tree.metadata_mut(sparse) =
            Metadata { size_bytes: 3 << 20, blocks_512: 8, permissions: 0o644, ..*tree.metadata_mut(sparse) };
        let mut guest = guest(tree);
        let target = testkit::tempdir();
        copy(&mut guest, "/dir", target.path()).unwrap();
        let dir = target.path().join("dir");
        assert_eq!(names(&dir), ["fifo", "file", "link", "second", "sparse"]);
        let mode = |name: &str| fs::symlink_metadata(dir.join(name)).unwrap().mode() & 0o7777;
        assert_eq!((mode("."), mode("file"), mode("fifo")), (0o555, 0o641, 0o600));
        let file = fs::metadata(dir.join("file")).unwrap();
        assert_eq!((file.mtime(), file.mtime_nsec(), file.nlink()), (-5, 123_456_789, 2));
        assert_eq!(fs::metadata(&dir).unwrap().mtime(), 1_700_000_000);
        assert_eq!(fs::symlink_metadata(dir.join("link")).unwrap().mtime(), 1_700_000_000);
        assert_eq!(fs::read_link(dir.join("link")).unwrap(), Path::new("../../outside"));
        assert!(fs::metadata(dir.join("fifo")).unwrap().file_type().is_fifo());
        let sparse = fs::read(dir.join("sparse")).unwrap();
        assert_eq!((sparse.len(), &sparse[1 << 20..(1 << 20) + 5]), (3 << 20, &b"data\0"[..]));
        assert!(fs::metadata(dir.join("sparse")).unwrap().blocks() < 2048, "the holes were filled");
        // Again over what is there, and a file alone.
        copy(&mut guest, "/dir", target.path()).unwrap();
        copy(&mut guest, "/dir/../dir/link/../file", target.path()).unwrap_err();
        copy(&mut guest, "/dir/file", target.path()).unwrap();
        assert_eq!(fs::read(target.path().join("file")).unwrap(), b"content");
        assert_eq!(names(target.path()), ["dir", "file"]);
        assert!(guest.take_warnings().is_empty());
    }

    #[test] // `copy-out / .` has no name to give.
    fn the_root_goes_into_the_directory_itself() {
        let mut tree = RawTree::new();
        tree.metadata_mut(ROOT).permissions = 0o777;
        let dir = tree.dir(ROOT, "etc");
        tree.file(dir, "fstab", b"x");
        let target = testkit::tempdir();
        fs::set_permissions(target.path(), fs::Permissions::from_mode(0o700)).unwrap();
        copy(&mut guest(tree), "/", target.path()).unwrap();
        assert_eq!(fs::read(target.path().join("etc/fstab")).unwrap(), b"x");
        assert_eq!(fs::metadata(target.path()).unwrap().mode() & 0o777, 0o700);
    }

    #[test] // The guest makes a link, and then a directory of the same name to write through it.
    fn a_link_of_the_guest_does_not_lead_out() {
        let outside = testkit::tempdir();
        let leads_out = outside.path().to_str().unwrap().as_bytes().to_vec();
        for link_first in [true, false] {
            let mut tree = RawTree::new();
            let evil = tree.dir(ROOT, "evil");
            let link = tree.make(FileType::Symlink, 0o777, &leads_out);
            let dir = tree.make(FileType::Directory, 0o755, b"");
            let second_link = tree.make(FileType::Symlink, 0o777, &leads_out);
            tree.file(dir, "planted", b"");
            if link_first {
                tree.link(evil, b"a", link);
            }
            tree.link(evil, b"a", dir);
            tree.link(evil, b"a", second_link);
            let target = testkit::tempdir();
            let refused = copy(&mut guest(tree), "/evil", target.path()).unwrap_err();
            assert!(refused.to_string().contains("evil/a: cannot create"), "{refused}");
            assert!(names(outside.path()).is_empty(), "written outside the directory");
            assert!(
                names(&target.path().join("evil")).iter().all(|name| name == "a"),
                "a temporary name is left"
            );
        }
    }

    #[test] // What is in the way on the host is replaced or refused, not followed.
    fn a_link_on_the_host_is_not_followed() {
        let outside = testkit::tempdir();
        fs::write(outside.path().join("precious"), "precious").unwrap();
        let mut tree = RawTree::new();
        let dir = tree.dir(ROOT, "dir");
        tree.file(dir, "file", b"new");
        let mut guest = guest(tree);
        let target = testkit::tempdir();
        symlink(outside.path(), target.path().join("dir")).unwrap();
        copy(&mut guest, "/dir", target.path()).unwrap_err();
        assert_eq!(names(outside.path()), ["precious"]);
        symlink(outside.path().join("precious"), target.path().join("file")).unwrap();
        copy(&mut guest, "/dir/file", target.path()).unwrap();
        assert_eq!(fs::read(target.path().join("file")).unwrap(), b"new");
        assert_eq!(fs::read(outside.path().join("precious")).unwrap(), b"precious");
    }

    #[test] // More levels than are kept open, with something to do on the way back.
    fn deep_trees_are_copied() {
        let mut tree = RawTree::new();
        let top = tree.dir(ROOT, "d");
        let mut dir = top;
        let mut depth = 0;
        while depth < 3 * OPEN_DIRECTORIES {
            let inner = tree.dir(dir, "d");
            // Its inode number is higher, so it comes when the walk is back from below.
            let file = tree.make(FileType::Regular, 0o644, format!("{depth}").as_bytes());
            tree.metadata_mut(file).links = 2;
            tree.link(dir, b"file", file);
            tree.link(top, format!("again-{depth}").as_bytes(), file);
            tree.metadata_mut(dir).permissions = 0o500;
            dir = inner;
            depth += 1;
        }
        let target = testkit::tempdir();
        copy(&mut guest(tree), "/d", target.path()).unwrap();
        let mut path = target.path().join("d");
        for depth in 0..depth {
            assert_eq!(fs::read_to_string(path.join("file")).unwrap(), depth.to_string());
            assert_eq!(fs::metadata(path.join("file")).unwrap().nlink(), 2);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o500);
            path.push("d");
        }
        // So that the directory can be removed.
        testkit::run_ok("chmod", [Path::new("-R"), Path::new("u+w"), target.path()]);
    }

    #[test]
    fn an_interrupted_copy_leaves_no_part_of_a_file() {
        let mut tree = RawTree::new();
        let dir = tree.dir(ROOT, "dir");
        tree.file(dir, "large", &vec![1; 3 << 20]);
        let mut guest = guest(tree);
        let cancel = guest.cancel_flag();
        guest.set_progress(Some(Box::new(move |_| cancel.store(true, Ordering::Relaxed))));
        let target = testkit::tempdir();
        let result = copy(&mut guest, "/dir", target.path());
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
        assert!(names(&target.path().join("dir")).is_empty());
    }

    #[test]
    fn device_nodes_need_root() {
        let mut tree = RawTree::new();
        let dev = tree.dir(ROOT, "dev");
        let zero = tree.add(dev, "zero", FileType::CharDevice, 0o666, b"");
        tree.metadata_mut(zero).device = Some(DeviceNumber { major: 1, minor: 5 });
        tree.file(dev, "file", b"");
        let mut guest = guest(tree);
        let target = testkit::tempdir();
        copy(&mut guest, "/dev", target.path()).unwrap();
        let node = fs::metadata(target.path().join("dev/zero"));
        match guest.take_warnings().as_slice() {
            [] => assert_eq!(node.unwrap().rdev(), DeviceNumber { major: 1, minor: 5 }.to_rdev()),
            [warning] => {
                assert_eq!(warning, "/dev/zero: left out: only root can make device nodes");
                assert_eq!(names(&target.path().join("dev")), ["file"]);
            }
            more => panic!("{more:?}"),
        }
    }

    #[test]
    fn errors_name_the_hosts_file() {
        let mut tree = RawTree::new();
        tree.file(ROOT, "file", b"");
        let mut guest = guest(tree);
        let missing = copy(&mut guest, "/file", Path::new("/nonexistent/dir")).unwrap_err();
        assert!(missing.to_string().starts_with("/nonexistent/dir: cannot open the directory"), "{missing}");
        assert_eq!(missing.errno(), 2);
        let target = testkit::tempdir();
        fs::create_dir(target.path().join("file")).unwrap();
        let in_the_way = copy(&mut guest, "/file", target.path()).unwrap_err();
        assert!(in_the_way.to_string().contains("/file: cannot create: Is a directory"), "{in_the_way}");
        assert_eq!(names(target.path()), ["file"]);
    }
}
