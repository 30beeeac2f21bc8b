//! An array as a device.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use vmcraft_block::{BlockDevice, Discard, Extent, MapExtents, check_extent_query, check_range};

use super::geometry::{Geometry, Map};
use super::locks::StripeLocks;
use super::parity::Stripes;

/// Mirrors are locked, and written, in pieces of this many bytes.
const MIRROR_PIECE: u64 = 1 << 20;

/// A member that is there.
#[derive(Clone)]
pub(crate) struct RaidMember {
    /// What the array has of it, from its first byte of data.
    pub(crate) device: Arc<dyn BlockDevice>,
    /// Ranges of bytes, in order and apart, where this member's content is not to be used. They are neither
    /// read nor written.
    pub(crate) bad: Vec<Range<u64>>,
}

impl RaidMember {
    pub(crate) fn new(device: Arc<dyn BlockDevice>) -> Self {
        Self { device, bad: Vec::new() }
    }

    /// Whether the byte at `offset` is good, and how many bytes from there on are the same.
    fn quality(&self, offset: u64) -> (bool, u64) {
        let next = self.bad.partition_point(|bad| bad.end <= offset);
        match self.bad.get(next) {
            Some(bad) if bad.start <= offset => (false, bad.end - offset),
            Some(bad) => (true, bad.start - offset),
            None => (true, u64::MAX),
        }
    }
}

/// The members of an array, in its order; `None` for those that are missing.
pub(super) struct Members(pub(super) Vec<Option<RaidMember>>);

impl Members {
    /// The member, if it is there and `len` bytes from `offset` are good. `len` must be within what
    /// [`uniform`](Self::uniform) said.
    pub(super) fn at(&self, member: usize, offset: u64) -> Option<&RaidMember> {
        self.0[member].as_ref().filter(|member| member.bad.is_empty() || member.quality(offset).0)
    }

    /// At most `len`: how many bytes from `offset` are all good or all bad on the member.
    pub(super) fn uniform(&self, member: usize, offset: u64, len: u64) -> u64 {
        match &self.0[member] {
            Some(member) if !member.bad.is_empty() => len.min(member.quality(offset).1),
            _ => len,
        }
    }

    pub(super) fn present(&self) -> impl Iterator<Item = &Arc<dyn BlockDevice>> {
        self.0.iter().flatten().map(|member| &member.device)
    }
}

/// A place on a member, in bytes.
#[derive(Clone, Copy)]
struct Place {
    member: usize,
    offset: u64,
}

/// An array over members.
pub(crate) struct RaidDevice {
    map: Map,
    size: u64,
    members: Members,
    locks: StripeLocks,
    stripes: Stripes,
    logical_sector_size: u32,
    is_read_only: bool,
    has_extents: bool,
    /// Lists of copies that are not in use, so that a read need not make one.
    spare_places: Mutex<Vec<Vec<Place>>>,
}

impl RaidDevice {
    /// The array over `members`, in its order; `None` is a member that is missing. With too many missing, the
    /// error names how many there are and must be.
    pub(crate) fn new(geometry: &Geometry, members: Vec<Option<RaidMember>>) -> io::Result<Self> {
        let (map, size) = geometry.map()?;
        if members.len() != geometry.member_bytes.len() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} members for a geometry of {}", members.len(), geometry.member_bytes.len()),
            ));
        }
        let present: Vec<bool> = members.iter().map(Option::is_some).collect();
        if !geometry.is_complete_with(&present) {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!(
                    "too many members are missing: only {} of {} are there",
                    present.iter().filter(|present| **present).count(),
                    present.len()
                ),
            ));
        }
        let members = Members(members);
        for (index, member) in members.0.iter().enumerate() {
            let Some(member) = member else { continue };
            // Only zones differ in how much they use of each member; the smallest counts for the others.
            let used = match &map {
                Map::Zones(_) => geometry.member_bytes[index],
                _ => geometry.member_bytes.iter().copied().min().unwrap_or(0),
            };
            if member.device.size() < used {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("member {index} has {} bytes, and the array uses {used}", member.device.size()),
                ));
            }
        }
        let logical_sector_size = members.present().map(|member| member.logical_sector_size()).max();
        let is_read_only = members.present().any(|member| member.is_read_only());
        let has_extents = members.present().all(|member| member.extents().is_some());
        Ok(Self {
            stripes: Stripes::new(members.0.len()),
            is_read_only,
            has_extents,
            logical_sector_size: logical_sector_size.unwrap_or(512),
            locks: StripeLocks::new(),
            spare_places: Mutex::default(),
            map,
            size,
            members,
        })
    }

    /// Recomputes parity from data wherever it writes, as parity may be wrong before: the array was not
    /// stopped cleanly.
    pub(crate) fn with_untrusted_parity(mut self) -> Self {
        self.stripes.is_parity_trusted = false;
        self
    }

    /// Where the copies of the array's byte `offset` are, and how many bytes, at most `len`, lie in a row with
    /// each copy being all good or all bad. For all levels without parity.
    fn copies(&self, offset: u64, len: u64, places: &mut Vec<Place>) -> u64 {
        places.clear();
        let run = match &self.map {
            Map::Zones(zones) => {
                let (member, offset, run) = zones.locate(offset);
                places.push(Place { member, offset });
                run
            }
            Map::Mirror { members } => {
                places.extend((0..*members).map(|member| Place { member, offset }));
                u64::MAX
            }
            Map::Raid10 { raid10, members, stride, chunk } => {
                let in_chunk = offset % chunk;
                raid10.places(offset / chunk, *members, *stride, |member, row| {
                    places.push(Place { member, offset: row * chunk + in_chunk });
                });
                chunk - in_chunk
            }
            Map::Parity { placement, chunk } => {
                let (in_chunk, block) = (offset % chunk, offset / chunk);
                let width = placement.data_members() as u64;
                #[allow(clippy::cast_possible_truncation)] // less than the number of members
                let member = placement.data_member(block / width, (block % width) as usize);
                places.push(Place { member, offset: block / width * chunk + in_chunk });
                chunk - in_chunk
            }
        };
        places.iter().fold(run.min(len), |run, place| self.members.uniform(place.member, place.offset, run))
    }

    /// Fills `buf` from the first copy that can be read.
    fn read_copies(&self, offset: u64, places: &[Place], buf: &mut [u8]) -> io::Result<()> {
        let mut failure = None;
        for place in places {
            let Some(member) = self.members.at(place.member, place.offset) else { continue };
            match member.device.read_at(place.offset, buf) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(member = place.member, offset = place.offset, %error, "reading a member failed");
                    failure = Some(error);
                }
            }
        }
        if let Map::Parity { placement, chunk } = &self.map {
            return self.stripes.reconstruct(&self.members, &self.locks, placement, *chunk, offset, buf);
        }
        Err(failure.unwrap_or_else(|| no_copy(offset)))
    }

    fn write_copies(&self, offset: u64, places: &[Place], buf: &[u8]) -> io::Result<()> {
        let mut is_written = false;
        for place in places {
            if let Some(member) = self.members.at(place.member, place.offset) {
                member.device.write_at(place.offset, buf)?;
                is_written = true;
            }
        }
        if is_written { Ok(()) } else { Err(no_copy(offset)) }
    }

    pub(super) fn map(&self) -> &Map {
        &self.map
    }

    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    pub(super) fn locks(&self) -> &StripeLocks {
        &self.locks
    }

    pub(super) fn check_writable(&self) -> io::Result<()> {
        if self.is_read_only {
            return Err(io::Error::new(
                io::ErrorKind::ReadOnlyFilesystem,
                "a member of the array is open read-only",
            ));
        }
        Ok(())
    }

    /// Calls `each` with the device, the place on it and the length of all that has a range, piece by piece. For all
    /// levels without parity.
    pub(super) fn each_copy(
        &self,
        offset: u64,
        len: u64,
        each: impl Fn(&dyn BlockDevice, u64, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut places = self.take_places();
        let mut done = 0;
        let mut result = Ok(());
        while done < len && result.is_ok() {
            let run = self.copies(offset + done, len - done, &mut places);
            let mut there = places
                .iter()
                .filter_map(|place| Some((place.offset, self.members.at(place.member, place.offset)?)))
                .peekable();
            result = if there.peek().is_some() {
                there.try_for_each(|(at, member)| each(&*member.device, at, run))
            } else {
                Err(no_copy(offset + done))
            };
            done += run;
        }
        self.give_places(places);
        result
    }

    fn take_places(&self) -> Vec<Place> {
        self.spare_places.lock().unwrap_or_else(|e| e.into_inner()).pop().unwrap_or_default()
    }

    fn give_places(&self, places: Vec<Place>) {
        self.spare_places.lock().unwrap_or_else(|e| e.into_inner()).push(places);
    }

    fn read_runs(&self, offset: u64, buf: &mut [u8], places: &mut Vec<Place>) -> io::Result<()> {
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let run = self.copies(at, (buf.len() - done) as u64, places);
            let piece = piece_of(done, run, buf.len());
            self.read_copies(at, places, &mut buf[piece.clone()])?;
            done = piece.end;
        }
        Ok(())
    }

    fn write_runs(&self, offset: u64, buf: &[u8], places: &mut Vec<Place>) -> io::Result<()> {
        // What one lock is for: writers of the same bytes must reach all copies in the same order.
        let lock_bytes = match &self.map {
            Map::Raid10 { chunk, .. } => Some(*chunk),
            Map::Mirror { .. } => Some(MIRROR_PIECE),
            Map::Zones(_) | Map::Parity { .. } => None,
        };
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let mut len = (buf.len() - done) as u64;
            let _lock = lock_bytes.map(|bytes| {
                len = len.min(bytes - at % bytes);
                self.locks.write(at / bytes)
            });
            let run = self.copies(at, len, places);
            let piece = piece_of(done, run, buf.len());
            self.write_copies(at, places, &buf[piece.clone()])?;
            done = piece.end;
        }
        Ok(())
    }
}

/// `run` bytes, or what there is, from `done` on.
fn piece_of(done: usize, run: u64, len: usize) -> Range<usize> {
    done..len.min(done.saturating_add(usize::try_from(run).unwrap_or(usize::MAX)))
}

fn no_copy(offset: u64) -> io::Error {
    io::Error::other(format!(
        "byte {offset:#x} of the array is on no member that is there and has no bad block in that place"
    ))
}

impl BlockDevice for RaidDevice {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size, "a read")?;
        if let Map::Parity { placement, chunk } = &self.map
            && self.members.0.iter().any(Option::is_none)
        {
            return self.stripes.read(&self.members, &self.locks, placement, *chunk, offset, buf);
        }
        let mut places = self.take_places();
        let result = self.read_runs(offset, buf, &mut places);
        self.give_places(places);
        result
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size, "a write")?;
        self.check_writable()?;
        if let Map::Parity { placement, chunk } = &self.map {
            return self.stripes.write(&self.members, &self.locks, placement, *chunk, offset, buf);
        }
        let mut places = self.take_places();
        let result = self.write_runs(offset, buf, &mut places);
        self.give_places(places);
        result
    }

    fn flush(&self) -> io::Result<()> {
        self.members.present().try_for_each(|member| member.flush())
    }

    fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn logical_sector_size(&self) -> u32 {
        self.logical_sector_size
    }

    fn extents(&self) -> Option<&dyn MapExtents> {
        self.has_extents.then_some(self)
    }

    fn discard(&self) -> Option<&dyn Discard> {
        let can = !self.is_read_only && self.members.present().any(|member| member.discard().is_some());
        can.then_some(self)
    }
}

impl MapExtents for RaidDevice {
    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_extent_query(offset, self.size)?;
        let mut places = self.take_places();
        let run = self.copies(offset, self.size - offset, &mut places);
        let place =
            places.iter().find(|place| self.members.at(place.member, place.offset).is_some()).copied();
        self.give_places(places);
        // What is computed from others is not known to be a hole.
        let Some(place) = place else { return Ok(Extent { offset, len: run, is_hole: false }) };
        let member = self.members.0[place.member].as_ref().and_then(|member| member.device.extents());
        let extent = member.ok_or(io::ErrorKind::Unsupported)?.extent_at(place.offset)?;
        Ok(Extent { offset, len: extent.len.min(run), is_hole: extent.is_hole })
    }
}
