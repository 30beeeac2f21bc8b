//! Devices that fail while something is changed: what fails leaves no trace, and can be done again.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use testkit::device::{Hooked, Request};
use vmcraft_block::{BlockDevice, MemoryDevice};
use vmcraft_fs::{Error, FileSystem, InodeNumber, OpenOptions, Result};

use crate::features::mke2fs;
use crate::scratch::{NEW, NEW_DIR, assert_clean};

/// A device of which one write fails, after as many as are `left`; none if that is `u64::MAX`.
fn failing(bytes: Vec<u8>, left: Arc<AtomicU64>) -> Arc<dyn BlockDevice> {
    let hook = move |request| {
        if matches!(request, Request::Write(..)) {
            match left.load(Ordering::Relaxed) {
                u64::MAX => (),
                0 => {
                    left.store(u64::MAX, Ordering::Relaxed);
                    return Err(io::Error::other("this write fails"));
                }
                more => left.store(more - 1, Ordering::Relaxed),
            }
        }
        Ok(())
    };
    Arc::new(Hooked { inner: MemoryDevice::new(bytes), hook })
}

fn save(device: &dyn BlockDevice, image: &Path) {
    let mut bytes = vec![0; usize::try_from(device.size()).expect("a small image")];
    device.read_at(0, &mut bytes).expect("its bytes");
    std::fs::write(image, bytes).expect("an image");
}

/// Makes a directory with files, or finds them, and writes to each.
fn work(fs: &dyn FileSystem) -> Result<()> {
    let w = fs.writer()?;
    let found = |dir, name: &str, made: Result<InodeNumber>| match made {
        Err(Error::Exists) => fs.lookup(dir, name.into()),
        made => made,
    };
    let dir = found(fs.root(), "dir", w.mkdir(fs.root(), "dir".into(), NEW_DIR))?;
    for number in 0..40 {
        let name = format!("file-{number}");
        let file = found(dir, &name, w.create(dir, name.as_str().into(), NEW))?;
        w.write(file, u64::from(number) * 700, &[number; 5000])?;
    }
    let link = "t".repeat(300);
    found(dir, "link", w.symlink(dir, "link".into(), link.as_str().into(), NEW))?;
    w.sync()
}

#[test] // Each write of the whole in turn.
fn every_write_may_fail() {
    for options in ["-t ext4 -b 1024", "-t ext2 -b 1024"] {
        let dir = testkit::tempdir();
        let image = mke2fs(dir.path(), 4, options);
        let good = std::fs::read(&image).expect("an image");
        let mut failures = 0;
        for point in 0..1000 {
            let left = Arc::new(AtomicU64::new(point));
            let device = failing(good.clone(), left.clone());
            let fs = (vmcraft_ext4::DRIVER.open)(device.clone(), OpenOptions::default()).expect("a volume");
            let result = work(&*fs);
            if left.swap(u64::MAX, Ordering::Relaxed) != u64::MAX {
                result.expect("no write failed");
                break;
            }
            failures += 1;
            let error = result.expect_err("a write failed");
            assert!(matches!(error, Error::Io(_)), "{options}: {error}");
            // What did not fail is written, and is whole.
            fs.writer().expect("a writer").sync().expect("a sync");
            if point % 7 == 0 {
                save(&*device, &image);
                assert_clean(&image, &format!("{options}, after write {point} failed"));
            }
            work(&*fs).expect("no more fails");
            let found = fs.lookup(fs.root(), "dir".into()).and_then(|d| fs.lookup(d, "file-39".into()));
            let size = fs.metadata(found.expect("the last file")).expect("metadata").size_bytes;
            assert_eq!(size, 39 * 700 + 5000);
            if point % 7 == 3 {
                save(&*device, &image);
                assert_clean(&image, &format!("{options}, once all is done after write {point} failed"));
            }
        }
        assert!(failures > 20, "{options}: {failures} writes");
    }
}
