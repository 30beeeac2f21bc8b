//! Changing groups that have volumes of all kinds, which LVM made.

use std::path::{Path, PathBuf};

use testkit::appliance::{self, Disk};
use testkit::tempdir;
use testkit::volumes::{case, names};
use vmcraft_volume::lvm::{Lvm, NewVolume, Size};

use super::corpus::sha256;
use super::editing::{assert_accepted, images};
use super::reports::scan_case;
use super::tools::{can_attach, member, with_author, with_seed};

/// Groups that are whole, and so can be changed.
fn whole_cases() -> Vec<String> {
    names("lvm-").into_iter().filter(|name| name != "lvm-degraded" && name != "lvm-missing").collect()
}

fn volumes(lvm: &Lvm, group: &str) -> Vec<String> {
    let group = lvm.group(group).expect("the group is there");
    group.visible_volumes().map(|lv| lv.name.clone()).collect()
}

/// Renames the group, and every volume of it.
fn rename_all(lvm: &mut Lvm, what: &str) {
    for (seed, volume) in (1..).zip(volumes(lvm, "vg")) {
        with_seed(seed, |author| lvm.rename_volume("vg", &volume, &format!("new-{volume}"), author))
            .unwrap_or_else(|e| panic!("{what}: {volume}: {e}"));
    }
    with_author(|author| lvm.rename_group("vg", "renamed", author)).unwrap_or_else(|e| panic!("{what}: {e}"));
}

#[test] // Parts are renamed along and removed along, and LVM's tools find nothing wrong at any step.
fn all_kinds_are_renamed_and_removed() {
    if !can_attach("changing volumes of all kinds") {
        return;
    }
    for name in whole_cases() {
        let case = case(&name);
        let mut lvm = scan_case(&case);
        let disks: Vec<&Path> = case.disks.iter().map(PathBuf::as_path).collect();
        let old = volumes(&lvm, "vg");
        rename_all(&mut lvm, &name);
        assert_accepted(&lvm, &disks, &name);
        let group = lvm.group("renamed").expect("it was renamed");
        let old = old.iter().map(|name| format!("{name}_")).collect::<Vec<_>>();
        for lv in &group.metadata.logical_volumes {
            assert!(!old.iter().any(|part| lv.name.starts_with(part)), "{name}: {} is not renamed", lv.name);
        }
        for volume in volumes(&lvm, "renamed") {
            if lvm.group("renamed").expect("it stays").metadata.logical_volume(&volume).is_none() {
                continue; // it went along with another
            }
            with_author(|author| lvm.remove_volume("renamed", &volume, author))
                .unwrap_or_else(|e| panic!("{name}: {volume}: {e}"));
            assert_accepted(&lvm, &disks, &format!("{name} without {volume}"));
        }
        let report = lvm.group("renamed").expect("it stays").report();
        assert_eq!(report.vg_free_count, report.vg_extent_count, "{name}");
        assert_accepted(&lvm, &disks, &format!("{name} emptied"));
    }
}

#[test] // The kernel starts what we renamed and made, and reads the same bytes; what it writes, we read.
fn the_kernel_starts_what_we_changed() {
    if !testkit::long_suites("LVM in a virtual machine over groups that we changed") {
        return;
    }
    for name in whole_cases() {
        let case = case(&name);
        let mut lvm = scan_case(&case);
        rename_all(&mut lvm, &name);
        drop(lvm);
        let mut script = String::from("set -e; vgck renamed; vgchange -q -ay -K renamed\n");
        for device in case.devices.iter().filter(|device| device.sha256.is_some()) {
            let volume = device.name.rsplit('/').next().expect("a name");
            script += &format!("sha256sum < /dev/renamed/new-{volume}\n");
        }
        let disks: Vec<Disk<'_>> = case.disks.iter().map(|disk| Disk::raw(disk)).collect();
        let printed = appliance::run_ok(&disks, &script);
        let sums = printed.lines().filter_map(|line| line.strip_suffix("  -")).collect::<Vec<_>>();
        let expected: Vec<&str> = case.devices.iter().filter_map(|device| device.sha256.as_deref()).collect();
        assert_eq!(sums, expected, "{name}");
    }
}

#[test] // From pvcreate to the last byte: made and written by us, read, grown and written by LVM, read by us.
fn groups_that_we_make_are_used_by_the_kernel() {
    if !testkit::long_suites("LVM in a virtual machine over groups that we made") {
        return;
    }
    let dir = tempdir();
    let images: [PathBuf; 2] = images(dir.path(), 32);
    let members: Vec<_> = images.iter().map(|path| member(path)).collect();
    let mut lvm = vmcraft_volume::lvm::scan(&members);
    with_author(|author| lvm.create_group("vg", &members, author)).expect("a group");
    let mut sums = Vec::new();
    for (seed, (name, stripes, size)) in (10..).zip([("lin", 1, 10_u64 << 20), ("str", 2, 16 << 20)]) {
        let new = NewVolume { name, size: Size::Bytes(size), stripes, stripe_size: 64 << 10 };
        with_seed(seed, |author| lvm.create_volume("vg", &new, author)).expect("a volume");
        let device = lvm.group("vg").expect("the group").open(name).expect("it opens");
        let bytes: Vec<u8> = (0..device.size() / 8).flat_map(|n| (n ^ (seed << 40)).to_le_bytes()).collect();
        device.write_at(0, &bytes).expect("writable");
        device.flush().expect("flushed");
        sums.push(sha256(&*device));
    }
    with_author(|author| lvm.resize_volume("vg", "lin", Size::PercentFree(100), author)).expect("it grows");
    let size = lvm.group("vg").expect("the group").metadata.logical_volume("lin").expect("it is there").size;
    drop(lvm);
    let disks: Vec<Disk<'_>> = images.iter().map(|disk| Disk::raw(disk)).collect();
    let script = "set -e; vgck vg; vgchange -q -ay vg >&2; head -c 12582912 /dev/vg/lin | sha256sum; sha256sum < /dev/vg/str
        blockdev --getsize64 /dev/vg/lin
        lvreduce -q -f -y -l 1 vg/lin >&2; lvcreate -q -y -Wn -Zn -n theirs -l 2 vg >&2
        pattern /dev/vg/theirs seed >&2
        sha256sum < /dev/vg/theirs";
    let printed = appliance::run_ok(&disks, script);
    let lines: Vec<&str> = printed.lines().map(|line| line.trim_end_matches("  -")).collect();
    assert_eq!(lines[..3], [sums[0].as_str(), sums[1].as_str(), size.to_string().as_str()]);
    let lvm = vmcraft_volume::lvm::scan(&members);
    assert!(lvm.warnings.is_empty(), "{:?}", lvm.warnings);
    let theirs = lvm.group("vg").expect("the group").open("theirs").expect("it opens");
    assert_eq!(sha256(&*theirs), lines[3]);
}
