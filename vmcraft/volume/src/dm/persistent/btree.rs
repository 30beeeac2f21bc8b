//! Looking things up in B-trees.

use super::block::{Block, Blocks, Kind, corrupt};
use super::node::Node;
use crate::Result;

/// How deep a tree may be. With a third of the entries used, 2^64 keys take ten levels.
pub(super) const MAX_DEPTH: u32 = 12;

/// What the values in a tree's leaves are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dm) enum Values {
    /// What is known of a thin device.
    Details,
    /// Reference counts that do not fit into bitmaps.
    Counts,
    /// Places of the bitmaps of a space map.
    Bitmaps,
    /// Data blocks with the time of their mapping.
    Mappings,
    /// Roots of other trees.
    Trees,
}

impl Values {
    /// The size of a value.
    pub(in crate::dm) fn bytes(self) -> usize {
        match self {
            Self::Details => 24,
            Self::Bitmaps => 16,
            Self::Mappings | Self::Trees => 8,
            Self::Counts => 4,
        }
    }

    /// Whether it is a part of a space map. Those are never shared.
    pub(super) fn is_space_map(self) -> bool {
        matches!(self, Self::Counts | Self::Bitmaps)
    }
}

/// The entries from some key on in one leaf.
pub(in crate::dm) struct Leaf {
    block: Block,
    first: usize,
    /// The first key that is not this leaf's; `None` if there is no other leaf after it.
    pub(in crate::dm) end: Option<u64>,
}

impl Leaf {
    /// The entries, by ascending key.
    pub(in crate::dm) fn entries(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let node = Node::new(&self.block);
        (self.first..node.len()).map(move |index| (node.key(index), node.value(index)))
    }

    /// The value of the key that was asked for.
    pub(in crate::dm) fn get(&self, key: u64) -> Option<&[u8]> {
        self.entries().next().filter(|(first, _)| *first == key).map(|(_, value)| value)
    }
}

/// The leaf that has `key`, or would have it, from that key on.
///
/// Every node's keys must lie where its parent says. So a node is reached on one way only, and no
/// walk over a tree takes longer than the tree is.
pub(in crate::dm) fn leaf_at(blocks: &Blocks, root: u64, values: Values, key: u64) -> Result<Leaf> {
    let mut number = root;
    let (mut low, mut end) = (0, None);
    for depth in 0..MAX_DEPTH {
        let block = blocks.read(number, Kind::Node)?;
        let node = Node::new(&block);
        let outside = match node.len() {
            0 => depth > 0,
            len => node.key(0) < low || end.is_some_and(|end| node.key(len - 1) >= end),
        };
        if outside {
            return Err(corrupt("B-tree node (keys outside of what its parent says)", number));
        }
        if !node.is_internal() {
            if node.value_bytes() != values.bytes() {
                return Err(corrupt("B-tree node (size of values)", number));
            }
            return Ok(Leaf { first: node.below(key), block, end });
        }
        let child = node.child(key);
        if child + 1 < node.len() {
            end = Some(node.key(child + 1));
        }
        low = node.key(child);
        number = node.value64(child);
    }
    Err(corrupt(format!("B-tree (deeper than {MAX_DEPTH} levels)"), root))
}
