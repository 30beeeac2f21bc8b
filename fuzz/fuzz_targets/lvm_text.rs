//! Metadata of LVM behind a label and checksums that fit: read, opened, and changed.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use vmcraft_fuzz::{read_around, write_around};
use vmcraft_volume::Member;
use vmcraft_volume::lvm::{self, Author, NewVolume, Size};

fuzz_target!(|input: &[u8]| {
    let Some((label, text)) = input.split_at_checked(512) else { return };
    let member = Member { name: "/dev/sda".into(), device: Arc::new(vmcraft_fuzz::lvm(label, text)) };
    let mut found = lvm::scan(&[member]);
    let groups: Vec<String> = found.volume_groups.iter().map(|group| group.name().to_owned()).collect();
    let mut random = |bytes: &mut [u8]| bytes.fill(7);
    for group in groups.iter().take(4) {
        let names: Vec<String> = match found.group(group) {
            Ok(group) => {
                let names: Vec<String> = group.visible_volumes().map(|volume| volume.name.clone()).collect();
                for name in names.iter().take(16) {
                    if let Ok(device) = group.open(name) {
                        read_around(&*device);
                        write_around(&*device);
                    }
                }
                names
            }
            Err(_) => continue,
        };
        let mut author = Author { random: &mut random, now: 1_700_000_000, host: "host" };
        let new = NewVolume { name: "new", size: Size::Bytes(1 << 20), stripes: 1, stripe_size: 65536 };
        let _ = found.create_volume(group, &new, &mut author);
        for name in names.iter().take(8) {
            let _ = found.resize_volume(group, name, Size::PercentFree(10), &mut author);
            let _ = found.rename_volume(group, name, "renamed", &mut author);
            let _ = found.remove_volume(group, name, &mut author);
        }
        let _ = found.rename_group(group, "other", &mut author);
    }
    let _ = found.report_physical_volumes();
    let _ = found.report_volume_groups();
    let _ = found.report_logical_volumes();
});
