//! Segments of the types `raid0` to `raid10`: what dm-raid does. Each image has a volume with its data and, but for
//! `raid0`, one with a superblock and a bitmap.

use std::sync::Arc;

use vmcraft_block::BlockDevice;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Opener;
use crate::dm::{Content, ReadOnly};
use crate::lvm::segment::{RaidImage, Segment};
use crate::raid::{Geometry, Layout, ParityLayout, Raid10, RaidDevice, RaidMember, ZoneOrder};
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
/// Where the bitmap is, in bytes.
const BITMAP: u64 = 4096;
const BITMAP_MAGIC: u32 = 0x6d74_6962;
const BITMAP_HEADER: u64 = 256;

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
struct Superblock {
    events: u64,
    failed: u64,
    /// How many bytes of the image have their content.
    rebuilt: Option<u64>,
    /// Whether parity and copies fit everywhere.
    is_in_sync: bool,
    layout: u32,
}

/// An image that is there.
struct Image {
    data: Arc<dyn BlockDevice>,
    /// `None` for one that no kernel has used yet.
    superblock: Option<Superblock>,
}

/// Opens a RAID segment. Images that are missing, failed or stale are left out, and the volume is read-only then.
pub(super) fn open(
    opener: &mut Opener<'_>,
    segment: &Segment,
    stripe_size: u64,
    images: &[RaidImage],
    data_copies: u64,
) -> Result<Content> {
    let title =
        |opener: &Opener<'_>| format!("{} of volume group {}", segment.type_name, opener.group.name());
    let (mut found, mut left_out) = (Vec::with_capacity(images.len()), Vec::new());
    for (position, image) in images.iter().enumerate() {
        found.push(match open_image(opener, image, position, images.len()) {
            Ok(image) => Some(image),
            Err(Error::Incomplete(why)) => {
                left_out.push(why);
                None
            }
            Err(error) => return Err(error),
        });
    }
    let superblocks = || found.iter().flatten().filter_map(|image| image.superblock.as_ref());
    let newest = superblocks().map(|superblock| superblock.events).max();
    let failed = superblocks().filter(|sb| Some(sb.events) == newest).fold(0, |all, sb| all | sb.failed);
    let layout_number = superblocks().map(|superblock| superblock.layout).next();
    let is_in_sync = newest.is_some() && superblocks().all(|superblock| superblock.is_in_sync);
    let layout = layout(&segment.type_name, images.len(), layout_number, data_copies)?;
    let member_bytes: Vec<u64> = images
        .iter()
        .zip(&found)
        .map(|(image, found)| match found {
            Some(found) => found.data.size(),
            None => opener.volumes.get(image.data.as_str()).map_or(0, |lv| lv.size),
        })
        .collect();
    let geometry = Geometry { layout, chunk_bytes: stripe_size, member_bytes };
    let len = opener.bytes(segment.extent_count);
    if geometry.array_bytes()? < len {
        return Err(Error::Corrupt {
            what: format!("{}: its images are too small for {len} bytes", title(opener)),
            offset: 0,
        });
    }
    let mut members = Vec::with_capacity(found.len());
    for (position, (image, raid)) in found.into_iter().zip(images).enumerate() {
        let Some(Image { data, superblock }) = image else {
            members.push(None);
            continue;
        };
        let mut member = RaidMember::new(data);
        let name = &raid.data;
        let problem = match (&superblock, newest) {
            (Some(sb), Some(newest)) if sb.events.saturating_add(1) < newest => {
                Some(format!("{name} is stale: it has {} events, and others have {newest}", sb.events))
            }
            _ if position < 64 && failed >> position & 1 == 1 => Some(format!("{name} has failed")),
            (None, Some(_)) => Some(format!("{name} has not been rebuilt yet")),
            _ => None,
        };
        if let Some(rebuilt) = superblock.and_then(|superblock| superblock.rebuilt) {
            left_out.push(format!("{name} has only been rebuilt up to byte {rebuilt:#x}"));
            member.bad.push(rebuilt..u64::MAX);
        }
        members.push(match problem {
            Some(problem) => {
                left_out.push(problem);
                None
            }
            None => Some(member),
        });
    }
    let has_parity = matches!(layout, Layout::SingleParity(_) | Layout::DoubleParity(_));
    let raid = RaidDevice::new(&geometry, members).map_err(|error| {
        Error::Incomplete(format!("{}: {error} ({})", title(opener), left_out.join("; ")))
    })?;
    let device: Arc<dyn BlockDevice> = match (left_out.is_empty(), is_in_sync) {
        (true, true) => Arc::new(raid),
        (true, false) => Arc::new(raid.with_untrusted_parity()),
        (false, false) if has_parity => {
            return Err(Error::Incomplete(format!(
                "{}: its parity was not made to fit before images were lost ({})",
                title(opener),
                left_out.join("; ")
            )));
        }
        (false, _) => {
            let why = format!("{} is degraded, and read-only: {}", title(opener), left_out.join("; "));
            tracing::warn!("{why}");
            Arc::new(ReadOnly::new(Arc::new(raid), why))
        }
    };
    Ok(Content::Device { device, offset: 0 })
}

fn open_image(opener: &mut Opener<'_>, image: &RaidImage, position: usize, count: usize) -> Result<Image> {
    let superblock = match &image.metadata {
        Some(metadata) => {
            let device = opener.volume(metadata)?;
            read_superblock(&*device, metadata, position, count)?
        }
        // raid0 keeps none, and every image is as good as the others.
        None => None,
    };
    Ok(Image { data: opener.volume(&image.data)?, superblock })
}

fn read_superblock(
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
        is_in_sync: raw.array_resync_offset.get() == DONE && !has_dirty_regions(device)?,
        layout: raw.layout.get(),
    }))
}

/// Whether the bitmap says that something was being written when the volume was last in use.
fn has_dirty_regions(device: &dyn BlockDevice) -> Result<bool> {
    let mut header = [0; 64];
    if device.size() < BITMAP + BITMAP_HEADER {
        return Ok(false);
    }
    device.read_at(BITMAP, &mut header)?;
    let u32_at =
        |at: usize| header.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
    let u64_at =
        |at: usize| header.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    let (sync_bytes, chunk) = (u64_at(40).saturating_mul(SECTOR), u64::from(u32_at(52)));
    if u32_at(0) != BITMAP_MAGIC || chunk == 0 {
        return Ok(false);
    }
    // The bits after the last region are set.
    let regions = sync_bytes.div_ceil(chunk);
    let bytes = regions.div_ceil(8).min(device.size() - BITMAP - BITMAP_HEADER);
    let (mut at, mut buffer) = (0, vec![0; 65536]);
    while at < bytes {
        let len = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(buffer.len());
        let bits = buffer.get_mut(..len).unwrap_or_default();
        device.read_at(BITMAP + BITMAP_HEADER + at, bits)?;
        at += len as u64;
        if at * 8 > regions
            && let Some(last) = bits.last_mut()
        {
            *last &= u8::MAX >> (at * 8 - regions);
        }
        if bits.iter().any(|byte| *byte != 0) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The layout that a segment type stands for.
fn layout(type_name: &str, images: usize, number: Option<u32>, data_copies: u64) -> Result<Layout> {
    use ParityLayout as P;
    Ok(match type_name {
        "raid0" | "raid0_meta" => Layout::Striped(ZoneOrder::Zone),
        "raid1" => Layout::Mirrored,
        "raid10" | "raid10_near" => Layout::Raid10(match number {
            Some(number) => Raid10::from_md(number, images)?,
            None => Raid10::near(usize::try_from(data_copies).unwrap_or(usize::MAX), images),
        }),
        "raid4" | "raid5_0" => Layout::SingleParity(P::ParityFirst),
        "raid5" | "raid5_ls" => Layout::SingleParity(P::LeftSymmetric),
        "raid5_la" => Layout::SingleParity(P::LeftAsymmetric),
        "raid5_rs" => Layout::SingleParity(P::RightSymmetric),
        "raid5_ra" => Layout::SingleParity(P::RightAsymmetric),
        "raid5_n" => Layout::SingleParity(P::ParityLast),
        "raid6" | "raid6_zr" => Layout::DoubleParity(P::RotatingZeroRestart),
        "raid6_nr" => Layout::DoubleParity(P::RotatingNRestart),
        "raid6_nc" => Layout::DoubleParity(P::RotatingNContinue),
        "raid6_ls_6" => Layout::DoubleParity(P::LeftSymmetric6),
        "raid6_la_6" => Layout::DoubleParity(P::LeftAsymmetric6),
        "raid6_rs_6" => Layout::DoubleParity(P::RightSymmetric6),
        "raid6_ra_6" => Layout::DoubleParity(P::RightAsymmetric6),
        "raid6_0_6" => Layout::DoubleParity(P::ParityFirst6),
        "raid6_n_6" => Layout::DoubleParity(P::ParityLast),
        other => return Err(Error::Unsupported(format!("segments of type {other}"))),
    })
}
