//! Opening logical volumes: each segment becomes a device, and a volume is a table of them.
//!
//! A file here opens one kind of segments. What it is made of, it opens with the [`Opener`]: other volumes, which are
//! shared, or areas. The opener keeps a volume from being made of itself.

mod cache;
mod mirror;
mod percent;
mod raid;
mod snapshot;
mod stripes;
mod thin;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use vmcraft_block::{BlockDevice, ReadOnly};

use super::segment::{Area, AreaOn, Segment, SegmentKind};
use super::{Backing, LogicalVolume, PhysicalVolumeEntry, VolumeGroup};
use crate::dm::snapshot::{Family, State};
use crate::dm::thin::Pool;
use crate::dm::{Content, Linear, Piece};
use crate::{Error, Result};

pub(super) use percent::{copied, used};

/// How deep volumes may stand on volumes: a snapshot of a cached RAID volume is five deep.
const MAX_DEPTH: usize = 24;

/// What is open of a group: one instance of each volume.
#[derive(Default)]
pub(super) struct Shared {
    /// Volumes as their segments make them, without the snapshots that stand on them.
    layers: HashMap<String, Arc<dyn BlockDevice>>,
    /// Volumes as users see them.
    volumes: HashMap<String, Arc<dyn BlockDevice>>,
    /// Thin pools, by the names of their volumes.
    pools: HashMap<String, Arc<Pool>>,
    /// Origins with their snapshots, by the names of the origins.
    families: HashMap<String, Arc<Family>>,
    /// What open volumes do without, by the names of the volumes.
    degraded: BTreeMap<String, String>,
}

impl Shared {
    /// What the open volumes with these names do without.
    pub(super) fn degraded(&self) -> &BTreeMap<String, String> {
        &self.degraded
    }
}

/// Opens a volume as users see it.
pub(super) fn open(group: &VolumeGroup, shared: &mut Shared, name: &str) -> Result<Arc<dyn BlockDevice>> {
    if let Some(why) = group.refusal() {
        return Err(Error::Refused(why));
    }
    let mut opener = Opener::new(group, shared);
    let device = opener.volume(name)?;
    let is_writable = group.metadata.logical_volume(name).is_none_or(LogicalVolume::is_writable);
    if is_writable && group.shared_with_others().is_none() && group.metadata.has_status("WRITE") {
        Ok(device)
    } else {
        Ok(Arc::new(ReadOnly::because(device, "the logical volume is read-only")))
    }
}

/// Opens a thin pool.
pub(super) fn open_pool(group: &VolumeGroup, shared: &mut Shared, name: &str) -> Result<Arc<Pool>> {
    thin::open_pool(&mut Opener::new(group, shared), name)
}

/// Takes the snapshots that writes to their origins have made invalid: each with its origin.
pub(super) fn take_lost_snapshots(shared: &Shared) -> Vec<(String, String)> {
    let families = shared.families.iter();
    let lost = families
        .flat_map(|(origin, family)| family.take_lost().into_iter().map(|name| (name, origin.clone())));
    let mut lost: Vec<_> = lost.collect();
    lost.sort();
    lost
}

/// Whether the store of a snapshot says that it is invalid.
pub(super) fn is_lost(group: &VolumeGroup, shared: &mut Shared, name: &str) -> bool {
    let state = snapshot::state(&mut Opener::new(group, shared), name);
    matches!(state, Ok(Some(State::Invalid)))
}

/// Opens what segments are made of.
pub(super) struct Opener<'a> {
    group: &'a VolumeGroup,
    shared: &'a mut Shared,
    volumes: HashMap<&'a str, &'a LogicalVolume>,
    physical_volumes: HashMap<&'a str, (&'a PhysicalVolumeEntry, &'a Backing)>,
    /// The volumes that are being opened, from the outermost.
    path: Vec<String>,
    /// What could not be opened, and why: nothing is tried twice.
    failed: HashMap<String, String>,
}

impl<'a> Opener<'a> {
    fn new(group: &'a VolumeGroup, shared: &'a mut Shared) -> Self {
        let entries = group.metadata.physical_volumes.iter().zip(&group.backing);
        Self {
            group,
            shared,
            volumes: group.metadata.logical_volumes.iter().map(|lv| (lv.name.as_str(), lv)).collect(),
            physical_volumes: entries.map(|(pv, backing)| (pv.id.as_str(), (pv, backing))).collect(),
            path: Vec::new(),
            failed: HashMap::new(),
        }
    }

    /// Another volume of the group as users see it: with what its snapshots need. Opened once, and shared.
    pub(super) fn volume(&mut self, name: &str) -> Result<Arc<dyn BlockDevice>> {
        if let Some(device) = self.shared.volumes.get(name) {
            return Ok(Arc::clone(device));
        }
        let device = match snapshot::open(self, name)? {
            Some(device) => device,
            None => self.layer(name)?,
        };
        self.shared.volumes.insert(name.into(), Arc::clone(&device));
        Ok(device)
    }

    /// Remembers what the volume that is being opened does without.
    fn note_degraded(&mut self, what: String) {
        let name = self.path.last().cloned().unwrap_or_default();
        self.shared
            .degraded
            .entry(name)
            .and_modify(|known| *known = format!("{known}; {what}"))
            .or_insert(what);
    }

    /// Another volume of the group as its segments make it, without what its snapshots need. Opened once, and shared.
    pub(super) fn layer(&mut self, name: &str) -> Result<Arc<dyn BlockDevice>> {
        if let Some(device) = self.shared.layers.get(name) {
            return Ok(Arc::clone(device));
        }
        if let Some(why) = self.failed.get(name) {
            return Err(Error::Incomplete(why.clone()));
        }
        let group = self.group.name();
        let lv = *self.volumes.get(name).ok_or_else(|| match self.path.last() {
            None => Error::Refused(format!("there is no logical volume {group}/{name}")),
            Some(outer) => Error::Incomplete(format!(
                "logical volume {group}/{outer} is made of {name}, but there is no logical volume {group}/{name}"
            )),
        })?;
        if self.path.iter().any(|outer| outer == name) || self.path.len() >= MAX_DEPTH {
            let path = self.path.join(", which is made of ");
            return Err(Error::Refused(format!(
                "logical volume {group}/{path} is made of {name}: volumes that are made of themselves, or are more \
                 than {MAX_DEPTH} deep, are not opened"
            )));
        }
        if let Some(problem) = &lv.problem {
            return Err(Error::Corrupt {
                what: format!("logical volume {group}/{name}: {problem}"),
                offset: 0,
            });
        }
        self.path.push(name.into());
        let device = self.segments(lv);
        self.path.pop();
        match device {
            Ok(device) => {
                let device: Arc<dyn BlockDevice> = Arc::new(device);
                self.shared.layers.insert(name.into(), Arc::clone(&device));
                Ok(device)
            }
            Err(e) => {
                self.failed.insert(name.into(), e.to_string());
                Err(e)
            }
        }
    }

    fn segments(&mut self, lv: &LogicalVolume) -> Result<Linear> {
        let mut pieces = Vec::with_capacity(lv.segments.len());
        for segment in &lv.segments {
            let content = self.segment(lv, segment)?;
            pieces.push(Piece { len: self.bytes(segment.extent_count), content });
        }
        Linear::new(pieces).map_err(|e| self.named(e))
    }

    /// An error of a device below, with the name of the volume that is being opened.
    pub(super) fn named(&self, error: Error) -> Error {
        match error {
            Error::Refused(why) => {
                let name = self.path.last().map_or("", String::as_str);
                Error::Refused(format!("logical volume {}/{name}: {why}", self.group.name()))
            }
            other => other,
        }
    }

    /// What a segment reads as.
    fn segment(&mut self, lv: &LogicalVolume, segment: &Segment) -> Result<Content> {
        match &segment.kind {
            SegmentKind::Striped { stripe_size, areas } => stripes::open(self, segment, *stripe_size, areas),
            SegmentKind::Zero => Ok(Content::Zero),
            SegmentKind::Error => Ok(Content::Error(format!(
                "logical volume {}/{} has nothing here: its segment is of type error",
                self.group.name(),
                lv.name
            ))),
            SegmentKind::Thin { pool, device_id, external_origin, .. } => {
                thin::open(self, segment, pool, *device_id, external_origin.as_deref())
            }
            SegmentKind::ThinPool { .. } => Err(Error::Refused(format!(
                "logical volume {}/{} is a thin pool: its volumes can be opened, itself cannot",
                self.group.name(),
                lv.name
            ))),
            SegmentKind::Mirror { extents_moved: Some(_), .. } => Err(Error::Unsupported(format!(
                "logical volume {}/{}: extents that pvmove is moving",
                self.group.name(),
                lv.name
            ))),
            SegmentKind::Mirror { images, log, region_size, .. } => {
                mirror::open(self, segment, images, log.as_deref(), *region_size)
            }
            SegmentKind::Raid { is_reshaping: true, .. } => Err(Error::Unsupported(format!(
                "logical volume {}/{}: a {} volume that is being reshaped",
                self.group.name(),
                lv.name,
                segment.type_name
            ))),
            SegmentKind::Raid { stripe_size, images, data_copies, .. } => {
                raid::open(self, segment, *stripe_size, images, *data_copies)
            }
            SegmentKind::Cache { pool, origin, mode, cache_volume, .. } => {
                cache::open(self, pool, origin, mode.as_deref(), *cache_volume)
            }
            SegmentKind::CachePool { .. } => Err(Error::Refused(format!(
                "logical volume {}/{} is a cache pool: what it caches can be opened, itself cannot",
                self.group.name(),
                lv.name
            ))),
            // What ties a snapshot together is not a volume of its own.
            SegmentKind::Snapshot { .. }
            | SegmentKind::WriteCache { .. }
            | SegmentKind::Vdo { .. }
            | SegmentKind::VdoPool { .. }
            | SegmentKind::Integrity { .. }
            | SegmentKind::Unknown => Err(Error::Unsupported(format!(
                "logical volume {}/{}: segments of type {}",
                self.group.name(),
                lv.name,
                segment.type_name
            ))),
        }
    }

    /// The device and the byte on it where an area begins.
    ///
    /// # Errors
    /// `Incomplete` if it is on a physical volume that is not there.
    pub(super) fn area(&mut self, area: &Area) -> Result<(Arc<dyn BlockDevice>, u64)> {
        match &area.on {
            AreaOn::Lv(name) => Ok((self.volume(name)?, self.bytes(area.start_extent))),
            AreaOn::Pv(id) => {
                let (group, name) = (self.group.name(), self.path.first().map_or("", String::as_str));
                let (pv, backing) = *self.physical_volumes.get(id.as_str()).ok_or_else(|| {
                    Error::Incomplete(format!(
                        "logical volume {group}/{name}: there is no physical volume {id}"
                    ))
                })?;
                match backing {
                    Backing::Present(found) => {
                        // Decoding has checked that the places of a physical volume do not overflow.
                        Ok((Arc::clone(&found.member.device), pv.pe_start + self.bytes(area.start_extent)))
                    }
                    Backing::Missing => Err(Error::Incomplete(format!(
                        "logical volume {group}/{name} needs physical volume {}, which is missing{}",
                        pv.uuid,
                        pv.device_hint.as_deref().map(|hint| format!(" (it was {hint})")).unwrap_or_default()
                    ))),
                    Backing::Duplicate(names) => Err(Error::Incomplete(format!(
                        "logical volume {group}/{name} needs physical volume {}, which is there more than once: {}",
                        pv.uuid,
                        names.join(" and ")
                    ))),
                }
            }
        }
    }

    /// A number of extents in bytes.
    pub(super) fn bytes(&self, extents: u64) -> u64 {
        extents.saturating_mul(self.group.metadata.extent_size)
    }
}
