//! Disks as a fuzzer's input: only what is not zeros is in it.
//!
//! A disk is its number of sectors of 512 bytes (u32), how many blocks follow (u8), and the blocks: which checksum is made
//! to fit (u8, see [`crate::seal`]), the sector (u32), and 512 bytes, or 4096 where there is such a checksum.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use vmcraft_block::{BlockDevice, Discard, MapExtents, check_range};

use crate::seal::seal;

const SECTOR: usize = 512;
/// What may be written to one disk: a decoder that writes more than this has lost its bearings.
const MOST_WRITTEN: usize = 16384;

/// A disk that keeps the sectors that are not zeros.
pub struct Disk {
    size: u64,
    sectors: Mutex<BTreeMap<u64, [u8; SECTOR]>>,
}

impl Disk {
    /// A disk of zeros.
    pub fn new(size: u64) -> Arc<Self> {
        Arc::new(Self { size, sectors: Mutex::default() })
    }

    fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let at = offset + done as u64;
            let within = (at % SECTOR as u64) as usize;
            let part = (SECTOR - within).min(len - done);
            let range = done..done + part;
            done += part;
            (part > 0).then_some((at / SECTOR as u64, within, range))
        })
    }
}

impl BlockDevice for Disk {
    fn size(&self) -> u64 {
        self.size
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size, "a read")?;
        let sectors = self.sectors.lock().unwrap_or_else(PoisonError::into_inner);
        buf.fill(0);
        let (first, end) = (offset / SECTOR as u64, (offset + buf.len() as u64).div_ceil(SECTOR as u64));
        for (sector, bytes) in sectors.range(first..end) {
            let start = (sector * SECTOR as u64).max(offset);
            let stop = ((sector + 1) * SECTOR as u64).min(offset + buf.len() as u64);
            let from = (start - sector * SECTOR as u64) as usize;
            let len = (stop - start) as usize;
            buf[(start - offset) as usize..][..len].copy_from_slice(&bytes[from..from + len]);
        }
        Ok(())
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        check_range(offset, buf.len() as u64, self.size, "a write")?;
        let mut sectors = self.sectors.lock().unwrap_or_else(PoisonError::into_inner);
        if sectors.len() > MOST_WRITTEN {
            return Err(io::ErrorKind::StorageFull.into());
        }
        for (sector, within, range) in Self::parts(offset, buf.len()) {
            let bytes = sectors.entry(sector).or_insert([0; SECTOR]);
            bytes[within..within + range.len()].copy_from_slice(&buf[range]);
        }
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn logical_sector_size(&self) -> u32 {
        512
    }
    fn extents(&self) -> Option<&dyn MapExtents> {
        None
    }
    fn discard(&self) -> Option<&dyn Discard> {
        Some(self)
    }
}

impl Discard for Disk {
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.size, "a discard")
    }
    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.size, "a write of zeros")?;
        let end = offset + len;
        self.sectors.lock().unwrap_or_else(PoisonError::into_inner).retain(|sector, _| {
            let start = sector * SECTOR as u64;
            start < offset || start + SECTOR as u64 > end
        });
        Ok(())
    }
}

/// The disks of an input, four at most.
pub fn decode(mut input: &[u8]) -> Vec<Arc<Disk>> {
    let mut disks = Vec::new();
    while disks.len() < 4 {
        let Some((head, mut rest)) = input.split_at_checked(5) else { break };
        let size = u64::from(u32::from_le_bytes([head[0], head[1], head[2], head[3]])) * SECTOR as u64;
        let disk = Disk::new(size);
        for _ in 0..head[4] {
            let Some((head, after)) = rest.split_at_checked(5) else { break };
            let len = if head[0] == 0 { SECTOR } else { 8 * SECTOR };
            let Some((bytes, after)) = after.split_at_checked(len) else { break };
            let sector = u64::from(u32::from_le_bytes([head[1], head[2], head[3], head[4]]));
            let mut bytes = bytes.to_vec();
            seal(head[0], &mut bytes);
            let _ = disk.write_at(sector * SECTOR as u64, &bytes);
            rest = after;
        }
        disks.push(disk);
        input = rest;
    }
    disks
}

/// An input of these disks, with those of their blocks that come first and last. `kind` says which checksum a
/// block of 4096 bytes has.
pub fn encode(disks: &[Vec<u8>], kind: impl Fn(&[u8]) -> u8) -> Vec<u8> {
    let mut input = Vec::new();
    for disk in disks {
        let mut blocks = Vec::new();
        for (index, block) in disk.chunks(8 * SECTOR).enumerate() {
            let sector = u32::try_from(index * 8).expect("a small disk");
            match if block.len() == 8 * SECTOR { kind(block) } else { 0 } {
                0 => blocks.extend(
                    (sector..)
                        .zip(block.chunks_exact(SECTOR))
                        .filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0))
                        .map(|(sector, bytes)| (0, sector, bytes)),
                ),
                kind => blocks.push((kind, sector, block)),
            }
        }
        // What is between is content, which has no structure.
        let (head, tail) = (blocks.len().min(40), 12);
        let kept: Vec<_> = blocks
            .iter()
            .enumerate()
            .filter(|(index, _)| *index < head || index + tail >= blocks.len())
            .map(|(_, block)| block)
            .collect();
        input.extend(u32::try_from(disk.len() / SECTOR).expect("a small disk").to_le_bytes());
        input.push(u8::try_from(kept.len()).expect("52 at most"));
        for (kind, sector, bytes) in kept {
            input.push(*kind);
            input.extend(sector.to_le_bytes());
            input.extend(*bytes);
        }
    }
    input
}
