//! Changing a file of the guest with a program of the host, on a copy.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::Path;

use vmcraft::value::{FileIn, FileOut};
use vmcraft::{DeviceOrPath, Guest, GuestPath};

use crate::error::{Error, Result, message};

/// Has `change` change a copy of the guest's file `path`, and puts it back if it is another then.
///
/// `before_upload` is called before that. The file keeps its inode, owner, permissions and attributes.
/// Says whether it changed.
pub(crate) fn edit(
    guest: &mut Guest,
    path: &GuestPath,
    change: impl FnOnce(&Path) -> Result<()>,
    before_upload: impl FnOnce(&mut Guest) -> Result<()>,
) -> Result<bool> {
    let cannot = |e: io::Error| message(format!("{path}: cannot make a copy to edit: {e}"));
    let dir = tempfile::Builder::new().prefix("vmcraft-edit-").tempdir().map_err(cannot)?;
    let (original, copy) = (dir.path().join("original"), dir.path().join("copy"));
    // The copy has the file's name where it has one: programs know files by it.
    let name = path.components().next_back().and_then(|name| std::str::from_utf8(name).ok());
    let copy = match name.filter(|name| !matches!(*name, ".." | "original")) {
        Some(name) => dir.path().join(name),
        None => copy,
    };
    let remote = DeviceOrPath::new(path);
    guest.download(remote, &FileOut::Path(original.clone())).map_err(|e| Error::call("download", e))?;
    fs::copy(&original, &copy).map_err(cannot)?;
    change(&copy)?;
    if !copy.exists() {
        return Err(message(format!("{path}: the editor removed the file, and nothing was changed")));
    }
    if is_same(&original, &copy).map_err(cannot)? {
        return Ok(false);
    }
    before_upload(guest)?;
    guest.upload(&FileIn::Path(copy), remote).map_err(|e| Error::call("upload", e))?;
    Ok(true)
}

/// Whether two files have the same content.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let mut bytes = BufReader::new(File::open(one)?).bytes();
    for byte in BufReader::new(File::open(other)?).bytes() {
        if bytes.next().transpose()? != Some(byte?) {
            return Ok(false);
        }
    }
    Ok(true)
}
