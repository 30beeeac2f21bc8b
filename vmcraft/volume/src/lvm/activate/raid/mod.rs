//! Segments of the types `raid0` to `raid10`: what dm-raid does. Each image has a volume with its data and, but for
//! `raid0`, one with a superblock and a bitmap.

mod superblock;

use std::sync::Arc;

use vmcraft_block::BlockDevice;

use self::superblock::{Leg, Legs, Superblock};
use super::Opener;
use crate::dm::Content;
use crate::lvm::segment::{RaidImage, Segment};
use crate::raid::{
    Bitmap, Geometry, Layout, ParityLayout, Raid10, RaidDevice, RaidMember, Record, Recorded, ZoneOrder,
};
use crate::{Error, Result};

/// An image that is there.
struct Image {
    data: Arc<dyn BlockDevice>,
    /// With the device that it is on; `None` for one that no kernel has used yet.
    superblock: Option<(Arc<dyn BlockDevice>, Superblock)>,
}

/// Opens a RAID segment. Images that are missing, failed or stale are left out. Before the first write to a volume
/// without all of its images the others say so, as Linux makes them: it brings up to date what comes back.
pub(super) fn open(
    opener: &mut Opener<'_>,
    segment: &Segment,
    stripe_size: u64,
    images: &[RaidImage],
    data_copies: u64,
) -> Result<Content> {
    let title = format!("{} of volume group {}", segment.type_name, opener.group.name());
    let mut found = Vec::with_capacity(images.len());
    for (position, image) in images.iter().enumerate() {
        found.push(match open_image(opener, image, position, images.len()) {
            Ok(image) => Ok(image),
            Err(Error::Incomplete(why)) => Err(why),
            Err(error) => return Err(error),
        });
    }
    let superblocks =
        || found.iter().flatten().filter_map(|image| image.superblock.as_ref().map(|(_, sb)| sb));
    let newest = superblocks().map(|superblock| superblock.events).max();
    let failed = superblocks().filter(|sb| Some(sb.events) == newest).fold(0, |all, sb| all | sb.failed);
    let layout_number = superblocks().map(|superblock| superblock.layout).next();
    let is_synchronised = newest.is_some() && superblocks().all(|superblock| superblock.is_synchronised);
    let layout = layout(&segment.type_name, images.len(), layout_number, data_copies)?;
    let member_bytes: Vec<u64> = images
        .iter()
        .zip(&found)
        .map(|(image, found)| match found {
            Ok(found) => found.data.size(),
            Err(_) => opener.volumes.get(image.data.as_str()).map_or(0, |lv| lv.size),
        })
        .collect();
    let geometry = Geometry { layout, chunk_bytes: stripe_size, member_bytes };
    let len = opener.bytes(segment.extent_count);
    if geometry.array_bytes()? < len {
        return Err(Error::Corrupt {
            what: format!("{title}: its images are too small for {len} bytes"),
            offset: 0,
        });
    }
    let has_failed = |position: usize| position < 64 && failed >> position & 1 == 1;
    // What is not there, or marked as failed: what is written without it is recorded. And what is not whole otherwise:
    // nothing is written without it.
    let (mut lost, mut other) = (Vec::new(), Vec::new());
    let mut without = Vec::new();
    let mut gone = Vec::new();
    let mut legs = Vec::new();
    let mut members = Vec::with_capacity(found.len());
    for (position, (image, raid)) in found.into_iter().zip(images).enumerate() {
        let name = &raid.data;
        let Image { data, superblock } = match image {
            Ok(image) if !has_failed(position) => image,
            Ok(_) => {
                lost.push(format!("{name} has failed"));
                without.push(format!("{name} has failed"));
                gone.push(position);
                members.push(None);
                continue;
            }
            Err(why) => {
                lost.push(why);
                without.push(format!("{name} is missing"));
                gone.push(position);
                members.push(None);
                continue;
            }
        };
        let problem = match (&superblock, newest) {
            (Some((_, sb)), Some(newest)) if sb.events.saturating_add(1) < newest => {
                Some(format!("{name} is stale: it has {} events, and others have {newest}", sb.events))
            }
            (None, Some(_)) => Some(format!("{name} has not been rebuilt yet")),
            _ => None,
        };
        if let Some(problem) = problem {
            other.push(problem);
            members.push(None);
            continue;
        }
        let mut member = RaidMember::new(data);
        if let Some((device, superblock)) = superblock {
            if let Some(rebuilt) = superblock.rebuilt {
                other.push(format!("{name} has only been rebuilt up to byte {rebuilt:#x}"));
                member.bad.push(rebuilt..u64::MAX);
            }
            legs.push(Leg { device, superblock });
        }
        members.push(Some(member));
    }
    let left_out = lost.iter().chain(&other).cloned().collect::<Vec<_>>().join("; ");
    let is_degraded = !left_out.is_empty();
    let has_parity = matches!(layout, Layout::SingleParity(_) | Layout::DoubleParity(_));
    let raid = RaidDevice::new(&geometry, members)
        .map_err(|error| Error::Incomplete(format!("{title}: {error} ({left_out})")))?;
    let bitmap = bitmap(&legs)?;
    let has_marks = bitmap.as_ref().map_or(Ok(false), Bitmap::has_marks)?;
    if !is_degraded {
        let is_in_sync = is_synchronised && !has_marks;
        let device: Arc<dyn BlockDevice> =
            if is_in_sync { Arc::new(raid) } else { Arc::new(raid.with_untrusted_parity()) };
        return Ok(Content::Device { device, offset: 0 });
    }
    // What is marked was written without the images that are known to have failed. Otherwise it was being written when
    // the volume was last in use, and may not fit.
    let is_known = other.is_empty() && gone.iter().all(|position| has_failed(*position));
    if has_parity && (!is_synchronised || has_marks && !is_known) {
        return Err(Error::Incomplete(format!(
            "{title}: its parity was not made to fit before images were lost ({left_out})"
        )));
    }
    let legs = Legs::new(legs, &gone);
    let refusal = match (&bitmap, &legs) {
        _ if !other.is_empty() => Some(other.join("; ")),
        (None, _) => Some("it has no write-intent bitmap that could say what changes".into()),
        (_, None) => Some("its superblocks cannot say which images are missing".into()),
        _ => None,
    };
    without.extend(other.iter().cloned());
    let without = without.join("; ");
    opener.note_degraded(match &refusal {
        None => format!("degraded: {without}"),
        Some(_) if !other.is_empty() => format!("degraded, and read-only: {without}"),
        Some(why) => format!("degraded, and read-only: {without}; {why}"),
    });
    let refusal = refusal.map(|why| format!("{title} is degraded, and read-only: {why}"));
    let record = legs.map(|legs| Record::new(Box::new(legs), bitmap, &geometry));
    Ok(Content::Device { device: Arc::new(Recorded { inner: raid, record, refusal }), offset: 0 })
}

/// Whether the superblocks of all images that are there, and their bitmap, say that copies or parity fit.
pub(super) fn is_synced(opener: &mut Opener<'_>, images: &[RaidImage]) -> Result<bool> {
    let mut legs = Vec::with_capacity(images.len());
    for (position, image) in images.iter().enumerate() {
        match open_image(opener, image, position, images.len()) {
            Ok(Image { superblock: Some((device, superblock)), .. }) => legs.push(Leg { device, superblock }),
            Ok(Image { superblock: None, .. }) => return Ok(false),
            Err(Error::Incomplete(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let newest = legs.iter().map(|leg| leg.superblock.events).max();
    let fits = |superblock: &Superblock| {
        superblock.is_synchronised
            && superblock.rebuilt.is_none()
            && Some(superblock.events.saturating_add(1)) >= newest
    };
    if legs.is_empty() || !legs.iter().all(|leg| fits(&leg.superblock)) {
        return Ok(false);
    }
    // What is marked is copied as soon as there is where to.
    Ok(legs.len() < images.len() || !bitmap(&legs)?.as_ref().map_or(Ok(false), Bitmap::has_marks)?)
}

/// The bitmap that the images have copies of.
fn bitmap(legs: &[Leg]) -> Result<Option<Bitmap>> {
    let copies = legs.iter().map(|leg| (Arc::clone(&leg.device), superblock::BITMAP)).collect();
    let events = legs.iter().map(|leg| leg.superblock.events).max().unwrap_or(0);
    Ok(Bitmap::read(copies, events)?)
}

fn open_image(opener: &mut Opener<'_>, image: &RaidImage, position: usize, count: usize) -> Result<Image> {
    let superblock = match &image.metadata {
        Some(metadata) => {
            let device = opener.volume(metadata)?;
            superblock::read(&*device, metadata, position, count)?.map(|superblock| (device, superblock))
        }
        // raid0 keeps none, and every image is as good as the others.
        None => None,
    };
    Ok(Image { data: opener.volume(&image.data)?, superblock })
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
