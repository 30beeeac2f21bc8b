//! Cached volumes.

use std::sync::Arc;

use vmcraft_block::{BlockDevice, Slice};

use super::Opener;
use crate::dm::Content;
use crate::dm::cache::{Cache, Mode};
use crate::lvm::segment::{CacheVolume, SegmentKind};
use crate::{Error, Result};

/// Opens a cached volume: the origin, if the cache has nothing that it has not.
pub(super) fn open(
    opener: &mut Opener<'_>,
    pool: &str,
    origin: &str,
    mode: Option<&str>,
    cache_volume: Option<CacheVolume>,
) -> Result<Content> {
    let group = opener.group.name();
    let segments = opener.volumes.get(pool).map_or(&[][..], |lv| lv.segments.as_slice());
    let (metadata, pool_mode): (Arc<dyn BlockDevice>, _) = match (cache_volume, segments) {
        (Some(parts), _) => {
            let device = opener.volume(pool)?;
            (Arc::new(Slice::new(device, parts.metadata_start, parts.metadata_len)?), None)
        }
        (None, [segment]) => match &segment.kind {
            SegmentKind::CachePool { metadata, mode, .. } => (opener.volume(metadata)?, mode.as_deref()),
            _ => return Err(not_a_pool(group, pool)),
        },
        _ => return Err(not_a_pool(group, pool)),
    };
    // Of a mode that is not named, the worst is assumed.
    let mode = match mode.or(pool_mode) {
        Some("writethrough" | "passthrough") => Mode::Writethrough,
        _ => Mode::Writeback,
    };
    let origin = opener.volume(origin)?;
    let device = Cache::open(metadata, origin, mode).map_err(|error| {
        let cache = format!("cache {group}/{pool}");
        match error {
            Error::Corrupt { what, offset } => Error::Corrupt { what: format!("{cache}: {what}"), offset },
            Error::Unsupported(what) => Error::Unsupported(format!("{cache}: {what}")),
            other => other,
        }
    })?;
    Ok(Content::Device { device, offset: 0 })
}

fn not_a_pool(group: &str, pool: &str) -> Error {
    Error::Refused(format!("logical volume {group}/{pool} is not a cache pool"))
}
