//! Changing the file system in memory, as the kernel changes ext4.

use bstr::{BStr, ByteSlice};
use vmcraft_fs::{
    DeviceNumber, Error, FileType, FreeSpace, InodeNumber, NewInode, Result, SetMetadata, Tuning, WriteFiles,
    XattrMode,
};

use super::MemoryFs;
use super::state::{Blocks, Content, Inode, State, number};
use crate::acl::{self, Acl};

/// The longest name.
const NAME_BYTES: usize = 255;

/// The largest file.
const FILE_BYTES: u64 = 1 << 44;

const IMMUTABLE: u32 = 0x10;
const APPEND_ONLY: u32 = 0x20;

impl MemoryFs {
    /// Makes an inode with a name.
    fn make(&self, dir: InodeNumber, name: &BStr, content: Content, new: NewInode) -> Result<InodeNumber> {
        check_name(name)?;
        let mut state = self.state();
        if state.children(dir)?.contains_key(name) {
            return Err(Error::Exists);
        }
        check_flags(state.get(dir)?, IMMUTABLE)?;
        let is_dir = matches!(content, Content::Dir(_));
        if is_dir && state.get(dir)?.links >= self.limits.links {
            return Err(Error::TooManyLinks(self.limits.links));
        }
        if state.inodes_used() >= self.limits.inodes {
            return Err(Error::NoSpace("no inode is free"));
        }
        let is_link = matches!(content, Content::Symlink(_));
        let lists = state.get(dir)?.xattrs.iter();
        let default = lists.filter(|_| !is_link).find(|(name, _)| name == acl::DEFAULT);
        let default = default.map(|(_, value)| value.clone());
        let index = state.push(content, place(dir), new.permissions & 0o7777);
        let now = self.sources.now();
        let inode = state.at(index);
        if let Some(default) = default {
            let list = Acl::decode(&default).ok_or(Error::InvalidInput("a corrupt access control list"))?;
            let (access, permissions) = list.inherited(inode.permissions);
            inode.permissions = permissions;
            inode.xattrs.extend(access.map(|list| (acl::ACCESS.into(), list.encode())));
            if is_dir {
                inode.xattrs.push((acl::DEFAULT.into(), default));
            }
        }
        (inode.uid, inode.gid) = (new.uid, new.gid);
        (inode.accessed, inode.modified, inode.changed) = (now, now, now);
        state.add_name(place(dir), name, index);
        self.touch_dir(&mut state, dir);
        Ok(number(index))
    }

    fn touch_dir(&self, state: &mut State, dir: InodeNumber) {
        let now = self.sources.now();
        let dir = state.at(place(dir));
        (dir.modified, dir.changed) = (now, now);
    }

    /// Runs a change of a regular file's content, if there is space for `more` blocks.
    fn change_content(
        &self,
        inode: InodeNumber,
        forbidding: u32,
        more: impl FnOnce(&Blocks) -> Result<u64>,
        change: impl FnOnce(&mut Blocks),
    ) -> Result<()> {
        let mut state = self.state();
        let file = state.get(inode)?;
        check_flags(file, forbidding)?;
        let more = more(content(file)?)?;
        if more > 0 && state.blocks_used() + more > self.limits.blocks {
            return Err(Error::NoSpace("no block is free"));
        }
        let now = self.sources.now();
        let file = state.get_mut(inode)?;
        if let Content::File(blocks) = &mut file.content {
            change(blocks);
        }
        (file.modified, file.changed) = (now, now);
        Ok(())
    }
}

fn content(inode: &Inode) -> Result<&Blocks> {
    match &inode.content {
        Content::File(blocks) => Ok(blocks),
        Content::Dir(_) => Err(Error::IsADirectory),
        _ => Err(Error::InvalidInput("not a regular file")),
    }
}

/// The place in the list of an inode that was found.
fn place(inode: InodeNumber) -> usize {
    inode.0 as usize - 1
}

fn check_name(name: &BStr) -> Result<()> {
    if name.is_empty() || name == "." || name == ".." || name.find_byteset(b"/\0").is_some() {
        return Err(Error::InvalidInput("no name that a file can have"));
    }
    if name.len() > NAME_BYTES {
        return Err(Error::NameTooLong { len: name.len(), most: NAME_BYTES });
    }
    Ok(())
}

fn check_flags(inode: &Inode, forbidding: u32) -> Result<()> {
    match inode.flags & forbidding {
        0 => Ok(()),
        flags if flags & IMMUTABLE != 0 => Err(Error::NotPermitted("the file is immutable")),
        _ => Err(Error::NotPermitted("the file is append-only")),
    }
}

/// The end of a range, if a file can have it.
fn end(offset: u64, len: u64) -> Result<u64> {
    offset.checked_add(len).filter(|end| *end <= FILE_BYTES).ok_or(Error::FileTooLarge(FILE_BYTES))
}

/// The permissions that an access control list says, and whether it says no more than they do.
fn permissions_of(acl: &[u8]) -> Option<(u32, bool)> {
    let (entries, rest) = acl.strip_prefix(&2_u32.to_le_bytes())?.as_chunks::<8>();
    let (mut permissions, mut group, mut is_plain) = (0, 0, true);
    let mut mask = None;
    for [tag, _, bits, ..] in entries {
        let bits = u32::from(*bits);
        match tag {
            0x01 => permissions |= bits << 6,
            0x04 => group = bits,
            0x10 => mask = Some(bits),
            0x20 => permissions |= bits,
            _ => is_plain = false,
        }
    }
    let permissions = permissions | mask.unwrap_or(group) << 3;
    rest.is_empty().then_some((permissions, is_plain && mask.is_none()))
}

impl WriteFiles for MemoryFs {
    fn create(&self, dir: InodeNumber, name: &BStr, new: NewInode) -> Result<InodeNumber> {
        self.make(dir, name, Content::File(Blocks::default()), new)
    }

    fn mkdir(&self, dir: InodeNumber, name: &BStr, new: NewInode) -> Result<InodeNumber> {
        self.make(dir, name, Content::Dir(Default::default()), new)
    }

    fn symlink(&self, dir: InodeNumber, name: &BStr, target: &BStr, new: NewInode) -> Result<InodeNumber> {
        if target.is_empty() {
            return Err(Error::InvalidInput("a symbolic link needs a target"));
        }
        if target.len() >= 4096 {
            return Err(Error::NameTooLong { len: target.len(), most: 4095 });
        }
        self.make(dir, name, Content::Symlink(target.to_owned()), new)
    }

    fn mknod(
        &self,
        dir: InodeNumber,
        name: &BStr,
        file_type: FileType,
        device: DeviceNumber,
        new: NewInode,
    ) -> Result<InodeNumber> {
        let device = match file_type {
            FileType::CharDevice | FileType::BlockDevice => device,
            FileType::Fifo | FileType::Socket => DeviceNumber::default(),
            _ => return Err(Error::InvalidInput("not a type of special file")),
        };
        self.make(dir, name, Content::Special(file_type, device), new)
    }

    fn link(&self, inode: InodeNumber, dir: InodeNumber, name: &BStr) -> Result<()> {
        check_name(name)?;
        let mut state = self.state();
        if state.children(dir)?.contains_key(name) {
            return Err(Error::Exists);
        }
        check_flags(state.get(dir)?, IMMUTABLE)?;
        let found = state.get(inode)?;
        check_flags(found, IMMUTABLE | APPEND_ONLY)?;
        if found.file_type() == FileType::Directory {
            return Err(Error::NotPermitted("a directory has one name"));
        }
        if found.links >= self.limits.links {
            return Err(Error::TooManyLinks(self.limits.links));
        }
        state.add_name(place(dir), name, place(inode));
        state.at(place(inode)).changed = self.sources.now();
        self.touch_dir(&mut state, dir);
        Ok(())
    }

    fn unlink(&self, dir: InodeNumber, name: &BStr) -> Result<()> {
        check_name(name)?;
        let mut state = self.state();
        let inode = state.children(dir)?.get(name).copied().map(number).ok_or(Error::NotFound)?;
        check_flags(state.get(dir)?, IMMUTABLE | APPEND_ONLY)?;
        let found = state.get_mut(inode)?;
        check_flags(found, IMMUTABLE | APPEND_ONLY)?;
        if found.file_type() == FileType::Directory {
            return Err(Error::IsADirectory);
        }
        found.changed = self.sources.now();
        state.remove_name(place(dir), name);
        self.touch_dir(&mut state, dir);
        Ok(())
    }

    fn rmdir(&self, dir: InodeNumber, name: &BStr) -> Result<()> {
        check_name(name)?;
        let mut state = self.state();
        let inode = state.children(dir)?.get(name).copied().map(number).ok_or(Error::NotFound)?;
        check_flags(state.get(dir)?, IMMUTABLE | APPEND_ONLY)?;
        if !state.children(inode)?.is_empty() {
            return Err(Error::NotEmpty);
        }
        check_flags(state.get(inode)?, IMMUTABLE | APPEND_ONLY)?;
        state.remove_name(place(dir), name);
        self.touch_dir(&mut state, dir);
        Ok(())
    }

    fn rename(
        &self,
        from_dir: InodeNumber,
        from_name: &BStr,
        to_dir: InodeNumber,
        to_name: &BStr,
    ) -> Result<()> {
        check_name(from_name)?;
        check_name(to_name)?;
        let mut state = self.state();
        let moved = state.children(from_dir)?.get(from_name).copied().ok_or(Error::NotFound)?;
        let replaced = state.children(to_dir)?.get(to_name).copied();
        if replaced == Some(moved) {
            return Ok(());
        }
        check_flags(state.get(from_dir)?, IMMUTABLE | APPEND_ONLY)?;
        check_flags(state.get(to_dir)?, IMMUTABLE)?;
        check_flags(state.get(number(moved))?, IMMUTABLE | APPEND_ONLY)?;
        let is_dir = |state: &State, inode| {
            state.get(number(inode)).is_ok_and(|inode| inode.file_type() == FileType::Directory)
        };
        let moves_dir = is_dir(&state, moved);
        if moves_dir {
            let mut above = place(to_dir);
            while above != 0 {
                if above == moved {
                    return Err(Error::InvalidInput("a directory cannot be moved into itself"));
                }
                above = state.at(above).parent;
            }
        }
        if let Some(replaced) = replaced {
            match (moves_dir, is_dir(&state, replaced)) {
                (true, false) => return Err(Error::NotADirectory),
                (false, true) => return Err(Error::IsADirectory),
                (true, true) if !state.children(number(replaced))?.is_empty() => return Err(Error::NotEmpty),
                _ => {}
            }
            check_flags(state.get(number(replaced))?, IMMUTABLE | APPEND_ONLY)?;
        } else if moves_dir && from_dir != to_dir && state.get(to_dir)?.links >= self.limits.links {
            return Err(Error::TooManyLinks(self.limits.links));
        }
        let now = self.sources.now();
        if replaced.is_some() {
            state.remove_name(place(to_dir), to_name);
        }
        // The new name first: the inode must not lose its last one.
        state.add_name(place(to_dir), to_name, moved);
        state.remove_name(place(from_dir), from_name);
        state.at(moved).changed = now;
        self.touch_dir(&mut state, from_dir);
        self.touch_dir(&mut state, to_dir);
        Ok(())
    }

    fn write(&self, inode: InodeNumber, offset: u64, data: &[u8]) -> Result<()> {
        let len = data.len() as u64;
        let more = |blocks: &Blocks| {
            end(offset, len)?;
            Ok(blocks.missing(offset, len))
        };
        self.change_content(inode, IMMUTABLE, more, |blocks| {
            if !data.is_empty() {
                blocks.write(offset, data);
            }
        })
    }

    fn truncate(&self, inode: InodeNumber, size: u64) -> Result<()> {
        let more = |_: &Blocks| end(0, size).map(|_| 0);
        self.change_content(inode, IMMUTABLE | APPEND_ONLY, more, |blocks| blocks.truncate(size))
    }

    fn allocate(&self, inode: InodeNumber, offset: u64, len: u64, keep_size: bool) -> Result<()> {
        if len == 0 {
            return Err(Error::InvalidInput("no bytes to give space to"));
        }
        let more = |blocks: &Blocks| {
            end(offset, len)?;
            Ok(blocks.missing(offset, len))
        };
        self.change_content(inode, IMMUTABLE, more, |blocks| {
            for block in Blocks::touched(offset, len) {
                blocks.blocks.entry(block).or_default();
            }
            if !keep_size {
                blocks.size = blocks.size.max(offset + len);
            }
        })
    }

    fn punch_hole(&self, inode: InodeNumber, offset: u64, len: u64) -> Result<()> {
        let more = |_: &Blocks| Ok(0);
        self.change_content(inode, IMMUTABLE | APPEND_ONLY, more, |blocks| blocks.punch(offset, len))
    }

    fn set_metadata(&self, inode: InodeNumber, set: &SetMetadata) -> Result<()> {
        let now = self.sources.now();
        let mut state = self.state();
        let found = state.get_mut(inode)?;
        check_flags(found, IMMUTABLE | APPEND_ONLY)?;
        found.permissions = set.permissions.map_or(found.permissions, |permissions| permissions & 0o7777);
        let permissions = found.permissions;
        let lists = found.xattrs.iter_mut().filter(|(name, _)| name == acl::ACCESS);
        for (_, value) in lists.filter(|_| set.permissions.is_some()) {
            let list = Acl::decode(value).ok_or(Error::InvalidInput("a corrupt access control list"))?;
            *value = list.with_permissions(permissions).encode();
        }
        found.uid = set.uid.unwrap_or(found.uid);
        found.gid = set.gid.unwrap_or(found.gid);
        found.accessed = set.accessed.unwrap_or(found.accessed);
        found.modified = set.modified.unwrap_or(found.modified);
        found.changed = now;
        Ok(())
    }

    fn set_xattr(&self, inode: InodeNumber, name: &BStr, value: &[u8], mode: XattrMode) -> Result<()> {
        let now = self.sources.now();
        let mut state = self.state();
        let found = state.get_mut(inode)?;
        check_flags(found, IMMUTABLE | APPEND_ONLY)?;
        let is_user = name.starts_with(b"user.");
        if is_user && !matches!(found.content, Content::File(_) | Content::Dir(_)) {
            return Err(Error::NotPermitted("only files and directories have user attributes"));
        }
        let prefixes = ["user.", "trusted.", "security.", "system.posix_acl_"];
        if !prefixes.iter().any(|prefix| name.starts_with(prefix.as_bytes()) && name.len() > prefix.len()) {
            return Err(Error::Unsupported(format!("the extended attribute {name}")));
        }
        let at = found.xattrs.iter().position(|(n, _)| n == name);
        match (mode, at) {
            (XattrMode::Create, Some(_)) => return Err(Error::Exists),
            (XattrMode::Replace, None) => return Err(Error::NoAttribute),
            _ => {}
        }
        let mut is_kept = true;
        if name == "system.posix_acl_access" {
            let bad = Error::InvalidInput("not an access control list");
            let (permissions, is_plain) = permissions_of(value).ok_or(bad)?;
            found.permissions = found.permissions & 0o7000 | permissions;
            is_kept = !is_plain;
        }
        match at {
            Some(at) if is_kept => found.xattrs[at].1 = value.to_vec(),
            Some(at) => drop(found.xattrs.remove(at)),
            None if is_kept => found.xattrs.push((name.to_owned(), value.to_vec())),
            None => {}
        }
        found.changed = now;
        Ok(())
    }

    fn remove_xattr(&self, inode: InodeNumber, name: &BStr) -> Result<()> {
        let now = self.sources.now();
        let mut state = self.state();
        let found = state.get_mut(inode)?;
        check_flags(found, IMMUTABLE | APPEND_ONLY)?;
        let at = found.xattrs.iter().position(|(n, _)| n == name).ok_or(Error::NoAttribute)?;
        found.xattrs.remove(at);
        found.changed = now;
        Ok(())
    }

    fn set_flags(&self, inode: InodeNumber, flags: u32) -> Result<()> {
        let now = self.sources.now();
        let mut state = self.state();
        let found = state.get_mut(inode)?;
        (found.flags, found.changed) = (flags, now);
        Ok(())
    }

    fn set_generation(&self, inode: InodeNumber, generation: u32) -> Result<()> {
        self.state().get_mut(inode)?.generation = generation;
        Ok(())
    }

    fn set_label(&self, label: &BStr) -> Result<()> {
        if label.len() > 16 {
            return Err(Error::InvalidInput("a label has 16 bytes at most"));
        }
        self.state().label = label.to_owned();
        Ok(())
    }

    fn set_uuid(&self, uuid: [u8; 16]) -> Result<()> {
        self.state().uuid = uuid::Uuid::from_bytes(uuid).to_string();
        Ok(())
    }

    fn tune(&self, _: &Tuning) -> Result<()> {
        Err(Error::Unsupported("tuning in memory".into()))
    }

    fn free_space(&self, _: FreeSpace, _: u64, _: u64, _: u64) -> Result<u64> {
        Err(Error::Unsupported("free space in memory".into()))
    }

    fn sync(&self) -> Result<()> {
        *self.synced.lock().expect("no test panicked here") = Some(self.state().clone());
        Ok(())
    }

    fn reload(&self) -> Result<()> {
        if let Some(state) = self.synced.lock().expect("no test panicked here").clone() {
            *self.state() = state;
        }
        Ok(())
    }
}
