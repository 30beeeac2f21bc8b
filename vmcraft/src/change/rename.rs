//! Renaming, and moving as `mv` does.

use bstr::{BStr, BString, ByteSlice};

use crate::change::copy::{CopyOptions, copy_node};
use crate::change::remove::{check_not_mounted, remove_tree};
use crate::change::{Directory, child_error};
use crate::host::Host;
use crate::vfs::{LastLink, Node, Vfs, join};
use crate::{Error, GuestPath, Result};

/// As `rename(2)`.
pub(crate) fn rename(vfs: &Vfs, from: &GuestPath, to: &GuestPath) -> Result<()> {
    let (from_dir, from_name) = vfs.resolve_parent(from)?;
    let (to_dir, to_name) = vfs.resolve_parent(to)?;
    if from_dir.mount != to_dir.mount {
        return Err(Error::CrossDevice { from: from.as_bstr().into(), to: to.as_bstr().into() });
    }
    if to.as_bstr().ends_with(b"/") || from.as_bstr().ends_with(b"/") {
        needs_directory(vfs, &from_dir, from_name.as_bstr())?;
    }
    rename_in(vfs, (&from_dir, from_name.as_bstr()), (&to_dir, to_name.as_bstr()))
}

/// Renames within a file system.
fn rename_in(vfs: &Vfs, from: (&Node, &BStr), to: (&Node, &BStr)) -> Result<()> {
    let ((from_dir, from_name), (to_dir, to_name)) = (from, to);
    check_not_mounted(vfs, from_dir, from_name)?;
    check_not_mounted(vfs, to_dir, to_name)?;
    from_dir.writer()?.rename(from_dir.inode, from_name, to_dir.inode, to_name).map_err(|source| match source
    {
        vmcraft_fs::Error::NotFound => child_error(from_dir, from_name, source),
        _ => child_error(to_dir, to_name, source),
    })
}

fn needs_directory(vfs: &Vfs, dir: &Node, name: &BStr) -> Result<()> {
    let node = vfs.child(dir, name)?;
    if node.metadata()?.is_dir() { Ok(()) } else { Err(node.error(vmcraft_fs::Error::NotADirectory)) }
}

/// Where `mv` and `cp` put a file of this name: into a directory that is there, or under the name
/// that was given.
pub(super) fn destination(vfs: &Vfs, to: &GuestPath, name: &BStr, is_dir: bool) -> Result<(Node, BString)> {
    match vfs.resolve(to, LastLink::Follow) {
        Ok(node) if node.metadata()?.is_dir() => return Ok((node, name.to_owned())),
        Err(e) if !e.is_not_found() => return Err(e),
        _ => {}
    }
    if to.as_bstr().ends_with(b"/") && !is_dir {
        let source = vmcraft_fs::Error::NotADirectory;
        return Err(Error::Path { path: to.as_bstr().into(), component: None, source });
    }
    vfs.resolve_parent(to)
}

/// As `mv`: into a directory if `to` is one, and across file systems by copying.
pub(crate) fn move_to(vfs: &Vfs, host: &mut Host, from: &GuestPath, to: &GuestPath) -> Result<()> {
    let (from_dir, from_name) = vfs.resolve_parent(from)?;
    let from_name = from_name.as_bstr();
    let source = vfs.child(&from_dir, from_name)?;
    let is_dir = source.metadata()?.is_dir();
    let (to_dir, to_name) = destination(vfs, to, from_name, is_dir)?;
    let to_name = to_name.as_bstr();
    let replaced = match vfs.child(&to_dir, to_name) {
        Ok(node) => Some(node),
        Err(e) if e.is_not_found() => None,
        Err(e) => return Err(e),
    };
    if let Some(replaced) = &replaced {
        if (replaced.mount, replaced.inode) == (source.mount, source.inode) {
            return Err(same_file(&source.path, &join(&to_dir.path, to_name)));
        }
        let fits = match (is_dir, replaced.metadata()?.is_dir()) {
            (true, false) => Err(vmcraft_fs::Error::NotADirectory),
            (false, true) => Err(vmcraft_fs::Error::IsADirectory),
            _ => Ok(()),
        };
        fits.map_err(|source| replaced.error(source))?;
    }
    check_not_mounted(vfs, &from_dir, from_name)?;
    if from_dir.mount == to_dir.mount {
        return rename_in(vfs, (&from_dir, from_name), (&to_dir, to_name));
    }
    if replaced.is_some() {
        // As renaming would replace it: a directory must be empty.
        check_not_mounted(vfs, &to_dir, to_name)?;
        let writer = to_dir.writer()?;
        match is_dir {
            true => writer.rmdir(to_dir.inode, to_name),
            false => writer.unlink(to_dir.inode, to_name),
        }
        .map_err(|source| child_error(&to_dir, to_name, source))?;
    }
    copy_node(vfs, host, source, &Directory::of(to_dir)?, to_name, &CopyOptions::archive())?;
    remove_tree(vfs, host, &from_dir, from_name)
}

pub(super) fn same_file(one: &BString, other: &BString) -> Error {
    Error::Usage(format!("{one} and {other} are the same file"))
}
