//! The metadata: three copies of one block, each with a checksum.

use uuid::Uuid;
use vmcraft_block::BlockDevice;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};
use zeroize::Zeroizing;

use super::entry::{self, Entry};
use super::header::Header;
use crate::{Error, Result};

/// What a block may take with its validation, in bytes: by the format for version 2.
const MAX_BLOCK: usize = 64 << 10;

/// A block's header on disk and the one of the entries after it, little-endian.
///
/// Spec: libbde, "BitLocker Drive Encryption (BDE) format", chapters "FVE metadata block header" and "FVE metadata
/// header".
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawBlock {
    /// 0x00: `-FVE-FS-`.
    signature: [u8; 8],
    /// 0x08: of all that the checksum is over: in bytes, or from version 2 on in units of 16.
    size: U16,
    /// 0x0a: 1 for Vista, 2 later.
    version: U16,
    /// 0x0c: of [`State`].
    state: U16,
    /// 0x0e: what the volume is being converted to.
    next_state: U16,
    /// 0x10: how far the volume is encrypted, in bytes. What is behind it is not.
    encrypted_bytes: U64,
    /// 0x18: the size of the log of a conversion, at `encrypted_bytes`.
    log_bytes: U32,
    /// 0x1c: how many sectors of the volume's beginning are kept elsewhere.
    moved_sectors: U32,
    /// 0x20: the three blocks, in bytes from the start of the volume.
    metadata: [U64; 3],
    /// 0x38: where the volume's beginning is kept, likewise; in version 1 the cluster of `$MFTMirr`.
    moved_to: U64,
    /// 0x40: of the entries with this second header, in bytes.
    entries_size: U32,
    /// 0x44: 1.
    entries_version: U32,
    /// 0x48: where the entries begin, in bytes from 0x40.
    entries_start: U32,
    /// 0x4c: where they end, likewise.
    entries_end: U32,
    /// 0x50: the volume's GUID.
    guid: [u8; 16],
    /// 0x60: counts up with each change of a key, so the largest is of the newest block.
    next_nonce: U32,
    /// 0x64: how sectors are encrypted.
    method: U16,
    kept_66: U16,
    /// 0x68: when the volume was encrypted, as a FILETIME.
    created: U64,
}
const HEADER_LEN: usize = size_of::<RawBlock>();
const _: () = assert!(HEADER_LEN == 0x70);
/// Where the second header begins.
const ENTRIES: usize = 0x40;

/// What follows a block, little-endian; from version 2 on, an entry with the encrypted hash of the block comes next.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawValidation {
    /// 0x00: of what is left of the area.
    size: U16,
    version: U16,
    /// 0x04: CRC-32 of the block.
    crc32: U32,
}

/// What a volume is, or is on its way to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// Nothing is encrypted (any more), but BitLocker's structures are there.
    Decrypted,
    /// Being encrypted or decrypted, with a log of what was being done.
    ConvertingWithLog,
    /// Encryption or decryption was paused.
    Paused,
    /// Encrypted.
    Encrypted,
    /// Being encrypted or decrypted.
    Converting,
}

/// One whole copy of the metadata.
#[derive(Debug, Clone)]
pub(super) struct Metadata {
    /// Where it was read, in bytes.
    pub(super) offset: u64,
    pub(super) version: u16,
    pub(super) state: State,
    pub(super) encrypted_bytes: u64,
    pub(super) log_bytes: u32,
    pub(super) moved_sectors: u32,
    pub(super) moved_to: u64,
    pub(super) blocks: [u64; 3],
    pub(super) guid: Uuid,
    pub(super) method: u16,
    next_nonce: u32,
    /// What the checksum is over.
    bytes: Vec<u8>,
    /// Where in `bytes` the entries are.
    entries: (usize, usize),
    /// The entry of the hash over `bytes`.
    integrity: Vec<u8>,
}

/// The newest whole copy, and what is wrong with the others.
pub(super) fn read(device: &dyn BlockDevice, header: &Header) -> Result<(Metadata, Vec<String>)> {
    let mut offsets = header.metadata.clone();
    let mut faults = Vec::new();
    let mut best: Option<Metadata> = None;
    let mut next = 0;
    while let Some(&offset) = offsets.get(next) {
        next += 1;
        match read_block(device, offset) {
            Ok(found) => {
                // Vista's header names only the first; all of them name all three.
                if header.metadata.len() < 3 && offsets.len() < 3 {
                    offsets.extend(found.blocks.iter().filter(|block| **block != offset));
                }
                if best.as_ref().is_none_or(|best| best.next_nonce < found.next_nonce) {
                    best = Some(found);
                }
            }
            Err(Error::Io(error)) => return Err(Error::Io(error)),
            Err(error) => faults.push(format!("copy {next} of the BitLocker metadata: {error}")),
        }
    }
    match best {
        Some(best) => Ok((best, faults)),
        None => Err(Error::Corrupt {
            what: format!("BitLocker metadata, of which no copy is whole ({})", faults.join("; ")),
            offset: header.metadata.first().copied().unwrap_or_default(),
        }),
    }
}

fn read_block(device: &dyn BlockDevice, offset: u64) -> Result<Metadata> {
    let corrupt = |what: String| Error::Corrupt { what, offset };
    let left = device.size().saturating_sub(offset);
    if left < HEADER_LEN as u64 {
        return Err(corrupt("place beyond the end of the device".into()));
    }
    let mut head = [0; HEADER_LEN];
    device.read_at(offset, &mut head)?;
    // The array has as many bytes as the structure.
    let raw = RawBlock::ref_from_bytes(&head).map_err(|_| corrupt("header".into()))?;
    if raw.signature != *b"-FVE-FS-" {
        return Err(corrupt("signature".into()));
    }
    let version = raw.version.get();
    let size = match version {
        1 => usize::from(raw.size.get()),
        2 => usize::from(raw.size.get()) * 16,
        _ => return Err(Error::Unsupported(format!("BitLocker metadata of version {version}"))),
    };
    let validation_len = size_of::<RawValidation>();
    if !(HEADER_LEN..=MAX_BLOCK - validation_len).contains(&size) {
        return Err(corrupt(format!("size of {size} bytes")));
    }
    // An area of 64 KiB, unless the device is cut off.
    let area = usize::try_from(left).unwrap_or(MAX_BLOCK).min(MAX_BLOCK);
    if size + validation_len > area {
        return Err(corrupt("place beyond the end of the device".into()));
    }
    let mut bytes = vec![0; area];
    device.read_at(offset, &mut bytes)?;
    let after = bytes.split_off(size);
    let (validation, integrity) =
        RawValidation::ref_from_prefix(&after).map_err(|_| corrupt("validation".into()))?;
    if validation.crc32.get() != crc32fast::hash(&bytes) {
        return Err(corrupt("checksum".into()));
    }
    let state = match raw.state.get() {
        1 => State::Decrypted,
        2 => State::ConvertingWithLog,
        3 => State::Paused,
        4 => State::Encrypted,
        5 => State::Converting,
        other => return Err(Error::Unsupported(format!("a BitLocker volume in state {other}"))),
    };
    let within = |at: u32| usize::try_from(at).ok().and_then(|at| at.checked_add(ENTRIES));
    let entries = match (within(raw.entries_start.get()), within(raw.entries_end.get())) {
        (Some(start), Some(end)) if HEADER_LEN <= start && start <= end && end <= size => (start, end),
        _ => return Err(corrupt("range of the entries".into())),
    };
    if raw.entries_version.get() != 1 {
        let version = raw.entries_version.get();
        return Err(Error::Unsupported(format!("BitLocker metadata entries of version {version}")));
    }
    Ok(Metadata {
        offset,
        version,
        state,
        encrypted_bytes: raw.encrypted_bytes.get(),
        log_bytes: raw.log_bytes.get(),
        moved_sectors: raw.moved_sectors.get(),
        moved_to: raw.moved_to.get(),
        blocks: raw.metadata.map(U64::get),
        guid: Uuid::from_bytes_le(raw.guid),
        method: raw.method.get(),
        next_nonce: raw.next_nonce.get(),
        bytes,
        entries,
        integrity: integrity.get(..128).unwrap_or(integrity).to_vec(),
    })
}

impl Metadata {
    /// The entries.
    pub(super) fn entries(&self) -> Result<Vec<Entry<'_>>> {
        let (start, end) = self.entries;
        // `read_block` saw that the range is inside.
        entry::decode(
            self.bytes.get(start..end).unwrap_or_default(),
            self.offset + start as u64,
            "the metadata",
        )
    }

    /// Whether the hash that the volume master key protects is that of the block: `None` if there is no such hash.
    pub(super) fn is_authentic(&self, master_key: &[u8; 32]) -> Result<Option<bool>> {
        let offset = self.offset + (self.bytes.len() + size_of::<RawValidation>()) as u64;
        // What comes after it in the area is of no format, so only the first is looked at.
        let len = self.integrity.first_chunk().map_or(0, |size| usize::from(u16::from_le_bytes(*size)));
        let Some(entry) = self.integrity.get(..len) else { return Ok(None) };
        let entries = entry::decode(entry, offset, "the validation")?;
        let Some(sealed) = entries.iter().find(|entry| entry.kind == entry::kind::AES_CCM_KEY) else {
            return Ok(None);
        };
        let Some(opened) = super::secret::unwrap(sealed, master_key)? else { return Ok(Some(false)) };
        let hash = Zeroizing::new(<sha2::Sha256 as sha2::Digest>::digest(&self.bytes).to_vec());
        Ok(Some(*opened == *hash))
    }
}
