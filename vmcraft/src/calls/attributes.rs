//! Changing owners, permissions, times and extended attributes.

use bstr::BStr;
use vmcraft_fs::{FileType, SetMetadata, Timestamp, XattrMode};
use vmcraft_macros::api;

use crate::acl::{self, Acl};
use crate::change::{Attributes, change_owner, change_permissions, copy_attributes};
use crate::owners::Owners;
use crate::vfs::Node;
use crate::{Error, Guest, GuestPath, Result, capabilities};

/// What stands for the time now, and for a time that stays, in the place of nanoseconds.
const NOW: i64 = -1;
const AS_IT_IS: i64 = -2;

#[api(area = "changing attributes")]
impl Guest {
    /// Change the permissions of a file
    ///
    /// `mode` is permissions, set-id and sticky bits; the umask does not apply. A symbolic link is
    /// followed.
    ///
    /// ```guestfish
    /// chmod 0600 /etc/ssh/ssh_host_rsa_key
    /// ```
    pub fn chmod(&mut self, mode: i32, path: &GuestPath) -> Result<()> {
        let mode = u32::try_from(mode).map_err(|_| Error::Usage(format!("{path}: mode is negative")))?;
        self.atomically(|guest| change_permissions(&guest.resolve(path)?, mode))
    }

    /// Change the owner of a file
    ///
    /// `owner` and `group` are numbers; -1 leaves one as it is. A symbolic link is followed. A program
    /// loses its set-id bits and capabilities, as on Linux.
    ///
    /// ```guestfish
    /// chown 1000 1000 /home/user/.profile
    /// ```
    pub fn chown(&mut self, owner: i32, group: i32, path: &GuestPath) -> Result<()> {
        self.atomically(|guest| change_owner(&guest.resolve(path)?, id(owner), id(group)))
    }

    /// Change the owner of a file without following a symbolic link
    ///
    /// `owner` and `group` are numbers; -1 leaves one as it is.
    ///
    /// ```guestfish
    /// lchown 1000 1000 /home/user/link
    /// ```
    pub fn lchown(&mut self, owner: i32, group: i32, path: &GuestPath) -> Result<()> {
        self.atomically(|guest| change_owner(&guest.resolve_link(path)?, id(owner), id(group)))
    }

    /// Set the times of a file
    ///
    /// `atsecs` and `atnsecs` are seconds since 1970 and nanoseconds of the last read, `mtsecs` and
    /// `mtnsecs` those of the last change. Nanoseconds of -1 stand for the time now, of -2 for the time
    /// that the file has. A symbolic link is not followed.
    ///
    /// ```guestfish
    /// utimens /etc/hostname 1700000000 0 1700000000 0
    /// ```
    pub fn utimens(
        &mut self,
        path: &GuestPath,
        atsecs: i64,
        atnsecs: i64,
        mtsecs: i64,
        mtnsecs: i64,
    ) -> Result<()> {
        let now = self.sources().now();
        let time = |seconds, nanoseconds| match (nanoseconds, u32::try_from(nanoseconds)) {
            (NOW, _) => Ok(Some(now)),
            (AS_IT_IS, _) => Ok(None),
            (_, Ok(nanoseconds @ 0..1_000_000_000)) => Ok(Some(Timestamp { seconds, nanoseconds })),
            _ => Err(Error::Usage(format!("{nanoseconds}: nanoseconds are from 0 to 999999999, -1 or -2"))),
        };
        let (accessed, modified) = (time(atsecs, atnsecs)?, time(mtsecs, mtnsecs)?);
        if accessed.is_none() && modified.is_none() {
            return self.resolve_link(path).map(drop);
        }
        let set = SetMetadata { accessed, modified, ..SetMetadata::default() };
        let node = self.resolve_link(path)?;
        node.writer()?.set_metadata(node.inode, &set).map_err(|source| node.error(source))
    }

    /// Set an extended attribute
    ///
    /// `xattr` is its full name, such as `user.comment`, and `vallen` how many bytes of `val` it gets.
    /// A symbolic link is followed.
    ///
    /// ```guestfish
    /// setxattr user.comment "hello" 5 /etc/hosts
    /// ```
    pub fn setxattr(&mut self, xattr: &BStr, val: &BStr, vallen: i32, path: &GuestPath) -> Result<()> {
        self.atomically(|guest| set_xattr(&guest.resolve(path)?, xattr, val, vallen))
    }

    /// Set an extended attribute without following a symbolic link
    ///
    /// `xattr` is its full name, and `vallen` how many bytes of `val` it gets.
    ///
    /// ```guestfish
    /// lsetxattr trusted.comment "hello" 5 /etc/os-release
    /// ```
    pub fn lsetxattr(&mut self, xattr: &BStr, val: &BStr, vallen: i32, path: &GuestPath) -> Result<()> {
        self.atomically(|guest| set_xattr(&guest.resolve_link(path)?, xattr, val, vallen))
    }

    /// Remove an extended attribute
    ///
    /// `xattr` is its full name. A symbolic link is followed. It is an error if the file does not have
    /// it.
    ///
    /// ```guestfish
    /// removexattr user.comment /etc/hosts
    /// ```
    pub fn removexattr(&mut self, xattr: &BStr, path: &GuestPath) -> Result<()> {
        let node = self.resolve(path)?;
        node.writer()?.remove_xattr(node.inode, xattr).map_err(|source| node.error(source))
    }

    /// Remove an extended attribute without following a symbolic link
    ///
    /// `xattr` is its full name. It is an error if the file does not have it.
    ///
    /// ```guestfish
    /// lremovexattr trusted.comment /etc/os-release
    /// ```
    pub fn lremovexattr(&mut self, xattr: &BStr, path: &GuestPath) -> Result<()> {
        let node = self.resolve_link(path)?;
        node.writer()?.remove_xattr(node.inode, xattr).map_err(|source| node.error(source))
    }

    /// Set the access control list of a file
    ///
    /// `acltype` is `access` for the list that applies to the file, or `default` for the one that new
    /// files in a directory get. `acl` is the list as text, long or short, with commas or lines between
    /// its entries, as in acl(5). Users and groups are numbers, or names of the guest. A symbolic link
    /// is followed.
    ///
    /// ```guestfish
    /// acl-set-file /srv access "u::rwx,g::r-x,o::---,u:1000:rwx,m::rwx"
    /// ```
    pub fn acl_set_file(&mut self, path: &GuestPath, acltype: &str, acl: &str) -> Result<()> {
        let node = self.resolve(path)?;
        let name = acl_name(&node, acltype)?;
        let list = Acl::parse(acl, &Owners::of_guest(&self.vfs))
            .map_err(|e| Error::Usage(format!("{path}: not an access control list: {e}")))?;
        node.writer()?
            .set_xattr(node.inode, name.into(), &list.encode(), XattrMode::Any)
            .map_err(|source| node.error(source))
    }

    /// Remove the default access control list of a directory
    ///
    /// It is not an error if it has none. A symbolic link is followed.
    ///
    /// ```guestfish
    /// acl-delete-def-file /srv
    /// ```
    pub fn acl_delete_def_file(&mut self, dir: &GuestPath) -> Result<()> {
        let node = self.resolve(dir)?;
        let name = acl_name(&node, "default")?;
        match node.writer()?.remove_xattr(node.inode, name.into()) {
            Err(vmcraft_fs::Error::NoAttribute) => Ok(()),
            result => result.map_err(|source| node.error(source)),
        }
    }

    /// Set the capabilities of a program file
    ///
    /// `cap` is text as cap_from_text(3) takes it, such as `cap_net_raw+ep`; `=` stands for none. A
    /// symbolic link is followed.
    ///
    /// ```guestfish
    /// cap-set-file /usr/bin/ping cap_net_raw+ep
    /// ```
    pub fn cap_set_file(&mut self, path: &GuestPath, cap: &str) -> Result<()> {
        let value = capabilities::encode(cap)
            .map_err(|e| Error::Usage(format!("{cap:?}: not the text of capabilities: {e}")))?;
        let node = self.resolve(path)?;
        node.writer()?
            .set_xattr(node.inode, "security.capability".into(), &value, XattrMode::Any)
            .map_err(|source| node.error(source))
    }

    /// Copy the attributes of a file to another
    ///
    /// `all` copies everything, or else `mode` the permissions, `xattributes` the extended attributes,
    /// `ownership` user and group.
    ///
    /// ```guestfish
    /// copy-attributes /etc/shadow /etc/shadow.new all:true
    /// ```
    #[call(alias = "copy-attributes-opts")]
    pub fn copy_attributes(
        &mut self,
        src: &GuestPath,
        dest: &GuestPath,
        all: Option<bool>,
        mode: Option<bool>,
        xattributes: Option<bool>,
        ownership: Option<bool>,
    ) -> Result<()> {
        let wanted = |what: Option<bool>| all.unwrap_or(false) || what.unwrap_or(false);
        let what =
            Attributes { permissions: wanted(mode), xattrs: wanted(xattributes), owner: wanted(ownership) };
        self.atomically(|guest| copy_attributes(&guest.resolve(src)?, &guest.resolve(dest)?, what))
    }
}

/// A number of a user or group: -1 leaves it as it is, and those above 2^31 come as negative ones.
fn id(number: i32) -> Option<u32> {
    (number != -1).then_some(number.cast_unsigned())
}

fn set_xattr(node: &Node, name: &BStr, value: &[u8], len: i32) -> Result<()> {
    // The text's end counts as a byte, as it does in C.
    let value = [value, b"\0"].concat();
    let value = usize::try_from(len).ok().and_then(|len| value.get(..len)).ok_or_else(|| {
        Error::Usage(format!("vallen is {len}, and the value has {} bytes", value.len() - 1))
    })?;
    if (name == acl::ACCESS || name == acl::DEFAULT) && Acl::decode(value).is_none() {
        return Err(node.error(vmcraft_fs::Error::InvalidInput("not an access control list")));
    }
    node.writer()?.set_xattr(node.inode, name, value, XattrMode::Any).map_err(|source| node.error(source))
}

/// The attribute that holds a list.
fn acl_name(node: &Node, acltype: &str) -> Result<&'static str> {
    let file_type = node.metadata()?.file_type;
    match acltype {
        "access" => Ok(acl::ACCESS),
        "default" if file_type == FileType::Directory => Ok(acl::DEFAULT),
        "default" => {
            Err(node
                .error(vmcraft_fs::Error::InvalidInput("only a directory has a default access control list")))
        }
        other => Err(Error::Usage(format!("acltype is access or default, not {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use vmcraft_fs::Timestamp;

    use crate::testing::MemoryFs;
    use crate::testing::script::{call, run, tree};
    use crate::{Guest, GuestPath};

    fn times(guest: &Guest, path: &str) -> (i64, u32, i64, u32) {
        let metadata = guest.resolve_link(GuestPath::new(path)).unwrap().metadata().unwrap();
        let (accessed, modified) = (metadata.accessed, metadata.modified);
        (accessed.seconds, accessed.nanoseconds, modified.seconds, modified.nanoseconds)
    }

    #[test] // What libguestfs 1.48 left after the same calls.
    fn owners_and_permissions_change_as_the_kernel_changes_them() {
        let fs = MemoryFs::new().file("/f", "x").symlink("/sl", "/f").dir("/d").file("/cap", "x").xattr(
            "/cap",
            "security.capability",
            b"c",
        );
        let mut guest = fs.guest();
        run(
            &mut guest,
            "chmod 04711 /sl\nchown 12 34 /sl\nlchown 56 78 /sl\nchmod 02775 /d\nchown 1 2 /d\nchown 5 -1 /cap",
        );
        assert_eq!(
            tree(&guest, "/"),
            [
                "40755 3 0:0 .",
                "100644 1 5:0 1 cap",
                "42775 2 1:2 d",
                "100711 1 12:34 1 f",
                "120777 1 56:78 2 sl -> /f",
            ]
        );
        assert!(guest.getxattrs("/cap".into()).unwrap().is_empty());
        // A set-group-id bit without the group's x is no set-group-id bit.
        run(&mut guest, "chmod 02644 /f\nchown -1 99 /f");
        assert_eq!(tree(&guest, "/f"), ["102644 1 12:99 1 ."]);
    }

    #[test]
    fn times_are_set_kept_and_those_of_now() {
        let mut guest = MemoryFs::new().file("/f", "x").symlink("/l", "f").guest();
        guest.set_clock(Some(Timestamp { seconds: 77, nanoseconds: 7 }));
        run(&mut guest, "utimens /f 12345 67890 -9876 5432\nutimens /l 1 2 3 4");
        assert_eq!((times(&guest, "/f"), times(&guest, "/l")), ((12345, 67890, -9876, 5432), (1, 2, 3, 4)));
        run(&mut guest, "utimens /f 99 -2 100 -2");
        assert_eq!(times(&guest, "/f"), (12345, 67890, -9876, 5432));
        run(&mut guest, "utimens /f 0 -1 5 0");
        assert_eq!(times(&guest, "/f"), (77, 7, 5, 0));
        assert_eq!(call(&mut guest, "utimens /f 0 1000000000 0 0").unwrap_err().errno(), 22);
        assert_eq!(call(&mut guest, "utimens /none 0 -2 0 -2").unwrap_err().errno(), 2);
    }

    #[test]
    fn attributes_are_set_and_removed() {
        let mut guest = MemoryFs::new().file("/f", "x").symlink("/sl", "/f").dir("/d").guest();
        run(&mut guest, "setxattr user.a value 3 /sl\nsetxattr user.c c 2 /f\nlsetxattr trusted.b v 1 /sl");
        assert_eq!(guest.getxattr("/f".into(), "user.a".into()).unwrap(), b"val");
        assert_eq!(guest.getxattr("/f".into(), "user.c".into()).unwrap(), b"c\0");
        assert_eq!(guest.lgetxattr("/sl".into(), "trusted.b".into()).unwrap(), b"v");
        run(&mut guest, "removexattr user.a /f\nremovexattr user.c /sl\nlremovexattr trusted.b /sl");
        assert!(guest.getxattrs("/f".into()).unwrap().is_empty());
        for (line, errno) in [
            ("removexattr user.zz /f", 61),
            ("lsetxattr user.a value 3 /sl", 1),
            ("setxattr user.a value 7 /f", 22),
            ("setxattr user.a value -1 /f", 22),
            ("setxattr nonsense.a value 3 /f", 95),
            ("setxattr system.posix_acl_access value 3 /f", 22),
            ("setxattr user.a value 3 /none", 2),
        ] {
            let refused = call(&mut guest, line).unwrap_err();
            assert_eq!(refused.errno(), errno, "{line}: {refused}");
        }
    }

    #[test]
    fn access_control_lists_are_set_and_removed() {
        let fs = MemoryFs::new()
            .file("/etc/passwd", "root:x:0:0::/:\nann:x:1000:1000::/:\n")
            .file("/f", "")
            .dir("/d");
        let mut guest = fs.guest();
        let get = |guest: &Guest, path: &str, acltype| guest.acl_get_file(path.into(), acltype).unwrap();
        run(&mut guest, "acl-set-file /f access u:ann:rwx,u::rw,g::r-x,o::---,m::rwx");
        assert_eq!(
            get(&guest, "/f", "access"),
            "user::rw-\nuser:1000:rwx\ngroup::r-x\nmask::rwx\nother::---\n"
        );
        assert_eq!(tree(&guest, "/f"), ["100670 1 0:0 0 ."]);
        run(
            &mut guest,
            "acl-set-file /f access u::rwx,g::r-x,o::---\nacl-set-file /d default u::rwx,g::r-x,o::---",
        );
        assert!(guest.getxattrs("/f".into()).unwrap().is_empty());
        assert_eq!(tree(&guest, "/f"), ["100750 1 0:0 0 ."]);
        assert_eq!(get(&guest, "/d", "default"), "user::rwx\ngroup::r-x\nother::---\n");
        run(&mut guest, "acl-delete-def-file /d\nacl-delete-def-file /d");
        assert_eq!(get(&guest, "/d", "default"), "");
        for (line, message) in [
            (
                "acl-set-file /f access nonsense",
                "/f: not an access control list: \"nonsense\" is not an entry",
            ),
            ("acl-set-file /f access u::rwx", "/f: not an access control list: it needs one entry group::"),
            ("acl-set-file /f other u::rwx", "acltype is access or default, not \"other\""),
            ("acl-set-file /f default u::rwx,g::r,o::r", "/f: only a directory has a default"),
            ("acl-delete-def-file /f", "/f: only a directory has a default"),
        ] {
            let refused = call(&mut guest, line).unwrap_err();
            assert!(refused.to_string().starts_with(message), "{line}: {refused}");
        }
    }

    #[test]
    fn attributes_are_copied_as_asked() {
        let fs = MemoryFs::new()
            .file("/from", "x")
            .mode("/from", 0o4755)
            .owner("/from", 3, 4)
            .xattr("/from", "user.x", b"1")
            .file("/to", "y");
        let mut guest = fs.guest();
        run(&mut guest, "copy-attributes /from /to");
        assert_eq!(tree(&guest, "/to"), ["100644 1 0:0 1 ."]);
        run(&mut guest, "copy-attributes /from /to mode:true");
        assert_eq!(tree(&guest, "/to"), ["104755 1 0:0 1 ."]);
        run(&mut guest, "copy-attributes /from /to all:true");
        assert_eq!(tree(&guest, "/to"), ["104755 1 3:4 1 ."]);
        assert_eq!(guest.getxattr("/to".into(), "user.x".into()).unwrap(), b"1");
    }
}
