//! Volume groups, arrays, encrypted devices and dynamic disks: listed as LVM and ldmtool list them, and made
//! so that `cryptsetup`, `mdadm`, `pvck` and `e2fsck` find nothing wrong with them.

use std::fs;
use std::path::Path;

use serde_json::Value;
use testkit::{run_ok, tempdir};
use vmcraft::{Guest, GuestPath, Mountable};

use crate::drives::{call, device, disk, key, open, text};

/// The devices of the machine that made a case have names of their own.
fn our_name(name: &str) -> String {
    name.replace("/dev/vd", "/dev/sd")
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: vmcraft::Result<T>) -> String {
    result.expect_err("it is refused").to_string()
}

#[test] // The same rows as LVM's own tools print of the same disks.
fn volume_groups_are_listed_as_lvm_lists_them() {
    for name in ["lvm-linear", "lvm-striped", "lvm-snapshot", "lvm-thin", "lvm-raid5"] {
        let case = testkit::volumes::case(name);
        let guest = open(&case.disks);
        let rows = |of: &str| case.facts[of].as_array().cloned().unwrap_or_default();
        let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();

        let volumes = guest.pvs_full().expect("physical volumes");
        assert_eq!(volumes.len(), rows("pvs").len(), "{name}");
        for row in rows("pvs") {
            let device = our_name(&text(&row, "pv_name"));
            // Disks are not in the order in which their machine named them.
            let uuid = text(&row, "pv_uuid").replace('-', "");
            let ours = volumes.iter().find(|volume| volume.pv_uuid == uuid);
            let ours = ours.unwrap_or_else(|| panic!("{name}: {device} is missing"));
            assert_eq!(ours.pv_attr, text(&row, "pv_attr"), "{name}: {device}");
            for (ours, field) in [
                (ours.pv_size, "pv_size"),
                (ours.dev_size, "dev_size"),
                (ours.pv_free, "pv_free"),
                (ours.pv_used, "pv_used"),
                (ours.pe_start, "pe_start"),
                (ours.pv_mda_free, "pv_mda_free"),
            ] {
                assert_eq!(ours.to_string(), text(&row, field), "{name}: {device}: {field}");
            }
        }
        let groups = guest.vgs_full().expect("volume groups");
        for (ours, row) in groups.iter().zip(rows("vgs")) {
            assert_eq!(ours.vg_name, text(&row, "vg_name"));
            assert_eq!(ours.vg_attr, text(&row, "vg_attr"), "{name}");
            assert_eq!(ours.vg_free.to_string(), text(&row, "vg_free"), "{name}");
            assert_eq!(ours.lv_count.to_string(), text(&row, "lv_count"), "{name}");
            assert_eq!(ours.snap_count.to_string(), text(&row, "snap_count"), "{name}");
            assert_eq!(ours.vg_seqno.to_string(), text(&row, "vg_seqno"), "{name}");
        }
        let volumes = guest.lvs_full().expect("logical volumes");
        assert_eq!(volumes.len(), rows("lvs").len(), "{name}");
        for row in rows("lvs") {
            let lv = text(&row, "lv_name");
            let ours = volumes.iter().find(|volume| volume.lv_name == lv);
            let ours = ours.unwrap_or_else(|| panic!("{name}: {lv} is missing"));
            assert_eq!(ours.lv_size.to_string(), text(&row, "lv_size"), "{name}: {lv}");
            assert_eq!(ours.origin, text(&row, "origin"), "{name}: {lv}");
            assert_eq!(ours.modules, text(&row, "lv_modules"), "{name}: {lv}");
            assert_eq!(ours.seg_count.to_string(), text(&row, "seg_count"), "{name}: {lv}");
            let shown = |percent: Option<f32>| percent.map(|n| format!("{n:.2}")).unwrap_or_default();
            assert_eq!(shown(ours.snap_percent), text(&row, "snap_percent"), "{name}: {lv}");
            assert_eq!(shown(ours.copy_percent), text(&row, "copy_percent"), "{name}: {lv}");
            // Without what activation makes of it.
            let letters = |attr: &str| attr.chars().take(4).collect::<String>();
            assert_eq!(letters(&ours.lv_attr), letters(&text(&row, "lv_attr")), "{name}: {lv}");
        }
    }
}

#[test] // Each layer is made over the one below, closed and opened again, and found by other tools.
fn a_stack_is_made_opened_again_and_whole() {
    let dir = tempdir();
    let image = disk(dir.path(), "disk.img", 64);
    let mut guest = open(&[&image]);
    guest.luks_format(device("/dev/sda"), &key("first"), 0, Some(1)).expect("LUKS is made");
    guest.cryptsetup_open(device("/dev/sda"), &key("first"), "secret", None, None, None).expect("it opens");
    guest.vgcreate("vg", &["/dev/mapper/secret".into()]).expect("a group is made");
    guest.lvcreate("root", "vg", 16, None, None).expect("a volume is made");
    guest.mkfs("ext4", device("/dev/vg/root"), None, None, None, None, None).expect("a file system is made");
    guest.mount(Mountable::new("/dev/mapper/vg-root"), GuestPath::new("/")).expect("it mounts");
    guest.write(GuestPath::new("/f"), b"innermost").expect("it is written");

    let busy = refused(guest.cryptsetup_close(device("/dev/mapper/secret")));
    assert!(busy.contains("/dev/vg/root is mounted on /"), "{busy}");
    assert!(refused(guest.lvremove(device("/dev/vg/root"))).contains("busy"));
    assert!(refused(guest.vg_activate_all(false)).contains("busy"));
    guest.umount_all().expect("it unmounts");
    let busy = refused(guest.cryptsetup_close(device("/dev/mapper/secret")));
    assert!(busy.contains("/dev/vg/root stands on it"), "{busy}");
    assert!(refused(guest.pvcreate(device("/dev/mapper/secret"))).contains("busy"));

    guest.luks_add_key(device("/dev/sda"), &key("first"), &key("second"), 3).expect("a key is added");
    guest.luks_change_key(device("/dev/sda"), &key("first"), &key("third"), None).expect("a key is changed");
    guest.luks_kill_slot(device("/dev/sda"), &key("second"), 0).expect("a key is taken out");
    let last = refused(guest.luks_kill_slot(device("/dev/sda"), &key("second"), 3));
    assert!(last.contains("last"), "{last}");
    guest.lvresize_free(device("/dev/vg/root"), 100).expect("it grows");
    guest.resize2fs(device("/dev/vg/root")).expect("its file system grows");
    guest.commit().expect("the image can be written");
    drop(guest);

    fs::write(dir.path().join("key"), "second").expect("there is room");
    run_ok("cryptsetup", ["open", "--test-passphrase", "-d", text(&dir.path().join("key")), text(&image)]);

    let mut guest = open(&[&image]);
    guest.add_key("all", key("wrong"));
    let wrong = refused(guest.open_encrypted());
    assert!(wrong.contains("/dev/sda: this key opens nothing here (1 key slot tried)"), "{wrong}");
    guest.add_key("/dev/sda", key("second"));
    let uuid = guest.luks_uuid(device("/dev/sda")).expect("a UUID");
    let opened = guest.open_encrypted().expect("the second key fits");
    assert_eq!(opened, [format!("/dev/mapper/luks-{uuid}")]);
    assert_eq!(guest.lvs().expect("volumes"), ["/dev/vg/root"]);
    guest.mount(Mountable::new("/dev/vg/root"), GuestPath::new("/")).expect("it mounts");
    assert_eq!(guest.read_file(GuestPath::new("/f")).expect("it is there"), b"innermost");
    let (_, volume) = guest
        .block_devices()
        .expect("devices")
        .into_iter()
        .find(|(name, _)| name == "/dev/vg/root")
        .expect("the volume");
    let mut bytes = vec![0; usize::try_from(volume.size()).expect("it is small")];
    volume.read_at(0, &mut bytes).expect("it can be read");
    let copy = dir.path().join("root.img");
    fs::write(&copy, bytes).expect("there is room");
    run_ok("e2fsck", ["-fn", text(&copy)]);
}

#[test]
fn groups_and_arrays_that_are_made_are_what_their_tools_expect() {
    let dir = tempdir();
    let images: Vec<_> = (0..4).map(|at| disk(dir.path(), &format!("{at}.img"), 32)).collect();
    let mut guest = open(&images);
    guest
        .md_create("data", &["/dev/sda".into(), "/dev/sdb".into()], None, None, None, None, None)
        .expect("an array");
    assert_eq!(guest.list_md_devices().expect("arrays"), ["/dev/md127"]);
    let detail = guest.md_detail(device("/dev/md/data")).expect("its details");
    for row in [("level", "raid1"), ("devices", "2"), ("devname", "data"), ("device_dev_sda_role", "0")] {
        assert!(detail.iter().any(|(key, value)| (key == row.0) && (value == row.1)), "{detail:?}");
    }
    let members = guest.md_stat(device("/dev/md127")).expect("its members");
    assert_eq!(
        members.iter().map(|m| m.mdstat_device.as_str()).collect::<Vec<_>>(),
        ["/dev/sdb", "/dev/sda"]
    );
    guest.vgcreate("one", &["/dev/md127".into()]).expect("a group on the array");
    guest.vgcreate("two", &["/dev/sdc".into(), "/dev/sdd".into()]).expect("a group");
    guest.lvcreate_free("striped", "two", 50, Some(2), None).expect("a striped volume");
    guest.lvcreate("inner", "one", 4, None, None).expect("a volume on the array");
    let busy = refused(guest.md_stop(device("/dev/md127")));
    assert!(busy.contains("/dev/one/inner stands on it"), "{busy}");
    assert!(refused(guest.vgcreate("two", &[])).contains("two"));
    for taken in ["sda", "/dev/sdb", "mapper", "md", "disk", "fd"] {
        let error = refused(guest.vgcreate(taken, &["/dev/md127".into()]));
        assert!(error.contains("is the name of something else"), "{taken}: {error}");
        let error = refused(guest.vgrename("two", taken));
        assert!(error.contains("is the name of something else"), "{taken}: {error}");
    }
    assert!(refused(guest.lvcreate("big", "one", 1000, None, None)).contains("free extents"));
    assert!(refused(guest.lvcreate("none", "one", 0, None, None)).contains("at least 1"));
    assert_eq!(
        guest.lvs().expect("volumes"),
        ["/dev/one/inner", "/dev/two/striped"],
        "what is refused changes nothing"
    );
    guest.commit().expect("the images can be written");
    drop(guest);
    let said = run_ok("mdadm", ["--examine", text(&images[0])]);
    assert!(said.contains("raid1") && said.contains("Checksum") && said.contains("correct"), "{said}");
    let said = run_ok("pvck", ["--config", "devices/scan_lvs=0", "--dump", "metadata", text(&images[2])]);
    assert!(said.contains("striped"), "{said}");
}

#[test] // What a missing disk takes away is told by name, and the rest goes on.
fn missing_physical_volumes_are_named() {
    let case = testkit::volumes::case("lvm-striped");
    let guest = open(&case.disks[..1]);
    let volumes = guest.pvs_full().expect("physical volumes");
    assert!(volumes.iter().any(|volume| volume.pv_name == "[unknown]"), "{volumes:?}");
    let group = &guest.vgs_full().expect("groups")[0];
    assert_eq!(group.vg_attr.as_bytes()[3], b'p');
    let lv =
        guest.lvs().expect("volumes").into_iter().find(|lv| guest.blockdev_getsize64(device(lv)).is_err());
    let lv = lv.expect("a volume that lacks a part");
    let error = refused(guest.blockdev_getsize64(device(&lv)));
    assert!(error.contains("missing") || error.contains("not here"), "{error}");
}

#[test] // As ldmtool names them.
fn dynamic_disks_are_listed_as_ldmtool_lists_them() {
    let case = testkit::volumes::case("ldm-2008r2");
    let mut guest = open(&case.disks);
    let groups = guest.ldmtool_scan().expect("groups");
    let [group] = groups.as_slice() else { panic!("{groups:?}") };
    assert_eq!(guest.ldmtool_scan_devices(&["/dev/sda".into()]).expect("groups"), groups);
    let name = guest.ldmtool_diskgroup_name(group).expect("a name");
    for volume in guest.ldmtool_diskgroup_volumes(group).expect("volumes") {
        let listed = format!("/dev/mapper/ldm_vol_{name}_{volume}");
        assert!(guest.list_ldm_volumes().expect("volumes").contains(&listed), "{listed}");
        assert!(!guest.ldmtool_volume_partitions(group, &volume).expect("partitions").is_empty());
        assert!(!guest.ldmtool_volume_type(group, &volume).expect("a type").is_empty());
    }
    assert!(!guest.ldmtool_diskgroup_disks(group).expect("disks").is_empty());
    guest.ldmtool_remove_all().expect("nothing is in use");
    assert_eq!(guest.list_ldm_volumes().expect("volumes"), Vec::<String>::new());
    guest.ldmtool_create_all().expect("they come back");
    assert!(!guest.list_ldm_volumes().expect("volumes").is_empty());
    assert!(refused(guest.ldmtool_diskgroup_name("nope")).contains("nope"));
}

/// Makes the group `a` with the volume `x` of so many MiB on a disk of its own, with `inside` in the volume.
fn group_of_one_volume(dir: &Path, disk_mib: u64, volume_mib: i32, inside: &[u8]) -> Vec<u8> {
    let image = disk(dir, "group.img", disk_mib);
    let mut guest = open(&[&image]);
    guest.vgcreate("a", &["/dev/sda".into()]).expect("a group");
    guest.lvcreate("x", "a", volume_mib, None, None).expect("a volume");
    if !inside.is_empty() {
        guest.pwrite_device(device("/dev/a/x"), inside, 0).expect("a device that takes it");
    }
    guest.commit().expect("the images can be written");
    drop(guest);
    fs::read(&image).expect("an image")
}

#[test] // A guest in a logical volume, whose group and volume are called as those that it lies in.
fn groups_inside_of_a_group_do_not_take_its_names() {
    let dir = tempdir();
    let inner = group_of_one_volume(dir.path(), 16, 8, b"inside");
    let outer = group_of_one_volume(dir.path(), 32, 24, &inner);
    let image = dir.path().join("outer.img");
    fs::write(&image, &outer).expect("space for an image");
    let mut guest = open(&[&image]);
    assert_eq!(guest.lvs().expect("a list"), ["/dev/a/x"]);
    assert_eq!(guest.blockdev_getsize64(device("/dev/a/x")).expect("a size"), 24 << 20);
    let start = guest.pread_device(device("/dev/a/x"), 1024, 0).expect("content");
    assert_eq!(start, inner[..1024]);
    let warnings = guest.take_warnings().join("\n");
    assert!(warnings.contains("there are several volume groups a"), "{warnings}");
}

#[test] // A backup of the disk in one of its volumes, as LVM would see it: the disk is the one in use.
fn a_copy_of_a_physical_volume_in_its_own_group_is_left_aside() {
    let dir = tempdir();
    let images = ["one.img", "two.img"].map(|name| disk(dir.path(), name, 32));
    let mut guest = open(&images);
    guest.vgcreate("vg", &["/dev/sda".into(), "/dev/sdb".into()]).expect("a group");
    for name in ["x", "y"] {
        guest.lvcreate(name, "vg", 12, None, None).expect("a volume");
    }
    guest.commit().expect("the images can be written");
    drop(guest);
    let copies = images.each_ref().map(|image| fs::read(image).expect("an image")[..10 << 20].to_vec());

    // Of the disk that the volume is on, and of the other.
    let mut guest = open(&images);
    guest.part_disk(device("/dev/vg/y"), "mbr").expect("a table");
    guest.pwrite_device(device("/dev/vg/x"), &copies[1], 0).expect("a device that takes it");
    guest.pwrite_device(device("/dev/vg/yp1"), &copies[0], 0).expect("a device that takes it");
    for is_reopened in [false, true] {
        if is_reopened {
            guest.commit().expect("the images can be written");
            drop(guest);
            guest = open(&images);
        }
        assert_eq!(guest.lvs().expect("a list"), ["/dev/vg/x", "/dev/vg/y"]);
        assert_eq!(guest.pvs().expect("a list"), ["/dev/sda", "/dev/sdb"]);
        let start = guest.pread_device(device("/dev/vg/x"), 4096, 0).expect("content");
        assert_eq!(start, copies[1][..4096]);
        let warnings = guest.take_warnings().join("\n");
        for copy in ["/dev/vg/x", "/dev/vg/yp1"] {
            let told = format!("{copy}: a copy of a physical volume of the volume group vg");
            assert!(warnings.contains(&told), "{warnings}");
        }
        assert!(!warnings.contains("UUID"), "{warnings}");
    }
    guest.lvcreate("z", "vg", 4, None, None).expect("the group can be changed");
    guest.lvremove(device("/dev/vg/x")).expect("it goes with its copy");
    assert_eq!(guest.lvs().expect("a list"), ["/dev/vg/y", "/dev/vg/z"]);
}

#[test] // The disk of a machine that was made from the same image, kept in a volume of the machine that is looked at.
fn a_copy_of_a_physical_volume_in_another_group_is_left_aside() {
    let dir = tempdir();
    let [image, store] = ["one.img", "store.img"].map(|name| disk(dir.path(), name, 32));
    let mut guest = open(&[&image, &store]);
    guest.vgcreate("vg", &["/dev/sda".into()]).expect("a group");
    guest.vgcreate("store", &["/dev/sdb".into()]).expect("a group");
    guest.lvcreate("root", "vg", 4, None, None).expect("a volume");
    guest.lvcreate("copy", "store", 20, None, None).expect("a volume");
    let copy = guest.pread_device(device("/dev/sda"), 20 << 20, 0).expect("content");
    guest.pwrite_device(device("/dev/store/copy"), &copy, 0).expect("a device that takes it");
    guest.commit().expect("the images can be written");
    drop(guest);
    for order in [[&image, &store], [&store, &image]] {
        let mut guest = open(&order);
        assert_eq!(guest.lvs().expect("a list"), ["/dev/store/copy", "/dev/vg/root"]);
        assert_eq!(guest.pvs().expect("a list"), ["/dev/sda", "/dev/sdb"]);
        let warnings = guest.take_warnings().join("\n");
        let told = "/dev/store/copy: a copy of a physical volume of the volume group vg";
        assert!(warnings.contains(told) && !warnings.contains("UUID"), "{warnings}");
        guest.pread_device(device("/dev/vg/root"), 4096, 0).expect("the group is in use");
    }
    // Alone, it is what it is.
    let guest = open(&[&store]);
    assert_eq!(guest.lvs().expect("a list"), ["/dev/store/copy", "/dev/vg/root"]);
    assert_eq!(guest.pvs().expect("a list"), ["/dev/sda", "/dev/store/copy"]);
}

#[test] // A volume's name can be that of a partition of another one.
fn a_volume_is_not_taken_for_a_partition_of_its_name() {
    let dir = tempdir();
    let image = disk(dir.path(), "inner.img", 12);
    let mut guest = open(&[&image]);
    guest.part_disk(device("/dev/sda"), "mbr").expect("a table");
    guest.vgcreate("b", &["/dev/sda1".into()]).expect("a group in the partition");
    guest.commit().expect("the image can be written");
    drop(guest);
    let inner = fs::read(&image).expect("an image");

    let image = disk(dir.path(), "outer.img", 48);
    let mut guest = open(&[&image]);
    guest.vgcreate("a", &["/dev/sda".into()]).expect("a group");
    for name in ["x", "xp1"] {
        guest.lvcreate(name, "a", 12, None, None).expect("a volume");
    }
    guest.vgcreate("c", &["/dev/a/xp1".into()]).expect("a group in the volume");
    let before = guest.pread_device(device("/dev/a/xp1"), 8192, 0).expect("content");
    guest.pwrite_device(device("/dev/a/x"), &inner, 0).expect("a device that takes it");
    assert_eq!(guest.pread_device(device("/dev/a/xp1"), 8192, 0).expect("content"), before);
    let warnings = guest.take_warnings().join("\n");
    assert!(warnings.contains("/dev/a/xp1: two devices have this name"), "{warnings}");
    assert_eq!(guest.vgs().expect("a list"), ["a", "c"]);
}

#[test] // The user wrote to the origin, and could not know.
fn a_snapshot_that_a_write_to_its_origin_loses_is_named() {
    let case = testkit::volumes::case("lvm-snapshot");
    let mut guest = open(&case.disks);
    assert_eq!(guest.take_warnings(), Vec::<String>::new());
    let write = |guest: &mut Guest, from: u8| {
        let content: Vec<u8> = (0..1_310_720_u32).map(|n| n.to_le_bytes()[1] ^ from).collect();
        guest.pwrite_device(device("/dev/vg/origin"), &content, 0).expect("the origin is written");
    };
    write(&mut guest, 1);
    // What was undone is not lost.
    call(&mut guest, &["rollback"]).expect("changes are thrown away");
    assert_eq!(guest.take_warnings(), Vec::<String>::new());
    guest.pread_device(device("/dev/vg/small"), 1, 0).expect("it is there again");
    write(&mut guest, 2);
    // Looking for volumes anew does not forget it.
    guest.vg_activate_all(true).expect("they are active");
    let warnings = guest.take_warnings();
    let told = |snapshot: &str| {
        let start = format!("/dev/vg/{snapshot}: this snapshot is invalid now");
        warnings
            .iter()
            .filter(|warning| warning.starts_with(&start) && warning.contains("/dev/vg/origin"))
            .count()
    };
    assert_eq!((told("small"), told("large"), warnings.len()), (1, 1, 2), "{warnings:?}");
    assert_eq!(guest.take_warnings(), Vec::<String>::new());
    guest.pread_device(device("/dev/vg/small"), 1, 0).expect_err("it is lost");
    let rows = guest.lvs_full().expect("a list");
    let small = rows.iter().find(|row| row.lv_name == "small").expect("it is listed");
    assert_eq!(small.snap_percent, Some(100.0));
}

#[test] // What it shares with its snapshot stays, and so does the snapshot.
fn a_thin_volume_is_removed() {
    let case = testkit::volumes::case("lvm-thin");
    let mut guest = open(&case.disks);
    let sum = |guest: &mut Guest| match call(guest, &["checksum-device", "sha256", "/dev/vg/snap"]) {
        Ok(vmcraft::value::Value::String(sum)) => String::from_utf8(sum.into()).expect("hexadecimal digits"),
        other => panic!("{other:?}"),
    };
    let before = sum(&mut guest);
    guest.lvremove(device("/dev/vg/thin")).expect("it is a volume like any other");
    assert_eq!(sum(&mut guest), before);
    assert!(guest.lvs().expect("a list").iter().all(|name| name != "/dev/vg/thin"));
    guest.pwrite_device(device("/dev/vg/snap"), b"changed", 0).expect("nothing is shared any more");
    let changed = sum(&mut guest);
    guest.commit().expect("the images can be written");
    drop(guest);
    let mut guest = open(&case.disks);
    assert_eq!((sum(&mut guest), guest.take_warnings()), (changed, vec![]));
    guest.lvremove(device("/dev/vg")).expect("the pool goes, too");
    assert_eq!(guest.lvs().expect("a list"), Vec::<String>::new());
}

#[test] // A pool takes its volumes along, and an origin its snapshots.
fn a_volume_is_not_removed_while_what_goes_with_it_is_mounted() {
    let case = testkit::volumes::case("lvm-thin");
    let mut guest = open(&case.disks);
    call(&mut guest, &["mkfs", "ext2", "/dev/vg/empty"]).expect("a file system");
    call(&mut guest, &["mount", "/dev/vg/empty", "/"]).expect("it mounts");
    let error = refused(guest.lvremove(device("/dev/vg/pool")));
    assert!(error.contains("/dev/vg/empty is mounted on /"), "{error}");
    call(&mut guest, &["umount", "/"]).expect("it is mounted");
    guest.lvremove(device("/dev/vg/pool")).expect("nothing is in the way");
    assert_eq!(guest.lvs().expect("a list"), ["/dev/vg/origin"]);
}

#[test] // Through a volume on an array, down to both images.
fn free_space_of_a_volume_on_an_array_is_given_back() {
    use std::os::unix::fs::MetadataExt as _;

    let dir = tempdir();
    let images = ["a", "b"].map(|name| dir.path().join(format!("{name}.qcow2")));
    for image in &images {
        run_ok("qemu-img", ["create", "-q", "-f", "qcow2", text(image), "96M"]);
    }
    let used = || images.each_ref().map(|image| image.metadata().expect("there").blocks() * 512);
    let mut guest = open(&images);
    guest
        .md_create("data", &["/dev/sda".into(), "/dev/sdb".into()], None, None, None, None, None)
        .expect("an array");
    guest.vgcreate("vg", &["/dev/md127".into()]).expect("a group");
    guest.lvcreate_free("lv", "vg", 100, None, None).expect("a volume");
    call(&mut guest, &["mkfs", "ext4", "/dev/vg/lv"]).expect("a file system");
    guest.mount(Mountable::new("/dev/vg/lv"), GuestPath::new("/")).expect("it mounts");
    let empty = {
        guest.commit().expect("the images can be written");
        used()
    };
    let content: Vec<u8> =
        (0..16_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0] | 1).collect();
    guest.write(GuestPath::new("/large"), &content).expect("there is room");
    guest.commit().expect("the images can be written");
    let full = used();
    assert!(full.iter().zip(empty).all(|(full, empty)| full - empty >= 16 << 20), "{empty:?} {full:?}");
    guest.rm(GuestPath::new("/large")).expect("it is there");
    guest.fstrim(GuestPath::new("/"), None, None, None).expect("it can give space back");
    guest.umount_all().expect("it is mounted");
    guest.commit().expect("the images can be written");
    drop(guest);
    let trimmed = used();
    assert!(
        trimmed.iter().zip(full).all(|(trimmed, full)| full - trimmed >= 15 << 20),
        "{full:?} {trimmed:?}"
    );
    for image in &images {
        run_ok("qemu-img", ["check", "-q", text(image)]);
    }
    // The copies are alike, in what was given back too.
    let guest = open(&images);
    let devices: Vec<_> = ["/dev/sda", "/dev/sdb"]
        .map(|name| guest.pread_device(device(name), 88 << 20, 2 << 20).expect("content"))
        .into();
    assert!(devices[0] == devices[1]);
}
