//! What the kernel's own LVM, md and dm-crypt made is found under the same names, and read as the kernel
//! reads it.

use testkit::appliance::{Disk, run_ok};
use testkit::volumes::{Case, Device, case, names};
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

/// Writes the same pieces into each device: across stripes, and not on their borders.
fn write_everywhere(guest: &mut Guest, case: &Case) {
    for device in case.devices.iter().filter(|device| device.sha256.is_some()) {
        let name = name_of(device);
        for (offset, len) in [(1000, 3), (4096, 70_000), (device.size / 2 - 700, 1500), (device.size - 5, 5)]
        {
            let content: Vec<u8> = (0..len).map(|n: u32| b'a' + u8::try_from(n % 23).unwrap_or(0)).collect();
            let offset = i64::try_from(offset).expect("the devices are small");
            guest
                .pwrite_device(name.as_str().into(), &content, offset)
                .unwrap_or_else(|e| panic!("{}: {name}: {e}", case.name));
        }
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
    for name in ["lvm-striped", "lvm-raid5", "md-two", "lvm-snapshot", "lvm-thin"] {
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
        assert_eq!(guest.take_warnings(), Vec::<String>::new(), "{name}");
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
                 [ ! -e $md/sync_action ] || {{ mdadm --readwrite /dev/$(basename ${{md%/md}}) >&2 || true; echo check > $md/sync_action; settle; [ \"$(cat $md/mismatch_cnt)\" = 0 ]; }}
             done
             for lv in $(lvs --noheadings -o vg_name,lv_name,segtype 2>/dev/null | awk '$3 ~ /^raid[1456]/ {{ print $1 \"/\" $2 }}'); do
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
