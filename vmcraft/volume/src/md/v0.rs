//! The superblock of version 0.90: 4096 bytes, in the byte order of the machine that wrote it.
//!
//! Spec: Linux `include/uapi/linux/raid/md_p.h`, `mdp_super_t`; fields have its names.

use std::mem::offset_of;

use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::superblock::{Features, MAGIC, Metadata, Role, SECTOR, Superblock, ensure, fold};
use crate::{Error, Result};

/// `state`: stopped cleanly.
pub(super) const STATE_CLEAN: u32 = 1;
/// `state`: on a clustered array.
const STATE_CLUSTERED: u32 = 1 << 5;
/// `state`: there is a bitmap, 4096 bytes from the superblock on.
const STATE_BITMAP: u32 = 1 << 8;
pub(super) const DISK_FAULTY: u32 = 1;
pub(super) const DISK_ACTIVE: u32 = 1 << 1;
pub(super) const DISK_SYNC: u32 = 1 << 2;
pub(super) const DISK_REMOVED: u32 = 1 << 3;
const DISK_WRITE_MOSTLY: u32 = 1 << 9;
/// Members that the list has room for.
pub(super) const MAX_DISKS: usize = 27;

/// A member in the list: 128 bytes.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawDisk {
    pub(super) number: U32,
    pub(super) major: U32,
    pub(super) minor: U32,
    pub(super) raid_disk: U32,
    pub(super) state: U32,
    kept_14: [u8; 108],
}

/// The superblock. Numbers of two words are in the order that little-endian machines have.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawSuperblock {
    pub(super) magic: U32,
    pub(super) major_version: U32,
    /// 90; 91 while the array is reshaped.
    pub(super) minor_version: U32,
    pub(super) patch_version: U32,
    pub(super) gvalid_words: U32,
    pub(super) set_uuid0: U32,
    /// 0x018: seconds since 1970.
    pub(super) ctime: U32,
    pub(super) level: U32,
    /// 0x020: what of each member is used, in KiB.
    pub(super) size: U32,
    pub(super) nr_disks: U32,
    pub(super) raid_disks: U32,
    pub(super) md_minor: U32,
    pub(super) not_persistent: U32,
    pub(super) set_uuid: [U32; 3],
    kept_040: [u8; 64],
    /// 0x080: seconds since 1970.
    pub(super) utime: U32,
    pub(super) state: U32,
    pub(super) active_disks: U32,
    pub(super) working_disks: U32,
    pub(super) failed_disks: U32,
    pub(super) spare_disks: U32,
    /// 0x098
    pub(super) sb_csum: U32,
    pub(super) events_lo: U32,
    pub(super) events_hi: U32,
    pub(super) cp_events_lo: U32,
    pub(super) cp_events_hi: U32,
    /// 0x0ac: up to which sector copies and parity fit.
    pub(super) recovery_cp: U32,
    kept_0b0: [u8; 80],
    /// 0x100
    pub(super) layout: U32,
    /// 0x104: in bytes.
    pub(super) chunk_size: U32,
    kept_108: [u8; 248],
    /// 0x200
    pub(super) disks: [RawDisk; MAX_DISKS],
    /// 0xf80: a copy of this member's entry.
    pub(super) this_disk: RawDisk,
}
const _: () = assert!(size_of::<RawSuperblock>() == 4096);
const _: () = assert!(offset_of!(RawSuperblock, sb_csum) == 0x98);
const _: () = assert!(offset_of!(RawSuperblock, layout) == 0x100);
const _: () = assert!(offset_of!(RawSuperblock, this_disk) == 0xf80);

/// The checksum that the bytes should have.
pub(super) fn checksum(raw: &[u8]) -> u32 {
    let place = offset_of!(RawSuperblock, sb_csum) / 4;
    let words = raw.chunks_exact(4).enumerate().filter(|(index, _)| *index != place);
    fold(words.map(|(_, word)| u64::from(U32::read_from_bytes(word).map_or(0, U32::get))).sum())
}

fn number64(low: U32, high: U32) -> u64 {
    u64::from(high.get()) << 32 | u64::from(low.get())
}

/// Decodes the 4096 bytes at byte `at` of a member; `None` if they are no superblock of this version.
pub(super) fn decode(bytes: Vec<u8>, at: u64) -> Result<Option<Superblock>> {
    let Ok(raw) = RawSuperblock::read_from_bytes(&bytes) else { return Ok(None) };
    if raw.magic.get() == MAGIC.swap_bytes() {
        return Err(Error::Unsupported(
            "md metadata 0.90 of a big-endian machine (convert it there to 1.x: `mdadm --assemble --update=metadata`)"
                .into(),
        ));
    }
    if raw.magic.get() != MAGIC || raw.major_version.get() != 0 {
        return Ok(None);
    }
    let minor = raw.minor_version.get();
    if !(90..=91).contains(&minor) {
        return Err(Error::Unsupported(format!("md metadata 0.{minor}")));
    }
    ensure(raw.sb_csum.get() == checksum(&bytes), "checksum", at + 0x98)?;
    let number = raw.this_disk.number.get();
    ensure((number as usize) < MAX_DISKS, "number of the member", at + 0xf80)?;
    let raid_disks = raw.raid_disks.get();
    ensure((1..=27).contains(&raid_disks), "number of members", at + 0x28)?;
    let level = i32::from_le_bytes(raw.level.to_bytes());
    let used_bytes = u64::from(raw.size.get()) << 10;
    ensure(level <= 0 || used_bytes <= at, "size of the members", at + 0x20)?;
    let roles = raw
        .disks
        .iter()
        .map(|disk| {
            let state = disk.state.get();
            if state & (DISK_FAULTY | DISK_REMOVED) != 0 {
                Role::Faulty
            } else if state & (DISK_ACTIVE | DISK_SYNC) != 0 && disk.raid_disk.get() < raid_disks {
                Role::Active(disk.raid_disk.get())
            } else {
                Role::Spare
            }
        })
        .collect();
    let own_state = raw.disks[number as usize].state.get();
    let events = number64(raw.events_lo, raw.events_hi);
    let resync_from = if raw.state.get() & STATE_CLEAN != 0 {
        None
    } else if number64(raw.cp_events_lo, raw.cp_events_hi) == events {
        Some(u64::from(raw.recovery_cp.get()) * SECTOR)
    } else {
        Some(0)
    };
    let mut uuid = [0; 16];
    let words = std::iter::once(raw.set_uuid0).chain(raw.set_uuid);
    for (target, word) in uuid.chunks_exact_mut(4).zip(words) {
        target.copy_from_slice(&word.get().to_be_bytes());
    }
    Ok(Some(Superblock {
        metadata: Metadata::V0_90,
        offset: at,
        uuid,
        name: String::new(),
        preferred_minor: Some(raw.md_minor.get()),
        level,
        layout: raw.layout.get(),
        chunk_bytes: u64::from(raw.chunk_size.get()),
        raid_disks,
        used_bytes,
        data_start: 0,
        data_bytes: at,
        events,
        number,
        device_uuid: None,
        roles,
        resync_from,
        // One that is active but not in sync is being rebuilt, and how far that came is not kept.
        recovered_to: (own_state & DISK_ACTIVE != 0 && own_state & DISK_SYNC == 0).then_some(0),
        is_replacement: false,
        is_write_mostly: own_state & DISK_WRITE_MOSTLY != 0,
        bitmap: (raw.state.get() & STATE_BITMAP != 0).then_some(at + 4096),
        bad_blocks: None,
        features: Features {
            is_reshaping: minor == 91,
            is_clustered: raw.state.get() & STATE_CLUSTERED != 0,
            ..Features::default()
        },
        raw: bytes,
    }))
}
