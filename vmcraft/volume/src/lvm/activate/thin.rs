//! Thin pools and their volumes.

use std::collections::HashSet;
use std::sync::Arc;

use super::Opener;
use crate::dm::Content;
use crate::dm::thin::{Discards, Options, Pool};
use crate::lvm::segment::{Segment, SegmentKind};
use crate::{Error, Result};

/// Opens a volume of a pool.
pub(super) fn open(
    opener: &mut Opener<'_>,
    segment: &Segment,
    pool: &str,
    device_id: u64,
    external_origin: Option<&str>,
) -> Result<Content> {
    let name = pool;
    if let Some(origin) = external_origin
        && stands_on(opener, origin, name)
    {
        // Linux would wait for itself, too.
        return Err(Error::Refused(format!(
            "the external origin {origin} of a volume of the thin pool {}/{name} is itself in that pool",
            opener.group.name()
        )));
    }
    let pool = open_pool(opener, name)?;
    let origin = external_origin.map(|origin| opener.volume(origin)).transpose()?;
    let device = u32::try_from(device_id)
        .map_err(|_| Error::Refused(format!("the thin pool {name} cannot have a volume {device_id}")))
        .and_then(|id| pool.volume(id, opener.bytes(segment.extent_count), origin))
        .map_err(|error| in_pool(opener, name, error))?;
    Ok(Content::Device { device, offset: 0 })
}

/// Whether a volume is made of a pool, be it by way of the origin that it is a snapshot of.
fn stands_on(opener: &Opener<'_>, name: &str, pool: &str) -> bool {
    let metadata = &opener.group.metadata;
    let mut seen = HashSet::new();
    let mut next = vec![name];
    while let Some(name) = next.pop() {
        if name == pool {
            return true;
        }
        if !seen.insert(name) {
            continue;
        }
        let own = opener.volumes.get(name).into_iter().flat_map(|lv| &lv.segments);
        next.extend(own.flat_map(Segment::volumes));
        next.extend(metadata.snapshots().filter(|(_, _, cow)| *cow == name).map(|(_, origin, _)| origin));
    }
    false
}

/// Opens a pool once for all of its volumes.
pub(super) fn open_pool(opener: &mut Opener<'_>, name: &str) -> Result<Arc<Pool>> {
    if let Some(pool) = opener.shared.pools.get(name) {
        return Ok(Arc::clone(pool));
    }
    let group = opener.group.name();
    let segments = opener.volumes.get(name).map_or(&[][..], |lv| lv.segments.as_slice());
    let [
        Segment {
            kind:
                SegmentKind::ThinPool {
                    metadata,
                    data,
                    chunk_size,
                    transaction_id,
                    zero_new_blocks,
                    discards,
                    has_pending_messages,
                },
            ..
        },
    ] = segments
    else {
        return Err(Error::Refused(format!("logical volume {group}/{name} is not a thin pool")));
    };
    let discards = match discards.as_deref() {
        Some("ignore") => Discards::Ignore,
        Some("nopassdown") => Discards::NoPassdown,
        _ => Discards::Passdown,
    };
    let options = Options { zero_new_blocks: *zero_new_blocks, discards };
    let (metadata, data) = (opener.volume(metadata)?, opener.volume(data)?);
    let full_name = format!("{group}/{name}");
    let pool =
        Pool::open(&full_name, metadata, data, options).map_err(|error| in_pool(opener, name, error))?;
    let (found, pending) = (pool.transaction_id(), u64::from(*has_pending_messages));
    if found != *transaction_id && found.checked_add(pending) != Some(*transaction_id) {
        return Err(Error::Incomplete(format!(
            "thin pool {group}/{name}: its metadata is of transaction {found}, and LVM expects {transaction_id}; \
             lvconvert --repair can help"
        )));
    }
    if pool.block_bytes() != *chunk_size {
        return Err(Error::Incomplete(format!(
            "thin pool {group}/{name}: its metadata has chunks of {} bytes, and LVM expects {chunk_size}",
            pool.block_bytes()
        )));
    }
    opener.shared.pools.insert(name.into(), Arc::clone(&pool));
    Ok(pool)
}

/// Says of which pool an error is.
fn in_pool(opener: &Opener<'_>, name: &str, error: Error) -> Error {
    let pool = format!("thin pool {}/{name}", opener.group.name());
    match error {
        Error::Corrupt { what, offset } => Error::Corrupt { what: format!("{pool}: {what}"), offset },
        Error::Unsupported(what) => Error::Unsupported(format!("{pool}: {what}")),
        Error::Incomplete(what) => Error::Incomplete(format!("{pool}: {what}")),
        Error::Refused(what) => Error::Refused(format!("{pool}: {what}")),
        other => other,
    }
}
