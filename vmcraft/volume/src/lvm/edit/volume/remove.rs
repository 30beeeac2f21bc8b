//! Removing logical volumes, with what goes with them.

use std::collections::HashSet;

use super::{Author, all, visible};
use crate::lvm::{LogicalVolume, Lvm, Metadata, Segment, SegmentKind, VolumeGroup};
use crate::{Error, Result};

impl Lvm {
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

impl Metadata {
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
