//! The tar format: POSIX's `ustar` headers, and pax records for what they cannot hold.
//!
//! Spec: POSIX.1-2017, `pax` utility, "ustar Interchange Format" and "pax Interchange Format"; sparse
//! files as GNU tar's manual, "PAX Format, Version 1.0"; `SCHILY.*` records as star's `star(5)`;
//! `RHT.security.selinux` as GNU tar writes it.

use bstr::{BStr, BString, ByteSlice, ByteVec};
use vmcraft_fs::{FileType, Metadata};

use crate::Result;
use crate::acl::Acl;
use crate::archive::compress::Compression;
use crate::archive::exclude::Exclude;
use crate::archive::output::Output;
use crate::archive::tar_header::{Field, Header, push_record};
use crate::content::{is_dense, next_data};
use crate::host::{Host, Sink};
use crate::links::FirstNames;
use crate::owners::Owners;
use crate::vfs::{Node, Vfs};
use crate::walk::{Entry, Walk};

const BLOCK_BYTES: u64 = 512;

/// An archive is a multiple of this, as GNU tar writes it.
const RECORD_BYTES: u64 = 20 * BLOCK_BYTES;

/// A file with holes of at least this size together is written as a sparse one. Below it, zeros are
/// written: every reader of tar understands them.
const SPARSE_FROM_BYTES: u64 = 1 << 20;

/// How many runs of data a sparse file's map has at most. The rest of the file is then one run.
const MAX_RUNS: usize = 1 << 20;

/// What goes into the archive beside names, modes, owners, times and content.
pub(crate) struct TarOptions<'a> {
    pub(crate) compression: Option<Compression>,
    pub(crate) numeric_owner: bool,
    pub(crate) excludes: &'a [BString],
    pub(crate) xattrs: bool,
    pub(crate) selinux: bool,
    pub(crate) acls: bool,
}

/// Writes what is in the directory `start`, with member names that begin with `./`.
pub(crate) fn tar_out(
    vfs: &Vfs,
    host: &mut Host,
    sink: &mut Sink<'_>,
    start: Node,
    options: &TarOptions<'_>,
) -> Result<()> {
    let exclude = Exclude::new(options.excludes)?;
    let owners = if options.numeric_owner { Owners::default() } else { Owners::of_guest(vfs) };
    let mut tar = Tar {
        output: Output::new(host, sink, options.compression)?,
        options,
        owners,
        first_names: FirstNames::default(),
        name: BString::default(),
        pax: Vec::new(),
    };
    if !exclude.matches(".".into()) {
        let mut walk = Walk::new(vfs, start);
        if !options.excludes.is_empty() {
            let exclude = &exclude;
            walk = walk.leaving_out(move |path| exclude.matches([b"./", path.as_bytes()].concat().as_bstr()));
        }
        while let Some(entry) = walk.next()? {
            tar.add(&entry)?;
        }
    }
    tar.finish()
}

struct Tar<'a, 's> {
    output: Output<'a, 's>,
    options: &'a TarOptions<'a>,
    owners: Owners,
    first_names: FirstNames,
    /// The member's name, kept for its allocation.
    name: BString,
    /// The member's pax records, kept for their allocation.
    pax: Vec<u8>,
}

/// What a member is: the type flag of its header, and what goes with it.
enum Member<'m> {
    File {
        size_bytes: u64,
    },
    /// A file with holes: its runs of data.
    Sparse {
        runs: Vec<(u64, u64)>,
        size_bytes: u64,
    },
    HardLink(&'m BStr),
    Symlink(BString),
    Directory,
    Fifo,
    CharDevice,
    BlockDevice,
}

impl Tar<'_, '_> {
    fn add(&mut self, entry: &Entry<'_>) -> Result<()> {
        let metadata = &entry.metadata;
        let mut name = std::mem::take(&mut self.name);
        name.clear();
        name.push_str("./");
        name.push_str(entry.path);
        let first = self.first_names.find(entry).map(ToOwned::to_owned);
        let member = match (&first, metadata.file_type) {
            (Some(first), _) => Member::HardLink(first.as_bstr()),
            (None, FileType::Regular) => self.regular(entry)?,
            (None, FileType::Directory) => {
                if !entry.path.is_empty() {
                    name.push(b'/');
                }
                Member::Directory
            }
            (None, FileType::Symlink) => Member::Symlink(
                entry.mount.filesystem.read_link(entry.inode).map_err(|source| entry.error(source))?,
            ),
            (None, FileType::CharDevice) => Member::CharDevice,
            (None, FileType::BlockDevice) => Member::BlockDevice,
            (None, FileType::Fifo) => Member::Fifo,
            // As tar does: a socket means nothing without the process that listens.
            (None, FileType::Socket) => {
                self.name = name;
                return Ok(());
            }
            (None, FileType::Unknown) => {
                return Err(entry.error(vmcraft_fs::Error::InvalidInput("a file of an unknown type")));
            }
        };
        self.pax.clear();
        if first.is_none() {
            self.first_names.note(entry, name.as_bstr());
            self.add_attributes(entry)?;
        }
        self.put_headers(name.as_bstr(), metadata, &member)?;
        let fail = |source| entry.error(source);
        let filesystem = &*entry.mount.filesystem;
        match &member {
            Member::File { size_bytes } => {
                self.output.put_content(filesystem, entry.inode, 0, *size_bytes, fail)?;
            }
            Member::Sparse { runs, size_bytes } => {
                self.output.put(&sparse_map(runs, *size_bytes))?;
                for (start, end) in runs {
                    self.output.put_content(filesystem, entry.inode, *start, *end, fail)?;
                }
            }
            _ => {}
        }
        self.name = name;
        self.output.pad(BLOCK_BYTES)
    }

    fn finish(mut self) -> Result<()> {
        self.output.put_zeros(2 * BLOCK_BYTES)?;
        self.output.pad(RECORD_BYTES)?;
        self.output.finish()
    }

    /// How a regular file is written.
    fn regular(&self, entry: &Entry<'_>) -> Result<Member<'static>> {
        let size_bytes = entry.metadata.size_bytes;
        let dense = Member::File { size_bytes };
        if size_bytes < SPARSE_FROM_BYTES || is_dense(&entry.metadata) {
            return Ok(dense);
        }
        let mut runs = Vec::new();
        let mut data_bytes = 0;
        let mut at = 0;
        while at < size_bytes {
            let found = next_data(&*entry.mount.filesystem, entry.inode, at).map_err(|e| entry.error(e))?;
            let Some((start, end)) = found.filter(|(start, _)| *start < size_bytes) else { break };
            let end = if runs.len() + 1 == MAX_RUNS { size_bytes } else { end.min(size_bytes) };
            match runs.last_mut() {
                Some((_, last)) if *last == start => *last = end,
                _ => runs.push((start, end)),
            }
            data_bytes += end - start;
            at = end;
        }
        let is_sparse = size_bytes - data_bytes >= SPARSE_FROM_BYTES;
        Ok(if is_sparse { Member::Sparse { runs, size_bytes } } else { dense })
    }

    /// Extended attributes as pax records.
    fn add_attributes(&mut self, entry: &Entry<'_>) -> Result<()> {
        let wanted = self.options;
        if !(wanted.xattrs || wanted.selinux || wanted.acls) {
            return Ok(());
        }
        let xattrs = entry.mount.filesystem.xattrs(entry.inode).map_err(|source| entry.error(source))?;
        for (name, value) in xattrs {
            match name.as_slice() {
                b"security.selinux" => {
                    if wanted.selinux {
                        let context = value.strip_suffix(b"\0").unwrap_or(&value);
                        push_record(&mut self.pax, b"RHT.security.selinux", context);
                    }
                }
                b"system.posix_acl_access" | b"system.posix_acl_default" => {
                    if wanted.acls {
                        let text = Acl::decode(&value).map(|list| list.text()).ok_or_else(|| {
                            entry.error(vmcraft_fs::Error::InvalidInput("its access control list is corrupt"))
                        })?;
                        let key = if name.ends_with(b"access") {
                            "SCHILY.acl.access"
                        } else {
                            "SCHILY.acl.default"
                        };
                        push_record(&mut self.pax, key.as_bytes(), text.as_bytes());
                    }
                }
                _ => {
                    if wanted.xattrs {
                        // As GNU tar writes them: an equals sign would end the key.
                        let key = name.replace("%", "%25").replace("=", "%3D");
                        push_record(&mut self.pax, &[b"SCHILY.xattr.", key.as_slice()].concat(), &value);
                    }
                }
            }
        }
        Ok(())
    }

    /// The member's header, and before it one with pax records if there are any.
    fn put_headers(&mut self, name: &BStr, metadata: &Metadata, member: &Member<'_>) -> Result<()> {
        let mut header = Header::new();
        let (flag, size_bytes, link) = match member {
            Member::File { size_bytes } => (b'0', *size_bytes, None),
            Member::Sparse { runs, size_bytes } => {
                let data_bytes: u64 = runs.iter().map(|(start, end)| end - start).sum();
                (b'0', sparse_map(runs, *size_bytes).len() as u64 + data_bytes, None)
            }
            Member::HardLink(first) => (b'1', 0, Some(*first)),
            Member::Symlink(target) => (b'2', 0, Some(target.as_bstr())),
            Member::CharDevice => (b'3', 0, None),
            Member::BlockDevice => (b'4', 0, None),
            Member::Directory => (b'5', 0, None),
            Member::Fifo => (b'6', 0, None),
        };
        let pax = &mut self.pax;
        let mut is_binary = false;
        if let Member::Sparse { size_bytes, .. } = member {
            push_record(pax, b"GNU.sparse.major", b"1");
            push_record(pax, b"GNU.sparse.minor", b"0");
            push_record(pax, b"GNU.sparse.name", name);
            push_record(pax, b"GNU.sparse.realsize", size_bytes.to_string().as_bytes());
            // What a reader that knows nothing of sparse files makes of it.
            let (dir, base) = name.rsplit_once_str("/").unwrap_or((b".", name));
            let plain = [dir, b"/GNUSparseFile.0/", base].concat();
            is_binary |= header.set_name(plain.as_bstr(), pax);
        } else {
            is_binary |= header.set_name(name, pax);
        }
        if let Some(link) = link {
            is_binary |= header.set_link(link, pax);
        }
        header.set_number(Field::UID, metadata.uid.into(), b"uid", pax);
        header.set_number(Field::GID, metadata.gid.into(), b"gid", pax);
        header.set_number(Field::SIZE, size_bytes, b"size", pax);
        header.set_time(metadata.modified, pax);
        if let Some(device) = metadata.device {
            header.set_number(Field::DEVMAJOR, device.major.into(), b"SCHILY.devmajor", pax);
            header.set_number(Field::DEVMINOR, device.minor.into(), b"SCHILY.devminor", pax);
        }
        header.set_mode(metadata.permissions);
        header.set_bytes(Field::UNAME, self.owners.user(metadata.uid));
        header.set_bytes(Field::GNAME, self.owners.group(metadata.gid));
        if is_binary {
            // It stands before the records that it is about.
            let mut records = Vec::new();
            push_record(&mut records, b"hdrcharset", b"BINARY");
            records.append(pax);
            *pax = records;
        }
        if !pax.is_empty() {
            let mut before = Header::new();
            before.set_bytes(
                Field::NAME,
                &[b"./PaxHeaders/", name.trim_start_with(|c| c == '.' || c == '/')].concat(),
            );
            before.set_mode(0o644);
            before.set_octal(Field::UID, 0);
            before.set_octal(Field::GID, 0);
            before.set_octal(Field::SIZE, pax.len() as u64);
            before.set_octal(Field::MTIME, 0);
            self.output.put(before.seal(b'x'))?;
            self.output.put(pax)?;
            self.output.pad(BLOCK_BYTES)?;
        }
        self.output.put(header.seal(flag))
    }
}

/// The map that stands before a sparse file's data: the number of runs, then offset and length of
/// each, a number a line, filled up to a block. The last run says where the file ends.
fn sparse_map(runs: &[(u64, u64)], size_bytes: u64) -> Vec<u8> {
    let end = runs.last().is_none_or(|(_, end)| *end < size_bytes).then_some((size_bytes, size_bytes));
    let mut map = format!("{}\n", runs.len() + usize::from(end.is_some())).into_bytes();
    for (start, end) in runs.iter().copied().chain(end) {
        map.extend_from_slice(format!("{start}\n{}\n", end - start).as_bytes());
    }
    map.resize(map.len().next_multiple_of(512), 0);
    map
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use vmcraft_fs::{DeviceNumber, Timestamp};

    use super::*;
    use crate::Guest;
    use crate::raw_tree::{ROOT, RawTree};
    use crate::value::FileOut;

    fn guest(tree: RawTree) -> Guest {
        let mut guest = Guest::new();
        guest.vfs = Vfs::with_root("/dev/sda1", Arc::new(tree));
        guest
    }

    /// An archive of the whole tree.
    fn archive(tree: RawTree, excludes: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let dir = testkit::tempdir();
        let path = dir.path().join("archive.tar");
        let excludes: Vec<BString> = excludes.iter().map(|pattern| BString::from(*pattern)).collect();
        let yes = Some(true);
        guest(tree)
            .tar_out("/".into(), &FileOut::Path(path.clone()), None, None, Some(&excludes), yes, yes, yes)
            .unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len() % RECORD_BYTES, 0);
        (dir, path)
    }

    /// What `tar -t` prints, a line a member, with all warnings as errors.
    fn list(archive: &Path, options: &[&str]) -> Vec<String> {
        let mut arguments = vec!["--quoting-style=escape", "-tf", archive.to_str().unwrap()];
        arguments.extend(options);
        let output = testkit::run("tar", arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{errors}");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    fn bsdtar_list(archive: &Path) -> Vec<String> {
        let output = testkit::run("bsdtar", ["-tf", archive.to_str().unwrap()]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{errors}");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    #[test]
    fn headers_hold_what_the_guest_has() {
        let mut tree = RawTree::new();
        let etc = tree.dir(ROOT, "etc");
        tree.file(etc, "passwd", b"root:x:0:0:::\nuser:x:1000:100:::\nlater:x:1000:::\nbad\nb d:x:7::::\n");
        tree.file(etc, "group", b"root:x:0:\nusers:x:100:user\n");
        let file = tree.add(etc, "file", FileType::Regular, 0o4751, b"content");
        *tree.metadata_mut(file) = Metadata { uid: 1000, gid: 100, links: 2, ..*tree.metadata_mut(file) };
        tree.metadata_mut(file).modified.nanoseconds = 120_000_000;
        tree.link(ROOT, b"second", file);
        tree.add(ROOT, "link", FileType::Symlink, 0o777, b"etc/file");
        let disk = tree.add(ROOT, "disk", FileType::BlockDevice, 0o660, b"");
        tree.metadata_mut(disk).device = Some(DeviceNumber { major: 259, minor: 65536 });
        tree.add(ROOT, "tty", FileType::CharDevice, 0o620, b"");
        tree.add(ROOT, "fifo", FileType::Fifo, 0o600, b"");
        tree.add(ROOT, "socket", FileType::Socket, 0o600, b"");
        let (_dir, archive) = archive(tree, &[]);
        let expected = [
            "drwxr-xr-x root/root         0 2023-11-14 22:13:20 ./",
            "drwxr-xr-x root/root         0 2023-11-14 22:13:20 ./etc/",
            "-rw-r--r-- root/root        65 2023-11-14 22:13:20 ./etc/passwd",
            "-rw-r--r-- root/root        27 2023-11-14 22:13:20 ./etc/group",
            "-rwsr-x--x user/users        7 2023-11-14 22:13:20.12 ./etc/file",
            "hrwsr-x--x user/users        0 2023-11-14 22:13:20.12 ./second link to ./etc/file",
            "lrwxrwxrwx root/root         0 2023-11-14 22:13:20 ./link -> etc/file",
            "brw-rw---- root/root 259,65536 2023-11-14 22:13:20 ./disk",
            "crw--w---- root/root       8,1 2023-11-14 22:13:20 ./tty",
            "prw------- root/root         0 2023-11-14 22:13:20 ./fifo",
        ];
        let strip = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let listed: Vec<_> =
            list(&archive, &["-v", "--utc", "--full-time"]).iter().map(|line| strip(line)).collect();
        assert_eq!(listed, expected.map(strip));
        assert_eq!(bsdtar_list(&archive).len(), expected.len());
    }

    #[test] // Values that a header's digits cannot hold, at the edge of what they can.
    fn large_numbers_and_odd_times_survive() {
        let times = [
            (0, 0),
            (-1, 750_000_000),
            (-2, 750_000_000),
            (-2_000_000_000, 0),
            ((1 << 33) - 1, 1),
            (1 << 33, 0),
            (15_032_385_534, 999_999_999),
        ];
        let owners = [0, 2_097_151, 2_097_152, u32::MAX - 1, 5, 6, 7];
        let mut tree = RawTree::new();
        for ((index, (seconds, nanoseconds)), owner) in times.iter().enumerate().zip(owners) {
            let file = tree.file(ROOT, &index.to_string(), b"");
            let metadata = tree.metadata_mut(file);
            metadata.modified = Timestamp { seconds: *seconds, nanoseconds: *nanoseconds };
            (metadata.uid, metadata.gid) = (owner, owner);
        }
        let (dir, archive) = archive(tree, &[]);
        let listed = list(&archive, &["-v", "--numeric-owner"]);
        for (line, owner) in listed[1..].iter().zip(owners) {
            assert_eq!(line.split_whitespace().nth(1).unwrap(), format!("{owner}/{owner}"), "{line}");
        }
        // It warns of times long ago and in the future.
        testkit::run("tar", ["-xof", archive.to_str().unwrap(), "-C", dir.path().to_str().unwrap()]);
        for (index, time) in times.iter().enumerate() {
            let found = fs::metadata(dir.path().join(index.to_string())).unwrap();
            assert_eq!((found.mtime(), found.mtime_nsec()), (time.0, i64::from(time.1)), "file {index}");
        }
        assert_eq!(bsdtar_list(&archive).len(), times.len() + 1);
    }

    #[test] // Around the lengths where names leave the name field, the prefix field and the header.
    fn names_of_all_lengths_survive() {
        let mut tree = RawTree::new();
        let mut expected = vec!["./".to_owned()];
        for len in [97, 98, 99, 100, 200, 255] {
            let name = "n".repeat(len);
            expected.push(format!("./{name}"));
            tree.file(ROOT, &name, b"");
        }
        for (dir_len, len) in [(152, 99), (152, 100), (152, 101), (153, 100), (154, 10), (255, 255), (1, 98)]
        {
            let name = format!("{}{len}", "d".repeat(dir_len - len.to_string().len().min(dir_len - 1)));
            let dir = tree.dir(ROOT, &name);
            expected.push(format!("./{name}/"));
            let inner = "i".repeat(len);
            expected.push(format!("./{name}/{inner}"));
            tree.file(dir, &inner, b"");
        }
        for len in [99, 100, 101, 4095] {
            let name = format!("link{len}");
            let target = "t".repeat(len);
            expected.push(format!("./{name}"));
            tree.add(ROOT, &name, FileType::Symlink, 0o777, target.as_bytes());
        }
        expected.sort();
        let (_dir, archive) = archive(tree, &[]);
        let mut listed = list(&archive, &[]);
        listed.sort();
        assert_eq!(listed, expected);
        let mut listed = bsdtar_list(&archive);
        listed.sort();
        assert_eq!(listed, expected);
        for line in list(&archive, &["-v"]).iter().filter(|line| line.starts_with('l')) {
            let (link, target) = line.split_once(" -> ").unwrap();
            assert!(link.ends_with(&format!("link{}", target.len())), "{line}");
        }
    }

    #[test] // Names are bytes, also where a record has to hold them.
    fn names_that_are_not_utf8_survive() {
        let mut tree = RawTree::new();
        let long = [&[0xff; 200][..], b"\n"].concat();
        for name in [&b"latin\xe9"[..], &long, "ünïcode".as_bytes()] {
            let file = tree.make(FileType::Regular, 0o644, b"x");
            tree.link(ROOT, name, file);
        }
        let (dir, archive) = archive(tree, &[]);
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        for program in ["tar", "bsdtar"] {
            testkit::run_ok(program, ["-xf", archive.to_str().unwrap(), "-C", out.to_str().unwrap()]);
            let mut names: Vec<_> = fs::read_dir(&out)
                .unwrap()
                .map(|entry| std::os::unix::ffi::OsStringExt::into_vec(entry.unwrap().file_name()))
                .collect();
            names.sort();
            assert_eq!(names, [b"latin\xe9".to_vec(), "ünïcode".into(), long.clone()], "{program}");
            testkit::run_ok("find", [out.to_str().unwrap(), "-mindepth", "1", "-delete"]);
        }
    }

    #[test]
    fn holes_survive() {
        const MIB: u64 = 1 << 20;
        type Runs = &'static [(u64, u64)];
        let cases: [(&str, u64, Runs); 6] = [
            ("in-the-middle", 8 * MIB, &[(0, 4096), (6 * MIB, 8 * MIB)]),
            ("at-both-ends", 8 * MIB, &[(4 * MIB + 512, 4 * MIB + 1000)]),
            ("odd-end", 4 * MIB + 7, &[(4 * MIB, 4 * MIB + 7)]),
            ("small-hole", 2 * MIB, &[(4096, 2 * MIB)]),
            ("touching", 3 * MIB, &[(0, 4096), (4096, 8192), (3 * MIB - 1, 3 * MIB)]),
            ("nothing", 5 * MIB, &[(u64::MAX - 1, u64::MAX)]),
        ];
        let content_of = |len: u64, runs: &[(u64, u64)]| {
            let mut content = vec![0_u8; usize::try_from(len).unwrap()];
            for (start, end) in runs.iter().filter(|(_, end)| *end <= len) {
                let range = usize::try_from(*start).unwrap()..usize::try_from(*end).unwrap();
                content[range].fill(b'x');
            }
            content
        };
        let mut tree = RawTree::new();
        let dir = tree.dir(ROOT, "dir");
        for (name, len, runs) in cases {
            let file = tree.file(dir, name, &content_of(len, runs));
            tree.inode(file).data = runs.to_vec();
            tree.metadata_mut(file).blocks_512 = 8;
        }
        let huge = tree.file(ROOT, "huge", b"");
        tree.inode(huge).data = vec![(1 << 43, (1 << 43) + 4096)];
        tree.metadata_mut(huge).size_bytes = (1 << 43) + 5000;
        let (dir, archive) = archive(tree, &[]);
        assert!(fs::metadata(&archive).unwrap().len() < 6 << 20, "holes were written as zeros");
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        for program in ["tar", "bsdtar"] {
            let excluding = "--exclude=huge";
            testkit::run_ok(
                program,
                ["-xf", archive.to_str().unwrap(), "-C", out.to_str().unwrap(), excluding],
            );
            for (name, len, runs) in cases {
                let path = out.join("dir").join(name);
                assert!(fs::read(&path).unwrap() == content_of(len, runs), "{program}: {name}");
                if name == "in-the-middle" {
                    assert!(
                        fs::metadata(&path).unwrap().blocks() < 8 * 2048,
                        "{program}: the hole was filled"
                    );
                }
            }
            fs::remove_dir_all(out.join("dir")).unwrap();
        }
        let listed = list(&archive, &["-v"]);
        let huge = listed.iter().find(|line| line.ends_with("./huge")).unwrap();
        assert!(huge.contains(&((1_u64 << 43) + 5000).to_string()), "{huge}");
    }

    #[test]
    fn attributes_are_those_that_gnu_tar_writes() {
        let mut tree = RawTree::new();
        let file = tree.file(ROOT, "file", b"");
        let acl: Vec<u8> = [2_u32.to_le_bytes().to_vec()]
            .into_iter()
            .chain(
                [
                    (1_u8, 6_u8, u32::MAX),
                    (2, 4, 1000),
                    (4, 4, u32::MAX),
                    (0x10, 4, u32::MAX),
                    (0x20, 0, u32::MAX),
                ]
                .map(|(tag, permissions, id)| [&[tag, 0, permissions, 0][..], &id.to_le_bytes()].concat()),
            )
            .collect::<Vec<_>>()
            .concat();
        tree.inode(file).xattrs = vec![
            ("user.text".into(), b"value".to_vec()),
            ("user.bytes=%".into(), b"a\0b\n=c".to_vec()),
            ("security.selinux".into(), b"system_u:object_r:etc_t:s0\0".to_vec()),
            ("system.posix_acl_access".into(), acl),
        ];
        let (_dir, archive) = archive(tree, &[]);
        let listed = list(&archive, &["-vv", "--xattrs", "--selinux", "--acls"]);
        let after = listed.iter().position(|line| line.ends_with("./file")).unwrap() + 1;
        assert_eq!(
            listed[after..].iter().map(|line| line.trim()).collect::<Vec<_>>(),
            [
                "s: system_u:object_r:etc_t:s0",
                "a: user::rw-,user:1000:r--,group::r--,mask::r--,other::---",
                "x: 5 user.text",
                "x: 6 user.bytes=%",
            ],
        );
        let bytes = fs::read(&archive).unwrap();
        assert!(bytes.contains_str("SCHILY.xattr.user.bytes%3D%25=a\0b\n=c\n"));
    }

    #[test] // Oracle: GNU tar's own idea of what its patterns leave out.
    fn excludes_are_those_of_gnu_tar() {
        let paths = [
            "a",
            "ab",
            "a.log",
            ".hidden",
            "dir/",
            "dir/a",
            "dir/b.log",
            "dir/sub/",
            "dir/sub/deep.log",
            "other/",
            "other/a",
            "[x]",
            "back\\slash",
            "x-y",
            "star*",
            "Upper",
            "sp ace",
            "q?",
            "other/dir/",
            "other/dir/file",
            "{b,c}",
            "b",
        ];
        let patterns = [
            "a",
            "*.log",
            "dir",
            "dir/*",
            "./a",
            "./dir/a",
            "/a",
            "dir/",
            "sub/deep.log",
            "?",
            "[ab]",
            "[!a]",
            "[^a]*",
            "[a-c]",
            "[]x[]*",
            "\\[x\\]",
            "[x]",
            "back\\\\slash",
            "back\\slash",
            "star\\*",
            "star[*]",
            "[[:upper:]]*",
            "[[:alpha:]]",
            "*",
            ".",
            "**",
            "a*g",
            "sp ace",
            "q\\?",
            "q?",
            "{b,c}",
            "[",
            "[a",
            "d*/a",
            "other/dir",
            "*/dir",
            "x[+--]y",
            "[c-a]",
            "[!c-a]",
            "",
            "\\",
            ".*",
            "[a\\]]",
            "dir\\",
        ];
        let mut tree = RawTree::new();
        let host = testkit::tempdir();
        for path in paths {
            let on_host = host.path().join(path);
            let (parent, name) =
                path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path.trim_end_matches('/')));
            let mut dir = ROOT;
            for name in parent.split('/').filter(|name| !name.is_empty()) {
                dir = tree.inode(dir).entries.iter().find(|(n, _)| n == name).unwrap().1;
            }
            if path.ends_with('/') {
                fs::create_dir(on_host).unwrap();
                tree.dir(dir, name);
            } else {
                fs::write(on_host, "").unwrap();
                tree.file(dir, name, b"");
            }
        }
        let vfs = Vfs::with_root("/dev/sda1", Arc::new(tree));
        for pattern in patterns {
            let source = host.path().to_str().unwrap();
            let theirs = testkit::run_ok(
                "sh",
                [
                    "-c",
                    r#"tar -C "$1" --exclude="$2" -cf - . | tar --quoting-style=literal -tf -"#,
                    "sh",
                    source,
                    pattern,
                ],
            );
            let mut theirs: Vec<_> = theirs.lines().collect();
            theirs.sort_unstable();
            let exclude = Exclude::new(&[pattern.into()]).unwrap();
            let mut ours = Vec::new();
            if !exclude.matches(".".into()) {
                let root = vfs.resolve("/".into(), crate::vfs::LastLink::Keep).unwrap();
                let mut walk = Walk::new(&vfs, root)
                    .leaving_out(|path| exclude.matches(format!("./{path}").as_str().into()));
                while let Some(entry) = walk.next().unwrap() {
                    let slash = if entry.metadata.is_dir() && entry.depth > 0 { "/" } else { "" };
                    ours.push(format!("./{}{slash}", entry.path));
                }
            }
            ours.sort_unstable();
            assert_eq!(ours, theirs, "{pattern:?}");
        }
    }
}
