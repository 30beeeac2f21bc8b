//! Changes to files by name.

use std::process::{Command, Stdio};

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
    if found.is_empty() && !pattern.as_bstr().bytes().any(|b| b"*?[{".contains(&b)) {
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

/// What Perl does for each line of the file, as virt-edit has it: `$_` is the line, `$lineno` its number.
const EDIT: &str = "my $lineno = 0; while (<STDIN>) { $lineno++; EXPRESSION\n; print STDOUT $_ or die \"print: $!\"; } \
                    close STDOUT or die \"close: $!\";";

/// Edits a file with an expression of Perl, which the host's Perl evaluates.
pub(crate) fn edit(guest: &mut Guest, path: &GuestPath, expression: &BStr) -> Result<()> {
    let content = super::require(guest, path)?;
    let host = |doing: &'static str| {
        move |source: std::io::Error| Error::Host { path: "perl".into(), doing, source }
    };
    let expression =
        expression.to_os_str().map_err(|_| Error::Usage("the expression must be text".into()))?;
    let (before, after) = EDIT.split_once("EXPRESSION").unwrap_or((EDIT, ""));
    let mut program = std::ffi::OsString::from(before);
    program.push(expression);
    program.push(after);
    let mut input = tempfile::tempfile().map_err(host("cannot give it the file"))?;
    std::io::Write::write_all(&mut input, &content).map_err(host("cannot give it the file"))?;
    std::io::Seek::rewind(&mut input).map_err(host("cannot give it the file"))?;
    let output = Command::new("perl")
        .arg("-e")
        .arg(program)
        .stdin(Stdio::from(input))
        .output()
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::Usage(
                "editing with an expression needs Perl 5 on this host, and there is no program perl: install package \
                 perl"
                    .into(),
            ),
            _ => host("cannot run it")(e),
        })?;
    if !output.status.success() {
        return Err(Error::Usage(format!(
            "{path}: perl failed ({}): {}",
            output.status,
            output.stderr.to_str_lossy().trim_end()
        )));
    }
    if output.stdout == content { Ok(()) } else { super::write(guest, path, &output.stdout) }
}
