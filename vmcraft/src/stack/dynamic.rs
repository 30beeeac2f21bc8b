//! Windows dynamic disks in the stack.

use vmcraft_volume::Member;
use vmcraft_volume::ldm::{self, DiskGroup, Ldm, Partition, Volume};

use super::scan::Found;
use super::{Kind, MAPPER, Stack};
use crate::device::{Disk, disk_name, parse_disk_name};
use crate::partition_types;

impl Stack {
    /// What was found of dynamic disks.
    pub(crate) fn dynamic(&self) -> &Ldm {
        &self.dynamic
    }

    /// Shows the volumes of dynamic disks, or does not, from the next scan on.
    pub(crate) fn set_dynamic_shown(&mut self, shown: bool) {
        self.hides_dynamic = !shown;
    }

    /// The volumes on those of the disks that are dynamic.
    pub(super) fn find_dynamic(&mut self, disks: &[Disk]) -> Vec<Found> {
        let is_dynamic = |disk: &Disk| disk.partitions().iter().any(partition_types::is_dynamic_disk);
        let dynamic = disks.iter().enumerate().filter(|(_, disk)| is_dynamic(disk));
        let members: Vec<_> = dynamic
            .map(|(index, disk)| Member { name: disk_name(index), device: disk.device.clone() })
            .collect();
        if members.is_empty() {
            return Vec::new();
        }
        let ldm = ldm::scan(&members);
        let mut found = Vec::new();
        if !self.hides_dynamic {
            for group in &ldm.groups {
                for volume in &group.volumes {
                    // As with ldmtool, only the parts of volumes with copies or parity are devices.
                    if volume.is_redundant() {
                        found.extend(
                            volume.partitions().map(|partition| dynamic_partition(disks, group, partition)),
                        );
                    }
                    found.push(dynamic_volume(disks, group, volume));
                }
            }
        }
        self.dynamic = ldm;
        found
    }
}

fn dynamic_partition(disks: &[Disk], group: &DiskGroup, partition: &Partition) -> Found {
    Found {
        name: format!("{MAPPER}{}", group.partition_device(partition)),
        aliases: Vec::new(),
        kind: Kind::DynamicPartition,
        layout: None,
        note: None,
        below: below(disks, group, partition).into_iter().collect(),
        device: group.open_partition(partition).map_err(|e| e.to_string()),
    }
}

fn dynamic_volume(disks: &[Disk], group: &DiskGroup, volume: &Volume) -> Found {
    let missing = group.missing(volume);
    let mut notes: Vec<String> = volume.hint.iter().map(|hint| format!("{hint} in Windows")).collect();
    if !missing.is_empty() {
        notes.push(format!("degraded: without {}", missing.join(", ")));
    }
    let below = if volume.is_redundant() {
        let partitions = volume.partitions();
        partitions.map(|partition| format!("{MAPPER}{}", group.partition_device(partition))).collect()
    } else {
        volume.partitions().filter_map(|partition| below(disks, group, partition)).collect()
    };
    let device = group.open(volume).map_err(|e| e.to_string());
    Found {
        name: format!("{MAPPER}{}", group.volume_device(volume)),
        aliases: Vec::new(),
        kind: Kind::DynamicVolume,
        layout: Some(volume.layout.to_string()),
        note: device.is_ok().then(|| notes.join("; ")).filter(|note| !note.is_empty()),
        below,
        device,
    }
}

/// The partition of the partition table in which a part of a dynamic disk lies; the disk if it lies in
/// none. `None` if the disk is missing.
fn below(disks: &[Disk], group: &DiskGroup, partition: &Partition) -> Option<String> {
    let disk = group.disks.get(partition.disk)?;
    let whole = &disk.member.as_ref()?.name;
    let start = disk.data_start.saturating_add(partition.start);
    let (index, _) = parse_disk_name(whole)?;
    let table = disks.get(index)?.partitions();
    let around = table.iter().find(|entry| entry.start_bytes <= start && start < entry.end_bytes());
    Some(around.map_or_else(|| whole.clone(), |entry| format!("{whole}{}", entry.number)))
}
