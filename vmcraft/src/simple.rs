//! The few steps that most users of the library need, in one call each.

use std::path::Path;

use crate::drive::DriveOptions;
use crate::limits::MAX_RESULT_BYTES;
use crate::{Error, Guest, GuestPath, Result};

impl Guest {
    /// A handle with one disk, launched. Its format is detected.
    ///
    /// `image` is a file, or a URI such as `nbd://host/export`. Nothing is mounted yet:
    /// [`mount_root`](Guest::mount_root) mounts what the operating system inside would, and
    /// [`mount`](Guest::mount) a file system by its device.
    ///
    /// ```no_run
    /// use vmcraft::Guest;
    ///
    /// let mut guest = Guest::open("disk.qcow2")?;
    /// guest.mount_root()?;
    /// for line in guest.read_lines("/etc/fstab".into())? {
    ///     println!("{line}");
    /// }
    /// # Ok::<(), vmcraft::Error>(())
    /// ```
    pub fn open(image: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(image, DriveOptions { read_only: true, ..DriveOptions::default() })
    }

    /// As [`open`](Guest::open), with all that can be said of the disk.
    ///
    /// ```no_run
    /// use vmcraft::{DriveOptions, Guest};
    ///
    /// // A running machine's disk: what is read may change meanwhile.
    /// let mut guest = Guest::open_with("disk.qcow2", DriveOptions::to_look())?;
    /// # Ok::<(), vmcraft::Error>(())
    /// ```
    pub fn open_with(image: impl AsRef<Path>, options: DriveOptions) -> Result<Self> {
        let image = image.as_ref();
        let name = image.to_str().ok_or_else(|| {
            Error::Usage(format!("{}: the name of an image must be valid UTF-8", image.display()))
        })?;
        let mut guest = Self::new();
        guest.add_drive_with(name, options)?;
        guest.launch()?;
        Ok(guest)
    }

    /// Reads a file of the guest, of at most 64 MiB.
    ///
    /// ```no_run
    /// # let mut guest = vmcraft::Guest::open("disk.qcow2")?;
    /// # guest.mount_root()?;
    /// let hostname = guest.read("/etc/hostname")?;
    /// assert_eq!(hostname, b"debian\n");
    /// # Ok::<(), vmcraft::Error>(())
    /// ```
    pub fn read(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>> {
        self.resolve(GuestPath::new(&path))?.read_to_vec(MAX_RESULT_BYTES)
    }

    /// Whether there is a Linux on the disks. The disks are looked at once.
    pub fn is_linux(&mut self) -> Result<bool> {
        self.has_system("linux")
    }

    /// Whether there is a Windows on the disks. The disks are looked at once.
    pub fn is_windows(&mut self) -> Result<bool> {
        self.has_system("windows")
    }

    fn has_system(&mut self, os_type: &str) -> Result<bool> {
        Ok(self.operating_systems()?.iter().any(|system| system.os_type == os_type))
    }
}
