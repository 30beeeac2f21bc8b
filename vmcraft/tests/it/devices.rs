//! Devices that lie, and containers that are not opened.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use testkit::{require, run_ok, tempdir};
use vmcraft::Guest;

use crate::drives::{disk, refused, text};

/// Partitions a disk by a script of `sfdisk`.
fn sfdisk(image: &Path, script: &str) {
    use std::io::Write;
    let mut child = Command::new(require("sfdisk"))
        .args(["-q", "--no-reread", "--no-tell-kernel", text(image)])
        .stdin(Stdio::piped())
        .spawn()
        .expect("sfdisk runs");
    child.stdin.take().expect("it is piped").write_all(script.as_bytes()).expect("sfdisk reads its script");
    assert!(child.wait().expect("sfdisk ends").success());
}

fn launched(image: &Path) -> Guest {
    let mut guest = Guest::new();
    guest.add_drive_ro(text(image)).expect("it is there");
    guest.launch().expect("it opens");
    guest
}

/// Writes a volume into a disk at a sector.
fn put(image: &Path, sector: usize, volume: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().write(true).open(image).expect("the disk is there");
    file.write_all_at(volume, sector as u64 * 512).expect("space on the disk");
}

#[test] // Listed, warned of, and refused with image, partition and bytes when opened.
fn partition_beyond_the_end_of_the_disk_is_refused_when_opened() {
    let dir = tempdir();
    let image = disk(dir.path(), "disk.img", 16);
    sfdisk(&image, "label: dos\nstart=2048, size=4096, type=83\nstart=8192, size=16384, type=83\n");
    fs::File::options().write(true).open(&image).and_then(|f| f.set_len(8 << 20)).expect("it can be cut");
    let mut guest = launched(&image);
    let warnings = guest.take_warnings();
    assert!(
        warnings.iter().any(|w| w.contains(text(&image)) && w.contains("partition 2 ends")),
        "{warnings:?}"
    );
    assert_eq!(guest.list_partitions().expect("a table"), ["/dev/sda1", "/dev/sda2"]);
    let kinds = guest.list_filesystems().expect("readable");
    assert_eq!(kinds[1], ("/dev/sda2".into(), "unknown".into()));
    for call in ["blockdev-getsize64", "vfs-type"] {
        let parts = ["/dev/sda2", text(&image), "0x400000", "0xc00000", "ends at byte 0x800000"];
        refused(&mut guest, &[call, "/dev/sda2"], &parts);
    }
    refused(&mut guest, &["mount", "/dev/sda2", "/"], &["/dev/sda2", "0xc00000"]);
}

#[test] // The first header is damaged: everything works, and the user is told.
fn gpt_from_the_backup_warns_at_launch() {
    let dir = tempdir();
    let image = disk(dir.path(), "disk.img", 16);
    sfdisk(&image, "label: gpt\nstart=2048, size=4096, name=first\n");
    put(&image, 1, b"damaged!");
    let mut guest = launched(&image);
    let warnings = guest.take_warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains(text(&image)) && warnings[0].contains("the backup at byte"), "{warnings:?}");
    assert_eq!(guest.part_get_name("/dev/sda".into(), 1).expect("a name"), "first");
    assert_eq!(guest.findfs_partlabel("first").expect("found"), "/dev/sda1");
    let guid = guest.part_get_gpt_guid("/dev/sda".into(), 1).expect("a GUID");
    assert_eq!(guest.findfs_partuuid(&guid.to_lowercase()).expect("found"), "/dev/sda1");
    assert!(guest.findfs_partuuid("nonesuch").is_err());
}

#[test] // Both copies are damaged: the disk opens, its partitions do not, and the reason is said.
fn unusable_table_is_named_by_calls() {
    let dir = tempdir();
    let image = disk(dir.path(), "disk.img", 16);
    sfdisk(&image, "label: gpt\nstart=2048, size=4096\n");
    put(&image, 1, &[0xff; 512]);
    put(&image, (16 << 11) - 1, &[0xff; 512]);
    let mut guest = launched(&image);
    assert!(guest.take_warnings()[0].contains("GPT"));
    assert_eq!(guest.list_partitions().expect("none"), Vec::<String>::new());
    for words in [&["part-list", "/dev/sda"][..], &["vfs-type", "/dev/sda1"]] {
        refused(&mut guest, words, &["/dev/sda", "corrupt GPT header: signature"]);
    }
}

/// A physical volume's first sectors, as far as they are looked at.
fn lvm_label() -> Vec<u8> {
    let mut label = vec![0; 4096];
    label[512..520].copy_from_slice(b"LABELONE");
    label[520] = 1;
    label[532] = 32;
    label[536..544].copy_from_slice(b"LVM2 001");
    label[544..576].copy_from_slice(b"abcdefghijklmnopqrstuvwxyz012345");
    testkit::seal::lvm_label(&mut label[512..]);
    label
}

#[test] // A type or a label alone makes no volume, and what is a part of one is no file system.
fn parts_of_volumes_are_no_file_systems() {
    let dir = tempdir();
    let image = disk(dir.path(), "disk.img", 16);
    sfdisk(&image, "label: dos\nstart=2048, size=8192, type=8e\nstart=10240, size=2048, type=42\n");
    let guest = launched(&image);
    let lists =
        [Guest::vgs, Guest::lvs, Guest::list_md_devices, Guest::list_dm_devices, Guest::list_ldm_volumes];
    for list in lists.into_iter().chain([Guest::pvs as fn(&Guest) -> _]) {
        assert_eq!(list(&guest).expect("none"), Vec::<String>::new());
    }

    put(&image, 2048, &lvm_label());
    let mut guest = launched(&image);
    assert_eq!(
        run_ok("blkid", ["-p", "-O", "1048576", "-o", "value", "-s", "TYPE", text(&image)]).trim(),
        "LVM2_member"
    );
    assert_eq!(guest.pvs().expect("one"), ["/dev/sda1"]);
    for list in lists {
        assert_eq!(list(&guest).expect("none"), Vec::<String>::new());
    }
    refused(&mut guest, &["mount", "/dev/sda1", "/"], &["/dev/sda1", "LVM2_member"]);
    // Neither the member nor the part of a dynamic disk is a file system.
    assert_eq!(guest.list_filesystems().expect("readable"), []);
}

#[test] // Type bytes become the GUIDs that sgdisk would convert them to.
fn mbr_types_have_the_guids_of_sgdisk() {
    let dir = tempdir();
    let mut known = 0;
    for first in (1..=0xff_u32).step_by(4) {
        let image = disk(dir.path(), "disk.img", 8);
        let types: Vec<_> =
            (first..first + 4).filter(|t| *t < 0xee && ![0x05, 0x0f, 0x85].contains(t)).collect();
        let entries = types
            .iter()
            .enumerate()
            .map(|(i, t)| format!("start={}, size=2048, type={t:x}\n", 2048 * (i + 1)));
        sfdisk(&image, &format!("label: dos\n{}", entries.collect::<String>()));
        let guest = launched(&image);
        for (number, kind) in (1..).zip(&types) {
            let info = run_ok("sgdisk", ["-i", &number.to_string(), text(&image)]);
            let theirs =
                info.lines().find_map(|line| line.strip_prefix("Partition GUID code: ")).expect("a GUID");
            // Where no type corresponds, sgdisk goes by its own codes, or takes Linux.
            if let Ok(ours) = guest.part_get_gpt_type("/dev/sda".into(), number) {
                assert_eq!(Some(ours.as_str()), theirs.split(' ').next(), "type {kind:#x}");
                known += 1;
            }
        }
    }
    assert!(known > 25, "{known}");
}
