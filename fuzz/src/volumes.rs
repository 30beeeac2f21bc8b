//! What volumes disks make up.

use std::sync::Arc;

use vmcraft_block::{BlockDevice, Slice};
use vmcraft_volume::bitlocker::BitLocker;
use vmcraft_volume::luks::Luks;
use vmcraft_volume::partition::PartitionTable;
use vmcraft_volume::{Member, ldm, lvm, md, signature};

/// Disks, or what they showed, under names of their own.
pub fn members(devices: Vec<Arc<dyn BlockDevice>>) -> Vec<Member> {
    let name = |(index, device)| Member { name: format!("/dev/sd{index}"), device };
    devices.into_iter().take(64).enumerate().map(name).collect()
}

/// What volumes the members make up, opened.
pub fn volumes(members: &[Member]) -> Vec<Arc<dyn BlockDevice>> {
    let mut opened: Vec<Arc<dyn BlockDevice>> = Vec::new();
    for array in &md::scan(members).arrays {
        let _ = array.detail();
        opened.extend(array.open());
    }
    let found = ldm::scan(members);
    for group in &found.groups {
        for volume in &group.volumes {
            let _ = group.missing(volume);
            opened.extend(group.open(volume));
            opened.extend(volume.partitions().filter_map(|partition| group.open_partition(partition).ok()));
        }
    }
    let found = lvm::scan(members);
    let _ = found.report_physical_volumes();
    let _ = found.report_volume_groups();
    let _ = found.report_logical_volumes();
    for group in &found.volume_groups {
        let names: Vec<String> = group.visible_volumes().map(|volume| volume.name.clone()).collect();
        opened.extend(names.iter().take(32).filter_map(|name| group.open(name).ok()));
    }
    for member in members {
        let _ = (signature::probe(&*member.device), signature::probe_container(&*member.device));
        let _ = Luks::read(member, None).map(|luks| luks.map(|luks| format!("{:?}", luks.keyslots())));
        if let Ok(Some(volume)) = BitLocker::read(member) {
            opened.extend(volume.unlock_clear());
        }
        if let Ok(Some(table)) = PartitionTable::read(&*member.device) {
            for partition in table.partitions.iter().take(32) {
                let slice = Slice::new(member.device.clone(), partition.start_bytes, partition.len_bytes);
                opened.extend(slice.map(|slice| Arc::new(slice) as Arc<dyn BlockDevice>));
            }
        }
    }
    opened
}
