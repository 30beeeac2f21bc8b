//! What can be said of an image without opening the disk in it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::chain::{File, Opener};
use super::{Format, OpenOptions, remote, via_qemu};
use crate::qcow2::{self, Autoclear, Encryption, Header, Incompatible};
use crate::storage::{HostFile, Storage};
use crate::{Error, Result, uri};

/// What is known of an image. Serialised, its fields have the names that `qemu-img info` prints as
/// JSON, wherever that has them.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImageInfo {
    /// The image as it was named.
    pub filename: String,
    /// Its format, named as QEMU names it.
    pub format: String,
    /// The disk's size, in bytes; `None` if nothing here could find it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_size: Option<u64>,
    /// How much of the host's space the file takes, in bytes; `None` if it is not a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual_size: Option<u64>,
    /// Bytes of a cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_size: Option<u64>,
    /// Whether the content is encrypted.
    #[serde(skip_serializing_if = "is_false")]
    pub encrypted: bool,
    /// Whether refcounts may be wrong, as the image was not closed.
    pub dirty_flag: bool,
    /// The backing file's name, as the image has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing_filename: Option<String>,
    /// Where that leads; `None` if it is no file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_backing_filename: Option<String>,
    /// The backing file's format, as the image has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backing_filename_format: Option<String>,
    /// The internal snapshots.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<SnapshotInfo>,
    /// What only this format has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format_specific: Option<FormatSpecific>,
}

/// An internal snapshot.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SnapshotInfo {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Length of the saved VM state, in bytes.
    pub vm_state_size: u64,
    /// When it was taken, in seconds since 1970.
    pub date_sec: u32,
    /// And nanoseconds.
    pub date_nsec: u32,
    /// How long the guest had run, in seconds.
    pub vm_clock_sec: u64,
    /// And nanoseconds.
    pub vm_clock_nsec: u64,
    /// The guest's instruction count, if it was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icount: Option<u64>,
}

/// What only one format has.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", content = "data", rename_all = "lowercase")]
pub enum FormatSpecific {
    /// qcow2.
    Qcow2(Qcow2Info),
}

/// What only qcow2 has.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Qcow2Info {
    /// `0.10` is version 2, `1.1` is version 3: the QEMU that brought it.
    pub compat: &'static str,
    /// `zlib` or `zstd`, or the number of another.
    pub compression_type: String,
    /// Refcounts are written late. Version 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lazy_refcounts: Option<bool>,
    /// Bits of a refcount.
    pub refcount_bits: u32,
    /// Something was found corrupt. Version 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrupt: Option<bool>,
    /// L2 entries have a bitmap of subclusters. Version 3.
    #[serde(rename = "extended-l2", skip_serializing_if = "Option::is_none")]
    pub extended_l2: Option<bool>,
    /// The external data file's name, as the image has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_file: Option<String>,
    /// Whether that is a raw image by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_file_raw: Option<bool>,
    /// How the content is encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypt: Option<EncryptInfo>,
    /// The dirty bitmaps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bitmaps: Vec<BitmapInfo>,
    /// Incompatible features that we do not know, by the names that the image gives them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown_features: Vec<String>,
}

/// How content is encrypted.
#[derive(Debug, Clone, Serialize)]
pub struct EncryptInfo {
    /// `aes`, `luks`, or the number of another.
    pub format: String,
}

/// A dirty bitmap.
#[derive(Debug, Clone, Serialize)]
pub struct BitmapInfo {
    /// Its name.
    pub name: String,
    /// One bit stands for this many bytes of the disk.
    pub granularity: u64,
    /// `in-use`, `auto`.
    pub flags: Vec<&'static str>,
}

/// What is known of an image and of those below it.
#[derive(Debug, Clone)]
pub struct Info {
    /// The image, then its backing file, and so on.
    pub chain: Vec<ImageInfo>,
    /// What could not be found out and why, and what the user should know.
    pub warnings: Vec<String>,
}

/// Tells what an image is, by its header. Works on images that cannot be opened, such as encrypted
/// ones, and on those that others have open; a backing file that cannot be looked at is a warning.
pub fn info(name: &str, options: &OpenOptions) -> Result<Info> {
    // Nothing is read but headers, which is safe enough while another process writes.
    let options = OpenOptions { read_only: true, allow_in_use: true, ..options.clone() };
    let mut warnings = Vec::new();
    if uri::is_uri(name) {
        let opened = remote::open_uri(name, &options, &mut warnings)?;
        let chain =
            vec![plain(&uri::without_password(name), &opened.format, Some(opened.device.size()), None)];
        return Ok(Info { chain, warnings });
    }
    let mut opener = Opener::new(&options, &mut warnings);
    let mut chain = Vec::new();
    let mut next = Some(opener.find_top(name)?);
    while let Some(file) = next.take() {
        let (image, backing) = describe(&mut opener, file)?;
        if let (Some(named), Some(layer)) = (&image.backing_filename, backing) {
            let format = image.backing_filename_format.as_deref();
            match opener.open_backing(&layer, named, format) {
                Ok(file) => next = Some(file),
                Err(e) => opener.warnings.push(e.to_string()),
            }
        }
        chain.push(image);
    }
    Ok(Info { chain, warnings })
}

/// An image without more to tell.
fn plain(name: &str, format: &Format, virtual_size: Option<u64>, actual_size: Option<u64>) -> ImageInfo {
    ImageInfo {
        filename: name.to_owned(),
        format: format.to_string(),
        virtual_size,
        actual_size,
        cluster_size: None,
        encrypted: false,
        dirty_flag: false,
        backing_filename: None,
        full_backing_filename: None,
        backing_filename_format: None,
        snapshots: Vec::new(),
        format_specific: None,
    }
}

/// Describes one image. The name comes back with it if it has a backing file.
fn describe(opener: &mut Opener<'_>, file: File) -> Result<(ImageInfo, Option<String>)> {
    let File { name, storage, format } = file;
    let io = |source| Error::Io { image: name.clone(), doing: "cannot read", source };
    let actual_size = Some(storage.file().metadata().map_err(io)?.blocks() * 512);
    match &format {
        Format::Raw => {
            let size = storage.size().map_err(io)?.next_multiple_of(512);
            Ok((plain(&name, &format, Some(size), actual_size), None))
        }
        Format::Qcow2 => {
            opener.lock(&name, &storage, true)?;
            let header = Header::read(&name, &storage)?;
            let mut info = plain(&name, &format, Some(header.size), actual_size);
            qcow2_info(&mut info, opener, &storage, &header);
            Ok((info, header.backing_file.is_some().then_some(name)))
        }
        Format::ViaQemu(other) => {
            let size = match via_qemu::open(opener, &name, storage, other) {
                Ok(device) => Some(device.size()),
                Err(e) => {
                    opener.warnings.push(e.to_string());
                    None
                }
            };
            Ok((plain(&name, &format, size, actual_size), None))
        }
    }
}

fn qcow2_info(info: &mut ImageInfo, opener: &mut Opener<'_>, storage: &Arc<HostFile>, header: &Header) {
    let mut warn = |problem: qcow2::Problem| opener.warnings.push(problem.of(&info.filename).to_string());
    let snapshots = qcow2::read_snapshots(storage, header).unwrap_or_else(|problem| {
        warn(problem);
        Vec::new()
    });
    let bitmaps = qcow2::read_bitmaps(storage, header).unwrap_or_else(|problem| {
        warn(problem);
        Vec::new()
    });
    let named = header.backing_file.as_deref();
    let resolved = named.and_then(|named| super::reference::resolve(Path::new(&info.filename), named).ok());
    info.cluster_size = Some(header.cluster_size());
    info.encrypted = header.encryption.is_some();
    info.dirty_flag = header.incompatible.contains(Incompatible::DIRTY);
    info.backing_filename = header.backing_file.clone();
    info.full_backing_filename = resolved.map(|resolved| resolved.path.to_string_lossy().into_owned());
    info.backing_filename_format = header.backing_format.clone();
    info.snapshots = snapshots
        .into_iter()
        .map(|snapshot| SnapshotInfo {
            id: snapshot.id,
            name: snapshot.name,
            vm_state_size: snapshot.vm_state_size,
            date_sec: snapshot.date_sec,
            date_nsec: snapshot.date_nsec,
            vm_clock_sec: snapshot.vm_clock_nsec / 1_000_000_000,
            vm_clock_nsec: snapshot.vm_clock_nsec % 1_000_000_000,
            icount: snapshot.icount,
        })
        .collect();
    let is_v3 = header.version >= 3;
    let flag = |set: bool| is_v3.then_some(set);
    let external = header.has_data_file();
    info.format_specific = Some(FormatSpecific::Qcow2(Qcow2Info {
        compat: if is_v3 { "1.1" } else { "0.10" },
        compression_type: header.compression.to_string(),
        lazy_refcounts: flag(header.has_lazy_refcounts()),
        refcount_bits: 1 << header.refcount_order,
        corrupt: flag(header.incompatible.contains(Incompatible::CORRUPT)),
        extended_l2: flag(header.has_subclusters()),
        data_file: header.data_file.clone().filter(|_| external),
        data_file_raw: external.then_some(header.autoclear.contains(Autoclear::DATA_FILE_RAW)),
        encrypt: header.encryption.map(|encryption| EncryptInfo {
            format: match encryption {
                Encryption::Aes => "aes".into(),
                Encryption::Luks => "luks".into(),
                Encryption::Other(number) => number.to_string(),
            },
        }),
        bitmaps: bitmaps
            .into_iter()
            .map(|bitmap| BitmapInfo {
                name: bitmap.name,
                granularity: bitmap.granularity,
                flags: [(bitmap.in_use, "in-use"), (bitmap.auto, "auto")]
                    .into_iter()
                    .filter_map(|(set, name)| set.then_some(name))
                    .collect(),
            })
            .collect(),
        unknown_features: header.unknown_features(),
    }));
}

/// For serde, which passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(value: &bool) -> bool {
    !value
}
