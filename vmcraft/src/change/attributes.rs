//! Changing owners and permissions with all that the kernel changes with them.

use bstr::BStr;
use vmcraft_fs::{FileType, SetMetadata};

use crate::Result;
use crate::vfs::Node;

/// The attribute with a program's capabilities.
const CAPABILITIES: &str = "security.capability";

const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;
const GROUP_EXECUTES: u32 = 0o0010;

/// An extended attribute of a file, if it has it.
pub(crate) fn xattr(node: &Node, name: &BStr) -> Result<Option<Vec<u8>>> {
    let attributes = node.filesystem.xattrs(node.inode).map_err(|source| node.error(source))?;
    Ok(attributes.into_iter().find(|(found, _)| found == name).map(|(_, value)| value))
}

/// As `chmod(2)`: an access control list changes with the permissions.
pub(crate) fn change_permissions(node: &Node, permissions: u32) -> Result<()> {
    let set = SetMetadata { permissions: Some(permissions & 0o7777), ..SetMetadata::default() };
    node.writer()?.set_metadata(node.inode, &set).map_err(|source| node.error(source))
}

/// As `chown(2)`: a program that changes its owner is no longer set-user-id, and has no capabilities.
pub(crate) fn change_owner(node: &Node, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    let metadata = node.metadata()?;
    let mut permissions = metadata.permissions;
    if !metadata.is_dir() {
        permissions &= !SET_USER_ID;
        // Without the bit that lets the group execute it, the other stands for something else.
        if permissions & GROUP_EXECUTES != 0 {
            permissions &= !SET_GROUP_ID;
        }
    }
    let permissions = (permissions != metadata.permissions).then_some(permissions);
    let set = SetMetadata { permissions, uid, gid, ..SetMetadata::default() };
    node.writer()?.set_metadata(node.inode, &set).map_err(|source| node.error(source))?;
    if metadata.file_type == FileType::Regular { drop_capabilities(node) } else { Ok(()) }
}

/// What the kernel does to a program whose content or owner changes.
pub(crate) fn drop_capabilities(node: &Node) -> Result<()> {
    match node.writer()?.remove_xattr(node.inode, CAPABILITIES.into()) {
        Ok(()) | Err(vmcraft_fs::Error::NoAttribute) => Ok(()),
        Err(source) => Err(node.error(source)),
    }
}
