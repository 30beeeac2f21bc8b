//! Removing, moving and copying files.

use bstr::ByteSlice;
use vmcraft_macros::api;

use crate::change::{self, CopyOptions, child_error, remove, remove_tree};
use crate::{Error, Guest, GuestPath, Result};

#[api(area = "removing, moving and copying")]
impl Guest {
    /// Remove a file
    ///
    /// `path` is anything but a directory. A symbolic link is removed itself.
    ///
    /// ```guestfish
    /// rm /etc/nologin
    /// ```
    pub fn rm(&mut self, path: &GuestPath) -> Result<()> {
        let (parent, name) = self.vfs.resolve_parent(path)?;
        remove(&self.vfs, &parent, name.as_bstr())
    }

    /// Remove a file that may be missing
    ///
    /// As `rm`, and it is not an error if there is no such file.
    ///
    /// ```guestfish
    /// rm-f /etc/nologin
    /// ```
    pub fn rm_f(&mut self, path: &GuestPath) -> Result<()> {
        match self.rm(path) {
            Err(Error::Path { source: vmcraft_fs::Error::NotFound, .. }) => Ok(()),
            result => result,
        }
    }

    /// Remove a file or a directory with all that is in it
    ///
    /// It is not an error if there is nothing. Symbolic links are removed themselves, and never
    /// followed. Nothing is removed if another file system is mounted below.
    ///
    /// ```guestfish
    /// rm-rf /var/cache/apt
    /// ```
    pub fn rm_rf(&mut self, path: &GuestPath) -> Result<()> {
        if path.components().next().is_none() {
            return Err(Error::Usage("cannot remove root directory".into()));
        }
        self.atomically(|guest| {
            let removed = guest
                .vfs
                .resolve_parent(path)
                .and_then(|(parent, name)| remove_tree(&guest.vfs, &mut guest.host, &parent, name.as_bstr()));
            match removed {
                Err(e) if e.is_not_found() => Ok(()),
                result => result,
            }
        })
    }

    /// Remove an empty directory
    ///
    /// ```guestfish
    /// rmdir /srv/www
    /// ```
    pub fn rmdir(&mut self, path: &GuestPath) -> Result<()> {
        let (parent, name) = self.vfs.resolve_parent(path)?;
        let name = name.as_bstr();
        change::check_not_mounted(&self.vfs, &parent, name)?;
        parent.writer()?.rmdir(parent.inode, name).map_err(|source| child_error(&parent, name, source))
    }

    /// Move a file or directory
    ///
    /// As the program `mv`: if `dest` is a directory, `src` is moved into it under its own name,
    /// otherwise it is renamed to `dest`, whose file it replaces. Between file systems it is copied
    /// with all its attributes, and then removed.
    ///
    /// ```guestfish
    /// mv /etc/hosts /etc/hosts.bak
    /// ```
    pub fn mv(&mut self, src: &GuestPath, dest: &GuestPath) -> Result<()> {
        self.atomically(|guest| change::move_to(&guest.vfs, &mut guest.host, src, dest))
    }

    /// Rename a file or directory
    ///
    /// As `rename(2)`: `newpath` is the name that `oldpath` has afterwards, on the same file system. A
    /// file that has it is replaced, and a directory too if it is empty.
    ///
    /// ```guestfish
    /// rename /etc/hosts /etc/hosts.bak
    /// ```
    pub fn rename(&mut self, oldpath: &GuestPath, newpath: &GuestPath) -> Result<()> {
        change::rename(&self.vfs, oldpath, newpath)
    }

    /// Copy a file
    ///
    /// As the program `cp`: symbolic links are followed. If `dest` is a directory, the copy is made in
    /// it under the same name; a file that is there keeps its owner and permissions. A new one has the
    /// permissions that the umask leaves of those of `src`.
    ///
    /// ```guestfish
    /// cp /etc/hosts /etc/hosts.bak
    /// ```
    pub fn cp(&mut self, src: &GuestPath, dest: &GuestPath) -> Result<()> {
        self.copy(src, dest, CopyOptions::file(self.settings.umask))
    }

    /// Copy a file or directory with all its attributes
    ///
    /// As `cp -a`: directories are copied with all that is in them, and added to where they are there.
    /// Owners, permissions, times, extended attributes, symbolic links, hard links and special files
    /// are kept as they are.
    ///
    /// ```guestfish
    /// cp-a /etc /etc.bak
    /// ```
    pub fn cp_a(&mut self, src: &GuestPath, dest: &GuestPath) -> Result<()> {
        self.copy(src, dest, CopyOptions::archive())
    }

    /// Copy a file or directory
    ///
    /// As `cp -rP`: directories are copied with all that is in them, symbolic links as links. Copies
    /// belong to root, and have the permissions that the umask leaves and the time of now.
    ///
    /// ```guestfish
    /// cp-r /etc/skel /home/user
    /// ```
    pub fn cp_r(&mut self, src: &GuestPath, dest: &GuestPath) -> Result<()> {
        self.copy(src, dest, CopyOptions::tree(self.settings.umask))
    }
}

impl Guest {
    fn copy(&mut self, src: &GuestPath, dest: &GuestPath, options: CopyOptions) -> Result<()> {
        self.atomically(|guest| change::copy(&guest.vfs, &mut guest.host, src, dest, &options))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use vmcraft_fs::FileType;

    use crate::Guest;
    use crate::testing::MemoryFs;
    use crate::testing::script::{call, refusal, run, tree};

    /// `/d` with one of each kind, and another file system on `/mnt`.
    fn guest() -> Guest {
        let fs = MemoryFs::new()
            .dir("/mnt")
            .file("/d/f", "content")
            .mode("/d/f", 0o4751)
            .owner("/d/f", 7, 8)
            .xattr("/d/f", "user.x", b"v")
            .hard_link("/d/hard", "/d/f")
            .symlink("/d/l", "f")
            .special("/d/fifo", FileType::Fifo, 0, 0)
            .dir("/d/sub")
            .mode("/d/sub", 0o2775)
            .symlink("/dangling", "nowhere");
        let mut guest = fs.guest();
        guest.vfs.mount("/dev/sdb", Arc::new(MemoryFs::new()), "/mnt".into(), false).unwrap();
        run(
            &mut guest,
            "utimens /d/f 1000 1 2000 2\nutimens /d/sub 3 3 3 3\nutimens /d 4 4 4 4\nutimens /d/l 5 5 5 5",
        );
        guest
    }

    fn modified(guest: &Guest, path: &str) -> i64 {
        guest.resolve_link(path.into()).unwrap().metadata().unwrap().modified.seconds
    }

    #[test] // Trees and modes are those that libguestfs 1.48 left.
    fn copies_are_those_of_cp() {
        let mut guest = guest();
        run(
            &mut guest,
            "cp /d/f /f1\ncp /d/f /d/sub\ncp /d/l /l1\ncp-r /d /dr\nrm /d/sub/f\nutimens /d/sub 3 3 3 3\ncp-a /d /da",
        );
        assert_eq!(tree(&guest, "/f1"), ["100751 1 0:0 7 ."]);
        assert_eq!(tree(&guest, "/l1"), ["100751 1 0:0 7 ."]);
        assert_eq!(
            tree(&guest, "/dr"),
            [
                "40755 3 0:0 .",
                "100751 1 0:0 7 f",
                "10600 1 0:0 0 fifo 0,0",
                "100751 1 0:0 7 hard",
                "120777 1 0:0 1 l -> f",
                "40755 2 0:0 sub",
                "100751 1 0:0 7 sub/f",
            ]
        );
        assert_eq!(
            tree(&guest, "/da"),
            [
                "40755 3 0:0 .",
                "104751 2 7:8 7 f",
                "10600 1 0:0 0 fifo 0,0",
                "104751 2 7:8 7 hard",
                "120777 1 0:0 1 l -> f",
                "42775 2 0:0 sub",
            ]
        );
        assert_eq!(guest.getxattr("/da/f".into(), "user.x".into()).unwrap(), b"v");
        assert!(guest.getxattrs("/dr/f".into()).unwrap().is_empty());
        let times = ["/da", "/da/f", "/da/sub", "/da/l"].map(|path| modified(&guest, path));
        assert_eq!(times, [4, 2000, 3, 5]);
        // Into what is there, and to another file system.
        run(&mut guest, "cp-a /d /da\ncp-a /da /mnt\nwrite /old x\nchmod 0600 /old\ncp /d/f /old");
        assert_eq!(tree(&guest, "/da/d").len(), 6);
        assert_eq!(tree(&guest, "/mnt/da").len(), 12);
        assert_eq!(tree(&guest, "/old"), ["100600 1 0:0 7 ."]);
        assert_eq!(guest.read("/mnt/da/d/hard").unwrap(), b"content");
    }

    #[test] // A file as large as its holes must not fill the disk.
    fn copies_keep_holes() {
        let mut guest = MemoryFs::new().with_blocks(8).guest();
        run(
            &mut guest,
            "write /f start\npwrite /f middle 50000000\ntruncate-size /f 100000000\ncp /f /g\ncp-a /f /h",
        );
        for path in ["/g", "/h"] {
            let copy = guest.resolve(path.into()).unwrap().metadata().unwrap();
            assert_eq!((copy.size_bytes, copy.blocks_512), (100_000_000, 16), "{path}");
            assert_eq!(guest.pread(path.into(), 7, 50_000_000).unwrap(), b"middle\0");
        }
    }

    #[test]
    fn moves_are_those_of_mv() {
        let mut guest = guest();
        run(
            &mut guest,
            "write /f1 x\nmv /f1 /f2\nmv /f2 /d/sub\nwrite /d/x y\nmv /d/x /d/sub/f2\nmv /d/l /mnt",
        );
        assert_eq!(guest.read("/d/sub/f2").unwrap(), b"y");
        assert_eq!(tree(&guest, "/mnt"), ["40755 2 0:0 .", "120777 1 0:0 1 l -> f"]);
        // Across file systems, with all that is below, and over a file.
        run(&mut guest, "write /mnt/f old\nmv /d/hard /mnt/f\nmv /d /mnt/d2");
        assert_eq!(
            tree(&guest, "/mnt"),
            [
                "40755 3 0:0 .",
                "40755 3 0:0 d2",
                "104751 1 7:8 7 d2/f",
                "10600 1 0:0 0 d2/fifo 0,0",
                "42775 2 0:0 d2/sub",
                "100644 1 0:0 1 d2/sub/f2",
                "104751 1 7:8 7 f",
                "120777 1 0:0 1 l -> f",
            ]
        );
        assert_eq!(guest.ls("/".into()).unwrap(), ["dangling", "mnt"]);
        run(&mut guest, "mkdir /e1\nmkdir /e2\nrename /e1 /e2\nmkdir /e2/in\nmkdir /mnt/e2\nmv /e2 /mnt");
        assert_eq!(tree(&guest, "/mnt/e2").len(), 2);
    }

    #[test] // What the programs and the kernel refuse, with the errno that libguestfs gives.
    fn what_cannot_be_moved_or_copied_is_refused() {
        let mut guest = guest();
        run(&mut guest, "mkdir-p /full/sub/x\nmkdir-p /full/l");
        for (line, errno, message) in [
            ("cp /d /d2", 21, "/d: is a directory"),
            ("cp /none /d2", 2, "/none: no such file or directory"),
            ("cp /d/f /d/f", 22, "/d/f and /d/f are the same file"),
            ("cp /d/f /d/hard", 22, "/d/f and /d/hard are the same file"),
            ("cp /d/f /none/x", 2, "/none/x: no such file or directory (at /none)"),
            ("cp /d/f /none/", 20, "/none/: not a directory"),
            ("cp /d/f /dangling", 22, "/dangling: not written through a symbolic link that leads nowhere"),
            ("cp /d/fifo /x", 22, "/d/fifo: not a regular file"),
            ("cp-a /d /d/sub/x", 22, "/d: a directory cannot be copied into itself, /d/sub/x"),
            ("cp-a /d /d", 22, "/d: a directory cannot be copied into itself, /d/d"),
            ("cp-a /full/l /d/f", 20, "/d/f: not a directory"),
            ("cp-a /d/l /full", 21, "/full/l: is a directory"),
            ("mv /none /x", 2, "/none: no such file or directory"),
            ("mv /d /d/sub", 22, "/d/sub/d: a directory cannot be moved into itself"),
            ("mv /d/f /d/hard", 22, "/d/f and /d/hard are the same file"),
            ("mv /d/sub /full", 39, "/full/sub: directory not empty"),
            ("mv /full/sub /d/l", 20, "/d/l: not a directory"),
            ("mv /d/fifo /d/none/", 20, "/d/none/: not a directory"),
            ("mv /mnt /x", 16, "/mnt: busy: /dev/sdb is mounted there; unmount it first"),
            ("rename /d/hard /mnt/x", 18, "/d/hard and /mnt/x are on different file systems"),
            ("rename /mnt /mnt2", 16, "/mnt: busy: /dev/sdb is mounted there; unmount it first"),
            ("rename /d/sub /mnt", 16, "/mnt: busy: /dev/sdb is mounted there; unmount it first"),
            ("rename /none /x", 2, "/none: no such file or directory"),
            ("rename /d/f /d/sub", 21, "/d/sub: is a directory"),
            ("rename /d/sub /d/f", 20, "/d/f: not a directory"),
            ("rename /d/sub /full", 39, "/full: directory not empty"),
            ("rename /d /d/sub/x", 22, "/d/sub/x: a directory cannot be moved into itself"),
            ("rename /d/f /x/", 20, "/d/f: not a directory"),
            ("rmdir /mnt", 16, "/mnt: busy: /dev/sdb is mounted there; unmount it first"),
            ("rmdir /full", 39, "/full: directory not empty"),
            ("rmdir /d/f", 20, "/d/f: not a directory"),
            ("rm /d", 21, "/d: is a directory"),
            ("rm-f /d", 21, "/d: is a directory"),
            ("rm /none", 2, "/none: no such file or directory"),
            ("rm-rf /", 22, "cannot remove root directory"),
        ] {
            let refused = call(&mut guest, line).unwrap_err();
            assert_eq!((refused.to_string().as_str(), refused.errno()), (message, errno), "{line}");
        }
    }

    #[test]
    fn trees_are_removed_without_following_links() {
        let mut guest = guest();
        run(
            &mut guest,
            "mkdir /keep\nwrite /keep/f x\nln-s /keep /d/sub/out\nrm-rf /none\nrm-rf /none/x\nrm-f /none",
        );
        run(&mut guest, "rm-rf /d\nrm-rf /dangling\nrm /keep/f");
        assert_eq!(tree(&guest, "/keep"), ["40755 2 0:0 ."]);
        assert_eq!(guest.ls("/".into()).unwrap(), ["keep", "mnt"]);
        assert!(refusal(&mut guest, "rm-rf /mnt").contains("busy"));
    }

    #[test] // Directories of more names than are read at once, and deeper than a stack would go.
    fn large_and_deep_trees_are_removed() {
        let mut fs = MemoryFs::new().dir("/many");
        for number in 0..20_000 {
            fs = fs.file(&format!("/many/{number}"), "");
        }
        let mut guest = fs.guest();
        let mut path = String::from("/many");
        for _ in 0..3000 {
            path.push_str("/d");
        }
        guest.mkdir_p(path.as_str().into()).unwrap();
        run(&mut guest, "rm-rf /many");
        assert_eq!(tree(&guest, "/"), ["40755 2 0:0 ."]);
    }
}
