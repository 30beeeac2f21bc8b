//! Opening an image: its format, its backing files, its lock.

mod chain;
mod create;
mod info;
mod probe;
mod reference;
mod remote;
mod via_qemu;

pub use crate::uri::{is_uri, without_password};
pub use create::{NewFormat, NewImage, Space, create};
pub use info::{BitmapInfo, EncryptInfo, FormatSpecific, ImageInfo, Info, Qcow2Info, SnapshotInfo, info};

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{BlockDevice, Cache, Counters, Error, Result, uri};

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
            "vhd" => Ok(Self::ViaQemu("vpc".into())),
            other if VIA_QEMU.contains(&other) => Ok(Self::ViaQemu(other.into())),
            other => Err(format!(
                "{other:?} is not a disk image format; known are raw, qcow2, vhd, {}",
                VIA_QEMU.join(", ")
            )),
        }
    }
}

/// The formats that QEMU opens for us, by its names.
const VIA_QEMU: &[&str] =
    &["vmdk", "vpc", "vhdx", "vdi", "qed", "parallels", "dmg", "qcow", "bochs", "cloop"];

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
    /// The ID or name of the internal snapshot to show instead of the disk as it is now. Only for
    /// `read_only`.
    pub snapshot: Option<String>,
}

/// Read-only, format detected, and no other file opened.
impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            format: None,
            read_only: true,
            allow_in_use: false,
            gate: Arc::new(|_| Err("the caller allows no other files".into())),
            cache_bytes: 8 << 20,
            snapshot: None,
        }
    }
}

/// An open image.
pub struct Image {
    /// The disk that the guest sees.
    pub device: Arc<dyn BlockDevice>,
    /// The format it was opened as.
    pub format: Format,
    /// Whether it was taken for raw only because its content looks like no other format. What a guest
    /// wrote there can look like another one the next time, so this is said before it is written.
    pub format_is_guessed: bool,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// How much of it was read so far.
    pub counters: Arc<Counters>,
}

/// Opens a disk: a file's path, or a URI (`nbd://…`, `nbd+unix://…`, `https://…`, `ssh://…`).
pub fn open(name: &str, options: &OpenOptions) -> Result<Image> {
    if options.snapshot.is_some() && !options.read_only {
        return Err(Error::Unsupported {
            image: name.to_owned(),
            feature: "writing to an internal snapshot; open it read-only".into(),
        });
    }
    let mut warnings = Vec::new();
    let layer = if uri::is_uri(name) {
        remote::open_uri(name, options, &mut warnings)?
    } else {
        chain::Opener::new(options, &mut warnings).open_top(name)?
    };
    let cache = Cache::new(layer.device, options.cache_bytes);
    let counters = cache.counters();
    let format_is_guessed = options.format.is_none() && layer.format == Format::Raw;
    Ok(Image { device: Arc::new(cache), format: layer.format, format_is_guessed, warnings, counters })
}
