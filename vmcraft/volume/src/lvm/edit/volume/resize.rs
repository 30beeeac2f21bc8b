//! Making logical volumes larger and smaller.

use super::create::grow;
use super::{Author, Size, all, number, percent_of, segment_key, visible};
use crate::lvm::text::Section;
use crate::lvm::{LogicalVolume, Lvm, SegmentKind};
use crate::{Error, Result};

impl Lvm {
    /// Makes a logical volume larger or smaller, as `lvresize` does. What is on it must fit: nothing looks.
    ///
    /// # Errors
    /// `Unsupported` for what is neither linear, striped nor thin, and for volumes with snapshots.
    pub fn resize_volume(
        &mut self,
        group: &str,
        name: &str,
        size: Size,
        author: &mut Author<'_>,
    ) -> Result<()> {
        let vg = self.changeable(group)?;
        let metadata = &vg.metadata;
        let lv = visible(vg, name)?;
        let tied = metadata.snapshots().any(|(_, origin, cow)| origin == name || cow == name);
        let kind = lv.segments.iter().map(|segment| &segment.kind);
        let is_thin = kind.clone().all(|kind| matches!(kind, SegmentKind::Thin { .. }));
        let is_plain = kind.clone().all(|kind| matches!(kind, SegmentKind::Striped { .. }));
        let user = metadata.users(name).next();
        if tied || !(is_thin || is_plain) || user.is_some() {
            let what = match lv.segments.iter().find(|s| !matches!(s.kind, SegmentKind::Striped { .. })) {
                _ if tied => "a snapshot or the origin of one".to_string(),
                Some(segment) if !is_thin => format!("of type {}", segment.type_name),
                _ => format!("a part of {}", user.map_or("another", |lv| &lv.name)),
            };
            return Err(Error::Unsupported(format!(
                "resizing logical volume {}/{name}: it is {what}",
                vg.name()
            )));
        }
        let old = lv.extent_count();
        let last = lv.segments.last();
        let stripes = match last.map(|segment| &segment.kind) {
            Some(SegmentKind::Striped { areas, .. }) => areas.len() as u64,
            _ => 1,
        };
        let extents = match size {
            Size::Bytes(bytes) => bytes.div_ceil(metadata.extent_size),
            // As lvresize: rounded up.
            Size::PercentFree(percent) => {
                let free = metadata.free_extents();
                old.saturating_add(percent_of(percent, free, true)?)
            }
        };
        if extents == 0 {
            return Err(Error::Refused(format!("logical volume {}/{name} would have no extents", vg.name())));
        }
        let mut draft = vg.draft();
        let section = draft.logical_volumes().section_mut(name);
        if is_thin {
            resize_thin(section, lv, extents)?;
        } else if extents > old {
            metadata.check_allocations()?;
            let added = match size {
                Size::Bytes(_) => (extents - old).next_multiple_of(stripes),
                Size::PercentFree(_) => (extents - old) / stripes * stripes,
            };
            let stripe_size = match last.map(|segment| &segment.kind) {
                Some(SegmentKind::Striped { stripe_size, .. }) => *stripe_size,
                _ => 0,
            };
            let stripes = usize::try_from(stripes).map_err(std::io::Error::other)?;
            grow(metadata, section, Some(lv), added, stripes, stripe_size)?;
        } else if extents < old {
            shrink(section, lv, extents)?;
        }
        let plan = vg.rewrite(draft.tree, &all(vg), author, "lvresize")?;
        self.carry_out(&plan)
    }
}

/// Cuts a volume of linear and striped segments off after so many extents.
fn shrink(section: &mut Section, lv: &LogicalVolume, extents: u64) -> Result<()> {
    let mut count = lv.segments.len() as u64;
    for segment in &lv.segments {
        let key = segment_key(section, segment)?;
        if segment.start_extent >= extents {
            section.remove(&key);
            count -= 1;
        } else if segment.start_extent + segment.extent_count > extents {
            let stripes = segment.physical_areas().len().max(1) as u64;
            // A whole number of stripes is kept: rather more than less.
            let kept = (extents - segment.start_extent).next_multiple_of(stripes);
            section.section_mut(&key).set("extent_count", number(kept)?);
        }
    }
    section.set("segment_count", number(count)?);
    Ok(())
}

/// A thin volume is one segment, and its size is that of the address space alone.
fn resize_thin(section: &mut Section, lv: &LogicalVolume, extents: u64) -> Result<()> {
    let [segment] = lv.segments.as_slice() else {
        return Err(Error::Unsupported(format!("resizing thin volume {}: it has several segments", lv.name)));
    };
    let key = segment_key(section, segment)?;
    section.section_mut(&key).set("extent_count", number(extents)?);
    Ok(())
}
