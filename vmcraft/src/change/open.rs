//! Opening a file to write its content, as `open(2)` does.

use bstr::{BString, ByteSlice};
use vmcraft_fs::FileType;

use crate::change::{Directory, New, NewFile, drop_capabilities};
use crate::vfs::{LastLink, Node, Vfs, join};
use crate::{Error, GuestPath, Result};

/// The permissions that a new file is asked for.
const PERMISSIONS: u32 = 0o666;

/// How many symbolic links are followed to where a file is made: Linux's MAXSYMLINKS.
const MAX_SYMLINKS: usize = 40;

/// What opening does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// The file must be there, and keeps its content.
    Existing,
    /// It is made if it is not there, and keeps its content otherwise.
    Create,
    /// It is made if it is not there, and emptied otherwise.
    Truncate,
}

/// A regular file, to be written. Links are followed, also one whose target is to be made.
pub(crate) fn open(vfs: &Vfs, path: &GuestPath, opening: Opening, umask: u32) -> Result<Node> {
    let node = match vfs.resolve(path, LastLink::Follow) {
        Ok(node) => node,
        Err(e) if opening == Opening::Existing || !e.is_not_found() => return Err(e),
        Err(missing) => return create(vfs, path, umask, missing),
    };
    match node.metadata()?.file_type {
        FileType::Regular => {}
        FileType::Directory => return Err(node.error(vmcraft_fs::Error::IsADirectory)),
        _ => return Err(node.error(vmcraft_fs::Error::InvalidInput("not a regular file"))),
    }
    let writer = node.writer()?;
    if opening == Opening::Truncate {
        writer.truncate(node.inode, 0).map_err(|source| node.error(source))?;
    }
    drop_capabilities(&node)?;
    Ok(node)
}

/// Makes the file that a path leads to, through links that lead nowhere yet. `missing` is how
/// following the path failed.
fn create(vfs: &Vfs, path: &GuestPath, umask: u32, missing: Error) -> Result<Node> {
    let mut path = path.as_bstr().to_owned();
    for _ in 0..=MAX_SYMLINKS {
        if path.ends_with(b"/") || path.ends_with(b"/.") || path.ends_with(b"/..") {
            return Err(match vfs.resolve(GuestPath::new(&path), LastLink::Follow) {
                Err(e) if !e.is_not_found() => e,
                _ => Error::Path { path, component: None, source: vmcraft_fs::Error::IsADirectory },
            });
        }
        let Ok((parent, name)) = vfs.resolve_parent(GuestPath::new(&path)) else { return Err(missing) };
        let Ok(child) = vfs.child(&parent, name.as_bstr()) else {
            let directory = Directory::of(parent)?;
            let inode = directory.make(name.as_bstr(), NewFile::Regular, New::by_root(PERMISSIONS, umask))?;
            return Ok(directory.node_of(name.as_bstr(), inode));
        };
        // Something is there, and what it leads to is not: a link.
        let target: BString = match child.filesystem.read_link(child.inode) {
            Ok(target) if !target.is_empty() => target,
            _ => return Err(missing),
        };
        path = if target.starts_with(b"/") { target } else { join(&parent.path, target.as_bstr()) };
    }
    Err(missing)
}
