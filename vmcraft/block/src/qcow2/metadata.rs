//! Which clusters of the image hold its own structures, so that nothing else is written there.

use std::collections::HashMap;

use super::Problem;

/// What a cluster holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Header,
    L1Table,
    L2Table,
    RefcountTable,
    RefcountBlock,
    SnapshotTable,
    SnapshotL1Table,
    BitmapDirectory,
}

impl Kind {
    /// What is said when it overlaps with something else.
    fn overlap(self) -> &'static str {
        match self {
            Self::Header => "reference: it leads to the header",
            Self::L1Table => "reference: it leads to the L1 table",
            Self::L2Table => "reference: it leads to an L2 table",
            Self::RefcountTable => "reference: it leads to the refcount table",
            Self::RefcountBlock => "reference: it leads to a refcount block",
            Self::SnapshotTable => "reference: it leads to the snapshot table",
            Self::SnapshotL1Table => "reference: it leads to a snapshot's L1 table",
            Self::BitmapDirectory => "reference: it leads to the bitmap directory",
        }
    }
}

/// The most clusters of metadata that are kept track of. An image that has more is not written: with
/// clusters of 64 KiB that would be one with a petabyte of content, or a forged one.
const MAX_CLUSTERS: usize = 2 << 20;

/// The clusters with metadata.
pub(super) struct Metadata {
    clusters: HashMap<u64, Kind>,
    cluster_bits: u32,
}

impl Metadata {
    pub(super) fn new(cluster_bits: u32) -> Self {
        Self { clusters: HashMap::new(), cluster_bits }
    }

    /// Takes a range for a structure. Two structures in one cluster are corruption.
    pub(super) fn add(&mut self, offset: u64, len: u64, kind: Kind) -> Result<(), Problem> {
        let Some(end) = offset.checked_add(len) else {
            return Err(Problem::corrupt("reference beyond all images", offset));
        };
        let clusters = (offset >> self.cluster_bits)..end.div_ceil(1 << self.cluster_bits);
        if clusters.end - clusters.start > (MAX_CLUSTERS - self.clusters.len()) as u64 {
            return Err(Problem::Unsupported("writing to an image with so much metadata".into()));
        }
        for cluster in clusters {
            if let Some(other) = self.clusters.insert(cluster, kind) {
                return Err(Problem::corrupt(other.overlap(), offset));
            }
        }
        Ok(())
    }

    /// Gives a cluster up.
    pub(super) fn remove(&mut self, cluster: u64) {
        self.clusters.remove(&cluster);
    }

    pub(super) fn contains(&self, cluster: u64) -> bool {
        self.clusters.contains_key(&cluster)
    }

    /// Refuses a write of the guest's data over metadata.
    pub(super) fn check(&self, offset: u64, len: u64) -> Result<(), Problem> {
        let end = offset.saturating_add(len).div_ceil(1 << self.cluster_bits);
        for cluster in (offset >> self.cluster_bits)..end {
            if let Some(kind) = self.clusters.get(&cluster) {
                return Err(Problem::corrupt(kind.overlap(), cluster << self.cluster_bits));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overlaps() {
        let mut metadata = Metadata::new(16);
        metadata.add(0, 100, Kind::Header).unwrap();
        metadata.add(0x30000, 0x20000, Kind::L1Table).unwrap();
        assert!(metadata.add(0x4fff8, 8, Kind::L2Table).is_err());
        assert!(metadata.add(u64::MAX - 7, 8, Kind::L2Table).is_err());
        assert!(metadata.add(1 << 40, 1 << 60, Kind::L2Table).is_err());
        metadata.check(0x10000, 0x20000).unwrap();
        assert!(metadata.check(0x10000, 0x20001).is_err());
        assert!(metadata.check(0x40000, 1).is_err());
        metadata.remove(4);
        metadata.check(0x40000, 1).unwrap();
    }
}
