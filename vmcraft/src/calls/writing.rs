//! Writing the content of files.

use bstr::{BStr, ByteSlice};
use vmcraft_fs::{FileType, SetMetadata};
use vmcraft_macros::api;

use crate::change::{Directory, New, NewFile, Opening, open};
use crate::content::STEP_BYTES;
use crate::vfs::Node;
use crate::{Error, Guest, GuestPath, Progress, Result};

#[api(area = "writing files")]
impl Guest {
    /// Write a file
    ///
    /// The file `path` has `content` afterwards and nothing else. One that is there keeps its owner,
    /// permissions and inode; a new one has the permissions that the umask leaves of 0666. Symbolic
    /// links are followed, also to where nothing is yet.
    ///
    /// ```guestfish
    /// write /etc/hostname "debian\n"
    /// ```
    pub fn write(&mut self, path: &GuestPath, content: &[u8]) -> Result<()> {
        self.atomically(|guest| {
            let node = guest.open_to_write(path, Opening::Truncate)?;
            write_at(&node, 0, content)
        })
    }

    /// Append to a file
    ///
    /// `content` is added at the end of the file `path`, which is made if it is not there.
    ///
    /// ```guestfish
    /// write-append /etc/hosts "192.0.2.7 db\n"
    /// ```
    pub fn write_append(&mut self, path: &GuestPath, content: &[u8]) -> Result<()> {
        self.atomically(|guest| {
            let node = guest.open_to_write(path, Opening::Create)?;
            write_at(&node, node.metadata()?.size_bytes, content)
        })
    }

    /// Write into a file at an offset
    ///
    /// `content` is written at byte `offset` of the file `path`, which must be there. What lies between
    /// its old end and `offset` reads as zeros. The result is how many bytes were written: all.
    ///
    /// ```guestfish
    /// pwrite /etc/hostname "D" 0
    /// ```
    pub fn pwrite(&mut self, path: &GuestPath, content: &[u8], offset: i64) -> Result<i64> {
        let offset = not_negative("offset", offset)?;
        self.atomically(|guest| {
            let node = guest.open_to_write(path, Opening::Existing)?;
            write_at(&node, offset, content)?;
            Ok(i64::try_from(content.len()).unwrap_or(i64::MAX))
        })
    }

    /// Create a file, or set its times to now
    ///
    /// `path` is a regular file, or nothing yet. A symbolic link is refused.
    ///
    /// ```guestfish
    /// touch /etc/nologin
    /// ```
    pub fn touch(&mut self, path: &GuestPath) -> Result<()> {
        let now = self.sources().now();
        let node = match self.resolve_link(path) {
            Ok(node) => node,
            Err(e) if e.is_not_found() => {
                return self.atomically(|guest| guest.open_to_write(path, Opening::Create).map(drop));
            }
            Err(e) => return Err(e),
        };
        if node.metadata()?.file_type != FileType::Regular {
            return Err(Error::Usage(format!("{path}: touch can only be used on regular files")));
        }
        let set = SetMetadata { accessed: Some(now), modified: Some(now), ..SetMetadata::default() };
        node.writer()?.set_metadata(node.inode, &set).map_err(|source| node.error(source))
    }

    /// Make a file empty
    ///
    /// The file `path` must be there.
    ///
    /// ```guestfish
    /// truncate /var/log/wtmp
    /// ```
    pub fn truncate(&mut self, path: &GuestPath) -> Result<()> {
        self.truncate_size(path, 0)
    }

    /// Make a file a given size
    ///
    /// The file `path`, which must be there, is cut off at `size` bytes, or made so long with a hole at
    /// its end.
    ///
    /// ```guestfish
    /// truncate-size /swapfile 1G
    /// ```
    pub fn truncate_size(&mut self, path: &GuestPath, size: i64) -> Result<()> {
        let size = not_negative("size", size)?;
        self.atomically(|guest| {
            let node = guest.open_to_write(path, Opening::Existing)?;
            node.writer()?.truncate(node.inode, size).map_err(|source| node.error(source))
        })
    }

    /// Give a new file space on the disk
    ///
    /// The same as `fallocate64`.
    ///
    /// ```guestfish
    /// fallocate /swapfile 1M
    /// ```
    #[call(deprecated = "fallocate64")]
    pub fn fallocate(&mut self, path: &GuestPath, len: i32) -> Result<()> {
        self.fallocate64(path, len.into())
    }

    /// Give a new file space on the disk
    ///
    /// The file `path` is made, or emptied, and then has `len` bytes, which read as zeros and for which
    /// there is space on the disk. Use `truncate-size` for a file that takes no space.
    ///
    /// ```guestfish
    /// fallocate64 /swapfile 1G
    /// ```
    pub fn fallocate64(&mut self, path: &GuestPath, len: i64) -> Result<()> {
        let len = not_negative("len", len)?;
        self.atomically(|guest| {
            let node = guest.open_to_write(path, Opening::Truncate)?;
            if len == 0 {
                return Err(node.error(vmcraft_fs::Error::InvalidInput("the length is 0")));
            }
            node.writer()?.allocate(node.inode, 0, len, false).map_err(|source| node.error(source))
        })
    }

    /// Fill a file with a byte
    ///
    /// `len` bytes with the value `c` are written at the start of the file `path`, which is made if it
    /// is not there. What a longer file has behind them stays.
    ///
    /// ```guestfish
    /// fill 0 10M /srv/zeros
    /// ```
    pub fn fill(&mut self, c: i32, len: i32, path: &GuestPath) -> Result<()> {
        let byte =
            u8::try_from(c).map_err(|_| Error::Usage(format!("{c}: byte number must be in range 0..255")))?;
        self.fill_pattern_bytes(&[byte], len, path)
    }

    /// Fill a file with a repeated pattern
    ///
    /// `pattern` is written again and again at the start of the file `path` until it is `len` bytes;
    /// the last copy can be cut short. The file is made if it is not there. What a longer file has
    /// behind them stays.
    ///
    /// ```guestfish
    /// fill-pattern "abc" 1M /srv/pattern
    /// ```
    pub fn fill_pattern(&mut self, pattern: &BStr, len: i32, path: &GuestPath) -> Result<()> {
        self.fill_pattern_bytes(pattern, len, path)
    }

    /// Fill a directory with empty files
    ///
    /// `nr` files with the names `00000000`, `00000001` and so on are made in the directory `dir`.
    /// Those that are there stay.
    ///
    /// ```guestfish
    /// fill-dir /srv/many 1000
    /// ```
    pub fn fill_dir(&mut self, dir: &GuestPath, nr: i32) -> Result<()> {
        let total = not_negative("nr", nr.into())?;
        self.atomically(|guest| {
            let new = New::by_root(0o666, guest.settings.umask);
            let directory = Directory::of(guest.resolve(dir)?)?;
            for number in 0..total {
                let name = format!("{number:08}");
                let name = name.as_bytes().as_bstr();
                match directory.node.filesystem.lookup(directory.node.inode, name) {
                    Ok(_) => continue,
                    Err(vmcraft_fs::Error::NotFound) => {}
                    Err(source) => return Err(directory.error(name, source)),
                }
                directory.make(name, NewFile::Regular, new)?;
                if number.is_multiple_of(256) {
                    guest.host.step(Progress { position: number, total })?;
                }
            }
            Ok(())
        })
    }
}

impl Guest {
    /// A regular file of the guest, to be written.
    pub(crate) fn open_to_write(&self, path: &GuestPath, opening: Opening) -> Result<Node> {
        open(&self.vfs, path, opening, self.settings.umask)
    }

    fn fill_pattern_bytes(&mut self, pattern: &[u8], len: i32, path: &GuestPath) -> Result<()> {
        let total = not_negative("len", len.into())?;
        if pattern.is_empty() {
            return Err(Error::Usage("the pattern is empty".into()));
        }
        // As many whole patterns as are written at once.
        let whole: Vec<u8> = pattern
            .iter()
            .copied()
            .cycle()
            .take((STEP_BYTES / pattern.len()).max(1) * pattern.len())
            .collect();
        self.atomically(|guest| {
            let node = guest.open_to_write(path, Opening::Create)?;
            let mut at = 0;
            while at < total {
                let left = usize::try_from(total - at).unwrap_or(usize::MAX);
                let piece = &whole[..whole.len().min(left)];
                write_at(&node, at, piece)?;
                at += piece.len() as u64;
                guest.host.step(Progress { position: at, total })?;
            }
            Ok(())
        })
    }
}

/// Writes all of `content`. Nothing is no change.
pub(crate) fn write_at(node: &Node, offset: u64, content: &[u8]) -> Result<()> {
    if content.is_empty() {
        return Ok(());
    }
    node.writer()?.write(node.inode, offset, content).map_err(|source| node.error(source))
}

/// A number that stands for a size or a place.
pub(crate) fn not_negative(name: &str, number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| Error::Usage(format!("{name} is negative: {number}")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vmcraft_fs::{Sources, Timestamp};

    use super::*;
    use crate::testing::MemoryFs;
    use crate::testing::script::{call, refusal, run, tree};

    fn content(guest: &Guest, path: &str) -> Vec<u8> {
        guest.read(path).unwrap()
    }

    #[test] // Modes, targets and contents are those that libguestfs 1.48 left.
    fn files_are_written_as_the_kernel_opens_them() {
        let mut guest = MemoryFs::new().dir("/d").symlink("/dangling", "nowhere").guest();
        run(&mut guest, "write /dangling hello\nwrite /dangling hi\numask 077\nwrite /private x");
        assert_eq!(
            tree(&guest, "/"),
            [
                "40755 3 0:0 .",
                "40755 2 0:0 d",
                "120777 1 0:0 7 dangling -> nowhere",
                "100644 1 0:0 2 nowhere",
                "100600 1 0:0 1 private",
            ]
        );
        run(&mut guest, "write-append /app aa\nwrite-append /app bb\npwrite /app X 6\nfill 65 3 /app");
        assert_eq!(content(&guest, "/app"), b"AAAb\0\0X");
        run(&mut guest, "fill-pattern abc 10 /p\nfill-pattern xy 3 /p\ntruncate-size /app 2");
        assert_eq!(
            (content(&guest, "/p"), content(&guest, "/app")),
            (b"xyxabcabca".to_vec(), b"AA".to_vec())
        );
        run(&mut guest, "truncate /app\ntruncate-size /app 3\nfill-dir /d 3\nfill-dir /d 2");
        assert_eq!(content(&guest, "/app"), [0; 3]);
        assert_eq!(guest.ls("/d".into()).unwrap(), ["00000000", "00000001", "00000002"]);
        run(&mut guest, "write /al old\nfallocate /al 5\nfallocate64 /space 100000");
        assert_eq!(content(&guest, "/al"), [0; 5]);
        let space = guest.resolve("/space".into()).unwrap().metadata().unwrap();
        assert_eq!((space.size_bytes, space.blocks_512), (100_000, 200));
    }

    #[test] // An existing file keeps what it is: only its content changes.
    fn writing_keeps_inode_owner_and_permissions_but_no_capabilities() {
        let fs = MemoryFs::new()
            .file("/f", "old and long")
            .mode("/f", 0o4711)
            .owner("/f", 3, 4)
            .xattr("/f", "security.capability", b"c")
            .xattr("/f", "user.x", b"1");
        let mut guest = fs.guest();
        run(&mut guest, "write /f new");
        assert_eq!(tree(&guest, "/f"), ["104711 1 3:4 3 ."]);
        let names: Vec<_> = guest.getxattrs("/f".into()).unwrap().into_iter().map(|x| x.attrname).collect();
        assert_eq!(names, ["user.x"]);
    }

    #[test]
    fn touch_sets_times_and_makes_files() {
        let now = Timestamp { seconds: 1_700_000_000, nanoseconds: 5 };
        let mut guest = MemoryFs::new().file("/f", "x").symlink("/l", "f").dir("/d").guest();
        guest.set_clock(Some(now));
        run(&mut guest, "touch /f\ntouch /new");
        let metadata = guest.resolve("/f".into()).unwrap().metadata().unwrap();
        assert_eq!((metadata.accessed, metadata.modified), (now, now));
        assert_eq!(tree(&guest, "/new"), ["100644 1 0:0 0 ."]);
        for line in ["touch /l", "touch /d"] {
            assert!(refusal(&mut guest, line).ends_with("touch can only be used on regular files"));
        }
    }

    #[test] // Each failure names the path and the reason, and has libguestfs's errno.
    fn what_cannot_be_written_is_refused() {
        let fs = MemoryFs::new()
            .dir("/d")
            .file("/f", "x")
            .symlink("/loop", "loop")
            .symlink("/to-dir", "none/")
            .special("/null", FileType::CharDevice, 1, 3);
        let mut guest = fs.guest();
        let long = "n".repeat(256);
        for (line, errno, message) in [
            ("write /d x", 21, "/d: is a directory"),
            ("write /new/ x", 21, "/new/: is a directory"),
            ("write /to-dir x", 21, "/none/: is a directory"),
            ("write /none/f x", 2, "/none/f: no such file or directory (at /none)"),
            ("write /f/x x", 20, "/f/x: not a directory (at /f)"),
            ("write /loop x", 40, "/loop: too many levels of symbolic links"),
            ("write /null x", 22, "/null: not a regular file"),
            ("write f x", 22, "\"f\": a path inside the guest must start with /"),
            ("pwrite /none x 0", 2, "/none: no such file or directory"),
            ("pwrite /f x -1", 22, "offset is negative: -1"),
            (
                "pwrite /f x 17592186044416",
                27,
                "/f: file too large: at most 17592186044416 bytes are possible",
            ),
            ("truncate-size /f -5", 22, "size is negative: -5"),
            ("truncate-size /none 5", 2, "/none: no such file or directory"),
            ("fill 256 4 /f", 22, "256: byte number must be in range 0..255"),
            ("fill-dir /f 1", 20, "/f: not a directory"),
        ] {
            let refused = call(&mut guest, line).unwrap_err();
            assert_eq!((refused.to_string().as_str(), refused.errno()), (message, errno), "{line}");
        }
        let refused = call(&mut guest, &format!("write /{long} x")).unwrap_err();
        assert!(refused.to_string().contains("name too long: 256 bytes"), "{refused}");
        assert_eq!(content(&guest, "/f"), b"x");
    }

    #[test]
    fn full_and_read_only_file_systems_say_so() {
        let mut guest = MemoryFs::new().file("/f", "x").with_blocks(2).guest();
        let full = call(&mut guest, "fill 65 100000 /g").unwrap_err();
        assert_eq!((full.errno(), full.to_string().starts_with("/g: no space left")), (28, true), "{full}");
        let mut guest = MemoryFs::new().file("/f", "x").with_inodes(2).guest();
        assert_eq!(call(&mut guest, "touch /g").unwrap_err().errno(), 28);

        let mut guest = MemoryFs::new().file("/f", "x").read_only("its journal is corrupt").guest();
        let refused = refusal(&mut guest, "write /f y");
        assert_eq!(refused, "/f: read-only file system: its journal is corrupt");
        let mut guest = Guest::new();
        guest.vfs.mount("/dev/sda1", Arc::new(MemoryFs::new().file("/f", "x")), "/".into(), true).unwrap();
        for line in
            ["write /f y", "touch /f", "mkdir /d", "rm /f", "rm-rf /f", "ln-s x /l", "mv /f /g", "chmod 0 /f"]
        {
            let refused = call(&mut guest, line).unwrap_err();
            assert_eq!(refused.errno(), 30, "{line}: {refused}");
            assert!(
                refused.to_string().ends_with("read-only file system: it is mounted read-only"),
                "{refused}"
            );
        }
    }

    #[test] // Content that is larger than what is written at once.
    fn patterns_go_on_across_pieces() {
        let mut guest = MemoryFs::new().with_sources(Sources::default()).guest();
        run(&mut guest, "fill-pattern 1234567 2500000 /p");
        let content = content(&guest, "/p");
        assert_eq!(content.len(), 2_500_000);
        assert!(content.iter().zip(b"1234567".iter().cycle()).all(|(one, other)| one == other));
    }
}
