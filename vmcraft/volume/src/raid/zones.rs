//! Striping without redundancy: RAID-0, whose members may differ in size, and concatenation.
//!
//! Members of different sizes make zones: the first goes over all members up to the end of the smallest, the
//! next over those that are longer, and so on.

use std::io;

use super::geometry::refused;

const SECTOR: u64 = 512;

/// Which member has a zone's first chunk, in the second and later zones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ZoneOrder {
    /// Counted by the chunk's number in the array, as Linux before 3.14 did.
    Array,
    /// Counted by the chunk's number in its zone, as Linux does since.
    Zone,
    /// The metadata does not say; right as long as there is only one zone with more than one member.
    Unknown,
}

#[derive(Debug)]
struct Zone {
    /// In bytes of the array.
    start: u64,
    end: u64,
    /// Where the zone begins on each of its members, in bytes.
    member_start: u64,
    members: Vec<usize>,
}

/// The zones of an array.
#[derive(Debug)]
pub(super) struct Zones {
    zones: Vec<Zone>,
    /// 0 for a concatenation, whose zones have one member each.
    chunk: u64,
    order: ZoneOrder,
    size: u64,
}

impl Zones {
    /// The zones of a RAID-0 over members of these sizes in bytes, whose last partial chunk is not used.
    pub(super) fn striped(sizes: &[u64], chunk: u64, order: ZoneOrder) -> io::Result<Self> {
        let usable: Vec<u64> = sizes.iter().map(|size| size - size % chunk).collect();
        let mut ends = usable.clone();
        ends.sort_unstable();
        ends.dedup();
        let (mut zones, mut start, mut member_start) = (Vec::new(), 0u64, 0);
        for member_end in ends.into_iter().filter(|end| *end > 0) {
            let members: Vec<usize> = (0..sizes.len()).filter(|&i| usable[i] > member_start).collect();
            let end = (member_end - member_start)
                .checked_mul(members.len() as u64)
                .and_then(|len| len.checked_add(start))
                .ok_or_else(|| refused("the sizes of the members overflow"))?;
            zones.push(Zone { start, end, member_start, members });
            (start, member_start) = (end, member_end);
        }
        if order == ZoneOrder::Unknown && zones.iter().skip(1).any(|zone| zone.members.len() > 1) {
            return Err(refused(
                "the members differ in size, and the metadata does not say in which of the two orders \
                 Linux laid out what is beyond the smallest (set it with `mdadm --assemble -U layout-original` \
                 or `layout-alternate`)",
            ));
        }
        // Of a chunk that is no power of 2, Linux rounds each member's part down by its bits, and so gives the
        // array less than its zones hold.
        let size = usable
            .iter()
            .map(|usable| ((usable / SECTOR) & !(chunk / SECTOR).saturating_sub(1)) * SECTOR)
            .sum();
        Ok(Self { zones, chunk, order, size })
    }

    /// One member after the other. With a `chunk` other than 0, members end at a multiple of it.
    pub(super) fn concatenated(sizes: &[u64], chunk: u64) -> io::Result<Self> {
        let (mut zones, mut start) = (Vec::new(), 0u64);
        for (member, size) in sizes.iter().enumerate() {
            let size = size - size.checked_rem(chunk).unwrap_or(0);
            let end = start.checked_add(size).ok_or_else(|| refused("the sizes of the members overflow"))?;
            if size > 0 {
                zones.push(Zone { start, end, member_start: 0, members: vec![member] });
            }
            start = end;
        }
        Ok(Self { zones, chunk: 0, order: ZoneOrder::Zone, size: start })
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// The member and the byte of it that have the array's byte `offset`, which is less than the size, and how
    /// many bytes follow there.
    pub(super) fn locate(&self, offset: u64) -> (usize, u64, u64) {
        let zone = &self.zones[self.zones.partition_point(|zone| zone.end <= offset)];
        let in_zone = offset - zone.start;
        if zone.members.len() == 1 {
            return (zone.members[0], zone.member_start + in_zone, zone.end - offset);
        }
        let width = zone.members.len() as u64;
        let in_chunk = in_zone % self.chunk;
        let chunk_in_zone = in_zone / self.chunk;
        let counted = if self.order == ZoneOrder::Array { offset / self.chunk } else { chunk_in_zone };
        #[allow(clippy::cast_possible_truncation)] // less than the number of members
        let member = zone.members[(counted % width) as usize];
        (member, zone.member_start + chunk_in_zone / width * self.chunk + in_chunk, self.chunk - in_chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which member and chunk of it each chunk of the array has.
    fn chunks(sizes: &[u64], order: ZoneOrder) -> Vec<(usize, u64)> {
        let sizes: Vec<u64> = sizes.iter().map(|size| size * 1024).collect();
        let zones = Zones::striped(&sizes, 10240, order).unwrap();
        let chunks = sizes.iter().map(|size| size / 10240).sum();
        (0..chunks)
            .map(|chunk| {
                let (member, at, len) = zones.locate(chunk * 10240 + 3);
                assert_eq!((at % 10240, len % 10240), (3, 10237));
                (member, at / 10240)
            })
            .collect()
    }

    #[test] // The two orders differ from the second zone on.
    fn zones_have_two_orders() {
        let sizes = [10, 35, 30];
        assert_eq!(chunks(&sizes, ZoneOrder::Zone), [(0, 0), (1, 0), (2, 0), (1, 1), (2, 1), (1, 2), (2, 2)]);
        assert_eq!(
            chunks(&sizes, ZoneOrder::Array),
            [(0, 0), (1, 0), (2, 0), (2, 1), (1, 1), (2, 2), (1, 2)]
        );
        assert!(Zones::striped(&sizes, 10, ZoneOrder::Unknown).is_err());
        assert!(Zones::striped(&[u64::MAX, u64::MAX], 512, ZoneOrder::Zone).is_err());
        // With one member left beyond the first zone there is only one order.
        assert_eq!(chunks(&[10, 30, 10], ZoneOrder::Unknown).last(), Some(&(1, 2)));
    }

    #[test]
    fn concatenation_skips_what_is_no_whole_chunk() {
        let zones = Zones::concatenated(&[25, 5, 30], 10).unwrap();
        assert_eq!(zones.size(), 50);
        assert_eq!(zones.locate(19), (0, 19, 1));
        assert_eq!(zones.locate(20), (2, 0, 30));
        assert_eq!(Zones::concatenated(&[25, 5], 0).unwrap().locate(25), (1, 0, 5));
        assert!(Zones::concatenated(&[u64::MAX, 1], 0).is_err());
    }
}
