//! From a byte of a file to a byte of the volume.

use std::ops::{Deref, DerefMut};
use std::sync::Mutex;

use vmcraft_fs::{Error, FileType, Result};

use crate::inode::{Inode, InodeFlags};
use crate::volume::Volume;
use crate::{blockmap, extent, in_memory, inline};

/// Consecutive blocks of a file that are of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// The first block of the file.
    pub(crate) start: u64,
    /// How many; never 0.
    pub(crate) len: u64,
    pub(crate) kind: RunKind,
}

/// What a run of blocks is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunKind {
    /// At consecutive blocks of the volume, all within it, from this one.
    Data(u64),
    /// Allocated, but reads as zeros.
    Unwritten,
    /// Not allocated.
    Hole,
}

impl Run {
    pub(crate) fn end(&self) -> u64 {
        self.start + self.len
    }

    pub(crate) fn contains(&self, block: u64) -> bool {
        (self.start..self.end()).contains(&block)
    }
}

/// An inode, with where it was read last.
pub(crate) struct OpenInode {
    inode: Inode,
    last: Mutex<Run>,
}

impl Deref for OpenInode {
    type Target = Inode;
    fn deref(&self) -> &Inode {
        &self.inode
    }
}

impl DerefMut for OpenInode {
    fn deref_mut(&mut self) -> &mut Inode {
        // What changes may be the map.
        *self.last.get_mut().unwrap_or_else(|e| e.into_inner()) = NOWHERE;
        &mut self.inode
    }
}

/// The empty run, which contains nothing.
const NOWHERE: Run = Run { start: 0, len: 0, kind: RunKind::Hole };

impl OpenInode {
    pub(crate) fn new(inode: Inode) -> Self {
        Self { inode, last: Mutex::new(NOWHERE) }
    }

    /// The run that holds block `block` of the file.
    pub(crate) fn run(&self, volume: &Volume, block: u64) -> Result<Run> {
        let mut last = self.last.lock().unwrap_or_else(|e| e.into_inner());
        if !last.contains(block) {
            *last = map(volume, &self.inode, block)?;
        }
        Ok(*last)
    }
}

/// The run that holds block `block` of a file that is not inline.
pub(crate) fn map(volume: &Volume, inode: &Inode, block: u64) -> Result<Run> {
    // The last number cannot be the end of an extent.
    let Some(block) = u32::try_from(block).ok().filter(|&b| b < u32::MAX) else {
        return Err(inode.corrupt(format_args!("block {block} is past what a file can have")));
    };
    if inode.flags.contains(InodeFlags::EXTENTS) {
        extent::map(volume, inode, block)
    } else {
        blockmap::map(volume, inode, block)
    }
}

/// Refuses content that cannot be read without a key or a check that we do not make.
pub(crate) fn check_readable(inode: &Inode) -> Result<()> {
    if inode.flags.contains(InodeFlags::ENCRYPT) {
        return Err(Error::Unsupported(format!("encrypted content (fscrypt, inode {})", inode.number)));
    }
    if inode.flags.contains(InodeFlags::VERITY) && inode.file_type == FileType::Regular {
        return Err(Error::Unsupported(format!("content protected by fs-verity (inode {})", inode.number)));
    }
    Ok(())
}

/// Reads from byte `offset`; fewer than asked only at the end.
pub(crate) fn read(volume: &Volume, inode: &OpenInode, offset: u64, buf: &mut [u8]) -> Result<usize> {
    let left = inode.size.saturating_sub(offset);
    let len = in_memory(left).min(buf.len());
    let buf = &mut buf[..len];
    if len == 0 {
        return Ok(0);
    }
    if inode.flags.contains(InodeFlags::INLINE_DATA) {
        inline::read(volume, inode, offset, buf)?;
        return Ok(len);
    }
    let block_size = u64::from(volume.sb.block_size);
    let mut done = 0;
    while done < len {
        let at = offset + done as u64;
        let run = inode.run(volume, at / block_size)?;
        let run_end = run.end().saturating_mul(block_size);
        let piece = in_memory(run_end - at).min(len - done);
        let target = &mut buf[done..done + piece];
        match run.kind {
            RunKind::Data(first) => {
                let byte = volume.sb.byte_of(first) + (at - run.start * block_size);
                volume.device.read_at(byte, target)?;
            }
            RunKind::Unwritten | RunKind::Hole => target.fill(0),
        }
        done += piece;
    }
    Ok(len)
}

/// The most runs that one [`next_data`] joins: a bound on what it does at once.
const MOST_RUNS: usize = 100_000;

/// The next data at or after byte `offset`: where it starts and ends.
pub(crate) fn next_data(volume: &Volume, inode: &OpenInode, offset: u64) -> Result<Option<(u64, u64)>> {
    if offset >= inode.size {
        return Ok(None);
    }
    if inode.flags.contains(InodeFlags::INLINE_DATA) {
        return Ok(Some((offset, inode.size)));
    }
    let block_size = u64::from(volume.sb.block_size);
    let end_block = inode.size.div_ceil(block_size);
    let mut block = offset / block_size;
    let mut start = None;
    let mut steps = 0;
    while block < end_block {
        let run = inode.run(volume, block)?;
        match (run.kind, start) {
            (RunKind::Data(_), None) => start = Some((block * block_size).max(offset)),
            (RunKind::Data(_), Some(_)) if steps < MOST_RUNS => (),
            (RunKind::Hole | RunKind::Unwritten, None) => (),
            (_, Some(_)) => break,
        }
        block = run.end();
        steps += 1;
    }
    Ok(start.map(|start| (start, block.saturating_mul(block_size).min(inode.size))))
}
