//! Making, resizing, renaming and removing logical volumes.

use std::collections::HashSet;
use std::sync::Arc;

use super::allocate::Run;
use super::{Author, check_new_name, number};
use crate::lvm::text::{Section, Value};
use crate::lvm::{
    LogicalVolume, Lvm, LvmUuid, Metadata, PhysicalVolume, Segment, SegmentKind, VolumeGroup, mapper_name,
};
use crate::{Error, Result, signature};

/// How much of a new volume `lvcreate` zeroes.
const ZEROED_BYTES: usize = 4096;
/// The longest name that the device mapper takes.
const MAX_MAPPER_NAME: usize = 127;
/// Names and parts of names that LVM keeps for the parts of volumes.
const RESERVED_PARTS: [&str; 16] = [
    "_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_wcorig", "_mlog", "_mimage", "_pmspare", "_rimage",
    "_rmeta", "_tdata", "_tmeta", "_vdata", "_vorigin", "_iorig",
];
/// Keys of segments whose values are names of logical volumes.
const REFERENCES: [&str; 20] = [
    "stripes",
    "mirrors",
    "mirror_log",
    "raids",
    "raid0_lvs",
    "metadata",
    "pool",
    "thin_pool",
    "origin",
    "external_origin",
    "merge",
    "cow_store",
    "merging_store",
    "cache_pool",
    "data",
    "writecache",
    "vdo_pool",
    "meta_dev",
    "create",
    "descendants",
];

/// How large a logical volume is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// So many bytes, rounded up to extents.
    Bytes(u64),
    /// So many percent of the group's free extents: all of the volume when it is made, added when it is resized.
    PercentFree(u32),
}

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

    /// Removes a logical volume with all that it alone is made of, and its snapshots, as `lvremove -f` does.
    ///
    /// # Errors
    /// `Refused` for a part of another volume, `Unsupported` for volumes of thin pools, which the pool's own metadata
    /// knows as well, and of VDO pools.
    pub fn remove_volume(&mut self, group: &str, name: &str, author: &mut Author<'_>) -> Result<()> {
        let vg = self.changeable(group)?;
        let metadata = &vg.metadata;
        visible(vg, name)?;
        let removed = metadata.removed_with(name)?;
        let mut draft = vg.draft();
        for name in &removed {
            draft.logical_volumes().remove(name);
        }
        let plan = vg.rewrite(draft.tree, &all(vg), author, "lvremove")?;
        self.carry_out(&plan)
    }

    /// Gives a logical volume another name, as `lvrename` does, and its parts along with it.
    pub fn rename_volume(
        &mut self,
        group: &str,
        name: &str,
        to: &str,
        author: &mut Author<'_>,
    ) -> Result<()> {
        let vg = self.changeable(group)?;
        let metadata = &vg.metadata;
        visible(vg, name)?;
        check_new_volume_name(metadata, to)?;
        if let Some(segment) = metadata.segments().find(|segment| segment.kind == SegmentKind::Unknown) {
            return Err(Error::Unsupported(format!(
                "renaming in volume group {}, which has segments of type {}",
                vg.name(),
                segment.type_name
            )));
        }
        let mut names = vec![(name.to_string(), to.to_string())];
        let prefix = format!("{name}_");
        for part in metadata.parts(name) {
            if let Some(suffix) = part.strip_prefix(&prefix) {
                names.push((part.clone(), format!("{to}_{suffix}")));
            }
        }
        let mut draft = vg.draft();
        for (_, new) in &names {
            if metadata.logical_volume(new).is_some() {
                return Err(Error::Refused(format!("there is a logical volume {}/{new} already", vg.name())));
            }
        }
        let volumes = draft.logical_volumes();
        for (old, new) in &names {
            volumes.rename(old, new);
        }
        volumes.change_texts(&mut |key, text| {
            if REFERENCES.contains(&key)
                && let Some((_, new)) = names.iter().find(|(old, _)| *text == *old.as_str())
            {
                *text = new.as_str().into();
            }
        });
        let plan = vg.rewrite(draft.tree, &all(vg), author, "lvrename")?;
        self.carry_out(&plan)
    }
}

impl VolumeGroup {
    /// The volumes that [`Lvm::remove_volume`] removes for this one: itself, what it alone is made of, its snapshots,
    /// and the volumes of a pool.
    ///
    /// # Errors
    /// As of [`Lvm::remove_volume`].
    pub fn removed_with(&self, name: &str) -> Result<Vec<String>> {
        visible(self, name)?;
        let mut removed: Vec<String> = self.metadata.removed_with(name)?.into_iter().collect();
        removed.sort();
        Ok(removed)
    }
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

fn check_new_volume_name(metadata: &Metadata, name: &str) -> Result<()> {
    check_new_name(name)?;
    let group = &metadata.name;
    let is_reserved = name.starts_with("snapshot")
        || name.starts_with("pvmove")
        || RESERVED_PARTS.iter().any(|part| name.contains(part));
    if is_reserved {
        return Err(Error::Refused(format!("LVM keeps names such as {name:?} for the parts of volumes")));
    }
    if metadata.logical_volume(name).is_some() {
        return Err(Error::Refused(format!("there is a logical volume {group}/{name} already")));
    }
    if mapper_name(group, name).len() > MAX_MAPPER_NAME {
        return Err(Error::Refused(format!("the names {group} and {name} are too long together")));
    }
    Ok(())
}

fn is_stripe_size(size: u64, extent_size: u64) -> bool {
    size.is_power_of_two() && (4096..=extent_size).contains(&size) && extent_size.is_multiple_of(size)
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

/// Adds extents at the end of a volume: to its last segment where they follow it, in new segments otherwise.
fn grow(
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

/// The key of a segment in the section of its volume.
fn segment_key(section: &Section, segment: &Segment) -> Result<String> {
    let mut segments = section.sections().filter(|(key, _)| key.starts_with("segment"));
    let found = segments.find(|(_, s)| s.number("start_extent") == Some(segment.start_extent));
    let key = found.map(|(key, _)| key.to_string());
    key.ok_or_else(|| Error::Refused(format!("there is no segment at extent {}", segment.start_extent)))
}

fn unused_segment_key(section: &Section, from: u64) -> String {
    (from..).map(|n| format!("segment{n}")).find(|key| section.section(key).is_none()).unwrap_or_default()
}

impl Metadata {
    fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.logical_volumes.iter().flat_map(|lv| &lv.segments)
    }

    /// The snapshots of the old kind: the hidden volume that ties, the origin, and the store of changes.
    pub(crate) fn snapshots(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.logical_volumes.iter().flat_map(|lv| {
            lv.segments.iter().filter_map(|segment| match &segment.kind {
                SegmentKind::Snapshot { origin, cow, .. } => Some((&*lv.name, &**origin, &**cow)),
                _ => None,
            })
        })
    }

    /// The volumes that are made of this one.
    fn users(&self, name: &str) -> impl Iterator<Item = &LogicalVolume> {
        let uses = move |segment: &Segment| segment.volumes().contains(&name);
        self.logical_volumes.iter().filter(move |lv| lv.segments.iter().any(uses))
    }

    /// The hidden volumes that a volume is made of, and what these are made of.
    fn parts(&self, name: &str) -> Vec<String> {
        self.reach(name, &|lv| !lv.is_visible())
    }

    /// All volumes that a volume is made of, and what these are made of.
    pub(crate) fn made_of(&self, name: &str) -> Vec<String> {
        self.reach(name, &|_| true)
    }

    fn reach(&self, name: &str, counts: &dyn Fn(&LogicalVolume) -> bool) -> Vec<String> {
        let mut parts: Vec<String> = Vec::new();
        let mut seen = HashSet::from([name.to_string()]);
        let mut next = vec![name.to_string()];
        while let Some(name) = next.pop() {
            let Some(lv) = self.logical_volume(&name) else { continue };
            for part in lv.segments.iter().flat_map(Segment::volumes) {
                if self.logical_volume(part).is_some_and(counts) && seen.insert(part.to_string()) {
                    parts.push(part.to_string());
                    next.push(part.to_string());
                }
            }
        }
        parts
    }

    /// All volumes that go when this one does.
    fn removed_with(&self, name: &str) -> Result<HashSet<String>> {
        let refuse = |what: &str, volume: &str| {
            Error::Unsupported(format!("removing logical volume {}/{name}: {volume} is {what}", self.name))
        };
        let mut removed = HashSet::from([name.to_string()]);
        // What stands on it goes first: snapshots, and the volumes of a pool.
        let mut grew = true;
        while grew {
            let before = removed.len();
            for (tie, origin, cow) in self.snapshots() {
                if removed.contains(origin) || removed.contains(cow) {
                    removed.extend([tie.to_string(), cow.to_string()]);
                }
            }
            for lv in &self.logical_volumes {
                for segment in &lv.segments {
                    match &segment.kind {
                        SegmentKind::Thin { pool, .. } if removed.contains(pool) => {
                            removed.insert(lv.name.clone());
                        }
                        SegmentKind::Thin { external_origin: Some(origin), .. }
                            if removed.contains(origin) =>
                        {
                            return Err(refuse("a volume that reads from it", &lv.name));
                        }
                        _ => {}
                    }
                }
            }
            grew = removed.len() > before;
        }
        for lv in self.logical_volumes.iter().filter(|lv| removed.contains(&lv.name)) {
            for segment in &lv.segments {
                match &segment.kind {
                    SegmentKind::Thin { pool, .. } if !removed.contains(pool) => {
                        return Err(refuse("a volume of a thin pool", &lv.name));
                    }
                    SegmentKind::Vdo { .. } | SegmentKind::VdoPool { .. } => {
                        return Err(refuse("a volume of VDO", &lv.name));
                    }
                    SegmentKind::Unknown => {
                        return Err(refuse(&format!("of type {}", segment.type_name), &lv.name));
                    }
                    _ => {}
                }
            }
        }
        if let Some(user) =
            removed.iter().flat_map(|name| self.users(name)).find(|lv| !removed.contains(&lv.name))
        {
            return Err(Error::Refused(format!(
                "logical volume {}/{name} is a part of {}",
                self.name, user.name
            )));
        }
        // Parts go when nothing that stays is made of them.
        loop {
            let parts: Vec<String> = removed.iter().flat_map(|name| self.parts(name)).collect();
            let before = removed.len();
            for part in parts {
                if self.users(&part).all(|lv| removed.contains(&lv.name)) {
                    removed.insert(part);
                }
            }
            if removed.len() == before {
                break;
            }
        }
        // The spare for repairing a pool goes with the last pool.
        let is_pool = |lv: &&LogicalVolume| {
            let kinds =
                |s: &Segment| matches!(s.kind, SegmentKind::ThinPool { .. } | SegmentKind::CachePool { .. });
            lv.segments.iter().any(kinds)
        };
        let had_pool = self.logical_volumes.iter().any(|lv| is_pool(&lv));
        if had_pool && !self.logical_volumes.iter().filter(is_pool).any(|lv| !removed.contains(&lv.name)) {
            let spares =
                self.logical_volumes.iter().filter(|lv| !lv.is_visible() && lv.name.ends_with("_pmspare"));
            removed.extend(spares.map(|lv| lv.name.clone()));
        }
        Ok(removed)
    }
}
