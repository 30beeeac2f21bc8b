//! What the kernel's own LVM, md and dm-crypt made is found under the same names, and read as the kernel
//! reads it.

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
