//! Making logical volumes, and giving them extents.

use super::names::check_new_volume_name;
use super::{Author, Size, all, number, percent_of, segment_key};
use crate::lvm::edit::allocate::Run;
use crate::lvm::text::{Section, Value};
use crate::lvm::{LogicalVolume, Lvm, LvmUuid, Metadata};
use crate::{Error, Result, signature};

/// How much of a new volume `lvcreate` zeroes.
const ZEROED_BYTES: usize = 4096;
/// A logical volume that is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewVolume<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its size.
    pub size: Size,
    /// Over how many physical volumes it is striped; 1 for a linear one.
    pub stripes: usize,
    /// The size of a stripe in bytes, a power of 2 from 4096; `lvcreate` takes 64 KiB.
    pub stripe_size: u64,
}

impl Lvm {
    /// Makes a linear or a striped volume, as `lvcreate` does: its first 4096 bytes are zeroed, and what is recognised on
    /// it is erased. The rest of its extents keeps what was on them.
    pub fn create_volume(
        &mut self,
        group: &str,
        new: &NewVolume<'_>,
        author: &mut Author<'_>,
    ) -> Result<LvmUuid> {
        let uuid = LvmUuid::generate(author.random);
        let vg = self.changeable(group)?;
        let metadata = &vg.metadata;
        metadata.check_allocations()?;
        check_new_volume_name(metadata, new.name)?;
        let visible = vg.visible_volumes().count() as u64;
        if metadata.max_lv > 0 && visible >= metadata.max_lv {
            let max = metadata.max_lv;
            return Err(Error::Refused(format!("volume group {} may have {max} logical volumes", vg.name())));
        }
        let stripes = new.stripes as u64;
        if stripes == 0 || new.stripes > 128 {
            return Err(Error::Refused(format!("{stripes} stripes: 1 to 128 are allowed")));
        }
        if stripes > 1 && !is_stripe_size(new.stripe_size, metadata.extent_size) {
            return Err(Error::Refused(format!(
                "a stripe size of {} bytes: it must be a power of 2 from 4096 to the extent size",
                new.stripe_size
            )));
        }
        let extents = match new.size {
            Size::Bytes(bytes) => bytes.div_ceil(metadata.extent_size).next_multiple_of(stripes),
            // As lvcreate: rounded down.
            Size::PercentFree(percent) => {
                percent_of(percent, metadata.free_extents(), false)? / stripes * stripes
            }
        };
        if extents == 0 {
            return Err(Error::Refused(format!("logical volume {} would have no extents", new.name)));
        }
        let mut lv = Section::default();
        lv.set("id", Value::from(uuid.to_string().as_str()));
        lv.set_texts("status", &["READ", "WRITE", "VISIBLE"]);
        lv.set_texts("flags", &[]);
        lv.set("creation_time", number(author.now)?);
        lv.set("creation_host", author.host.into());
        lv.set("segment_count", Value::Integer(0));
        grow(metadata, &mut lv, None, extents, new.stripes, new.stripe_size)?;
        let mut draft = vg.draft();
        draft.logical_volumes().push(new.name, lv);
        let plan = vg.rewrite(draft.tree, &all(vg), author, "lvcreate")?;
        let group = vg.metadata.uuid.to_string();
        self.carry_out(&plan)?;
        let device = self.group(&group)?.open(new.name)?;
        let zeroed = usize::try_from(device.size()).map_or(ZEROED_BYTES, |size| size.min(ZEROED_BYTES));
        device.write_at(0, &[0; ZEROED_BYTES][..zeroed])?;
        signature::erase(&*device)?;
        Ok(uuid)
    }
}

fn is_stripe_size(size: u64, extent_size: u64) -> bool {
    size.is_power_of_two() && (4096..=extent_size).contains(&size) && extent_size.is_multiple_of(size)
}

/// Adds extents at the end of a volume: to its last segment where they follow it, in new segments otherwise.
pub(super) fn grow(
    metadata: &Metadata,
    section: &mut Section,
    old: Option<&LogicalVolume>,
    extents: u64,
    stripes: usize,
    stripe_size: u64,
) -> Result<()> {
    let last = old.and_then(|lv| lv.segments.last());
    // Where the last segment ends, on each of its physical volumes.
    let ends: Option<Vec<(String, u64)>> = last.and_then(|segment| {
        let areas = segment.physical_areas();
        (areas.len() == stripes)
            .then(|| areas.into_iter().map(|(pv, start, count)| (pv.to_string(), start + count)).collect())
    });
    let rows: Vec<Vec<Run>> = if stripes == 1 {
        let behind = ends.as_deref().and_then(<[_]>::first).map(|(pv, at)| (pv.as_str(), *at));
        metadata.choose_linear(extents, behind)?.into_iter().map(|run| vec![run]).collect()
    } else {
        metadata.choose_striped(stripes, extents / stripes as u64, ends.as_deref())?
    };
    let mut next = old.map_or(0, LogicalVolume::extent_count);
    let mut count = old.map_or(0, |lv| lv.segments.len() as u64);
    for (index, row) in rows.iter().enumerate() {
        let added: u64 = row.iter().map(|run| run.count).sum();
        let follows = |ends: &Vec<(String, u64)>| {
            row.iter().zip(ends).all(|(r, (pv, at))| r.pv == *pv && r.start == *at)
        };
        if let (0, Some(segment), true) = (index, last, ends.as_ref().is_some_and(follows)) {
            let key = segment_key(section, segment)?;
            section.section_mut(&key).set("extent_count", number(segment.extent_count + added)?);
        } else {
            count += 1;
            let mut segment = Section::default();
            segment.set("start_extent", number(next)?);
            segment.set("extent_count", number(added)?);
            segment.set("type", "striped".into());
            segment.set("stripe_count", number(stripes as u64)?);
            if stripes > 1 {
                segment.set("stripe_size", number(stripe_size / 512)?);
            }
            let mut areas = Vec::with_capacity(2 * row.len());
            for run in row {
                areas.push(Value::from(run.pv.as_str()));
                areas.push(number(run.start)?);
            }
            segment.set("stripes", Value::List(areas));
            section.push(&unused_segment_key(section, count), segment);
        }
        next += added;
    }
    section.set("segment_count", number(count)?);
    Ok(())
}

fn unused_segment_key(section: &Section, from: u64) -> String {
    (from..).map(|n| format!("segment{n}")).find(|key| section.section(key).is_none()).unwrap_or_default()
}
