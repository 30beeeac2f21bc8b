//! Free space: what is given back or zeroed is free, and what is in use stays.

use std::fs::File;
use std::io::Read;

use vmcraft_fs::FreeSpace;

use crate::scratch::{NEW, Scratch};

#[test]
fn only_what_is_free_is_zeroed() {
    for (what, options) in [
        (FreeSpace::Zero, "-t ext4 -b 1024 -g 1024"),
        (FreeSpace::Discard, "-t ext4"),
        (FreeSpace::Zero, "-t ext2 -b 1024"),
    ] {
        let mut scratch = Scratch::new(20, options);
        let root = scratch.root();
        let secret = [b"a secret that must go".as_slice(), &[b'!'; 4000]].concat();
        for (name, remove) in [("kept", false), ("gone", true)] {
            let file = scratch.writer().create(root, name.into(), NEW).expect("a file");
            scratch.writer().write(file, 0, &secret.repeat(20)).expect("a write");
            if remove {
                scratch.writer().unlink(root, name.into()).expect("a name");
            }
        }
        scratch.writer().sync().expect("a sync");
        let (free, _) = scratch.free();
        let block_size = u64::from(scratch.fs().statfs().expect("statfs").block_size);
        let bytes = scratch.writer().free_space(what, 0, u64::MAX, 0).expect("free space");
        assert_eq!(bytes, free * block_size, "{options}: all of it");
        assert_eq!(scratch.writer().free_space(what, 0, block_size, 0).expect("none"), 0, "{options}");
        let large = scratch.writer().free_space(what, 0, u64::MAX, 1 << 30).expect("none");
        assert_eq!(large, 0, "{options}: no run is so long");
        scratch.judge();
        let mut image = Vec::new();
        File::open(&scratch.image).expect("an image").read_to_end(&mut image).expect("its bytes");
        let found = image.windows(8).filter(|w| *w == b"a secret").count();
        assert_eq!(found, 20, "{options}: only the file that is left has it");
        let file = scratch.at("kept");
        let mut content = vec![0; secret.len() * 20];
        scratch.fs().read(file, 0, &mut content).expect("a file");
        assert!(content == secret.repeat(20), "{options}");
    }
}
