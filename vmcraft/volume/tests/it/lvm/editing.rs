//! What we make and change, and what LVM's own tools then say of it.

use std::path::{Path, PathBuf};

use testkit::tempdir;
use vmcraft_volume::lvm::{Author, Label, Lvm, NewVolume, Size, scan};

use super::tools::{Tools, can_attach, image, member, with_author, with_seed};

const MIB: u64 = 1 << 20;

fn linear(name: &str, size: Size) -> NewVolume<'_> {
    NewVolume { name, size, stripes: 1, stripe_size: 0 }
}

pub(super) fn images<const N: usize>(dir: &Path, mebibytes: u64) -> [PathBuf; N] {
    std::array::from_fn(|index| {
        let path = dir.join(format!("{index}.img"));
        image(&path, mebibytes);
        path
    })
}

/// Fails unless LVM's tools find nothing wrong on the images, and have the volumes that we have.
pub(super) fn assert_accepted(lvm: &Lvm, images: &[&Path], what: &str) -> Tools {
    let tools = Tools::attach(images);
    for (index, image) in images.iter().enumerate() {
        if Label::read(&*member(image).device).is_ok_and(|label| label.is_some()) {
            tools.lines(&["pvck", tools.device(index)]);
        }
    }
    for vg in &lvm.volume_groups {
        tools.lines(&["vgck", vg.name()]);
    }
    let mut theirs = tools.lines(&["lvs", "-a", "--noheadings", "-o", "lv_uuid"]);
    let all = lvm.volume_groups.iter().flat_map(|vg| &vg.metadata.logical_volumes);
    // What ties a snapshot to its origin is no volume to LVM.
    let mut ours: Vec<String> =
        all.filter(|lv| !lv.name.starts_with("snapshot")).map(|lv| lv.uuid.to_string()).collect();
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs, "{what}: lvs -a");
    tools
}

/// Fails unless LVM's tools accept the images, and report of them what we report.
fn assert_agrees(lvm: &Lvm, images: &[PathBuf], what: &str) {
    let paths: Vec<&Path> = images.iter().map(PathBuf::as_path).collect();
    let tools = assert_accepted(lvm, &paths, what);
    let report = |command: &str, fields: &str| {
        tools.lines(&[
            command,
            "--noheadings",
            "--units",
            "b",
            "--nosuffix",
            "--separator",
            "|",
            "-o",
            fields,
        ])
    };
    let join = |fields: Vec<String>| fields.join("|");
    let device = |name: &str| {
        let index = images.iter().position(|image| image.to_str() == Some(name)).expect("one of the images");
        tools.device(index).to_string()
    };
    let mut theirs = report(
        "pvs",
        "pv_name,vg_name,pv_uuid,pv_size,dev_size,pv_free,pv_used,pv_attr,pv_pe_count,pv_pe_alloc_count,pe_start,\
         pv_mda_count,pv_mda_free",
    );
    let ours = lvm.report_physical_volumes().into_iter().map(|pv| {
        let numbers = [pv.pv_pe_count, pv.pv_pe_alloc_count, pv.pe_start, pv.pv_mda_count, pv.pv_mda_free];
        let mut fields = vec![
            device(&pv.pv_name),
            pv.vg_name.unwrap_or_default(),
            pv.pv_uuid.to_string(),
            pv.pv_size.to_string(),
            pv.dev_size.to_string(),
            pv.pv_free.to_string(),
            pv.pv_used.to_string(),
            pv.pv_attr,
        ];
        fields.extend(numbers.map(|n| n.to_string()));
        join(fields)
    });
    let mut ours: Vec<String> = ours.collect();
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs, "{what}: pvs");
    let mut theirs = report(
        "vgs",
        "vg_name,vg_uuid,vg_attr,vg_size,vg_free,vg_extent_size,vg_extent_count,vg_free_count,max_lv,max_pv,pv_count,\
         lv_count,snap_count,vg_seqno,vg_mda_count,vg_mda_free",
    );
    let ours = lvm.report_volume_groups().into_iter().map(|vg| {
        let numbers = [
            vg.vg_size,
            vg.vg_free,
            vg.vg_extent_size,
            vg.vg_extent_count,
            vg.vg_free_count,
            vg.max_lv,
            vg.max_pv,
            vg.pv_count,
            vg.lv_count,
            vg.snap_count,
            vg.vg_seqno,
            vg.vg_mda_count,
            vg.vg_mda_free,
        ];
        let mut fields = vec![vg.vg_name, vg.vg_uuid.to_string(), vg.vg_attr];
        fields.extend(numbers.map(|n| n.to_string()));
        join(fields)
    });
    let mut ours: Vec<String> = ours.collect();
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs, "{what}: vgs");
    let mut theirs =
        report("lvs", "vg_name,lv_name,lv_uuid,lv_size,seg_count,origin,pool_lv,modules,lv_attr");
    let ours = lvm.report_logical_volumes().into_iter().map(|lv| {
        // Without the device mapper, LVM does not know what is active and open.
        let attr = format!("{}XX{}", &lv.lv_attr[..4], &lv.lv_attr[6..]);
        join(vec![
            lv.vg_name,
            lv.lv_name,
            lv.lv_uuid.to_string(),
            lv.lv_size.to_string(),
            lv.seg_count.to_string(),
            lv.origin,
            lv.pool_lv,
            lv.modules.join(","),
            attr,
        ])
    });
    let mut ours: Vec<String> = ours.collect();
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs, "{what}: lvs");
}

#[test] // Every operation on its own, each accepted and reported alike by LVM's tools.
fn groups_that_we_make_and_change_are_accepted() {
    if !can_attach("changing volume groups") {
        return;
    }
    let dir = tempdir();
    let images: [PathBuf; 3] = images(dir.path(), 64);
    let members: Vec<_> = images.iter().map(|path| member(path)).collect();
    let devices: Vec<&str> = images.iter().map(|path| path.to_str().unwrap()).collect();
    let mut lvm = scan(&members);
    let mut seed = 0;
    let mut step =
        |lvm: &mut Lvm,
         what: &str,
         change: &mut dyn FnMut(&mut Lvm, &mut Author<'_>) -> vmcraft_volume::Result<()>| {
            seed += 1;
            with_seed(seed, |author| change(lvm, author)).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(lvm.warnings.is_empty(), "{what}: {:?}", lvm.warnings);
            assert_agrees(lvm, &images, what);
        };
    step(&mut lvm, "pvcreate", &mut |lvm, a| lvm.create_physical_volume(&members[0], a).map(drop));
    step(&mut lvm, "vgcreate", &mut |lvm, a| lvm.create_group("vg", &members[..2], a).map(drop));
    step(&mut lvm, "lvcreate", &mut |lvm, a| {
        lvm.create_volume("vg", &linear("root", Size::Bytes(7 * MIB)), a).map(drop)
    });
    step(&mut lvm, "lvcreate striped", &mut |lvm, a| {
        let new = NewVolume { name: "str", size: Size::Bytes(12 * MIB), stripes: 2, stripe_size: 64 << 10 };
        lvm.create_volume("vg", &new, a).map(drop)
    });
    step(&mut lvm, "vgextend", &mut |lvm, a| lvm.extend_group("vg", &members[2..], a));
    step(&mut lvm, "lvresize-free", &mut |lvm, a| lvm.resize_volume("vg", "root", Size::PercentFree(55), a));
    step(&mut lvm, "lvresize striped", &mut |lvm, a| {
        lvm.resize_volume("vg", "str", Size::Bytes(30 * MIB), a)
    });
    step(&mut lvm, "lvresize smaller", &mut |lvm, a| {
        lvm.resize_volume("vg", "root", Size::Bytes(20 * MIB), a)
    });
    step(&mut lvm, "lvcreate-free", &mut |lvm, a| {
        lvm.create_volume("vg", &linear("my-data", Size::PercentFree(10)), a).map(drop)
    });
    step(&mut lvm, "lvrename", &mut |lvm, a| lvm.rename_volume("vg", "str", "stripes", a));
    step(&mut lvm, "pvchange-uuid", &mut |lvm, a| lvm.renew_physical_volume_uuid(devices[1], a));
    step(&mut lvm, "vgchange-uuid", &mut |lvm, a| lvm.renew_group_uuid("vg", a));
    step(&mut lvm, "vgrename", &mut |lvm, a| lvm.rename_group("vg", "vg-new", a));
    step(&mut lvm, "lvremove", &mut |lvm, a| lvm.remove_volume("vg-new", "my-data", a));
    step(&mut lvm, "lvremove", &mut |lvm, a| lvm.remove_volume("vg-new", "stripes", a));
    step(&mut lvm, "pvresize-size", &mut |lvm, a| lvm.resize_physical_volume(devices[2], Some(40 * MIB), a));
    step(&mut lvm, "pvresize", &mut |lvm, a| lvm.resize_physical_volume(devices[2], None, a));
    let empty = lvm.report_physical_volumes().into_iter().find(|pv| pv.pv_used == 0).expect("one is free");
    step(&mut lvm, "vgreduce", &mut |lvm, a| lvm.reduce_group("vg-new", &[&empty.pv_name], a));
    step(&mut lvm, "pvremove", &mut |lvm, _| lvm.remove_physical_volume(&empty.pv_name));
    step(&mut lvm, "vgremove", &mut |lvm, _| lvm.remove_group("vg-new"));
    step(&mut lvm, "lvm-remove-all", &mut |lvm, _| lvm.remove_all());
    assert!(lvm.physical_volumes.is_empty());
    for device in devices {
        assert_eq!(
            testkit::run("blkid", ["-p", device]).status.code(),
            Some(2),
            "something is left on {device}"
        );
    }
}

#[test] // What LVM's tools then change is read again, for as long as it takes to go round the metadata area.
fn both_change_the_same_group() {
    if !can_attach("changing volume groups in turn") {
        return;
    }
    let dir = tempdir();
    let images: [PathBuf; 2] = images(dir.path(), 64);
    let members: Vec<_> = images.iter().map(|path| member(path)).collect();
    let paths: Vec<&Path> = images.iter().map(PathBuf::as_path).collect();
    let mut lvm = scan(&members);
    with_author(|author| lvm.create_group("vg", &members, author)).unwrap();
    for round in 0..40_u64 {
        let name = format!("ours{round}");
        with_seed(round, |author| lvm.create_volume("vg", &linear(&name, Size::Bytes(MIB)), author)).unwrap();
        if round % 2 == 1 {
            with_seed(round, |author| lvm.remove_volume("vg", &name, author)).unwrap();
        }
        if round % 8 == 0 {
            let tools = Tools::attach(&paths);
            let theirs = format!("vg/theirs{round}");
            tools.lines(&["lvcreate", "-an", "-Wn", "-Zn", "-l1", "-n", &theirs[3..], "vg"]);
            tools.lines(&["lvremove", "-f", &format!("vg/{name}")]);
            tools.lines(&["lvrename", &theirs, &format!("{theirs}-x")]);
            drop(tools);
            lvm = scan(&members);
            assert!(lvm.warnings.is_empty(), "{:?}", lvm.warnings);
            assert!(lvm.group("vg").unwrap().open(&format!("theirs{round}-x")).is_ok());
        }
    }
    assert_agrees(&lvm, &images, "in turn");
}

#[test] // Percentages are rounded as LVM does, and refused beyond 100.
fn percentages_are_rounded_as_lvm_does() {
    if !can_attach("percentages of free extents") {
        return;
    }
    let dir = tempdir();
    let images: [PathBuf; 2] = images(dir.path(), 64);
    let [ours, theirs] = &images;
    let mut lvm = scan(&[member(ours)]);
    with_author(|author| lvm.create_group("vg", &[member(ours)], author)).unwrap();
    let tools = Tools::attach(&[theirs]);
    tools.lines(&["vgcreate", "vg", tools.device(0)]);
    for percent in [33, 50, 67] {
        let name = format!("lv{percent}");
        let create = linear(&name, Size::PercentFree(percent));
        with_seed(percent.into(), |author| lvm.create_volume("vg", &create, author)).unwrap();
        let share = format!("{percent}%FREE");
        tools.lines(&["lvcreate", "-an", "-Wn", "-Zn", "-l", &share, "-n", &name, "vg"]);
        with_author(|author| lvm.resize_volume("vg", &name, Size::PercentFree(10), author)).unwrap();
        tools.lines(&["lvresize", "-l", "+10%FREE", &format!("vg/{name}")]);
    }
    let sizes = tools.lines(&["lvs", "--noheadings", "--units", "b", "--nosuffix", "-o", "lv_size"]);
    let mine: Vec<String> = lvm.report_logical_volumes().iter().map(|lv| lv.lv_size.to_string()).collect();
    assert_eq!(mine, sizes);
    for percent in [0, 101] {
        let create = linear("x", Size::PercentFree(percent));
        let error = with_author(|author| lvm.create_volume("vg", &create, author)).unwrap_err();
        assert!(error.to_string().contains("1 to 100"), "{error}");
    }
}
