//! Writing a layer to the disk below.

use std::io;

use super::chunk::{Body, CHUNK, GRANULE, runs};
use super::cleared::Clearing;
use super::layer::Layer;
use super::section::{Piece, granules};
use crate::BlockDevice;

/// Neighbouring content is written together, up to so many bytes.
const BATCH: usize = 1 << 20;

/// How many zeros are written at a time to a disk that cannot make zeros itself.
const ZEROS: usize = 64 << 10;

/// Writes everything that changed. The device is not flushed.
pub(super) fn apply(layer: &Layer, device: &dyn BlockDevice) -> io::Result<()> {
    for (start, end, kind) in layer.cleared(device.size()) {
        clear(device, start, end - start, kind)?;
    }
    let mut writer = Writer::new(device);
    for (index, chunk) in layer.chunks() {
        let loaded;
        let bytes = match &chunk.body {
            Body::Memory(buffer) => buffer.peek(),
            Body::Spilled(slot) => {
                loaded = slot.load(chunk.present)?;
                &loaded
            }
        };
        for (first, end) in runs(chunk.present) {
            let at = index * CHUNK + u64::from(first) * GRANULE;
            writer.write_within(at, bytes.get(granules(first, end)).unwrap_or_default())?;
        }
    }
    writer.finish()
}

/// Clears a range of a disk.
pub(super) fn clear(device: &dyn BlockDevice, offset: u64, len: u64, kind: Clearing) -> io::Result<()> {
    match (device.discard(), kind) {
        (Some(discard), Clearing::Discard) => discard.discard(offset, len),
        (Some(discard), Clearing::Zeroes) => discard.write_zeroes(offset, len),
        // What is not needed may stay.
        (None, Clearing::Discard) => Ok(()),
        (None, Clearing::Zeroes) => {
            let zeros = vec![0; ZEROS];
            let (mut at, end) = (offset, offset + len);
            while at < end {
                let n = usize::try_from(end - at).unwrap_or(ZEROS).min(ZEROS);
                device.write_at(at, &zeros[..n])?;
                at += n as u64;
            }
            Ok(())
        }
    }
}

/// Joins neighbouring writes.
pub(super) struct Writer<'a> {
    device: &'a dyn BlockDevice,
    /// Where the pending bytes begin.
    start: u64,
    pending: Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Writes to this device.
    pub(super) fn new(device: &'a dyn BlockDevice) -> Self {
        Self { device, start: 0, pending: Vec::new() }
    }

    /// Writes granules. The last one of the disk may be a short one.
    pub(super) fn write_within(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let rest = self.device.size().saturating_sub(offset);
        let len = usize::try_from(rest).map_or(data.len(), |rest| rest.min(data.len()));
        self.write(offset, data.get(..len).unwrap_or_default())
    }

    /// Makes the granules of a piece zeros.
    pub(super) fn zero(&mut self, piece: &Piece) -> io::Result<()> {
        self.send()?;
        let size = self.device.size();
        for (first, end) in runs(piece.present) {
            let at = |granule: u32| (piece.index * CHUNK + u64::from(granule) * GRANULE).min(size);
            clear(self.device, at(first), at(end) - at(first), Clearing::Zeroes)?;
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.start + self.pending.len() as u64 != offset || self.pending.len() + data.len() > BATCH {
            self.send()?;
            self.start = offset;
        }
        self.pending.extend_from_slice(data);
        Ok(())
    }

    fn send(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.device.write_at(self.start, &self.pending)?;
            self.pending.clear();
        }
        Ok(())
    }

    /// Writes what is left.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.send()
    }
}
