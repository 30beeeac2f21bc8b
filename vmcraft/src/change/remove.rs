//! Removing names, and trees of any size.

use std::ops::ControlFlow;

use bstr::{BStr, BString, ByteSlice};
use vmcraft_fs::{FileType, InodeNumber};

use crate::change::child_error;
use crate::host::Host;
use crate::vfs::{Node, Vfs};
use crate::walk::InodeSet;
use crate::{Error, Progress, Result};

/// How many names of a directory are read at once, and how many where directories are nested deep.
const BATCH: usize = 4096;
const DEEP_BATCH: usize = 64;

/// How many directories down that is.
const DEEP: usize = 16;

/// How deep directories are followed, as a walk does.
const MAX_DEPTH: usize = 16 * 1024;

/// Refuses to take away a name that something is mounted on.
pub(crate) fn check_not_mounted(vfs: &Vfs, dir: &Node, name: &BStr) -> Result<()> {
    let Ok(inode) = dir.filesystem.lookup(dir.inode, name) else { return Ok(()) };
    check_inode_not_mounted(vfs, dir, name, inode)
}

fn check_inode_not_mounted(vfs: &Vfs, dir: &Node, name: &BStr, inode: InodeNumber) -> Result<()> {
    let mount = vfs.mount_of(dir);
    let (on_top, _) = vfs.place(mount, inode);
    if on_top.id == mount.id {
        return Ok(());
    }
    Err(Error::Busy { path: crate::vfs::join(&dir.path, name), device: on_top.device.clone() })
}

/// Takes a name away that leads to anything but a directory.
pub(crate) fn remove(vfs: &Vfs, dir: &Node, name: &BStr) -> Result<()> {
    check_not_mounted(vfs, dir, name)?;
    dir.writer()?.unlink(dir.inode, name).map_err(|source| child_error(dir, name, source))
}

/// A directory that is being emptied.
struct Level {
    dir: Node,
    /// Its name in the directory above.
    name: BString,
    /// Names that were read and are still there, the next one last.
    pending: Vec<(BString, InodeNumber, FileType)>,
    /// Where reading goes on.
    cursor: u64,
    /// Whether the directory's start must be read again to know that it is empty.
    is_changed: bool,
}

/// Takes a name away with all that is below it. Nothing is kept in memory of what is gone: trees
/// of any size and depth are removed in bounded memory.
pub(crate) fn remove_tree(vfs: &Vfs, host: &mut Host, dir: &Node, name: &BStr) -> Result<()> {
    let inode = dir.filesystem.lookup(dir.inode, name).map_err(|source| child_error(dir, name, source))?;
    let mut removed = 0;
    let mut levels: Vec<Level> = Vec::new();
    let mut met = InodeSet::default();
    let mut next = Some((name.to_owned(), inode, FileType::Unknown));
    loop {
        if let Some((name, inode, file_type)) = next.take() {
            let dir = levels.last().map_or(dir, |level| &level.dir);
            check_inode_not_mounted(vfs, dir, name.as_bstr(), inode)?;
            let is_dir = match file_type {
                FileType::Unknown => dir
                    .filesystem
                    .metadata(inode)
                    .map_err(|source| child_error(dir, name.as_bstr(), source))?
                    .is_dir(),
                known => known == FileType::Directory,
            };
            if is_dir {
                let path = crate::vfs::join(&dir.path, name.as_bstr());
                let dir = Node { inode, path, ..dir.clone() };
                let refused = if levels.len() >= MAX_DEPTH {
                    Some("directories are nested deeper than 16384")
                } else if !met.insert(dir.mount, inode) {
                    Some("the directory stands in the tree a second time: the file system is corrupt")
                } else {
                    None
                };
                if let Some(what) = refused {
                    return Err(dir.error(vmcraft_fs::Error::InvalidInput(what)));
                }
                levels.push(Level { dir, name, pending: Vec::new(), cursor: 0, is_changed: false });
            } else {
                dir.writer()?
                    .unlink(dir.inode, name.as_bstr())
                    .map_err(|source| child_error(dir, name.as_bstr(), source))?;
                count(host, &mut removed)?;
            }
        }
        let depth = levels.len();
        let Some(level) = levels.last_mut() else { return Ok(()) };
        next = level.pending.pop();
        if next.is_some() {
            level.is_changed = true;
            continue;
        }
        level.read(if depth < DEEP { BATCH } else { DEEP_BATCH })?;
        if !level.pending.is_empty() {
            continue;
        }
        if level.is_changed {
            // Entries may have moved to where was read before.
            (level.cursor, level.is_changed) = (0, false);
            continue;
        }
        let name = levels.pop().map(|level| level.name).unwrap_or_default();
        let dir = levels.last().map_or(dir, |level| &level.dir);
        dir.writer()?
            .rmdir(dir.inode, name.as_bstr())
            .map_err(|source| child_error(dir, name.as_bstr(), source))?;
        count(host, &mut removed)?;
    }
}

/// Says now and then how many names are gone.
fn count(host: &mut Host, removed: &mut u64) -> Result<()> {
    *removed += 1;
    if removed.is_multiple_of(256) { host.step(Progress { position: *removed, total: 0 }) } else { Ok(()) }
}

impl Level {
    /// Reads the next names.
    fn read(&mut self, most: usize) -> Result<()> {
        let (pending, cursor) = (&mut self.pending, &mut self.cursor);
        self.dir
            .filesystem
            .read_dir(self.dir.inode, *cursor, &mut |entry| {
                pending.push((entry.name.to_owned(), entry.inode, entry.file_type));
                *cursor = entry.next;
                if pending.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .map_err(|source| self.dir.error(source))?;
        // Inodes are freed in the order in which they lie on the disk.
        self.pending.sort_unstable_by_key(|(_, inode, _)| std::cmp::Reverse(*inode));
        Ok(())
    }
}
