//! Extended attributes, access control lists and file capabilities.

use bstr::{BStr, BString};
use vmcraft_macros::api;

use crate::acl::{self, Acl};
use crate::value::record;
use crate::vfs::Node;
use crate::{Error, Guest, GuestPath, Result, capabilities};

record! {
    /// An extended attribute.
    pub struct Xattr as "xattr" {
        /// Its full name, such as `user.comment`.
        pub attrname: BString,
        /// Its value.
        pub attrval: Vec<u8>,
    }
}

#[api(area = "extended attributes")]
impl Guest {
    /// List the extended attributes of a file
    ///
    /// `path` is the file; a symbolic link is followed. The attributes come in the order of their
    /// names.
    ///
    /// ```guestfish
    /// getxattrs /etc/fstab
    /// ```
    pub fn getxattrs(&self, path: &GuestPath) -> Result<Vec<Xattr>> {
        sorted(&self.resolve(path)?)
    }

    /// List the extended attributes of a file without following a symbolic link
    ///
    /// `path` is the file or the link itself. The attributes come in the order of their names.
    ///
    /// ```guestfish
    /// lgetxattrs /etc/os-release
    /// ```
    pub fn lgetxattrs(&self, path: &GuestPath) -> Result<Vec<Xattr>> {
        sorted(&self.resolve_link(path)?)
    }

    /// Get an extended attribute of a file
    ///
    /// `path` is the file; a symbolic link is followed. `name` is the attribute's full name. It is an
    /// error if the file does not have it.
    ///
    /// ```guestfish
    /// getxattr /usr/bin/ping security.capability
    /// ```
    pub fn getxattr(&self, path: &GuestPath, name: &BStr) -> Result<Vec<u8>> {
        attribute(&self.resolve(path)?, name)?.ok_or_else(|| missing(path, name))
    }

    /// Get an extended attribute of a file without following a symbolic link
    ///
    /// `path` is the file or the link itself. `name` is the attribute's full name. It is an error if
    /// the file does not have it.
    ///
    /// ```guestfish
    /// lgetxattr /usr/bin/ping security.capability
    /// ```
    pub fn lgetxattr(&self, path: &GuestPath, name: &BStr) -> Result<Vec<u8>> {
        attribute(&self.resolve_link(path)?, name)?.ok_or_else(|| missing(path, name))
    }

    /// List the extended attributes of several files in a directory
    ///
    /// `path` is the directory, `names` are names in it. For each name there is first a record with an
    /// empty `attrname`, whose `attrval` is the number of attributes as decimal digits and a NUL byte,
    /// or empty if there is no such file; then a record for each attribute. Links are not followed.
    ///
    /// ```guestfish
    /// lxattrlist /etc "fstab os-release"
    /// ```
    pub fn lxattrlist(&self, path: &GuestPath, names: &[BString]) -> Result<Vec<Xattr>> {
        let mut records = Vec::new();
        self.for_each_name(path, names, |found| {
            let attributes = found.and_then(|node| sorted(&node));
            let count = attributes.as_ref().map(|attributes| format!("{}\0", attributes.len()).into_bytes());
            records.push(Xattr { attrname: BString::default(), attrval: count.unwrap_or_default() });
            records.extend(attributes.unwrap_or_default());
            Ok(())
        })?;
        Ok(records)
    }

    /// Show the access control list of a file
    ///
    /// `path` is the file; a symbolic link is followed. `acltype` is `access` for the list that
    /// applies to the file, or `default` for the one that new files in a directory get. The result is
    /// the long text form of acl(5), with numbers for users and groups. A file without a list of its
    /// own has one that its permissions say; a directory without a default list gives an empty text.
    ///
    /// ```guestfish
    /// acl-get-file /etc/fstab access
    /// ```
    pub fn acl_get_file(&self, path: &GuestPath, acltype: &str) -> Result<String> {
        let node = self.resolve(path)?;
        let metadata = node.metadata()?;
        let name = match acltype {
            "access" => acl::ACCESS,
            "default" if metadata.is_dir() => acl::DEFAULT,
            "default" => {
                return Err(node.error(vmcraft_fs::Error::InvalidInput(
                    "only a directory has a default access control list",
                )));
            }
            other => {
                return Err(Error::Usage(format!("acltype is access or default, not {other:?}")));
            }
        };
        let list = match attribute(&node, name.into())? {
            Some(value) => Acl::decode(&value).ok_or_else(|| malformed(path, name))?.long_text(),
            None if acltype == "default" => return Ok(String::new()),
            None => Acl::from_permissions(metadata.permissions).long_text(),
        };
        Ok(list)
    }

    /// Show the capabilities of a program file
    ///
    /// `path` is the file; a symbolic link is followed. The result is the text form of
    /// cap_to_text(3), such as `cap_net_raw=ep`, or empty if the file has no capabilities.
    ///
    /// ```guestfish
    /// cap-get-file /usr/bin/ping
    /// ```
    pub fn cap_get_file(&self, path: &GuestPath) -> Result<String> {
        let name = "security.capability";
        match attribute(&self.resolve(path)?, name.into())? {
            Some(value) => capabilities::text(&value).ok_or_else(|| malformed(path, name)),
            None => Ok(String::new()),
        }
    }
}

fn sorted(node: &Node) -> Result<Vec<Xattr>> {
    let attributes = node.filesystem.xattrs(node.inode).map_err(|source| node.error(source))?;
    let mut records: Vec<_> =
        attributes.into_iter().map(|(attrname, attrval)| Xattr { attrname, attrval }).collect();
    records.sort_unstable_by(|a, b| a.attrname.cmp(&b.attrname));
    Ok(records)
}

fn attribute(node: &Node, name: &BStr) -> Result<Option<Vec<u8>>> {
    let attributes = node.filesystem.xattrs(node.inode).map_err(|source| node.error(source))?;
    Ok(attributes.into_iter().find(|(found, _)| found == name).map(|(_, value)| value))
}

fn missing(path: &GuestPath, name: &BStr) -> Error {
    Error::Usage(format!("{path}: there is no extended attribute {name}"))
}

fn malformed(path: &GuestPath, name: &str) -> Error {
    Error::Usage(format!("{path}: the extended attribute {name} is not of a known form"))
}
