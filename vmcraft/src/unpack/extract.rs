//! Placing the members of an archive in the guest.
//!
//! Names are relative to a directory, and the archive is hostile: a name with `..` is refused, and
//! what is absolute begins at the directory all the same. Symbolic links that were there before are
//! followed inside the guest, as in `/lib/x` where `/lib` leads to `usr/lib`. Links that the archive
//! itself brings are followed only where they lead down: an archive cannot bring a link that leads
//! elsewhere and then write through it. GNU tar does the same by making such links last.

use std::collections::HashMap;
use std::rc::Rc;

use bstr::{BStr, BString, ByteSlice};
use vmcraft_fs::{InodeNumber, SetMetadata, Timestamp, XattrMode};

use crate::acl::{self, Acl};
use crate::change::{Directory, New, NewFile, change_permissions, check_not_mounted};
use crate::content::Run;
use crate::owners::Owners;
use crate::unpack::member::{Kind, Member};
use crate::unpack::stream::Stream;
use crate::vfs::{MountId, Node, Vfs, join};
use crate::walk::InodeSet;
use crate::{Error, GuestPath, Result};

/// How many directories are remembered by their names.
const REMEMBERED: usize = 4096;

/// How many symbolic links a name may lead through, as in Linux.
const MAX_SYMLINKS: usize = 40;

/// The permissions of a directory that is not a member itself.
const MISSING_DIRECTORY: u32 = 0o755;

/// Which attributes of the archive are kept.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct UnpackOptions {
    pub(crate) xattrs: bool,
    pub(crate) selinux: bool,
    pub(crate) acls: bool,
}

/// A regular file that is being written.
pub(crate) struct File {
    node: Node,
    at: u64,
    /// Where its data ends; behind it is a hole.
    written: u64,
}

impl File {
    /// What the file is, whatever its names are.
    pub(crate) fn place(&self) -> (MountId, InodeNumber) {
        (self.node.mount, self.node.inode)
    }

    /// Takes away what an earlier member put into it.
    pub(crate) fn empty(&mut self) -> Result<()> {
        self.node.writer()?.truncate(self.node.inode, 0).map_err(|source| self.node.error(source))
    }

    /// Writes the next piece.
    pub(crate) fn put(&mut self, run: Run<'_>) -> Result<()> {
        match run {
            Run::Data(data) => {
                self.node
                    .writer()?
                    .write(self.node.inode, self.at, data)
                    .map_err(|source| self.node.error(source))?;
                self.at = self.at.saturating_add(data.len() as u64);
                self.written = self.at;
            }
            Run::Hole(len) => self.at = self.at.saturating_add(len),
        }
        Ok(())
    }
}

/// The place of members in the guest.
pub(crate) struct Extractor<'a> {
    vfs: &'a Vfs,
    warnings: &'a mut Vec<String>,
    root: Rc<Directory>,
    options: UnpackOptions,
    owners: Owners,
    /// Directories by their names relative to the root, as members wrote them.
    directories: HashMap<BString, Rc<Directory>>,
    /// The symbolic links that the archive brought.
    links: InodeSet,
    /// The times that directories get when nothing more is made in them.
    times: HashMap<(MountId, InodeNumber), (Node, Timestamp)>,
    warned_of_slash: bool,
    warned_of_attributes: bool,
}

impl<'a> Extractor<'a> {
    /// Places members in the directory `start`.
    pub(crate) fn new(
        vfs: &'a Vfs,
        warnings: &'a mut Vec<String>,
        start: Node,
        options: UnpackOptions,
    ) -> Result<Self> {
        start.writer()?;
        Ok(Self {
            vfs,
            warnings,
            root: Rc::new(Directory::of(start)?),
            options,
            owners: if options.acls { Owners::of_guest(vfs) } else { Owners::default() },
            directories: HashMap::new(),
            links: InodeSet::default(),
            times: HashMap::new(),
            warned_of_slash: false,
            warned_of_attributes: false,
        })
    }

    /// Makes a member. If it is a regular file, its content is to be put into what is returned, and
    /// then [`Extractor::finish_file`] to be called.
    pub(crate) fn add(&mut self, member: &Member, stream: &Stream<'_>) -> Result<Option<File>> {
        let refuse = |what: &str| stream.corrupt(format_args!("member {}: {what}", member.name));
        self.place(member, &refuse)
    }

    /// As [`Extractor::add`], for what cannot be refused by its place in a stream.
    pub(crate) fn place(&mut self, member: &Member, refuse: &dyn Fn(&str) -> Error) -> Result<Option<File>> {
        let names = self.names(member.name.as_bstr(), refuse)?;
        let Some((dir_name, name)) = names else {
            // The directory itself.
            return match member.kind {
                Kind::Directory => {
                    let root = self.root.node.clone();
                    self.finish_directory(member, root).map(|()| None)
                }
                _ => Err(refuse("its name stands for the directory itself")),
            };
        };
        let dir = self.directory(dir_name.as_bstr(), refuse)?;
        let name = name.as_bstr();
        let new = New { permissions: member.permissions, umask: 0, owner: Some((member.uid, member.gid)) };
        match &member.kind {
            Kind::Directory => {
                let node = self.make_directory(&dir, name, new)?;
                self.finish_directory(member, node)?;
            }
            Kind::File => {
                let inode = self.make(&dir, name, NewFile::Regular, new)?;
                return Ok(Some(File { node: dir.node_of(name, inode), at: 0, written: 0 }));
            }
            Kind::Symlink(target) => {
                if target.is_empty() {
                    return Err(refuse("it is a symbolic link that leads nowhere"));
                }
                let inode = self.make(&dir, name, NewFile::Symlink(target.as_bstr()), new)?;
                self.links.insert(dir.node.mount, inode);
                self.finish_node(member, &dir.node_of(name, inode))?;
            }
            Kind::Special(file_type, device) => {
                let inode = self.make(&dir, name, NewFile::Special(*file_type, *device), new)?;
                self.finish_node(member, &dir.node_of(name, inode))?;
            }
            Kind::HardLink(target) => self.make_hard_link(&dir, name, target, refuse)?,
        }
        Ok(None)
    }

    /// Gives the regular file that was made as `place` one more name; `member` is a hard link to its
    /// first one. What the file holds can be replaced through what is returned.
    pub(crate) fn add_name(
        &mut self,
        member: &Member,
        place: (MountId, InodeNumber),
        stream: &Stream<'_>,
    ) -> Result<Option<File>> {
        self.add(member, stream)?;
        let refuse = |what: &str| stream.corrupt(format_args!("member {}: {what}", member.name));
        let Some((dir_name, name)) = self.names(member.name.as_bstr(), &refuse)? else { return Ok(None) };
        let dir = self.directory(dir_name.as_bstr(), &refuse)?;
        let node = self.vfs.child(&dir.node, name.as_bstr())?;
        let file = File { node, at: 0, written: 0 };
        if file.place() != place {
            return Err(refuse("the first name of its file is another file's by now"));
        }
        Ok(Some(file))
    }

    /// Completes a regular file.
    pub(crate) fn finish_file(&mut self, member: &Member, file: File) -> Result<()> {
        let File { node, at, written } = file;
        if written < at {
            node.writer()?.truncate(node.inode, at).map_err(|source| node.error(source))?;
        }
        self.finish_node(member, &node)
    }

    /// Completes the directories. Without it they have the times at which they were filled.
    pub(crate) fn finish(self) -> Result<()> {
        for (node, modified) in self.times.into_values() {
            let set = SetMetadata { modified: Some(modified), ..SetMetadata::default() };
            node.writer()?.set_metadata(node.inode, &set).map_err(|source| node.error(source))?;
        }
        Ok(())
    }

    /// The directory and the last name that a member's name is of; `None` for the root.
    fn names(&mut self, name: &BStr, refuse: &dyn Fn(&str) -> Error) -> Result<Option<(BString, BString)>> {
        if name.is_empty() {
            return Err(refuse("it has no name"));
        }
        if name.contains(&0) {
            return Err(refuse("its name has a NUL byte"));
        }
        if name.starts_with(b"/") && !self.warned_of_slash {
            self.warned_of_slash = true;
            self.warnings.push(format!(
                "{name}: names in the archive that begin with / are put below {}",
                self.root.node.path
            ));
        }
        let mut names: Vec<&BStr> = GuestPath::new(name).components().collect();
        if names.iter().any(|name| *name == "..") {
            return Err(refuse("its name contains '..'"));
        }
        let Some(last) = names.pop() else { return Ok(None) };
        Ok(Some((bstr::join("/", names).into(), last.to_owned())))
    }

    /// The directory with this name relative to the root, which is made if it is missing.
    fn directory(&mut self, name: &BStr, refuse: &dyn Fn(&str) -> Error) -> Result<Rc<Directory>> {
        if name.is_empty() {
            return Ok(self.root.clone());
        }
        if let Some(known) = self.directories.get(name) {
            return Ok(known.clone());
        }
        // From the nearest directory above that is known.
        let (mut dir, mut at) = (self.root.clone(), 0);
        let mut end = name.len();
        while let Some(slash) = name[..end].rfind_byte(b'/') {
            if let Some(known) = self.directories.get(name[..slash].as_bstr()) {
                (dir, at) = (known.clone(), slash + 1);
                break;
            }
            end = slash;
        }
        while at < name.len() {
            let end = name[at..].find_byte(b'/').map_or(name.len(), |slash| at + slash);
            dir = Rc::new(self.enter(&dir, name[at..end].as_bstr(), refuse)?);
            if self.directories.len() >= REMEMBERED {
                self.directories.clear();
            }
            self.directories.insert(name[..end].into(), dir.clone());
            at = end + 1;
        }
        Ok(dir)
    }

    /// The directory with one name in another, which is made if it is missing.
    fn enter(&self, dir: &Directory, name: &BStr, refuse: &dyn Fn(&str) -> Error) -> Result<Directory> {
        match self.vfs.child(&dir.node, name) {
            Ok(child) if child.filesystem.read_link(child.inode).is_ok() => {
                match self.follow(dir.node.clone(), name)? {
                    Some(node) => Directory::of(node),
                    None => Err(refuse(&format!(
                        "{} is a symbolic link of the archive that leads out, and is not followed",
                        child.path
                    ))),
                }
            }
            Ok(child) => Directory::of(child),
            Err(e) if e.is_not_found() => {
                let new = New { permissions: MISSING_DIRECTORY, umask: 0, owner: Some((0, 0)) };
                let inode = dir.make(name, NewFile::Directory, new)?;
                Directory::of(dir.node_of(name, inode))
            }
            Err(e) => Err(e),
        }
    }

    /// Follows a symbolic link, and those that it leads through. `None` where one of the archive leads
    /// anywhere but down.
    fn follow(&self, dir: Node, name: &BStr) -> Result<Option<Node>> {
        let mut here = dir;
        let whole = join(&here.path, name);
        let mut pending: Vec<BString> = vec![name.to_owned()];
        let mut links = 0;
        while let Some(name) = pending.pop() {
            if name == ".." {
                let mount = self.vfs.mount_of(&here);
                let (mount, inode) =
                    self.vfs.parent(mount, here.inode).map_err(|source| here.error(source))?;
                let above = here.path.rfind_byte(b'/').unwrap_or(0);
                let path = if above == 0 { "/".into() } else { here.path[..above].into() };
                here = Node::new(mount, inode, path);
                continue;
            }
            let child = self.vfs.child(&here, name.as_bstr())?;
            let Ok(target) = child.filesystem.read_link(child.inode) else {
                here = child;
                continue;
            };
            links += 1;
            if links > MAX_SYMLINKS {
                return Err(Error::TooManySymlinks(whole));
            }
            let path = GuestPath::new(&target);
            let leads_down = !path.is_absolute() && path.components().all(|name| name != "..");
            if !leads_down && self.links.contains(child.mount, child.inode) {
                return Ok(None);
            }
            if path.is_absolute() {
                here = self.vfs.resolve("/".into(), crate::vfs::LastLink::Follow)?;
            }
            pending.extend(path.components().rev().map(BString::from));
        }
        Ok(Some(here))
    }

    /// Makes what is not a directory. What has its name goes first, a directory only if it is empty.
    fn make(&mut self, dir: &Directory, name: &BStr, file: NewFile<'_>, new: New) -> Result<InodeNumber> {
        match dir.make(name, file, new) {
            Err(Error::Path { source: vmcraft_fs::Error::Exists, .. }) => {
                self.make_way(dir, name)?;
                dir.make(name, file, new)
            }
            made => made,
        }
    }

    fn make_way(&mut self, dir: &Directory, name: &BStr) -> Result<()> {
        check_not_mounted(self.vfs, &dir.node, name)?;
        let fail = |source| dir.error(name, source);
        let old = dir.node.filesystem.lookup(dir.node.inode, name).map_err(fail)?;
        let writer = dir.writer()?;
        match writer.unlink(dir.node.inode, name) {
            Err(vmcraft_fs::Error::IsADirectory) => {
                writer.rmdir(dir.node.inode, name).map_err(fail)?;
                self.times.remove(&(dir.node.mount, old));
            }
            done => done.map_err(fail)?,
        }
        // What was remembered may have led through it.
        self.directories.clear();
        Ok(())
    }

    /// Makes a directory, or takes the one that is there, also where a symbolic link leads to it.
    fn make_directory(&mut self, dir: &Directory, name: &BStr, new: New) -> Result<Node> {
        match dir.make(name, NewFile::Directory, new) {
            Err(Error::Path { source: vmcraft_fs::Error::Exists, .. }) => {}
            made => return made.map(|inode| dir.node_of(name, inode)),
        }
        let child = self.vfs.child(&dir.node, name)?;
        if child.metadata()?.is_dir() {
            return Ok(child);
        }
        // A link of the guest to a directory stays, as /lib does; the archive's own gives way.
        if !self.links.contains(child.mount, child.inode)
            && child.filesystem.read_link(child.inode).is_ok()
            && let Ok(Some(target)) = self.follow(dir.node.clone(), name)
            && target.metadata()?.is_dir()
        {
            return Ok(target);
        }
        self.make_way(dir, name)?;
        let inode = dir.make(name, NewFile::Directory, new)?;
        Ok(dir.node_of(name, inode))
    }

    fn make_hard_link(
        &mut self,
        dir: &Rc<Directory>,
        name: &BStr,
        target: &BString,
        refuse: &dyn Fn(&str) -> Error,
    ) -> Result<()> {
        let to = |what: &str| refuse(&format!("it is a hard link to {target}: {what}"));
        let Some((target_dir, target_name)) = self.names(target.as_bstr(), &to)? else {
            return Err(to("that is the directory itself"));
        };
        let target_dir = self.existing_directory(target_dir.as_bstr(), &to)?;
        let inode = target_dir
            .node
            .filesystem
            .lookup(target_dir.node.inode, target_name.as_bstr())
            .map_err(|source| to(&source.to_string()))?;
        if target_dir.node.mount != dir.node.mount {
            return Err(Error::CrossDevice {
                from: join(&target_dir.node.path, target_name.as_bstr()),
                to: join(&dir.node.path, name),
            });
        }
        let link = |dir: &Directory| dir.writer().map(|writer| writer.link(inode, dir.node.inode, name));
        match link(dir)? {
            Err(vmcraft_fs::Error::Exists) => {
                if dir.node.filesystem.lookup(dir.node.inode, name).ok() == Some(inode) {
                    return Ok(());
                }
                self.make_way(dir, name)?;
                link(dir)?.map_err(|source| dir.error(name, source))
            }
            done => done.map_err(|source| dir.error(name, source)),
        }
    }

    /// A directory that a hard link's target is in: nothing is made for it.
    fn existing_directory(&mut self, name: &BStr, refuse: &dyn Fn(&str) -> Error) -> Result<Rc<Directory>> {
        if name.is_empty() || self.directories.contains_key(name) {
            return self.directory(name, refuse);
        }
        let mut dir = self.root.node.clone();
        for component in GuestPath::new(name).components() {
            dir = match self.follow(dir, component) {
                Ok(Some(node)) => node,
                Ok(None) => {
                    return Err(refuse("a symbolic link of the archive that leads out is not followed"));
                }
                Err(Error::Path { source, .. }) => return Err(refuse(&source.to_string())),
                Err(e) => return Err(e),
            };
        }
        Directory::of(dir).map(Rc::new)
    }

    fn finish_directory(&mut self, member: &Member, node: Node) -> Result<()> {
        let set = SetMetadata { uid: Some(member.uid), gid: Some(member.gid), ..SetMetadata::default() };
        node.writer()?.set_metadata(node.inode, &set).map_err(|source| node.error(source))?;
        change_permissions(&node, member.permissions)?;
        self.set_attributes(member, &node)?;
        // What was known of it may be another group or default list now.
        let changed =
            |known: &Rc<Directory>| (known.node.mount, known.node.inode) == (node.mount, node.inode);
        self.directories.retain(|_, known| !changed(known));
        if changed(&self.root) {
            self.root = Rc::new(Directory::of(node.clone())?);
        }
        self.times.insert((node.mount, node.inode), (node, member.modified));
        Ok(())
    }

    /// Sets what creation could not.
    fn finish_node(&mut self, member: &Member, node: &Node) -> Result<()> {
        self.set_attributes(member, node)?;
        let is_link = matches!(member.kind, Kind::Symlink(_));
        let inherits = !is_link && node.metadata()?.permissions != member.permissions;
        let set = SetMetadata {
            permissions: None,
            accessed: member.accessed,
            modified: Some(member.modified),
            ..SetMetadata::default()
        };
        if inherits && member.acl.is_none() {
            // A default list of the directory took some away.
            change_permissions(node, member.permissions)?;
        }
        node.writer()?.set_metadata(node.inode, &set).map_err(|source| node.error(source))
    }

    fn set_attributes(&mut self, member: &Member, node: &Node) -> Result<()> {
        let wanted = self.options;
        if wanted.xattrs || wanted.selinux {
            for (name, value) in &member.xattrs {
                let is_wanted = match name.as_slice() {
                    b"security.selinux" => wanted.selinux,
                    name => wanted.xattrs && !name.starts_with(b"system."),
                };
                if is_wanted {
                    self.set_attribute(node, name.as_bstr(), value)?;
                }
            }
        }
        if !wanted.acls {
            return Ok(());
        }
        for (text, name) in [(&member.acl, acl::ACCESS), (&member.default_acl, acl::DEFAULT)] {
            let Some(text) = text else { continue };
            let list =
                text.to_str().map_err(|e| e.to_string()).and_then(|text| Acl::parse(text, &self.owners));
            match list {
                Ok(list) => self.set_attribute(node, name.into(), &list.encode())?,
                Err(e) => {
                    self.warn_of_attribute(format!(
                        "{}: an access control list was left out: {e}",
                        node.path
                    ));
                }
            }
        }
        Ok(())
    }

    /// Sets an attribute, if the file system can have it.
    fn set_attribute(&mut self, node: &Node, name: &BStr, value: &[u8]) -> Result<()> {
        match node.writer()?.set_xattr(node.inode, name, value, XattrMode::Any) {
            Err(vmcraft_fs::Error::Unsupported(_) | vmcraft_fs::Error::NotPermitted(_)) => {
                self.warn_of_attribute(format!("{}: the extended attribute {name} was left out", node.path));
                Ok(())
            }
            done => done.map_err(|source| node.error(source)),
        }
    }

    /// Says so of the first one.
    fn warn_of_attribute(&mut self, warning: String) {
        if !std::mem::replace(&mut self.warned_of_attributes, true) {
            self.warnings.push(warning);
        }
    }
}
