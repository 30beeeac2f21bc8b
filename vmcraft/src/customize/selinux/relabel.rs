//! Giving the files of a guest the labels of its policy.

use std::collections::HashSet;

use bstr::{BStr, BString, ByteSlice};
use vmcraft_fs::XattrMode;

use super::FileContexts;
use crate::vfs::{LastLink, Node};
use crate::walk::{InodeSet, Walk};
use crate::{Error, Guest, GuestPath, Progress, Result};

const ATTRIBUTE: &str = "security.selinux";

/// The largest file of a policy, in bytes.
const MAX_POLICY: u64 = 64 << 20;

/// Not on the disk while the guest runs, so what is below is not looked at.
const LEFT_OUT: &[&str] = &["/dev", "/proc", "/selinux", "/sys"];

/// Which labels are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// All that differ, in all parts.
    All,
    /// The types that differ, but none that an administrator may choose (`customizable_types`).
    Types,
    /// Files get one that have none.
    Missing,
}

/// The policy of the mounted guest: its `file_contexts`. `None` if the guest does not use SELinux.
pub(crate) fn policy(guest: &Guest) -> Result<Option<String>> {
    let Some(content) = crate::customize::read(guest, "/etc/selinux/config")? else { return Ok(None) };
    let vars = crate::inspect::ShellVars::parse(&content);
    let name = vars.get("SELINUXTYPE").unwrap_or("targeted");
    if name.contains('/') || name.starts_with('.') {
        return Err(Error::Usage(format!(
            "/etc/selinux/config: SELINUXTYPE={name:?} is not the name of a policy"
        )));
    }
    Ok(Some(format!("/etc/selinux/{name}/contexts/files/file_contexts")))
}

/// Labels `start` and all that is below it. Says how many labels were changed.
pub(crate) fn relabel(
    guest: &mut Guest,
    specfile: &GuestPath,
    start: &GuestPath,
    which: Which,
) -> Result<u64> {
    let contexts = FileContexts::read(|suffix| {
        let path = format!("{specfile}{suffix}");
        match guest.resolve(GuestPath::new(&path)) {
            Ok(node) => node.read_to_vec(MAX_POLICY).map(Some),
            Err(e) if e.is_not_found() && !suffix.is_empty() => Ok(None),
            Err(e) => Err(e),
        }
    })?;
    let customizable = customizable_types(guest, specfile)?;
    let vfs = guest.vfs.clone();
    let start = vfs.resolve(start, LastLink::Follow)?;
    let is_left_out = |path: &[u8]| LEFT_OUT.iter().any(|left_out| path == left_out.as_bytes());
    let mut walk = Walk::new(&vfs, start).by_name();
    let mut met = InodeSet::default();
    let (mut changed, mut looked) = (0, 0);
    while let Some(entry) = walk.next()? {
        looked += 1;
        if looked % 1024 == 0 {
            guest.host.step(Progress { position: looked, total: 0 })?;
        }
        let node = entry.node();
        if is_left_out(&node.path) {
            walk.skip_contents();
            continue;
        }
        // Of the names of a file the first decides.
        if entry.metadata.links > 1 && !entry.metadata.is_dir() && !met.insert(node.mount, node.inode) {
            continue;
        }
        let Some(context) = contexts.lookup(node.path.as_bstr(), entry.metadata.file_type)? else { continue };
        let old = label(&node)?;
        let Some(new) = new_label(old.as_ref().map(|old| old.as_bstr()), context, which, &customizable)
        else {
            continue;
        };
        let mut value = new.to_vec();
        value.push(0);
        match node.writer()?.set_xattr(node.inode, ATTRIBUTE.into(), &value, XattrMode::Any) {
            Ok(()) => changed += 1,
            // A file system without attributes, such as FAT, is labelled as a whole when it is mounted.
            Err(vmcraft_fs::Error::Unsupported(_)) => {}
            Err(source) => return Err(node.error(source)),
        }
    }
    Ok(changed)
}

/// The label of a file, without the NUL that ends it.
fn label(node: &Node) -> Result<Option<BString>> {
    let attributes = node.filesystem.xattrs(node.inode).map_err(|source| node.error(source))?;
    Ok(attributes.into_iter().find(|(name, _)| name == ATTRIBUTE).map(|(_, mut value)| {
        if value.last() == Some(&0) {
            value.pop();
        }
        value.into()
    }))
}

/// Whether a file has a label at all.
pub(crate) fn is_labelled(node: &Node) -> Result<bool> {
    label(node).map(|label| label.is_some())
}

/// The types that an administrator may choose, in the file beside the policy's.
fn customizable_types(guest: &Guest, specfile: &GuestPath) -> Result<HashSet<BString>> {
    let dir = specfile.as_bstr().rsplitn_str(2, "/files/").nth(1).unwrap_or_default();
    let path = format!("{}/customizable_types", dir.as_bstr());
    let content = crate::customize::read(guest, &path)?.unwrap_or_default();
    Ok(content.lines().map(ByteSlice::trim).filter(|line| !line.is_empty()).map(BString::from).collect())
}

/// The label that a file gets; `None` if it keeps what it has.
fn new_label(
    old: Option<&BStr>,
    context: &BStr,
    which: Which,
    customizable: &HashSet<BString>,
) -> Option<BString> {
    let Some(old) = old else { return Some(context.to_owned()) };
    match which {
        Which::Missing => None,
        Which::All => (old != context).then(|| context.to_owned()),
        Which::Types => {
            let mut old: Vec<&[u8]> = old.splitn(4, |b| *b == b':').collect();
            let new_type = context.splitn(4, |b| *b == b':').nth(2)?;
            // What is no context is replaced.
            let Some(old_type) = old.get_mut(2) else { return Some(context.to_owned()) };
            if *old_type == new_type || customizable.contains(old_type.as_bstr()) {
                return None;
            }
            *old_type = new_type;
            Some(old.join(&b":"[..]).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_change_as_setfiles_changes_them() {
        let customizable = HashSet::from([BString::from("public_t")]);
        let new = |old: Option<&str>, which| {
            let context = "system_u:object_r:etc_t:s0".into();
            new_label(old.map(Into::into), context, which, &customizable).map(|new| new.to_string())
        };
        let context = Some("system_u:object_r:etc_t:s0".to_owned());
        assert_eq!(new(None, Which::Missing), context);
        assert_eq!(new(Some("u:r:x_t:s0"), Which::Missing), None);
        assert_eq!(new(Some("u:r:x_t:s0:c1"), Which::Types).unwrap(), "u:r:etc_t:s0:c1");
        assert_eq!(new(Some("u:r:etc_t:s0"), Which::Types), None);
        assert_eq!(new(Some("u:r:public_t:s0"), Which::Types), None);
        assert_eq!(new(Some("u:r:public_t:s0"), Which::All), context);
        assert_eq!(new(Some("junk"), Which::Types), context);
    }
}
