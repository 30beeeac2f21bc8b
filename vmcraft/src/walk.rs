//! Walking a tree: every place below a directory, each directory before what is in it.
//!
//! The walk crosses mount points and follows no symbolic links. It keeps a bounded number of names
//! in memory however large or deep the tree is, and ends on any tree, however its directories are
//! linked: a directory that is met a second time is an error, not a way in.
//!
//! Names of a directory come in the order of their inode numbers, some thousands at a time. That is
//! close to the order in which a file system lays inodes and content out, and it is the same each
//! time the same image is read. [`Walk::by_name`] is for people, and for comparing trees.

use std::collections::HashMap;
use std::ops::ControlFlow;

use bstr::{BStr, BString, ByteSlice, ByteVec};
use vmcraft_fs::{DeviceNumber, InodeNumber, Metadata};

use crate::calls::device_number;
use crate::vfs::{Mount, MountId, Node, Vfs, join};
use crate::{Error, Result};

/// About how many names are held for all open directories together.
const BUFFERED_NAMES: usize = 64 * 1024;

/// How many names at least are taken of a directory at once.
const FEWEST_NAMES: usize = 16;

/// How many names are held at most where they come in their own order, which needs whole directories.
const SORTED_NAMES: usize = 4 << 20;

/// How deep directories are followed. Linux opens no path of more than 2048 names.
const MAX_DEPTH: usize = 16 * 1024;

/// Decides by its path, relative to the start, what a walk leaves out, with all that is below.
pub type LeaveOut<'a> = dyn Fn(&BStr) -> bool + 'a;

/// A walk that is under way. Ask it with [`next`](Walk::next).
pub struct Walk<'a> {
    vfs: &'a Vfs,
    start: Node,
    leave_out: Option<Box<LeaveOut<'a>>>,
    by_name: bool,
    stage: Stage<'a>,
    levels: Vec<Level<'a>>,
    /// How many names the levels hold together.
    buffered: usize,
    /// Relative to the start: of the place that was shown last.
    path: BString,
    met: InodeSet,
}

/// What the next step begins with.
enum Stage<'a> {
    /// The start itself was not shown yet.
    Start,
    /// The place shown last is a directory, to be gone into.
    Enter(&'a Mount, InodeNumber),
    /// The next name is due.
    Name,
}

/// A directory that the walk is in.
struct Level<'a> {
    mount: &'a Mount,
    dir: InodeNumber,
    /// How much of the walk's path leads to the directory.
    path_len: usize,
    /// Names that were read and not shown yet, the next one last.
    pending: Vec<Pending>,
    /// The bytes of their names.
    names: Vec<u8>,
    /// Where the directory is to be read on, or `None` at its end.
    cursor: Option<u64>,
}

struct Pending {
    inode: InodeNumber,
    name: std::ops::Range<usize>,
}

/// A place that a walk shows.
#[derive(Clone, Copy)]
pub struct Entry<'w> {
    /// Its path relative to the start, as `etc/fstab`; empty for the start itself.
    pub path: &'w BStr,
    /// The mount that it is in. A directory that another file system is mounted on is shown as that
    /// file system's root.
    pub mount: &'w Mount,
    /// Its inode there.
    pub inode: InodeNumber,
    /// What `stat` would say of it.
    pub metadata: Metadata,
    /// How many directories below the start it is.
    pub depth: usize,
    start: &'w BStr,
}

impl Entry<'_> {
    /// Its name: what stands after the last slash; empty for the start.
    pub fn name(&self) -> &BStr {
        let from = self.path.rfind_byte(b'/').map_or(0, |slash| slash + 1);
        self.path[from..].as_bstr()
    }

    /// Its whole path inside the guest.
    pub fn guest_path(&self) -> BString {
        if self.path.is_empty() { self.start.to_owned() } else { join(self.start, self.path) }
    }

    /// The device that it is on, as `st_dev` of `stat` has it.
    pub fn device(&self) -> DeviceNumber {
        device_number(self.mount)
    }

    /// The same place as a node.
    pub fn node(&self) -> Node {
        Node::new(self.mount, self.inode, self.guest_path())
    }

    /// Adds the path to a driver's error.
    pub fn error(&self, source: vmcraft_fs::Error) -> Error {
        Error::Path { path: self.guest_path(), component: None, source }
    }
}

impl<'a> Walk<'a> {
    /// A walk from `start`, which is shown first. If it is not a directory, it is shown alone.
    pub fn new(vfs: &'a Vfs, start: Node) -> Self {
        Self {
            vfs,
            start,
            leave_out: None,
            by_name: false,
            stage: Stage::Start,
            levels: Vec::new(),
            buffered: 0,
            path: BString::default(),
            met: InodeSet::default(),
        }
    }

    /// Leaves out what the function says, without looking at it. It is not asked about the start.
    pub fn leaving_out(mut self, leave_out: impl Fn(&BStr) -> bool + 'a) -> Self {
        self.leave_out = Some(Box::new(leave_out));
        self
    }

    /// Shows the names of each directory in the order of their bytes. Whole directories are read for
    /// it; one with more than some millions of names is an error.
    pub fn by_name(mut self) -> Self {
        self.by_name = true;
        self
    }

    /// The next place, or `None` at the end.
    ///
    /// After an error the walk can go on: with the next name, and without what failed.
    // The entry borrows the walk, which `Iterator` cannot say.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Entry<'_>>> {
        match std::mem::replace(&mut self.stage, Stage::Name) {
            Stage::Start => {
                let vfs = self.vfs;
                return self.show(vfs.mount_of(&self.start), self.start.inode).map(Some);
            }
            Stage::Enter(mount, dir) => self.enter(mount, dir)?,
            Stage::Name => {}
        }
        loop {
            let Some(level) = self.levels.last_mut() else { return Ok(None) };
            self.path.truncate(level.path_len);
            if let Some(pending) = level.pending.pop() {
                self.buffered -= 1;
                if level.path_len > 0 {
                    self.path.push(b'/');
                }
                self.path.push_str(&level.names[pending.name]);
                if self.leave_out.as_ref().is_some_and(|leave_out| leave_out(self.path.as_bstr())) {
                    continue;
                }
                let (mount, inode) = self.vfs.place(level.mount, pending.inode);
                return self.show(mount, inode).map(Some);
            }
            match level.cursor {
                Some(cursor) => self.fill(cursor)?,
                None => {
                    self.levels.pop();
                }
            }
        }
    }

    /// Leaves out what is in the directory that was shown last.
    pub fn skip_contents(&mut self) {
        if let Stage::Enter(..) = self.stage {
            self.stage = Stage::Name;
        }
    }

    fn show(&mut self, mount: &'a Mount, inode: InodeNumber) -> Result<Entry<'_>> {
        let metadata = mount.filesystem.metadata(inode).map_err(|source| self.error(source))?;
        if metadata.is_dir() {
            self.stage = Stage::Enter(mount, inode);
        }
        Ok(Entry {
            path: self.path.as_bstr(),
            mount,
            inode,
            metadata,
            depth: self.levels.len(),
            start: self.start.path.as_bstr(),
        })
    }

    fn enter(&mut self, mount: &'a Mount, dir: InodeNumber) -> Result<()> {
        let refused = if self.levels.len() >= MAX_DEPTH {
            Some("directories are nested deeper than 16384")
        } else if !self.met.insert(mount.id, dir) {
            Some("the directory stands in the tree a second time: the file system is corrupt")
        } else {
            None
        };
        if let Some(what) = refused {
            return Err(self.error(vmcraft_fs::Error::InvalidInput(what)));
        }
        self.levels.push(Level {
            mount,
            dir,
            path_len: self.path.len(),
            pending: Vec::new(),
            names: Vec::new(),
            cursor: Some(0),
        });
        Ok(())
    }

    /// Reads the innermost directory's next names.
    fn fill(&mut self, cursor: u64) -> Result<()> {
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        // A half of what is left: so no directory takes all, and deep ones still get some.
        let limit = match self.by_name {
            true => SORTED_NAMES.saturating_sub(self.buffered),
            false => (BUFFERED_NAMES.saturating_sub(self.buffered) / 2).max(FEWEST_NAMES),
        };
        level.cursor = None;
        level.names.clear();
        let mut bad_name = false;
        let read = level.mount.filesystem.read_dir(level.dir, cursor, &mut |entry| {
            if !is_name(entry.name) {
                bad_name = true;
            } else {
                let start = level.names.len();
                level.names.extend_from_slice(entry.name);
                level.pending.push(Pending { inode: entry.inode, name: start..level.names.len() });
            }
            if level.pending.len() < limit {
                return ControlFlow::Continue(());
            }
            level.cursor = Some(entry.next);
            ControlFlow::Break(())
        });
        let names = &level.names;
        let name = |pending: &Pending| &names[pending.name.clone()];
        // The last one is shown first.
        match self.by_name {
            true => level.pending.sort_unstable_by(|a, b| name(b).cmp(name(a))),
            false => {
                level.pending.sort_unstable_by(|a, b| (b.inode, name(b)).cmp(&(a.inode, name(a))));
            }
        }
        let is_too_large = self.by_name && level.cursor.is_some();
        self.buffered += level.pending.len();
        self.path.truncate(level.path_len);
        read.map_err(|source| self.error(source))?;
        if is_too_large {
            return Err(self.error(vmcraft_fs::Error::InvalidInput(
                "the directory has too many names to bring them into order",
            )));
        }
        if bad_name {
            return Err(self.error(vmcraft_fs::Error::InvalidInput(
                "the directory has an entry with a name that no file can have",
            )));
        }
        Ok(())
    }

    /// An error about the place that the path leads to now.
    fn error(&self, source: vmcraft_fs::Error) -> Error {
        let path = if self.path.is_empty() {
            self.start.path.clone()
        } else {
            join(&self.start.path, self.path.as_bstr())
        };
        Error::Path { path, component: None, source }
    }
}

/// Whether a directory entry's name leads to something inside the directory. Drivers see to it; what
/// is written to archives and to the host must not rest on that alone.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name != b"." && name != b".." && name.find_byteset(b"/\0").is_none()
}

/// Inodes of several mounts. Neighbours share a word, so that even a tree of millions of directories
/// takes few megabytes.
#[derive(Default)]
pub(crate) struct InodeSet(HashMap<(MountId, u64), u64>);

impl InodeSet {
    /// Whether it was not there yet.
    pub(crate) fn insert(&mut self, mount: MountId, inode: InodeNumber) -> bool {
        let word = self.0.entry((mount, inode.0 / 64)).or_default();
        let bit = 1 << (inode.0 % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// Whether it is there.
    pub(crate) fn contains(&self, mount: MountId, inode: InodeNumber) -> bool {
        self.0.get(&(mount, inode.0 / 64)).is_some_and(|word| word & 1 << (inode.0 % 64) != 0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vmcraft_fs::FileType;

    use super::*;
    use crate::GuestPath;
    use crate::raw_tree::{ROOT, RawTree};
    use crate::vfs::LastLink;

    fn mounted(tree: RawTree) -> Vfs {
        Vfs::with_root("/dev/sda1", Arc::new(tree))
    }

    /// What a walk shows: paths, and errors as `!path`.
    fn shown(mut walk: Walk<'_>) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            match walk.next() {
                Ok(Some(entry)) => all.push(entry.path.to_string()),
                Ok(None) => return all,
                Err(Error::Path { path, .. }) => all.push(format!("!{path}")),
                Err(e) => panic!("{e}"),
            }
        }
    }

    fn root(vfs: &Vfs) -> Node {
        vfs.resolve("/".into(), LastLink::Keep).unwrap()
    }

    #[test] // The order is by inode, whatever order the directory has, and a directory comes first.
    fn shows_directories_before_their_contents_by_inode() {
        let mut tree = RawTree::new();
        let z = tree.dir(ROOT, "z");
        let a = tree.file(ROOT, "a", b"");
        tree.file(z, "inner", b"");
        tree.link(ROOT, b"second", a);
        tree.inode(ROOT).entries.reverse();
        let vfs = mounted(tree);
        assert_eq!(shown(Walk::new(&vfs, root(&vfs))), ["", "z", "z/inner", "a", "second"]);
        let z = vfs.resolve("/z".into(), LastLink::Keep).unwrap();
        let mut walk = Walk::new(&vfs, z);
        walk.next().unwrap();
        let inner = walk.next().unwrap().unwrap();
        assert_eq!((inner.guest_path(), inner.name(), inner.depth), ("/z/inner".into(), "inner".into(), 1));
        assert_eq!(inner.node().path, "/z/inner");
    }

    #[test] // What compares two trees relies on the order: virt-diff.
    fn by_name_the_order_is_that_of_the_bytes() {
        let mut tree = RawTree::new();
        let dir = tree.dir(ROOT, "dir");
        tree.file(ROOT, "dir.x", b"");
        tree.file(ROOT, "B", b"");
        tree.file(dir, "z", b"");
        tree.file(dir, "a", b"");
        let vfs = mounted(tree);
        assert_eq!(shown(Walk::new(&vfs, root(&vfs)).by_name()), ["", "B", "dir", "dir/a", "dir/z", "dir.x"]);
    }

    #[test] // `tar-out /` has what is mounted on /boot, not what it covers.
    fn crosses_mounts() {
        let mut tree = RawTree::new();
        let boot = tree.dir(ROOT, "boot");
        tree.file(boot, "covered", b"");
        let mut inner = RawTree::new();
        inner.file(ROOT, "vmlinuz", b"");
        let mut vfs = mounted(tree);
        vfs.mount("/dev/sda2", Arc::new(inner), GuestPath::new("/boot"), true).unwrap();
        assert_eq!(shown(Walk::new(&vfs, root(&vfs))), ["", "boot", "boot/vmlinuz"]);
    }

    #[test]
    fn leaves_out_and_skips() {
        let mut tree = RawTree::new();
        for name in ["a", "b", "c"] {
            let dir = tree.dir(ROOT, name);
            tree.file(dir, "in", b"");
        }
        // What is left out is not even looked at.
        let broken = tree.dir(ROOT, "broken");
        tree.inode(broken).metadata = None;
        let vfs = mounted(tree);
        let mut walk = Walk::new(&vfs, root(&vfs)).leaving_out(|path| path == "b" || path == "broken");
        let mut all = Vec::new();
        while let Some(entry) = walk.next().unwrap() {
            all.push(entry.path.to_string());
            if entry.path == "a" {
                walk.skip_contents();
            }
        }
        assert_eq!(all, ["", "a", "c", "c/in"]);
    }

    #[test] // A directory that holds itself or an ancestor must not lead round for ever.
    fn directory_loops_end() {
        let mut tree = RawTree::new();
        let a = tree.dir(ROOT, "a");
        let b = tree.dir(a, "b");
        tree.link(b, b"again", a);
        tree.link(b, b"root", ROOT);
        tree.file(b, "file", b"");
        let vfs = mounted(tree);
        assert_eq!(
            shown(Walk::new(&vfs, root(&vfs))),
            ["", "a", "a/b", "a/b/root", "!a/b/root", "a/b/again", "!a/b/again", "a/b/file"]
                .map(|path| path.replace('!', "!/"))
        );
    }

    #[test] // 64 directories, each in the one before under two names, are 2^64 paths.
    fn two_names_for_a_directory_do_not_multiply() {
        let mut tree = RawTree::new();
        let mut dir = ROOT;
        for _ in 0..64 {
            let inner = tree.dir(dir, "x");
            tree.link(dir, b"y", inner);
            dir = inner;
        }
        let vfs = mounted(tree);
        // Each is shown under both names, gone into under one, and an error under the other.
        assert_eq!(shown(Walk::new(&vfs, root(&vfs))).len(), 1 + 64 * 3);
    }

    #[test] // An archive with `../x` in it, or a copy to the host, would write outside its directory.
    fn names_that_lead_out_are_refused() {
        for bad in [&b".."[..], b".", b"", b"a/b", b"/etc", b"a\0b"] {
            let mut tree = RawTree::new();
            let file = tree.file(ROOT, "good", b"");
            tree.link(ROOT, bad, file);
            let vfs = mounted(tree);
            assert_eq!(shown(Walk::new(&vfs, root(&vfs))), ["", "!/", "good"], "{:?}", bad.as_bstr());
        }
    }

    #[test] // A broken inode costs its own name, not the rest.
    fn goes_on_after_an_error() {
        let mut tree = RawTree::new();
        let broken = tree.file(ROOT, "broken", b"");
        tree.inode(broken).metadata = None;
        tree.file(ROOT, "good", b"");
        let vfs = mounted(tree);
        assert_eq!(shown(Walk::new(&vfs, root(&vfs))), ["", "!/broken", "good"]);
    }

    #[test] // More names than are held at once, in nested directories.
    fn large_directories_come_whole() {
        let mut tree = RawTree::new();
        let inner = tree.dir(ROOT, "d");
        for dir in [ROOT, inner] {
            for number in 0..BUFFERED_NAMES + 10 {
                let file = tree.make(FileType::Regular, 0o644, b"");
                tree.link(dir, number.to_string().as_bytes(), file);
            }
        }
        let vfs = mounted(tree);
        let mut all = shown(Walk::new(&vfs, root(&vfs)));
        all.sort();
        let before = all.len();
        all.dedup();
        assert_eq!((all.len(), before), (2 + 2 * (BUFFERED_NAMES + 10), before));
    }

    #[test]
    fn depth_is_bounded() {
        let mut tree = RawTree::new();
        let mut dir = ROOT;
        for _ in 0..MAX_DEPTH + 1 {
            dir = tree.dir(dir, "d");
        }
        let vfs = mounted(tree);
        let mut walk = Walk::new(&vfs, root(&vfs));
        let failed = loop {
            match walk.next() {
                Ok(entry) => assert!(entry.is_some(), "the depth was not refused"),
                Err(e) => break e,
            }
        };
        assert!(failed.to_string().contains("nested deeper"), "{failed}");
    }
}
