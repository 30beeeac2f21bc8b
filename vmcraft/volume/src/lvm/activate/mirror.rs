//! Segments of the old type `mirror`.

use std::sync::Arc;

use super::Opener;
use crate::dm::Content;
use crate::dm::mirror::{Log, Mirror, Regions};
use crate::lvm::segment::{Area, AreaOn, Segment};
use crate::{Error, Result};

/// Opens a mirror. Legs that are missing are left out.
pub(super) fn open(
    opener: &mut Opener<'_>,
    segment: &Segment,
    images: &[Area],
    log: Option<&str>,
    region_size: u64,
) -> Result<Content> {
    let (mut legs, mut missing) = (Vec::with_capacity(images.len()), Vec::new());
    let mut without = Vec::new();
    for image in images {
        match opener.area(image) {
            Ok(leg) => legs.push(Some(leg)),
            Err(Error::Incomplete(why)) => {
                missing.push(why);
                without.push(match &image.on {
                    AreaOn::Lv(name) => format!("{name} is missing"),
                    AreaOn::Pv(_) => "a leg is missing".to_owned(),
                });
                legs.push(None);
            }
            Err(error) => return Err(error),
        }
    }
    // A log that is missing tells as much as one that was never written.
    let log = match log.map(|log| opener.volume(log)) {
        None | Some(Err(Error::Incomplete(_))) => Log::Core,
        Some(Ok(device)) => Log::Disk(device),
        Some(Err(error)) => return Err(error),
    };
    let mirror = Mirror::new(legs, opener.bytes(segment.extent_count), &log, region_size).map_err(
        |error| match error {
            Error::Incomplete(what) => Error::Incomplete(format!("{what}: {}", missing.join("; "))),
            other => other,
        },
    )?;
    if !without.is_empty() {
        opener.note_degraded(format!("degraded, and read-only: {}", without.join("; ")));
    }
    Ok(Content::Device { device: Arc::new(mirror), offset: 0 })
}

/// What the log of a mirror says of its regions.
pub(super) fn regions(
    opener: &mut Opener<'_>,
    segment: &Segment,
    log: &str,
    region_size: u64,
) -> Result<Regions> {
    let log = opener.volume(log)?;
    Regions::read(&*log, opener.bytes(segment.extent_count), region_size)
}
