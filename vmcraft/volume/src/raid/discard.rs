//! Giving space back.
//!
//! Copies must stay alike, and parity must fit, so what is discarded there is made zeros on all members: of zeros,
//! the parity is zeros. That is done only where zeros take no space. Where parity is, it is done in whole stripes.

use std::io;
use std::ops::Range;

use vmcraft_block::{BlockDevice, Discard, check_range};

use super::device::RaidDevice;
use super::geometry::Map;
use crate::dm::write_zeroes;

/// How many zeros are written at once where they are to be on the members as data.
const ZEROES: usize = 256 << 10;

impl RaidDevice {
    /// Whether zeros give the space back on all members: what has holes reads as zeros in them.
    fn has_holes(&self) -> bool {
        self.members().present().all(|member| member.discard().is_some() && member.extents().is_some())
    }

    /// Makes zeros of a range on all members that have it, for levels without parity.
    fn zero_copies(&self, offset: u64, len: u64) -> io::Result<()> {
        let _locks = self.locks().write_all();
        self.each_copy(offset, len, |device, at, run| write_zeroes(device, at, run))
    }

    /// Makes zeros of whole stripes, with their parity.
    fn zero_stripes(&self, chunk: u64, stripes: Range<u64>) -> io::Result<()> {
        let _locks = self.locks().write_all();
        let end = stripes.end * chunk;
        for member in 0..self.members().0.len() {
            let mut at = stripes.start * chunk;
            while at < end {
                let run = self.members().uniform(member, at, end - at);
                if let Some(member) = self.members().at(member, at) {
                    write_zeroes(&*member.device, at, run)?;
                }
                at += run;
            }
        }
        Ok(())
    }

    /// Writes zeros as any other data.
    fn write_plain_zeroes(&self, range: Range<u64>) -> io::Result<()> {
        let zeroes = vec![0; usize::try_from(range.end - range.start).unwrap_or(ZEROES).min(ZEROES)];
        let mut at = range.start;
        while at < range.end {
            let len = usize::try_from(range.end - at).unwrap_or(ZEROES).min(ZEROES);
            self.write_at(at, &zeroes[..len])?;
            at += len as u64;
        }
        Ok(())
    }
}

impl Discard for RaidDevice {
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.size(), "a discard")?;
        self.check_writable()?;
        match self.map() {
            Map::Zones(_) => self.each_copy(offset, len, |device, at, run| match device.discard() {
                Some(below) => below.discard(at, run),
                None => Ok(()),
            }),
            Map::Parity { placement, chunk } if self.has_holes() => {
                let stripe = chunk * placement.data_members() as u64; // no more than the array's size
                let stripes = offset.div_ceil(stripe)..(offset + len) / stripe;
                if stripes.is_empty() { Ok(()) } else { self.zero_stripes(*chunk, stripes) }
            }
            Map::Mirror { .. } | Map::Raid10 { .. } if self.has_holes() => self.zero_copies(offset, len),
            Map::Parity { .. } | Map::Mirror { .. } | Map::Raid10 { .. } => Ok(()),
        }
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        check_range(offset, len, self.size(), "a write of zeros")?;
        self.check_writable()?;
        let end = offset + len;
        let Map::Parity { placement, chunk } = self.map() else { return self.zero_copies(offset, len) };
        let stripe = chunk * placement.data_members() as u64; // no more than the array's size
        let stripes = offset.div_ceil(stripe)..end / stripe;
        if stripes.is_empty() || !self.has_holes() {
            return self.write_plain_zeroes(offset..end);
        }
        self.write_plain_zeroes(offset..stripes.start * stripe)?;
        self.zero_stripes(*chunk, stripes.clone())?;
        self.write_plain_zeroes(stripes.end * stripe..end)
    }
}
