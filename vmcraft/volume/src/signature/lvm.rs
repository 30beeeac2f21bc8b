//! Physical volumes of LVM2, and what device-mapper targets like it write.

use super::reader::{Block, Reader, crc32_from};
use super::{Format, Found, Usage};
use crate::Result;

pub(super) const LVM2: Format = Format::new("LVM2_member", Usage::Raid, lvm2);
/// The store of a snapshot's old blocks.
pub(super) const SNAPSHOT: Format =
    Format::new("DM_snapshot_cow", Usage::Other, |reader| Ok(reader.has(0, b"SnAp")?.then(Found::default)));
/// A deduplicating store.
pub(super) const VDO: Format = Format::new("vdo", Usage::Other, |reader| {
    let superblock = reader.block_with(0, 64, 0, b"dmvdo001")?;
    Ok(superblock.map(|superblock| Found { uuid: superblock.uuid(40), ..Found::default() }))
});
/// A device of a Stratis pool.
pub(super) const STRATIS: Format = Format::new("stratis", Usage::Raid, stratis).at_least(8 << 10);

/// What LVM's checksums start from.
const CRC_START: u32 = 0xf597_a6cf;

/// The label stands in one of the first four sectors, and says in which.
fn lvm2(reader: &Reader<'_>) -> Result<Option<Found>> {
    for sector in 0..4_u64 {
        let Some(label) = reader.block_with(sector * 512, 512, 0, b"LABELONE")? else { continue };
        let is_sound = label.has(24, b"LVM2 001")
            && label.le64(8) == sector
            && label.le32(16) == crc32_from(CRC_START, label.bytes(20, 492));
        if is_sound {
            // The header of the physical volume follows the label; it begins with its identifier.
            return Ok(Some(Found {
                uuid: lvm_uuid(label.bytes(32, 32)),
                version: "LVM2 001".into(),
                ..Found::default()
            }));
        }
    }
    Ok(None)
}

/// An identifier of 32 letters and digits, with dashes as LVM prints it.
fn lvm_uuid(identifier: &[u8]) -> String {
    let mut uuid = String::with_capacity(38);
    for (index, letter) in identifier.iter().enumerate() {
        if matches!(index, 6 | 10 | 14 | 18 | 22 | 26) {
            uuid.push('-');
        }
        uuid.push(char::from(*letter));
    }
    uuid
}

const STRATIS_MAGIC: &[u8] = b"!Stra0tis\x86\xff\x02^\x41rh";

/// Spec: Stratis Software Design, "Static header". Two copies.
fn stratis(reader: &Reader<'_>) -> Result<Option<Found>> {
    let is_sound = |header: &Block<'_>| header.le32(0) == crc32c::crc32c(header.bytes(4, 508));
    for sector in [1, 9] {
        let header = reader.block_with(sector * 512, 512, 4, STRATIS_MAGIC)?;
        if let Some(header) = header.filter(is_sound) {
            let identifier = header.text(64, 32).to_string();
            let uuid = match identifier.is_ascii() && identifier.len() == 32 {
                true => [
                    &identifier[..8],
                    &identifier[8..12],
                    &identifier[12..16],
                    &identifier[16..20],
                    &identifier[20..],
                ]
                .join("-"),
                false => identifier,
            };
            return Ok(Some(Found { uuid, ..Found::default() }));
        }
    }
    Ok(None)
}
