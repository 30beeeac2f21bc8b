//! Volumes that we make larger, as e2fsck sees them; their files stay the same.

use std::fs::File;

use sha2::{Digest, Sha256};
use vmcraft_fs::ResizeTo;

use crate::mkfs::{MIB, assert_clean, open, sources, tools};
use crate::{sample, tree};

fn digest(image: &std::path::Path) -> String {
    let fs = tree::open(image).expect("a volume");
    let tree = tree::ours(&*fs).expect("a tree");
    tree::hex(&Sha256::digest(format!(
        "{:?}",
        tree.iter().map(|(p, n)| (p, n.mode, n.size, &n.content)).collect::<Vec<_>>()
    )))
}

#[test]
fn volumes_grow() {
    for options in [
        "-t ext4 -b 1024",
        "-t ext4",
        "-t ext4 -O ^metadata_csum,uninit_bg -b 1024",
        "-t ext4 -O ^flex_bg,meta_bg,^resize_inode -b 1024",
        "-t ext4 -O ^64bit -b 2048",
        "-t ext3 -b 1024",
        "-t ext2 -b 1024",
    ] {
        let dir = testkit::tempdir();
        let image = sample::image(dir.path(), 21, options);
        let before = digest(&image);
        for mib in [22, 60, 300] {
            File::options().write(true).open(&image).and_then(|f| f.set_len(mib * MIB)).expect("room");
            let size = tools().resize(&open(&image), ResizeTo::Device, &sources());
            let size = size.unwrap_or_else(|e| panic!("{options}, {mib} MiB: {e}"));
            assert!(size <= mib * MIB && size > (mib - 2) * MIB, "{options}: {size} of {mib} MiB");
            assert_clean(&image, &format!("{options}, {mib} MiB"));
            assert_eq!(digest(&image), before, "{options}, {mib} MiB");
        }
    }
}

#[test]
fn what_cannot_be_done_is_refused() {
    let dir = testkit::tempdir();
    let image = sample::image(dir.path(), 21, "-t ext4");
    for (to, expected) in [
        (ResizeTo::Bytes(10 * MIB), "smaller"),
        (ResizeTo::Minimum, "smaller"),
        (ResizeTo::Bytes(99 * MIB), "device"),
    ] {
        let error = tools().resize(&open(&image), to, &sources()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_clean(&image, "refused");
}
