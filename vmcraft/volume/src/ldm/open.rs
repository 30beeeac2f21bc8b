//! Volumes as devices.

use std::sync::Arc;

use vmcraft_block::{BlockDevice, ReadOnly, Slice};

use super::{DiskGroup, Layout, Partition, Plex, Volume};
use crate::dm::{Column, Content, Linear, Piece, Striped};
use crate::raid::{self, Geometry, ParityLayout, RaidDevice, RaidMember};
use crate::{Error, Member, Result};

/// What a volume or plex says of itself when all is well.
const ACTIVE: &str = "ACTIVE";

/// Opens a volume.
pub(super) fn volume(group: &DiskGroup, volume: &Volume) -> Result<Arc<dyn BlockDevice>> {
    let incomplete = |what: String| {
        Error::Incomplete(format!("volume {} of disk group {} {what}", volume.name, group.name))
    };
    if !volume.is_redundant() {
        let missing = group.missing(volume);
        if !missing.is_empty() {
            return Err(incomplete(format!("needs {}, which is not there", missing.join(" and "))));
        }
    }
    let device: Arc<dyn BlockDevice> = match (volume.layout, volume.plexes.as_slice()) {
        (Layout::Simple | Layout::Spanned, [plex]) => Arc::new(linear(group, plex, volume.size)?),
        (Layout::Striped, [plex]) => {
            let columns = plex
                .partitions
                .iter()
                .map(|partition| Ok(Column { device: self::partition(group, partition)?, offset: 0 }));
            let size = rows(volume, plex.partitions.len())?;
            Arc::new(Striped::new(columns.collect::<Result<_>>()?, volume.chunk_bytes, size)?)
        }
        (Layout::Raid5, [plex]) => {
            let there = plex.partitions.iter().filter(|partition| is_current(group, partition)).count();
            if there + 1 < plex.partitions.len() {
                let missing = group.missing(volume).join(" and ");
                return Err(incomplete(format!("has lost more than one of its disks: {missing}")));
            }
            let members = plex.partitions.iter().map(|partition| match is_current(group, partition) {
                true => self::partition(group, partition).map(Some),
                false => Ok(None),
            });
            let layout = raid::Layout::SingleParity(ParityLayout::LeftSymmetric);
            let sizes = plex.partitions.iter().map(|partition| partition.len).collect();
            array(group, volume, layout, sizes, members.collect::<Result<_>>()?)?
        }
        (Layout::Mirrored, plexes) => {
            let mut members = Vec::with_capacity(plexes.len());
            for plex in plexes {
                let is_there = plex.partitions.iter().all(|partition| is_current(group, partition));
                // A copy that is being made, or was taken out, may have anything.
                members.push(if is_there && plex.state == ACTIVE {
                    Some(Arc::new(linear(group, plex, volume.size)?) as Arc<dyn BlockDevice>)
                } else {
                    None
                });
            }
            if members.iter().all(Option::is_none) {
                let states: Vec<_> =
                    plexes.iter().map(|plex| format!("{} is {}", plex.name, plex.state)).collect();
                let missing = match group.missing(volume).join(" and ") {
                    none if none.is_empty() => String::new(),
                    missing => format!("; it lies on {missing}, not there"),
                };
                return Err(incomplete(format!("has no whole copy: {}{missing}", states.join(", "))));
            }
            let sizes = vec![volume.size; members.len()];
            array(group, volume, raid::Layout::Mirrored, sizes, members)?
        }
        // Only mirrored volumes are made with several.
        _ => return Err(incomplete("has more than one copy".into())),
    };
    if device.size() < volume.size {
        return Err(incomplete(format!(
            "says that it has {} bytes, and its partitions have {}",
            volume.size,
            device.size()
        )));
    }
    Ok(if device.size() > volume.size { Arc::new(Slice::new(device, 0, volume.size)?) } else { device })
}

/// Opens a partition.
pub(super) fn partition(group: &DiskGroup, partition: &Partition) -> Result<Arc<dyn BlockDevice>> {
    let (disk, member) = disk(group, partition)?;
    let is_inside = partition.start.checked_add(partition.len).is_some_and(|end| end <= disk.data_bytes);
    let start = disk.data_start.checked_add(partition.start).filter(|_| is_inside);
    let corrupt = |why: &str, offset: u64| Error::Corrupt {
        what: format!("LDM partition {} on {} ({}): it {why}", partition.name, member.name, disk.name),
        offset,
    };
    let start = start.ok_or_else(|| corrupt("reaches beyond the data of the disk", disk.data_start))?;
    Slice::new(Arc::clone(&member.device), start, partition.len)
        .map(|slice| Arc::new(slice) as Arc<dyn BlockDevice>)
        .map_err(|_| corrupt("reaches beyond the end of the disk", start))
}

/// The disk of a partition, if it is there.
fn disk<'a>(group: &'a DiskGroup, partition: &Partition) -> Result<(&'a super::Disk, &'a Member)> {
    let disk = group.disks.get(partition.disk);
    let found = disk.and_then(|disk| Some((disk, disk.member.as_ref()?)));
    found.ok_or_else(|| {
        let name = disk.map_or("?", |disk| &disk.name);
        Error::Incomplete(format!(
            "partition {} of disk group {} is on {name}, which is not there",
            partition.name, group.name
        ))
    })
}

/// Whether the disk of a partition is there, and was there for the last changes of the group.
fn is_current(group: &DiskGroup, partition: &Partition) -> bool {
    disk(group, partition).is_ok_and(|(disk, _)| !disk.is_stale)
}

/// The partitions of a plex one after the other, as far as the volume goes.
fn linear(group: &DiskGroup, plex: &Plex, size: u64) -> Result<Linear> {
    let mut pieces = Vec::with_capacity(plex.partitions.len());
    let mut left = size;
    for part in &plex.partitions {
        let len = part.len.min(left);
        left -= len;
        let content = Content::Device { device: partition(group, part)?, offset: 0 };
        pieces.push(Piece { len, content });
    }
    Linear::new(pieces)
}

/// The size of a striped volume as whole rows of chunks, of which it can have a part less than one too many.
fn rows(volume: &Volume, columns: usize) -> Result<u64> {
    let row = volume.chunk_bytes.checked_mul(columns as u64).filter(|row| *row > 0);
    let row =
        row.ok_or_else(|| Error::Unsupported(format!("LDM volume {} without a chunk size", volume.name)))?;
    let size = volume.size.checked_next_multiple_of(row);
    size.ok_or_else(|| Error::Refused(format!("LDM volume {} is too large", volume.name)))
}

/// An array, read-only if a member is missing.
fn array(
    group: &DiskGroup,
    volume: &Volume,
    layout: raid::Layout,
    member_bytes: Vec<u64>,
    members: Vec<Option<Arc<dyn BlockDevice>>>,
) -> Result<Arc<dyn BlockDevice>> {
    let is_whole = members.iter().all(Option::is_some);
    let geometry = Geometry { layout, chunk_bytes: volume.chunk_bytes, member_bytes };
    let members = members.into_iter().map(|member| member.map(RaidMember::new)).collect();
    let array: Arc<dyn BlockDevice> = Arc::new(RaidDevice::new(&geometry, members)?);
    if is_whole {
        return Ok(array);
    }
    let why = match group.missing(volume).join(" and ") {
        none if none.is_empty() => "one of its copies is not active".into(),
        missing => format!("{missing} is not there"),
    };
    Ok(Arc::new(ReadOnly::because(
        array,
        format!(
            "volume {} of disk group {} is read-only because {why}: the disks would not say which is newer",
            volume.name, group.name
        ),
    )))
}
