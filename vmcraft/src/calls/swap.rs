//! Swap space.

use std::sync::Arc;

use bstr::{BStr, BString, ByteSlice};
use uuid::Uuid;
use vmcraft_block::BlockDevice;
use vmcraft_macros::api;

use crate::change::Opening;
use crate::{DeviceName, Error, Guest, GuestPath, Result};

/// The page of most machines. Swap space made for another size is of no use to them.
const PAGE: usize = 4096;
/// Linux takes no less.
const LEAST_PAGES: u64 = 10;
/// Where the header's fields are in the first page, and where its magic is.
const HEADER: usize = 1024;
const UUID: usize = HEADER + 12;
const LABEL: usize = HEADER + 28;
const LABEL_LEN: usize = 16;
const MAGIC: &[u8] = b"SWAPSPACE2";

#[api(area = "swap")]
impl Guest {
    /// Make swap space on a device
    ///
    /// What the device held is lost. `label` has 16 bytes at most; `uuid` is random without the option.
    ///
    /// ```guestfish
    /// mkswap /dev/sda2
    /// mkswap /dev/sda2 label:swap uuid:9f2b0a3e-5a39-4a0f-8a5e-3f4f6f0c2f11
    /// ```
    #[call(alias = "mkswap-opts")]
    pub fn mkswap(&mut self, device: &DeviceName, label: Option<&BStr>, uuid: Option<&str>) -> Result<()> {
        let uuid = match uuid {
            Some(text) => {
                Uuid::parse_str(text).map_err(|e| Error::Usage(format!("{text:?} is not a UUID: {e}")))?
            }
            None => uuid::Builder::from_random_bytes(self.sources().random()).into_uuid(),
        };
        let label = label.map(BString::from).unwrap_or_default();
        if label.len() > LABEL_LEN || label.contains(&0) {
            return Err(Error::Usage(format!(
                "the label {:?}: swap space has {LABEL_LEN} bytes for it, none of them NUL",
                label.as_bstr()
            )));
        }
        self.atomically(|guest| {
            let (name, device) = guest.open_device_for_writing(device)?;
            let written = write_header(&device, label.as_bstr(), uuid)
                .map_err(|source| Error::Device { device: name.clone(), source });
            guest.device_changed(&name);
            written
        })
    }

    /// Make swap space in a file
    ///
    /// The file `path` must be there, with its final size: `fallocate64` makes it. Linux does not take
    /// one with holes. Its UUID is random.
    ///
    /// ```guestfish
    /// fallocate64 /swapfile 1M
    /// mkswap-file /swapfile
    /// ```
    pub fn mkswap_file(&mut self, path: &GuestPath) -> Result<()> {
        let uuid = uuid::Builder::from_random_bytes(self.sources().random()).into_uuid();
        self.atomically(|guest| {
            let node = guest.open_to_write(path, Opening::Existing)?;
            let pages = node.metadata()?.size_bytes / PAGE as u64;
            let page = header(pages, BStr::new(""), uuid).map_err(|source| node.error(source.into()))?;
            node.writer()?.write(node.inode, 0, &page).map_err(|source| node.error(source))
        })
    }

    /// Make swap space with a label on a device
    ///
    /// The same as `mkswap` with `label`.
    ///
    /// ```guestfish
    /// mkswap-L swap /dev/sda2
    /// ```
    #[call(name = "mkswap-L", deprecated = "mkswap")]
    pub fn mkswap_label(&mut self, label: &BStr, device: &DeviceName) -> Result<()> {
        self.mkswap(device, Some(label), None)
    }

    /// Make swap space with a UUID on a device
    ///
    /// The same as `mkswap` with `uuid`.
    ///
    /// ```guestfish
    /// mkswap-U 9f2b0a3e-5a39-4a0f-8a5e-3f4f6f0c2f11 /dev/sda2
    /// ```
    #[call(name = "mkswap-U", deprecated = "mkswap")]
    pub fn mkswap_uuid(&mut self, uuid: &str, device: &DeviceName) -> Result<()> {
        self.mkswap(device, None, Some(uuid))
    }
}

/// The first page of so many: version 1 of the format, with no bad pages.
fn header(pages: u64, label: &BStr, uuid: Uuid) -> std::io::Result<[u8; PAGE]> {
    if pages < LEAST_PAGES {
        return Err(std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            format!("too small for swap space, which has {} KiB at least", LEAST_PAGES * PAGE as u64 / 1024),
        ));
    }
    // More pages than 32 bits can count are not used.
    let last = u32::try_from(pages - 1).unwrap_or(u32::MAX);
    let mut page = [0; PAGE];
    page[HEADER..HEADER + 4].copy_from_slice(&1u32.to_le_bytes());
    page[HEADER + 4..HEADER + 8].copy_from_slice(&last.to_le_bytes());
    page[UUID..UUID + 16].copy_from_slice(uuid.as_bytes());
    page[LABEL..LABEL + label.len()].copy_from_slice(label);
    page[PAGE - MAGIC.len()..].copy_from_slice(MAGIC);
    Ok(page)
}

/// Writes the first page of a device, which is swap space then and nothing else.
fn write_header(device: &Arc<dyn BlockDevice>, label: &BStr, uuid: Uuid) -> std::io::Result<()> {
    let pages = device.size() / PAGE as u64;
    let page = header(pages, label, uuid)?;
    // What stands further on, such as a superblock of Btrfs, would be seen beside the new header.
    let zeros = [0; PAGE];
    let wiped = pages.min(256);
    for index in 1..wiped {
        device.write_at(index * PAGE as u64, &zeros)?;
    }
    for index in pages.saturating_sub(256).max(wiped)..pages {
        device.write_at(index * PAGE as u64, &zeros)?;
    }
    device.write_at(0, &page)
}
