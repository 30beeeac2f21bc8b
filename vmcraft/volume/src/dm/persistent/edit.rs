//! Changing B-trees.

use super::block::{Kind, corrupt, le64};
use super::btree::{MAX_DEPTH, Values, leaf_at};
use super::node::{Node, OpenNode, Value, value};
use super::{Space, Store};
use crate::Result;

/// What has become of a node that something was put into.
struct Inserted {
    /// Where it is now.
    number: u64,
    /// The first key and the block of a second node, if all did not fit into one.
    right: Option<(u64, u64)>,
}

impl Store {
    /// Puts a value into a tree, replacing the one that the key has, and gives the new root. What a
    /// replaced value referred to is the caller's to count.
    pub(in crate::dm) fn insert(&mut self, values: Values, root: u64, key: u64, new: &[u8]) -> Result<u64> {
        let Inserted { number, right } = self.insert_below(values, root, key, new, 0)?;
        let Some((right_key, right)) = right else { return Ok(number) };
        let first = Node::new(&*self.blocks.read(number, Kind::Node)?).key(0);
        let entries = vec![(first, block(number)), (right_key, block(right))];
        self.write_new(&OpenNode { is_internal: true, value_bytes: 8, entries })
    }

    fn insert_below(
        &mut self,
        values: Values,
        number: u64,
        key: u64,
        new: &[u8],
        depth: u32,
    ) -> Result<Inserted> {
        let (number, mut node) = self.open(values, number, depth)?;
        if node.is_internal {
            let index = node.entries.partition_point(|(k, _)| *k <= key).saturating_sub(1);
            let child = child_at(&node, index);
            let below = self.insert_below(values, child, key, new, depth + 1)?;
            if let Some((first, place)) = node.entries.get_mut(index) {
                *first = key.min(*first);
                *place = block(below.number);
            }
            if let Some((right_key, right)) = below.right {
                node.entries.insert(index + 1, (right_key, block(right)));
            }
        } else {
            match node.entries.binary_search_by_key(&key, |(k, _)| *k) {
                Ok(index) => node.entries[index].1 = value(new),
                Err(index) => node.entries.insert(index, (key, value(new))),
            }
        }
        let right = if node.entries.len() > node.most() {
            let entries = node.entries.split_off(node.entries.len() / 2);
            let right_key = entries.first().map_or(0, |(key, _)| *key);
            let right = OpenNode { is_internal: node.is_internal, value_bytes: node.value_bytes, entries };
            Some((right_key, self.write_new(&right)?))
        } else {
            None
        };
        self.write(number, &node)?;
        Ok(Inserted { number, right })
    }

    /// Takes a key that is there out of a tree, and gives the new root. What the value referred to is
    /// the caller's to count.
    pub(in crate::dm) fn remove(&mut self, values: Values, root: u64, key: u64) -> Result<u64> {
        if leaf_at(&self.blocks, root, values, key)?.get(key).is_none() {
            return Err(corrupt(format!("B-tree (key {key} is missing)"), root));
        }
        let mut root = self.remove_below(values, root, key, 0)?;
        // A root with one child is not needed. It is not shared: it was opened for the change.
        for _ in 0..MAX_DEPTH {
            let block = self.blocks.read(root, Kind::Node)?;
            let node = Node::new(&block);
            if !node.is_internal() || node.len() > 1 {
                break;
            }
            let child = node.value64(0);
            self.drop_reference(Space::Metadata, root)?;
            root = child;
        }
        Ok(root)
    }

    fn remove_below(&mut self, values: Values, number: u64, key: u64, depth: u32) -> Result<u64> {
        let (number, mut node) = self.open(values, number, depth)?;
        if node.is_internal {
            let index = node.entries.partition_point(|(k, _)| *k <= key).saturating_sub(1);
            let child = child_at(&node, index);
            let child = self.remove_below(values, child, key, depth + 1)?;
            if let Some((_, place)) = node.entries.get_mut(index) {
                *place = block(child);
            }
            self.balance(values, &mut node, index, depth)?;
        } else if let Ok(index) = node.entries.binary_search_by_key(&key, |(k, _)| *k) {
            node.entries.remove(index);
        }
        self.write(number, &node)?;
        Ok(number)
    }

    /// Sees that a child has not too few entries, with the help of a neighbour.
    fn balance(&mut self, values: Values, parent: &mut OpenNode, index: usize, depth: u32) -> Result<()> {
        let child = child_at(parent, index);
        let child = OpenNode::decode(&self.blocks.read(child, Kind::Node)?, child)?;
        if child.entries.len() >= child.fewest() || parent.entries.len() < 2 {
            return Ok(());
        }
        let index = index.saturating_sub(1);
        let (left_number, mut left) = self.open(values, child_at(parent, index), depth + 1)?;
        let (right_number, mut right) = self.open(values, child_at(parent, index + 1), depth + 1)?;
        if left.is_internal != right.is_internal {
            return Err(corrupt("B-tree node (its neighbour is at another level)", left_number));
        }
        left.entries.append(&mut right.entries);
        if left.entries.len() <= left.most() {
            self.drop_reference(Space::Metadata, right_number)?;
            parent.entries.remove(index + 1);
        } else {
            right.entries = left.entries.split_off(left.entries.len() / 2);
            self.write(right_number, &right)?;
            if let (Some(entry), Some((first, _))) =
                (parent.entries.get_mut(index + 1), right.entries.first())
            {
                *entry = (*first, block(right_number));
            }
        }
        self.write(left_number, &left)?;
        if let Some((_, place)) = parent.entries.get_mut(index) {
            *place = block(left_number);
        }
        Ok(())
    }

    /// Counts one reference less to a tree of mappings. What nobody has any more is given back, with its data blocks.
    pub(in crate::dm) fn drop_mappings(&mut self, root: u64) -> Result<()> {
        self.changes.give_data_back();
        // Each entry of a node that is given back is one reference less, so this ends.
        let mut next = vec![(root, 0)];
        while let Some((number, depth)) = next.pop() {
            if depth >= MAX_DEPTH {
                return Err(corrupt(format!("B-tree (deeper than {MAX_DEPTH} levels)"), root));
            }
            let block = self.blocks.read(number, Kind::Node)?;
            let node = Node::new(&block);
            if node.value_bytes() != Values::Mappings.bytes() {
                return Err(corrupt("B-tree node (size of values)", number));
            }
            if self.drop_reference(Space::Metadata, number)? > 0 {
                continue;
            }
            for index in 0..node.len() {
                let value = node.value64(index);
                if node.is_internal() {
                    next.push((value, depth + 1));
                } else {
                    self.drop_reference(Space::Data, value >> 24)?;
                }
            }
        }
        Ok(())
    }

    /// A node that only this tree has, to be changed: itself if the last commit does not have it, else a copy.
    fn open(&mut self, values: Values, number: u64, depth: u32) -> Result<(u64, OpenNode)> {
        if depth >= MAX_DEPTH {
            return Err(corrupt(format!("B-tree (deeper than {MAX_DEPTH} levels)"), number));
        }
        let node = OpenNode::decode(&self.blocks.read(number, Kind::Node)?, number)?;
        if !node.is_internal && node.value_bytes != values.bytes() {
            return Err(corrupt("B-tree node (size of values)", number));
        }
        let references = self.references(Space::Metadata, number)?;
        match references {
            0 => return Err(corrupt("B-tree node (the space map says that it is free)", number)),
            1 if self.changes.is_new(number) => return Ok((number, node)),
            1 => {}
            _ if values.is_space_map() => {
                return Err(corrupt("B-tree node (of a space map, and shared)", number));
            }
            _ => {}
        }
        let copy = self.write_new(&node)?;
        self.drop_reference(Space::Metadata, number)?;
        if references > 1 {
            for (_, value) in &node.entries {
                if node.is_internal || values == Values::Trees {
                    self.add_reference(Space::Metadata, le64(value, 0))?;
                } else if values == Values::Mappings {
                    self.add_reference(Space::Data, le64(value, 0) >> 24)?;
                }
            }
        }
        Ok((copy, node))
    }

    fn write(&mut self, number: u64, node: &OpenNode) -> Result<()> {
        node.encode(self.blocks.edit(number, Kind::Node)?);
        Ok(())
    }

    fn write_new(&mut self, node: &OpenNode) -> Result<u64> {
        let number = self.take_block()?;
        node.encode(self.blocks.create(number, Kind::Node));
        Ok(number)
    }
}

/// The number of a block, as a value.
fn block(number: u64) -> Value {
    value(&number.to_le_bytes())
}

/// A child of an internal node. Indexes come from its entries, of which there is at least one; 0,
/// the superblock, is no node.
fn child_at(node: &OpenNode, index: usize) -> u64 {
    node.entries.get(index).map_or(0, |(_, value)| le64(value, 0))
}
