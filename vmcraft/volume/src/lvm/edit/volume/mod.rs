//! Making, resizing, renaming and removing logical volumes.

mod create;
mod names;
mod remove;
mod resize;

use std::sync::Arc;

use super::{Author, number};
use crate::lvm::text::Section;
use crate::lvm::{LogicalVolume, PhysicalVolume, Segment, VolumeGroup};
use crate::{Error, Result};

pub use create::NewVolume;

/// How large a logical volume is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// So many bytes, rounded up to extents.
    Bytes(u64),
    /// So many percent of the group's free extents: all of the volume when it is made, added when it is resized.
    PercentFree(u32),
}

fn all(vg: &VolumeGroup) -> Vec<Arc<PhysicalVolume>> {
    vg.present().cloned().collect()
}

/// The volume of this name, if users see it.
fn visible<'a>(vg: &'a VolumeGroup, name: &str) -> Result<&'a LogicalVolume> {
    let lv = vg.metadata.logical_volume(name);
    let lv = lv.ok_or_else(|| Error::Refused(format!("there is no logical volume {}/{name}", vg.name())))?;
    if !lv.is_visible() {
        let user = vg.metadata.users(name).next().map_or("another volume", |lv| &lv.name);
        return Err(Error::Refused(format!("logical volume {}/{name} is a part of {user}", vg.name())));
    }
    if lv.status.iter().any(|word| word == "LOCKED" || word == "PVMOVE") {
        return Err(Error::Refused(format!("logical volume {}/{name} is being moved", vg.name())));
    }
    Ok(lv)
}

fn percent_of(percent: u32, extents: u64, round_up: bool) -> Result<u64> {
    if percent == 0 || percent > 100 {
        return Err(Error::Refused(format!("{percent} percent of the free extents: 1 to 100 are allowed")));
    }
    let product = u128::from(extents) * u128::from(percent);
    let part = if round_up { product.div_ceil(100) } else { product / 100 };
    // At most as large as `extents`.
    Ok(u64::try_from(part).unwrap_or(extents))
}

/// The key of a segment in the section of its volume.
fn segment_key(section: &Section, segment: &Segment) -> Result<String> {
    let mut segments = section.sections().filter(|(key, _)| key.starts_with("segment"));
    let found = segments.find(|(_, s)| s.number("start_extent") == Some(segment.start_extent));
    let key = found.map(|(key, _)| key.to_string());
    key.ok_or_else(|| Error::Refused(format!("there is no segment at extent {}", segment.start_extent)))
}
