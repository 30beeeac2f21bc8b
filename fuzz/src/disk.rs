//! Disks as a fuzzer's input: only what is not zeros is in it.
//!
//! A disk is its number of sectors of 512 bytes (u32), how many blocks follow (u8), and the blocks: which checksum is made
//! to fit (u8, see [`crate::seal`]), the sector (u32), and 512 bytes, or 4096 where there is such a checksum. Those
//! over more than a block always are made to fit.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::device::{Hooked, Request, Sparse};
use vmcraft_block::BlockDevice;

use crate::seal::{seal, seal_disk};

const SECTOR: usize = 512;
/// How many sectors may be written to one disk: a decoder that writes more than this has lost its bearings.
const MOST_WRITTEN: usize = 16384;

/// How many blocks an input has at most.
const MOST_BLOCKS: usize = 500;

/// A disk of zeros.
pub fn disk(size: u64) -> Arc<dyn BlockDevice> {
    let written = AtomicUsize::new(0);
    let hook = move |request| match request {
        Request::Write(_, len) => {
            let sectors = usize::try_from(len).unwrap_or(usize::MAX).div_ceil(SECTOR);
            let before = written.fetch_add(sectors, Ordering::Relaxed);
            if before > MOST_WRITTEN { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
        _ => Ok(()),
    };
    Arc::new(Hooked { inner: Sparse::new(size), hook })
}

/// The disks of an input, four at most.
pub fn decode(mut input: &[u8]) -> Vec<Arc<dyn BlockDevice>> {
    let mut disks = Vec::new();
    while disks.len() < 4 {
        let Some((head, mut rest)) = input.split_at_checked(5) else { break };
        let size = u64::from(u32::from_le_bytes([head[0], head[1], head[2], head[3]])) * SECTOR as u64;
        let device = disk(size);
        for _ in 0..head[4] {
            let Some((head, after)) = rest.split_at_checked(5) else { break };
            let len = if head[0] == 0 { SECTOR } else { 8 * SECTOR };
            let Some((bytes, after)) = after.split_at_checked(len) else { break };
            let sector = u64::from(u32::from_le_bytes([head[1], head[2], head[3], head[4]]));
            let mut bytes = bytes.to_vec();
            seal(head[0], &mut bytes);
            let _ = device.write_at(sector * SECTOR as u64, &bytes);
            rest = after;
        }
        let _ = seal_disk(&*device);
        disks.push(device);
        input = rest;
    }
    disks
}

/// An input of these disks, with those blocks that `is_wanted`, by disk and sector: if there are too many, those that
/// come first and last. `kind` says which checksum a block of 4096 bytes has.
pub fn encode(
    disks: &[Vec<u8>],
    kind: impl Fn(&[u8]) -> u8,
    is_wanted: impl Fn(usize, u64) -> bool,
) -> Vec<u8> {
    let mut input = Vec::new();
    for (number, disk) in disks.iter().enumerate() {
        let mut blocks: Vec<(u8, u32, &[u8])> = Vec::new();
        for (index, block) in disk.chunks(8 * SECTOR).enumerate() {
            let sector = u32::try_from(index * 8).expect("a small disk");
            match if block.len() == 8 * SECTOR { kind(block) } else { 0 } {
                0 => blocks.extend(
                    (sector..)
                        .zip(block.chunks_exact(SECTOR))
                        .filter(|(sector, bytes)| {
                            bytes.iter().any(|byte| *byte != 0) && is_wanted(number, u64::from(*sector))
                        })
                        .map(|(sector, bytes)| (0, sector, bytes)),
                ),
                kind => blocks.push((kind, sector, block)),
            }
        }
        // What is between is most often content, which has no structure.
        let most = (MOST_BLOCKS / disks.len()).min(255);
        if blocks.len() > most {
            let head = most * 2 / 3;
            blocks.drain(head..blocks.len() - (most - head));
        }
        input.extend(u32::try_from(disk.len() / SECTOR).expect("a small disk").to_le_bytes());
        input.push(u8::try_from(blocks.len()).expect("255 at most"));
        for (kind, sector, bytes) in blocks {
            input.push(kind);
            input.extend(sector.to_le_bytes());
            input.extend(bytes);
        }
    }
    input
}
