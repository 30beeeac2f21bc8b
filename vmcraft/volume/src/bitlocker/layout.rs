//! The decrypted volume, put together from where its parts are.

use std::sync::Arc;

use vmcraft_block::BlockDevice;

use super::header::HeaderKind;
use super::metadata::State;
use super::{BitLocker, eow, vista};
use crate::crypt::{CryptDevice, CryptLayout, SectorCipher};
use crate::dm::{Content, Linear, Piece};
use crate::{Error, Result};

/// What each copy of the metadata takes, in bytes.
const METADATA_BYTES: u64 = 64 << 10;
/// The same in Vista, at least.
const VISTA_METADATA_BYTES: u64 = 16 << 10;
/// What is never encrypted at the beginning of a Vista volume, in bytes.
const VISTA_PLAIN_BYTES: u64 = 8 << 10;

/// Gives the decrypted device. `cipher` is `None` if nothing is encrypted.
pub(super) fn open(
    volume: &BitLocker,
    cipher: Option<Box<dyn SectorCipher>>,
) -> Result<Arc<dyn BlockDevice>> {
    let (metadata, header) = (&volume.metadata, &volume.header);
    let device = &volume.member.device;
    let sector = u64::from(header.sector_size);
    let at = |what: &str| Error::Corrupt { what: what.into(), offset: metadata.offset };

    // A device that is cut off is read as far as it goes.
    let is_whole = metadata.state == State::Encrypted && metadata.encrypted_bytes > 0;
    let size = if is_whole { metadata.encrypted_bytes.min(device.size()) } else { device.size() };
    let size = size - size % sector;

    let mut reserved = Vec::new();
    let mut places = Places { below: Arc::clone(device), decrypted: None, boundary: 0, size };
    if let Some(cipher) = cipher {
        let boundary = match metadata.state {
            State::Encrypted => size,
            State::Decrypted => 0,
            State::ConvertingWithLog if metadata.log_bytes > 0 => {
                return Err(Error::Unsupported(
                    "a BitLocker volume that is being converted and has a log of it: let Windows finish it first"
                        .into(),
                ));
            }
            State::Converting | State::ConvertingWithLog | State::Paused => {
                metadata.encrypted_bytes.min(size)
            }
        };
        if boundary % sector != 0 {
            return Err(at("BitLocker metadata: the end of what is encrypted"));
        }
        let layout = CryptLayout {
            offset: 0,
            size: boundary,
            sector_size: header.sector_size,
            iv_offset: 0,
            iv_large_sectors: true,
        };
        places.decrypted = Some(Arc::new(CryptDevice::new(Arc::clone(device), cipher, layout)?));
        places.boundary = boundary;
    }
    if let Some(offsets) = header.eow {
        let eow = eow::read(&**device, offsets, header.sector_size, size)?;
        reserved.extend(eow.reserved());
        if let Some(decrypted) = &places.decrypted
            && !eow.is_complete(size)
        {
            places.decrypted =
                Some(Arc::new(eow::Device::new(eow, Arc::clone(decrypted), Arc::clone(device))));
        }
    }

    let mut pieces = Vec::new();
    let beginning;
    let metadata_bytes;
    if header.kind == HeaderKind::Vista {
        beginning = VISTA_PLAIN_BYTES.min(size);
        // The block's own size, in whole clusters.
        metadata_bytes = VISTA_METADATA_BYTES.next_multiple_of(header.cluster_size.max(1));
        let first =
            Arc::new(vista::FirstSector::new(Arc::clone(device), header.sector_size, metadata.moved_to)?);
        pieces.push(Piece { len: sector, content: Content::Device { device: first, offset: 0 } });
        places.plain(sector, beginning, &mut pieces);
    } else {
        beginning = u64::from(metadata.moved_sectors) * sector;
        metadata_bytes = METADATA_BYTES.next_multiple_of(sector);
        let end = metadata.moved_to.checked_add(beginning);
        if beginning == 0 || metadata.moved_to < beginning || metadata.moved_to % sector != 0 {
            return Err(at("BitLocker metadata: the place of the volume's beginning"));
        }
        let end = end.ok_or_else(|| at("BitLocker metadata: the place of the volume's beginning"))?;
        places.add(metadata.moved_to, end, &mut pieces);
        reserved.push((metadata.moved_to, end));
    }
    for block in metadata.blocks {
        let end = block.checked_add(metadata_bytes);
        reserved.push((block, end.ok_or_else(|| at("BitLocker metadata: the place of a copy"))?));
    }
    reserved.sort_unstable();
    let mut done = beginning;
    for (start, end) in reserved {
        if start < beginning || start % sector != 0 || end % sector != 0 {
            return Err(at("BitLocker metadata: a place of its own that is in the volume's beginning"));
        }
        let (start, end) = (start.clamp(done, size.max(done)), end.clamp(done, size.max(done)));
        places.add(done, start, &mut pieces);
        pieces.push(Piece { len: end - start, content: Content::Zero });
        done = end;
    }
    places.add(done, size, &mut pieces);
    Ok(Arc::new(Linear::new(pieces)?))
}

/// What is where on the device below.
struct Places {
    below: Arc<dyn BlockDevice>,
    /// The decrypted view of the device below, up to `boundary`.
    decrypted: Option<Arc<dyn BlockDevice>>,
    /// What is behind it is not encrypted.
    boundary: u64,
    /// The size of the volume.
    size: u64,
}

impl Places {
    /// Adds the bytes from `start` to `end`, decrypted where they are encrypted.
    fn add(&self, start: u64, end: u64, pieces: &mut Vec<Piece>) {
        let boundary = self.boundary.clamp(start, end.max(start));
        if let Some(decrypted) = &self.decrypted {
            let content = Content::Device { device: Arc::clone(decrypted), offset: start };
            pieces.push(Piece { len: boundary - start, content });
        }
        self.plain(boundary, end, pieces);
    }

    /// Adds the bytes from `start` to `end` as they are.
    fn plain(&self, start: u64, end: u64, pieces: &mut Vec<Piece>) {
        let there = self.size.clamp(start, end.max(start));
        let content = Content::Device { device: Arc::clone(&self.below), offset: start };
        pieces.push(Piece { len: there - start, content });
        let missing = "this part of the BitLocker volume is beyond the end of the device";
        pieces.push(Piece { len: end.saturating_sub(there), content: Content::Error(missing.into()) });
    }
}
