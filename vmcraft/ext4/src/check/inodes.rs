//! Checking inodes: what they hold, and where.

use std::mem::offset_of;

use vmcraft_fs::{FileType, Result};

use super::Check;
use super::directories::Directory;
use crate::features::{Compat, Incompat};
use crate::group::flags;
use crate::inode::{Inode, InodeFlags, ROOT, RawInode, is_in_use};
use crate::map::OpenInode;
use crate::superblock::JournalPlace;
use crate::walk::{self, Owned};
use crate::{content, symlink, xattr};

/// Reserved inodes.
const BAD_BLOCKS: u32 = 1;
const RESIZE: u32 = 7;

/// What the walk of a map found.
#[derive(Default)]
struct Space {
    blocks: u64,
    /// The block behind the last of the file.
    end: u64,
    /// The same for blocks that hold data.
    written_end: u64,
    /// A block that something else leads to as well, and how many there are.
    shared: Option<u64>,
    shared_count: u64,
}

impl Check<'_> {
    /// Looks at all inodes that may be in use.
    pub(super) fn scan_inodes(&mut self) -> Result<()> {
        let sb = &self.volume.sb;
        for number in 0..sb.groups {
            let Some(group) = self.groups.get(number as usize).copied().flatten() else { continue };
            if group.flags & flags::INODE_UNINIT != 0 {
                continue;
            }
            if group.unused_inodes > sb.inodes_per_group {
                self.findings.add(format!("group {number}: {} unused inodes", group.unused_inodes));
                continue;
            }
            let first = number * sb.inodes_per_group + 1;
            for inode in first..first + sb.inodes_per_group - group.unused_inodes {
                self.scan_inode(inode)?;
            }
        }
        Ok(())
    }

    fn scan_inode(&mut self, number: u32) -> Result<()> {
        let volume = self.volume;
        let sb = &volume.sb;
        let (block, range, offset) = volume.inode_bytes(number)?;
        let bytes = block.bytes.get(range).unwrap_or_default();
        let reserved = number < sb.first_inode && number != ROOT;
        if reserved && let Some(fact) = self.facts.of(number) {
            (fact.in_use, fact.nameless) = (true, true);
        }
        let field =
            |at: usize| bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let deleted_at = field(offset_of!(RawInode, dtime));
        if !is_in_use(bytes) {
            let mode = field(offset_of!(RawInode, mode)) & 0xffff;
            if mode != 0 && deleted_at == 0 && !reserved {
                self.findings.add(format!("inode {number}: it has neither links nor a time of deletion"));
            }
            if number == BAD_BLOCKS {
                return self.bad_blocks(bytes, offset);
            }
            return Ok(());
        }
        let Some(fact) = self.facts.of(number) else { return Ok(()) };
        fact.in_use = true;
        let decoded = Inode::decode(bytes, sb, number, offset);
        let Some(inode) = self.findings.take(decoded)? else { return Ok(()) };
        if deleted_at != 0 {
            self.findings.add(format!("inode {number}: it is in use, but has a time of deletion"));
        }
        let is_orphan_file =
            sb.compat.contains(Compat::ORPHAN_FILE) && number == self.raw.orphan_file_inum.get();
        if let Some(fact) = self.facts.of(number) {
            fact.kind = inode.mode.to_be_bytes()[0] >> 4;
            fact.links = inode.links;
            fact.nameless |= is_orphan_file || inode.flags.contains(InodeFlags::EA_INODE);
        }
        self.space_of(&inode)?;
        self.attributes_of(&inode)?;
        if inode.is_dir() && !reserved {
            self.directories.insert(number, Directory::default());
        }
        if inode.file_type == FileType::Symlink {
            let read = symlink::read(volume, &OpenInode::new(inode));
            self.findings.take(read)?;
        }
        Ok(())
    }

    /// The list of bad blocks is a map in an inode without links.
    fn bad_blocks(&mut self, bytes: &[u8], offset: u64) -> Result<()> {
        let mut copy = bytes.to_vec();
        for (at, value) in [(offset_of!(RawInode, mode), 0x8180u16), (offset_of!(RawInode, links_count), 1)] {
            if let Some(field) = copy.get_mut(at..at + 2) {
                field.copy_from_slice(&value.to_le_bytes());
            }
        }
        crate::inode_edit::seal(&mut copy, &self.volume.sb, BAD_BLOCKS);
        let decoded = Inode::decode(&copy, &self.volume.sb, BAD_BLOCKS, offset);
        if let Some(inode) = self.findings.take(decoded)? {
            self.walk(&inode)?;
        }
        Ok(())
    }

    /// Claims all blocks of a map; `None` if it is damaged, which is said.
    fn walk(&mut self, inode: &Inode) -> Result<Option<Space>> {
        let mut space = Space::default();
        let (volume, claims) = (self.volume, &mut self.claims);
        // The resize inode's blocks are those kept for descriptors, but for the first.
        let is_resize = inode.number == RESIZE;
        let mut claim = |space: &mut Space, block: u64| {
            space.blocks += 1;
            let is_new = claims.claim(block);
            if !is_new && !is_resize {
                space.shared.get_or_insert(block);
                space.shared_count += 1;
            }
            is_new
        };
        let walked = walk::each(volume, inode, &mut |owned| {
            Ok(match owned {
                Owned::Node(node) => claim(&mut space, node) || is_resize,
                Owned::Data { logical, physical, len, written } => {
                    for block in physical..physical + len {
                        claim(&mut space, block);
                    }
                    space.end = space.end.max(logical + len);
                    if written {
                        space.written_end = space.written_end.max(logical + len);
                    }
                    true
                }
            })
        });
        let is_whole = self.findings.take(walked)?.is_some();
        if let Some(block) = space.shared {
            self.findings.add(format!(
                "inode {}: {} of its blocks, block {block} first, belong to something else, too",
                inode.number, space.shared_count
            ));
        }
        Ok(is_whole.then_some(space))
    }

    fn space_of(&mut self, inode: &Inode) -> Result<()> {
        let sb = &self.volume.sb;
        let number = inode.number;
        let Some(mut space) = self.walk(inode)? else { return Ok(()) };
        if inode.xattr_block != 0 {
            space.blocks += 1;
        }
        let taken = space.blocks * u64::from(sb.block_size / 512);
        // Values of attributes in inodes of their own are counted with the file, too.
        if taken != inode.blocks_512 && !sb.incompat.contains(Incompat::EA_INODE) {
            self.findings.add_soft(format!(
                "inode {number}: it says that it takes {} sectors, and takes {taken}",
                inode.blocks_512
            ));
            self.fixes.spaces.insert(number, taken);
        }
        let block_size = u64::from(sb.block_size);
        if !content::has_map(self.volume, inode) || number == RESIZE {
            return Ok(());
        }
        let is_wrong = match inode.file_type {
            FileType::Directory => {
                !inode.size.is_multiple_of(block_size) || inode.size / block_size != space.end
            }
            FileType::Regular => space.written_end > 0 && inode.size < (space.written_end - 1) * block_size,
            _ => false,
        };
        if is_wrong {
            self.findings.add(format!(
                "inode {number}: its size is {} bytes, but its map goes up to block {}",
                inode.size, space.end
            ));
        }
        if let JournalPlace::Inode(journal) = sb.journal
            && journal == number
            && (inode.file_type != FileType::Regular || inode.size == 0)
        {
            self.findings.add(format!("inode {number}: the journal is no regular file with content"));
        }
        Ok(())
    }

    fn attributes_of(&mut self, inode: &Inode) -> Result<()> {
        let volume = self.volume;
        let listed = xattr::list(volume, inode);
        self.findings.take(listed)?;
        if inode.xattr_block == 0 {
            return Ok(());
        }
        if !volume.sb.holds(inode.xattr_block, 1) {
            return Ok(());
        }
        match self.xattrs.get_mut(&inode.xattr_block) {
            Some((_, found)) => *found += 1,
            None => {
                if !self.claims.claim(inode.xattr_block) {
                    self.findings.add(format!(
                        "inode {}: its block of attributes, {}, belongs to something else, too",
                        inode.number, inode.xattr_block
                    ));
                }
                let block = self.findings.take(xattr::block_of(volume, inode))?.flatten();
                let stored = block.and_then(|b| b.bytes.get(4..).and_then(|b| b.first_chunk()).copied());
                if let Some(stored) = stored {
                    self.xattrs.insert(inode.xattr_block, (u32::from_le_bytes(stored), 1));
                }
            }
        }
        Ok(())
    }

    /// Compares the references that blocks of attributes count with those that were found.
    pub(super) fn count_references(&mut self) {
        let mut wrong: Vec<_> = self.xattrs.iter().filter(|(_, (stored, found))| stored != found).collect();
        wrong.sort_unstable();
        for (block, (stored, found)) in wrong {
            self.findings.add(format!(
                "block {block} of extended attributes: it counts {stored} inodes, but {found} have it"
            ));
        }
    }
}
