//! Extended attributes and ACLs that we set, against a model, `e2fsck` and the kernel.

use std::collections::BTreeMap;

use bstr::{BStr, BString};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use vmcraft_fs::{Error, InodeNumber, SetMetadata, XattrMode};

use crate::kernel::{Mount, can_mount};
use crate::sample::{debugfs, name, number_after};
use crate::scratch::{NEW, NEW_DIR, Scratch};

fn file(scratch: &Scratch, name: &str) -> InodeNumber {
    scratch.writer().create(scratch.root(), BStr::new(name), NEW).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn set(scratch: &Scratch, inode: InodeNumber, name: &str, value: &[u8]) -> Result<(), Error> {
    scratch.writer().set_xattr(inode, BStr::new(name), value, XattrMode::Any)
}

fn remove(scratch: &Scratch, inode: InodeNumber, name: &str) -> Result<(), Error> {
    scratch.writer().remove_xattr(inode, BStr::new(name))
}

/// All attributes, sorted.
fn all(scratch: &Scratch, inode: InodeNumber) -> BTreeMap<BString, Vec<u8>> {
    scratch.fs().xattrs(inode).expect("attributes").into_iter().collect()
}

fn mode(scratch: &Scratch, inode: InodeNumber) -> u32 {
    scratch.fs().metadata(inode).expect("metadata").permissions
}

#[derive(Debug, Clone)]
enum Op {
    Set { inode: usize, name: usize, len: usize },
    Remove { inode: usize, name: usize },
    Write { inode: usize, len: usize },
}

const NAMES: [&str; 9] = [
    "user.a",
    "user.a-longer-name",
    "user.\u{e4}\u{f6}\u{fc}",
    "trusted.overlay.opaque",
    "security.selinux",
    "security.ima",
    "user.b",
    "user.ab",
    "trusted.a",
];

fn op() -> impl Strategy<Value = Op> {
    let len = prop_oneof![Just(0), 1..30usize, 30..300usize, 300..1200usize, 3000..5000usize];
    prop_oneof![
        5 => (0..2usize, 0..NAMES.len(), len.clone()).prop_map(|(inode, name, len)| Op::Set { inode, name, len }),
        2 => (0..2usize, 0..NAMES.len()).prop_map(|(inode, name)| Op::Remove { inode, name }),
        1 => (0..2usize, len).prop_map(|(inode, len)| Op::Write { inode, len }),
    ]
}

fn run_ops(options: &str, ops: &[Op]) {
    let mut scratch = Scratch::new(8, options);
    let inodes = [file(&scratch, "one"), file(&scratch, "two")];
    let mut model = [BTreeMap::new(), BTreeMap::new()];
    for op in ops {
        match *op {
            Op::Set { inode, name, len } => {
                let value: Vec<u8> = (0..len).map(|i| (i * 7 + name).to_le_bytes()[0]).collect();
                match set(&scratch, inodes[inode], NAMES[name], &value) {
                    Ok(()) => drop(model[inode].insert(BString::from(NAMES[name]), value)),
                    Err(Error::NoSpace(_)) => (),
                    Err(e) => panic!("{options}: {op:?}: {e}"),
                }
            }
            Op::Remove { inode, name } => {
                let there = model[inode].remove(BStr::new(NAMES[name])).is_some();
                match remove(&scratch, inodes[inode], NAMES[name]) {
                    Ok(()) => assert!(there, "{options}: {op:?}"),
                    Err(Error::NoAttribute) => assert!(!there, "{options}: {op:?}"),
                    Err(e) => panic!("{options}: {op:?}: {e}"),
                }
            }
            Op::Write { inode, len } => {
                scratch.writer().write(inodes[inode], 0, &vec![3; len]).expect("space");
            }
        }
        for (inode, model) in inodes.iter().zip(&model) {
            assert_eq!(all(&scratch, *inode), *model, "{options}: {op:?}");
        }
    }
    scratch.judge();
    for (inode, model) in inodes.iter().zip(&model) {
        assert_eq!(all(&scratch, *inode), *model, "{options}: afterwards");
        for name in model.keys() {
            scratch.writer().remove_xattr(*inode, name.as_ref()).expect("it is there");
        }
        scratch.writer().truncate(*inode, 0).expect("less");
        assert_eq!(scratch.fs().metadata(*inode).expect("metadata").blocks_512, 0, "{options}");
    }
    scratch.judge();
}

#[test]
fn attributes_like_a_model() {
    for options in [
        "-t ext4 -b 1024",
        "-t ext4 -b 4096 -I 512",
        "-t ext4 -b 4096 -I 128 -O ^metadata_csum",
        "-t ext4 -b 2048 -O inline_data",
        "-t ext2 -b 1024",
        "-t ext3 -b 4096",
        "-t ext4 -b 1024 -O ea_inode",
        "-t ext4 -b 4096 -O ea_inode,^metadata_csum -I 128",
    ] {
        let config =
            Config { cases: 8, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
        TestRunner::new(config)
            .run(&prop::collection::vec(op(), 5..60), |ops| {
                run_ops(options, &ops);
                Ok(())
            })
            .unwrap_or_else(|e| panic!("{options}: {e}"));
    }
}

#[test] // Of a block that two files share, each keeps what it had when the other changes.
fn shared_blocks_are_copied() {
    for options in [
        "-t ext4 -b 1024 -I 128",
        "-t ext4 -b 4096 -I 128 -O ^metadata_csum,^64bit",
        "-t ext2 -b 1024 -I 128",
    ] {
        let mut scratch = Scratch::new(8, options);
        let script = r#"
cd "$1"
for f in one two three four; do
    : > $f
    setfattr -n user.same -v "$(printf '%0300d' 7)" $f
    setfattr -n user.other -v same $f
done
"#;
        if !scratch.in_kernel(script) {
            return;
        }
        let references = |scratch: &Scratch| {
            let block = number_after(&debugfs(&scratch.image, "stat one"), "File ACL:");
            let dump = debugfs(&scratch.image, &format!("block_dump {block}"));
            u32::from_str_radix(dump.split_whitespace().nth(3).expect("bytes").get(..2).expect("a byte"), 16)
                .expect("a number")
        };
        assert_eq!(references(&scratch), 4, "{options}: the kernel has them share a block");
        let (free, before) = (scratch.free().0, all(&scratch, scratch.at("one")));
        set(&scratch, scratch.at("two"), "user.same", b"changed").expect("space");
        assert_eq!(scratch.free().0, free - 1, "{options}: a block of its own");
        remove(&scratch, scratch.at("three"), "user.same").expect("it is there");
        remove(&scratch, scratch.at("three"), "user.other").expect("it is there");
        scratch.judge();
        assert_eq!(references(&scratch), 2, "{options}");
        assert_eq!(all(&scratch, scratch.at("one")), before);
        assert_eq!(all(&scratch, scratch.at("four")), before);
        assert_eq!(all(&scratch, scratch.at("two")).len(), 2);
        assert!(all(&scratch, scratch.at("three")).is_empty());
        let w = scratch.writer();
        for name in ["one", "two", "three", "four"] {
            w.unlink(scratch.root(), BStr::new(name)).expect("it is there");
        }
        assert_eq!(scratch.free().0, free + 1, "{options}: both blocks are free");
        scratch.judge();
    }
}

#[test] // Large values have inodes of their own, which several attributes can refer to.
fn large_values_come_and_go() {
    let mut scratch = Scratch::new(8, "-t ext4 -b 1024 -O ea_inode");
    let empty = scratch.free();
    let script = r#"
cd "$1"
value=$(printf '%05000d' 7)
for f in one two three; do
    : > $f
    setfattr -n user.large -v "$value" $f
    setfattr -n user.too -v "$value" $f
done
"#;
    if !scratch.in_kernel(script) {
        return;
    }
    let value = vec![b'v'; 60_000];
    let root = scratch.root();
    set(&scratch, scratch.at("one"), "user.large", &value).expect("room");
    set(&scratch, scratch.at("two"), "user.ours", &value).expect("room");
    remove(&scratch, scratch.at("two"), "user.large").expect("it is there");
    let link = scratch.writer().symlink(root, BStr::new("link"), BStr::new("target"), NEW).expect("a link");
    // To e2fsck 1.47 its target would be block numbers, as it takes the value's blocks for the link's.
    assert!(matches!(set(&scratch, link, "trusted.large", &value), Err(Error::NoSpace(_))));
    scratch.judge();
    assert_eq!(scratch.fs().read_link(link).expect("a target"), "target");
    assert_eq!(all(&scratch, scratch.at("two")).len(), 2);
    // The kernel drops what we made, and we what it made.
    if scratch.in_kernel("setfattr -x user.ours \"$1/two\"; rm \"$1/one\"") {
        for name in ["two", "three", "link"] {
            scratch.writer().unlink(root, BStr::new(name)).expect("it is there");
        }
        assert_eq!(scratch.free(), empty);
    }
    scratch.judge();
}

#[test] // What we set the kernel changes, and what it set we do.
fn attributes_in_turns_with_the_kernel() {
    for options in ["-t ext4 -b 1024", "-t ext4 -b 4096 -O inline_data", "-t ext3 -b 2048 -I 128"] {
        let mut scratch = Scratch::new(8, options);
        let inode = file(&scratch, "file");
        scratch.writer().write(inode, 0, b"small").expect("space");
        for round in 0..5 {
            for size in [10, 100, 200] {
                set(&scratch, inode, &format!("user.ours-{round}-{size}"), &vec![b'x'; size / (round + 1)])
                    .unwrap_or_else(|e| panic!("{options}: {e}"));
            }
            let script = format!(
                r#"
cd "$1"
setfattr -n user.theirs-{round} -v {round} file
setfattr -n user.ours-{round}-10 -v "$(printf '%0{round}0d' 0)" file
setfattr -x user.ours-{round}-100 file
"#
            );
            if !scratch.in_kernel(&script) {
                return;
            }
            assert!(!all(&scratch, inode).contains_key(BStr::new(&format!("user.ours-{round}-100"))));
            remove(&scratch, inode, &format!("user.ours-{round}-200")).expect("it is there");
            scratch.judge();
        }
    }
}

#[test]
fn names_and_modes_are_checked() {
    let scratch = Scratch::new(8, "-t ext4 -b 1024");
    let (inode, root) = (file(&scratch, "file"), scratch.root());
    let w = scratch.writer();
    let link = w.symlink(root, BStr::new("link"), BStr::new("file"), NEW).expect("a link");
    assert!(matches!(set(&scratch, link, "user.a", b""), Err(Error::NotPermitted(_))));
    set(&scratch, link, "security.selinux", b"context").expect("links have contexts");
    assert!(matches!(
        set(&scratch, link, "system.posix_acl_access", &[2, 0, 0, 0]),
        Err(Error::Unsupported(_))
    ));
    assert!(matches!(set(&scratch, inode, "user.", b""), Err(Error::InvalidInput(_))));
    assert!(matches!(set(&scratch, inode, "system.data", b""), Err(Error::Unsupported(_))));
    assert!(matches!(set(&scratch, inode, "other.a", b""), Err(Error::Unsupported(_))));
    let long = format!("user.{}", "n".repeat(250));
    set(&scratch, inode, &long, b"v").expect("255 bytes");
    assert!(matches!(set(&scratch, inode, &format!("{long}n"), b""), Err(Error::NameTooLong { .. })));
    assert!(matches!(set(&scratch, inode, "user.large", &[0; 65537]), Err(Error::InvalidInput(_))));
    assert!(matches!(set(&scratch, inode, "user.large", &[0; 65536]), Err(Error::NoSpace(_))));
    let name = BStr::new("user.a");
    assert!(matches!(w.set_xattr(inode, name, b"1", XattrMode::Replace), Err(Error::NoAttribute)));
    w.set_xattr(inode, name, b"1", XattrMode::Create).expect("room");
    assert!(matches!(w.set_xattr(inode, name, b"2", XattrMode::Create), Err(Error::Exists)));
    w.set_xattr(inode, name, b"2", XattrMode::Replace).expect("room");
    assert!(matches!(remove(&scratch, inode, "user.b"), Err(Error::NoAttribute)));
    assert_eq!(all(&scratch, inode)[name], b"2");
}

/// An ACL as `setxattr` takes it: tags, permissions and numbers.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

const ANY: u32 = u32::MAX;

#[test] // Two files, one through us and one through the kernel, end up the same.
fn acls_as_the_kernel_sets_them() {
    if !can_mount("ACLs") {
        return;
    }
    let access = "system.posix_acl_access";
    let default = "system.posix_acl_default";
    for options in ["-t ext4 -b 4096", "-t ext2 -b 1024 -I 128"] {
        let mut scratch = Scratch::new(8, options);
        let acls: [(&str, Vec<u8>); 9] = [
            ("minimal", acl(&[(1, 6, ANY), (4, 4, ANY), (0x20, 0, ANY)])),
            (
                "named",
                acl(&[(1, 7, ANY), (2, 5, 1000), (4, 4, ANY), (8, 2, 2000), (0x10, 6, ANY), (0x20, 1, ANY)]),
            ),
            ("masked", acl(&[(1, 7, ANY), (4, 7, ANY), (0x10, 0, ANY), (0x20, 5, ANY)])),
            ("none", acl(&[])),
            ("no mask", acl(&[(1, 7, ANY), (2, 5, 1000), (4, 4, ANY), (0x20, 1, ANY)])),
            ("no owner", acl(&[(4, 4, ANY), (0x20, 1, ANY)])),
            ("out of order", acl(&[(4, 4, ANY), (1, 6, ANY), (0x20, 1, ANY)])),
            ("permissions", acl(&[(1, 8, ANY), (4, 4, ANY), (0x20, 1, ANY)])),
            ("a number", acl(&[(1, 6, ANY), (4, 4, ANY), (0x20, 1, ANY)])[..27].to_vec()),
        ];
        for (what, value) in &acls {
            for (attribute, is_dir) in [(access, false), (access, true), (default, true), (default, false)] {
                let label = format!("{}-{is_dir}-{}", what.replace(' ', "-"), &attribute[17..]);
                let (ours, theirs) = (format!("ours-{label}"), format!("theirs-{label}"));
                let w = scratch.writer();
                for name in [&ours, &theirs] {
                    match is_dir {
                        true => w.mkdir(scratch.root(), BStr::new(name), NEW_DIR),
                        false => w.create(scratch.root(), BStr::new(name), NEW),
                    }
                    .expect("a new inode");
                }
                let result = set(&scratch, scratch.at(&ours), attribute, value);
                let hex: String = value.iter().map(|b| format!("{b:02x}")).collect();
                let status = scratch.lend(|image| {
                    let mount = Mount::new(image, "acl,noatime");
                    let file = mount.path().join(&theirs);
                    testkit::run("setfattr", ["-n", attribute, "-v", &format!("0x{hex}"), name(&file)]).status
                });
                let set_default_of_file = attribute == default && !is_dir;
                if !(set_default_of_file && *what == "none") {
                    assert_eq!(result.is_ok(), status.success(), "{options}: {label}: {result:?}");
                }
                let (ours, theirs) = (scratch.at(&ours), scratch.at(&theirs));
                assert_eq!(mode(&scratch, ours), mode(&scratch, theirs), "{options}: {label}");
                assert_eq!(all(&scratch, ours), all(&scratch, theirs), "{options}: {label}");
            }
        }
        scratch.judge();
    }
}

#[test] // `chmod` of a file with an ACL changes the ACL.
fn permissions_and_acls_go_together() {
    let mut scratch = Scratch::new(8, "-t ext4");
    let (ours, theirs) = (file(&scratch, "ours"), file(&scratch, "theirs"));
    let value = acl(&[(1, 7, ANY), (2, 5, 1000), (4, 4, ANY), (0x10, 6, ANY), (0x20, 1, ANY)]);
    for inode in [ours, theirs] {
        set(&scratch, inode, "system.posix_acl_access", &value).expect("room");
        assert_eq!(mode(&scratch, inode), 0o761);
    }
    let permissions = SetMetadata { permissions: Some(0o4512), ..SetMetadata::default() };
    scratch.writer().set_metadata(ours, &permissions).expect("a change");
    if scratch.in_kernel("chmod 4512 \"$1/theirs\"") {
        assert_eq!(all(&scratch, ours), all(&scratch, theirs));
        assert_eq!(mode(&scratch, ours), mode(&scratch, theirs));
    }
    scratch.writer().remove_xattr(ours, BStr::new("system.posix_acl_access")).expect("it is there");
    assert_eq!(mode(&scratch, ours), 0o4512, "taking it away leaves the permissions");
    scratch.judge();
}

#[test] // What is made in a directory with a default ACL starts as the kernel has it start.
fn default_acls_are_inherited() {
    let mut scratch = Scratch::new(8, "-t ext4");
    let w = scratch.writer();
    let value = acl(&[(1, 7, ANY), (2, 5, 1000), (4, 5, ANY), (0x10, 6, ANY), (0x20, 1, ANY)]);
    let plain = acl(&[(1, 7, ANY), (4, 5, ANY), (0x20, 1, ANY)]);
    for (name, value) in [("rich", value), ("plain", plain)] {
        let dir = w.mkdir(scratch.root(), BStr::new(name), NEW_DIR).expect("a directory");
        set(&scratch, dir, "system.posix_acl_default", &value).expect("room");
        w.create(dir, BStr::new("our-file"), NEW).expect("a file");
        w.mkdir(dir, BStr::new("our-dir"), NEW_DIR).expect("a directory");
        w.symlink(dir, BStr::new("our-link"), BStr::new("target"), NEW).expect("a link");
    }
    let script = r#"
umask 0
for d in rich plain; do
    cd "$1/$d"
    python3 -c 'import os; os.close(os.open("their-file", os.O_CREAT | os.O_WRONLY, 0o640)); os.mkdir("their-dir", 0o755)'
    cd /
done
"#;
    if !scratch.in_kernel(script) {
        return;
    }
    for dir in ["rich", "plain"] {
        for kind in ["file", "dir"] {
            let (ours, theirs) =
                (scratch.at(&format!("{dir}/our-{kind}")), scratch.at(&format!("{dir}/their-{kind}")));
            assert_eq!(mode(&scratch, ours), mode(&scratch, theirs), "{dir}/{kind}");
            assert_eq!(all(&scratch, ours), all(&scratch, theirs), "{dir}/{kind}");
        }
    }
    scratch.judge();
}

#[test] // A program that is changed has its capabilities no longer, as in the kernel.
fn capabilities_go_when_content_changes() {
    let mut scratch = Scratch::new(8, "-t ext4");
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let inode = file(&scratch, "program");
    for change in 0..4 {
        let w = scratch.writer();
        w.write(inode, 0, b"content").expect("space");
        set(&scratch, inode, "security.capability", &capability).expect("room");
        set(&scratch, inode, "security.selinux", b"context").expect("room");
        match change {
            0 => w.write(inode, 3, b"x"),
            1 => w.truncate(inode, 2),
            2 => w.allocate(inode, 0, 10_000, false),
            _ => w.punch_hole(inode, 0, 2),
        }
        .expect("a change");
        assert_eq!(all(&scratch, inode).len(), 1, "{change}");
    }
    scratch.judge();
}

#[test] // A damaged place of attributes is refused, and not written over.
fn damaged_attributes_are_not_changed() {
    let mut scratch = Scratch::new(8, "-t ext4 -b 1024 -I 128 -O ^metadata_csum");
    let inode = file(&scratch, "file");
    set(&scratch, inode, "user.name", &[b'v'; 200]).expect("room");
    set(&scratch, inode, "user.more", &[b'w'; 200]).expect("room");
    scratch.judge();
    let block = number_after(&debugfs(&scratch.image, "stat file"), "File ACL:");
    for (what, at, bytes) in [
        ("magic", 2u64, &[0u8][..]),
        ("two blocks", 8, &[2]),
        ("a value beyond the end", 32 + 2, &[0xf0, 0xff]),
        ("a long name", 32, &[0xff]),
        ("a large value", 32 + 8, &[0xff, 0xff, 0xff, 0x7f]),
    ] {
        let write = |scratch: &mut Scratch, bytes: &[u8]| {
            scratch.lend(|image| {
                use std::os::unix::fs::FileExt;
                let file = std::fs::File::options().read(true).write(true).open(image).expect("the image");
                let mut old = vec![0; bytes.len()];
                file.read_exact_at(&mut old, block * 1024 + at).expect("the block");
                file.write_all_at(bytes, block * 1024 + at).expect("the block");
                old
            })
        };
        let old = write(&mut scratch, bytes);
        let results = [
            set(&scratch, inode, "user.new", b"v"),
            remove(&scratch, inode, "user.name"),
            scratch.writer().unlink(scratch.root(), BStr::new("file")),
        ];
        for (index, result) in results.iter().enumerate() {
            assert!(matches!(result, Err(Error::Corrupt { .. })), "{what}: {index}: {result:?}");
        }
        write(&mut scratch, &old);
    }
    scratch.judge();
}

#[test] // Else e2fsck does not count the block of the attributes as the file's.
fn attributes_where_the_volume_does_not_say_that_it_has_any() {
    for options in ["-t ext2 -b 1024 -r 0", "-t ext4 -b 1024 -O ^ext_attr -I 128"] {
        let mut scratch = Scratch::new(8, options);
        let inode = file(&scratch, "file");
        set(&scratch, inode, "user.name", b"value").unwrap_or_else(|e| panic!("{options}: {e}"));
        scratch.judge();
        assert_eq!(all(&scratch, inode)[BStr::new("user.name")], b"value", "{options}");
    }
}
