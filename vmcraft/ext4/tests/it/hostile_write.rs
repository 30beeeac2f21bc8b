//! Changes to volumes that contradict themselves: they may fail, but neither panic nor hang.

use std::ops::ControlFlow;
use std::sync::Arc;

use bstr::{BString, ByteSlice};
use proptest::prelude::*;
use vmcraft_block::MemoryDevice;
use vmcraft_fs::{
    DeviceNumber, FileSystem, FileType, InodeNumber, OpenOptions, SetMetadata, WriteFiles, XattrMode,
};

use crate::hostile::Flips;
use crate::random::Random;
use crate::sample;
use crate::scratch::{NEW, NEW_DIR};

/// The inodes that a walk finds, which stops at what it cannot read, and after so many.
fn walk(fs: &dyn FileSystem) -> Vec<(InodeNumber, Vec<BString>)> {
    let mut found = vec![(fs.root(), Vec::new())];
    let mut at = 0;
    while at < found.len() && found.len() < 1000 {
        let mut names = Vec::new();
        let mut children = Vec::new();
        let _ = fs.read_dir(found[at].0, 0, &mut |entry| {
            names.push(entry.name.to_owned());
            children.push((entry.inode, Vec::new()));
            if names.len() < 400 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        found[at].1 = names;
        found.extend(children);
        at += 1;
    }
    found
}

/// Does something to an inode and a name, and says whether that was done.
fn change(w: &dyn WriteFiles, found: &[(InodeNumber, Vec<BString>)], random: &mut Random) -> bool {
    let any = |random: &mut Random| found[random.below(found.len())].0;
    let place = |random: &mut Random| {
        let filled: Vec<_> = found.iter().filter(|(_, names)| !names.is_empty()).collect();
        match filled.get(random.below(filled.len())) {
            Some((dir, names)) => (*dir, names[random.below(names.len())].clone()),
            None => (any(random), BString::from("none")),
        }
    };
    let new_name = |random: &mut Random| -> BString {
        let mut name = format!("{}-", random.next()).into_bytes();
        name.resize(name.len() + random.below(200), b'n');
        name.into()
    };
    let (dir, taken) = place(random);
    let name = new_name(random);
    let (inode, offset) = (any(random), random.next() >> random.below(64));
    match random.below(16) {
        0 | 1 => w.create(dir, name.as_bstr(), NEW).is_ok(),
        2 => w.mkdir(dir, name.as_bstr(), NEW_DIR).is_ok(),
        3 => {
            w.symlink(dir, name.as_bstr(), "target".repeat(random.below(30) + 1).as_str().into(), NEW).is_ok()
        }
        4 => w.mknod(dir, name.as_bstr(), FileType::CharDevice, DeviceNumber::default(), NEW).is_ok(),
        5 => w.link(inode, dir, name.as_bstr()).is_ok(),
        6 => w.unlink(dir, taken.as_bstr()).is_ok(),
        7 => w.rmdir(dir, taken.as_bstr()).is_ok(),
        8 => w.rename(dir, taken.as_bstr(), any(random), name.as_bstr()).is_ok(),
        9 => {
            let (to, to_name) = place(random);
            w.rename(dir, taken.as_bstr(), to, to_name.as_bstr()).is_ok()
        }
        10 => w.write(inode, offset, &vec![1; random.below(20_000)]).is_ok(),
        11 => w.truncate(inode, offset).is_ok(),
        12 => w.punch_hole(inode, offset, random.next() >> random.below(64)).is_ok(),
        13 => w.set_xattr(inode, "user.name".into(), &vec![2; random.below(700)], XattrMode::Any).is_ok(),
        14 => w.remove_xattr(inode, "user.large".into()).is_ok(),
        _ => {
            w.set_metadata(inode, &SetMetadata { permissions: Some(0o600), ..SetMetadata::default() }).is_ok()
        }
    }
}

/// Changes a volume; says how often that succeeded.
fn change_many(bytes: Vec<u8>, seed: u64) -> usize {
    let device = Arc::new(MemoryDevice::new(bytes));
    let Ok(fs) = (vmcraft_ext4::DRIVER.open)(device, OpenOptions::default()) else { return 0 };
    let Ok(w) = fs.writer() else { return 0 };
    let mut random = Random::new(seed);
    let found = walk(&*fs);
    let done = (0..60).filter(|_| change(w, &found, &mut random)).count();
    let _ = w.sync();
    walk(&*fs);
    done
}

#[test] // Some bits of a good volume without checksums are turned over.
fn changes_after_bit_flips() {
    for options in [
        "-t ext4 -b 1024 -O ^metadata_csum,inline_data",
        "-t ext2 -b 1024 -I 128",
        "-t ext3 -b 1024 -O ^resize_inode",
    ] {
        let dir = testkit::tempdir();
        let image = sample::image(dir.path(), 4, options);
        let good = std::fs::read(&image).expect("an image");
        assert!(change_many(good.clone(), 1) > 10, "{options}: an undamaged volume can be changed");
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        let flips = Flips::of(good);
        proptest!(config, |(bits in Flips::some(), seed in any::<u64>())| {
            change_many(flips.turned(&bits), seed);
        });
    }
}
