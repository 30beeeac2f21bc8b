//! The superblocks of a RAID volume's images, each in a volume of its own.

use std::io;
use std::sync::Arc;

use vmcraft_block::BlockDevice;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::raid::Superblocks;
use crate::{Error, Result};

const SECTOR: u64 = 512;
/// "DmRd", little-endian.
const MAGIC: u32 = 0x6452_6d44;
/// The fields from `flags` on are in use.
const EXTENDED: u32 = 1;
/// The array is being reshaped.
const RESHAPE_ACTIVE: u32 = 1;
/// A place that stands for the end.
const DONE: u64 = u64::MAX;
/// Where the write-intent bitmap is, in bytes.
pub(super) const BITMAP: u64 = 4096;
/// More than two superblocks of one volume differ by when writing them was interrupted.
const EVENTS_MORE: u64 = 2;

/// The superblock of an image, little-endian. Places are in sectors of 512 bytes.
///
/// Spec: Linux `drivers/md/dm-raid.c`, `struct dm_raid_superblock`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawSuperblock {
    /// 0x00: [`MAGIC`].
    magic: U32,
    /// 0x04: [`EXTENDED`].
    compat_features: U32,
    /// 0x08: how many images there are.
    num_devices: U32,
    /// 0x0c: the place of this one.
    array_position: U32,
    /// 0x10: goes up with every change of state.
    events: U64,
    /// 0x18: a bit for each image that failed, of the first 64.
    failed_devices: U64,
    /// 0x20: how far this image has been rebuilt.
    disk_recovery_offset: U64,
    /// 0x28: how far parity or copies have been made to fit.
    array_resync_offset: U64,
    /// 0x30: the RAID level.
    level: U32,
    /// 0x34: md's number of the layout.
    layout: U32,
    /// 0x38: the chunk.
    stripe_sectors: U32,
    /// 0x3c: [`RESHAPE_ACTIVE`].
    flags: U32,
    kept_40: [u8; 32],
    /// 0x60: where the data begins.
    data_offset: U64,
}
const _: () = assert!(size_of::<RawSuperblock>() == 0x68);

/// What the superblock of an image says.
pub(super) struct Superblock {
    pub(super) events: u64,
    pub(super) failed: u64,
    /// How many bytes of the image have their content.
    pub(super) rebuilt: Option<u64>,
    /// Whether parity and copies were once made to fit everywhere.
    pub(super) is_synchronised: bool,
    pub(super) layout: u32,
}

/// The superblock of the image at a position; `None` if it has none yet.
pub(super) fn read(
    device: &dyn BlockDevice,
    name: &str,
    position: usize,
    count: usize,
) -> Result<Option<Superblock>> {
    let corrupt =
        |what: &str, offset| Error::Corrupt { what: format!("superblock of {name} ({what})"), offset };
    let mut bytes = [0; size_of::<RawSuperblock>()];
    device.read_at(0, &mut bytes)?;
    let raw = RawSuperblock::read_from_bytes(&bytes).map_err(|_| corrupt("size", 0))?;
    if raw.magic.get() == 0 {
        return Ok(None);
    }
    if raw.magic.get() != MAGIC {
        return Err(corrupt("magic number", 0));
    }
    let is = |value: U32, expected: usize| usize::try_from(value.get()).is_ok_and(|value| value == expected);
    if !is(raw.num_devices, count) {
        return Err(corrupt("number of devices", 8));
    }
    if !is(raw.array_position, position) {
        return Err(corrupt("position in the array", 12));
    }
    if raw.compat_features.get() & EXTENDED != 0
        && (raw.flags.get() & RESHAPE_ACTIVE != 0 || raw.data_offset.get() != 0)
    {
        return Err(Error::Unsupported(format!("{name}: a RAID volume that is being reshaped")));
    }
    let rebuilt = raw.disk_recovery_offset.get();
    Ok(Some(Superblock {
        events: raw.events.get(),
        failed: raw.failed_devices.get(),
        rebuilt: (rebuilt != DONE).then(|| rebuilt.saturating_mul(SECTOR)),
        is_synchronised: raw.array_resync_offset.get() == DONE,
        layout: raw.layout.get(),
    }))
}

/// An image that is up to date, and the device that its superblock is on.
pub(super) struct Leg {
    pub(super) device: Arc<dyn BlockDevice>,
    pub(super) superblock: Superblock,
}

/// The images that are there of a volume that lacks others.
pub(super) struct Legs {
    legs: Vec<Leg>,
    /// A bit for each image that is not.
    gone: u64,
}

impl Legs {
    /// `gone` are the positions of those that are not there; `None` if superblocks have no room for them, or there are
    /// none.
    pub(super) fn new(legs: Vec<Leg>, gone: &[usize]) -> Option<Self> {
        let bit = |position: &usize| u32::try_from(*position).ok().and_then(|at| 1u64.checked_shl(at));
        let gone = gone.iter().map(bit).try_fold(0, |all, bit| Some(all | bit?))?;
        (!legs.is_empty()).then_some(Self { legs, gone })
    }
}

impl Superblocks for Legs {
    /// Linux believes the superblock with the most events. What that calls failed, it brings up to date by the
    /// bitmap before using it; without that, it uses an image as it is, however old.
    fn record(&self) -> io::Result<u64> {
        let newest = self.legs.iter().map(|leg| leg.superblock.events).max().unwrap_or(0);
        let events = newest.checked_add(EVENTS_MORE);
        let events = events.ok_or_else(|| io::Error::other("the event count overflows"))?;
        for leg in &self.legs {
            let mut bytes = [0; size_of::<RawSuperblock>()];
            leg.device.read_at(0, &mut bytes)?;
            let raw = RawSuperblock::mut_from_bytes(&mut bytes).map_err(|_| io::ErrorKind::InvalidData)?;
            raw.events.set(events);
            raw.failed_devices.set(raw.failed_devices.get() | self.gone);
            leg.device.write_at(0, &bytes)?;
        }
        Ok(events)
    }
}
