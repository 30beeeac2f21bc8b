//! Changes to inline directories, whose entries are in their inode.

use std::ops::ControlFlow;

use bstr::{BStr, BString};
use vmcraft_fs::{Error, FileType, Result};

use crate::dir::{List, SHORTEST};
use crate::dir_edit::{self, NewEntry, Place, Scan, Search, Spot};
use crate::inline::{self, PARENT_SIZE};
use crate::inode::{I_BLOCK_SIZE, Inode};
use crate::map::OpenInode;
use crate::volume::Volume;
use crate::{content, inline_edit};

/// Makes a new directory inline, without entries; `false`, and nothing changed, if its inode is too
/// small for that.
pub(crate) fn start(volume: &Volume, inode: &mut Inode, parent: u32) -> Result<bool> {
    let mut content = [0; I_BLOCK_SIZE];
    let (head, list) = content.split_at_mut(PARENT_SIZE);
    head.copy_from_slice(&parent.to_le_bytes());
    dir_edit::fill(list, [], &volume.sb).ok_or_else(|| inode.corrupt("no room for entries"))?;
    inline_edit::store(volume, inode, &content)
}

/// Looks for a name, and where it can go if it is not there.
pub(crate) fn search(volume: &Volume, dir: &OpenInode, name: &BStr) -> Result<Search> {
    let mut all = Scan::default();
    inline::each_list(volume, dir, 0, &mut |list, start| {
        let place = if start < I_BLOCK_SIZE as u64 { Place::InInode } else { Place::InAttribute };
        Ok(all.add(dir_edit::scan(list, place, name, &volume.sb)?))
    })?;
    Ok(all.into_search(Spot::FullInode))
}

/// Makes `..` lead to another directory.
pub(crate) fn set_parent(dir: &mut Inode, parent: u32) {
    for (byte, value) in dir.block.iter_mut().zip(parent.to_le_bytes()) {
        *byte = value;
    }
}

/// Changes the list in `i_block`.
pub(crate) fn change_in_inode<T>(dir: &mut Inode, how: impl FnOnce(&mut [u8]) -> Option<T>) -> Option<T> {
    how(dir.block.get_mut(PARENT_SIZE..)?)
}

/// Changes the list in the attribute.
pub(crate) fn change_in_attribute<T>(
    volume: &Volume,
    dir: &mut Inode,
    how: impl FnOnce(&mut [u8]) -> Option<T>,
) -> Result<Option<T>> {
    let mut content = inline_edit::content(volume, dir)?;
    let Some(result) = content.get_mut(I_BLOCK_SIZE..).and_then(how) else { return Ok(None) };
    if inline_edit::store(volume, dir, &content)? {
        Ok(Some(result))
    } else {
        Err(dir.corrupt("no room for the inline data that it has"))
    }
}

/// Adds an entry to a directory that is full: to all the room that the inode has, or to a block, to
/// which its entries move.
pub(crate) fn grow_and_insert(volume: &Volume, dir: &mut OpenInode, entry: NewEntry<'_>) -> Result<()> {
    if !grow(volume, dir)? {
        move_out(volume, dir)?;
    }
    match dir_edit::search(volume, dir, entry.name)? {
        Search::Absent(Spot::FullInode) => move_out(volume, dir)?,
        Search::Absent(spot) => return dir_edit::insert(volume, dir, spot, entry),
        Search::Found(_) => return Err(Error::Exists),
    }
    match dir_edit::search(volume, dir, entry.name)? {
        Search::Absent(spot) => dir_edit::insert(volume, dir, spot, entry),
        Search::Found(_) => Err(Error::Exists),
    }
}

/// Gives a directory all the room that its inode has; `false` if it has it, or too little is left.
fn grow(volume: &Volume, dir: &mut OpenInode) -> Result<bool> {
    let mut content = inline_edit::content(volume, dir)?;
    // Entries have lengths of multiples of four.
    let room = inline_edit::room(volume, dir)? & !3;
    let len = content.len();
    if len < I_BLOCK_SIZE || room < len + SHORTEST {
        return Ok(false);
    }
    // What is new is behind the last entry, or an unused entry of its own.
    let list = content.get(I_BLOCK_SIZE..).unwrap_or_default();
    let list = List { bytes: list, inode: dir.number, offset: dir.offset };
    let mut last = 0;
    for slot in list.slots(&volume.sb) {
        last = slot?.start;
    }
    content.resize(room, 0);
    let list = content.get_mut(I_BLOCK_SIZE..).unwrap_or_default();
    let end = list.len();
    dir_edit::set_len(list, last, end - last).ok_or_else(|| dir.corrupt("no room for entries"))?;
    inline_edit::store(volume, dir, &content)
}

/// Moves the entries to a block.
fn move_out(volume: &Volume, dir: &mut OpenInode) -> Result<()> {
    let parent = inline::parent(dir);
    let mut entries: Vec<(BString, u32, FileType)> = Vec::new();
    inline::each_list(volume, dir, 0, &mut |list, _| {
        for entry in list.entries(&volume.sb) {
            let entry = entry?;
            entries.push((entry.name.to_owned(), entry.inode, entry.file_type));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let moved = entries.iter().map(|(name, inode, file_type)| NewEntry {
        name: name.as_ref(),
        inode: *inode,
        file_type: *file_type,
    });
    let all = dir_edit::dots(dir.number, parent).into_iter().chain(moved);
    let block = dir_edit::block_of(all, dir.checksum_seed, &volume.sb)?;
    inline_edit::take(volume, dir)?;
    content::append_block(volume, dir, block)?;
    Ok(())
}
