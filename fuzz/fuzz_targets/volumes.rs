//! Disks with any volumes on them: found, opened, read and written, and what is on these again.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use vmcraft_block::{BlockDevice, Slice};
use vmcraft_fuzz::{decode, read_around, write_around};
use vmcraft_volume::bitlocker::BitLocker;
use vmcraft_volume::luks::Luks;
use vmcraft_volume::partition::PartitionTable;
use vmcraft_volume::{Member, ldm, lvm, md, signature};

/// What volumes the members make up.
fn volumes(members: &[Member]) -> Vec<Arc<dyn BlockDevice>> {
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

fuzz_target!(|input: &[u8]| {
    let mut devices = decode(input);
    for _ in 0..3 {
        let members: Vec<Member> = devices
            .into_iter()
            .take(64)
            .enumerate()
            .map(|(index, device)| Member { name: format!("/dev/sd{index}"), device })
            .collect();
        devices = volumes(&members);
        devices.iter().take(16).for_each(|device| read_around(&**device));
    }
    devices.iter().take(16).for_each(|device| write_around(&**device));
    // Once more from the start, to write to what stands on the disks themselves.
    let members: Vec<Member> = decode(input)
        .into_iter()
        .enumerate()
        .map(|(index, disk)| Member { name: format!("/dev/sd{index}"), device: disk })
        .collect();
    volumes(&members).iter().take(16).for_each(|device| write_around(&**device));
});
