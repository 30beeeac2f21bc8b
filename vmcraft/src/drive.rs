//! The disks that a handle was given.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vmcraft_block::image::{self, Format, Gate};
use vmcraft_block::{BlockDevice, Discard, Extent, MapExtents, check_extent_query, check_range};

/// How a disk is added.
#[derive(Clone, Default)]
pub struct DriveOptions {
    /// Its format; `None` detects it.
    pub format: Option<Format>,
    /// Never change the image. What is written to the disk is seen in the handle and thrown away with
    /// it, as it is in libguestfs.
    pub read_only: bool,
    /// Open it even while another process writes to it. Only with `read_only`.
    pub allow_in_use: bool,
    /// A name of its own, under `/dev/disk/guestfs/`.
    pub label: Option<String>,
    /// The size of the sectors that the guest addresses, in bytes; `None` takes the image's, which
    /// is 512 wherever the image does not tell. An image of a 4Kn disk needs 4096 if the disk has an
    /// MBR.
    pub sector_size: Option<u32>,
    /// Show this internal snapshot, by its ID or name, instead of the disk as it is now.
    pub snapshot: Option<String>,
}

/// A disk that was added.
#[derive(Clone)]
pub(crate) struct Drive {
    /// A path or URI, as the user gave it.
    pub(crate) name: String,
    pub(crate) content: Content,
    pub(crate) options: DriveOptions,
}

impl Drive {
    /// Its name for messages: a URI without its password.
    pub(crate) fn shown(&self) -> String {
        image::without_password(&self.name)
    }
}

/// Where a disk's bytes are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// In the image that the drive is named by.
    Image,
    /// Nowhere: so many zeros.
    Zeros(u64),
}

/// Lets an image open files in its own directory, in these, and below them.
///
/// A guest's owner can write any name into an image's header: without this, a disk that was uploaded
/// could have the host's files read as its backing file.
pub fn directory_gate(allowed: Vec<PathBuf>) -> Arc<Gate> {
    Arc::new(move |reference| {
        let file = reference
            .resolved
            .canonicalize()
            .map_err(|e| format!("{}: {e}", reference.resolved.display()))?;
        let image = Path::new(reference.image);
        let own = image.parent().unwrap_or(Path::new(""));
        let own = if own.as_os_str().is_empty() { Path::new(".") } else { own };
        // The image can be a symbolic link to one in another directory.
        let real = image.canonicalize().ok();
        let real = real.as_deref().and_then(Path::parent);
        let inside = |directory: &Path| directory.canonicalize().is_ok_and(|dir| file.starts_with(dir));
        if inside(own) || real.is_some_and(inside) || allowed.iter().any(|directory| inside(directory)) {
            return Ok(());
        }
        Err(format!(
            "{} is outside the image's directory; allow it with --allow-backing {}",
            reference.resolved.display(),
            reference.resolved.parent().unwrap_or(Path::new("/")).display(),
        ))
    })
}

/// A disk of zeros.
pub(crate) struct ZeroDevice(pub(crate) u64);

impl BlockDevice for ZeroDevice {
    fn size(&self) -> u64 {
        self.0
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.0, "a read")?;
        buf.fill(0);
        Ok(())
    }
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn is_read_only(&self) -> bool {
        true
    }
    fn logical_sector_size(&self) -> u32 {
        512
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        Some(self)
    }
    fn discard(&self) -> Option<&dyn Discard> {
        None
    }
}

impl MapExtents for ZeroDevice {
    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_extent_query(offset, self.0)?;
        Ok(Extent { offset, len: self.0 - offset, is_hole: true })
    }
}

impl DriveOptions {
    /// To look at a disk even while another process writes to it.
    pub fn to_look() -> Self {
        Self { read_only: true, allow_in_use: true, ..Self::default() }
    }
}

/// A disk whose sector size is said to be another.
pub(crate) struct WithSectorSize {
    pub(crate) inner: Arc<dyn BlockDevice>,
    pub(crate) sector_size: u32,
}

impl BlockDevice for WithSectorSize {
    fn size(&self) -> u64 {
        self.inner.size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.inner.write_at(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        self.inner.flush()
    }
    fn is_read_only(&self) -> bool {
        self.inner.is_read_only()
    }
    fn logical_sector_size(&self) -> u32 {
        self.sector_size
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        self.inner.extents()
    }
    fn discard(&self) -> Option<&dyn Discard> {
        self.inner.discard()
    }
}
