//! Our check against e2fsck's verdict: on sound volumes, on damaged ones, and on images that others
//! made to be damaged.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use testkit::run;
use vmcraft_fs::{CheckOptions, Finding};

use crate::mkfs::{assert_clean, open, tools};
use crate::sample::{self, name};

fn check(image: &Path, repair: bool) -> vmcraft_fs::Result<Vec<Finding>> {
    tools().check(&open(image), CheckOptions { repair })
}

/// Whether e2fsck finds nothing wrong.
fn is_clean(image: &Path) -> bool {
    run("e2fsck", ["-fn", name(image)]).status.success()
}

const LAYOUTS: [&str; 6] = [
    "-t ext4 -b 1024",
    "-t ext4 -O orphan_file,inline_data,ea_inode",
    "-t ext4 -O ^metadata_csum,uninit_bg",
    "-t ext4 -O ^flex_bg,meta_bg,^resize_inode -b 1024",
    "-t ext3",
    "-t ext2 -b 2048",
];

#[test]
fn sound_volumes_have_no_findings() {
    for options in LAYOUTS {
        let dir = testkit::tempdir();
        let image = sample::image(dir.path(), 20, options);
        assert_eq!(check(&image, false).expect("a check"), [], "{options}");
    }
}

/// Images of the corpus for which `e2fsck -fn` and we differ. It does not replay journals when it only
/// looks, and calls clean what it has replayed or marked itself; we say that there is something to do.
const STRICTER: &[&str] = &[
    "f_ea_inode_no_feature",
    "f_extent_too_deep",
    "f_jnl_32bit",
    "f_jnl_errno",
    "f_readonly_fsck",
    "f_uninit_enable",
    "f_unshare_blocks_no_space",
    "f_valid_ea_in_inode",
    "j_corrupt_commit_csum",
    "j_corrupt_descr_csum",
    "j_corrupt_journal_block",
    "j_corrupt_revoke_csum",
    "j_recover_csum2_64bit",
];

/// What only e2fsck finds: users of a journal, names with odd bytes, lengths of fast links, limits of
/// hashes in htrees, holes in directories, flags that contradict each other, quota, names of encrypted
/// directories.
const LAXER: &[&str] = &[
    "d_corrupt_journal_nr_users",
    "f_bad_fname",
    "f_ea_value_crash",
    "f_fast_symlink_extents",
    "f_h_badroot",
    "f_h_reindex",
    "f_holedir3",
    "f_inlinedata_flags",
    "f_quota_invalid_inum",
    "f_short_encrypted_dirent",
];

#[test] // Where e2fsck reports problems we report some, and where it is clean we are, but for those above.
fn corpus_as_e2fsck() {
    /// Larger ones take e2fsck and us long.
    const LARGEST: u64 = 64 << 20;
    let Some(corpus) = testkit::corpus::dir() else { return };
    let (mut compared, mut differ) = (0, Vec::new());
    for row in testkit::corpus::rows(&corpus, "ext/") {
        let dir = testkit::tempdir();
        let image = testkit::corpus::unpack(&corpus, &row, dir.path());
        let is_large = std::fs::metadata(&image).expect("the image").len() > LARGEST;
        let is_known = |names: &[&str]| names.iter().any(|name| row.path.contains(&format!("-{name}.")));
        if is_large || row.path.contains("f_h_reindex") {
            continue;
        }
        // On some of them e2fsck goes on for minutes.
        let clean = match run("timeout", ["5", "e2fsck", "-fn", name(&image)]).status.code() {
            Some(124) => continue,
            status => status == Some(0),
        };
        let ours = check(&image, false);
        let agrees = match &ours {
            Ok(findings) => findings.is_empty() == clean,
            Err(vmcraft_fs::Error::Unsupported(_)) => continue,
            Err(_) => !clean,
        };
        compared += usize::from(agrees);
        if !agrees && !is_known(if clean { STRICTER } else { LAXER }) {
            differ.push(format!("{}: e2fsck finds it clean: {clean}; ours: {ours:?}", row.path));
        }
    }
    assert!(differ.is_empty(), "{differ:#?}");
    assert!(compared >= 80, "only {compared} images were compared");
}

#[test] // What is damaged is found, unless it is nothing that e2fsck minds.
fn damage_is_found() {
    for options in LAYOUTS {
        let dir = testkit::tempdir();
        let image = sample::image(dir.path(), 8, options);
        let good = std::fs::read(&image).expect("the image");
        let mut seed = 1u64;
        let mut missed = Vec::new();
        for _ in 0..40 {
            // Knuth's generator; the places of most metadata are in the first 512 KiB.
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = 1024 + (seed >> 33) % (512 << 10);
            let byte = good[usize::try_from(at).expect("small")] ^ (1 << (seed >> 29 & 7));
            let file = File::options().write(true).open(&image).expect("the image");
            file.write_all_at(&[byte], at).expect("written");
            let ours = check(&image, false);
            if ours.as_ref().is_ok_and(Vec::is_empty) && !is_clean(&image) {
                missed.push(at);
            }
            file.write_all_at(&good[usize::try_from(at).expect("small")..][..1], at).expect("written");
        }
        assert!(missed.len() <= 2, "{options}: e2fsck finds damage at {missed:x?}, and we do not");
        assert_eq!(check(&image, false).expect("a check"), [], "{options}");
    }
}

#[test] // Counts and bitmaps are computed anew, and e2fsck agrees with them.
fn counts_and_bitmaps_are_repaired() {
    for options in LAYOUTS {
        let dir = testkit::tempdir();
        let image = sample::image(dir.path(), 8, options);
        sample::debugfs(&image, "freeb 1000 3");
        sample::debugfs(&image, "set_super_value free_blocks_count 7");
        sample::debugfs(&image, "set_inode_field /big links_count 9");
        sample::debugfs(&image, "set_bg 0 free_inodes_count 3");
        sample::debugfs(&image, "set_bg 0 checksum calc");
        assert!(!is_clean(&image), "{options}");
        let found = check(&image, true).expect("a check");
        assert!(!found.is_empty() && found.iter().all(|finding| finding.repaired), "{options}: {found:?}");
        assert_clean(&image, options);
        assert_eq!(check(&image, false).expect("a check"), [], "{options}");
    }
}
