//! Disks with any volumes on them: found, opened, read and written, and what is on these again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmcraft_fuzz::{decode, members, read_around, volumes, write_around};

fuzz_target!(|input: &[u8]| {
    let mut devices = decode(input);
    for _ in 0..3 {
        devices = volumes(&members(devices));
        devices.iter().take(16).for_each(|device| read_around(&**device));
    }
    devices.iter().take(16).for_each(|device| write_around(&**device));
    // Once more from the start, to write to what stands on the disks themselves.
    volumes(&members(decode(input))).iter().take(16).for_each(|device| write_around(&**device));
});
