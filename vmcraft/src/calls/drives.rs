//! Adding drives and launching.

use vmcraft_macros::api;

use crate::drive::{Drive, DriveOptions};
use crate::{Error, Guest, Result};

#[api(area = "drives")]
impl Guest {
    /// Add a disk image to the handle
    ///
    /// `filename` is a file of the host or a URI (`nbd://…`). Without `format` the format is
    /// detected.
    #[call(alias = "add", alias = "add-drive-opts")]
    pub fn add_drive(
        &mut self,
        filename: &str,
        readonly: Option<bool>,
        format: Option<&str>,
        iface: Option<&str>,
        label: Option<&str>,
    ) -> Result<()> {
        let format = format
            .map(|format| format.parse().map_err(|e| Error::Usage(format!("{filename}: {e}"))))
            .transpose()?;
        self.add_drive_with(
            filename,
            DriveOptions {
                format,
                allow_in_use: readonly.unwrap_or(false),
                label: label.map(str::to_owned),
                interface: iface.map(str::to_owned),
            },
        )
    }

    /// Open the disks
    ///
    /// Call this after the drives were added and before anything else.
    #[call(alias = "run")]
    pub fn launch(&mut self) -> Result<()> {
        self.launch_drives()
    }
}

impl Guest {
    /// Adds a disk with all that can be said of it.
    pub fn add_drive_with(&mut self, name: &str, options: DriveOptions) -> Result<()> {
        if self.disks.is_some() {
            return Err(Error::Usage(format!("{name}: drives are added before launch")));
        }
        self.drives.push(Drive { name: name.to_owned(), options });
        Ok(())
    }
}
