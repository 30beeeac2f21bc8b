//! A disk group, put together from its disks and the newest copy of its database.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::database::{self, Database};
use super::privhead::{self, Privhead, SECTOR};
use super::record::{Arrangement, ComponentRecord, PartitionRecord, Record, VolumeRecord};
use super::{Disk, DiskGroup, Layout, Ldm, Partition, Plex, Volume};
use crate::{Error, Member, Result};

/// A disk that was given, with its database.
struct Found {
    member: Member,
    head: Privhead,
    database: Database,
}

/// Finds the dynamic disks among `disks`, and puts their groups together.
pub(super) fn scan(disks: &[Member]) -> Ldm {
    let mut ldm = Ldm::default();
    let mut groups: Vec<(Uuid, Vec<Found>)> = Vec::new();
    for member in disks {
        let (head, database) = match read(member) {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            Err(error) => {
                ldm.warnings.push(format!("{}: {error}", member.name));
                continue;
            }
        };
        if let Some(warning) = &head.warning {
            ldm.warnings.push(format!("{}: {warning}; a copy is used", member.name));
        }
        let guid = head.group_guid;
        let found = Found { member: member.clone(), head, database };
        match groups.iter_mut().find(|(known, _)| *known == guid) {
            Some((_, members)) => members.push(found),
            None => groups.push((guid, vec![found])),
        }
    }
    for (guid, members) in groups {
        match assemble(guid, members) {
            Ok(group) => ldm.groups.push(group),
            Err(error) => ldm.warnings.push(format!("disk group {guid}: {error}")),
        }
    }
    ldm
}

fn read(member: &Member) -> Result<Option<(Privhead, Database)>> {
    let Some(head) = privhead::find(&*member.device)? else { return Ok(None) };
    let database = database::read(&*member.device, &head)?;
    Ok(Some((head, database)))
}

/// Puts a group together from the newest of its databases.
fn assemble(guid: Uuid, members: Vec<Found>) -> Result<DiskGroup> {
    let newest = members.iter().map(|found| found.database.sequence).max().unwrap_or(0);
    let Some(database) = members.iter().find(|found| found.database.sequence == newest) else {
        return Err(Error::Incomplete("it has no disk".into()));
    };
    let database = database.database.clone();
    let mut group = DiskGroup {
        guid: guid.to_string(),
        name: database.group_name,
        disks: Vec::new(),
        volumes: Vec::new(),
        warnings: Vec::new(),
    };
    let mut ids = BTreeMap::new();
    let (mut volumes, mut components, mut partitions) = (Vec::new(), Vec::new(), Vec::new());
    for record in database.records {
        match record {
            Record::Volume(volume) => volumes.push(volume),
            Record::Component(component) => components.push(component),
            Record::Partition(partition) => partitions.push(partition),
            Record::Disk(disk) => {
                ids.insert(disk.id, group.disks.len());
                group.disks.push(Disk {
                    name: disk.name,
                    guid: disk.guid.to_string(),
                    member: None,
                    is_stale: false,
                    data_start: 0,
                    data_bytes: 0,
                });
            }
        }
    }
    for found in members {
        place(&mut group, found, newest);
    }
    let mut parts: BTreeMap<u64, Vec<PartitionRecord>> = BTreeMap::new();
    for partition in partitions {
        parts.entry(partition.component).or_default().push(partition);
    }
    let mut plexes: BTreeMap<u64, Vec<(ComponentRecord, Vec<PartitionRecord>)>> = BTreeMap::new();
    for component in components {
        let of_it = parts.remove(&component.id).unwrap_or_default();
        let corrupt = |what: String| Error::Corrupt { what, offset: component.offset };
        if of_it.len() as u64 != component.partitions {
            let (has, says) = (of_it.len(), component.partitions);
            return Err(corrupt(format!(
                "LDM component {}: {has} partitions, where it says {says}",
                component.name
            )));
        }
        plexes.entry(component.volume).or_default().push((component, of_it));
    }
    if let Some(partition) = parts.values().flatten().next() {
        let what = format!("LDM partition {}: it is of no component", partition.name);
        return Err(Error::Corrupt { what, offset: partition.offset });
    }
    for volume in volumes {
        let of_it = plexes.remove(&volume.id).unwrap_or_default();
        group.volumes.push(assemble_volume(volume, of_it, &ids)?);
    }
    if let Some((component, _)) = plexes.values().flatten().next() {
        let what = format!("LDM component {}: it is of no volume", component.name);
        return Err(Error::Corrupt { what, offset: component.offset });
    }
    Ok(group)
}

/// Puts a disk that was found in its place in the group.
fn place(group: &mut DiskGroup, found: Found, newest: u64) {
    let (name, guid) = (&found.member.name, found.head.disk_guid.to_string());
    let sequence = found.database.sequence;
    let Some(disk) = group.disks.iter_mut().find(|disk| disk.guid == guid) else {
        group.warnings.push(format!(
            "{name} says that it is of disk group {}, which does not have a disk {guid} (any more)",
            group.name
        ));
        return;
    };
    if let Some(other) = &disk.member {
        group.warnings.push(format!(
            "{name} and {} both say that they are {} of disk group {}; the first is left out",
            other.name, disk.name, group.name
        ));
        return;
    }
    if sequence < newest {
        group.warnings.push(format!(
            "{name} ({} of disk group {}) was not there for the last changes of the group: it is at change \
             {sequence}, the group at {newest}",
            disk.name, group.name
        ));
    }
    disk.is_stale = sequence < newest;
    disk.data_start = found.head.data_start;
    disk.data_bytes = found.head.data_bytes;
    disk.member = Some(found.member);
}

fn assemble_volume(
    record: VolumeRecord,
    components: Vec<(ComponentRecord, Vec<PartitionRecord>)>,
    disks: &BTreeMap<u64, usize>,
) -> Result<Volume> {
    let name = &record.name;
    let offset = components.first().map_or(0, |(component, _)| component.offset);
    let corrupt = |what: String| Error::Corrupt { what: format!("LDM volume {name}: {what}"), offset };
    let bytes = |sectors: u64| {
        let bytes = sectors.checked_mul(SECTOR);
        bytes.ok_or_else(|| corrupt(format!("{sectors} sectors")))
    };
    if components.len() as u64 != record.components {
        let has = components.len();
        return Err(corrupt(format!("{has} components, where it says {}", record.components)));
    }
    let Some((first, partitions)) = components.first() else { return Err(corrupt("no component".into())) };
    let layout = match (record.is_raid5, first.arrangement, components.len()) {
        (true, Arrangement::Raid5, 1) => Layout::Raid5,
        (false, Arrangement::Striped, 1) => Layout::Striped,
        (false, Arrangement::Concatenated, 1) if partitions.len() == 1 => Layout::Simple,
        (false, Arrangement::Concatenated, 1) => Layout::Spanned,
        (false, Arrangement::Concatenated, _) => Layout::Mirrored,
        (_, arrangement, count) => {
            return Err(Error::Unsupported(format!(
                "LDM volume {name}, with {count} components of the kind {arrangement:?}"
            )));
        }
    };
    let chunk_bytes = bytes(first.chunk)?;
    let mut plexes = Vec::with_capacity(components.len());
    for (component, mut partitions) in components {
        if component.arrangement == Arrangement::Concatenated {
            partitions.sort_by_key(|partition| partition.volume_offset);
        } else {
            partitions.sort_by_key(|partition| partition.index);
        }
        let mut placed = Vec::with_capacity(partitions.len());
        let mut end = 0_u64;
        for (column, partition) in (0_u64..).zip(partitions) {
            let what = format!("partition {} of {name}", partition.name);
            let wrong =
                |why: &str| Error::Corrupt { what: format!("LDM {what}: {why}"), offset: partition.offset };
            if component.arrangement == Arrangement::Concatenated {
                if partition.volume_offset != end {
                    return Err(wrong("it does not begin where the one before it ends"));
                }
                end = end.checked_add(partition.sectors).ok_or_else(|| wrong("its size"))?;
            } else if partition.index != column {
                return Err(wrong("its column"));
            }
            placed.push(Partition {
                disk: *disks.get(&partition.disk).ok_or_else(|| wrong("its disk is not in the group"))?,
                start: bytes(partition.start)?,
                len: bytes(partition.sectors)?,
                name: partition.name,
            });
        }
        plexes.push(Plex { name: component.name, state: component.state, partitions: placed });
    }
    Ok(Volume {
        guid: record.guid.to_string(),
        layout,
        size: bytes(record.sectors)?,
        chunk_bytes,
        hint: record.hint,
        partition_type: record.partition_type,
        state: record.state,
        plexes,
        name: record.name,
    })
}
