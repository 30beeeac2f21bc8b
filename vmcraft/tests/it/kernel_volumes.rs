//! What the kernel's own LVM, md and dm-crypt made is found under the same names, and read as the kernel
//! reads it.

use std::fs;
use std::path::{Path, PathBuf};

use testkit::appliance::{Disk, run_ok};
use testkit::volumes::{Case, Device, case, names};
use testkit::{run_ok as run_tool, tempdir};
use vmcraft::value::Value;
use vmcraft::{DriveOptions, Guest, Key};

use crate::drives::{call, text};

/// A guest with the case's disks, and what is encrypted on them open.
fn launched(case: &Case) -> Guest {
    let mut guest = Guest::new();
    for disk in &case.disks {
        guest.add_drive_with(text(disk), DriveOptions::default()).expect("a disk");
    }
    guest.launch().unwrap_or_else(|e| panic!("{}: {e}", case.name));
    if let Some(passphrase) = case.facts["passphrase"].as_str() {
        guest.add_key("all", Key::new(passphrase.into()));
        guest.open_encrypted().unwrap_or_else(|e| panic!("{}: {e}", case.name));
    }
    guest
}

/// The name under which a device has to be found: the content of an encrypted one is called by its UUID, and
/// an array by its name, because its number depends on what was assembled first.
fn name_of(device: &Device) -> String {
    if let Some((_, name)) = device.facts["detail"]["MD_NAME"].as_str().and_then(|name| name.split_once(':'))
    {
        return format!("/dev/md/{name}");
    }
    match (device.facts["on"].as_str(), device.facts["uuid"].as_str()) {
        (Some(_), Some(uuid)) => format!("/dev/mapper/luks-{uuid}"),
        _ => device.name.clone(),
    }
}

/// Compares all devices of the cases that start with `prefix`.
fn compare(prefix: &str) {
    let mut wrong = Vec::new();
    for name in names(prefix) {
        let case = case(&name);
        let mut guest = launched(&case);
        for device in &case.devices {
            let device_name = name_of(device);
            let size = call(&mut guest, &["blockdev-getsize64", &device_name]);
            // What the kernel only answers errors for may be refused as a whole.
            if device.sha256.is_none() && size.is_err() {
                continue;
            }
            if !matches!(size, Ok(Value::Int(size)) if size.cast_unsigned() == device.size) {
                wrong.push(format!("{name}: {device_name}: {size:?} instead of {} bytes", device.size));
                continue;
            }
            let sum = call(&mut guest, &["checksum-device", "sha256", &device_name]);
            match (sum, &device.sha256) {
                (Ok(Value::String(sum)), Some(expected)) if sum == expected.as_bytes() => {}
                (Err(_), None) => {}
                (sum, expected) => {
                    wrong.push(format!("{name}: {device_name}: {sum:?} instead of {expected:?}"));
                }
            }
        }
        // What the tools refuse to start cannot be read here either.
        for inactive in case.facts["inactive"].as_array().into_iter().flatten() {
            let device = format!("/dev/vg/{}", inactive.as_str().unwrap_or_default());
            if let Ok(sum) = call(&mut guest, &["checksum-device", "sha256", &device]) {
                wrong.push(format!("{name}: {device} should be refused, but reads: {sum:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn logical_volumes_read_as_the_kernel_reads_them() {
    compare("lvm-");
}

#[test]
fn arrays_read_as_the_kernel_reads_them() {
    compare("md-");
}

#[test]
fn stacks_read_as_the_kernel_reads_them() {
    compare("stack-");
}

/// Writes pieces into a device: across stripes, and not on their borders.
fn write_pieces(guest: &mut Guest, name: &str, size: u64) {
    for (offset, len) in [(1000, 3), (4096, 70_000), (size / 2 - 700, 1500), (size - 5, 5)] {
        let content: Vec<u8> = (0..len).map(|n: u32| b'a' + u8::try_from(n % 23).unwrap_or(0)).collect();
        let offset = i64::try_from(offset).expect("the devices are small");
        guest.pwrite_device(name.into(), &content, offset).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

/// Writes the same pieces into each device.
fn write_everywhere(guest: &mut Guest, case: &Case) {
    for device in case.devices.iter().filter(|device| device.sha256.is_some()) {
        write_pieces(guest, &name_of(device), device.size);
    }
}

/// Writes pieces: the device, the byte and the length of each.
fn write(guest: &mut Guest, pieces: &[(&str, i64, usize)]) {
    for (n, (name, offset, len)) in pieces.iter().enumerate() {
        let content = vec![b'A' + u8::try_from(n).expect("few pieces"); *len];
        guest
            .pwrite_device((*name).into(), &content, *offset)
            .unwrap_or_else(|e| panic!("{name}, byte {offset}: {e}"));
    }
}

#[test] // The kernel reads what was written, and finds copies, parity and metadata right.
fn the_kernel_reads_what_was_written() {
    if !testkit::long_suites("starting a kernel for each case takes minutes") {
        return;
    }
    for name in [
        "lvm-striped",
        "lvm-raid1",
        "lvm-raid4",
        "lvm-raid5",
        "lvm-raid6",
        "lvm-raid10",
        "lvm-snapshot",
        "lvm-thin",
        "md-two",
        "md-degraded-raid6-two",
    ] {
        let mut case = case(name);
        let mut guest = launched(&case);
        // A snapshot that was lost has no content.
        case.devices.retain(|device| device.sha256.is_some());
        match name {
            "lvm-snapshot" => write(
                &mut guest,
                // Both sides, in chunks that the snapshots have and have not.
                &[
                    ("/dev/vg/origin", 1000, 3),
                    ("/dev/vg/origin", 400_000, 20_000),
                    ("/dev/vg/small", 700_000, 3),
                    ("/dev/vg/small", 1_310_715, 5),
                    ("/dev/vg/large", 4090, 9000),
                    ("/dev/vg/other", 65_000, 3000),
                ],
            ),
            "lvm-thin" => {
                // The pool is full.
                guest.lvremove("/dev/vg/discarded".into()).unwrap_or_else(|e| panic!("{name}: {e}"));
                case.devices.retain(|device| device.name != "/dev/vg/discarded");
                write(
                    &mut guest,
                    // New, shared from both sides, over an external origin; and again.
                    &[
                        ("/dev/vg/sparse", 30 << 20, 5000),
                        ("/dev/vg/thin", 1000, 3),
                        ("/dev/vg/thin", 200_000, 70_000),
                        ("/dev/vg/snap", 1_048_571, 5),
                        ("/dev/vg/external", 300_000, 10_000),
                        ("/dev/vg/thin", 500, 10_000),
                    ],
                );
            }
            _ => write_everywhere(&mut guest, &case),
        }
        let warnings = guest.take_warnings();
        assert_eq!(!warnings.is_empty(), name.contains("degraded"), "{name}: {warnings:?}");
        let expected: Vec<String> = case
            .devices
            .iter()
            .map(|device| match call(&mut guest, &["checksum-device", "sha256", &name_of(device)]) {
                Ok(Value::String(sum)) => format!("{sum}  {}\n", device.name),
                other => panic!("{name}: {}: {other:?}", device.name),
            })
            .collect();
        guest.shutdown().unwrap_or_else(|e| panic!("{name}: {e}"));
        drop(guest);

        let disks: Vec<_> = case.disks.iter().map(|disk| Disk::kept(disk)).collect();
        let devices: Vec<_> = case.devices.iter().map(|device| device.name.as_str()).collect();
        let script = format!(
            "mdadm --assemble --scan --auto=yes --run >&2 || true
             if vgs vg >/dev/null 2>&1; then vgck vg; vgchange -q -ay -K vg >&2; fi
             for md in /sys/block/md*/md; do
                 [ -e $md/sync_action ] || continue
                 idle() {{ until [ \"$(cat $md/sync_action)\" = idle ]; do sleep 0.2; done; }}
                 mdadm --readwrite /dev/$(basename ${{md%/md}}) >&2 || true
                 idle; echo check > $md/sync_action; idle
                 [ \"$(cat $md/mismatch_cnt)\" = 0 ] || {{ echo $md differs >&2; exit 1; }}
             done
             for lv in $(lvs --noheadings -o vg_name,lv_name,segtype 2>/dev/null | awk '$3 ~ /^raid[1-9]/ {{ print $1 \"/\" $2 }}'); do
                 lvchange --syncaction check $lv >&2
                 while [ \"$(lvs --noheadings -o raid_sync_action $lv | tr -d ' ')\" != idle ]; do sleep 0.2; done
                 [ \"$(lvs --noheadings -o raid_mismatch_count $lv | tr -d ' ')\" = 0 ] || {{ echo $lv differs >&2; exit 1; }}
             done
             sha256sum {}
             complaints=$(lvs -a 2>&1 >/dev/null); [ -z \"$complaints\" ] || {{ echo \"$complaints\" >&2; exit 1; }}
             if lvs vg/pool >/dev/null 2>&1; then
                 vgchange -q -an vg >&2; lvchange -q -ay -y vg/pool_tmeta >&2; thin_check /dev/vg/pool_tmeta >&2
             fi",
            devices.join(" ")
        );
        assert_eq!(run_ok(&disks, &script), expected.concat(), "{name}");
    }
}

/// The members of an array that `fixtures/md-arrays.sh` made, as disks, with what is known of it.
fn array(name: &str, dir: &Path) -> (serde_json::Value, Vec<PathBuf>) {
    let folder = testkit::workspace().join("fixtures/images/volumes/md");
    let list = fs::read(folder.join("arrays.json")).expect("the list of arrays is there");
    let list: Vec<serde_json::Value> = serde_json::from_slice(&list).expect("the list is JSON");
    let facts = list.into_iter().find(|facts| facts["name"] == name).expect("an array of this name");
    let (packed, all) = (folder.join(format!("{name}.zst")), dir.join(name));
    run_tool("zstd", ["-dq".as_ref(), packed.as_os_str(), "-o".as_ref(), all.as_os_str()]);
    let bytes = fs::read(&all).expect("it was unpacked");
    let mut rest = bytes.as_slice();
    let sizes = facts["member_kib"].as_array().expect("sizes").iter().filter_map(serde_json::Value::as_u64);
    let members = sizes.enumerate().map(|(member, kib)| {
        let (bytes, behind) = rest.split_at(usize::try_from(kib << 10).expect("they are small"));
        rest = behind;
        let path = dir.join(format!("{name}.{member}"));
        fs::write(&path, bytes).expect("there is room");
        path
    });
    let members = members.collect();
    (facts, members)
}

#[test] // Of all levels with copies or parity; without a member too, which is not read when it is there again.
fn the_kernel_reads_what_was_written_to_arrays() {
    if !testkit::long_suites("starting a kernel for arrays of all levels") {
        return;
    }
    for cases in [
        &[("raid1-1.2", None), ("raid4", None), ("raid6-left-symmetric", None), ("raid10-n2-3", None)],
        &[
            ("raid1-bitmap", Some(0)),
            ("raid5-bitmap", Some(1)),
            ("raid6-parity-last", Some(4)),
            ("raid10-f2-5", Some(4)),
        ],
    ] {
        let dir = tempdir();
        let arrays: Vec<_> = cases.iter().map(|(name, missing)| (array(name, dir.path()), missing)).collect();
        let mut guest = Guest::new();
        for ((_, members), missing) in &arrays {
            for (_, disk) in members.iter().enumerate().filter(|(at, _)| Some(*at) != **missing) {
                guest.add_drive_with(text(disk), DriveOptions::default()).expect("a disk");
            }
        }
        guest.launch().expect("the disks open");
        let mut script =
            String::from("idle() { until [ \"$(cat $s/sync_action)\" = idle ]; do sleep 0.2; done; }\n");
        let (mut expected, mut disks) = (String::new(), Vec::new());
        for (at, ((facts, members), missing)) in arrays.iter().enumerate() {
            let device = format!("/dev/md/{}", facts["MD_NAME"].as_str().expect("a name"));
            let Ok(Value::Int(size)) = call(&mut guest, &["blockdev-getsize64", &device]) else {
                panic!("{facts}: it has no size");
            };
            write_pieces(&mut guest, &device, size.cast_unsigned());
            let Ok(Value::String(sum)) = call(&mut guest, &["checksum-device", "sha256", &device]) else {
                panic!("{facts}: it cannot be read");
            };
            let letter = |disk: usize| char::from(b'a' + u8::try_from(disk).expect("few disks"));
            let there =
                (disks.len()..disks.len() + members.len()).map(|disk| format!("/dev/vd{}", letter(disk)));
            let there = there.collect::<Vec<_>>().join(" ");
            disks.extend(members);
            script += &format!(
                "mdadm --assemble --run /dev/md{at} {there} >&2
                 s=/sys/block/md{at}/md; mdadm --readwrite /dev/md{at} >&2 || true
                 idle; echo check > $s/sync_action; idle
                 echo $(sha256sum < /dev/md{at}) $(cat $s/degraded) $(cat $s/mismatch_cnt)\n"
            );
            expected += &format!("{sum} - {} 0\n", usize::from(missing.is_some()));
        }
        guest.shutdown().expect("it commits");
        drop(guest);
        let disks: Vec<_> = disks.into_iter().map(|disk| Disk::kept(disk)).collect();
        assert_eq!(run_ok(&disks, &script), expected, "{cases:?}");
    }
}

/// The tables that make a dynamic volume with the kernel's device mapper, of what `ldmtool` says of it.
fn dynamic_tables(group: &serde_json::Value, volume: &serde_json::Value) -> (Vec<String>, Vec<u64>) {
    let number =
        |of: &serde_json::Value, key: &str| of[key].as_u64().unwrap_or_else(|| panic!("no {key}: {of}"));
    let disks = group["disks"].as_array().expect("disks");
    let mut images: Vec<_> = disks.iter().map(|disk| disk["device"].as_str().expect("an image")).collect();
    images.sort_unstable();
    let parts = volume["partitions"].as_array().expect("partitions").iter().map(|partition| {
        let disk = disks.iter().find(|disk| disk["name"] == partition["disk"]).expect("a disk");
        let at = images.iter().position(|image| disk["device"] == **image).expect("it is there");
        let letter = char::from(b'a' + u8::try_from(at).expect("few disks"));
        (
            format!("/dev/vd{letter} {}", number(disk, "data-start") + number(partition, "start")),
            number(partition, "size"),
        )
    });
    parts.unzip()
}

#[test] // The kernel has no dynamic disks of its own: `ldmtool` makes tables for the device mapper, and so is it done here.
fn the_kernel_reads_what_was_written_to_dynamic_volumes() {
    if !testkit::long_suites("starting a kernel for dynamic disks") {
        return;
    }
    for name in ["ldm-2003r2", "ldm-2008r2"] {
        let case = case(name);
        let mut guest = launched(&case);
        let group = &case.facts["group"];
        let mut script = String::new();
        let mut expected = String::new();
        for volume in group["volumes"].as_array().expect("volumes") {
            let short = volume["name"].as_str().expect("a name");
            let device = format!("/dev/mapper/ldm_vol_{}_{short}", group["name"].as_str().expect("a name"));
            let size = volume["size"].as_u64().expect("a size");
            write_pieces(&mut guest, &device, size * 512);
            let Ok(Value::String(sum)) = call(&mut guest, &["checksum-device", "sha256", &device]) else {
                panic!("{name}: {device} cannot be read");
            };
            let (places, lens) = dynamic_tables(group, volume);
            let mut raid = String::new();
            for (at, (place, len)) in places.iter().zip(&lens).enumerate() {
                script += &format!("dmsetup create {short}-{at} --table '0 {len} linear {place}'\n");
                raid += &format!(" - /dev/mapper/{short}-{at}");
            }
            let count = places.len();
            let chunk = &volume["chunk-size"];
            let kind = volume["type"].as_str().expect("a type");
            let table = match kind {
                "simple" | "spanned" => {
                    let mut start = 0;
                    let lines = places.iter().zip(&lens).map(|(place, len)| {
                        start += len;
                        format!("{} {len} linear {place}", start - len)
                    });
                    lines.collect::<Vec<_>>().join("\n")
                }
                "striped" => format!("0 {size} striped {count} {chunk} {}", places.join(" ")),
                "mirrored" => format!("0 {size} raid raid1 2 128 nosync {count}{raid}"),
                "RAID5" => format!("0 {size} raid raid5_ls 2 {chunk} nosync {count}{raid}"),
                other => panic!("{other}: a type that ldmtool did not know"),
            };
            script += &format!("dmsetup create {short} <<'TABLE'\n{table}\nTABLE\n");
            let mismatches = if matches!(kind, "mirrored" | "RAID5") {
                // What stands in the status: the action, and what it found.
                script += &format!(
                    "state() {{ dmsetup status {short} | cut -d' ' -f\"$1\"; }}
                     until [ \"$(state 8)\" = idle ]; do sleep 0.2; done
                     dmsetup message {short} 0 check
                     until [ \"$(state 8)\" = idle ]; do sleep 0.2; done\n"
                );
                " $(state 9)"
            } else {
                ""
            };
            script += &format!("echo {short} $(sha256sum < /dev/mapper/{short}){mismatches}\n");
            expected += &format!("{short} {sum} -{}\n", if mismatches.is_empty() { "" } else { " 0" });
        }
        guest.shutdown().unwrap_or_else(|e| panic!("{name}: {e}"));
        drop(guest);
        // Linux 6.1 can wait for itself when such an array is taken down: the machine is switched off instead.
        script += "sleep 1; crash\n";
        let disks: Vec<_> = case.disks.iter().map(|disk| Disk::kept(disk)).collect();
        assert_eq!(run_ok(&disks, &script), expected, "{name}");
    }
}
