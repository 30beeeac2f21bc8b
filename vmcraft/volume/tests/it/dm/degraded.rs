//! RAID volumes of LVM that are written while images are missing: Linux brings these up to date when they come back.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use testkit::appliance::{Disk, run_ok};
use testkit::volumes::{self, Case};
use testkit::{long_suites, tempdir};
use vmcraft_block::BlockDevice;

use super::lvm::{disks, open, scan, scribble, short};
use super::{content, sha256};

/// The cases, with the disks that each has to do without.
const CASES: [(&str, &[usize]); 6] = [
    ("lvm-raid1", &[0]),
    ("lvm-raid4", &[1]),
    ("lvm-raid5", &[2]),
    ("lvm-raid6", &[3]),
    ("lvm-raid6", &[0, 1]),
    ("lvm-raid10", &[0]),
];

fn without(all: &[Arc<dyn BlockDevice>], missing: &[usize]) -> Vec<Arc<dyn BlockDevice>> {
    let kept = all.iter().enumerate().filter(|(at, _)| !missing.contains(at));
    kept.map(|(_, disk)| Arc::clone(disk)).collect()
}

/// Writes all volumes of a case without these disks. Gives their names, with the sums of what they hold then.
fn write_degraded(case: &Case, all: &[Arc<dyn BlockDevice>], missing: &[usize]) -> Vec<(String, String)> {
    let found = scan(&without(all, missing));
    let mut expected = Vec::new();
    for device in &case.devices {
        let volume = open(&found, short(&device.name)).unwrap_or_else(|e| panic!("{}: {e}", device.name));
        assert!(!volume.is_read_only(), "{}: {}", case.name, device.name);
        scribble(&*volume);
        expected.push((short(&device.name).to_owned(), sha256(&content(&*volume))));
    }
    expected
}

#[test] // What was written without an image is read without it, also when it is there again, as it was.
fn images_that_come_back_are_not_read() {
    for (kind, missing) in CASES {
        let case = volumes::case(kind);
        let all = disks(&case);
        for (name, sum) in write_degraded(&case, &all, missing) {
            for (what, disks) in [("without it", without(&all, missing)), ("with it", all.clone())] {
                let volume = open(&scan(&disks), &name).unwrap_or_else(|e| panic!("{kind}: {name}: {e}"));
                assert_eq!(sha256(&content(&*volume)), sum, "{kind}: {name} {what}");
                // And it can be written again.
                assert!(!volume.is_read_only(), "{kind}: {name} {what}");
            }
        }
    }
}

#[test] // Linux reads the same without the images, and brings them up to date once they are there.
fn linux_brings_back_images_that_missed_what_we_wrote() {
    if !long_suites("writing RAID volumes of LVM without all of their images") {
        return;
    }
    let dir = tempdir();
    for (kind, missing) in CASES {
        let case = volumes::case(kind);
        let all = disks(&case);
        let expected = write_degraded(&case, &all, missing);
        let images: Vec<PathBuf> = (0..all.len()).map(|n| dir.path().join(format!("{n}"))).collect();
        for (image, disk) in images.iter().zip(&all) {
            fs::write(image, content(&**disk)).expect("space for an image");
        }
        let names: Vec<_> = expected.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(" ");
        let sums = format!("for lv in {names}; do echo $(sha256sum < /dev/vg/$lv) $lv; done");
        let start = "vgchange -q -ay -K vg >&2";
        let kept: Vec<_> = images
            .iter()
            .enumerate()
            .filter(|(at, _)| !missing.contains(at))
            .map(|(_, image)| Disk::kept(image))
            .collect();
        let degraded = run_ok(&kept, &format!("{start}; {sums}"));
        // Each line is read once before the images can be up to date, and once when they are.
        let whole = run_ok(
            &images.iter().map(|image| Disk::kept(image)).collect::<Vec<_>>(),
            &format!(
                "{start}; {sums}
                state() {{ lvs --noheadings -o $1 vg/$lv | tr -d ' '; }}
                for lv in {names}; do
                    until [ \"$(state raid_sync_action),$(state sync_percent)\" = idle,100.00 ]; do sleep 0.2; done
                    lvchange --syncaction check vg/$lv
                    until [ \"$(state raid_sync_action)\" = idle ]; do sleep 0.2; done
                    echo $lv $(state lv_health_status) $(state raid_mismatch_count)
                done
                {sums}"
            ),
        );
        for (name, sum) in &expected {
            let line = format!("{sum} - {name}\n");
            assert!(degraded.contains(&line), "{kind} without {missing:?}: {name}\n{degraded}");
            assert_eq!(whole.matches(&line).count(), 2, "{kind} with {missing:?} again: {name}\n{whole}");
            assert!(whole.contains(&format!("\n{name} 0\n")), "{kind}: {name}\n{whole}");
        }
    }
}
