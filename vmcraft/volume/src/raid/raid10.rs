//! RAID-10: each chunk on several members, beside each other ("near"), far apart ("far"), or in the next
//! rows ("offset").
//!
//! Spec: Linux md(4), section RAID10, and `drivers/md/raid10.c` for what it leaves open.

use std::io;

use super::geometry::refused;

/// How many copies there are, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Raid10 {
    /// Copies in the same row or the next, on members beside each other.
    pub(crate) near: usize,
    /// Copies of each of these at other places of other members.
    pub(crate) far: usize,
    /// Whether the far copies follow in the next rows, not in another part of the members.
    pub(crate) is_offset: bool,
    /// Over how many members far copies rotate: all of them in the classic layout.
    pub(crate) set: usize,
}

impl Raid10 {
    /// `copies` beside each other: what `mdadm` and LVM make unless told otherwise.
    pub(crate) fn near(copies: usize, members: usize) -> Self {
        Self { near: copies, far: 1, is_offset: false, set: members }
    }

    /// Decodes md's layout number for an array of `members`.
    pub(crate) fn from_md(layout: u32, members: usize) -> io::Result<Self> {
        let near = (layout & 0xff) as usize;
        let far = (layout >> 8 & 0xff) as usize;
        let copies = near * far;
        if copies == 0 || copies > members {
            return Err(refused(&format!("RAID-10 layout {layout:#x} for {members} members")));
        }
        let set = match layout >> 17 {
            0 => members,
            1 => members / far,
            2 => copies,
            _ => return Err(refused(&format!("RAID-10 layout {layout:#x}"))),
        };
        if set < copies && far > 1 {
            return Err(refused(&format!("RAID-10 layout {layout:#x} for {members} members")));
        }
        Ok(Self { near, far, is_offset: layout >> 16 & 1 == 1, set })
    }

    pub(super) fn copies(&self) -> usize {
        self.near * self.far
    }

    /// The array's size in chunks.
    pub(super) fn array_chunks(&self, members: usize, member_chunks: u64) -> io::Result<u64> {
        (member_chunks / self.far as u64)
            .checked_mul(members as u64)
            .map(|chunks| chunks / self.near as u64)
            .ok_or_else(|| refused("the sizes of the members overflow"))
    }

    /// How many chunks of a member one far copy has; the next begins there.
    pub(super) fn stride(&self, members: usize, member_chunks: u64) -> io::Result<u64> {
        if self.is_offset {
            return Ok(1);
        }
        // Chunks with their copies, spread over the members, the last row of them being rounded up.
        let used = self.array_chunks(members, member_chunks)?.checked_mul(self.copies() as u64);
        let used = used.ok_or_else(|| refused("the sizes of the members overflow"))?.div_ceil(members as u64);
        Ok(used / self.far as u64)
    }

    /// Calls `each` with the member and the chunk of it for each copy of the array's chunk.
    pub(super) fn places(&self, chunk: u64, members: usize, stride: u64, mut each: impl FnMut(usize, u64)) {
        let total = members as u64;
        let first = chunk * self.near as u64;
        let mut row = first / total * if self.is_offset { self.far as u64 } else { 1 };
        #[allow(clippy::cast_possible_truncation)] // less than the number of members
        let mut member = (first % total) as usize;
        // Members that do not fill a set of their own belong to the last one.
        let last_set = (members / self.set - 1) * self.set;
        let last_len = self.set + members % self.set;
        for _ in 0..self.near {
            let (mut copy, mut copy_row) = (member, row);
            each(copy, copy_row);
            for _ in 1..self.far {
                // As Linux has it: the last set's first member still rotates by the length of the others.
                let set = copy / self.set;
                copy += self.near;
                copy = if !members.is_multiple_of(self.set) && copy > last_set {
                    last_set + (copy - last_set) % last_len
                } else {
                    set * self.set + copy % self.set
                };
                copy_row += stride;
                each(copy, copy_row);
            }
            member += 1;
            if member == members {
                member = 0;
                row += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn table(layout: u32, members: usize, member_chunks: u64) -> Vec<Vec<(usize, u64)>> {
        let raid10 = Raid10::from_md(layout, members).unwrap();
        let stride = raid10.stride(members, member_chunks).unwrap();
        (0..raid10.array_chunks(members, member_chunks).unwrap())
            .map(|chunk| {
                let mut places = Vec::new();
                raid10.places(chunk, members, stride, |member, row| places.push((member, row)));
                places
            })
            .collect()
    }

    #[test] // The tables of md(4).
    fn layouts_of_the_manual() {
        // Near, three members: copies run on into the next row.
        assert_eq!(table(0x102, 3, 2), [[(0, 0), (1, 0)], [(2, 0), (0, 1)], [(1, 1), (2, 1)]].map(Vec::from));
        // Far: the second copy in the second half, on the next member.
        assert_eq!(
            table(0x201, 3, 4)[..4],
            [[(0, 0), (1, 2)], [(1, 0), (2, 2)], [(2, 0), (0, 2)], [(0, 1), (1, 3)]].map(Vec::from)
        );
        // Offset: the second copy in the next row, on the next member.
        assert_eq!(
            table(0x10201, 3, 4)[..4],
            [[(0, 0), (1, 1)], [(1, 0), (2, 1)], [(2, 0), (0, 1)], [(0, 2), (1, 3)]].map(Vec::from)
        );
    }

    #[test] // No chunk of a member is used twice, none is beyond its end, and no member has two copies of one.
    fn places_are_disjoint() {
        for layout in [0x101, 0x102, 0x103, 0x201, 0x301, 0x10201, 0x10301, 0x202, 0x40201, 0x40301, 0x50201]
        {
            for members in 2..9 {
                let Ok(raid10) = Raid10::from_md(layout, members) else { continue };
                for member_chunks in [4, 7, 12] {
                    let mut seen = HashSet::new();
                    for places in table(layout, members, member_chunks) {
                        assert_eq!(places.len(), raid10.copies());
                        let owners: HashSet<_> = places.iter().map(|place| place.0).collect();
                        // A last set that is larger than the others can come back to the same member.
                        if members % raid10.set == 0 {
                            assert_eq!(owners.len(), places.len(), "{layout:#x} over {members}: {places:?}");
                        }
                        for (member, row) in places {
                            assert!(row < member_chunks, "{layout:#x} over {members}: row {row}");
                            assert!(seen.insert((member, row)), "{layout:#x} over {members}: used twice");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn layouts_that_cannot_be_are_refused() {
        for (layout, members) in
            [(0, 4), (0x100, 4), (0x002, 4), (0x105, 4), (0x303, 4), (0x80102, 4), (0x20301, 4)]
        {
            assert!(Raid10::from_md(layout, members).is_err(), "{layout:#x} over {members}");
        }
    }
}
