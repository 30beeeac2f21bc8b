//! Names moved, in all cases.

use bstr::BStr;
use vmcraft_fs::Error;

use crate::namespace::KINDS;
use crate::scratch::{NEW, NEW_DIR, Scratch, errno};

fn name(text: &str) -> &BStr {
    text.into()
}

#[test]
fn moves_in_all_cases() {
    for options in KINDS {
        let mut scratch = Scratch::new(8, options);
        let (w, root) = (scratch.writer(), scratch.root());
        let dir = |parent: &str, n: &str| w.mkdir(scratch.at(parent), name(n), NEW_DIR).unwrap();
        let file = |parent: &str, n: &str| w.create(scratch.at(parent), name(n), NEW).unwrap();
        let links = |path: &str| scratch.fs().metadata(scratch.at(path)).unwrap().links;
        let rename = |from: &str, from_name: &str, to: &str, to_name: &str| {
            w.rename(scratch.at(from), name(from_name), scratch.at(to), name(to_name))
        };
        let a = dir("", "a");
        let b = dir("", "b");

        // A file: to another name, to another directory, over another file.
        let one = file("a", "one");
        rename("a", "one", "a", "uno").unwrap();
        assert_eq!((scratch.at("a/uno"), errno(&scratch.fs().lookup(a, name("one")))), (one, 2));
        rename("a", "uno", "b", "one").unwrap();
        assert_eq!((scratch.at("b/one"), errno(&scratch.fs().lookup(a, name("uno")))), (one, 2));
        let free = scratch.free();
        file("a", "two");
        rename("b", "one", "a", "two").unwrap();
        assert_eq!(
            (scratch.at("a/two"), scratch.free()),
            (one, free),
            "{options}: the replaced file is freed"
        );
        file("a", "three");
        rename("a", "three", "a", "two").unwrap();
        assert_eq!(errno(&scratch.fs().lookup(a, name("three"))), 2);

        // Over one of two names: the other stays.
        let many = file("a", "first");
        w.link(many, b, name("second")).unwrap();
        rename("a", "two", "b", "second").unwrap();
        assert_eq!((scratch.at("a/first"), links("a/first")), (many, 1));
        // Two names of one inode: nothing happens.
        w.link(many, b, name("again")).unwrap();
        rename("a", "first", "b", "again").unwrap();
        rename("a", "first", "a", "first").unwrap();
        assert_eq!((scratch.at("a/first"), scratch.at("b/again"), links("b/again")), (many, many, 2));

        // A directory: its links and its parent follow.
        let moved = dir("a", "moved");
        file("a/moved", "inside");
        assert_eq!((links("a"), links("b")), (3, 2));
        rename("a", "moved", "a", "renamed").unwrap();
        assert_eq!((links("a"), links("b")), (3, 2));
        rename("a", "renamed", "b", "moved").unwrap();
        assert_eq!((links("a"), links("b")), (2, 3));
        assert_eq!(scratch.fs().parent(moved).unwrap(), b);
        // Over an empty one, elsewhere and in the same directory.
        dir("a", "empty");
        rename("b", "moved", "a", "empty").unwrap();
        assert_eq!((scratch.at("a/empty"), links("a"), links("b")), (moved, 3, 2));
        assert_eq!(scratch.fs().parent(moved).unwrap(), a);
        dir("a", "other");
        rename("a", "empty", "a", "other").unwrap();
        assert_eq!((scratch.at("a/other"), links("a"), links("a/other")), (moved, 3, 2));

        // What is refused changes nothing.
        dir("b", "full");
        file("b/full", "inside");
        dir("a/other", "deep");
        let before = crate::tree::ours(scratch.fs()).unwrap();
        assert_eq!(errno(&rename("a", "other", "b", "full")), 39, "ENOTEMPTY");
        assert_eq!(errno(&rename("a", "first", "b", "full")), 21, "EISDIR");
        assert_eq!(errno(&rename("a", "other", "b", "second")), 20, "ENOTDIR");
        assert_eq!(errno(&rename("a", "none", "b", "x")), 2, "ENOENT");
        assert_eq!(errno(&rename("a", "other", "a/other", "x")), 22, "EINVAL: into itself");
        assert_eq!(errno(&rename("a", "other", "a/other/deep", "x")), 22, "EINVAL: below itself");
        assert_eq!(errno(&rename("", "a", "a/other/deep", "x")), 22, "EINVAL: far below itself");
        assert_eq!(errno(&rename("a/other", "deep", "", "a")), 39, "ENOTEMPTY: over one that is above");
        assert_eq!(errno(&w.rename(one, name("x"), root, name("y"))), 20, "ENOTDIR");
        assert_eq!(crate::tree::ours(scratch.fs()).unwrap(), before, "{options}");
        scratch.judge();
    }
}

#[test] // The new name can split the leaf in which the old one is.
fn moves_within_growing_directories() {
    for options in KINDS {
        let mut scratch = Scratch::new(8, options);
        let (w, root) = (scratch.writer(), scratch.root());
        let dir = w.mkdir(root, name("dir"), NEW_DIR).unwrap();
        let mut made = Vec::new();
        for n in 0..300 {
            let old = format!("old-{n}");
            made.push(w.create(dir, name(&old), NEW).unwrap());
            let new = format!("{n}-{}", "new".repeat(n % 80));
            w.rename(dir, name(&old), dir, name(&new)).unwrap_or_else(|e| panic!("{options}: {n}: {e}"));
        }
        for (n, inode) in made.iter().enumerate() {
            let new = format!("{n}-{}", "new".repeat(n % 80));
            assert_eq!(scratch.fs().lookup(dir, name(&new)).unwrap(), *inode, "{options}: {n}");
            assert_eq!(errno(&scratch.fs().lookup(dir, name(&format!("old-{n}")))), 2, "{options}: {n}");
        }
        scratch.judge();
    }
}

#[test] // A loop of parents on a damaged volume must not hang us.
fn parents_that_form_a_loop_are_found_out() {
    let mut scratch = Scratch::new(8, "-t ext2 -b 1024");
    let (w, root) = (scratch.writer(), scratch.root());
    let a = w.mkdir(root, name("a"), NEW_DIR).unwrap();
    let b = w.mkdir(a, name("b"), NEW_DIR).unwrap();
    w.mkdir(root, name("moved"), NEW_DIR).unwrap();
    scratch.lend(|image| {
        // a's parent becomes b, whose parent is a.
        let block = crate::sample::first_block(image, "/a");
        let mut bytes = std::fs::read(image).unwrap();
        let at = usize::try_from(block * 1024 + 12).unwrap();
        bytes[at..at + 4].copy_from_slice(&u32::try_from(b.0).unwrap().to_le_bytes());
        std::fs::write(image, bytes).unwrap();
    });
    let (w, root) = (scratch.writer(), scratch.root());
    let moved = w.rename(root, name("moved"), b, name("moved"));
    assert!(matches!(moved, Err(Error::Corrupt { .. })), "{moved:?}");
}
