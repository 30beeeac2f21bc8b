//! The structures of JBD2, the journal. All are big-endian.
//!
//! Spec: Linux `Documentation/filesystems/ext4/journal.rst`.

use std::mem::{offset_of, size_of};

use bitflags::bitflags;
use vmcraft_fs::{Error, Result};
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::crc32c;
use crate::corrupt;

/// `h_magic` of each block that is not a copy of a block of the volume.
pub(crate) const MAGIC: u32 = 0xc03b_3998;

/// What each of those blocks begins with. Fields have the specification's names without `h_`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
pub(crate) struct RawHeader {
    pub(crate) magic: U32,
    pub(crate) blocktype: U32,
    /// The transaction.
    pub(crate) sequence: U32,
}
pub(crate) const HEADER: usize = size_of::<RawHeader>();
const _: () = assert!(HEADER == 12);

/// `h_blocktype`.
pub(crate) mod block_type {
    pub(crate) const DESCRIPTOR: u32 = 1;
    pub(crate) const COMMIT: u32 = 2;
    pub(crate) const SUPERBLOCK_V1: u32 = 3;
    pub(crate) const SUPERBLOCK_V2: u32 = 4;
    pub(crate) const REVOKE: u32 = 5;
}

/// The journal's superblock: the first 1024 bytes of its first block.
///
/// Fields have the specification's names without `s_`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone)]
#[repr(C)]
pub(crate) struct RawSuperblock {
    pub(crate) header: RawHeader,
    pub(crate) blocksize: U32,
    /// Blocks of the journal.
    pub(crate) maxlen: U32,
    /// The first block of the log.
    pub(crate) first: U32,
    /// The first transaction of the log.
    pub(crate) sequence: U32,
    /// The block where the log starts; 0 if it is empty.
    pub(crate) start: U32,
    /// What made the kernel give up; 0 if nothing did.
    pub(crate) errno: U32,
    pub(crate) feature_compat: U32,
    pub(crate) feature_incompat: U32,
    pub(crate) feature_ro_compat: U32,
    pub(crate) uuid: [u8; 16],
    pub(crate) nr_users: U32,
    kept_44: [u8; 0xc],
    pub(crate) checksum_type: u8,
    kept_51: [u8; 3],
    /// Blocks at the end that are for fast commits.
    pub(crate) num_fc_blks: U32,
    /// The block where the log ends, once it is clean.
    pub(crate) head: U32,
    kept_5c: [u8; 0xa0],
    pub(crate) checksum: U32,
    pub(crate) users: [u8; 768],
}
const _: () = assert!(size_of::<RawSuperblock>() == 1024);
const _: () = assert!(offset_of!(RawSuperblock, uuid) == 0x30);
const _: () = assert!(offset_of!(RawSuperblock, checksum_type) == 0x50);
const _: () = assert!(offset_of!(RawSuperblock, checksum) == 0xfc);

impl RawSuperblock {
    /// Sets the checksum, if the journal has checksums.
    pub(crate) fn seal(&mut self) {
        let features = JournalFeatures::from_bits_retain(self.feature_incompat.get());
        if self.header.blocktype.get() == block_type::SUPERBLOCK_V2
            && features.intersects(JournalFeatures::CSUM_V2 | JournalFeatures::CSUM_V3)
        {
            self.checksum = 0.into();
            self.checksum = crc32c(!0, self.as_bytes()).into();
        }
    }
}

/// `s_feature_compat`: each commit has a CRC-32 of its blocks.
const COMPAT_CHECKSUM: u32 = 0x1;
/// `s_num_fc_blks` if it is 0.
const DEFAULT_FAST_COMMIT_BLOCKS: u32 = 256;
/// `s_checksum_type`: CRC-32C.
pub(crate) const CHECKSUM_CRC32C: u8 = 4;

bitflags! {
    /// `s_feature_incompat`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct JournalFeatures: u32 {
        /// There may be revoke blocks.
        const REVOKE = 0x1;
        /// Block numbers have 64 bits.
        const SIXTY_FOUR_BIT = 0x2;
        /// Commit blocks may be written before what they commit.
        const ASYNC_COMMIT = 0x4;
        /// CRC-32C of all blocks; 16 bits in tags.
        const CSUM_V2 = 0x8;
        /// CRC-32C of all blocks; 32 bits in tags.
        const CSUM_V3 = 0x10;
        /// There may be fast commits.
        const FAST_COMMIT = 0x20;
        const _ = !0;
    }
}

const KNOWN: JournalFeatures = JournalFeatures::REVOKE
    .union(JournalFeatures::SIXTY_FOUR_BIT)
    .union(JournalFeatures::ASYNC_COMMIT)
    .union(JournalFeatures::CSUM_V2)
    .union(JournalFeatures::CSUM_V3)
    .union(JournalFeatures::FAST_COMMIT);

/// The journal's superblock, checked.
#[derive(Debug, Clone)]
pub(crate) struct JournalSuperblock {
    pub(crate) features: JournalFeatures,
    /// Whether commits have the CRC-32 of the first checksum feature.
    pub(crate) commit_crc32: bool,
    /// The log: from block `first` up to, not including, `last`, then on at `first`.
    pub(crate) first: u32,
    pub(crate) last: u32,
    /// Where the log starts, and with which transaction; `None` if it is empty.
    pub(crate) start: Option<(u32, u32)>,
    /// Where checksums start.
    pub(crate) checksum_seed: u32,
}

impl JournalSuperblock {
    /// Checks the superblock of a journal of `len` blocks. `offset` is its byte of the volume.
    pub(crate) fn decode(raw: &RawSuperblock, block_size: u32, len: u64, offset: u64) -> Result<Self> {
        macro_rules! ensure {
            ($holds:expr, $field:ident, $($what:tt)+) => {
                if !$holds {
                    return Err(corrupt(
                        format!("its superblock: {}", format_args!($($what)+)),
                        offset + offset_of!(RawSuperblock, $field) as u64,
                    ));
                }
            };
        }
        let magic = raw.header.magic.get();
        ensure!(magic == MAGIC, header, "magic {magic:#010x}, not {MAGIC:#010x}");
        let version_2 = match raw.header.blocktype.get() {
            block_type::SUPERBLOCK_V1 => false,
            block_type::SUPERBLOCK_V2 => true,
            other => {
                ensure!(false, header, "type {}", other);
                false
            }
        };
        let field = |value: U32| if version_2 { value.get() } else { 0 };
        let features = JournalFeatures::from_bits_retain(field(raw.feature_incompat));
        let unknown = features.difference(KNOWN).bits();
        let unknown_ro = field(raw.feature_ro_compat);
        if unknown != 0 || unknown_ro != 0 {
            return Err(Error::Unsupported(format!(
                "journal features: incompatible {unknown:#x}, read-only compatible {unknown_ro:#x}"
            )));
        }
        let commit_crc32 = field(raw.feature_compat) & COMPAT_CHECKSUM != 0;
        let v2 = features.contains(JournalFeatures::CSUM_V2);
        let v3 = features.contains(JournalFeatures::CSUM_V3);
        ensure!(
            u8::from(v2) + u8::from(v3) + u8::from(commit_crc32) <= 1,
            feature_incompat,
            "more than one checksum feature"
        );
        if v2 || v3 {
            if raw.checksum_type != CHECKSUM_CRC32C {
                let what =
                    format!("journal checksum algorithm {} (4, crc32c, is the only one)", raw.checksum_type);
                return Err(Error::Unsupported(what));
            }
            let mut blank = raw.clone();
            blank.checksum = 0.into();
            let (found, stored) = (crc32c(!0, blank.as_bytes()), raw.checksum.get());
            ensure!(found == stored, checksum, "checksum is {stored:#010x}, its content gives {found:#010x}");
        }
        ensure!(raw.blocksize.get() == block_size, blocksize, "block size of {} bytes", raw.blocksize.get());
        let maxlen = raw.maxlen.get();
        ensure!(u64::from(maxlen) <= len, maxlen, "{} blocks, in a file of {}", maxlen, len);
        let fast = match (features.contains(JournalFeatures::FAST_COMMIT), raw.num_fc_blks.get()) {
            (false, _) => 0,
            (true, 0) => DEFAULT_FAST_COMMIT_BLOCKS,
            (true, blocks) => blocks,
        };
        let (first, last) = (raw.first.get(), maxlen.saturating_sub(fast));
        ensure!(fast != 1, num_fc_blks, "one block for fast commits");
        ensure!((1..last).contains(&first), first, "a log from block {} to {}", first, last);
        let start = match raw.start.get() {
            0 => None,
            block => Some((block, raw.sequence.get())),
        };
        if let Some((block, _)) = start {
            ensure!((first..last).contains(&block), start, "the log starts at block {}", block);
        }
        Ok(Self { features, commit_crc32, first, last, start, checksum_seed: crc32c(!0, &raw.uuid) })
    }

    /// Whether blocks have a CRC-32C.
    pub(crate) fn checksums(&self) -> bool {
        self.features.intersects(JournalFeatures::CSUM_V2 | JournalFeatures::CSUM_V3)
    }

    /// Bytes of a tag.
    fn tag_size(&self) -> usize {
        if self.features.contains(JournalFeatures::CSUM_V3) {
            return 16;
        }
        let wide = if self.features.contains(JournalFeatures::SIXTY_FOUR_BIT) { 12 } else { 8 };
        // The second checksum feature makes room that it then does not use.
        wide + if self.features.contains(JournalFeatures::CSUM_V2) { 2 } else { 0 }
    }

    /// The block behind `block` in the log.
    pub(crate) fn after(&self, block: u32) -> u32 {
        if block + 1 < self.last { block + 1 } else { self.first }
    }

    /// Whether the CRC-32C at the end of a descriptor or revoke block is right, if it has one.
    pub(crate) fn verify_tail(&self, block: &[u8]) -> bool {
        if !self.checksums() {
            return true;
        }
        block.split_last_chunk::<4>().is_some_and(|(covered, stored)| {
            crc32c(crc32c(self.checksum_seed, covered), &[0; 4]) == u32::from_be_bytes(*stored)
        })
    }

    /// Whether the CRC-32C of a commit block is right, if it has one.
    pub(crate) fn verify_commit(&self, block: &[u8]) -> bool {
        const FIELD: usize = offset_of!(RawCommit, chksum);
        if !self.checksums() {
            return true;
        }
        let Ok((commit, _)) = RawCommit::ref_from_prefix(block) else { return false };
        let crc = crc32c(crc32c(self.checksum_seed, &block[..FIELD]), &[0; 4]);
        crc32c(crc, &block[FIELD + 4..]) == commit.chksum[0].get()
    }

    /// Whether a copy has the checksum that its tag says, if tags have one.
    pub(crate) fn verify_copy(&self, tag: &Tag, sequence: u32, copy: &[u8]) -> bool {
        tag.checksum.is_none_or(|stored| {
            let found = crc32c(crc32c(self.checksum_seed, &sequence.to_be_bytes()), copy);
            stored == if self.features.contains(JournalFeatures::CSUM_V3) { found } else { found & 0xffff }
        })
    }
}

/// A commit block. Fields have the specification's names without `h_`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawCommit {
    header: RawHeader,
    chksum_type: u8,
    chksum_size: u8,
    padding: [u8; 2],
    chksum: [U32; 8],
    commit_sec: U64,
    commit_nsec: U32,
}
const _: () = assert!(offset_of!(RawCommit, chksum) == 16);
const _: () = assert!(offset_of!(RawCommit, commit_sec) == 48);

impl RawCommit {
    /// When the transaction was committed, in seconds since 1970.
    pub(crate) fn seconds(&self) -> u64 {
        self.commit_sec.get()
    }

    /// Whether this is the CRC-32 of the transaction's blocks. Zeros stand for none.
    pub(crate) fn verify_crc32(&self, crc: u32) -> bool {
        const CRC32: u8 = 1;
        match (self.chksum_type, self.chksum_size, self.chksum[0].get()) {
            (CRC32, 4, stored) => stored == crc,
            (0, 0, 0) => true,
            _ => false,
        }
    }
}

/// An entry of a descriptor block: which block of the volume a block of the log is a copy of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag {
    /// The block of the volume.
    pub(crate) block: u64,
    /// The copy began with [`MAGIC`], which zeros stand for in the log.
    pub(crate) escaped: bool,
    /// CRC-32C, in version 2 the low 16 bits of it.
    checksum: Option<u32>,
}

/// The layout of a tag with `CSUM_V3`. Fields have the specification's names without `t_`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawTag3 {
    blocknr: U32,
    flags: U32,
    blocknr_high: U32,
    checksum: U32,
}

/// The layout of any other tag; the high half of the number is there with `SIXTY_FOUR_BIT`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawTag {
    blocknr: U32,
    checksum: U16,
    flags: U16,
}

/// `t_flags`.
const FLAG_ESCAPE: u32 = 0x1;
const FLAG_SAME_UUID: u32 = 0x2;
const FLAG_LAST_TAG: u32 = 0x8;
/// Bytes of the UUID behind a tag that lacks [`FLAG_SAME_UUID`].
const UUID: usize = 16;

/// The tags of a descriptor block, up to the last that it has room for.
pub(crate) fn tags(sb: &JournalSuperblock, block: &[u8]) -> Vec<Tag> {
    let tail = if sb.checksums() { 4 } else { 0 };
    let mut rest = block.get(HEADER..block.len().saturating_sub(tail)).unwrap_or_default();
    let size = sb.tag_size();
    let wide = sb.features.contains(JournalFeatures::SIXTY_FOUR_BIT);
    let mut all = Vec::new();
    while let Some((bytes, after)) = rest.split_at_checked(size) {
        let (tag, flags) = if sb.features.contains(JournalFeatures::CSUM_V3) {
            let Ok((raw, _)) = RawTag3::ref_from_prefix(bytes) else { break };
            let high = if wide { raw.blocknr_high.get() } else { 0 };
            let block = u64::from(high) << 32 | u64::from(raw.blocknr.get());
            let flags = raw.flags.get();
            (Tag { block, escaped: flags & FLAG_ESCAPE != 0, checksum: Some(raw.checksum.get()) }, flags)
        } else {
            let Ok((raw, more)) = RawTag::ref_from_prefix(bytes) else { break };
            let high = more.first_chunk().filter(|_| wide).map_or(0, |b| u32::from_be_bytes(*b));
            let block = u64::from(high) << 32 | u64::from(raw.blocknr.get());
            let flags = u32::from(raw.flags.get());
            let v2 = sb.features.contains(JournalFeatures::CSUM_V2);
            let checksum = v2.then(|| raw.checksum.get().into());
            (Tag { block, escaped: flags & FLAG_ESCAPE != 0, checksum }, flags)
        };
        all.push(tag);
        rest = after;
        if flags & FLAG_SAME_UUID == 0 {
            rest = rest.get(UUID..).unwrap_or_default();
        }
        if flags & FLAG_LAST_TAG != 0 {
            break;
        }
    }
    all
}

/// The blocks of the volume that a revoke block names; `None` if its count is wrong.
pub(crate) fn revoked(sb: &JournalSuperblock, block: &[u8]) -> Option<Vec<u64>> {
    /// Bytes of a revoke block's own header: the common one and the bytes in use.
    const REVOKE_HEADER: usize = HEADER + 4;
    let tail = if sb.checksums() { 4 } else { 0 };
    let used = block.get(HEADER..)?.first_chunk().map(|b| u32::from_be_bytes(*b))?;
    let used = usize::try_from(used).ok().filter(|u| *u <= block.len().saturating_sub(tail))?;
    let records = block.get(REVOKE_HEADER..used)?;
    Some(if sb.features.contains(JournalFeatures::SIXTY_FOUR_BIT) {
        let (records, _) = <[U64]>::ref_from_prefix_with_elems(records, records.len() / 8).ok()?;
        records.iter().map(|r| r.get()).collect()
    } else {
        let (records, _) = <[U32]>::ref_from_prefix_with_elems(records, records.len() / 4).ok()?;
        records.iter().map(|r| r.get().into()).collect()
    })
}

/// The transaction of the fast commits that begin in this block, if they do. These are
/// little-endian: a tag, its length, and for the first tag the features and the transaction.
pub(crate) fn fast_commit(block: &[u8]) -> Option<u32> {
    const HEAD: [u8; 4] = [9, 0, 8, 0];
    let (head, rest) = block.split_first_chunk::<4>()?;
    let (_features, rest) = rest.split_first_chunk::<4>()?;
    (*head == HEAD).then(|| rest.first_chunk().map(|b| u32::from_le_bytes(*b)))?
}
