//! What the members must say before an array is written that lacks members, or is not all rebuilt.
//!
//! Linux takes a member into an array again if it has missed no more than one event. So before the first write the event
//! count of all that are there goes up by two, and their lists call the others failed. A member that is being
//! rebuilt is not written, so that its rebuilding has to begin again.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use vmcraft_block::BlockDevice;
use zerocopy::{FromBytes, IntoBytes};

use super::superblock::{Metadata, Role, Superblock};
use super::{v0, v1};
use crate::raid::{Bitmap, Superblocks};

/// More than Linux forgives.
const EVENTS_MORE: u64 = 2;

/// A member whose superblock is to be kept up to date.
pub(super) struct Kept {
    pub(super) device: Arc<dyn BlockDevice>,
    pub(super) superblock: Superblock,
    /// Whether its content is not used yet, and not written.
    pub(super) is_incomplete: bool,
}

/// The members of an array that are there.
pub(super) struct Members(pub(super) Vec<Kept>);

impl Members {
    /// The copies of the write-intent bitmap.
    pub(super) fn bitmap(&self) -> io::Result<Option<Bitmap>> {
        let active = self.0.iter().filter(|kept| matches!(kept.superblock.role(), Role::Active(_)));
        let copies = active.filter_map(|kept| Some((kept.device.clone(), kept.superblock.bitmap?))).collect();
        Bitmap::read(copies, self.newest())
    }

    fn newest(&self) -> u64 {
        self.0.iter().map(|kept| kept.superblock.events).max().unwrap_or(0)
    }

    fn encode_v1(&self, kept: &Kept, events: u64, there: &BTreeSet<u32>) -> Option<Vec<u8>> {
        let len = 256 + kept.superblock.roles.len() * 2;
        let mut bytes = kept.superblock.raw.get(..len)?.to_vec();
        let (raw, roles) = v1::RawSuperblock::mut_from_prefix(&mut bytes).ok()?;
        raw.events.set(events);
        if kept.is_incomplete {
            raw.feature_map.set(raw.feature_map.get() | v1::FEATURE_RECOVERY_OFFSET);
            raw.recovery_offset.set(0);
        }
        for (number, role) in (0u32..).zip(roles.chunks_exact_mut(2)) {
            let is_active = matches!(kept.superblock.role_of(number), Role::Active(_));
            if is_active && !there.contains(&number) {
                role.copy_from_slice(&v1::ROLE_FAULTY.to_le_bytes());
            }
        }
        let checksum = v1::checksum(&bytes, kept.superblock.roles.len());
        v1::RawSuperblock::mut_from_prefix(&mut bytes).ok()?.0.sb_csum.set(checksum);
        Some(bytes)
    }

    fn encode_v0(&self, kept: &Kept, events: u64, there: &BTreeSet<u32>) -> Option<Vec<u8>> {
        let mut raw = v0::RawSuperblock::read_from_bytes(&kept.superblock.raw).ok()?;
        let [low, high] = halves(events);
        // Where the resync stands is believed only if both counts are the same.
        if raw.cp_events_lo == raw.events_lo && raw.cp_events_hi == raw.events_hi {
            raw.cp_events_lo.set(low);
            raw.cp_events_hi.set(high);
        }
        raw.events_lo.set(low);
        raw.events_hi.set(high);
        for (number, disk) in (0u32..).zip(&mut raw.disks) {
            let is_active = matches!(kept.superblock.role_of(number), Role::Active(_));
            if is_active && !there.contains(&number) {
                disk.state.set(v0::DISK_FAULTY | v0::DISK_REMOVED);
                raw.active_disks.set(raw.active_disks.get().saturating_sub(1));
                raw.working_disks.set(raw.working_disks.get().saturating_sub(1));
                raw.failed_disks.set(raw.failed_disks.get().saturating_add(1));
            }
        }
        raw.sb_csum.set(v0::checksum(raw.as_bytes()));
        Some(raw.as_bytes().to_vec())
    }
}

impl Superblocks for Members {
    fn record(&self) -> io::Result<u64> {
        let events = self.newest().checked_add(EVENTS_MORE);
        let events = events.ok_or_else(|| io::Error::other("the event count overflows"))?;
        let there: BTreeSet<u32> = self.0.iter().map(|kept| kept.superblock.number).collect();
        for kept in &self.0 {
            let bytes = match kept.superblock.metadata {
                Metadata::V0_90 => self.encode_v0(kept, events, &there),
                _ => self.encode_v1(kept, events, &there),
            };
            let bytes = bytes
                .ok_or_else(|| io::Error::other("a superblock of the array has no room for its members"))?;
            kept.device.write_at(kept.superblock.offset, &bytes)?;
        }
        Ok(events)
    }
}

/// A number's low and high 32 bits.
fn halves(number: u64) -> [u32; 2] {
    let bytes = number.to_le_bytes();
    let (halves, _) = bytes.as_chunks::<4>();
    [u32::from_le_bytes(halves[0]), u32::from_le_bytes(halves[1])]
}
