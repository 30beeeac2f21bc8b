//! Writing the inodes of a new volume: their content, their maps, themselves.

use std::ops::Range;

use vmcraft_block::BlockDevice;
use vmcraft_fs::{Error, Result, Timestamp};
use zerocopy::{FromZeros, IntoBytes};

use crate::checksum::crc32c;
use crate::features::Incompat;
use crate::inode::{BASE_SIZE, EXTRA_FIELDS, I_BLOCK_SIZE, InodeFlags, RAW_SIZE, RawInode, checksum_seed};
use crate::inode_edit::{encode_time, seal};
use crate::space::Space;
use crate::superblock::Superblock;

use super::layout::Placement;

/// Blocks that an extent can have.
const LONGEST_EXTENT: u64 = 0x8000;
/// Bytes of an extent, an index and of the header in front of them.
const ENTRY: usize = 12;
/// Direct blocks in a block map.
const DIRECT: usize = 12;

/// A volume in the making.
pub(super) struct Build<'a> {
    pub(super) device: &'a dyn BlockDevice,
    pub(super) sb: &'a Superblock,
    pub(super) space: Space,
    pub(super) placed: Vec<Placement>,
    pub(super) now: Timestamp,
}

/// What an inode has that is not the same in all new ones.
pub(super) struct Content {
    /// `i_mode`.
    pub(super) mode: u16,
    pub(super) links: u16,
    /// In bytes.
    pub(super) size: u64,
    pub(super) flags: InodeFlags,
    pub(super) block: [u8; I_BLOCK_SIZE],
    /// Blocks of the volume, those of the map included.
    pub(super) blocks: u64,
}

impl Build<'_> {
    /// Where checksums of what belongs to a new inode, whose generation is 0, start.
    pub(super) fn seed(&self, inode: u32) -> u32 {
        checksum_seed(self.sb, inode, 0)
    }

    pub(super) fn block_size(&self) -> usize {
        self.sb.block_size as usize
    }

    pub(super) fn write(&self, block: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.device.write_at(self.sb.byte_of(block), bytes)?)
    }

    /// Takes `len` free blocks from `from` on, or if there are too few from the start on.
    pub(super) fn allocate(&mut self, from: u64, len: u64) -> Result<Vec<Range<u64>>> {
        let start = u64::from(self.sb.first_data_block);
        self.space
            .allocate(from..self.sb.blocks, len)
            .or_else(|| self.space.allocate(start..self.sb.blocks, len))
            .ok_or(Error::NoSpace("it is too small for its own structures"))
    }

    fn allocate_one(&mut self, from: u64) -> Result<u64> {
        let pieces = self.allocate(from, 1)?;
        pieces.first().map(|p| p.start).ok_or(Error::NoSpace("it is too small for its own structures"))
    }

    /// Writes an inode whose content is given.
    pub(super) fn write_inode(&self, number: u32, content: &Content) -> Result<()> {
        let mut raw = RawInode::new_zeroed();
        let (time, extra) = encode_time(self.now, usize::from(self.sb.inode_size) > BASE_SIZE);
        let extra = extra.unwrap_or(0);
        raw.mode = content.mode.into();
        raw.links_count = content.links.into();
        let [a, b, c, d, e, f, g, h] = content.size.to_le_bytes();
        raw.size_lo = u32::from_le_bytes([a, b, c, d]).into();
        raw.size_high = u32::from_le_bytes([e, f, g, h]).into();
        let sectors = content.blocks * u64::from(self.sb.block_size / 512);
        raw.blocks_lo =
            u32::try_from(sectors).map_err(|_| Error::NoSpace("an inode cannot count its space"))?.into();
        raw.flags = content.flags.bits().into();
        raw.block = content.block;
        (raw.atime, raw.ctime, raw.mtime) = (time.into(), time.into(), time.into());
        let mut bytes = vec![0; self.sb.inode_size.into()];
        if bytes.len() > BASE_SIZE {
            raw.extra_isize = EXTRA_FIELDS.into();
            (raw.atime_extra, raw.ctime_extra, raw.mtime_extra) = (extra.into(), extra.into(), extra.into());
            (raw.crtime, raw.crtime_extra) = (time.into(), extra.into());
        }
        let len = bytes.len().min(RAW_SIZE);
        bytes[..len].copy_from_slice(&raw.as_bytes()[..len]);
        self.write_inode_bytes(number, bytes)
    }

    /// Writes an inode that holds nothing, as those that are reserved but not in use.
    pub(super) fn write_empty_inode(&self, number: u32) -> Result<()> {
        self.write_inode_bytes(number, vec![0; self.sb.inode_size.into()])
    }

    fn write_inode_bytes(&self, number: u32, mut bytes: Vec<u8>) -> Result<()> {
        seal(&mut bytes, self.sb, number);
        let (group, index) =
            ((number - 1) / self.sb.inodes_per_group, (number - 1) % self.sb.inodes_per_group);
        let table =
            self.placed.get(group as usize).ok_or(Error::NoSpace("it has too few inodes"))?.inode_table;
        let offset = self.sb.byte_of(table) + u64::from(index) * u64::from(self.sb.inode_size);
        Ok(self.device.write_at(offset, &bytes)?)
    }

    /// Maps the blocks of `pieces`, in this order, to a file: its `i_block`, its flags and how many blocks
    /// it takes with those of the map, which are allocated near the first piece.
    pub(super) fn map(
        &mut self,
        inode: u32,
        pieces: &[Range<u64>],
    ) -> Result<([u8; I_BLOCK_SIZE], InodeFlags, u64)> {
        let count: u64 = pieces.iter().map(|p| p.end - p.start).sum();
        let near = pieces.first().map_or(0, |p| p.start);
        if self.sb.incompat.contains(Incompat::EXTENTS) {
            let (block, nodes) = self.extent_map(inode, pieces, near)?;
            Ok((block, InodeFlags::EXTENTS, count + nodes))
        } else {
            let (block, nodes) = self.block_map(pieces, count, near)?;
            Ok((block, InodeFlags::empty(), count + nodes))
        }
    }

    fn extent_map(
        &mut self,
        inode: u32,
        pieces: &[Range<u64>],
        near: u64,
    ) -> Result<([u8; I_BLOCK_SIZE], u64)> {
        let mut entries = Vec::new();
        let mut logical = 0u32;
        for piece in pieces {
            let mut at = piece.start;
            while at < piece.end {
                let len = (piece.end - at).min(LONGEST_EXTENT);
                let len16 = u16::try_from(len).unwrap_or(u16::MAX); // 0x8000 at most
                entries.push(entry(logical, |e| {
                    e[4..6].copy_from_slice(&len16.to_le_bytes());
                    e[6..8].copy_from_slice(&at.to_le_bytes()[4..6]);
                    e[8..12].copy_from_slice(&at.to_le_bytes()[..4]);
                }));
                at += len;
                logical = logical.saturating_add(len16.into());
            }
        }
        let room = self.block_size() / ENTRY - 1; // the checksum fits into what is left
        let (mut depth, mut nodes) = (0u16, 0);
        while entries.len() > I_BLOCK_SIZE / ENTRY - 1 {
            let mut above = Vec::new();
            for children in entries.chunks(room) {
                let number = self.allocate_one(near)?;
                let mut bytes = vec![0; self.block_size()];
                fill_node(&mut bytes, children, room, depth);
                if self.sb.metadata_csum() {
                    let covered = ENTRY * (room + 1);
                    let crc = crc32c(self.seed(inode), &bytes[..covered]);
                    bytes[covered..covered + 4].copy_from_slice(&crc.to_le_bytes());
                }
                self.write(number, &bytes)?;
                let first = children.first().map_or([0; 4], |c| [c[0], c[1], c[2], c[3]]);
                above.push(entry(u32::from_le_bytes(first), |e| {
                    e[4..8].copy_from_slice(&number.to_le_bytes()[..4]);
                    e[8..10].copy_from_slice(&number.to_le_bytes()[4..6]);
                }));
                nodes += 1;
            }
            entries = above;
            depth += 1;
        }
        let mut root = [0; I_BLOCK_SIZE];
        fill_node(&mut root, &entries, I_BLOCK_SIZE / ENTRY - 1, depth);
        Ok((root, nodes))
    }

    fn block_map(
        &mut self,
        pieces: &[Range<u64>],
        count: u64,
        near: u64,
    ) -> Result<([u8; I_BLOCK_SIZE], u64)> {
        let mut data = pieces.iter().cloned().flatten();
        let mut left = count;
        let mut root = [0; I_BLOCK_SIZE];
        let mut nodes = 0;
        for (slot, field) in root.chunks_exact_mut(4).enumerate() {
            if left == 0 {
                break;
            }
            let level = (slot + 1).saturating_sub(DIRECT); // of indirection
            let block = self.subtree(level, &mut data, &mut left, &mut nodes, near)?;
            field.copy_from_slice(&narrow(block)?);
        }
        if left > 0 {
            return Err(Error::NoSpace("a block map cannot hold so large a journal"));
        }
        Ok((root, nodes))
    }

    /// A block of data, or the block of a map with `level` levels below it.
    fn subtree(
        &mut self,
        level: usize,
        data: &mut dyn Iterator<Item = u64>,
        left: &mut u64,
        nodes: &mut u64,
        near: u64,
    ) -> Result<u64> {
        if level == 0 {
            *left -= 1;
            return data.next().ok_or(Error::NoSpace("it is too small for its own structures"));
        }
        let number = self.allocate_one(near)?;
        *nodes += 1;
        let mut bytes = vec![0; self.block_size()];
        for field in bytes.chunks_exact_mut(4) {
            if *left == 0 {
                break;
            }
            let block = self.subtree(level - 1, data, left, nodes, near)?;
            field.copy_from_slice(&narrow(block)?);
        }
        self.write(number, &bytes)?;
        Ok(number)
    }
}

/// A block number in the 32 bits of a block map.
pub(super) fn narrow(block: u64) -> Result<[u8; 4]> {
    let narrow = u32::try_from(block)
        .map_err(|_| Error::Unsupported("block maps beyond block 2^32; take the feature extent".into()))?;
    Ok(narrow.to_le_bytes())
}

fn entry(first: u32, fill: impl FnOnce(&mut [u8; ENTRY])) -> [u8; ENTRY] {
    let mut bytes = [0; ENTRY];
    bytes[..4].copy_from_slice(&first.to_le_bytes());
    fill(&mut bytes);
    bytes
}

/// Writes header and entries of an extent node with room for `room` entries.
fn fill_node(bytes: &mut [u8], entries: &[[u8; ENTRY]], room: usize, depth: u16) {
    const MAGIC: u16 = 0xf30a;
    let short = |number: usize| u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes();
    bytes[..2].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[2..4].copy_from_slice(&short(entries.len()));
    bytes[4..6].copy_from_slice(&short(room));
    bytes[6..8].copy_from_slice(&depth.to_le_bytes());
    for (slot, entry) in bytes[ENTRY..].chunks_exact_mut(ENTRY).zip(entries) {
        slot.copy_from_slice(entry);
    }
}
