//! An ext4 volume with a journal to replay, whose checksums are made to fit: in memory, and onto the volume.
#![no_main]

use libfuzzer_sys::fuzz_target;
use testkit::seal;
use vmcraft_block::BlockDevice;
use vmcraft_ext4::{DRIVER, fuzz};
use vmcraft_fs::{NewInode, OpenOptions};
use vmcraft_fuzz::decode;

/// Makes the checksums fit of the first journal there is, if it lies in one piece.
fn seal(disk: &dyn BlockDevice) {
    let mut head = [0; 1024];
    for at in (0..disk.size().min(2 << 20)).step_by(1024) {
        if disk.read_at(at, &mut head).is_ok() && head.starts_with(&[0xc0, 0x3b, 0x39, 0x98, 0, 0, 0, 4]) {
            let mut journal = vec![0; usize::try_from((disk.size() - at).min(1 << 20)).unwrap_or(0)];
            if disk.read_at(at, &mut journal).is_ok() {
                seal::jbd2(&mut journal);
                let _ = disk.write_at(at, &journal);
            }
            return;
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some(disk) = decode(input).into_iter().next() else { return };
    if disk.size() > 64 << 20 {
        return;
    }
    seal(&*disk);
    let Ok(fs) = (DRIVER.open)(disk, OpenOptions::default()) else { return };
    fuzz::walk(&*fs);
    let Ok(writer) = fs.writer() else { return };
    let (root, new) = (fs.root(), NewInode { permissions: 0o644, uid: 0, gid: 0 });
    let _ = writer.create(root, "file".into(), new);
    let _ = writer.sync();
    fuzz::walk(&*fs);
});
