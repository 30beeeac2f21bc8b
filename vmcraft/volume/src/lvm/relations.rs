//! Which logical volumes are made of which.

use std::collections::HashSet;

use super::{LogicalVolume, Metadata, Segment, SegmentKind};

impl Metadata {
    pub(super) fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.logical_volumes.iter().flat_map(|lv| &lv.segments)
    }

    /// The snapshots of the old kind: the hidden volume that ties, the origin, and the store of changes.
    pub(super) fn snapshots(&self) -> impl Iterator<Item = (&str, &str, &str)> {
        self.logical_volumes.iter().flat_map(|lv| {
            lv.segments.iter().filter_map(|segment| match &segment.kind {
                SegmentKind::Snapshot { origin, cow, .. } => Some((&*lv.name, &**origin, &**cow)),
                _ => None,
            })
        })
    }

    /// The volumes that are made of this one.
    pub(super) fn users(&self, name: &str) -> impl Iterator<Item = &LogicalVolume> {
        let uses = move |segment: &Segment| segment.volumes().contains(&name);
        self.logical_volumes.iter().filter(move |lv| lv.segments.iter().any(uses))
    }

    /// The hidden volumes that a volume is made of, and what these are made of.
    pub(super) fn parts(&self, name: &str) -> Vec<String> {
        self.reach(name, &|lv| !lv.is_visible())
    }

    /// All volumes that a volume is made of, and what these are made of.
    pub(super) fn made_of(&self, name: &str) -> Vec<String> {
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
}
