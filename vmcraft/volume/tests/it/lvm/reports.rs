//! What is reported of real volume groups, against what LVM reported of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use testkit::volumes::{Case, case, names};
use vmcraft_block::RawFile;
use vmcraft_volume::Member;
use vmcraft_volume::lvm::{Lvm, SegmentKind, scan};

use super::corpus::sha256;

/// Kinds of volumes that are opened.
const OPENED: [&str; 2] = ["linear", "striped"];

/// The disks of a case, as it knows them.
pub(super) fn scan_case(case: &Case) -> Lvm {
    let names = case.facts["pvs"].as_array().expect("a list").iter();
    let names: Vec<&str> = names.filter_map(|pv| pv["pv_name"].as_str()).collect();
    let members = case.disks.iter().enumerate().map(|(index, disk)| {
        let file = std::fs::File::options().read(true).write(true).open(disk).expect("the disk is there");
        let device = Arc::new(RawFile::new(file, false).expect("a raw image"));
        let name = names.get(index).copied().unwrap_or("another").to_string();
        Member { name, device }
    });
    scan(&members.collect::<Vec<_>>())
}

type Rows = BTreeMap<String, BTreeMap<&'static str, String>>;

/// What differs between these rows and the facts, as far as these rows go.
fn differences(case: &str, facts: &Value, key: &str, ours: Rows) -> Vec<String> {
    let facts = facts.as_array().expect("a list");
    let mut found = Vec::new();
    if facts.len() != ours.len() {
        found.push(format!("{case}: {} rows by {key}, not {}", ours.len(), facts.len()));
    }
    for theirs in facts {
        let name = theirs[key].as_str().expect("a name");
        if !ours.contains_key(name) {
            found.push(format!("{case}: no {name}"));
        }
        for (field, value) in ours.get(name).into_iter().flatten() {
            let expected = theirs[*field].as_str().unwrap_or("?");
            if expected != value {
                found.push(format!("{case}: {field} of {name}: {value:?}, not {expected:?}"));
            }
        }
    }
    found
}

#[test] // Each field of pvs, vgs and lvs that the metadata decides, for all kinds of volumes.
fn reports_are_those_of_lvm() {
    let names = names("lvm-");
    assert!(names.len() >= 15, "{names:?}");
    let mut found = Vec::new();
    for name in names {
        let case = case(&name);
        let lvm = scan_case(&case);
        let pvs = lvm.report_physical_volumes().into_iter().map(|pv| {
            let fields = [
                ("pv_uuid", pv.pv_uuid.to_string()),
                ("pv_fmt", pv.pv_fmt.into()),
                ("pv_size", pv.pv_size.to_string()),
                ("dev_size", pv.dev_size.to_string()),
                ("pv_free", pv.pv_free.to_string()),
                ("pv_used", pv.pv_used.to_string()),
                ("pv_attr", pv.pv_attr),
                ("pv_pe_count", pv.pv_pe_count.to_string()),
                ("pv_pe_alloc_count", pv.pv_pe_alloc_count.to_string()),
                ("pv_tags", pv.pv_tags.join(",")),
                ("pe_start", pv.pe_start.to_string()),
                ("pv_mda_count", pv.pv_mda_count.to_string()),
                ("pv_mda_free", pv.pv_mda_free.to_string()),
            ];
            (pv.pv_name, BTreeMap::from(fields))
        });
        found.extend(differences(&name, &case.facts["pvs"], "pv_name", pvs.collect()));
        let vgs = lvm.report_volume_groups().into_iter().map(|vg| {
            let fields = [
                ("vg_uuid", vg.vg_uuid.to_string()),
                ("vg_fmt", vg.vg_fmt.into()),
                ("vg_attr", vg.vg_attr),
                ("vg_size", vg.vg_size.to_string()),
                ("vg_free", vg.vg_free.to_string()),
                ("vg_sysid", vg.vg_sysid),
                ("vg_extent_size", vg.vg_extent_size.to_string()),
                ("vg_extent_count", vg.vg_extent_count.to_string()),
                ("vg_free_count", vg.vg_free_count.to_string()),
                ("max_lv", vg.max_lv.to_string()),
                ("max_pv", vg.max_pv.to_string()),
                ("pv_count", vg.pv_count.to_string()),
                ("lv_count", vg.lv_count.to_string()),
                ("snap_count", vg.snap_count.to_string()),
                ("vg_seqno", vg.vg_seqno.to_string()),
                ("vg_tags", vg.vg_tags.join(",")),
                ("vg_mda_count", vg.vg_mda_count.to_string()),
                ("vg_mda_free", vg.vg_mda_free.to_string()),
            ];
            (vg.vg_name, BTreeMap::from(fields))
        });
        found.extend(differences(&name, &case.facts["vgs"], "vg_name", vgs.collect()));
        let lvs = case.facts["lvs"].as_array().expect("a list");
        let inactive = case.facts["inactive"].to_string();
        let lvs_of = lvm.report_logical_volumes().into_iter().map(|lv| {
            let theirs = lvs.iter().find(|theirs| theirs["lv_name"] == lv.lv_name.as_str());
            let theirs = theirs.and_then(|theirs| theirs["lv_attr"].as_str()).unwrap_or_default();
            // Whether it is active, open or an overflowed snapshot, the kernel says, not the metadata.
            let mut attr = lv.lv_attr;
            attr.replace_range(5..6, theirs.get(5..6).unwrap_or("?"));
            if inactive.contains(&lv.lv_name) || theirs.get(4..5) == Some("I") {
                attr.replace_range(4..5, theirs.get(4..5).unwrap_or("?"));
            }
            let fields = [
                ("lv_uuid", lv.lv_uuid.to_string()),
                ("lv_attr", attr),
                ("lv_size", lv.lv_size.to_string()),
                ("seg_count", lv.seg_count.to_string()),
                ("origin", lv.origin),
                ("mirror_log", lv.mirror_log),
                ("lv_tags", lv.lv_tags.join(",")),
                ("lv_modules", lv.modules.join(",")),
            ];
            (lv.lv_name, BTreeMap::from(fields))
        });
        found.extend(differences(&name, &case.facts["lvs"], "lv_name", lvs_of.collect()));
        found.extend(differences(&name, &case.facts["lvs"], "lv_name", percentages(&lvm)));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// How full volumes are and how alike their copies. What is in the cache of a cached volume is not looked at.
fn percentages(lvm: &Lvm) -> Rows {
    let mut rows = Rows::new();
    for group in &lvm.volume_groups {
        for lv in group.visible_volumes() {
            let shown =
                |percent: Option<f32>| percent.map(|percent| format!("{percent:.2}")).unwrap_or_default();
            let mut row = BTreeMap::new();
            match &lv.segments[0].kind {
                SegmentKind::Cache { .. } => {}
                // The kernel had it in memory, and has to find out anew.
                SegmentKind::Mirror { log: None, .. } => {
                    assert_eq!(group.copy_percent(lv), None, "{}", lv.name)
                }
                _ => {
                    row.insert("copy_percent", shown(group.copy_percent(lv)));
                    row.insert("snap_percent", shown(group.snap_percent(lv)));
                }
            }
            rows.insert(lv.name.clone(), row);
        }
    }
    rows
}

#[test] // Every byte is the one that the kernel read.
fn content_is_what_the_kernel_reads() {
    let mut opened = 0;
    for name in names("lvm-") {
        let case = case(&name);
        let lvm = scan_case(&case);
        for device in &case.devices {
            let (Some(kind), Some(sum)) = (device.facts["type"].as_str(), &device.sha256) else { continue };
            if !OPENED.contains(&kind) {
                continue;
            }
            let volume = device.name.rsplit('/').next().expect("a name");
            let group = lvm.group("vg").unwrap_or_else(|e| panic!("{name}: {e}"));
            let volume = group.open(volume).unwrap_or_else(|e| panic!("{name}: {volume}: {e}"));
            assert_eq!(volume.size(), device.size, "{name}: {}", device.name);
            assert_eq!(sha256(&*volume), *sum, "{name}: {}", device.name);
            opened += 1;
        }
    }
    assert!(opened >= 4, "only {opened}");
}
