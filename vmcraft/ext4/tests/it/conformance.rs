//! The promises that every driver makes, and a volume against the directory that it was made from.

use vmcraft_fs::FileType;
use vmcraft_fs::conformance::{check_from_threads, check_writing};

use crate::scratch::Scratch;
use crate::{namespace, sample, tree};

/// Volumes whose structures differ most from each other.
const KINDS: &[&str] = &[
    "-t ext4 -b 1024",
    "-t ext4 -b 4096 -O inline_data,metadata_csum_seed -I 512",
    "-t ext4 -b 4096 -O bigalloc -C 16384",
    "-t ext3 -b 2048",
    "-t ext2 -b 1024 -O ^dir_index -I 128",
];

#[test] // What one thread reads into the cache must not change what another sees.
fn promises_hold_in_many_threads() {
    let dir = testkit::tempdir();
    for options in KINDS {
        let dir = tempfile::tempdir_in(dir.path()).expect("a directory");
        let image = sample::image(dir.path(), 16, options);
        let fs = tree::open(&image).unwrap_or_else(|e| panic!("{options}: {e}"));
        check_from_threads(&*fs, 4).unwrap_or_else(|e| panic!("{options}: {e}"));
    }
}

#[test] // `mke2fs -d` copies a directory; we show what was copied. Needs no kernel and no root.
fn volume_shows_the_directory_it_was_made_from() {
    let dir = testkit::tempdir();
    for options in KINDS {
        let dir = tempfile::tempdir_in(dir.path()).expect("a directory");
        let image = sample::image(dir.path(), 16, options);
        let fs = tree::open(&image).unwrap_or_else(|e| panic!("{options}: {e}"));
        let mut ours = tree::ours(&*fs).unwrap_or_else(|e| panic!("{options}: {e}"));
        assert!(ours.remove(&b"/lost+found"[..]).is_some(), "{options}");
        let source = tree::mounted(&dir.path().join("source"));
        let names = |tree: &tree::Tree| tree.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&ours), names(&source), "{options}");
        for (path, expected) in &source {
            let found = &ours[path];
            let path = path.escape_ascii();
            let is_dir = FileType::from_mode(expected.mode) == FileType::Directory;
            let what = |node: &tree::Node| {
                // A directory's size is the file system's own, and its root got its times anew.
                let size = if is_dir { 0 } else { node.size };
                let modified = if is_dir { 0 } else { node.times[1].0 };
                (node.owner, size, modified, node.content.clone())
            };
            assert_eq!(what(found), what(expected), "{options}: {path}");
            assert_eq!(found.mode, expected.mode, "{options}: {path}");
        }
    }
}

#[test]
fn promises_of_writing_hold() {
    for options in namespace::KINDS {
        let mut scratch = Scratch::new(16, options);
        check_writing(scratch.fs()).unwrap_or_else(|e| panic!("{options}: {e}"));
        scratch.judge();
    }
}
