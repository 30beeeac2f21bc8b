//! HFS, HFS+, APFS and Core Storage.
//!
//! Spec: Apple, Technical Note TN1150 and "Apple File System Reference". HFS and HFS+ are
//! big-endian, the others little-endian.

use bstr::BString;
use md5::{Digest, Md5};

use super::reader::{Block, Reader, be16_units, text, utf16_text, uuid};
use super::{Format, Found, Usage};
use crate::Result;

pub(super) const HFS: Format = Format::new("hfs", Usage::FileSystem, hfs).tolerant();
pub(super) const HFSPLUS: Format = Format::new("hfsplus", Usage::FileSystem, hfsplus);
pub(super) const APFS: Format = Format::new("apfs", Usage::FileSystem, apfs);
/// Core Storage with FileVault 2.
pub(super) const FILEVAULT: Format = Format::new("cs_fvault2", Usage::Crypto, filevault);

/// Where the master directory block and the volume header stand.
const HEADER: u64 = 1024;

/// The namespace of the UUIDs that Apple's systems derive from a volume's identifier.
const UUID_NAMESPACE: [u8; 16] =
    [0xb3, 0xe2, 0x0f, 0x39, 0xf2, 0x92, 0x11, 0xd6, 0x97, 0xa4, 0x00, 0x30, 0x65, 0x43, 0xec, 0xac];

/// The UUID (version 3) of a volume's 8-byte identifier; empty if it has none.
fn volume_uuid(identifier: &[u8]) -> String {
    if identifier.iter().all(|byte| *byte == 0) {
        return String::new();
    }
    let mut hash: [u8; 16] =
        Md5::new().chain_update(UUID_NAMESPACE).chain_update(identifier).finalize().into();
    hash[6] = 0x30 | (hash[6] & 0x0f);
    hash[8] = 0x80 | (hash[8] & 0x3f);
    uuid(hash)
}

fn hfs(reader: &Reader<'_>) -> Result<Option<Found>> {
    let Some(block) = reader.block_with(HEADER, 162, 0, b"BD")? else { return Ok(None) };
    // An HFS volume can be a mere wrapper of an HFS+ one.
    if embeds_hfsplus(&block) {
        return Ok(None);
    }
    let len = usize::from(block.u8(36)).min(27);
    Ok(Some(Found {
        label: text(block.bytes(37, len)),
        uuid: volume_uuid(block.bytes(116, 8)),
        ..Found::default()
    }))
}

fn embeds_hfsplus(block: &Block<'_>) -> bool {
    matches!(block.bytes(124, 2), b"H+" | b"HX")
}

fn hfsplus(reader: &Reader<'_>) -> Result<Option<Found>> {
    let Some(block) = reader.block(HEADER, 512)? else { return Ok(None) };
    let start = match block.bytes(0, 2) {
        b"H+" | b"HX" => 0,
        b"BD" if embeds_hfsplus(&block) => {
            u64::from(block.be16(28)) * 512 + u64::from(block.be16(126)) * u64::from(block.be32(20))
        }
        _ => return Ok(None),
    };
    let Some(header) = reader.block(start + HEADER, 512)? else { return Ok(None) };
    if !matches!(header.bytes(0, 2), b"H+" | b"HX") || header.be32(40) < 512 {
        return Ok(None);
    }
    Ok(Some(Found {
        label: root_name(reader, start, &header)?.unwrap_or_default(),
        uuid: volume_uuid(header.bytes(104, 8)),
        ..Found::default()
    }))
}

/// The name of the root folder, which is the volume's: the first key of the catalogue's first leaf.
fn root_name(reader: &Reader<'_>, start: u64, header: &Block<'_>) -> Result<Option<BString>> {
    let block_bytes = u64::from(header.be32(40));
    // The catalogue's eight extents: first block and count.
    let extents = (0..8).map(|index| {
        let at = 288 + index * 8;
        (u64::from(header.be32(at)), u64::from(header.be32(at + 4)))
    });
    let offset_of = |block: u64| start.checked_add(block.checked_mul(block_bytes)?);
    let first = extents.clone().next().and_then(|(block, _)| offset_of(block));
    let Some(first) = first else { return Ok(None) };
    let Some(tree) = reader.block(first, 512)? else { return Ok(None) };
    // The header record follows the node's descriptor of 14 bytes.
    let (first_leaf, node_bytes) = (u64::from(tree.be32(14 + 10)), u64::from(tree.be16(14 + 18)));
    if !(512..=32 << 10).contains(&node_bytes) {
        return Ok(None);
    }
    let mut block = first_leaf * node_bytes / block_bytes;
    let mut found = None;
    for (first, count) in extents {
        if block < count {
            found = offset_of(first + block);
            break;
        }
        block -= count;
    }
    let within = first_leaf * node_bytes % block_bytes;
    let Some(leaf) = found.and_then(|offset| offset.checked_add(within)) else { return Ok(None) };
    let Some(node) = reader.block(leaf, 512)? else { return Ok(None) };
    // A leaf's kind is -1. The key has its length, the parent's number and the name in UTF-16.
    let (parent, units) = (node.be32(14 + 2), usize::from(node.be16(14 + 6)));
    let is_root = node.u8(8) == 0xff && node.be16(10) != 0 && parent == 1 && units <= 247;
    Ok(is_root.then(|| utf16_text(be16_units(node.bytes(14 + 8, (units * 2).min(512 - 22))))))
}

fn apfs(reader: &Reader<'_>) -> Result<Option<Found>> {
    let Some(container) = reader.block_with(0, 4096, 32, b"NXSB")? else { return Ok(None) };
    let is_container = container.le16(24) == 1
        && container.le32(28) == 0 // the subtype
        && container.le32(36) == 4096
        && container.le64(0) == fletcher64(container.bytes(8, 4088));
    Ok(is_container.then(|| Found { uuid: container.uuid(72), ..Found::default() }))
}

/// Fletcher's checksum over 32-bit words, as APFS has it.
fn fletcher64(bytes: &[u8]) -> u64 {
    const MODULUS: u64 = u32::MAX as u64;
    let (mut low, mut high) = (0_u64, 0_u64);
    for word in bytes.chunks_exact(4) {
        low = (low + u64::from(u32::from_le_bytes([word[0], word[1], word[2], word[3]]))) % MODULUS;
        high = (high + low) % MODULUS;
    }
    let check_low = MODULUS - (low + high) % MODULUS;
    let check_high = MODULUS - (low + check_low) % MODULUS;
    check_high << 32 | check_low
}

fn filevault(reader: &Reader<'_>) -> Result<Option<Found>> {
    let Some(header) = reader.block_with(0, 512, 88, b"CS")? else { return Ok(None) };
    let is_volume = header.le16(8) == 1
        && header.le16(10) == 0x10
        && header.le32(90) == 1 // checksums are CRC-32C
        && header.le32(168) == 16 // bytes of key
        && header.le32(172) == 2; // AES-XTS
    // The sum starts from a value of its own, and is not inverted at the end.
    let sum = !crc32c::crc32c_append(!header.le32(4), header.bytes(8, 504));
    Ok((is_volume && sum == header.le32(0)).then(|| Found {
        uuid: header.uuid(304),
        version: "1".into(),
        ..Found::default()
    }))
}
