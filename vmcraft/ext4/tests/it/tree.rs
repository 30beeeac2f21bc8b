//! Everything that a file system says of its files, from our driver and from a mounted directory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, SeekFrom, StatxFlags};
use sha2::{Digest, Sha256};
use vmcraft_block::{BlockDevice, RawFile};
use vmcraft_fs::{FileSystem, FileType, InodeNumber, OpenOptions, Result};

/// A tree by path; the root is the empty path.
pub(crate) type Tree = BTreeMap<Vec<u8>, Node>;

/// What is compared of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) inode: u64,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) links: u64,
    pub(crate) device: u64,
    pub(crate) size: u64,
    pub(crate) blocks: u64,
    pub(crate) block_size: u32,
    /// Access, modification, change and birth, in seconds and nanoseconds.
    pub(crate) times: [(i64, u32); 4],
    /// Sorted by name.
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
    /// A symbolic link's target, or the hash of a file's content.
    pub(crate) content: String,
    /// Where a file has data.
    pub(crate) data: Vec<(u64, u64)>,
}

/// Larger files are hashed only where they have data.
const HASHED_WHOLE: u64 = 64 << 20;

pub(crate) fn open(image: &Path) -> Result<Box<dyn FileSystem>> {
    open_with(image, OpenOptions::default())
}

pub(crate) fn open_with(image: &Path, options: OpenOptions) -> Result<Box<dyn FileSystem>> {
    let file = File::open(image).unwrap_or_else(|e| panic!("{}: {e}", image.display()));
    (vmcraft_ext4::DRIVER.open)(Arc::new(RawFile::new(file, true)?) as Arc<dyn BlockDevice>, options)
}

/// Opens a volume that may be changed.
pub(crate) fn open_for_writing(image: &Path) -> Result<Box<dyn FileSystem>> {
    let file = File::options().read(true).write(true).open(image);
    let file = file.unwrap_or_else(|e| panic!("{}: {e}", image.display()));
    let device = Arc::new(RawFile::new(file, false)?) as Arc<dyn BlockDevice>;
    (vmcraft_ext4::DRIVER.open)(device, OpenOptions::default())
}

/// Walks what our driver shows, and looks each name up. Fails on the first error.
pub(crate) fn ours(fs: &dyn FileSystem) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut todo = vec![(Vec::new(), fs.root(), FileType::Directory, fs.root())];
    while let Some((path, inode, entry_type, parent)) = todo.pop() {
        let node = our_node(fs, inode)?;
        let file_type = FileType::from_mode(node.mode);
        assert!(
            entry_type == file_type || entry_type == FileType::Unknown,
            "{}: entry says {entry_type:?}, inode {file_type:?}",
            path.escape_ascii()
        );
        if file_type == FileType::Directory {
            let mut names = Vec::new();
            fs.read_dir(inode, 0, &mut |entry| {
                let mut child = path.clone();
                child.push(b'/');
                child.extend_from_slice(entry.name);
                names.push((entry.name.to_owned(), entry.inode));
                todo.push((child, entry.inode, entry.file_type, inode));
                ControlFlow::Continue(())
            })?;
            for (name, child) in names {
                assert_eq!(fs.lookup(inode, name.as_ref())?, child, "lookup of {name} in inode {inode}");
            }
            let missing = fs.lookup(inode, "no such name".into());
            assert!(matches!(missing, Err(vmcraft_fs::Error::NotFound)), "{missing:?}");
            assert_eq!(fs.parent(inode)?, parent, "parent of inode {inode}");
        }
        tree.insert(path, node);
    }
    Ok(tree)
}

fn our_node(fs: &dyn FileSystem, inode: InodeNumber) -> Result<Node> {
    let m = fs.metadata(inode)?;
    let mut node = Node {
        inode: m.inode.0,
        mode: m.mode(),
        owner: (m.uid, m.gid),
        links: m.links,
        device: m.device.map_or(0, |d| d.to_rdev()),
        size: m.size_bytes,
        blocks: m.blocks_512,
        block_size: m.block_size,
        times: [m.accessed, m.modified, m.changed, m.created.unwrap_or_default()]
            .map(|t| (t.seconds, t.nanoseconds)),
        xattrs: fs.xattrs(inode)?.into_iter().map(|(n, v)| (n.to_string(), v)).collect(),
        content: String::new(),
        data: Vec::new(),
    };
    node.xattrs.sort();
    match m.file_type {
        FileType::Symlink => node.content = fs.read_link(inode)?.to_string(),
        FileType::Regular => {
            let mut at = 0;
            while let Some((start, end)) = fs.next_data(inode, at)? {
                assert!(at <= start && start < end && end <= m.size_bytes, "{at} {start} {end}");
                push_run(&mut node.data, start, end);
                at = end;
            }
            node.content = hash(m.size_bytes, &node.data, |offset, buf| {
                fs.read(inode, offset, buf).map_err(io::Error::other)
            })
            .map_err(vmcraft_fs::Error::Io)?;
        }
        _ => (),
    }
    Ok(node)
}

/// Walks a mounted directory.
pub(crate) fn mounted(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut todo = vec![(Vec::new(), root.to_owned())];
    while let Some((name, path)) = todo.pop() {
        let node = kernel_node(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        if FileType::from_mode(node.mode) == FileType::Directory {
            let entries = std::fs::read_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            for entry in entries {
                let entry = entry.expect("a readable directory");
                let mut child = name.clone();
                child.push(b'/');
                child.extend_from_slice(entry.file_name().as_bytes());
                todo.push((child, entry.path()));
            }
        }
        tree.insert(name, node);
    }
    tree
}

fn kernel_node(path: &Path) -> io::Result<Node> {
    let m = path.symlink_metadata()?;
    let birth = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BTIME)?;
    let time = |s: i64, ns: i64| (s, u32::try_from(ns).expect("nanoseconds"));
    let mut node = Node {
        inode: m.ino(),
        mode: m.mode(),
        owner: (m.uid(), m.gid()),
        links: m.nlink(),
        device: m.rdev(),
        size: m.size(),
        blocks: m.blocks(),
        block_size: u32::try_from(m.blksize()).expect("a block size"),
        times: [
            time(m.atime(), m.atime_nsec()),
            time(m.mtime(), m.mtime_nsec()),
            time(m.ctime(), m.ctime_nsec()),
            (birth.stx_btime.tv_sec, birth.stx_btime.tv_nsec),
        ],
        xattrs: xattrs(path)?,
        content: String::new(),
        data: Vec::new(),
    };
    if m.is_symlink() {
        node.content = std::fs::read_link(path)?.as_os_str().as_bytes().escape_ascii().to_string();
    } else if m.is_file() {
        let file = File::open(path)?;
        let mut at = 0;
        while at < m.size() {
            let Ok(start) = rustix::fs::seek(&file, SeekFrom::Data(at)) else { break };
            let end = rustix::fs::seek(&file, SeekFrom::Hole(start))?;
            push_run(&mut node.data, start, end);
            at = end;
        }
        node.content = hash(m.size(), &node.data, |offset, buf| {
            file.read_exact_at(buf, offset)?;
            Ok(buf.len())
        })?;
    }
    Ok(node)
}

fn xattrs(path: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut names = vec![0; 1 << 16];
    let len = rustix::fs::llistxattr(path, &mut names[..])?;
    let mut all = Vec::new();
    for name in names[..len].split(|&b| b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0; 1 << 16];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        value.truncate(len);
        all.push((String::from_utf8_lossy(name).into_owned(), value));
    }
    all.sort();
    Ok(all)
}

/// Adds a run; one that begins where the last ends is part of it.
fn push_run(runs: &mut Vec<(u64, u64)>, start: u64, end: u64) {
    match runs.last_mut() {
        Some(last) if last.1 == start => last.1 = end,
        _ => runs.push((start, end)),
    }
}

/// The hash of a file's content; `read` fills the buffer.
fn hash(
    size: u64,
    data: &[(u64, u64)],
    read: impl Fn(u64, &mut [u8]) -> io::Result<usize>,
) -> io::Result<String> {
    let whole = [(0, size)];
    let ranges = if size <= HASHED_WHOLE { &whole[..] } else { data };
    let mut hasher = Sha256::new();
    let mut buf = vec![0; 1 << 17];
    for &(start, end) in ranges {
        let mut at = start;
        while at < end {
            let len = usize::try_from(end - at).map_or(buf.len(), |left| left.min(buf.len()));
            let buf = &mut buf[..len];
            buf.fill(0xa5); // what is not written would show
            if read(at, buf)? != buf.len() {
                return Err(io::Error::other(format!("short read of {len} bytes at {at}, of {size}")));
            }
            hasher.update(&*buf);
            at += len as u64;
        }
    }
    Ok(hex(&hasher.finalize()))
}

/// What [`Node::content`] is for a regular file with this content.
pub(crate) fn content_hash(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Fails with each path that differs.
pub(crate) fn assert_same(kernel: &Tree, ours: &Tree, what: &str) {
    let mut differences = Vec::new();
    for path in kernel.keys().chain(ours.keys().filter(|p| !kernel.contains_key(*p))) {
        let (k, o) = (kernel.get(path), ours.get(path));
        if k != o {
            differences.push(format!("/{}\n  kernel: {k:?}\n  ours:   {o:?}", path.escape_ascii()));
        }
    }
    assert!(
        differences.is_empty(),
        "{what}: {} of {} paths differ:\n{}",
        differences.len(),
        kernel.len(),
        differences.iter().take(5).cloned().collect::<Vec<_>>().join("\n")
    );
}
