//! Mounting on real images.

use vmcraft::Guest;

use crate::sample::{Sample, make_image};

#[test]
fn mounts_are_listed_and_taken_away() {
    let sample = Sample::new();
    let mut guest = sample.guest();
    guest.mount_options("ro,noload", "/dev/vda".into(), "/dir".into()).unwrap();
    assert_eq!(guest.mounts().unwrap(), ["/dev/sda", "/dev/sda"]);
    let mountpoints = guest.mountpoints().unwrap();
    assert_eq!(mountpoints, [("/dev/sda".into(), "/".into()), ("/dev/sda".into(), "/dir".into())]);
    // Two mounts of one device do not lead into each other for ever.
    assert!(guest.exists("/dir/dir/sub".into()).unwrap());
    assert!(guest.umount("/".into(), None, None).unwrap_err().to_string().contains("busy"));
    assert!(guest.umount("/etc".into(), None, None).is_err());
    guest.umount("/dev/xvda".into(), Some(true), None).unwrap();
    assert!(guest.exists("/dir/sub".into()).unwrap());
    guest.umount_all().unwrap();
    assert!(guest.ls("/".into()).unwrap_err().to_string().contains("no file system is mounted"));
}

#[test]
fn several_trees_stand_side_by_side() {
    let sample = Sample::new();
    let mut guest = Guest::open(sample.image()).unwrap();
    guest.mkmountpoint("/a".into()).unwrap();
    guest.mkmountpoint("/b".into()).unwrap();
    guest.mount_ro("/dev/sda".into(), "/a".into()).unwrap();
    guest.mount_ro("/dev/sda".into(), "/b".into()).unwrap();
    assert_eq!(guest.ls("/".into()).unwrap(), ["a", "b"]);
    // An absolute link leads to the root of all, as it would for a kernel.
    assert!(!guest.is_dir("/a/abs".into(), Some(true)).unwrap());
    assert!(guest.is_file("/b/link".into(), Some(true)).unwrap());
    assert!(guest.rmmountpoint("/a".into()).is_err());
    guest.umount("/a".into(), None, None).unwrap();
    guest.rmmountpoint("/a".into()).unwrap();
    assert_eq!(guest.ls("/".into()).unwrap(), ["b"]);
}

#[test] // A file system in a file in a file system.
fn images_inside_the_guest_are_mounted() {
    let sample = Sample::new();
    let dir = testkit::tempdir();
    let outer = dir.path().join("outer");
    std::fs::create_dir_all(outer.join("mnt")).unwrap();
    let inner_tree = dir.path().join("inner");
    std::fs::create_dir(&inner_tree).unwrap();
    std::fs::write(inner_tree.join("hello"), "from inside\n").unwrap();
    let inner = outer.join("inner.img");
    std::fs::File::create(&inner).and_then(|file| file.set_len(1 << 20)).unwrap();
    testkit::run_ok("mke2fs", ["-q".as_ref(), "-d".as_ref(), inner_tree.as_os_str(), inner.as_os_str()]);
    let image = dir.path().join("image");
    make_image(&outer, &image);
    let mut guest = Guest::open(&image).unwrap();
    guest.mount("/dev/sda".into(), "/".into()).unwrap();
    guest.mount_loop("/inner.img".into(), "/mnt".into()).unwrap();
    assert_eq!(guest.read("/mnt/hello").unwrap(), b"from inside\n");
    assert_eq!(guest.mounts().unwrap(), ["/dev/sda", "/dev/loop0"]);
    assert!(guest.file("/inner.img".into()).unwrap().contains("ext2"));
    guest.umount("/dev/loop0".into(), None, None).unwrap();
    assert!(!guest.exists("/mnt/hello".into()).unwrap());
    // What is no file system is named, and so is what is no file.
    drop(guest);
    let mut guest = sample.guest();
    let refused = guest.mount_loop("/random".into(), "/dir".into()).unwrap_err().to_string();
    assert!(refused.starts_with("/random: "), "{refused}");
    assert_eq!(guest.mount_loop("/dir".into(), "/empty".into()).unwrap_err().errno(), 21);
}

#[test] // A mount takes changes unless it is told not to, and options are understood or refused.
fn mounts_are_read_only_where_asked_for() {
    let sample = Sample::new();
    let mut guest = Guest::open(sample.image()).unwrap();
    let is_read_only = |guest: &Guest| guest.vfs().mounts()[0].read_only;
    guest.mount_ro("/dev/sda".into(), "/".into()).unwrap();
    assert!(is_read_only(&guest));
    guest.remount("/".into(), Some(true)).unwrap();
    assert!(!is_read_only(&guest));
    guest.umount_all().unwrap();
    guest.mount_options("ro,rw", "/dev/sda".into(), "/".into()).unwrap();
    assert!(!is_read_only(&guest));
    guest.remount("/".into(), Some(false)).unwrap();
    assert!(is_read_only(&guest));
    assert_eq!(guest.take_warnings(), [""; 0]);
    assert!(guest.remount("/".into(), None).unwrap_err().to_string().contains("rw:true or rw:false"));
    assert!(guest.remount("/etc".into(), Some(false)).unwrap_err().to_string().contains("not mounted"));
    assert_eq!(guest.mkmountpoint("/new".into()).unwrap_err().errno(), 95);
    for (refused, what) in [
        (guest.mount_options("bogus", "/dev/sda".into(), "/dir".into()), "bogus"),
        (guest.mount_vfs("", "xfs", "/dev/sda".into(), "/dir".into()), "not xfs"),
        (guest.mount("/dev/sdb".into(), "/dir".into()), "/dev/sdb: no such device"),
        (guest.mount("btrfsvol:/dev/sda/x".into(), "/dir".into()), "btrfs"),
        (guest.mount("/dev/sda".into(), "/few".into()), "/few: not a directory"),
    ] {
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains(what), "{refused}");
    }
}
