//! The shape of an array: its level, its chunk and its members' sizes.

use std::io;

use super::placement::{ParityLayout, Placement};
use super::raid10::Raid10;
use super::zones::{ZoneOrder, Zones};

/// As many members as md's metadata can name.
const MAX_MEMBERS: usize = 1920;
/// Blocks of one stripe that Q can tell apart: powers of 2 in the field repeat after 255.
const MAX_MEMBERS_WITH_Q: usize = 255;

/// A RAID level with its arrangement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One member after the other.
    Concatenated,
    /// RAID-0.
    Striped(ZoneOrder),
    /// RAID-1: all members are copies.
    Mirrored,
    /// RAID-10.
    Raid10(Raid10),
    /// RAID-4 and RAID-5.
    SingleParity(ParityLayout),
    /// RAID-6.
    DoubleParity(ParityLayout),
}

/// How an array lies on its members.
#[derive(Debug, Clone)]
pub(crate) struct Geometry {
    /// The level and its arrangement.
    pub(crate) layout: Layout,
    /// Bytes in a row on one member: of no meaning for mirrors; of a concatenation, members are used in whole
    /// chunks unless it is 0.
    pub(crate) chunk_bytes: u64,
    /// What of each member is used, in bytes, in the array's order. Where members must be of one size, the
    /// smallest counts.
    pub(crate) member_bytes: Vec<u64>,
}

/// A geometry that is checked, with what reading and writing by it takes.
pub(super) enum Map {
    Zones(Zones),
    Mirror { members: usize },
    Raid10 { raid10: Raid10, members: usize, stride: u64, chunk: u64 },
    Parity { placement: Placement, chunk: u64 },
}

pub(super) fn refused(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl Geometry {
    /// The array's size in bytes; an error of the kind `InvalidData` if there can be no such array.
    pub(crate) fn array_bytes(&self) -> io::Result<u64> {
        self.map().map(|(_, size)| size)
    }

    /// The map and the array's size in bytes.
    pub(super) fn map(&self) -> io::Result<(Map, u64)> {
        let members = self.member_bytes.len();
        let (chunk, smallest) = (self.chunk_bytes, self.member_bytes.iter().copied().min().unwrap_or(0));
        let need = |least: usize| {
            if (least..=MAX_MEMBERS).contains(&members) {
                Ok(())
            } else {
                Err(refused(&format!("{members} members, where {least} to {MAX_MEMBERS} can be")))
            }
        };
        need(1)?;
        if chunk == 0 && !matches!(self.layout, Layout::Mirrored | Layout::Concatenated) {
            return Err(refused("a chunk size of 0"));
        }
        let parity = |layout, parities: usize| {
            need(if parities == 1 { 2 } else { 4 })?;
            if parities == 2 && members > MAX_MEMBERS_WITH_Q {
                return Err(refused(&format!(
                    "{members} members, where RAID-6 can have {MAX_MEMBERS_WITH_Q}"
                )));
            }
            let placement = Placement { layout, members, parities };
            let size = (smallest - smallest % chunk).checked_mul(placement.data_members() as u64);
            let size = size.ok_or_else(|| refused("the sizes of the members overflow"))?;
            Ok((Map::Parity { placement, chunk }, size))
        };
        match self.layout {
            Layout::Concatenated => {
                let zones = Zones::concatenated(&self.member_bytes, chunk)?;
                let size = zones.size();
                Ok((Map::Zones(zones), size))
            }
            Layout::Striped(order) => {
                let zones = Zones::striped(&self.member_bytes, chunk, order)?;
                let size = zones.size();
                Ok((Map::Zones(zones), size))
            }
            Layout::Mirrored => Ok((Map::Mirror { members }, smallest)),
            Layout::Raid10(raid10) => {
                if raid10.copies() == 0 {
                    return Err(refused("RAID-10 with no copies"));
                }
                need(raid10.copies())?;
                let member_chunks = smallest / chunk;
                let stride = raid10.stride(members, member_chunks)?;
                let size = raid10.array_chunks(members, member_chunks)?.checked_mul(chunk);
                let size = size.ok_or_else(|| refused("the sizes of the members overflow"))?;
                Ok((Map::Raid10 { raid10, members, stride, chunk }, size))
            }
            Layout::SingleParity(layout) => parity(layout, 1),
            Layout::DoubleParity(layout) => parity(layout, 2),
        }
    }

    /// Whether all of the array can be read with these members, `true` for each one that is there.
    pub(crate) fn is_complete_with(&self, present: &[bool]) -> bool {
        let missing = present.iter().filter(|present| !**present).count();
        match self.layout {
            Layout::Concatenated | Layout::Striped(_) => missing == 0,
            Layout::Mirrored => missing < present.len(),
            Layout::SingleParity(_) => missing <= 1,
            Layout::DoubleParity(_) => missing <= 2,
            // Chunks come back to the same members after at most as many chunks as there are members. Rows
            // do not matter to which members have the copies.
            Layout::Raid10(raid10) => (0..present.len() as u64).all(|chunk| {
                let mut is_there = false;
                raid10.places(chunk, present.len(), 1, |member, _| is_there |= present[member]);
                is_there
            }),
        }
    }
}
