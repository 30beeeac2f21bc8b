//! Which image a disk is, so that a journal is never applied to another one.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use crate::uri::{self, Location};

/// What a journal's name ends in. It stands beside the image: `disk.qcow2.vmcraft-journal`.
pub(crate) const SUFFIX: &str = ".vmcraft-journal";

/// The image that a disk is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageIdentity {
    /// A file's or device's path without links, or a URI without its password.
    pub(super) name: Vec<u8>,
    /// The format that it is opened as.
    pub(super) format: String,
    /// The file; all 0 for what is no regular file.
    pub(super) file: FileIdentity,
}

/// What a file keeps when it is renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct FileIdentity {
    pub(super) device: u64,
    pub(super) inode: u64,
    /// When it was made, in nanoseconds since 1970, as another file gets the inode of one that is gone; 0
    /// where the host does not tell.
    pub(super) born: u64,
}

impl FileIdentity {
    fn of(metadata: &fs::Metadata) -> Self {
        if !metadata.is_file() {
            return Self::default();
        }
        let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let born = born.and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or(0);
        Self { device: metadata.dev(), inode: metadata.ino(), born }
    }

    fn is_known(self) -> bool {
        self != Self::default()
    }
}

impl ImageIdentity {
    /// The identity of the image that `image` names, a path or URI, opened as `format`.
    pub fn of(image: &str, format: &str) -> io::Result<Self> {
        let path = match uri::is_uri(image) {
            false => PathBuf::from(image),
            true => match uri::parse(image) {
                Ok(Location::File(path)) => path,
                _ => {
                    let name = uri::without_password(image).into_bytes();
                    return Ok(Self { name, format: format.to_owned(), file: FileIdentity::default() });
                }
            },
        };
        let path = path.canonicalize()?;
        let file = FileIdentity::of(&fs::metadata(&path)?);
        Ok(Self { name: path.into_os_string().into_vec(), format: format.to_owned(), file })
    }

    /// The image's name for messages.
    pub(super) fn shown(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }

    /// The path of an image that is a regular file.
    pub(super) fn file_path(&self) -> Option<&Path> {
        self.file.is_known().then(|| Path::new(OsStr::from_bytes(&self.name)))
    }

    /// Where its journal can be: beside the image, or in the directory for those that cannot be there.
    pub(super) fn journal_paths(&self, state_directory: Option<&Path>) -> Vec<PathBuf> {
        let beside = self.file_path().map(|path| {
            let mut name = path.as_os_str().to_owned();
            name.push(SUFFIX);
            PathBuf::from(name)
        });
        let hash = Sha256::digest(&self.name);
        let hex: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let elsewhere = state_directory.map(|directory| directory.join(hex + SUFFIX));
        beside.into_iter().chain(elsewhere).collect()
    }

    /// Whether both are the same image. One that was renamed is still the same file; one that came in
    /// the place of another is taken for it.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let is_same_file = self.file.is_known() && self.file == other.file;
        self.format == other.format && (is_same_file || self.name == other.name)
    }
}
