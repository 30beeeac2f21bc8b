//! Changing extended attributes: in the inode where there is room, else in a block.
//!
//! A place is taken apart into a list, changed, and laid out anew: entries from the start, in the order
//! that searches of a block rely on, and values from the end. A block can belong to several inodes,
//! which count in its header; it is copied before one of them changes it.

use bstr::{BStr, BString, ByteSlice};
use vmcraft_fs::{Error, FileType, Result, XattrMode};
use zerocopy::{FromBytes, IntoBytes};

use crate::features::{Compat, Incompat};
use crate::inode::{BASE_SIZE, Inode};
use crate::superblock::Superblock;
use crate::volume::Volume;
use crate::xattr::{self, Area, ENTRY, MAGIC, PREFIXES, RawEntry, RawHeader, SYSTEM, Value};
use crate::{acl, content, corrupt, value_inode};

/// The longest full name that `setxattr(2)` takes, in bytes.
const LONGEST_NAME: usize = 255;
/// The largest value that `setxattr(2)` takes, in bytes.
const LARGEST_VALUE: usize = 64 << 10;
/// `name_index` of `user.`.
const USER: u8 = 1;
/// `name_index` of the ACL that permissions go with.
const ACCESS: u8 = 2;
/// `name_index` of the ACL that what is made in a directory starts with.
const DEFAULT: u8 = 3;
/// `name_index` of `security.`.
const SECURITY: u8 = 6;
/// The magic number that stands before the entries in an inode, in bytes.
const MAGIC_SIZE: usize = 4;

/// Bytes of a block before its entries.
const BLOCK_HEADER: usize = size_of::<RawHeader>();
const NO_ROOM: Error = Error::NoSpace("the inode and its block have no room for more extended attributes");

/// An attribute as it is stored, apart from its place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    index: u8,
    name: BString,
    value: StoredValue,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum StoredValue {
    Here(Vec<u8>),
    /// In an inode of its own; its number, its size in bytes and the hash of the entry.
    Inode {
        number: u32,
        size: u32,
        hash: u32,
    },
}

impl Stored {
    fn is(&self, index: u8, name: &BStr) -> bool {
        self.index == index && self.name == name
    }
}

/// What of an attribute's full name is stored: what stands for its prefix, and the rest.
fn split_name(name: &BStr) -> Option<(u8, &BStr)> {
    PREFIXES.iter().find_map(|&(index, prefix)| {
        let rest = name.strip_prefix(prefix.as_bytes())?;
        // ACLs have their whole name in the prefix, all others have some of it left.
        (rest.is_empty() != prefix.ends_with('.')).then_some((index, rest.as_bstr()))
    })
}

/// Sets an attribute: its full name and the value as for `setxattr(2)`.
pub(crate) fn set(
    volume: &Volume,
    inode: &mut Inode,
    name: &BStr,
    value: &[u8],
    mode: XattrMode,
) -> Result<()> {
    if name.len() > LONGEST_NAME {
        return Err(Error::NameTooLong { len: name.len(), most: LONGEST_NAME });
    }
    if value.len() > LARGEST_VALUE {
        return Err(Error::InvalidInput("the value of an extended attribute has more than 64 KiB"));
    }
    let (index, rest) = settable(inode, name)?;
    let there = Places::read(volume, inode)?.has(index, rest);
    match mode {
        XattrMode::Create if there => return Err(Error::Exists),
        XattrMode::Replace if !there => return Err(Error::NoAttribute),
        _ => (),
    }
    if ![ACCESS, DEFAULT].contains(&index) {
        return store(volume, inode, index, rest, Some(value));
    }
    let mut acl = acl::from_kernel(value)?;
    if index == ACCESS && !acl.is_empty() {
        inode.mode = acl::permissions(&acl, inode.mode);
        if acl::is_minimal(&acl) {
            // The permissions say it all.
            acl.clear();
        }
    }
    let stored = acl::to_stored(&acl);
    store(volume, inode, index, rest, (!acl.is_empty()).then_some(&stored))
}

/// Takes an attribute away.
pub(crate) fn remove(volume: &Volume, inode: &mut Inode, name: &BStr) -> Result<()> {
    let (index, rest) = settable(inode, name)?;
    if !Places::read(volume, inode)?.has(index, rest) {
        return Err(Error::NoAttribute);
    }
    store(volume, inode, index, rest, None)
}

/// Takes away the capabilities of a program, if it has any.
pub(crate) fn drop_capability(volume: &Volume, inode: &mut Inode) -> Result<()> {
    let name = BStr::new("capability");
    let places = Places::read(volume, inode)?;
    if places.has(SECURITY, name) { store(volume, inode, SECURITY, name, None) } else { Ok(()) }
}

/// Takes a name apart, and refuses one that cannot be on this inode.
fn settable<'a>(inode: &Inode, name: &'a BStr) -> Result<(u8, &'a BStr)> {
    let Some((index, rest)) = split_name(name) else {
        return Err(match PREFIXES.iter().any(|(_, prefix)| name == prefix.as_bytes()) {
            true => Error::InvalidInput("the name of an extended attribute ends with its prefix"),
            false => Error::Unsupported(format!(
                "the extended attribute {name}: names start with user., trusted., security. or gnu., or are those of \
                 POSIX ACLs"
            )),
        });
    };
    if rest.contains(&0) {
        return Err(Error::InvalidInput("the name of an extended attribute has a NUL"));
    }
    match (index, inode.file_type) {
        (USER, FileType::Regular | FileType::Directory) => (),
        (USER, _) => {
            return Err(Error::NotPermitted(
                "only regular files and directories have extended attributes of users",
            ));
        }
        (ACCESS | DEFAULT, FileType::Symlink) => {
            return Err(Error::Unsupported("ACLs of a symbolic link".into()));
        }
        (DEFAULT, FileType::Directory) => (),
        (DEFAULT, _) => return Err(Error::InvalidInput("only directories have default ACLs")),
        _ => (),
    }
    Ok((index, rest))
}

/// Gives a new inode what its directory's default ACL says: an ACL, to which the permissions are
/// fitted, and of a directory the same default. Without a default ACL, nothing changes.
pub(crate) fn inherit_acl(volume: &Volume, dir: &Inode, inode: &mut Inode) -> Result<()> {
    if inode.file_type == FileType::Symlink {
        return Ok(());
    }
    let places = Places::read(volume, dir)?;
    let Some(stored) = places.all().find(|a| a.index == DEFAULT) else { return Ok(()) };
    let StoredValue::Here(stored) = &stored.value else { return Ok(()) };
    let wrong = || dir.corrupt("its default ACL is none");
    let mut acl = acl::from_kernel(&acl::to_kernel(stored).ok_or_else(wrong)?).map_err(|_| wrong())?;
    if inode.is_dir() {
        store(volume, inode, DEFAULT, BStr::new(""), Some(stored))?;
    }
    inode.mode = acl::inherit(&mut acl, inode.mode);
    if acl::is_minimal(&acl) {
        return Ok(());
    }
    store(volume, inode, ACCESS, BStr::new(""), Some(&acl::to_stored(&acl)))
}

/// Fits the access ACL, if there is one, to permissions that were set.
pub(crate) fn fit_acl(volume: &Volume, inode: &mut Inode) -> Result<()> {
    let places = Places::read(volume, inode)?;
    let Some(StoredValue::Here(stored)) = places.all().find(|a| a.index == ACCESS).map(|a| &a.value) else {
        return Ok(());
    };
    let wrong = || inode.corrupt("its ACL is none");
    let mut acl = acl::from_kernel(&acl::to_kernel(stored).ok_or_else(wrong)?).map_err(|_| wrong())?;
    acl::fit(&mut acl, inode.mode);
    store(volume, inode, ACCESS, BStr::new(""), Some(&acl::to_stored(&acl)))
}

/// Lets go of the attributes of an inode that goes. What is in the inode goes with it.
pub(crate) fn release(volume: &Volume, inode: &mut Inode) -> Result<()> {
    let Places { body, block } = Places::read(volume, inode)?;
    store_block(volume, inode, &block, &[])?;
    for attribute in &body {
        drop_value(volume, inode, attribute, true)?;
    }
    Ok(())
}

/// The room for the value of `system.data` in the inode, in bytes; `None` if not even an empty one fits.
pub(crate) fn room_for_inline_data(volume: &Volume, inode: &Inode) -> Result<Option<usize>> {
    let mut body = Places::read(volume, inode)?.body;
    body.retain(|a| !is_inline_data(a));
    body.push(inline_data(&[]));
    let used: usize = body.iter().map(Stored::len).sum();
    Ok((body_len(volume, inode) - MAGIC_SIZE.min(body_len(volume, inode)))
        .checked_sub(used + 4)
        .map(|r| r & !3))
}

/// Sets or removes `system.data` in the inode; `false`, and nothing changed, if there is no room.
pub(crate) fn set_inline_data(volume: &Volume, inode: &Inode, value: Option<&[u8]>) -> Result<bool> {
    let old = Places::read(volume, inode)?.body;
    let mut body = old.clone();
    body.retain(|a| !is_inline_data(a));
    body.extend(value.map(inline_data));
    if body == old {
        return Ok(true);
    }
    store_body(volume, inode, &body)
}

fn inline_data(value: &[u8]) -> Stored {
    Stored { index: SYSTEM, name: "data".into(), value: StoredValue::Here(value.to_vec()) }
}

fn is_inline_data(attribute: &Stored) -> bool {
    attribute.is(SYSTEM, BStr::new("data"))
}

/// All attributes of an inode, by where they are.
struct Places {
    body: Vec<Stored>,
    block: Vec<Stored>,
}

impl Places {
    fn read(volume: &Volume, inode: &Inode) -> Result<Self> {
        let (held, range, offset) = volume.inode_bytes(inode.number)?;
        let bytes = held.bytes.get(range).unwrap_or_default();
        let body = match xattr::area_in_inode(bytes, inode, offset) {
            Some(area) => stored(&area)?,
            None => Vec::new(),
        };
        let block = match xattr::block_of(volume, inode)? {
            Some(block) => stored(&xattr::area_in_block(volume, inode, &block))?,
            None => Vec::new(),
        };
        Ok(Self { body, block })
    }

    fn all(&self) -> impl Iterator<Item = &Stored> {
        self.body.iter().chain(&self.block)
    }

    fn has(&self, index: u8, name: &BStr) -> bool {
        self.all().any(|a| a.is(index, name))
    }
}

fn stored(area: &Area<'_>) -> Result<Vec<Stored>> {
    let attributes = area.attributes()?;
    // Overlapping values of a forged area would take more when they are apart.
    let size: usize = attributes
        .iter()
        .map(|a| match &a.value {
            Value::Here(range) => range.len(),
            Value::Inode(..) => 0,
        })
        .sum();
    if size > area.bytes.len() {
        return Err(area.corrupt("values that overlap"));
    }
    let one = |attribute: xattr::Attribute<'_>| Stored {
        index: attribute.index,
        name: attribute.name.into(),
        value: match attribute.value {
            Value::Here(range) => StoredValue::Here(area.bytes.get(range).unwrap_or_default().to_vec()),
            Value::Inode(number, size) => StoredValue::Inode { number, size, hash: attribute.hash },
        },
    };
    Ok(attributes.into_iter().map(one).collect())
}

/// Sets or removes an attribute, in the inode if there is room, else in a block. With the feature, a
/// value for which neither has room gets an inode of its own.
fn store(volume: &Volume, inode: &mut Inode, index: u8, name: &BStr, value: Option<&[u8]>) -> Result<()> {
    let Places { mut body, mut block } = Places::read(volume, inode)?;
    let old_block = block.clone();
    let old: Vec<Stored> = body.extract_if(.., |a| a.is(index, name)).collect();
    block.retain(|a| !a.is(index, name));
    if let Some(value) = value {
        volume.require_compat(Compat::EXT_ATTR)?;
        let mut new = Stored { index, name: name.into(), value: StoredValue::Here(value.to_vec()) };
        // Such a value of a link whose target is in the inode makes e2fsck take that for blocks.
        let has_inodes =
            volume.sb.incompat.contains(Incompat::EA_INODE) && inode.file_type != FileType::Symlink;
        // From this size on, an empty block has no room.
        let large = has_inodes && value.len() + ENTRY + 4 + BLOCK_HEADER + 4 > volume.sb.block_size as usize;
        if large || !place(volume, inode, &new, &mut body, &mut block) {
            if !has_inodes {
                return Err(NO_ROOM);
            }
            let (number, value_hash) = value_inode::create(volume, inode, value)?;
            // At most LARGEST_VALUE.
            let size = u32::try_from(value.len()).unwrap_or(u32::MAX);
            let characters: Vec<u32> = name.iter().map(|&b| b.into()).collect();
            let hash = xattr::entry_hash(&characters, &[value_hash]);
            new.value = StoredValue::Inode { number, size, hash };
            if !place(volume, inode, &new, &mut body, &mut block) {
                return Err(NO_ROOM);
            }
            content::count(volume, inode, value_inode::blocks(volume, size));
        }
    }
    if block != old_block {
        store_block(volume, inode, &old_block, &block)?;
    }
    if !store_body(volume, inode, &body)? {
        return Err(NO_ROOM);
    }
    for attribute in &old {
        drop_value(volume, inode, attribute, true)?;
    }
    Ok(())
}

/// Adds an attribute where there is room for it.
fn place(
    volume: &Volume,
    inode: &Inode,
    new: &Stored,
    body: &mut Vec<Stored>,
    block: &mut Vec<Stored>,
) -> bool {
    body.push(new.clone());
    if body_bytes(volume, inode, body).is_some() {
        return true;
    }
    body.pop();
    block.push(new.clone());
    if block_bytes(volume, block).is_some() {
        return true;
    }
    block.pop();
    false
}

/// Lets go of the value of an attribute that goes, if it has an inode of its own. `last` says whether
/// no other inode has the same place.
fn drop_value(volume: &Volume, inode: &mut Inode, attribute: &Stored, last: bool) -> Result<()> {
    let StoredValue::Inode { number, size, .. } = attribute.value else { return Ok(()) };
    content::uncount(volume, inode, value_inode::blocks(volume, size))?;
    if last { value_inode::drop(volume, number) } else { Ok(()) }
}

impl Stored {
    /// Bytes that it takes: the entry with its name, and the value.
    fn len(&self) -> usize {
        let value = match &self.value {
            StoredValue::Here(value) => value.len().next_multiple_of(4),
            StoredValue::Inode { .. } => 0,
        };
        ENTRY + self.name.len().next_multiple_of(4) + value
    }

    /// The hash of the entry, as entries in a block have it.
    fn hash(&self) -> u32 {
        match &self.value {
            StoredValue::Here(value) => {
                let name: Vec<u32> = self.name.iter().map(|&b| b.into()).collect();
                let words: Vec<u32> = value
                    .chunks(4)
                    .map(|chunk| {
                        let mut word = [0; 4];
                        word[..chunk.len()].copy_from_slice(chunk);
                        u32::from_le_bytes(word)
                    })
                    .collect();
                xattr::entry_hash(&name, &words)
            }
            StoredValue::Inode { hash, .. } => *hash,
        }
    }
}

/// Lays attributes out in a place of `len` bytes that starts with `first` bytes of something else, and
/// whose values count from `values_from`. `None` if they do not fit, with four zeros behind the entries.
fn lay_out(
    attributes: &[Stored],
    len: usize,
    first: usize,
    values_from: usize,
    hashed: bool,
) -> Option<Vec<u8>> {
    let used: usize = attributes.iter().map(Stored::len).sum();
    if first + used + 4 > len {
        return None;
    }
    let mut bytes = vec![0; len];
    let (mut at, mut end) = (first, len);
    for attribute in attributes {
        let mut raw = RawEntry {
            name_len: u8::try_from(attribute.name.len()).ok()?,
            name_index: attribute.index,
            value_offs: 0.into(),
            value_inum: 0.into(),
            value_size: 0.into(),
            hash: 0.into(),
        };
        match &attribute.value {
            StoredValue::Here(value) => {
                raw.value_size = u32::try_from(value.len()).ok()?.into();
                if !value.is_empty() {
                    end -= value.len().next_multiple_of(4);
                    bytes.get_mut(end..end + value.len())?.copy_from_slice(value);
                    raw.value_offs = u16::try_from(end - values_from).ok()?.into();
                }
                if hashed {
                    raw.hash = attribute.hash().into();
                }
            }
            StoredValue::Inode { number, size, hash } => {
                raw.value_inum = (*number).into();
                raw.value_size = (*size).into();
                raw.hash = (*hash).into();
            }
        }
        bytes.get_mut(at..at + ENTRY)?.copy_from_slice(raw.as_bytes());
        at += ENTRY;
        bytes.get_mut(at..at + attribute.name.len())?.copy_from_slice(&attribute.name);
        at += attribute.name.len().next_multiple_of(4);
    }
    Some(bytes)
}

/// The bytes of the inode behind its fields.
fn body_len(volume: &Volume, inode: &Inode) -> usize {
    if inode.extra_size == 0 {
        return 0;
    }
    usize::from(volume.sb.inode_size).saturating_sub(BASE_SIZE + usize::from(inode.extra_size))
}

/// What is behind the inode's fields if these are its attributes; `None` if they do not fit.
fn body_bytes(volume: &Volume, inode: &Inode, attributes: &[Stored]) -> Option<Vec<u8>> {
    let len = body_len(volume, inode);
    if attributes.is_empty() {
        return Some(vec![0; len]);
    }
    // The kernel leaves out the hashes there.
    let mut bytes = lay_out(attributes, len, MAGIC_SIZE, MAGIC_SIZE, false)?;
    bytes.get_mut(..MAGIC_SIZE)?.copy_from_slice(&MAGIC.to_le_bytes());
    Some(bytes)
}

/// Makes these the attributes in the inode; `false`, and nothing changed, if they do not fit.
fn store_body(volume: &Volume, inode: &Inode, attributes: &[Stored]) -> Result<bool> {
    let Some(new) = body_bytes(volume, inode, attributes) else { return Ok(false) };
    volume.edit_inode_bytes(inode.number, |bytes| {
        let start = bytes.len().saturating_sub(new.len());
        if let Some(old) = bytes.get_mut(start..) {
            old.copy_from_slice(&new);
        }
        Ok(())
    })?;
    Ok(true)
}

/// What a block is with these attributes; `None` if they do not fit.
fn block_bytes(volume: &Volume, sorted: &[Stored]) -> Option<Vec<u8>> {
    lay_out(sorted, volume.sb.block_size as usize, BLOCK_HEADER, 0, true)
}

/// Makes these the attributes in the inode's block, which comes and goes with them.
fn store_block(volume: &Volume, inode: &mut Inode, old: &[Stored], attributes: &[Stored]) -> Result<()> {
    let references = match xattr::block_of(volume, inode)? {
        Some(block) => RawHeader::ref_from_prefix(&block.bytes).map_or(1, |(h, _)| h.refcount.get()),
        None => 0,
    };
    let shared = references > 1;
    let mut sorted = attributes.to_vec();
    sorted.sort_by(|a, b| (a.index, a.name.len(), &a.name).cmp(&(b.index, b.name.len(), &b.name)));
    let mut bytes = block_bytes(volume, &sorted).ok_or(NO_ROOM)?.into_boxed_slice();
    for attribute in old.iter().filter(|a| !attributes.contains(a)) {
        drop_value(volume, inode, attribute, !shared)?;
    }
    for attribute in attributes.iter().filter(|a| shared && old.contains(a)) {
        // The copy refers to them too.
        if let StoredValue::Inode { number, .. } = attribute.value {
            value_inode::refer(volume, number)?;
        }
    }
    if inode.xattr_block != 0 && (attributes.is_empty() || shared) {
        leave_block(volume, inode, references)?;
    }
    if attributes.is_empty() {
        return Ok(());
    }
    if inode.xattr_block == 0 {
        inode.xattr_block = content::claim(volume, inode, volume.block_goal(inode), 1)?.start;
    }
    // Without a hash of one of the entries the block has none either.
    let hashes = || sorted.iter().map(Stored::hash);
    let hash =
        if hashes().any(|h| h == 0) { 0 } else { hashes().fold(0u32, |sum, h| sum.rotate_left(16) ^ h) };
    let header = RawHeader {
        magic: MAGIC.into(),
        refcount: 1.into(),
        blocks: 1.into(),
        hash: hash.into(),
        checksum: 0.into(),
        reserved: Default::default(),
    };
    if let Some(start) = bytes.get_mut(..BLOCK_HEADER) {
        start.copy_from_slice(header.as_bytes());
    }
    seal_block(&mut bytes, &volume.sb, inode.xattr_block);
    volume.put(inode.xattr_block, bytes)
}

/// Takes the block of attributes from the inode: frees it, or leaves it to the others who have it.
fn leave_block(volume: &Volume, inode: &mut Inode, references: u32) -> Result<()> {
    let number = std::mem::take(&mut inode.xattr_block);
    if references <= 1 {
        return content::release(volume, inode, number, 1);
    }
    content::uncount(volume, inode, 1)?;
    volume.edit(
        number,
        || format!("extended attributes of inode {}", inode.number),
        |bytes| {
            let Ok((header, _)) = RawHeader::mut_from_prefix(bytes) else {
                return Err(corrupt("extended attribute block: too small", volume.sb.byte_of(number)));
            };
            header.refcount = (references - 1).into();
            seal_block(bytes, &volume.sb, number);
            Ok(())
        },
    )
}

/// Sets the checksum of block `number` of attributes.
pub(crate) fn seal_block(bytes: &mut [u8], sb: &Superblock, number: u64) {
    if !sb.metadata_csum() {
        return;
    }
    let checksum = xattr::block_checksum(bytes, sb, number);
    if let Ok((header, _)) = RawHeader::mut_from_prefix(bytes) {
        header.checksum = checksum.into();
    }
}
