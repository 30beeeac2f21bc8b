//! The superblock of versions 1.0, 1.1 and 1.2, which differ in its place: little-endian, 256 bytes and a list of
//! roles.
//!
//! Spec: Linux `include/uapi/linux/raid/md_p.h`, `struct mdp_superblock_1`; fields have its names.

use std::mem::offset_of;

use zerocopy::byteorder::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::superblock::{
    BadBlockArea, Features, MAGIC, Metadata, Role, SECTOR, Superblock, ensure, fold, sectors,
};
use crate::{Error, Result};

pub(super) const FEATURE_BITMAP: u32 = 1;
pub(super) const FEATURE_RECOVERY_OFFSET: u32 = 2;
const FEATURE_RESHAPE: u32 = 4;
const FEATURE_BAD_BLOCKS: u32 = 8;
const FEATURE_REPLACEMENT: u32 = 16;
const FEATURE_RESHAPE_BACKWARDS: u32 = 32;
const FEATURE_NEW_OFFSET: u32 = 64;
const FEATURE_CLUSTERED: u32 = 256;
const FEATURE_JOURNAL: u32 = 512;
const FEATURE_PPL: u32 = 1024;
const FEATURE_MULTIPLE_PPLS: u32 = 2048;
pub(super) const FEATURE_RAID0_LAYOUT: u32 = 4096;
const FEATURES: u32 = FEATURE_RAID0_LAYOUT * 2 - 1;

pub(super) const ROLE_FAULTY: u16 = 0xfffe;
const ROLE_JOURNAL: u16 = 0xfffd;
/// The largest role that is a place in the array.
const ROLE_MAX: u16 = 0xff00;
/// Roles that fit into 4096 bytes.
pub(super) const MAX_ROLES: usize = (4096 - 256) / 2;
const FLAG_WRITE_MOSTLY: u8 = 1;

/// The superblock without its roles.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawSuperblock {
    pub(super) magic: U32,
    pub(super) major_version: U32,
    /// 0x008
    pub(super) feature_map: U32,
    pub(super) pad0: U32,
    pub(super) set_uuid: [u8; 16],
    pub(super) set_name: [u8; 32],
    /// 0x040: seconds since 1970 in the low 40 bits, microseconds above.
    pub(super) ctime: U64,
    pub(super) level: I32,
    pub(super) layout: U32,
    /// 0x050: what of each member is used, in sectors.
    pub(super) size: U64,
    /// 0x058: in sectors.
    pub(super) chunksize: U32,
    pub(super) raid_disks: U32,
    /// 0x060: in sectors from the superblock; with a PPL, its offset and size in 16 bits each.
    pub(super) bitmap_offset: I32,
    pub(super) new_level: U32,
    pub(super) reshape_position: U64,
    pub(super) delta_disks: U32,
    pub(super) new_layout: U32,
    pub(super) new_chunk: U32,
    pub(super) new_offset: U32,
    /// 0x080: in sectors.
    pub(super) data_offset: U64,
    /// 0x088: in sectors.
    pub(super) data_size: U64,
    /// 0x090: in sectors: where this superblock is.
    pub(super) super_offset: U64,
    /// 0x098: in sectors: up to where the member is rebuilt.
    pub(super) recovery_offset: U64,
    /// 0x0a0: the member's place in the list of roles.
    pub(super) dev_number: U32,
    pub(super) cnt_corrected_read: U32,
    pub(super) device_uuid: [u8; 16],
    pub(super) devflags: u8,
    pub(super) bblog_shift: u8,
    /// 0x0ba: in sectors.
    pub(super) bblog_size: U16,
    /// 0x0bc: in sectors from the superblock.
    pub(super) bblog_offset: I32,
    /// 0x0c0: as `ctime`.
    pub(super) utime: U64,
    /// 0x0c8
    pub(super) events: U64,
    /// 0x0d0: in sectors: up to where copies and parity fit; all ones is everywhere.
    pub(super) resync_offset: U64,
    /// 0x0d8
    pub(super) sb_csum: U32,
    /// 0x0dc: roles in the list.
    pub(super) max_dev: U32,
    pub(super) pad3: [u8; 32],
}
const _: () = assert!(size_of::<RawSuperblock>() == 256);
const _: () = assert!(offset_of!(RawSuperblock, data_offset) == 0x80);
const _: () = assert!(offset_of!(RawSuperblock, events) == 0xc8);
const _: () = assert!(offset_of!(RawSuperblock, sb_csum) == 0xd8);

/// The checksum that the superblock and its roles should have.
pub(super) fn checksum(bytes: &[u8], max_dev: usize) -> u32 {
    let end = bytes.len().min(256 + max_dev * 2);
    let place = offset_of!(RawSuperblock, sb_csum) / 4;
    let words = bytes[..end].chunks(4).enumerate().filter(|(index, _)| *index != place);
    // A role that is left over counts as a word of its own.
    fold(words.map(|(_, word)| word.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))).sum())
}

/// A signed number of sectors from `base`, in bytes of the member.
fn relative(base: u64, count: i32) -> Option<u64> {
    base.checked_add_signed(i64::from(count) * 512)
}

/// Decodes the 4096 bytes at byte `at` of a member of `size` bytes; `None` if they are no superblock of this
/// version.
pub(super) fn decode(metadata: Metadata, bytes: Vec<u8>, at: u64, size: u64) -> Result<Option<Superblock>> {
    let Ok((raw, roles)) = RawSuperblock::read_from_prefix(&bytes) else { return Ok(None) };
    // A superblock of 1.0 may have its place where one of 1.1 would: its own position tells.
    let is_here = raw.super_offset.get() == at / SECTOR;
    if raw.magic.get() != MAGIC || raw.major_version.get() != 1 || !is_here {
        return Ok(None);
    }
    let max_dev = raw.max_dev.get() as usize;
    ensure(max_dev <= MAX_ROLES, "number of roles", at + 0xdc)?;
    ensure(raw.sb_csum.get() == checksum(&bytes, max_dev), "checksum", at + 0xd8)?;
    let features = raw.feature_map.get();
    let raid_disks = raw.raid_disks.get();
    ensure(raid_disks as usize <= MAX_ROLES, "number of members", at + 0x5c)?;
    let data_start = sectors(raw.data_offset.get(), "data offset", at + 0x80)?;
    let data_bytes = sectors(raw.data_size.get(), "data size", at + 0x88)?;
    // Behind the data of 1.0 comes the superblock.
    let limit = if metadata == Metadata::V1_0 { at } else { size };
    let data_end = data_start.checked_add(data_bytes);
    if data_end.is_none_or(|end| end > limit) {
        return Err(Error::Corrupt {
            what: format!(
                "md superblock: {data_bytes} bytes of data from byte {data_start} on, but the device ends at {limit} \
                 (it is cut off, or a smaller copy)"
            ),
            offset: at + 0x80,
        });
    }
    let used_bytes = sectors(raw.size.get(), "size of the members", at + 0x50)?;
    ensure(raw.level.get() <= 0 || used_bytes <= data_bytes, "size of the members", at + 0x50)?;
    let roles = roles
        .chunks_exact(2)
        .take(max_dev)
        .map(|role| match u16::from_le_bytes([role[0], role[1]]) {
            ROLE_FAULTY => Role::Faulty,
            ROLE_JOURNAL => Role::Journal,
            role if role < ROLE_MAX => Role::Active(role.into()),
            _ => Role::Spare,
        })
        .collect();
    let resync = raw.resync_offset.get();
    let has = |feature| features & feature != 0;
    let bitmap = if has(FEATURE_BITMAP) {
        let offset = relative(at, raw.bitmap_offset.get());
        Some(offset.ok_or_else(|| Error::Corrupt {
            what: "md superblock: place of the bitmap".into(),
            offset: at + 0x60,
        })?)
    } else {
        None
    };
    let bad_blocks = if has(FEATURE_BAD_BLOCKS) && raw.bblog_size.get() > 0 {
        let offset = relative(at, raw.bblog_offset.get());
        // Linux reads one page of it.
        ensure(raw.bblog_size.get() <= 8 && raw.bblog_shift <= 32, "log of bad blocks", at + 0xb9)?;
        Some(BadBlockArea {
            offset: offset.ok_or_else(|| Error::Corrupt {
                what: "md superblock: place of the log of bad blocks".into(),
                offset: at + 0xbc,
            })?,
            len: usize::from(raw.bblog_size.get()) * 512,
            shift: raw.bblog_shift,
        })
    } else {
        None
    };
    let name_end = raw.set_name.iter().position(|byte| *byte == 0).unwrap_or(32);
    let level = raw.level.get();
    Ok(Some(Superblock {
        metadata,
        offset: at,
        uuid: raw.set_uuid,
        name: String::from_utf8_lossy(&raw.set_name[..name_end]).into_owned(),
        preferred_minor: None,
        level,
        // Without the feature, the layout of RAID-0 says nothing.
        layout: if level == 0 && !has(FEATURE_RAID0_LAYOUT) { 0 } else { raw.layout.get() },
        chunk_bytes: u64::from(raw.chunksize.get()) * SECTOR,
        raid_disks,
        used_bytes,
        data_start,
        data_bytes,
        events: raw.events.get(),
        number: raw.dev_number.get(),
        device_uuid: Some(raw.device_uuid),
        roles,
        resync_from: (resync != u64::MAX).then(|| resync.saturating_mul(SECTOR)),
        recovered_to: has(FEATURE_RECOVERY_OFFSET).then(|| raw.recovery_offset.get().saturating_mul(SECTOR)),
        is_replacement: has(FEATURE_REPLACEMENT),
        is_write_mostly: raw.devflags & FLAG_WRITE_MOSTLY != 0,
        bitmap,
        bad_blocks,
        features: Features {
            is_reshaping: has(FEATURE_RESHAPE | FEATURE_RESHAPE_BACKWARDS | FEATURE_NEW_OFFSET),
            is_clustered: has(FEATURE_CLUSTERED),
            has_journal: has(FEATURE_JOURNAL),
            has_ppl: has(FEATURE_PPL | FEATURE_MULTIPLE_PPLS),
            unknown: features & !FEATURES,
        },
        raw: bytes,
    }))
}
