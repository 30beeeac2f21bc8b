//! What was seen of blocks and inodes.

use std::collections::HashMap;

use crate::in_memory;
use crate::superblock::Superblock;

/// Blocks of a chunk.
const CHUNK: u64 = 1 << 15;

/// Which blocks something leads to: a bit for each, in chunks that are in use.
#[derive(Default)]
pub(super) struct Claims {
    chunks: HashMap<u64, Box<[u64]>>,
}

impl Claims {
    /// Notes that something leads to a block. `false` if something else did before.
    pub(super) fn claim(&mut self, block: u64) -> bool {
        let words = in_memory(CHUNK / 64);
        let chunk = self.chunks.entry(block / CHUNK).or_insert_with(|| vec![0; words].into());
        let (word, bit) = (in_memory(block % CHUNK / 64), block % 64);
        match chunk.get_mut(word) {
            Some(word) if *word >> bit & 1 == 0 => {
                *word |= 1 << bit;
                true
            }
            _ => false,
        }
    }

    pub(super) fn is_claimed(&self, block: u64) -> bool {
        let word = self.chunks.get(&(block / CHUNK)).and_then(|c| c.get(in_memory(block % CHUNK / 64)));
        word.is_some_and(|word| word >> (block % 64) & 1 == 1)
    }
}

/// What is known of an inode.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fact {
    pub(super) in_use: bool,
    /// Its type, as `S_IFMT` shifted down.
    pub(super) kind: u8,
    /// How many names it says it has, and how many were found.
    pub(super) links: u16,
    pub(super) found: u32,
    /// Whether it needs no name.
    pub(super) nameless: bool,
}

/// What is known of all inodes, in pages of a group each.
pub(super) struct Facts {
    per_group: u32,
    pages: HashMap<u32, Box<[Fact]>>,
}

impl Facts {
    pub(super) fn new(sb: &Superblock) -> Self {
        Self { per_group: sb.inodes_per_group, pages: HashMap::new() }
    }

    /// What is known of an inode, to be changed. Inode numbers are from 1.
    pub(super) fn of(&mut self, inode: u32) -> Option<&mut Fact> {
        let index = inode.checked_sub(1)?;
        let per_group = self.per_group as usize;
        let page = self.pages.entry(index / self.per_group);
        page.or_insert_with(|| vec![Fact::default(); per_group].into())
            .get_mut((index % self.per_group) as usize)
    }

    /// What is known of an inode.
    pub(super) fn get(&self, inode: u32) -> Fact {
        let place = inode.checked_sub(1).map(|index| (index / self.per_group, index % self.per_group));
        let fact = place.and_then(|(page, index)| self.pages.get(&page)?.get(index as usize));
        fact.copied().unwrap_or_default()
    }

    /// What is known of the inodes of a group, `None` if none is in use.
    pub(super) fn group(&self, group: u32) -> Option<&[Fact]> {
        self.pages.get(&group).map(|page| &**page)
    }
}
