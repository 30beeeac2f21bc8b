//! Old-style snapshots. A hidden volume ties the origin and the store of a snapshot together; users know the snapshot
//! by the name of its store.

use std::sync::Arc;

use vmcraft_block::BlockDevice;

use super::Opener;
use crate::dm::snapshot::{Cow, Family, State};
use crate::lvm::segment::{Segment, SegmentKind};
use crate::{Error, Member, Result};

/// One snapshot.
struct Tie<'a> {
    origin: &'a str,
    cow: &'a str,
    chunk_size: u64,
    is_merging: bool,
    extent_count: u64,
}

/// Opens a volume that is an origin or a snapshot; `None` if it is neither.
pub(super) fn open(opener: &mut Opener<'_>, name: &str) -> Result<Option<Arc<dyn BlockDevice>>> {
    let group = opener.group;
    let ties = group.metadata.logical_volumes.iter().flat_map(|lv| &lv.segments).filter_map(tie);
    let ties: Vec<Tie<'_>> = ties.collect();
    let as_snapshot = ties.iter().find(|tie| tie.cow == name);
    let Some(origin) =
        as_snapshot.or_else(|| ties.iter().find(|tie| tie.origin == name)).map(|tie| tie.origin)
    else {
        return Ok(None);
    };
    let (origin, is_snapshot) = (origin.to_string(), as_snapshot.is_some());
    let family = family(opener, &origin)?;
    Ok(Some(if is_snapshot { family.snapshot(name)? } else { family.origin() }))
}

/// What has become of a snapshot; `None` if this is none.
pub(super) fn state(opener: &mut Opener<'_>, name: &str) -> Result<Option<State>> {
    let mut snapshots = opener.group.metadata.snapshots();
    let Some((_, origin, _)) = snapshots.find(|(_, _, cow)| *cow == name) else { return Ok(None) };
    Ok(family(opener, origin)?.state(name))
}

/// Opens an origin with all of its snapshots, once.
fn family(opener: &mut Opener<'_>, origin: &str) -> Result<Arc<Family>> {
    if let Some(family) = opener.shared.families.get(origin) {
        return Ok(Arc::clone(family));
    }
    let group = opener.group.name();
    let segments = opener.group.metadata.logical_volumes.iter().flat_map(|lv| &lv.segments);
    let ties: Vec<Tie<'_>> = segments.filter_map(tie).filter(|tie| tie.origin == origin).collect();
    if let Some(merging) = ties.iter().find(|tie| tie.is_merging) {
        return Err(Error::Unsupported(format!(
            "logical volume {group}/{origin}: snapshot {} is being merged into it (snapshot-merge)",
            merging.cow
        )));
    }
    let device = opener.layer(origin)?;
    let mut cows = Vec::new();
    for tie in ties {
        let store = opener.layer(tie.cow).map_err(|error| error.to_string());
        cows.push(Cow {
            name: tie.cow.into(),
            store: store.map(|device| Member { name: format!("{group}/{}", tie.cow), device }),
            size_bytes: opener.bytes(tie.extent_count).min(device.size()),
            chunk_bytes: tie.chunk_size,
        });
    }
    let family = Arc::new(Family::open(device, cows)?);
    opener.shared.families.insert(origin.into(), Arc::clone(&family));
    Ok(family)
}

fn tie(segment: &Segment) -> Option<Tie<'_>> {
    match &segment.kind {
        SegmentKind::Snapshot { origin, cow, chunk_size, is_merging } => Some(Tie {
            origin,
            cow,
            chunk_size: *chunk_size,
            is_merging: *is_merging,
            extent_count: segment.extent_count,
        }),
        _ => None,
    }
}
