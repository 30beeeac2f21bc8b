//! The promises of [`WriteFiles`], checked on a volume that may be changed.

use std::fmt::Debug;
use std::ops::ControlFlow;

use bstr::{BStr, BString};

use super::{check, ensure, entries};
use crate::{
    DeviceNumber, Error, FileSystem, FileType, InodeNumber, Metadata, NewInode, Result, SetMetadata,
    Timestamp, WriteFiles, XattrMode,
};

/// The directory in which everything happens; it must not be there before.
const PLACE: &str = "conformance";
const NEW: NewInode = NewInode { permissions: 0o640, uid: 1, gid: 2 };
const NEW_DIR: NewInode = NewInode { permissions: 0o750, uid: 1, gid: 2 };

/// Makes, changes and removes files of all kinds in a directory of their own, and checks each promise
/// of [`WriteFiles`]. At the end the volume has what it had before, and was synced.
///
/// The error says which promise was broken. An answer of [`Error::Unsupported`] is taken as it is, but
/// for regular files, directories, and moving and removing them.
pub fn check_writing<'a>(fs: &'a dyn FileSystem) -> Result<(), String> {
    let writer = fs.writer().map_err(|e| format!("writer: {e}"))?;
    let before = fs.statfs().map_err(|e| format!("statfs: {e}"))?;
    let dir = ok(writer.mkdir(fs.root(), PLACE.into(), NEW_DIR), "mkdir")?;
    let test = Test { fs, w: writer, dir };
    let all: [(&str, Run<'a>); 9] = [
        ("names", Test::names),
        ("directories", Test::directories),
        ("links", Test::links),
        ("nodes", Test::nodes),
        ("moves", Test::moves),
        ("content", Test::content),
        ("metadata", Test::metadata),
        ("attributes", Test::attributes),
        ("many names", Test::many),
    ];
    for (name, run) in all {
        run(&test).map_err(|e| format!("{name}: {e}"))?;
        ensure(entries(fs, dir)?.is_empty(), &format!("{name}: not everything is gone"))?;
        check(fs).map_err(|e| format!("after {name}: {e}"))?;
    }
    test.sync_and_reload()?;
    ok(writer.rmdir(fs.root(), PLACE.into()), "rmdir")?;
    ok(writer.sync(), "sync")?;
    let after = fs.statfs().map_err(|e| format!("statfs: {e}"))?;
    ensure(
        (after.blocks_free, after.inodes_free) == (before.blocks_free, before.inodes_free),
        &format!("space was lost: {before:?} became {after:?}"),
    )
}

type Run<'a> = fn(&Test<'a>) -> Result<(), String>;

struct Test<'a> {
    fs: &'a dyn FileSystem,
    w: &'a dyn WriteFiles,
    dir: InodeNumber,
}

fn ok<T>(result: Result<T>, what: &str) -> Result<T, String> {
    result.map_err(|e| format!("{what}: {e}"))
}

/// `None` if the format cannot have it.
fn optional<T>(result: Result<T>, what: &str) -> Result<Option<T>, String> {
    super::supported(result, what)
}

/// The answer must be an error with this `errno`.
fn fails<T: Debug>(result: Result<T>, errno: i32, what: &str) -> Result<(), String> {
    match result {
        Err(e) if e.errno() == errno => Ok(()),
        other => Err(format!("{what}: {other:?}, where errno {errno} was due")),
    }
}

mod errno {
    pub(super) const EPERM: i32 = 1;
    pub(super) const ENOENT: i32 = 2;
    pub(super) const EEXIST: i32 = 17;
    pub(super) const ENOTDIR: i32 = 20;
    pub(super) const EISDIR: i32 = 21;
    pub(super) const EINVAL: i32 = 22;
    pub(super) const ENAMETOOLONG: i32 = 36;
    pub(super) const ENOTEMPTY: i32 = 39;
    pub(super) const ENODATA: i32 = 61;
}
use errno::*;

impl Test<'_> {
    fn create(&self, name: &str) -> Result<InodeNumber, String> {
        ok(self.w.create(self.dir, name.into(), NEW), name)
    }

    fn mkdir(&self, dir: InodeNumber, name: &str) -> Result<InodeNumber, String> {
        ok(self.w.mkdir(dir, name.into(), NEW_DIR), name)
    }

    fn unlink(&self, name: &str) -> Result<(), String> {
        ok(self.w.unlink(self.dir, name.into()), name)
    }

    fn rmdir(&self, name: &str) -> Result<(), String> {
        ok(self.w.rmdir(self.dir, name.into()), name)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.w.rename(self.dir, from.into(), self.dir, to.into())
    }

    fn stat(&self, inode: InodeNumber) -> Result<Metadata, String> {
        ok(self.fs.metadata(inode), "metadata")
    }

    fn leads_to(&self, dir: InodeNumber, name: &str, inode: InodeNumber) -> Result<(), String> {
        let found = ok(self.fs.lookup(dir, name.into()), name)?;
        ensure(found == inode, &format!("{name} leads to {found}, not {inode}"))
    }

    fn is_missing(&self, dir: InodeNumber, name: &str) -> Result<(), String> {
        fails(self.fs.lookup(dir, name.into()), ENOENT, name)
    }

    fn names(&self) -> Result<(), String> {
        let file = self.create("file")?;
        let sub = self.mkdir(self.dir, "sub")?;
        let metadata = self.stat(file)?;
        ensure(
            metadata.file_type == FileType::Regular && metadata.size_bytes == 0,
            "a new file is not empty",
        )?;
        let longest = ok(self.fs.statfs(), "statfs")?.name_max as usize;
        let long = "n".repeat(longest);
        self.create(&long)?;
        self.unlink(&long)?;
        let too_long = "n".repeat(longest + 1);
        for (name, errno) in [
            ("", EINVAL),
            (".", EINVAL),
            ("..", EINVAL),
            ("a/b", EINVAL),
            ("a\0b", EINVAL),
            (&too_long, ENAMETOOLONG),
        ] {
            let what = format!("the name {:?}", BStr::new(name));
            let name = BStr::new(name);
            fails(self.w.create(self.dir, name, NEW), errno, &what)?;
            fails(self.w.mkdir(self.dir, name, NEW_DIR), errno, &what)?;
            fails(self.w.unlink(self.dir, name), errno, &what)?;
            fails(self.w.rmdir(self.dir, name), errno, &what)?;
            fails(self.w.rename(self.dir, "file".into(), self.dir, name), errno, &what)?;
        }
        for name in ["file", "sub"] {
            fails(self.w.create(self.dir, name.into(), NEW), EEXIST, "create over a name")?;
            fails(self.w.mkdir(self.dir, name.into(), NEW_DIR), EEXIST, "mkdir over a name")?;
        }
        fails(self.w.create(file, "x".into(), NEW), ENOTDIR, "create in a file")?;
        fails(self.w.unlink(file, "x".into()), ENOTDIR, "unlink in a file")?;
        fails(self.w.unlink(self.dir, "none".into()), ENOENT, "unlink of no name")?;
        fails(self.w.unlink(self.dir, "sub".into()), EISDIR, "unlink of a directory")?;
        fails(self.w.rmdir(self.dir, "file".into()), ENOTDIR, "rmdir of a file")?;
        self.leads_to(self.dir, "file", file)?;
        self.leads_to(self.dir, "sub", sub)?;
        self.unlink("file")?;
        self.is_missing(self.dir, "file")?;
        self.rmdir("sub")
    }

    fn directories(&self) -> Result<(), String> {
        let links = self.stat(self.dir)?.links;
        let sub = self.mkdir(self.dir, "sub")?;
        let deep = self.mkdir(sub, "deep")?;
        ensure(ok(self.fs.parent(deep), "parent")? == sub, "another parent")?;
        ensure(self.stat(sub)?.is_dir(), "no directory")?;
        let counted = self.stat(self.dir)?.links;
        ensure(counted == links || counted == links + 1, "links of a directory")?;
        fails(self.w.rmdir(self.dir, "sub".into()), ENOTEMPTY, "rmdir of a full directory")?;
        ok(self.w.rmdir(sub, "deep".into()), "rmdir")?;
        self.rmdir("sub")?;
        ensure(self.stat(self.dir)?.links == links, "links after a directory went")
    }

    fn links(&self) -> Result<(), String> {
        for target in ["t", "../some/where", &"long/".repeat(60)] {
            let link = self.w.symlink(self.dir, "symlink".into(), target.into(), NEW);
            let Some(link) = optional(link, "symlink")? else { break };
            ensure(ok(self.fs.read_link(link), "read_link")? == target, "another target")?;
            self.unlink("symlink")?;
        }
        let empty = self.w.symlink(self.dir, "symlink".into(), "".into(), NEW);
        if !matches!(empty, Err(Error::Unsupported(_))) {
            fails(empty, EINVAL, "a link to nothing")?;
        }
        let file = self.create("file")?;
        if optional(self.w.link(file, self.dir, "second".into()), "link")?.is_some() {
            self.leads_to(self.dir, "second", file)?;
            ensure(self.stat(file)?.links == 2, "links of a file with two names")?;
            fails(self.w.link(file, self.dir, "second".into()), EEXIST, "link over a name")?;
            fails(self.w.link(self.dir, self.dir, "loop".into()), EPERM, "link to a directory")?;
            ok(self.w.write(file, 0, b"shared"), "write")?;
            self.unlink("file")?;
            ensure(self.stat(file)?.links == 1, "links after a name went")?;
            self.reads(file, b"shared")?;
            return self.unlink("second");
        }
        self.unlink("file")
    }

    fn nodes(&self) -> Result<(), String> {
        let device = DeviceNumber { major: 8, minor: 300 };
        for file_type in [FileType::CharDevice, FileType::BlockDevice, FileType::Fifo, FileType::Socket] {
            let made = self.w.mknod(self.dir, "node".into(), file_type, device, NEW);
            let Some(node) = optional(made, "mknod")? else { continue };
            let metadata = self.stat(node)?;
            ensure(metadata.file_type == file_type, "another type")?;
            let is_device = matches!(file_type, FileType::CharDevice | FileType::BlockDevice);
            ensure(metadata.device == is_device.then_some(device), "another device")?;
            fails(self.w.write(node, 0, b"x"), EINVAL, "write to a node")?;
            self.unlink("node")?;
        }
        Ok(())
    }

    fn moves(&self) -> Result<(), String> {
        let a = self.create("a")?;
        ok(self.rename("a", "b"), "to another name")?;
        self.is_missing(self.dir, "a")?;
        self.leads_to(self.dir, "b", a)?;
        ok(self.rename("b", "b"), "to itself")?;
        self.create("c")?;
        ok(self.rename("b", "c"), "over a file")?;
        self.is_missing(self.dir, "b")?;
        self.leads_to(self.dir, "c", a)?;

        let from = self.mkdir(self.dir, "from")?;
        let to = self.mkdir(self.dir, "to")?;
        let moved = self.mkdir(from, "moved")?;
        let rename =
            |a: InodeNumber, x: &str, b: InodeNumber, y: &str| self.w.rename(a, x.into(), b, y.into());
        ok(rename(from, "moved", to, "there"), "a directory to another")?;
        self.is_missing(from, "moved")?;
        self.leads_to(to, "there", moved)?;
        ensure(ok(self.fs.parent(moved), "parent")? == to, "the parent of a moved directory")?;
        fails(rename(self.dir, "to", moved, "x"), EINVAL, "into itself")?;
        fails(rename(self.dir, "to", to, "x"), EINVAL, "into itself")?;
        fails(rename(self.dir, "from", self.dir, "to"), ENOTEMPTY, "over a full directory")?;
        fails(rename(self.dir, "from", self.dir, "c"), ENOTDIR, "a directory over a file")?;
        fails(rename(self.dir, "c", self.dir, "from"), EISDIR, "a file over a directory")?;
        fails(rename(self.dir, "none", self.dir, "x"), ENOENT, "what is not there")?;
        fails(rename(self.dir, "from", a, "x"), ENOTDIR, "into a file")?;
        ok(rename(to, "there", self.dir, "from"), "over an empty directory")?;
        self.leads_to(self.dir, "from", moved)?;
        self.rmdir("from")?;
        self.rmdir("to")?;
        self.unlink("c")
    }

    fn reads(&self, file: InodeNumber, expected: &[u8]) -> Result<(), String> {
        let mut found = vec![0xa5; expected.len() + 1];
        let len = ok(self.fs.read(file, 0, &mut found), "read")?;
        ensure(found.get(..len) == Some(expected), "another content than was written")?;
        ensure(self.stat(file)?.size_bytes == expected.len() as u64, "another size than was written")
    }

    fn content(&self) -> Result<(), String> {
        let file = self.create("file")?;
        let mut expected: Vec<u8> = Vec::new();
        // Small and large pieces, in any order, within and past the end.
        for (step, (offset, len)) in
            [(0, 10), (5, 100), (3000, 5000), (100_000, 70_000), (99_990, 20), (0, 200_000), (300_001, 1)]
                .into_iter()
                .enumerate()
        {
            let data: Vec<u8> = (0..len).map(|i| ((i + step * 7) % 251 + 1).to_le_bytes()[0]).collect();
            ok(self.w.write(file, offset as u64, &data), "write")?;
            expected.resize(expected.len().max(offset + len), 0);
            if let Some(place) = expected.get_mut(offset..offset + len) {
                place.copy_from_slice(&data);
            }
            self.reads(file, &expected)?;
        }
        for size in [250_000, 100_001, 4096, 4095, 50_000, 3, 0, 12_345] {
            ok(self.w.truncate(file, size as u64), "truncate")?;
            expected.resize(size, 0);
            self.reads(file, &expected)?;
        }
        ok(self.w.write(file, 0, &[7; 60_000]), "write")?;
        expected = vec![7; 60_000];
        if optional(self.w.punch_hole(file, 5000, 30_000), "punch_hole")?.is_some() {
            expected.iter_mut().skip(5000).take(30_000).for_each(|b| *b = 0);
            self.reads(file, &expected)?;
        }
        if optional(self.w.allocate(file, 50_000, 50_000, true), "allocate")?.is_some() {
            self.reads(file, &expected)?;
            ok(self.w.allocate(file, 50_000, 50_000, false), "allocate")?;
            expected.resize(100_000, 0);
            self.reads(file, &expected)?;
        }
        ok(self.w.write(file, 10, b""), "a write of nothing")?;
        self.reads(file, &expected)?;
        fails(self.w.write(self.dir, 0, b"x"), EISDIR, "write to a directory")?;
        fails(self.w.truncate(self.dir, 0), EISDIR, "truncate a directory")?;
        let far = self.w.write(file, u64::MAX - 5, b"0123456789");
        ensure(matches!(far, Err(Error::FileTooLarge(_))), "a write past what can be")?;
        self.reads(file, &expected)?;
        self.unlink("file")
    }

    fn metadata(&self) -> Result<(), String> {
        let file = self.create("file")?;
        let time = |seconds| Timestamp { seconds, nanoseconds: 0 };
        let set = SetMetadata {
            permissions: Some(0o4711),
            uid: Some(70_000),
            gid: Some(3),
            accessed: Some(time(1_000_000_000)),
            modified: Some(time(1_100_000_000)),
        };
        if optional(self.w.set_metadata(file, &set), "set_metadata")?.is_some() {
            let m = self.stat(file)?;
            let found = (m.permissions, m.uid, m.gid, m.accessed, m.modified);
            let expected = (0o4711, 70_000, 3, time(1_000_000_000), time(1_100_000_000));
            ensure(found == expected, &format!("{found:?}, where {expected:?} was set"))?;
            let one = SetMetadata { gid: Some(4), ..SetMetadata::default() };
            ok(self.w.set_metadata(file, &one), "set_metadata")?;
            let m = self.stat(file)?;
            let found = (m.permissions, m.uid, m.gid, m.accessed, m.modified);
            ensure(
                found == (0o4711, 70_000, 4, time(1_000_000_000), time(1_100_000_000)),
                "more than one field changed",
            )?;
        }
        self.unlink("file")
    }

    fn attributes(&self) -> Result<(), String> {
        let file = self.create("file")?;
        let name: &BStr = "user.conformance".into();
        let set = |value: &[u8], mode| self.w.set_xattr(file, name, value, mode);
        let value = || -> Result<Option<Vec<u8>>, String> {
            let all = ok(self.fs.xattrs(file), "xattrs")?;
            Ok(all.into_iter().find(|(n, _)| n == name).map(|(_, v)| v))
        };
        if optional(set(b"one", XattrMode::Any), "set_xattr")?.is_some() {
            ensure(value()?.as_deref() == Some(b"one"), "another value")?;
            fails(set(b"two", XattrMode::Create), EEXIST, "an attribute made twice")?;
            ok(set(b"", XattrMode::Replace), "an attribute replaced")?;
            ensure(value()?.as_deref() == Some(b""), "another value")?;
            ok(set(&[9; 300], XattrMode::Any), "a longer attribute")?;
            ensure(value()?.as_deref() == Some(&[9; 300]), "another value")?;
            ok(self.w.remove_xattr(file, name), "remove_xattr")?;
            ensure(value()?.is_none(), "a removed attribute is there")?;
            fails(self.w.remove_xattr(file, name), ENODATA, "an attribute removed twice")?;
            fails(set(b"x", XattrMode::Replace), ENODATA, "what is not there replaced")?;
        }
        self.unlink("file")
    }

    /// More than a block of names, which come and go.
    fn many(&self) -> Result<(), String> {
        let name = |n: usize| format!("{n}-{}", "name".repeat(n % 40));
        for n in 0..400 {
            self.create(&name(n))?;
        }
        for n in (0..400).filter(|n| n % 3 != 0) {
            self.unlink(&name(n))?;
        }
        let mut listed = Vec::<BString>::new();
        let shown = self.fs.read_dir(self.dir, 0, &mut |entry| {
            listed.push(entry.name.to_owned());
            ControlFlow::Continue(())
        });
        ok(shown, "read_dir")?;
        listed.sort();
        let mut expected: Vec<BString> = (0..400).filter(|n| n % 3 == 0).map(|n| name(n).into()).collect();
        expected.sort();
        ensure(listed == expected, "other names than were made")?;
        for n in (0..400).filter(|n| n % 3 == 0) {
            self.unlink(&name(n))?;
        }
        Ok(())
    }

    /// What was synced is there when the file system is read anew.
    fn sync_and_reload(&self) -> Result<(), String> {
        let file = self.create("file")?;
        ok(self.w.write(file, 0, b"content"), "write")?;
        ok(self.w.sync(), "sync")?;
        ok(self.w.reload(), "reload")?;
        self.leads_to(self.dir, "file", file)?;
        self.reads(file, b"content")?;
        self.unlink("file")
    }
}
