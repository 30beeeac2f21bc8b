//! Making directories, links and special files.

use bstr::{BStr, BString, ByteSlice};
use vmcraft_fs::{DeviceNumber, FileType};
use vmcraft_macros::api;

use crate::change::{Directory, New, NewFile, remove};
use crate::vfs::{LastLink, join};
use crate::{Error, Guest, GuestPath, Result};

/// What a template of `mkdtemp` and `mktemp` ends in.
const PLACEHOLDER: &[u8] = b"XXXXXX";

/// How large `lost+found` is, as e2fsprogs make it.
const LOST_AND_FOUND_BYTES: u64 = 16 << 10;

/// How many names of 255 bytes it takes at most to make a directory so large.
const LOST_AND_FOUND_NAMES: usize = 128;

/// How many names are tried for a temporary file before it is given up.
const ATTEMPTS: usize = 100;

const LETTERS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

#[api(area = "making files")]
impl Guest {
    /// Create a directory
    ///
    /// Its permissions are what the umask leaves of 0777.
    ///
    /// ```guestfish
    /// mkdir /srv/www
    /// ```
    pub fn mkdir(&mut self, path: &GuestPath) -> Result<()> {
        self.make(path, NewFile::Directory, 0o777)
    }

    /// Create a directory and its missing parents
    ///
    /// It is not an error if `path` is a directory already.
    ///
    /// ```guestfish
    /// mkdir-p /srv/www/html
    /// ```
    pub fn mkdir_p(&mut self, path: &GuestPath) -> Result<()> {
        let new = New::by_root(0o777, self.settings.umask);
        self.atomically(|guest| {
            let missing = match guest.resolve(path) {
                Ok(node) if node.metadata()?.is_dir() => return Ok(()),
                Ok(node) => return Err(node.error(vmcraft_fs::Error::NotADirectory)),
                Err(e) if e.is_not_found() => e,
                Err(e) => return Err(e),
            };
            // The names after the last directory that is there.
            let mut parent = path.as_bstr().trim_end_with(|c| c == '/').as_bstr();
            let mut names: Vec<BString> = Vec::new();
            let mut directory = loop {
                let slash = parent.rfind_byte(b'/');
                let Some(slash) = slash else { return Err(missing) };
                names.push(parent[slash + 1..].into());
                parent = parent[..slash].as_bstr();
                let above = if parent.is_empty() { b"/".as_bstr() } else { parent };
                match guest.vfs.resolve(GuestPath::new(above), LastLink::Follow) {
                    Ok(node) => break Directory::of(node)?,
                    Err(e) if e.is_not_found() => {}
                    Err(e) => return Err(e),
                }
            };
            while let Some(name) = names.pop() {
                let node = match name.as_slice() {
                    b"" | b"." => continue,
                    b".." => {
                        let path = join(&directory.node.path, "..".into());
                        guest.vfs.resolve(GuestPath::new(&path), LastLink::Follow)?
                    }
                    _ => {
                        let inode = directory.make(name.as_bstr(), NewFile::Directory, new)?;
                        directory.node_of(name.as_bstr(), inode)
                    }
                };
                directory = Directory::of(node)?;
            }
            Ok(())
        })
    }

    /// Create a directory with given permissions
    ///
    /// Its permissions are what the umask leaves of `mode`.
    ///
    /// ```guestfish
    /// mkdir-mode /srv/private 0700
    /// ```
    pub fn mkdir_mode(&mut self, path: &GuestPath, mode: i32) -> Result<()> {
        let mode = permissions(path, mode)?;
        self.make(path, NewFile::Directory, mode)
    }

    /// Create the directory `lost+found`
    ///
    /// `mountpoint` is the directory to make it in, which is most often where an ext2, ext3 or ext4 file
    /// system is mounted. Only root may look into it, and it has 16 KiB for names, so that e2fsck can
    /// put files there on a full disk.
    ///
    /// ```guestfish
    /// mklost-and-found /
    /// ```
    pub fn mklost_and_found(&mut self, mountpoint: &GuestPath) -> Result<()> {
        let path = join(mountpoint.as_bstr(), "lost+found".into());
        self.atomically(|guest| {
            guest.make(GuestPath::new(&path), NewFile::Directory, 0o700)?;
            let node = guest.resolve_link(GuestPath::new(&path))?;
            // A directory keeps the blocks of names that go, so the longest ones make room.
            let mut names = Vec::new();
            while node.metadata()?.size_bytes < LOST_AND_FOUND_BYTES && names.len() < LOST_AND_FOUND_NAMES {
                let name = join(path.as_bstr(), format!("{:0>255}", names.len()).as_str().into());
                guest.make(GuestPath::new(&name), NewFile::Regular, 0o600)?;
                names.push(name);
            }
            names.iter().try_for_each(|name| guest.rm(GuestPath::new(name)))
        })
    }

    /// Create a directory with a name of its own
    ///
    /// `tmpl` is a path whose last name ends in `XXXXXX`, which six random letters and digits stand in
    /// for. The directory has the permissions 0700. The result is its path.
    ///
    /// ```guestfish
    /// mkdtemp /tmp/work.XXXXXX
    /// ```
    pub fn mkdtemp(&mut self, tmpl: &GuestPath) -> Result<BString> {
        self.make_temporary(tmpl, "", NewFile::Directory, 0o700)
    }

    /// Create a file with a name of its own
    ///
    /// `tmpl` is a path whose last name ends in `XXXXXX`, which six random letters and digits stand in
    /// for; `suffix` is put behind them. The file is empty and has the permissions 0600. The result is
    /// its path.
    ///
    /// ```guestfish
    /// mktemp /tmp/work.XXXXXX suffix:.txt
    /// ```
    pub fn mktemp(&mut self, tmpl: &GuestPath, suffix: Option<&str>) -> Result<BString> {
        self.make_temporary(tmpl, suffix.unwrap_or_default(), NewFile::Regular, 0o600)
    }

    /// Create a hard link
    ///
    /// `linkname` becomes one more name of the file `target`. A symbolic link as the target gets the
    /// name itself.
    ///
    /// ```guestfish
    /// ln /etc/hosts /etc/hosts.bak
    /// ```
    pub fn ln(&mut self, target: &GuestPath, linkname: &GuestPath) -> Result<()> {
        self.hard_link(target, linkname)
    }

    /// Create a hard link in place of what is there
    ///
    /// As `ln`, and a file that has the name `linkname` loses it first.
    ///
    /// ```guestfish
    /// ln-f /etc/hosts /etc/hosts.bak
    /// ```
    pub fn ln_f(&mut self, target: &GuestPath, linkname: &GuestPath) -> Result<()> {
        self.atomically(|guest| {
            let source = guest.resolve_link(target)?;
            let (parent, name) = guest.vfs.resolve_parent(linkname)?;
            match guest.vfs.child(&parent, name.as_bstr()) {
                Ok(old) if (old.mount, old.inode) == (source.mount, source.inode) => return Ok(()),
                Ok(old) if !old.metadata()?.is_dir() => remove(&guest.vfs, &parent, name.as_bstr())?,
                _ => {}
            }
            guest.hard_link(target, linkname)
        })
    }

    /// Create a symbolic link
    ///
    /// `linkname` becomes a link that holds `target`, whatever there is.
    ///
    /// ```guestfish
    /// ln-s /usr/share/zoneinfo/UTC /etc/localtime
    /// ```
    pub fn ln_s(&mut self, target: &BStr, linkname: &GuestPath) -> Result<()> {
        self.symlink(target, linkname)
    }

    /// Create a symbolic link in place of what is there
    ///
    /// As `ln-s`, and a file that has the name `linkname` loses it first.
    ///
    /// ```guestfish
    /// ln-sf /usr/share/zoneinfo/UTC /etc/localtime
    /// ```
    pub fn ln_sf(&mut self, target: &BStr, linkname: &GuestPath) -> Result<()> {
        self.atomically(|guest| {
            let (parent, name) = guest.vfs.resolve_parent(linkname)?;
            if let Ok(old) = guest.vfs.child(&parent, name.as_bstr())
                && !old.metadata()?.is_dir()
            {
                remove(&guest.vfs, &parent, name.as_bstr())?;
            }
            guest.symlink(target, linkname)
        })
    }

    /// Create a named pipe
    ///
    /// Its permissions are what the umask leaves of `mode`.
    ///
    /// ```guestfish
    /// mkfifo 0600 /run/initctl
    /// ```
    pub fn mkfifo(&mut self, mode: i32, path: &GuestPath) -> Result<()> {
        let mode = permissions(path, mode)?;
        self.make(path, NewFile::Special(FileType::Fifo, DeviceNumber::default()), mode)
    }

    /// Create a file of any type
    ///
    /// `mode` is type and permissions as `st_mode` has them, such as 0020666 for a character device;
    /// without a type it is a regular file. The umask applies. `devmajor` and `devminor` are heeded
    /// for devices.
    ///
    /// ```guestfish
    /// mknod 0020666 1 3 /dev/null
    /// ```
    pub fn mknod(&mut self, mode: i32, devmajor: i32, devminor: i32, path: &GuestPath) -> Result<()> {
        let mode = permissions(path, mode)?;
        let device = device_number(devmajor, devminor)?;
        let file = match FileType::from_mode(mode) {
            FileType::Regular => NewFile::Regular,
            FileType::Unknown if mode & 0o170_000 == 0 => NewFile::Regular,
            special @ (FileType::CharDevice | FileType::BlockDevice | FileType::Fifo | FileType::Socket) => {
                NewFile::Special(special, device)
            }
            FileType::Directory | FileType::Symlink | FileType::Unknown => {
                return Err(Error::Usage(format!("{path}: {mode:#o} is not the mode of a special file")));
            }
        };
        self.make(path, file, mode)
    }

    /// Create a block device node
    ///
    /// Its permissions are what the umask leaves of `mode`.
    ///
    /// ```guestfish
    /// mknod-b 0660 8 0 /dev/sda
    /// ```
    pub fn mknod_b(&mut self, mode: i32, devmajor: i32, devminor: i32, path: &GuestPath) -> Result<()> {
        let (mode, device) = (permissions(path, mode)?, device_number(devmajor, devminor)?);
        self.make(path, NewFile::Special(FileType::BlockDevice, device), mode)
    }

    /// Create a character device node
    ///
    /// Its permissions are what the umask leaves of `mode`.
    ///
    /// ```guestfish
    /// mknod-c 0666 1 3 /dev/null
    /// ```
    pub fn mknod_c(&mut self, mode: i32, devmajor: i32, devminor: i32, path: &GuestPath) -> Result<()> {
        let (mode, device) = (permissions(path, mode)?, device_number(devmajor, devminor)?);
        self.make(path, NewFile::Special(FileType::CharDevice, device), mode)
    }

    /// Set the permissions that new files do not get
    ///
    /// `mask` is from 0 to 0777; 022 at first. It applies to files and directories that calls make,
    /// but not to those whose permissions a call copies, such as `cp-a` and `tar-in`. The result is the
    /// mask that was set before.
    ///
    /// ```guestfish
    /// umask 077
    /// ```
    #[call(print = "octal")]
    pub fn umask(&mut self, mask: i32) -> Result<i32> {
        let mask = u32::try_from(mask)
            .ok()
            .filter(|mask| *mask <= 0o777)
            .ok_or_else(|| Error::Usage(format!("{mask:#o}: mask negative or out of range")))?;
        let before = std::mem::replace(&mut self.settings.umask, mask);
        Ok(i32::try_from(before).unwrap_or(0))
    }

    /// Return the permissions that new files do not get
    ///
    /// ```guestfish
    /// get-umask
    /// ```
    #[call(print = "octal")]
    pub fn get_umask(&self) -> Result<i32> {
        Ok(i32::try_from(self.settings.umask).unwrap_or(0))
    }
}

impl Guest {
    fn make(&mut self, path: &GuestPath, file: NewFile<'_>, mode: u32) -> Result<()> {
        let new = New::by_root(mode & 0o7777, self.settings.umask);
        self.atomically(|guest| {
            if path.as_bstr().ends_with(b"/") && !matches!(file, NewFile::Directory) {
                // A slash at the end asks for a directory.
                guest.resolve(path)?;
            }
            let (directory, name) = Directory::of_path(&guest.vfs, path)?;
            directory.make(name.as_bstr(), file, new).map(drop)
        })
    }

    fn symlink(&mut self, target: &BStr, linkname: &GuestPath) -> Result<()> {
        if target.is_empty() {
            return Err(Error::Usage(format!("{linkname}: a symbolic link needs a target")));
        }
        self.make(linkname, NewFile::Symlink(target), 0o777)
    }

    fn hard_link(&mut self, target: &GuestPath, linkname: &GuestPath) -> Result<()> {
        let source = self.resolve_link(target)?;
        if source.metadata()?.is_dir() {
            return Err(
                source.error(vmcraft_fs::Error::NotPermitted("a directory cannot have a second name"))
            );
        }
        let (directory, name) = Directory::of_path(&self.vfs, linkname)?;
        if directory.node.mount != source.mount {
            return Err(Error::CrossDevice { from: source.path, to: linkname.as_bstr().into() });
        }
        let name = name.as_bstr();
        directory
            .writer()?
            .link(source.inode, directory.node.inode, name)
            .map_err(|source| directory.error(name, source))
    }

    fn make_temporary(
        &mut self,
        tmpl: &GuestPath,
        suffix: &str,
        file: NewFile<'_>,
        mode: u32,
    ) -> Result<BString> {
        let Some(start) = tmpl.as_bstr().strip_suffix(PLACEHOLDER) else {
            return Err(Error::Usage(format!("{tmpl}: a template ends in XXXXXX")));
        };
        if suffix.contains('/') {
            return Err(Error::Usage(format!("{suffix:?}: a suffix cannot contain a slash")));
        }
        for _ in 0..ATTEMPTS {
            let random: [u8; 6] = self.sources().random();
            let letters = random.map(|byte| LETTERS[usize::from(byte) % LETTERS.len()]);
            let path = [start, &letters, suffix.as_bytes()].concat();
            let made = self.make(GuestPath::new(&path), file, mode);
            match made {
                Ok(()) => return Ok(path.into()),
                Err(Error::Path { source: vmcraft_fs::Error::Exists, .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Err(Error::Usage(format!("{tmpl}: {ATTEMPTS} names were tried, and all are taken")))
    }
}

fn permissions(path: &GuestPath, mode: i32) -> Result<u32> {
    u32::try_from(mode).map_err(|_| Error::Usage(format!("{path}: mode is negative")))
}

fn device_number(major: i32, minor: i32) -> Result<DeviceNumber> {
    // As many bits as Linux has for each.
    let number = |number: i32, bits: u32| u32::try_from(number).ok().filter(|number| number >> bits == 0);
    match (number(major, 12), number(minor, 20)) {
        (Some(major), Some(minor)) => Ok(DeviceNumber { major, minor }),
        _ => Err(Error::Usage(format!("{major}, {minor}: not the numbers of a device"))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::testing::MemoryFs;
    use crate::testing::script::{call, refusal, run, tree};
    use crate::value::Value;

    #[test] // What libguestfs 1.48 made of the same calls.
    fn directories_and_special_files_have_libguestfs_modes() {
        let mut guest = MemoryFs::new().guest();
        run(
            &mut guest,
            "mkdir /d\nmkdir-mode /m 02777\nmkdir-mode /t 01777\nmkdir-p /d/e/f\nln-s /d/e /de\nmkdir-p /de/h
             mkdir-p /d/e/f\nmkdir-p /de/../x/./y/\numask 077\nmkdir /u\nmknod 0777 10 20 /mn\nmknod 0140600 0 0 /sock
             mknod-c 0777 10 20 /mnc\nmknod-b 0777 300 70000 /mnb\nmkfifo 0777 /fifo\nmknod 010600 0 0 /pipe",
        );
        assert_eq!(
            tree(&guest, "/"),
            [
                "40755 6 0:0 .",
                "40755 4 0:0 d",
                "40755 4 0:0 d/e",
                "40755 2 0:0 d/e/f",
                "40755 2 0:0 d/e/h",
                "40755 3 0:0 d/x",
                "40755 2 0:0 d/x/y",
                "120777 1 0:0 4 de -> /d/e",
                "10700 1 0:0 0 fifo 0,0",
                "40755 2 0:0 m",
                "100700 1 0:0 0 mn",
                "60700 1 0:0 0 mnb 300,70000",
                "20700 1 0:0 0 mnc 10,20",
                "10600 1 0:0 0 pipe 0,0",
                "140600 1 0:0 0 sock 0,0",
                "41755 2 0:0 t",
                "40700 2 0:0 u",
            ]
        );
        assert_eq!(call(&mut guest, "umask 022").unwrap(), Value::Int(0o077));
        assert_eq!(call(&mut guest, "get-umask").unwrap(), Value::Int(0o022));
    }

    #[test] // As the kernel: the group and its bit go on, and so do access control lists.
    fn new_files_inherit_from_their_directory() {
        let mut guest = MemoryFs::new().dir("/sg").guest();
        run(
            &mut guest,
            "chown 5 6 /sg\nchmod 02775 /sg\nmkdir /sg/dir\nwrite /sg/file x\nln-s x /sg/link\nmknod-c 0600 1 3 /sg/c
             acl-set-file /sg default u::rwx,u:9:rwx,g::r-x,m::rwx,o::---
             mkdir /sg/dir2\nwrite /sg/file2 x\nmkdir-mode /sg/dir3 0700\nln-s x /sg/link2",
        );
        assert_eq!(
            tree(&guest, "/sg"),
            [
                "42775 5 5:6 .",
                "20600 1 0:6 0 c 1,3",
                "42755 2 0:6 dir",
                "42770 2 0:6 dir2",
                "42700 2 0:6 dir3",
                "100644 1 0:6 1 file",
                "100660 1 0:6 1 file2",
                "120777 1 0:6 1 link -> x",
                "120777 1 0:6 1 link2 -> x",
            ]
        );
        let list = |path: &str, acltype| guest.acl_get_file(path.into(), acltype).unwrap();
        let default = "user::rwx\nuser:9:rwx\ngroup::r-x\nmask::rwx\nother::---\n";
        assert_eq!(
            (list("/sg/dir2", "access").as_str(), list("/sg/dir2", "default").as_str()),
            (default, default)
        );
        let file =
            "user::rw-\nuser:9:rwx\t#effective:rw-\ngroup::r-x\t#effective:r--\nmask::rw-\nother::---\n";
        assert_eq!(list("/sg/file2", "access"), file);
        run(&mut guest, "chmod 0600 /sg/file2");
        let list = |path: &str, acltype| guest.acl_get_file(path.into(), acltype).unwrap();
        assert_eq!(
            list("/sg/file2", "access"),
            file.replace("e:rw-", "e:---").replace("e:r--", "e:---").replace("k::rw-", "k::---")
        );
    }

    #[test]
    fn temporary_files_have_names_of_their_own() {
        let mut guest = MemoryFs::new().dir("/tmp").guest();
        let dir = guest.mkdtemp("/tmp/d.XXXXXX".into()).unwrap();
        let file = guest.mktemp("/tmp/f.XXXXXX".into(), Some(".txt")).unwrap();
        assert_eq!(tree(&guest, &dir.to_string()), ["40700 2 0:0 ."]);
        assert_eq!(tree(&guest, &file.to_string()), ["100600 1 0:0 0 ."]);
        assert!(file.starts_with(b"/tmp/f.") && file.ends_with(b".txt") && file.len() == 17, "{file}");
        assert_ne!(guest.mkdtemp("/tmp/d.XXXXXX".into()).unwrap(), dir);
        assert_eq!(refusal(&mut guest, "mkdtemp /tmp/d.XXXX"), "/tmp/d.XXXX: a template ends in XXXXXX");
        assert!(refusal(&mut guest, "mktemp /tmp/d.XXXXXX suffix:/x").contains("slash"));
        assert!(refusal(&mut guest, "mktemp /none/d.XXXXXX").contains("no such file or directory"));
    }

    #[test]
    fn links_are_made_and_replaced() {
        let mut guest = MemoryFs::new().dir("/d").file("/f", "x").symlink("/sl", "f").guest();
        run(
            &mut guest,
            "ln /f /hl\nln-f /f /hl\nln /sl /sl2\nln-s anything /free\nln-sf x /hl\nln-f /f /free",
        );
        assert_eq!(
            tree(&guest, "/"),
            [
                "40755 3 0:0 .",
                "40755 2 0:0 d",
                "100644 2 0:0 1 f",
                "100644 2 0:0 1 free",
                "120777 1 0:0 1 hl -> x",
                "120777 2 0:0 1 sl -> f",
                "120777 2 0:0 1 sl2 -> f",
            ]
        );
        let mut other = MemoryFs::new().file("/g", "").guest();
        std::mem::swap(&mut guest, &mut other);
        guest.vfs.mount("/dev/sdb", Arc::new(MemoryFs::new()), "/".into(), false).unwrap();
        std::mem::swap(&mut guest, &mut other);
        for (line, errno, message) in [
            ("mkdir /d", 17, "/d: file exists"),
            ("mkdir /none/d", 2, "/none/d: no such file or directory (at /none)"),
            ("mkdir /", 22, "/: the path ends in no name"),
            ("mkdir-p /f", 20, "/f: not a directory"),
            ("mkdir-p /f/x", 20, "/f: not a directory"),
            ("mkdir-mode /x -1", 22, "/x: mode is negative"),
            ("umask 01000", 22, "0o1000: mask negative or out of range"),
            ("ln /none /x", 2, "/none: no such file or directory"),
            ("ln /f /sl", 17, "/sl: file exists"),
            ("ln /d /x", 1, "/d: operation not permitted: a directory cannot have a second name"),
            ("ln-f /f /d", 17, "/d: file exists"),
            ("ln-sf x /d", 17, "/d: file exists"),
            ("ln-s x /f", 17, "/f: file exists"),
            ("ln f /x", 22, "\"f\": a path inside the guest must start with /"),
            ("mknod 0040755 0 0 /x", 22, "/x: 0o40755 is not the mode of a special file"),
            ("mknod-b 0600 5000 0 /x", 22, "5000, 0: not the numbers of a device"),
            ("mkfifo -1 /x", 22, "/x: mode is negative"),
            ("mkfifo 0600 /x/", 2, "/x/: no such file or directory (at /x)"),
        ] {
            let refused = call(&mut guest, line).unwrap_err();
            assert_eq!((refused.to_string().as_str(), refused.errno()), (message, errno), "{line}");
        }
    }

    #[test]
    fn limits_and_borders_of_links_are_named() {
        let mut guest = MemoryFs::new().file("/f", "x").dir("/mnt").with_links(3).guest();
        guest.vfs.mount("/dev/sdb", Arc::new(MemoryFs::new()), "/mnt".into(), false).unwrap();
        run(&mut guest, "ln /f /f2\nln /f /f3");
        let refused = call(&mut guest, "ln /f /f4").unwrap_err();
        assert_eq!(
            (refused.errno(), refused.to_string().as_str()),
            (31, "/f4: too many links: at most 3 are possible")
        );
        assert_eq!(call(&mut guest, "mkdir /d2").unwrap_err().errno(), 31);
        let refused = call(&mut guest, "ln /f /mnt/f").unwrap_err();
        assert_eq!(
            (refused.errno(), refused.to_string().as_str()),
            (18, "/f and /mnt/f are on different file systems")
        );
    }
}
