//! An ext2, ext3 or ext4 volume: its decoders, its tree, and changes to it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vmcraft_ext4::{DRIVER, fuzz};
use vmcraft_fs::{FileType, NewInode, OpenOptions};
use vmcraft_fuzz::decode;

fuzz_target!(|input: &[u8]| {
    let Some(disk) = decode(input).into_iter().next() else { return };
    if disk.size() > 1 << 30 {
        return;
    }
    let Ok(fs) = (DRIVER.open)(disk, OpenOptions::default()) else { return };
    fuzz::walk(&*fs);
    let Ok(writer) = fs.writer() else { return };
    let (root, new) = (fs.root(), NewInode { permissions: 0o644, uid: 0, gid: 0 });
    let _ = writer.unlink(root, "hello".into());
    let _ = writer.rmdir(root, "lost+found".into());
    if let Ok(file) = writer.create(root, "file".into(), new) {
        let _ = writer.write(file, 5000, &[1; 20_000]);
        let _ = writer.write(file, 70_000_000, &[2; 10]);
        let _ = writer.truncate(file, 100);
        let _ = writer.link(file, root, "second".into());
    }
    let _ = writer.symlink(root, "link".into(), "to".into(), new);
    let _ = writer.mknod(root, "pipe".into(), FileType::Fifo, Default::default(), new);
    for name in ["dir", "big", "a", "b"] {
        let Ok(dir) = fs.lookup(root, name.into()).or_else(|_| writer.mkdir(root, name.into(), new)) else {
            continue;
        };
        let _ = writer.create(dir, "inside".into(), new);
        let _ = writer.unlink(dir, "1".into());
    }
    let _ = writer.sync();
    fuzz::walk(&*fs);
});
