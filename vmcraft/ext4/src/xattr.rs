//! Extended attributes: in the inode, in a block, and large values in inodes of their own.

use std::mem::{offset_of, size_of};
use std::ops::Range;
use std::sync::Arc;

use bstr::{BStr, BString, ByteSlice};
use vmcraft_fs::{Error, Result};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::crc32c;
use crate::features::Incompat;
use crate::inode::{BASE_SIZE, Inode, InodeFlags};
use crate::map::OpenInode;
use crate::superblock::Superblock;
use crate::volume::{Block, Role, Volume};
use crate::{acl, corrupt, map};

/// `h_magic`, of both places.
pub(crate) const MAGIC: u32 = 0xea02_0000;
/// The largest value that the format allows, and the most that all values of an inode may take here.
const LARGEST: u64 = 16 << 20;

/// The header of a block of attributes. In an inode only the magic stands before the entries.
///
/// Spec: Linux `Documentation/filesystems/ext4/attributes.rst`; fields have its names without `h_`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawHeader {
    pub(crate) magic: U32,
    pub(crate) refcount: U32,
    pub(crate) blocks: U32,
    pub(crate) hash: U32,
    pub(crate) checksum: U32,
    pub(crate) reserved: [U32; 3],
}
const _: () = assert!(size_of::<RawHeader>() == 32);

/// An entry; its name follows, padded to a multiple of four. Fields have the specification's names
/// without `e_`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawEntry {
    pub(crate) name_len: u8,
    /// Stands for the name's prefix.
    pub(crate) name_index: u8,
    pub(crate) value_offs: U16,
    /// The inode that holds the value; 0 if it is here.
    pub(crate) value_inum: U32,
    pub(crate) value_size: U32,
    pub(crate) hash: U32,
}
/// Bytes of an entry without its name.
pub(crate) const ENTRY: usize = size_of::<RawEntry>();
const _: () = assert!(ENTRY == 16);

/// `name_index` of ACLs, which are stored otherwise than the kernel shows them.
pub(crate) const ACL: [u8; 2] = [2, 3];
/// `name_index` of the file system's own attributes, of which `data` is inline data.
pub(crate) const SYSTEM: u8 = 7;

/// Each `name_index` of attributes that the kernel shows, and the prefix that it stands for.
pub(crate) const PREFIXES: [(u8, &str); 6] = [
    (1, "user."),
    (2, "system.posix_acl_access"),
    (3, "system.posix_acl_default"),
    (4, "trusted."),
    (6, "security."),
    (10, "gnu."),
];

/// The prefix that a `name_index` stands for.
fn prefix(index: u8) -> Option<&'static str> {
    PREFIXES.iter().find(|(i, _)| *i == index).map(|(_, prefix)| *prefix)
}

/// Entries and values: one of the two places.
pub(crate) struct Area<'a> {
    pub(crate) bytes: &'a [u8],
    /// Where the first entry is, and what values in the area count from.
    first: usize,
    values_from: usize,
    /// The byte of the volume where `bytes` start.
    offset: u64,
    inode: u32,
}

/// An attribute, checked.
pub(crate) struct Attribute<'a> {
    pub(crate) index: u8,
    pub(crate) name: &'a BStr,
    pub(crate) hash: u32,
    pub(crate) value: Value,
}

pub(crate) enum Value {
    /// Bytes of the area.
    Here(Range<usize>),
    /// So many bytes in an inode.
    Inode(u32, u32),
}

impl<'a> Area<'a> {
    /// It contradicts the format.
    pub(crate) fn corrupt(&self, what: &str) -> Error {
        corrupt(format!("extended attributes of inode {}: {what}", self.inode), self.offset)
    }

    /// The attributes, checked.
    pub(crate) fn attributes(&self) -> Result<Vec<Attribute<'a>>> {
        let mut all = Vec::new();
        let mut at = self.first;
        loop {
            let wrong = |what: &str| {
                corrupt(
                    format!("extended attributes of inode {}: {what}", self.inode),
                    self.offset + at as u64,
                )
            };
            let rest = self.bytes.get(at..).unwrap_or_default();
            match rest.first_chunk::<4>() {
                Some([0, 0, 0, 0]) => return Ok(all),
                Some(_) => (),
                // The area may be full to its end.
                None if rest.is_empty() => return Ok(all),
                None => return Err(wrong("an entry beyond the end")),
            }
            let (raw, names) =
                RawEntry::ref_from_prefix(rest).map_err(|_| wrong("an entry beyond the end"))?;
            let name_len = usize::from(raw.name_len);
            let name = names.get(..name_len).ok_or_else(|| wrong("a name beyond the end"))?.as_bstr();
            if name.contains(&0) {
                return Err(wrong("a name with a NUL"));
            }
            let size = raw.value_size.get();
            if u64::from(size) > LARGEST {
                return Err(wrong(&format!("a value of {size} bytes")));
            }
            let value = match raw.value_inum.get() {
                0 => {
                    let start = self.values_from + usize::from(raw.value_offs.get());
                    let end = start + size as usize;
                    if size == 0 {
                        Value::Here(0..0)
                    } else if end <= self.bytes.len() {
                        Value::Here(start..end)
                    } else {
                        return Err(wrong(&format!("the value of {name:?} is beyond the end")));
                    }
                }
                inode => Value::Inode(inode, size),
            };
            all.push(Attribute { index: raw.name_index, name, hash: raw.hash.get(), value });
            at += ENTRY + name_len.next_multiple_of(4);
        }
    }
}

/// Decodes a block's attributes, for [`crate::fuzz`].
pub(crate) fn probe_block(bytes: &[u8]) {
    let area = Area { bytes, first: size_of::<RawHeader>(), values_from: 0, offset: 0, inode: 12 };
    if let Ok(all) = area.attributes() {
        for attribute in all {
            if let Value::Here(range) = attribute.value {
                let _ = bytes[range].len();
            }
        }
    }
}

/// The attributes in an inode, if there are any: the bytes behind its fields.
pub(crate) fn area_in_inode<'a>(bytes: &'a [u8], inode: &Inode, offset: u64) -> Option<Area<'a>> {
    let start = BASE_SIZE + usize::from(inode.extra_size);
    let bytes = bytes.get(start..).filter(|_| inode.extra_size > 0)?;
    let magic = bytes.first_chunk().map(|b| u32::from_le_bytes(*b))?;
    (magic == MAGIC).then_some(Area {
        bytes,
        first: 4,
        values_from: 4,
        offset: offset + start as u64,
        inode: inode.number,
    })
}

/// The checksum of block `number`, which is at least a header, leaving out the field that holds it.
pub(crate) fn block_checksum(bytes: &[u8], sb: &Superblock, number: u64) -> u32 {
    const FIELD: usize = offset_of!(RawHeader, checksum);
    let crc = crc32c(crc32c(sb.checksum_seed, &number.to_le_bytes()), &bytes[..FIELD]);
    crc32c(crc32c(crc, &[0; 4]), &bytes[FIELD + 4..])
}

fn verify_block(bytes: &[u8], volume: &Volume, inode: &Inode) -> Result<()> {
    const FIELD: usize = offset_of!(RawHeader, checksum);
    let (number, sb) = (inode.xattr_block, &volume.sb);
    let wrong = |what: String, field: usize| {
        let what = format!("extended attribute block {number} of inode {}: {what}", inode.number);
        corrupt(what, sb.byte_of(number) + field as u64)
    };
    let Ok((header, _)) = RawHeader::ref_from_prefix(bytes) else {
        return Err(wrong("too small".into(), 0));
    };
    if header.magic.get() != MAGIC {
        return Err(wrong(format!("magic {:#010x}, not {MAGIC:#010x}", header.magic.get()), 0));
    }
    if header.blocks.get() != 1 {
        return Err(wrong(format!("it has {} blocks", header.blocks.get()), offset_of!(RawHeader, blocks)));
    }
    if sb.metadata_csum() {
        let found = block_checksum(bytes, sb, number);
        let stored = header.checksum.get();
        if found != stored {
            let what = format!("checksum is {stored:#010x}, its content gives {found:#010x}");
            return Err(wrong(what, FIELD));
        }
    }
    Ok(())
}

/// The value of `system.data`: what of an inline file is not in `i_block`.
pub(crate) struct InlineData {
    block: Arc<Block>,
    range: Range<usize>,
    /// The byte of the volume where it starts.
    pub(crate) offset: u64,
}

impl InlineData {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.block.bytes[self.range.clone()]
    }
}

/// Finds `system.data`, which is always in the inode.
pub(crate) fn inline_data(volume: &Volume, inode: &Inode) -> Result<Option<InlineData>> {
    let (block, in_block, offset) = volume.inode_bytes(inode.number)?;
    let Some(area) = area_in_inode(&block.bytes[in_block.clone()], inode, offset) else {
        return Ok(None);
    };
    let start = BASE_SIZE + usize::from(inode.extra_size);
    for attribute in area.attributes()? {
        if attribute.index == SYSTEM
            && attribute.name == "data"
            && let Value::Here(range) = attribute.value
        {
            let offset = area.offset + range.start as u64;
            let shift = in_block.start + start;
            let range = range.start + shift..range.end + shift;
            return Ok(Some(InlineData { block, range, offset }));
        }
    }
    Ok(None)
}

/// All attributes that the kernel shows, with their full names and values.
pub(crate) fn list(volume: &Volume, inode: &Inode) -> Result<Vec<(BString, Vec<u8>)>> {
    let mut all = Vec::new();
    let (block, range, offset) = volume.inode_bytes(inode.number)?;
    if let Some(area) = area_in_inode(&block.bytes[range], inode, offset) {
        collect(volume, inode, &area, &mut all)?;
    }
    if let Some(block) = block_of(volume, inode)? {
        collect(volume, inode, &area_in_block(volume, inode, &block), &mut all)?;
    }
    Ok(all)
}

/// The block of attributes, verified, if the inode has one.
pub(crate) fn block_of(volume: &Volume, inode: &Inode) -> Result<Option<Arc<Block>>> {
    let number = inode.xattr_block;
    if number == 0 {
        return Ok(None);
    }
    if !volume.sb.holds(number, 1) {
        let what = format!("extended attribute block {number} of inode {}", inode.number);
        return Err(corrupt(what, inode.offset));
    }
    let block = volume.block(number, || format!("extended attributes of inode {}", inode.number))?;
    block.verify_once(Role::Xattrs, |bytes| verify_block(bytes, volume, inode))?;
    Ok(Some(block))
}

/// The attributes in the inode's block of them.
pub(crate) fn area_in_block<'a>(volume: &Volume, inode: &Inode, block: &'a Block) -> Area<'a> {
    Area {
        bytes: &block.bytes,
        first: size_of::<RawHeader>(),
        values_from: 0,
        offset: volume.sb.byte_of(inode.xattr_block),
        inode: inode.number,
    }
}

fn collect(volume: &Volume, inode: &Inode, area: &Area<'_>, all: &mut Vec<(BString, Vec<u8>)>) -> Result<()> {
    for attribute in area.attributes()? {
        let Some(prefix) = prefix(attribute.index) else { continue };
        let mut name = BString::from(prefix);
        name.extend_from_slice(attribute.name);
        // If both places have it, the inode's counts.
        if all.iter().any(|(n, _)| *n == name) {
            continue;
        }
        // Many entries of a forged area can have the same bytes as their value.
        let held: u64 = all.iter().map(|(_, v)| v.len() as u64).sum();
        let size = match &attribute.value {
            Value::Here(range) => range.len() as u64,
            Value::Inode(_, size) => u64::from(*size),
        };
        if held + size > LARGEST {
            let what = format!("extended attributes of more than {LARGEST} bytes (inode {})", inode.number);
            return Err(Error::Unsupported(what));
        }
        let mut value = match &attribute.value {
            Value::Here(range) => area.bytes[range.clone()].to_vec(),
            Value::Inode(number, size) => value_in_inode(volume, inode, &attribute, *number, *size)?,
        };
        if ACL.contains(&attribute.index) {
            value = acl::to_kernel(&value).ok_or_else(|| {
                corrupt(format!("{name} of inode {}: not a POSIX ACL", inode.number), area.offset)
            })?;
        }
        all.push((name, value));
    }
    Ok(())
}

/// Reads a value that has an inode of its own, and checks its hashes.
fn value_in_inode(
    volume: &Volume,
    owner: &Inode,
    attribute: &Attribute<'_>,
    number: u32,
    size: u32,
) -> Result<Vec<u8>> {
    let wrong = |what: &str| {
        let what =
            format!("value of {:?} of inode {}, in inode {number}: {what}", attribute.name, owner.number);
        corrupt(what, owner.offset)
    };
    if !volume.sb.incompat.contains(Incompat::EA_INODE) {
        return Err(wrong("the file system lacks the feature ea_inode"));
    }
    if number < volume.sb.first_inode {
        return Err(wrong("a reserved inode"));
    }
    let inode = OpenInode::new(volume.any_inode(number)?);
    if !inode.flags.contains(InodeFlags::EA_INODE) {
        return Err(wrong("that inode is not one of an attribute"));
    }
    if inode.size != u64::from(size) {
        return Err(wrong(&format!("{} bytes, not {size}", inode.size)));
    }
    let mut value = vec![0; size as usize];
    map::read(volume, &inode, 0, &mut value)?;

    // The inode's access time is the hash of its content. Lustre's, which have none, have the
    // owner's number as their time of modification.
    let hash = crc32c(volume.sb.checksum_seed, &value);
    let time = |t: vmcraft_fs::Timestamp| (t.seconds & 0xffff_ffff) as u32;
    if hash != time(inode.accessed) {
        let of_lustre = time(inode.modified) == owner.number && inode.generation == owner.generation;
        return if of_lustre { Ok(value) } else { Err(wrong("the hash of its content is wrong")) };
    }
    let signed = |name: &[u8]| name.iter().map(|&b| i32::from(b.cast_signed()).cast_unsigned()).collect();
    let unsigned: Vec<u32> = attribute.name.iter().map(|&b| b.into()).collect();
    // Hashes were once made with signed characters on some machines.
    let names: [Vec<u32>; 2] = [unsigned, signed(attribute.name)];
    if !names.iter().any(|name| entry_hash(name, &[hash]) == attribute.hash) {
        return Err(wrong("the hash of the entry is wrong"));
    }
    Ok(value)
}

/// The hash of a name's characters and of the words of a value.
pub(crate) fn entry_hash(name: &[u32], value: &[u32]) -> u32 {
    let hash = name.iter().fold(0u32, |hash, c| hash.rotate_left(5) ^ c);
    value.iter().fold(hash, |hash, word| hash.rotate_left(16) ^ word)
}
