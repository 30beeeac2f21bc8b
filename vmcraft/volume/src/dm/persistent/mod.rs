//! The structures that the metadata of thin pools and caches is made of: checksummed blocks, B-trees,
//! arrays and space maps.
//!
//! Spec: Linux `drivers/md/persistent-data/`, which is the only one. All numbers are little-endian,
//! all blocks have 4096 bytes.
//!
//! Linux never changes a block that an earlier transaction may need: it copies it. Here the devices
//! below are changed as a whole or not at all, so a block with one reference is changed in place,
//! and only one with more is copied.

pub(super) mod array;
pub(super) mod block;
pub(super) mod btree;
mod edit;
pub(super) mod node;
pub(super) mod space_map;

use block::Blocks;
use space_map::SpaceMap;

/// Metadata that can be changed: blocks, and what is known of the space in two address spaces.
///
/// Changes are staged, and reach the device with [`Blocks::commit`].
pub(super) struct Store {
    pub(super) blocks: Blocks,
    /// The reference counts of the metadata's own blocks.
    pub(super) metadata: SpaceMap,
    /// The reference counts of the data blocks.
    pub(super) data: SpaceMap,
}

/// One of the two address spaces of a [`Store`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    Metadata,
    Data,
}

impl Space {
    /// As messages name it.
    fn name(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Data => "data",
        }
    }
}
