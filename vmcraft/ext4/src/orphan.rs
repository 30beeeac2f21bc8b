//! Orphans: files that were deleted while they were open, or that were being cut off, when the volume
//! was last in use.
//!
//! They are in a list, which begins in the superblock and goes on in each inode's `i_dtime`, and with
//! `orphan_file` in a file of inode numbers. Before the first change those without a name are deleted
//! and the others are cut off at their size, as the kernel does when it mounts.
//!
//! Spec: Linux `Documentation/filesystems/ext4/orphan.rst`.

use std::collections::HashSet;
use std::mem::offset_of;

use vmcraft_fs::Result;

use crate::checksum::crc32c;
use crate::features::{Compat, RoCompat};
use crate::inode::{Inode, RawInode};
use crate::map::{OpenInode, RunKind};
use crate::superblock::{RawSuperblock, START, state};
use crate::volume::Volume;
use crate::{content, corrupt, namespace};

/// The longest orphan file in blocks that Linux takes.
const LONGEST_FILE: u64 = 512;
/// `ob_magic`.
const MAGIC: u32 = 0x0b10_ca04;
/// What a block of the file ends with: the magic number and a checksum.
const TAIL: usize = 8;

/// Whether there are orphans.
pub(crate) fn any(volume: &Volume) -> Result<bool> {
    let raw = volume.raw_superblock()?;
    Ok(raw.last_orphan.get() != 0 || has_file(volume))
}

fn has_file(volume: &Volume) -> bool {
    let sb = &volume.sb;
    sb.compat.contains(Compat::ORPHAN_FILE) && sb.ro_compat.contains(RoCompat::ORPHAN_PRESENT)
}

/// Finishes with all orphans.
pub(crate) fn clean_up(volume: &Volume) -> Result<()> {
    let raw = volume.raw_superblock()?;
    let mut seen = HashSet::new();
    let mut next = raw.last_orphan.get();
    while next != 0 {
        let (inode, after) = orphan(volume, next)?;
        if !seen.insert(next) {
            return Err(inode.corrupt("the list of orphans comes back to it"));
        }
        finish(volume, inode)?;
        next = after;
    }
    if has_file(volume) {
        empty_file(volume, raw.orphan_file_inum.get())?;
    }
    volume.edit_superblock(|raw| {
        raw.last_orphan = 0.into();
        raw.state = (raw.state.get() & !state::ORPHANS).into();
        let features = RoCompat::from_bits_retain(raw.feature_ro_compat.get()) - RoCompat::ORPHAN_PRESENT;
        raw.feature_ro_compat = features.bits().into();
    })
}

/// An orphan, and the next one of the list that it is in.
fn orphan(volume: &Volume, number: u32) -> Result<(Inode, u32)> {
    const NEXT: usize = offset_of!(RawInode, dtime);
    let sb = &volume.sb;
    if number < sb.first_inode || number > sb.inodes {
        let at = START + offset_of!(RawSuperblock, last_orphan) as u64;
        return Err(corrupt(format!("orphans: inode {number} of {}", sb.inodes), at));
    }
    let (block, range, offset) = volume.inode_bytes(number)?;
    let bytes = block.bytes.get(range).unwrap_or_default();
    let inode = Inode::decode_orphan(bytes, sb, number, offset)?;
    let next = bytes.get(NEXT..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b));
    Ok((inode, next))
}

/// Deletes what has no name, and cuts off what was being cut off.
fn finish(volume: &Volume, mut inode: Inode) -> Result<()> {
    let number = inode.number;
    if inode.links == 0 {
        return namespace::release(volume, OpenInode::new(inode));
    }
    if content::has_map(volume, &inode) {
        let size = inode.size;
        content::truncate(volume, &mut inode, size)?;
    }
    volume.edit_inode_bytes(number, |bytes| {
        const NEXT: usize = offset_of!(RawInode, dtime);
        if let Some(next) = bytes.get_mut(NEXT..NEXT + 4) {
            next.fill(0);
        }
        inode.encode(bytes, &volume.sb)
    })
}

/// Finishes with the orphans in the file, and empties it.
fn empty_file(volume: &Volume, number: u32) -> Result<()> {
    let sb = &volume.sb;
    let file = OpenInode::new(volume.any_inode(number)?);
    let blocks = file.size / u64::from(sb.block_size);
    if blocks > LONGEST_FILE {
        return Err(file.corrupt(format_args!("an orphan file of {blocks} blocks")));
    }
    for logical in 0..blocks {
        let run = file.run(volume, logical)?;
        let RunKind::Data(first) = run.kind else {
            return Err(file.corrupt(format_args!("the orphan file has no block {logical}")));
        };
        let physical = first + (logical - run.start);
        let block = volume.block(physical, || "orphan file".into())?;
        let numbers = check_block(volume, &file, &block.bytes, physical)?;
        for number in numbers {
            let (inode, _) = orphan(volume, number)?;
            finish(volume, inode)?;
        }
        volume.edit(
            physical,
            || "orphan file".into(),
            |bytes| {
                let end = bytes.len().saturating_sub(TAIL);
                bytes[..end].fill(0);
                if sb.metadata_csum() {
                    let found = checksum(&file, physical, &bytes[..end]);
                    bytes[end + 4..].copy_from_slice(&found.to_le_bytes());
                }
                Ok(())
            },
        )?;
    }
    Ok(())
}

/// The numbers in a block of the file, once its tail is verified.
fn check_block(volume: &Volume, file: &Inode, bytes: &[u8], physical: u64) -> Result<Vec<u32>> {
    let at = volume.sb.byte_of(physical);
    let (numbers, tail) = bytes.split_at(bytes.len().saturating_sub(TAIL));
    let word = |from: usize| tail.get(from..).and_then(|b| b.first_chunk()).map(|b| u32::from_le_bytes(*b));
    let end = at + numbers.len() as u64;
    if word(0) != Some(MAGIC) {
        return Err(corrupt("block of the orphan file: magic", end));
    }
    if volume.sb.metadata_csum() && word(4) != Some(checksum(file, physical, numbers)) {
        return Err(corrupt("block of the orphan file: checksum", end + 4));
    }
    let (numbers, _) = numbers.as_chunks::<4>();
    Ok(numbers.iter().map(|n| u32::from_le_bytes(*n)).filter(|&n| n != 0).collect())
}

fn checksum(file: &Inode, physical: u64, numbers: &[u8]) -> u32 {
    crc32c(crc32c(file.checksum_seed, &physical.to_le_bytes()), numbers)
}
