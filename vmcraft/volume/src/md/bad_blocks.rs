//! The log of a member's bad blocks: where its content is not to be used.
//!
//! Spec: Linux `drivers/md/md.c`, `super_1_load`: numbers of 64 bits, little-endian, of which the low 10 bits are a
//! length and the others a place on the member; all ones is the end.

use std::ops::Range;

use vmcraft_block::BlockDevice;

use super::superblock::{BadBlockArea, SECTOR};
use crate::{Error, Result};

/// The bad ranges of the member, in bytes from `data_start` on, in order and apart.
pub(super) fn read(device: &dyn BlockDevice, area: BadBlockArea, data_start: u64) -> Result<Vec<Range<u64>>> {
    let mut bytes = vec![0; area.len];
    device.read_at(area.offset, &mut bytes)?;
    decode(&bytes, area, data_start)
}

fn decode(bytes: &[u8], area: BadBlockArea, data_start: u64) -> Result<Vec<Range<u64>>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let (entries, _) = bytes.as_chunks::<8>();
    for (index, entry) in entries.iter().enumerate() {
        let entry = u64::from_le_bytes(*entry);
        if entry == u64::MAX {
            break;
        }
        let unit = SECTOR << area.shift;
        let place = (entry >> 10).checked_mul(unit);
        let end = place.and_then(|place| place.checked_add((entry & 0x3ff) * unit));
        let (Some(place), Some(end)) = (place, end) else {
            return Err(Error::Corrupt {
                what: format!("md log of bad blocks: entry {index}"),
                offset: area.offset + index as u64 * 8,
            });
        };
        let range = place.saturating_sub(data_start)..end.saturating_sub(data_start);
        if !range.is_empty() {
            ranges.push(range);
        }
    }
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, range| {
        let touches = next.start <= range.end;
        if touches {
            range.end = range.end.max(next.end);
        }
        touches
    });
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(entries: &[u64]) -> Vec<u8> {
        entries.iter().flat_map(|entry| entry.to_le_bytes()).collect()
    }

    const AREA: BadBlockArea = BadBlockArea { offset: 8192, len: 4096, shift: 0 };

    #[test]
    fn ranges_are_in_order_and_apart() {
        let entries = [50 << 10 | 2, 10 << 10 | 4, 12 << 10 | 8, 2 << 10 | 3, u64::MAX, 99 << 10 | 1];
        let ranges = decode(&log(&entries), AREA, 4 * 512).unwrap();
        // Of what begins before the data, only what is in the data counts.
        assert_eq!(ranges, [0..512, 6 * 512..16 * 512, 46 * 512..48 * 512]);
        let coarse = BadBlockArea { shift: 3, ..AREA };
        assert_eq!(
            decode(&log(&[2 << 10 | 1, 9 << 10 | 1]), coarse, 0).unwrap(),
            [8192..12288, 36864..40960]
        );
    }

    #[test]
    fn a_place_that_overflows_is_corrupt() {
        let far = BadBlockArea { shift: 32, ..AREA };
        let error = decode(&log(&[u64::MAX - 1]), far, 0).unwrap_err();
        assert!(error.to_string().contains("bad blocks"), "{error}");
    }
}
