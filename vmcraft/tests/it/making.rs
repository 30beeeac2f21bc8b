//! File systems and swap space that calls make, as other tools see them.

use std::path::{Path, PathBuf};

use testkit::{run, run_ok};
use vmcraft::Guest;

fn blank(dir: &Path, mib: u64) -> PathBuf {
    let image = dir.join("image");
    std::fs::File::create(&image).and_then(|file| file.set_len(mib << 20)).unwrap();
    image
}

fn writable(image: &Path) -> Guest {
    let mut guest = Guest::new();
    let name = image.to_str().unwrap();
    let n = None;
    guest.add_drive(name, None, Some("raw"), n, n, n, n, None, n, n, n, n, None, None, n).unwrap();
    guest.launch().unwrap();
    guest
}

fn blkid(image: &Path) -> String {
    run_ok("blkid", ["-p".as_ref(), "-o".as_ref(), "export".as_ref(), image.as_os_str()])
}

#[test]
fn a_file_system_is_made_labelled_and_checked() {
    let dir = testkit::tempdir();
    let image = blank(dir.path(), 64);
    let mut guest = writable(&image);
    let sda = "/dev/sda".into();
    guest.mkfs("ext4", sda, Some(4096), Some("^metadata_csum"), None, None, Some("one".into())).unwrap();
    assert_eq!(guest.vfs_label("/dev/sda".into()).unwrap(), "one");
    guest.mount("/dev/sda".into(), "/".into()).unwrap();
    assert!(guest.is_dir("/lost+found".into(), None).unwrap());
    let busy = guest.mkfs("ext2", sda, None, None, None, None, None).unwrap_err();
    assert!(busy.to_string().contains("is mounted"), "{busy}");
    guest.umount_all().unwrap();
    guest.commit().unwrap();
    drop(guest);
    let seen = blkid(&image);
    assert!(seen.contains("LABEL=one") && seen.contains("BLOCK_SIZE=4096"), "{seen}");
    assert!(run("e2fsck", ["-fn".as_ref(), image.as_os_str()]).status.success());
}

#[test] // As large as e2fsprogs make it, so that e2fsck finds room there.
fn lost_and_found_is_made_again() {
    for (kind, block_size) in [("ext2", 1024), ("ext4", 4096)] {
        let dir = testkit::tempdir();
        let image = blank(dir.path(), 64);
        let mut guest = writable(&image);
        let size =
            |guest: &Guest| guest.stat("/lost+found".into()).map(|stat| (stat.size, stat.mode)).unwrap();
        guest.mkfs(kind, "/dev/sda".into(), Some(block_size), None, None, None, None).unwrap();
        guest.mount("/dev/sda".into(), "/".into()).unwrap();
        let made = size(&guest);
        let there = guest.mklost_and_found("/".into()).unwrap_err().to_string();
        assert!(there.contains("/lost+found: file exists"), "{there}");
        guest.rmdir("/lost+found".into()).unwrap();
        guest.mklost_and_found("/".into()).unwrap();
        assert!(guest.ls("/lost+found".into()).unwrap().is_empty());
        assert!(size(&guest).0 >= 16384 && size(&guest).1 == made.1, "{:?} {made:?}", size(&guest));
        guest.umount_all().unwrap();
        guest.commit().unwrap();
        drop(guest);
        assert!(run("e2fsck", ["-fn".as_ref(), image.as_os_str()]).status.success());
    }
}

#[test] // A refusal leaves what the device held.
fn what_cannot_be_made_changes_nothing() {
    let dir = testkit::tempdir();
    let image = blank(dir.path(), 8);
    let mut guest = writable(&image);
    let sda = "/dev/sda".into();
    for (kind, features, expected) in [
        ("zfs", None, "this version makes ext2, ext3, ext4"),
        ("ext4", Some("bigalloc"), "bigalloc"),
        ("ext4", Some("nonsense"), "nonsense"),
    ] {
        let error = guest.mkfs(kind, sda, None, features, None, None, None).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    assert!(!guest.is_changed().unwrap());
}

#[test]
fn swap_space_is_made() {
    let dir = testkit::tempdir();
    let image = blank(dir.path(), 8);
    let mut guest = writable(&image);
    let uuid = "9f2b0a3e-5a39-4a0f-8a5e-3f4f6f0c2f11";
    guest.mkswap("/dev/sda".into(), Some("pages".into()), Some(uuid)).unwrap();
    assert!(guest.mkswap("/dev/sda".into(), Some("longer than sixteen".into()), None).is_err());
    guest.commit().unwrap();
    drop(guest);
    let seen = blkid(&image);
    for line in ["TYPE=swap", "LABEL=pages", &format!("UUID={uuid}"), "VERSION=1"] {
        assert!(seen.lines().any(|l| l == line), "{line} in {seen}");
    }
}

#[test] // Oracle: blkid sees nothing of what was there, nor do we.
fn signatures_are_erased() {
    let dir = testkit::tempdir();
    let image = blank(dir.path(), 64);
    run_ok("sgdisk", ["-n".as_ref(), "1:2048:+32M".as_ref(), image.as_os_str()]);
    let mut guest = writable(&image);
    guest.mkfs("ext4", "/dev/sda1".into(), None, None, None, None, None).unwrap();
    guest.mount("/dev/sda1".into(), "/".into()).unwrap();
    for device in ["/dev/sda", "/dev/sda1"] {
        let busy = guest.wipefs(device.into()).unwrap_err();
        assert!(busy.to_string().contains("is mounted"), "{busy}");
    }
    guest.umount_all().unwrap();
    guest.wipefs("/dev/sda1".into()).unwrap();
    assert_eq!(guest.vfs_type("/dev/sda1".into()).unwrap(), "");
    guest.mkfs("ext2", "/dev/sda1".into(), None, None, None, None, None).unwrap();
    guest.wipefs("/dev/sda".into()).unwrap();
    assert_eq!(guest.list_partitions().unwrap(), Vec::<String>::new());
    guest.commit().unwrap();
    drop(guest);
    assert_eq!(run_ok("wipefs", ["-n".as_ref(), image.as_os_str()]), "");
    assert_eq!(run("blkid", ["-p".as_ref(), image.as_os_str()]).status.code(), Some(2));
}
