//! Making arrays, as `mdadm --create` does.
//!
//! What members held before is not looked at. Copies and parity that do not fit it yet are left to Linux, as
//! `mdadm` leaves them: the array says that it has to be synchronised from its start. It is whole without that if
//! nothing needs to fit, and if all members are known to be zeros there, as those of new disks are.

use vmcraft_block::BlockDevice;
use zerocopy::{FromZeros, IntoBytes};

use super::array::Array;
use super::level::Level;
use super::scan::scan;
use super::superblock::{MAGIC, Metadata, SECTOR};
use super::v1::{self, RawSuperblock};
use crate::raid::{Geometry, Layout, new_bitmap};
use crate::{Error, Member, Result};

/// `mdadm`'s chunk.
const DEFAULT_CHUNK: u64 = 512 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Roles that `mdadm` makes room for.
const ROLES: usize = 128;
/// The superblock and the log of bad blocks have this much each.
const PAGE: u64 = 4096;

/// An array to be made.
#[derive(Debug, Clone)]
pub struct NewArray {
    /// Its name, at most 32 bytes.
    pub name: String,
    /// The RAID level.
    pub level: Level,
    /// The layout, by the name that `mdadm --layout` takes; `None` is `mdadm`'s choice.
    pub layout: Option<String>,
    /// Bytes in a row on one member; `None` is 512 KiB for levels that have chunks.
    pub chunk_bytes: Option<u64>,
    /// The version of the metadata: one of 1.0, 1.1 and 1.2.
    pub metadata: Metadata,
    /// The members in their order; `None` is one that will be added later.
    pub members: Vec<Option<Member>>,
    /// Members that wait for another to fail.
    pub spares: Vec<Member>,
    /// Whether it gets a write-intent bitmap.
    pub has_bitmap: bool,
}

/// Where things are on one member, in bytes.
struct Place {
    superblock: u64,
    bitmap: u64,
    bitmap_len: u64,
    bad_blocks: u64,
    data: u64,
    data_len: u64,
}

fn refuse<T>(what: impl Into<String>) -> Result<T> {
    Err(Error::Refused(what.into()))
}

impl NewArray {
    /// Writes the metadata of all members, and gives the array that they make then. `now` is in seconds since
    /// 1970; `random` fills a buffer for the UUIDs.
    pub fn create(&self, now: u64, random: &mut dyn FnMut(&mut [u8])) -> Result<Array> {
        let chunk = self.chunk()?;
        let layout = self.layout_number()?;
        let present: Vec<&Member> = self.members.iter().flatten().collect();
        let all: Vec<&Member> = present.iter().copied().chain(&self.spares).collect();
        self.check_members(&all)?;
        let places = all.iter().map(|member| self.place(member, chunk)).collect::<Result<Vec<_>>>()?;
        let smallest = places.iter().map(|place| place.data_len).min().unwrap_or(0);
        let unit = chunk.max(1024);
        let used = smallest - smallest % unit;

        let mut lens = places.iter().map(|place| place.data_len);
        let member_bytes: Vec<u64> = self
            .members
            .iter()
            .map(|member| match member {
                _ if self.level.is_redundant() => used,
                Some(_) => lens.next().unwrap_or(0),
                None => 0,
            })
            .collect();
        // Zones in the order that Linux has now, if the members' sizes make several.
        let usable = |len: &u64| len - len % unit;
        let has_zones = self.level == Level::Raid0
            && member_bytes.iter().any(|len| usable(len) != usable(&member_bytes[0]));
        let layout = if has_zones && layout == 0 { 2 } else { layout };
        let arrangement = self.level.arrangement(layout, self.members.len())?;
        let geometry = Geometry { layout: arrangement, chunk_bytes: chunk, member_bytes };
        let size = geometry
            .array_bytes()
            .map_err(|error| Error::Refused(format!("there can be no such array: {error}")))?;
        if size == 0 {
            return refuse("the members are too small for the array's metadata and one chunk");
        }
        let is_there: Vec<bool> = self.members.iter().map(Option::is_some).collect();
        if !geometry.is_complete_with(&is_there) {
            return refuse(format!("{} members are too few for {}", present.len(), self.level.name()));
        }
        let is_clean = self.is_clean(&present, &places)?;

        let mut uuid = [0; 16];
        random(&mut uuid);
        let mut raw = RawSuperblock::new_zeroed();
        raw.magic.set(MAGIC);
        raw.major_version.set(1);
        raw.set_uuid = uuid;
        raw.set_name[..self.name.len()].copy_from_slice(self.name.as_bytes());
        raw.ctime.set(now);
        raw.utime.set(now);
        raw.level.set(self.level.number());
        raw.layout.set(layout);
        raw.size.set(if self.level.is_redundant() { used / SECTOR } else { 0 });
        raw.chunksize
            .set(u32::try_from(chunk / SECTOR).map_err(|_| Error::Refused("the chunk is too large".into()))?);
        raw.raid_disks
            .set(u32::try_from(self.members.len()).map_err(|_| Error::Refused("too many members".into()))?);
        raw.resync_offset.set(if is_clean { u64::MAX } else { 0 });
        let mut features = 0;
        if self.has_bitmap {
            features |= v1::FEATURE_BITMAP;
        }
        if self.level == Level::Raid0 && matches!(layout, 1 | 2) {
            features |= v1::FEATURE_RAID0_LAYOUT;
        }
        raw.feature_map.set(features);
        let covered = match arrangement {
            Layout::Raid10(_) => size,
            _ => used,
        };
        let roles = self.roles();
        let numbers =
            (0u32..).zip(&self.members).filter(|(_, member)| member.is_some()).map(|(number, _)| number);
        let spares = (0u32..).zip(&self.spares).map(|(index, _)| raw.raid_disks.get() + index);
        let numbers: Vec<u32> = numbers.chain(spares).collect();
        for ((member, place), number) in all.iter().zip(&places).zip(numbers) {
            random(&mut raw.device_uuid);
            raw.dev_number.set(number);
            self.write_member(&*member.device, place, raw.clone(), &roles, covered, is_clean)?;
        }
        let members: Vec<Member> = all.into_iter().cloned().collect();
        let found =
            scan(&members).arrays.into_iter().find(|array| array.uuid == super::superblock::uuid_text(&uuid));
        found.ok_or_else(|| Error::Refused("the metadata that was written is not found again".into()))
    }

    fn chunk(&self) -> Result<u64> {
        let chunk = match (self.level, self.chunk_bytes) {
            (Level::Raid1, _) => 0,
            (Level::Linear, chunk) => chunk.unwrap_or(0),
            (_, chunk) => chunk.unwrap_or(DEFAULT_CHUNK),
        };
        let needs_power = matches!(self.level, Level::Raid4 | Level::Raid5 | Level::Raid6 | Level::Raid10);
        if chunk % 4096 != 0 || (needs_power && !chunk.is_power_of_two()) || chunk > GIB {
            let kind = if needs_power { "a power of 2 of at least" } else { "a multiple of" };
            return refuse(format!("a chunk of {chunk} bytes: {} needs {kind} 4096", self.level.name()));
        }
        Ok(chunk)
    }

    fn layout_number(&self) -> Result<u32> {
        match &self.layout {
            Some(name) => self
                .level
                .layout_number(name)
                .ok_or_else(|| Error::Refused(format!("{} has no layout {name:?}", self.level.name()))),
            None => Ok(match self.level {
                Level::Raid5 | Level::Raid6 => 2, // left-symmetric
                Level::Raid10 => 0x102,           // two near copies
                _ => 0,
            }),
        }
    }

    fn check_members(&self, all: &[&Member]) -> Result<()> {
        if self.metadata == Metadata::V0_90 {
            return refuse("arrays are made with metadata 1.0, 1.1 or 1.2, not 0.90");
        }
        if self.name.len() > 32 {
            return refuse(format!("the name {:?} has more than 32 bytes", self.name));
        }
        if self.members.len() + self.spares.len() > ROLES {
            return refuse(format!("an array is made with at most {ROLES} members and spares"));
        }
        if !self.level.is_redundant() && !self.spares.is_empty() {
            return refuse(format!("{} cannot have spares", self.level.name()));
        }
        if !self.level.is_redundant() && self.has_bitmap {
            return refuse(format!("{} cannot have a write-intent bitmap", self.level.name()));
        }
        for (index, member) in all.iter().enumerate() {
            if member.device.is_read_only() {
                return refuse(format!("{} cannot be written", member.name));
            }
            if all[..index].iter().any(|other| other.name == member.name) {
                return refuse(format!("{} is given twice", member.name));
            }
        }
        Ok(())
    }

    /// Where `mdadm` would put things on this member.
    fn place(&self, member: &Member, chunk: u64) -> Result<Place> {
        let size = member.device.size();
        let sectors = size / SECTOR;
        let too_small = || Error::Refused(format!("{} is too small: {size} bytes", member.name));
        let superblock = self.metadata.offset(size).ok_or_else(too_small)?;
        // Room for a bitmap is left even without one, where the level can have it.
        let bitmap_len = match size {
            _ if !self.level.is_redundant() => 0,
            size if size >= 200 * GIB => 128 << 10,
            size if size >= 8 * GIB => 64 << 10,
            _ => PAGE,
        };
        if self.metadata == Metadata::V1_0 {
            let bad_blocks = superblock.checked_sub(PAGE).ok_or_else(too_small)?;
            let bitmap = bad_blocks.checked_sub(bitmap_len).ok_or_else(too_small)?;
            return Ok(Place { superblock, bitmap, bitmap_len, bad_blocks, data: 0, data_len: bitmap });
        }
        // Some room before the data lets them be moved later, when the array gets another shape.
        let mut headroom = 128 * MIB / SECTOR;
        while headroom << 10 > sectors && (chunk == 0 || headroom > chunk / 1024 * 4) {
            headroom >>= 1;
        }
        let data = ((24 + headroom) * SECTOR + bitmap_len).next_multiple_of(MIB);
        let data_len = size.checked_sub(data).ok_or_else(too_small)? / SECTOR * SECTOR;
        let bitmap = superblock + PAGE;
        Ok(Place { superblock, bitmap, bitmap_len, bad_blocks: bitmap + bitmap_len, data, data_len })
    }

    /// Whether copies and parity fit from the start.
    fn is_clean(&self, present: &[&Member], places: &[Place]) -> Result<bool> {
        let missing = self.members.len() - present.len();
        let are_zeros = || {
            present.iter().zip(places).try_fold(true, |so_far, (member, place)| {
                Ok::<_, Error>(so_far && reads_as_zeros(&*member.device, place.data, place.data_len)?)
            })
        };
        Ok(match self.level {
            Level::Linear | Level::Raid0 => true,
            // What is missing is whatever the others make it.
            Level::Raid1 if present.len() == 1 => true,
            Level::Raid4 | Level::Raid5 if missing == 1 => true,
            Level::Raid6 if missing == 2 => true,
            Level::Raid6 if missing == 1 => {
                if !are_zeros()? {
                    return refuse(
                        "raid6 is made with all members, or with two missing: with one missing it would be \
                                   degraded and not synchronised, which Linux does not start",
                    );
                }
                true
            }
            _ => are_zeros()?,
        })
    }

    fn roles(&self) -> Vec<u8> {
        let mut roles = vec![0xff; ROLES * 2]; // spares, or no members at all
        for ((role, place), member) in roles.chunks_exact_mut(2).zip(0u16..).zip(&self.members) {
            let value = if member.is_some() { place } else { v1::ROLE_FAULTY };
            role.copy_from_slice(&value.to_le_bytes());
        }
        roles
    }

    fn write_member(
        &self,
        device: &dyn BlockDevice,
        place: &Place,
        mut raw: RawSuperblock,
        roles: &[u8],
        covered: u64,
        is_clean: bool,
    ) -> Result<()> {
        // A superblock of another version, from an array that was there before, could be taken for this one's.
        for metadata in [Metadata::V0_90, Metadata::V1_0, Metadata::V1_1, Metadata::V1_2] {
            let Some(offset) = metadata.offset(device.size()) else { continue };
            let mut magic = [0; 4];
            device.read_at(offset, &mut magic)?;
            if magic == MAGIC.to_le_bytes() || magic == MAGIC.to_be_bytes() {
                device.write_at(offset, &[0; 4096])?;
            }
        }
        let from_superblock = |place_bytes: u64| {
            let sectors = (i128::from(place_bytes) - i128::from(place.superblock)) / 512;
            i32::try_from(sectors).map_err(|_| Error::Refused("the metadata is too far apart".into()))
        };
        raw.super_offset.set(place.superblock / SECTOR);
        raw.data_offset.set(place.data / SECTOR);
        raw.data_size.set(place.data_len / SECTOR);
        raw.bblog_size.set(8);
        raw.bblog_offset.set(from_superblock(place.bad_blocks)?);
        device.write_at(place.bad_blocks, &[0xff; 4096])?;
        if self.has_bitmap {
            raw.bitmap_offset.set(from_superblock(place.bitmap)?);
            let len = usize::try_from(place.bitmap_len).unwrap_or(0); // at most 128 KiB
            device.write_at(place.bitmap, &new_bitmap(raw.set_uuid, len, covered, is_clean))?;
        }
        raw.max_dev.set(u32::try_from(ROLES).unwrap_or(0));
        let mut bytes = vec![0; 4096];
        bytes[..256].copy_from_slice(raw.as_bytes());
        bytes[256..256 + roles.len()].copy_from_slice(roles);
        raw.sb_csum.set(v1::checksum(&bytes, ROLES));
        bytes[..256].copy_from_slice(raw.as_bytes());
        device.write_at(place.superblock, &bytes)?;
        Ok(())
    }
}

/// Whether the range is known to have nothing but zeros, without reading it.
fn reads_as_zeros(device: &dyn BlockDevice, offset: u64, len: u64) -> Result<bool> {
    let Some(map) = device.extents() else { return Ok(false) };
    let mut at = offset;
    while at < offset + len {
        let extent = map.extent_at(at)?;
        if !extent.is_hole || extent.len == 0 {
            return Ok(false);
        }
        at += extent.len;
    }
    Ok(true)
}
