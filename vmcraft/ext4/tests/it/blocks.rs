//! Block sizes that this kernel may not mount, compared with the files they were made of.

use std::ops::ControlFlow;

use vmcraft_fs::FileType;

use crate::{sample, tree};

#[test]
fn large_blocks() {
    for (size, options) in [
        (64, "-t ext4 -b 8192"),
        (64, "-t ext4 -b 16384 -O inline_data"),
        (128, "-t ext4 -b 32768 -O ^metadata_csum"),
        (256, "-t ext4 -b 65536"),
        (256, "-t ext2 -b 65536"),
        (256, "-t ext4 -b 65536 -O bigalloc,ea_inode -C 131072"),
    ] {
        let dir = testkit::tempdir();
        let image = sample::image(dir.path(), size, options);
        let fs = tree::open(&image).unwrap_or_else(|e| panic!("{options}: {e}"));
        vmcraft_fs::conformance::check(&*fs).unwrap_or_else(|e| panic!("{options}: {e}"));
        let mut ours = tree::ours(&*fs).unwrap_or_else(|e| panic!("{options}: {e}"));
        assert_eq!(ours.remove(&b"/sub/file"[..]).expect("the file").xattrs.len(), 1, "{options}");
        ours.remove(&b"/lost+found"[..]).expect("lost+found");
        let mut theirs = tree::mounted(&dir.path().join("source"));
        theirs.remove(&b"/sub/file"[..]);
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{options}");
        for (path, theirs) in &theirs {
            let ours = &ours[path];
            let what = format!("{options}: {}", path.escape_ascii());
            assert_eq!(ours.content, theirs.content, "{what}");
            assert_eq!((ours.mode, ours.owner), (theirs.mode, theirs.owner), "{what}");
            if FileType::from_mode(ours.mode) != FileType::Directory {
                assert_eq!((ours.size, ours.links), (theirs.size, theirs.links), "{what}");
                assert_eq!(ours.times[1].0, theirs.times[1].0, "{what}");
            }
        }
    }
}

#[test] // Several threads at once see what one alone does.
fn threads_share_a_volume() {
    let dir = testkit::tempdir();
    let image = sample::image(dir.path(), 8, "-t ext4 -b 1024");
    let fs = tree::open(&image).expect("a volume");
    let expected = tree::ours(&*fs).expect("a tree");
    let fs = tree::open(&image).expect("a volume");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                assert!(tree::ours(&*fs).expect("a tree") == expected);
                let mut names = 0;
                fs.read_dir(fs.root(), 0, &mut |_| {
                    names += 1;
                    ControlFlow::Continue(())
                })
                .expect("a listing");
                assert!(names > 5);
            });
        }
    });
}
