//! The cpio format of SVR4, in which initramfs images are too: `newc`, and `crc` with checksums.
//!
//! Spec: Linux `Documentation/driver-api/early-userspace/buffer-format.rst`. Numbers are 8 hexadecimal
//! digits, so a file has less than 4 GiB and a time lies between 1970 and 2106.

use std::collections::HashMap;

use bstr::{BStr, BString, ByteSlice};
use vmcraft_fs::{FileType, InodeNumber, Metadata};

use crate::archive::output::Output;
use crate::content::Content;
use crate::host::{Host, Sink};
use crate::vfs::{MountId, Node, Vfs};
use crate::walk::{Entry, Walk};
use crate::{Error, Result};

/// The archive is filled up to a multiple of this.
const BLOCK_BYTES: u64 = 512;

/// How many bytes of names are held back until the last name of their file comes. Names past that
/// become files of their own.
const HELD_BYTES: usize = 64 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Newc,
    /// `newc` with the sum of each file's bytes.
    Crc,
}

/// Writes what is in the directory `start`, with member names relative to it.
pub(crate) fn cpio_out(
    vfs: &Vfs,
    host: &mut Host,
    sink: &mut Sink<'_>,
    start: Node,
    format: Format,
) -> Result<()> {
    let output = Output::new(host, sink, None)?;
    let mut cpio = Cpio { output, format, linked: HashMap::new(), held_bytes: 0, inodes: 0 };
    let mut walk = Walk::new(vfs, start);
    while let Some(entry) = walk.next()? {
        cpio.add(&entry)?;
    }
    // Files that have names outside the directory too.
    let mut linked: Vec<_> = std::mem::take(&mut cpio.linked).into_values().collect();
    linked.sort_by_key(|linked| linked.inode);
    for linked in linked {
        cpio.put_linked(linked)?;
    }
    cpio.put_header(&Header { links: 1, ..Header::default() }, b"TRAILER!!!")?;
    cpio.output.pad(BLOCK_BYTES)?;
    cpio.output.finish()
}

struct Cpio<'a, 's> {
    output: Output<'a, 's>,
    format: Format,
    /// Regular files of which further names are to come.
    linked: HashMap<(MountId, InodeNumber), Linked>,
    held_bytes: usize,
    /// How many inodes there are so far. Numbers are given anew: those of a guest may be too large,
    /// and those of two file systems may be the same.
    inodes: u32,
}

/// A regular file with several names. Its content goes with the last of them, as in the archives that
/// GNU cpio makes.
struct Linked {
    /// Its number in the archive.
    inode: u32,
    node: Node,
    metadata: Metadata,
    names: Vec<BString>,
}

/// The numbers of a header, in its order but for those that are always 0.
#[derive(Default)]
struct Header {
    inode: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    modified: u32,
    size: u32,
    device_major: u32,
    device_minor: u32,
    sum: u32,
}

impl Cpio<'_, '_> {
    fn add(&mut self, entry: &Entry<'_>) -> Result<()> {
        let metadata = &entry.metadata;
        let name = if entry.path.is_empty() { BStr::new(".") } else { entry.path };
        if metadata.file_type == FileType::Regular && metadata.links > 1 {
            return self.add_linked(entry, name);
        }
        let inode = self.new_inode(&entry.guest_path())?;
        let mut header = Header::new(inode, metadata);
        match metadata.file_type {
            FileType::Regular => self.put_file(header, name, &entry.node(), metadata),
            FileType::Symlink => {
                let target =
                    entry.mount.filesystem.read_link(entry.inode).map_err(|source| entry.error(source))?;
                header.size = u32::try_from(target.len()).unwrap_or(u32::MAX);
                self.put_header(&header, name)?;
                self.output.put(&target)?;
                self.output.pad(4)
            }
            FileType::Unknown => {
                Err(entry.error(vmcraft_fs::Error::InvalidInput("a file of an unknown type")))
            }
            _ => self.put_header(&header, name),
        }
    }

    fn add_linked(&mut self, entry: &Entry<'_>, name: &BStr) -> Result<()> {
        let key = (entry.mount.id, entry.inode);
        if !self.linked.contains_key(&key) {
            let inode = self.new_inode(&entry.guest_path())?;
            let linked = Linked { inode, node: entry.node(), metadata: entry.metadata, names: Vec::new() };
            if self.held_bytes >= HELD_BYTES {
                return self.put_linked(Linked { names: vec![name.to_owned()], ..linked });
            }
            self.linked.insert(key, linked);
        }
        let Some(linked) = self.linked.get_mut(&key) else { return Ok(()) };
        linked.names.push(name.to_owned());
        // With what else is kept of it.
        self.held_bytes += name.len() + size_of::<Linked>();
        if (linked.names.len() as u64) < entry.metadata.links {
            return Ok(());
        }
        match self.linked.remove(&key) {
            Some(linked) => self.put_linked(linked),
            None => Ok(()),
        }
    }

    fn put_linked(&mut self, linked: Linked) -> Result<()> {
        let Linked { inode, node, metadata, names } = linked;
        let Some((last, others)) = names.split_last() else { return Ok(()) };
        let links = u32::try_from(names.len()).unwrap_or(u32::MAX);
        let header = Header { links, ..Header::new(inode, &metadata) };
        for name in others {
            self.put_header(&header, name)?;
        }
        for name in &names {
            self.held_bytes = self.held_bytes.saturating_sub(name.len() + size_of::<Linked>());
        }
        self.put_file(header, last.as_bstr(), &node, &metadata)
    }

    fn put_file(&mut self, header: Header, name: &BStr, node: &Node, metadata: &Metadata) -> Result<()> {
        let size = u32::try_from(metadata.size_bytes)
            .map_err(|_| does_not_fit(&node.path, "the file has 4 GiB or more"))?;
        let sum = if self.format == Format::Crc { sum(node)? } else { 0 };
        self.put_header(&Header { size, sum, ..header }, name)?;
        let fail = |source| node.error(source);
        self.output.put_content(&*node.filesystem, node.inode, 0, metadata.size_bytes, fail)?;
        self.output.pad(4)
    }

    fn new_inode(&mut self, path: &BString) -> Result<u32> {
        let next = self.inodes.checked_add(1);
        self.inodes = next.ok_or_else(|| does_not_fit(path, "there are more than 2^32 files"))?;
        Ok(self.inodes)
    }

    fn put_header(&mut self, header: &Header, name: &[u8]) -> Result<()> {
        let magic = match self.format {
            Format::Newc => "070701",
            Format::Crc => "070702",
        };
        // With its NUL. Paths of the walk have at most some megabytes.
        let name_len = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let numbers = [
            header.inode,
            header.mode,
            header.uid,
            header.gid,
            header.links,
            header.modified,
            header.size,
            0,
            0,
            header.device_major,
            header.device_minor,
            name_len,
            header.sum,
        ];
        let mut text = magic.to_owned();
        text.extend(numbers.map(|number| format!("{number:08X}")));
        self.output.put(text.as_bytes())?;
        self.output.put(name)?;
        self.output.put(b"\0")?;
        self.output.pad(4)
    }
}

impl Header {
    /// The header of a file without content.
    fn new(inode: u32, metadata: &Metadata) -> Self {
        let device = metadata.device.unwrap_or_default();
        Self {
            inode,
            mode: metadata.mode(),
            links: u32::try_from(metadata.links).unwrap_or(u32::MAX),
            uid: metadata.uid,
            gid: metadata.gid,
            modified: u32::try_from(metadata.modified.seconds.max(0)).unwrap_or(u32::MAX),
            device_major: device.major,
            device_minor: device.minor,
            ..Self::default()
        }
    }
}

fn does_not_fit(path: &BString, what: &str) -> Error {
    Error::Usage(format!("{path}: {what}, which the cpio format cannot hold: use tar-out"))
}

/// The sum of a file's bytes.
fn sum(node: &Node) -> Result<u32> {
    let mut sum = 0_u32;
    Content::of_file(node.clone())?.read_all(&mut |_| Ok(()), |data| {
        sum = data.iter().fold(sum, |sum, byte| sum.wrapping_add(u32::from(*byte)));
        Ok(())
    })?;
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};
    use std::sync::Arc;

    use vmcraft_fs::{DeviceNumber, Timestamp};

    use super::*;
    use crate::Guest;
    use crate::raw_tree::{ROOT, RawTree};
    use crate::value::FileOut;

    fn tree() -> RawTree {
        let mut tree = RawTree::new();
        let dir = tree.add(ROOT, "dir", FileType::Directory, 0o750, b"");
        for len in 0..5 {
            tree.file(dir, &format!("len{len}"), &b"abcd"[..len]);
        }
        let file = tree.add(dir, "linked", FileType::Regular, 0o4711, &[0xff; 70_000]);
        *tree.metadata_mut(file) = Metadata { links: 3, uid: 1000, gid: 100, ..*tree.metadata_mut(file) };
        tree.link(dir, b"again", file);
        tree.link(ROOT, b"third", file);
        let empty = tree.file(dir, "empty", b"");
        // One of its names is not in the archive.
        tree.metadata_mut(empty).links = 3;
        tree.link(dir, b"empty-again", empty);
        tree.add(ROOT, "link", FileType::Symlink, 0o777, b"dir/linked");
        tree.add(ROOT, "fifo", FileType::Fifo, 0o600, b"");
        let null = tree.add(ROOT, "null", FileType::CharDevice, 0o666, b"");
        tree.metadata_mut(null).device = Some(DeviceNumber { major: 1, minor: 3 });
        let late = tree.file(ROOT, "late", b"");
        tree.metadata_mut(late).modified = Timestamp { seconds: 4_000_000_000, nanoseconds: 0 };
        tree
    }

    fn archive(tree: RawTree, format: &str) -> (tempfile::TempDir, Result<PathBuf>) {
        let mut guest = Guest::new();
        guest.vfs = Vfs::with_root("/dev/sda1", Arc::new(tree));
        let dir = testkit::tempdir();
        let path = dir.path().join("archive.cpio");
        let result = guest.cpio_out("/".into(), &FileOut::Path(path.clone()), Some(format));
        (dir, result.map(|()| path))
    }

    fn cpio(options: &[&str], archive: &Path, dir: &Path) -> String {
        let output = Command::new(testkit::require("cpio"))
            .args(options)
            .current_dir(dir)
            .env("LC_ALL", "C")
            .stdin(Stdio::from(fs::File::open(archive).unwrap()))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[test] // Oracles: GNU cpio, which checks the sums of the crc format, and bsdtar.
    fn others_read_what_is_packed() {
        for format in ["newc", "crc"] {
            let (dir, archive) = archive(tree(), format);
            let archive = archive.unwrap();
            assert_eq!(fs::metadata(&archive).unwrap().len() % BLOCK_BYTES, 0);
            let listed = cpio(&["-it", "--quiet"], &archive, dir.path());
            assert_eq!(listed.lines().count(), 16, "{listed}");
            assert_eq!(testkit::run_ok("bsdtar", ["-tf", archive.to_str().unwrap()]), listed);
            let out = dir.path().join("out");
            fs::create_dir(&out).unwrap();
            // Device nodes need root.
            cpio(&["-idm", "--quiet", "-f", "null"], &archive, &out);
            for len in 0..5 {
                assert_eq!(fs::read(out.join(format!("dir/len{len}"))).unwrap(), &b"abcd"[..len]);
            }
            assert_eq!(fs::read(out.join("third")).unwrap(), [0xff; 70_000]);
            assert_eq!(fs::read_link(out.join("link")).unwrap(), Path::new("dir/linked"));
            let found = |name: &str| fs::metadata(out.join(name)).unwrap();
            assert_eq!(found("dir").mode() & 0o777, 0o750);
            assert_eq!((found("late").mtime(), found("third").mtime()), (4_000_000_000, 1_700_000_000));
            assert_eq!((found("third").nlink(), found("dir/again").ino()), (3, found("third").ino()));
            assert_eq!(found("dir/empty").nlink(), 2);
            let verbose = cpio(&["-itvn", "--quiet"], &archive, dir.path());
            let third = verbose.lines().find(|line| line.ends_with(" third")).unwrap();
            let fields: Vec<_> = third.split_whitespace().take(5).collect();
            assert_eq!(fields, ["-rws--x--x", "3", "1000", "100", "70000"]);
            let null = verbose.lines().find(|line| line.ends_with(" null")).unwrap();
            assert!(null.starts_with("crw-rw-rw-") && null.contains("1,   3"), "{null}");
        }
    }

    #[test]
    fn a_file_that_does_not_fit_is_refused() {
        let mut tree = RawTree::new();
        let large = tree.file(ROOT, "large", b"");
        tree.metadata_mut(large).size_bytes = 1 << 32;
        let (_dir, archive) = archive(tree, "newc");
        let refused = archive.unwrap_err().to_string();
        assert!(refused.starts_with("/large: the file has 4 GiB or more"), "{refused}");
    }

    #[test]
    fn an_unknown_format_is_refused() {
        let (_dir, archive) = archive(tree(), "odc");
        assert_eq!(archive.unwrap_err().to_string(), "\"odc\" is not a cpio format: use newc or crc");
    }
}
