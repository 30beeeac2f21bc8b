//! Logical volumes of all kinds that are more than stripes, as LVM made them, and as LVM finds them after we wrote.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use testkit::appliance::{Disk, run_ok};
use testkit::volumes::{self, Case};
use testkit::{long_suites, tempdir};
use vmcraft_block::{BlockDevice, MemoryDevice};
use vmcraft_volume::dm::thin::{Options, Pool, VolumeDetails};
use vmcraft_volume::lvm::{self, Lvm, SegmentKind};
use vmcraft_volume::{Error, Member};

use super::{check_extents, content, sha256};

const KINDS: [&str; 10] = [
    "lvm-cache",
    "lvm-mirror",
    "lvm-raid0",
    "lvm-raid1",
    "lvm-raid4",
    "lvm-raid5",
    "lvm-raid6",
    "lvm-raid10",
    "lvm-snapshot",
    "lvm-thin",
];

/// The disks of a case, in memory.
pub(super) fn disks(case: &Case) -> Vec<Arc<dyn BlockDevice>> {
    let read = |path: &std::path::PathBuf| fs::read(path).expect("an unpacked disk");
    case.disks.iter().map(|path| Arc::new(MemoryDevice::new(read(path))) as Arc<dyn BlockDevice>).collect()
}

pub(super) fn scan(disks: &[Arc<dyn BlockDevice>]) -> Lvm {
    let member = |(n, device): (usize, &Arc<dyn BlockDevice>)| Member {
        name: format!("disk {n}"),
        device: Arc::clone(device),
    };
    lvm::scan(&disks.iter().enumerate().map(member).collect::<Vec<_>>())
}

pub(super) fn open(found: &Lvm, name: &str) -> Result<Arc<dyn BlockDevice>, Error> {
    found.group("vg")?.open(name)
}

/// The volume's name in its group.
pub(super) fn short(name: &str) -> &str {
    name.strip_prefix("/dev/vg/").expect("a volume of the group")
}

fn message<T>(result: Result<T, Error>) -> String {
    result.map(|_| ()).expect_err("this is refused").to_string()
}

#[test]
fn volumes_read_as_in_linux() {
    for kind in KINDS.iter().chain(&["lvm-degraded", "lvm-missing"]) {
        let case = volumes::case(kind);
        let found = scan(&disks(&case));
        for device in &case.devices {
            let opened = open(&found, short(&device.name));
            let Some(sum) = &device.sha256 else {
                assert!(opened.is_err(), "{kind}: {}", device.name);
                continue;
            };
            let volume = opened.unwrap_or_else(|e| panic!("{kind}: {}: {e}", device.name));
            assert_eq!(
                (volume.size(), &sha256(&content(&*volume))),
                (device.size, sum),
                "{kind}: {}",
                device.name
            );
            if volume.extents().is_some() {
                check_extents(&*volume);
            }
            let is_redundant = device.facts["type"].as_str().is_some_and(|kind| kind.starts_with("raid"));
            if *kind == "lvm-degraded" && is_redundant {
                assert!(!volume.is_read_only(), "{}", device.name);
                scribble(&*volume);
            }
        }
        for name in case.facts["inactive"].as_array().into_iter().flatten().filter_map(|name| name.as_str()) {
            assert!(open(&found, name).is_err(), "{kind}: LVM does not start {name}");
        }
    }
}

#[test] // Parts of volumes are not volumes.
fn what_has_no_content_of_its_own_is_refused() {
    let found = scan(&disks(&volumes::case("lvm-thin")));
    assert!(message(open(&found, "pool")).contains("is a thin pool"));
    let found = scan(&disks(&volumes::case("lvm-snapshot")));
    assert!(message(open(&found, "over")).contains("snapshot over is invalid"));
    let degraded = scan(&disks(&volumes::case("lvm-degraded")));
    assert!(message(open(&degraded, "mirror")).contains("first leg of the mirror is missing"));
}

#[test] // Any one image of a RAID volume can be lost, but not more than the level bears.
fn images_that_are_lost_are_replaced_by_the_others() {
    for (kind, bears) in
        [("lvm-raid1", 1), ("lvm-raid4", 1), ("lvm-raid5", 1), ("lvm-raid6", 2), ("lvm-raid10", 1)]
    {
        let case = volumes::case(kind);
        let all = disks(&case);
        for first in 0..all.len() {
            for lost in 1..=bears + 1 {
                let left: Vec<_> = (0..all.len())
                    .filter(|disk| (first..first + lost).all(|gone| gone % all.len() != *disk))
                    .map(|disk| all[disk].clone())
                    .collect();
                let found = scan(&left);
                for device in &case.devices {
                    let volume = match open(&found, short(&device.name)) {
                        Ok(volume) => volume,
                        // More than the level bears, or so many that no metadata is left.
                        Err(error) => {
                            assert!(lost > bears, "{kind}: {}: {error}", device.name);
                            continue;
                        }
                    };
                    assert_eq!(
                        device.sha256.as_deref(),
                        Some(&*sha256(&content(&*volume))),
                        "{kind}: {}",
                        device.name
                    );
                    // raid6 over five of five disks cannot bear three.
                    assert!(lost <= bears || kind != "lvm-raid6");
                }
            }
        }
    }
}

/// Overwrites the superblocks of images, which begin so, on all disks.
fn change_superblocks(disks: &[Arc<dyn BlockDevice>], mut change: impl FnMut(usize, &mut [u8])) {
    for disk in disks {
        let mut bytes = content(&**disk);
        for (index, sector) in bytes.chunks_exact_mut(512).enumerate() {
            if sector.starts_with(b"DmRd") {
                let position = usize::from(sector[12]);
                change(position, sector);
                disk.write_at(index as u64 * 512, sector).unwrap();
            }
        }
    }
}

#[test] // Linux counts blocks beyond the end of a small pool as free.
fn a_full_pool_of_linux_is_an_error_that_says_so() {
    let found = scan(&disks(&volumes::case("lvm-thin")));
    let volume = open(&found, "sparse").unwrap();
    let error = volume.write_at(1 << 20, &vec![1; 4 << 20]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert!(error.to_string().contains("no free data block (all 32"), "{error}");
}

#[test] // What superblocks of RAID images say decides which of them are used.
fn superblocks_of_images_are_obeyed() {
    let case = volumes::case("lvm-raid4");
    let expected = case.devices[0].sha256.clone();
    let opened = |change: &dyn Fn(usize, &mut [u8])| {
        let disks = disks(&case);
        change_superblocks(&disks, change);
        open(&scan(&disks), "raid")
    };
    let degraded = |change: &dyn Fn(usize, &mut [u8])| {
        let volume = opened(change).unwrap();
        assert_eq!(Some(sha256(&content(&*volume))), expected);
        if volume.is_read_only() {
            message(volume.write_at(0, &[0]).map_err(Error::from))
        } else {
            String::new()
        }
    };
    // The others say that it failed. Then it is not written, and they say so already.
    assert_eq!(degraded(&|position, sb| sb[24] |= u8::from(position == 0) << 2), "");
    // Linux would take it as it is: it has missed something, without being marked as failed; it is new; it has only
    // begun to be rebuilt.
    let degraded = |why: &str, change: &dyn Fn(usize, &mut [u8])| {
        let refused = degraded(change);
        assert!(refused.contains(why), "{refused}");
    };
    degraded("is stale", &|position, sb| sb[16] = if position == 1 { 1 } else { 9 });
    degraded("has not been rebuilt yet", &|position, sb| {
        if position == 1 {
            sb[..4].fill(0);
        }
    });
    degraded("rebuilt up to byte 0x2800", &|position, sb| {
        if position == 2 {
            sb[32..40].copy_from_slice(&20_u64.to_le_bytes());
        }
    });
    // Not in sync: good while all are there, and too little to replace one that is not.
    assert!(!opened(&|_, sb| sb[40..48].fill(0)).unwrap().is_read_only());
    let refused = opened(&|position, sb| {
        sb[40..48].fill(0);
        sb[24] = u8::from(position == 0);
    });
    assert!(message(refused).contains("parity was not made to fit"));
    assert!(message(opened(&|_, sb| sb[24] = 3)).contains("too many members are missing"));
    assert!(message(opened(&|_, sb| sb[0] = b'X')).contains("magic number"));
    assert!(message(opened(&|_, sb| sb[8] = 9)).contains("number of devices"));
    assert!(message(opened(&|_, sb| sb[12] = 0)).contains("position in the array"));
    assert!(message(opened(&|_, sb| sb[60] = 1)).contains("reshaped"));
}

/// Writes pieces all over a volume, as far as there is space for them.
pub(super) fn scribble(volume: &dyn BlockDevice) {
    let mut expected = content(volume);
    let size = expected.len();
    for (n, (start, len)) in
        [(0, 10), (5000, 70_000), (size / 2 - 1, 3), (size - 4096, 4096)].into_iter().enumerate()
    {
        let (start, end) = (start.min(size), (start + len).min(size));
        let new = vec![b'a' + u8::try_from(n).unwrap(); end - start];
        match volume.write_at(start as u64, &new) {
            Ok(()) => expected[start..end].copy_from_slice(&new),
            Err(error) => assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}"),
        }
    }
    assert!(content(volume) == expected);
}

/// Writes to all volumes of a case, and lets LVM read them; `check` is run in the same machine.
fn written_volumes(kind: &str, check: &str, dir: &Path) -> String {
    let case = volumes::case(kind);
    let disks = disks(&case);
    let found = scan(&disks);
    let mut expected: Vec<(&str, String)> = Vec::new();
    for device in case.devices.iter().filter(|device| device.sha256.is_some()) {
        let volume = open(&found, short(&device.name)).unwrap();
        if !volume.is_read_only() {
            scribble(&*volume);
        }
    }
    // A write to an origin must not have changed its snapshots, so they are all read at the end.
    for device in case.devices.iter().filter(|device| device.sha256.is_some()) {
        if let Ok(volume) = open(&found, short(&device.name)) {
            expected.push((short(&device.name), sha256(&content(&*volume))));
        }
    }
    let images: Vec<_> = (0..disks.len()).map(|n| dir.join(format!("{kind}.{n}"))).collect();
    for (image, disk) in images.iter().zip(&disks) {
        fs::write(image, content(&**disk)).expect("space for an image");
    }
    let names: Vec<_> = expected.iter().map(|(name, _)| *name).collect();
    let printed = run_ok(
        &images.iter().map(|image| Disk::raw(image)).collect::<Vec<_>>(),
        &format!(
            "vgck vg; vgchange -q -ay -K vg > /dev/null; settle
            for lv in {}; do echo $(sha256sum < /dev/vg/$lv) $lv; done
            {check}",
            names.join(" ")
        ),
    );
    for (name, sum) in expected {
        assert!(printed.contains(&format!("{sum} - {name}\n")), "{kind}: {name}\n{printed}");
    }
    printed
}

#[test] // What we wrote to each kind of volumes, as LVM reads it; and the copies and parities are right.
fn lvm_reads_what_we_wrote() {
    if !long_suites("writing logical volumes of all kinds") {
        return;
    }
    let dir = tempdir();
    for kind in ["lvm-raid1", "lvm-raid4", "lvm-raid5", "lvm-raid6", "lvm-raid10"] {
        let checked = written_volumes(
            kind,
            "for lv in $(lvs --noheadings -o lv_name vg); do
                lvchange --syncaction check vg/$lv; lvm_wait() { lvs --noheadings -o raid_sync_action vg/$lv; }
                while ! lvm_wait | grep -q idle; do sleep 0.1; done
                echo $lv mismatches $(lvs --noheadings -o raid_mismatch_count vg/$lv)
            done",
            dir.path(),
        );
        let mut lines = checked.lines().filter(|line| line.contains(" mismatches "));
        assert!(lines.clone().count() > 0 && lines.all(|line| line.ends_with(" mismatches 0")), "{checked}");
    }
    for kind in ["lvm-raid0", "lvm-snapshot"] {
        written_volumes(kind, "", dir.path());
    }
    let mirror = written_volumes(
        "lvm-mirror",
        "vgchange -q -an vg > /dev/null; for d in /dev/vd?; do sha256sum < $d; done > /dev/null; echo done",
        dir.path(),
    );
    assert!(mirror.ends_with("done\n"));
    let thin = written_volumes(
        "lvm-thin",
        "vgchange -q -an vg > /dev/null; lvchange -q -ay -y vg/pool_tmeta > /dev/null
        thin_check /dev/vg/pool_tmeta > /dev/null && echo checked",
        dir.path(),
    );
    assert!(thin.ends_with("checked\n"), "{thin}");
    let cache = written_volumes(
        "lvm-cache",
        "vgchange -q -an vg > /dev/null; lvchange -q -ay -y vg/pool_cpool_cmeta > /dev/null
        cache_check /dev/vg/pool_cpool_cmeta > /dev/null && echo checked",
        dir.path(),
    );
    assert!(cache.ends_with("checked\n"), "{cache}");
}

/// The contents of all thin volumes, by name, and what the pool's own metadata says of them.
fn thin_state(
    found: &Lvm,
    disks: &[Arc<dyn BlockDevice>],
) -> (Vec<(String, String)>, Vec<VolumeDetails>, u64) {
    assert!(found.warnings.is_empty(), "{:?}", found.warnings);
    let group = found.group("vg").expect("the group");
    let contents = group.public_volumes().map(|lv| {
        let volume = open(found, &lv.name).unwrap_or_else(|e| panic!("{}: {e}", lv.name));
        (lv.name.clone(), sha256(&content(&*volume)))
    });
    let pool = Pool::open(
        "vg/pool",
        open(&scan(disks), "pool_tmeta").expect("the pool's metadata"),
        open(&scan(disks), "pool_tdata").expect("the pool's data"),
        Options::default(),
    )
    .expect("the pool");
    let details = pool.volumes().expect("its volumes");
    (contents.collect(), details, pool.transaction_id())
}

/// Removes volumes of the group with thin volumes.
fn remove(disks: &[Arc<dyn BlockDevice>], names: &[&str]) -> Lvm {
    let mut found = scan(disks);
    for name in names {
        let mut author = lvm::Author { random: &mut |bytes| bytes.fill(7), now: 1, host: "test" };
        found.remove_volume("vg", name, &mut author).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    found
}

#[test] // The pool gives back what the volume alone had, and LVM's metadata and the pool's are of the same transaction.
fn thin_volumes_are_removed() {
    let case = volumes::case("lvm-thin");
    for names in [&["thin"][..], &["snap"], &["thin", "discarded"], &["origin"], &["sparse", "snap", "empty"]]
    {
        let disks = disks(&case);
        let (before, details, transaction) = thin_state(&scan(&disks), &disks);
        let found = remove(&disks, names);
        let mut gone = names.to_vec();
        if names == ["origin"] {
            gone.push("external");
        }
        let (after, left, now) = thin_state(&found, &disks);
        let kept: Vec<_> = before.into_iter().filter(|(name, _)| !gone.contains(&&**name)).collect();
        assert!(after == kept && !after.is_empty(), "{names:?}");
        let thin = gone.iter().filter(|name| **name != "origin").count();
        assert_eq!((left.len(), now), (details.len() - thin, transaction + thin as u64), "{names:?}");
        let metadata = &found.group("vg").unwrap().metadata;
        let pool = &metadata.logical_volume("pool").unwrap().segments[0];
        let SegmentKind::ThinPool { transaction_id, .. } = &pool.kind else { panic!("{pool:?}") };
        assert_eq!(*transaction_id, now, "{names:?}");
    }
}

#[test] // The same as lvremove leaves, but for when and by whom it was done; and LVM goes on with it.
fn removed_thin_volumes_are_as_lvm_removes_them() {
    if !long_suites("removing thin volumes, in LVM as well") {
        return;
    }
    let case = volumes::case("lvm-thin");
    let names = ["thin", "discarded", "origin"];
    let ours = disks(&case);
    let removed = remove(&ours, &names);
    let expected = thin_state(&removed, &ours);
    let theirs: Vec<_> = case.disks.iter().map(|path| Disk::raw(path)).collect();
    run_ok(&theirs, "vgchange -q -ay -K vg >&2; lvremove -q -f vg/thin vg/discarded vg/origin >&2");
    let theirs = disks(&case);
    let found = scan(&theirs);
    assert_eq!(thin_state(&found, &theirs), expected);
    let volumes = |found: &Lvm| found.group("vg").unwrap().metadata.logical_volumes.clone();
    assert_eq!(volumes(&found), volumes(&removed));

    let dir = tempdir();
    let images: Vec<_> = (0..ours.len()).map(|n| dir.path().join(format!("{n}.img"))).collect();
    for (image, disk) in images.iter().zip(&ours) {
        fs::write(image, content(&**disk)).expect("space for an image");
    }
    let printed = run_ok(
        &images.iter().map(|image| Disk::raw(image)).collect::<Vec<_>>(),
        "vgck vg; vgchange -q -ay -K vg >&2
        for lv in snap empty sparse; do sha256sum < /dev/vg/$lv; done
        lvcreate -q -V 1m -T vg/pool -n theirs >&2; lvremove -q -f vg/empty >&2
        vgchange -q -an vg >&2; lvchange -q -ay -y vg/pool_tmeta >&2; thin_check /dev/vg/pool_tmeta >&2
        echo checked",
    );
    let sum = |name: &str| &expected.0.iter().find(|(other, _)| other == name).unwrap().1;
    let sums: String = ["snap", "empty", "sparse"].map(|name| format!("{}  -\n", sum(name))).concat();
    assert_eq!(printed, sums + "checked\n");
}
