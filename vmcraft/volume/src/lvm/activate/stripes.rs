//! Linear and striped segments.

use std::sync::Arc;

use super::Opener;
use crate::Result;
use crate::dm::{Column, Content, Striped};
use crate::lvm::segment::{Area, Segment};

/// Opens a segment: the device below itself where there is one area, stripes otherwise.
pub(super) fn open(
    opener: &mut Opener<'_>,
    segment: &Segment,
    stripe_size: u64,
    areas: &[Area],
) -> Result<Content> {
    if let [area] = areas {
        let (device, offset) = opener.area(area)?;
        return Ok(Content::Device { device, offset });
    }
    let mut columns = Vec::with_capacity(areas.len());
    for area in areas {
        let (device, offset) = opener.area(area)?;
        columns.push(Column { device, offset });
    }
    let size = opener.bytes(segment.extent_count);
    let device = Striped::new(columns, stripe_size, size).map_err(|e| opener.named(e))?;
    Ok(Content::Device { device: Arc::new(device), offset: 0 })
}
