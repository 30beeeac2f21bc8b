//! Cpio archives of the programs whose format it is, and such as mean harm.

use std::fs;

use super::tests::{Sample, assert_same, empty_sample, guest_tree, host_tree};
use crate::testing::MemoryFs;
use crate::testing::script::tree;
use crate::value::{FileIn, FileOut};

#[test] // Oracle: GNU cpio and bsdcpio, of which each has its own way with hard links.
fn archives_of_cpio_programs_are_unpacked() {
    let sample = Sample::new();
    // The formats have no place for a minor number as large, and bsdcpio stores other permissions for a
    // file with a list.
    sample.shell("rm -f tree/disk; setfacl -bR tree; printf more > tree/a/f");
    sample.shell("find tree -exec touch -h -d '2001-02-03 04:05:06' {} +");
    for (what, command) in [
        ("newc", "cpio -o -H newc"),
        ("crc", "cpio -o -H crc"),
        ("odc", "cpio -o -H odc"),
        ("bsdcpio newc", "bsdcpio -o -H newc"),
        ("bsdcpio odc", "bsdcpio -o -H odc"),
        ("gzip", "cpio -o -H newc | gzip"),
        ("xz", "cpio -o -H newc | xz -0"),
        ("zstd", "cpio -o -H newc | zstd -q"),
    ] {
        sample.shell(&format!("cd tree; find . | {command} > ../a.cpio 2> ../messages"));
        let mut guest = MemoryFs::new().dir("/t").guest();
        guest.cpio_in(&sample.file("a.cpio"), "/t".into()).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_same(&guest_tree(&guest, "/t", false), &host_tree(&sample.tree(), false), what);
        assert!(guest.take_warnings().is_empty(), "{what}");
        assert_eq!(guest.read("/t/a/b/hard").unwrap(), b"more", "{what}");
        // What our writer keeps, our reader reads.
        let out = FileOut::Path(sample.dir.path().join("b.cpio"));
        guest.cpio_out("/t".into(), &out, Some("crc")).unwrap();
        let mut again = MemoryFs::new().guest();
        again.cpio_in(&sample.file("b.cpio"), "/".into()).unwrap();
        assert_same(&guest_tree(&again, "/", false), &guest_tree(&guest, "/t", false), "cpio-out");
    }
}

/// A member of an archive in the format `newc`.
fn member(name: &str, mode: u32, inode: u32, links: u32, content: &str) -> Vec<u8> {
    let (size, name_len) = (content.len(), name.len() + 1);
    let mut bytes = format!(
        "070701{inode:08X}{mode:08X}{0:08X}{0:08X}{links:08X}{0:08X}{size:08X}{0:08X}{0:08X}{0:08X}{0:08X}{name_len:08X}{0:08X}{name}\0",
        0
    )
    .into_bytes();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(content.bytes());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn file(name: &str) -> Vec<u8> {
    member(name, 0o100_644, 1, 1, "new")
}

fn link(name: &str, target: &str) -> Vec<u8> {
    member(name, 0o120_777, 1, 1, target)
}

fn named(name: &str, content: &str) -> Vec<u8> {
    member(name, 0o100_644, 7, 2, content)
}

fn archive(sample: &Sample, members: &[Vec<u8>]) -> FileIn {
    let whole = [members.concat(), member("TRAILER!!!", 0, 0, 1, "")].concat();
    fs::write(sample.dir.path().join("evil.cpio"), whole).unwrap();
    sample.file("evil.cpio")
}

#[test] // Each would write outside of the directory that the user named, or what is no file.
fn archives_cannot_lead_out() {
    let sample = empty_sample();
    for (members, reason) in [
        (vec![file("../x")], "member ../x: its name contains '..'"),
        (vec![file("")], "it has no name"),
        (vec![file("a\0b")], "member a\0b: its name has a NUL byte"),
        (
            vec![link("out", "/etc"), file("out/passwd")],
            "/t/out is a symbolic link of the archive that leads out",
        ),
        (vec![link("l", "")], "it is a symbolic link that leads nowhere"),
        (vec![link("l", "a\0b")], "it is a symbolic link with a NUL byte"),
        (vec![link("l", &"x".repeat(70_000))], "a symbolic link's target of 70000 bytes"),
        (vec![member("x", 0o644, 1, 1, "")], "member x: its mode 644 is of no type"),
        // The second name of a file whose first one leads elsewhere by now.
        (
            vec![named("f", ""), link("f", "/etc/passwd"), named("g", "bad")],
            "member g: the first name of its file is another file's by now",
        ),
        (
            vec![named("a/f", ""), member("a/f", 0o40755, 1, 1, ""), named("g", "bad")],
            "/t/g: operation not permitted: a directory has one name",
        ),
    ] {
        let mut guest = MemoryFs::new().file("/etc/passwd", "old").dir("/t").guest();
        let refused = guest.cpio_in(&archive(&sample, &members), "/t".into()).unwrap_err().to_string();
        assert!(refused.contains(reason), "{reason}: {refused}");
        assert_eq!(tree(&guest, "/etc").len(), 2, "{reason}");
        assert_eq!(guest.read("/etc/passwd").unwrap(), b"old", "{reason}");
    }
}

#[test]
fn what_is_no_archive_is_refused() {
    let sample = empty_sample();
    let mut guest = MemoryFs::new().dir("/t").guest();
    let mut refused = |content: &[u8]| {
        fs::write(sample.dir.path().join("x"), content).unwrap();
        guest.cpio_in(&sample.file("x"), "/t".into()).unwrap_err().to_string()
    };
    assert!(refused(b"").contains("x: cannot unpack: this is not a cpio archive"));
    assert!(refused(&[b'x'; 600]).contains("this is not a cpio archive"));
    assert!(refused(b"\xc7\x71 old").contains("cpio archives in the old binary format"));
    let whole = file("f");
    assert!(refused(&whole).contains("the archive ends in the middle"));
    assert!(refused(&whole[..50]).contains("the archive ends in the middle, before byte 50"));
    assert!(refused(&[&whole[..], &[b'x'; 200]].concat()).contains("a member's header is damaged"));
    let mut damaged = whole.clone();
    damaged[20] = b'+';
    assert!(refused(&damaged).contains("a member's header is damaged"));
    let mut damaged = whole.clone();
    damaged[94..102].copy_from_slice(b"FFFFFFFF");
    assert!(refused(&damaged).contains("a name of 4294967295 bytes"));
    let mut wrong_sum = whole;
    wrong_sum[..6].copy_from_slice(b"070702");
    assert!(refused(&wrong_sum).contains("member f: its checksum is wrong"));
}

#[test] // Any byte of an archive can be anything: errors, but no panic and nothing endless.
fn damaged_archives_are_refused_or_unpacked() {
    let sample = Sample::new();
    sample.shell("rm -rf tree/big tree/manyholes tree/end tree/holes; cd tree; find . > ../names");
    for format in ["newc", "odc"] {
        sample.shell(&format!("cd tree; cpio -o -H {format} < ../names > ../a.cpio 2> ../messages"));
        let whole = fs::read(sample.dir.path().join("a.cpio")).unwrap();
        let mut random = 12345_u64;
        for _ in 0..300 {
            let mut damaged = whole.clone();
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (random >> 33) as usize % whole.len();
            damaged[at] = b"0123456789ABCDEF\0/.x"[(random >> 20) as usize % 20];
            fs::write(sample.dir.path().join("c.cpio"), &damaged).unwrap();
            let mut guest = MemoryFs::new().with_blocks(4096).guest();
            // Whichever it is.
            let _ = guest.cpio_in(&sample.file("c.cpio"), "/".into());
        }
    }
}
