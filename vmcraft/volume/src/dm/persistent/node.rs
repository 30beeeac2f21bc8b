//! Nodes of B-trees.

use super::block::{BLOCK, Block, corrupt, le32, le64, put};
use crate::Result;

/// The header's size. On disk: checksum (4 bytes), flags (4), block number (8), number of entries
/// (4), most entries (4), size of a value (4), padding (4); then all keys (8 each), then all values.
const HEADER: usize = 32;
const INTERNAL: u32 = 1;
const LEAF: u32 = 2;

/// How many entries a node has at most: a multiple of three.
pub(in crate::dm) fn max_entries(value_bytes: usize) -> usize {
    let fit = (BLOCK - HEADER) / (8 + value_bytes);
    fit - fit % 3
}

/// A node whose checksum is right: is it one?
pub(super) fn check(bytes: &[u8; BLOCK], number: u64) -> Result<()> {
    let node = Node::new(bytes);
    let flags = le32(bytes, 4);
    if flags != INTERNAL && flags != LEAF {
        return Err(corrupt("B-tree node (flags)", number));
    }
    // Three numbers of 32 bits: no overflow in 64.
    let most = u64::from(le32(bytes, 20));
    if HEADER as u64 + most * (8 + u64::from(le32(bytes, 24))) > BLOCK as u64
        || u64::from(le32(bytes, 16)) > most
    {
        return Err(corrupt("B-tree node (number of entries)", number));
    }
    if node.is_internal() && (node.value_bytes() != 8 || node.len() == 0) {
        return Err(corrupt("B-tree node (children)", number));
    }
    if (1..node.len()).any(|index| node.key(index - 1) >= node.key(index)) {
        return Err(corrupt("B-tree node (keys out of order)", number));
    }
    Ok(())
}

/// The bytes of a checked node.
pub(in crate::dm) struct Node<'a> {
    bytes: &'a [u8; BLOCK],
}

impl<'a> Node<'a> {
    pub(in crate::dm) fn new(bytes: &'a [u8; BLOCK]) -> Self {
        Self { bytes }
    }

    pub(in crate::dm) fn is_internal(&self) -> bool {
        le32(self.bytes, 4) == INTERNAL
    }

    /// How many entries it has.
    pub(in crate::dm) fn len(&self) -> usize {
        le32(self.bytes, 16) as usize
    }

    fn most(&self) -> usize {
        le32(self.bytes, 20) as usize
    }

    pub(in crate::dm) fn value_bytes(&self) -> usize {
        le32(self.bytes, 24) as usize
    }

    pub(in crate::dm) fn key(&self, index: usize) -> u64 {
        le64(self.bytes, HEADER + 8 * index)
    }

    pub(in crate::dm) fn value(&self, index: usize) -> &'a [u8] {
        let start = HEADER + 8 * self.most() + self.value_bytes() * index;
        self.bytes.get(start..start + self.value_bytes()).unwrap_or_default()
    }

    /// The number in a value of eight bytes.
    pub(in crate::dm) fn value64(&self, index: usize) -> u64 {
        le64(self.value(index), 0)
    }

    /// How many keys are below `key`.
    pub(in crate::dm) fn below(&self, key: u64) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = (low + high) / 2;
            if self.key(middle) < key { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// The child that has `key`, in an internal node.
    pub(in crate::dm) fn child(&self, key: u64) -> usize {
        let below = self.below(key);
        if below < self.len() && self.key(below) == key { below } else { below.saturating_sub(1) }
    }
}

/// The largest value, in bytes.
const MAX_VALUE: usize = 24;

/// A value: as many of these bytes as its tree's values have.
pub(super) type Value = [u8; MAX_VALUE];

/// A value of these bytes.
pub(super) fn value(bytes: &[u8]) -> Value {
    let mut value = [0; MAX_VALUE];
    put(&mut value, 0, bytes);
    value
}

/// A node taken apart, to be changed.
pub(super) struct OpenNode {
    pub(super) is_internal: bool,
    pub(super) value_bytes: usize,
    /// Each key with its value.
    pub(super) entries: Vec<(u64, Value)>,
}

impl OpenNode {
    pub(super) fn decode(block: &Block, number: u64) -> Result<Self> {
        let node = Node::new(block);
        if node.value_bytes() > MAX_VALUE || node.most() != max_entries(node.value_bytes()) {
            return Err(corrupt("B-tree node (most entries)", number));
        }
        Ok(Self {
            is_internal: node.is_internal(),
            value_bytes: node.value_bytes(),
            entries: (0..node.len()).map(|index| (node.key(index), value(node.value(index)))).collect(),
        })
    }

    pub(super) fn most(&self) -> usize {
        max_entries(self.value_bytes)
    }

    /// The fewest entries of a node that is not the root.
    pub(super) fn fewest(&self) -> usize {
        self.most() / 3
    }

    pub(super) fn encode(&self, bytes: &mut [u8; BLOCK]) {
        bytes.fill(0);
        let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes(); // all below 4096
        put(bytes, 4, &(if self.is_internal { INTERNAL } else { LEAF }).to_le_bytes());
        put(bytes, 16, &small(self.entries.len()));
        put(bytes, 20, &small(self.most()));
        put(bytes, 24, &small(self.value_bytes));
        for (index, (key, value)) in self.entries.iter().enumerate() {
            put(bytes, HEADER + 8 * index, &key.to_le_bytes());
            put(bytes, HEADER + 8 * self.most() + self.value_bytes * index, &value[..self.value_bytes]);
        }
    }
}
