//! Opening an image: its format, its backing files, its lock.

use std::fmt;
use std::fs::File;
use std::str::FromStr;
use std::sync::Arc;

use crate::raw::RawFile;
use crate::{BlockDevice, Error, Result};

/// A disk image format, named as QEMU names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Format {
    /// The disk's bytes and nothing else.
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
    /// A format that a `qemu-nbd` child opens for us, such as `vmdk`, `vpc`, `vhdx` or `vdi`.
    ViaQemu(String),
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::ViaQemu(name) => name,
        })
    }
}

impl FromStr for Format {
    type Err = String;
    /// Takes the names that `qemu-img` takes, `vhd` for `vpc` too.
    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "raw" => Ok(Self::Raw),
            "qcow2" => Ok(Self::Qcow2),
            other => Err(format!("{other:?} is not a disk image format")),
        }
    }
}

/// A file that an image names: what the [`Gate`] is asked about.
#[derive(Debug, Clone)]
pub struct Reference<'a> {
    /// The image whose header names the file, as it was opened.
    pub image: &'a str,
    /// The name as the header has it.
    pub named: &'a str,
    /// Where that would lead.
    pub resolved: &'a std::path::Path,
    /// What the file is for: `backing file` or `data file`.
    pub role: &'static str,
}

/// Decides whether a file that an image names may be opened; `Err` is the reason why not.
pub type Gate = dyn Fn(&Reference<'_>) -> Result<(), String> + Send + Sync;

/// How an image is opened.
#[derive(Clone)]
pub struct OpenOptions {
    /// Its format; `None` detects it.
    pub format: Option<Format>,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Open it even if another process has it open for writing: what is read may change meanwhile.
    /// Only for `read_only`.
    pub allow_in_use: bool,
    /// Asked before any file that the image names is opened.
    pub gate: Arc<Gate>,
    /// How many bytes of the image are kept in memory at most.
    pub cache_bytes: usize,
}

/// An open image.
pub struct Image {
    /// The disk that the guest sees.
    pub device: Arc<dyn BlockDevice>,
    /// The format it was opened as.
    pub format: Format,
    /// What the user should know, such as a guessed format.
    pub warnings: Vec<String>,
}

/// Opens a disk: a file's path, or a URI (`nbd://…`, `nbd+unix://…`, `https://…`, `ssh://…`).
pub fn open(name: &str, options: &OpenOptions) -> Result<Image> {
    let io = |doing| move |source| Error::Io { image: name.to_owned(), doing, source };
    let file = File::open(name).map_err(io("cannot open"))?;
    let device = RawFile::new(file, options.read_only).map_err(io("cannot read"))?;
    Ok(Image { device: Arc::new(device), format: Format::Raw, warnings: Vec::new() })
}
