//! Names: files, directories, links and nodes made, removed and moved.
//!
//! These functions run inside [`Volume::atomically`], which undoes what they did if one fails.

use std::collections::HashSet;

use bstr::BStr;
use vmcraft_fs::{DeviceNumber, Error, FileType, InodeNumber, NewInode, Result};

use crate::dir_edit::{self, Found, NewEntry, Search, check_name, check_writable};
use crate::features::{Incompat, RoCompat};
use crate::inode::{I_BLOCK_SIZE, Inode, ROOT};
use crate::map::OpenInode;
use crate::superblock::Superblock;
use crate::volume::Volume;
use crate::{content, dir, inline_dir, xattr_edit};

/// The most names an inode can have, and the most links of a directory that has no `dir_nlink`.
const MOST_LINKS: u16 = 65000;
/// The longest target of a symbolic link in bytes, where blocks are longer: Linux's `PATH_MAX`
/// without the NUL.
const LONGEST_TARGET: usize = 4095;

/// Makes a regular file.
pub(crate) fn create(volume: &Volume, dir: InodeNumber, name: &BStr, new: NewInode) -> Result<InodeNumber> {
    add(volume, dir, name, FileType::Regular, new, |inode, _| {
        content::start_map(volume, inode);
        Ok(())
    })
}

/// Makes a directory.
pub(crate) fn mkdir(volume: &Volume, dir: InodeNumber, name: &BStr, new: NewInode) -> Result<InodeNumber> {
    let sb = &volume.sb;
    add(volume, dir, name, FileType::Directory, new, |inode, parent| {
        check_links(parent, sb)?;
        if sb.incompat.contains(Incompat::INLINE_DATA) && inline_dir::start(volume, inode, parent.number)? {
            // It has neither `.` nor `..`.
        } else {
            content::start_map(volume, inode);
            let block = dir_edit::first_block(inode.number, parent.number, inode.checksum_seed, sb)?;
            content::append_block(volume, inode, block)?;
        }
        add_link(parent, sb);
        Ok(())
    })
}

/// Makes a symbolic link.
pub(crate) fn symlink(
    volume: &Volume,
    dir: InodeNumber,
    name: &BStr,
    target: &BStr,
    new: NewInode,
) -> Result<InodeNumber> {
    if target.is_empty() || target.contains(&0) {
        return Err(Error::InvalidInput("not a target of a symbolic link"));
    }
    add(volume, dir, name, FileType::Symlink, new, |inode, _| {
        // It takes one block, which a NUL ends.
        let most = LONGEST_TARGET.min(volume.sb.block_size as usize - 1);
        if target.len() > most {
            return Err(Error::NameTooLong { len: target.len(), most });
        }
        if target.len() < I_BLOCK_SIZE {
            for (byte, value) in inode.block.iter_mut().zip(target.iter()) {
                *byte = *value;
            }
            inode.size = target.len() as u64;
            return Ok(());
        }
        content::start_map(volume, inode);
        content::write(volume, inode, 0, target)
    })
}

/// Makes a device node, named pipe or socket.
pub(crate) fn mknod(
    volume: &Volume,
    dir: InodeNumber,
    name: &BStr,
    file_type: FileType,
    device: DeviceNumber,
    new: NewInode,
) -> Result<InodeNumber> {
    let stored = match file_type {
        FileType::CharDevice | FileType::BlockDevice => stored_device(device)?,
        FileType::Fifo | FileType::Socket => [0; 2],
        _ => return Err(Error::InvalidInput("not a device node, named pipe or socket")),
    };
    add(volume, dir, name, file_type, new, |inode, _| {
        for (word, value) in inode.block.chunks_exact_mut(4).zip(stored) {
            word.copy_from_slice(&value.to_le_bytes());
        }
        Ok(())
    })
}

/// The two words of `i_block` that hold a device's number: the old form if it fits, else the new.
fn stored_device(device: DeviceNumber) -> Result<[u32; 2]> {
    let DeviceNumber { major, minor } = device;
    if major < 1 << 8 && minor < 1 << 8 {
        Ok([major << 8 | minor, 0])
    } else if major < 1 << 12 && minor < 1 << 20 {
        Ok([0, minor & 0xff | major << 8 | (minor & !0xff) << 12])
    } else {
        Err(Error::InvalidInput("device numbers are at most 4095 (major) and 1048575 (minor)"))
    }
}

/// Adds a name and an inode for it, which `fill` finishes; that may change the directory, too.
fn add(
    volume: &Volume,
    dir: InodeNumber,
    name: &BStr,
    file_type: FileType,
    new: NewInode,
    fill: impl FnOnce(&mut Inode, &mut Inode) -> Result<()>,
) -> Result<InodeNumber> {
    let mut dir = open_dir(volume, dir)?;
    check_name(name)?;
    let Search::Absent(spot) = dir_edit::search(volume, &dir, name)? else {
        return Err(Error::Exists);
    };
    dir.check_appendable()?;
    let number = volume.allocate_inode(&dir, file_type == FileType::Directory)?;
    let mut inode = volume.new_inode(number, file_type, new, &dir)?;
    if file_type != FileType::Symlink {
        xattr_edit::inherit_acl(volume, &dir, &mut inode)?;
    }
    fill(&mut inode, &mut dir)?;
    dir_edit::insert(volume, &mut dir, spot, NewEntry { name, inode: number, file_type })?;
    volume.store_inode(&inode)?;
    touch(volume, &mut dir)?;
    Ok(InodeNumber(number.into()))
}

/// Gives an inode one more name.
pub(crate) fn link(volume: &Volume, inode: InodeNumber, dir: InodeNumber, name: &BStr) -> Result<()> {
    let mut dir = open_dir(volume, dir)?;
    check_name(name)?;
    let Search::Absent(spot) = dir_edit::search(volume, &dir, name)? else {
        return Err(Error::Exists);
    };
    dir.check_appendable()?;
    let mut inode = volume.inode(inode)?;
    if inode.is_dir() {
        return Err(Error::NotPermitted("a directory cannot have a second name"));
    }
    inode.check_mutable()?;
    if inode.links >= MOST_LINKS {
        return Err(Error::TooManyLinks(MOST_LINKS.into()));
    }
    let (number, file_type) = (inode.number, inode.file_type);
    dir_edit::insert(volume, &mut dir, spot, NewEntry { name, inode: number, file_type })?;
    inode.links += 1;
    inode.changed = volume.now();
    volume.store_inode(&inode)?;
    touch(volume, &mut dir)
}

/// Takes a name away that leads to no directory.
pub(crate) fn unlink(volume: &Volume, dir: InodeNumber, name: &BStr) -> Result<()> {
    let mut dir = open_dir(volume, dir)?;
    check_name(name)?;
    let found = dir_edit::find(volume, &dir, name)?;
    let inode = child(volume, &dir, found)?;
    check_may_remove(&dir, &inode)?;
    if inode.is_dir() {
        return Err(Error::IsADirectory);
    }
    dir_edit::remove(volume, &mut dir, found)?;
    touch(volume, &mut dir)?;
    drop_name(volume, inode)
}

/// Takes an empty directory away.
pub(crate) fn rmdir(volume: &Volume, dir: InodeNumber, name: &BStr) -> Result<()> {
    let mut dir = open_dir(volume, dir)?;
    check_name(name)?;
    let found = dir_edit::find(volume, &dir, name)?;
    let inode = child(volume, &dir, found)?;
    check_may_remove(&dir, &inode)?;
    check_is_empty(volume, &inode)?;
    dir_edit::remove(volume, &mut dir, found)?;
    drop_link(&mut dir);
    touch(volume, &mut dir)?;
    release(volume, inode)
}

/// Moves a name, over another if there is one.
pub(crate) fn rename(
    volume: &Volume,
    from_dir: InodeNumber,
    from_name: &BStr,
    to_dir: InodeNumber,
    to_name: &BStr,
) -> Result<()> {
    let sb = &volume.sb;
    let mut from = open_dir(volume, from_dir)?;
    // `None` if it is the same directory.
    let mut to = if from_dir == to_dir { None } else { Some(open_dir(volume, to_dir)?) };
    let across = to.is_some();
    check_name(from_name)?;
    let found = dir_edit::find(volume, &from, from_name)?;
    let mut moved = child(volume, &from, found)?;
    check_name(to_name)?;
    let file_type = moved.file_type;
    if moved.is_dir() && across && is_within(volume, to_dir, moved.number)? {
        return Err(Error::InvalidInput("a directory cannot be moved into itself"));
    }
    let search = dir_edit::search(volume, to.as_ref().unwrap_or(&from), to_name)?;
    let target = match &search {
        Search::Found(target) if target.inode == moved.number => return Ok(()),
        Search::Found(target) => Some(child(volume, to.as_ref().unwrap_or(&from), *target)?),
        Search::Absent(_) => None,
    };
    check_may_remove(&from, &moved)?;
    match &target {
        Some(target) => {
            check_may_remove(to.as_ref().unwrap_or(&from), target)?;
            if moved.is_dir() {
                check_is_empty(volume, target)?;
            } else if target.is_dir() {
                // What is above the file has it, which the kernel finds out first.
                let is_above = is_within(volume, from_dir, target.number)?;
                return Err(if is_above { Error::NotEmpty } else { Error::IsADirectory });
            }
        }
        None => {
            let to = to.as_ref().unwrap_or(&from);
            to.check_appendable()?;
            if moved.is_dir() && across {
                check_links(to, sb)?;
            }
        }
    }

    let into = to.as_mut().unwrap_or(&mut from);
    let number = moved.number;
    let left = match search {
        Search::Found(target) => {
            dir_edit::redirect(volume, into, target, number, file_type)?;
            found
        }
        Search::Absent(spot) => {
            dir_edit::insert(volume, into, spot, NewEntry { name: to_name, inode: number, file_type })?;
            // In the same directory that may have moved the old one.
            if across { found } else { dir_edit::find(volume, &from, from_name)? }
        }
    };
    dir_edit::remove(volume, &mut from, left)?;
    if moved.is_dir() {
        // A directory that is replaced takes its link to the new parent with it.
        if across || target.is_some() {
            drop_link(&mut from);
        }
        if let Some(to) = &mut to {
            dir_edit::set_parent(volume, &mut moved, to.number)?;
            if target.is_none() {
                add_link(to, sb);
            }
        }
    }
    moved.changed = volume.now();
    volume.store_inode(&moved)?;
    touch(volume, &mut from)?;
    if let Some(to) = &mut to {
        touch(volume, to)?;
    }
    match target {
        Some(target) if target.is_dir() => release(volume, target),
        Some(target) => drop_name(volume, target),
        None => Ok(()),
    }
}

/// A directory whose names are to change.
fn open_dir(volume: &Volume, number: InodeNumber) -> Result<OpenInode> {
    let dir = volume.inode(number)?;
    check_writable(&dir)?;
    Ok(OpenInode::new(dir))
}

/// The inode that an entry of `dir` leads to.
fn child(volume: &Volume, dir: &Inode, found: Found) -> Result<OpenInode> {
    if found.inode == dir.number {
        return Err(dir.corrupt("a directory that has itself as an entry"));
    }
    Ok(OpenInode::new(volume.inode(InodeNumber(found.inode.into()))?))
}

fn check_may_remove(dir: &Inode, inode: &Inode) -> Result<()> {
    dir.check_mutable()?;
    inode.check_mutable()
}

/// A directory that is to go.
fn check_is_empty(volume: &Volume, inode: &OpenInode) -> Result<()> {
    check_writable(inode)?;
    if dir_edit::is_empty(volume, inode)? { Ok(()) } else { Err(Error::NotEmpty) }
}

/// Whether directory `dir` is `above`, or below it.
fn is_within(volume: &Volume, dir: InodeNumber, above: u32) -> Result<bool> {
    let mut seen = HashSet::new();
    let mut at = dir;
    loop {
        if at.0 == u64::from(above) {
            return Ok(true);
        }
        if at.0 == u64::from(ROOT) {
            return Ok(false);
        }
        let inode = OpenInode::new(volume.inode(at)?);
        if !seen.insert(at) {
            return Err(inode.corrupt("a directory that is above itself"));
        }
        at = dir::parent(volume, &inode)?;
    }
}

/// Refuses one more subdirectory if there are too many.
fn check_links(dir: &Inode, sb: &Superblock) -> Result<()> {
    let uncounted = sb.ro_compat.contains(RoCompat::DIR_NLINK) && dir::is_indexed(dir, sb);
    if dir.links >= MOST_LINKS && !uncounted {
        return Err(Error::TooManyLinks(MOST_LINKS.into()));
    }
    Ok(())
}

/// One more subdirectory. Beyond what can be counted the count is 1, and stays so.
fn add_link(dir: &mut Inode, sb: &Superblock) {
    let links = dir.links.saturating_add(1);
    dir.links = if dir::is_indexed(dir, sb) && (links > MOST_LINKS || links == 2) { 1 } else { links };
}

/// One subdirectory less.
fn drop_link(dir: &mut Inode) {
    if dir.links > 2 {
        dir.links -= 1;
    }
}

/// Stores a directory whose names changed.
fn touch(volume: &Volume, dir: &mut Inode) -> Result<()> {
    let now = volume.now();
    dir.modified = now;
    dir.changed = now;
    volume.store_inode(dir)
}

/// One name less; with the last the inode goes.
fn drop_name(volume: &Volume, mut inode: OpenInode) -> Result<()> {
    if inode.links > 1 {
        inode.links -= 1;
        inode.changed = volume.now();
        return volume.store_inode(&inode);
    }
    release(volume, inode)
}

/// Gives back all that an inode has, and the inode.
pub(crate) fn release(volume: &Volume, mut inode: OpenInode) -> Result<()> {
    content::free_all(volume, &mut inode)?;
    xattr_edit::release(volume, &mut inode)?;
    volume.free_inode(inode.number, inode.is_dir())
}
