//! Labels and UUIDs that we set, as e2fsck and blkid see them.

use testkit::run_ok;
use vmcraft_fs::{FileSystem, OpenOptions};

use crate::mkfs::{assert_clean, open};
use crate::sample::{self, name};

fn writable(image: &std::path::Path) -> Box<dyn FileSystem> {
    (vmcraft_ext4::DRIVER.open)(open(image), OpenOptions::default()).expect("a volume")
}

#[test] // All checksums begin with that of the UUID, unless the volume has a seed of its own.
fn uuid_and_label_are_set() {
    for options in [
        "-t ext4 -b 1024",
        "-t ext4 -O metadata_csum_seed,orphan_file",
        "-t ext4 -O orphan_file,inline_data",
        "-t ext4 -O ^metadata_csum,uninit_bg",
        "-t ext4 -O ^has_journal,^flex_bg,meta_bg,^resize_inode -b 1024",
        "-t ext3",
        "-t ext2 -b 1024",
    ] {
        let dir = testkit::tempdir();
        let image = sample::image(dir.path(), 20, options);
        let fs = writable(&image);
        let uuid = [0xab; 16];
        fs.writer()
            .and_then(|w| w.set_label("new label".into()))
            .unwrap_or_else(|e| panic!("{options}: {e}"));
        fs.writer().and_then(|w| w.set_uuid(uuid)).unwrap_or_else(|e| panic!("{options}: {e}"));
        assert_eq!(fs.uuid(), "abababab-abab-abab-abab-abababababab", "{options}");
        assert!(fs.lookup(fs.root(), "fragmented".into()).is_ok(), "{options}");
        fs.writer().and_then(|w| w.sync()).expect("written");
        assert_clean(&image, options);
        let seen = run_ok("blkid", ["-p", "-o", "export", name(&image)]);
        assert!(seen.contains("UUID=abababab-abab-abab-abab-abababababab"), "{seen}");
        assert!(seen.contains("LABEL=new\\ label"), "{seen}");
    }
}

#[test]
fn long_labels_are_refused() {
    let dir = testkit::tempdir();
    let image = sample::image(dir.path(), 8, "-t ext2");
    let error = writable(&image).writer().and_then(|w| w.set_label("seventeen letters".into())).unwrap_err();
    assert!(error.to_string().contains("16 bytes"), "{error}");
}
