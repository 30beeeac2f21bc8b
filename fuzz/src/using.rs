//! Using a device that opened.

use vmcraft_block::BlockDevice;

/// Reads here and there. Errors are as good as bytes.
pub fn read_around(device: &dyn BlockDevice) {
    let size = device.size();
    let mut buf = vec![0; 40_000];
    for at in [0, 3, 65_536 - 7, 1 << 20, size / 2, size.saturating_sub(40_000)] {
        let _ = device.read_at(at, &mut buf);
    }
    ask_extents(device);
}

/// Asks what is allocated. Answers must follow upon each other.
pub fn ask_extents(device: &dyn BlockDevice) {
    let (size, Some(map)) = (device.size(), device.extents()) else { return };
    let mut at = 0;
    for _ in 0..50 {
        let Ok(extent) = map.extent_at(at) else { return };
        assert!(
            extent.offset == at && extent.len > 0 && extent.len <= size - at,
            "{extent:?} of {size} bytes"
        );
        at += extent.len;
    }
}

/// Writes here and there.
pub fn write_around(device: &dyn BlockDevice) {
    let size = device.size();
    for at in [0, 4097, 65_536, size / 2, size.saturating_sub(5000)] {
        let written = device.write_at(at, &[0x5a; 5000]);
        let mut back = [0; 5000];
        // What was written is what is read, unless that fails; but where BitLocker's own structures are, and in LVM's
        // segments of the type "zero", what is written is forgotten.
        if written.is_ok() && !device.is_read_only() && device.read_at(at, &mut back).is_ok() {
            assert!(
                back.iter().all(|byte| [0, 0x5a].contains(byte)),
                "what was written at byte {at:#x} is not there"
            );
        }
    }
    if let Some(discard) = device.discard() {
        let _ = discard.discard(4096, 200_000);
        let _ = discard.write_zeroes(size / 2, 70_000);
    }
    let _ = device.flush();
}
