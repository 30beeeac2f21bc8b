//! What every driver must do alike: the promises of [`FileSystem`], checked on a real volume.
//!
//! A driver's tests call [`check`] on each of their images, and [`check_writing`] where they can write.
//! They know nothing of what should be on the volume; they hold the driver's answers against each
//! other.

use std::collections::HashMap;
use std::ops::ControlFlow;

use bstr::{BString, ByteSlice};

use crate::{DirEntry, Error, FileSystem, FileType, InodeNumber, Metadata, Result};

mod writing;

pub use writing::check_writing;

/// Files are read to at most this many bytes.
const READ_BYTES: u64 = 8 << 20;
/// A name that no image has.
const MISSING: &str = "a name that is not there\u{1}";

/// Walks the whole volume and checks each promise of the trait. The error says which one was broken,
/// and where.
///
/// An answer of [`Error::Unsupported`] is taken as it is: what cannot be read is not checked.
pub fn check(fs: &dyn FileSystem) -> Result<(), String> {
    let mut links: HashMap<InodeNumber, u64> = HashMap::new();
    let mut todo = vec![(BString::from("/"), fs.root(), fs.root())];
    while let Some((path, dir, parent)) = todo.pop() {
        let place = |e: String| format!("{path}: {e}");
        directory(fs, dir, parent).map_err(place)?;
        for (name, inode) in entries(fs, dir).map_err(|e| format!("{path}: {e}"))? {
            let mut child = path.clone();
            if child != "/" {
                child.push(b'/');
            }
            child.extend_from_slice(&name);
            let metadata = fs.metadata(inode).map_err(|e| format!("{child}: {e}"))?;
            file(fs, inode, &metadata).map_err(|e| format!("{child}: {e}"))?;
            if metadata.is_dir() {
                todo.push((child, inode, dir));
            } else {
                let seen = links.entry(inode).or_default();
                *seen += 1;
                if *seen > metadata.links {
                    return Err(format!("{child}: {seen} names, but {} links", metadata.links));
                }
            }
        }
    }
    let statfs = fs.statfs().map_err(|e| format!("statfs: {e}"))?;
    ensure(statfs.blocks_free <= statfs.blocks, "statfs: more free blocks than blocks")?;
    ensure(statfs.blocks_available <= statfs.blocks_free, "statfs: more available blocks than free")?;
    ensure(statfs.inodes_free <= statfs.inodes, "statfs: more free inodes than inodes")
}

/// Does all of [`check`] in several threads at once: a driver is asked by many, and what one of them
/// reads or caches must not change what another sees.
pub fn check_from_threads(fs: &dyn FileSystem, threads: usize) -> Result<(), String> {
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(|| check(fs))).collect();
        // All are waited for, so that a panic of any is seen.
        let results: Vec<_> = running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("a thread panicked".to_owned())))
            .collect();
        results.into_iter().collect()
    })
}

fn ensure(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

fn supported<T>(result: Result<T>, what: &str) -> Result<Option<T>, String> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Unsupported(_)) => Ok(None),
        Err(e) => Err(format!("{what}: {e}")),
    }
}

fn entries(fs: &dyn FileSystem, dir: InodeNumber) -> Result<Vec<(BString, InodeNumber)>, String> {
    let mut all = Vec::new();
    let listed = fs.read_dir(dir, 0, &mut |entry| {
        all.push((entry.name.to_owned(), entry.inode));
        ControlFlow::Continue(())
    });
    Ok(supported(listed, "read_dir")?.map(|()| all).unwrap_or_default())
}

/// `read_dir` and `lookup` agree, and a listing can be taken up after each entry.
fn directory(fs: &dyn FileSystem, dir: InodeNumber, parent: InodeNumber) -> Result<(), String> {
    let mut all = Vec::new();
    let mut wrong = None;
    let listed = fs.read_dir(dir, 0, &mut |entry: DirEntry<'_>| {
        let name = entry.name;
        if name.is_empty() || name == "." || name == ".." || name.find_byteset(b"/\0").is_some() {
            wrong = Some(format!("read_dir shows the name {name:?}"));
        }
        if entry.next == 0 {
            wrong = Some(format!("the cursor after {name:?} is 0"));
        }
        all.push((name.to_owned(), entry.inode, entry.file_type, entry.next));
        ControlFlow::Continue(())
    });
    wrong.map_or(Ok(()), Err)?;
    if supported(listed, "read_dir")?.is_none() {
        return Ok(());
    }
    for (index, (name, inode, file_type, cursor)) in all.iter().enumerate() {
        match supported(fs.lookup(dir, name.as_bstr()), "lookup")? {
            Some(found) if found != *inode => {
                return Err(format!("{name:?} is inode {inode} in the listing, {found} by lookup"));
            }
            _ => (),
        }
        let actual = fs.metadata(*inode).map_err(|e| format!("{name:?}: {e}"))?.file_type;
        if *file_type != FileType::Unknown && *file_type != actual {
            return Err(format!("{name:?} is {file_type:?} in the listing, {actual:?} itself"));
        }
        // Taking up every listing at every entry would be quadratic.
        let mut next = None;
        let resumed = fs.read_dir(dir, *cursor, &mut |entry| {
            next = Some(entry.name.to_owned());
            ControlFlow::Break(())
        });
        resumed.map_err(|e| format!("read_dir after {name:?}: {e}"))?;
        let expected = all.get(index + 1).map(|(name, ..)| name);
        if next.as_ref() != expected {
            return Err(format!("taken up after {name:?}, read_dir shows {next:?}, not {expected:?}"));
        }
    }
    match fs.lookup(dir, MISSING.into()) {
        Err(Error::NotFound | Error::Unsupported(_)) => (),
        other => return Err(format!("lookup of a missing name: {other:?}")),
    }
    match fs.parent(dir) {
        Ok(found) if found == parent => (),
        other => return Err(format!("parent is {other:?}, not {parent}")),
    }
    ensure(matches!(fs.read(dir, 0, &mut [0]), Err(Error::IsADirectory)), "a directory can be read")?;
    ensure(matches!(fs.read_link(dir), Err(Error::InvalidInput(_))), "a directory has a target")
}

/// One inode: errors for what does not fit its type, and content that is the same however it is read.
fn file(fs: &dyn FileSystem, inode: InodeNumber, metadata: &Metadata) -> Result<(), String> {
    ensure(metadata.inode == inode, "metadata is of another inode")?;
    ensure(metadata.permissions <= 0o7777, "permissions of more than 12 bits")?;
    for time in [metadata.accessed, metadata.modified, metadata.changed] {
        ensure(time.nanoseconds < 1_000_000_000, "a time of a whole second of nanoseconds")?;
    }
    if let Some(xattrs) = supported(fs.xattrs(inode), "xattrs")? {
        let mut names: Vec<_> = xattrs.into_iter().map(|(name, _)| name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        ensure(names.len() == count, "an extended attribute is there twice")?;
    }
    if !metadata.is_dir() {
        ensure(
            matches!(fs.lookup(inode, MISSING.into()), Err(Error::NotADirectory)),
            "a lookup in what is no directory",
        )?;
        let listed = fs.read_dir(inode, 0, &mut |_| ControlFlow::Continue(()));
        ensure(matches!(listed, Err(Error::NotADirectory)), "a listing of what is no directory")?;
    }
    match metadata.file_type {
        FileType::Regular => return content(fs, inode, metadata.size_bytes),
        FileType::Symlink => {
            if let Some(target) = supported(fs.read_link(inode), "read_link")? {
                ensure(target.len() as u64 == metadata.size_bytes, "a target of another length")?;
            }
        }
        _ => (),
    }
    if !metadata.is_dir() {
        ensure(
            matches!(fs.read(inode, 0, &mut [0]), Err(Error::InvalidInput(_))),
            "what is no regular file can be read",
        )?;
    }
    Ok(())
}

fn content(fs: &dyn FileSystem, inode: InodeNumber, size: u64) -> Result<(), String> {
    ensure(matches!(fs.read_link(inode), Err(Error::InvalidInput(_))), "a regular file has a target")?;
    // At most READ_BYTES, with room for a byte that must not come.
    let mut whole = vec![0xa5; usize::try_from(size.min(READ_BYTES)).unwrap_or(0) + 1];
    let Some(len) = supported(fs.read(inode, 0, &mut whole), "read")? else {
        return Ok(());
    };
    let expected = (whole.len() as u64).min(size);
    ensure(len as u64 == expected, &format!("read gives {len} bytes of {expected}"))?;
    let at_end = |offset: u64| fs.read(inode, offset, &mut [0; 8]).map_err(|e| format!("read: {e}"));
    ensure(at_end(size)? == 0, "there is something at the end")?;
    ensure(at_end(u64::MAX)? == 0, "there is something far behind the end")?;
    whole.truncate(len);

    // In pieces that fit nothing.
    let mut piece = vec![0; 7919];
    let mut at = 0;
    while at < whole.len() {
        let n = fs.read(inode, at as u64, &mut piece).map_err(|e| format!("read at {at}: {e}"))?;
        let expected = whole.get(at..(at + piece.len()).min(whole.len())).unwrap_or_default();
        let shown = piece.get(..n.min(expected.len())).unwrap_or_default();
        ensure(n >= expected.len() && shown == expected, &format!("another content at {at}"))?;
        at += expected.len();
    }

    let mut at = 0;
    while let Some((start, end)) = fs.next_data(inode, at).map_err(|e| format!("next_data: {e}"))? {
        ensure(
            at <= start && start < end && end <= size,
            &format!("data from {at} are {start} to {end} of {size}"),
        )?;
        let hole = whole.get(usize::try_from(at).unwrap_or(usize::MAX)..).unwrap_or_default();
        let hole = hole.iter().take(usize::try_from(start - at).unwrap_or(usize::MAX));
        ensure(hole.into_iter().all(|b| *b == 0), &format!("the hole at {at} is not zeros"))?;
        at = end;
    }
    let rest = whole.get(usize::try_from(at).unwrap_or(usize::MAX)..).unwrap_or_default();
    ensure(rest.iter().all(|b| *b == 0), &format!("the hole at {at} is not zeros"))?;
    ensure(matches!(fs.next_data(inode, size), Ok(None)), "there is data at the end")
}
