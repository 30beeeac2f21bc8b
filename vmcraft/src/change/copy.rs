//! Copying inside the guest, as `cp` does.

use std::collections::HashMap;

use bstr::{BStr, BString, ByteSlice};
use vmcraft_fs::{FileType, InodeNumber, Metadata, SetMetadata, XattrMode};

use crate::acl;
use crate::change::rename::{destination, same_file};
use crate::change::{Directory, New, NewFile, change_permissions, drop_capabilities, remove};
use crate::content::{Content, Run};
use crate::host::Host;
use crate::vfs::{LastLink, MountId, Node, Vfs};
use crate::walk::Walk;
use crate::{Error, GuestPath, Progress, Result};

/// How a copy is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CopyOptions {
    /// Directories with all that is below them; links and special files as what they are.
    recursive: bool,
    /// Owners, permissions, times, attributes and hard links are those of the original.
    preserve: bool,
    /// Permissions that copies do not get where they are not preserved.
    umask: u32,
}

impl CopyOptions {
    /// As `cp`.
    pub(crate) fn file(umask: u32) -> Self {
        Self { recursive: false, preserve: false, umask }
    }

    /// As `cp -rP`.
    pub(crate) fn tree(umask: u32) -> Self {
        Self { recursive: true, preserve: false, umask }
    }

    /// As `cp -a`.
    pub(crate) fn archive() -> Self {
        Self { recursive: true, preserve: true, umask: 0 }
    }
}

/// Copies to a name, or into a directory if `to` is one.
pub(crate) fn copy(
    vfs: &Vfs,
    host: &mut Host,
    from: &GuestPath,
    to: &GuestPath,
    options: &CopyOptions,
) -> Result<()> {
    let last = if options.recursive { LastLink::Keep } else { LastLink::Follow };
    let source = vfs.resolve(from, last)?;
    let metadata = source.metadata()?;
    match metadata.file_type {
        FileType::Directory if !options.recursive => {
            return Err(source.error(vmcraft_fs::Error::IsADirectory));
        }
        FileType::Regular => {}
        _ if !options.recursive => {
            return Err(source.error(vmcraft_fs::Error::InvalidInput("not a regular file")));
        }
        _ => {}
    }
    let (_, name) = vfs.resolve_parent(from)?;
    let (dir, name) = destination(vfs, to, name.as_bstr(), metadata.is_dir())?;
    copy_node(vfs, host, source, &Directory::of(dir)?, name.as_bstr(), options)
}

/// Copies what is at `source`, with all that is below it, to a name in a directory.
pub(super) fn copy_node(
    vfs: &Vfs,
    host: &mut Host,
    source: Node,
    to: &Directory,
    name: &BStr,
    options: &CopyOptions,
) -> Result<()> {
    check_not_inside(vfs, &source, &to.node, name)?;
    let mut copier = Copier { vfs, host, options, links: HashMap::new(), copied: 0 };
    let mut walk = Walk::new(vfs, source);
    // The directories that are being filled, each with the original.
    let mut open: Vec<(Directory, Node, Metadata)> = Vec::new();
    while let Some(entry) = walk.next()? {
        while open.len() > entry.depth {
            copier.close(open.pop())?;
        }
        let (dir, name) = match open.last() {
            Some((dir, ..)) => (dir, entry.name().to_owned()),
            None => (to, name.to_owned()),
        };
        let (node, metadata) = (entry.node(), entry.metadata);
        if metadata.is_dir() {
            let copy = copier.directory(dir, name.as_bstr(), &metadata)?;
            open.push((copy, node, metadata));
        } else {
            copier.file(dir, name.as_bstr(), node, &metadata)?;
        }
    }
    while !open.is_empty() {
        copier.close(open.pop())?;
    }
    Ok(())
}

/// A directory that is copied into itself would never end.
fn check_not_inside(vfs: &Vfs, source: &Node, to: &Node, name: &BStr) -> Result<()> {
    if !source.metadata()?.is_dir() {
        return Ok(());
    }
    let origin = (source.mount, source.inode);
    let into_itself = || {
        let to = crate::vfs::join(&to.path, name);
        Error::Usage(format!("{}: a directory cannot be copied into itself, {to}", source.path))
    };
    let (mut mount, mut dir) = (vfs.mount_of(to), to.inode);
    // As many steps as a walk would take down.
    for _ in 0..16 * 1024 {
        if (mount.id, dir) == origin {
            return Err(into_itself());
        }
        let (above, parent) = vfs.parent(mount, dir).map_err(|source| to.error(source))?;
        if (above.id, parent) == (mount.id, dir) {
            return Ok(());
        }
        (mount, dir) = (above, parent);
    }
    Err(to.error(vmcraft_fs::Error::InvalidInput("directories are nested deeper than 16384")))
}

struct Copier<'a> {
    vfs: &'a Vfs,
    host: &'a mut Host,
    options: &'a CopyOptions,
    /// The copies of files that have several names.
    links: HashMap<(MountId, InodeNumber), (MountId, InodeNumber)>,
    /// How many bytes were copied.
    copied: u64,
}

impl Copier<'_> {
    /// What a name leads to now, if it is there. Something that is mounted on it is entered.
    fn existing(&self, dir: &Directory, name: &BStr) -> Result<Option<Node>> {
        match self.vfs.child(&dir.node, name) {
            Ok(node) => Ok(Some(node)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn start_of(&self, metadata: &Metadata) -> New {
        match self.options.preserve {
            true => {
                New { permissions: metadata.permissions, umask: 0, owner: Some((metadata.uid, metadata.gid)) }
            }
            false => New::by_root(metadata.permissions & 0o777, self.options.umask),
        }
    }

    /// Makes a directory, or adds to one that is there.
    fn directory(&self, dir: &Directory, name: &BStr, metadata: &Metadata) -> Result<Directory> {
        match self.existing(dir, name)? {
            Some(node) => Directory::of(node),
            None => {
                let inode = dir.make(name, NewFile::Directory, self.start_of(metadata))?;
                Directory::of(dir.node_of(name, inode))
            }
        }
    }

    /// Completes a directory, whose times would change with what is made in it.
    fn close(&self, copied: Option<(Directory, Node, Metadata)>) -> Result<()> {
        match copied {
            Some((copy, original, metadata)) if self.options.preserve => {
                preserve(&original, &metadata, &copy.node)
            }
            _ => Ok(()),
        }
    }

    fn file(&mut self, dir: &Directory, name: &BStr, node: Node, metadata: &Metadata) -> Result<()> {
        let has_links = self.options.preserve && metadata.links > 1;
        let origin = (node.mount, node.inode);
        if has_links
            && let Some((mount, copy)) = self.links.get(&origin).copied()
            && mount == dir.node.mount
        {
            self.make_way(dir, name)?;
            return dir.writer()?.link(copy, dir.node.inode, name).map_err(|source| dir.error(name, source));
        }
        let copy = match metadata.file_type {
            FileType::Regular => self.regular(dir, name, &node, metadata)?,
            other => {
                self.make_way(dir, name)?;
                let target: BString;
                let file = match other {
                    FileType::Symlink => {
                        target =
                            node.filesystem.read_link(node.inode).map_err(|source| node.error(source))?;
                        NewFile::Symlink(target.as_bstr())
                    }
                    FileType::Unknown | FileType::Regular | FileType::Directory => {
                        return Err(node.error(vmcraft_fs::Error::InvalidInput("a file of an unknown type")));
                    }
                    special => NewFile::Special(special, metadata.device.unwrap_or_default()),
                };
                let inode = dir.make(name, file, self.start_of(metadata))?;
                dir.node_of(name, inode)
            }
        };
        if self.options.preserve {
            preserve(&node, metadata, &copy)?;
        }
        if has_links {
            self.links.insert(origin, (copy.mount, copy.inode));
        }
        Ok(())
    }

    /// Takes away what is there under the name of a link or special file.
    fn make_way(&self, dir: &Directory, name: &BStr) -> Result<()> {
        if self.existing(dir, name)?.is_some() { remove(self.vfs, &dir.node, name) } else { Ok(()) }
    }

    /// Copies the content into the file that a name leads to, or into a new one.
    fn regular(&mut self, dir: &Directory, name: &BStr, node: &Node, metadata: &Metadata) -> Result<Node> {
        let path = crate::vfs::join(&dir.node.path, name);
        let copy = match self.existing(dir, name)? {
            None => {
                let inode = dir.make(name, NewFile::Regular, self.start_of(metadata))?;
                dir.node_of(name, inode)
            }
            Some(_) => {
                let copy = match self.vfs.resolve(GuestPath::new(&path), LastLink::Follow) {
                    Err(e) if e.is_not_found() => {
                        return Err(Error::Usage(format!(
                            "{path}: not written through a symbolic link that leads nowhere"
                        )));
                    }
                    found => found?,
                };
                let fail = |source| Err(copy.error(source));
                match copy.metadata()?.file_type {
                    _ if (copy.mount, copy.inode) == (node.mount, node.inode) => {
                        return Err(same_file(&node.path, &copy.path));
                    }
                    FileType::Regular => {}
                    FileType::Directory => return fail(vmcraft_fs::Error::IsADirectory),
                    _ => return fail(vmcraft_fs::Error::InvalidInput("not a regular file")),
                }
                copy.writer()?.truncate(copy.inode, 0).map_err(|source| copy.error(source))?;
                drop_capabilities(&copy)?;
                copy
            }
        };
        copy_content(self.host, node, &copy, &mut self.copied)?;
        Ok(copy)
    }
}

/// Writes the content of a file into an empty one. Holes stay holes.
fn copy_content(host: &mut Host, node: &Node, copy: &Node, copied: &mut u64) -> Result<()> {
    let content = Content::of_file(node.clone())?;
    let writer = copy.writer()?;
    let fail = |source| copy.error(source);
    let (start, mut at, mut written) = (*copied, 0, 0);
    let mut tick = |position: u64| host.step(Progress { position: start.saturating_add(position), total: 0 });
    content.read_runs(0..content.size_bytes(), &mut tick, |run| {
        match run {
            Run::Data(data) => {
                writer.write(copy.inode, at, data).map_err(fail)?;
                at += data.len() as u64;
                written = at;
            }
            Run::Hole(len) => at += len,
        }
        Ok(())
    })?;
    if written < at {
        writer.truncate(copy.inode, at).map_err(fail)?;
    }
    *copied = copied.saturating_add(at);
    Ok(())
}

/// Gives a copy the original's attributes, owner, permissions and times.
fn preserve(original: &Node, metadata: &Metadata, copy: &Node) -> Result<()> {
    copy_xattrs(original, copy)?;
    let set = SetMetadata {
        permissions: (metadata.file_type != FileType::Symlink).then_some(metadata.permissions),
        uid: Some(metadata.uid),
        gid: Some(metadata.gid),
        accessed: Some(metadata.accessed),
        modified: Some(metadata.modified),
    };
    copy.writer()?.set_metadata(copy.inode, &set).map_err(|source| copy.error(source))
}

/// Gives a copy the extended attributes of the original, and no access control lists but those.
fn copy_xattrs(original: &Node, copy: &Node) -> Result<()> {
    let attributes = original.filesystem.xattrs(original.inode).map_err(|source| original.error(source))?;
    let there = copy.filesystem.xattrs(copy.inode).map_err(|source| copy.error(source))?;
    let writer = copy.writer()?;
    for (name, _) in &there {
        let is_list = name == acl::ACCESS || name == acl::DEFAULT;
        if is_list && !attributes.iter().any(|(other, _)| other == name) {
            writer.remove_xattr(copy.inode, name.as_bstr()).map_err(|source| copy.error(source))?;
        }
    }
    for (name, value) in &attributes {
        if there.iter().any(|(n, v)| (n, v) == (name, value)) {
            continue;
        }
        writer
            .set_xattr(copy.inode, name.as_bstr(), value, XattrMode::Any)
            .map_err(|source| copy.error(source))?;
    }
    Ok(())
}

/// What `copy-attributes` copies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes {
    pub(crate) permissions: bool,
    pub(crate) xattrs: bool,
    pub(crate) owner: bool,
}

/// Gives a file some attributes of another.
pub(crate) fn copy_attributes(from: &Node, to: &Node, what: Attributes) -> Result<()> {
    let metadata = from.metadata()?;
    if what.owner {
        crate::change::change_owner(to, Some(metadata.uid), Some(metadata.gid))?;
    }
    if what.permissions {
        change_permissions(to, metadata.permissions)?;
    }
    if what.xattrs { copy_xattrs(from, to) } else { Ok(()) }
}
