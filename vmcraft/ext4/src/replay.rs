//! Replaying a journal into memory.
//!
//! What a journal holds is not copied. The log stays where it is, and a device is laid over the
//! volume that reads each journalled block from its newest copy in the log. So memory is bounded by
//! the number of blocks in the log, and the device is never written.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use vmcraft_block::{BlockDevice, Discard, MapExtents};
use vmcraft_fs::{Error, FileType, Result, Sources};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::checksum::crc32_be;
use crate::inode::InodeFlags;
use crate::journal::{
    self, JournalFeatures, JournalSuperblock, RawCommit, RawHeader, RawSuperblock, Tag, block_type,
};
use crate::map::{OpenInode, RunKind};
use crate::superblock::Superblock;
use crate::volume::Volume;
use crate::{corrupt, in_memory};

/// The most copies that we keep track of: 8 GiB of journal in blocks of 4 KiB, beyond the largest that
/// `mke2fs` chooses.
const MOST_COPIES: usize = 2 << 20;

/// The most revoke blocks that are looked at: at some 500 blocks each, far more than any log needs.
const MOST_REVOKES: usize = 1 << 16;

/// The longest log in blocks that e2fsprogs makes. The blocks of a forged journal can all be the
/// same one, so the volume's size alone is no bound.
const LONGEST: u32 = 10_240_000;

/// Replays the journal in inode `number` of a volume; `None` if its log is empty.
pub(crate) fn replay(
    device: &Arc<dyn BlockDevice>,
    sb: &Superblock,
    number: u32,
) -> Result<Option<Replayed>> {
    try_replay(device, sb, number).map_err(|error| match error {
        Error::Corrupt { what, offset } => {
            corrupt(format!("journal: {what}; the mount option noload goes without it"), offset)
        }
        other => other,
    })
}

fn try_replay(device: &Arc<dyn BlockDevice>, sb: &Superblock, number: u32) -> Result<Option<Replayed>> {
    let journal = Journal::open(device, sb, number)?;
    let Some((block, sequence)) = journal.sb.start else {
        return Ok(None);
    };
    let log = journal.scan(block, sequence)?;
    journal.check_fast_commits(log.end)?;
    let copies = journal.resolve(log)?;
    Ok(Some(Replayed { device: device.clone(), block_size: sb.block_size.into(), copies }))
}

/// The number of the error that the journal in inode `number` notes, 0 if none.
pub(crate) fn noted_error(device: &Arc<dyn BlockDevice>, sb: &Superblock, number: u32) -> Result<u32> {
    Ok(Journal::open(device, sb, number)?.raw.errno.get())
}

/// Empties the log of the journal in inode `number`, as an unmount does. What it held must be on the
/// device, or is dropped.
pub(crate) fn empty(device: &Arc<dyn BlockDevice>, sb: &Superblock, number: u32) -> Result<()> {
    let journal = Journal::open(device, sb, number)?;
    let Some((block, sequence)) = journal.sb.start else {
        return Ok(());
    };
    // The next transaction must not be taken for one that is in the log.
    let end = journal.scan(block, sequence)?.end;
    let mut raw = journal.raw.clone();
    raw.start = 0.into();
    raw.sequence = end.wrapping_add(1).into();
    raw.seal();
    let at = sb.byte_of(block_of(&journal.volume, &journal.inode, 0)?);
    Ok(device.write_at(at, raw.as_bytes())?)
}

/// Whether transaction `a` is later than `b`: their numbers wrap around.
fn later(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

/// A copy of a block, in the log.
#[derive(Clone, Copy)]
struct Copy {
    tag: Tag,
    sequence: u32,
    /// The block of the journal that holds it.
    source: u32,
}

/// What the log holds.
struct Log {
    copies: Vec<Copy>,
    /// Revoke blocks: their block of the journal, and their transaction.
    revokes: Vec<(u32, u32)>,
    /// The first transaction that is not committed.
    end: u32,
}

/// An open journal.
struct Journal {
    volume: Volume,
    inode: OpenInode,
    raw: RawSuperblock,
    sb: JournalSuperblock,
}

impl Journal {
    fn open(device: &Arc<dyn BlockDevice>, sb: &Superblock, number: u32) -> Result<Self> {
        let volume = Volume::new(device.clone(), sb.clone(), Sources::default());
        let inode = OpenInode::new(volume.any_inode(number)?);
        if inode.file_type != FileType::Regular || inode.flags.contains(InodeFlags::INLINE_DATA) {
            return Err(inode.corrupt("not a regular file of blocks"));
        }
        let mut raw = RawSuperblock::new_zeroed();
        let offset = sb.byte_of(block_of(&volume, &inode, 0)?);
        device.read_at(offset, raw.as_mut_bytes())?;
        let len = inode.size / u64::from(sb.block_size);
        let sb = JournalSuperblock::decode(&raw, sb.block_size, len, offset)?;
        if u64::from(sb.last) > volume.sb.blocks {
            let what = format!("journal superblock: {} blocks, on a volume of {}", sb.last, volume.sb.blocks);
            return Err(corrupt(what, offset));
        }
        if sb.last > LONGEST {
            return Err(Error::Unsupported(format!("a journal of {} blocks, over {LONGEST}", sb.last)));
        }
        Ok(Self { volume, inode, raw, sb })
    }

    fn read(&self, block: u32, buf: &mut [u8]) -> Result<()> {
        let physical = block_of(&self.volume, &self.inode, block.into())?;
        Ok(self.volume.device.read_at(self.volume.sb.byte_of(physical), buf)?)
    }

    fn buffer(&self) -> Vec<u8> {
        vec![0; self.volume.sb.block_size as usize]
    }

    fn corrupt(&self, what: String, block: u32) -> Error {
        let offset =
            block_of(&self.volume, &self.inode, block.into()).map_or(0, |b| self.volume.sb.byte_of(b));
        corrupt(what, offset)
    }

    /// Goes through the log from `block`, which begins transaction `sequence`, to its end: the first
    /// block that does not go on with it.
    fn scan(&self, mut block: u32, mut sequence: u32) -> Result<Log> {
        let mut log = Log { copies: Vec::new(), revokes: Vec::new(), end: sequence };
        let mut buf = self.buffer();
        let mut left = self.sb.last - self.sb.first;
        let mut crc = !0; // of the transaction so far
        // A checksum that is wrong may be of a block that an older round through the log left. The
        // time of the commit that follows tells.
        let mut doubtful = false;
        let mut last_commit = 0;
        let (mut copies, mut revokes) = (log.copies.len(), log.revokes.len());
        while left > 0 {
            self.read(block, &mut buf)?;
            let Ok((header, _)) = RawHeader::ref_from_prefix(&buf) else { break };
            if header.magic.get() != journal::MAGIC || header.sequence.get() != sequence {
                break;
            }
            let here = block;
            block = self.sb.after(block);
            left -= 1;
            match header.blocktype.get() {
                block_type::DESCRIPTOR => {
                    doubtful |= !self.sb.verify_tail(&buf);
                    if self.sb.commit_crc32 {
                        crc = crc32_be(crc, &buf);
                    }
                    for tag in journal::tags(&self.sb, &buf) {
                        if left == 0 {
                            return Err(
                                self.corrupt(format!("transaction {sequence} is longer than the log"), here)
                            );
                        }
                        log.copies.push(Copy { tag, sequence, source: block });
                        if self.sb.commit_crc32 {
                            self.read(block, &mut buf)?;
                            crc = crc32_be(crc, &buf);
                        }
                        block = self.sb.after(block);
                        left -= 1;
                    }
                    if log.copies.len() > MOST_COPIES {
                        return Err(Error::Unsupported(format!("a journal of over {MOST_COPIES} blocks")));
                    }
                }
                block_type::REVOKE => {
                    doubtful |= !self.sb.verify_tail(&buf);
                    log.revokes.push((here, sequence));
                    if log.revokes.len() > MOST_REVOKES {
                        return Err(Error::Unsupported(format!(
                            "a journal of over {MOST_REVOKES} revoke blocks"
                        )));
                    }
                }
                block_type::COMMIT => {
                    let Ok((commit, _)) = RawCommit::ref_from_prefix(&buf) else { break };
                    let stale = commit.seconds() < last_commit;
                    let valid = if self.sb.commit_crc32 {
                        commit.verify_crc32(crc)
                    } else {
                        self.sb.verify_commit(&buf)
                    };
                    if (doubtful || !valid) && stale {
                        break;
                    }
                    if doubtful {
                        let what = format!("a checksum in transaction {sequence} is wrong");
                        return Err(self.corrupt(what, here));
                    }
                    if !valid {
                        if self.sb.features.contains(JournalFeatures::ASYNC_COMMIT) {
                            // The commit block may have come to the disk before the rest.
                            break;
                        }
                        let what = format!("the checksum of the commit of transaction {sequence} is wrong");
                        return Err(self.corrupt(what, here));
                    }
                    last_commit = commit.seconds();
                    sequence = sequence.wrapping_add(1);
                    crc = !0;
                    (copies, revokes) = (log.copies.len(), log.revokes.len());
                }
                _ => break,
            }
        }
        // What is not committed never happened.
        log.copies.truncate(copies);
        log.revokes.truncate(revokes);
        log.end = sequence;
        Ok(log)
    }

    /// Refuses fast commits that go on where the log ends.
    fn check_fast_commits(&self, end: u32) -> Result<()> {
        if !self.sb.features.contains(JournalFeatures::FAST_COMMIT) {
            return Ok(());
        }
        let mut buf = self.buffer();
        // Linux leaves one block unused between the log and them.
        self.read(self.sb.last + 1, &mut buf)?;
        if journal::fast_commit(&buf) == Some(end) {
            return Err(Error::Unsupported(
                "fast_commit: the journal holds fast commits, which only a mount by Linux or e2fsck can replay"
                    .into(),
            ));
        }
        Ok(())
    }

    /// The newest copy of each block that was not revoked later, in order of the blocks: the block
    /// of the volume, that of its copy, and whether the copy is escaped.
    fn resolve(&self, log: Log) -> Result<Vec<(u64, u64, bool)>> {
        let Log { mut copies, revokes, .. } = log;
        copies.sort_by_key(|c| c.tag.block); // stable: copies of a block stay in the log's order
        let mut buf = self.buffer();
        let mut revoked_in: HashMap<u64, u32> = HashMap::new();
        for (block, sequence) in revokes {
            self.read(block, &mut buf)?;
            let Some(blocks) = journal::revoked(&self.sb, &buf) else {
                return Err(
                    self.corrupt(format!("a revoke block of transaction {sequence} is damaged"), block)
                );
            };
            for block in blocks {
                // Only what has a copy matters, which bounds the memory.
                if copies.binary_search_by_key(&block, |c| c.tag.block).is_ok() {
                    revoked_in.insert(block, sequence); // in the log's order: the last one counts
                }
            }
        }
        let mut resolved: Vec<(u64, u64, bool)> = Vec::new();
        for copy in copies {
            let target = copy.tag.block;
            if revoked_in.get(&target).is_some_and(|&r| !later(copy.sequence, r)) {
                continue;
            }
            if target >= self.volume.sb.blocks {
                let what = format!("a copy of block {target} of {}", self.volume.sb.blocks);
                return Err(self.corrupt(what, copy.source));
            }
            if self.sb.checksums() {
                self.read(copy.source, &mut buf)?;
                if !self.sb.verify_copy(&copy.tag, copy.sequence, &buf) {
                    let what = format!("the checksum of a copy of block {target} is wrong");
                    return Err(self.corrupt(what, copy.source));
                }
            }
            let source = block_of(&self.volume, &self.inode, copy.source.into())?;
            let entry = (target, source, copy.tag.escaped);
            match resolved.last_mut() {
                Some(last) if last.0 == target => *last = entry,
                _ => resolved.push(entry),
            }
        }
        Ok(resolved)
    }
}

/// The block of the volume that holds a block of the journal.
fn block_of(volume: &Volume, inode: &OpenInode, block: u64) -> Result<u64> {
    let run = inode.run(volume, block)?;
    match run.kind {
        RunKind::Data(first) => Ok(first + (block - run.start)),
        _ => Err(inode.corrupt(format_args!("the file has no block {block}"))),
    }
}

/// The volume as its journal leaves it. Read-only.
pub(crate) struct Replayed {
    device: Arc<dyn BlockDevice>,
    block_size: u64,
    /// In order of the blocks: a block, the block of its copy, and whether the copy is escaped.
    copies: Vec<(u64, u64, bool)>,
}

impl Replayed {
    /// Brings what the journal holds to the device.
    pub(crate) fn write_back(&self) -> Result<()> {
        let mut block = vec![0; in_memory(self.block_size)];
        for &(target, ..) in &self.copies {
            let at = target * self.block_size;
            self.read_at(at, &mut block)?;
            self.device.write_at(at, &block)?;
        }
        Ok(())
    }
}

impl BlockDevice for Replayed {
    fn size(&self) -> u64 {
        self.device.size()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let size = self.block_size;
        let mut done = 0;
        let mut next = self.copies.partition_point(|c| (c.0 + 1) * size <= offset);
        while done < buf.len() {
            let at = offset + done as u64;
            let left = (buf.len() - done) as u64;
            let copy = self.copies.get(next).filter(|c| c.0 * size < at.saturating_add(left));
            let (from, end) = match copy {
                // Up to the next block that has a copy.
                Some(c) if c.0 * size > at => (at, c.0 * size),
                Some(c) => (c.1 * size + (at - c.0 * size), (c.0 + 1) * size),
                None => (at, at.saturating_add(left)),
            };
            // At most what is left of a buffer in memory.
            let len = in_memory((end - at).min(left));
            let piece = &mut buf[done..done + len];
            self.device.read_at(from, piece)?;
            if let Some(&(block, _, escaped)) = copy.filter(|c| c.0 * size <= at) {
                next += 1;
                if escaped {
                    unescape(piece, at - block * size);
                }
            }
            done += len;
        }
        Ok(())
    }

    fn write_at(&self, _offset: u64, _buf: &[u8]) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "a replayed journal is read-only"))
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn is_read_only(&self) -> bool {
        true
    }

    fn logical_sector_size(&self) -> u32 {
        self.device.logical_sector_size()
    }

    fn extents(&self) -> Option<&dyn MapExtents> {
        None
    }

    fn discard(&self) -> Option<&dyn Discard> {
        None
    }
}

/// Puts the magic back that an escaped copy begins with. `piece` is what follows its first `skip`
/// bytes.
fn unescape(piece: &mut [u8], skip: u64) {
    let magic = journal::MAGIC.to_be_bytes();
    let skip = in_memory(skip);
    for (byte, original) in piece.iter_mut().zip(magic.get(skip..).unwrap_or_default()) {
        *byte = *original;
    }
}
