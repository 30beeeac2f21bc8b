//! The inodes that a new volume has: the root, `lost+found`, and the file system's own.

use vmcraft_fs::Result;
use zerocopy::{FromZeros, IntoBytes};

use super::build::{Build, Content, narrow};
use crate::checksum::crc32c;
use crate::features::Incompat;
use crate::inode::{I_BLOCK_SIZE, InodeFlags, ROOT};
use crate::journal::{self, RawHeader};
use crate::superblock::Superblock;

/// The inode that keeps the room for descriptors.
pub(crate) const RESIZE: u32 = 7;
/// The journal's inode.
pub(super) const JOURNAL: u32 = 8;
/// The first that is not reserved.
pub(super) const LOST_AND_FOUND: u32 = 11;
/// The orphan file's.
pub(super) const ORPHANS: u32 = 12;

const DIRECTORY: u16 = 0o040_000;
const REGULAR: u16 = 0o100_000;
const DIRECTORY_TYPE: u8 = 2;
/// Bytes of `lost+found`, in whole blocks, as files are put there when none can be allocated.
const LOST_AND_FOUND_BYTES: u64 = 16 << 10;
/// `ob_magic` of each block of the orphan file.
const ORPHAN_MAGIC: u32 = 0x0b10_ca04;
/// The slot of `i_block` with the double-indirect block.
const DOUBLE: usize = 13 * 4;

impl Build<'_> {
    /// Writes the root directory, and `lost+found` in it.
    pub(super) fn directories(&mut self) -> Result<()> {
        let root = self.allocate(0, 1)?;
        let block =
            self.directory_block(ROOT, &[(ROOT, b"."), (ROOT, b".."), (LOST_AND_FOUND, b"lost+found")]);
        self.write_all(&root, |_| block.clone())?;
        self.directory(ROOT, 0o755, 3, &root)?;

        let blocks = lost_and_found_blocks(self.block_size() as u64);
        let pieces = self.allocate(0, blocks)?;
        let first = self.directory_block(LOST_AND_FOUND, &[(LOST_AND_FOUND, b"."), (ROOT, b"..")]);
        let others = self.directory_block(LOST_AND_FOUND, &[]);
        self.write_all(&pieces, |index| if index == 0 { first.clone() } else { others.clone() })?;
        self.directory(LOST_AND_FOUND, 0o700, 2, &pieces)
    }

    fn directory(
        &mut self,
        number: u32,
        permissions: u16,
        links: u16,
        pieces: &[std::ops::Range<u64>],
    ) -> Result<()> {
        let size = pieces.iter().map(|p| p.end - p.start).sum::<u64>() * self.block_size() as u64;
        let (block, flags, blocks) = self.map(number, pieces)?;
        self.write_inode(
            number,
            &Content { mode: DIRECTORY | permissions, links, size, flags, block, blocks },
        )
    }

    /// Writes each block of `pieces`, of which `content` says what it holds by its number in the file.
    fn write_all(&self, pieces: &[std::ops::Range<u64>], content: impl Fn(u64) -> Vec<u8>) -> Result<()> {
        for (index, block) in (0..).zip(pieces.iter().cloned().flatten()) {
            self.write(block, &content(index))?;
        }
        Ok(())
    }

    /// A directory block with these entries, all of which are directories.
    fn directory_block(&self, inode: u32, entries: &[(u32, &[u8])]) -> Vec<u8> {
        /// Bytes of the entry that holds the checksum.
        const TAIL: usize = 12;
        const HEADER: usize = 8;
        let typed = self.sb.incompat.contains(Incompat::FILETYPE);
        let mut bytes = vec![0; self.block_size()];
        let end = bytes.len() - if self.sb.metadata_csum() { TAIL } else { 0 };
        let mut at = 0;
        // The last entry, or one not in use, reaches up to the end.
        let entries = if entries.is_empty() { &[(0, &b""[..])] } else { entries };
        for (index, (target, name)) in entries.iter().enumerate() {
            let len =
                if index + 1 == entries.len() { end - at } else { (HEADER + name.len()).next_multiple_of(4) };
            bytes[at..at + 4].copy_from_slice(&target.to_le_bytes());
            bytes[at + 4..at + 6].copy_from_slice(&record_len(len));
            if *target != 0 {
                bytes[at + 6] = u8::try_from(name.len()).unwrap_or(u8::MAX);
                bytes[at + 7] = if typed { DIRECTORY_TYPE } else { 0 };
            }
            bytes[at + HEADER..at + HEADER + name.len()].copy_from_slice(name);
            at += len;
        }
        if self.sb.metadata_csum() {
            let crc = crc32c(self.seed(inode), &bytes[..end]);
            bytes[end..end + HEADER].copy_from_slice(&[0, 0, 0, 0, 12, 0, 0, 0xde]);
            bytes[end + HEADER..].copy_from_slice(&crc.to_le_bytes());
        }
        bytes
    }

    /// Writes the inode that keeps the blocks which the descriptor table can grow into: its map of double
    /// indirection has these blocks, each of which maps its copies in the groups with a backup.
    /// `double` is the block of the map.
    pub(super) fn resize_inode(&mut self, double: u64) -> Result<()> {
        let per_block = self.block_size() / 4;
        let reserved = usize::from(self.sb.reserved_descriptor_blocks);
        let mut map = vec![0; self.block_size()];
        let backups: Vec<u32> = self.sb.backups().collect();
        let table_blocks = u64::from(self.sb.groups.div_ceil(self.sb.descriptors_per_block()));
        let mut blocks = 1;
        for index in 0..reserved {
            let in_table = table_blocks + index as u64;
            let block = self.sb.descriptor_block(0) + in_table;
            // Both are below 1 << 16 or so: the table stands in one group.
            let slot = usize::try_from(in_table).unwrap_or(0) % per_block * 4;
            map[slot..slot + 4].copy_from_slice(&narrow(block)?);
            let mut copies = vec![0; self.block_size()];
            for (field, group) in copies.chunks_exact_mut(4).zip(&backups) {
                let copy = block + u64::from(*group) * u64::from(self.sb.blocks_per_group);
                field.copy_from_slice(&narrow(copy)?);
            }
            self.write(block, &copies)?;
            blocks += 1 + backups.len() as u64;
        }
        self.write(double, &map)?;
        let mut block = [0; I_BLOCK_SIZE];
        block[DOUBLE..DOUBLE + 4].copy_from_slice(&narrow(double)?);
        let per_block = per_block as u64;
        let size = (per_block * per_block + per_block + 12) * self.block_size() as u64;
        let flags = InodeFlags::empty();
        self.write_inode(RESIZE, &Content { mode: REGULAR | 0o600, links: 1, size, flags, block, blocks })
    }

    /// Writes an empty journal of `blocks` blocks near the middle. Returns its map, for the superblock.
    pub(super) fn journal(&mut self, blocks: u32) -> Result<([u8; I_BLOCK_SIZE], u64)> {
        let middle = self.sb.groups / 2;
        let pieces = self.allocate(self.sb.group_start(middle), blocks.into())?;
        for piece in &pieces {
            super::zero(self.device, self.sb.byte_of(piece.start), self.sb.byte_of(piece.end - piece.start))?;
        }
        let mut raw = journal::RawSuperblock::new_zeroed();
        raw.header = RawHeader {
            magic: journal::MAGIC.into(),
            blocktype: journal::block_type::SUPERBLOCK_V2.into(),
            sequence: 0.into(),
        };
        raw.blocksize = self.sb.block_size.into();
        raw.maxlen = blocks.into();
        raw.first = 1.into();
        raw.sequence = 1.into();
        raw.nr_users = 1.into();
        let first = pieces.first().map_or(0, |p| p.start);
        self.write(first, raw.as_bytes())?;
        let (block, flags, taken) = self.map(JOURNAL, &pieces)?;
        let size = u64::from(blocks) * self.block_size() as u64;
        self.write_inode(
            JOURNAL,
            &Content { mode: REGULAR | 0o600, links: 1, size, flags, block, blocks: taken },
        )?;
        Ok((block, size))
    }

    /// Writes a file for orphans, with none in it.
    pub(super) fn orphan_file(&mut self) -> Result<()> {
        let count = orphan_blocks(self.sb);
        let pieces = self.allocate(0, count)?;
        for block in pieces.iter().cloned().flatten() {
            let mut bytes = vec![0; self.block_size()];
            let tail = bytes.len() - 8;
            if self.sb.metadata_csum() {
                let crc = crc32c(crc32c(self.seed(ORPHANS), &block.to_le_bytes()), &bytes[..tail]);
                bytes[tail + 4..].copy_from_slice(&crc.to_le_bytes());
            }
            bytes[tail..tail + 4].copy_from_slice(&ORPHAN_MAGIC.to_le_bytes());
            self.write(block, &bytes)?;
        }
        let (block, flags, blocks) = self.map(ORPHANS, &pieces)?;
        let size = count * self.block_size() as u64;
        self.write_inode(ORPHANS, &Content { mode: REGULAR | 0o600, links: 1, size, flags, block, blocks })
    }
}

/// How many blocks `lost+found` has.
pub(super) fn lost_and_found_blocks(block_size: u64) -> u64 {
    (LOST_AND_FOUND_BYTES / block_size).clamp(2, 12)
}

/// How many blocks the orphan file has.
pub(super) fn orphan_blocks(sb: &Superblock) -> u64 {
    let count = match sb.blocks {
        blocks if blocks < 128 << 10 => 32,
        blocks => (blocks / 4096).min(512),
    };
    // The kernel takes 8 MiB at most.
    count.min((8 << 20) / u64::from(sb.block_size))
}

/// The length of an entry as it is stored; only 64 KiB do not fit.
fn record_len(len: usize) -> [u8; 2] {
    u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes()
}
