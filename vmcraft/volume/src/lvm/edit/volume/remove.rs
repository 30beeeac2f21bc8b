//! Removing logical volumes, with what goes with them.

use std::collections::{BTreeMap, HashSet};

use super::{Author, all, number, segment_key, visible};
use crate::lvm::{LogicalVolume, Lvm, Metadata, Segment, SegmentKind, VolumeGroup};
use crate::{Error, Result};

impl Lvm {
    /// Removes a logical volume with all that it alone is made of, and all that cannot be without it, as `lvremove -f`
    /// does: its snapshots, the volumes of a pool, and those that read from it as their external origin. Volumes of thin
    /// pools are taken out of the pools' own metadata as well, in a transaction each, which the group's metadata counts.
    ///
    /// # Errors
    /// `Refused` for a part of another volume, and for volumes of a thin pool that has messages it was not told yet;
    /// `Unsupported` for volumes of VDO pools and of unknown types. Then nothing has changed; after an `Io` error while
    /// writing, the pools may be ahead of the group.
    pub fn remove_volume(&mut self, group: &str, name: &str, author: &mut Author<'_>) -> Result<()> {
        let vg = self.changeable(group)?;
        let metadata = &vg.metadata;
        visible(vg, name)?;
        let removed = metadata.removed_with(name)?;
        let mut draft = vg.draft();
        let volumes = draft.logical_volumes();
        for name in &removed {
            volumes.remove(name);
        }
        // A snapshot of a thin volume is one like any other once its origin is gone.
        for lv in metadata.logical_volumes.iter().filter(|lv| !removed.contains(&lv.name)) {
            for segment in &lv.segments {
                if let SegmentKind::Thin { origin: Some(origin), .. } = &segment.kind
                    && removed.contains(origin)
                {
                    let section = volumes.section_mut(&lv.name);
                    let key = segment_key(section, segment)?;
                    section.section_mut(&key).remove("origin");
                }
            }
        }
        let mut pools = Vec::new();
        for (pool, ids) in metadata.taken_from_pools(&removed)? {
            let (segment, transaction_id) = metadata.pool_transaction(pool)?;
            let transaction_id = transaction_id.saturating_add(ids.len() as u64);
            let section = volumes.section_mut(pool);
            let key = segment_key(section, segment)?;
            section.section_mut(&key).set("transaction_id", number(transaction_id)?);
            pools.push((vg.thin_pool(pool)?, ids, transaction_id));
        }
        let plan = vg.rewrite(draft.tree, &all(vg), author, "lvremove")?;
        self.check_writable(&plan)?;
        for (pool, ids, transaction_id) in pools {
            pool.remove_volumes(&ids, transaction_id)?;
        }
        self.carry_out(&plan)
    }
}

impl VolumeGroup {
    /// The volumes that [`Lvm::remove_volume`] removes for this one: itself, what it alone is made of, its snapshots,
    /// the volumes of a pool, and those that read from it as their external origin.
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

impl Metadata {
    /// The volumes of thin pools among those that are removed, without the pools: their numbers in each pool.
    fn taken_from_pools(&self, removed: &HashSet<String>) -> Result<BTreeMap<&str, Vec<u32>>> {
        let mut taken: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for lv in self.logical_volumes.iter().filter(|lv| removed.contains(&lv.name)) {
            for segment in &lv.segments {
                if let SegmentKind::Thin { pool, device_id, .. } = &segment.kind
                    && !removed.contains(pool)
                {
                    let id = u32::try_from(*device_id).map_err(|_| {
                        Error::Refused(format!(
                            "logical volume {}/{}: no thin pool has a volume {device_id}",
                            self.name, lv.name
                        ))
                    })?;
                    taken.entry(pool).or_default().push(id);
                }
            }
        }
        Ok(taken)
    }

    /// The segment of a thin pool that is told of changes at once, and its transaction.
    fn pool_transaction(&self, pool: &str) -> Result<(&Segment, u64)> {
        let segments = self.logical_volume(pool).map(|lv| lv.segments.as_slice());
        match segments {
            Some([segment]) => match &segment.kind {
                SegmentKind::ThinPool { has_pending_messages: true, .. } => Err(Error::Refused(format!(
                    "thin pool {}/{pool} has messages that it was not told yet: activate it once with LVM",
                    self.name
                ))),
                SegmentKind::ThinPool { transaction_id, .. } => Ok((segment, *transaction_id)),
                _ => Err(Error::Refused(format!("logical volume {}/{pool} is not a thin pool", self.name))),
            },
            _ => Err(Error::Refused(format!("logical volume {}/{pool} is not a thin pool", self.name))),
        }
    }

    /// All volumes that go when this one does.
    fn removed_with(&self, name: &str) -> Result<HashSet<String>> {
        let refuse = |what: &str, volume: &str| {
            Error::Unsupported(format!("removing logical volume {}/{name}: {volume} is {what}", self.name))
        };
        let mut removed = HashSet::from([name.to_string()]);
        // What stands on it goes first: snapshots, the volumes of a pool, and what reads from it.
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
                    if let SegmentKind::Thin { pool, external_origin, .. } = &segment.kind
                        && (removed.contains(pool)
                            || external_origin.as_ref().is_some_and(|origin| removed.contains(origin)))
                    {
                        removed.insert(lv.name.clone());
                    }
                }
            }
            grew = removed.len() > before;
        }
        for lv in self.logical_volumes.iter().filter(|lv| removed.contains(&lv.name)) {
            for segment in &lv.segments {
                match &segment.kind {
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
