//! Following a path, one name at a time.

use bstr::{BStr, BString, ByteSlice, ByteVec};
use vmcraft_fs::{FileSystem, FileType, InodeNumber};

use super::{LastLink, Mount, Node, Vfs};
use crate::{Error, GuestPath, Result};

/// How many symbolic links a path may lead through: Linux's MAXSYMLINKS.
const MAX_SYMLINKS: usize = 40;

/// How many names may be left to follow: that bounds what links that lead to links can add.
const MAX_PENDING: usize = 16 * 1024;

/// The directories that a path has led through, the root first, and their path.
struct Trail<'a> {
    /// Each with how much of `path` leads to it.
    places: Vec<(&'a Mount, InodeNumber, usize)>,
    /// Without links, `.` and `..`; empty for the root.
    path: BString,
}

impl<'a> Trail<'a> {
    fn here(&self) -> (&'a Mount, InodeNumber) {
        // The root is never taken off.
        let (mount, inode, _) = self.places[self.places.len() - 1];
        (mount, inode)
    }

    fn leave(&mut self) {
        if self.places.len() > 1 {
            self.places.pop();
            self.path.truncate(self.places[self.places.len() - 1].2);
        }
    }

    fn restart(&mut self) {
        self.places.truncate(1);
        self.path.clear();
    }

    /// The path of where it is now.
    fn shown(&self) -> BString {
        if self.path.is_empty() { "/".into() } else { self.path.clone() }
    }

    fn append(&mut self, name: &BStr) {
        self.path.push_byte(b'/');
        self.path.push_str(name);
    }
}

impl Vfs {
    /// Follows a path as Linux does, also when nothing is mounted yet.
    pub(super) fn resolve_any(&self, path: &GuestPath, last: LastLink) -> Result<Node> {
        if !path.is_absolute() {
            return Err(Error::Usage(format!("{path:?}: a path inside the guest must start with /")));
        }
        let whole = || path.as_bstr().to_owned();
        let at = |place: BString, source| Error::Path {
            path: whole(),
            component: (place != path.as_bstr()).then_some(place),
            source,
        };
        let (mount, inode) = self.place(&self.mounts[0], self.bottom.root());
        let mut trail = Trail { places: vec![(mount, inode, 0)], path: BString::default() };
        let mut pending: Vec<BString> = path.components().rev().map(BString::from).collect();
        let mut wants_dir = asks_for_directory(path);
        let mut links = 0;
        while let Some(name) = pending.pop() {
            if name == ".." {
                trail.leave();
                continue;
            }
            let (mount, dir) = trail.here();
            let inode = match mount.filesystem.lookup(dir, name.as_bstr()) {
                Ok(inode) => inode,
                Err(source @ vmcraft_fs::Error::NotADirectory) => return Err(at(trail.shown(), source)),
                Err(source) => {
                    trail.append(name.as_bstr());
                    return Err(at(trail.shown(), source));
                }
            };
            let (mount, inode) = self.place(mount, inode);
            let metadata = mount.filesystem.metadata(inode).map_err(|source| {
                trail.append(name.as_bstr());
                at(trail.shown(), source)
            })?;
            let is_last = pending.is_empty();
            if metadata.file_type == FileType::Symlink && (!is_last || wants_dir || last == LastLink::Follow)
            {
                links += 1;
                if links > MAX_SYMLINKS {
                    return Err(Error::TooManySymlinks(whole()));
                }
                let target = match mount.filesystem.read_link(inode) {
                    Ok(target) if target.is_empty() => Err(vmcraft_fs::Error::NotFound),
                    answer => answer,
                };
                let target = target.map_err(|source| {
                    trail.append(name.as_bstr());
                    at(trail.shown(), source)
                })?;
                let target = GuestPath::new(&target);
                if target.is_absolute() {
                    trail.restart();
                }
                wants_dir |= is_last && asks_for_directory(target);
                pending.extend(target.components().rev().map(BString::from));
                if pending.len() > MAX_PENDING {
                    return Err(Error::TooManySymlinks(whole()));
                }
                continue;
            }
            trail.append(name.as_bstr());
            if !metadata.is_dir() && (!is_last || wants_dir) {
                return Err(at(trail.shown(), vmcraft_fs::Error::NotADirectory));
            }
            trail.places.push((mount, inode, trail.path.len()));
        }
        let (mount, inode) = trail.here();
        Ok(Node::new(mount, inode, trail.shown()))
    }
}

/// Whether only a directory will do at the path's end: after a slash or `.`.
fn asks_for_directory(path: &GuestPath) -> bool {
    let path = path.as_bstr();
    path.ends_with(b"/") || path.ends_with(b"/.") || path == "."
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::raw_tree::{ROOT, RawTree};
    use crate::testing::MemoryFs;

    fn tree() -> Vfs {
        let fs = MemoryFs::new()
            .dir("/a/b/c")
            .file("/a/b/file", "x")
            .symlink("/rel", "a/b")
            .symlink("/abs", "/a/b/file")
            .symlink("/a/b/up", "../../../../a")
            .symlink("/a/to-root", "/")
            .symlink("/slashed", "a/b/file/")
            .symlink("/dotted", "a/b/file/.")
            .symlink("/dir-slashed", "a/b/")
            .symlink("/dangling", "a/nowhere/x")
            .symlink("/one", "two")
            .symlink("/two", "one")
            .symlink("/empty", "");
        Vfs::with_root("/dev/sda1", Arc::new(fs))
    }

    fn follow(vfs: &Vfs, path: &str) -> String {
        vfs.resolve(path.into(), LastLink::Follow)
            .map_or_else(|e| e.to_string(), |node| node.path.to_string())
    }

    #[test] // Where a path leads, as the kernel would go.
    fn paths_lead_where_linux_goes() {
        let vfs = tree();
        for (path, leads_to) in [
            ("/", "/"),
            ("//a///b/", "/a/b"),
            ("/a/./b/.", "/a/b"),
            ("/..", "/"),
            ("/../../a/../a/b/c/..", "/a/b"),
            ("/rel/c", "/a/b/c"),
            ("/rel/..", "/a"),
            ("/abs", "/a/b/file"),
            ("/a/b/up", "/a"),
            ("/a/b/up/b/up/to-root/rel/file", "/a/b/file"),
            ("/dir-slashed", "/a/b"),
        ] {
            assert_eq!(follow(&vfs, path), leads_to, "{path}");
        }
        let kept = |path: &str| vfs.resolve(path.into(), LastLink::Keep).unwrap().path;
        assert_eq!(kept("/rel"), "/rel");
        assert_eq!(kept("/rel/up"), "/a/b/up");
        // A slash at the end asks for what the link leads to.
        assert_eq!(kept("/rel/"), "/a/b");
        assert_eq!(kept("/rel/."), "/a/b");
    }

    #[test] // The message says which component failed, which is the first thing to know.
    fn errors_name_the_component() {
        let vfs = tree();
        for (path, message) in [
            ("/a/none/x", "/a/none/x: no such file or directory (at /a/none)"),
            ("/a/none", "/a/none: no such file or directory"),
            ("/rel/none", "/rel/none: no such file or directory (at /a/b/none)"),
            ("/dangling", "/dangling: no such file or directory (at /a/nowhere)"),
            ("/a/b/file/x", "/a/b/file/x: not a directory (at /a/b/file)"),
            ("/a/b/file/..", "/a/b/file/..: not a directory (at /a/b/file)"),
            ("/a/b/file/", "/a/b/file/: not a directory (at /a/b/file)"),
            ("/a/b/file/.", "/a/b/file/.: not a directory (at /a/b/file)"),
            ("/slashed", "/slashed: not a directory (at /a/b/file)"),
            ("/dotted", "/dotted: not a directory (at /a/b/file)"),
            ("/empty", "/empty: no such file or directory"),
            ("/one", "/one: too many levels of symbolic links"),
            ("/two/x", "/two/x: too many levels of symbolic links"),
            ("a", "\"a\": a path inside the guest must start with /"),
            ("", "\"\": a path inside the guest must start with /"),
        ] {
            assert_eq!(follow(&vfs, path), message);
        }
        assert_eq!(vfs.resolve("/one".into(), LastLink::Keep).unwrap().path, "/one");
        let errno = |path: &str| vfs.resolve(path.into(), LastLink::Follow).err().map(|e| e.errno());
        assert_eq!(["/none", "/a/b/file/x", "/one"].map(errno), [Some(2), Some(20), Some(40)]);
    }

    #[test] // Linux follows 40 links and no more.
    fn forty_links_are_followed_and_not_one_more() {
        let mut fs = MemoryFs::new().file("/0", "");
        for number in 1..=41 {
            fs = fs.symlink(&format!("/{number}"), (number - 1).to_string());
        }
        let vfs = Vfs::with_root("/dev/sda1", Arc::new(fs));
        assert_eq!(follow(&vfs, "/40"), "/0");
        assert_eq!(follow(&vfs, "/41"), "/41: too many levels of symbolic links");
    }

    #[test] // Links whose targets are long chains of links must end soon and in little memory.
    fn links_that_multiply_are_refused() {
        let mut tree = RawTree::new();
        tree.link(ROOT, b"d", ROOT);
        let target = b"d/".repeat(MAX_PENDING + 1);
        tree.add(ROOT, "long", FileType::Symlink, 0o777, &target);
        tree.add(ROOT, "again", FileType::Symlink, 0o777, &[&b"again/"[..], &b"d/".repeat(1000)].concat());
        let vfs = Vfs::with_root("/dev/sda1", Arc::new(tree));
        assert_eq!(follow(&vfs, "/long"), "/long: too many levels of symbolic links");
        assert_eq!(follow(&vfs, "/again"), "/again: too many levels of symbolic links");
    }

    #[test] // Names are bytes; a guest is not bound to UTF-8.
    fn names_are_bytes() {
        let mut tree = RawTree::new();
        let dir = tree.make(FileType::Directory, 0o755, b"");
        tree.link(ROOT, b"latin1-\xe9", dir);
        let file = tree.file(dir, "f", b"");
        let vfs = Vfs::with_root("/dev/sda1", Arc::new(tree));
        let node = vfs.resolve(GuestPath::new(b"/latin1-\xe9/f"), LastLink::Follow).unwrap();
        assert_eq!((node.inode, node.path), (file, BString::from(&b"/latin1-\xe9/f"[..])));
    }
}
