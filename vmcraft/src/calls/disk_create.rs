//! Making disk images.

use std::path::Path;

use vmcraft_block::image::{self, Format, NewFormat, NewImage, Space};
use vmcraft_block::qcow2;
use vmcraft_macros::api;

use crate::drive::DriveOptions;
use crate::{Error, Guest, Result};

#[api(area = "drives")]
impl Guest {
    /// Make an empty disk image
    ///
    /// `filename` is a file of the host, which loses what it has; an image that is in use is refused.
    /// `format` is `raw` or `qcow2`. `size` is the disk's size in bytes, or -1 for that of the backing
    /// file. The image is not added.
    ///
    /// - `backingfile`, for qcow2, is the image that this one is a change of. A name that is not absolute
    ///   counts from the directory of `filename`. `backingformat` is its format; without it, it is
    ///   detected.
    /// - `preallocation` is `off` (also `sparse`), which is the default; `full`, which takes all of the
    ///   host's space; or for qcow2 `metadata`, which gives each cluster its place in the image and leaves
    ///   the space to be taken later.
    /// - `compat`, for qcow2, is `1.1`, which is the default, or `0.10` for QEMU before 1.1.
    /// - `clustersize`, for qcow2, is the size of clusters in bytes: a power of two from 512 to 2M; 64K
    ///   without it.
    ///
    /// ```guestfish
    /// disk-create disk.qcow2 qcow2 10G
    /// disk-create overlay.qcow2 qcow2 -1 backingfile:disk.qcow2 backingformat:qcow2
    /// ```
    #[allow(clippy::too_many_arguments, reason = "the call has that many")]
    pub fn disk_create(
        &mut self,
        filename: &str,
        format: &str,
        size: i64,
        backingfile: Option<&str>,
        backingformat: Option<&str>,
        preallocation: Option<&str>,
        compat: Option<&str>,
        clustersize: Option<i32>,
    ) -> Result<()> {
        let usage = |what: String| Err(Error::Usage(format!("{filename}: {what}")));
        let backing = match backingfile {
            Some(name) => Some(self.backing(filename, name, backingformat)?),
            None if backingformat.is_some() => {
                return usage("backingformat is given without backingfile".into());
            }
            None => None,
        };
        let size = match (u64::try_from(size), &backing) {
            (Ok(size), _) => size,
            (Err(_), Some(backing)) if size == -1 => backing.size,
            _ => return usage(format!("a disk of {size} bytes cannot be made")),
        };
        let for_qcow2 = [
            ("backingfile", backing.is_some()),
            ("compat", compat.is_some()),
            ("clustersize", clustersize.is_some()),
            ("preallocation:metadata", preallocation == Some("metadata")),
        ];
        let space = match preallocation {
            None | Some("off" | "sparse" | "metadata") => Space::Sparse,
            Some("full") if format == "qcow2" => Space::Allocated,
            Some("full") => Space::Written,
            Some(other) => return usage(format!("preallocation is off, metadata or full, not {other:?}")),
        };
        let format = match format {
            "raw" => match for_qcow2.iter().find(|(_, is_given)| *is_given) {
                Some((option, _)) => {
                    return usage(format!("{option} is for qcow2, and a raw image cannot have it"));
                }
                None => NewFormat::Raw(size),
            },
            "qcow2" => {
                let new = qcow2::CreateOptions::new(size);
                let version = match compat {
                    None | Some("1.1") => 3,
                    Some("0.10") => 2,
                    Some(other) => return usage(format!("compat is 0.10 or 1.1, not {other:?}")),
                };
                let cluster_size = match clustersize {
                    None => new.cluster_size,
                    Some(size) => match u32::try_from(size) {
                        Ok(size) if size.is_power_of_two() && (512..=2 << 20).contains(&size) => size,
                        _ => {
                            return usage(format!(
                                "clustersize is a power of two from 512 to 2M, not {size}"
                            ));
                        }
                    },
                };
                NewFormat::Qcow2(qcow2::CreateOptions {
                    version,
                    cluster_size,
                    preallocated: matches!(preallocation, Some("metadata" | "full")),
                    backing: backing.map(|backing| (backing.name, backing.format)),
                    ..new
                })
            }
            other => {
                return Err(Error::Unsupported(format!(
                    "{filename}: making an image of the format {other:?}: take raw or qcow2"
                )));
            }
        };
        Ok(image::create(filename, &NewImage { format, space })?)
    }
}

/// An image that a new one is a change of.
struct Backing {
    /// As it stands in the new image.
    name: String,
    format: String,
    /// The disk's size in bytes.
    size: u64,
}

impl Guest {
    fn backing(&self, filename: &str, name: &str, format: Option<&str>) -> Result<Backing> {
        let format: Option<Format> = format.map(str::parse).transpose().map_err(Error::Usage)?;
        let resolved = match image::is_uri(name) {
            true => name.to_owned(),
            false => {
                let directory = Path::new(filename).parent().unwrap_or(Path::new(""));
                // Both were text, so their join is.
                directory.join(name).to_string_lossy().into_owned()
            }
        };
        let options = DriveOptions { format, ..DriveOptions::to_look() };
        let info = image::info(&resolved, &self.open_options(&options, true))?;
        // The image itself is the first of its chain.
        let found = info.chain.into_iter().next();
        match found.and_then(|image| Some((image.format, image.virtual_size?))) {
            Some((format, size)) => Ok(Backing { name: name.to_owned(), format, size }),
            None => Err(Error::Unsupported(format!("{resolved}: finding the size of the disk in it"))),
        }
    }
}
