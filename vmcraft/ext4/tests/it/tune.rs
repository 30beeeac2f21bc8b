//! Labels and UUIDs that we set, as e2fsck and blkid see them.

use testkit::run_ok;
use vmcraft_fs::{FileSystem, OnError, OpenOptions, Reserved, Tuning};

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

/// What `tune2fs -l` says, in UTC.
fn described(image: &std::path::Path) -> Vec<(String, String)> {
    let listed = run_ok("env", ["TZ=UTC", "tune2fs", "-l", name(image)]);
    let rows = listed.lines().filter_map(|line| line.split_once(':'));
    rows.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

fn describe(image: &std::path::Path) -> Vec<(String, String)> {
    let tools = vmcraft_ext4::DRIVER.maintain.expect("the driver has tools");
    let rows = tools.describe(&open(image)).expect("a volume");
    rows.into_iter().map(|(name, value)| (name.to_owned(), value.to_string())).collect()
}

#[test]
fn a_superblock_is_described_as_tune2fs_does() {
    let dir = testkit::tempdir();
    for (options, changes) in [
        ("-t ext4", &[][..]),
        ("-t ext3 -b 1024 -L label -M /somewhere", &[]),
        ("-t ext2 -r 0", &[]),
        ("-t ext4 -O ^metadata_csum,uninit_bg,^resize_inode,meta_bg", &["tune2fs -c 20 -i 40d"]),
        (
            "-t ext4 -O orphan_file,bigalloc,quota,project,metadata_csum_seed,encrypt,casefold \
             -E stride=4,stripe_width=16,encoding=utf8",
            &[
                "tune2fs -E mount_opts=nodelalloc -o ^acl,journal_data_writeback,nobarrier -e panic -i 694861s",
                "debugfs -w -R set_super_value\u{a0}error_count\u{a0}3",
                "debugfs -w -R set_super_value\u{a0}first_error_time\u{a0}1700000000",
                "debugfs -w -R set_super_value\u{a0}first_error_func\u{a0}ext4_lookup",
                "debugfs -w -R set_super_value\u{a0}first_error_line\u{a0}77",
                "debugfs -w -R set_super_value\u{a0}first_error_ino\u{a0}12",
                "debugfs -w -R set_super_value\u{a0}last_error_time\u{a0}1700000001",
                "debugfs -w -R set_super_value\u{a0}last_error_block\u{a0}4711",
                "debugfs -w -R set_super_value\u{a0}kbytes_written\u{a0}123456789",
                "debugfs -w -R set_super_value\u{a0}state\u{a0}2",
                // Last, as e2fsprogs wait for eleven seconds whenever they open a volume with it.
                "tune2fs -O mmp",
            ],
        ),
    ] {
        let image = dir.path().join("image");
        std::fs::File::create(&image).and_then(|file| file.set_len(64 << 20)).expect("an image");
        run_ok("mke2fs", ["-q", "-F"].into_iter().chain(options.split_whitespace()).chain([name(&image)]));
        for change in changes {
            // A no-break space stands for a blank within a word.
            let words: Vec<String> = change.split(' ').map(|word| word.replace('\u{a0}', " ")).collect();
            let (program, words) = words.split_first().expect("a program");
            run_ok(program, words.iter().map(String::as_str).chain([name(&image)]));
        }
        assert_eq!(describe(&image), described(&image), "{options}");
    }
}

#[test]
fn how_a_volume_is_used_is_set() {
    for options in ["-t ext4", "-t ext3", "-t ext2 -r 0"] {
        let dir = testkit::tempdir();
        let image = dir.path().join("image");
        std::fs::File::create(&image).and_then(|file| file.set_len(32 << 20)).expect("an image");
        run_ok("mke2fs", ["-q", "-F"].into_iter().chain(options.split_whitespace()).chain([name(&image)]));
        let fs = writable(&image);
        let tune = |tuning: Tuning| fs.writer().and_then(|writer| writer.tune(&tuning));
        tune(Tuning {
            most_mounts: Some(30),
            mounts: Some(7),
            check_interval_secs: Some(86400),
            on_error: Some(OnError::ReadOnly),
            reserved: Some(Reserved::Percent(10)),
            reserved_uid: Some(5),
            reserved_gid: Some(6),
            last_mounted: Some("/srv".into()),
        })
        .expect("tuned");
        let value = |name: &str| {
            let rows = described(&image);
            rows.into_iter().find(|(known, _)| known == name).map(|(_, value)| value).expect("a row")
        };
        let blocks: u64 = value("Block count").parse().expect("a number");
        for (name, expected) in [
            ("Maximum mount count", "30"),
            ("Mount count", "7"),
            ("Check interval", "86400 (1 day)"),
            ("Errors behavior", "Remount read-only"),
            ("Reserved block count", &(blocks / 10).to_string()),
            ("Reserved blocks uid", "5 (user games)"),
            ("Last mounted on", "/srv"),
        ] {
            assert_eq!(value(name), expected, "{options}: {name}");
        }
        let reserve = |reserved| tune(Tuning { reserved: Some(reserved), ..Tuning::default() });
        reserve(Reserved::Blocks(17)).expect("tuned");
        tune(Tuning { most_mounts: Some(0), ..Tuning::default() }).expect("tuned");
        assert_eq!(
            (value("Reserved block count").as_str(), value("Maximum mount count").as_str()),
            ("17", "-1")
        );
        assert!(reserve(Reserved::Percent(51)).is_err() && reserve(Reserved::Blocks(blocks / 2)).is_err());
        let refused = |tuning| tune(tuning).unwrap_err().to_string();
        assert!(refused(Tuning { mounts: Some(16001), ..Tuning::default() }).contains("16000"));
        assert!(
            refused(Tuning { last_mounted: Some("x".repeat(64).into()), ..Tuning::default() }).contains("63")
        );
        // What is free to users follows at once.
        let available = || fs.statfs().expect("statistics").blocks_available;
        let before = available();
        reserve(Reserved::Blocks(0)).expect("tuned");
        assert_eq!(available() - before, 17);
        fs.writer().and_then(|writer| writer.sync()).expect("written");
        assert_clean(&image, options);
    }
}
