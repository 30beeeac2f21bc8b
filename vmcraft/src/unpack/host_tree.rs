//! Copying a tree of the host into the guest.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use bstr::{BString, ByteVec};
use vmcraft_fs::{DeviceNumber, FileType, Timestamp};

use crate::host::Host;
use crate::unpack::extract::{Extractor, UnpackOptions};
use crate::unpack::member::{Kind, Member};
use crate::value::FileIn;
use crate::vfs::{Node, Vfs, join};
use crate::{Error, Progress, Result};

/// Copies what is at `local`, with all that is below it, to `name` in the directory `start`; `.` as the
/// name stands for `start` itself.
pub(crate) fn copy_in(
    vfs: &Vfs,
    host: &mut Host,
    warnings: &mut Vec<String>,
    local: &Path,
    name: BString,
    start: Node,
) -> Result<()> {
    let mut sockets = Vec::new();
    let mut extractor = Extractor::new(vfs, warnings, start, UnpackOptions::default())?;
    // The first names of files that have several.
    let mut links: HashMap<(u64, u64), BString> = HashMap::new();
    let mut pending = vec![(local.to_owned(), name)];
    let mut copied = 0;
    while let Some((path, name)) = pending.pop() {
        let error = |doing| move |path: &Path, source| Error::Host { path: path.to_owned(), doing, source };
        let metadata = fs::symlink_metadata(&path).map_err(|e| error("cannot read")(&path, e))?;
        if metadata.file_type().is_socket() {
            // As tar does: a socket means nothing without the process that listens.
            sockets.push(path);
            continue;
        }
        let inode = (metadata.dev(), metadata.ino());
        let kind = match links.get(&inode) {
            Some(first) => Kind::HardLink(first.clone()),
            None => kind(&path, &metadata).map_err(|e| error("cannot read")(&path, e))?,
        };
        if metadata.nlink() > 1 && !metadata.is_dir() && !matches!(kind, Kind::HardLink(_)) {
            links.insert(inode, name.clone());
        }
        let member = member(name, kind, &metadata);
        let refuse =
            |what: &str| error("cannot copy")(&path, io::Error::new(io::ErrorKind::InvalidInput, what));
        if let Some(mut file) = extractor.place(&member, &refuse)? {
            let mut source = host.open_input(&FileIn::Path(path.clone()))?;
            let start = copied;
            source.read_runs(|run, position| {
                copied = start + position;
                file.put(run)?;
                host.step(Progress { position: copied, total: 0 })
            })?;
            extractor.finish_file(&member, file)?;
        }
        host.check_cancelled()?;
        if metadata.is_dir() {
            let below =
                children(&path, &member.name).map_err(|e| error("cannot read the directory")(&path, e))?;
            pending.extend(below);
        }
    }
    extractor.finish()?;
    for path in sockets {
        warnings.push(format!("{}: a socket, which is not copied", path.display()));
    }
    Ok(())
}

/// What is in a directory, the first name last.
fn children(path: &Path, name: &BString) -> io::Result<Vec<(PathBuf, BString)>> {
    let mut children = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // Names of Linux are bytes.
        let child = <Vec<u8>>::from_os_string(entry.file_name()).unwrap_or_default();
        children.push((entry.path(), join(name, child.as_slice().into())));
    }
    children.sort_unstable_by(|(_, one), (_, other)| other.cmp(one));
    Ok(children)
}

fn kind(path: &Path, metadata: &Metadata) -> io::Result<Kind> {
    let file_type = metadata.file_type();
    let special = |file_type| {
        let device = metadata.rdev();
        // As glibc's `major` and `minor` take them apart.
        let number = |high: u64, low: u64| u32::try_from(high | low).unwrap_or(u32::MAX);
        Kind::Special(
            file_type,
            DeviceNumber {
                major: number(device >> 32 & !0xfff, device >> 8 & 0xfff),
                minor: number(device >> 12 & 0xffff_ff00, device & 0xff),
            },
        )
    };
    Ok(match () {
        () if file_type.is_dir() => Kind::Directory,
        () if file_type.is_symlink() => {
            Kind::Symlink(<Vec<u8>>::from_path_buf(fs::read_link(path)?).unwrap_or_default().into())
        }
        () if file_type.is_char_device() => special(FileType::CharDevice),
        () if file_type.is_block_device() => special(FileType::BlockDevice),
        () if file_type.is_fifo() => Kind::Special(FileType::Fifo, DeviceNumber::default()),
        () => Kind::File,
    })
}

fn member(name: BString, kind: Kind, metadata: &Metadata) -> Member {
    Member {
        name,
        kind,
        permissions: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        modified: Timestamp {
            seconds: metadata.mtime(),
            nanoseconds: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
        },
        accessed: None,
        xattrs: Vec::new(),
        acl: None,
        default_acl: None,
    }
}
