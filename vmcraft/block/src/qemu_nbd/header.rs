//! What images of formats that QEMU opens for us say of other files, but for VMDK.
//!
//! Only that much of a header is looked at. An image that continues in another file is refused by
//! name; of an image that does not, QEMU is told so (`"backing": null`).

use std::io;

use crate::storage::{Storage, read_exact_at};

/// The feature, by name, with which an image needs another file, and which we do not follow.
pub(crate) fn needs_other_file(format: &str, storage: &dyn Storage) -> io::Result<Option<String>> {
    let mut start = [0; 512];
    let read = storage.read_at(0, &mut start)?;
    let start = &start[..read];
    Ok(match format {
        // QEMU's `docs/interop/qed_spec.rst`: feature bit 0 at byte 16, little-endian.
        "qed" if start.get(16).is_some_and(|features| features & 1 != 0) => {
            Some("a qed image with a backing file; convert it first with qemu-img convert -O qcow2".into())
        }
        // The first version of qcow: the backing file's name is at the offset that is at byte 8.
        "qcow" if start.get(8..16).is_some_and(|offset| offset != [0; 8]) => {
            Some("a qcow image with a backing file; convert it first with qemu-img convert -O qcow2".into())
        }
        "vpc" if is_differencing_vhd(start, storage)? => {
            Some("a differencing VHD, which needs its parent; merge it into its parent first".into())
        }
        _ => None,
    })
}

/// Microsoft's Virtual Hard Disk Image Format Specification: the disk type is the big-endian u32 at
/// byte 60 of the footer, of which dynamic and differencing disks have a copy at their start.
fn is_differencing_vhd(start: &[u8], storage: &dyn Storage) -> io::Result<bool> {
    const FOOTER: u64 = 512;
    const DIFFERENCING: [u8; 4] = 4u32.to_be_bytes();
    let says_so =
        |footer: &[u8]| footer.starts_with(b"conectix") && footer.get(60..64) == Some(&DIFFERENCING);
    if says_so(start) {
        return Ok(true);
    }
    let Some(at) = storage.size()?.checked_sub(FOOTER) else { return Ok(false) };
    let mut footer = [0; 512];
    read_exact_at(storage, at, &mut footer)?;
    Ok(says_so(&footer))
}
