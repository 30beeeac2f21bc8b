//! Archives of the programs whose formats these are, and archives that mean harm.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use bstr::{BString, ByteSlice, ByteVec};

use crate::testing::MemoryFs;
use crate::testing::script::{run, tree};
use crate::value::{FileIn, FileOut};
use crate::vfs::LastLink;
use crate::walk::Walk;
use crate::{Guest, GuestPath, Result};

/// A file of each kind, with names, times and holes that archives have trouble with.
const TREE: &str = r#"
set -eu; umask 022
mkdir -p a/b/c empty "sp ace"; mkdir -p "$(printf 'd%.0s' $(seq 120))/$(printf 'e%.0s' $(seq 150))"
printf content > a/f; chmod 4755 a/f; ln a/f a/b/hard; ln -s ../f a/b/c/up; ln -s b/c a/down
ln -s "$(printf 't%.0s' $(seq 200))" longlink; mkfifo a/fifo; printf x > "$(printf 'latin-\351')"
printf y > "$(printf 'd%.0s' $(seq 120))/$(printf 'e%.0s' $(seq 150))/$(printf 'n%.0s' $(seq 180))"
head -c 3000000 /dev/urandom > big; : > zero; head -c 512 /dev/zero > block; chmod 1777 empty; chmod 2750 a/b
truncate -s 9M holes; printf z | dd of=holes bs=1 seek=5000000 conv=notrunc status=none
for i in $(seq 0 5 99); do printf x | dd of=manyholes bs=1 seek=$((i * 100000)) conv=notrunc status=none; done
truncate -s 30M end; printf start | dd of=end conv=notrunc status=none
find . -exec touch -h -d '2001-02-03 04:05:06.25' {} +
"#;

const ROOT_TREE: &str = r#"
mknod null c 1 3; mknod disk b 259 70000; chown 1000:54321 a/f; chown -h 7:8 a/down
setfattr -n user.one -v 1 big; setfattr -n user.b=%n -v 0x00ff0a big; setfattr -n trusted.t -v t zero
setfacl -m u:1000:rw,g:7:r big; setfacl -m d:g:8:rx,d:u:1:rwx empty; setcap cap_net_raw+ep block
touch -d '2001-02-03 04:05:06.25' null disk big zero empty block
"#;

pub(super) struct Sample {
    pub(super) dir: tempfile::TempDir,
}

impl Sample {
    pub(super) fn new() -> Self {
        let sample = Self { dir: testkit::tempdir() };
        fs::create_dir(sample.tree()).unwrap();
        sample.shell(&format!("cd tree\n{TREE}\n{}", if testkit::have_root() { ROOT_TREE } else { "" }));
        sample
    }

    pub(super) fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    pub(super) fn shell(&self, script: &str) {
        let script = format!("set -e\ncd {}\n{script}", self.dir.path().display());
        testkit::run_ok("bash", ["-c", &script]);
    }

    pub(super) fn file(&self, name: &str) -> FileIn {
        FileIn::Path(self.dir.path().join(name))
    }
}

/// A line for each file of the host: what archives keep of it.
pub(super) fn host_tree(root: &Path, with_nanoseconds: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let relative = path.strip_prefix(root).unwrap();
        let content = match () {
            () if metadata.is_file() => fs::read(&path).unwrap(),
            () if metadata.is_symlink() => <Vec<u8>>::from_path_buf(fs::read_link(&path).unwrap()).unwrap(),
            () => Vec::new(),
        };
        let is_device = metadata.file_type().is_block_device() || metadata.file_type().is_char_device();
        let shown = <[u8]>::from_path(relative).unwrap().as_bstr().to_owned();
        let links = if metadata.is_dir() { 0 } else { metadata.nlink() };
        let nanoseconds = if with_nanoseconds { metadata.mtime_nsec() } else { 0 };
        lines.push(format!(
            "{shown:?} {:o} {links} {}:{} {} {}.{nanoseconds} {:x}",
            metadata.mode(),
            metadata.uid(),
            metadata.gid(),
            if is_device { metadata.rdev() } else { 0 },
            metadata.mtime(),
            crc32(&content),
        ));
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    lines.sort();
    lines
}

/// The same of the guest.
pub(super) fn guest_tree(guest: &Guest, root: &str, with_nanoseconds: bool) -> Vec<String> {
    let start = guest.vfs.resolve(root.into(), LastLink::Keep).unwrap();
    let mut walk = Walk::new(&guest.vfs, start);
    let mut lines = Vec::new();
    while let Some(entry) = walk.next().unwrap() {
        let metadata = entry.metadata;
        let content = match metadata.file_type {
            vmcraft_fs::FileType::Regular => entry.node().read_to_vec(1 << 30).unwrap(),
            vmcraft_fs::FileType::Symlink => entry.node().filesystem.read_link(entry.inode).unwrap().into(),
            _ => Vec::new(),
        };
        let links = if metadata.is_dir() { 0 } else { metadata.links };
        let nanoseconds = if with_nanoseconds { metadata.modified.nanoseconds } else { 0 };
        lines.push(format!(
            "{:?} {:o} {links} {}:{} {} {}.{nanoseconds} {:x}",
            entry.path,
            metadata.mode(),
            metadata.uid,
            metadata.gid,
            metadata.device.map_or(0, |device| device.to_rdev()),
            metadata.modified.seconds,
            crc32(&content),
        ));
    }
    lines.sort();
    lines
}

fn crc32(content: &[u8]) -> u32 {
    let mut sum = flate2::Crc::new();
    sum.update(content);
    sum.sum()
}

fn tar_in(guest: &mut Guest, file: &FileIn, directory: &str) -> Result<()> {
    let yes = Some(true);
    guest.tar_in(file, GuestPath::new(directory), None, yes, yes, yes)
}

pub(super) fn assert_same(ours: &[String], theirs: &[String], what: &str) {
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!(ours, theirs, "{what}");
    }
    assert_eq!(ours.len(), theirs.len(), "{what}");
}

#[test] // Oracle: GNU tar and bsdtar in all their formats; what cannot be kept is not asked for.
fn archives_of_tar_programs_are_unpacked() {
    let sample = Sample::new();
    for (what, command, with_nanoseconds) in [
        ("posix", "tar --format=posix -cf a.tar -C tree .", true),
        ("gnu", "tar --format=gnu -cf a.tar -C tree .", false),
        ("oldgnu", "tar --format=oldgnu -cf a.tar -C tree .", false),
        ("sparse gnu", "tar --format=gnu -S -cf a.tar -C tree .", false),
        ("sparse 0.0", "tar --format=posix --sparse-version=0.0 -S -cf a.tar -C tree .", true),
        ("sparse 0.1", "tar --format=posix --sparse-version=0.1 -S -cf a.tar -C tree .", true),
        ("sparse 1.0", "tar --format=posix --sparse-version=1.0 -S -cf a.tar -C tree .", true),
        ("bsdtar pax", "bsdtar --format pax -cf a.tar -C tree .", true),
        ("gzip", "tar --format=posix -czf a.tar -C tree .", true),
        ("bzip2", "tar --format=posix -cjf a.tar -C tree .", true),
        ("xz", "tar --format=posix -c -C tree . | xz -0 > a.tar", true),
        ("zstd", "tar --format=posix -c -C tree . | zstd -q > a.tar", true),
    ] {
        sample.shell(command);
        let mut guest = MemoryFs::new().dir("/t").guest();
        tar_in(&mut guest, &sample.file("a.tar"), "/t").unwrap_or_else(|e| panic!("{what}: {e}"));
        let ours = guest_tree(&guest, "/t", with_nanoseconds);
        assert_same(&ours, &host_tree(&sample.tree(), with_nanoseconds), what);
        assert!(guest.take_warnings().is_empty(), "{what}");
    }
    // The oldest formats have no long names and no devices.
    for format in ["v7", "ustar"] {
        sample.shell(&format!("tar --format={format} -cf a.tar -C tree/a . || true"));
        let mut guest = MemoryFs::new().guest();
        tar_in(&mut guest, &sample.file("a.tar"), "/").unwrap();
        let names = |lines: Vec<String>| {
            lines.iter().filter(|line| !line.contains("fifo")).cloned().collect::<Vec<_>>()
        };
        let theirs = names(host_tree(&sample.tree().join("a"), false));
        assert_same(&names(guest_tree(&guest, "/", false)), &theirs, format);
    }
}

#[test] // Holes of an archive take no space, and those of an archive that says so of terabytes neither.
fn holes_stay_holes() {
    let sample = Sample::new();
    sample.shell("truncate -s 8T tree/huge; tar --format=posix -S -cf a.tar -C tree huge holes end");
    let mut guest = MemoryFs::new().with_blocks(16).guest();
    tar_in(&mut guest, &sample.file("a.tar"), "/").unwrap();
    let size = |path: &str| guest.resolve(path.into()).unwrap().metadata().unwrap().size_bytes;
    assert_eq!([size("/huge"), size("/holes"), size("/end")], [8 << 40, 9 << 20, 30 << 20]);
}

#[test] // What our writer keeps, our reader reads.
fn what_tar_out_writes_is_unpacked() {
    if !testkit::have_root() {
        return testkit::skip("owners, devices and attributes of the host need root");
    }
    let sample = Sample::new();
    sample
        .shell("tar --format=posix --xattrs --xattrs-include='*' --acls --numeric-owner -cf a.tar -C tree .");
    // The archive has names in its lists: those of the host.
    let host = |path| fs::read(path).unwrap();
    let fs = MemoryFs::new().file("/etc/passwd", host("/etc/passwd")).file("/etc/group", host("/etc/group"));
    let mut guest = fs.dir("/t").dir("/u").guest();
    tar_in(&mut guest, &sample.file("a.tar"), "/t").unwrap();
    let attributes = |guest: &Guest, path: &str| {
        let all = guest.getxattrs(path.into()).unwrap();
        all.into_iter().map(|x| (x.attrname, BString::from(x.attrval))).collect::<Vec<_>>()
    };
    let big = attributes(&guest, "/t/big");
    let names: Vec<_> = big.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names, ["system.posix_acl_access", "user.b=%n", "user.one"]);
    assert_eq!(big[1].1, b"\0\xff\n".as_bstr());
    assert_eq!(
        guest.acl_get_file("/t/big".into(), "access").unwrap(),
        "user::rw-\nuser:1000:rw-\ngroup::r--\ngroup:7:r--\nmask::rw-\nother::r--\n"
    );
    assert!(guest.acl_get_file("/t/empty".into(), "default").unwrap().contains("user:1:rwx"));
    assert_eq!(guest.cap_get_file("/t/block".into()).unwrap(), "cap_net_raw=ep");
    let out = FileOut::Path(sample.dir.path().join("b.tar"));
    let yes = Some(true);
    guest.tar_out("/t".into(), &out, None, yes, None, yes, yes, yes).unwrap();
    tar_in(&mut guest, &sample.file("b.tar"), "/u").unwrap();
    assert_same(&guest_tree(&guest, "/u", true), &guest_tree(&guest, "/t", true), "tar-out");
    for path in ["big", "empty", "block", "zero"] {
        assert_eq!(attributes(&guest, &format!("/u/{path}")), attributes(&guest, &format!("/t/{path}")));
    }
    // Without being asked for, none is kept.
    guest.tar_in(&sample.file("b.tar"), "/u".into(), None, None, None, None).unwrap();
    assert!(attributes(&guest, "/u/big").is_empty());
}

/// Members made by Python, whose tarfile writes whatever it is told.
fn hostile(sample: &Sample, members: &str) -> FileIn {
    let script = format!(
        r#"
import tarfile, io
t = tarfile.open('evil.tar', 'w', format=tarfile.PAX_FORMAT)
def add(name, type=tarfile.REGTYPE, content=b'new', **fields):
    i = tarfile.TarInfo(name); i.type = type; i.mtime = 1000
    i.size = len(content) if type == tarfile.REGTYPE else 0
    for key, value in fields.items(): setattr(i, key, value)
    t.addfile(i, io.BytesIO(content) if i.size else None)
def link(name, target): add(name, tarfile.SYMTYPE, linkname=target)
def hard(name, target): add(name, tarfile.LNKTYPE, linkname=target)
def dir(name, **fields): add(name, tarfile.DIRTYPE, mode=0o700, **fields)
{members}
t.close()
"#
    );
    fs::write(sample.dir.path().join("evil.py"), script).unwrap();
    sample.shell("python3 evil.py");
    sample.file("evil.tar")
}

pub(super) fn empty_sample() -> Sample {
    Sample { dir: testkit::tempdir() }
}

#[test] // Each would write outside of the directory that the user named.
fn archives_cannot_lead_out() {
    let sample = empty_sample();
    for (members, reason) in [
        ("add('../x')", "member ../x: its name contains '..'"),
        ("add('a/../../x')", "member a/../../x: its name contains '..'"),
        ("add('/../x')", "member /../x: its name contains '..'"),
        ("add('')", "it has no name"),
        ("add('.')", "member .: its name stands for the directory itself"),
        ("link('out', '/etc'); add('out/passwd')", "/t/out is a symbolic link of the archive that leads out"),
        ("link('up', '../etc'); add('up/passwd')", "/t/up is a symbolic link of the archive that leads out"),
        (
            "link('out', '/etc'); link('down', 'out'); add('down/passwd')",
            "/t/down is a symbolic link of the archive",
        ),
        (
            "link('out', '/etc'); link('down', 'a/b'); dir('a'); link('a/b', '../out'); add('down/passwd')",
            "leads out",
        ),
        (
            "link('out', '/etc'); hard('same', 'out'); add('same/passwd')",
            "/t/same is a symbolic link of the archive",
        ),
        ("link('out', '/etc'); dir('out/d')", "leads out"),
        ("link('out', '/etc'); hard('x', 'out/passwd')", "leads out"),
        ("hard('x', '/etc/passwd')", "it is a hard link to /etc/passwd: no such file or directory"),
        ("hard('x', '../etc/passwd')", "it is a hard link to ../etc/passwd: its name contains '..'"),
        ("hard('x', 'none')", "it is a hard link to none: no such file or directory"),
        ("hard('x', '.')", "it is a hard link to .: that is the directory itself"),
        ("link('x', '')", "it is a symbolic link that leads nowhere"),
        ("add('f'); add('f/x')", "/t/f: not a directory"),
        ("link('loop', 'loop'); add('loop/x')", "too many levels of symbolic links"),
        ("dir('d'); add('d/f'); add('d')", "/t/d: directory not empty"),
    ] {
        let mut guest = MemoryFs::new().file("/etc/passwd", "old").dir("/t").guest();
        let file = hostile(&sample, members);
        let refused = tar_in(&mut guest, &file, "/t").unwrap_err().to_string();
        assert!(refused.contains(reason), "{members}: {refused}");
        assert_eq!(tree(&guest, "/etc").len(), 2, "{members}");
        assert_eq!(guest.read("/etc/passwd").unwrap(), b"old", "{members}");
    }
}

#[test] // What libguestfs 1.48's tar left, but for the directory that a link of the guest leads to.
fn members_replace_what_is_there() {
    let sample = empty_sample();
    let file = hostile(
        &sample,
        r"
add('/absolute'); link('rel', 'ok2'); dir('ok2'); add('rel/viarel')
dir('lib'); add('lib/libc'); add('bin/sh'); add('abs/x')
add('setuid', mode=0o4755, uid=5, gid=6, uname='daemon', gname='mail'); add('mode0', mode=0)
add('deep/er/file', mode=0o640); add('dev', tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666); add('fifo', tarfile.FIFOTYPE)
add('replaced'); add('dirreplaced'); dir('filereplaced'); add('symreplaced'); dir('full', uid=9)
link('unsafe', '/etc'); link('unsafe', '../x'); add('unsafe'); link('wasdir', 'ok2'); dir('wasdir')
hard('hard', '/replaced'); hard('hard', 'replaced'); add('replaced', content=b'newer'); link('was', 'x'); hard('was', 'mode0')
",
    );
    let mut guest = MemoryFs::new().dir("/t").guest();
    run(
        &mut guest,
        "mkdir-p /t/usr/lib\nln-s usr/lib /t/lib\nmkdir-p /t/usr/bin\nln-s usr/bin /t/bin\nmkdir-p /usr/abs
         ln-s /usr/abs /t/abs\nwrite /t/replaced old\nmkdir /t/dirreplaced\nwrite /t/filereplaced old\nwrite /victim v
         ln-s ../victim /t/symreplaced\nmkdir-p /t/full/a",
    );
    tar_in(&mut guest, &file, "/t").unwrap();
    assert_eq!(
        tree(&guest, "/t"),
        [
            "40755 8 0:0 .",
            "120777 1 0:0 8 abs -> /usr/abs",
            "100644 1 0:0 3 absolute",
            "120777 1 0:0 7 bin -> usr/bin",
            "40755 3 0:0 deep",
            "40755 2 0:0 deep/er",
            "100640 1 0:0 3 deep/er/file",
            "20666 1 0:0 0 dev 1,3",
            "100644 1 0:0 3 dirreplaced",
            "10644 1 0:0 0 fifo 0,0",
            "40700 2 0:0 filereplaced",
            "40700 3 9:0 full",
            "40755 2 0:0 full/a",
            "100644 1 0:0 3 hard",
            "120777 1 0:0 7 lib -> usr/lib",
            "100000 2 0:0 3 mode0",
            "40700 2 0:0 ok2",
            "100644 1 0:0 3 ok2/viarel",
            "120777 1 0:0 3 rel -> ok2",
            "100644 1 0:0 5 replaced",
            "104755 1 5:6 3 setuid",
            "100644 1 0:0 3 symreplaced",
            "100644 1 0:0 3 unsafe",
            "40755 4 0:0 usr",
            "40755 2 0:0 usr/bin",
            "100644 1 0:0 3 usr/bin/sh",
            "40700 2 0:0 usr/lib",
            "100644 1 0:0 3 usr/lib/libc",
            "100000 2 0:0 3 was",
            "40700 2 0:0 wasdir",
        ]
    );
    assert_eq!(
        (guest.read("/victim").unwrap(), guest.read("/usr/abs/x").unwrap()),
        (b"v".to_vec(), b"new".to_vec())
    );
    assert_eq!(guest.resolve("/t/full".into()).unwrap().metadata().unwrap().modified.seconds, 1000);
    let warnings = guest.take_warnings();
    assert!(
        warnings.len() == 1 && warnings[0].starts_with("/absolute: names in the archive"),
        "{warnings:?}"
    );
}

#[test]
fn default_lists_and_groups_do_not_change_members() {
    let sample = empty_sample();
    let file = hostile(&sample, "add('f', mode=0o644, uid=1, gid=2); dir('d'); add('d/g', mode=0o640)");
    let mut guest = MemoryFs::new().dir("/t").guest();
    run(
        &mut guest,
        "chown 0 7 /t\nchmod 02775 /t\nacl-set-file /t default u::rwx,u:9:rwx,g::---,o::---,m::rwx",
    );
    tar_in(&mut guest, &file, "/t").unwrap();
    let lines = tree(&guest, "/t");
    assert_eq!(lines[1..], ["40700 2 0:0 d", "100640 1 0:0 3 d/g", "100644 1 1:2 3 f"]);
}

#[test]
fn what_is_no_archive_is_refused() {
    let sample = empty_sample();
    let mut guest = MemoryFs::new().dir("/t").guest();
    let mut refused = |content: &[u8], compress: Option<&str>| {
        fs::write(sample.dir.path().join("x"), content).unwrap();
        let result = guest.tar_in(&sample.file("x"), "/t".into(), compress, None, None, None);
        result.unwrap_err().to_string()
    };
    let whole = {
        let FileIn::Path(path) = hostile(&sample, "add('f', content=b'x' * 5000)") else { panic!() };
        fs::read(path).unwrap()
    };
    assert!(refused(b"", None).contains("x: cannot unpack: this is not a tar archive: it is empty"));
    assert!(refused(b"hello", None).contains("this is not a tar archive"));
    assert!(refused(&[b'x'; 2000], None).contains("this is not a tar archive"));
    assert!(refused(&whole[..3000], None).contains("the archive ends in the middle, before byte 3000"));
    let mut damaged = whole.clone();
    damaged[600] ^= 1;
    damaged.splice(0..0, whole[..512 + 5120].iter().copied());
    damaged[512 + 5120] ^= 1;
    assert!(refused(&damaged, None).contains("a member's header has a wrong checksum"));
    assert!(refused(&whole, Some("gzip")).contains("x: cannot read"));
    assert_eq!(refused(&whole, Some("foo")), "unknown compression type: foo");
    assert!(refused(&whole, Some("lzop")).contains("not supported: archives compressed with lzop"));
    let missing = guest.tar_in(&sample.file("x"), "/none".into(), None, None, None, None).unwrap_err();
    assert_eq!(missing.errno(), 2);
}

#[test] // Any byte of an archive can be anything: errors, but no panic and nothing endless.
fn damaged_archives_are_refused_or_unpacked() {
    let sample = Sample::new();
    sample.shell(
        "rm -rf tree/big tree/manyholes tree/end; tar --format=posix -S --xattrs -cf a.tar -C tree .; \
         tar --format=gnu -S -cf b.tar -C tree .",
    );
    for name in ["a.tar", "b.tar"] {
        let whole = fs::read(sample.dir.path().join(name)).unwrap();
        let mut random = 12345_u64;
        for _ in 0..150 {
            let mut damaged = whole.clone();
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let block = (random >> 33) as usize % (whole.len() / 512);
            let at = block * 512 + (random >> 20) as usize % 512;
            damaged[at] = random.to_be_bytes()[1];
            // Headers with a right checksum go further.
            let sum: u32 = damaged[block * 512..block * 512 + 512]
                .iter()
                .enumerate()
                .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
                .sum();
            damaged[block * 512 + 148..block * 512 + 154].copy_from_slice(format!("{sum:06o}").as_bytes());
            fs::write(sample.dir.path().join("c.tar"), &damaged).unwrap();
            let mut guest = MemoryFs::new().with_blocks(4096).guest();
            // Whichever it is.
            let _ = tar_in(&mut guest, &sample.file("c.tar"), "/");
        }
    }
}

#[test] // A tree of the host, with one of each kind of file, into a guest.
fn trees_of_the_host_are_copied() {
    let sample = Sample::new();
    let mut guest = MemoryFs::new().dir("/t").guest();
    let tree = sample.tree();
    let local = <[u8]>::from_path(&tree).unwrap().as_bstr();
    guest.copy_in(local, "/t".into()).unwrap();
    assert_same(&guest_tree(&guest, "/t/tree", true), &host_tree(&tree, true), "copy-in");
    // Its contents, a file, and what is there already.
    guest.copy_in([local.as_bytes(), b"/."].concat().as_bstr(), "/t".into()).unwrap();
    guest.copy_in([local.as_bytes(), b"/a/f"].concat().as_bstr(), "/t/tree".into()).unwrap();
    assert_same(&guest_tree(&guest, "/t/a", true), &host_tree(&tree.join("a"), true), "contents");
    assert_eq!(guest.read("/t/tree/f").unwrap(), b"content");
    for (local, remote, message) in [
        ("/nonexistent/x", "/t", "/nonexistent/x: cannot read: No such file"),
        ("/nonexistent/..", "/t", "/nonexistent/..: name a file"),
        (local.to_str().unwrap(), "/none", "/none: no such file or directory"),
        (local.to_str().unwrap(), "/t/f", "/t/f: no such file or directory"),
    ] {
        let refused = guest.copy_in(local.into(), remote.into()).unwrap_err().to_string();
        assert!(refused.starts_with(message), "{refused}");
    }
}
