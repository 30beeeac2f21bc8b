//! A qcow2 image: opened, read and written.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use vmcraft_block::qcow2::{Header, Parts, Qcow2};
use vmcraft_fuzz::{Image, read_around, write_around};

fuzz_target!(|input: &[u8]| {
    let storage = Arc::new(Image::new(input));
    let Ok(header) = Header::read("image", &storage) else { return };
    let Ok(device) = Qcow2::open("image", storage, header, Parts::default()) else { return };
    read_around(&device);
    write_around(&device);
});
