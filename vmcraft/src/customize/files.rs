//! Changes to files by name.

use std::io::{Read, Seek, Write};

use bstr::{BStr, BString, ByteSlice};
use vmcraft_fs::FileType;

use super::text;
use crate::vfs::LastLink;
use crate::walk::Walk;
use crate::{Error, Guest, GuestPath, Progress, Result};

/// Adds a line to the end of a file, which is made if it is not there.
pub(crate) fn append_line(guest: &mut Guest, path: &GuestPath, line: &BStr) -> Result<()> {
    let content = super::read(guest, path)?.unwrap_or_default();
    super::write(guest, path, &text::with_line(&content, line))
}

/// Removes what a pattern matches, directories with their content. What has no wildcard in it must be there.
pub(crate) fn delete(guest: &mut Guest, pattern: &GuestPath) -> Result<()> {
    let found = guest.glob_expand(pattern, Some(false))?;
    if found.is_empty() && pattern.as_bstr().find_byteset(b"*?[{").is_none() {
        // Also a link that leads nowhere is there.
        guest.resolve_link(pattern)?;
        return guest.rm_rf(pattern);
    }
    for path in found {
        guest.rm_rf(GuestPath::new(&path))?;
    }
    Ok(())
}

/// Empties all regular files below a directory.
pub(crate) fn truncate_recursive(guest: &mut Guest, path: &GuestPath) -> Result<()> {
    let vfs = guest.vfs.clone();
    let start = vfs.resolve(path, LastLink::Follow)?;
    let mut walk = Walk::new(&vfs, start);
    let mut emptied = 0;
    while let Some(entry) = walk.next()? {
        if entry.metadata.file_type != FileType::Regular || entry.metadata.size_bytes == 0 {
            continue;
        }
        let node = entry.node();
        node.writer()?.truncate(node.inode, 0).map_err(|source| entry.error(source))?;
        emptied += 1;
        if emptied % 256 == 0 {
            guest.host.step(Progress { position: emptied, total: 0 })?;
        }
    }
    Ok(())
}

/// Overwrites the content of a regular file and removes it.
pub(crate) fn scrub(guest: &mut Guest, path: &GuestPath) -> Result<()> {
    let node = guest.resolve_link(path)?;
    let metadata = node.metadata()?;
    match metadata.file_type {
        FileType::Regular => {}
        FileType::Directory => return Err(node.error(vmcraft_fs::Error::IsADirectory)),
        _ => return Err(node.error(vmcraft_fs::Error::InvalidInput("not a regular file"))),
    }
    let writer = node.writer()?;
    let fail = |source| node.error(source);
    let sources = guest.sources();
    let mut offset = 0;
    // Holes stay holes: nothing is in them.
    while let Some((start, end)) = node.filesystem.next_data(node.inode, offset).map_err(fail)? {
        let mut at = start;
        while at < end {
            let noise = sources.random::<4096>();
            let len = usize::try_from(end - at).map_or(noise.len(), |left| left.min(noise.len()));
            writer.write(node.inode, at, &noise[..len]).map_err(fail)?;
            at += len as u64;
            guest.host.step(Progress { position: at, total: metadata.size_bytes })?;
        }
        offset = end;
    }
    // The name goes too, before it goes.
    let scrubbed = sources.random::<8>().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let parent = crate::vfs::join(parent_of(&node.path), scrubbed.as_str().into());
    guest.rename(GuestPath::new(&node.path), GuestPath::new(&parent))?;
    guest.rm_f(GuestPath::new(&parent))
}

fn parent_of(path: &BString) -> &[u8] {
    match path.rfind_byte(b'/') {
        Some(slash) if slash > 0 => &path[..slash],
        _ => b"/",
    }
}

/// Edits a file with an expression of Perl, which the host's Perl evaluates.
pub(crate) fn edit(guest: &mut Guest, path: &GuestPath, expression: &BStr) -> Result<()> {
    let content = super::require(guest, path)?;
    let failed = |source| Error::Host { path: "perl".into(), doing: "cannot give it the file", source };
    let expression =
        expression.to_os_str().map_err(|_| Error::Usage("the expression must be text".into()))?;
    let with = |content: &[u8]| {
        let mut file = tempfile::tempfile()?;
        file.write_all(content)?;
        file.rewind()?;
        Ok(file)
    };
    let (from, mut to) = (with(&content).map_err(failed)?, with(b"").map_err(failed)?);
    let said = super::perl::edit_lines(path, expression, from, to.try_clone().map_err(failed)?)?;
    if !said.is_empty() {
        guest.warnings.push(format!("{path}: perl: {said}"));
    }
    let mut edited = Vec::new();
    to.rewind().and_then(|()| to.read_to_end(&mut edited)).map_err(failed)?;
    if edited == content { Ok(()) } else { super::write(guest, path, &edited) }
}
