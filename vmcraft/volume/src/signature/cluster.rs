//! File systems and stores that several hosts share: GFS, OCFS2, VMFS, Ceph.

use bstr::ByteSlice;

use super::reader::{Block, Reader};
use super::{Format, Found, Usage};
use crate::Result;

pub(super) const GFS: Format =
    Format::new("gfs", Usage::FileSystem, |r| gfs(r, 1309, 1401)).at_least(32 << 20);
pub(super) const GFS2: Format =
    Format::new("gfs2", Usage::FileSystem, |r| gfs(r, 1801, 1900)).at_least(32 << 20);
pub(super) const OCFS2: Format = Format::new("ocfs2", Usage::FileSystem, ocfs2).at_least(14_000 << 10);
pub(super) const VMFS: Format = Format::new("VMFS", Usage::FileSystem, |reader| {
    let info = reader.block_with(2 << 20, 256, 0, &[0x5e, 0xf1, 0xab, 0x2f])?;
    Ok(info.map(|info| Found {
        label: info.text(29, 128),
        uuid: vmfs_uuid(&info, 9),
        version: info.u8(8).to_string(),
        ..Found::default()
    }))
});
/// A device that a VMFS is on.
pub(super) const VMFS_VOLUME: Format = Format::new("VMFS_volume_member", Usage::Raid, |reader| {
    let info = reader.block_with(1 << 20, 1024, 0, &[0x0d, 0xd0, 0x01, 0xc0])?;
    Ok(info.map(|info| Found {
        uuid: info.text(532, 35).to_str_lossy().into_owned(),
        sub_uuid: vmfs_uuid(&info, 130),
        version: info.le32(4).to_string(),
        ..Found::default()
    }))
});
pub(super) const BLUESTORE: Format = Format::new("ceph_bluestore", Usage::Other, |reader| {
    Ok(reader.has(0, b"bluestore block device")?.then(Found::default))
});

/// Spec: Linux `include/uapi/linux/gfs2_ondisk.h`. Big-endian.
fn gfs(reader: &Reader<'_>, format: u32, multihost_format: u32) -> Result<Option<Found>> {
    let superblock = reader.block_with(64 << 10, 512, 0, &[0x01, 0x16, 0x19, 0x70])?;
    let is_this = |s: &Block<'_>| s.be32(24) == format && s.be32(28) == multihost_format;
    Ok(superblock.filter(is_this).map(|superblock| Found {
        label: superblock.text(160, 64),
        uuid: superblock.uuid(256),
        version: if format == 1801 { "1".into() } else { String::new() },
        ..Found::default()
    }))
}

/// The superblock stands in the second block of the volume, whatever size blocks have.
fn ocfs2(reader: &Reader<'_>) -> Result<Option<Found>> {
    for offset in [1 << 10, 2 << 10, 4 << 10, 8 << 10] {
        if let Some(superblock) = reader.block_with(offset, 512, 0, b"OCFSV2")? {
            return Ok(Some(Found {
                label: superblock.text(272, 64),
                uuid: superblock.uuid(336),
                version: format!("{}.{}", superblock.le16(192), superblock.le16(194)),
                ..Found::default()
            }));
        }
    }
    Ok(None)
}

/// VMware groups a UUID's digits in its own way.
fn vmfs_uuid(block: &Block<'_>, at: usize) -> String {
    let rest: String = block.bytes(at + 10, 6).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{:08x}-{:08x}-{:04x}-{rest}", block.le32(at), block.le32(at + 4), block.le16(at + 8))
}
