//! The structures that the metadata of thin pools and caches is made of: checksummed blocks, B-trees,
//! arrays and space maps.
//!
//! Spec: Linux `drivers/md/persistent-data/`, which is the only one. All numbers are little-endian,
//! all blocks have 4096 bytes.
//!
//! A [`Store`] never changes a block that the last commit needs, as in Linux: what is to change is copied to a free
//! block first, and the superblock, which is written last, makes it count. So a commit that fails leaves what was
//! there before. The metadata of caches is only ever changed by dropping entries, each of which may be dropped alone:
//! its blocks are changed where they are.

pub(super) mod array;
pub(super) mod block;
pub(super) mod btree;
mod edit;
pub(super) mod node;
pub(super) mod space_map;
mod store;

pub(super) use store::Store;

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
