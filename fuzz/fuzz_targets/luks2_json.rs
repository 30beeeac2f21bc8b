//! Metadata of LUKS2 behind checksums that fit. No key is tried: what that costs is what the header says.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use vmcraft_fuzz::{read_around, write_around};
use vmcraft_volume::luks::Luks;
use vmcraft_volume::{Key, Member};

fuzz_target!(|input: &[u8]| {
    let member = Member { name: "/dev/sda".into(), device: Arc::new(vmcraft_fuzz::luks2(input)) };
    let Ok(Some(mut luks)) = Luks::read(&member, None) else { return };
    let _ = (luks.label().len(), luks.subsystem().len(), luks.cipher().len(), luks.keyslots().len());
    let _ = (luks.data_offset(), luks.sector_size(), luks.key_bytes(), luks.warnings().len());
    for len in [16, 32, 64] {
        if let Ok(device) = luks.unlock_with_volume_key(&Key::new(vec![1; len])) {
            read_around(&*device);
            write_around(&*device);
        }
    }
    let _ = luks.set_uuid("95040029-d12f-4a62-a720-07dcb2dae9fe", &mut |bytes: &mut [u8]| bytes.fill(7));
});
