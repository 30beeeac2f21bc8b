//! Making a device hold nothing that is recognised.

use vmcraft_block::BlockDevice;

use super::reader::Reader;
use super::{DEAR_FORMATS, FORMATS, Format};
use crate::partition::{GPT_SIGNATURE, PartitionTable};
use crate::{Error, Result};

/// More magics than a device can have.
const MAX_MAGICS: usize = 256;

/// Where the last two bytes of a boot sector are, and what they are.
const BOOT_MAGIC_AT: u64 = 510;
const BOOT_MAGIC: [u8; 2] = [0x55, 0xaa];

/// Overwrites with zeros what file systems, containers and partition tables are recognised by, and
/// nothing else. Returns the kinds that were there, as `blkid` names them.
///
/// # Errors
/// The device could not be read or written, or there is a kind whose magic we cannot tell from its
/// other fields. Then some others may be erased.
pub fn erase(device: &dyn BlockDevice) -> Result<Vec<&'static str>> {
    let mut kinds = Vec::new();
    for _ in 0..MAX_MAGICS {
        // A partition table first: it may hide a signature. It comes to light again when the name of a
        // file system is no longer in a boot sector.
        let kind = match erase_table(device)? {
            Some(kind) => kind,
            None => match erase_magic(device)? {
                Some(kind) => kind,
                None => return Ok(kinds),
            },
        };
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Err(Error::Unsupported(format!("erasing more than {MAX_MAGICS} signatures ({})", kinds.join(", "))))
}

/// Erases one magic of the first thing that is recognised: a format that is still recognised then has
/// others.
fn erase_magic(device: &dyn BlockDevice) -> Result<Option<&'static str>> {
    let reader = Reader::new(device)?;
    let can_hold = |format: &&Format| reader.size() >= format.min_bytes;
    for format in FORMATS.iter().chain(DEAR_FORMATS).filter(can_hold) {
        reader.take_magics();
        if (format.find)(&reader)?.is_none() {
            continue;
        }
        let Some((offset, len)) = reader.take_magics().first().copied() else {
            return Err(Error::Unsupported(format!("erasing the signature of {}", format.kind)));
        };
        device.write_at(offset, &vec![0; len])?;
        return Ok(Some(format.kind));
    }
    Ok(None)
}

/// Erases a partition table's magics: those of both headers of a GPT, and the boot sector's.
fn erase_table(device: &dyn BlockDevice) -> Result<Option<&'static str>> {
    let has_table = !matches!(PartitionTable::read(device), Ok(None));
    let sector = u64::from(device.logical_sector_size());
    let mut is_gpt = false;
    for header in [Some(sector), device.size().checked_sub(sector)].into_iter().flatten() {
        is_gpt |= zero_if(device, header, GPT_SIGNATURE)?;
    }
    let is_boot_sector = (has_table || is_gpt) && zero_if(device, BOOT_MAGIC_AT, &BOOT_MAGIC)?;
    Ok(match (is_gpt, is_boot_sector) {
        (true, _) => Some("gpt"),
        (false, true) => Some("dos"),
        (false, false) => None,
    })
}

/// Overwrites these bytes with zeros if they are there.
fn zero_if(device: &dyn BlockDevice, offset: u64, magic: &[u8]) -> Result<bool> {
    let mut found = vec![0; magic.len()];
    if offset + magic.len() as u64 > device.size() {
        return Ok(false);
    }
    device.read_at(offset, &mut found)?;
    let is_there = found == magic;
    if is_there {
        found.fill(0);
        device.write_at(offset, &found)?;
    }
    Ok(is_there)
}
