//! A file system in memory, which says what each operation should do.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bstr::{BStr, ByteSlice};
use rustix::fs::{CWD, FileType as NodeType, Mode};
use vmcraft_fs::{DeviceNumber, Error, FileSystem, FileType, InodeNumber, NewInode, Result, XattrMode};

use crate::random::Random;
use crate::tree::{self, Tree};

/// A node's place in [`Model::nodes`].
type Id = usize;
type Name = Vec<u8>;

/// What new nodes have.
const PERMISSIONS: u32 = 0o755;
/// The largest file.
const MOST_BYTES: usize = 600_000;

#[derive(Debug, Clone)]
struct Node {
    inode: InodeNumber,
    kind: Kind,
    names: u64,
    /// Of a directory.
    parent: Id,
    xattrs: BTreeMap<String, Vec<u8>>,
    permissions: u32,
}

#[derive(Debug, Clone)]
enum Kind {
    Dir(BTreeMap<Name, Id>),
    File(Vec<u8>),
    Link(Name),
    Special(FileType, DeviceNumber),
}

/// One operation.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    Create(Id, Name),
    Mkdir(Id, Name),
    Symlink(Id, Name, Name),
    Mknod(Id, Name, FileType, DeviceNumber),
    Link(Id, Id, Name),
    Unlink(Id, Name),
    Rmdir(Id, Name),
    Rename(Id, Name, Id, Name),
    Write(Id, usize, Vec<u8>),
    Truncate(Id, usize),
    Punch(Id, usize, usize),
    SetXattr(Id, String, Vec<u8>),
    RemoveXattr(Id, String),
}

/// Which operations there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those that change names.
    Names,
    /// Those of content and attributes, too.
    All,
}

#[derive(Clone)]
pub(crate) struct Model {
    nodes: BTreeMap<Id, Node>,
    next: Id,
    /// The longest target of a symbolic link.
    longest_target: usize,
}

/// The numbers of `errno` that the model answers with.
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

const ROOT: Id = 0;

impl Model {
    /// An empty volume, but for `lost+found`.
    pub(crate) fn new(fs: &dyn FileSystem, block_size: usize) -> Self {
        let lost = fs.lookup(fs.root(), "lost+found".into()).expect("mke2fs makes it");
        let dir = |inode, entries, permissions| Node {
            inode,
            kind: Kind::Dir(entries),
            names: 1,
            parent: ROOT,
            xattrs: BTreeMap::new(),
            permissions,
        };
        let root = dir(fs.root(), BTreeMap::from([(b"lost+found".to_vec(), 1)]), 0o755);
        let nodes = BTreeMap::from([(ROOT, root), (1, dir(lost, BTreeMap::new(), 0o700))]);
        Self { nodes, next: 2, longest_target: (block_size - 1).min(4095) }
    }

    fn node(&self, id: Id) -> &Node {
        &self.nodes[&id]
    }

    fn node_mut(&mut self, id: Id) -> &mut Node {
        self.nodes.get_mut(&id).expect("a node that is there")
    }

    fn entries(&self, id: Id) -> Option<&BTreeMap<Name, Id>> {
        match &self.node(id).kind {
            Kind::Dir(entries) => Some(entries),
            _ => None,
        }
    }

    fn entries_mut(&mut self, id: Id) -> &mut BTreeMap<Name, Id> {
        match &mut self.node_mut(id).kind {
            Kind::Dir(entries) => entries,
            _ => unreachable!("checked to be a directory"),
        }
    }

    fn is_dir(&self, id: Id) -> bool {
        self.entries(id).is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// An operation that four random numbers stand for.
    pub(crate) fn pick(&self, scope: Scope, pick: [u32; 4]) -> Action {
        let mut random = Random::new(
            pick.iter().fold(0, |seed, &p| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(p.into())),
        );
        let ids: Vec<Id> = self.nodes.keys().copied().collect();
        let dirs: Vec<Id> = ids.iter().copied().filter(|&id| self.is_dir(id)).collect();
        let dir = dirs[random.below(dirs.len())];
        let any = ids[random.below(ids.len())];
        let file = |random: &mut Random| {
            let files: Vec<Id> =
                ids.iter().copied().filter(|&id| matches!(self.node(id).kind, Kind::File(_))).collect();
            files.get(random.below(files.len())).copied()
        };
        // Now and then what is no directory is asked to be one. Links would lead elsewhere.
        let is_link = matches!(self.node(any).kind, Kind::Link(_));
        let dir = if random.below(100) == 0 && !is_link { any } else { dir };
        let name = new_name(&mut random);
        let kinds = if scope == Scope::Names { 100 } else { 200 };
        match random.below(kinds) {
            0..25 => Action::Create(dir, name),
            25..33 => Action::Mkdir(dir, name),
            33..37 => {
                let len = [1, 10, 59, 60, 61, 200, 1023, 1024, 2000][random.below(9)];
                Action::Symlink(dir, name, vec![b't'; len])
            }
            37..40 => {
                let types = [FileType::Fifo, FileType::Socket, FileType::CharDevice, FileType::BlockDevice];
                let file_type = types[random.below(4)];
                let number = |random: &mut Random, most| u32::try_from(random.below(most)).expect("small");
                let device = match file_type {
                    FileType::CharDevice | FileType::BlockDevice => {
                        DeviceNumber { major: number(&mut random, 4096), minor: number(&mut random, 1 << 20) }
                    }
                    _ => DeviceNumber::default(),
                };
                Action::Mknod(dir, name, file_type, device)
            }
            40..48 => Action::Link(any, dir, name),
            48..65 => {
                let (dir, name) = self.taken(dir, &dirs, &mut random, name);
                Action::Unlink(dir, name)
            }
            65..72 => {
                let (dir, name) = self.taken(dir, &dirs, &mut random, name);
                Action::Rmdir(dir, name)
            }
            72..100 => {
                let (from, from_name) = self.taken(dir, &dirs, &mut random, name);
                let to = dirs[random.below(dirs.len())];
                let to = if random.below(4) == 0 { from } else { to };
                let to_name = new_name(&mut random);
                let (to, to_name) = if random.below(2) == 0 {
                    self.taken(to, &dirs, &mut random, to_name)
                } else {
                    (to, to_name)
                };
                Action::Rename(from, from_name, to, to_name)
            }
            100..150 => {
                let offset = random.below(MOST_BYTES * 2 / 3) >> random.below(20);
                let len = 1 + (random.below(MOST_BYTES / 3) >> random.below(18));
                let byte = random.next().to_le_bytes()[0] | 1;
                match file(&mut random) {
                    Some(file) => Action::Write(file, offset, vec![byte; len]),
                    None => Action::Create(dir, name),
                }
            }
            150..160 => match file(&mut random) {
                Some(file) => Action::Truncate(file, random.below(MOST_BYTES) >> random.below(20)),
                None => Action::Create(dir, name),
            },
            160..165 => match file(&mut random) {
                Some(file) => {
                    let offset = random.below(MOST_BYTES) >> random.below(16);
                    Action::Punch(file, offset, 1 + (random.below(MOST_BYTES) >> random.below(16)))
                }
                None => Action::Create(dir, name),
            },
            165..190 => {
                let len = [0, 1, 20, 100, 400, 900][random.below(6)];
                let byte = random.next().to_le_bytes()[0];
                let prefix = match self.node(any).kind {
                    Kind::Dir(_) | Kind::File(_) => ["user", "trusted", "security"][random.below(3)],
                    _ => ["trusted", "security"][random.below(2)],
                };
                Action::SetXattr(any, format!("{prefix}.{}", random.below(6)), vec![byte; len])
            }
            _ => {
                let known = self.node(any).xattrs.keys().next().cloned();
                Action::RemoveXattr(any, known.unwrap_or_else(|| "trusted.none".to_owned()))
            }
        }
    }

    /// A name that is there, most often.
    fn taken(&self, dir: Id, dirs: &[Id], random: &mut Random, other: Name) -> (Id, Name) {
        let filled = |id: &&Id| self.entries(**id).is_some_and(|e| !e.is_empty());
        let dir = if self.entries(dir).is_some_and(|e| !e.is_empty()) {
            dir
        } else {
            let filled: Vec<&Id> = dirs.iter().filter(filled).collect();
            *filled[random.below(filled.len())]
        };
        let entries = self.entries(dir).expect("a directory");
        let name = entries.keys().nth(random.below(entries.len())).cloned();
        // The kernel's own directory stays.
        let name = name.filter(|n| random.below(20) > 0 && n != b"lost+found");
        (dir, name.unwrap_or(other))
    }

    /// Does it to the model; an `errno` if it must fail.
    pub(crate) fn apply(&mut self, action: &Action) -> Result<Option<Id>, i32> {
        match action {
            Action::Create(dir, name) => self.add(*dir, name, Kind::File(Vec::new())).map(Some),
            Action::Mkdir(dir, name) => self.add(*dir, name, Kind::Dir(BTreeMap::new())).map(Some),
            Action::Symlink(dir, name, target) => {
                // The kernel looks at the path first, we at the target.
                let absent = self.absent(*dir, name);
                if target.len() > self.longest_target {
                    return Err(absent.err().unwrap_or(ENAMETOOLONG));
                }
                self.add(*dir, name, Kind::Link(target.clone())).map(Some)
            }
            Action::Mknod(dir, name, file_type, device) => {
                self.add(*dir, name, Kind::Special(*file_type, *device)).map(Some)
            }
            Action::Link(node, dir, name) => {
                self.absent(*dir, name)?;
                if self.is_dir(*node) {
                    return Err(EPERM);
                }
                self.entries_mut(*dir).insert(name.clone(), *node);
                self.node_mut(*node).names += 1;
                Ok(None)
            }
            Action::Unlink(dir, name) => {
                let id = self.present(*dir, name)?;
                if self.is_dir(id) {
                    return Err(EISDIR);
                }
                self.entries_mut(*dir).remove(name);
                self.drop_name(id);
                Ok(None)
            }
            Action::Rmdir(dir, name) => {
                let id = self.present(*dir, name)?;
                match self.entries(id) {
                    None => return Err(ENOTDIR),
                    Some(entries) if !entries.is_empty() => return Err(ENOTEMPTY),
                    Some(_) => (),
                }
                self.entries_mut(*dir).remove(name);
                self.nodes.remove(&id);
                Ok(None)
            }
            Action::Rename(from, from_name, to, to_name) => {
                self.rename(*from, from_name, *to, to_name).map(|()| None)
            }
            Action::Write(id, offset, data) => {
                if let Kind::File(content) = &mut self.node_mut(*id).kind {
                    content.resize(content.len().max(offset + data.len()), 0);
                    content[*offset..offset + data.len()].copy_from_slice(data);
                }
                Ok(None)
            }
            Action::Truncate(id, size) => {
                if let Kind::File(content) = &mut self.node_mut(*id).kind {
                    content.resize(*size, 0);
                }
                Ok(None)
            }
            Action::Punch(id, offset, len) => {
                if let Kind::File(content) = &mut self.node_mut(*id).kind {
                    let end = content.len().min(offset + len);
                    if let Some(range) = content.get_mut(*offset..end) {
                        range.fill(0);
                    }
                }
                Ok(None)
            }
            Action::SetXattr(id, name, value) => {
                self.node_mut(*id).xattrs.insert(name.clone(), value.clone());
                Ok(None)
            }
            Action::RemoveXattr(id, name) => {
                self.node_mut(*id).xattrs.remove(name).map(|_| None).ok_or(ENODATA)
            }
        }
    }

    fn absent(&self, dir: Id, name: &Name) -> Result<(), i32> {
        let entries = self.entries(dir);
        if name.len() > 255 {
            return Err(if entries.is_some() { ENAMETOOLONG } else { ENOTDIR });
        }
        if entries.ok_or(ENOTDIR)?.contains_key(name) { Err(EEXIST) } else { Ok(()) }
    }

    fn present(&self, dir: Id, name: &Name) -> Result<Id, i32> {
        let entries = self.entries(dir).ok_or(ENOTDIR)?;
        if name.len() > 255 {
            return Err(ENAMETOOLONG);
        }
        entries.get(name).copied().ok_or(ENOENT)
    }

    fn add(&mut self, dir: Id, name: &Name, kind: Kind) -> Result<Id, i32> {
        self.absent(dir, name)?;
        let id = self.next;
        self.next += 1;
        let permissions = if matches!(kind, Kind::Link(_)) { 0o777 } else { PERMISSIONS };
        let inode = InodeNumber(0);
        let node = Node { inode, kind, names: 1, parent: dir, xattrs: BTreeMap::new(), permissions };
        self.nodes.insert(id, node);
        self.entries_mut(dir).insert(name.clone(), id);
        Ok(id)
    }

    fn drop_name(&mut self, id: Id) {
        let node = self.node_mut(id);
        node.names -= 1;
        if node.names == 0 {
            self.nodes.remove(&id);
        }
    }

    fn is_within(&self, mut dir: Id, above: Id) -> bool {
        while dir != above && dir != ROOT {
            dir = self.node(dir).parent;
        }
        dir == above
    }

    fn rename(&mut self, from: Id, from_name: &Name, to: Id, to_name: &Name) -> Result<(), i32> {
        if self.entries(to).is_none() {
            return Err(ENOTDIR);
        }
        let moved = self.present(from, from_name)?;
        if to_name.len() > 255 {
            return Err(ENAMETOOLONG);
        }
        if self.is_dir(moved) && self.is_within(to, moved) {
            return Err(EINVAL);
        }
        match self.present(to, to_name) {
            Ok(target) if target == moved => return Ok(()),
            Ok(target) => match (self.is_dir(moved), self.entries(target)) {
                (true, None) => return Err(ENOTDIR),
                (true, Some(entries)) if !entries.is_empty() => return Err(ENOTEMPTY),
                (false, Some(_)) if self.is_within(from, target) => return Err(ENOTEMPTY),
                (false, Some(_)) => return Err(EISDIR),
                _ => self.drop_name(target),
            },
            Err(_) => (),
        }
        self.entries_mut(from).remove(from_name);
        self.entries_mut(to).insert(to_name.clone(), moved);
        self.node_mut(moved).parent = to;
        Ok(())
    }

    /// Does an operation to a file system through its driver, and says which inode is new.
    pub(crate) fn ask(&self, fs: &dyn FileSystem, action: &Action) -> Result<Option<InodeNumber>> {
        let w = fs.writer()?;
        let inode = |id: &Id| self.node(*id).inode;
        let new = NewInode { permissions: PERMISSIONS, uid: 0, gid: 0 };
        let made = match action {
            Action::Create(dir, name) => w.create(inode(dir), name.as_bstr(), new)?,
            Action::Mkdir(dir, name) => w.mkdir(inode(dir), name.as_bstr(), new)?,
            Action::Symlink(dir, name, target) => {
                let new = NewInode { permissions: 0o777, ..new };
                w.symlink(inode(dir), name.as_bstr(), target.as_bstr(), new)?
            }
            Action::Mknod(dir, name, file_type, device) => {
                w.mknod(inode(dir), name.as_bstr(), *file_type, *device, new)?
            }
            Action::Link(node, dir, name) => {
                return w.link(inode(node), inode(dir), name.as_bstr()).map(|()| None);
            }
            Action::Unlink(dir, name) => return w.unlink(inode(dir), name.as_bstr()).map(|()| None),
            Action::Rmdir(dir, name) => return w.rmdir(inode(dir), name.as_bstr()).map(|()| None),
            Action::Rename(from, from_name, to, to_name) => {
                let renamed = w.rename(inode(from), from_name.as_bstr(), inode(to), to_name.as_bstr());
                return renamed.map(|()| None);
            }
            Action::Write(id, offset, data) => {
                return w.write(inode(id), *offset as u64, data).map(|()| None);
            }
            Action::Truncate(id, size) => return w.truncate(inode(id), *size as u64).map(|()| None),
            Action::Punch(id, offset, len) => {
                return w.punch_hole(inode(id), *offset as u64, *len as u64).map(|()| None);
            }
            Action::SetXattr(id, name, value) => {
                let set = w.set_xattr(inode(id), name.as_str().into(), value, XattrMode::Any);
                return set.map(|()| None);
            }
            Action::RemoveXattr(id, name) => {
                return w.remove_xattr(inode(id), name.as_str().into()).map(|()| None);
            }
        };
        Ok(Some(made))
    }

    /// Does an operation to both. A disk that is full changes neither; `false` then.
    pub(crate) fn step(&mut self, fs: &dyn FileSystem, action: &Action) -> Result<bool, String> {
        let answer = self.ask(fs, action);
        if let Err(Error::NoSpace(_)) = answer {
            return Ok(false);
        }
        let expected = self.apply(action);
        match (&answer, &expected) {
            (Ok(inode), Ok(id)) => {
                self.number(*id, *inode);
                Ok(true)
            }
            (Err(e), Err(errno)) if e.errno() == *errno => Ok(true),
            _ => Err(format!("{}: {answer:?}, but the model says {expected:?}", self.show(action))),
        }
    }

    fn number(&mut self, id: Option<Id>, inode: Option<InodeNumber>) {
        if let (Some(id), Some(inode)) = (id, inode) {
            self.node_mut(id).inode = inode;
        }
    }

    /// Does an operation to the model that a file system did, with this new inode.
    pub(crate) fn note(&mut self, action: &Action, inode: Option<InodeNumber>) {
        let id = self.apply(action).unwrap_or_else(|e| panic!("{}: errno {e}", self.show(action)));
        self.number(id, inode);
    }

    /// An operation, short.
    pub(crate) fn show(&self, action: &Action) -> String {
        let mut text = format!("{action:?}");
        if text.len() > 400 {
            text.truncate(text.floor_char_boundary(400));
        }
        text
    }

    /// The path of a node below `root`, by one of its names.
    fn path(&self, root: &Path, id: Id) -> PathBuf {
        if id == ROOT {
            return root.to_owned();
        }
        let (dir, name) = self
            .nodes
            .iter()
            .find_map(|(&dir, _)| {
                let entries = self.entries(dir)?;
                entries.iter().find(|(_, node)| **node == id).map(|(name, _)| (dir, name))
            })
            .expect("every node has a name");
        self.path(root, dir).join(OsStr::from_bytes(name))
    }

    /// Does an operation to a mounted file system; its `errno`, 0 for success.
    pub(crate) fn ask_kernel(&self, root: &Path, action: &Action) -> i32 {
        let at = |dir: &Id, name: &Name| self.path(root, *dir).join(OsStr::from_bytes(name));
        let done: io::Result<()> = match action {
            Action::Create(dir, name) => {
                let path = at(dir, name);
                let flags =
                    rustix::fs::OFlags::CREATE | rustix::fs::OFlags::EXCL | rustix::fs::OFlags::WRONLY;
                rustix::fs::open(path, flags, Mode::from_raw_mode(PERMISSIONS)).map(drop).map_err(Into::into)
            }
            Action::Mkdir(dir, name) => {
                rustix::fs::mkdir(at(dir, name), Mode::from_raw_mode(PERMISSIONS)).map_err(Into::into)
            }
            Action::Symlink(dir, name, target) => {
                rustix::fs::symlink(OsStr::from_bytes(target), at(dir, name)).map_err(Into::into)
            }
            Action::Mknod(dir, name, file_type, device) => {
                let node = match file_type {
                    FileType::Fifo => NodeType::Fifo,
                    FileType::Socket => NodeType::Socket,
                    FileType::CharDevice => NodeType::CharacterDevice,
                    _ => NodeType::BlockDevice,
                };
                let device = rustix::fs::makedev(device.major, device.minor);
                let mode = Mode::from_raw_mode(PERMISSIONS);
                rustix::fs::mknodat(CWD, at(dir, name), node, mode, device).map_err(Into::into)
            }
            Action::Link(node, dir, name) => std::fs::hard_link(self.path(root, *node), at(dir, name)),
            Action::Unlink(dir, name) => std::fs::remove_file(at(dir, name)),
            Action::Rmdir(dir, name) => std::fs::remove_dir(at(dir, name)),
            Action::Rename(from, from_name, to, to_name) => {
                std::fs::rename(at(from, from_name), at(to, to_name))
            }
            Action::Write(id, offset, data) => File::options()
                .write(true)
                .open(self.path(root, *id))
                .and_then(|file| file.write_all_at(data, *offset as u64)),
            Action::Truncate(id, size) => File::options()
                .write(true)
                .open(self.path(root, *id))
                .and_then(|file| file.set_len(*size as u64)),
            _ => return 0,
        };
        done.map_or_else(|e| e.raw_os_error().unwrap_or(-1), |()| 0)
    }

    /// Fails if a tree differs from the model.
    pub(crate) fn assert_like(&self, found: &Tree, what: &str) {
        let mut names = Vec::new();
        let mut todo = vec![(Vec::new(), ROOT)];
        while let Some((path, id)) = todo.pop() {
            let node = self.node(id);
            let shown = path.escape_ascii().to_string();
            let Some(there) = found.get(&path) else { panic!("{what}: {shown} is missing") };
            let file_type = match &node.kind {
                Kind::Dir(entries) => {
                    for (name, child) in entries {
                        let mut path = path.clone();
                        path.push(b'/');
                        path.extend_from_slice(name);
                        todo.push((path, *child));
                    }
                    let dirs = entries.values().filter(|&&id| self.is_dir(id)).count() as u64;
                    assert_eq!(there.links, 2 + dirs, "{what}: links of {shown}");
                    FileType::Directory
                }
                Kind::File(content) => {
                    assert_eq!(there.size, content.len() as u64, "{what}: size of {shown}");
                    assert_eq!(there.content, tree::content_hash(content), "{what}: content of {shown}");
                    FileType::Regular
                }
                Kind::Link(target) => {
                    assert_eq!(there.content.as_bytes(), target, "{what}: target of {shown}");
                    FileType::Symlink
                }
                Kind::Special(file_type, device) => {
                    assert_eq!(there.device, device.to_rdev(), "{what}: device of {shown}");
                    *file_type
                }
            };
            assert_eq!(there.mode, file_type.mode_bits() | node.permissions, "{what}: mode of {shown}");
            if file_type != FileType::Directory {
                assert_eq!(there.links, node.names, "{what}: links of {shown}");
            }
            let xattrs: Vec<_> = node.xattrs.iter().map(|(n, v)| (n.clone(), v.clone())).collect();
            assert_eq!(there.xattrs, xattrs, "{what}: attributes of {shown}");
            names.push(path);
        }
        for path in found.keys() {
            assert!(names.contains(path), "{what}: {} should not be there", path.escape_ascii());
        }
    }
}

/// A name of few short ones, so that many are taken, or now and then a long one.
fn new_name(random: &mut Random) -> Name {
    match random.below(20) {
        0 => vec![b'n'; 255],
        1 => vec![b'm'; 256],
        2..5 => {
            let mut name = format!("{}-", random.below(500)).into_bytes();
            name.resize(random.below(200).max(name.len()), b'p');
            name
        }
        5 => <&BStr>::from(&b"\xff\x80"[..]).to_vec(),
        _ => format!("{}", random.below(60)).into_bytes(),
    }
}
