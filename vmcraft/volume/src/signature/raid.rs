//! Members of RAID arrays: Linux md, DDF and Intel's firmware RAID.

use bstr::ByteSlice;

use super::reader::{Block, Reader, uuid};
use super::{Format, Found, Usage};
use crate::Result;

pub(super) const LINUX_RAID: Format = Format::new("linux_raid_member", Usage::Raid, linux);
pub(super) const DDF: Format = Format::new("ddf_raid_member", Usage::Raid, ddf).at_least(0x3_0000);
pub(super) const INTEL: Format = Format::new("isw_raid_member", Usage::Raid, intel).at_least(0x1_0000);

const MD_MAGIC: u32 = 0xa92b_4efc;
/// Version 0.90 keeps this much at the device's end for itself.
const MD_RESERVED: u64 = 64 << 10;

/// Spec: Linux `include/uapi/linux/raid/md_p.h`.
fn linux(reader: &Reader<'_>) -> Result<Option<Found>> {
    let size = reader.size();
    if size > MD_RESERVED {
        let old = (size & !(MD_RESERVED - 1)) - MD_RESERVED;
        if let Some(superblock) = reader.block(old, 4096)?
            && let Some(found) = md_0_90(reader, &superblock, old)?
        {
            return Ok(Some(found));
        }
    }
    // Version 1 says by its place which one it is, and has its own position in it.
    let end = (size & !0xfff).checked_sub(0x2000).filter(|_| size > MD_RESERVED);
    for (offset, version) in [(end, "1.0"), (Some(0), "1.1"), (Some(4096), "1.2")] {
        let Some(offset) = offset else { continue };
        let Some(superblock) = reader.block_with(offset, 256, 0, &MD_MAGIC.to_le_bytes())? else { continue };
        if superblock.le32(4) == 1 && superblock.le64(144) == offset / 512 {
            return Ok(Some(Found {
                label: superblock.text(32, 32),
                uuid: superblock.uuid(16),
                sub_uuid: superblock.uuid(168),
                version: version.into(),
            }));
        }
    }
    Ok(None)
}

/// Version 0.90 is in the byte order of the machine that wrote it.
fn md_0_90(reader: &Reader<'_>, superblock: &Block<'_>, offset: u64) -> Result<Option<Found>> {
    let is_big = superblock.has(0, &MD_MAGIC.to_be_bytes());
    if !is_big && !superblock.has(0, &MD_MAGIC.to_le_bytes()) {
        return Ok(None);
    }
    let field = |index: usize| if is_big { superblock.be32(index * 4) } else { superblock.le32(index * 4) };
    let data_bytes = u64::from(field(8)) << 10;
    if offset < data_bytes || reader.size() < data_bytes + MD_RESERVED {
        return Ok(None);
    }
    // The last partition can end so near the end of the disk that its superblock has the place that
    // one of the disk would have.
    if reader.is_in_partition(offset - data_bytes, offset + MD_RESERVED) {
        return Ok(None);
    }
    let words =
        if field(2) >= 90 { [field(5), field(13), field(14), field(15)] } else { [field(5), 0, 0, 0] };
    let mut bytes = [0; 16];
    for (target, word) in bytes.chunks_exact_mut(4).zip(words) {
        target.copy_from_slice(&word.to_be_bytes());
    }
    Ok(Some(Found {
        uuid: uuid(bytes),
        version: format!("{}.{}.{}", field(1), field(2), field(3)),
        ..Found::default()
    }))
}

/// Spec: SNIA Common RAID Disk Data Format. The anchor is in the last sector, or 256 before it.
fn ddf(reader: &Reader<'_>) -> Result<Option<Found>> {
    let sectors = reader.size() / 512;
    for sector in [sectors - 1, sectors - 257] {
        let Some(header) = reader.block(sector * 512, 512)? else { continue };
        if header.has(0, &[0xde, 0x11, 0xde, 0x11]) {
            return Ok(Some(Found {
                uuid: header.text(8, 24).to_str_lossy().into_owned(),
                version: header.text(32, 8).to_str_lossy().into_owned(),
                ..Found::default()
            }));
        }
    }
    Ok(None)
}

/// The second sector from the end, with the version behind the signature.
fn intel(reader: &Reader<'_>) -> Result<Option<Found>> {
    let offset = (reader.size() / 512 - 2) * 512;
    let header = reader.block_with(offset, 48, 0, b"Intel Raid ISM Cfg Sig. ")?;
    Ok(header
        .map(|header| Found { version: header.text(24, 6).to_str_lossy().into_owned(), ..Found::default() }))
}
